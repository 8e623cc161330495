package picture

import (
	"context"
	"io"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/render"
)

// PageOptions say how much a page shows.
type PageOptions struct {
	Top      int // operators per stage
	Requests int // requests to draw
}

// DefaultPage is what a page shows if nobody asks for more.
func DefaultPage() PageOptions { return PageOptions{Top: 25, Requests: 50} }

func writeReport(ctx context.Context, s *Source, path string) error {
	session, err := s.Analyse(ctx)
	if err != nil {
		return err
	}
	return Page(session, path, DefaultPage())
}

// Page writes a page about a session to path.
func Page(session *analysis.Session, path string, o PageOptions) error {
	in := render.PageInput{Summary: session.Summarise(o.Top), Timeline: session.Timeline(), Limit: max(0, o.Requests)}
	if path, err := session.CriticalPath(""); err == nil { // without completed requests the page has no such table
		in.Path = path
	}
	return Write(path, func(w io.Writer) error { return render.Page(w, in) })
}
