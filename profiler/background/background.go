// Package background runs work that takes the processor for seconds and that nobody waits for in a hurry, such as reading a large
// trace, beside models that need the processor as well.
package background

import (
	"runtime"
	"syscall"
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
