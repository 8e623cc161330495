package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// readTrace counts the events of a complete trace by name, with the steps' numbers left out, and returns its header.
func readTrace(t *testing.T, report *pipeline.ProfileReport, stage int) (map[string]int, trace.Header) {
	t.Helper()
	for _, f := range report.Files {
		if f.Stage != stage || f.Kind != "trace" {
			continue
		}
		names := map[string]int{}
		header, err := trace.Read(t.Context(), f.Path, func(e *trace.Event) error {
			name, _, _ := strings.Cut(e.Name, "#")
			names[name]++
			return nil
		})
		require.NoError(t, err)
		return names, header
	}
	t.Fatalf("stage %d has no trace in %+v", stage, report.Files)
	return nil, nil
}

func generate(t *testing.T, o *pipeline.Omni, id string) *pipeline.Response {
	t.Helper()
	r, err := o.Generate(t.Context(), pipeline.Request{ID: id, Prompt: "hello", MaxTokens: 10})
	require.NoError(t, err)
	return r
}

// recordOne records a session of one request in all stages and waits until it is complete.
func recordOne(t *testing.T, o *pipeline.Omni) *pipeline.ProfileReport {
	t.Helper()
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	return report
}

func TestSettingsOfAStartReachEveryStage(t *testing.T) {
	o := profiled(t, nil, nil)
	started, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: map[string]any{"max_iterations": 3.0, "profile_prefix": "night"}})
	require.NoError(t, err)
	require.True(t, started.Active)
	require.False(t, started.Complete)
	generate(t, o, "one")
	// Nobody stops it: its budgets do.
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.True(t, report.Complete)
	require.False(t, report.Active)
	require.Len(t, report.Files, 6)
	for stage, w := range report.Workers {
		require.Equal(t, profiler.EndMaxIterations, w.Ended)
		require.Equal(t, profiler.StateDone, w.State)
		require.Empty(t, w.Missing)
		require.Positive(t, w.OverheadPct)
		require.Positive(t, w.Bytes)
		names, header := readTrace(t, report, stage)
		require.Equal(t, 3, names["ProfilerStep"], "exactly as many steps as were asked for")
		require.Contains(t, string(header["omni"]), `"max_iterations":3`)
		require.Contains(t, filepath.Base(report.Files[0].Path), "night_stage-0_s1.")
	}
	require.NotNil(t, report.Ledger)
	require.Equal(t, 1, report.Ledger.Requests)
	require.Empty(t, report.Pictures.Error)
	require.Len(t, report.Pictures.Files, 2)
	for _, f := range report.Pictures.Files {
		require.FileExists(t, f.Path)
		require.Equal(t, o.ProfileDir(), filepath.Dir(filepath.Dir(f.Path)), "away from the traces")
	}
	again, err := o.StopProfile(nil)
	require.NoError(t, err)
	require.Equal(t, report, again, "stopping it again is harmless")
}

func TestPicturesCanBeSwitchedOff(t *testing.T) {
	o := profiled(t, nil, func(c *profiler.Config) { c.MergeProfiles = false })
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "s1")
	require.NoError(t, err)
	require.Empty(t, report.Pictures.Files)
	require.NoFileExists(t, filepath.Join(archive.Folder(o.ProfileDir(), "s1"), archive.ReportName))
}

func TestSessionThatRecordsNothing(t *testing.T) {
	o := profiled(t, nil, func(c *profiler.Config) { c.DelayIterations = 100 })
	report := recordOne(t, o)
	require.Empty(t, report.Files)
	require.Empty(t, report.Pictures.Error)
	for _, w := range report.Workers {
		require.Equal(t, profiler.StateDone, w.State)
		require.Empty(t, w.Missing)
	}
}

