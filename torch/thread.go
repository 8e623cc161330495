package torch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
)

// ErrThreadStopped is returned by [Thread.Do] when the thread does not serve any more.
var ErrThreadStopped = errors.New("torch thread has stopped")

// ThreadPanicError is what [Thread.Do] panics with when its function panicked: the value and the stack of the thread.
type ThreadPanicError struct {
	Value any
	Stack []byte
}

// Error returns the value and the stack.
func (p *ThreadPanicError) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Thread runs functions of other goroutines one after another on one OS thread. Create it with [NewThread], then let the
// goroutine that owns the OS thread call Serve.
type Thread struct {
	jobs    chan job
	stop    chan struct{} // closed by Stop
	stopped chan struct{} // closed when Serve has returned
	once    sync.Once     // closes stop
}

type job struct {
	run  func() error
	done chan outcome // holds one, so that the thread never waits for the caller
}

type outcome struct {
	err      error
	panicked *ThreadPanicError
}

// NewThread returns a thread that nobody serves yet.
func NewThread() *Thread {
	return &Thread{jobs: make(chan job), stop: make(chan struct{}), stopped: make(chan struct{})}
}

// Serve runs functions on the calling goroutine until Stop. It may be called once. The goroutine is locked to its OS
// thread and stays locked: what libtorch keeps for that thread must not fall to another goroutine.
func (t *Thread) Serve() {
	defer close(t.stopped)
	runtime.LockOSThread()
	for {
		select {
		case <-t.stop:
			return
		case j := <-t.jobs:
			j.call()
		}
	}
}

// Do runs f on the thread and returns its error. A ctx that ends before f has begun takes f back; from then on f runs to
// its end, and Do waits for it. If f panics, Do panics with a [*ThreadPanicError]. f must not call Do of the same thread.
func (t *Thread) Do(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := job{run: f, done: make(chan outcome, 1)}
	select {
	case t.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stopped:
		return ErrThreadStopped
	}
	result := <-j.done
	if result.panicked != nil {
		panic(result.panicked)
	}
	return result.err
}

// Stop lets Serve return after the function that is running, and waits for that. It may be called again. Serve must have
// been called.
func (t *Thread) Stop() {
	t.once.Do(func() { close(t.stop) })
	<-t.stopped
}

// call runs the function and reports its outcome even if it panics. A function that calls runtime.Goexit (as FailNow of a
// test does) takes the thread along; its caller panics instead of waiting for ever.
func (j job) call() {
	result := outcome{panicked: &ThreadPanicError{Value: "the function called runtime.Goexit"}}
	defer func() {
		if value := recover(); value != nil {
			result.panicked = &ThreadPanicError{Value: value, Stack: debug.Stack()}
		}
		j.done <- result
	}()
	err := j.run()
	result = outcome{err: err}
}
