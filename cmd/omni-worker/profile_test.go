package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/repair"
	"github.com/omni-run/omni/profiler/trace"
)

// annotations counts the annotations in the trace of a stage, by name without number, and all events.
func annotations(t *testing.T, report *pipeline.ProfileReport, stage int) (names map[string]int, events int) {
	t.Helper()
	for _, f := range report.Files {
		if f.Stage != stage || f.Kind != "trace" {
			continue
		}
		names = map[string]int{}
		_, err := trace.Read(t.Context(), f.Path, func(e *trace.Event) error {
			events++
			if e.Category == "user_annotation" {
				name, _, _ := strings.Cut(e.Name, "#")
				names[name]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return names, events
	}
	t.Fatalf("stage %d has no trace: %+v", stage, report)
	return nil, 0
}

// hello asks for an answer whose length is the same each time: without a seed the talker now and then says nothing but a code
// or two.
func hello(t *testing.T, o *pipeline.Omni, modalities ...string) {
	t.Helper()
	request := pipeline.Request{Prompt: "Hello.", MaxTokens: 12, Modalities: modalities, Seed: config.Ptr(int64(1))}
	if _, err := o.Generate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}

// With either recorder a session holds exactly the steps that it was asked for, and ends by itself.
func TestBudgetsOfRealWorkers(t *testing.T) {
	for _, recorder := range []string{"kineto", "stream"} {
		t.Run(recorder, func(t *testing.T) {
			o := open(t, "tiny", 1, func(c *pipeline.Config) {
				c.Profiler = profiler.FromDir(t.TempDir())
				c.Profiler.Recorder = recorder
			})
			settings := map[string]any{"wait_iterations": 1, "warmup_iterations": 1, "active_iterations": 3}
			if _, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: settings}); err != nil {
				t.Fatal(err)
			}
			hello(t, o)
			report, err := o.WaitProfile(t.Context(), "s1")
			if err != nil {
				t.Fatal(err)
			}
			for stage, w := range report.Workers {
				names, _ := annotations(t, report, stage)
				if names["ProfilerStep"] != 3 || w.Steps != 3 || w.Ended != profiler.EndActiveIterations {
					t.Errorf("stage %d: got %v and %+v, want three steps", stage, names, w)
				}
			}
			if report.Pictures.Error != "" || len(report.Pictures.Missing) > 0 {
				t.Errorf("got %+v", report.Pictures)
			}
			if _, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: map[string]any{"max_seconds": 0.1}}); err != nil {
				t.Fatal(err)
			}
			if report, err = o.WaitProfile(t.Context(), "s2"); err != nil {
				t.Fatal(err)
			}
			for stage, w := range report.Workers {
				names, _ := annotations(t, report, stage)
				if names["stage.wait"] != 1 || w.Ended != profiler.EndMaxSeconds {
					t.Errorf("stage %d: got %v and %+v, want one slice of waiting", stage, names, w)
				}
			}
		})
	}
}

// The stacks of a trace go from the module's place in C++ to the place in Go that runs the step.
func TestStacksOfRealWorkers(t *testing.T) {
	for _, recorder := range []string{"kineto", "stream"} {
		o := open(t, "tiny", 1, func(c *pipeline.Config) {
			c.Profiler = profiler.FromDir(t.TempDir())
			c.Profiler.Recorder = recorder
		})
		_, err := o.StartProfile(nil)
		require.NoError(t, err)
		hello(t, o)
		report, err := o.StopProfile(nil)
		require.NoError(t, err)
		for _, f := range report.Files {
			if f.Kind != "trace" {
				continue
			}
			found := map[string]int{}
			_, err := trace.Read(t.Context(), f.Path, func(e *trace.Event) error {
				var args struct {
					Stack string `json:"Call stack"`
				}
				if e.Category != "user_annotation" {
					return nil
				}
				if err := json.Unmarshal(e.Args, &args); err != nil {
					return err
				}
				switch {
				case strings.HasPrefix(e.Name, "ProfilerStep#"):
					require.Regexp(t, `^pipeline/worker/steps\.go\(\d+\): step$`, args.Stack)
					found["steps"]++
				case e.Name == "stage.wait":
					require.Regexp(t, `^pipeline/worker/loop\.go\(\d+\): idle$`, args.Stack)
					found["waits"]++
				case strings.HasPrefix(args.Stack, "csrc/models/") && strings.HasSuffix(args.Stack, "): step"):
					require.Regexp(t, `^csrc/models/\S+\(\d+\): \S+;(.*;)?pipeline/worker/steps\.go\(\d+\): step$`, args.Stack)
					found["modules"]++
				}
				return nil
			})
			require.NoError(t, err)
			require.Len(t, found, 3, "%s, stage %d: %v", recorder, f.Stage, found)
		}
	}
}

