package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/message"
)

// attempt is one run of a request through the stages.
type attempt struct {
	omni    *Omni
	request *request
	parts   []*part // one per stage that the request needs, by ascending id

	mu         sync.Mutex // guards what follows, and the moments of the parts
	firstText  time.Duration
	firstAudio time.Duration
}

// part is a request in one stage. Its fields belong to the goroutine that pumps it, and after the attempt to result.
type part struct {
	stage   *stage
	kind    family.Stage
	final   string // what the caller gets of it: text, audio or nothing
	flow    *flow
	outlets []outlet

	tokens  []int64
	finish  message.Finish
	decoder TextDecoder // of a text stage
	stopper stopper
	text    []byte
	samples []float32

	moments moments // guarded by attempt.mu: dumps of the flight recorders read them while the request runs
}

// moments are what is known of a request's time in a stage.
type moments struct {
	live         *live // whose clock the ledger has; nil before it was dispatched
	dispatchedNS int64
	ledger       message.Ledger // as the worker has said it last
	doneNS       int64          // the last output was handled
}

// know changes what is known of a part's time.
func (a *attempt) know(p *part, change func(*moments)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&p.moments)
}

// outlet is where a part's output goes.
type outlet struct {
	to   *part
	edge family.Edge
}

// inlets counts the parts that have yet to end their input to a part.
type inlets struct {
	mu   sync.Mutex // guards left
	left map[*part]int
}

// attempt runs r once. Its stages work at the same time, each on what those before have given so far.
func (o *Omni) attempt(ctx context.Context, r *request) (*Response, error) {
	a := &attempt{omni: o, request: r}
	open := a.plan()
	o.runs(a)
	err := a.run(ctx, open)
	done := time.Now() // to the response and to ledgers alike
	var response *Response
	if err == nil {
		response = a.response(done)
	}
	o.note(a, done, err)
	return response, err
}

// run takes the request through its stages, to its end or its first failure.
func (a *attempt) run(ctx context.Context, open *inlets) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Whatever happens, nothing of the request stays in a worker.
	defer func() {
		for _, p := range a.parts {
			if p.flow != nil {
				p.flow.abandon()
			}
		}
	}()
	if err := a.admit(ctx); err != nil {
		return err
	}
	var pumps sync.WaitGroup
	failures := make(chan error, len(a.parts))
	for _, p := range a.parts {
		pumps.Go(func() {
			if err := a.pump(ctx, p, open); err != nil {
				failures <- err
				cancel()
			}
		})
	}
	pumps.Wait()
	select {
	case err := <-failures: // the first is the cause of the others
		return err
	default:
		return nil
	}
}

// plan makes the parts and joins them by the edges between the stages that the request needs.
func (a *attempt) plan() *inlets {
	o, prepared := a.omni, a.request.prepared
	byID := map[int]*part{}
	for _, s := range o.stages {
		if !slices.Contains(prepared.Stages, s.id) {
			continue
		}
		i := slices.IndexFunc(o.graph.Stages, func(f family.Stage) bool { return f.ID == s.id })
		p := &part{stage: s, kind: o.graph.Stages[i], final: prepared.Finals[s.id]}
		if p.kind.Final == family.Text {
			p.decoder, p.stopper = o.graph.Model.NewTextDecoder(), stopper{stops: a.request.Stop}
		}
		a.parts = append(a.parts, p)
		byID[s.id] = p
	}
	open := &inlets{left: map[*part]int{}}
	for _, edge := range o.graph.Edges {
		from, to := byID[edge.From], byID[edge.To]
		if from != nil && to != nil {
			from.outlets = append(from.outlets, outlet{to: to, edge: edge})
			open.left[to]++
		}
	}
	return open
}

// admit waits for the workers and creates the request's sequence in each.
func (a *attempt) admit(ctx context.Context) error {
	prepared := a.request.prepared
	for _, p := range a.parts {
		l, err := p.stage.await(ctx)
		if err != nil {
			return err
		}
		p.flow, err = l.admit(ctx, message.Admit{
			Request: a.request.ID, Params: prepared.Params[p.stage.id], Cost: a.cost(p), Last: !a.fed(p),
			Full: prepared.Full[p.stage.id],
		})
		if err != nil {
			return err
		}
		a.know(p, func(m *moments) { m.live, m.dispatchedNS = l, p.flow.sentNS })
	}
	return nil
}

// cost is the size of a part's prefill: every autoregressive stage takes in the prompt.
func (a *attempt) cost(p *part) int {
	if p.kind.Kind != family.Autoregressive {
		return 0
	}
	return len(a.request.prepared.PromptTokenIDs)
}

