package profiler

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestNamesOfWorkers(t *testing.T) {
	for want, got := range map[string]string{
		"stage-0":          WorkerName(0, 0, 1),
		"stage-2-rank-1":   WorkerName(2, 1, 2),
		"llm-rank-3":       LLMWorkerName(3),
		"diffusion-rank-1": DiffusionWorkerName(1),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTraceNamesMatchEveryConsumer(t *testing.T) {
	name := filepath.Base(TracePath("/d", "stage-0", "s1", 1771924633000000000, true))
	if want := "stage-0_s1.1771924633000000000.pt.trace.json.gz"; name != want {
		t.Errorf("got %q, want %q", name, want)
	}
	for _, glob := range []string{"stage-0*", "*.trace.json.gz", "stage-0_*.trace.json.gz"} {
		if ok, err := filepath.Match(glob, name); err != nil || !ok {
			t.Errorf("%q does not match %q", name, glob)
		}
	}
	tensorBoard := regexp.MustCompile(`^(.*?)(\.\d+)?\.pt\.trace\.json(?:\.gz)?$`)
	if got := tensorBoard.FindStringSubmatch(name); got == nil || got[1] != "stage-0_s1" {
		t.Errorf("TensorBoard reads the worker %q from %q", got, name)
	}
	plain := filepath.Base(TracePath("/d", "stage-0", "s1", 5, false))
	if want := "stage-0_s1.5.pt.trace.json"; plain != want {
		t.Errorf("got %q, want %q", plain, want)
	}
}

func TestSessionsNumberTablesWithoutOverwriting(t *testing.T) {
	tests := []struct {
		name  string
		files []string // in the directory before
		world int
		want  int // TableBase
	}{
		{"a fresh directory", nil, 3, 0},
		{"one earlier session", []string{"profiler_out_0.txt", "profiler_out_1.txt", "profiler_out_2.txt"}, 3, 3},
		{"one stage of an earlier session", []string{"profiler_out_0.txt"}, 3, 3},
		{"an unfinished table", []string{"profiler_out_4.txt.tmp"}, 3, 6},
		{"an earlier run with fewer workers", []string{"profiler_out_0.txt"}, 2, 2},
		{"other files", []string{"profiler_out_x.txt", "stage-0_s1.1.pt.trace.json.gz", "notes.txt"}, 3, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := NewSessions().Next(test.world, FromDir(dir))
			if err != nil || got[0].TableBase != test.want {
				t.Errorf("got %+v, %v; want base %d", got, err, test.want)
			}
		})
	}
}

func TestSessionsDoNotShareNamesBeforeFilesExist(t *testing.T) {
	sessions := NewSessions()
	dir := filepath.Join(t.TempDir(), "new", "folder")
	var got []Start
	for range 3 {
		s, err := sessions.Next(2, FromDir(dir))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s...)
	}
	for i, want := range []struct {
		session string
		base    int
	}{{"s1", 0}, {"s2", 2}, {"s3", 4}} {
		if got[i].Session != want.session || got[i].TableBase != want.base || got[i].StampNS == 0 {
			t.Errorf("session %d: got %+v", i, got[i])
		}
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Errorf("the directory was not made: %v", err)
	}
}

func TestSessionsOfSeveralDirectories(t *testing.T) {
	root := t.TempDir()
	a, b := FromDir(filepath.Join(root, "a")), FromDir(filepath.Join(root, "b"))
	cuda := Default()
	cuda.Profiler = KindCUDA
	if err := os.Mkdir(b.TorchProfilerDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(TablePath(b.TorchProfilerDir, 3), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := NewSessions().Next(3, a, b, cuda)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for i, want := range []string{a.TorchProfilerDir, b.TorchProfilerDir, ""} {
		s := got[i]
		if s.Session != "s1" || s.StampNS != got[0].StampNS || s.TableBase != 6 || s.Config.TorchProfilerDir != want {
			t.Errorf("start %d: got %+v", i, s)
		}
	}
	if info, err := os.Stat(a.TorchProfilerDir); err != nil || !info.IsDir() {
		t.Errorf("the first directory was not made: %v", err)
	}
}

func TestSessionsRefuse(t *testing.T) {
	if _, err := NewSessions().Next(1, Default()); !errors.Is(err, ErrNotEnabled) {
		t.Errorf("got %v, want ErrNotEnabled", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewSessions().Next(1, FromDir(file)); err == nil {
		t.Error("a file was accepted as the directory")
	}
	if _, err := NewSessions().Next(0, FromDir(t.TempDir())); err == nil {
		t.Error("a pipeline without workers was accepted")
	}
	if _, err := NewSessions().Next(1); err == nil {
		t.Error("a session of nobody was accepted")
	}
}
