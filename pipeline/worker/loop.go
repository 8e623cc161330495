package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
	"github.com/omni-run/omni/profiler"
)

// ErrLost is returned by Run when the connection ended before the worker was asked to stop.
var ErrLost = errors.New("the connection to the pipeline ended")

// Options says who the worker is.
type Options struct {
	// ABI is the version of the library's interface, for the Hello.
	ABI int
	// Build describes the program, for people.
	Build string
	// Lost is called on the receiving goroutine when the connection has ended, while a step may still be running; it
	// is the place to end the process if Run does not return soon.
	Lost func(error)
}

// loop is the state of Run. What is not marked belongs to the goroutine of Run.
type loop struct {
	conn    transport.Conn
	options Options
	inbox   *inbox // shared with the receiver

	open      *message.Open
	engine    Engine
	sequences map[uint64]*sequence
	newest    uint64              // highest number admitted
	early     map[uint64]struct{} // cancelled before their Admit has come
	scheduler scheduler
	draining  bool

	profiler atomic.Pointer[profiler.Worker] // the receiver asks it for reports, cuts and dumps
	replies  replies                         // those that wait for files

	// Read by the receiver.
	stepStart atomic.Int64 // Unix nanoseconds of the step that is running, 0 if none is
	steps     atomic.Int64
	count     atomic.Int64 // of sequences
	queued    atomic.Int64 // sequences left out of the last batch that could have been in it
	stepped   atomic.Int64 // sum of the sizes of all batches
	tokens    atomic.Int64
	samples   atomic.Int64
	busyNS    atomic.Int64 // of all steps that have ended
}

// Run serves one connection until it is drained, ctx ends (which is the same) or a fault makes work impossible. Faults
// are told to the parent before Run returns them. Run closes conn.
func Run(ctx context.Context, conn transport.Conn, backend Backend, options Options) (err error) {
	l := &loop{
		conn: conn, options: options, inbox: newInbox(),
		sequences: map[uint64]*sequence{}, early: map[uint64]struct{}{},
	}
	// Sending must go on after ctx has ended: the last results and Bye are still to come.
	sendCtx, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	var receiver sync.WaitGroup
	receiver.Go(func() { l.receive(sendCtx, conn) })
	defer func() {
		stopSending()
		err = errors.Join(err, conn.Close())
		l.replies.end()
		receiver.Wait()
	}()
	stop := context.AfterFunc(ctx, func() { l.inbox.put(received{message: &message.Drain{}, at: time.Now()}) })
	defer stop()

	if err := conn.Send(sendCtx, &message.Hello{
		Protocol: message.Protocol, ABI: options.ABI, Build: options.Build, PID: os.Getpid(),
	}); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	err = l.start(sendCtx, backend)
	if err == nil && !l.draining {
		err = l.run(sendCtx)
	}
	return l.end(sendCtx, err)
}