// A session that is stopped in the middle of steps ends there: what is whole is a step, what is not is marked.
func TestProfilesOfRealWorkersAreCut(t *testing.T) {
	o := open(t, "tiny", 1, func(c *pipeline.Config) {
		c.Profiler = profiler.FromDir(t.TempDir())
		c.Profiler.MergeProfiles = false
	})
	cut := 0
	for range 100 { // each goes through a step somewhere, unless it happens to fall between two
		if _, err := o.StartProfile(nil); err != nil {
			t.Fatal(err)
		}
		generated := make(chan error, 1)
		go func() {
			_, err := o.Generate(t.Context(), pipeline.Request{Prompt: "Hello.", MaxTokens: 40})
			generated <- err
		}()
		for running := true; running; { // until something has been recorded
			report, err := o.ProfileStatus()
			if err != nil {
				t.Fatal(err)
			}
			running = !slices.ContainsFunc(report.Workers, func(w profiler.Report) bool { return w.Steps > 0 })
		}
		report, err := o.StopProfile(nil)
		if err := errors.Join(err, <-generated); err != nil {
			t.Fatal(err)
		}
		for stage, w := range report.Workers {
			names, _ := annotations(t, report, stage)
			if int64(names["ProfilerStep"]) != w.Steps || names["cut ProfilerStep"] > 1 || w.State != profiler.StateDone || w.DroppedTotal() != 0 {
				t.Errorf("stage %d: got %v and %+v", stage, names, w)
			}
			cut += names["cut ProfilerStep"]
		}
		if cut > 0 {
			return
		}
	}
	t.Error("no session ended in the middle of a step")
}

// A session whose traces must not grow beyond a size ends by itself in every worker, and the traces can be read.
func TestSizesOfRealTracesAreLimited(t *testing.T) {
	tests := map[string]struct {
		change func(*profiler.Config)
		holds  func(profiler.Report) bool
	}{
		profiler.EndMaxEvents: {
			func(c *profiler.Config) { c.MaxEvents = 3000 }, // more than any step has
			func(w profiler.Report) bool { return w.Events == 3000 && w.DroppedTotal() > 0 },
		},
		profiler.EndMaxTraceMB: {
			func(c *profiler.Config) { c.MaxTraceMB = 0.2 },
			func(w profiler.Report) bool { return w.Files[0].Bytes > 50_000 && w.Files[0].Bytes <= 200_000 },
		},
	}
	for budget, test := range tests {
		t.Run(budget, func(t *testing.T) {
			o := open(t, "tiny", 1, func(c *pipeline.Config) {
				c.Profiler = profiler.FromDir(t.TempDir())
				c.Profiler.Recorder, c.Profiler.MergeProfiles = profiler.RecorderStream, false
				test.change(&c.Profiler)
			})
			if _, err := o.StartProfile(nil); err != nil {
				t.Fatal(err)
			}
			var report *pipeline.ProfileReport
			ended := make(chan error, 1)
			go func() {
				var err error
				report, err = o.WaitProfile(t.Context(), "")
				ended <- err
			}()
			for waiting := true; waiting; {
				select {
				case err := <-ended:
					if err != nil {
						t.Fatal(err)
					}
					waiting = false
				default:
					hello(t, o)
				}
			}
			for stage, w := range report.Workers {
				names, events := annotations(t, report, stage)
				if w.Ended != budget || w.State != profiler.StateDone || len(w.Missing) > 0 || !test.holds(w) {
					t.Errorf("got %+v", w)
				}
				if names["ProfilerStep"] == 0 || int64(events) < w.Events {
					t.Errorf("stage %d: got %v in %d events of %d", stage, names, events, w.Events)
				}
			}
		})
	}
}

