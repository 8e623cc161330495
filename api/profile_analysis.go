package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/background"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/picture"
)

// keptAnalyses is how many sessions are kept as they were read: a page asks for several views of one or two.
const keptAnalyses = 4

// analyses reads sessions, one at a time: reading a large one takes a core for seconds, which the models need as well.
type analyses struct {
	turn chan struct{} // holds a token while a session is read or looked up; guards kept
	kept []keptAnalysis
}

// keptAnalysis is a session as it was read when it had so many files.
type keptAnalysis struct {
	id      string
	files   int
	session *analysis.Session
}

func newAnalyses() *analyses { return &analyses{turn: make(chan struct{}, 1)} }

// read returns a session that is complete.
func (a *analyses) read(ctx context.Context, found *archive.Session) (*analysis.Session, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	files := len(found.Traces)
	if found.Ledger != "" {
		files++
	}
	same := func(k keptAnalysis) bool { return k.id == found.ID() && k.files == files }
	if i := slices.IndexFunc(a.kept, same); i >= 0 {
		return a.kept[i].session, nil
	}
	about, requests, err := picture.Ledger(found)
	if err != nil {
		return nil, err
	}
	var session *analysis.Session
	background.Run(func() { session, err = analysis.ReadSession(ctx, found, about, requests) })
	if err != nil {
		return nil, err
	}
	a.kept = append([]keptAnalysis{{found.ID(), files, session}}, a.kept...)
	a.kept = a.kept[:min(len(a.kept), keptAnalyses)]
	return session, nil
}

// analysed reads the session of the given ID or name.
func (s *Server) analysed(c echo.Context, which string) (*analysis.Session, error) {
	found, err := archive.Lookup(s.cfg.Profiler.ProfileDir(), which)
	if errors.Is(err, archive.ErrNoSession) {
		return nil, &failure{code: codeNotFound, err: err}
	}
	if err != nil {
		return nil, err
	}
	if len(found.Traces) == 0 {
		return nil, fail(codeBusy, "session %s has no complete trace yet", found.ID())
	}
	return s.analyses.read(c.Request().Context(), found)
}

// analysisResponse is what a session's page shows. Times without another unit are milliseconds from StartNS.
type analysisResponse struct {
	*analysis.Summary
	StartNS int64 `json:"start_ns"`
	// Timeline is how busy each worker was.
	Timeline *analysis.Timeline `json:"timeline"`
	// Path is what requests waited for; null without completed requests.
	Path *analysis.CriticalPath `json:"path"`
	// Requests are the first of RequestsTotal, in place of the summary's.
	Requests      []requestRow `json:"requests"`
	RequestsTotal int          `json:"requests_total"`
}

// requestRow is a request of a waterfall.
type requestRow struct {
	ID      string  `json:"id"`
	StartMS float64 `json:"start_ms"`
	E2EMS   float64 `json:"e2e_ms"`
	Error   string  `json:"error,omitempty"`
	Slow    bool    `json:"slow,omitempty"`
	// Unfinished says that it was still running.
	Unfinished bool         `json:"unfinished,omitempty"`
	Stages     []requestBar `json:"stages"`
}

// requestBar is a request in one stage.
type requestBar struct {
	Stage int        `json:"stage"`
	Name  string     `json:"name"`
	Parts []timePart `json:"parts"`
}

// timePart is what a part of the time went for.
type timePart struct {
	Kind    ledger.Kind `json:"kind"`
	StartMS float64     `json:"start_ms"`
	MS      float64     `json:"ms"`
}

// analyseProfile sums a session up: ?top= operators a worker, ?requests= rows.
func (s *Server) analyseProfile(c echo.Context) error {
	top, err := queryNumber(c, "top", 50, 1, 10_000)
	if err != nil {
		return err
	}
	rows, err := queryNumber(c, "requests", 50, 0, 10_000)
	if err != nil {
		return err
	}
	session, err := s.analysed(c, c.Param("session"))
	if err != nil {
		return err
	}
	response := analysisResponse{Summary: session.Summarise(top), Timeline: session.Timeline()}
	response.StartNS = response.Timeline.StartNS
	if path, err := session.CriticalPath(""); err == nil { // without completed requests there is none
		path.Requests = nil
		path.Ops = path.Ops[:min(top, len(path.Ops))]
		response.Path = path
	}
	response.RequestsTotal = len(response.Summary.Requests)
	response.Requests = []requestRow{}
	for _, r := range response.Summary.Requests[:min(rows, response.RequestsTotal)] {
		response.Requests = append(response.Requests, row(r, response.StartNS))
	}
	return c.JSON(http.StatusOK, response)
}

func row(r analysis.RequestSummary, startNS int64) requestRow {
	since := func(ns int64) float64 { return float64(ns-startNS) / 1e6 }
	out := requestRow{ID: r.ID, StartMS: since(r.ArrivedNS), E2EMS: r.E2EMS, Error: r.Error, Slow: r.Slow, Unfinished: r.Unfinished, Stages: []requestBar{}}
	for _, stage := range r.Stages {
		bar := requestBar{Stage: stage.Stage, Name: stage.Name, Parts: []timePart{}}
		for _, p := range stage.Parts {
			bar.Parts = append(bar.Parts, timePart{Kind: p.Kind, StartMS: since(p.StartNS), MS: float64(p.NS()) / 1e6})
		}
		out.Stages = append(out.Stages, bar)
	}
	return out
}

// flameShare is what a place in the call tree must have of the whole to be sent: narrower boxes cannot be seen.
const flameShare = 1.0 / 4000

// flameProfile sends the call tree of a session, or of one ?stage= of it.
func (s *Server) flameProfile(c echo.Context) error {
	stage, err := queryNumber(c, "stage", -1, -1, 1<<20)
	if err != nil {
		return err
	}
	session, err := s.analysed(c, c.Param("session"))
	if err != nil {
		return err
	}
	root := session.Flame(stage)
	if len(root.Children) == 0 {
		return invalid("stage", "session %s has no trace of stage %d", session.ID, stage)
	}
	prune(root, int64(float64(root.TotalNS)*flameShare))
	return c.JSON(http.StatusOK, root)
}

func prune(f *analysis.Flame, least int64) {
	f.Children = slices.DeleteFunc(f.Children, func(child *analysis.Flame) bool { return child.TotalNS < least })
	for _, child := range f.Children {
		prune(child, least)
	}
}

// diffLimit is how many operators a comparison sends for each stage.
const diffLimit = 100

// diffProfiles compares a session with the one of ?after=.
func (s *Server) diffProfiles(c echo.Context) error {
	other := c.QueryParam("after")
	if other == "" {
		return invalid("after", "after is missing: the session to compare with")
	}
	before, err := s.analysed(c, c.Param("session"))
	if err != nil {
		return err
	}
	after, err := s.analysed(c, other)
	if err != nil {
		return err
	}
	diff, err := analysis.Compare([]*analysis.Session{before}, []*analysis.Session{after}, analysis.DiffOptions{Threshold: 0.05, Alpha: 0.01, MinShare: 0.01})
	if err != nil {
		return fail(codeBusy, "%w", err)
	}
	for i := range diff.Stages {
		ops := diff.Stages[i].Ops
		diff.Stages[i].Ops = ops[:min(diffLimit, len(ops))]
	}
	return c.JSON(http.StatusOK, diff)
}

// queryNumber reads a number from the query.
func queryNumber(c echo.Context, name string, otherwise, least, most int) (int, error) {
	text := c.QueryParam(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, invalid(name, "%s: got %q, want %d to %d", name, text, least, most)
	}
	return n, nil
}
