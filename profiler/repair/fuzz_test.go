package repair

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/trace"
)

// FuzzTrace repairs any bytes: a fault leaves the folder as it was, anything else a trace with as many events as were said.
func FuzzTrace(f *testing.F) {
	const head = `{"schemaVersion":1,"distributedInfo":{"rank":2},"baseTimeNanoseconds":7,"traceEvents":[` + "\n"
	const event = `{"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":1.000,"dur":2.000,"args":{"a":[{}]}}`
	f.Add([]byte(head+event+",\n"+event+"\n],\"omniTotals\":{},\"traceName\":\"x\"}"), false)
	f.Add([]byte(head+event+",\n"+event[:40]), false)
	f.Add([]byte(head), false)
	f.Add([]byte(head+`{"ph":"M","name":"process_name","pid":1,"args":{"name":"\ud83d"}},`), false)
	f.Add([]byte(head+`{"ph":"X","ts":1e400,"dur":-1},`), false)
	f.Add([]byte(`{"traceEvents":[`+event+`],"traceEvents":[`), false)
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), true)
	f.Add(whole(f, "a.pt.trace.json.gz")[:4000], true)
	f.Fuzz(func(t *testing.T, text []byte, compressed bool) {
		dir := t.TempDir()
		path := filepath.Join(dir, "w_s1.1.pt.trace.json")
		if compressed {
			path += ".gz"
		}
		require.NoError(t, os.WriteFile(path+Suffix, text, 0o600))
		result, err := Trace(t.Context(), path+Suffix, 0)
		entries, listing := os.ReadDir(dir)
		require.NoError(t, listing)
		require.Len(t, entries, 1)
		if err != nil {
			require.ErrorContains(t, err, path)
			require.Equal(t, filepath.Base(path)+Suffix, entries[0].Name())
			return
		}
		require.Equal(t, filepath.Base(path), entries[0].Name())
		r, err := trace.Open(path)
		require.NoError(t, err)
		defer r.Close()
		var e trace.Event
		events := int64(0)
		for err = r.Next(&e); err == nil; err = r.Next(&e) {
			if e.Phase != trace.Metadata {
				events++
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Fatalf("the repaired trace cannot be read: %v", err)
		}
		require.Equal(t, result.Events, events)
	})
}
