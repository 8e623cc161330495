package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/gpu"
)

// environment is everything outside the command that it reads or writes, so that tests can stand in for it.
type environment struct {
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	terminal bool // stderr is a terminal: progress is shown as bars
	getenv   func(string) string
	open     openFunc
	devices  func() (gpu.Machine, error)
}

// openFunc opens a pipeline.
type openFunc func(context.Context, pipeline.Config) (engine, error)

// engine is the part of *pipeline.Omni that the command uses.
type engine interface {
	Generate(context.Context, pipeline.Request) (*pipeline.Response, error)
	StartProfile(stages []int) (*pipeline.ProfileReport, error)
	StopProfile(stages []int) (*pipeline.ProfileReport, error)
	ProfileConfigs() map[int]profiler.Config
	api.Engine
	api.Profiler
	flightRecorder
	Close() error
}

// command makes a subcommand; the table in newApp lists them all.
type command func(*environment) *cli.Command

func newApp(env *environment) *cli.App {
	commands := []command{
		serveCommand,
		benchCommand,
		makeCheckpointCommand,
		devicesCommand,
		profileCommand,
	}
	app := &cli.App{
		Name:                      "omni-run",
		Version:                   version(),
		Flags:                     generateFlags(),
		Action:                    generateAction(env),
		Reader:                    env.stdin,
		Writer:                    env.stdout,
		ErrWriter:                 env.stderr,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		OnUsageError:              onUsageError,
		// Errors go back to the caller: only main exits.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	for _, make := range commands {
		c := make(env)
		c.OnUsageError = onUsageError
		c.CustomHelpTemplate = commandHelpText(c)
		app.Commands = append(app.Commands, c)
	}
	app.CustomAppHelpTemplate = appHelpText(app.Flags, app.Commands)
	return app
}

// version is that of the program's module, as the build noted it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return &usageError{err} }

func isTerminal(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }
