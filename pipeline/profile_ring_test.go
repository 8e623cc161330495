package pipeline_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/trace"
)

// flying opens a pipeline with flight recorders.
func flying(t *testing.T, scripts map[string]pipelinetest.Script, change func(*pipeline.Config)) *pipeline.Omni {
	t.Helper()
	cfg := pipelinetest.Config(t, scripts)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	cfg.Profiler.Recorder, cfg.Profiler.RingSeconds = profiler.RecorderStream, 60
	if change != nil {
		change(&cfg)
	}
	return pipelinetest.Open(t, cfg)
}

func TestDumpOfTheFlightRecorders(t *testing.T) {
	o := flying(t, nil, nil)
	status, err := o.ProfileStatus()
	require.NoError(t, err)
	require.Empty(t, status.Session)
	require.Len(t, status.FlightRecorders, 3)
	require.Equal(t, pipeline.ProfileRing{Stage: 2, Ring: profiler.Ring{Seconds: 60, Recording: true}}, status.FlightRecorders[2])
	generate(t, o, "one")
	dumped, err := o.DumpProfile(t.Context())
	require.NoError(t, err)
	require.Equal(t, "s1", dumped.Session)
	require.Equal(t, "dump", dumped.Trigger)
	require.False(t, dumped.Active)
	report, err := o.WaitProfile(t.Context(), "s1")
	require.NoError(t, err)
	require.Len(t, report.Files, 6)
	require.Len(t, report.Pictures.Files, 2)
	for stage, w := range report.Workers {
		require.Equal(t, profiler.EndDump, w.Ended)
		require.Equal(t, profiler.StateDone, w.State)
		require.Less(t, w.StartedNS, w.StoppedNS)
		require.True(t, w.Ring.Recording)
		names, _ := readTrace(t, report, stage)
		if stage != 1 { // the talker's steps depend on when its input comes
			require.Equal(t, []int{10, 0, 4}[stage], names["ProfilerStep"], "stage %d", stage)
		}
		require.Positive(t, names["stage.wait"])
	}
	about, requests, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Equal(t, "dump", about.Trigger)
	require.Len(t, requests, 1)
	require.Equal(t, "one", requests[0].ID)
	require.False(t, requests[0].Slow)
}

func TestSessionReplacesTheFlightRecorders(t *testing.T) {
	o := flying(t, nil, nil)
	generate(t, o, "before")
	_, err := o.StartProfile([]int{0})
	require.NoError(t, err)
	status, err := o.ProfileStatus()
	require.NoError(t, err)
	require.False(t, status.Workers[0].Ring.Recording)
	_, err = o.DumpProfile(t.Context())
	require.ErrorIs(t, err, pipeline.ErrProfileActive)
	generate(t, o, "during")
	stopped, err := o.StopProfile(nil)
	require.NoError(t, err)
	require.Len(t, stopped.Files, 2)
	names, _ := readTrace(t, stopped, 0)
	require.Equal(t, 10, names["ProfilerStep"])
	generate(t, o, "after")
	_, err = o.DumpProfile(t.Context())
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "s2")
	require.NoError(t, err)
	names, _ = readTrace(t, report, 0)
	require.Equal(t, 10, names["ProfilerStep"], "the thinker's ring began anew after the session")
	names, _ = readTrace(t, report, 2)
	require.Equal(t, 12, names["ProfilerStep"], "that of code2wav was never interrupted")
}

// slowly opens a pipeline in which every request takes longer than ring_slo_ms.
func slowly(t *testing.T, change func(*pipeline.Config)) *pipeline.Omni {
	t.Helper()
	return flying(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: 2 * time.Millisecond}}, func(cfg *pipeline.Config) {
		cfg.Profiler.RingSLOMS = 1
		if change != nil {
			change(cfg)
		}
	})
}

// slowDump waits for the session that a slow request makes.
func slowDump(t *testing.T, o *pipeline.Omni) *pipeline.ProfileReport {
	t.Helper()
	require.Eventually(t, func() bool {
		status, err := o.ProfileStatus()
		return err == nil && status.Session != ""
	}, 30*time.Second, time.Millisecond)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	return report
}

