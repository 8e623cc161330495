package profiler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Worker is the profiling state machine of one worker process. The loop that runs the engine calls StepBegin and StepEnd
// around every step, also when no session is active, and Start, Stop, Idle and Settle between steps. Whoever cannot wait
// for the end of a step calls Cut and Dump.
//
// An iteration is one such step: a scheduler step of an autoregressive stage, a chunk of a generation stage, a denoise step
// of a diffusion rank. With delay_iterations=3 recording begins in the 3rd StepBegin. With max_iterations=2 it ends in the
// StepBegin after two recorded steps, and the session stays active until it is stopped. A step that a Cut or a budget goes
// through is no iteration.
//
// A worker with a flight recorder records into a ring whenever no session does; see StartRing and Dump.
//
// Cut, Dump, Report, Wait and WaitSession may be called from anywhere; everything else belongs to the goroutine that runs
// the operators.
type Worker struct {
	identity Identity
	start    StartRecorder
	now      func() time.Time
	due      chan struct{} // holds a token when Settle may have something to do

	mu       sync.Mutex // guards what follows; recorders are called under it, but for what can take long
	changing bool       // a change of the session goes on without the lock; see unlocked
	active   bool
	begun    Start    // of the active session
	counted  int      // StepBegin calls since Start
	warmUp   Recorder // of warm-up steps, nil outside of them
	recorder Recorder // nil unless it records
	ended    bool     // the session's recording has begun and ended, or will never begin
	stepOpen bool
	waiting  bool      // the scope of an idle interval is open, in recorder or ring
	deadline time.Time // of max_seconds, or of the step that an idle worker waits for; zero when there is none
	timer    *time.Timer
	asked    time.Time // when the recorder was last asked whether it is full
	ring     ring
	caller   uintptr        // of StepBegin or Idle
	left     []func() error // what is still to be done with recorders on the goroutine that runs the operators

	current    *job
	previous   *job
	ringReport *Ring
}

// NewWorker returns a Worker without a session. start makes the recordings.
func NewWorker(identity Identity, start StartRecorder) *Worker {
	return &Worker{identity: identity, start: start, now: time.Now, due: make(chan struct{}, 1)}
}

// Start begins a session: it records at once, or arms the delay. While a session is active it does nothing. If
// recording cannot begin, the worker stays inactive and the error says why. The files of one session may still be
// being written when the next begins, those of two may not: what waits to be written is held in memory.
func (w *Worker) Start(start Start) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.settle() // it was about a session that has ended
	if w.active {
		return nil
	}
	if !start.Config.Enabled() {
		return ErrNotEnabled
	}
	if err := w.open(start); err != nil {
		return err
	}
	w.active, w.counted, w.ended = true, 0, false
	if start.Config.DelayIterations == 0 && !start.Config.scheduled() {
		return w.record()
	}
	w.arm()
	return nil
}

// StepBegin marks the beginning of an iteration. Its error concerns the profile only: the step itself must go on.
func (w *Worker) StepBegin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.caller = callerOf(0)
	err := errors.Join(w.settle(), w.endWait(), w.stepOfSession())
	return errors.Join(err, w.ringStepBegin())
}

// stepOfSession is StepBegin for the session, if one is active.
func (w *Worker) stepOfSession() error {
	if !w.active || w.ended {
		return nil
	}
	w.works()
	w.counted++
	if ready, err := w.prepare(); !ready || err != nil {
		if err == nil {
			w.arm() // it is not idle
		}
		return err
	}
	if limit, reason := w.begun.Config.limit(); limit > 0 && w.steps() >= int64(limit) {
		return w.end(reason)
	}
	if w.overdue() {
		return w.end(EndMaxSeconds)
	}
	if err := w.beginStep(w.recorder, &w.begun.Config, int64(w.counted-1)); err != nil {
		return w.broken("begin profiler step", err)
	}
	w.stepOpen = true
	return nil
}

// beginStep opens the annotation of a step.
func (w *Worker) beginStep(r Recorder, c *Config, number int64) error {
	if err := w.noteSite(r, c, stepSite); err != nil {
		return err
	}
	return r.StepBegin(number)
}

// beginWait opens the annotation of an idle interval.
func (w *Worker) beginWait(r Recorder, c *Config) error {
	if err := w.noteSite(r, c, waitScope); err != nil {
		return err
	}
	return r.ScopeBegin(waitScope)
}

// noteSite tells a recorder with_stack where the annotation of that name is opened, which is where Worker's caller stands.
func (w *Worker) noteSite(r Recorder, c *Config, name string) error {
	if !c.TorchProfilerWithStack {
		return nil
	}
	return r.CallSite(name, callSite(w.caller))
}

