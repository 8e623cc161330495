// Package picture makes of a finished profile session what people look at first: one trace of all its workers and a page.
//
// Both go into the session's folder, which [archive.Folder] names, away from the traces. They are made of the files alone,
// an event at a time, so a pipeline can have them made while it goes on serving, and a command can make them again later.
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
	"github.com/omni-run/omni/profiler/merge"
	"github.com/omni-run/omni/profiler/render"
)

// Kinds of files.
const (
	KindMerged = "merged"
	KindReport = "report"
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

// Make makes the merged trace and the page of a session whose files are complete. id is that of [archive.Session.ID], such
// as s1.1771924633000000000. What could be made is in the result also when there is an error.
func Make(ctx context.Context, dir, id string) (*Result, error) {
	result := &Result{Files: []File{}, Missing: []string{}}
	found, err := archive.Find(dir, id)
	if err != nil {
		return result, fmt.Errorf("picture: %w", err)
	}
	about, requests, err := Ledger(found)
	if err != nil {
		return result, fmt.Errorf("picture: %w", err)
	}
	merged, mergeErr := Merge(ctx, found, about, requests, found.Path(archive.MergedName))
	if mergeErr == nil {
		result.Missing = merged.Missing
		result.add(KindMerged, merged.Path)
	}
	if ctx.Err() != nil {
		return result, mergeErr
	}
	session, pageErr := analysis.ReadSession(ctx, found, about, requests)
	if pageErr == nil {
		result.Missing = session.Missing
		pageErr = Page(session, found.Path(archive.ReportName), DefaultPage())
	}
	if pageErr == nil {
		result.add(KindReport, found.Path(archive.ReportName))
	}
	return result, errors.Join(mergeErr, pageErr)
}

func (r *Result) add(kind, path string) {
	file := File{Kind: kind, Path: path}
	if info, err := os.Stat(path); err == nil {
		file.Bytes = info.Size()
	}
	r.Files = append(r.Files, file)
}

// Ledger reads the ledger of a session; nothing is known of the session and its requests if it has none.
func Ledger(s *archive.Session) (ledger.Session, []ledger.Request, error) {
	if s.Ledger == "" {
		return ledger.Session{}, nil, nil
	}
	return ledger.Read(s.Ledger)
}

// Merge writes one trace of a session's traces to path.
func Merge(ctx context.Context, s *archive.Session, about ledger.Session, requests []ledger.Request, path string) (*merge.Result, error) {
	in := merge.Input{
		Requests: requests, Session: s.Name, Workers: about.Workers, Missing: s.Missing(about.Workers), Telemetry: s.Path(archive.TelemetryName),
	}
	for _, t := range s.Traces {
		in.Traces = append(in.Traces, t.Path)
	}
	return merge.Merge(ctx, in, path)
}

// PageOptions say how much a page shows.
type PageOptions struct {
	Top      int // operators per stage
	Requests int // requests to draw
}

// DefaultPage is what a page shows if nobody asks for more.
func DefaultPage() PageOptions { return PageOptions{Top: 25, Requests: 50} }

// Page writes a page about a session to path.
func Page(session *analysis.Session, path string, o PageOptions) error {
	in := render.PageInput{Summary: session.Summarise(o.Top), Timeline: session.Timeline(), Limit: max(0, o.Requests)}
	if path, err := session.CriticalPath(""); err == nil { // without completed requests the page has no such table
		in.Path = path
	}
	return Write(path, func(w io.Writer) error { return render.Page(w, in) })
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
