package picture

import (
	"bytes"
	"compress/gzip"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/render/uplot"
	"github.com/omni-run/omni/profiler/trace"
)

var update = flag.Bool("update", false, "rewrite the goldens")

const stamp = 1795311375000000000

// writeTrace writes the trace of a worker that made steps of two operators each.
func writeTrace(t testing.TB, dir string, stage, steps int) {
	t.Helper()
	worker := fmt.Sprintf("stage-%d", stage)
	w, err := trace.Create(profiler.TracePath(dir, worker, "s1", stamp, true))
	require.NoError(t, err)
	for _, member := range [][2]string{
		{"distributedInfo", fmt.Sprintf(`{"rank": %d}`, stage)},
		{"omni", fmt.Sprintf(`{"session": "s1", "worker": %q, "stage": %d}`, worker, stage)},
		{"baseTimeNanoseconds", fmt.Sprint(int64(stamp))},
	} {
		require.NoError(t, w.Member(member[0], jsontext.Value(member[1])))
	}
	pid := trace.Number(int64(500 + stage))
	add := func(category, name string, start, duration int64) {
		require.NoError(t, w.Write(&trace.Event{
			Phase: trace.Complete, Category: category, Name: name, Process: pid, Thread: pid, Time: start, Duration: duration,
		}))
	}
	for i := range int64(steps) {
		at := i * 10_000
		add("user_annotation", fmt.Sprintf("ProfilerStep#%d", i), at, 9_000)
		add("cpu_op", "aten::mm", at+1000, 5_000)
		add("cpu_op", fmt.Sprintf("aten::op%d", i%40), at+6000, 1_000)
	}
	require.NoError(t, w.Commit())
}

func writeLedger(t testing.TB, dir string, workers ...ledger.Worker) {
	t.Helper()
	request := ledger.Request{ID: "only", ArrivedNS: stamp, EnteredNS: stamp, DoneNS: stamp + 100_000, Stages: []ledger.Stage{{
		Name: "thinker", DispatchedNS: stamp + 1000, ReceivedNS: stamp + 2000, FirstInputNS: stamp + 2000, LastInputNS: stamp + 2000,
		FirstComputeNS: stamp + 3000, LastComputeNS: stamp + 90_000, FirstOutputNS: stamp + 9000, LastOutputNS: stamp + 90_000, DoneNS: stamp + 95_000,
	}}}
	session := ledger.Session{Session: "s1", StampNS: stamp, Workers: workers}
	require.NoError(t, ledger.Write(ledger.Path(dir, "s1", stamp), session, []ledger.Request{request}))
}

// Every output is made, lies in the session's folder and not beside the traces, and is what its golden says.
func TestEveryOutput(t *testing.T) {
	dir := t.TempDir()
	writeTrace(t, dir, 0, 2)
	writeLedger(t, dir, ledger.Worker{Worker: "stage-0", State: "done", Steps: 2})
	id := fmt.Sprintf("s1.%d", int64(stamp))
	result, err := Make(t.Context(), dir, id)
	require.NoError(t, err)
	require.Empty(t, result.Missing)
	require.Len(t, result.Files, len(outputs))
	for i, o := range outputs {
		t.Run(o.kind, func(t *testing.T) {
			file := result.Files[i]
			require.Equal(t, o.kind, file.Kind)
			require.Equal(t, filepath.Join(dir, id, o.file), file.Path)
			text, err := os.ReadFile(file.Path)
			require.NoError(t, err)
			require.EqualValues(t, len(text), file.Bytes)
			golden(t, o.file, strings.ReplaceAll(plain(t, o.file, text), dir, "DIR"))

			source, err := Open(dir, id)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, o.write(ctx, source, filepath.Join(dir, "cancelled")), context.Canceled)
			require.NoFileExists(t, filepath.Join(dir, "cancelled"))
		})
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3, "a trace, the folder of ledgers and the session's own")
}

// plain is the text of an output without compression and without the libraries that it carries along.
func plain(t *testing.T, name string, text []byte) string {
	t.Helper()
	if strings.HasSuffix(name, ".gz") {
		unpacked, err := gzip.NewReader(bytes.NewReader(text))
		require.NoError(t, err)
		text, err = io.ReadAll(unpacked)
		require.NoError(t, err)
	}
	return strings.NewReplacer(uplot.Script, "(the library)", uplot.Style, "(its style)").Replace(string(text))
}

// golden compares got with testdata/name.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "go test ./profiler/picture -update writes goldens")
	require.Equal(t, string(want), got)
}

// The files say which workers are missing.
func TestMissingWorkersAreNamed(t *testing.T) {
	dir := t.TempDir()
	writeTrace(t, dir, 0, 10)
	broken := profiler.TracePath(dir, "stage-2", "s1", stamp, false)
	require.NoError(t, os.WriteFile(broken, []byte(`{"traceEvents": [`), 0o600))
	writeLedger(t, dir,
		ledger.Worker{Worker: "stage-0", State: "done", Steps: 10}, ledger.Worker{Worker: "stage-1", Stage: 1, Rank: 1, State: "failed", Error: "it was killed"},
		ledger.Worker{Worker: "stage-2", Stage: 2, Rank: 2, State: "done", Steps: 1})
	result, err := Make(t.Context(), dir, "s1")
	require.NoError(t, err)
	require.Len(t, result.Missing, 2)
	require.Equal(t, "stage-1: it was killed", result.Missing[0])
	require.Contains(t, result.Missing[1], "the file ends after 0 events")
	page, err := os.ReadFile(result.Files[1].Path)
	require.NoError(t, err)
	require.Contains(t, string(page), "stage-1: it was killed")
}

func TestMakeFaults(t *testing.T) {
	dir := t.TempDir()
	_, err := Make(t.Context(), dir, "s1.5")
	require.ErrorContains(t, err, "no such profile session")
	broken := profiler.TracePath(dir, "stage-2", "s1", stamp, false)
	require.NoError(t, os.WriteFile(broken, []byte(`{"traceEvents": [`), 0o600))
	result, err := Make(t.Context(), dir, fmt.Sprintf("s1.%d", int64(stamp)))
	require.ErrorContains(t, err, "the file ends after 0 events")
	require.Empty(t, result.Files)
	writeTrace(t, dir, 0, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Make(ctx, dir, "s1")
	require.ErrorIs(t, err, context.Canceled)
}
