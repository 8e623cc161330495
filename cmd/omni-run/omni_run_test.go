package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/gpu"
	"github.com/omni-run/omni/profiler/picture"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "go test ./cmd/omni-run -update rewrites %s", path)
}

// outcome is what a person or a program sees of one run of the command.
type outcome struct {
	code           int
	stdout, stderr string
}

// object decodes standard output.
func (o outcome) object(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	require.NoError(t, json.Unmarshal([]byte(o.stdout), &object), o.stdout)
	return object
}

// runCommand runs the command as main does, with omni in place of a pipeline.
func runCommand(t *testing.T, omni *fakeOmni, stdin string, args ...string) outcome {
	t.Helper()
	return runCommandIn(context.Background(), omni, stdin, args...)
}

func runCommandIn(ctx context.Context, omni *fakeOmni, stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	env := &environment{
		stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr,
		getenv: func(name string) string { return omni.variables[name] },
		open: func(_ context.Context, config pipeline.Config) (engine, error) {
			omni.config = config
			if omni.openError != nil {
				return nil, omni.openError
			}
			config.Progress(pipeline.Progress{Stage: 0, Name: "thinker", Done: 0, Total: 2000})
			config.Progress(pipeline.Progress{Stage: 0, Name: "thinker", Done: 2000, Total: 2000, Ready: true})
			return omni, nil
		},
		devices: func() (gpu.Machine, error) { return omni.devices, nil },
	}
	err := newApp(env).RunContext(ctx, dottedSettings(append([]string{"omni-run"}, args...)))
	code := exitCode(ctx, err)
	report(&stderr, err, code)
	return outcome{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

// fakeOmni answers every prompt with its own text in upper case and a sample per character.
type fakeOmni struct {
	engine // what no test asks for

	openError    error
	requestError map[string]error // by request id
	stopError    error
	onGenerate   func(pipeline.Request)
	devices      gpu.Machine
	variables    map[string]string // the environment

	config pipeline.Config

	mu       sync.Mutex // guards what follows
	requests []pipeline.Request
	calls    []string
	stages   []int // of StartProfile
	dumped   bool
}

func (f *fakeOmni) call(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
}

func (f *fakeOmni) Generate(ctx context.Context, request pipeline.Request) (*pipeline.Response, error) {
	f.mu.Lock()
	f.requests = append(f.requests, request)
	f.mu.Unlock()
	if f.onGenerate != nil {
		f.onGenerate(request)
	}
	if err := errors.Join(f.requestError[request.ID], ctx.Err()); err != nil {
		return nil, err
	}
	return answer(request), nil
}

func answer(request pipeline.Request) *pipeline.Response {
	first, rtf := 12.5, 0.5
	response := &pipeline.Response{
		RequestID: request.ID, Prompt: request.Prompt, RenderedPrompt: "<user>" + request.Prompt,
		PromptTokenIDs: []int64{1, 2}, TokenIDs: []int64{3, 4, 5}, Text: strings.ToUpper(request.Prompt), FinishReason: "stop",
		Stages:      []pipeline.StageReport{{ID: 0, Name: "thinker", QueueMS: 1, ComputeMS: 2, TransferMS: 0.25, Tokens: 3, BytesOut: 4096}},
		FirstTextMS: &first, E2EMS: 1500,
	}
	if wants(request, pipeline.ModalityAudio) {
		pcm := make([]float32, len(request.Prompt))
		response.Audio = &pipeline.Audio{SampleRate: 24000, Samples: len(pcm), Codes: []int64{7, 8}, PCM: pcm}
		response.FirstAudioMS, response.RTF = &first, &rtf
	}
	return response
}

func (f *fakeOmni) StartProfile(stages []int) (*pipeline.ProfileReport, error) {
	f.call("start")
	f.stages = stages
	for _, stage := range stages {
		if stage > 2 {
			return nil, pipeline.ErrUnknownStage
		}
	}
	return &pipeline.ProfileReport{Session: "s1", Active: true}, nil
}

func (f *fakeOmni) ProfileConfigs() map[int]profiler.Config {
	if !f.config.Profiler.Enabled() {
		return nil
	}
	return map[int]profiler.Config{0: f.config.Profiler}
}

func (f *fakeOmni) ProfileDir() string { return f.config.Profiler.TorchProfilerDir }

func (f *fakeOmni) StopProfile([]int) (*pipeline.ProfileReport, error) {
	f.call("stop")
	return f.session(), f.stopError
}

// session is what a session leaves.
func (f *fakeOmni) session() *pipeline.ProfileReport {
	dir := f.config.Profiler.TorchProfilerDir
	return &pipeline.ProfileReport{Session: "s1", Files: []pipeline.ProfileFile{
		{Path: filepath.Join(dir, "stage-0_s1.17.pt.trace.json.gz"), Stage: 0, Kind: "trace", Bytes: 2048, Events: 99, Dropped: 1},
		{Path: filepath.Join(dir, "profiler_out_0.txt"), Stage: 0, Kind: "table", Bytes: 512, Events: 99},
	}}
}

func (f *fakeOmni) DumpProfile(context.Context) (*pipeline.ProfileReport, error) {
	f.call("dump")
	if f.config.Profiler.RingSeconds == 0 {
		return nil, profiler.ErrNoRing
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dumped = true
	return &pipeline.ProfileReport{Session: "s1"}, nil
}

func (f *fakeOmni) ProfileStatus() (*pipeline.ProfileReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dumped {
		return &pipeline.ProfileReport{}, nil
	}
	return &pipeline.ProfileReport{Session: "s1"}, nil
}

func (f *fakeOmni) WaitProfile(ctx context.Context, session string) (*pipeline.ProfileReport, error) {
	dir := f.config.Profiler.TorchProfilerDir
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dumped:
	case session != "":
		return f.session(), ctx.Err()
	default:
		return &pipeline.ProfileReport{}, nil
	}
	return &pipeline.ProfileReport{
		Session: "s1", Complete: true, Trigger: "dump",
		Files:    []pipeline.ProfileFile{{Path: filepath.Join(dir, "stage-0_s1.17.pt.trace.json.gz"), Stage: 0, Kind: "trace", Bytes: 2048, Events: 99}},
		Workers:  []profiler.Report{{Missing: []string{filepath.Join(dir, "profiler_out_0.txt")}}},
		Pictures: &pipeline.ProfilePictures{Result: picture.Result{Files: []picture.File{{Kind: picture.KindReport, Path: filepath.Join(dir, "s1.17", "report.html"), Bytes: 10}}}},
	}, nil
}

func (f *fakeOmni) Close() error {
	f.call("close")
	return nil
}
