package analysis

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
)

// readFolder reads a session of one trace of calls, which is that of the worker stage-3, with what a ledger says.
func readFolder(t *testing.T, calls []call, telemetry string, about ledger.Session) *Session {
	t.Helper()
	dir := t.TempDir()
	found := &archive.Session{Dir: dir, Name: "s1", StampNS: 1, Traces: []archive.Trace{{Path: writeCalls(t, calls, false), Worker: "stage-3"}}}
	if telemetry != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(found.Path(archive.TelemetryName)), 0o755))
		require.NoError(t, os.WriteFile(found.Path(archive.TelemetryName), []byte(telemetry), 0o600))
	}
	s, err := ReadSession(t.Context(), found, about, nil)
	require.NoError(t, err)
	return s
}

// The trace of program begins at 5 ms and lasts 195 us.
func TestTelemetryOfAWorker(t *testing.T) {
	line := func(us int64, rest string) string {
		return fmt.Sprintf(`{"ns": %d, "device": %s}`+"\n", 5_000_000+us*1000, rest)
	}
	s := readFolder(t, program, `{"telemetry": 1, "devices": [{"index": 0, "name": "A"}, {"index": 1, "name": "B"}]}`+"\n"+
		line(-100, `1, "power_w": 900`)+ // before the recording
		line(10, `0, "power_w": 1`)+
		line(10, `1, "power_w": 100, "sm_clock_mhz": 1000, "memory_used_bytes": 1048576`)+
		line(100, `1, "power_w": 300, "sm_clock_mhz": 2000, "memory_used_bytes": 2097152, "throttle": ["power cap"]`),
		ledger.Session{Workers: []ledger.Worker{{Worker: "stage-3", Stage: 3, Device: "cuda:1", Dropped: map[string]int64{"budget": 2, "pool": 3}, OverheadPercent: 0.5, Ended: "stop"}}})
	require.Empty(t, s.Missing)
	stage := s.Summarise(5).Stages[0]
	use := stage.GPU
	require.NotNil(t, use)
	require.Equal(t, 1, use.Device)
	require.Equal(t, 2, use.Samples)
	require.InDelta(t, 200, *use.PowerWatts, 1e-9)
	require.InDelta(t, 300, *use.PowerMaxWatts, 1e-9)
	require.InDelta(t, 200*195e-6, *use.EnergyJoules, 1e-9)
	require.InDelta(t, 1500, *use.SMClockMHz, 1e-9)
	require.InDelta(t, 1000, *use.SMClockMinMHz, 1e-9)
	require.InDelta(t, 2<<20, *use.MemoryMaxBytes, 1e-9)
	require.Nil(t, use.BusyPercent, "it was not reported")
	require.InDelta(t, 0.5, use.Throttled, 1e-9)
	require.Equal(t, []string{"power cap"}, use.Throttle)
	require.EqualValues(t, 5, stage.Dropped)
	require.InDelta(t, 0.5, stage.OverheadPercent, 1e-9)
	require.Equal(t, "stop", stage.Ended)

	gpus := s.Timeline().GPUs
	require.Len(t, gpus, 2)
	require.Equal(t, "B", gpus[1].Name)
	require.Len(t, gpus[1].Gauges, 3, "what was reported: %v", gpus[1].Gauges)
	power := gpus[1].Gauges[1]
	require.Equal(t, "power W", power.Name+" "+power.Unit)
	require.InDelta(t, 100, *power.Values[10*Intervals/195], 1e-9)
	require.Nil(t, power.Values[0])
	require.InDelta(t, 1, *gpus[1].Throttled[100*Intervals/195], 1e-9)
}

