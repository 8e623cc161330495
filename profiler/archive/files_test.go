package archive

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// twoRuns is a directory with the sessions s1 of two runs of a program.
func twoRuns(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for run, second := range []int64{100, 200} { // at the same time or not
		id := fmt.Sprintf("s1.%d000000000", second)
		put(t, dir, "stage-0_"+id+".pt.trace.json.gz", "trace")
		put(t, dir, "stage-1_"+id+".pt.trace.json.gz.tmp", "tra")
		put(t, dir, fmt.Sprintf("profiler_out_%d.txt", run),
			fmt.Sprintf("Stage 0 (stage-0), rank 0 of 2, session %s: 3 steps, 9 events, 0 dropped\n", id))
		put(t, dir, "ledger/requests_"+id+".jsonl", "{}")
		put(t, dir, id+"/merged.trace.json.gz", "merged")
	}
	put(t, dir, "profiler_out_7.txt", "Stage 0 (stage-0), rank 0 of 2, session s2.100000000000: 3 steps, 9 events, 0 dropped\n")
	put(t, dir, "profiler_out_8.txt", "")
	put(t, dir, "profiler_out_9.txt.tmp", "")
	put(t, dir, "notes.txt", "mine")
	return dir
}

func TestFilesOfTwoRunsAreToldApart(t *testing.T) {
	dir := twoRuns(t)
	s, err := Lookup(dir, "s1.100000000000")
	require.NoError(t, err)
	files, err := s.Files()
	require.NoError(t, err)
	for i := range files {
		files[i].path = ""
	}
	require.Equal(t, []File{
		{Name: "merged.trace.json.gz", Kind: KindMade, Bytes: 6, Complete: true},
		{Name: "stage-0_s1.100000000000.pt.trace.json.gz", Kind: KindTrace, Worker: "stage-0", Bytes: 5, Complete: true},
		{Name: "stage-1_s1.100000000000.pt.trace.json.gz.tmp", Kind: KindTrace, Worker: "stage-1", Bytes: 3},
		{Name: "profiler_out_0.txt", Kind: KindTable, Worker: "stage-0", Bytes: 86, Complete: true},
		{Name: "requests_s1.100000000000.jsonl", Kind: KindLedger, Bytes: 2, Complete: true},
	}, files)
	last, err := Lookup(dir, "s1")
	require.NoError(t, err)
	require.EqualValues(t, 200_000_000_000, last.StampNS)
}

// Listing many sessions does not open every table for each of them.
func TestTablesAreReadOnceForAList(t *testing.T) {
	dir := twoRuns(t)
	sessions, err := Sessions(dir)
	require.NoError(t, err)
	tables := func(s Session) (names []string) {
		files, err := s.Files()
		require.NoError(t, err)
		for _, f := range files {
			if f.Kind == KindTable {
				names = append(names, f.Name)
			}
		}
		return names
	}
	require.Equal(t, []string{"profiler_out_0.txt"}, tables(sessions[0]))
	put(t, dir, "profiler_out_2.txt", "Stage 1 (stage-1), rank 1 of 2, session s1.200000000000: 3 steps, 9 events, 0 dropped\n")
	require.Equal(t, []string{"profiler_out_1.txt"}, tables(sessions[1]), "the table that came later is in the next list")
	next, err := Lookup(dir, "s1.200000000000")
	require.NoError(t, err)
	require.Equal(t, []string{"profiler_out_1.txt", "profiler_out_2.txt"}, tables(*next))
}

func TestOpenGivesOnlyFilesOfTheSession(t *testing.T) {
	dir := twoRuns(t)
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "s1.100000000000", "link.txt")))
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "stage-9_s1.100000000000.pt.trace.json")))
	s, err := Lookup(dir, "s1.100000000000")
	require.NoError(t, err)
	file, about, err := s.Open("merged.trace.json.gz")
	require.NoError(t, err)
	text, err := io.ReadAll(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.Equal(t, "merged", string(text))
	require.Equal(t, KindMade, about.Kind)
	for _, name := range []string{
		"", ".", "..", "../secret", "/etc/passwd", "notes.txt", "link.txt", "stage-9_s1.100000000000.pt.trace.json", "profiler_out_1.txt",
		"stage-1_s1.100000000000.pt.trace.json.gz.tmp", "s1.100000000000/merged.trace.json.gz", "ledger",
		"stage-0_s1.200000000000.pt.trace.json.gz",
	} {
		_, _, err := s.Open(name)
		require.ErrorIs(t, err, ErrNoFile, name)
	}
}

func TestRemoveLeavesEverythingElse(t *testing.T) {
	dir := twoRuns(t)
	s, err := Lookup(dir, "s1.100000000000")
	require.NoError(t, err)
	require.NoError(t, s.Remove())
	_, err = Lookup(dir, "s1.100000000000")
	require.ErrorIs(t, err, ErrNoSession)
	var left []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if !entry.IsDir() {
			left = append(left, entry.Name())
		}
		return err
	}))
	require.ElementsMatch(t, []string{
		"stage-0_s1.200000000000.pt.trace.json.gz", "stage-1_s1.200000000000.pt.trace.json.gz.tmp", "profiler_out_1.txt",
		"requests_s1.200000000000.jsonl", "merged.trace.json.gz", "profiler_out_7.txt", "profiler_out_8.txt", "profiler_out_9.txt.tmp",
		"notes.txt",
	}, left)
}

func TestLookupInNoDirectory(t *testing.T) {
	_, err := Lookup(filepath.Join(t.TempDir(), "none"), "s1")
	require.ErrorIs(t, err, ErrNoSession)
}
