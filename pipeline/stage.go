package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/message"
)

// StageState is what a stage's worker is doing.
type StageState string

// The states of a stage.
const (
	StageLoading StageState = "loading"
	StageReady   StageState = "ready"
	StageDown    StageState = "down" // died or failed; it will be started again
	StageClosed  StageState = "closed"
)

// StageStatus is one stage as Stages reports it.
type StageStatus struct {
	ID     int        `json:"id"`
	Name   string     `json:"name"`
	Model  string     `json:"model"` // the engine's name
	State  StageState `json:"state"`
	PID    int        `json:"pid"`    // 0 while there is no process
	Device string     `json:"device"` // cpu or cuda:N
	// Placement says why the stage is on Device, if the deployment left that open.
	Placement string           `json:"placement,omitempty"`
	Threads   int              `json:"threads"`
	MaxBatch  int              `json:"max_batch"`
	Restarts  int              `json:"restarts"`
	Error     string           `json:"error,omitempty"` // why the worker is down
	Info      family.StageInfo `json:"info"`            // of the engine, once it was ready
}

// stage owns the worker of one stage: it starts it, keeps it running and ends it. One goroutine, supervise, does all
// that; the others ask for the live worker.
type stage struct {
	id        int
	name      string
	model     string
	device    string
	placement string
	open      message.Open
	limits    Limits
	spawner   *spawner
	log       *slog.Logger
	progress  func(Progress) // may be nil

	mu       sync.Mutex // guards what follows
	changed  chan struct{}
	state    StageState
	live     *live // while loading or ready
	failure  error // why the last start failed, or the last worker died
	failed   bool  // the last start failed: a worker has not come back
	restarts int
	info     family.StageInfo
}

