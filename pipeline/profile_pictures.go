package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/picture"
)

const (
	busyPoll     = 20 * time.Millisecond // how often a process that makes pictures may be told whether requests run
	pictureGrace = 2 * time.Second       // what it has to remove what is half written when nobody wants it any more
)

// makePictures makes the merged trace and the page in every directory of the session that wants them.
func (o *Omni) makePictures(ctx context.Context, s *profileSession) *ProfilePictures {
	made := &ProfilePictures{Result: picture.Result{Files: []picture.File{}, Missing: []string{}}}
	var faults []error
	for _, dir := range s.dirs(func(c profiler.Config) bool { return c.MergeProfiles }) {
		if ctx.Err() != nil {
			break // the pipeline closes; a command can make them later
		}
		if !o.profile.hasTraces(s, dir) {
			continue // the reports of the workers say why
		}
		result, err := o.makeApart(ctx, dir, fmt.Sprintf("%s.%d", s.name, s.stampNS))
		made.Files = append(made.Files, result.Files...)
		made.Missing = append(made.Missing, result.Missing...)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		made.Error = err.Error()
	}
	return made
}

// hasTraces reports whether any worker of the session has left a trace in dir. The workers are done with it.
func (p *profileState) hasTraces(s *profileSession, dir string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(s.taps, func(t *tap) bool {
		return slices.ContainsFunc(t.final.Files, func(f profiler.File) bool { return f.Kind == "trace" && filepath.Dir(f.Path) == dir })
	})
}

// dirs lists the profile directories of the session's stages whose configuration passes want.
func (s *profileSession) dirs(want func(profiler.Config) bool) []string {
	var dirs []string
	for _, t := range s.taps {
		if dir := t.start.Config.TorchProfilerDir; dir != "" && want(t.start.Config) {
			dirs = append(dirs, filepath.Clean(dir))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// makeApart makes the pictures of a session in a process of its own. They are much work for one moment, and nobody's
// request may become slower by it: in this process the work would share locks, pauses and priorities with what serves them.
func (o *Omni) makeApart(ctx context.Context, dir, id string) (result picture.Result, err error) {
	var out bytes.Buffer
	words := &tail{}
	cmd := exec.CommandContext(ctx, o.spawner.path, picture.Command, dir, id)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = workerEnv(1, o.spawner.env), &out, words, pictureGrace
	in, err := cmd.StdinPipe()
	if err != nil {
		return result, fmt.Errorf("make pictures: %w", err)
	}
	cmd.Cancel = in.Close
	if err := o.spawner.start(cmd); err != nil {
		return result, fmt.Errorf("make pictures: start %s: %w", o.spawner.path, err)
	}
	ended, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		o.tellBusy(in, ended)
	}()
	err = cmd.Wait()
	close(ended)
	<-told
	if ctx.Err() != nil {
		return result, context.Cause(ctx)
	}
	code := cmd.ProcessState.ExitCode()
	if fault := json.Unmarshal(out.Bytes(), &result); fault != nil || code != 0 && code != 1 {
		return result, fmt.Errorf("make pictures: %s; it printed %q and %q", endOf(err), out.String(), words.words())
	}
	if err != nil {
		err = errors.New(words.words())
	}
	return result, err
}

// tellBusy tells a process that makes pictures whether requests run, until it has ended.
func (o *Omni) tellBusy(in io.Writer, ended <-chan struct{}) {
	poll := time.NewTicker(busyPoll)
	defer poll.Stop()
	for said := byte(0); ; {
		word := picture.Free
		if len(o.gate) > 0 {
			word = picture.Busy
		}
		if word != said {
			if _, err := in.Write([]byte{word}); err != nil {
				return // it has ended
			}
			said = word
		}
		select {
		case <-poll.C:
		case <-ended:
			return
		}
	}
}
