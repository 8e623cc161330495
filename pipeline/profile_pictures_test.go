package pipeline_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/picture"
)

// pictured opens a pipeline whose pictures are made by a line of shell.
func pictured(t *testing.T, line string, scripts map[string]pipelinetest.Script) (o *pipeline.Omni, profiles string) {
	t.Helper()
	cfg := pipelinetest.Config(t, scripts)
	profiles = t.TempDir()
	cfg.Profiler = profiler.FromDir(profiles)
	program := filepath.Join(t.TempDir(), "worker")
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = %s ]; then\n%s\nfi\nexec '%s' \"$@\"\n", picture.Command, line, cfg.WorkerPath)
	require.NoError(t, os.WriteFile(program, []byte(text), 0o755))
	cfg.WorkerPath = program
	return pipelinetest.Open(t, cfg), profiles
}

// A session whose pictures cannot be made is complete, says why, and they can be made later.
func TestPicturesThatCannotBeMade(t *testing.T) {
	for name, test := range map[string]struct{ line, want string }{
		"killed":      {"kill -9 $$", "the process was killed by signal 9 (killed)"},
		"says why":    {`echo '{"files": [], "missing": []}'; echo the disk is full >&2; exit 1`, "the disk is full"},
		"nonsense":    {"echo nonsense; exit 0", `the process ended by itself with status 0; it printed "nonsense\n"`},
		"killed late": {`echo '{}'; kill -9 $$`, `the process was killed by signal 9 (killed); it printed "{}\n"`},
		"crash":       {`echo '{}'; echo "panic: out of luck" >&2; exit 2`, `the process ended with status 2; it printed "{}\n" and "panic: out of luck"`},
		"not there":   {`rm "$0"; echo gone >&2; exit 1`, `gone`},
	} {
		t.Run(name, func(t *testing.T) {
			o, profiles := pictured(t, test.line, nil)
			report := recordOne(t, o)
			require.True(t, report.Complete)
			require.Contains(t, report.Pictures.Error, test.want)
			require.Empty(t, report.Pictures.Files)
			made, err := picture.Make(t.Context(), profiles, report.ID)
			require.NoError(t, err)
			require.Len(t, made.Files, 2)
		})
	}
}

// A process that goes on making pictures when the pipeline closes is killed after a while.
func TestCloseDoesNotWaitForPicturesForLong(t *testing.T) {
	begun := filepath.Join(t.TempDir(), "begun")
	o, _ := pictured(t, "echo $$ > '"+begun+"'; exec sleep 1000", nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	generate(t, o, "one")
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := os.Stat(begun); return err == nil }, 30*time.Second, time.Millisecond)
	require.NoError(t, o.Close())
}

// Who makes pictures hears whether requests run: first what holds at the beginning, then every change.
func TestPicturesAreMadeBesideRequests(t *testing.T) {
	heard := filepath.Join(t.TempDir(), "heard")
	slow := pipelinetest.Script{Step: 20 * time.Millisecond}
	o, _ := pictured(t, `dd bs=1 count=2 of='`+heard+`' 2>/dev/null; echo '{"files": [], "missing": []}'; exit 0`,
		map[string]pipelinetest.Script{pipelinetest.Thinker: slow})
	_, err := o.StartProfile([]int{0})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := o.Generate(ctx, pipeline.Request{ID: "one", Prompt: "hello", MaxTokens: 10_000})
		asked <- err
	}()
	require.Eventually(t, func() bool {
		report, err := o.ProfileStatus()
		return err == nil && report.Workers[0].Steps > 0
	}, 30*time.Second, time.Millisecond)
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool { text, _ := os.ReadFile(heard); return string(text) == string(picture.Busy) }, 30*time.Second, time.Millisecond)
	cancel()
	require.Error(t, <-asked)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, report.Pictures.Error)
	text, err := os.ReadFile(heard)
	require.NoError(t, err)
	require.Equal(t, string([]byte{picture.Busy, picture.Free}), string(text))
}
