package profiler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Worker is the profiling state machine of one worker process. The loop that runs the engine calls StepBegin and StepEnd
// around every step, also when no session is active, and Start, Stop and Expire between steps.
//
// An iteration is one such step: a scheduler step of an autoregressive stage, a chunk of a generation stage, a denoise step
// of a diffusion rank. With delay_iterations=3 recording begins in the 3rd StepBegin. With max_iterations=2 it ends in the
// StepBegin after two recorded steps, and the session stays active until it is stopped.
//
// Start, StepBegin, StepEnd, Expire and Stop belong to the goroutine that runs the operators. Report and Wait may be
// called from anywhere.
type Worker struct {
	identity Identity
	start    StartRecorder
	now      func() time.Time

	// Owned by the goroutine that runs the operators.
	active   bool
	begun    Start    // of the active session
	counted  int      // StepBegin calls since Start
	warmUp   Recorder // of warm-up steps, nil outside of them
	recorder Recorder // nil unless it records
	ended    bool     // the session's recording has begun and ended
	stepOpen bool
	timer    *time.Timer // of max_seconds; nil when there is none

	mu       sync.Mutex // guards what follows
	current  *job
	previous *job
}

// job is one session as others see it: its report, and whether it is complete.
type job struct {
	session string
	before  <-chan struct{} // done of the session before; closed if there was none. Sessions are written in turn.
	done    chan struct{}   // closed when the report's state has ended

	mu     sync.Mutex // guards report
	report Report
}

// NewWorker returns a Worker without a session. start makes the recordings.
func NewWorker(identity Identity, start StartRecorder) *Worker {
	return &Worker{identity: identity, start: start, now: time.Now}
}

// Start begins a session: it records at once, or arms the delay. While a session is active it does nothing. If
// recording cannot begin, the worker stays inactive and the error says why. The files of one session may still be
// being written when the next begins, those of two may not: what waits to be written is held in memory.
func (w *Worker) Start(start Start) error {
	if w.active {
		return nil
	}
	if !start.Config.Enabled() {
		return ErrNotEnabled
	}
	before, err := w.lastDone()
	if err != nil {
		return err
	}
	w.active, w.begun, w.counted, w.ended = true, start, 0, false
	j := &job{session: start.Session, before: before, done: make(chan struct{})}
	j.report = Report{
		Identity: w.identity, Session: start.Session, State: StateArmed, Active: true,
		Dropped: map[string]int64{}, Files: []File{},
	}
	w.mu.Lock()
	w.previous, w.current = w.current, j
	w.mu.Unlock()
	if start.Config.DelayIterations == 0 && !start.Config.scheduled() {
		return w.record()
	}
	return nil
}

