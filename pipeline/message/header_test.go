package message

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The C header is where ABI and codes are defined; this package repeats them.
func TestABIAndCodesAreThoseOfTheHeader(t *testing.T) {
	text, err := os.ReadFile("../../csrc/omni.h")
	if err != nil {
		t.Fatal(err)
	}
	header := string(text)
	if want := fmt.Sprintf("#define OMNI_ABI_VERSION %du\n", ABI); !strings.Contains(header, want) {
		t.Errorf("csrc/omni.h does not say %q", want)
	}
	for i, name := range codeNames {
		if want := fmt.Sprintf("OMNI_%s = %d", name, i); !strings.Contains(header, want) {
			t.Errorf("csrc/omni.h does not say %q", want)
		}
	}
	if next := fmt.Sprintf(" = %d", len(codeNames)); strings.Contains(header[strings.Index(header, "OMNI_OK"):strings.Index(header, "} omni_code;")], next) {
		t.Errorf("csrc/omni.h has codes after %s", codeNames[len(codeNames)-1])
	}
}
