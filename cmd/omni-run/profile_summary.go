package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/analysis"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/render"
)

// formFlags choose another form of output than text.
func formFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		&cli.BoolFlag{Name: "csv", Usage: "print CSV"},
	}
}

// printAs writes a result in the form that was asked for.
func printAs(c *cli.Context, w io.Writer, value any, csv, text func() error) error {
	switch {
	case c.Bool("json") && c.Bool("csv"):
		return usagef("%s: --json and --csv exclude each other", c.Command.Name)
	case c.Bool("json"):
		lines := json.NewEncoder(w)
		lines.SetIndent("", "  ")
		return lines.Encode(value)
	case c.Bool("csv"):
		return csv()
	}
	return text()
}

// readSession reads the traces of a session that openSession has found.
func readSession(c *cli.Context, stderr io.Writer, dir string) (*picture.Source, *analysis.Session, error) {
	source, err := openSession(c, stderr, dir)
	if err != nil {
		return nil, nil, err
	}
	session, err := source.Analyse(c.Context)
	if err != nil {
		return nil, nil, err
	}
	for _, what := range session.Missing {
		fmt.Fprintf(stderr, "missing: %s\n", what)
	}
	return source, session, nil
}

// profileSummaryCommand shows what stages and requests did with their time.
func profileSummaryCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "summary",
		Usage:     "what the stages did with their time, and what requests waited for",
		UsageText: "omni-run profile summary DIR [--top N] [--requests N] [--session NAME] [--json|--csv]",
		Description: `A stage is busy in its steps, waiting while requests are in it and no step runs, and idle without requests. Operators are
listed by self time: the time in them and not in what they called. A request has a line per stage:

  - transfer: on its way to or from the stage's process
  . wait: the stage lacks input for it
  : queue: it could be worked on
  # compute: from its first step to its last

CSV has a row per stage.

Examples:
  omni-run profile summary ./profiles
  omni-run profile summary ./profiles --json | jq '.stages[] | {worker, busy_ms}'`,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "top", Value: 5, Usage: "`N` operators to list per stage (5)"},
			&cli.IntFlag{Name: "requests", Value: 10, Usage: "`N` requests to draw (10)"},
			sessionFlag(),
		}, formFlags()...),
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			_, session, err := readSession(c, env.stderr, args[0])
			if err != nil {
				return err
			}
			summary := session.Summarise(c.Int("top"))
			return printAs(c, env.stdout, summary,
				func() error { return render.SummaryCSV(env.stdout, summary) },
				func() error { return render.Summary(env.stdout, summary, max(0, c.Int("requests"))) })
		}),
	}
}

// profileTopCommand lists operators.
func profileTopCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "the operators that took the most time, stage by stage",
		UsageText: "omni-run profile top DIR [--stage N] [--by self|total|calls|device] [--limit N] [--session NAME] [--json|--csv]",
		Description: `Self is the time in an operator itself, total includes what it called. Shares refer to the time that the stage was busy.
What a GPU did has a table of its own, and a column that says for which operator.

Examples:
  omni-run profile top ./profiles --stage 0 --limit 20
  omni-run profile top ./profiles --annotations --by total`,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "stage", Value: -1, Usage: "`N` the only stage to list; default: all"},
			&cli.StringFlag{Name: "by", Value: string(analysis.BySelf), Usage: "`ORDER` self (the default), total, calls or device"},
			&cli.IntFlag{Name: "limit", Value: 15, Usage: "`N` operators per stage (15), 0 for all"},
			&cli.BoolFlag{Name: "annotations", Usage: "list steps and modules as well"},
			sessionFlag(),
		}, formFlags()...),
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			_, session, err := readSession(c, env.stderr, args[0])
			if err != nil {
				return err
			}
			workers, err := session.Top(analysis.TopOptions{
				By: analysis.Order(c.String("by")), Limit: c.Int("limit"), Stage: c.Int("stage"), Annotations: c.Bool("annotations"),
			})
			if err != nil {
				return &usageError{fmt.Errorf("top: %w", err)}
			}
			return printAs(c, env.stdout, workers,
				func() error { return render.OpsCSV(env.stdout, workers) },
				func() error {
					for i, w := range workers {
						if i > 0 {
							fmt.Fprintln(env.stdout)
						}
						fmt.Fprintf(env.stdout, "%s\n", w.Worker)
						if err := render.Ops(env.stdout, w.Ops, w.BusyNS); err != nil {
							return err
						}
						if len(w.DeviceOps) == 0 {
							continue
						}
						fmt.Fprintf(env.stdout, "\n%s, on the GPU\n", w.Worker)
						if err := render.DeviceOps(env.stdout, w.DeviceOps, w.DeviceNS); err != nil {
							return err
						}
					}
					return nil
				})
		}),
	}
}