// StepBegin marks the beginning of an iteration. Its error concerns the profile only: the step itself must go on.
func (w *Worker) StepBegin() error {
	if !w.active || w.ended {
		return nil
	}
	w.counted++
	if ready, err := w.prepare(); !ready || err != nil {
		return err
	}
	if limit, reason := w.begun.Config.limit(); limit > 0 && w.steps() >= int64(limit) {
		return w.end(reason)
	}
	if w.timer != nil && w.elapsed() {
		return w.end(EndMaxSeconds)
	}
	if err := w.recorder.StepBegin(int64(w.counted - 1)); err != nil {
		return w.fail(fmt.Errorf("begin profiler step: %w", errors.Join(err, w.recorder.Stop())))
	}
	w.stepOpen = true
	return nil
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

// beginWarmUp starts a recorder that writes nothing, unless it runs already. It does what recording does, so that nothing
// is done for the first time in the steps that count.
func (w *Worker) beginWarmUp() error {
	if w.warmUp != nil {
		return nil
	}
	rc, err := w.recorderConfig()
	rc.TracePath, rc.TablePath = "", ""
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
	if w.warmUp == nil {
		return nil
	}
	err := w.warmUp.Stop()
	w.warmUp.Close()
	w.warmUp = nil
	return err
}

// StepEnd marks the end of an iteration. Its error concerns the profile only.
func (w *Worker) StepEnd() error {
	if !w.stepOpen {
		return nil
	}
	w.stepOpen = false
	if err := w.recorder.StepEnd(); err != nil {
		return w.fail(fmt.Errorf("end profiler step: %w", errors.Join(err, w.recorder.Stop())))
	}
	w.update(func(r *Report) { r.Steps++ })
	return nil
}

// Timer delivers when max_seconds is over, so that an idle worker can call Expire; nil when there is nothing to
// wait for. Ask again after every call of Start, StepBegin or Stop.
func (w *Worker) Timer() <-chan time.Time {
	if w.timer == nil {
		return nil
	}
	return w.timer.C
}

// Expire ends the recording whose Timer has delivered.
func (w *Worker) Expire() error {
	if w.timer == nil {
		return nil
	}
	return w.end(EndMaxSeconds)
}

// Stop ends the session and returns its report, whose state is StateWriting unless there was nothing to write or a
// budget ended the recording before. Without an active session it does nothing and returns the report of the last.
func (w *Worker) Stop() (Report, error) { return w.stop(EndStop) }

// Shutdown stops the session, if there is one, and waits until its files are complete or ctx ends.
func (w *Worker) Shutdown(ctx context.Context) (Report, error) {
	_, stopErr := w.stop(EndShutdown)
	report, err := w.Wait(ctx)
	return report, errors.Join(stopErr, err)
}

// IsRunning reports whether a session is active. Only the goroutine that runs the operators may ask.
func (w *Worker) IsRunning() bool { return w.active }

// IsRecording reports whether operators are being recorded. Only the goroutine that runs the operators may ask.
func (w *Worker) IsRecording() bool { return w.recorder != nil }

// Report returns the state of the current or last session; one without a Session if there was none.
func (w *Worker) Report() Report {
	w.mu.Lock()
	j := w.current
	w.mu.Unlock()
	if j == nil {
		return Report{Identity: w.identity, Dropped: map[string]int64{}, Files: []File{}}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.report.clone()
}

// Wait returns the report of the current or last session when its files are complete, or with an error when ctx ends.
// A session that nobody stops keeps it waiting unless a budget ends it.
func (w *Worker) Wait(ctx context.Context) (Report, error) { return w.WaitSession(ctx, "") }

// WaitSession is Wait for the session of that name, which may be the current one, the last or the one before; "" is the
// current or last. It serves a caller that has stopped a session and must not be given another one that began since.
func (w *Worker) WaitSession(ctx context.Context, session string) (Report, error) {
	w.mu.Lock()
	j := w.current
	if j != nil && session != "" && j.session != session {
		j = w.previous
	}
	w.mu.Unlock()
	if session != "" && (j == nil || j.session != session) {
		return Report{}, fmt.Errorf("%s has no session %q", w.identity.Worker, session)
	}
	if j == nil {
		return w.Report(), nil
	}
	for _, done := range []<-chan struct{}{j.before, j.done} {
		select {
		case <-done:
		case <-ctx.Done():
			return Report{}, fmt.Errorf("wait for profile files of %s: %w", w.identity.Worker, ctx.Err())
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.report.clone(), nil
}

// lastDone returns the channel that closes when the last session is complete, or an error if the session before that is
// not complete either.
func (w *Worker) lastDone() (<-chan struct{}, error) {
	if w.current == nil {
		none := make(chan struct{})
		close(none)
		return none, nil
	}
	select {
	case <-w.current.before:
		return w.current.done, nil
	default:
		return nil, fmt.Errorf("start session in %s: the files of two earlier sessions are still being written",
			w.identity.Worker)
	}
}

// record begins to record the active session.
func (w *Worker) record() error {
	rc, err := w.recorderConfig()
	if err == nil {
		w.recorder, err = w.begin(rc)
	}
	if err != nil {
		w.recorder = nil
		return w.fail(fmt.Errorf("start recording session %s in %s: %w", w.begun.Session, w.identity.Worker, err))
	}
	if limit := w.begun.Config.MaxSeconds; limit > 0 {
		w.timer = time.NewTimer(time.Duration(limit * float64(time.Second)))
	}
	w.update(func(r *Report) { r.State, r.StartedNS = StateRecording, w.now().UnixNano() })
	return nil
}

// begin starts a recorder.
func (w *Worker) begin(rc RecorderConfig) (Recorder, error) {
	text, err := json.Marshal(rc)
	if err != nil {
		return nil, err
	}
	return w.start(text)
}

// recorderConfig is what the active session's recorder is told.
func (w *Worker) recorderConfig() (RecorderConfig, error) {
	c := w.begun.Config
	rc := RecorderConfig{
		Recorder:      c.Recorder,
		Session:       w.begun.Session,
		Worker:        w.identity.Worker,
		Stage:         w.identity.Stage,
		Rank:          w.identity.Rank,
		WorldSize:     w.identity.WorldSize,
		BaseTimeNS:    w.begun.StampNS,
		Detail:        c.Detail,
		RecordShapes:  c.TorchProfilerRecordShapes,
		WithStack:     c.TorchProfilerWithStack,
		WithFLOPs:     c.TorchProfilerWithFLOPs,
		WithMemory:    c.TorchProfilerWithMemory,
		UseGzip:       c.TorchProfilerUseGzip,
		MaxEvents:     c.MaxEvents,
		MaxTraceBytes: int64(c.MaxTraceMB * 1e6),
		Metadata:      map[string]any{"profiler_config": c},
	}
	for _, activity := range c.Activities {
		if activity != ActivityCUDA || strings.HasPrefix(w.identity.Device, "cuda") {
			rc.Activities = append(rc.Activities, activity)
		}
	}
	if len(rc.Activities) == 0 {
		return rc, fmt.Errorf("activities: %q leave nothing to record in %s, which runs on %s", c.Activities, rc.Worker, w.identity.Device)
	}
	if c.Profiler == KindCUDA {
		rc.Recorder = KindCUDA // its files are those of whoever listens to it
		return rc, nil
	}
	name := rc.Worker
	if c.ProfilePrefix != "" {
		name = c.ProfilePrefix + "_" + name
	}
	rc.TracePath = TracePath(c.TorchProfilerDir, name, rc.Session, w.begun.StampNS, rc.UseGzip)
	if c.TorchProfilerDumpCUDATimeTotal {
		rc.TablePath = TablePath(c.TorchProfilerDir, w.begun.TableBase+rc.Rank)
	}
	return rc, nil
}

// stop ends the session for the given reason.
func (w *Worker) stop(reason string) (Report, error) {
	if !w.active {
		return w.Report(), nil
	}
	err := errors.Join(w.endWarmUp(), w.end(reason))
	w.active = false
	w.update(func(r *Report) {
		r.Active = false
		if r.State == StateArmed { // stopped before its first recorded step
			r.State, r.Ended = StateDone, reason
			close(w.current.done)
		}
	})
	return w.Report(), err
}

// end ends collection, if it has begun, and lets the files be written by a goroutine that ends by itself.
func (w *Worker) end(reason string) error {
	recorder := w.recorder
	if recorder == nil {
		return nil
	}
	if err := w.StepEnd(); err != nil {
		return err
	}
	began := w.now()
	err := recorder.Stop()
	stopped := w.now()
	if err != nil {
		return w.fail(fmt.Errorf("stop recording session %s in %s: %w", w.begun.Session, w.identity.Worker, err))
	}
	w.recorder, w.ended = nil, true
	w.disarm()
	w.update(func(r *Report) {
		r.State, r.Ended, r.StoppedNS = StateWriting, reason, stopped.UnixNano()
		r.StopMS = float64(stopped.Sub(began)) / float64(time.Millisecond)
	})
	go w.current.finish(recorder)
	return nil
}

// fail ends the session with an error, which it returns. The recorder, if there is one, has ended collection.
func (w *Worker) fail(err error) error {
	if w.recorder != nil {
		w.recorder.Close()
	}
	w.recorder, w.stepOpen, w.active = nil, false, false
	w.disarm()
	w.update(func(r *Report) {
		r.State, r.Active, r.Error = StateFailed, false, err.Error()
		close(w.current.done)
	})
	return err
}

// finish writes the files of a recording that has ended.
func (j *job) finish(recorder Recorder) {
	defer recorder.Close()
	<-j.before
	text, err := recorder.Finish()
	var result recorderResult
	if err == nil {
		err = json.Unmarshal(text, &result)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	defer close(j.done)
	r := &j.report
	if err != nil {
		r.State, r.Error = StateFailed, fmt.Sprintf("write profile: %v", err)
		return
	}
	r.State = StateDone
	r.Steps, r.Events, r.WriteMS = result.Steps, result.Events, result.WriteMS
	if result.Files != nil {
		r.Files = result.Files
	}
	if result.Dropped != nil {
		r.Dropped = result.Dropped
	}
	for _, file := range r.Files {
		r.Bytes += file.Bytes
	}
}

// update changes the report of the current session.
func (w *Worker) update(change func(*Report)) {
	j := w.current
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.report)
}

// steps is the number of steps recorded so far.
func (w *Worker) steps() int64 {
	var n int64
	w.update(func(r *Report) { n = r.Steps })
	return n
}

// elapsed reports whether max_seconds is over, without waiting.
func (w *Worker) elapsed() bool {
	select {
	case <-w.timer.C:
		return true
	default:
		return false
	}
}

func (w *Worker) disarm() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}
