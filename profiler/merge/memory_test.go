//go:build !race

package merge

import (
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/trace"
)

// Many events take no more memory than few.
func TestMergeInConstantMemory(t *testing.T) {
	const events = 150_000
	dir := t.TempDir()
	path := filepath.Join(dir, "stage-0_s1.1.pt.trace.json.gz")
	write(t, path, 0, func(add func(trace.Event)) {
		var args []byte
		for i := range int64(events) {
			args = append(strconv.AppendInt(append(args[:0], `{"External id":`...), i+1, 10), `,"Input Dims":[[1,896],[896,128]],"Ev Idx":0}`...)
			add(trace.Event{
				Phase: trace.Complete, Category: "cpu_op", Name: "aten::mm", Process: trace.Number(9), Thread: trace.Number(9),
				Time: i * 2000, Duration: 1500, Args: args,
			})
		}
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	result, err := Merge(t.Context(), Input{Traces: []string{path}}, filepath.Join(dir, "merged", "s1.json.gz"))
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.EqualValues(t, events, result.Events)
	// Sys never shrinks: it is the highest that the heap has been.
	require.Less(t, after.Sys-before.Sys, uint64(24<<20))
}
