package pipeline

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/omni-run/omni/pipeline/family"
)

// Generate runs one request to its end.
func (o *Omni) Generate(ctx context.Context, req Request) (*Response, error) {
	return o.run(ctx, req, nil)
}

// Stream runs one request and gives out its result piece by piece; the last event holds the Response. An error ends the
// sequence. Breaking out of the loop cancels the request.
func (o *Omni) Stream(ctx context.Context, req Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		events := make(chan Event)
		done := make(chan struct{})
		var response *Response
		var err error
		go func() {
			defer close(done)
			response, err = o.run(ctx, req, func(ctx context.Context, e Event) error {
				select {
				case events <- e:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
		}()
		for {
			select {
			case e := <-events:
				if yield(e, nil) {
					continue
				}
				cancel()
				<-done
				return
			case <-done:
				if err != nil {
					yield(Event{}, err)
				} else {
					yield(Event{Kind: EventDone, Response: response}, nil)
				}
				return
			}
		}
	}
}

// emit gives an event to the caller, waiting until it is taken.
type emit func(ctx context.Context, e Event) error

// request is a Request on its way.
type request struct {
	Request
	prepared *family.Prepared
	emit     emit        // nil if the caller wants no events
	shown    atomic.Bool // the caller has seen an event
	arrived  time.Time
	entered  time.Time // let into the stages

	watch watch // of the flight recorders
}

// run prepares a request, waits for its turn and runs it, once more if a worker died before anything was shown.
func (o *Omni) run(ctx context.Context, req Request, emit emit) (*Response, error) {
	r := &request{Request: req, emit: emit, arrived: time.Now()}
	if r.ID == "" {
		r.ID = fmt.Sprintf("request-%d", o.requests.Add(1))
	}
	fail := func(err error) (*Response, error) { return nil, fmt.Errorf("request %q: %w", r.ID, err) }
	if err := o.enter(); err != nil {
		return fail(err)
	}
	defer o.running.Done()
	ctx, cancel := o.within(ctx)
	defer cancel()
	if err := o.prepare(ctx, r); err != nil {
		return fail(err)
	}
	o.watch(r)
	defer o.unwatch(r)
	select {
	case o.gate <- struct{}{}:
		defer func() { <-o.gate }()
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
	r.entered = time.Now()
	response, err := o.attempt(ctx, r)
	if err != nil && errors.Is(err, ErrWorkerDied) && !r.shown.Load() && ctx.Err() == nil {
		o.log.Warn("request is run again", "request", r.ID, "error", err)
		response, err = o.attempt(ctx, r)
	}
	if err != nil {
		return fail(err)
	}
	return response, nil
}

// prepare renders and tokenises the request for what the engines say about themselves.
func (o *Omni) prepare(ctx context.Context, r *request) error {
	if err := checkStops(r.Stop); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	infos := map[int]family.StageInfo{}
	for _, s := range o.stages {
		infos[s.id] = s.status().Info
	}
	prepared, err := o.graph.Model.Prepare(family.Request{
		Prompt: r.Prompt, System: r.System, UsualSystem: r.UsualSystem, Messages: r.Messages, Modalities: r.Modalities, Speaker: r.Speaker,
		Seed: r.Seed, MaxTokens: r.MaxTokens, MaxAudio: r.MaxAudio, Stops: len(r.Stop) > 0, Sampling: r.Sampling,
		Speech: r.Speech,
	}, infos)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	r.prepared = prepared
	return ctx.Err()
}

// milliseconds is d as results report it.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
