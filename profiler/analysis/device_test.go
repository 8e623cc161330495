package analysis

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/trace"
)

// deviceCall is a call with the id that joins host and GPU.
type deviceCall struct {
	call
	id   int64
	lane int64
}

// deviceProgram is two steps, each with an operator that launches a kernel; times in microseconds.
var deviceProgram = []deviceCall{
	{call{"user_annotation", "ProfilerStep#0", 0, 100}, 1, 1},
	{call{"cpu_op", "aten::linear", 10, 65}, 2, 1},
	{call{"cpu_op", "aten::addmm", 20, 50}, 3, 1},
	{call{"user_annotation", "ProfilerStep#1", 200, 300}, 4, 1},
	{call{"cpu_op", "aten::addmm", 210, 260}, 5, 1},
}

// deviceReports is what CUPTI tells of them.
var deviceReports = []deviceCall{
	{call{"cuda_runtime", "cudaLaunchKernel", 22, 30}, 3, 1},
	{call{"kernel", "gemm", 40, 140}, 3, 7},
	{call{"cuda_runtime", "cudaLaunchKernel", 215, 225}, 5, 1},
	{call{"kernel", "gemm", 230, 260}, 5, 7},
	{call{"gpu_memcpy", "Memcpy HtoD", 250, 255}, 5, 8},
	{call{"gpu_user_annotation", "ProfilerStep#1", 230, 260}, 0, 7},
	{call{"cuda_sync", "Stream Sync", 260, 290}, 0, 7},
	{call{"cuda_runtime", "cudaDeviceSynchronize", 400, 410}, 0, 1},
	{call{"kernel", "of nobody", 400, 401}, 99, 7},
}

func writeDeviceCalls(t *testing.T, calls []deviceCall) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stage-0.json")
	w, err := trace.Create(path)
	require.NoError(t, err)
	for _, c := range calls {
		require.NoError(t, w.Write(&trace.Event{
			Phase: trace.Complete, Category: c.category, Name: c.name, Process: trace.Number(1), Thread: trace.Number(c.lane),
			Time: c.start * 1000, Duration: (c.end - c.start) * 1000, Args: jsontext.Value(fmt.Sprintf(`{"External id":%d}`, c.id)),
		}))
	}
	require.NoError(t, w.Commit())
	return path
}

// endsInOrder puts calls in the order of their ends.
func endsInOrder(calls []deviceCall) []deviceCall {
	calls = slices.Clone(calls)
	slices.Reverse(calls)
	slices.SortStableFunc(calls, func(a, b deviceCall) int { return int(a.end - b.end) })
	return calls
}

// What GPUs report comes after the operators that caused it: at the end, or while their step is still open.
func TestLateReportsOfGPUsFindTheirOperators(t *testing.T) {
	byEnd := endsInOrder(deviceProgram)
	early := slices.Concat(byEnd[:2], deviceReports[:2], byEnd[2:], deviceReports[2:])
	for name, calls := range map[string][]deviceCall{
		"by start, at the end": slices.Concat(deviceProgram, deviceReports),
		"by end, at the end":   slices.Concat(byEnd, deviceReports),
		"by end, in the step":  early,
	} {
		t.Run(name, func(t *testing.T) {
			w, err := ReadWorker(t.Context(), writeDeviceCalls(t, calls))
			require.NoError(t, err)
			require.Zero(t, w.Disordered)
			require.EqualValues(t, 200_000, w.BusyNS)
			require.Equal(t, Op{Name: "aten::addmm", Category: "cpu_op", Calls: 2, TotalNS: 80_000, SelfNS: 62_000, DeviceNS: 135_000}, op(w, "aten::addmm"))
			require.Equal(t, Op{Name: "cudaLaunchKernel", Category: "cuda_runtime", Calls: 2, TotalNS: 18_000, SelfNS: 18_000}, op(w, "cudaLaunchKernel"))
			require.Equal(t, Op{Name: "cudaDeviceSynchronize", Category: "cuda_runtime", Calls: 1, TotalNS: 10_000, SelfNS: 10_000}, op(w, "cudaDeviceSynchronize"))
			require.Zero(t, op(w, "gemm"), "kernels are no operators of the host")
			require.Len(t, w.DeviceOps, 3)
			require.Equal(t, Op{Name: "gemm", Category: "kernel", Calls: 2, TotalNS: 130_000, SelfNS: 130_000, DeviceNS: 130_000}, *w.DeviceOps[0])
			require.EqualValues(t, 136_000, w.DeviceNS, "neither annotations nor waiting")
			step := w.Calls.Children()[0]
			require.Equal(t, "ProfilerStep", step.Name)
			require.Equal(t, []string{"aten::linear", "aten::addmm"}, names(step.Children()))
			require.Equal(t, []string{"cudaLaunchKernel"}, names(step.Children()[1].Children()))
			for i, want := range []struct{ self, device map[string]int64 }{
				{map[string]int64{"ProfilerStep": 45_000, "aten::linear": 25_000, "aten::addmm": 22_000, "cudaLaunchKernel": 8_000}, map[string]int64{"gemm": 100_000}},
				{map[string]int64{"ProfilerStep": 50_000, "aten::addmm": 40_000, "cudaLaunchKernel": 10_000}, map[string]int64{"gemm": 30_000, "Memcpy HtoD": 5_000}},
			} {
				require.Equal(t, want.self, byName(w.steps[i].self))
				require.Equal(t, want.device, byName(w.steps[i].device))
			}
		})
	}
}

// A kernel that has become slower is a regression of its own, whatever the host did meanwhile.
func TestSlowerKernelIsARegression(t *testing.T) {
	session := func(kernelUS int64) *Session {
		var calls []deviceCall
		for i := range int64(20) {
			at, id := 1000*i, 10*i+1
			calls = append(calls,
				deviceCall{call{"user_annotation", fmt.Sprintf("ProfilerStep#%d", i), at, at + 500}, id, 1},
				deviceCall{call{"cpu_op", "aten::addmm", at + 10, at + 60}, id + 1, 1},
				deviceCall{call{"kernel", "gemm", at + 40, at + 40 + kernelUS + i%3}, id + 1, 7})
		}
		w, err := ReadWorker(t.Context(), writeDeviceCalls(t, calls))
		require.NoError(t, err)
		return &Session{Workers: []*Worker{w}}
	}
	diff, err := Compare(one(session(100)), one(session(200)), DiffOptions{Threshold: 0.05, Alpha: 0.01, MinShare: 0.01})
	require.NoError(t, err)
	slower := diff.Regressions()
	require.Len(t, slower, 1)
	require.Equal(t, "gemm", slower[0].Name)
	require.Equal(t, "kernel", slower[0].Category)
}

func names(nodes []*Node) []string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return list
}

func byName(times map[nodeKey]int64) map[string]int64 {
	list := map[string]int64{}
	for key, ns := range times {
		list[key.name] = ns
	}
	return list
}
