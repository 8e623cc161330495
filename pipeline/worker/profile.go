package worker

import (
	"context"

	"github.com/omni-run/omni/pipeline/message"
)

// profileStart begins a session between two steps and says how that went.
func (l *loop) profileStart(ctx context.Context, m *message.ProfileStart) error {
	p := l.profiler.Load()
	err := p.Start(m.Start)
	reply := &message.ProfileReply{ID: m.ID, Report: p.Report()}
	if err != nil {
		reply.Error = asError(err)
	}
	return l.conn.Send(ctx, reply)
}

// profileStop ends collection. The reply waits for the files on a goroutine of its own, if it was asked to.
func (l *loop) profileStop(ctx context.Context, m *message.ProfileStop) error {
	p := l.profiler.Load()
	report, err := p.Stop()
	session := report.Session
	if err != nil || !m.Wait {
		reply := &message.ProfileReply{ID: m.ID, Report: report}
		if err != nil {
			reply.Error = asError(err)
		}
		return l.conn.Send(ctx, reply)
	}
	l.replies.Go(func() {
		report, err := p.WaitSession(ctx, session)
		if err != nil {
			return // the worker ends, nobody waits
		}
		_ = l.conn.Send(ctx, &message.ProfileReply{ID: m.ID, Report: report}) // likewise
	})
	return nil
}

// profileStatus reports from any goroutine, also before there is an engine.
func (l *loop) profileStatus(id uint64) *message.ProfileReply {
	p := l.profiler.Load()
	if p == nil {
		return &message.ProfileReply{ID: id, Error: message.Errorf(message.FailedPrecondition, "the worker is still loading")}
	}
	return &message.ProfileReply{ID: id, Report: p.Report()}
}
