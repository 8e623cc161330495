// Package background runs work that takes the processor for seconds and that nobody waits for in a hurry, such as reading a large
// trace, beside models that need the processor as well: on a thread of low priority ([Run]), and where nobody waits at all with
// rests in between ([Paced]), since another core's work slows a model down too, through the caches that both use.
package background

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// niceness is what the thread of the work has: a thread of a model gets three times its share of a processor.
const niceness = 5

// Run calls do on a thread of low priority, and returns when it has.
func Run(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with this goroutine, so that its priority is nobody else's.
		runtime.LockOSThread()
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceness) // without it the work is only less polite
		do()
	}()
	<-done
}

const (
	restPerWork = 4                      // of five moments, paced work rests for four
	longestRest = 100 * time.Millisecond // whatever came before it
)

// pace is that of one piece of work, for the goroutine that does it.
type pace struct {
	busy  func() bool
	since time.Time // when the last rest ended
}

type paceKey struct{}

// Paced returns a context for work of one goroutine that [Rest] interrupts while busy says that others need the processor.
func Paced(ctx context.Context, busy func() bool) context.Context {
	return context.WithValue(ctx, paceKey{}, &pace{busy: busy, since: time.Now()})
}

// Rest is called every few milliseconds by work that may be long. Where its context is [Paced] it sleeps four times as long as the
// work has gone on since the last rest, at most until ctx ends.
func Rest(ctx context.Context) {
	p, paced := ctx.Value(paceKey{}).(*pace)
	if !paced {
		return
	}
	if p.busy() {
		select {
		case <-ctx.Done():
		case <-time.After(min(restPerWork*time.Since(p.since), longestRest)):
		}
	}
	p.since = time.Now()
}
