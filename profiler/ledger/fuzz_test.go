package ledger

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRead reads any bytes as a ledger: nothing may panic, every fault names the file, and what is accepted can be written
// and read again.
func FuzzRead(f *testing.F) {
	whole := Path(f.TempDir(), "s1", 5)
	require.NoError(f, Write(whole, Session{Session: "s1", StampNS: 5, Workers: []Worker{{Worker: "stage-0", State: "done", Steps: 3}}}, []Request{
		{ID: "a \"b\"\n", ArrivedNS: 1, EnteredNS: 2, DoneNS: 9, Stages: []Stage{{ID: 0, Name: "thinker", DispatchedNS: 2}, {ID: 1, From: []int{0}}}},
		{ID: "\u2028", Error: "a worker died"},
	}))
	text, err := os.ReadFile(whole)
	require.NoError(f, err)
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add(append(text, text...))
	f.Add([]byte(`{"ledger":1}` + "\n" + `{"id":"x","stages":[{"from":[1,-1,99999999999]}],"arrived_ns":1e300}`))
	f.Add([]byte(`{"ledger":1,"workers":[{"clock_offset_ns":-9223372036854775808,"clock_error_ns":9223372036854775807}]}`))
	f.Add([]byte(`{"ledger":2}`))
	f.Add([]byte("\x00\xff[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "x.jsonl")
		require.NoError(t, os.WriteFile(path, text, 0o600))
		session, requests, err := Read(path)
		if err != nil {
			require.ErrorContains(t, err, path)
			return
		}
		for i := range session.Workers {
			session.Workers[i].Correction()
		}
		for i := range requests {
			requests[i].CriticalPath()
		}
		require.NoError(t, Write(path, session, requests))
		again, sameRequests, err := Read(path)
		require.NoError(t, err)
		require.Equal(t, session, again)
		require.Equal(t, requests, sameRequests)
	})
}
