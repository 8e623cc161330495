package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/repair"
)

// profileRepairCommand completes traces whose writers were killed.
func profileRepairCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "complete the traces of workers that were killed",
		UsageText: "omni-run profile repair DIR|FILE.tmp [--force]",
		Description: `A worker that is killed leaves its trace unfinished, with the suffix .tmp. The command keeps all whole events, closes the
trace and gives it its name, which goes to standard output. In a folder it repairs all that it finds. Then it makes the
merged trace and the page of each session again, with what it has repaired. Files that were written to in the last seconds
are left alone, unless --force says that nobody writes them any more.

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
	dir := path
	if !info.IsDir() {
		dir = filepath.Dir(path)
	}
	sessions, err := archive.Sessions(dir)
	if err != nil {
		return err
	}
	found := false
	var errs []error
	for i := range sessions {
		s := &sessions[i]
		unfinished := s.Unfinished
		if !info.IsDir() {
			unfinished = slices.DeleteFunc(unfinished, func(file string) bool { return file != filepath.Clean(path) })
		}
		found = found || len(unfinished) > 0
		errs = append(errs, repairSession(c, env, s, unfinished))
	}
	switch {
	case found:
	case info.IsDir():
		fmt.Fprintf(env.stderr, "there is nothing to repair in %s\n", path)
	default: // its name is not that of a session's trace
		_, err := repairTrace(c, env, path)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// repairSession completes the unfinished traces of a session and makes its pictures again.
func repairSession(c *cli.Context, env *environment, s *archive.Session, unfinished []string) error {
	var errs []error
	repaired := false
	for _, file := range unfinished {
		done, err := repairTrace(c, env, file)
		repaired = repaired || done
		errs = append(errs, err)
	}
	if !repaired {
		return errors.Join(errs...)
	}
	made, err := picture.Make(c.Context, s.Dir, s.ID())
	for _, f := range made.Files {
		fmt.Fprintf(env.stderr, "  made again: %s\n", f.Path)
	}
	return errors.Join(append(errs, err)...)
}

// repairTrace completes one trace and reports whether it could.
func repairTrace(c *cli.Context, env *environment, unfinished string) (bool, error) {
	quiet := repair.Quiet
	if c.Bool("force") {
		quiet = time.Duration(0)
	}
	result, err := repair.Trace(c.Context, unfinished, quiet)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(env.stderr, "  kept %d events\n", result.Events)
	fmt.Fprintln(env.stdout, result.Path)
	return true, nil
}
