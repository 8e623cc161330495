package pipeline

import (
	"fmt"
	"slices"
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

// The words before a crash and its first lines are kept, however much follows and however the writes are cut.
func TestTailKeepsTheBeginningOfACrash(t *testing.T) {
	stacks := strings.Repeat("goroutine 7 [running]:\n", 2000)
	tests := map[string]struct{ text, want, not string }{
		"a library that aborts": {"start\nterminate called\n  what():  bad size\nSIGABRT: abort\nPC=0x1\n" + stacks, "terminate called\n  what():  bad size\nSIGABRT: abort\nPC=0x1", ""},
		"a panic at once":       {"panic: boom\n\n" + stacks, "panic: boom", ""},
		"after much else":       {strings.Repeat("line\n", 5000) + "last\nSIGSEGV: segmentation violation\n" + stacks, "last\nSIGSEGV: segmentation violation", ""},
		"a second crash":        {"fatal error: first\n" + stacks + "panic: second\n", "fatal error: first", "second"},
		"a mark inside a line":  {"no panic: here\n" + strings.Repeat("line\n", 5000), "line", "panic"},
	}
	for name, tt := range tests {
		for _, size := range []int{1, 7, 4096, 1 << 20} {
			t.Run(fmt.Sprintf("%s by %d", name, size), func(t *testing.T) {
				var w tail
				for piece := range slices.Chunk([]byte(tt.text), size) {
					if n, err := w.Write(piece); n != len(piece) || err != nil {
						t.Fatalf("write: %d, %v", n, err)
					}
				}
				got := w.words()
				if !strings.Contains(got, tt.want) || (tt.not != "" && strings.Contains(got, tt.not)) || len(got) > tailSize {
					t.Errorf("got %d bytes %.300q, want them to hold %q, not %q", len(got), got, tt.want, tt.not)
				}
			})
		}
	}
}
