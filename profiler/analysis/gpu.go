package analysis

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/omni-run/omni/profiler/telemetry"
)

// GPU is what one GPU did over the time of a session.
type GPU struct {
	telemetry.Device
	// Gauges are the numbers that it reported.
	Gauges []GaugeSeries `json:"gauges"`
	// Throttled is the share of samples in which something kept the clocks down, over the same intervals.
	Throttled []*float64 `json:"throttled"`
}

// GaugeSeries is one of [telemetry.Gauges] over the time of a session: means over equal intervals, nil where nothing was
// reported.
type GaugeSeries struct {
	Name   string     `json:"name"`
	Unit   string     `json:"unit"`
	Values []*float64 `json:"values"`
}

// GPUUse is what the GPU of one worker did during its recording. A nil field was not reported.
type GPUUse struct {
	Device         int      `json:"device"`
	Samples        int      `json:"samples"`
	BusyPercent    *float64 `json:"busy_pct"`
	PowerWatts     *float64 `json:"power_w"`
	PowerMaxWatts  *float64 `json:"power_max_w"`
	EnergyJoules   *float64 `json:"energy_j"`
	SMClockMHz     *float64 `json:"sm_clock_mhz"`
	SMClockMinMHz  *float64 `json:"sm_clock_min_mhz"`
	MemoryClockMHz *float64 `json:"memory_clock_mhz"`
	MemoryMaxBytes *float64 `json:"memory_max_bytes"`
	TemperatureC   *float64 `json:"temperature_max_c"`
	// Throttled is the share of samples in which something kept the clocks down, Throttle what that was.
	Throttled float64  `json:"throttled"`
	Throttle  []string `json:"throttle"`
}

// gauge sums up one number.
type gauge struct {
	n             int
	sum, min, max float64
}

func add[T uint32 | uint64 | float64](g *gauge, p *T) {
	if p == nil {
		return
	}
	g.add(float64(*p))
}

func (g *gauge) add(v float64) {
	if g.n == 0 {
		g.min, g.max = v, v
	}
	g.n, g.sum, g.min, g.max = g.n+1, g.sum+v, min(g.min, v), max(g.max, v)
}

func (g *gauge) mean() *float64 { return g.reported(g.sum / float64(g.n)) }

// reported is nil if nothing was.
func (g *gauge) reported(v float64) *float64 {
	if g.n == 0 {
		return nil
	}
	return &v
}

// gpuUse sums up the samples of a worker's GPU.
type gpuUse struct {
	device, samples, throttled                   int
	seconds                                      float64
	busy, power, sm, memoryClock, memory, warmth gauge
	reasons                                      map[string]bool
}

func (u *gpuUse) add(s *telemetry.Sample) {
	u.device, u.samples = s.Device, u.samples+1
	add(&u.busy, s.BusyPercent)
	add(&u.power, s.PowerWatts)
	add(&u.sm, s.SMClockMHz)
	add(&u.memoryClock, s.MemoryClockMHz)
	add(&u.memory, s.MemoryUsedBytes)
	add(&u.warmth, s.TemperatureC)
	if len(s.Throttle) > 0 {
		u.throttled++
	}
	for _, reason := range s.Throttle {
		if u.reasons == nil {
			u.reasons = map[string]bool{}
		}
		u.reasons[reason] = true
	}
}

// use is nil if there were no samples.
func (u *gpuUse) use() *GPUUse {
	if u.samples == 0 {
		return nil
	}
	use := &GPUUse{
		Device: u.device, Samples: u.samples, BusyPercent: u.busy.mean(), PowerWatts: u.power.mean(), PowerMaxWatts: u.power.reported(u.power.max),
		SMClockMHz: u.sm.mean(), SMClockMinMHz: u.sm.reported(u.sm.min), MemoryClockMHz: u.memoryClock.mean(),
		MemoryMaxBytes: u.memory.reported(u.memory.max), TemperatureC: u.warmth.reported(u.warmth.max),
		Throttled: float64(u.throttled) / float64(u.samples), Throttle: slices.Sorted(maps.Keys(u.reasons)),
	}
	if use.PowerWatts != nil {
		joules := *use.PowerWatts * u.seconds
		use.EnergyJoules = &joules
	}
	return use
}

// readTelemetry reads what GPUs did: into intervals of the session's time, and for every worker on a GPU the time of its
// recording. Nothing else is kept, so the length of the file does not matter.
func (s *Session) readTelemetry(path string) error {
	start, end := s.window()
	width := float64(end-start) / Intervals
	type series struct {
		numbers   [len(telemetry.Gauges)][Intervals]gauge
		throttled [Intervals]gauge
	}
	all := map[int]*series{}
	workers := map[int][]*Worker{}
	for _, w := range s.Workers {
		if device, ok := s.device(w); ok {
			workers[device] = append(workers[device], w)
			w.gpu.seconds = float64(w.EndNS-w.StartNS) / 1e9
		}
	}
	devices, err := telemetry.Read(path, func(sample telemetry.Sample) error {
		for _, w := range workers[sample.Device] {
			if sample.NS >= w.StartNS && sample.NS <= w.EndNS {
				w.gpu.add(&sample)
			}
		}
		if sample.NS < start || sample.NS > end || width <= 0 {
			return nil
		}
		of := all[sample.Device]
		if of == nil {
			of = &series{}
			all[sample.Device] = of
		}
		i := min(Intervals-1, int(float64(sample.NS-start)/width))
		for n, g := range telemetry.Gauges {
			if v, ok := g.Of(&sample); ok {
				of.numbers[n][i].add(v)
			}
		}
		down := 0.0
		if len(sample.Throttle) > 0 {
			down = 1
		}
		of.throttled[i].add(down)
		return nil
	})
	for _, d := range devices {
		of := all[d.Index]
		if of == nil {
			continue // it was never asked while the workers recorded
		}
		gpu := &GPU{Device: d, Gauges: []GaugeSeries{}, Throttled: means(&of.throttled)}
		for n, g := range telemetry.Gauges {
			if slices.ContainsFunc(of.numbers[n][:], func(g gauge) bool { return g.n > 0 }) {
				gpu.Gauges = append(gpu.Gauges, GaugeSeries{Name: g.Name, Unit: g.Unit, Values: means(&of.numbers[n])})
			}
		}
		s.GPUs = append(s.GPUs, gpu)
	}
	return err
}

func means(gauges *[Intervals]gauge) []*float64 {
	list := make([]*float64, Intervals)
	for i := range gauges {
		list[i] = gauges[i].mean()
	}
	return list
}

// device is the number of the GPU that a worker ran on, if it did. NVML counts GPUs by their place on the bus, as CUDA
// does with CUDA_DEVICE_ORDER=PCI_BUS_ID.
func (s *Session) device(w *Worker) (int, bool) {
	known := s.known(w)
	if known == nil {
		return 0, false
	}
	name, ok := strings.CutPrefix(known.Device, "cuda")
	if !ok {
		return 0, false
	}
	index, err := strconv.Atoi(strings.TrimPrefix(name, ":"))
	return index, err == nil || name == ""
}
