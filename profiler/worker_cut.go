package profiler

import (
	"errors"
	"sync/atomic"
)

// Cut does what Stop does, from any goroutine and in the middle of a step: that step is not an iteration of the session,
// and what is recorded of it ends here. ok is false, and nothing has happened, if it takes the goroutine that runs the
// operators to end the session: because its recorder cannot end elsewhere, or is just beginning.
func (w *Worker) Cut() (report Report, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.active {
		return w.report(), true
	}
	w.active = false
	switch {
	case w.ended:
		w.update(func(r *Report) { r.Active = false })
	case !w.cut(EndStop):
		w.active = true
		return Report{}, false
	}
	return w.report(), true
}

// cut ends the collection of an active session from any goroutine, and reports whether it could.
func (w *Worker) cut(reason string) bool {
	switch {
	case w.changing:
		return false
	case w.recorder == nil:
		w.endUnrecorded(reason)
		return true
	}
	recorder := w.recorder
	began := w.now()
	if recorder.Cut() != nil {
		return false
	}
	release := lastOf(2, recorder.Close)
	w.leave(func() error {
		defer release()
		return recorder.Stop()
	})
	w.write(reason, began, w.now(), release)
	return true
}

// lastOf returns a function whose nth call calls f.
func lastOf(n int64, f func()) func() {
	var calls atomic.Int64
	return func() {
		if calls.Add(1) == n {
			f()
		}
	}
}

// Due delivers when the goroutine that runs the operators should call Settle, if it does nothing else.
func (w *Worker) Due() <-chan struct{} { return w.due }

// Settle does what has been left for the goroutine that runs the operators: it takes down recorders whose collection others
// have ended, lets the flight recorder go on, and ends a session whose budget is used up.
func (w *Worker) Settle() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.settle()
	switch reason := w.overrun(); {
	case reason == "":
		return err
	case w.recorder == nil:
		w.endUnrecorded(reason)
		return errors.Join(err, w.settle())
	default:
		return errors.Join(err, w.end(reason))
	}
}

// settle does what has been left.
func (w *Worker) settle() error {
	left := w.left
	if len(left) == 0 {
		return nil
	}
	w.left = nil
	var err error
	w.unlocked(func() {
		for _, do := range left {
			err = errors.Join(err, do())
		}
	})
	return errors.Join(err, w.resumeRing())
}

// leave adds something that Settle is to do.
func (w *Worker) leave(do func() error) {
	w.left = append(w.left, do)
	w.wake()
}

func (w *Worker) wake() {
	select {
	case w.due <- struct{}{}:
	default:
	}
}
