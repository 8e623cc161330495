package analysis

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omni-run/omni/profiler/trace"
)

// Worker is what one trace says.
type Worker struct {
	Path   string
	Worker string
	Stage  int
	Rank   int
	// StartNS and EndNS bound the recording, in Unix nanoseconds.
	StartNS int64
	EndNS   int64
	// BusyNS is the time in steps; in a trace without steps that in which the busiest thread ran something.
	BusyNS int64
	// StepNS has the length of every step.
	StepNS []int64
	// Events counts slices.
	Events int64
	// Disordered counts slices that did not fit between others: the times of their surroundings are not exact.
	Disordered int64
	// Ops are what ran on the host, sorted by self time, the longest first; DeviceOps what GPUs did, DeviceNS their sum.
	Ops       []*Op
	DeviceOps []*Op
	DeviceNS  int64
	// Calls is the root of the call tree over all threads.
	Calls *Node

	steps []*stepTimes
	gpu   gpuUse
}

// Op is everything of one name.
type Op struct {
	Name     string `json:"name"`
	Category string `json:"category"`
	Calls    int64  `json:"calls"`
	// TotalNS includes what it called, SelfNS does not.
	TotalNS int64 `json:"total_ns"`
	SelfNS  int64 `json:"self_ns"`
	// DeviceNS is what GPUs did for it: for what it asked of them by itself.
	DeviceNS int64 `json:"device_ns,omitempty"`
}

// shift moves the worker's times.
func (w *Worker) shift(ns int64) {
	w.StartNS += ns
	w.EndNS += ns
	for _, s := range w.steps {
		s.startNS += ns
	}
}

// Annotation reports whether the name was set by a program around what it does, rather than by an operator.
func (o *Op) Annotation() bool { return strings.HasSuffix(o.Category, "user_annotation") }

// ReadWorker reads a trace.
func ReadWorker(ctx context.Context, path string) (*Worker, error) {
	w := &Worker{Path: path, Calls: &Node{Name: "all"}}
	reading := reading{tracks: map[trackKey]*track{}, first: 1<<63 - 1, device: &Node{}, calls: &Node{}}
	header, err := trace.ReadHeader(path)
	if err != nil {
		return nil, err
	}
	if !header.WithoutGPUs() {
		reading.launchers = new(launchers)
	}
	header, err = trace.Read(ctx, path, func(e *trace.Event) error { reading.event(e); return nil })
	if err != nil {
		return nil, err
	}
	base, err := header.Base()
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", path, err)
	}
	who := header.Source()
	w.Worker, w.Stage, w.Rank = who.Worker, who.Stage, who.Rank
	if w.Worker == "" {
		w.Worker, _, _ = strings.Cut(filepath.Base(path), ".")
	}
	reading.finish(w, base)
	return w, nil
}

type trackKey struct{ process, thread trace.ID }

// reading is a trace that is being read.
type reading struct {
	sink
	tracks      map[trackKey]*track
	order       []*track // as they came
	first, last int64
	span        slice // of the whole recording, if the recorder says so
	cutNS       int64 // time in steps that the end of the recording went through
	events      int64

	launchers *launchers // nil if no GPUs took part
	device    *Node      // over what GPUs did
	calls     *Node      // over calls of the CUDA runtime that no operator made
}

// event takes an event in.
func (r *reading) event(e *trace.Event) {
	if e.Phase != trace.Complete {
		return
	}
	s := slice{
		key: nodeKey{foldedName(e.Name), e.Category}, step: strings.HasPrefix(e.Name, stepPrefix) && e.Category == "user_annotation",
		start: e.Time, end: e.End(),
	}
	if e.Category == "Trace" {
		r.span = s
		return
	}
	if s.key.name == cutStep {
		r.cutNS += s.end - s.start
	}
	r.events++
	r.first, r.last = min(r.first, s.start), max(r.last, s.end)
	switch classOf(e.Category) {
	case launchClass:
		r.launch(externalID(e), s)
		return
	case deviceClass:
		r.onDevice(externalID(e), s)
		return
	case waitClass:
		return
	case hostClass:
	}
	key := trackKey{e.Process, e.Thread}
	t := r.tracks[key]
	if t == nil {
		t = &track{sink: &r.sink, root: &Node{}}
		r.tracks[key] = t
		r.order = append(r.order, t)
	}
	node := t.put(s)
	if r.launchers != nil {
		r.launchers.put(externalID(e), s.start, node)
	}
}

// finish sums up.
func (r *reading) finish(w *Worker, base int64) {
	switch {
	case r.span.end > r.span.start:
		w.StartNS, w.EndNS = base+r.span.start, base+r.span.end
	case r.events > 0:
		w.StartNS, w.EndNS = base+r.first, base+r.last
	}
	w.Events, w.Disordered = r.events, r.disordered
	for _, t := range r.order {
		t.flush(len(t.pending))
		w.BusyNS = max(w.BusyNS, t.rootNS)
		w.Calls.adopt(t.root)
	}
	w.Calls.adopt(r.calls)
	w.steps = r.steps
	if len(w.steps) > 0 {
		w.BusyNS = r.cutNS
	}
	for _, s := range w.steps {
		s.startNS += base
		w.StepNS = append(w.StepNS, s.ns)
		w.BusyNS += s.ns
	}
	w.Ops = ops(w.Calls)
	w.DeviceOps, w.DeviceNS = deviceOps(r.device)
}

// ops sums the nodes of a tree by name.
func ops(root *Node) []*Op {
	byKey := map[nodeKey]*Op{}
	var list []*Op
	for _, top := range root.children {
		top.each(func(n *Node) {
			op := byKey[n.key]
			if op == nil {
				op = &Op{Name: n.Name, Category: n.key.category}
				byKey[n.key] = op
				list = append(list, op)
			}
			op.Calls += n.Calls
			op.TotalNS += n.TotalNS
			op.SelfNS += n.SelfNS
			op.DeviceNS += n.DeviceNS
		})
	}
	slices.SortFunc(list, func(a, b *Op) int {
		return cmp.Or(cmp.Compare(b.SelfNS, a.SelfNS), strings.Compare(a.Name, b.Name), strings.Compare(a.Category, b.Category))
	})
	return list
}
