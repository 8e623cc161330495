package render

import (
	"fmt"
	"io"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/ledger"
)

// CriticalPath writes what requests waited for, and at most limit operators; a single request's parts in their order.
func CriticalPath(w io.Writer, p *analysis.CriticalPath, limit int) error {
	out := &errorWriter{w: w}
	if len(p.Requests) == 1 {
		r := &p.Requests[0]
		fmt.Fprintf(out, "session %s, request %s, %s from end to end\n\n", p.Session, r.ID, duration(r.E2EMS))
		t := table(out)
		fmt.Fprintln(t, "after\ttook\tshare\t  what")
		for _, s := range r.Parts {
			fmt.Fprintf(t, "%s\t%s\t%s\t  %s %s\n", duration(s.StartMS), duration(s.MS), percent(s.MS, r.E2EMS), s.Name, s.Kind)
		}
		_ = t.Flush() // out remembers the error
	} else {
		fmt.Fprintf(out, "session %s, %s, %s from end to end on average", p.Session, count(len(p.Requests), "request"), duration(p.E2EMS/float64(len(p.Requests))))
		if p.Failed > 0 {
			fmt.Fprintf(out, ", %d without a result", p.Failed)
		}
		fmt.Fprint(out, "\n\n")
		t := table(out)
		fmt.Fprintln(t, "share\tmean\tp50\tp99\tin steps\t  what")
		for _, part := range p.Parts {
			inSteps := ""
			if part.Kind == ledger.Compute {
				inSteps = percent(part.InStepsMS, part.TotalMS)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t  %s %s\n", percent(part.Share, 1), duration(part.TotalMS/float64(len(p.Requests))),
				duration(part.P50MS), duration(part.P99MS), inSteps, part.Name, part.Kind)
		}
		_ = t.Flush() // likewise
	}
	if len(p.Ops) > 0 && limit > 0 {
		fmt.Fprint(out, "\noperators on the path, by self time (shares of all requests' time)\n")
		t := table(out)
		for _, op := range p.Ops[:min(limit, len(p.Ops))] {
			fmt.Fprintf(t, "%s\t%s\t  %s\t  %s\n", percent(op.Share, 1), duration(op.MS), op.Worker, operator(op.Name))
		}
		_ = t.Flush() // likewise
	}
	return out.err
}

// CriticalPathCSV writes a row per part of each request.
func CriticalPathCSV(w io.Writer, p *analysis.CriticalPath) error {
	var rows [][]string
	for _, r := range p.Requests {
		for _, s := range r.Parts {
			rows = append(rows, []string{r.ID, number(r.E2EMS), integer(s.Stage), s.Name, string(s.Kind), number(s.StartMS), number(s.MS)})
		}
	}
	return Rows(w, []string{"request", "e2e_ms", "stage", "name", "kind", "start_ms", "ms"}, rows)
}
