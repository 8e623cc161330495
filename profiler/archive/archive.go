// Package archive finds what profile sessions have left in a profile directory.
//
// A session is known by the names of its files alone: the traces and tables of workers lie in the directory itself, what is
// made of them in a folder of the session's own. Nothing is opened but the ledger, so a file that was cut short is listed
// like a whole one; package repair looks inside.
package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/omni-run/omni/profiler/ledger"
)

// ErrNoSession says that a directory has no trace of the session that was asked for.
var ErrNoSession = errors.New("no such profile session")

// Session is what one profile session has left. [Sessions], [Find] and [Lookup] return them.
type Session struct {
	Dir  string
	Name string // s1
	// StampNS is the time in the names of its traces, which tells apart the sessions of several runs.
	StampNS int64
	// Traces are complete, sorted by worker.
	Traces []Trace
	// Unfinished are traces that were never completed.
	Unfinished []string
	// Ledger is the path of the requests' times, empty if there is none.
	Ledger string

	// tables reads the tables of the whole directory, by session, once for all sessions of a list.
	tables func() (map[string][]table, error)
}

// Trace is the trace of one worker.
type Trace struct {
	Path   string
	Worker string // stage-0
}

// ID names the session uniquely within its directory.
func (s *Session) ID() string { return fmt.Sprintf("%s.%d", s.Name, s.StampNS) }

// Names of the files that are made of a session's traces; see [Session.Path].
const (
	MergedName    = "merged.trace.json.gz"
	ReportName    = "report.html"
	FlameName     = "flame.html"
	TelemetryName = "gpu.jsonl"
)

// Folder is where the files about a session go that are no traces of a worker: analysers take every .json and .gz beside
// the traces for one.
func Folder(dir, id string) string { return filepath.Join(dir, id) }

// Path is where the file of a name goes: into the folder of the session.
func (s *Session) Path(name string) string { return filepath.Join(Folder(s.Dir, s.ID()), name) }

// Missing says which workers of the session have no complete trace, and why; workers are those that the ledger names.
func (s *Session) Missing(workers []ledger.Worker) []string {
	missing := []string{}
	for _, w := range workers {
		if slices.ContainsFunc(s.Traces, func(t Trace) bool { return t.is(w.Worker) }) {
			continue
		}
		why := w.Error
		switch {
		case why != "":
		case w.State == "done" && w.Steps == 0:
			why = "it left no trace, and says that it recorded no step"
		default:
			why = "it left no trace"
		}
		missing = append(missing, w.Worker+": "+why)
	}
	for _, path := range s.Unfinished {
		missing = append(missing, filepath.Base(path)+": it was never completed (omni-run profile repair)")
	}
	return missing
}

// is reports whether the trace is that of a worker; a prefix may stand before its name.
func (t Trace) is(worker string) bool {
	return t.Worker == worker || strings.HasSuffix(t.Worker, "_"+worker)
}

// traceName matches {worker}_{session}.{stamp}.pt.trace.json[.gz][.tmp].
var traceName = regexp.MustCompile(`^(.+)_([^_.]+)\.(\d+)\.pt\.trace\.json(?:\.gz)?(\.tmp)?$`)

// Sessions returns the sessions of a directory, oldest first.
func Sessions(dir string) ([]Session, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("profile directory: %w", err)
	}
	found := map[string]*Session{}
	var sessions []*Session
	tables := sync.OnceValues(func() (map[string][]table, error) { return readTables(dir) })
	for _, entry := range entries {
		m := traceName.FindStringSubmatch(entry.Name())
		if m == nil || entry.IsDir() {
			continue
		}
		stamp, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			continue // no time: the file is not ours
		}
		s := found[m[2]+"."+m[3]]
		if s == nil {
			s = &Session{Dir: dir, Name: m[2], StampNS: stamp, tables: tables}
			found[m[2]+"."+m[3]] = s
			sessions = append(sessions, s)
		}
		path := filepath.Join(dir, entry.Name())
		if m[4] != "" {
			s.Unfinished = append(s.Unfinished, path)
		} else {
			s.Traces = append(s.Traces, Trace{Path: path, Worker: m[1]})
		}
	}
	list := make([]Session, 0, len(sessions))
	for _, s := range sessions {
		if path := ledger.Path(dir, s.Name, s.StampNS); exists(path) {
			s.Ledger = path
		}
		slices.SortFunc(s.Traces, func(a, b Trace) int { return strings.Compare(a.Worker, b.Worker) })
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Session) int { return int(min(1, max(-1, a.StampNS-b.StampNS))) })
	return list, nil
}

// Find returns a session of a directory: the one of the given ID, the last of the given name, the last if which is empty or
// "-1", the one before that if it is "-2", and so on. Sessions without a complete trace do not count.
func Find(dir, which string) (*Session, error) {
	sessions, err := Sessions(dir)
	if err != nil {
		return nil, err
	}
	var known []string
	back, err := strconv.Atoi(which)
	if err != nil || back >= 0 {
		back = 0
	}
	for i := len(sessions) - 1; i >= 0; i-- {
		s := &sessions[i]
		known = append(known, s.ID())
		if len(s.Traces) == 0 {
			continue
		}
		if back++; back == 0 || which == "" || which == s.Name || which == s.ID() {
			return s, nil
		}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("%w: there are no traces in %s (files named {worker}_{session}.{time}.pt.trace.json.gz)", ErrNoSession, dir)
	}
	return nil, fmt.Errorf("%w: %q with complete traces in %s; there are %s", ErrNoSession, which, dir, strings.Join(known, ", "))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
