package ledger

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoundTrip(t *testing.T) {
	path := Path(t.TempDir(), "s3", 17)
	require.Equal(t, "requests_s3.17.jsonl", filepath.Base(path))
	session := Session{Session: "s3", StampNS: 17, StoppedNS: 20, Running: 1, Dropped: 2}
	requests := []Request{
		{ID: "a \"b\"\n", ArrivedNS: 1, EnteredNS: 2, DoneNS: 9, PromptTokens: 3, Stages: []Stage{{ID: 0, Name: "thinker", DispatchedNS: 2, Tokens: 5}, {ID: 1, From: []int{0}}}},
		{ID: "c", Error: "a worker died"},
	}
	require.NoError(t, Write(path, session, requests))
	gotSession, got, err := Read(path)
	require.NoError(t, err)
	session.Version = Version
	require.Equal(t, session, gotSession)
	require.Equal(t, requests, got)
	require.NoFileExists(t, path+".tmp")
}

func TestReadFaults(t *testing.T) {
	tests := map[string]string{
		"":                               "first line",
		`{"ledger": 2}`:                  "version 2, expected 1",
		`{"ledger": 1}` + "\n" + `{"id"`: "request 1",
	}
	for text, want := range tests {
		path := filepath.Join(t.TempDir(), "x.jsonl")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, _, err := Read(path)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
	}
	_, _, err := Read("/nonexistent")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// An offset of a clock is taken out of times, unless it may be an error of the measurement.
func TestCorrection(t *testing.T) {
	tests := []struct {
		clock Clock
		want  int64
	}{
		{Clock{}, 0},
		{Clock{OffsetNS: 500, ErrorNS: 20}, -500},
		{Clock{OffsetNS: -500, ErrorNS: 20}, 500},
		{Clock{OffsetNS: -500, ErrorNS: 500}, 0},
	}
	for _, test := range tests {
		require.Equal(t, test.want, test.clock.Correction(), test.clock)
	}
}
