// Package background runs work that takes the processor for seconds and that nobody waits for in a hurry, such as reading a large
// trace, beside models that need the processor as well: on a thread of low priority ([Run]), or in a process of its own that takes
// what the models leave ([Yield]), with rests in between ([Paced]), since another core's work slows a model down too, through the
// caches that both use.
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
	used  func() time.Duration // what the work has taken of the processors; waiting for one is rest enough
	since time.Duration        // what it had taken when the last rest ended
}

type paceKey struct{}

// Paced returns a context for the work of a process that [Rest] interrupts while busy says that others need the processor. The
// work has one goroutine.
func Paced(ctx context.Context, busy func() bool) context.Context {
	return paced(ctx, busy, processorTime)
}

func paced(ctx context.Context, busy func() bool, used func() time.Duration) context.Context {
	return context.WithValue(ctx, paceKey{}, &pace{busy: busy, used: used, since: used()})
}

// processorTime is what this process has taken of the processors.
func processorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // of this process it cannot fail
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Rest is called every few milliseconds by work that may be long. Where its context is [Paced] it sleeps four times as long as the
// work has run since the last rest, at most until ctx ends.
func Rest(ctx context.Context) {
	p, paced := ctx.Value(paceKey{}).(*pace)
	if !paced {
		return
	}
	if p.busy() {
		select {
		case <-ctx.Done():
		case <-time.After(min(restPerWork*(p.used()-p.since), longestRest)):
		}
	}
	p.since = p.used()
}
