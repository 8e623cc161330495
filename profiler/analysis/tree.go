package analysis

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Node is a name at a place in the call tree.
type Node struct {
	Name     string
	Calls    int64
	TotalNS  int64 // with what it called
	SelfNS   int64 // without
	DeviceNS int64 // of GPUs, for what it asked of them by itself
	children map[nodeKey]*Node
	device   map[nodeKey]int64 // DeviceNS by what was done
	key      nodeKey
	into     *Node // that it has been added to, so that what is reported late still finds its place
}

// nodeKey tells nodes of one parent apart.
type nodeKey struct{ name, category string }

// Category is that of the events: cpu_op, user_annotation, kernel, ...
func (n *Node) Category() string { return n.key.category }

// Children are sorted by total time, the longest first.
func (n *Node) Children() []*Node {
	return slices.SortedFunc(maps.Values(n.children), func(a, b *Node) int {
		return cmp.Or(cmp.Compare(b.TotalNS, a.TotalNS), strings.Compare(a.Name, b.Name), strings.Compare(a.key.category, b.key.category))
	})
}

// child returns the node of a name below n.
func (n *Node) child(key nodeKey) *Node {
	c := n.children[key]
	if c == nil {
		c = &Node{Name: key.name, key: key}
		if n.children == nil {
			n.children = map[nodeKey]*Node{}
		}
		n.children[key] = c
	}
	return c
}

// add adds the numbers of another node and everything below it, which are n's from now on.
func (n *Node) add(other *Node) {
	n.Calls += other.Calls
	n.TotalNS += other.TotalNS
	n.SelfNS += other.SelfNS
	for key, ns := range other.device {
		n.addDevice(key, ns)
	}
	other.into = n
	for key, c := range other.children {
		n.child(key).add(c)
	}
}

// adopt adds what is below another root.
func (n *Node) adopt(root *Node) {
	for key, c := range root.children {
		n.child(key).add(c)
		n.TotalNS += c.TotalNS
	}
}

// merged is the node that n has been added to last, n itself if it has not.
func (n *Node) merged() *Node {
	for n.into != nil {
		n = n.into
	}
	return n
}

// count adds a call without anything below it.
func (n *Node) count(ns int64) {
	n.Calls++
	n.TotalNS += ns
	n.SelfNS += ns
}

// addDevice adds time of a GPU.
func (n *Node) addDevice(key nodeKey, ns int64) {
	if n.device == nil {
		n.device = map[nodeKey]int64{}
	}
	n.device[key] += ns
	n.DeviceNS += ns
}

// each visits n and everything below it.
func (n *Node) each(visit func(*Node)) {
	visit(n)
	for _, c := range n.children {
		c.each(visit)
	}
}

// stepPrefix begins the names of the annotations that recorders put around an iteration. One that the end of a recording
// went through is no step: its length says nothing about steps.
const (
	stepPrefix    = "ProfilerStep#"
	cutStep       = "cut ProfilerStep"
	cutStepPrefix = cutStep + "#"
)

// foldedName is the name under which calls are counted together: all steps are one.
func foldedName(name string) string {
	switch {
	case strings.HasPrefix(name, stepPrefix):
		return "ProfilerStep"
	case strings.HasPrefix(name, cutStepPrefix):
		return cutStep
	}
	return name
}

// slice is one complete event.
type slice struct {
	key        nodeKey
	step       bool // it is a step
	start, end int64
}

// track puts the slices of one thread into a tree. Recorders write either in the order of the starts, callers before what
// they call, or in the order of the ends, callers after; the track finds out which.
type track struct {
	sink *sink
	root *Node // of the track

	order   order
	stack   []frame // byStart: what is open, outermost first
	pending []item  // byEnd: what may yet get a caller
	last    int64   // byStart: start of the last slice

	rootNS int64 // time in slices without a caller, but for those of waiting
}

type order int

const (
	unknown order = iota
	byStart
	byEnd
)

// frame is an open slice.
type frame struct {
	node *Node
	end  int64
	step *stepTimes // that it runs in, nil outside of steps
}

// item is a finished slice with what it called.
type item struct {
	slice
	tree *Node
}

// maxPending bounds what waits for a caller.
const maxPending = 1 << 16

// put adds a slice and returns its node.
func (t *track) put(s slice) *Node {
	if t.order == unknown && len(t.pending) > 0 {
		prev := &t.pending[len(t.pending)-1]
		switch {
		case s.start == prev.start && s.end == prev.end: // either could be the caller
		case s.start >= prev.start && s.end <= prev.end:
			t.order = byStart
			first := *prev
			t.pending = t.pending[:len(t.pending)-1]
			t.flush(len(t.pending))
			t.last = first.start
			first.tree.into = t.open(first.slice)
		case s.start <= prev.start:
			t.order = byEnd
		}
	}
	if t.order == byStart {
		if s.start < t.last {
			t.sink.disordered++
			return t.alone(s)
		}
		t.last = s.start
		return t.open(s)
	}
	return t.close(s)
}

