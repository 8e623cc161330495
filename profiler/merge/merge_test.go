package merge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// base is that of all written traces, as recorders choose it.
const base = 1790857026_000000000

// write writes a trace of a worker as a recorder does.
func write(t testing.TB, path string, stage int, events func(add func(trace.Event))) {
	t.Helper()
	w, err := trace.Create(path)
	require.NoError(t, err)
	member := func(name, format string, args ...any) {
		require.NoError(t, w.Member(name, jsontext.Value(fmt.Sprintf(format, args...))))
	}
	member("schemaVersion", "1")
	member("distributedInfo", `{"rank": %d}`, stage)
	member("omni", `{"session": "s1", "worker": "stage-%d", "stage": %d}`, stage, stage)
	member("baseTimeNanoseconds", "%d", base+int64(stage)*1000)
	events(func(e trace.Event) { require.NoError(t, w.Write(&e)) })
	require.NoError(t, w.Commit())
}

// worker adds what every worker's trace has: names, a step with ops in it, a kernel with its arrow, the recorder's marks.
func worker(pid int64, startNS int64) func(add func(trace.Event)) {
	return func(add func(trace.Event)) {
		cpu, gpu, thread := trace.Number(pid), trace.Number(0), trace.Number(pid)
		text := func(s string) trace.ID { return trace.ID{Text: s, IsText: true} }
		meta := func(p, t trace.ID, name, args string) {
			add(trace.Event{Phase: "M", Name: name, Process: p, Thread: t, Time: startNS, Args: jsontext.Value(args)})
		}
		meta(cpu, trace.Number(0), "process_name", `{"name": "python"}`)
		meta(cpu, trace.Number(0), "process_labels", `{"labels": "CPU"}`)
		meta(gpu, trace.Number(0), "process_labels", `{"labels": "GPU 0"}`)
		meta(trace.Number(1), trace.Number(0), "process_labels", `{"labels": "GPU 1"}`)
		add(trace.Event{Phase: "X", Category: "user_annotation", Name: "ProfilerStep#0", Process: cpu, Thread: thread, Time: startNS, Duration: 9000, Args: jsontext.Value(`{"External id":1}`)})
		add(trace.Event{Phase: "X", Category: "cpu_op", Name: "aten::mm", Process: cpu, Thread: thread, Time: startNS + 1, Duration: 8001, Args: jsontext.Value(`{"External id":2,"Input Dims":[[2,3]],"Ev Idx":1}`)})
		add(trace.Event{Phase: "X", Category: "cuda_runtime", Name: "cudaLaunchKernel", Process: cpu, Thread: thread, Time: startNS + 100, Duration: 10, Args: jsontext.Value(`{"correlation": 7}`)})
		add(trace.Event{Phase: "s", Category: "ac2g", Name: "ac2g", Process: cpu, Thread: thread, Time: startNS + 100, Flow: trace.Number(7), HasFlow: true})
		add(trace.Event{Phase: "X", Category: "kernel", Name: "gemm", Process: gpu, Thread: trace.Number(7), Time: startNS + 500, Duration: 1000, Args: jsontext.Value(`{"External id": 2, "device": 0, "stream": 7, "correlation": 7, "graph id": 0}`)})
		add(trace.Event{Phase: "f", Category: "ac2g", Name: "ac2g", Process: gpu, Thread: trace.Number(7), Time: startNS + 500, Flow: trace.Number(7), HasFlow: true, Binding: "e"})
		meta(cpu, thread, "thread_name", `{"name": "thread 1 (omni-worker)"}`)
		add(trace.Event{Phase: "X", Category: "Trace", Name: "PyTorch Profiler (0)", Process: text("Spans"), Thread: text("PyTorch Profiler"), Time: startNS - 50, Duration: 20000})
		meta(text("Spans"), trace.Number(0), "process_sort_index", `{"sort_index": 536870912}`)
		add(trace.Event{Phase: "i", Name: "Record Window End", Process: text(""), Thread: text(""), Time: startNS + 20000, Scope: "g"})
	}
}

// request runs through the stages 0, 1 and 2.
func request(id string, at int64) ledger.Request {
	r := ledger.Request{ID: id, ArrivedNS: at, EnteredNS: at + 1000, DoneNS: at + 90_000, PromptTokens: 4}
	for i := range 3 {
		s := at + int64(i)*20_000
		stage := ledger.Stage{
			ID: i, Name: []string{"thinker", "talker", "code2wav"}[i], DispatchedNS: at + 2000, ReceivedNS: at + 3000,
			FirstInputNS: s + 4000, LastInputNS: s + 4000, FirstComputeNS: s + 5000, LastComputeNS: s + 23_000,
			FirstOutputNS: s + 10_000, LastOutputNS: s + 23_000, DoneNS: s + 24_000, ComputeNS: 15_000, Steps: 3, Tokens: 3, BytesOut: 24,
		}
		if i > 0 {
			stage.From = []int{i - 1}
		}
		r.Stages = append(r.Stages, stage)
	}
	return r
}

