package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// missing is a folder that is not there yet, nor is the one above it.
func missing(t *testing.T) string { return filepath.Join(t.TempDir(), "not", "there") }

// occupied is a folder's path that a file has.
func occupied(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	return path
}

// readOnly is a folder in which this user may not write. Root may write anywhere but on a file system that is read-only.
func readOnly(t *testing.T) string {
	t.Helper()
	if os.Geteuid() == 0 {
		return mounted(t, syscall.MS_RDONLY, "")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { require.NoError(t, os.Chmod(dir, 0o700)) })
	return dir
}

// full is a folder in which files can be made, with room for next to nothing.
func full(t *testing.T) string {
	t.Helper()
	dir := mounted(t, 0, "size=4k")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "all"), make([]byte, 4096), 0o600))
	return dir
}

// mounted is a file system of its own.
func mounted(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system of its own")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// What is wrong with a folder is said before anything is loaded where that can be known, and otherwise by each request that
// it concerns; nothing half-written stays, and no worker.
func TestFoldersThatCannotBeWritten(t *testing.T) {
	tests := []struct {
		name   string
		flag   string
		folder func(*testing.T) string
		code   int
		want   string // on standard error; "" for nothing wrong
		early  bool   // no worker is started
	}{
		{"output, missing", "--output-dir", missing, 0, "", false},
		{"output, a file in its place", "--output-dir", occupied, exitUsage, "not a directory", true},
		{"output, read-only", "--output-dir", readOnly, exitUsage, "cannot write there", true},
		{"output, full", "--output-dir", full, exitFailed, "no space left on device", false},
		{"profile, missing", "--profile-dir", missing, 0, "", false},
		{"profile, a file in its place", "--profile-dir", occupied, exitUsage, "not a directory", true},
		{"profile, read-only", "--profile-dir", readOnly, exitUsage, "cannot write there", true},
		{"profile, full", "--profile-dir", full, exitFailed, "no space left on device", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := test.folder(t)
			p := startCommand(t, map[string]pipelinetest.Script{}, "--prompt", "one", "--max-tokens", "5", test.flag, dir)
			got := p.end()
			require.Equal(t, test.code, got.code, got.stderr)
			if test.want == "" {
				entries, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.NotEmpty(t, entries)
				return
			}
			require.Contains(t, got.stderr, test.want)
			require.Contains(t, got.stderr, dir)
			require.Equal(t, !test.early, strings.Contains(got.stderr, "loaded 3 stages"), got.stderr)
			if test.flag == "--profile-dir" && !test.early {
				require.Contains(t, got.stdout, pipelinetest.Expect("one", 5).Text, "the request itself is done")
			}
			if !test.early {
				require.Empty(t, filesIn(t, dir, "all"), "nothing half-written")
			}
		})
	}
}

// filesIn lists the files of a folder and of those in it, but for one of that name.
func filesIn(t *testing.T, dir, but string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != but {
			files = append(files, path)
		}
		return err
	}))
	return files
}

// A server's folder for profiles is looked at before anything is loaded.
func TestFoldersThatAServerCannotWrite(t *testing.T) {
	for name, folder := range map[string]func(*testing.T) string{"a file in its place": occupied, "read-only": readOnly} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			got := startCommand(t, map[string]pipelinetest.Script{}, "serve", "--model", "none", "--port", "0", "--profile-dir", dir).end()
			require.Equal(t, exitUsage, got.code, got.stderr)
			require.Contains(t, got.stderr, "--profile-dir: ")
			require.Contains(t, got.stderr, dir)
			require.NotContains(t, got.stderr, "loading stage")
		})
	}
}

// A folder that was there at the start goes away while a request runs: what cannot be written is said, and nothing else is lost.
func TestFoldersThatAreRemovedMeanwhile(t *testing.T) {
	for _, flag := range []string{"--output-dir", "--profile-dir"} {
		t.Run(flag, func(t *testing.T) {
			gate := pipelinetest.NewGate(t)
			dir := filepath.Join(t.TempDir(), "folder")
			p := startCommand(t, map[string]pipelinetest.Script{pipelinetest.Code2Wav: gate.Script(pipelinetest.AtDecode, 1)},
				"--prompt", "one", "--max-tokens", "5", flag, dir)
			gate.Reached()
			require.NoError(t, os.RemoveAll(dir))
			gate.Open()
			got := p.end()
			require.Equal(t, exitFailed, got.code, got.stderr)
			require.Contains(t, got.stderr, dir)
			require.Contains(t, got.stderr, "no such file or directory")
			if flag == "--profile-dir" {
				p.wholeResult("0", "one", 5)
			}
		})
	}
}
