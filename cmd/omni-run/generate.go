package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
)

// generateAction is what omni-run does without a subcommand.
func generateAction(env *environment) cli.ActionFunc {
	return func(c *cli.Context) error {
		options, err := readOptions(c, env)
		if err != nil {
			return err
		}
		folder, err := newOutputFolder(options.outputDir, options.requests)
		if err != nil {
			return err
		}
		if dir := options.pipeline.Profiler.TorchProfilerDir; dir != "" {
			if err := makeWritable("--profile-dir", dir); err != nil {
				return err
			}
		}
		run := &run{env: env, options: options, folder: folder, progress: newProgress(env.stderr, env.terminal)}
		return run.do(c.Context)
	}
}

// run is one execution of the default action.
type run struct {
	env      *environment
	options  *options
	folder   *outputFolder
	progress *progress
	told     string                  // the profile session whose files were listed last
	profiles map[int]profiler.Config // of the stages that are profiled
}

// do opens the pipeline, runs all requests in it and reports. Whatever happens, with --format json standard output
// gets its object, in which every request has its result or its error.
func (r *run) do(ctx context.Context) error {
	results, profile, err := r.inPipeline(ctx)
	if results == nil {
		for _, request := range r.options.requests {
			results = append(results, failure(request, nil, err))
		}
	}
	if r.options.logStats {
		printStats(r.env.stderr, results)
	}
	if r.options.format == "json" {
		err = errors.Join(err, printJSON(r.env.stdout, output{Requests: results, Profile: profile}))
	}
	if err != nil {
		return err
	}
	for _, result := range results {
		if result.Error != nil {
			return errRequestsFailed
		}
	}
	return nil
}

// inPipeline returns nil results if no request could be started.
func (r *run) inPipeline(ctx context.Context) (results []result, profile *profileOutput, err error) {
	config := r.options.pipeline
	config.Progress = r.progress.loading
	omni, err := r.env.open(ctx, config)
	if err != nil {
		r.progress.stop()
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, omni.Close()) }()
	r.progress.loaded()
	r.profiles = omni.ProfileConfigs()

	endDumps := dumpOnSignal(ctx, omni, func(report *pipeline.ProfileReport, err error) {
		if err != nil {
			r.progress.say("%v", err)
			return
		}
		r.reportProfile(report, nil)
	})
	defer endDumps()
	if r.records() {
		if _, err := omni.StartProfile(r.options.profileStages); err != nil {
			if errors.Is(err, pipeline.ErrUnknownStage) {
				return nil, nil, usagef("--profile-stages: %w", err)
			}
			return nil, nil, err
		}
	}
	results = r.all(ctx, omni)
	endDumps()
	if len(r.profiles) == 0 {
		return results, nil, nil
	}
	r.progress.writing()
	report, err := r.endProfile(ctx, omni)
	if r.records() {
		err = errors.Join(err, incomplete(report))
	}
	r.progress.stop()
	if report == nil && err == nil {
		return results, nil, nil
	}
	return results, r.reportProfile(report, err), err
}

// records reports whether the requests are recorded by a session. With flight recorders they are not: what those hold is
// written when it is asked for, or when a request is slow.
func (r *run) records() bool {
	return len(r.profiles) > 0 && !r.profilesHave(func(c profiler.Config) bool { return c.RingSeconds > 0 })
}

// profilesHave reports whether the configuration of any stage passes.
func (r *run) profilesHave(passes func(profiler.Config) bool) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(r.profiles)), passes)
}

// endProfile ends the session and waits for its files; of flight recorders it returns the last dump, nil without one. Who
// has interrupted the command does not wait for the pictures: that they are missing is an error.
func (r *run) endProfile(ctx context.Context, omni engine) (*pipeline.ProfileReport, error) {
	var stopped *pipeline.ProfileReport
	session := ""
	if r.records() {
		var err error
		if stopped, err = omni.StopProfile(nil); err != nil {
			return nil, err
		}
		session = stopped.Session
	}
	report, err := omni.WaitProfile(ctx, session)
	switch {
	case ctx.Err() != nil:
		return stopped, r.withoutPictures(stopped)
	case err != nil || report.Session == "":
		return nil, err
	}
	return report, nil
}

// withoutPictures is the error of a session whose files are there and whose pictures were not waited for, nil if there were
// to be none. stopped may be nil.
func (r *run) withoutPictures(stopped *pipeline.ProfileReport) error {
	if stopped == nil || len(stopped.Files) == 0 || !r.profilesHave(func(c profiler.Config) bool { return c.MergeProfiles }) {
		return nil
	}
	return fmt.Errorf("the merged trace and the page of session %s were not waited for: omni-run profile merge %s makes the one, omni-run profile report %[2]s the other",
		stopped.Session, profileFolder(stopped))
}

// all runs every request at once (the pipeline holds back what exceeds its limit) and returns the results in the
// order of the requests. Files are written as each request ends; texts are printed in order.
func (r *run) all(ctx context.Context, omni engine) []result {
	requests := r.options.requests
	results := make([]result, len(requests))
	ended := make([]chan struct{}, len(requests))
	var running sync.WaitGroup
	r.progress.generating(len(requests))
	for i := range requests {
		ended[i] = make(chan struct{})
		running.Go(func() {
			defer close(ended[i])
			results[i] = r.one(ctx, omni, requests[i])
		})
	}
	var printing error
	for i := range requests {
		<-ended[i]
		if r.options.format == "text" && printing == nil {
			printing = printText(r.env.stdout, results[i], len(requests) > 1)
		}
		if printing != nil && results[i].Error == nil {
			results[i] = failure(requests[i], results[i].Response, printing)
		}
	}
	running.Wait()
	r.progress.stop()
	return results
}

// one runs a request and writes its files. It asks for the whole result at once: a request of which nothing has been
// shown is run again when a worker dies.
func (r *run) one(ctx context.Context, omni engine, request pipeline.Request) result {
	response, err := omni.Generate(ctx, request)
	var paths []string
	if err == nil {
		if paths, err = r.folder.write(request, response); err != nil {
			err = fmt.Errorf("request %q: %w", request.ID, err)
		}
	}
	outcome := result{Response: response}
	if err != nil {
		outcome = failure(request, response, err)
	}
	r.progress.finished(outcome, paths)
	return outcome
}
