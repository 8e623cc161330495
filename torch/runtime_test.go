package torch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func writeFile(t *testing.T, folder, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRuntimeInfo(t *testing.T) {
	checkNoLeaks(t)
	onThread(t, func() {})
	data, err := RuntimeInfo()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Torch         string
		ABI           int
		Compiler      string
		CPUCapability string `json:"cpu_capability"`
		Threads       int
		CUDA          struct {
			Opened  bool
			Devices int
		}
	}
	if err := json.Unmarshal(data, &info); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(info.Torch, "2.") || info.ABI != ABIVersion() || info.Compiler == "" ||
		info.CPUCapability == "" || info.Threads != 1 || info.CUDA.Opened != CUDABuild {
		t.Errorf("got %s, want versions, one thread and CUDA opened: %t", data, CUDABuild)
	}
}

func TestModels(t *testing.T) {
	checkNoLeaks(t)
	if got, err := Models(); err != nil || !reflect.DeepEqual(got, []string{"fake"}) {
		t.Errorf("got %v, %v, want the fake library's [fake]", got, err)
	}
}

func TestLiveKnowsItsClasses(t *testing.T) {
	checkNoLeaks(t)
	for _, class := range handleClasses {
		if n := Live(class); n < 0 {
			t.Errorf("class %q: got %d, want a count", class, n)
		}
	}
	if n := Live("thread"); n != -1 {
		t.Errorf("an unknown class: got %d, want -1", n)
	}
}

func TestInitRefusesBadThreadCounts(t *testing.T) {
	checkNoLeaks(t)
	onThread(t, func() {
		wantCode(t, Init(-1), InvalidArgument, `"threads"`, "found -1")
		wantCode(t, Init(1<<20), InvalidArgument, `"threads"`)
	})
}

func TestCodesHaveTheNamesOfTheHeader(t *testing.T) {
	checkNoLeaks(t)
	header, err := os.ReadFile("../csrc/omni.h")
	if err != nil {
		t.Fatal(err)
	}
	for code := InvalidArgument; code <= Internal; code++ {
		entry := "OMNI_" + code.String() + " = " + string(rune('0'+int(code)))
		if !strings.Contains(string(header), entry) {
			t.Errorf("csrc/omni.h lacks %q", entry)
		}
	}
	if got := Code(99).String(); got != "Code(99)" {
		t.Errorf("got %q for an unknown code, want Code(99)", got)
	}
}