func readAll(t testing.TB, path string) (trace.Header, []trace.Event) {
	t.Helper()
	r, err := trace.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	var all []trace.Event
	for {
		var e trace.Event
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return r.Header(), all
		}
		require.NoError(t, err)
		e.Args, e.Other = e.Args.Clone(), nil
		all = append(all, e)
	}
}

func TestMergedTraceIsTheGolden(t *testing.T) {
	dir := t.TempDir()
	var traces []string
	for _, stage := range []int{1, 0} { // in any order
		path := filepath.Join(dir, fmt.Sprintf("stage-%d_s1.1.pt.trace.json", stage))
		write(t, path, stage, worker(500+int64(stage), 4454350071378643+int64(stage)*30_000))
		traces = append(traces, path)
	}
	requests := []ledger.Request{request("b \"2\"", base+4454350071378643+10_000), request("a", base+4454350071378643)}
	requests[0].Error = "it was cancelled"
	t.Chdir(dir)
	result, err := Merge(t.Context(), Input{Traces: traces, Requests: requests, Session: "s1"}, "merged.json")
	require.NoError(t, err)
	require.Equal(t, 2, result.Requests)
	require.Equal(t, 4, result.Arrows)
	require.EqualValues(t, 18, result.Events)
	require.Equal(t, "stage-0", result.Sources[0].Worker)
	got, err := os.ReadFile("merged.json")
	require.NoError(t, err)
	golden := filepath.Join(goldens, "merged.json")
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "go test ./profiler/merge -update rewrites it")
}

// goldens is absolute, since tests change their directory.
var goldens = func() string {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		panic(err)
	}
	return dir
}()

// Whatever comes from different workers has different ids, and what belonged together still does.
func TestIdsAreUnique(t *testing.T) {
	dir := t.TempDir()
	var traces []string
	for stage := range 3 {
		path := filepath.Join(dir, fmt.Sprintf("stage-%d_s1.1.pt.trace.json.gz", stage))
		write(t, path, stage, worker(500, 1000)) // the same pid, threads and ids everywhere
		traces = append(traces, path)
	}
	out := filepath.Join(dir, "merged", "s1.json.gz")
	_, err := Merge(t.Context(), Input{Traces: traces, Requests: []ledger.Request{request("a", base)}}, out)
	require.NoError(t, err)
	header, events := readAll(t, out)
	require.Regexp(t, `"rank":\s+0`, string(header["distributedInfo"]))
	flows := map[trace.ID][]string{}
	tids := map[trace.ID]trace.ID{}
	ids := map[string]map[string]int{"External id": {}, "correlation": {}}
	for _, e := range events {
		require.False(t, e.Process.IsText || e.Thread.IsText, "%+v", e)
		require.GreaterOrEqual(t, e.Time, int64(0))
		require.GreaterOrEqual(t, e.Duration, int64(0))
		if e.Phase == "M" && e.Thread == trace.Number(0) {
			continue
		}
		if pid, ok := tids[e.Thread]; ok {
			require.Equal(t, pid, e.Process, "thread %s is in two processes", e.Thread)
		}
		tids[e.Thread] = e.Process
		if e.HasFlow {
			flows[e.Flow] = append(flows[e.Flow], e.Phase)
		}
		for key, value := range trace.Members(e.Args) {
			name, err := strconv.Unquote(string(key))
			require.NoError(t, err)
			if ids[name] != nil {
				ids[name][string(value)]++
				if name == "correlation" && e.Category == "kernel" {
					n, err := strconv.ParseInt(string(value), 10, 64)
					require.NoError(t, err)
					require.Contains(t, flows, trace.Number(n), "the arrow to a kernel has its correlation id")
				}
			}
		}
	}
	require.Len(t, flows, 3+2)
	for id, ends := range flows {
		require.Equal(t, []string{"s", "f"}, ends, "flow %s", id)
	}
	require.Len(t, ids["correlation"], 3)
	require.Len(t, ids["External id"], 6)
	for id, n := range ids["correlation"] {
		require.Equal(t, 2, n, "correlation %s", id)
	}
}

