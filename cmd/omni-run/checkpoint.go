package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/pipeline/checkpoint/random"
)

// makeCheckpointCommand writes a random checkpoint in the layout of a released one.
func makeCheckpointCommand(env *environment) *cli.Command {
	families := random.Families()
	var presets []string
	for _, family := range families {
		presets = append(presets, fmt.Sprintf("%s has %s", family, strings.Join(random.Presets(family), ", ")))
	}
	return &cli.Command{
		Name:      "make-checkpoint",
		Usage:     "write a checkpoint with random weights, to try omni-run without a download",
		UsageText: "omni-run make-checkpoint --out DIR [--family NAME] [--preset NAME] [--seed N]",
		Description: `The folder has every file of a released checkpoint: configuration, weights, tokenizer, chat template, speakers.
Its weights are random, so the model talks noise; the shapes, and with preset small the speed, are real. The same
family, preset and seed give the same bytes. A folder that holds anything else than an earlier checkpoint of this
command is left alone.

Presets: ` + strings.Join(presets, "; ") + `.

Examples:
  omni-run make-checkpoint --preset tiny --seed 1 --out ./checkpoint
  omni-run make-checkpoint --preset small --dtype bfloat16 --shards 3 --out ./small`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`DIR` folder to write"},
			&cli.StringFlag{Name: "family", Value: families[0], Usage: "`NAME` model family: " + strings.Join(families, ", ")},
			&cli.StringFlag{Name: "preset", Value: "tiny", Usage: "`NAME` size (tiny), see above"},
			&cli.Uint64Flag{Name: "seed", Usage: "`N` other seeds give other weights (0)"},
			&cli.StringFlag{Name: "dtype", Usage: "`TYPE` float32, float16 or bfloat16; default: the preset's"},
			&cli.IntFlag{Name: "shards", Usage: "`N` number of weights files; default: the preset's"},
			&cli.IntFlag{Name: "spelling", Usage: "`N` write config.json in the words of transformers 4 or 5; default: the preset's"},
		},
		Action: func(c *cli.Context) error { return makeCheckpoint(c, env) },
	}
}

func makeCheckpoint(c *cli.Context, env *environment) error {
	if c.NArg() > 0 {
		return usagef("unexpected argument %q", c.Args().First())
	}
	out := c.String("out")
	if out == "" {
		return usagef("--out is missing: want the folder to write")
	}
	options := random.Options{
		Family: c.String("family"), Preset: c.String("preset"), Seed: c.Uint64("seed"),
		Spelling: random.Spelling(c.Int("spelling")), Shards: c.Int("shards"), DType: c.String("dtype"),
	}
	if env.terminal {
		bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(env.stderr),
			progressbar.OptionSetDescription("writing"), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish())
		options.Progress = func(done, total int64) {
			bar.ChangeMax64(total)
			_ = bar.Set64(done) // a bar that cannot be drawn is no reason to stop
		}
	}
	summary, err := random.Write(c.Context, out, options)
	if errors.Is(err, random.ErrUnknown) {
		return &usageError{err}
	}
	if err != nil {
		return fmt.Errorf("make checkpoint: %w", err)
	}
	fmt.Fprintf(env.stderr, "wrote a random %s checkpoint (%s, seed %d): %d tensors, %d parameters, %s\n", summary.Options.Family,
		summary.Options.Preset, summary.Options.Seed, summary.Tensors, summary.Parameters, size(summary.Bytes))
	fmt.Fprintln(env.stdout, summary.Dir)
	return nil
}
