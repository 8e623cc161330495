package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/checkpoint/random"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/pipeline/prompt"
	"github.com/omni-run/omni/profiler"
)

// goldens holds one folder per checkpoint with two files per case: make_goldens.py there runs the reference.
const goldens = "../../pipeline/family/testdata/qwen2_5_omni"

// tolerance is how far a sample may lie from the reference's.
const tolerance = 2e-3

// golden is one request and what the reference answered.
type golden struct {
	Case       string
	Checkpoint struct {
		Preset string
		Seed   uint64
	}
	Messages []prompt.Message
	Seed     int64
	Speaker  string
	Sampling struct {
		Thinker, Talker config.SamplingParams
		Token2wav       map[string]any
	}
	RenderedPrompt string  `json:"rendered_prompt"`
	PromptTokenIDs []int64 `json:"prompt_token_ids"`
	TokenIDs       []int64 `json:"token_ids"`
	Text           string
	FinishReason   string `json:"finish_reason"`
	Codes          []int64
	waveform       []float32
}

// readGoldens returns the cases of a checkpoint that can be asked for: those that change how code2wav solves its
// equation are for the engine's own tests.
func readGoldens(t *testing.T, preset string) []*golden {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(goldens, preset, "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("goldens of %s: %v, %v", preset, paths, err)
	}
	var cases []*golden
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		g := &golden{}
		if err := json.Unmarshal(text, g); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		g.waveform = waveform(t, strings.TrimSuffix(path, "json")+"safetensors")
		if len(g.Sampling.Token2wav) == 0 {
			cases = append(cases, g)
		}
	}
	return cases
}

// waveform reads the tensor of that name, nil if there is none.
func waveform(t *testing.T, path string) []float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := binary.LittleEndian.Uint64(data)
	var header map[string]struct {
		Offsets []int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:8+size], &header); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	entry, ok := header["waveform"]
	if !ok {
		return nil
	}
	var values []float32
	for b := data[8+size:][entry.Offsets[0]:entry.Offsets[1]]; len(b) > 0; b = b[4:] {
		values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return values
}

func (g *golden) request() pipeline.Request {
	messages := g.Messages
	if messages[0].Role != "system" { // the goldens have the template's own default, the family has the one for speech
		messages = append([]prompt.Message{{Role: "system", Text: "You are a helpful assistant."}}, messages...)
	}
	// What a golden does not name is off; here it would be the family's default.
	off := config.SamplingParams{
		TopP: config.Ptr(1.0), TopK: config.Ptr(int64(-1)), RepetitionPenalty: config.Ptr(1.0), StopTokenIDs: []int64{},
	}
	return pipeline.Request{
		ID: g.Case, Messages: messages, Seed: &g.Seed, Speaker: g.Speaker,
		Sampling: []config.SamplingParams{off.Merge(g.Sampling.Thinker), off.Merge(g.Sampling.Talker)},
	}
}

// check compares a response with the reference's answer.
func (g *golden) check(t *testing.T, r *pipeline.Response) {
	t.Helper()
	if r.RenderedPrompt != g.RenderedPrompt || !slices.Equal(r.PromptTokenIDs, g.PromptTokenIDs) {
		t.Errorf("%s: got prompt %q, want %q", g.Case, r.RenderedPrompt, g.RenderedPrompt)
	}
	if !slices.Equal(r.TokenIDs, g.TokenIDs) || r.Text != g.Text || r.FinishReason != g.FinishReason {
		t.Errorf("%s: got %s %q\n%v, want %s %q\n%v", g.Case, r.FinishReason, r.Text, r.TokenIDs, g.FinishReason, g.Text, g.TokenIDs)
	}
	if !slices.Equal(r.Audio.Codes, g.Codes) {
		t.Errorf("%s: got codes %v, want %v", g.Case, r.Audio.Codes, g.Codes)
	}
	if len(r.Audio.PCM) != len(g.waveform) {
		t.Fatalf("%s: got %d samples, want %d", g.Case, len(r.Audio.PCM), len(g.waveform))
	}
	for i, want := range g.waveform {
		if d := math.Abs(float64(r.Audio.PCM[i] - want)); !(d <= tolerance) {
			t.Fatalf("%s: sample %d is %v, want %v", g.Case, i, r.Audio.PCM[i], want)
		}
	}
}

