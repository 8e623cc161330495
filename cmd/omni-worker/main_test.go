package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// workerVariable turns the test binary into the program itself.
const workerVariable = "OMNI_WORKER_TEST"

// memoryVariable is how many MiB a worker may take beyond what it has when it starts.
const memoryVariable = "OMNI_WORKER_TEST_MEMORY"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		if mib := os.Getenv(memoryVariable); mib != "" {
			if err := limitMemory(mib); err != nil {
				panic(err)
			}
		}
		os.Exit(run(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// limitMemory bounds the address space of this process. It is done here and not from the start on because the race
// detector maps terabytes before main.
func limitMemory(mib string) error {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var pages, more uint64
	if _, err := fmt.Sscan(string(text), &pages); err != nil {
		return err
	}
	if _, err := fmt.Sscan(mib, &more); err != nil {
		return err
	}
	most := pages*uint64(os.Getpagesize()) + more<<20
	return syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most})
}

// program runs the worker by hand.
func program(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), workerVariable+"=1", "GORACE=atexit_sleep_ms=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestWorkerRefusesToBeRunByHand(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"--version", "x"}} {
		stdout, stderr, code := program(t, args...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, "is started by omni-run") {
			t.Errorf("%q: got %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestVersionNamesTheLibrary(t *testing.T) {
	stdout, stderr, code := program(t, "--version")
	want := regexp.MustCompile(`^omni-worker .+, ABI 1, torch \d+\.\d+\.\d+\S*\nCUDA: (not in this build|no CUDA device: |\d+ devices).*\n$`)
	if code != 0 || stderr != "" || !want.MatchString(stdout) {
		t.Errorf("got %d, %q, %q", code, stdout, stderr)
	}
}
