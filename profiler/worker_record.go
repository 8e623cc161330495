package profiler

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// record begins to record the active session.
func (w *Worker) record() error {
	rc, err := w.recorderConfig(&w.begun)
	if err == nil {
		err = w.pauseRing()
	}
	if err == nil {
		w.recorder, err = w.begin(rc)
	}
	if err != nil {
		w.recorder = nil
		return w.fail(fmt.Errorf("start recording session %s: %w", w.begun.Session, err))
	}
	w.asked = w.now()
	w.arm()
	w.current.recording(w.recorder, w.asked)
	return nil
}

// beginWarmUp starts a recorder that writes nothing, unless it runs already. It does what recording does, so that nothing
// is done for the first time in the steps that count.
func (w *Worker) beginWarmUp() error {
	if w.warmUp != nil {
		return nil
	}
	rc, err := w.recorderConfig(&w.begun)
	rc.TracePath, rc.TablePath = "", ""
	if err == nil {
		err = w.pauseRing()
	}
	if err == nil {
		w.warmUp, err = w.begin(rc)
	}
	if err != nil {
		w.warmUp = nil
		return w.fail(fmt.Errorf("warm up session %s in %s: %w", w.begun.Session, w.identity.Worker, err))
	}
	return nil
}

// endWarmUp throws away what the warm-up has recorded, if there is one.
func (w *Worker) endWarmUp() error {
	recorder := w.warmUp
	if recorder == nil {
		return nil
	}
	w.warmUp = nil
	var err error
	w.unlocked(func() { err = drop(recorder) })
	return err
}

// drop ends a recorder whose results nobody wants.
func drop(recorder Recorder) error {
	err := recorder.Stop()
	recorder.Close()
	return err
}

// end ends collection, if it has begun, and lets the files be written by a goroutine that ends by itself. The ring goes on.
func (w *Worker) end(reason string) error {
	if w.recorder == nil {
		return nil
	}
	if err := w.closeStep(); err != nil {
		return err
	}
	if err := w.endWait(); err != nil {
		return err
	}
	recorder := w.recorder
	began := w.now()
	err := recorder.Stop()
	stopped := w.now()
	if err != nil {
		return w.fail(fmt.Errorf("stop recording session %s in %s: %w", w.begun.Session, w.identity.Worker, err))
	}
	w.write(reason, began, stopped, recorder.Close)
	return w.resumeRing()
}

// write lets the files be written by a goroutine that ends by itself: collection has ended, which took from began to
// stopped. release is called when the recorder is not needed for that any more.
func (w *Worker) write(reason string, began, stopped time.Time, release func()) {
	recorder := w.recorder
	w.recorder, w.ended, w.stepOpen, w.waiting = nil, true, false, false
	w.disarm()
	w.update(func(r *Report) {
		r.State, r.Ended, r.StoppedNS = StateWriting, reason, stopped.UnixNano()
		r.StopMS = float64(stopped.Sub(began)) / float64(time.Millisecond)
		r.Active = w.active
	})
	go w.current.finish(recorder, release)
}

// endUnrecorded ends a session whose recording has not begun: it leaves no files. Any goroutine.
func (w *Worker) endUnrecorded(reason string) {
	if recorder := w.warmUp; recorder != nil {
		w.warmUp = nil
		w.leave(func() error { return drop(recorder) })
	}
	w.ended = true
	w.disarm()
	w.update(func(r *Report) {
		r.State, r.Ended, r.Active = StateDone, reason, w.active
		close(w.current.done)
	})
}

// begin starts a recorder.
func (w *Worker) begin(rc RecorderConfig) (recorder Recorder, err error) {
	text, err := json.Marshal(rc)
	if err != nil {
		return nil, err
	}
	w.unlocked(func() { recorder, err = w.start(text) })
	return recorder, err
}

// recorderConfig is what the recorder of a session is told.
func (w *Worker) recorderConfig(start *Start) (RecorderConfig, error) {
	c := start.Config
	rc := RecorderConfig{
		Recorder:      c.Recorder,
		Session:       start.Session,
		Worker:        w.identity.Worker,
		Stage:         w.identity.Stage,
		Rank:          w.identity.Rank,
		WorldSize:     w.identity.WorldSize,
		BaseTimeNS:    start.StampNS,
		Detail:        c.Detail,
		RecordShapes:  c.TorchProfilerRecordShapes,
		WithStack:     c.TorchProfilerWithStack,
		WithFLOPs:     c.TorchProfilerWithFLOPs,
		WithMemory:    c.TorchProfilerWithMemory,
		UseGzip:       c.TorchProfilerUseGzip,
		MaxEvents:     c.MaxEvents,
		MaxTraceBytes: int64(c.MaxTraceMB * 1e6),
		Metadata:      start.metadata(),
	}
	for _, activity := range c.Activities {
		if activity != ActivityCUDA || strings.HasPrefix(w.identity.Device, "cuda") {
			rc.Activities = append(rc.Activities, activity)
		}
	}
	if len(rc.Activities) == 0 {
		return rc, fmt.Errorf("%w: activities: %q leave nothing to record on the device %s", ErrSetting, c.Activities, w.identity.Device)
	}
	if c.Profiler == KindCUDA {
		rc.Recorder = KindCUDA // the files are those of whoever listens to it
	}
	rc.TracePath, rc.TablePath = start.paths(w.identity)
	return rc, nil
}

// metadata is what the trace says about its session.
func (s *Start) metadata() map[string]any {
	return map[string]any{"profiler_config": s.Config, "clock": s.Clock}
}