// set changes the state under the lock and wakes everybody who waits for a change.
func (s *stage) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// supervise runs worker after worker until ctx ends, then stops the last one. If the first cannot be started it gives up.
// It returns what went wrong with the last.
func (s *stage) supervise(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = s.limits.Backoff, s.limits.BackoffMax
	pauses.Reset()
	defer s.set(func() { s.state, s.live = StageClosed, nil })
	for first := true; ; first = false {
		began := time.Now()
		l, err := s.launch(ctx)
		if l == nil && ctx.Err() != nil {
			return err
		}
		if l != nil {
			s.log.Info("worker is ready", "stage", s.id, "name", s.name, "pid", l.process.cmd.Process.Pid,
				"seconds", time.Since(began).Seconds())
			began = time.Now()
			err = s.attend(ctx, l)
			if ctx.Err() != nil {
				return err
			}
			if time.Since(began) > s.limits.BackoffReset {
				pauses.Reset()
			}
		}
		down := l == nil
		s.set(func() { s.state, s.live, s.failure, s.failed = StageDown, nil, err, down })
		if first && down {
			return err
		}
		pause := pauses.NextBackOff()
		s.log.Error("worker is down", "stage", s.id, "name", s.name, "error", err, "restart_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		s.set(func() { s.state = StageLoading; s.restarts++ })
	}
}

// launch starts a worker and waits until it is ready. The error is a *StageError unless ctx has ended.
func (s *stage) launch(ctx context.Context) (*live, error) {
	l, err := startLive(s)
	if err != nil {
		return nil, err
	}
	s.set(func() { s.state, s.live = StageLoading, l })
	if err := s.load(ctx, l); err != nil {
		if ctx.Err() != nil {
			return nil, l.stop()
		}
		l.condemn(err)
		<-l.dead
		return nil, l.cause
	}
	return l, nil
}

// load greets a worker, has it open its engine and follows its progress. If it dies, the error is that cause.
func (s *stage) load(ctx context.Context, l *live) error {
	limit := time.NewTimer(s.limits.Hello)
	defer limit.Stop()
	select {
	case hello := <-l.hello:
		if err := checkHello(hello); err != nil {
			return err
		}
	case <-l.dead:
		return l.cause
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return fmt.Errorf("it has not said hello for %v", s.limits.Hello)
	}
	open := s.open
	if err := l.send(ctx, &open); err != nil {
		return err
	}
	for {
		limit.Reset(s.limits.Load)
		select {
		case p := <-l.loaded:
			s.report(Progress{Stage: s.id, Name: s.name, Done: p.Done, Total: p.Total})
		case r := <-l.ready:
			if err := s.measure(ctx, l); err != nil {
				return err
			}
			return s.serve(l, r)
		case <-l.dead:
			return l.cause
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("its loading has stood still for %v", s.limits.Load)
		}
	}
}

// measure compares a loaded worker's clock with this process's, for the times of its first request.
func (s *stage) measure(ctx context.Context, l *live) error {
	ctx, cancel := l.answering(ctx)
	defer cancel()
	_, err := l.measureClock(ctx)
	return err
}

// serve makes a worker that is ready the one that requests get.
func (s *stage) serve(l *live, r *message.Ready) error {
	var info family.StageInfo
	if err := json.Unmarshal(r.Info, &info); err != nil {
		return fmt.Errorf("its engine describes itself as %.200s: %w", r.Info, err)
	}
	// Reported first, so that nothing is when Open has returned.
	s.report(Progress{Stage: s.id, Name: s.name, Done: info.WeightBytes, Total: info.WeightBytes, Ready: true})
	s.set(func() { s.state, s.live, s.failure, s.failed, s.info = StageReady, l, nil, false, info })
	return nil
}

// checkHello refuses a worker of another build.
func checkHello(hello *message.Hello) error {
	if hello.Protocol != message.Protocol || hello.ABI != message.ABI {
		return fmt.Errorf("its build %q speaks protocol %d and ABI %d, this program %d and %d: build both together (make build)",
			hello.Build, hello.Protocol, hello.ABI, message.Protocol, message.ABI)
	}
	return nil
}

func (s *stage) report(p Progress) {
	if s.progress != nil {
		s.progress(p)
	}
}

// attend watches a worker that is ready, until it dies or ctx ends, and stops it in the second case.
func (s *stage) attend(ctx context.Context, l *live) error {
	tick := time.NewTicker(s.limits.Ping)
	defer tick.Stop()
	for {
		select {
		case <-l.dead:
			return l.cause
		case <-ctx.Done():
			if isDead(l) {
				return nil // its requests have been told why
			}
			return l.stop()
		case <-tick.C:
		}
		if err := l.ping(ctx); err != nil && ctx.Err() == nil {
			l.condemn(err)
		}
	}
}

// await returns the live worker, waiting while there is none but there may be one soon: while it loads, and between a
// death and the next start. After a start that failed it reports that failure.
func (s *stage) await(ctx context.Context) (*live, error) {
	for {
		s.mu.Lock()
		state, l, failure, failed, changed := s.state, s.live, s.failure, s.failed, s.changed
		s.mu.Unlock()
		switch {
		case state == StageReady && !isDead(l):
			return l, nil
		case state == StageClosed:
			return nil, ErrClosed
		case failed && state == StageDown:
			return nil, fmt.Errorf("the worker could not be started again: %w", failure)
		}
		select { // a worker that is dead already will be seen so by the supervisor
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("stage %d (%s) is %s: %w", s.id, s.name, state, context.Cause(ctx))
		}
	}
}

// current returns the live worker, nil if there is none that is ready.
func (s *stage) current() *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != StageReady || isDead(s.live) {
		return nil
	}
	return s.live
}

func isDead(l *live) bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

func (s *stage) status() StageStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := StageStatus{
		ID: s.id, Name: s.name, Model: s.model, State: s.state, Device: s.device, Placement: s.placement, Threads: s.open.Threads, MaxBatch: s.open.MaxBatch,
		Restarts: s.restarts, Info: s.info,
	}
	if s.live != nil {
		status.PID = s.live.process.cmd.Process.Pid
	}
	if s.failure != nil {
		status.Error = s.failure.Error()
	}
	return status
}