// Slices of one track nest, requests that overlap included.
func TestSlicesNest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "stage-0_s1.1.pt.trace.json")
	write(t, path, 0, worker(500, 1000))
	var requests []ledger.Request
	for i := range 50 {
		requests = append(requests, request(fmt.Sprintf("r%d", i), base+int64(i)*7919))
	}
	out := filepath.Join(dir, "merged.json")
	_, err := Merge(t.Context(), Input{Traces: []string{path}, Requests: requests}, out)
	require.NoError(t, err)
	_, events := readAll(t, out)
	open := map[trace.ID][]int64{}
	slices := 0
	for _, e := range events {
		if e.Phase != trace.Complete || e.Category != category {
			continue
		}
		slices++
		ends := open[e.Thread]
		for len(ends) > 0 && ends[len(ends)-1] <= e.Time {
			ends = ends[:len(ends)-1]
		}
		if len(ends) > 0 {
			require.LessOrEqual(t, e.End(), ends[len(ends)-1], "%+v", e)
		}
		open[e.Thread] = append(ends, e.End())
	}
	require.Greater(t, slices, 50*4)
}

func TestMergeFaults(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.json")
	write(t, good, 0, worker(500, 1000))
	whole, err := os.ReadFile(good)
	require.NoError(t, err)
	bad := filepath.Join(dir, "bad.json")
	require.NoError(t, os.WriteFile(bad, whole[:len(whole)/2], 0o600))
	out := filepath.Join(dir, "out", "merged.json")
	_, err = Merge(t.Context(), Input{}, out)
	require.ErrorContains(t, err, "there are no traces")
	_, err = Merge(t.Context(), Input{Traces: []string{bad}}, out)
	require.ErrorContains(t, err, "bad.json: the file ends after")
	_, err = Merge(t.Context(), Input{Traces: []string{good}, Requests: []ledger.Request{{ID: "x", ArrivedNS: 5, DoneNS: 1}}}, out)
	require.ErrorContains(t, err, `request "x" ends 4 ns before it begins`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Merge(ctx, Input{Traces: []string{good}}, out)
	require.ErrorIs(t, err, context.Canceled)
	files, err := filepath.Glob(filepath.Join(dir, "out", "*"))
	require.NoError(t, err)
	require.Empty(t, files, "a merge that failed leaves nothing")
}

// What is missing is said in the header and in a process of its own; a trace that cannot be read is missing too.
func TestMissingWorkersAreNamed(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.json")
	write(t, good, 0, worker(500, 1000))
	require.NoError(t, os.WriteFile(bad, []byte(`{"traceEvents": [`), 0o600))
	out := filepath.Join(dir, "merged.json")
	result, err := Merge(t.Context(), Input{Traces: []string{good, bad}, Missing: []string{"stage-2: it \"died\""}}, out)
	require.NoError(t, err)
	require.Len(t, result.Missing, 2)
	require.Contains(t, result.Missing[1], "bad.json: the file ends after 0 events")
	header, events := readAll(t, out)
	require.Contains(t, string(header["omni"]), `"missing":["stage-2: it \"died\"",`)
	var said []string
	for _, e := range events {
		if e.Category == "missing" {
			said = append(said, e.Name)
		}
	}
	require.Equal(t, result.Missing, said)
}

// A worker whose clock is ahead has its times moved back; what may be an error of the measurement moves nothing.
func TestClocksAreAligned(t *testing.T) {
	dir := t.TempDir()
	var traces []string
	for stage := range 2 {
		path := filepath.Join(dir, fmt.Sprintf("stage-%d_s1.1.pt.trace.json", stage))
		write(t, path, stage, worker(500, 2_000_000))
		traces = append(traces, path)
	}
	out := filepath.Join(dir, "merged.json")
	result, err := Merge(t.Context(), Input{Traces: traces, Workers: []ledger.Worker{
		{Worker: "stage-0", Clock: ledger.Clock{OffsetNS: 900, ErrorNS: 1000}},
		{Worker: "stage-1", Stage: 1, Rank: 1, Clock: ledger.Clock{OffsetNS: 1_000_250, ErrorNS: 1000}},
	}}, out)
	require.NoError(t, err)
	require.Zero(t, result.Sources[0].ShiftNS)
	require.EqualValues(t, -1_000_250, result.Sources[1].ShiftNS)
	require.EqualValues(t, 1000, result.Sources[1].ClockErrorNS)
	header, events := readAll(t, out)
	start, err := header.Base()
	require.NoError(t, err)
	var steps []int64
	for _, e := range events {
		if e.Name == "ProfilerStep#0" {
			steps = append(steps, start+e.Time-base)
		}
	}
	require.Equal(t, []int64{2_000_000, 1000 + 2_000_000 - 1_000_250}, steps)
}

// Kernels that overlap on one stream get lanes, and arrows follow them; a track whose callers come last is left alone.
func TestOverlappingSlicesAreMoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kineto.json")
	stream, thread := trace.Number(7), trace.Number(9)
	write(t, path, 0, func(add func(trace.Event)) {
		for _, e := range []trace.Event{
			{Name: "outer", Thread: stream, Time: 0, Duration: 100},
			{Name: "inner", Thread: stream, Time: 10, Duration: 50},
			{Name: "late", Thread: stream, Time: 90, Duration: 100},
			{Name: "later", Thread: stream, Time: 95, Duration: 200},
			{Name: "free", Thread: stream, Time: 200, Duration: 10},
			{Name: "callee", Thread: thread, Time: 10, Duration: 10},
			{Name: "caller", Thread: thread, Time: 10, Duration: 20},
			{Name: "top", Thread: thread, Time: 0, Duration: 50},
		} {
			e.Phase, e.Category, e.Process = trace.Complete, "kernel", trace.Number(0)
			add(e)
			add(trace.Event{Phase: "f", Category: "ac2g", Name: e.Name, Process: e.Process, Thread: e.Thread, Time: e.Time, Flow: trace.Number(e.Time + 1), HasFlow: true, Binding: "e"})
		}
	})
	out := filepath.Join(dir, "merged.json")
	_, err := Merge(t.Context(), Input{Traces: []string{path}}, out)
	require.NoError(t, err)
	_, all := readAll(t, out)
	tracks, arrows := map[string]int64{}, map[string]int64{}
	for _, e := range all {
		switch e.Phase {
		case trace.Complete:
			tracks[e.Name] = e.Thread.Number - 2*pidStride
		case trace.FlowEnd:
			arrows[e.Name] = e.Thread.Number - 2*pidStride
		}
	}
	require.Equal(t, map[string]int64{"outer": 1, "inner": 1, "late": 2, "later": 3, "free": 1, "callee": 4, "caller": 4, "top": 4}, tracks)
	require.Equal(t, tracks, arrows)
}

