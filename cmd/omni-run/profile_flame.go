package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/render"
)

// profileFlameCommand draws the call trees.
func profileFlameCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "flame",
		Usage:     "draw what called what, and how long it took",
		UsageText: "omni-run profile flame DIR [-o FILE] [--stage N] [--session NAME] [--folded|--json|--csv]",
		Description: `Writes a page with a flame graph that opens in any browser and needs nothing else. Its name goes to standard output;
without -o it is DIR/SESSION/flame.html. The other forms go to standard output: folded stacks (names from the
outermost to the innermost, self time in microseconds) for flame graph tools, or the call tree as JSON or CSV.

Examples:
  omni-run profile flame ./profiles
  omni-run profile flame ./profiles --stage 2 --folded > code2wav.folded`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write (-o)"},
			&cli.IntFlag{Name: "stage", Value: -1, Usage: "`N` the only stage to draw; default: all"},
			&cli.BoolFlag{Name: "folded", Usage: "print folded stacks"},
			sessionFlag(),
		}, formFlags()...),
		Action: withArguments(1, "the folder of the profile", func(c *cli.Context, args []string) error {
			return flameProfile(c, env, args[0])
		}),
	}
}

func flameProfile(c *cli.Context, env *environment, dir string) error {
	source, session, err := readSession(c, env.stderr, dir)
	if err != nil {
		return err
	}
	root := session.Flame(c.Int("stage"))
	if len(root.Children) == 0 {
		return usagef("flame: session %s has no trace of stage %d", session.ID, c.Int("stage"))
	}
	if c.Bool("folded") {
		return render.Folded(env.stdout, root)
	}
	return printAs(c, env.stdout, root, func() error { return render.FlameCSV(env.stdout, root) }, func() error {
		path := outputPath(c, source, archive.FlameName)
		if err := picture.Write(path, func(w io.Writer) error { return render.FlameHTML(w, root) }); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, path)
		return nil
	})
}
