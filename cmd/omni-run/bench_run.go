package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omni-run/omni/api/client"
)

// sample is what was measured of one request. Times that do not apply are 0.
type sample struct {
	err        error
	firstText  time.Duration
	lastText   time.Duration
	firstAudio time.Duration
	e2e        time.Duration
	tokens     int
	audio      time.Duration // its duration
	stages     []client.StageMetrics
}

// warm sends the requests that do not count.
func (l *load) warm(ctx context.Context) error {
	for i := range l.warmup {
		if s := l.one(ctx, l.chats[i%len(l.chats)]); s.err != nil {
			return s.err
		}
	}
	return nil
}

// run sends all requests and waits for their answers, which are in the order of sending.
func (l *load) run(ctx context.Context) []sample {
	samples := make([]sample, l.requests)
	var running sync.WaitGroup
	send := func(i int) { samples[i] = l.one(ctx, l.chats[i%len(l.chats)]) }
	if l.rate == 0 {
		var next atomic.Int64
		for range min(l.concurrency, l.requests) {
			running.Go(func() {
				for i := next.Add(1) - 1; i < int64(l.requests); i = next.Add(1) - 1 {
					send(int(i))
				}
			})
		}
		running.Wait()
		return samples
	}
	// Times between arrivals that have nothing to do with each other are distributed exponentially.
	pauses := rand.New(rand.NewPCG(uint64(l.seed), 0))
	at := time.Now()
	for i := range samples {
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done(): // the request reports it
		}
		running.Go(func() { send(i) })
		at = at.Add(time.Duration(pauses.ExpFloat64() / l.rate * float64(time.Second)))
	}
	running.Wait()
	return samples
}

// one sends a request and measures its answer.
func (l *load) one(ctx context.Context, chat client.Chat) sample {
	var s sample
	began := time.Now()
	frames, rate := 0, 0
	for piece, err := range l.server.Stream(ctx, chat) {
		if err != nil {
			s.err = err
			return s
		}
		now := time.Since(began)
		if piece.Text != "" {
			if s.firstText == 0 {
				s.firstText = now
			}
			s.lastText = now
		}
		if len(piece.Audio) > 0 {
			if s.firstAudio == 0 {
				s.firstAudio = now
			}
			frames += piece.Frames
			rate = max(rate, piece.SampleRate)
		}
		if piece.Usage != nil {
			s.tokens = piece.Usage.CompletionTokens
		}
		if piece.Metrics != nil {
			s.stages = piece.Metrics.Stages
		}
	}
	s.e2e = time.Since(began)
	if rate > 0 {
		s.audio = time.Duration(float64(frames) / float64(rate) * float64(time.Second))
	}
	return s
}
