package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/omni-run/omni/profiler"
)

// StartProfile begins a profile session in the named stages, all that have a profiler configuration if stages is empty.
func (o *Omni) StartProfile(stages []int) (*ProfileReport, error) {
	return o.StartProfileWith(context.Background(), ProfileOptions{Stages: stages})
}

// StartProfileWith begins a profile session in all the stages or in none. Workers begin between two steps; the call waits
// for them. While a session is active it fails with ErrProfileActive; settings that are wrong, or not for a start to
// choose, fail with profiler.ErrSetting.
func (o *Omni) StartProfileWith(ctx context.Context, options ProfileOptions) (*ProfileReport, error) {
	return o.profileCall(ctx, "start profile", func(ctx context.Context) (*ProfileReport, error) {
		return o.startProfile(ctx, options)
	})
}

func (o *Omni) startProfile(ctx context.Context, options ProfileOptions) (*ProfileReport, error) {
	p := &o.profile
	if err := p.takeIdle(ctx); err != nil {
		return nil, err
	}
	defer p.give()
	chosen, err := o.profiled(options.Stages)
	if err != nil {
		return nil, err
	}
	configs, faults := make([]profiler.Config, len(chosen)), make([]error, len(chosen))
	for i, s := range chosen {
		configs[i], faults[i] = p.configs[s.id].Within(p.ceilings, options.Settings)
	}
	if err := joinStages(chosen, faults); err != nil {
		return nil, err
	}
	session, err := o.newSession(ctx, chosen, configs)
	if err != nil {
		return nil, err
	}
	if err := o.beginSession(ctx, session); err != nil {
		return nil, err
	}
	session.only = slices.Clone(options.RequestIDs)
	o.watchGPUs(session)
	p.keep(session)
	return p.report(session, nil), nil
}

// newSession finds the stages' workers, measures their clocks and names the session.
func (o *Omni) newSession(ctx context.Context, chosen []*stage, configs []profiler.Config) (*profileSession, error) {
	taps := make([]*tap, len(chosen))
	for i, s := range chosen {
		l, err := s.await(ctx)
		if err != nil {
			return nil, err
		}
		taps[i] = newTap(s, l)
	}
	if err := o.nameSession(taps, configs); err != nil {
		return nil, err
	}
	session := newProfileSession(taps)
	if err := each(taps, func(t *tap) error { return t.measureClock(ctx) }); err != nil {
		return nil, errors.Join(err, session.release())
	}
	return session, nil
}

// nameSession gives the taps the starts of a new session, each with one of configs.
func (o *Omni) nameSession(taps []*tap, configs []profiler.Config) error {
	members := make([]profiler.Member, len(taps))
	for i, t := range taps {
		members[i] = profiler.Member{Rank: t.stage.open.Rank, Config: configs[i]}
	}
	starts, err := o.profile.sessions.Next(len(o.stages), members...)
	for i := range starts {
		taps[i].start = starts[i]
	}
	return err
}

// release gives back the names that workers of a session have not used.
func (s *profileSession) release() error {
	return each(s.taps, func(t *tap) error { return t.start.Release(t.stage.open.Rank) })
}

// discardLimit is how long a worker has to give up a session that did not begin everywhere. One that is inside a long step
// does it after that.
const discardLimit = time.Second

// beginSession begins the session in all its workers, or takes it back.
func (o *Omni) beginSession(ctx context.Context, s *profileSession) error {
	stages, faults := make([]*stage, len(s.taps)), make([]error, len(s.taps))
	_ = each(s.taps, func(t *tap) error {
		i := slices.Index(s.taps, t)
		stages[i] = t.stage
		t.said, faults[i] = t.begin(ctx)
		return nil
	})
	err := joinStages(stages, faults)
	if err == nil {
		return nil
	}
	// The caller's time may be over, which must not keep workers recording.
	closing, cancel := o.within(context.Background())
	defer cancel()
	limited, cancel := context.WithTimeout(closing, discardLimit)
	defer cancel()
	_ = each(s.taps, func(t *tap) error {
		t.discard(limited, fmt.Sprintf("session %s did not begin in every stage", s.name))
		return nil
	})
	return errors.Join(err, s.release())
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
