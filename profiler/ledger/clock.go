package ledger

// Worker is what a session knows of one of its workers.
type Worker struct {
	Worker string `json:"worker"` // stage-0
	Stage  int    `json:"stage"`
	Rank   int    `json:"rank"`
	Device string `json:"device,omitempty"` // cpu, cuda:0
	// State is how the session ended there: done or failed.
	State string `json:"state"`
	// Ended says what ended the recording, Error what went wrong.
	Ended string `json:"ended,omitempty"`
	Error string `json:"error,omitempty"`
	// Steps, Events and Dropped are what the worker said of its recording.
	Steps   int64            `json:"steps"`
	Events  int64            `json:"events"`
	Dropped map[string]int64 `json:"dropped,omitempty"`
	// OverheadPercent is the share of the recorded time that recording took.
	OverheadPercent float64 `json:"overhead_pct"`
	Clock
}

// Clock is how a worker's clock stands to the pipeline's. The clocks of one host are one clock.
type Clock struct {
	// OffsetNS is the worker's time less the pipeline's at the same moment; the true value lies within ErrorNS of it.
	OffsetNS int64 `json:"offset_ns"`
	ErrorNS  int64 `json:"error_ns"`
}

// Correction is what must be added to the worker's times to make them the pipeline's. An offset that may be an error of
// its measurement corrects nothing.
func (c Clock) Correction() int64 {
	if max(c.OffsetNS, -c.OffsetNS) <= c.ErrorNS {
		return 0
	}
	return -c.OffsetNS
}

// DroppedTotal is the number of lost events for whatever reason.
func (w *Worker) DroppedTotal() int64 {
	var total int64
	for _, n := range w.Dropped {
		total += n
	}
	return total
}
