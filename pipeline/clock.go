package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
)

const (
	// clockProbes is how often a worker is asked for its time when it is ready and before a session begins: the quickest
	// answer is the best.
	clockProbes = 8
	// clockAge is how long an estimate is better than one with a larger error: clocks drift apart.
	clockAge = time.Minute
)

// clockEstimate is what is known of a worker's clock.
type clockEstimate struct {
	profiler.Clock
	at time.Time
}

// askTime sends a ping. The worker's clock was read between sending and receiving, so half of the time between is how wrong
// its offset from the middle of the two can be.
func (l *live) askTime(ctx context.Context) (*message.Pong, error) {
	sent := time.Now()
	m, err := l.ask(ctx, func(id uint64) message.Message { return &message.Ping{ID: id} })
	if err != nil {
		return nil, err
	}
	pong, ok := m.(*message.Pong)
	if !ok {
		return nil, fmt.Errorf("protocol: a ping was answered with %s", m.Kind())
	}
	half := time.Since(sent) / 2
	l.noteClock(profiler.Clock{OffsetNS: pong.NowNS - sent.Add(half).UnixNano(), ErrorNS: max(1, half.Nanoseconds())})
	return pong, nil
}

// noteClock keeps the better of two estimates.
func (l *live) noteClock(c profiler.Clock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clock.at.IsZero() || c.ErrorNS <= l.clock.ErrorNS || time.Since(l.clock.at) > clockAge {
		l.clock = clockEstimate{Clock: c, at: time.Now()}
	}
}

// measureClock asks the worker for its time several times and returns the best estimate.
func (l *live) measureClock(ctx context.Context) (profiler.Clock, error) {
	for range clockProbes {
		if _, err := l.askTime(ctx); err != nil {
			return profiler.Clock{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clock.Clock, nil
}

// correction is what must be added to the worker's times to make them this process's, and taken from this process's to make
// them the worker's.
func (l *live) correction() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledger.Clock(l.clock.Clock).Correction()
}
