package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/pipeline/transport"
	"github.com/omni-run/omni/pipeline/worker"
)

// parent is the other side of a worker that runs in this process.
type parent struct {
	t    *testing.T
	conn *transport.Socket
	stop context.CancelFunc // as SIGTERM does
	end  chan error         // of Run
	lost chan error

	early []message.Message // came before what recv was asked for
}

// start runs a worker on a backend.
func start(t *testing.T, backend worker.Backend) *parent {
	t.Helper()
	t.TempDir() // the first is removed last: the worker may be writing into its folder until it has ended
	ours, theirs, err := transport.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := transport.FromFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	p := &parent{t: t, conn: ours, stop: stop, end: make(chan error, 1), lost: make(chan error, 1)}
	go func() {
		defer close(p.end)
		p.end <- worker.Run(run, conn, backend, worker.Options{ABI: message.ABI, Build: "test", Lost: func(err error) { p.lost <- err }})
	}()
	t.Cleanup(func() { ours.Close() })
	t.Cleanup(func() {
		stop()
		go func() {
			for _, err := ours.Recv(); err == nil; _, err = ours.Recv() { // its last words hold up nobody
			}
		}()
		_ = p.ended() // a test that cares has asked
	})
	return p
}

// open starts a worker and opens one of the engines of package pipelinetest.
func open(t *testing.T, model string, script pipelinetest.Script, change func(*message.Open)) *parent {
	t.Helper()
	p := start(t, pipelinetest.NewBackend(map[string]pipelinetest.Script{model: script}))
	if hello := recv[*message.Hello](p); hello.Protocol != message.Protocol || hello.ABI != message.ABI || hello.PID == 0 {
		t.Errorf("got %+v", hello)
	}
	m := &message.Open{
		Name: "test", Worker: "stage-0", World: 1, MaxBatch: 4, Prefill: 512, Engine: json.RawMessage(fmt.Sprintf(`{"model":%q}`, model)),
	}
	if change != nil {
		change(m)
	}
	p.send(m)
	recv[*message.Progress](p)
	recv[*message.Ready](p)
	return p
}

func (p *parent) send(m message.Message) {
	p.t.Helper()
	if err := p.conn.Send(p.t.Context(), m); err != nil {
		p.t.Fatalf("send %s: %v", m.Kind(), err)
	}
}

// next receives a message, whatever it is.
func (p *parent) next() (message.Message, error) {
	if len(p.early) > 0 {
		m := p.early[0]
		p.early = p.early[1:]
		return m, nil
	}
	return p.conn.Recv()
}

// recv receives a T, which has to be the next data, or the next control message: between the two a transport promises no
// order. The worker does for its Bye, which comes after everything.
func recv[T message.Message](p *parent) T {
	p.t.Helper()
	var want T
	control := message.IsControl(want)
	for i := 0; ; i++ {
		if i == len(p.early) {
			m, err := p.conn.Recv()
			if err != nil {
				p.t.Fatalf("recv: %v; before that came %v", err, p.early)
			}
			if _, bye := m.(*message.Bye); bye && !control {
				p.t.Fatalf("got bye before the last data, want %T", want)
			}
			p.early = append(p.early, m)
		}
		m := p.early[i]
		if message.IsControl(m) != control {
			continue
		}
		p.early = slices.Delete(p.early, i, i+1)
		got, ok := m.(T)
		if !ok {
			p.t.Fatalf("got %s %+v, want %T", m.Kind(), m, want)
		}
		return got
	}
}

// inStep waits until a step runs.
func (p *parent) inStep() {
	p.t.Helper()
	for id := uint64(1); ; id++ {
		p.send(&message.Ping{ID: id})
		if pong := recv[*message.Pong](p); pong.StepNS > 0 {
			return
		}
	}
}

// ended waits for the end of Run.
func (p *parent) ended() error {
	p.t.Helper()
	select {
	case err := <-p.end:
		return err
	case <-time.After(10 * time.Second):
		p.t.Fatal("the worker does not end")
		return nil
	}
}

// think is an admission of the thinker.
func think(sequence uint64, tokens int) *message.Admit {
	return &message.Admit{
		Sequence: sequence, Request: "r", Last: true, Cost: 3,
		Params: json.RawMessage(fmt.Sprintf(`{"prompt_token_ids":[1,2,3],"sampling":{"max_tokens":%d}}`, tokens)),
	}
}

