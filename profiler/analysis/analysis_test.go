package analysis

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat"

	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// call is a slice of one thread, in microseconds.
type call struct {
	category, name string
	start, end     int64
}

// program has steps with nested operators, something between the steps, and operators that call themselves.
var program = []call{
	{"cpu_op", "aten::empty", 0, 5},
	{"user_annotation", "ProfilerStep#0", 10, 110},
	{"user_annotation", "model.layer", 20, 100},
	{"cpu_op", "aten::linear", 20, 70},
	{"cpu_op", "aten::addmm", 30, 70},
	{"cpu_op", "aten::relu", 70, 100},
	{"cpu_op", "aten::to", 120, 140},
	{"cpu_op", "aten::to", 125, 135},
	{"user_annotation", "ProfilerStep#1", 150, 190},
	{"cpu_op", "aten::addmm", 150, 190},
	{"cpu_op", "aten::empty", 195, 195},
}

// writeCalls writes calls in an order: as given, which is that of the starts, or of the ends.
func writeCalls(t *testing.T, calls []call, byEnd bool) string {
	t.Helper()
	calls = slices.Clone(calls)
	if byEnd { // the inner of two that end together comes first
		slices.Reverse(calls)
		slices.SortStableFunc(calls, func(a, b call) int { return int(a.end - b.end) })
	}
	path := filepath.Join(t.TempDir(), "stage-3.json")
	w, err := trace.Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Member("baseTimeNanoseconds", []byte("5000000")))
	for _, c := range calls {
		require.NoError(t, w.Write(&trace.Event{
			Phase: trace.Complete, Category: c.category, Name: c.name, Process: trace.Number(1), Thread: trace.Number(1),
			Time: c.start * 1000, Duration: (c.end - c.start) * 1000,
		}))
	}
	require.NoError(t, w.Commit())
	return path
}

func op(w *Worker, name string) Op {
	i := slices.IndexFunc(w.Ops, func(o *Op) bool { return o.Name == name })
	if i < 0 {
		return Op{}
	}
	return *w.Ops[i]
}

// Recorders write callers before or after what they call: the result is the same.
func TestWorkerInBothOrders(t *testing.T) {
	for _, byEnd := range []bool{false, true} {
		w, err := ReadWorker(t.Context(), writeCalls(t, program, byEnd))
		require.NoError(t, err)
		require.Zero(t, w.Disordered, byEnd)
		require.Equal(t, "stage-3", w.Worker)
		require.EqualValues(t, 11, w.Events)
		require.EqualValues(t, 5_000_000, w.StartNS)
		require.EqualValues(t, 5_195_000, w.EndNS)
		require.EqualValues(t, 140_000, w.BusyNS)
		require.Equal(t, []int64{100_000, 40_000}, w.StepNS)
		require.Equal(t, Op{Name: "aten::addmm", Category: "cpu_op", Calls: 2, TotalNS: 80_000, SelfNS: 80_000}, op(w, "aten::addmm"))
		require.Equal(t, Op{Name: "aten::linear", Category: "cpu_op", Calls: 1, TotalNS: 50_000, SelfNS: 10_000}, op(w, "aten::linear"))
		require.Equal(t, Op{Name: "aten::to", Category: "cpu_op", Calls: 2, TotalNS: 30_000, SelfNS: 20_000}, op(w, "aten::to"), "a call of itself counts as a call")
		require.Equal(t, Op{Name: "ProfilerStep", Category: "user_annotation", Calls: 2, TotalNS: 140_000, SelfNS: 20_000}, op(w, "ProfilerStep"))
		require.Equal(t, Op{Name: "model.layer", Category: "user_annotation", Calls: 1, TotalNS: 80_000, SelfNS: 0}, op(w, "model.layer"))
		require.Equal(t, "aten::addmm", w.Ops[0].Name)
		var self int64
		w.Calls.each(func(n *Node) { self += n.SelfNS })
		require.EqualValues(t, 140_000+20_000+5_000, self, "self times add up to the time in anything")
		require.Equal(t, "ProfilerStep", w.Calls.Children()[0].Name)
		require.Equal(t, "aten::addmm", w.Calls.Children()[0].Children()[1].Name)
		for i, want := range []map[string]int64{
			{"ProfilerStep": 20_000, "model.layer": 0, "aten::linear": 10_000, "aten::addmm": 40_000, "aten::relu": 30_000},
			{"ProfilerStep": 0, "aten::addmm": 40_000},
		} {
			got := map[string]int64{}
			for key, ns := range w.steps[i].self {
				got[key.name] = ns
			}
			require.Equal(t, want, got)
		}
	}
}

