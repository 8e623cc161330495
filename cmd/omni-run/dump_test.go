package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
)

// signalled sends the dump signal to this process while a request runs, and waits until it has been heard.
func signalled(t *testing.T, omni *fakeOmni) func(pipeline.Request) {
	return func(pipeline.Request) {
		if err := syscall.Kill(os.Getpid(), dumpSignal); err != nil {
			t.Error(err)
		}
		for range 10_000 {
			omni.mu.Lock()
			heard := len(omni.calls) > 0
			omni.mu.Unlock()
			if heard {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Error("the signal was not heard")
	}
}

func TestSignalDumpsTheFlightRecorders(t *testing.T) {
	omni, dir := &fakeOmni{}, t.TempDir()
	omni.onGenerate = signalled(t, omni)
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--format", "json", "--output-dir", t.TempDir(), "--profile-dir", dir,
		"--profiler-config", "recorder=stream,ring_seconds=10")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, []string{"dump", "close"}, omni.calls, "no session is started")
	require.Equal(t, 1, strings.Count(got.stderr, "flight recorder: dump"), "it is told once: %s", got.stderr)
	require.Contains(t, got.stderr, "stage-0_s1.17.pt.trace.json.gz")
	require.Contains(t, got.stderr, "stage 0 has not written "+filepath.Join(dir, "profiler_out_0.txt"))
	require.Contains(t, got.stderr, filepath.Join(dir, "s1.17", "report.html"))
	profile := got.object(t)["profile"].(map[string]any)
	require.Equal(t, "s1", profile["session"])
	require.Equal(t, "dump", profile["trigger"])
}

func TestFlightRecordersThatNobodyAskedFor(t *testing.T) {
	omni := &fakeOmni{}
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--format", "json", "--output-dir", t.TempDir(), "--profile-dir", t.TempDir(),
		"--profiler-config", "recorder=stream,ring_seconds=10")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, []string{"close"}, omni.calls)
	require.Nil(t, got.object(t)["profile"])
}

func TestSignalWithoutFlightRecorders(t *testing.T) {
	omni := &fakeOmni{}
	omni.onGenerate = signalled(t, omni)
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--output-dir", t.TempDir())
	require.Zero(t, got.code, "the signal does not end the command: %s", got.stderr)
	require.Contains(t, got.stderr, "there is no flight recorder: set ring_seconds")
}

func TestStagesDoNotGoWithFlightRecorders(t *testing.T) {
	got := runCommand(t, &fakeOmni{}, "", "--model", "m", "--prompt", "a", "--output-dir", t.TempDir(), "--profile-dir", t.TempDir(),
		"--profile-stages", "0", "--profiler-config", "recorder=stream,ring_seconds=10")
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.stderr, "--profile-stages does not go with ring_seconds")
}
