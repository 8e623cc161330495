package analysis

import (
	"cmp"
	"fmt"
	"slices"
)

// WorkerOps are the operators of one worker.
type WorkerOps struct {
	Stage  int    `json:"stage"`
	Worker string `json:"worker"`
	// BusyNS is what shares of self time refer to.
	BusyNS int64 `json:"busy_ns"`
	Ops    []*Op `json:"ops"`
	// DeviceOps are what GPUs did, which is not in Ops, and DeviceNS is what its shares refer to. Empty without GPUs.
	DeviceOps []*Op `json:"device_ops,omitempty"`
	DeviceNS  int64 `json:"device_ns,omitempty"`
}

// Order says by what operators are sorted.
type Order string

// The orders.
const (
	BySelf   Order = "self"
	ByTotal  Order = "total"
	ByCalls  Order = "calls"
	ByDevice Order = "device"
)

// TopOptions choose operators.
type TopOptions struct {
	By    Order
	Limit int // per worker; 0 for all
	// Stage is the only one to look at, -1 for all.
	Stage int
	// Annotations includes names that a program gave, modules and steps among them.
	Annotations bool
}

// Top returns the operators of each worker that come first in an order.
func (s *Session) Top(o TopOptions) ([]WorkerOps, error) {
	value := func(op *Op) int64 { return op.SelfNS }
	switch o.By {
	case BySelf:
	case ByTotal:
		value = func(op *Op) int64 { return op.TotalNS }
	case ByCalls:
		value = func(op *Op) int64 { return op.Calls }
	case ByDevice:
		value = func(op *Op) int64 { return op.DeviceNS }
	default:
		return nil, fmt.Errorf("operators cannot be sorted by %q; want %s, %s, %s or %s", o.By, BySelf, ByTotal, ByCalls, ByDevice)
	}
	list := []WorkerOps{}
	for _, w := range s.Workers {
		if o.Stage >= 0 && w.Stage != o.Stage {
			continue
		}
		ops := slices.DeleteFunc(slices.Clone(w.Ops), func(op *Op) bool { return op.Annotation() && !o.Annotations })
		device := slices.Clone(w.DeviceOps)
		for _, ops := range []*[]*Op{&ops, &device} {
			slices.SortStableFunc(*ops, func(a, b *Op) int { return cmp.Compare(value(b), value(a)) })
			if o.Limit > 0 {
				*ops = (*ops)[:min(o.Limit, len(*ops))]
			}
		}
		list = append(list, WorkerOps{Stage: w.Stage, Worker: w.Worker, BusyNS: w.BusyNS, Ops: ops, DeviceOps: device, DeviceNS: w.DeviceNS})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("session %s has no trace of stage %d", s.ID, o.Stage)
	}
	return list, nil
}
