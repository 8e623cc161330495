package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
	"github.com/omni-run/omni/profiler"
)

// live is one life of a stage's worker: a process, its connection and what runs in it. Everybody who waits for a worker
// waits for dead as well.
type live struct {
	stage   *stage
	process *process
	hello   chan *message.Hello
	loaded  chan *message.Progress
	ready   chan *message.Ready

	received  chan struct{} // closed when the connection has ended
	recvErr   error         // why; read it after received
	condemned chan error    // holds the reason why the worker must not go on
	dead      chan struct{} // closed when the process has ended and the connection with it
	cause     *StageError   // why; read it after dead

	writing atomic.Int32 // profile sessions whose files are not complete
	served  atomic.Bool  // it was ready once

	admitting chan struct{} // holds a token while an Admit is sent, so that they leave in the order of their numbers
	mu        sync.Mutex    // guards what follows
	next      uint64        // number of the last sequence
	flows     map[uint64]*flow
	asked     uint64 // id of the last question
	replies   map[uint64]chan message.Message
	fault     *message.Error   // of a Fault message
	report    *profiler.Report // what the worker has said of its last profile session when it ended
	clock     clockEstimate
	bye       bool
}

// startLive starts a worker process for a stage.
func startLive(s *stage) (*live, error) {
	p, err := startProcess(s.spawner, s.open.Threads)
	if err != nil {
		return nil, &StageError{Stage: s.id, Name: s.name, Code: message.FailedPrecondition, Cause: err}
	}
	l := &live{
		stage: s, process: p,
		hello: make(chan *message.Hello, 1), loaded: make(chan *message.Progress, 1), ready: make(chan *message.Ready, 1),
		received: make(chan struct{}), condemned: make(chan error, 1), dead: make(chan struct{}),
		admitting: make(chan struct{}, 1), flows: map[uint64]*flow{}, replies: map[uint64]chan message.Message{},
	}
	go l.receive()
	go l.watch()
	return l, nil
}

// condemn makes the worker die for a reason. Only the first reason counts.
func (l *live) condemn(err error) {
	select {
	case l.condemned <- err:
	default:
	}
}

// deathGrace is how long the end of the process and the end of its connection, which come in either order, may lie apart.
const deathGrace = 250 * time.Millisecond

// watch waits for the end, makes sure that it is complete, and tells everybody.
func (l *live) watch() {
	var reason error
	lingered := false
	select {
	case <-l.process.exited:
	case <-l.received:
		if !errors.Is(l.recvErr, io.EOF) && !errors.Is(l.recvErr, transport.ErrCut) {
			l.process.signal(syscall.SIGKILL) // it talks nonsense
			reason = l.recvErr
		}
	case reason = <-l.condemned:
		l.process.signal(syscall.SIGKILL)
	}
	grace := time.NewTimer(deathGrace)
	defer grace.Stop()
	select {
	case <-l.process.exited:
	case <-grace.C:
		// The connection is gone or broken, so the process can be of no use.
		lingered = true
		l.process.signal(syscall.SIGKILL)
		<-l.process.exited
	}
	select {
	case <-l.received: // what it said before it ended has been read
	case <-time.After(deathGrace):
	}
	_ = l.process.conn.Close() // the worker's end is what matters
	<-l.received
	if reason == nil {
		select {
		case reason = <-l.condemned:
		default:
		}
	}
	l.cause = l.describe(reason, lingered)
	close(l.dead)
}

// describe makes the error of the worker's end: the reason that is given, else what the worker said itself, else how it
// ended; lingered says that it had to be killed for not ending with its connection.
func (l *live) describe(reason error, lingered bool) *StageError {
	e := &StageError{Stage: l.stage.id, Name: l.stage.name, Code: message.Internal, LastWords: l.process.tail.words()}
	l.mu.Lock()
	fault := l.fault
	l.mu.Unlock()
	switch {
	case reason != nil:
		e.Cause = fmt.Errorf("%w: %w", ErrWorkerDied, reason)
	case fault != nil && !l.served.Load():
		e.Code, e.Cause, e.LastWords = fault.Code, fault, ""
	case fault != nil:
		e.Code, e.Cause = fault.Code, fmt.Errorf("%w: %w", ErrWorkerDied, fault)
	case lingered:
		e.Cause = fmt.Errorf("%w: it closed its connection and went on", ErrWorkerDied)
	default:
		e.Cause = fmt.Errorf("%w: %s", ErrWorkerDied, l.process.ended())
	}
	return e
}

// receive is the goroutine that reads from the worker. It never waits for a request: what a request may have under way
// has room in its flow.
func (l *live) receive() {
	defer close(l.received)
	for {
		m, err := l.process.conn.Recv()
		if err == nil {
			err = l.dispatch(m)
		}
		if err != nil {
			l.recvErr = err
			return
		}
	}
}