// A session of certain requests has the times of those alone, wherever they are shown; the workers record everything.
func TestSessionOfCertainRequests(t *testing.T) {
	o := profiled(t, nil, nil)
	wanted := []string{"two", "never"}
	started, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{RequestIDs: wanted})
	require.NoError(t, err)
	require.Equal(t, wanted, started.RequestIDs)
	for _, id := range []string{"one", "two", "three"} {
		generate(t, o, id)
	}
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.EqualValues(t, 30, report.Workers[0].Steps, "those of all requests")
	require.Equal(t, 1, report.Ledger.Requests)
	require.Equal(t, 1, report.Ledger.Running, "one did not come")
	about, requests, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Equal(t, wanted, about.RequestIDs)
	require.Len(t, requests, 1)
	require.Equal(t, "two", requests[0].ID)
	session, err := archive.Lookup(o.ProfileDir(), "s1")
	require.NoError(t, err)
	drawn := map[string]bool{}
	_, err = trace.Read(t.Context(), session.Path(archive.MergedName), func(e *trace.Event) error {
		drawn[e.Name] = true
		return nil
	})
	require.NoError(t, err)
	require.True(t, drawn["two"])
	require.False(t, drawn["one"] || drawn["three"])
	page, err := os.ReadFile(session.Path(archive.ReportName))
	require.NoError(t, err)
	require.Contains(t, string(page), "are those of 2 requests alone, which the session was begun for: two, never")
	// The next session is of all again.
	started, err = o.StartProfile(nil)
	require.NoError(t, err)
	require.Empty(t, started.RequestIDs)
}

func TestSettingsThatAStartMayNotChoose(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	cfg.ProfileCeilings = profiler.Ceilings{MaxSeconds: 60}
	o := pipelinetest.Open(t, cfg)
	for field, settings := range map[string]map[string]any{
		"max_seconds":        {"max_seconds": 61},
		"torch_profiler_dir": {"torch_profiler_dir": "/tmp/elsewhere"},
		"colour":             {"colour": true},
	} {
		_, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: settings})
		require.ErrorIs(t, err, profiler.ErrSetting)
		require.ErrorContains(t, err, field)
		require.ErrorContains(t, err, "stages 0 (thinker), 1 (talker), 2 (code2wav): ")
		require.Equal(t, 1, strings.Count(err.Error(), field+": ")+strings.Count(err.Error(), `unknown field "`+field), "it is said once: %v", err)
	}
	_, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Stages: []int{1}, Settings: map[string]any{"max_events": -1}})
	require.ErrorContains(t, err, "start profile: stage 1 (talker): profiler setting refused: max_events: got -1")
	// What only the worker can know is refused by it.
	_, err = o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: map[string]any{"activities": []any{"CUDA"}}})
	require.ErrorContains(t, err, `stages 0 (thinker), 1 (talker), 2 (code2wav): `)
	require.Equal(t, 1, strings.Count(err.Error(), `activities: ["CUDA"] leave nothing to record on the device cpu`), err)
	require.Equal(t, message.InvalidArgument, pipeline.CodeOf(err))
	_, err = o.StartProfile(nil)
	require.NoError(t, err, "nothing has begun")
}

func TestStopWithoutWaiting(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	stopped, err := o.StopProfileWith(t.Context(), pipeline.ProfileStopOptions{Session: "s1"})
	require.NoError(t, err)
	require.False(t, stopped.Active)
	for _, w := range stopped.Workers {
		require.Contains(t, []profiler.State{profiler.StateWriting, profiler.StateDone}, w.State)
		require.Equal(t, profiler.EndStop, w.Ended)
	}
	next, err := o.StartProfile(nil) // while the files of the first may still be written
	require.NoError(t, err)
	require.Equal(t, "s2", next.Session)
	first, err := o.WaitProfile(t.Context(), "s1")
	require.NoError(t, err)
	require.True(t, first.Complete)
	require.Len(t, first.Files, 6)
	old, err := o.StopProfileWith(t.Context(), pipeline.ProfileStopOptions{Session: "s1", Wait: true})
	require.NoError(t, err)
	require.Equal(t, first, old)
	status, err := o.ProfileStatus()
	require.NoError(t, err)
	require.Equal(t, "s2", status.Session)
	require.True(t, status.Active, "stopping the first has not stopped the second")
	_, err = o.WaitProfile(t.Context(), "s7")
	require.ErrorIs(t, err, pipeline.ErrNoProfile)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = o.WaitProfile(ctx, "s2")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestMaxSecondsEndsIdleStages(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: map[string]any{"max_seconds": 0.05}})
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "s1")
	require.NoError(t, err)
	for stage, w := range report.Workers {
		require.Equal(t, profiler.EndMaxSeconds, w.Ended)
		names, _ := readTrace(t, report, stage)
		require.Equal(t, map[string]int{"process_name": 1, "stage.wait": 1}, names, "waiting is one slice")
	}
}

