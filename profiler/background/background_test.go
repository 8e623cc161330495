package background

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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

// While others are busy four fifths of the time are rests; otherwise, and where nothing was said of a pace, there are none.
func TestPacedWorkRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := func(ctx context.Context, work time.Duration) time.Duration {
			start := time.Now()
			time.Sleep(work)
			Rest(ctx)
			return time.Since(start)
		}
		const work = 3 * time.Millisecond
		begun := time.Now()
		used := func() time.Duration { return time.Since(begun) }
		busy := true
		ctx, cancel := context.WithCancel(paced(t.Context(), func() bool { return busy }, used))
		require.Equal(t, work, took(t.Context(), work))
		require.Equal(t, 5*work, took(paced(t.Context(), func() bool { return true }, used), work))
		require.Equal(t, time.Second+longestRest, took(paced(t.Context(), func() bool { return true }, used), time.Second))
		Rest(ctx) // of what was done for others
		require.Equal(t, 5*work, took(ctx, work))
		require.Equal(t, 5*work, took(ctx, work))
		busy = false
		require.Equal(t, work, took(ctx, work))
		busy = true
		require.Equal(t, 5*work, took(ctx, work))
		cancel()
		require.Equal(t, work, took(ctx, work))
	})
}

// Only what the work takes of the processors counts.
func TestProcessorTime(t *testing.T) {
	before := processorTime()
	time.Sleep(50 * time.Millisecond)
	slept := processorTime() - before
	require.Less(t, slept, 50*time.Millisecond)
	for processorTime() < before+slept+10*time.Millisecond {
	}
}
