package background

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Yield gives this process, for the rest of its life, only what nobody else wants of the processors, and no more than one at a
// time. A thread that wakes up, such as one of a model, takes its processor back at once, which the lowest of the ordinary
// priorities does not bring about.
func Yield() {
	runtime.GOMAXPROCS(1)
	for yielded := map[int]bool{}; ; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return // the work is only less polite
		}
		before := len(yielded)
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil || yielded[id] {
				continue
			}
			yielded[id] = true
			_ = unix.SchedSetAttr(id, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) // likewise, or the thread has ended
		}
		if len(yielded) == before {
			return // threads that begin later have the policy of those that begin them
		}
	}
}