// open opens a pipeline of real workers on a random checkpoint.
func open(t *testing.T, preset string, seed uint64, change func(*pipeline.Config)) *pipeline.Omni {
	t.Helper()
	folder := filepath.Join(t.TempDir(), preset)
	if _, err := random.Write(t.Context(), folder, random.Options{Preset: preset, Seed: seed}); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := pipeline.Config{
		Model: folder, DType: "float32", WorkerPath: self, WorkerEnv: []string{workerVariable + "=1", "GORACE=atexit_sleep_ms=0"},
	}
	if change != nil {
		change(&cfg)
	}
	o, err := pipeline.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return o
}

// Three processes give what the reference gives in one, alone and among all the others at once, to the last bit.
func TestPipelineEqualsTheReference(t *testing.T) {
	for _, preset := range []string{"tiny-a", "tiny-b", "tiny-c"} {
		t.Run(preset, func(t *testing.T) {
			cases := readGoldens(t, preset)
			o := open(t, preset, cases[0].Checkpoint.Seed, nil)
			alone := map[string]*pipeline.Response{}
			for _, g := range cases {
				r, err := o.Generate(t.Context(), g.request())
				if err != nil {
					t.Fatal(err)
				}
				g.check(t, r)
				alone[g.Case] = r
			}
			var requests sync.WaitGroup
			for _, g := range cases {
				requests.Go(func() {
					r, err := o.Generate(t.Context(), g.request())
					if err != nil {
						t.Error(err)
						return
					}
					want := alone[g.Case]
					if !slices.Equal(r.TokenIDs, want.TokenIDs) || !reflect.DeepEqual(r.Audio, want.Audio) {
						t.Errorf("%s: among others the request gave something else than alone", g.Case)
					}
				})
			}
			requests.Wait()
		})
	}
}

// A real worker is killed while it decodes: the requests are run again and give what they give undisturbed.
func TestRealWorkerIsKilledAndComesBack(t *testing.T) {
	o := open(t, "tiny", 1, nil)
	seed := int64(5)
	request := func(i int) pipeline.Request {
		return pipeline.Request{Prompt: fmt.Sprintf("Tell me story number %d.", i), Seed: &seed, MaxTokens: 60}
	}
	var requests sync.WaitGroup
	responses := make([]*pipeline.Response, 4)
	for i := range responses {
		requests.Go(func() {
			r, err := o.Generate(t.Context(), request(i))
			if err != nil {
				t.Error(err)
			}
			responses[i] = r
		})
	}
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	requests.Wait()
	for i, r := range responses {
		again, err := o.Generate(t.Context(), request(i))
		if err != nil {
			t.Fatal(err)
		}
		if r == nil || !slices.Equal(r.TokenIDs, again.TokenIDs) || !reflect.DeepEqual(r.Audio, again.Audio) {
			t.Errorf("request %d gave something else after the kill", i)
		}
	}
	if s := o.Stages()[1]; s.Restarts != 1 || s.State != pipeline.StageReady {
		t.Errorf("got %+v, want one restart", s)
	}
}

// The weights lie in a file that is cut: the stage that needs the missing part says so, and nothing is left running.
func TestTruncatedCheckpointIsAnErrorOfAStage(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "cut")
	if _, err := random.Write(t.Context(), folder, random.Options{Seed: 1}); err != nil {
		t.Fatal(err)
	}
	weights, err := filepath.Glob(filepath.Join(folder, "*.safetensors"))
	if err != nil || len(weights) == 0 {
		t.Fatalf("got %v, %v", weights, err)
	}
	last := weights[len(weights)-1]
	info, err := os.Stat(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(last, info.Size()-100); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o, err := pipeline.Open(t.Context(), pipeline.Config{Model: folder, WorkerPath: self, WorkerEnv: []string{workerVariable + "=1"}})
	if err == nil {
		o.Close()
		t.Fatal("a cut checkpoint was opened")
	}
	var stage *pipeline.StageError
	if !errors.As(err, &stage) || !strings.Contains(err.Error(), filepath.Base(last)) {
		t.Errorf("got %v, want a stage and the file", err)
	}
}

