// Command omni-run runs an any-to-any model from the command line.
//
// Without a subcommand it takes prompts, opens the model as a pipeline of worker processes, writes the text and the
// speech of every request to files, and records a profile of each stage if asked to. Subcommands serve the model over
// HTTP, load such a server, control and read profiles, make a random checkpoint to try it with and list the machine's
// GPUs; the table in app.go has them all.
//
// The command is a thin layer: packages pipeline, api and profiler do the work, this one reads flags and prompts, shows
// progress and writes results. What programs read goes to standard output, everything else to standard error. Actions return
// errors; main alone turns them into an exit code: 0 when all requests are done, 1 when some failed, 2 for a mistake
// in the command line, 130 after an interrupt that left something undone.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler/gpu"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// errRequestsFailed says that requests failed and that each has been reported.
var errRequestsFailed = errors.New("some requests failed")

// usageError is a mistake in the command line; nothing was started.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// codedError is an error of a command that gives its exit codes a meaning of their own.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func main() {
	os.Exit(execute(os.Args, func(ctx context.Context, cfg pipeline.Config) (engine, error) {
		return pipeline.Open(ctx, cfg)
	}))
}

// execute runs the command on this process's own streams and signals and returns the exit code.
func execute(args []string, open openFunc) int {
	ctx, stop := interruptible(context.Background())
	defer stop()
	err := newApp(&environment{
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		terminal: isTerminal(os.Stderr),
		getenv:   os.Getenv,
		open:     open,
		devices:  gpu.List,
	}).RunContext(ctx, dottedSettings(args))
	code := exitCode(ctx, err)
	report(os.Stderr, err, code)
	return code
}

// interruptible returns a context that SIGINT or SIGTERM ends. The second signal exits at once: the kernel ends the
// workers with their parent.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for range signals {
			if ctx.Err() != nil {
				fmt.Fprintln(os.Stderr, "omni-run: stopped at once; what was being written is not complete")
				os.Exit(exitInterrupted)
			}
			cancel(errInterrupted)
			fmt.Fprintln(os.Stderr, "\nstopping; interrupt again to stop at once")
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

func exitCode(ctx context.Context, err error) int {
	var usage *usageError
	var coded *codedError
	switch {
	case err == nil:
		return 0 // also of a server that was told to end
	case errors.Is(context.Cause(ctx), errInterrupted):
		return exitInterrupted
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailed
}

// report tells a person why the command ended, if that is not plain from what was printed before.
func report(w io.Writer, err error, code int) {
	var usage *usageError
	switch {
	case code == exitInterrupted && (errors.Is(err, errRequestsFailed) || errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled)):
		fmt.Fprintln(w, "omni-run: interrupted")
	case code == exitInterrupted:
		fmt.Fprintf(w, "omni-run: interrupted: %v\n", err)
	case err == nil || errors.Is(err, errRequestsFailed):
	case errors.As(err, &usage):
		fmt.Fprintf(w, "omni-run: %v\nomni-run --help shows the flags, with examples\n", err)
	default:
		fmt.Fprintf(w, "omni-run: %v\n", err)
	}
}
