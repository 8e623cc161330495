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

// Times of workers are corrected by their clocks' offsets, unless the offset may be an error of the measurement.
func TestReadAlignsClocks(t *testing.T) {
	path := Path(t.TempDir(), "s1", 17)
	request := Request{ID: "a", ArrivedNS: 1000, DoneNS: 9000}
	for id := range 3 {
		request.Stages = append(request.Stages, Stage{
			ID: id, DispatchedNS: 1100, ReceivedNS: 2000, FirstInputNS: 2100, LastInputNS: 2200, FirstComputeNS: 2300, LastComputeNS: 2400,
			FirstOutputNS: 2500, LastOutputNS: 0, DoneNS: 8000,
		})
	}
	session := Session{Session: "s1", Workers: []Worker{
		{Worker: "stage-0-rank-1", Stage: 0, Rank: 1, Clock: Clock{OffsetNS: 77, ErrorNS: 1}},
		{Worker: "stage-0-rank-0", Stage: 0, Rank: 0, Clock: Clock{OffsetNS: 500, ErrorNS: 20}},
		{Worker: "stage-1", Stage: 1, Rank: 2, Clock: Clock{OffsetNS: -500, ErrorNS: 600}},
	}}
	require.NoError(t, Write(path, session, []Request{request}))
	_, got, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, Stage{
		ID: 0, DispatchedNS: 1100, ReceivedNS: 1500, FirstInputNS: 1600, LastInputNS: 1700, FirstComputeNS: 1800, LastComputeNS: 1900,
		FirstOutputNS: 2000, DoneNS: 8000,
	}, got[0].Stages[0])
	require.Equal(t, request.Stages[1], got[0].Stages[1], "the offset is below its error")
	require.Equal(t, request.Stages[2], got[0].Stages[2], "nothing is known of the clock")
}
