package merge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/omni-run/omni/profiler/telemetry"
	"github.com/omni-run/omni/profiler/trace"
)

// Numbers of the processes of GPUs, which stand between the requests and the workers.
const (
	gpuPID    = missingPID + 100_000
	gpuStride = 1000
)

// slowdown is a reason that keeps the clocks of a GPU down.
type slowdown struct {
	device int
	reason string
}

func ordered(open map[slowdown]int64) []slowdown {
	return slices.SortedFunc(maps.Keys(open), func(a, b slowdown) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.reason, b.reason))
	})
}

// telemetry writes what GPUs did: counters, and a slice for as long as something kept a GPU's clocks down.
func (m *merger) telemetry(path string) error {
	if path == "" {
		return nil
	}
	since := map[slowdown]int64{} // Unix nanoseconds
	tids := map[slowdown]int64{}
	last := int64(0)
	end := func(s slowdown) error {
		if tids[s] == 0 {
			tids[s] = gpuPID + int64(s.device)*gpuStride + 1 + int64(len(tids))
			if err := m.metadata("thread_name", gpuPID+int64(s.device)*gpuStride, tids[s], "name", trace.AppendText(nil, s.reason)); err != nil {
				return err
			}
		}
		e := trace.Event{
			Phase: trace.Complete, Category: "throttle", Name: s.reason, Process: trace.Number(gpuPID + int64(s.device)*gpuStride),
			Thread: trace.Number(tids[s]), Time: max(0, since[s]-m.baseNS), Duration: last - since[s],
		}
		delete(since, s)
		return m.out.Write(&e)
	}
	devices, err := telemetry.Read(path, func(s telemetry.Sample) error {
		last = s.NS
		for _, g := range telemetry.Gauges {
			number, ok := g.Of(&s)
			if !ok {
				continue
			}
			m.result.Counters++
			err := m.out.Write(&trace.Event{
				Phase: trace.Counter, Name: g.Name + " " + g.Unit, Process: trace.Number(gpuPID + int64(s.Device)*gpuStride), Thread: trace.Number(0),
				Time: max(0, s.NS-m.baseNS), Args: fmt.Appendf(nil, `{"value": %g}`, number),
			})
			if err != nil {
				return err
			}
		}
		now := map[string]bool{}
		for _, reason := range s.Throttle {
			now[reason] = true
			if key := (slowdown{s.Device, reason}); since[key] == 0 {
				since[key] = s.NS
			}
		}
		for _, key := range ordered(since) {
			if key.device == s.Device && !now[key.reason] {
				if err := end(key); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range ordered(since) {
		if err := end(key); err != nil {
			return err
		}
	}
	for _, d := range devices {
		if err := m.name(gpuPID+int64(d.Index)*gpuStride, fmt.Sprintf("GPU %d, %s", d.Index, d.Name), d.UUID, 10+int64(d.Index)); err != nil {
			return err
		}
	}
	return nil
}
