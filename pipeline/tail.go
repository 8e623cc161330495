package pipeline

import (
	"bytes"
	"slices"
	"strings"
	"sync"
)

const (
	tailSize   = 8 << 10 // how much of a worker's output is kept
	crashLead  = 2 << 10 // of a crash: how much of what was printed before it
	crashTrail = 1 << 10 // of a crash: how much of what Go prints about it
)

// crashMarks begin the line with which Go reports a panic or a signal. Pages of stacks and registers follow, behind which
// the words of a library that crashed would be lost.
var crashMarks = [][]byte{
	[]byte("\npanic: "), []byte("\nfatal error: "), []byte("\nSIGABRT: "), []byte("\nSIGSEGV: "), []byte("\nSIGBUS: "),
	[]byte("\nSIGFPE: "), []byte("\nSIGILL: "),
}

// noise marks lines that libtorch's profiler prints on machines where nothing is wrong: no GPU, no tracing of the kernel.
// They are no last words of anybody.
var noise = []string{"gpuGetDeviceCount failed with code", "USDT:", "External init callback must run in same thread as registerClient"}

// tail is a writer that keeps the last bytes written to it, or the beginning of a crash. Writing never waits and never
// fails, so that a child that floods its standard error is not held up by its parent.
type tail struct {
	mu    sync.Mutex // guards what follows
	ring  [tailSize]byte
	end   int64  // bytes ever written
	crash []byte // what was printed about a crash, nil if there was none
	room  int    // bytes that crash still takes
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for piece := range slices.Chunk(p, tailSize/2) {
		t.add(piece)
	}
	return len(p), nil
}

// add writes at most half of the ring and looks for a crash in it.
func (t *tail) add(p []byte) {
	for rest := p; len(rest) > 0; {
		k := copy(t.ring[t.end%tailSize:], rest)
		t.end += int64(k)
		rest = rest[k:]
	}
	if t.crash != nil {
		n := min(len(p), t.room)
		t.crash, t.room = append(t.crash, p[:n]...), t.room-n
		return
	}
	kept := t.kept()
	if int64(len(kept)) == t.end {
		kept = append([]byte{'\n'}, kept...) // the first line has a beginning, too
	}
	fresh := kept[max(0, len(kept)-len(p)-len(crashMarks[1])):] // a mark may have begun before p
	for _, mark := range crashMarks {
		if i := bytes.Index(fresh, mark); i >= 0 {
			at := len(kept) - len(fresh) + i
			end := min(len(kept), at+crashTrail)
			t.crash, t.room = bytes.Clone(kept[max(0, at-crashLead):end]), at+crashTrail-end
			return
		}
	}
}

// kept returns what the ring holds, in order.
func (t *tail) kept() []byte {
	if t.end <= tailSize {
		return t.ring[:t.end:t.end]
	}
	at := t.end % tailSize
	return slices.Concat(t.ring[at:], t.ring[:at])
}

// words returns the beginning of a crash or the last bytes as text that can be printed: whole lines unless there is only
// one, without noise and control characters.
func (t *tail) words() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, cut := t.crash, len(t.crash) > crashLead
	if text == nil {
		text, cut = t.kept(), t.end > tailSize
	}
	lines := strings.Split(strings.ToValidUTF8(string(text), "?"), "\n")
	if cut && len(lines) > 1 && strings.Join(lines[1:], "") != "" {
		lines = lines[1:] // the first is a part of one
	}
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return slices.ContainsFunc(noise, func(n string) bool { return strings.Contains(line, n) })
	})
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, strings.Join(lines, "\n")))
}
