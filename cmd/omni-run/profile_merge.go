package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/archive"
)

// profileMergeCommand makes one trace of a session's traces.
func profileMergeCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "merge",
		Usage:     "make one trace of a session's traces, with its requests",
		UsageText: "omni-run profile merge DIR [-o FILE] [--session NAME] [--json]",
		Description: `The merged trace has a process per worker on one clock, a track of requests divided by what they waited for, and arrows
from stage to stage. It needs little memory however long the traces are. Its name goes to standard output; without -o
it is DIR/SESSION/merged.trace.json.gz, away from the traces, so that analysers of DIR do not take it for another
worker. A session leaves it by itself unless merge_profiles is off.

Examples:
  omni-run profile merge ./profiles
  omni-run profile merge ./profiles --session s2 -o all.json.gz`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write (-o), compressed if it ends in .gz"},
			sessionFlag(),
			&cli.BoolFlag{Name: "json", Usage: "say what was merged as JSON"},
		},
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			return mergeProfile(c, env, args[0])
		}),
	}
}

func mergeProfile(c *cli.Context, env *environment, dir string) error {
	session, err := openSession(c, env.stderr, dir)
	if err != nil {
		return err
	}
	path := outputPath(c, session, archive.MergedName)
	result, err := session.Merge(c.Context, path)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		lines := json.NewEncoder(env.stdout)
		lines.SetIndent("", "  ")
		return lines.Encode(result)
	}
	for _, s := range result.Sources {
		fmt.Fprintf(env.stderr, "  %-20s %9d events  %s\n", s.Worker, s.Events, s.Path)
	}
	for _, what := range result.Missing {
		fmt.Fprintf(env.stderr, "  missing: %s\n", what)
	}
	written := int64(0)
	if info, err := os.Stat(path); err == nil {
		written = info.Size()
	}
	fmt.Fprintf(env.stderr, "  %d events, %d requests, %d arrows between stages, %s; open it in https://ui.perfetto.dev\n",
		result.Events, result.Requests, result.Arrows, size(written))
	fmt.Fprintln(env.stdout, path)
	return nil
}