// prepare brings the session to where it must be in the step that begins, and reports whether that step is recorded.
func (w *Worker) prepare() (recording bool, err error) {
	config := w.begun.Config
	// The first step after the delay is number 1: that in which the delay ends, or the first of all without one.
	step := w.counted - max(config.DelayIterations, 1) + 1
	switch {
	case step < 1 || config.scheduled() && step <= config.WaitIterations:
		return false, nil
	case config.scheduled() && step <= config.WaitIterations+config.WarmupIterations:
		return false, w.beginWarmUp()
	case w.recorder != nil:
		return true, nil
	}
	if err := w.endWarmUp(); err != nil {
		return false, w.fail(fmt.Errorf("end warm-up of session %s in %s: %w", w.begun.Session, w.identity.Worker, err))
	}
	return true, w.record()
}

// StepEnd marks the end of an iteration. Its error concerns the profile only. A recorder that is full by then ends the
// session.
func (w *Worker) StepEnd() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := errors.Join(w.settle(), w.ringStepEnd()); err != nil || !w.stepOpen {
		return err
	}
	if err := w.closeStep(); err != nil {
		return err
	}
	if reason := w.exhausted(); reason != "" {
		return w.end(reason)
	}
	return nil
}

// closeStep closes the step's annotation, if one is open.
func (w *Worker) closeStep() error {
	if !w.stepOpen {
		return nil
	}
	w.stepOpen = false
	if err := w.recorder.StepEnd(); err != nil {
		return w.broken("end profiler step", err)
	}
	w.update(func(r *Report) { r.Steps++ })
	return nil
}

// waitScope names the annotation of the time in which a worker has nothing to step.
const waitScope = "stage.wait"

// Idle says that there is nothing to step. What is recorded holds one slice from the first such call to the next step.
func (w *Worker) Idle() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idles()
	if w.waiting {
		return nil
	}
	w.caller = callerOf(0)
	switch {
	case w.recorder != nil:
		if err := w.beginWait(w.recorder, &w.begun.Config); err != nil {
			return w.broken("begin "+waitScope, err)
		}
	case w.ring.recorder != nil:
		if err := w.beginWait(w.ring.recorder, w.ring.config); err != nil {
			return w.ringBroken(err)
		}
	default:
		return nil
	}
	w.waiting = true
	return nil
}

// endWait closes the slice of an idle interval, if one is open.
func (w *Worker) endWait() error {
	if !w.waiting {
		return nil
	}
	w.waiting = false
	switch {
	case w.recorder != nil:
		if err := w.recorder.ScopeEnd(); err != nil {
			return w.broken("end "+waitScope, err)
		}
	case w.ring.recorder != nil:
		if err := w.ring.recorder.ScopeEnd(); err != nil {
			return w.ringBroken(err)
		}
	}
	return nil
}

// Stop ends the session and returns its report, whose state is StateWriting unless there was nothing to write or a
// budget ended the recording before. Without an active session it does nothing and returns the report of the last.
func (w *Worker) Stop() (Report, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.stop(EndStop)
	return w.report(), err
}

// Discard ends the session, if one is active, without leaving files.
func (w *Worker) Discard(reason error) Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.active:
	case w.ended: // its files are there already
		_ = w.stop(EndStop)
	default:
		err := w.endWarmUp()
		if w.recorder != nil {
			err = errors.Join(err, w.recorder.Stop())
		}
		_ = w.fail(errors.Join(reason, err)) // it is in the report
	}
	return w.report()
}

// Shutdown stops the session, if there is one, and the ring, and waits until the files are complete or ctx ends.
func (w *Worker) Shutdown(ctx context.Context) (Report, error) {
	stopErr := w.shutdown()
	report, err := w.Wait(ctx)
	return report, errors.Join(stopErr, err)
}

func (w *Worker) shutdown() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ring.config = nil
	return errors.Join(w.settle(), w.stop(EndShutdown), w.pauseRing())
}

// IsRunning reports whether a session is active, as is_running of vLLM-Omni's profilers does.
func (w *Worker) IsRunning() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

// stop ends the session for the given reason.
func (w *Worker) stop(reason string) error {
	if !w.active {
		return nil
	}
	w.active = false
	w.update(func(r *Report) { r.Active = false }) // first, so that no report of complete files says otherwise
	err := w.end(reason)
	if !w.ended { // it is stopped before its first recorded step
		w.endUnrecorded(reason)
		err = errors.Join(err, w.settle())
	}
	return err
}

// unlocked calls what can take long without the lock. Meanwhile nobody but the caller changes the session.
func (w *Worker) unlocked(call func()) {
	w.changing = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.changing = false
	}()
	call()
}

// fail ends the session with an error, which it returns. The recorder, if there is one, has ended collection.
func (w *Worker) fail(err error) error {
	w.stepOpen, w.active, w.waiting, w.ended = false, false, false, true
	w.disarm()
	recorder := w.recorder
	w.recorder = nil
	w.current.fail(recorder, err)
	return errors.Join(err, w.resumeRing())
}

// broken ends the session because its recorder refused a call.
func (w *Worker) broken(call string, err error) error {
	return w.fail(fmt.Errorf("%s: %w", call, errors.Join(err, w.recorder.Stop())))
}