func TestWorkerWithoutSteps(t *testing.T) {
	calls := []call{{"cpu_op", "a", 0, 10}, {"cpu_op", "b", 20, 25}}
	w, err := ReadWorker(t.Context(), writeCalls(t, calls, false))
	require.NoError(t, err)
	require.EqualValues(t, 15_000, w.BusyNS)
	require.Len(t, w.Ops, 2)
}

// A step that the end of the recording went through counts as time in which the worker was busy, not as a step.
func TestWorkerWithAStepThatIsCut(t *testing.T) {
	calls := []call{
		{"user_annotation", "ProfilerStep#0", 0, 10},
		{"user_annotation", "cut ProfilerStep#1", 20, 25},
		{"cpu_op", "a", 21, 24},
	}
	w, err := ReadWorker(t.Context(), writeCalls(t, calls, false))
	require.NoError(t, err)
	require.Equal(t, []int64{10_000}, w.StepNS)
	require.EqualValues(t, 15_000, w.BusyNS)
	require.Equal(t, Op{Name: "cut ProfilerStep", Category: "user_annotation", Calls: 1, TotalNS: 5_000, SelfNS: 2_000}, op(w, "cut ProfilerStep"))
	w, err = ReadWorker(t.Context(), writeCalls(t, calls[1:], false))
	require.NoError(t, err)
	require.Empty(t, w.StepNS)
	require.EqualValues(t, 5_000, w.BusyNS)
}

func TestWorkerCountsWhatDoesNotNest(t *testing.T) {
	calls := []call{{"cpu_op", "a", 100, 200}, {"cpu_op", "b", 110, 120}, {"cpu_op", "c", 5, 50}}
	w, err := ReadWorker(t.Context(), writeCalls(t, calls, false))
	require.NoError(t, err)
	require.EqualValues(t, 1, w.Disordered)
	require.EqualValues(t, 45_000, op(w, "c").SelfNS)
}

func TestSummary(t *testing.T) {
	w, err := ReadWorker(t.Context(), writeCalls(t, program, false))
	require.NoError(t, err)
	w.Stage = 1
	us := func(n int64) int64 { return 5_000_000 + n*1000 }
	s := Session{ID: "s1.5", Workers: []*Worker{w}, Requests: []ledger.Request{
		{ID: "a", ArrivedNS: us(-50), DoneNS: us(160), Stages: []ledger.Stage{
			{ID: 0, Name: "thinker"},
			{ID: 1, Name: "talker", ReceivedNS: us(-20), LastOutputNS: us(100), Tokens: 3, BytesOut: 24, QueueNS: 1000, Steps: 2},
		}},
		{ID: "b", ArrivedNS: us(0), DoneNS: us(150), Stages: []ledger.Stage{{ID: 1, Name: "talker", ReceivedNS: us(90), LastOutputNS: us(150), Tokens: 4}}},
	}}
	got := s.Summarise(2)
	stage := got.Stages[0]
	require.Len(t, stage.Top, 2)
	stage.Top = nil
	require.Equal(t, StageSummary{
		Stage: 1, Name: "talker", Worker: "stage-3", WindowMS: 0.195, BusyMS: 0.14, WaitingMS: 0.01, IdleMS: 0.045, Steps: 2,
		StepP50MS: 0.04, StepP99MS: 0.1, Requests: 2, Tokens: 7, BytesOut: 24, Events: 11,
	}, stage)
	require.InDelta(t, 0.21, got.Requests[0].E2EMS, 1e-9)
	require.Equal(t, RequestPart{Stage: 1, Name: "talker", QueueMS: 0.001, Steps: 2, Tokens: 3}, got.Requests[0].Stages[1])
}

func TestUnion(t *testing.T) {
	require.EqualValues(t, 0, union(nil))
	require.EqualValues(t, 25, union([][2]int64{{20, 30}, {0, 10}, {5, 12}, {7, 8}, {11, 13}, {30, 32}}))
}

