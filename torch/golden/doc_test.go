// Package golden_test drives the real engines of libomni.so with the goldens of every family: random checkpoints are
// written to a temporary folder, the networks of their stages are opened in float32, requests pass through them along the
// edges of the family's graph as they would in a pipeline, and everything is compared with what the reference computed
// from the same weights. Every network of the library is also held to what all engines promise.
//
// It is a package of its own because the tests of package torch run with a library of weightless engines.
package golden_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/omni-run/omni/torch"
)

// thread is served by the main goroutine, as in a worker.
var thread = torch.NewThread()

// scratchFolder is removed when all tests have run.
var scratchFolder string

func TestMain(m *testing.M) {
	code := 1
	go func() {
		defer thread.Stop()
		code = runTests(m)
	}()
	thread.Serve()
	os.Exit(code)
}

func runTests(m *testing.M) int {
	var err error
	if scratchFolder, err = os.MkdirTemp("", "omni-golden-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratchFolder)
	return m.Run()
}

// onThread runs f on the torch thread. f must not end its goroutine, so it returns its error.
func onThread(t testing.TB, f func() error) {
	t.Helper()
	if err := thread.Do(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

// checkNothingLives fails the test if handles of the C library are alive.
func checkNothingLives(t testing.TB) {
	t.Helper()
	for _, class := range []string{"status", "buffer", "engine", "sequence", "step", "recorder"} {
		if n := torch.Live(class); n != 0 {
			t.Errorf("%d handles of class %q are alive, want 0", n, class)
		}
	}
}
