package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/repair"
)

// While a session records real engines at work, one of its workers is killed, told to end, or has no room on its disk any
// more. The others' files are complete and can be read, what the one has recorded can be read too where it had time to close
// its files or left a beginning of them, and the report says what is missing and why.
func TestSessionOfRealWorkersThatLosesOne(t *testing.T) {
	tests := []struct {
		name    string
		disk    func(*testing.T) string // of the thinker's files; nil for that of the others
		harm    func(*testing.T, *pipeline.Omni)
		missing string // why the thinker's files are missing; "" if they are not
		begun   bool   // it left the beginning of a trace
	}{
		{name: "killed", harm: signalled(syscall.SIGKILL), missing: "killed by signal 9", begun: true},
		{name: "told to end", harm: signalled(syscall.SIGTERM)},
		{name: "full disk", disk: smallDisk, harm: fullDisk, missing: "No space left on device", begun: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			o := open(t, "tiny", 1, func(c *pipeline.Config) {
				c.Profiler = profiler.FromDir(dir)
				c.Profiler.MaxEvents, c.Profiler.MergeProfiles = 20_000, false // enough to be in the middle of, and to read
				if test.disk != nil {
					c.StageConfigsPath = thinkerDir(t, test.disk(t))
				}
			})
			if _, err := o.StartProfile(nil); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			busy := make(chan struct{})
			go func() {
				defer close(busy)
				for ctx.Err() == nil {
					_, _ = o.Generate(ctx, pipeline.Request{Prompt: "Hello.", MaxTokens: 12}) // some are harmed, the last is cancelled
				}
			}()
			grown(t, o)
			test.harm(t, o)
			cancel()
			<-busy
			report, err := o.StopProfile(nil)
			if err != nil {
				t.Fatal(err)
			}
			for stage, w := range report.Workers {
				if stage == 0 && test.missing != "" {
					if w.State != profiler.StateFailed || !strings.Contains(w.Error, test.missing) || len(w.Missing) != 2 {
						t.Errorf("got %+v, want missing files: %s", w, test.missing)
					}
					if test.begun {
						repaired(t, w.Missing[0])
					}
					continue
				}
				names, events := annotations(t, report, stage)
				if w.State != profiler.StateDone || len(w.Missing) > 0 || int64(names["ProfilerStep"]) != w.Steps || events == 0 {
					t.Errorf("stage %d: got %d events with %v of %+v", stage, events, names, w)
				}
			}
		})
	}
}

func signalled(signal syscall.Signal) func(*testing.T, *pipeline.Omni) {
	return func(t *testing.T, o *pipeline.Omni) {
		t.Helper()
		pipelinetest.Signal(t, o, 0, signal)
		reaches(t, o, 0, "is back", func(s pipeline.StageLoad) bool { return s.State == pipeline.StageReady && s.Restarts == 1 })
	}
}

// fullDisk waits until the thinker's recorder has found out that its disk is full.
func fullDisk(t *testing.T, o *pipeline.Omni) {
	t.Helper()
	await(t, o, func(w profiler.Report) bool { return w.State.Ended() })
}

// grown waits until some of the thinker's trace is on the disk, or was refused.
func grown(t *testing.T, o *pipeline.Omni) {
	t.Helper()
	await(t, o, func(w profiler.Report) bool { return w.Bytes > 20_000 || w.State.Ended() })
}

func await(t *testing.T, o *pipeline.Omni, met func(profiler.Report) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		report, err := o.ProfileStatus()
		if err != nil {
			t.Fatal(err)
		}
		if met(report.Workers[0]) {
			return
		}
	}
	t.Fatal("the thinker's recording does not come that far")
}

// repaired reads what a worker has left of a trace, in a folder that has room for it.
func repaired(t *testing.T, path string) {
	t.Helper()
	left, err := os.ReadFile(path + repair.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(path+repair.Suffix, left, 0o600); err != nil {
		t.Fatal(err)
	}
	result, err := repair.Trace(t.Context(), path+repair.Suffix, 0)
	if err != nil || result.Events == 0 || result.Complete {
		t.Fatalf("got %+v, %v, want the beginning of a trace", result, err)
	}
	report := &pipeline.ProfileReport{Files: []pipeline.ProfileFile{{Path: path, Kind: "trace"}}}
	names, events := annotations(t, report, 0)
	if names["ProfilerStep"] == 0 || int64(events) < result.Events {
		t.Errorf("got %v in %d events, want steps in %d", names, events, result.Events)
	}
}

// thinkerDir writes a deployment in which the thinker's profiles go to a directory of their own.
func thinkerDir(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stages.yaml")
	text := "stages: [{stage_id: 0, profiler_config: {torch_profiler_dir: " + dir + "}}, {stage_id: 1}, {stage_id: 2}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// smallDisk is a directory with room for the beginning of a trace.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48k"); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("no file system can be mounted here")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
