package torch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeVariable marks the re-executed test binary, which runs with the library of weightless engines.
const fakeVariable = "OMNI_TORCH_TEST_FAKE"

// testThread is served by the main goroutine, so that tests run on goroutines of their own as they do in a worker.
var testThread = NewThread()

func TestMain(m *testing.M) {
	if os.Getenv(fakeVariable) == "" {
		fmt.Fprintln(os.Stderr, "running with the fake library:", execWithFakeLibrary())
		os.Exit(1)
	}
	code := 1
	go func() {
		defer testThread.Stop()
		code = m.Run()
	}()
	testThread.Serve()
	os.Exit(code)
}

// execWithFakeLibrary replaces this process by one that loads the libomni.so of the build's folder fake instead of the
// one in its folder lib. It returns only if that fails.
func execWithFakeLibrary() error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	var loaded string
	for line := range bytes.Lines(maps) {
		if at := bytes.IndexByte(line, '/'); at >= 0 && strings.HasSuffix(string(line), "/libomni.so\n") {
			loaded = strings.TrimSpace(string(line[at:]))
		}
	}
	fake := filepath.Join(filepath.Dir(loaded), "..", "fake")
	if _, err := os.Stat(filepath.Join(fake, "libomni.so")); err != nil {
		return err
	}
	env := append(os.Environ(), fakeVariable+"=1", "LD_LIBRARY_PATH="+fake)
	return syscall.Exec("/proc/self/exe", os.Args, env)
}

// onThread runs f on the torch thread of this test binary, which it initialises.
func onThread(t *testing.T, f func()) {
	t.Helper()
	err := testThread.Do(context.Background(), func() error {
		if err := Init(1); err != nil {
			return err
		}
		f()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// handleClasses are the classes that Live knows.
var handleClasses = []string{"status", "buffer", "engine", "sequence", "step", "recorder"}

// checkNoLeaks fails the test if handles are alive at its end. Every test calls it first, so that its cleanup is the last:
// architecture_test.go of the repository sees to that.
func checkNoLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		for _, class := range handleClasses {
			if n := Live(class); n != 0 {
				t.Errorf("%d handles of class %q are alive, want 0", n, class)
			}
		}
	})
}
