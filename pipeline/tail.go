package pipeline

import (
	"slices"
	"strings"
	"sync"
)

// tailSize is how much of a worker's output is kept.
const tailSize = 8 << 10

// noise marks lines that libtorch's profiler prints on machines where nothing is wrong: no GPU, no tracing of the kernel.
// They are no last words of anybody.
var noise = []string{"gpuGetDeviceCount failed with code", "USDT:", "External init callback must run in same thread as registerClient"}

// tail is a writer that keeps the last bytes written to it. Writing never waits and never fails, so that a child that
// floods its standard error is not held up by its parent.
type tail struct {
	mu   sync.Mutex // guards what follows
	ring [tailSize]byte
	end  int64 // bytes ever written
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if skip := n - tailSize; skip > 0 {
		t.end += int64(skip)
		p = p[skip:]
	}
	for len(p) > 0 {
		k := copy(t.ring[t.end%tailSize:], p)
		t.end += int64(k)
		p = p[k:]
	}
	return n, nil
}

// words returns the last bytes as text that can be printed: whole lines unless there is only one, without noise and
// control characters.
func (t *tail) words() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	start := max(0, t.end-tailSize)
	b := make([]byte, 0, t.end-start)
	for i := start; i < t.end; i++ {
		b = append(b, t.ring[i%tailSize])
	}
	lines := strings.Split(strings.ToValidUTF8(string(b), "?"), "\n")
	if start > 0 && len(lines) > 1 && strings.Join(lines[1:], "") != "" {
		lines = lines[1:] // the first is a part of one
	}
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return slices.ContainsFunc(noise, func(n string) bool { return strings.Contains(line, n) })
	})
	text := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, strings.Join(lines, "\n"))
	return strings.TrimSpace(text)
}
