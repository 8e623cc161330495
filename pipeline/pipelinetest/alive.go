package pipelinetest

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
)

// Gone waits for the end of workers whose parent has been killed. They have a second.
func Gone(tb testing.TB, pids []int) {
	tb.Helper()
	deadline := time.Now().Add(time.Second)
	for _, pid := range pids {
		for Alive(pid) {
			if time.Now().After(deadline) {
				tb.Errorf("worker %d is alive a second after its parent", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// Alive reports whether a process runs: one that waits to be reaped does not.
func Alive(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := stateOf(status)
	return state != 'Z' && state != 'X'
}

// stateOf is the letter in a stat file of /proc that says what a process or thread is doing. It follows the name, which stands
// in brackets and may hold anything.
func stateOf(stat []byte) byte {
	rest := bytes.TrimLeft(stat[bytes.LastIndexByte(stat, ')')+1:], " ")
	if len(rest) == 0 {
		return 0
	}
	return rest[0]
}
