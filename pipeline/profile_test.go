package pipeline_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
)

// profiled opens a pipeline that can be profiled.
func profiled(t *testing.T, scripts map[string]pipelinetest.Script, change func(*profiler.Config)) *pipeline.Omni {
	t.Helper()
	cfg := pipelinetest.Config(t, scripts)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	if change != nil {
		change(&cfg.Profiler)
	}
	return pipelinetest.Open(t, cfg)
}

func TestProfileOfAllStages(t *testing.T) {
	o := profiled(t, nil, nil)
	started, err := o.StartProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if started.Session != "s1" || !started.Active || len(started.Workers) != 3 {
		t.Errorf("got %+v", started)
	}
	for _, w := range started.Workers {
		if w.State != profiler.StateRecording {
			t.Errorf("stage %d is %s, want recording", w.Stage, w.State)
		}
	}
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 10}); err != nil {
		t.Fatal(err)
	}
	status, err := o.ProfileStatus()
	if err != nil {
		t.Fatal(err)
	}
	if !status.Active || status.Workers[0].Steps != 10 {
		t.Errorf("got %+v, want 10 steps of the thinker", status.Workers[0])
	}
	stopped, err := o.StopProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if stopped.Active || len(stopped.Files) != 6 {
		t.Fatalf("got %+v, want six files", stopped)
	}
	seen := map[string]bool{}
	for _, f := range stopped.Files {
		info, err := os.Stat(f.Path)
		if err != nil || info.Size() != f.Bytes || seen[f.Path] {
			t.Errorf("file %+v: %v", f, err)
		}
		seen[f.Path] = true
		if f.Rank != f.Stage || (f.Kind != "trace" && f.Kind != "table") || f.Events == 0 || filepath.Dir(f.Path) != o.ProfileDir() {
			t.Errorf("file %+v", f)
		}
	}
	// code2wav is stepped only when its input is complete, so its steps are those of its work.
	if w := stopped.Workers[2]; w.Steps != 4 {
		t.Errorf("got %d steps of code2wav, want 4", w.Steps)
	}
	again, err := o.StartProfile([]int{1})
	if err != nil {
		t.Fatal(err)
	}
	if again.Session != "s2" || len(again.Workers) != 1 || again.Workers[0].Worker != "stage-1" {
		t.Errorf("got %+v", again)
	}
}