// Clocks that differ by more than the measurement's error are aligned.
func TestSessionOnOneClock(t *testing.T) {
	about := ledger.Session{Workers: []ledger.Worker{
		{Worker: "stage-3", Stage: 3, State: "done", Steps: 2, Clock: ledger.Clock{OffsetNS: 4_000_000, ErrorNS: 10}},
		{Worker: "stage-4", Stage: 4, Rank: 1, State: "done"},
	}}
	s := readFolder(t, program, "", about)
	require.EqualValues(t, 1_000_000, s.Workers[0].StartNS)
	require.EqualValues(t, 1_010_000, s.Workers[0].steps[0].startNS)
	require.Equal(t, []string{"stage-4: it left no trace, and says that it recorded no step"}, s.Missing)
	require.Empty(t, s.GPUs)
	require.Nil(t, s.Summarise(1).Stages[0].GPU)
}

// In a trace of very many steps a sample of them keeps what operators took; sums over all steps stay right.
func TestManyStepsAreSampled(t *testing.T) {
	var calls []call
	const steps = 3*maxDetailed + 5
	for i := range int64(steps) {
		calls = append(calls,
			call{"user_annotation", fmt.Sprintf("ProfilerStep#%d", i), i * 10, i*10 + 8}, call{"cpu_op", "aten::mm", i*10 + 1, i*10 + 7})
	}
	s := readFolder(t, calls, "", ledger.Session{})
	w := s.Workers[0]
	w.Stage = 3 // the file does not say it
	require.Len(t, w.StepNS, steps)
	require.Len(t, w.perStep(nodeKey{"aten::mm", "cpu_op"}), (steps+3)/4)
	require.EqualValues(t, steps*6000, op(w, "aten::mm").SelfNS)
	s.Requests = []ledger.Request{{ID: "a", ArrivedNS: w.StartNS, DoneNS: w.EndNS, Stages: []ledger.Stage{{
		ID: 3, Name: "x", DispatchedNS: w.StartNS, ReceivedNS: w.StartNS, FirstComputeNS: w.StartNS, LastComputeNS: w.EndNS, LastOutputNS: w.EndNS, DoneNS: w.EndNS,
	}}}}
	path, err := s.CriticalPath("")
	require.NoError(t, err)
	require.Equal(t, "aten::mm", path.Ops[0].Name)
	require.InDelta(t, steps*6e-3, path.Ops[0].MS, 0.05, "the sample stands for all")
}

// Time in which a worker had nothing to do is no call.
func TestFlameLeavesOutWaiting(t *testing.T) {
	s := readFolder(t, append(slices.Clone(program), call{"user_annotation", "stage.wait", 200, 900}), "", ledger.Session{})
	root := s.Flame(-1)
	require.EqualValues(t, (5+100+20+40)*1000, root.TotalNS)
	for _, c := range root.Children[0].Children {
		require.NotEqual(t, "stage.wait", c.Name)
	}
	require.EqualValues(t, 140_000, s.Workers[0].BusyNS)
	for _, calls := range [][]call{{{"user_annotation", "stage.wait", 0, 900}}, {{"cpu_op", "a", 0, 10}, {"user_annotation", "stage.wait", 10, 900}}} {
		w := readFolder(t, calls, "", ledger.Session{}).Workers[0]
		require.LessOrEqual(t, w.BusyNS, int64(10_000), "a worker that waits is not busy")
	}
}

// A context that ends between two traces ends the reading, whatever came of the trace before.
func TestReadSessionEndsWithItsContext(t *testing.T) {
	found := &archive.Session{Name: "s1", StampNS: 1, Traces: []archive.Trace{{Path: writeCalls(t, program, false), Worker: "stage-3"}}}
	ctx := &dying{Context: t.Context(), alive: 2}
	s, err := ReadSession(ctx, found, ledger.Session{}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Nil(t, s)
}

// dying is a context that is asked a number of times before it has ended.
type dying struct {
	context.Context //nolint:containedctx // it is one
	alive           int
}

func (d *dying) Err() error {
	if d.alive--; d.alive > 0 {
		return nil
	}
	return context.Canceled
}

func (d *dying) Value(key any) any { return nil }
