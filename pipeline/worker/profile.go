package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

// profileNow does on the receiving goroutine, while a step may be running, what need not wait for its end: it stops sessions
// and dumps flight recorders. done is false if the loop has to do it, between two steps; so it does with everything that
// comes after what waits for it.
func (l *loop) profileNow(ctx context.Context, r received) (done bool, err error) {
	p := l.profiler.Load()
	if p == nil || !isProfile(r.message) {
		return false, nil
	}
	if l.inbox.putBehind(r) {
		return true, nil
	}
	reply := &message.ProfileReply{}
	switch m := r.message.(type) {
	case *message.ProfileStop:
		if m.Discard != "" {
			return false, nil
		}
		reply.ID = m.ID
		if reply.Report, done = p.Cut(); !done {
			return false, nil
		}
	case *message.ProfileDump:
		reply.ID = m.ID
		if err := p.Dump(m.Start); err != nil {
			reply.Error = profileError(err)
		}
		reply.Report = p.Report()
	default:
		return false, nil
	}
	return true, l.conn.Send(ctx, reply)
}

// profileOne does what a profile message asks for, between two steps, and says how that went.
func (l *loop) profileOne(ctx context.Context, m message.Message) error {
	p := l.profiler.Load()
	reply := &message.ProfileReply{}
	var err error
	switch m := m.(type) {
	case *message.ProfileStart:
		reply.ID, err = m.ID, p.Start(m.Start)
		reply.Report = p.Report()
	case *message.ProfileStop:
		reply.ID = m.ID
		if m.Discard != "" {
			reply.Report = p.Discard(errors.New(m.Discard))
		} else {
			reply.Report, err = p.Stop()
		}
	case *message.ProfileDump:
		reply.ID, err = m.ID, p.Dump(m.Start)
		reply.Report = p.Report()
	}
	if err != nil {
		reply.Error = profileError(err)
	}
	return l.conn.Send(ctx, reply)
}

// profileError gives the profiler's own errors their codes; those of recorders have one.
func profileError(err error) *message.Error {
	e := asError(err)
	switch {
	case e.Code != message.Internal:
	case errors.Is(err, profiler.ErrSetting):
		e.Code = message.InvalidArgument
	case errors.Is(err, profiler.ErrNoRing), errors.Is(err, profiler.ErrRingPaused), errors.Is(err, profiler.ErrNotEnabled):
		e.Code = message.FailedPrecondition
	case errors.Is(err, profiler.ErrBusy):
		e.Code = message.ResourceExhausted
	}
	return e
}

// isProfile reports whether m is for profileOne.
func isProfile(m message.Message) bool {
	switch m.Kind() {
	case message.KindProfileStart, message.KindProfileStop, message.KindProfileDump:
		return true
	default:
		return false
	}
}

// profileWait answers when a session's files are complete, on a goroutine of its own. It is called by the receiver.
func (l *loop) profileWait(ctx context.Context, m *message.ProfileWait) error {
	p := l.profiler.Load()
	if p == nil {
		return l.conn.Send(ctx, loading(m.ID))
	}
	l.replies.add(func() {
		reply := &message.ProfileReply{ID: m.ID}
		var err error
		if reply.Report, err = p.WaitSession(ctx, m.Session); err != nil {
			reply.Error = asError(err)
		}
		_ = l.conn.Send(ctx, reply) // the worker ends: nobody waits
	})
	return nil
}

// profileStatus reports from any goroutine, also before there is an engine.
func (l *loop) profileStatus(id uint64) *message.ProfileReply {
	p := l.profiler.Load()
	if p == nil {
		return loading(id)
	}
	return &message.ProfileReply{ID: id, Report: p.Report()}
}

func loading(id uint64) *message.ProfileReply {
	return &message.ProfileReply{ID: id, Error: message.Errorf(message.FailedPrecondition, "the worker is still loading")}
}

// startProfiler makes the worker's profiler and starts its flight recorder, if it is to have one.
func (l *loop) startProfiler(p *profiler.Worker) error {
	if l.open.Ring != nil {
		if err := p.StartRing(*l.open.Ring); err != nil {
			return fmt.Errorf("profiler_config: %w", err)
		}
	}
	l.profiler.Store(p)
	return nil
}

// endProfiler ends what is being recorded, waits for its files and tells the parent of them: it may not know yet that
// the worker ends.
func (l *loop) endProfiler(ctx context.Context, p *profiler.Worker) error {
	report, err := p.Shutdown(ctx)
	if report.Session == "" {
		return err
	}
	return errors.Join(err, l.conn.Send(ctx, &message.ProfileReply{Report: report}))
}

// replies are the answers that wait for something.
type replies struct {
	running sync.WaitGroup
	mu      sync.Mutex // guards what follows
	ended   bool
}

// add runs answer on a goroutine of its own, unless the worker has ended.
func (r *replies) add(answer func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.running.Go(answer)
	}
}

// end waits for the answers that are under way and lets no other begin.
func (r *replies) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.running.Wait()
}