func TestBudgetOfEventsEndsAStage(t *testing.T) {
	o := profiled(t, nil, func(c *profiler.Config) { c.MaxEvents = 3 })
	_, err := o.StartProfile([]int{0})
	require.NoError(t, err)
	generate(t, o, "one")
	report, err := o.StopProfile(nil)
	require.NoError(t, err)
	w := report.Workers[0]
	require.Equal(t, profiler.EndMaxEvents, w.Ended)
	require.EqualValues(t, 3, w.Events)
	names, _ := readTrace(t, report, 0)
	require.Equal(t, 3, names["ProfilerStep"]+names["stage.wait"])
}

func TestWaitingIsOneSlicePerInterval(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfile([]int{2})
	require.NoError(t, err)
	generate(t, o, "one")
	generate(t, o, "two")
	report, err := o.StopProfile(nil)
	require.NoError(t, err)
	names, _ := readTrace(t, report, 2)
	require.Equal(t, map[string]int{"process_name": 1, "ProfilerStep": 8, "stage.wait": 3}, names,
		"code2wav waits before, between and after the requests, whatever messages come meanwhile")
}

func TestOneOfManyStartsWins(t *testing.T) {
	o := profiled(t, nil, nil)
	errs := make([]error, 6)
	var starts sync.WaitGroup
	for i := range errs {
		starts.Go(func() { _, errs[i] = o.StartProfile(nil) })
	}
	starts.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		require.ErrorIs(t, err, pipeline.ErrProfileActive)
		require.ErrorContains(t, err, "session s1 in stages [0 1 2]")
	}
	require.Equal(t, 1, won)
}