// Flight recorders of real workers hold what has run, make way for a session, and are dumped again after it.
func TestFlightRecordersOfRealWorkers(t *testing.T) {
	o := open(t, "tiny", 1, func(c *pipeline.Config) {
		c.Profiler = profiler.FromDir(t.TempDir())
		c.Profiler.Recorder, c.Profiler.RingSeconds = profiler.RecorderStream, 60
	})
	dump := func(session string) {
		t.Helper()
		if _, err := o.DumpProfile(t.Context()); err != nil {
			t.Fatal(err)
		}
		report, err := o.WaitProfile(t.Context(), session)
		if err != nil {
			t.Fatal(err)
		}
		for stage, w := range report.Workers {
			names, _ := annotations(t, report, stage)
			if w.State != profiler.StateDone || w.Ended != profiler.EndDump || names["ProfilerStep"] == 0 || names["stage.wait"] == 0 || w.StartedNS == 0 {
				t.Errorf("session %s, stage %d: got %v and %+v", session, stage, names, w)
			}
		}
		if report.Pictures.Error != "" || report.Ledger.Requests != map[string]int{"s1": 1, "s3": 3}[session] {
			t.Errorf("session %s: got %+v and %+v", session, report.Pictures, report.Ledger)
		}
	}
	hello(t, o)
	dump("s1")
	if _, err := o.StartProfile(nil); err != nil {
		t.Fatal(err)
	}
	hello(t, o)
	if report, err := o.StopProfile(nil); err != nil || len(report.Files) != 6 {
		t.Errorf("got %+v, %v", report, err)
	}
	hello(t, o)
	dump("s3")
}

// salvageable counts the events that can be read of an unfinished trace, by repairing a copy of it.
func salvageable(t *testing.T, unfinished string) int64 {
	t.Helper()
	text, err := os.ReadFile(unfinished)
	require.NoError(t, err)
	copied := filepath.Join(t.TempDir(), filepath.Base(unfinished))
	require.NoError(t, os.WriteFile(copied, text, 0o600))
	result, err := repair.Trace(t.Context(), copied, 0)
	if err != nil {
		return 0
	}
	return result.Events
}

// A worker that is killed leaves on disk what it had recorded until about a second before, however little that is.
func TestTracesOfKilledWorkersAreRepaired(t *testing.T) {
	o := open(t, "tiny", 1, func(c *pipeline.Config) {
		c.Profiler = profiler.FromDir(t.TempDir())
		c.Limits.Backoff = 50 * time.Millisecond // doubles with every kill
	})
	write := func() { hello(t, o, pipeline.ModalityText) } // no speech: the thinker is what is killed
	moments := []struct {
		name     string
		settings map[string]any
		before   func() // recorded, and on disk
		during   func() // recorded
		repaired bool
	}{
		{"at once", nil, func() {}, func() {}, true},
		{"when it has nothing to do", nil, write, func() {}, true},
		{"when little is recorded", map[string]any{"detail": "modules"}, write, func() {}, true},
		{"uncompressed", map[string]any{"torch_profiler_use_gzip": false}, write, write, true},
		{"before kineto has written", map[string]any{"recorder": "kineto"}, func() {}, write, false},
	}
	for restarts, moment := range moments {
		started, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: moment.settings})
		require.NoError(t, err)
		moment.before()
		status, err := o.ProfileStatus()
		require.NoError(t, err)
		// What is open, a step or a wait, is written when it ends.
		const open = 2
		least := max(0, status.Workers[0].Events-open)
		unfinished, err := filepath.Glob(filepath.Join(o.ProfileDir(), "stage-0_"+started.Session+".*"+repair.Suffix))
		require.NoError(t, err)
		require.Len(t, unfinished, 1, moment.name)
		if moment.repaired {
			require.Eventually(t, func() bool { return salvageable(t, unfinished[0]) >= least }, time.Minute, 20*time.Millisecond, moment.name)
		}
		moment.during()
		pipelinetest.Signal(t, o, 0, syscall.SIGKILL)
		require.Eventually(t, func() bool {
			s := o.Stages()[0]
			return s.Restarts > restarts && s.State == pipeline.StageReady
		}, time.Minute, 5*time.Millisecond, moment.name)
		write()
		_, err = o.StopProfile(nil)
		require.NoError(t, err)
		report, err := o.WaitProfile(t.Context(), started.Session)
		require.NoError(t, err)
		require.NotEmpty(t, report.Pictures.Missing, moment.name)
		w := report.Workers[0]
		require.Equal(t, profiler.StateFailed, w.State)
		if !moment.repaired {
			require.Contains(t, w.Error, "the recorder kineto writes when it is stopped", moment.name)
			continue
		}
		require.Contains(t, w.Error, unfinished[0]+", which omni-run profile repair reads", moment.name)
		result, err := repair.Trace(t.Context(), unfinished[0], 0)
		require.NoError(t, err, moment.name)
		require.GreaterOrEqual(t, result.Events, least, moment.name)
		id := strings.Split(strings.TrimPrefix(filepath.Base(result.Path), "stage-0_"), ".pt.")[0]
		made, err := picture.Make(t.Context(), o.ProfileDir(), id)
		require.NoError(t, err, moment.name)
		require.Empty(t, made.Missing, moment.name)
	}
}
