package merge

import (
	"fmt"

	"github.com/omni-run/omni/profiler/trace"
)

// nesting finds the slices of one track that overlap without nesting: Perfetto drops the later one. Our recorders write
// none; Kineto's own files have them where kernels of one stream overlap.
//
// It can tell as long as slices come in the order of their starts, callers first. A track in which one does not is left
// as it is: its recorder writes callers last, and does so because they nest.
type nesting struct {
	unordered        bool
	begun            bool
	start, end       int64 // of the last slice
	lanes            [][]int64
	movedAt, movedTo int64 // start and lane of the last slice that was moved
}

// place returns the lane for a slice: 0 is the track's own.
func (n *nesting) place(start, end int64) int64 {
	if n.unordered || n.begun && (start < n.start || start == n.start && end > n.end) {
		n.unordered, n.lanes = true, nil
		return 0
	}
	n.begun, n.start, n.end = true, start, end
	for lane := 0; ; lane++ {
		if lane == len(n.lanes) {
			n.lanes = append(n.lanes, nil)
		}
		open := n.lanes[lane]
		for len(open) > 0 && open[len(open)-1] <= start {
			open = open[:len(open)-1]
		}
		n.lanes[lane] = open
		if len(open) > 0 && open[len(open)-1] < end {
			continue
		}
		n.lanes[lane] = append(open, end)
		if lane > 0 {
			n.movedAt, n.movedTo = start, int64(lane)
		}
		return int64(lane)
	}
}

// follow returns the lane of the slice that an end of an arrow belongs to, which stands before it.
func (n *nesting) follow(at int64) int64 {
	if n.movedTo > 0 && n.movedAt == at {
		return n.movedTo
	}
	return 0
}

// lane moves an event that has been renamed to the lane it needs, and names that when it is new.
func (m *merger) lane(e *trace.Event, p *process) error {
	tid := e.Thread.Number
	n := p.nesting[tid]
	if n == nil {
		n = &nesting{}
		p.nesting[tid] = n
	}
	lane := int64(0)
	switch {
	case e.Phase == trace.Complete:
		lane = n.place(e.Time, e.End())
	case e.HasFlow:
		lane = n.follow(e.Time)
	}
	if lane == 0 {
		return nil
	}
	key := trace.ID{Text: fmt.Sprintf("overlap %d of %d", lane, tid), IsText: true}
	moved, ok := p.threads[key]
	if !ok {
		moved = p.pid + 1 + int64(len(p.threads))
		p.threads[key] = moved
		name := fmt.Appendf(nil, `"overlapping, %d"`, lane)
		if err := m.metadata("thread_name", p.pid, moved, "name", name); err != nil {
			return err
		}
	}
	e.Thread = trace.Number(moved)
	return nil
}
