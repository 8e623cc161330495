package render

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/omni-run/omni/profiler/analysis"
)

// Diff writes a comparison with at most limit operators per stage.
func Diff(w io.Writer, d *analysis.Diff, o analysis.DiffOptions, limit int) error {
	out := &errorWriter{w: w}
	fmt.Fprintf(out, "before %s, after %s; times are those of a typical step\n", strings.Join(d.Before, ", "), strings.Join(d.After, ", "))
	for _, s := range d.Stages {
		fmt.Fprintf(out, "\n%s, %d steps before, %d after; p is over %s\n", s.Worker, s.StepsBefore, s.StepsAfter, s.Test)
		t := table(out)
		fmt.Fprintln(t, "before\tafter\tchange\tp\t\t  what")
		line := func(c *analysis.Change, name string) {
			mark := ""
			if c.Regression {
				mark = "slower"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%.2g\t%s\t  %s\n", duration(c.BeforeNS/1e6), duration(c.AfterNS/1e6), ratio(c), c.P, mark, name)
		}
		line(&s.Step, "whole step")
		for i := range s.Ops[:min(limit, len(s.Ops))] {
			line(&s.Ops[i], operator(s.Ops[i].Name))
		}
		_ = t.Flush() // out remembers the error
	}
	if len(d.Skipped) > 0 {
		fmt.Fprintf(out, "\nnot in all of the sessions: %s\n", strings.Join(d.Skipped, ", "))
	}
	if slices.ContainsFunc(d.Stages, func(s analysis.StageSet) bool { return s.Test == analysis.TestBlocks }) {
		fmt.Fprint(out, "\np is over blocks of steps: it tells a change from noise within a session, but runs of equal code can differ, too.\n"+
			"Give several sessions on each side to compare over sessions.\n")
	}
	fmt.Fprintf(out, "\n%s: longer by more than %.3g %%, p below %.2g, at least %.3g %% of a step\n",
		count(len(d.Regressions()), "regression"), 100*o.Threshold, o.Alpha, 100*o.MinShare)
	return out.err
}

// ratio is a change in percent.
func ratio(c *analysis.Change) string {
	switch {
	case c.BeforeNS <= 0 && c.AfterNS <= 0:
		return "-"
	case c.BeforeNS <= 0:
		return "new"
	case c.AfterNS <= 0:
		return "gone"
	}
	return fmt.Sprintf("%+.1f %%", 100*(c.Ratio-1))
}

// DiffCSV writes a row per stage and operator.
func DiffCSV(w io.Writer, d *analysis.Diff) error {
	var rows [][]string
	for _, s := range d.Stages {
		for _, c := range append([]analysis.Change{s.Step}, s.Ops...) {
			rows = append(rows, []string{
				integer(c.Stage), c.Worker, c.Name, c.Category, number(c.BeforeNS), number(c.AfterNS), number(c.Ratio), number(c.P),
				fmt.Sprint(c.Regression),
			})
		}
	}
	return Rows(w, []string{"stage", "worker", "name", "category", "before_ns", "after_ns", "ratio", "p", "regression"}, rows)
}
