package analysis

// Timeline is how busy each stage was over the time of a session.
type Timeline struct {
	StartNS int64   `json:"start_ns"`
	EndNS   int64   `json:"end_ns"`
	Stages  []Track `json:"stages"`
}

// Track is one worker over time.
type Track struct {
	Stage  int    `json:"stage"`
	Worker string `json:"worker"`
	// Busy is the share of each of the equal intervals between StartNS and EndNS that was spent in steps.
	Busy []float64 `json:"busy"`
}

// Timeline divides the session's time into n intervals.
func (s *Session) Timeline(n int) *Timeline {
	t := &Timeline{StartNS: s.Workers[0].StartNS, EndNS: s.Workers[0].EndNS}
	for _, w := range s.Workers {
		t.StartNS, t.EndNS = min(t.StartNS, w.StartNS), max(t.EndNS, w.EndNS)
	}
	width := float64(t.EndNS-t.StartNS) / float64(n)
	for _, w := range s.Workers {
		track := Track{Stage: w.Stage, Worker: w.Worker, Busy: make([]float64, n)}
		for _, step := range w.steps {
			from, to := float64(step.startNS-t.StartNS)/width, float64(step.startNS+step.ns-t.StartNS)/width
			for i := max(0, int(from)); i < n && float64(i) < to; i++ {
				track.Busy[i] += min(to, float64(i+1)) - max(from, float64(i))
			}
		}
		t.Stages = append(t.Stages, track)
	}
	return t
}
