package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/omni-run/omni/pipeline"
)

// dumpSignal is the signal that has the flight recorders dumped.
const dumpSignal = syscall.SIGUSR2

// flightRecorder is the part of *pipeline.Omni that dumps.
type flightRecorder interface {
	DumpProfile(ctx context.Context) (*pipeline.ProfileReport, error)
	WaitProfile(ctx context.Context, session string) (*pipeline.ProfileReport, error)
}

// dumpOnSignal makes a profile session of what the flight recorders hold whenever dumpSignal comes, and tells what came of
// it when its files are complete. The function that it returns ends that and waits for the dump that is under way; ctx
// ends the wait, and calling it again does nothing. Without flight recorders the signal is answered with the error that says so: it must not end the process.
func dumpOnSignal(ctx context.Context, omni flightRecorder, tell func(*pipeline.ProfileReport, error)) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, dumpSignal)
	var running sync.WaitGroup
	running.Go(func() {
		for range signals {
			report, err := omni.DumpProfile(ctx)
			if err == nil {
				report, err = omni.WaitProfile(ctx, report.Session)
			}
			tell(report, err)
		}
	})
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(signals)
		running.Wait()
	})
}
