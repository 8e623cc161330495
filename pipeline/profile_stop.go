package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

// StopProfile ends collection in the named stages, all of the session if stages is empty, waits for their files and the
// ledger, and reports the session. A worker that has died meanwhile is reported as failed. When nothing is active it reports
// the last session. The pictures are made after that; WaitProfile waits for them too.
func (o *Omni) StopProfile(stages []int) (*ProfileReport, error) {
	return o.StopProfileWith(context.Background(), ProfileStopOptions{Stages: stages, Wait: true})
}

// StopProfileWith is StopProfile with a choice of session, and of whether to wait. Collection ends at
// once, also in the middle of a step, unless the recorder can only end between two (see profiler.Recorder); the files are written while the model goes on, which WaitProfile waits for.
func (o *Omni) StopProfileWith(ctx context.Context, options ProfileStopOptions) (*ProfileReport, error) {
	return o.profileCall(ctx, "stop profile", func(ctx context.Context) (*ProfileReport, error) {
		return o.stopProfile(ctx, options)
	})
}

func (o *Omni) stopProfile(ctx context.Context, options ProfileStopOptions) (*ProfileReport, error) {
	p := &o.profile
	if len(p.configs) == 0 {
		return nil, profiler.ErrNotEnabled
	}
	if err := o.check(options.Stages); err != nil {
		return nil, err
	}
	s, err := p.find(options.Session)
	if s == nil || err != nil {
		return p.report(nil, nil), err
	}
	chosen, err := o.endCollection(ctx, s, options.Stages)
	if err != nil {
		return nil, err
	}
	if !options.Wait {
		return p.fresh(ctx, s), nil
	}
	if len(p.active(s)) == 0 {
		err = await(ctx, s.filed)
	} else {
		err = each(chosen, func(t *tap) error { return await(ctx, t.done) })
	}
	if err != nil {
		return nil, err
	}
	return p.fresh(ctx, s), nil
}

// endCollection ends collection in stages of a session, all if ids is empty, and returns their workers. Stages that have
// been stopped before are no mistake.
func (o *Omni) endCollection(ctx context.Context, s *profileSession, ids []int) ([]*tap, error) {
	p := &o.profile
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	defer p.give()
	var chosen, ending []*tap
	for _, id := range ids {
		if !slices.ContainsFunc(s.taps, func(t *tap) bool { return t.stage.id == id }) && len(p.active(s)) > 0 {
			return nil, fmt.Errorf("%w in stage %d; session %s records stages %v", ErrNoProfile, id, s.name, s.stages())
		}
	}
	p.mu.Lock()
	for _, t := range s.taps {
		if len(ids) == 0 || slices.Contains(ids, t.stage.id) {
			chosen = append(chosen, t)
			if !t.stopped {
				ending = append(ending, t)
			}
		}
	}
	p.mu.Unlock()
	err := each(ending, func(t *tap) error {
		report, err := t.end(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx) // a worker that ends with the pipeline ends the session by itself
		}
		if err != nil && report.Session == "" {
			report = p.lost(t, err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		t.said, t.stopped = report, true
		return nil
	})
	for _, t := range ending {
		if p.hasStopped(t) {
			p.finishing.Go(func() { o.completeTap(t) })
		}
	}
	if len(ending) > 0 && len(p.active(s)) == 0 {
		p.endBook(s, len(o.gate))
		p.finishing.Go(func() { o.completeSession(s) })
	}
	return chosen, err
}

func (p *profileState) hasStopped(t *tap) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return t.stopped
}

func (s *profileSession) stages() (ids []int) {
	for _, t := range s.taps {
		ids = append(ids, t.stage.id)
	}
	return ids
}

// completeTap waits for the files of a worker whose collection has ended. If the pipeline closes meanwhile, the worker
// completes them before it ends and Close sees to the rest.
func (o *Omni) completeTap(t *tap) {
	ctx, cancel := o.within(context.Background())
	defer cancel()
	report, err := t.wait(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil && report.Session == "" {
		report = o.profile.lost(t, err)
	}
	t.writes(false)
	o.profile.settle(t, report)
}

// settle keeps the last that will be said of a worker's part in its session.
func (p *profileState) settle(t *tap, report profiler.Report) {
	_ = t.start.Release(t.stage.open.Rank) // an empty file that stays does no harm
	p.mu.Lock()
	defer p.mu.Unlock()
	t.stopped = true
	if t.final == nil {
		t.final = &report
		close(t.done)
	}
}

// completeSession waits for the files of all workers of a session that has been stopped, then writes what is made of them.
func (o *Omni) completeSession(s *profileSession) {
	ctx, cancel := o.within(context.Background())
	defer cancel()
	for _, t := range s.taps {
		if await(ctx, t.done) != nil {
			return
		}
	}
	o.publish(ctx, s)
}

// publish writes the ledger of a session whose workers are done with it, then makes the pictures, which may take some
// seconds, and wakes those who wait for the one or the other.
func (o *Omni) publish(ctx context.Context, s *profileSession) {
	p := &o.profile
	written := p.writeBook(s)
	p.mu.Lock()
	s.written, s.book = written, book{}
	close(s.filed)
	p.mu.Unlock()
	gpusError := s.leaveGPUs()
	pictures := o.makePictures(ctx, s)
	if gpusError != nil {
		pictures.Error = strings.TrimPrefix(pictures.Error+"\n"+gpusError.Error(), "\n")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.pictures = pictures
	close(s.complete)
}

// endPoll is how often WaitProfile asks whether the budgets of a session that nobody stops are used up.
const endPoll = 50 * time.Millisecond

// WaitProfile returns when a session is complete: the files of all workers, the ledger, the pictures. An empty name means
// the current or last session, that of a slow request which has just ended included. One that is still active is waited for
// until somebody stops it, or until budgets have ended it in all its workers, and then it is stopped.
func (o *Omni) WaitProfile(ctx context.Context, session string) (*ProfileReport, error) {
	return o.profileCall(ctx, "wait for profile", func(ctx context.Context) (*ProfileReport, error) {
		return o.waitProfile(ctx, session)
	})
}

func (o *Omni) waitProfile(ctx context.Context, session string) (*ProfileReport, error) {
	p := &o.profile
	if session == "" {
		if err := p.dumped(ctx); err != nil {
			return nil, err
		}
	}
	s, err := p.find(session)
	if s == nil || err != nil {
		return p.report(nil, nil), err
	}
	poll := time.NewTicker(endPoll)
	defer poll.Stop()
	for len(p.active(s)) > 0 {
		report := p.fresh(ctx, s)
		if !slices.ContainsFunc(report.Workers, func(w profiler.Report) bool { return !w.State.Ended() }) && ctx.Err() == nil {
			if _, err := o.endCollection(ctx, s, nil); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err := await(ctx, s.complete); err != nil {
		return nil, err
	}
	return p.report(s, nil), nil
}

// await waits for the end of something.
func await(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// closeProfiles completes the sessions of a pipeline whose workers have ended: what they have said of it last counts.
func (o *Omni) closeProfiles() {
	p := &o.profile
	p.finishing.Wait()
	ended, cancel := context.WithCancel(context.Background())
	cancel() // nobody waits for pictures
	p.mu.Lock()
	sessions := slices.Clone(p.recent)
	p.mu.Unlock()
	for _, s := range sessions {
		select {
		case <-s.complete:
			continue
		default:
		}
		for _, t := range p.openTaps(s) {
			p.settle(t, p.lost(t, message.Errorf(message.Cancelled, "the pipeline was closed")))
		}
		p.endBook(s, 0)
		o.publish(ended, s)
	}
}
