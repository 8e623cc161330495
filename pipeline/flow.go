package pipeline

import (
	"context"
	"time"

	"github.com/omni-run/omni/pipeline/message"
)

// window is how many outputs of a sequence may be under way: sent by the worker, not yet taken by whoever they are for.
// Together with the size of an output it bounds what a request holds in this process.
const window = 64

// flow is one sequence in one worker, seen from this side.
type flow struct {
	live     *live
	id       uint64
	inbox    chan *message.Output
	consumed int   // outputs taken since the last credit
	sentNS   int64 // when its Admit was sent, Unix nanoseconds

	abandoned bool // nobody reads the inbox any more; guarded by live.mu
}

// admit creates a sequence in the worker.
func (l *live) admit(ctx context.Context, m message.Admit) (*flow, error) {
	select {
	case l.admitting <- struct{}{}:
		defer func() { <-l.admitting }()
	case <-l.dead:
		return nil, l.cause
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	// Room for a window, for the last output, which needs no credit, and none to spare: more is a fault.
	f := &flow{live: l, inbox: make(chan *message.Output, window+1)}
	l.mu.Lock()
	l.next++
	f.id = l.next
	l.flows[f.id] = f
	l.mu.Unlock()
	f.sentNS = time.Now().UnixNano()
	m.Sequence, m.Window, m.SentNS = f.id, window, f.sentNS-l.correction()
	if err := l.send(ctx, &m); err != nil {
		l.mu.Lock()
		delete(l.flows, f.id)
		l.mu.Unlock()
		return nil, err
	}
	return f, nil
}

// feed gives the sequence input. One that has ended takes no notice.
func (f *flow) feed(ctx context.Context, m *message.Feed) error {
	m.Sequence = f.id
	return f.live.send(ctx, m)
}

// next waits for the next output.
func (f *flow) next(ctx context.Context) (*message.Output, error) {
	select {
	case m := <-f.inbox:
		return m, nil
	default:
	}
	select {
	case m := <-f.inbox:
		return m, nil
	case <-f.live.dead:
		select { // what came before the end still counts
		case m := <-f.inbox:
			return m, nil
		default:
			return nil, f.live.cause
		}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// took says that an output has reached whoever it was for. Credit goes back in halves of a window.
func (f *flow) took(ctx context.Context) error {
	f.consumed++
	if f.consumed < window/2 {
		return nil
	}
	n := f.consumed
	f.consumed = 0
	return f.live.send(ctx, &message.Credit{Sequence: f.id, Outputs: n})
}

// abandon cancels the sequence, unless it has ended. The worker's answer is dropped when it comes.
func (f *flow) abandon() {
	l := f.live
	l.mu.Lock()
	_, running := l.flows[f.id]
	f.abandoned = true
	l.mu.Unlock()
	if !running {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.stage.limits.Pong)
	defer cancel()
	// A worker that takes no message for so long is found dead by its pings; a dead one needs no cancel.
	_ = l.send(ctx, &message.Cancel{Sequence: f.id})
}