// What GPUs did is in counters of a process each, and a slice for as long as something kept the clocks down.
func TestTelemetryBecomesCounters(t *testing.T) {
	dir := t.TempDir()
	path, samples := filepath.Join(dir, "stage-0_s1.1.pt.trace.json"), filepath.Join(dir, "gpu.jsonl")
	write(t, path, 0, worker(500, 2_000_000))
	line := func(ns int64, rest string) string { return fmt.Sprintf(`{"ns": %d, "device": %s}`+"\n", base+ns, rest) }
	require.NoError(t, os.WriteFile(samples, []byte(
		`{"telemetry": 1, "devices": [{"index": 0, "name": "A", "uuid": "x"}, {"index": 1, "name": "B", "uuid": "y"}]}`+"\n"+
			line(2_000_000, `0, "power_w": 301.5, "memory_used_bytes": 3145728, "throttle": ["power cap"]`)+line(2_000_000, `1, "busy_pct": 7`)+
			line(3_000_000, `0, "power_w": 200, "throttle": ["power cap", "sync boost"]`)+line(4_000_000, `0, "throttle": ["sync boost"]`)+
			line(5_000_000, `1, "busy_pct": 8`)), 0o600))
	out := filepath.Join(dir, "merged.json")
	result, err := Merge(t.Context(), Input{Traces: []string{path}, Telemetry: samples}, out)
	require.NoError(t, err)
	require.EqualValues(t, 5, result.Counters)
	header, events := readAll(t, out)
	start, err := header.Base()
	require.NoError(t, err)
	var counters, slowdowns []string
	for _, e := range events {
		switch {
		case e.Phase == trace.Counter:
			counters = append(counters, fmt.Sprintf("%d %s %d %s", (e.Process.Number-gpuPID)/gpuStride, e.Name, start+e.Time-base, e.Args))
		case e.Category == "throttle":
			slowdowns = append(slowdowns, fmt.Sprintf("%s %d +%d", e.Name, start+e.Time-base, e.Duration))
		}
	}
	require.Equal(t, []string{
		`0 memory used MiB 2000000 {"value": 3}`, `0 power W 2000000 {"value": 301.5}`, `1 busy % 2000000 {"value": 7}`,
		`0 power W 3000000 {"value": 200}`, `1 busy % 5000000 {"value": 8}`,
	}, counters)
	require.Equal(t, []string{"power cap 2000000 +2000000", "sync boost 3000000 +2000000"}, slowdowns)
	_, err = Merge(t.Context(), Input{Traces: []string{path}, Telemetry: filepath.Join(dir, "missing")}, out)
	require.NoError(t, err)
}
