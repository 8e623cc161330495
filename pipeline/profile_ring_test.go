package pipeline_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
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

func TestSlowRequestDumpsTheFlightRecorders(t *testing.T) {
	o := flying(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: 2 * time.Millisecond}}, func(cfg *pipeline.Config) {
		cfg.Profiler.RingSLOMS = 1
	})
	generate(t, o, "slow")
	report, err := o.WaitProfile(t.Context(), "") // the dump comes after the request's end
	require.NoError(t, err)
	require.Contains(t, report.Trigger, `request "slow" took `)
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

func TestCloseRightAfterASlowRequest(t *testing.T) {
	o := flying(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: 2 * time.Millisecond}}, func(cfg *pipeline.Config) {
		cfg.Profiler.RingSLOMS = 1
	})
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