func TestProfileRequestsThatAreRefused(t *testing.T) {
	o := profiled(t, nil, nil)
	if report, err := o.StopProfile(nil); err != nil || report.Session != "" || report.Active {
		t.Errorf("stop without a session: got %+v, %v", report, err)
	}
	if _, err := o.StartProfile([]int{0, 7}); !errors.Is(err, pipeline.ErrUnknownStage) || !strings.Contains(err.Error(), "[7]; this pipeline runs [0 1 2]") {
		t.Errorf("start of stage 7: got %v", err)
	}
	if _, err := o.StartProfile([]int{0, 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.StartProfile([]int{1}); !errors.Is(err, pipeline.ErrProfileActive) || !strings.Contains(err.Error(), "session s1 in stages [0 2]") {
		t.Errorf("second start: got %v", err)
	}
	if _, err := o.StopProfile([]int{7}); !errors.Is(err, pipeline.ErrUnknownStage) {
		t.Errorf("stop of stage 7: got %v", err)
	}
	if _, err := o.StopProfile([]int{1}); !errors.Is(err, pipeline.ErrNoProfile) || !strings.Contains(err.Error(), "stage 1; session s1 records stages [0 2]") {
		t.Errorf("stop of a stage that is not in the session: got %v", err)
	}
	if _, err := o.StopProfileWith(t.Context(), pipeline.ProfileStopOptions{Session: "s9"}); !errors.Is(err, pipeline.ErrNoProfile) {
		t.Errorf("stop of a session that never was: got %v", err)
	}
	for range 2 { // the second stop is harmless
		first, err := o.StopProfile([]int{2})
		if err != nil || !first.Active || len(first.Files) != 2 || first.Complete {
			t.Errorf("stop of stage 2: got %+v, %v, want a session that goes on", first, err)
		}
	}
	for range 2 {
		last, err := o.StopProfile(nil)
		if err != nil || last.Active || len(last.Files) != 4 || last.Ledger == nil {
			t.Errorf("stop of the rest: got %+v, %v", last, err)
		}
	}
	unconfigured := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	if _, err := unconfigured.StartProfile(nil); !errors.Is(err, profiler.ErrNotEnabled) {
		t.Errorf("start without a configuration: got %v", err)
	}
	if _, err := unconfigured.DumpProfile(t.Context()); !errors.Is(err, profiler.ErrNoRing) {
		t.Errorf("dump without a configuration: got %v", err)
	}
	if dir := unconfigured.ProfileDir(); dir != "" {
		t.Errorf("got the directory %q without a configuration", dir)
	}
}

// Profile control does not wait for what the stages are doing, nor for what is queued for them. While the thinker stands in a
// step a flood of requests comes, and then the start of a session: it begins with the next step. So does the stop end it.
func TestProfileControlIsNotDelayedByRequests(t *testing.T) {
	const flood, tokens = 100, 10
	inStep, later := pipelinetest.NewGate(t), pipelinetest.NewGate(t) // the second when the flood is being worked on
	start, stop := pipelinetest.NewGate(t), pipelinetest.NewGate(t)
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Faults: []pipelinetest.Fault{
		inStep.Fault(pipelinetest.AtDecode, 2), later.Fault(pipelinetest.AtDecode, flood*tokens/2),
		start.Fault(pipelinetest.AtControl, 1), stop.Fault(pipelinetest.AtControl, 2),
	}}})
	cfg.Profiler, cfg.MaxConcurrency = profiler.FromDir(t.TempDir()), flood+1
	o := pipelinetest.Open(t, cfg)
	var requests sync.WaitGroup
	ask := func() {
		if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: strings.Repeat("busy", 50), MaxTokens: tokens}); err != nil {
			t.Error(err)
		}
	}
	steps := func() int64 { return o.Load(t.Context())[0].Steps } // that have ended
	// during does something while the thinker stands at a gate, and opens that when it has come to the worker.
	during := func(gate, control *pipelinetest.Gate, do func([]int) (*pipeline.ProfileReport, error)) (before int64, report *pipeline.ProfileReport) {
		before = steps()
		done := make(chan error, 1)
		go func() {
			var err error
			report, err = do(nil)
			done <- err
		}()
		control.Reached()
		control.Open()
		steps() // is answered by the goroutine that has now put the message where the next step begins
		gate.Open()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return before, report
	}

	requests.Go(ask)
	inStep.Reached()
	for range flood {
		requests.Go(ask)
	}
	for o.Load(t.Context())[pipelinetest.StageCode2Wav].Sequences <= flood { // it is the last to be told of each
		time.Sleep(time.Millisecond)
	}
	first, _ := during(inStep, start, o.StartProfile)
	later.Reached()
	last, report := during(later, stop, o.StopProfile)
	requests.Wait()
	// The step that the start came into is not recorded, that which the stop came into may be.
	if recorded := report.Workers[0].Steps; recorded > last-first || recorded < last-first-1 {
		t.Errorf("%d steps were recorded; the start came into number %d, the stop into number %d", recorded, first+1, last+1)
	}
}

func TestProfileStatusOfAWorkerInsideALongStep(t *testing.T) {
	gate := pipelinetest.NewGate(t)
	o := profiled(t, map[string]pipelinetest.Script{pipelinetest.Thinker: gate.Script(pipelinetest.AtDecode, 1)}, nil)
	if _, err := o.StartProfile([]int{0}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := o.Generate(t.Context(), pipeline.Request{Prompt: "stands"})
		ended <- err
	}()
	gate.Reached()
	status, err := o.ProfileStatus()
	if err != nil {
		t.Fatal(err)
	}
	if w := status.Workers[0]; w.State != profiler.StateRecording || w.Error != "" {
		t.Errorf("got %+v, want a worker that records", w)
	}
	gate.Open()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDeathOfAProfiledWorkerIsInTheReport(t *testing.T) {
	o := profiled(t, nil, nil)
	if _, err := o.StartProfile(nil); err != nil {
		t.Fatal(err)
	}
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello"}); err != nil { // after the restart
		t.Fatal(err)
	}
	report, err := o.StopProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if w := report.Workers[1]; w.State != profiler.StateFailed || !strings.Contains(w.Error, "killed by signal 9") || w.Stage != 1 {
		t.Errorf("got %+v, want the death", w)
	}
	if len(report.Files) != 4 {
		t.Errorf("got %d files, want those of the two others", len(report.Files))
	}
}

func TestProfileStartsInAllOrNone(t *testing.T) {
	o := profiled(t, map[string]pipelinetest.Script{pipelinetest.Talker: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtProfile, Do: pipelinetest.Error}}}}, nil)
	_, err := o.StartProfile(nil)
	var stage *pipeline.StageError
	if !errors.As(err, &stage) || stage.Stage != 1 || stage.Code != message.InvalidArgument || !strings.Contains(err.Error(), "scripted error at profile") {
		t.Errorf("got %v", err)
	}
	if report, err := o.StopProfile(nil); err != nil || report.Session != "" {
		t.Errorf("stop: got %+v, %v, want no session", report, err)
	}
	if _, err := o.StartProfile([]int{0, 2}); err != nil { // the others are free
		t.Error(err)
	}
}