func TestSlowRequestDumpsTheFlightRecorders(t *testing.T) {
	o := slowly(t, nil)
	generate(t, o, "slow")
	report, err := o.WaitProfile(t.Context(), "") // the dump may come after the request's end
	require.NoError(t, err)
	require.Regexp(t, `^request "slow" (took|has been running for) .*, more than ring_slo_ms allows \(1ms\)$`, report.Trigger)
	require.Len(t, report.Files, 6)
	_, requests, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Len(t, requests, 1)
	require.True(t, requests[0].Slow)
	// The next one comes too soon after.
	generate(t, o, "slow as well")
	status, err := o.ProfileStatus()
	require.NoError(t, err)
	require.Equal(t, "s1", status.Session)
	// A session has its own ledger, in which slow requests are marked too.
	_, err = o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "slow again")
	stopped, err := o.StopProfile(nil)
	require.NoError(t, err)
	_, requests, err = ledger.Read(stopped.Ledger.Paths[0])
	require.NoError(t, err)
	require.Len(t, requests, 1)
	require.True(t, requests[0].Slow)
}

// A request that never ends dumps the flight recorders too, and once: neither do they tell of it again when another dump could
// follow, nor when it is given up.
func TestRequestThatNeverEndsDumpsTheFlightRecorders(t *testing.T) {
	o := slowly(t, func(cfg *pipeline.Config) {
		cfg.Profiler.RingSeconds, cfg.Limits.DumpPause = 0.001, time.Millisecond
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := o.Generate(ctx, pipeline.Request{ID: "endless", Prompt: "hello", MaxTokens: 1 << 30})
		ended <- err
	}()
	report := slowDump(t, o)
	require.Contains(t, report.Trigger, `request "endless" has been running for `)
	require.Len(t, report.Files, 6)
	about, requests, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Zero(t, about.Running)
	require.Len(t, requests, 1)
	r := requests[0]
	require.Equal(t, "endless", r.ID)
	require.True(t, r.Slow)
	require.True(t, r.Unfinished)
	require.Greater(t, r.DoneNS-r.ArrivedNS, time.Millisecond.Nanoseconds())
	require.Nil(t, r.CriticalPath())
	require.Len(t, r.Stages, 3)
	require.Zero(t, r.Stages[0].DoneNS)
	names := mergedNames(t, report)
	require.Equal(t, 1, names["slow: endless"])
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	last, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "s1", last.Session, "one request, one dump")
}

// mergedNames counts the slices of requests in the merged trace by name.
func mergedNames(t *testing.T, report *pipeline.ProfileReport) map[string]int {
	t.Helper()
	names := map[string]int{}
	for _, f := range report.Pictures.Files {
		if f.Kind != picture.KindMerged {
			continue
		}
		_, err := trace.Read(t.Context(), f.Path, func(e *trace.Event) error {
			if e.Phase == trace.Complete && e.Category == "request" {
				names[e.Name]++
			}
			return nil
		})
		require.NoError(t, err)
	}
	return names
}

// Several requests stand in a step that does not end: one dump marks them all, those that wait for their turn included, and
// says which worker could not give its part. The worker in the step is none of those.
func TestSlowRequestsInAStepThatDoesNotEnd(t *testing.T) {
	gate := pipelinetest.NewGate(t)
	o := flying(t, map[string]pipelinetest.Script{pipelinetest.Thinker: gate.Script(pipelinetest.AtPrefill, 1)}, func(cfg *pipeline.Config) {
		cfg.Profiler.RingSLOMS, cfg.MaxConcurrency, cfg.Limits.Dump = 20, 2, 2*time.Second
	})
	var requests sync.WaitGroup
	for _, id := range []string{"one", "two", "three"} {
		requests.Go(func() {
			if _, err := o.Generate(t.Context(), pipeline.Request{ID: id, Prompt: "hello", MaxTokens: 5}); err != nil {
				t.Error(err)
			}
		})
	}
	pipelinetest.Signal(t, o, 2, syscall.SIGSTOP)
	gate.Reached()
	report := slowDump(t, o)
	pipelinetest.Signal(t, o, 2, syscall.SIGCONT)
	require.Equal(t, profiler.StateDone, report.Workers[0].State, report.Workers[0].Error)
	require.Equal(t, profiler.StateFailed, report.Workers[2].State)
	require.Contains(t, report.Workers[2].Error, "it has not answered for 2s")
	require.Len(t, report.Files, 4, "those of the others")
	_, lines, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Len(t, lines, 3)
	waiting := 0
	for _, r := range lines {
		require.True(t, r.Slow && r.Unfinished, "%+v", r)
		if r.EnteredNS == 0 {
			waiting++
			require.Empty(t, r.Stages)
		}
	}
	require.Equal(t, 1, waiting, "one has not been let into the stages")
	names := mergedNames(t, report)
	for _, id := range []string{"one", "two", "three"} {
		require.Equal(t, 1, names["slow: "+id], "%v", names)
	}
	gate.Open()
	requests.Wait()
}

