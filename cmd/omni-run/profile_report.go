package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/picture"
)

// profileReportCommand makes a page about a session.
func profileReportCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "make a page with pictures and tables of a session",
		UsageText: "omni-run profile report DIR [-o FILE] [--top N] [--requests N] [--session NAME]",
		Description: `The page opens in any browser and needs nothing else: how busy stages were over time, what requests waited for, a
waterfall of the requests, and the operators of each stage. Its name goes to standard output; without -o it is
DIR/SESSION/report.html, which a session leaves by itself unless merge_profiles is off.

Examples:
  omni-run profile report ./profiles
  omni-run profile report ./profiles --session s2 -o s2.html`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write (-o)"},
			&cli.IntFlag{Name: "top", Value: picture.DefaultPage().Top, Usage: "`N` operators to list per stage (25)"},
			&cli.IntFlag{Name: "requests", Value: picture.DefaultPage().Requests, Usage: "`N` requests to draw (50)"},
			sessionFlag(),
		},
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			return reportSession(c, env, args[0])
		}),
	}
}

func reportSession(c *cli.Context, env *environment, dir string) error {
	source, session, err := readSession(c, env.stderr, dir)
	if err != nil {
		return err
	}
	out := outputPath(c, source, archive.ReportName)
	if err := picture.Page(session, out, picture.PageOptions{Top: c.Int("top"), Requests: c.Int("requests")}); err != nil {
		return err
	}
	fmt.Fprintln(env.stdout, out)
	return nil
}