// open adds a slice whose callers are on the stack.
func (t *track) open(s slice) *Node {
	for len(t.stack) > 0 && t.stack[len(t.stack)-1].end <= s.start {
		t.stack = t.stack[:len(t.stack)-1]
	}
	parent, duration := frame{node: t.root}, s.end-s.start
	if len(t.stack) > 0 {
		parent = t.stack[len(t.stack)-1]
		parent.node.SelfNS -= duration
		parent.step.add(parent.node.key, -duration)
	} else if s.key.name != waitName {
		t.rootNS += duration
	}
	f := frame{node: parent.node.child(s.key), end: s.end, step: parent.step}
	f.node.count(duration)
	if s.step {
		f.step = t.sink.step(s.start, duration)
	}
	f.step.add(s.key, duration)
	t.stack = append(t.stack, f)
	return f.node
}

// close adds a slice after everything it called.
func (t *track) close(s slice) *Node {
	duration := s.end - s.start
	tree := &Node{Name: s.key.name, key: s.key, Calls: 1, TotalNS: duration, SelfNS: duration}
	from := len(t.pending)
	for from > 0 && t.pending[from-1].start >= s.start && t.pending[from-1].end <= s.end {
		from--
	}
	if t.order == byEnd && from == len(t.pending) && from > 0 && t.pending[from-1].end > s.start {
		t.sink.disordered++ // it overlaps what has ended before
	}
	for _, called := range t.pending[from:] {
		tree.SelfNS -= called.end - called.start
		tree.child(called.key).add(called.tree)
	}
	clear(t.pending[from:])
	t.pending = t.pending[:from]
	t.pending = append(t.pending, item{slice: s, tree: tree})
	if s.step && t.order == byEnd { // nothing calls a step
		t.flush(len(t.pending))
	}
	if len(t.pending) >= maxPending {
		t.flush(maxPending / 2)
	}
	return tree
}

// alone adds a slice that fits nowhere.
func (t *track) alone(s slice) *Node {
	n := t.root.child(s.key)
	n.count(s.end - s.start)
	return n
}

// flush gives up waiting for callers of the oldest n slices.
func (t *track) flush(n int) {
	for _, i := range t.pending[:n] {
		if i.key.name != waitName {
			t.rootNS += i.end - i.start
		}
		if i.step {
			times := t.sink.step(i.start, i.end-i.start)
			i.tree.each(func(n *Node) {
				times.add(n.key, n.SelfNS)
				for key, ns := range n.device {
					times.addDevice(key, ns)
				}
			})
		}
		t.root.child(i.key).add(i.tree)
	}
	t.pending = slices.Delete(t.pending, 0, n)
}

// sink is where the tracks of one worker put what concerns the worker.
type sink struct {
	steps      []*stepTimes
	stride     int // every which step has the times of its operators; 0 before the first
	disordered int64
}

// maxDetailed is how many steps keep the times of their operators. In a trace with more of them it is every second, fourth,
// ... step: memory does not grow with the trace, and a sample of steps says as much about them.
const maxDetailed = 4096

// stepTimes is one step: its start, from the trace's base while that is being read and in Unix time later, its length, and
// how long each operator took in it by itself; nil if the step is not among those that keep that. device is what GPUs did
// for it, at whatever time.
type stepTimes struct {
	startNS int64
	ns      int64
	self    map[nodeKey]int64
	device  map[nodeKey]int64
}

// step begins a step.
func (s *sink) step(startNS, ns int64) *stepTimes {
	s.stride = max(1, s.stride)
	if len(s.steps) == s.stride*maxDetailed {
		s.stride *= 2
		for i, t := range s.steps {
			if i%s.stride != 0 {
				t.self, t.device = nil, nil
			}
		}
	}
	t := &stepTimes{startNS: startNS, ns: ns}
	if len(s.steps)%s.stride == 0 {
		t.self = map[nodeKey]int64{}
	}
	s.steps = append(s.steps, t)
	return t
}

// add adds time to an operator; a nil t, and one that does not keep it, take no notice.
func (t *stepTimes) add(key nodeKey, ns int64) {
	if t != nil && t.self != nil {
		t.self[key] += ns
	}
}

// addDevice is add for the time of a GPU.
func (t *stepTimes) addDevice(key nodeKey, ns int64) {
	if t == nil || t.self == nil {
		return
	}
	if t.device == nil {
		t.device = map[nodeKey]int64{}
	}
	t.device[key] += ns
}
