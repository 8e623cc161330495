package analysis

// Timeline is how busy each stage was over the time of a session, and what GPUs did.
type Timeline struct {
	StartNS int64   `json:"start_ns"`
	EndNS   int64   `json:"end_ns"`
	Stages  []Track `json:"stages"`
	GPUs    []*GPU  `json:"gpus"`
}

// Track is one worker over time.
type Track struct {
	Stage  int    `json:"stage"`
	Worker string `json:"worker"`
	// Busy is the share of each of the equal intervals between StartNS and EndNS that was spent in steps.
	Busy []float64 `json:"busy"`
}

// Intervals is how many equal intervals a session's time is divided into.
const Intervals = 400

// Timeline divides the session's time into intervals.
func (s *Session) Timeline() *Timeline {
	t := &Timeline{GPUs: s.GPUs}
	t.StartNS, t.EndNS = s.window()
	width := float64(t.EndNS-t.StartNS) / Intervals
	for _, w := range s.Workers {
		track := Track{Stage: w.Stage, Worker: w.Worker, Busy: make([]float64, Intervals)}
		for _, step := range w.steps {
			from, to := float64(step.startNS-t.StartNS)/width, float64(step.startNS+step.ns-t.StartNS)/width
			for i := max(0, int(from)); i < Intervals && float64(i) < to; i++ {
				track.Busy[i] += min(to, float64(i+1)) - max(from, float64(i))
			}
		}
		t.Stages = append(t.Stages, track)
	}
	return t
}

// window bounds the recordings of all workers.
func (s *Session) window() (startNS, endNS int64) {
	startNS, endNS = s.Workers[0].StartNS, s.Workers[0].EndNS
	for _, w := range s.Workers {
		startNS, endNS = min(startNS, w.StartNS), max(endNS, w.EndNS)
	}
	return startNS, endNS
}
