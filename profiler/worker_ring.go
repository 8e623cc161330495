package profiler

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrNoRing says that a worker has no flight recorder that could be dumped, ErrRingPaused that it has one which does not
// record: a session has just had its place, or it broke, which the report says.
var (
	ErrNoRing     = errors.New("there is no flight recorder: set ring_seconds and recorder=" + RecorderStream)
	ErrRingPaused = errors.New("the flight recorder does not record: it begins again after a step or a session")
)

// ring is a worker's flight recorder. It records whenever no session does.
type ring struct {
	config   *Config  // nil without one
	recorder Recorder // nil while a session has its place
	counted  int64    // steps so far
	stepOpen bool
}

// StartRing begins to record into a ring of config's ring_seconds; it does nothing if that is 0.
func (w *Worker) StartRing(config Config) error {
	if config.RingSeconds == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ring.config = &config
	return w.resumeRing()
}

// Dump makes an ordinary session of what the ring holds: its report is in StateWriting, its files are written by a
// goroutine that ends by itself, and the ring goes on. It is refused while a session is active. Any goroutine, also in the
// middle of a step.
func (w *Worker) Dump(start Start) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.active:
		return fmt.Errorf("dump the ring of %s: session %s is active", w.identity.Worker, w.begun.Session)
	case w.ring.config == nil:
		return fmt.Errorf("dump the ring of %s: %w", w.identity.Worker, ErrNoRing)
	case w.ring.recorder == nil:
		return fmt.Errorf("dump the ring of %s: %w", w.identity.Worker, ErrRingPaused)
	}
	if err := w.open(start); err != nil {
		return err
	}
	dc := DumpConfig{Session: start.Session, BaseTimeNS: start.StampNS, Metadata: start.metadata()}
	dc.TracePath, dc.TablePath = start.paths(w.identity)
	began := w.now()
	text, err := json.Marshal(dc)
	var recorder Recorder
	if err == nil {
		recorder, err = w.ring.recorder.Dump(text)
	}
	if err != nil {
		err = fmt.Errorf("dump the ring of %s: %w", w.identity.Worker, err)
		w.current.fail(nil, err)
		return err
	}
	stopped := w.now()
	w.current.recording(recorder, began)
	w.update(func(r *Report) {
		r.State, r.Active, r.Ended = StateWriting, false, EndDump
		r.StartedNS, r.StoppedNS = 0, began.UnixNano() // how far back it reaches is known when it is written
		r.StopMS = float64(stopped.Sub(began)) / float64(time.Millisecond)
	})
	go w.current.finish(recorder, recorder.Close)
	return nil
}

// resumeRing begins to record into the ring, if there is to be one and nothing else records.
func (w *Worker) resumeRing() error {
	if w.ring.config == nil || w.ring.recorder != nil || w.recorder != nil || w.warmUp != nil {
		return nil
	}
	start := Start{Session: "ring", Config: *w.ring.config, StampNS: w.now().UnixNano()}
	rc, err := w.recorderConfig(&start)
	if err == nil {
		rc.TracePath, rc.TablePath, rc.MaxEvents, rc.MaxTraceBytes = "", "", 0, 0
		rc.RingSeconds = w.ring.config.RingSeconds
		w.ring.recorder, err = w.begin(rc)
	}
	if err != nil {
		w.ring.recorder = nil
		err = fmt.Errorf("flight recorder of %s: %w", w.identity.Worker, err)
	}
	w.reportRing(err)
	return err
}

// pauseRing makes room for another recorder. What the ring held is lost.
func (w *Worker) pauseRing() error {
	recorder := w.ring.recorder
	if recorder == nil {
		return nil
	}
	err := w.endWait()
	if w.ring.recorder == nil {
		return err // it broke just now
	}
	w.ring.recorder, w.ring.stepOpen = nil, false
	err = recorder.Stop()
	recorder.Close()
	w.reportRing(err)
	return err
}

func (w *Worker) ringStepBegin() error {
	w.ring.counted++
	if w.ring.recorder == nil {
		return nil
	}
	if err := w.beginStep(w.ring.recorder, w.ring.config, w.ring.counted-1); err != nil {
		return w.ringBroken(err)
	}
	w.ring.stepOpen = true
	return nil
}

func (w *Worker) ringStepEnd() error {
	if !w.ring.stepOpen {
		return nil
	}
	w.ring.stepOpen = false
	if err := w.ring.recorder.StepEnd(); err != nil {
		return w.ringBroken(err)
	}
	return nil
}

// ringBroken ends the ring because its recorder refused a call. The next session's end tries again.
func (w *Worker) ringBroken(err error) error {
	err = fmt.Errorf("flight recorder of %s: %w", w.identity.Worker, errors.Join(err, w.ring.recorder.Stop()))
	w.ring.recorder.Close()
	w.ring.recorder, w.ring.stepOpen = nil, false
	w.reportRing(err)
	return err
}

// reportRing tells the others about the ring.
func (w *Worker) reportRing(err error) {
	r := &Ring{Recording: w.ring.recorder != nil}
	if w.ring.config != nil {
		r.Seconds = w.ring.config.RingSeconds
	}
	if err != nil {
		r.Error = err.Error()
	}
	w.ringReport = r
}