// tokens receives the outputs of one sequence to its end.
func (p *parent) tokens(sequence uint64) []int64 {
	p.t.Helper()
	var all []int64
	for {
		o := recv[*message.Output](p)
		if o.Sequence != sequence {
			p.t.Fatalf("got an output of sequence %d, want %d", o.Sequence, sequence)
		}
		all = append(all, o.Tokens...)
		switch o.State {
		case message.StateDone:
			return all
		case message.StateFailed:
			p.t.Fatalf("sequence %d failed: %v", sequence, o.Error)
		default:
		}
	}
}

func TestSequenceRunsToItsEndAndDrainSaysBye(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	p.send(think(1, 5))
	if got, want := p.tokens(1), pipelinetest.ExpectIDs([]int64{1, 2, 3}, 5).Tokens; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	p.send(&message.Drain{})
	if bye := recv[*message.Bye](p); bye.Steps != 5 {
		t.Errorf("got %d steps, want 5", bye.Steps)
	}
	if _, err := p.next(); !errors.Is(err, io.EOF) {
		t.Errorf("after bye: got %v, want io.EOF", err)
	}
	if err := p.ended(); err != nil {
		t.Error(err)
	}
}

func TestWindowStopsASequenceUntilCreditComes(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	m := think(1, 10)
	m.Window = 3
	p.send(m)
	for range 3 {
		recv[*message.Output](p)
	}
	// A sequence without a window runs to its end beside the one that waits.
	p.send(think(2, 4))
	p.tokens(2)
	p.send(&message.Credit{Sequence: 1, Outputs: 2})
	for range 2 {
		if o := recv[*message.Output](p); o.Sequence != 1 || o.State != message.StateReady {
			t.Fatalf("got %+v", o)
		}
	}
	p.send(&message.Ping{ID: 4})
	if pong := recv[*message.Pong](p); pong.ID != 4 || pong.Sequences != 1 {
		t.Errorf("got %+v, want nothing but the pong", pong)
	}
	p.send(&message.Credit{Sequence: 1, Outputs: 100})
	if rest := p.tokens(1); len(rest) != 5 {
		t.Errorf("got %d more tokens, want 5", len(rest))
	}
}

func TestCancelIsAnswered(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	m := think(3, 1<<30)
	m.Window = 1
	p.send(m)
	recv[*message.Output](p)
	p.send(&message.Cancel{Sequence: 3})
	if o := recv[*message.Output](p); o.State != message.StateFailed || o.Error.Code != message.Cancelled || o.Ledger.Steps != 1 {
		t.Errorf("got %+v", o)
	}
	p.send(&message.Cancel{Sequence: 3}) // ended: nothing happens
	p.send(&message.Cancel{Sequence: 4}) // its admission has been overtaken
	p.send(&message.Credit{Sequence: 3, Outputs: 1})
	p.send(&message.Feed{Sequence: 3, Last: true})
	p.send(think(4, 5))
	if o := recv[*message.Output](p); o.Sequence != 4 || o.State != message.StateFailed || o.Error.Code != message.Cancelled {
		t.Errorf("got %+v", o)
	}
	p.send(think(5, 2))
	p.tokens(5)
}

func TestErrorsOfASequenceConcernItAlone(t *testing.T) {
	script := pipelinetest.Script{Faults: []pipelinetest.Fault{
		{At: pipelinetest.AtAdmit, Nth: 1, Do: pipelinetest.Error},
		{At: pipelinetest.AtPrefill, Nth: 1, Do: pipelinetest.Error},
		{At: pipelinetest.AtFeed, Nth: 1, Do: pipelinetest.Error},
	}}
	p := open(t, pipelinetest.Thinker, script, nil)
	failure := func(sequence uint64, text string) {
		t.Helper()
		o := recv[*message.Output](p)
		if o.Sequence != sequence || o.State != message.StateFailed || !strings.Contains(o.Error.Message, text) {
			t.Fatalf("got %+v with error %v, want the failure of %d with %q", o, o.Error, sequence, text)
		}
	}
	p.send(think(1, 5))
	failure(1, `admit request "r": scripted error at admit`)
	p.send(think(2, 5))
	failure(2, "scripted error at prefill")
	waits := think(3, 5)
	waits.Last = false
	p.send(waits)
	p.send(&message.Feed{Sequence: 3})
	failure(3, "input: scripted error at feed")
	waits = think(4, 1<<30)
	waits.Last, waits.Window = false, 1
	p.send(waits)
	p.send(&message.Feed{Sequence: 4, Last: true})
	recv[*message.Output](p)
	p.send(&message.Feed{Sequence: 4, Tokens: []int64{1}})
	failure(4, "input after the last")
	p.send(think(5, 3))
	p.tokens(5)
}

