package archive

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	_, err := Find(dir, "")
	require.ErrorIs(t, err, ErrNoSession)
	_, err = Find(filepath.Join(dir, "missing"), "")
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, path := range []string{
		profiler.TracePath(dir, "stage-10", "s1", 200, true),
		profiler.TracePath(dir, "stage-1", "s1", 200, false),
		profiler.TracePath(dir, "stage-0-rank-1", "s1", 100, true),
		profiler.TracePath(dir, "stage-0", "s2", 300, true),
		profiler.TracePath(dir, "stage-0", "s3", 400, true) + ".tmp",
		filepath.Join(dir, "profiler_out_0.txt"),
	} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	require.NoError(t, ledger.Write(ledger.Path(dir, "s2", 300), ledger.Session{}, nil))

	tests := []struct {
		which, id string
		workers   []string
		ledger    bool
	}{
		{"", "s2.300", []string{"stage-0"}, true},
		{"s1", "s1.200", []string{"stage-1", "stage-10"}, false},
		{"s1.100", "s1.100", []string{"stage-0-rank-1"}, false},
		{"-1", "s2.300", []string{"stage-0"}, true},
		{"-3", "s1.100", []string{"stage-0-rank-1"}, false},
	}
	for _, test := range tests {
		s, err := Find(dir, test.which)
		require.NoError(t, err, test.which)
		require.Equal(t, test.id, s.ID())
		var workers []string
		for _, trace := range s.Traces {
			workers = append(workers, trace.Worker)
			require.FileExists(t, trace.Path)
		}
		require.Equal(t, test.workers, workers)
		require.Equal(t, test.ledger, s.Ledger != "")
	}
	_, err = Find(dir, "s3")
	require.ErrorContains(t, err, "s3.400, s2.300, s1.200, s1.100")
	_, err = Find(dir, "-4")
	require.ErrorIs(t, err, ErrNoSession)
	s, err := Find(dir, "")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "s2.300", "report.html"), s.Path(ReportName))
}
