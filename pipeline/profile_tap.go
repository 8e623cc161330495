package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/repair"
)

// tap is a worker in a session. Its first fields do not change; the others are guarded by profileState.mu.
type tap struct {
	stage *stage
	live  *live // the life that records: its successor knows nothing of the session; nil if there was none
	start profiler.Start

	writing bool // counted in live.writing; belongs to the goroutine that begins or completes the session in this worker

	said    profiler.Report  // its latest answer
	stopped bool             // its collection has ended for good
	final   *profiler.Report // once nothing more will happen to it
	done    chan struct{}    // closed when final is there
}

func newTap(s *stage, l *live) *tap { return &tap{stage: s, live: l, done: make(chan struct{})} }

// ask sends the worker a profile message and returns its answer.
func (t *tap) ask(ctx context.Context, build func(id uint64) message.Message) (profiler.Report, error) {
	m, err := t.live.ask(ctx, build)
	if err != nil {
		return profiler.Report{}, t.named(err)
	}
	reply, ok := m.(*message.ProfileReply)
	if !ok {
		return profiler.Report{}, fmt.Errorf("stage %d (%s) answered with %s", t.stage.id, t.stage.name, m.Kind())
	}
	if reply.Error != nil {
		return reply.Report, &StageError{Stage: t.stage.id, Name: t.stage.name, Code: reply.Error.Code, Cause: reply.Error}
	}
	return reply.Report, nil
}

// named is err as an error of the stage.
func (t *tap) named(err error) error {
	var death *StageError
	if err == nil || errors.As(err, &death) { // that names the stage
		return err
	}
	return &StageError{Stage: t.stage.id, Name: t.stage.name, Code: CodeOf(err), Cause: err}
}

// measureClock measures the worker's clock for the session.
func (t *tap) measureClock(ctx context.Context) (err error) {
	t.start.Clock, err = t.live.measureClock(ctx)
	return t.named(err)
}

// begin starts the session in the worker.
func (t *tap) begin(ctx context.Context) (profiler.Report, error) {
	report, err := t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStart{ID: id, Start: t.start} })
	t.writes(err == nil)
	return report, err
}

// writes says whether the worker has files to write, for which it needs more time to end.
func (t *tap) writes(yes bool) {
	switch {
	case yes && !t.writing:
		t.live.writing.Add(1)
	case !yes && t.writing:
		t.live.writing.Add(-1)
	}
	t.writing = yes
}

// status asks how far the worker is.
func (t *tap) status(ctx context.Context) (profiler.Report, error) {
	report, err := t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStatus{ID: id} })
	if err == nil && report.Session != t.start.Session { // it has begun another since
		return t.wait(ctx)
	}
	return report, err
}

// end ends collection in the worker.
func (t *tap) end(ctx context.Context) (profiler.Report, error) {
	return t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStop{ID: id} })
}

// wait returns when the worker's files are complete.
func (t *tap) wait(ctx context.Context) (profiler.Report, error) {
	return t.ask(ctx, func(id uint64) message.Message { return &message.ProfileWait{ID: id, Session: t.start.Session} })
}

// discard ends the session in the worker, which may not even have answered that it has begun, without files.
func (t *tap) discard(ctx context.Context, reason string) {
	// A worker that is dead or does not answer in time has nothing to discard, or does it when it gets there.
	_, _ = t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStop{ID: id, Discard: reason} })
	t.writes(false)
}

// lost is the report of a worker that cannot give one. What it said of its own end counts, if it said anything; else what
// is known of it, and what its session has left: files that are complete are as good as any.
func (p *profileState) lost(t *tap, err error) profiler.Report {
	if t.live != nil {
		if report := t.live.lastReport(); report != nil && report.Session == t.start.Session {
			return *report
		}
	}
	p.mu.Lock()
	report := t.said
	p.mu.Unlock()
	if report.Session != t.start.Session {
		report = profiler.Report{
			Identity: profiler.Identity{
				Worker: t.stage.open.Worker, Stage: t.stage.id, Rank: t.stage.open.Rank, WorldSize: t.stage.open.World,
			},
			Session: t.start.Session, Dropped: map[string]int64{}, Clock: t.start.Clock,
		}
		if t.live != nil {
			report.PID = t.live.process.cmd.Process.Pid
		}
	}
	paths := t.start.Paths(report.Identity)
	report.Active, report.Bytes, report.Files, report.Missing = false, 0, []profiler.File{}, nil
	for _, file := range profiler.FilesAt(paths) {
		report.Bytes += file.Bytes
		report.Files = append(report.Files, file)
	}
	if report.State == profiler.StateWriting && len(paths) == len(report.Files) {
		report.State = profiler.StateDone
		return report
	}
	report.State, report.Error = profiler.StateFailed, err.Error()
	for _, path := range paths {
		if exists(path) {
			continue
		}
		report.Missing = append(report.Missing, path)
		if filepath.Ext(path) != ".txt" { // the .tmp of a table keeps its number
			report.Error += t.remains(path, report.StoppedNS > 0)
		}
	}
	return report
}

// remains says what a worker that is gone has left of a file that it was to write. stopped: its collection had ended.
func (t *tap) remains(path string, stopped bool) string {
	info, err := os.Stat(path + repair.Suffix)
	if err != nil {
		return ""
	}
	if t.start.Config.Recorder != profiler.RecorderStream && !stopped {
		return fmt.Sprintf("; nothing is left of its trace, since the recorder %s writes when it is stopped (stream writes every second)", t.start.Config.Recorder)
	}
	if info.Size() == 0 {
		return fmt.Sprintf("; %s%s is empty: it had written nothing", path, repair.Suffix)
	}
	return fmt.Sprintf("; what it had written is in %s%s, which omni-run profile repair reads", path, repair.Suffix)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// each calls do for all taps at once and joins the errors.
func each(taps []*tap, do func(*tap) error) error {
	errs := make([]error, len(taps))
	var calls sync.WaitGroup
	for i, t := range taps {
		calls.Go(func() { errs[i] = do(t) })
	}
	calls.Wait()
	return errors.Join(errs...)
}
