package profiler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrBusy says that a worker has to write what it holds before it can record more.
var ErrBusy = errors.New("the files of two earlier sessions are still being written")

// job is one session of a worker as others see it: its report, and whether it is complete.
type job struct {
	session  string
	expected []string        // paths of its files
	before   <-chan struct{} // done of the session before; closed if there was none. Sessions are written in turn.
	done     chan struct{}   // closed when the report's state has ended

	mu       sync.Mutex // guards what follows
	report   Report
	recorder Recorder // to be asked for its status; nil before recording begins and after its files are complete
}

// open makes the job of a session that begins, if those before allow it.
func (w *Worker) open(start Start) error {
	before, err := w.lastDone()
	if err != nil {
		return err
	}
	w.begun = start
	j := &job{session: start.Session, expected: start.Paths(w.identity), before: before, done: make(chan struct{})}
	j.report = Report{
		Identity: w.identity, Session: start.Session, State: StateArmed, Active: true, Clock: start.Clock,
		Dropped: map[string]int64{}, Files: []File{},
	}
	w.previous, w.current = w.current, j
	return nil
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
		return nil, fmt.Errorf("start session in %s: %w", w.identity.Worker, ErrBusy)
	}
}

// Report returns the state of the current or last session; one without a Session if there was none.
func (w *Worker) Report() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.report()
}

func (w *Worker) report() Report {
	if w.current == nil {
		return w.withRing(Report{Identity: w.identity, Dropped: map[string]int64{}, Files: []File{}})
	}
	return w.withRing(w.current.snapshot())
}

// withRing adds the state of the flight recorder.
func (w *Worker) withRing(r Report) Report {
	if w.ringReport != nil {
		state := *w.ringReport
		r.Ring = &state
	}
	return r
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
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.withRing(j.snapshot()), nil
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

// recording says that the session's recorder has begun.
func (j *job) recording(recorder Recorder, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.recorder = recorder
	j.report.State, j.report.StartedNS = StateRecording, at.UnixNano()
}

// snapshot is the report, with what the recorder says while it is not complete.
func (j *job) snapshot() Report {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.report.clone()
	if j.recorder == nil {
		return r
	}
	status, err := statusOf(j.recorder)
	if err != nil {
		return r // a report must not fail for it
	}
	r.Events, r.Bytes = status.Events, status.TraceBytes
	if status.Dropped != nil {
		r.Dropped = status.Dropped
	}
	until := r.StoppedNS
	if until == 0 {
		until = time.Now().UnixNano()
	}
	if r.StartedNS > 0 {
		r.OverheadPct = share(status.OverheadNS, until-r.StartedNS)
	}
	return r
}

// free lets go of a recorder that nobody may ask any more, without the lock: that can take long. What it has counted stays.
func (j *job) free(release func()) {
	counted := j.snapshot()
	j.mu.Lock()
	j.recorder = nil
	j.report.Events, j.report.Dropped, j.report.OverheadPct = counted.Events, counted.Dropped, counted.OverheadPct
	j.mu.Unlock()
	release()
}

// fail ends the job with an error. recorder, which may be nil, has ended collection and is freed.
func (j *job) fail(recorder Recorder, err error) {
	if recorder != nil {
		j.free(recorder.Close)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.report.State, j.report.Active, j.report.Error = StateFailed, false, err.Error()
	j.report.Missing = j.expected
	close(j.done)
}

// finish writes the files of a recording that has ended and then calls release, which frees the recorder as soon as nobody
// else needs it.
func (j *job) finish(recorder Recorder, release func()) {
	<-j.before
	text, err := recorder.Finish()
	var result recorderResult
	if err == nil {
		err = json.Unmarshal(text, &result)
	}
	j.free(release)
	j.mu.Lock()
	defer j.mu.Unlock()
	defer close(j.done)
	r := &j.report
	if err != nil {
		r.State, r.Error = StateFailed, fmt.Sprintf("write profile: %v", err)
		result.Files = j.found()
	} else {
		r.State = StateDone
		if result.TableError != "" {
			r.Error = "write operator table: " + result.TableError
		}
		r.Steps, r.Events, r.WriteMS = result.Steps, result.Events, result.WriteMS
		r.OverheadPct = share(result.OverheadNS, result.WallNS)
		if r.StartedNS == 0 {
			r.StartedNS = r.StoppedNS - result.WallNS
		}
	}
	if result.Files != nil {
		r.Files = result.Files
	}
	if result.Dropped != nil {
		r.Dropped = result.Dropped
	}
	r.Bytes = 0
	for _, file := range r.Files {
		r.Bytes += file.Bytes
	}
	for _, path := range j.expected {
		if !has(r.Files, path) {
			r.Missing = append(r.Missing, path)
		}
	}
}

// found lists the files that are complete although writing them all failed.
func (j *job) found() []File { return FilesAt(j.expected) }

// FilesAt lists those of a session's files that exist under their final names, which means that they are complete.
func FilesAt(paths []string) []File {
	var files []File
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		kind := "trace"
		if filepath.Ext(path) == tableSuffix {
			kind = "table"
		}
		files = append(files, File{Path: path, Kind: kind, Bytes: info.Size()})
	}
	return files
}

func has(files []File, path string) bool {
	for _, f := range files {
		if f.Path == path {
			return true
		}
	}
	return false
}
