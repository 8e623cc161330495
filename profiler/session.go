package profiler

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Start is the message that begins a session in one worker.
type Start struct {
	// Session names the session: s1, s2, ...
	Session string `json:"session"`
	// Config is validated, its directory absolute.
	Config Config `json:"config"`
	// StampNS is the time in the names of all trace files of the session, in Unix nanoseconds.
	StampNS int64 `json:"stamp_ns"`
	// TableBase is the number of the table of the worker with rank 0; other workers add their rank. The numbers of those that
	// take part are reserved.
	TableBase int `json:"table_base"`
	// Clock is the worker's, as the pipeline has measured it.
	Clock Clock `json:"clock"`
}

// paths returns where the worker's trace and table go; empty ones are not wanted.
func (s *Start) paths(identity Identity) (trace, table string) {
	if s.Config.TorchProfilerDir == "" {
		return "", ""
	}
	name := identity.Worker
	if s.Config.ProfilePrefix != "" {
		name = s.Config.ProfilePrefix + "_" + name
	}
	trace = TracePath(s.Config.TorchProfilerDir, name, s.Session, s.StampNS, s.Config.TorchProfilerUseGzip)
	if s.Config.TorchProfilerDumpCUDATimeTotal {
		table = TablePath(s.Config.TorchProfilerDir, s.TableBase+identity.Rank)
	}
	return trace, table
}

// Paths lists the files that a worker leaves of the session.
func (s *Start) Paths(identity Identity) []string {
	var list []string
	trace, table := s.paths(identity)
	for _, path := range []string{trace, table} {
		if path != "" {
			list = append(list, path)
		}
	}
	return list
}

// Identity is who a worker is within its pipeline. Viewers tell files apart by Rank.
type Identity struct {
	// Worker is the name at the start of file names; see WorkerName.
	Worker string `json:"worker"`
	// Stage is the id of the pipeline's stage.
	Stage int `json:"stage"`
	// Rank is unique over all workers of the pipeline.
	Rank int `json:"rank"`
	// WorldSize is the number of workers of the pipeline.
	WorldSize int `json:"world_size"`
	// PID is the process of the worker.
	PID int `json:"pid"`
	// Device is where the worker's operators run: cpu, cuda:0.
	Device string `json:"device"`
}

// WorkerName names the worker of a pipeline's stage, which has ranks processes of which this is number rank.
func WorkerName(stage, rank, ranks int) string {
	if ranks > 1 {
		return fmt.Sprintf("stage-%d-rank-%d", stage, rank)
	}
	return fmt.Sprintf("stage-%d", stage)
}

// LLMWorkerName names a worker of a single autoregressive model outside a pipeline, as vLLM-Omni does: what reads profiles
// finds such files by it.
func LLMWorkerName(rank int) string { return fmt.Sprintf("llm-rank-%d", rank) }

// DiffusionWorkerName names a worker of a single diffusion model outside a pipeline, likewise.
func DiffusionWorkerName(rank int) string { return fmt.Sprintf("diffusion-rank-%d", rank) }

// TracePath is where the named worker writes the trace of a session. TensorBoard, HTA and the globs of the documentation
// all recognise the name.
func TracePath(dir, worker, session string, stampNS int64, gzip bool) string {
	name := fmt.Sprintf("%s_%s.%d.pt.trace.json", worker, session, stampNS)
	if gzip {
		name += ".gz"
	}
	return filepath.Join(dir, name)
}

const (
	tablePrefix = "profiler_out_"
	tableSuffix = ".txt"
	// reservedSuffix follows a table's path in the name of the empty file that keeps its number; the recorder writes the table
	// into that file before it gives it its name.
	reservedSuffix = ".tmp"
)

// TablePath is where an operator table goes.
func TablePath(dir string, number int) string {
	return filepath.Join(dir, tablePrefix+strconv.Itoa(number)+tableSuffix)
}

// Member is a worker that takes part in a session.
type Member struct {
	// Rank is that of its [Identity].
	Rank   int
	Config Config
}

