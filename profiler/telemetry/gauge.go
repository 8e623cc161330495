package telemetry

// Gauge is one of the numbers of a sample, as people read it.
type Gauge struct {
	Name string
	Unit string
	// Of is the number in a sample, and false if the GPU did not report it.
	Of func(*Sample) (float64, bool)
}

// Gauges are all numbers of a sample: counters of merged traces and charts of pages are made of this table.
var Gauges = [...]Gauge{
	{"busy", "%", func(s *Sample) (float64, bool) { return number(s.BusyPercent) }},
	{"memory busy", "%", func(s *Sample) (float64, bool) { return number(s.MemoryBusyPercent) }},
	{"memory used", "MiB", func(s *Sample) (float64, bool) {
		bytes, ok := number(s.MemoryUsedBytes)
		return bytes / (1 << 20), ok
	}},
	{"power", "W", func(s *Sample) (float64, bool) { return number(s.PowerWatts) }},
	{"SM clock", "MHz", func(s *Sample) (float64, bool) { return number(s.SMClockMHz) }},
	{"memory clock", "MHz", func(s *Sample) (float64, bool) { return number(s.MemoryClockMHz) }},
	{"temperature", "C", func(s *Sample) (float64, bool) { return number(s.TemperatureC) }},
}

func number[T uint32 | uint64 | float64](p *T) (float64, bool) {
	if p == nil {
		return 0, false
	}
	return float64(*p), true
}
