package profiler

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
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
			got, err := NewSessions().Next(test.world, Member{Config: FromDir(dir)})
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
		s, err := sessions.Next(2, Member{Config: FromDir(dir)})
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

// Pipelines that know nothing of each other have their tables in one directory.
func TestPipelinesDoNotShareNumbers(t *testing.T) {
	dir := t.TempDir()
	const pipelines, rounds = 8, 20
	taken := make([][]int, pipelines)
	var running sync.WaitGroup
	for i := range pipelines {
		running.Go(func() {
			sessions, world := NewSessions(), 1+i%3
			for range rounds {
				members := make([]Member, world)
				for rank := range members {
					members[rank] = Member{rank, FromDir(dir)}
				}
				starts, err := sessions.Next(world, members...)
				if err != nil {
					t.Error(err)
					return
				}
				for rank, start := range starts {
					if number := start.TableBase + rank; number%world != rank {
						t.Errorf("rank %d of %d has table %d", rank, world, number)
					}
					taken[i] = append(taken[i], start.TableBase+rank)
				}
			}
		})
	}
	running.Wait()
	all := slices.Concat(taken...)
	slices.Sort(all)
	if once := slices.Compact(slices.Clone(all)); len(once) != len(all) {
		t.Errorf("%d of %d tables have a number of their own", len(once), len(all))
	}
}

func TestANumberThatIsNotUsedIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	sessions := NewSessions()
	member := Member{Rank: 1, Config: FromDir(dir)}
	start, err := sessions.Next(3, member)
	if err != nil {
		t.Fatal(err)
	}
	reserved := TablePath(dir, 1) + ".tmp"
	if _, err := os.Stat(reserved); err != nil {
		t.Errorf("the number is not reserved: %v", err)
	}
	for range 2 {
		if err := start[0].Release(1); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v after it was given back, want nothing", entries, err)
	}
	// What a recorder that was killed had written of its table stays.
	if start, err = sessions.Next(3, member); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(reserved, []byte("Stage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start[0].Release(1); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(reserved); err != nil {
		t.Errorf("what had been written is gone: %v", err)
	}
}

func TestSessionsReserveAllNumbersOrNone(t *testing.T) {
	dir := t.TempDir()
	// Nobody can make files in /proc.
	_, err := NewSessions().Next(2, Member{0, FromDir(dir)}, Member{1, FromDir("/proc")})
	if err == nil || !strings.Contains(err.Error(), "/proc/profiler_out_1.txt") {
		t.Errorf("got %v, want an error that names the file", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v, want nothing", entries, err)
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
	got, err := NewSessions().Next(3, Member{0, a}, Member{1, b}, Member{2, cuda})
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
	if _, err := NewSessions().Next(1, Member{Config: Default()}); !errors.Is(err, ErrNotEnabled) {
		t.Errorf("got %v, want ErrNotEnabled", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewSessions().Next(1, Member{Config: FromDir(file)}); err == nil {
		t.Error("a file was accepted as the directory")
	}
	if _, err := NewSessions().Next(0, Member{Config: FromDir(t.TempDir())}); err == nil {
		t.Error("a pipeline without workers was accepted")
	}
	if _, err := NewSessions().Next(1); err == nil {
		t.Error("a session of nobody was accepted")
	}
	config := FromDir(t.TempDir())
	for _, ranks := range [][]int{{-1}, {2}, {1, 1}} {
		var members []Member
		for _, rank := range ranks {
			members = append(members, Member{rank, config})
		}
		if _, err := NewSessions().Next(2, members...); err == nil {
			t.Errorf("the ranks %v of two were accepted", ranks)
		}
	}
}