// A real worker hits its limit of memory before it is ready: the pipeline does not open, and says which stage and what was
// seen of it, whether libtorch reported the end of memory or the process died of it.
func TestMemoryLimitWhileLoadingIsAnErrorOfAStage(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tiny")
	if _, err := random.Write(t.Context(), folder, random.Options{Seed: 1}); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, mib := range []int{4, 8, 12} { // from where threads cannot be made to where tensors can
		o, err := pipeline.Open(t.Context(), pipeline.Config{
			Model: folder, WorkerPath: self, WorkerEnv: []string{workerVariable + "=1", fmt.Sprintf("%s=%d", memoryVariable, mib)},
		})
		if err == nil {
			o.Close()
			if mib == 4 {
				t.Error("no limit was hit")
			}
			continue
		}
		var stage *pipeline.StageError
		if !errors.As(err, &stage) || stage.Name == "" || stage.Cause == nil {
			t.Errorf("%d MiB: got %v, want a stage and a cause", mib, err)
		}
		t.Logf("%d MiB: %.300s", mib, err)
	}
}

// A crash in C++ ends one worker, and what is left of it to read is the signal, not pages of stacks and registers.
func TestCrashInTheLibraryLeavesShortLastWords(t *testing.T) {
	o := open(t, "tiny", 1, nil)
	var failure error
	crash := sync.OnceFunc(func() { pipelinetest.Signal(t, o, 0, syscall.SIGABRT) })
	for e, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "Count for ever.", MaxTokens: 400}) {
		if err != nil {
			failure = err
			break
		}
		if e.Kind == pipeline.EventText {
			crash()
		}
	}
	var stage *pipeline.StageError
	if !errors.As(failure, &stage) || stage.Stage != 0 {
		t.Fatalf("got %v, want the death of the thinker", failure)
	}
	if !strings.Contains(stage.LastWords, "SIGABRT") || len(stage.LastWords) > 2000 {
		t.Errorf("got last words %q", stage.LastWords)
	}
}

func TestCancelledRequestLeavesNothingBehind(t *testing.T) {
	o := open(t, "tiny", 1, nil)
	ctx, cancel := context.WithCancel(t.Context())
	for e, err := range o.Stream(ctx, pipeline.Request{Prompt: "Count for ever.", MaxTokens: 400}) {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			break
		}
		if e.Kind == pipeline.EventText {
			cancel()
		}
	}
	cancel()
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "Hello.", MaxTokens: 5}); err != nil {
		t.Error(err)
	}
}

// Every stage records what ran in its own process.
func TestProfileOfRealWorkers(t *testing.T) {
	dir := t.TempDir()
	o := open(t, "tiny", 1, func(c *pipeline.Config) { c.Profiler = profiler.FromDir(dir) })
	if _, err := o.StartProfile(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "Hello.", MaxTokens: 12}); err != nil {
		t.Fatal(err)
	}
	report, err := o.StopProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Files) != 6 {
		t.Fatalf("got %d files, want a trace and a table for each of three stages: %+v", len(report.Files), report)
	}
	for _, f := range report.Files {
		info, err := os.Stat(f.Path)
		if err != nil || info.Size() != f.Bytes || f.Events == 0 {
			t.Errorf("file %+v: %v", f, err)
		}
	}
	for _, w := range report.Workers {
		if w.Steps == 0 || w.State != profiler.StateDone {
			t.Errorf("stage %d: got %d steps, state %s", w.Stage, w.Steps, w.State)
		}
	}
}
