package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

// ProfileReport says how a profile session stands, worker by worker.
type ProfileReport struct {
	// Session is empty if there never was one.
	Session string `json:"session"`
	// Active is true until the session is stopped in every stage.
	Active bool `json:"active"`
	// Workers has one report for each worker of the session, by stage.
	Workers []profiler.Report `json:"workers"`
	// Files are all files that are complete.
	Files []ProfileFile `json:"files"`
	// Ledger is nil until the session is stopped in every stage.
	Ledger *ProfileLedger `json:"ledger,omitempty"`
}

// ProfileFile is one file of a profile session.
type ProfileFile struct {
	Path    string `json:"path"`
	Stage   int    `json:"stage"`
	Rank    int    `json:"rank"`
	Kind    string `json:"kind"` // trace or table
	Bytes   int64  `json:"bytes"`
	Events  int64  `json:"events"`  // of the worker
	Dropped int64  `json:"dropped"` // of the worker
}

// profileState is the pipeline's side of profile sessions.
type profileState struct {
	sessions *profiler.Sessions
	configs  map[int]profiler.Config // of the stages that can be profiled; read-only

	// turn is held by StartProfile and StopProfile for their whole time: they are told apart by who comes first.
	turn sync.Mutex
	mu   sync.Mutex // guards what follows; held for moments only
	name string     // of the current or last session
	taps []*tap
	book book
}

// tap is a worker in a session. Its fields but report, ended and final do not change.
type tap struct {
	stage *stage
	live  *live // the life that records: its successor knows nothing of the session

	ended bool // nothing more is to be asked of it
	final profiler.Report
}

// configure joins the pipeline's profiler configuration with that of each stage.
func (p *profileState) configure(base profiler.Config, deployed *config.Config) error {
	p.sessions = profiler.NewSessions()
	p.configs = map[int]profiler.Config{}
	var faults []error
	for _, s := range deployed.Stages {
		c, err := base, error(nil)
		switch {
		case s.Profiler != nil && base.Enabled():
			c, err = base.With(s.Profiler)
		case s.Profiler != nil:
			c, err = profiler.FromMap(s.Profiler)
		}
		if err == nil && c.Enabled() {
			err = c.Validate()
			p.configs[s.ID] = c
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("stage %d: profiler_config: %w", s.ID, err))
		}
	}
	return errors.Join(faults...)
}

// StartProfile begins a profile session in the named stages, all that have a profiler configuration if stages is empty.
// It begins in all or in none. Workers begin between two steps.
func (o *Omni) StartProfile(stages []int) (*ProfileReport, error) {
	report, err := o.startProfile(stages)
	if err != nil {
		return nil, fmt.Errorf("start profile: %w", err)
	}
	return report, nil
}

func (o *Omni) startProfile(ids []int) (*ProfileReport, error) {
	if err := o.enter(); err != nil {
		return nil, err
	}
	defer o.running.Done()
	p := &o.profile
	p.turn.Lock()
	defer p.turn.Unlock()
	if name, active := p.active(); len(active) > 0 {
		return nil, fmt.Errorf("%w: session %s in stages %v; stop it first", ErrProfileActive, name, active)
	}
	chosen, err := o.profiled(ids)
	if err != nil {
		return nil, err
	}
	ctx, cancel := o.within(context.Background())
	defer cancel()
	taps := make([]*tap, len(chosen))
	for i, s := range chosen {
		l, err := s.await(ctx)
		if err != nil {
			return nil, err
		}
		taps[i] = &tap{stage: s, live: l}
	}
	configs := make([]profiler.Config, len(chosen))
	for i, s := range chosen {
		configs[i] = p.configs[s.id]
	}
	starts, err := p.sessions.Next(len(o.stages), configs...)
	if err != nil {
		return nil, err
	}
	err = each(taps, func(t *tap) error {
		s := starts[slices.Index(taps, t)]
		report, err := t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStart{ID: id, Start: s} })
		t.final = report
		t.live.profiled.Store(err == nil)
		return err
	})
	if err != nil {
		stopErr := each(taps, func(t *tap) error { t.stop(ctx); return nil })
		return nil, errors.Join(err, stopErr)
	}
	p.mu.Lock()
	p.name, p.taps, p.book = starts[0].Session, taps, book{stampNS: starts[0].StampNS}
	p.mu.Unlock()
	return p.report(nil), nil
}

