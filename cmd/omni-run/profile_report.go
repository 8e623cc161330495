package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/render"
)

// timelineIntervals is how finely the page divides the time of a session.
const timelineIntervals = 200

// profileReportCommand makes a page about a session.
func profileReportCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "make a page with pictures and tables of a session",
		UsageText: "omni-run profile report DIR [-o FILE] [--top N] [--requests N] [--session NAME]",
		Description: `The page opens in any browser and needs nothing else: how busy stages were over time, what requests waited for, a
waterfall of the requests, and the operators of each stage. Its name goes to standard output; without -o it is
DIR/report/SESSION.html.

Examples:
  omni-run profile report ./profiles
  omni-run profile report ./profiles --session s2 -o s2.html`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write (-o)"},
			&cli.IntFlag{Name: "top", Value: 20, Usage: "`N` operators to list per stage (20)"},
			&cli.IntFlag{Name: "requests", Value: 50, Usage: "`N` requests to draw (50)"},
			sessionFlag(),
		},
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			return reportSession(c, env, args[0])
		}),
	}
}

func reportSession(c *cli.Context, env *environment, dir string) error {
	session, err := readSession(c, env.stderr, dir)
	if err != nil {
		return err
	}
	in := render.PageInput{
		Summary: session.Summarise(c.Int("top")), Timeline: session.Timeline(timelineIntervals), Limit: max(0, c.Int("requests")),
	}
	if path, err := session.CriticalPath(""); err == nil { // without completed requests the page has no such table
		in.Path = path
	}
	out := c.String("output")
	if out == "" {
		found, err := archive.Find(dir, session.ID)
		if err != nil {
			return err
		}
		out = found.Path("report", ".html")
	}
	if err := writeReport(out, func(w io.Writer) error { return render.Page(w, in) }); err != nil {
		return err
	}
	fmt.Fprintln(env.stdout, out)
	return nil
}
