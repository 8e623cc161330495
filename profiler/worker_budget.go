package profiler

import (
	"encoding/json"
	"time"
)

const (
	// budgetPoll is how often an idle worker asks its recorder whether a budget of events or megabytes is used up.
	budgetPoll = 100 * time.Millisecond
	// faultPoll is how often a busy worker without such budgets asks it whether it can go on.
	faultPoll = time.Second
)

// expire is called by the timer, while steps run or not: it ends a session whose time is over or whose budget is used up.
// Where that takes the goroutine that runs the operators, it does so between two steps, or is asked to Settle.
//
// max_seconds counts from the beginning of the recording. While a session is still armed it counts from the last step: a
// worker that gets no work would wait for its first recorded step for ever.
func (w *Worker) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return // it was stopped too late
	}
	reason := w.overrun()
	switch {
	case reason == "":
		w.schedule()
	case !w.cut(reason):
		w.wake()
	}
}

// overrun says which budget is used up, if one is.
func (w *Worker) overrun() string {
	switch {
	case !w.active || w.ended:
		return ""
	case w.overdue() && w.begun.Config.idleLimit() > 0:
		return EndIdle
	case w.overdue():
		return EndMaxSeconds
	}
	return w.exhausted()
}

// overdue reports whether max_seconds, or the time that an idle worker may wait, is over.
func (w *Worker) overdue() bool { return !w.deadline.IsZero() && !w.now().Before(w.deadline) }

// exhausted says why the recorder takes no more events, "" if it does.
func (w *Worker) exhausted() string {
	now := w.now()
	if w.recorder == nil || (!w.begun.Config.sized() && now.Sub(w.asked) < faultPoll) {
		return ""
	}
	w.asked = now
	status, err := statusOf(w.recorder)
	if err != nil {
		return "" // it will say so when it is stopped
	}
	return status.Full
}

// sized reports whether there is a budget of events or megabytes.
func (c Config) sized() bool { return c.MaxEvents > 0 || c.MaxTraceMB > 0 }

// arm sets the deadline anew.
func (w *Worker) arm() {
	w.disarm()
	if limit := w.begun.Config.MaxSeconds; limit > 0 {
		w.deadline = w.now().Add(time.Duration(limit * float64(time.Second)))
	}
	w.schedule()
}

// schedule sets the timer to the next moment at which Expire has something to do.
func (w *Worker) schedule() {
	w.stopTimer()
	wait := time.Duration(-1)
	if !w.deadline.IsZero() {
		wait = max(0, w.deadline.Sub(w.now()))
	}
	if w.recorder != nil && w.begun.Config.sized() && (wait < 0 || wait > budgetPoll) {
		wait = budgetPoll
	}
	if wait >= 0 {
		w.timer = time.AfterFunc(wait, w.expire)
	}
}

// idles begins the time that an idle worker may wait for its next step, unless it has begun.
func (w *Worker) idles() {
	limit := w.begun.Config.idleLimit()
	if !w.active || w.ended || limit == 0 || !w.deadline.IsZero() {
		return
	}
	w.deadline = w.now().Add(limit)
	w.schedule()
}

// works ends that time. The timer that is left finds nothing to do.
func (w *Worker) works() {
	if w.begun.Config.idleLimit() > 0 {
		w.deadline = time.Time{}
	}
}

func (w *Worker) disarm() {
	w.deadline = time.Time{}
	w.stopTimer()
}

func (w *Worker) stopTimer() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// statusOf asks a recorder how far it has come.
func statusOf(r Recorder) (RecorderStatus, error) {
	var status RecorderStatus
	text, err := r.Status()
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	return status, err
}
