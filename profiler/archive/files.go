package archive

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/omni-run/omni/profiler/ledger"
)

// Kinds of a session's files.
const (
	KindTrace  = "trace"  // of one worker
	KindTable  = "table"  // operators of one worker
	KindLedger = "ledger" // times of requests
	KindMade   = "made"   // made of the others, or beside them
)

// File is one file of a session.
type File struct {
	// Name is unique among the files of the session.
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Worker is empty for files about all workers.
	Worker string `json:"worker,omitempty"`
	Bytes  int64  `json:"bytes"`
	// Complete is false for a file that is being written, or whose writer has died.
	Complete bool `json:"complete"`

	path string // below the directory, with slashes
}

// ErrNoFile says that a session has no complete file of a name.
var ErrNoFile = errors.New("no such file in the profile session")

// Lookup returns a session of a directory, also one without complete traces: the one of the given ID, or the last of the given
// name.
func Lookup(dir, which string) (*Session, error) {
	sessions, err := Sessions(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, s := range slices.Backward(sessions) {
		if which == s.Name || which == s.ID() {
			return &s, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoSession, which)
}

// Files lists what the session has left: traces and tables, by worker, the times of its requests, and what its own folder
// holds. Links that lead out of the directory are no files of it.
func (s *Session) Files() ([]File, error) {
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("profile directory: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	files := []File{}
	add := func(kind, worker, name string) {
		info, err := root.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			return // deleted meanwhile, or not ours
		}
		files = append(files, File{
			Name: path.Base(name), Kind: kind, Worker: worker, Bytes: info.Size(), Complete: !strings.HasSuffix(name, ".tmp"), path: name,
		})
	}
	for _, t := range s.Traces {
		add(KindTrace, t.Worker, filepath.Base(t.Path))
	}
	for _, unfinished := range s.Unfinished {
		name := filepath.Base(unfinished)
		add(KindTrace, traceName.FindStringSubmatch(name)[1], name)
	}
	tables, err := s.tables()
	if err != nil {
		return nil, err
	}
	for _, t := range tables[s.ID()] {
		add(KindTable, t.worker, t.name)
	}
	if s.Ledger != "" {
		add(KindLedger, "", path.Join(ledger.Folder, filepath.Base(s.Ledger)))
	}
	own, err := fs.ReadDir(root.FS(), s.ID())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("folder of session %s: %w", s.ID(), err)
	}
	for _, entry := range own {
		add(KindMade, "", path.Join(s.ID(), entry.Name()))
	}
	slices.SortStableFunc(files, func(a, b File) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), strings.Compare(a.Worker, b.Worker))
	})
	return files, nil
}

// kinds is the order of files in a list.
var kinds = []string{KindMade, KindTrace, KindTable, KindLedger}

// table is an operator table.
type table struct{ name, worker string }

// tableHead matches the first line of an operator table.
var tableHead = regexp.MustCompile(`^Stage \d+ \((.+)\), rank \d+ of \d+, session (\S+): `)

// readTables finds the tables of all sessions of a directory, by the session's ID. Their names do not say whose they are, their
// first lines do.
func readTables(dir string) (map[string][]table, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("profile directory: %w", err)
	}
	defer func() { _ = root.Close() }() // it was only read
	names, err := fs.Glob(root.FS(), "profiler_out_*.txt")
	if err != nil {
		return nil, err
	}
	found := map[string][]table{}
	for _, name := range names {
		file, err := root.Open(name)
		if err != nil {
			continue // deleted meanwhile, or a link to elsewhere
		}
		line, _ := bufio.NewReader(file).ReadString('\n') // a file without a line is no table
		if err := file.Close(); err != nil {
			return nil, fmt.Errorf("profile directory: %w", err)
		}
		if m := tableHead.FindStringSubmatch(line); m != nil {
			found[m[2]] = append(found[m[2]], table{name: name, worker: m[1]})
		}
	}
	return found, nil
}

// Open opens one of the session's complete files by its name.
func (s *Session) Open(name string) (*os.File, *File, error) {
	files, err := s.Files()
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(files, func(f File) bool { return f.Name == name && f.Complete })
	if i < 0 {
		return nil, nil, fmt.Errorf("%w %s: %q", ErrNoFile, s.ID(), name)
	}
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("profile directory: %w", err)
	}
	defer func() { _ = root.Close() }() // the file stays open
	file, err := root.Open(files[i].path)
	if err != nil {
		return nil, nil, fmt.Errorf("%w %s: %w", ErrNoFile, s.ID(), err)
	}
	return file, &files[i], nil
}

// Remove deletes the session's files and folder.
func (s *Session) Remove() error {
	files, err := s.Files()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return fmt.Errorf("profile directory: %w", err)
	}
	var faults []error
	for _, f := range files {
		if err := root.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	faults = append(faults, root.RemoveAll(s.ID()), root.Close())
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("remove session %s: %w", s.ID(), err)
	}
	return nil
}