func (l *live) dispatch(m message.Message) error {
	switch m := m.(type) {
	case *message.Hello:
		return offer(l.hello, m)
	case *message.Progress:
		select { // only the latest matters
		case <-l.loaded:
		default:
		}
		return offer(l.loaded, m)
	case *message.Ready:
		l.served.Store(true)
		return offer(l.ready, m)
	case *message.Fault:
		l.mu.Lock()
		l.fault = &m.Error
		l.mu.Unlock()
	case *message.Output:
		return l.deliver(m)
	case *message.Pong:
		l.reply(m.ID, m)
	case *message.ProfileReply:
		if m.ID == 0 {
			l.mu.Lock()
			l.report = &m.Report
			l.mu.Unlock()
			return nil
		}
		l.reply(m.ID, m)
	case *message.Bye:
		l.mu.Lock()
		l.bye = true
		l.mu.Unlock()
	default:
		return fmt.Errorf("protocol: a pipeline cannot be sent %s", m.Kind())
	}
	return nil
}

// offer puts m where there must be room for it.
func offer[T message.Message](c chan T, m T) error {
	select {
	case c <- m:
		return nil
	default:
		return fmt.Errorf("protocol: %s came twice", m.Kind())
	}
}

// deliver gives an output to its flow.
func (l *live) deliver(m *message.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flows[m.Sequence]
	if f == nil {
		return fmt.Errorf("protocol: output of sequence %d, which does not run", m.Sequence)
	}
	if m.State == message.StateDone || m.State == message.StateFailed {
		delete(l.flows, m.Sequence)
	}
	if f.abandoned {
		return nil
	}
	select {
	case f.inbox <- m:
		return nil
	default:
		return fmt.Errorf("protocol: sequence %d has sent more than its window of %d", m.Sequence, window)
	}
}

// ask sends a question and waits for its answer. make builds it for its id.
func (l *live) ask(ctx context.Context, build func(id uint64) message.Message) (message.Message, error) {
	reply := make(chan message.Message, 1)
	l.mu.Lock()
	l.asked++
	id := l.asked
	l.replies[id] = reply
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.replies, id)
		l.mu.Unlock()
	}()
	if err := l.send(ctx, build(id)); err != nil {
		return nil, err
	}
	select {
	case m := <-reply:
		return m, nil
	case <-l.dead:
		return nil, l.cause
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// reply gives an answer to whoever waits for it; nobody does if it comes too late.
func (l *live) reply(id uint64, m message.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.replies[id]; c != nil {
		c <- m
		delete(l.replies, id)
	}
}

// lastReport is what a worker that ended properly has said of its last profile session, nil if it said nothing.
func (l *live) lastReport() *profiler.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report
}

// send sends a message. If the connection has ended, the error says why the worker died.
func (l *live) send(ctx context.Context, m message.Message) error {
	err := l.process.conn.Send(ctx, m)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-l.received: // the connection has ended, so dead will follow
		<-l.dead
		return l.cause
	case <-l.dead:
		return l.cause
	case <-time.After(deathGrace):
		return err // the message itself cannot be sent
	}
}

// answering bounds the time that the worker has for answers that it gives at once if it is alive.
func (l *live) answering(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := l.stage.limits.Pong
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has not answered for %v", limit))
}

// ping asks whether the worker is alive and its step within the limit.
func (l *live) ping(ctx context.Context) error {
	limits := &l.stage.limits
	ctx, cancel := l.answering(ctx)
	defer cancel()
	pong, err := l.askTime(ctx)
	if err != nil {
		return err
	}
	if time.Duration(pong.StepNS) > limits.Step {
		return fmt.Errorf("one step has been running for %v, the limit is %v", time.Duration(pong.StepNS).Round(time.Second), limits.Step)
	}
	return nil
}

// stop ends the worker: asked, then told, then killed. The error says that it did not go by itself. One that was never
// ready has nothing to end properly and is killed.
func (l *live) stop() error {
	limits := &l.stage.limits
	if !l.served.Load() {
		l.condemn(errors.New("it is not wanted any more"))
		if l.deadWithin(limits.Kill) {
			return nil
		}
		return l.undead()
	}
	drain := limits.Drain
	if l.writing.Load() > 0 {
		drain = limits.ProfileDrain
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	began := time.Now()
	if err := l.send(ctx, &message.Drain{}); err == nil {
		select {
		case <-l.dead:
		case <-ctx.Done():
		}
	}
	if l.deadWithin(0) {
		return l.farewell()
	}
	l.process.signal(syscall.SIGTERM)
	if l.deadWithin(limits.Terminate) {
		return l.farewell()
	}
	l.condemn(fmt.Errorf("it did not stop for %v", time.Since(began).Round(time.Millisecond)))
	if l.deadWithin(limits.Kill) {
		return l.cause
	}
	return l.undead()
}

// undead is the error of a process that the kernel does not end.
func (l *live) undead() error {
	return &StageError{
		Stage: l.stage.id, Name: l.stage.name, Code: message.Internal,
		Cause: fmt.Errorf("process %d is still there %v after SIGKILL", l.process.cmd.Process.Pid, l.stage.limits.Kill),
	}
}

func (l *live) deadWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.dead:
		return true
	case <-timer.C:
		select {
		case <-l.dead:
			return true
		default:
			return false
		}
	}
}

// farewell returns nil if the worker has said Bye, else how it ended instead.
func (l *live) farewell() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bye {
		return nil
	}
	return l.cause
}
