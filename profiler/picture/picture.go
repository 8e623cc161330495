// Package picture makes of a finished profile session what people look at first: one trace of all its workers and a page.
//
// The files are rows of one table, outputs. They go into the session's folder, which [archive.Folder] names, away from the
// traces. They are made of the session's files alone, in little memory, so a pipeline can have them made while it goes on
// serving, by a process of its own ([Main]), and a command can make them again later.
package picture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
)

// File is one file that was made.
type File struct {
	Kind  string `json:"kind"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// Result says what was made.
type Result struct {
	Files []File `json:"files"`
	// Missing says what the pictures lack: workers that left no trace, traces that could not be read.
	Missing []string `json:"missing"`
}

// Source is a session whose files are complete. It is for one goroutine.
type Source struct {
	*archive.Session
	About    ledger.Session // empty without a ledger
	Requests []ledger.Request

	analysed *analysis.Session // once it was asked for
	missing  []string          // as the last reader of the traces has it
}

// Open finds a session, as [archive.Find] does, and reads its ledger.
func Open(dir, which string) (*Source, error) {
	found, err := archive.Find(dir, which)
	if err != nil {
		return nil, err
	}
	about, requests, err := Ledger(found)
	if err != nil {
		return nil, err
	}
	return &Source{Session: found, About: about, Requests: requests, missing: []string{}}, nil
}

// Ledger reads the ledger of a session; nothing is known of the session and its requests if it has none.
func Ledger(s *archive.Session) (ledger.Session, []ledger.Request, error) {
	if s.Ledger == "" {
		return ledger.Session{}, nil, nil
	}
	return ledger.Read(s.Ledger)
}

// Analyse reads the session's traces, once.
func (s *Source) Analyse(ctx context.Context) (*analysis.Session, error) {
	if s.analysed != nil {
		return s.analysed, nil
	}
	session, err := analysis.ReadSession(ctx, s.Session, s.About, s.Requests)
	if err != nil {
		return nil, err
	}
	s.analysed, s.missing = session, session.Missing
	return session, nil
}

// Make makes all outputs of a session. id is that of [archive.Session.ID], such as
// s1.1771924633000000000. What could be made is in the result also when there is an error.
func Make(ctx context.Context, dir, id string) (*Result, error) {
	result := &Result{Files: []File{}, Missing: []string{}}
	source, err := Open(dir, id)
	if err != nil {
		return result, fmt.Errorf("picture: %w", err)
	}
	var faults []error
	for _, o := range outputs {
		if ctx.Err() != nil {
			faults = append(faults, context.Cause(ctx))
			break
		}
		if err := o.write(ctx, source, source.Path(o.file)); err != nil {
			faults = append(faults, err)
			continue
		}
		result.add(o.kind, source.Path(o.file))
	}
	result.Missing = source.missing
	return result, errors.Join(faults...)
}

func (r *Result) add(kind, path string) {
	file := File{Kind: kind, Path: path}
	if info, err := os.Stat(path); err == nil {
		file.Bytes = info.Size()
	}
	r.Files = append(r.Files, file)
}

// Write writes a file whole or not at all, and creates the folder it is in.
func Write(path string, write func(io.Writer) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path + ".tmp") // err says why
		}
	}()
	if err := write(file); err != nil {
		_ = file.Close() // likewise
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
