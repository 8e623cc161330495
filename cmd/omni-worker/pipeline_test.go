package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/checkpoint/random"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
)

// goldens holds a folder per family with a folder per checkpoint.
const goldens = "../../pipeline/family/testdata"

// A golden is a case of a checkpoint, with the stages that it passes through.
type golden struct {
	*familytest.Case
	text, codes, sound *familytest.Stage // the stage that writes text, the one that makes sound and the one before it
	sampling           []config.SamplingParams
}

// askable returns the cases that a request can express: the others are for the engines' own tests.
func askable(t *testing.T, cases []*familytest.Case) []*golden {
	t.Helper()
	folder, err := checkpoint.Open(cases[0].WriteCheckpoint(t, t.TempDir()), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	f, err := family.Lookup(folder)
	if err != nil {
		t.Fatal(err)
	}
	var goldens []*golden
	for _, c := range cases {
		if !c.Askable() {
			continue
		}
		g := &golden{Case: c, sampling: c.Sampling(t, f.Stages)}
		for _, s := range f.Stages {
			switch s.Final {
			case family.Text:
				g.text = c.Stages[s.Name]
			case family.Audio:
				g.sound, g.codes = c.Stages[s.Name], c.Stages[f.Stages[s.Inputs[0]].Name]
			}
		}
		goldens = append(goldens, g)
	}
	return goldens
}

func (g *golden) request() pipeline.Request {
	return pipeline.Request{ID: g.Name, Messages: g.Messages, Seed: &g.Seed, Speaker: g.Speaker, Sampling: g.sampling}
}

// check compares a response with the reference's answer.
func (g *golden) check(t *testing.T, r *pipeline.Response) {
	t.Helper()
	if r.RenderedPrompt != g.RenderedPrompt || !slices.Equal(r.PromptTokenIDs, g.PromptTokenIDs) {
		t.Errorf("%s: got prompt %q, want %q", g.Name, r.RenderedPrompt, g.RenderedPrompt)
	}
	if !slices.Equal(r.TokenIDs, g.text.TokenIDs) || r.Text != g.Text || r.FinishReason != g.text.FinishReason {
		t.Errorf("%s: got %s %q\n%v, want %s %q\n%v", g.Name, r.FinishReason, r.Text, r.TokenIDs, g.text.FinishReason, g.Text, g.text.TokenIDs)
	}
	if g.sound == nil {
		return
	}
	if !slices.Equal(r.Audio.Codes, g.codes.TokenIDs) {
		t.Errorf("%s: got codes %v, want %v", g.Name, r.Audio.Codes, g.codes.TokenIDs)
	}
	if d := familytest.Distance(g.sound.Tensors["audio"], r.Audio.PCM); d > g.sound.Tolerances["audio"] {
		t.Errorf("%s: the sound is %v from the reference's", g.Name, d)
	}
}

// open opens a pipeline of real workers on a random checkpoint.
func open(t *testing.T, preset string, seed uint64, change func(*pipeline.Config)) *pipeline.Omni {
	t.Helper()
	folder := filepath.Join(t.TempDir(), preset)
	if _, err := random.Write(t.Context(), folder, random.Options{Preset: preset, Seed: seed}); err != nil {
		t.Fatal(err)
	}
	return openFolder(t, folder, change)
}

// openFolder opens a pipeline of real workers on a checkpoint.
func openFolder(t *testing.T, folder string, change func(*pipeline.Config)) *pipeline.Omni {
	t.Helper()
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
	familytest.EachCheckpoint(t, goldens, func(t *testing.T, cases []*familytest.Case) {
		o := openFolder(t, cases[0].WriteCheckpoint(t, t.TempDir()), nil)
		alone := map[string]*pipeline.Response{}
		for _, g := range askable(t, cases) {
			r, err := o.Generate(t.Context(), g.request())
			if err != nil {
				t.Fatal(err)
			}
			g.check(t, r)
			alone[g.Name] = r
		}
		var requests sync.WaitGroup
		for _, g := range askable(t, cases) {
			requests.Go(func() {
				r, err := o.Generate(t.Context(), g.request())
				if err != nil {
					t.Error(err)
					return
				}
				want := alone[g.Name]
				if !slices.Equal(r.TokenIDs, want.TokenIDs) || !reflect.DeepEqual(r.Audio, want.Audio) {
					t.Errorf("%s: among others the request gave something else than alone", g.Name)
				}
			})
		}
		requests.Wait()
	})
}

// A real worker is killed while it decodes, and once more while it loads: the requests are run again and give what they give
// undisturbed.
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
	reaches(t, o, 1, "decodes", func(s pipeline.StageLoad) bool { return s.Tokens > 0 })
	first := o.Stages()[1].PID
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
	second := o.Stages()[1]
	if second.Restarts != 1 || second.State != pipeline.StageReady || second.PID == first {
		t.Errorf("got %+v, want one restart", second)
	}
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	reaches(t, o, 1, "loads", func(s pipeline.StageLoad) bool {
		return s.State == pipeline.StageLoading && s.PID != 0 && s.PID != second.PID
	})
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	reaches(t, o, 1, "is back", func(s pipeline.StageLoad) bool { return s.State == pipeline.StageReady && s.Restarts == 3 })
	if r, err := o.Generate(t.Context(), request(0)); err != nil || !reflect.DeepEqual(r.Audio, responses[0].Audio) {
		t.Errorf("after a kill while loading: %v, or another answer", err)
	}
}

// reaches waits until a stage's worker does what is meant.
func reaches(t *testing.T, o *pipeline.Omni, stage int, what string, does func(pipeline.StageLoad) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if does(o.Load(t.Context())[stage]) {
			return
		}
	}
	t.Fatalf("stage %d does not come to where it %s: %+v", stage, what, o.Load(t.Context())[stage])
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

// Every stage records what ran in its own process.
func TestProfileOfRealWorkers(t *testing.T) {
	dir := t.TempDir()
	o := open(t, "tiny", 1, func(c *pipeline.Config) { c.Profiler = profiler.FromDir(dir) })
	if _, err := o.StartProfile(nil); err != nil {
		t.Fatal(err)
	}
	hello(t, o)
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