// lines is a log that gives each line to whoever waits for it.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// A dump to which no worker can give its part is no dump: it is tried again while the request runs.
func TestDumpThatFailsEverywhereIsTriedAgain(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Limits.Dump, cfg.Limits.DumpPause = time.Second, time.Millisecond
	log := make(lines, 1000)
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	graph := pipelinetest.Graph() // only the thinker has a flight recorder
	graph.Config.Stages[0].Profiler = map[string]any{
		"profiler": "torch", "torch_profiler_dir": t.TempDir(), "recorder": "stream", "ring_seconds": 0.001, "ring_slo_ms": 1.0,
	}
	o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
	require.NoError(t, err)
	defer o.Close()
	pipelinetest.Signal(t, o, 0, syscall.SIGSTOP)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := o.Generate(ctx, pipeline.Request{ID: "endless", Prompt: "hello", MaxTokens: 1 << 30})
		ended <- err
	}()
	for !strings.Contains(<-log, "stage 0 (thinker): it has not answered for 1s") {
	}
	status, err := o.ProfileStatus()
	require.NoError(t, err)
	require.Empty(t, status.Session)
	pipelinetest.Signal(t, o, 0, syscall.SIGCONT)
	report := slowDump(t, o)
	require.Len(t, report.Files, 2)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestCloseRightAfterASlowRequest(t *testing.T) {
	o := slowly(t, nil)
	generate(t, o, "slow")
	require.NoError(t, o.Close())
	paths, err := filepath.Glob(filepath.Join(o.ProfileDir(), "*.*"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 6, "%v", paths)
	ledgers, err := filepath.Glob(filepath.Join(o.ProfileDir(), ledger.Folder, "*"))
	require.NoError(t, err)
	require.Len(t, ledgers, 1)
	about, _, err := ledger.Read(ledgers[0])
	require.NoError(t, err)
	for _, w := range about.Workers {
		require.Equal(t, string(profiler.StateDone), w.State, w.Error)
	}
}

func TestFlightRecordersOfWorkersThatDied(t *testing.T) {
	o := flying(t, nil, nil)
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	restarted(t, o, 1, 1)
	generate(t, o, "one")
	_, err := o.DumpProfile(t.Context())
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, report.Files, 6, "the new worker has a flight recorder as well")
}

func TestDumpWithoutOneOfTheWorkers(t *testing.T) {
	o := flying(t, nil, func(cfg *pipeline.Config) {
		cfg.Limits.Backoff, cfg.Limits.BackoffMax = time.Hour, time.Hour
	})
	_, err := o.Generate(t.Context(), pipeline.Request{Prompt: "text", Modalities: []string{pipeline.ModalityText}})
	require.NoError(t, err)
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	require.Eventually(t, func() bool { return o.Stages()[1].State == pipeline.StageDown }, 30*time.Second, time.Millisecond)
	_, err = o.DumpProfile(t.Context())
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, report.Files, 4)
	require.Equal(t, profiler.StateFailed, report.Workers[1].State)
	require.Contains(t, report.Workers[1].Error, "stage 1 (talker) has no worker at the moment")
	require.Len(t, report.Workers[1].Missing, 2)
}

func TestFlightRecorderThatCannotBegin(t *testing.T) {
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{
		pipelinetest.Talker: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtProfile, Do: pipelinetest.Error}}},
	})
	cfg.Profiler = profiler.FromDir(t.TempDir())
	cfg.Profiler.Recorder, cfg.Profiler.RingSeconds = profiler.RecorderStream, 60
	o, err := pipeline.OpenGraph(t.Context(), cfg, pipelinetest.Graph())
	if err == nil {
		o.Close()
	}
	require.ErrorContains(t, err, "stage 1 (talker)")
	require.ErrorContains(t, err, "profiler_config: flight recorder of stage-1: ")
}