// The pipeline knows how far each worker's clock is from its own; on one host that is nothing.
func TestClocksOfWorkersAreKeptWithTheSession(t *testing.T) {
	o := profiled(t, nil, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	report, err := o.StopProfile(nil)
	require.NoError(t, err)
	about, _, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Len(t, about.Workers, 3)
	for stage, w := range report.Workers {
		require.Positive(t, w.Clock.ErrorNS)
		require.Less(t, w.Clock.ErrorNS, int64(time.Second))
		require.LessOrEqual(t, max(w.Clock.OffsetNS, -w.Clock.OffsetNS), w.Clock.ErrorNS)
		require.Equal(t, ledger.Clock(w.Clock), about.Workers[stage].Clock)
		_, header := readTrace(t, report, stage)
		var block struct {
			Metadata struct {
				Clock profiler.Clock `json:"clock"`
			} `json:"metadata"`
		}
		require.NoError(t, json.Unmarshal(header["omni"], &block))
		require.Equal(t, w.Clock, block.Metadata.Clock)
	}
}

// What the parts of a request's time say is all of its time, and what the stages measured agrees with it.
func TestLedgerSumsToTheTimeOfTheRequest(t *testing.T) {
	o := profiled(t, map[string]pipelinetest.Script{
		pipelinetest.Thinker: {Step: 5 * time.Millisecond}, pipelinetest.Talker: {Step: 3 * time.Millisecond},
		pipelinetest.Code2Wav: {Step: 20 * time.Millisecond},
	}, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	e2e := map[string]float64{}
	var requests sync.WaitGroup
	var mu sync.Mutex
	for _, id := range []string{"one", "two", "three"} {
		requests.Go(func() {
			r, err := o.Generate(t.Context(), pipeline.Request{ID: id, Prompt: "hello " + id, MaxTokens: 30})
			if err == nil {
				mu.Lock()
				e2e[id] = r.E2EMS
				mu.Unlock()
			}
		})
	}
	requests.Wait()
	report, err := o.StopProfile(nil)
	require.NoError(t, err)
	_, lines, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	require.Len(t, lines, 3)
	for _, line := range lines {
		total := float64(line.DoneNS - line.ArrivedNS)
		require.InEpsilon(t, e2e[line.ID]*1e6, total, 0.001, "the ledger and the response agree")
		var parts float64
		for _, part := range line.CriticalPath() {
			parts += float64(part.NS())
		}
		require.InEpsilon(t, total, parts, 0.01)
		for _, s := range line.Stages {
			measured := float64(s.ReceivedNS-s.DispatchedNS) + float64(s.QueueNS+s.WaitNS+s.ComputeNS) + float64(s.DoneNS-s.LastOutputNS)
			require.InEpsilon(t, float64(s.DoneNS-s.DispatchedNS), measured, 0.01, "stage %d", s.ID)
		}
	}
}

// Sessions come and go while requests run; each is complete, and nothing of the old ones stays.
func TestManySessions(t *testing.T) {
	o := profiled(t, nil, func(c *profiler.Config) { c.MergeProfiles = false })
	ctx, cancel := context.WithCancel(t.Context())
	var requests sync.WaitGroup
	for range 3 {
		requests.Go(func() {
			for ctx.Err() == nil {
				_, _ = o.Generate(ctx, pipeline.Request{Prompt: "busy", MaxTokens: 20}) // the last ones are cancelled
			}
		})
	}
	const sessions = 30
	for i := range sessions {
		started, err := o.StartProfile(nil)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("s%d", i+1), started.Session)
		_, err = o.StopProfileWith(t.Context(), pipeline.ProfileStopOptions{})
		require.NoError(t, err)
		if i%2 == 0 {
			continue // the files of one session may be written while the next records
		}
		report, err := o.WaitProfile(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, report.Files, 6)
		require.Empty(t, report.Ledger.Error)
	}
	cancel()
	requests.Wait()
	_, err := o.WaitProfile(t.Context(), "s1")
	require.ErrorIs(t, err, pipeline.ErrNoProfile, "old sessions are forgotten")
	traces, err := filepath.Glob(filepath.Join(o.ProfileDir(), "*.pt.trace.json.gz"))
	require.NoError(t, err)
	require.Len(t, traces, 3*sessions)
}

// Pipelines that know nothing of each other may have their profiles in one directory.
func TestPipelinesShareADirectory(t *testing.T) {
	const pipelines, sessions = 2, 5
	dir := t.TempDir()
	owners := make([]*pipeline.Omni, pipelines)
	for i := range owners {
		owners[i] = profiled(t, nil, func(c *profiler.Config) { c.TorchProfilerDir, c.MergeProfiles = dir, false })
	}
	reports := make([][]*pipeline.ProfileReport, pipelines)
	for range sessions {
		var running sync.WaitGroup
		for i, o := range owners {
			running.Go(func() {
				_, err := o.StartProfile(nil)
				assert.NoError(t, err)
				_, err = o.Generate(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 3})
				assert.NoError(t, err)
				report, err := o.StopProfile(nil)
				assert.NoError(t, err)
				reports[i] = append(reports[i], report)
			})
		}
		running.Wait()
	}
	seen := map[string]bool{}
	for _, report := range slices.Concat(reports...) {
		require.Len(t, report.Files, 6, "%+v", report.Workers)
		for _, w := range report.Workers {
			require.Equal(t, profiler.StateDone, w.State)
			require.Empty(t, w.Error)
		}
		for _, file := range report.Files {
			require.False(t, seen[file.Path], "%s is of two sessions", file.Path)
			seen[file.Path] = true
		}
		stored, err := archive.Lookup(dir, report.ID)
		require.NoError(t, err)
		files, err := stored.Files()
		require.NoError(t, err)
		require.Len(t, files, 7, "six files of workers and the ledger")
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	require.NoError(t, err)
	require.Empty(t, left, "no number stays reserved")
}

// A session that did not begin, and one that recorded nothing, keep no number.
func TestNumbersOfTablesThatAreNotWrittenAreGivenBack(t *testing.T) {
	o := profiled(t, nil, func(c *profiler.Config) { c.DelayIterations = 1000 })
	reserved := func() []string {
		list, err := filepath.Glob(filepath.Join(o.ProfileDir(), "profiler_out_*"))
		require.NoError(t, err)
		return list
	}
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	require.Len(t, reserved(), 3)
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	require.Empty(t, reserved())

	_, err = o.StartProfileWith(t.Context(), pipeline.ProfileOptions{Settings: map[string]any{"activities": []any{"CUDA"}, "delay_iterations": 0}})
	require.ErrorContains(t, err, "leave nothing to record")
	require.Empty(t, reserved())
}
