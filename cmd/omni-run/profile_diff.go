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

// profileDiffCommand compares sessions.
func profileDiffCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "compare sessions before and after a change, stage by stage and operator by operator",
		UsageText: "omni-run profile diff BEFORE AFTER [--threshold PERCENT] [--alpha P] [--min-share PERCENT] [--json|--csv]",
		Description: `BEFORE and AFTER are folders of profiles, of which the last session is read; FOLDER@SESSION names another (-2 is the
last but one), FOLDER@* all. Several have commas between them, and a FOLDER may be a pattern such as 'runs/main-*'
(quoted, so that the shell leaves it alone). Compared are the times of steps and, in each step, the self times of
operators. A name of a module stands for the time in it outside of operators.

Something is slower if it takes longer by more than the threshold, if chance is unlikely (p below --alpha, with Holm's
correction for the number of operators), and if it matters. What p says depends on what there is:
  several sessions a side  whole sessions are compared (Welch's t-test over their typical times). Take three or more
                           a side, each of a process of its own, those before and after in turns.
  one session a side       blocks of consecutive steps are compared (Mann-Whitney), since steps that follow each other
                           are alike. This knows nothing of how much two runs of equal code differ, so on a machine
                           that does other work as well equal code may look slower.

Exit codes: 0 nothing is slower, 1 something is slower, 2 the comparison could not be made.

Examples:
  omni-run profile diff ./profiles-main ./profiles-branch --threshold 3
  omni-run profile diff ./profiles@-2 ./profiles
  omni-run profile diff 'runs/main-*' 'runs/branch-*'
  omni-run profile diff ./a@s1,./a@s2,./a@s3 './b@*'`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "threshold", Value: "5", Usage: "`PERCENT` by which something must be longer (5)"},
			&cli.Float64Flag{Name: "alpha", Value: 0.01, Usage: "`P` probability of taking chance for a change (0.01)"},
			&cli.StringFlag{Name: "min-share", Value: "1", Usage: "`PERCENT` of a step that an operator must take to count (1)"},
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "`N` operators to list per stage (10)"},
		}, formFlags()...),
		Action: withArguments(2, "the sessions before and after", func(c *cli.Context, args []string) error {
			diff, err := diffProfiles(c, env, args)
			if err != nil {
				return &codedError{code: exitUsage, err: err}
			}
			if n := len(diff.Regressions()); n > 0 {
				return fmt.Errorf("%d regressions", n)
			}
			return nil
		}),
	}
}

// diffProfiles compares and prints.
func diffProfiles(c *cli.Context, env *environment, args []string) (*analysis.Diff, error) {
	options := analysis.DiffOptions{Alpha: c.Float64("alpha")}
	for flag, value := range map[string]*float64{"threshold": &options.Threshold, "min-share": &options.MinShare} {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(c.String(flag), "%"), 64)
		if err != nil || percent < 0 {
			return nil, usagef("--%s is %q, want a percentage", flag, c.String(flag))
		}
		*value = percent / 100
	}
	if options.Alpha <= 0 || options.Alpha >= 1 {
		return nil, usagef("--alpha is %v, want a probability between 0 and 1", options.Alpha)
	}
	found, err := findSides(args[0], args[1])
	if err != nil {
		return nil, err
	}
	var sides [2][]*analysis.Session
	for i, sessions := range found {
		for _, s := range sessions {
			session, err := analysis.ReadSession(c.Context, s, ledger.Session{}, nil)
			if err != nil {
				return nil, err
			}
			sides[i] = append(sides[i], session)
		}
	}
	diff, err := analysis.Compare(sides[0], sides[1], options)
	if err != nil {
		return nil, err
	}
	return diff, printAs(c, env.stdout, diff,
		func() error { return render.DiffCSV(env.stdout, diff) },
		func() error { return render.Diff(env.stdout, diff, options, max(0, c.Int("limit"))) })
}

// findSides finds the sessions before and after, none of which may be on both sides.
func findSides(before, after string) (sides [2][]*archive.Session, err error) {
	seen := map[string]int{} // the side of each, by the path of its folder
	for i, text := range []string{before, after} {
		sessions, err := findSessions(text)
		if err != nil {
			return sides, err
		}
		for _, s := range sessions {
			s.Dir, err = filepath.Abs(s.Dir)
			if err != nil {
				return sides, err
			}
			side, known := seen[s.Path("")]
			switch {
			case known && side != i:
				return sides, usagef("diff: session %s of %s is on both sides; name another with FOLDER@SESSION", s.ID(), s.Dir)
			case !known:
				sides[i] = append(sides[i], s)
			}
			seen[s.Path("")] = i
		}
	}
	return sides, nil
}

// findSessions finds the sessions that one side of a comparison names.
func findSessions(text string) (sessions []*archive.Session, err error) {
	words := strings.Split(text, ",")
	if exists(text) {
		words = []string{text} // whatever characters its name has
	}
	for _, word := range words {
		folder, name := word, ""
		if i := strings.LastIndex(word, "@"); i >= 0 && !exists(word) {
			folder, name = word[:i], word[i+1:]
		}
		folders := []string{folder}
		if strings.ContainsAny(folder, "*?[") && !exists(folder) {
			if folders, err = filepath.Glob(folder); err != nil {
				return nil, usagef("diff: %s: %w", word, err)
			}
			if len(folders) == 0 {
				return nil, fmt.Errorf("diff: no folder matches %s", folder)
			}
		}
		for _, folder := range folders {
			found, err := sessionsOf(folder, name)
			if err != nil {
				return nil, err
			}
			sessions = append(sessions, found...)
		}
	}
	return sessions, nil
}

// sessionsOf finds the session of a name in a folder, or all that have complete traces for "*".
func sessionsOf(folder, name string) ([]*archive.Session, error) {
	if name != "*" {
		session, err := archive.Find(folder, name)
		return []*archive.Session{session}, err
	}
	all, err := archive.Sessions(folder)
	if err != nil {
		return nil, err
	}
	var complete []*archive.Session
	for i := range all {
		if len(all[i].Traces) > 0 {
			complete = append(complete, &all[i])
		}
	}
	if len(complete) == 0 {
		_, err := archive.Find(folder, "") // says what it looked for
		return nil, err
	}
	return complete, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
