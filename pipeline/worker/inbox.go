package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
)

// received is a message and the time at which it came.
type received struct {
	message message.Message
	at      time.Time
}

// inbox holds what has been received and not yet been looked at. It grows as the parent sends; the windows of the
// sequences that feed this stage bound that.
type inbox struct {
	wake chan struct{} // holds a token when there may be something to take

	mu      sync.Mutex // guards what follows
	queue   []received
	profile int   // profile messages that were put and are not done
	err     error // why nothing more will come
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) put(r received) {
	b.mu.Lock()
	b.add(r)
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) add(r received) {
	b.queue = append(b.queue, r)
	if isProfile(r.message) {
		b.profile++
	}
}

// putBehind puts a profile message behind those that are not done. It reports false, and does nothing, if all are.
func (b *inbox) putBehind(r received) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.profile == 0 {
		return false
	}
	b.add(r)
	return true
}

// profiled says that a profile message is done, and reports whether another one has come.
func (b *inbox) profiled() (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.profile--
	return b.profile > 0
}

func (b *inbox) fail(err error) {
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	b.signal()
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns everything that has come. The error is that of the connection, once it has ended.
func (b *inbox) take() ([]received, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.queue
	b.queue = nil
	return queue, b.err
}

// putBack returns what was taken and is not yet due.
func (b *inbox) putBack(rest []received) {
	b.mu.Lock()
	b.queue = append(rest, b.queue...)
	b.mu.Unlock()
	b.signal()
}

// pending reports whether the connection has ended or the parent wants the worker to stop.
func (b *inbox) pending() (stop bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.queue {
		if r.message.Kind() == message.KindDrain {
			return true, b.err
		}
	}
	return false, b.err
}

// receive is the goroutine that owns the receiving side: it answers what can be answered from anywhere and lays the
// rest into the inbox. It ends with the connection.
func (l *loop) receive(ctx context.Context, conn transport.Conn) {
	for {
		m, err := conn.Recv()
		if err != nil {
			l.inbox.fail(err)
			if l.options.Lost != nil && !errors.Is(err, transport.ErrClosed) {
				l.options.Lost(err)
			}
			return
		}
		switch m := m.(type) {
		case *message.Ping:
			err = conn.Send(ctx, l.pong(m.ID))
		case *message.ProfileStatus:
			err = conn.Send(ctx, l.profileStatus(m.ID))
		case *message.ProfileWait:
			err = l.profileWait(ctx, m)
		default:
			var done bool
			r := received{message: m, at: time.Now()}
			if done, err = l.profileNow(ctx, r); !done {
				l.inbox.put(r)
			}
		}
		if err != nil {
			l.inbox.fail(err)
			return
		}
	}
}