func TestCloseWritesTheFilesOfAnActiveProfile(t *testing.T) {
	dir := t.TempDir()
	o := profiled(t, nil, func(c *profiler.Config) { c.TorchProfilerDir = dir })
	if _, err := o.StartProfile(nil); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.*"))
	if err != nil || len(files) != 6 {
		t.Errorf("got %v (%v), want six files", files, err)
	}
}

func TestStagesHaveTheirOwnProfilerConfig(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	graph := pipelinetest.Graph()
	dir := t.TempDir()
	graph.Config.Stages[1].Profiler = map[string]any{"profiler": "torch", "torch_profiler_dir": dir, "torch_profiler_use_gzip": false}
	o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	started, err := o.StartProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(started.Workers) != 1 || started.Workers[0].Stage != 1 {
		t.Errorf("got %+v, want stage 1 alone", started.Workers)
	}
	report, err := o.StopProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Files) != 2 || filepath.Dir(report.Files[0].Path) != dir {
		t.Errorf("got %+v", report.Files)
	}
	if _, err := o.StartProfile([]int{0}); !errors.Is(err, profiler.ErrNotEnabled) {
		t.Errorf("start of a stage without a configuration: got %v", err)
	}
	graph.Config.Stages[1].Profiler = map[string]any{"profiler": "torch", "torch_profiler_dirr": dir}
	if o, err := pipeline.OpenGraph(t.Context(), cfg, graph); err == nil || !strings.Contains(err.Error(), "stage 1: profiler_config") {
		if err == nil {
			o.Close()
		}
		t.Errorf("an unknown setting: got %v", err)
	}
}

func TestProfilerConfigurationsThatAreRefused(t *testing.T) {
	torch := profiler.FromDir(t.TempDir())
	negative := torch
	negative.DelayIterations = -3
	unused := profiler.Default()
	unused.MaxIterations = 5
	for name, test := range map[string]struct {
		pipeline profiler.Config
		stage    map[string]any
		want     []string
	}{
		"a stage without a profiler": {
			stage: map[string]any{"torch_profiler_dir": "/d", "delay_iterations": -3},
			want:  []string{"stage 1: profiler_config: ", `torch_profiler_dir is only applicable when profiler is "torch"`, "delay_iterations: got -3"},
		},
		"settings of a stage that nothing uses": {
			stage: map[string]any{"max_iterations": 5},
			want:  []string{"stage 1: profiler_config: max_iterations: nothing would be recorded"},
		},
		"all faults of a stage": {
			pipeline: torch,
			stage:    map[string]any{"colour": 1, "max_iterations": -1},
			want:     []string{`unknown field "colour"`, "max_iterations: got -1"},
		},
		"a wrong value of the pipeline": {pipeline: negative, want: []string{"profiler configuration: delay_iterations: got -3"}},
		"settings of the pipeline that nothing uses": {
			pipeline: unused, want: []string{"profiler configuration: max_iterations: nothing would be recorded"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, graph := pipelinetest.Config(t, nil), pipelinetest.Graph()
			cfg.Profiler, graph.Config.Stages[1].Profiler = test.pipeline, test.stage
			o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
			if err == nil {
				o.Close()
			}
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			if err != nil && strings.Count(err.Error(), "got -3") > 1 {
				t.Errorf("the fault is told more than once: %v", err)
			}
		})
	}
}

func TestAStageCanBeLeftOut(t *testing.T) {
	cfg, graph := pipelinetest.Config(t, nil), pipelinetest.Graph()
	cfg.Profiler = profiler.FromDir(t.TempDir())
	graph.Config.Stages[1].Profiler = map[string]any{"profiler": nil}
	o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	started, err := o.StartProfile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(started.Workers) != 2 || started.Workers[1].Stage != 2 {
		t.Errorf("got %+v, want stages 0 and 2", started.Workers)
	}
}

// That there is no GPU is known before the model is loaded, and is said once.
func TestACUDAProfilerNeedsAGPU(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Profiler = profiler.Default()
	cfg.Profiler.Profiler = profiler.KindCUDA
	cfg.Machine = func() (config.Machine, error) { return config.Machine{Reason: "no driver"}, nil }
	cfg.Progress = func(pipeline.Progress) { t.Error("a stage was loaded") }
	graph := pipelinetest.Graph()
	for i := range graph.Config.Stages {
		graph.Config.Stages[i].Device = config.Auto
	}
	o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
	if err == nil {
		o.Close()
	}
	want := "profiler=cuda has nothing to watch, since no stage runs on a GPU (stage 0 on cpu, stage 1 on cpu, stage 2 on cpu: no device was given, and there is no GPU to use: no driver)"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
