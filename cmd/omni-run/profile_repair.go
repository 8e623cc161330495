package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/repair"
)

// profileRepairCommand completes traces whose writers were killed.
func profileRepairCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "complete the traces of workers that were killed",
		UsageText: "omni-run profile repair DIR|FILE.tmp [--force]",
		Description: `A worker that is killed leaves its trace unfinished, with the suffix .tmp. The command keeps all whole events, closes the
trace and gives it its name, which goes to standard output. In a folder it repairs all that it finds. Files that were
written to in the last seconds are left alone, unless --force says that nobody writes them any more.

Examples:
  omni-run profile repair ./profiles
  omni-run profile repair ./profiles/stage-0_s1.1771924633000000000.pt.trace.json.gz.tmp --force`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "also files that were written to a moment ago"}},
		Action: withArguments(1, "a folder or an unfinished trace", func(c *cli.Context, args []string) error {
			return repairTraces(c, env, args[0])
		}),
	}
}

func repairTraces(c *cli.Context, env *environment, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	unfinished := []string{path}
	if info.IsDir() {
		sessions, err := archive.Sessions(path)
		if err != nil {
			return err
		}
		unfinished = nil
		for _, s := range sessions {
			unfinished = append(unfinished, s.Unfinished...)
		}
		if len(unfinished) == 0 {
			fmt.Fprintf(env.stderr, "there is nothing to repair in %s\n", path)
		}
	}
	quiet := repair.Quiet
	if c.Bool("force") {
		quiet = 0
	}
	var errs []error
	for _, file := range unfinished {
		result, err := repair.Trace(c.Context, file, quiet)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(env.stderr, "  kept %d events\n", result.Events)
		fmt.Fprintln(env.stdout, result.Path)
	}
	return errors.Join(errs...)
}
