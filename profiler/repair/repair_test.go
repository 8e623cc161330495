package repair

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/trace"
)

const events = 5000

// whole writes a complete trace and returns its bytes.
func whole(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	w, err := trace.Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Member("distributedInfo", jsontext.Value(`{"rank": 2}`)))
	require.NoError(t, w.Member("baseTimeNanoseconds", jsontext.Value("7")))
	for i := range int64(events) {
		require.NoError(t, w.Write(&trace.Event{
			Phase: trace.Complete, Category: "cpu_op", Name: fmt.Sprintf("aten::op%d", i*7919%1000), Process: trace.Number(1), Thread: trace.Number(1),
			Time: i * 1000, Duration: i % 997,
		}))
	}
	require.NoError(t, w.Member("omniTotals", jsontext.Value(`{}`)))
	require.NoError(t, w.Commit())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}

// readAll returns the header and the number of events.
func readAll(t *testing.T, path string) (trace.Header, int64) {
	t.Helper()
	r, err := trace.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	var e trace.Event
	for n := int64(0); ; n++ {
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return r.Header(), n
		}
		require.NoError(t, err)
		require.Equal(t, n*1000, e.Time)
	}
}

// Wherever the file was cut, what is left becomes a trace of all whole events.
func TestTraceCutAnywhere(t *testing.T) {
	for _, name := range []string{"a.pt.trace.json", "a.pt.trace.json.gz"} {
		text := whole(t, name)
		for _, part := range []float64{0.3, 0.5, 0.77, 0.999, 1} {
			path := filepath.Join(t.TempDir(), name)
			n := int(part * float64(len(text)))
			require.NoError(t, os.WriteFile(path+Suffix, text[:n], 0o600))
			result, err := Trace(t.Context(), path+Suffix, 0)
			require.NoError(t, err, "%s cut to %v", name, part)
			require.Equal(t, part == 1, result.Complete)
			require.Equal(t, path, result.Path)
			header, got := readAll(t, path)
			require.Equal(t, result.Events, got)
			require.Contains(t, string(header["distributedInfo"]), `"rank": 2`)
			require.Contains(t, header, "omniRepaired")
			// Compressed text comes in blocks, of which the last may be lost.
			require.GreaterOrEqual(t, float64(got), part*events*0.5-500)
			require.NoFileExists(t, path+Suffix)
		}
	}
}

func TestTraceFaults(t *testing.T) {
	dir := t.TempDir()
	text := whole(t, "a.json")
	write := func(name string, n int) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text[:n], 0o600))
		return path
	}
	tests := []struct {
		path  string
		quiet time.Duration
		want  string
	}{
		{write("fresh.json.tmp", 5000), time.Hour, "written to a moment ago"},
		{write("no-suffix.json", 5000), 0, "has the suffix .tmp"},
		{filepath.Join(dir, "missing.json.tmp"), 0, "no such file"},
		{write("empty.json.tmp", 0), 0, "the file ends after 0 events"},
		{write("header.json.tmp", 40), 0, "the file ends after 0 events"},
		{write("no-event.json.tmp", 100), 0, "no whole event"},
		{write("no-suffix.json"+Suffix, 5000), 0, "is there already"},
	}
	for _, test := range tests {
		_, err := Trace(t.Context(), test.path, test.quiet)
		require.ErrorContains(t, err, test.want, test.path)
		if test.want != "no such file" {
			require.FileExists(t, test.path, "what cannot be repaired stays")
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.repair"))
	require.NoError(t, err)
	require.Empty(t, left)
}