// profiled returns the stages of a start request.
func (o *Omni) profiled(ids []int) ([]*stage, error) {
	var chosen []*stage
	if err := o.check(ids); err != nil {
		return nil, err
	}
	for _, s := range o.stages {
		_, enabled := o.profile.configs[s.id]
		switch {
		case len(ids) == 0 && enabled:
			chosen = append(chosen, s)
		case slices.Contains(ids, s.id) && !enabled:
			return nil, fmt.Errorf("stage %d: %w", s.id, profiler.ErrNotEnabled)
		case slices.Contains(ids, s.id):
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, profiler.ErrNotEnabled
	}
	return chosen, nil
}

// check refuses ids of stages that do not run.
func (o *Omni) check(ids []int) error {
	var known, unknown []int
	for _, s := range o.stages {
		known = append(known, s.id)
	}
	for _, id := range ids {
		if !slices.Contains(known, id) {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%w: %v; this pipeline runs %v", ErrUnknownStage, unknown, known)
	}
	return nil
}

// StopProfile ends collection in the named stages, all of the session if stages is empty, waits for their files and
// reports the session. A worker that has died meanwhile is reported as failed.
func (o *Omni) StopProfile(stages []int) (*ProfileReport, error) {
	report, err := o.stopProfile(stages)
	if err != nil {
		return nil, fmt.Errorf("stop profile: %w", err)
	}
	return report, nil
}

func (o *Omni) stopProfile(ids []int) (*ProfileReport, error) {
	if err := o.enter(); err != nil {
		return nil, err
	}
	defer o.running.Done()
	if err := o.check(ids); err != nil {
		return nil, err
	}
	p := &o.profile
	p.turn.Lock()
	defer p.turn.Unlock()
	name, active := p.active()
	if len(active) == 0 {
		return nil, ErrNoProfile
	}
	for _, id := range ids {
		if !slices.Contains(active, id) {
			return nil, fmt.Errorf("%w in stage %d; session %s is active in stages %v", ErrNoProfile, id, name, active)
		}
	}
	ctx, cancel := o.within(context.Background())
	defer cancel()
	p.mu.Lock()
	taps := slices.DeleteFunc(slices.Clone(p.taps), func(t *tap) bool {
		return t.ended || (len(ids) > 0 && !slices.Contains(ids, t.stage.id))
	})
	p.mu.Unlock()
	err := each(taps, func(t *tap) error {
		report := t.stop(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx) // the pipeline closes: the worker ends the session by itself
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		t.final, t.ended = report, true
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, active := p.active(); len(active) == 0 {
		p.closeBook(len(o.gate))
	}
	return p.report(nil), nil
}

// statusLimit is how long a worker has for its status. Its receiving goroutine answers, so it is quick even in a step.
const statusLimit = 5 * time.Second

// ProfileStatus reports the current or last session.
func (o *Omni) ProfileStatus() (*ProfileReport, error) {
	if err := o.enter(); err != nil {
		return nil, fmt.Errorf("profile status: %w", err)
	}
	defer o.running.Done()
	closing, cancel := o.within(context.Background())
	defer cancel()
	ctx, cancel := context.WithTimeout(closing, statusLimit)
	defer cancel()
	p := &o.profile
	p.mu.Lock()
	taps := slices.DeleteFunc(slices.Clone(p.taps), func(t *tap) bool { return t.ended })
	p.mu.Unlock()
	var mu sync.Mutex // guards fresh
	fresh := map[*tap]profiler.Report{}
	err := each(taps, func(t *tap) error {
		report, err := t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStatus{ID: id} })
		if err != nil {
			report = t.lost(err)
		}
		mu.Lock()
		defer mu.Unlock()
		fresh[t] = report
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("profile status: %w", err)
	}
	return p.report(fresh), nil
}

// active returns the session's name and the stages in which it has not been stopped.
func (p *profileState) active() (string, []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []int
	for _, t := range p.taps {
		if !t.ended {
			ids = append(ids, t.stage.id)
		}
	}
	return p.name, ids
}

// report puts together what the workers have said last; fresh is later than what is kept.
func (p *profileState) report(fresh map[*tap]profiler.Report) *ProfileReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &ProfileReport{Session: p.name, Workers: []profiler.Report{}, Files: []ProfileFile{}, Ledger: p.book.written}
	for _, t := range p.taps {
		w, ok := fresh[t]
		if !ok || t.ended {
			w = t.final
		}
		r.Active = r.Active || !t.ended
		r.Workers = append(r.Workers, w)
		for _, f := range w.Files {
			r.Files = append(r.Files, ProfileFile{
				Path: f.Path, Stage: w.Stage, Rank: w.Rank, Kind: f.Kind, Bytes: f.Bytes, Events: w.Events, Dropped: w.DroppedTotal(),
			})
		}
	}
	return r
}

// ask sends the worker a profile message and returns its answer.
func (t *tap) ask(ctx context.Context, build func(id uint64) message.Message) (profiler.Report, error) {
	m, err := t.live.ask(ctx, build)
	if err != nil {
		return profiler.Report{}, fmt.Errorf("stage %d (%s): %w", t.stage.id, t.stage.name, err)
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

// stop ends the session in the worker and waits for its files.
func (t *tap) stop(ctx context.Context) profiler.Report {
	report, err := t.ask(ctx, func(id uint64) message.Message { return &message.ProfileStop{ID: id, Wait: true} })
	t.live.profiled.Store(false)
	if err != nil {
		return t.lost(err)
	}
	return report
}

// lost is the report of a worker that cannot give one.
func (t *tap) lost(err error) profiler.Report {
	return profiler.Report{
		Identity: profiler.Identity{Worker: t.stage.open.Worker, Stage: t.stage.id, Rank: t.stage.open.Rank, WorldSize: t.stage.open.World},
		State:    profiler.StateFailed, Dropped: map[string]int64{}, Files: []profiler.File{}, Error: err.Error(),
	}
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