// fed reports whether another part feeds p.
func (a *attempt) fed(p *part) bool {
	return slices.ContainsFunc(a.parts, func(from *part) bool {
		return slices.ContainsFunc(from.outlets, func(o outlet) bool { return o.to == p })
	})
}

// pump moves what a stage gives to whoever it is for, until the stage is done with the request.
func (a *attempt) pump(ctx context.Context, p *part, open *inlets) error {
	for {
		out, err := p.flow.next(ctx)
		if err != nil {
			return err
		}
		a.know(p, func(m *moments) { m.ledger = out.Ledger })
		if out.State == message.StateFailed {
			return a.failed(ctx, p, out.Error)
		}
		done := out.State == message.StateDone
		text, stopped := p.write(out, done)
		if stopped && !done {
			p.flow.abandon() // what it would go on to write is not wanted
			done = true
		}
		for _, outlet := range p.outlets {
			if err := p.hand(ctx, outlet, out, done, open); err != nil {
				return err
			}
		}
		if err := a.collect(ctx, p, out, text, done); err != nil {
			return err
		}
		if done {
			a.know(p, func(m *moments) { m.doneNS = time.Now().UnixNano() })
			return nil
		}
		if err := p.flow.took(ctx); err != nil {
			return err
		}
	}
}

// failed is the error of a sequence that failed. A worker that cancels what nobody has cancelled is about to end.
func (a *attempt) failed(ctx context.Context, p *part, e *message.Error) error {
	if e.Code == message.Cancelled && ctx.Err() == nil {
		select {
		case <-p.flow.live.dead:
			return p.flow.live.cause
		case <-ctx.Done():
		case <-time.After(p.stage.limits.Terminate):
		}
	}
	return &StageError{Stage: p.stage.id, Name: p.stage.name, Code: e.Code, Cause: e}
}

// hand gives the next stage its part of an output.
func (p *part) hand(ctx context.Context, o outlet, out *message.Output, done bool, open *inlets) error {
	feed := &message.Feed{SentNS: out.SentNS + p.flow.live.correction() - o.to.flow.live.correction()}
	if o.edge.Tokens {
		feed.Tokens = out.Tokens
	}
	for _, t := range out.Tensors {
		if slices.Contains(o.edge.Tensors, t.Name) {
			feed.Tensors = append(feed.Tensors, t)
		}
	}
	if done {
		open.mu.Lock()
		open.left[o.to]--
		feed.Last = open.left[o.to] == 0
		open.mu.Unlock()
	}
	if len(feed.Tokens) == 0 && len(feed.Tensors) == 0 && !feed.Last {
		return nil
	}
	return o.to.flow.feed(ctx, feed)
}

// write returns what an output of a text stage adds to the text; stopped says that one of the request's stop strings has come.
func (p *part) write(out *message.Output, done bool) (text string, stopped bool) {
	if p.kind.Final != family.Text {
		return "", false
	}
	text = p.decoder.Push(out.Tokens...)
	if done {
		text += p.decoder.Flush()
	}
	text, stopped = p.stopper.push(text, done)
	if stopped {
		out.Finish = message.FinishStop
	}
	return text, stopped
}

// collect keeps an output for the response and shows it to the caller. Of a text stage's output, text is what it adds.
func (a *attempt) collect(ctx context.Context, p *part, out *message.Output, text string, done bool) error {
	p.tokens = append(p.tokens, out.Tokens...)
	if done {
		p.finish = out.Finish
	}
	switch p.kind.Final {
	case family.Text:
		p.text = append(p.text, text...)
		if len(out.Tokens) == 0 && text == "" {
			return nil
		}
		a.first(&a.firstText)
		return a.show(ctx, p, Event{Kind: EventText, Text: text, TokenIDs: out.Tokens})
	case family.Audio:
		samples, err := audioOf(out)
		if err != nil {
			return &StageError{Stage: p.stage.id, Name: p.stage.name, Code: message.Internal, Cause: err}
		}
		p.samples = append(p.samples, samples...)
		if len(samples) == 0 {
			return nil
		}
		a.first(&a.firstAudio)
		return a.show(ctx, p, Event{Kind: EventAudio, Samples: samples, SampleRate: p.stage.status().Info.SampleRate})
	}
	return nil
}

// first notes the time of the first output of a kind.
func (a *attempt) first(at *time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *at == 0 {
		*at = max(1, time.Since(a.request.arrived))
	}
}

// show gives the caller an event, if it asked for this stage's output.
func (a *attempt) show(ctx context.Context, p *part, e Event) error {
	if a.request.emit == nil || p.final == "" {
		return nil
	}
	if err := a.request.emit(ctx, e); err != nil {
		return fmt.Errorf("the caller did not take the result: %w", err)
	}
	a.request.shown.Store(true)
	return nil
}
