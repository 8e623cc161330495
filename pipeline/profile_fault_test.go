package pipeline_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/repair"
)

// restarted waits until the worker of a stage has been started again so many times.
func restarted(t *testing.T, o *pipeline.Omni, stage, times int) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := o.Stages()[stage]
		return s.Restarts >= times && s.State == pipeline.StageReady
	}, 30*time.Second, 5*time.Millisecond)
}

func TestTerminatedWorkerLeavesItsFiles(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	pipelinetest.Signal(t, o, 1, syscall.SIGTERM)
	restarted(t, o, 1, 1)
	generate(t, o, "two")
	report, err := o.StopProfile(nil)
	require.NoError(t, err)
	require.Len(t, report.Files, 6)
	for stage, w := range report.Workers {
		require.Equal(t, profiler.StateDone, w.State)
		require.Equal(t, []string{profiler.EndStop, profiler.EndShutdown, profiler.EndStop}[stage], w.Ended)
		require.Empty(t, w.Missing)
		names, _ := readTrace(t, report, stage)
		require.EqualValues(t, w.Steps, names["ProfilerStep"])
		require.Positive(t, w.Steps)
	}
}

// A worker is killed at each point of a session: as it begins to record, inside a recorded step, as it writes its files. The
// session begins in no stage in the first case; in the others it ends with what the other workers have recorded.
func TestWorkerIsKilledAtEveryPointOfASession(t *testing.T) {
	for _, at := range []pipelinetest.Point{pipelinetest.AtProfile, pipelinetest.AtDecode, pipelinetest.AtWrite} {
		t.Run(string(at), func(t *testing.T) {
			o := profiled(t, map[string]pipelinetest.Script{pipelinetest.Talker: once(t, at, 1, pipelinetest.Kill)}, nil)
			_, err := o.StartProfile(nil)
			if at == pipelinetest.AtProfile {
				require.ErrorIs(t, err, pipeline.ErrWorkerDied)
				require.ErrorContains(t, err, "stage 1 (talker)")
				restarted(t, o, 1, 1)
				_, err = o.StartProfile(nil)
			}
			require.NoError(t, err)
			generate(t, o, "one")
			_, err = o.StopProfile(nil)
			require.NoError(t, err)
			report, err := o.WaitProfile(t.Context(), "")
			require.NoError(t, err)
			for stage, w := range report.Workers {
				if stage == 1 && at != pipelinetest.AtProfile {
					require.Equal(t, profiler.StateFailed, w.State)
					require.Contains(t, w.Error, "killed by signal 9")
					require.Len(t, w.Missing, 2)
					continue
				}
				require.Equal(t, profiler.StateDone, w.State)
				names, _ := readTrace(t, report, stage)
				require.Positive(t, names["ProfilerStep"])
			}
			restarted(t, o, 1, 1)
			_, err = o.StartProfile(nil)
			require.NoError(t, err, "the next session begins everywhere")
		})
	}
}

// What a real worker leaves is repaired in cmd/omni-worker.
func TestKilledWorkerIsMissed(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	restarted(t, o, 1, 1)
	generate(t, o, "one")
	status, err := o.ProfileStatus()
	require.NoError(t, err)
	require.True(t, status.Active)
	require.Equal(t, profiler.StateFailed, status.Workers[1].State)
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "s1")
	require.NoError(t, err)
	require.True(t, report.Complete)
	require.Len(t, report.Files, 4)
	for _, stage := range []int{0, 2} {
		names, _ := readTrace(t, report, stage)
		require.Positive(t, names["ProfilerStep"])
	}
	w := report.Workers[1]
	require.Equal(t, profiler.StateFailed, w.State)
	require.Contains(t, w.Error, "killed by signal 9")
	require.Contains(t, w.Error, "it had written nothing")
	require.NotContains(t, w.Error, "omni-run profile repair", "the file is empty")
	require.Len(t, w.Missing, 2)
	require.FileExists(t, w.Missing[0]+repair.Suffix)
	about, _, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Equal(t, "failed", about.Workers[1].State)
	require.NotEmpty(t, report.Pictures.Missing, "the pictures say what they lack")
}

// smallDisk is a directory with room for next to nothing.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH))
	})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "full"), make([]byte, 4096), 0o600))
	return dir
}

func TestFullDiskOfOneStage(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	graph := pipelinetest.Graph()
	full := smallDisk(t)
	graph.Config.Stages[1].Profiler = map[string]any{"torch_profiler_dir": full}
	o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
	require.NoError(t, err)
	defer o.Close()
	_, err = o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	report, err := o.StopProfile(nil)
	require.NoError(t, err)
	w := report.Workers[1]
	require.Equal(t, profiler.StateFailed, w.State)
	require.Contains(t, w.Error, "no space left on device")
	require.Len(t, w.Missing, 2)
	require.Len(t, report.Files, 4)
	for _, stage := range []int{0, 2} {
		names, _ := readTrace(t, report, stage)
		require.Positive(t, names["ProfilerStep"])
	}
	require.Contains(t, report.Ledger.Error, full)
	require.Len(t, report.Ledger.Paths, 1, "that of the other stages")
	left, err := filepath.Glob(filepath.Join(full, "*trace*"))
	require.NoError(t, err)
	require.Empty(t, left)
	generate(t, o, "two")
}

func TestStartThatIsGivenUpStopsWhoHasBegun(t *testing.T) {
	dir := t.TempDir()
	hang := pipelinetest.Script{Faults: []pipelinetest.Fault{{At: pipelinetest.AtDecode, Do: pipelinetest.Hang, Once: filepath.Join(dir, "hung")}}}
	o := profiled(t, map[string]pipelinetest.Script{pipelinetest.Thinker: hang}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = o.Generate(ctx, pipeline.Request{Prompt: "hang"}) // cancelled below
	}()
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "hung")); return err == nil }, 30*time.Second, time.Millisecond)
	short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	_, err := o.StartProfileWith(short, pipeline.ProfileOptions{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cancel()
	<-ended
	// The others are free, and have left nothing.
	started, err := o.StartProfile([]int{1, 2})
	require.NoError(t, err)
	require.Equal(t, "s2", started.Session)
	traces, err := filepath.Glob(filepath.Join(o.ProfileDir(), "*_s1.*"))
	require.NoError(t, err)
	require.Empty(t, traces)
	pipelinetest.Signal(t, o, 0, syscall.SIGKILL)
}

func TestCloseDuringASessionSaysWhatItLeft(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	waited := make(chan error, 1)
	go func() {
		_, err := o.WaitProfile(context.Background(), "s1")
		waited <- err
	}()
	require.NoError(t, o.Close())
	require.ErrorIs(t, <-waited, pipeline.ErrClosed)
	paths, err := filepath.Glob(filepath.Join(o.ProfileDir(), ledger.Folder, "*"))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	about, requests, err := ledger.Read(paths[0])
	require.NoError(t, err)
	require.Len(t, requests, 1)
	for _, w := range about.Workers {
		require.Equal(t, string(profiler.StateDone), w.State, w.Error)
		require.Equal(t, profiler.EndShutdown, w.Ended)
	}
	_, err = o.StartProfile(nil)
	require.True(t, errors.Is(err, pipeline.ErrClosed))
}