// Operators count for a request by how much of their step lies in the request's compute parts.
func TestCriticalPathOfOperators(t *testing.T) {
	w, err := ReadWorker(t.Context(), writeCalls(t, program, false))
	require.NoError(t, err)
	w.Stage = 0
	us := func(n int64) int64 { return 5_000_000 + n*1000 }
	s := Session{ID: "s1.5", Workers: []*Worker{w}, Requests: []ledger.Request{
		{ID: "a", ArrivedNS: us(0), DoneNS: us(200), Stages: []ledger.Stage{{
			ID: 0, Name: "thinker", DispatchedNS: us(10), ReceivedNS: us(20), FirstInputNS: us(20), LastInputNS: us(20),
			FirstComputeNS: us(60), LastComputeNS: us(190), LastOutputNS: us(190), DoneNS: us(200),
		}}},
		{ID: "b", Error: "it died"},
	}}
	path, err := s.CriticalPath("")
	require.NoError(t, err)
	require.Equal(t, 1, path.Failed)
	require.Len(t, path.Requests, 1)
	require.Equal(t, ledger.Compute, path.Parts[0].Kind)
	require.InDelta(t, 0.13, path.Parts[0].TotalMS, 1e-9)
	require.InDelta(t, 0.09, path.Parts[0].InStepsMS, 1e-9, "half of the first step and the second")
	require.Equal(t, "aten::addmm", path.Ops[0].Name)
	require.InDelta(t, 0.02+0.04, path.Ops[0].MS, 1e-9)
	require.InDelta(t, 0.3, path.Ops[0].Share, 1e-9)
	_, err = s.CriticalPath("b")
	require.ErrorContains(t, err, "1 failed")
	_, err = s.CriticalPath("c")
	require.ErrorContains(t, err, `no request "c"`)
	_, err = (&Session{ID: "s2"}).CriticalPath("")
	require.ErrorContains(t, err, "no requests in its ledger")
}

func TestTimeline(t *testing.T) {
	w, err := ReadWorker(t.Context(), writeCalls(t, program, false))
	require.NoError(t, err)
	w.EndNS = w.StartNS + 200_000
	got := (&Session{Workers: []*Worker{w}}).Timeline()
	var quarters []float64
	for quarter := range slices.Chunk(got.Stages[0].Busy, Intervals/4) {
		quarters = append(quarters, stat.Mean(quarter, nil))
	}
	require.InDeltaSlice(t, []float64{0.8, 1, 0.2, 0.8}, quarters, 1e-9)
}

// nested appends random calls between two moments, callers first; none begins or ends when another does.
func nested(random *rand.Rand, calls []call, start, end int64, depth int) []call {
	for at := start + 1; at+2 < end && len(calls) < 3000; {
		from := at + random.Int64N(1+(end-at)/4)
		to := from + 1 + random.Int64N(1+(end-from)/2)
		if to >= end {
			break
		}
		c := call{category: "cpu_op", name: fmt.Sprintf("op%d", random.IntN(5)), start: from, end: to}
		if depth == 0 && random.IntN(2) == 0 {
			c.category, c.name = "user_annotation", "ProfilerStep#1"
		}
		calls = append(calls, c)
		if depth < 6 {
			calls = nested(random, calls, from, to, depth+1)
		}
		at = to + 1
	}
	return calls
}

// Random programs give the same tree in both orders, and self times that add up to the time at the top.
func TestTreesOfRandomPrograms(t *testing.T) {
	for seed := range uint64(30) {
		calls := nested(rand.New(rand.NewPCG(seed, 7)), nil, 0, 1_000_000, 0)
		var top int64
		for i, last := 0, int64(-1); i < len(calls); i++ {
			if calls[i].start > last {
				top += calls[i].end - calls[i].start
				last = calls[i].end
			}
		}
		var trees [2]*Flame
		for i, byEnd := range []bool{false, true} {
			w, err := ReadWorker(t.Context(), writeCalls(t, calls, byEnd))
			require.NoError(t, err)
			require.Zero(t, w.Disordered, "seed %d", seed)
			var self int64
			w.Calls.each(func(n *Node) { self += n.SelfNS })
			require.Equal(t, top*1000, self, "seed %d", seed)
			trees[i] = (&Session{Workers: []*Worker{w}}).Flame(-1)
		}
		require.Equal(t, trees[0], trees[1], "seed %d", seed)
	}
}
