package pipeline_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
)

// The ledger of a session holds the requests that ended during it, and the moments of a request follow each other.
func TestLedgerOfASession(t *testing.T) {
	o := profiled(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: time.Millisecond}}, nil)
	generate := func(id string) {
		t.Helper()
		_, err := o.Generate(t.Context(), pipeline.Request{ID: id, Prompt: "hello", MaxTokens: 10})
		require.NoError(t, err)
	}
	generate("before")
	started, err := o.StartProfile(nil)
	require.NoError(t, err)
	require.Nil(t, started.Ledger)
	generate("one")
	generate("two")
	part, err := o.StopProfile([]int{0})
	require.NoError(t, err)
	require.Nil(t, part.Ledger, "the session goes on in two stages")
	stopped, err := o.StopProfile(nil)
	require.NoError(t, err)
	generate("after")

	require.NotNil(t, stopped.Ledger)
	require.Empty(t, stopped.Ledger.Error)
	require.Equal(t, 2, stopped.Ledger.Requests)
	require.Len(t, stopped.Ledger.Paths, 1)
	path := stopped.Ledger.Paths[0]
	require.Equal(t, ledger.Folder, filepath.Base(filepath.Dir(path)))
	session, requests, err := ledger.Read(path)
	require.NoError(t, err)
	require.Equal(t, "s1", session.Session)
	require.FileExists(t, profiler.TracePath(filepath.Dir(filepath.Dir(path)), "stage-0", "s1", session.StampNS, true))
	require.Zero(t, session.Running)
	require.Len(t, requests, 2)
	for i, r := range requests {
		require.Equal(t, []string{"one", "two"}[i], r.ID)
		require.Empty(t, r.Error)
		require.Len(t, r.Stages, 3)
		rising(t, r.ArrivedNS, r.EnteredNS, r.Stages[0].DispatchedNS)
		for j, s := range r.Stages {
			rising(t, s.DispatchedNS, s.ReceivedNS, s.FirstInputNS, s.FirstComputeNS, s.FirstOutputNS, s.LastOutputNS, s.DoneNS, r.DoneNS)
			rising(t, s.FirstInputNS, s.LastInputNS, s.LastComputeNS, s.LastOutputNS)
			inside := s.QueueNS + s.WaitNS + s.ComputeNS
			require.InDelta(t, s.LastOutputNS-s.ReceivedNS, inside, float64(5*time.Millisecond))
			require.Positive(t, s.ComputeNS)
			require.Equal(t, [][]int{nil, {0}, {1}}[j], s.From)
		}
		require.EqualValues(t, 10, r.Stages[0].Tokens)
	}
}

// A pipeline that closes during a session leaves a ledger too.
func TestLedgerOfAPipelineThatCloses(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	o := pipelinetest.Open(t, cfg)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	_, err = o.Generate(t.Context(), pipeline.Request{ID: "one", Prompt: "hello", MaxTokens: 3})
	require.NoError(t, err)
	require.NoError(t, o.Close())
	files, err := filepath.Glob(filepath.Join(cfg.Profiler.TorchProfilerDir, ledger.Folder, "requests_s1.*.jsonl"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	_, requests, err := ledger.Read(files[0])
	require.NoError(t, err)
	require.Len(t, requests, 1)
}

func rising(t *testing.T, moments ...int64) {
	t.Helper()
	for i, m := range moments {
		require.Positive(t, m, "moment %d of %v", i, moments)
		if i > 0 {
			require.GreaterOrEqual(t, m, moments[i-1], "moment %d of %v", i, moments)
		}
	}
}
