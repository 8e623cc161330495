package analysis

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/omni-run/omni/profiler/trace"
)

// class says what kind of thing an event of a category is.
type class int

const (
	hostClass   class = iota // operators and annotations, which nest on their thread
	launchClass              // calls of the CUDA runtime and driver: inside of the operator whose id they bear, but written later
	deviceClass              // what a GPU did for such an operator
	waitClass                // what stands beside work without being any: waiting of streams, and annotations drawn once more
)

func classOf(category string) class {
	switch category {
	case "cuda_runtime", "cuda_driver":
		return launchClass
	case "kernel", "gpu_memcpy", "gpu_memset":
		return deviceClass
	case "cuda_sync", "cuda_event", "gpu_user_annotation":
		return waitClass
	default:
		return hostClass
	}
}

// launchers are the operators that ran last, by the id that their calls and kernels bear. GPUs report late, so many are
// kept, and a fixed number: what comes later still belongs to nobody.
//
// They keep the trees that their operators stood in alive, so a trace without GPUs has none: a nil *launchers is empty.
type launchers [1 << 17]launcher

type launcher struct {
	id    int64
	start int64
	node  *Node
}

func (l *launchers) put(id int64, start int64, node *Node) {
	if id > 0 {
		l[id%int64(len(l))] = launcher{id, start, node}
	}
}

func (l *launchers) get(id int64) (launcher, bool) {
	if l == nil || id <= 0 {
		return launcher{}, false
	}
	found := l[id%int64(len(l))]
	return found, found.id == id && found.node != nil
}

// externalID is the number by which recorders join what a GPU does to the operator that asked for it, 0 if there is none.
func externalID(e *trace.Event) int64 {
	for key, value := range trace.Members(e.Args) {
		if string(key) == `"External id"` {
			id, _ := strconv.ParseInt(string(value), 10, 64) // a number that is none joins nothing
			return id
		}
	}
	return 0
}

// launch adds a call of the CUDA runtime to the operator that made it.
func (r *reading) launch(id int64, s slice) {
	from, ok := r.launchers.get(id)
	if !ok {
		r.calls.child(s.key).count(s.end - s.start)
		return
	}
	duration := s.end - s.start
	node := from.node.merged()
	node.SelfNS -= duration
	node.child(s.key).count(duration)
	if step := r.stepAt(from.start); step != nil {
		step.add(node.key, -duration)
		step.add(s.key, duration)
	}
}

// onDevice adds what a GPU did to the operator that asked for it, and to the step in which that ran.
func (r *reading) onDevice(id int64, s slice) {
	duration := s.end - s.start
	r.device.child(s.key).count(duration)
	from, ok := r.launchers.get(id)
	if !ok {
		return
	}
	node := from.node.merged()
	node.addDevice(s.key, duration)
	if step := r.stepAt(from.start); step != nil {
		step.addDevice(s.key, duration)
	}
}

// stepAt is the step that ran at a moment; nil if there was none, or if it has not been read yet: then it will count what
// its operators have.
func (s *sink) stepAt(at int64) *stepTimes {
	i, exact := slices.BinarySearchFunc(s.steps, at, func(t *stepTimes, at int64) int { return cmp.Compare(t.startNS, at) })
	if !exact {
		i--
	}
	if i < 0 || at >= s.steps[i].startNS+s.steps[i].ns {
		return nil
	}
	return s.steps[i]
}

// deviceOps sums up what GPUs did, the longest first.
func deviceOps(device *Node) (list []*Op, totalNS int64) {
	list = ops(device)
	for _, op := range list {
		op.DeviceNS = op.TotalNS
		totalNS += op.TotalNS
	}
	return list, totalNS
}
