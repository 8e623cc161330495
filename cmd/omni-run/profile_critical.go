package main

import (
	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/render"
)

// profileCriticalPathCommand shows what end-to-end times were spent on.
func profileCriticalPathCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "critical-path",
		Usage:     "what the end-to-end time of requests was spent on, across stages",
		UsageText: "omni-run profile critical-path DIR [--request ID] [--limit N] [--session NAME] [--json|--csv]",
		Description: `Follows each request back from its result: a stage counts from the moment at which it had its last input, and before that
the stage that gave it. What stages did at the same time, ahead of the others, does not count: making it faster would
not have made the request faster. The parts sum up to the whole time. Compute is the time from a stage's first step to
its last; "in steps" says how much of it steps cover. Operators come from the traces.

CSV has a row per request and part.

Examples:
  omni-run profile critical-path ./profiles
  omni-run profile critical-path ./profiles --request request-7`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "request", Usage: "`ID` the only request to follow; default: all"},
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "`N` operators to list (10)"},
			sessionFlag(),
		}, formFlags()...),
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			_, session, err := readSession(c, env.stderr, args[0])
			if err != nil {
				return err
			}
			path, err := session.CriticalPath(c.String("request"))
			if err != nil {
				return err
			}
			return printAs(c, env.stdout, path,
				func() error { return render.CriticalPathCSV(env.stdout, path) },
				func() error { return render.CriticalPath(env.stdout, path, c.Int("limit")) })
		}),
	}
}
