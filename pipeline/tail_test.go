package pipeline

import (
	"strings"
	"testing"
)

func TestTailKeepsTheLastWords(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 1000)
	tests := map[string]struct {
		writes []string
		want   string
	}{
		"nothing":                {nil, ""},
		"one line":               {[]string{"hello\n"}, "hello"},
		"several writes":         {[]string{"a", "b\nc", "\n"}, "ab\nc"},
		"much at once":           {[]string{long, "end"}, "end"},
		"much, bit by bit":       {strings.SplitAfter(long, "\n"), "0123456789abcde"},
		"one line that is long":  {[]string{strings.Repeat("x", 3*tailSize)}, strings.Repeat("x", tailSize)},
		"control characters":     {[]string{"a\x1b[31mred\x00\x7f\r\n\tb"}, "a[31mred\n\tb"},
		"broken characters":      {[]string{"a\xffb"}, "a?b"},
		"noise of libtorch":      {[]string{"real\n[W 1 gpu.cpp:3] gpuGetDeviceCount failed with code 35\nUSDT: x\nends"}, "real\nends"},
		"nothing but noise":      {[]string{"ERROR External init callback must run in same thread as registerClient (1 != 2)\n"}, ""},
		"a line longer than all": {[]string{"first\n", strings.Repeat("y", tailSize+7), "\n"}, strings.Repeat("y", tailSize-1)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var w tail
			for _, text := range tt.writes {
				if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
					t.Fatalf("write: %d, %v", n, err)
				}
			}
			got := w.words()
			if len(got) > tailSize {
				t.Errorf("%d bytes are kept", len(got))
			}
			if !strings.HasSuffix(got, tt.want) || (tt.want == "" && got != "") {
				t.Errorf("got %.80q, want it to end with %.80q", got, tt.want)
			}
		})
	}
}
