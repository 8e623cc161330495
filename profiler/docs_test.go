package profiler_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler"
)

// The table of settings has every field with its default, and nothing else.
func TestDocumentationHasEverySetting(t *testing.T) {
	text, err := os.ReadFile("../docs/profiling.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "| setting | default | meaning |")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n\n")
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(section, -1) {
		documented[row[1]] = row[2]
	}
	want := map[string]string{}
	for name, value := range profiler.Default().ToMap() {
		switch v := value.(type) {
		case nil:
			want[name] = "null"
		case []string:
			want[name] = strings.Join(v, ",")
		case string:
			want[name] = v
			if v == "" {
				want[name] = `""`
			}
		default:
			want[name] = fmt.Sprint(v)
		}
	}
	require.Equal(t, want, documented)
}