// Sessions numbers the sessions of one pipeline. Several pipelines, also of other processes, may have their files in one
// directory. It may be used by several goroutines.
type Sessions struct {
	now func() time.Time

	mu   sync.Mutex // guards what follows
	last int
}

// NewSessions returns a Sessions whose first session is s1.
func NewSessions() *Sessions { return &Sessions{now: time.Now} }

// Next begins a session for a pipeline of worldSize workers of which members record: it creates their directories, chooses
// names and returns a Start for each member. The table of rank r gets the number r in a fresh directory; where tables lie
// already, of an earlier session or of another pipeline, numbering goes on at the next multiple of worldSize, so that
// nothing is overwritten and number modulo worldSize stays the rank. The numbers are reserved: call Start.Release when a
// member's part in the session is over.
func (s *Sessions) Next(worldSize int, members ...Member) ([]Start, error) {
	if worldSize < 1 || len(members) == 0 {
		return nil, fmt.Errorf("profile session: got %d members for %d workers, want at least 1 of each", len(members), worldSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	starts := make([]Start, len(members))
	for i, m := range members {
		if !m.Config.Enabled() {
			return nil, fmt.Errorf("profile session: %w", ErrNotEnabled)
		}
		same := func(other Member) bool { return other.Rank == m.Rank }
		if m.Rank < 0 || m.Rank >= worldSize || slices.ContainsFunc(members[:i], same) {
			return nil, fmt.Errorf("profile session: member %d has rank %d, want one of its own below %d", i, m.Rank, worldSize)
		}
		starts[i].Config = m.Config
		if dir := m.Config.TorchProfilerDir; dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, fmt.Errorf("profile session: %w", err)
			}
		}
	}
	if err := reserve(worldSize, members, starts); err != nil {
		return nil, fmt.Errorf("profile session: %w", err)
	}
	s.last++
	stamp := s.now().UnixNano()
	for i := range starts {
		starts[i].Session, starts[i].StampNS = fmt.Sprintf("s%d", s.last), stamp
	}
	return starts, nil
}

// reserve finds numbers for the tables of a session and keeps them from others.
func reserve(worldSize int, members []Member, starts []Start) error {
	for {
		base := 0
		for _, m := range members {
			used, err := tablesIn(m.Config.TorchProfilerDir)
			if err != nil {
				return err
			}
			base = max(base, (used+worldSize-1)/worldSize*worldSize)
		}
		err := reserveAt(base, members, starts)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Another pipeline was faster by a moment. It has a number that the next look into the directory finds.
	}
}

// reserveAt reserves the numbers from base on for all members, or none.
func reserveAt(base int, members []Member, starts []Start) error {
	for i, m := range members {
		starts[i].TableBase = base
		_, table := starts[i].paths(Identity{Rank: m.Rank})
		if table == "" {
			continue
		}
		file, err := os.OpenFile(table+reservedSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			for j := range members[:i] {
				err = errors.Join(err, starts[j].Release(members[j].Rank))
			}
			return err
		}
	}
	return nil
}

// Release gives back the number of a table that has not been written, and will not be. There may be none: then it does
// nothing.
func (s *Start) Release(rank int) error {
	_, table := s.paths(Identity{Rank: rank})
	if table == "" {
		return nil
	}
	info, err := os.Stat(table + reservedSuffix)
	if err == nil && info.Size() == 0 {
		err = os.Remove(table + reservedSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// tablesIn returns one past the highest number of the operator tables in dir, finished or not.
func tablesIn(dir string) (int, error) {
	if dir == "" {
		return 0, nil // it has no files
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	next := 0
	for _, entry := range entries {
		name, found := strings.CutPrefix(entry.Name(), tablePrefix)
		if !found {
			continue
		}
		digits, _, _ := strings.Cut(name, tableSuffix)
		if n, err := strconv.Atoi(digits); err == nil && n >= next {
			next = n + 1
		}
	}
	return next, nil
}