// start waits for Open and opens the engine.
func (l *loop) start(ctx context.Context, backend Backend) error {
	for l.open == nil {
		<-l.inbox.wake
		queue, err := l.inbox.take()
		for i, r := range queue {
			if l.open != nil {
				l.inbox.putBack(queue[i:])
				break
			}
			switch m := r.message.(type) {
			case *message.Open:
				l.open = m
			case *message.Drain:
				l.draining = true
				return nil
			default:
				return message.Errorf(message.FailedPrecondition, "%s before open", m.Kind())
			}
		}
		if err != nil && l.open == nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	l.scheduler = scheduler{maxBatch: l.open.MaxBatch, prefill: l.open.Prefill}
	if err := backend.Init(l.open.Threads); err != nil {
		return err
	}
	engine, err := backend.OpenEngine(l.open.Engine)
	if err != nil {
		return err
	}
	l.engine = engine
	if err := l.load(ctx); err != nil || l.draining {
		return err
	}
	info, err := engine.Info()
	if err != nil {
		return fmt.Errorf("engine info: %w", err)
	}
	if err := l.startProfiler(profiler.NewWorker(l.identity(info), backend.StartRecorder)); err != nil {
		return err
	}
	return l.conn.Send(ctx, &message.Ready{Info: info, RSS: rss()})
}

// errDrained ends a Load that is no longer wanted.
var errDrained = errors.New("drained while loading")

// load loads the weights and reports progress, at most every 50 ms and at the end.
func (l *loop) load(ctx context.Context) error {
	var last time.Time
	err := l.engine.Load(func(done, total int64) error {
		stop, err := l.inbox.pending()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
		if stop {
			return errDrained
		}
		if done < total && time.Since(last) < 50*time.Millisecond {
			return nil
		}
		last = time.Now()
		return l.conn.Send(ctx, &message.Progress{Done: done, Total: total})
	})
	if errors.Is(err, errDrained) {
		l.draining = true
		return nil
	}
	return err
}

// run steps sequences until the worker is drained.
func (l *loop) run(ctx context.Context) error {
	for {
		if err := l.apply(ctx); err != nil {
			return err
		}
		if l.draining {
			return l.dropAll(ctx)
		}
		batch := l.scheduler.pick(l.sequences)
		l.queued.Store(int64(ready(l.sequences) - len(batch)))
		if len(batch) == 0 {
			l.idle()
			continue
		}
		if err := l.step(ctx, batch); err != nil {
			return err
		}
	}
}

// idle waits for a message, or for something to do about profiles.
func (l *loop) idle() {
	p := l.profiler.Load()
	_ = p.Idle() // an error concerns the profile alone and is in its report
	select {
	case <-l.inbox.wake:
	case <-p.Due():
		_ = p.Settle() // it is in the session's report
	}
}

// end finishes profiles, closes the engine and says goodbye, or says what the fault was.
func (l *loop) end(ctx context.Context, err error) error {
	if errors.Is(err, transport.ErrBroken) || errors.Is(err, transport.ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	lost := errors.Is(err, ErrLost)
	if p := l.profiler.Load(); p != nil {
		// A lost parent wants no files: what is unfinished is removed when the engine's process ends.
		if !lost {
			err = errors.Join(err, l.endProfiler(ctx, p))
		}
	}
	if l.engine != nil {
		err = errors.Join(err, l.engine.Close())
	}
	if lost {
		return err
	}
	if err != nil {
		return errors.Join(err, l.conn.Send(ctx, &message.Fault{Error: *asError(err)}), l.conn.Flush(ctx))
	}
	l.replies.end()
	if err := l.conn.Flush(ctx); err != nil { // Bye must not overtake results
		return fmt.Errorf("last results: %w", err)
	}
	return errors.Join(l.conn.Send(ctx, &message.Bye{Steps: l.steps.Load()}), l.conn.Flush(ctx))
}

// identity is who the worker is to the profiler.
func (l *loop) identity(info json.RawMessage) profiler.Identity {
	var engine struct {
		Device string `json:"device"`
	}
	_ = json.Unmarshal(info, &engine) // an engine that does not say is on the CPU
	if engine.Device == "" {
		engine.Device = "cpu"
	}
	return profiler.Identity{
		Worker: l.open.Worker, Stage: l.open.Stage, Rank: l.open.Rank, WorldSize: l.open.World,
		PID: os.Getpid(), Device: engine.Device,
	}
}

func (l *loop) pong(id uint64) *message.Pong {
	p := &message.Pong{
		ID: id, Steps: l.steps.Load(), Sequences: int(l.count.Load()), Queued: int(l.queued.Load()), Stepped: l.stepped.Load(),
		Tokens: l.tokens.Load(), Samples: l.samples.Load(), BusyNS: l.busyNS.Load(), RSS: rss(), NowNS: time.Now().UnixNano(),
	}
	if began := l.stepStart.Load(); began != 0 {
		p.StepNS = max(0, time.Now().UnixNano()-began)
	}
	return p
}

// asError keeps the code of an error that has one.
func asError(err error) *message.Error {
	var e *message.Error
	if errors.As(err, &e) && e.Code != message.OK {
		return message.Errorf(e.Code, "%s", describe(err, e))
	}
	return message.Errorf(message.Internal, "%s", describe(err, nil))
}

// describe is the text of err, without the code that e repeats.
func describe(err error, e *message.Error) string {
	text := err.Error()
	if e != nil {
		text = strings.Replace(text, e.Error(), e.Message, 1)
	}
	if text == "" {
		return "an error without a message"
	}
	return text
}

// rss returns the resident bytes of this process, 0 if the system does not say.
func rss() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
