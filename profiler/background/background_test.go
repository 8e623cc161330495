package background

import (
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// priority is the thread's, as the kernel counts it: 20 less the niceness.
func priority(t *testing.T) int {
	t.Helper()
	p, err := syscall.Getpriority(syscall.PRIO_PROCESS, syscall.Gettid())
	require.NoError(t, err)
	return p
}

func TestOnlyTheWorkIsPolite(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, inside := priority(t), 0
	Run(func() { inside = priority(t) })
	require.Equal(t, max(1, before-niceness), inside, "a niceness of 19 is the most there is")
	require.Equal(t, before, priority(t), "and nothing else")
	for range 100 { // none of the program's threads has kept the priority
		done := make(chan int)
		go func() { runtime.LockOSThread(); done <- priority(t); runtime.UnlockOSThread() }()
		require.Equal(t, before, <-done)
	}
}
