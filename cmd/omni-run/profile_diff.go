package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/render"
)

// profileDiffCommand compares two sessions.
func profileDiffCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "compare two sessions, stage by stage and operator by operator",
		UsageText: "omni-run profile diff BEFORE AFTER [--threshold PERCENT] [--alpha P] [--min-share PERCENT] [--json|--csv]",
		Description: `BEFORE and AFTER are folders of profiles, or FOLDER@SESSION, where -2 is the last session but one. Compared are the
times of steps and, in each step, the self times of operators, so that a difference can be told from chance
(Mann-Whitney over the steps, with Holm's correction). A name of a module stands for the time in it outside of operators.
Something is slower if it takes longer by more than the threshold, if chance is unlikely, and if it matters. The exit
code is 1 if anything is slower.

Examples:
  omni-run profile diff ./profiles-main ./profiles-branch --threshold 3
  omni-run profile diff ./profiles@-2 ./profiles`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "threshold", Value: "5", Usage: "`PERCENT` by which something must be longer (5)"},
			&cli.Float64Flag{Name: "alpha", Value: 0.01, Usage: "`P` probability of taking chance for a change (0.01)"},
			&cli.StringFlag{Name: "min-share", Value: "1", Usage: "`PERCENT` of a step that an operator must take to count (1)"},
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "`N` operators to list per stage (10)"},
		}, formFlags()...),
		Action: withArguments(2, "the folders before and after", func(c *cli.Context, args []string) error {
			return diffProfiles(c, env, args)
		}),
	}
}

func diffProfiles(c *cli.Context, env *environment, args []string) error {
	options := analysis.DiffOptions{Alpha: c.Float64("alpha")}
	for flag, value := range map[string]*float64{"threshold": &options.Threshold, "min-share": &options.MinShare} {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(c.String(flag), "%"), 64)
		if err != nil || percent < 0 {
			return usagef("--%s is %q, want a percentage", flag, c.String(flag))
		}
		*value = percent / 100
	}
	if options.Alpha <= 0 || options.Alpha >= 1 {
		return usagef("--alpha is %v, want a probability between 0 and 1", options.Alpha)
	}
	var sessions []*analysis.Session
	var read []string
	for _, arg := range args {
		dir, name := arg, ""
		if i := strings.LastIndex(arg, "@"); i >= 0 {
			if _, err := os.Stat(arg); err != nil {
				dir, name = arg[:i], arg[i+1:]
			}
		}
		found, err := archive.Find(dir, name)
		if err != nil {
			return err
		}
		session, err := analysis.ReadSession(c.Context, found, ledger.Session{}, nil)
		if err != nil {
			return err
		}
		sessions = append(sessions, session)
		found.Dir, err = filepath.Abs(found.Dir)
		if err != nil {
			return err
		}
		read = append(read, found.Path(""))
	}
	if read[0] == read[1] {
		return usagef("diff: both are session %s; name another with FOLDER@SESSION", sessions[0].ID)
	}
	diff, err := analysis.Compare(sessions[0], sessions[1], options)
	if err != nil {
		return err
	}
	err = printAs(c, env.stdout, diff,
		func() error { return render.DiffCSV(env.stdout, diff) },
		func() error { return render.Diff(env.stdout, diff, options, max(0, c.Int("limit"))) })
	if n := len(diff.Regressions()); n > 0 && err == nil {
		return fmt.Errorf("%d regressions", n)
	}
	return err
}