func TestFullModeWaitsForTheLastInput(t *testing.T) {
	p := open(t, pipelinetest.Code2Wav, pipelinetest.Script{}, nil)
	p.send(&message.Admit{Sequence: 1, Params: json.RawMessage(`{}`), Full: true})
	p.send(&message.Feed{Sequence: 1, Tokens: []int64{1, 2}})
	p.send(&message.Feed{Sequence: 1, Tokens: []int64{3}})
	p.send(&message.ProfileStatus{ID: 2})
	recv[*message.ProfileReply](p)
	p.send(&message.Ping{ID: 1})
	if pong := recv[*message.Pong](p); pong.Steps != 0 {
		t.Errorf("%d steps before the input was complete", pong.Steps)
	}
	p.send(&message.Feed{Sequence: 1, Last: true})
	o := recv[*message.Output](p)
	if len(o.Tensors) != 1 || o.Ledger.Steps != 3 {
		t.Errorf("got %+v", o)
	}
	if o = recv[*message.Output](p); o.State != message.StateDone || o.Ledger.BytesIn == 0 || o.Ledger.WaitNS == 0 {
		t.Errorf("got %+v", o)
	}
}

// A sequence that says how many tokens it wants is not stepped for fewer: a profile has no steps in which nothing happens.
func TestStreamIsSteppedWhenItHasWhatItWants(t *testing.T) {
	p := open(t, pipelinetest.Code2Wav, pipelinetest.Script{}, nil)
	codes := []int64{1, 2, 3, 4, 5, 6, 7, 8}
	steps := func() int64 {
		t.Helper()
		p.send(&message.ProfileStatus{ID: 2}) // has been answered when what was sent before has come
		recv[*message.ProfileReply](p)
		p.send(&message.Ping{ID: 1})
		return recv[*message.Pong](p).Steps
	}
	p.send(&message.Admit{Sequence: 1, Params: json.RawMessage(`{"mode":"stream"}`)})
	for i, c := range codes[:pipelinetest.ChunkCodes] {
		p.send(&message.Feed{Sequence: 1, Tokens: []int64{c}})
		if i < pipelinetest.ChunkCodes-1 && steps() > 1 {
			t.Errorf("a step for code %d, which does not complete a chunk", i)
		}
	}
	first := recv[*message.Output](p)
	if first.State != message.StateWaiting || len(first.Tensors) != 1 {
		t.Fatalf("got %+v, want audio of a chunk before the codes have ended", first)
	}
	for _, c := range codes[pipelinetest.ChunkCodes:] {
		p.send(&message.Feed{Sequence: 1, Tokens: []int64{c}})
	}
	second := recv[*message.Output](p)
	p.send(&message.Feed{Sequence: 1, Last: true})
	last := recv[*message.Output](p)
	if len(second.Tensors) != 1 || last.State != message.StateDone || len(last.Tensors) != 1 {
		t.Errorf("got %+v and %+v", second, last)
	}
	if last.Ledger.Steps > 4 {
		t.Errorf("%d steps for three chunks", last.Ledger.Steps)
	}
}

func TestEngineThatWaitsForNothingFailsTheSequence(t *testing.T) {
	p := open(t, pipelinetest.Talker, pipelinetest.Script{}, nil)
	m := &message.Admit{Sequence: 1, Params: json.RawMessage(`{}`), Last: true} // the talker is never told that this is the last
	p.send(m)
	o := recv[*message.Output](p)
	if o.State != message.StateFailed || o.Error.Code != message.FailedPrecondition {
		t.Errorf("got %+v", o)
	}
}

