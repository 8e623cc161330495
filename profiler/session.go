package profiler

import (
	"fmt"
	"os"
	"path/filepath"
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
	// TableBase is the number of the table of the worker with rank 0; other workers add their rank.
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
)

// TablePath is where an operator table goes.
func TablePath(dir string, number int) string {
	return filepath.Join(dir, tablePrefix+strconv.Itoa(number)+tableSuffix)
}

// Sessions numbers the sessions of one pipeline. It may be used by several goroutines.
type Sessions struct {
	now func() time.Time

	mu   sync.Mutex // guards what follows
	last int
	// tables is one past the highest number handed out per directory: files of a running session may not exist yet.
	tables map[string]int
}

// NewSessions returns a Sessions whose first session is s1.
func NewSessions() *Sessions { return &Sessions{now: time.Now, tables: map[string]int{}} }

// Next begins a session for a pipeline of worldSize workers of which some record, each with one of configs: it creates their
// directories, chooses names and returns a Start for each config. Tables of rank r get the number r in a fresh directory;
// where tables lie already, of an earlier session or run, numbering goes on at the next multiple of worldSize, so that
// nothing is overwritten and number modulo worldSize stays the rank.
func (s *Sessions) Next(worldSize int, configs ...Config) ([]Start, error) {
	if worldSize < 1 || len(configs) == 0 {
		return nil, fmt.Errorf("profile session: got %d configurations for %d workers, want at least 1 of each", len(configs), worldSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	base := 0
	for _, config := range configs {
		used, err := s.prepare(config)
		if err != nil {
			return nil, fmt.Errorf("profile session: %w", err)
		}
		base = max(base, used)
	}
	base = (base + worldSize - 1) / worldSize * worldSize
	s.last++
	start := Start{Session: fmt.Sprintf("s%d", s.last), StampNS: s.now().UnixNano(), TableBase: base}
	starts := make([]Start, len(configs))
	for i, config := range configs {
		s.tables[config.TorchProfilerDir] = base + worldSize
		starts[i] = start
		starts[i].Config = config
	}
	return starts, nil
}

// prepare makes the directory of config and returns one past the highest number of its tables.
func (s *Sessions) prepare(config Config) (int, error) {
	dir := config.TorchProfilerDir
	switch {
	case !config.Enabled():
		return 0, ErrNotEnabled
	case dir == "":
		return 0, nil // it writes no files
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	used, err := tablesIn(dir)
	return max(used, s.tables[dir]), err
}

// tablesIn returns one past the highest number of the operator tables in dir, finished or not.
func tablesIn(dir string) (int, error) {
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
