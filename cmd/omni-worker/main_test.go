package main

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/omni-run/omni/pipeline/worker"
)

// workerVariable turns the test binary into the program itself.
const workerVariable = "OMNI_WORKER_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		var b worker.Backend = backend{}
		switch limit := os.Getenv(memoryVariable); limit {
		case "":
		case limitedAtStart:
			if err := limitMemory(4 << 20); err != nil { // less than a thread takes
				panic(err)
			}
		case limitedInLoad:
			b = limited{b}
		default:
			panic(memoryVariable + " is " + limit)
		}
		os.Exit(run(os.Args[1:], b))
	}
	if folder := os.Getenv(parentVariable); folder != "" {
		parentOfOrphans(folder)
	}
	goleak.VerifyTestMain(m)
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