func TestWorkerInsideALongStepAnswers(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Step: 400 * time.Millisecond}, nil)
	p.send(think(1, 1))
	p.inStep()
	p.send(&message.ProfileStatus{ID: 9})
	if reply := recv[*message.ProfileReply](p); reply.ID != 9 || reply.Report.Worker != "stage-0" {
		t.Errorf("got %+v", reply)
	}
	p.tokens(1)
}

func TestEndOfTheConnectionEndsTheWorker(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	p.send(think(1, 1<<30))
	recv[*message.Output](p)
	p.conn.Close()
	if err := p.ended(); !errors.Is(err, worker.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}

func TestLostIsCalledWhileAStepRuns(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{Step: 300 * time.Millisecond}, nil)
	p.send(think(1, 1<<30))
	p.inStep()
	p.conn.Close()
	select {
	case err := <-p.lost:
		if !errors.Is(err, io.EOF) {
			t.Errorf("lost by %v, want io.EOF", err)
		}
	case err := <-p.end:
		t.Errorf("Run returned %v before Lost was called", err)
		return
	}
	if err := p.ended(); !errors.Is(err, worker.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}

func TestTerminatedWorkerCancelsAndSaysBye(t *testing.T) {
	p := open(t, pipelinetest.Thinker, pipelinetest.Script{}, nil)
	m := think(1, 1<<30)
	m.Window = 1
	p.send(m)
	recv[*message.Output](p)
	p.stop()
	if o := recv[*message.Output](p); o.State != message.StateFailed || o.Error.Code != message.Cancelled {
		t.Errorf("got %+v", o)
	}
	recv[*message.Bye](p)
	if err := p.ended(); err != nil {
		t.Error(err)
	}
}

func TestDrainWhileLoading(t *testing.T) {
	p := start(t, pipelinetest.NewBackend(map[string]pipelinetest.Script{pipelinetest.Thinker: {Parts: 1 << 30, Part: time.Millisecond}}))
	recv[*message.Hello](p)
	p.send(&message.Open{Worker: "stage-0", World: 1, MaxBatch: 1, Engine: json.RawMessage(`{"model":"` + pipelinetest.Thinker + `"}`)})
	recv[*message.Progress](p)
	p.send(&message.Drain{})
	for {
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(*message.Bye); ok {
			break
		}
	}
	if err := p.ended(); err != nil {
		t.Error(err)
	}
}

func TestFaultsAreToldToTheParent(t *testing.T) {
	tests := map[string]struct {
		script pipelinetest.Script
		model  string
		send   []message.Message
		code   message.Code
		want   string
	}{
		"an unknown model": {model: "nothing", code: message.NotFound, want: `unknown model "nothing"`},
		"a fault while loading": {
			model: pipelinetest.Thinker, script: pipelinetest.Script{Faults: []pipelinetest.Fault{{At: pipelinetest.AtLoad, Do: pipelinetest.Error}}},
			code: message.InvalidArgument, want: "scripted error at load",
		},
		"a lost device": {
			model: pipelinetest.Thinker, script: pipelinetest.Script{Faults: []pipelinetest.Fault{{At: pipelinetest.AtDecode, Do: pipelinetest.Lose}}},
			send: []message.Message{think(1, 5)}, code: message.DeviceLost, want: "scripted loss at decode",
		},
		"numbers that do not rise": {
			model: pipelinetest.Thinker, send: []message.Message{think(2, 1), think(2, 1)}, code: message.InvalidArgument, want: "numbers must rise",
		},
		"a message for parents": {
			model: pipelinetest.Thinker, send: []message.Message{&message.Bye{}}, code: message.InvalidArgument, want: "cannot be sent bye",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, pipelinetest.NewBackend(map[string]pipelinetest.Script{tt.model: tt.script}))
			p.send(&message.Open{Worker: "stage-0", World: 1, MaxBatch: 1, Engine: json.RawMessage(fmt.Sprintf(`{"model":%q}`, tt.model))})
			for _, m := range tt.send {
				p.send(m)
			}
			for {
				m, err := p.next()
				if err != nil {
					t.Fatal(err)
				}
				if f, ok := m.(*message.Fault); ok {
					if f.Error.Code != tt.code || !strings.Contains(f.Error.Message, tt.want) {
						t.Errorf("got %+v, want %s with %q", f, tt.code, tt.want)
					}
					break
				}
			}
			if err := p.ended(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}
