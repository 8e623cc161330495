package pipeline_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

func fault(at pipelinetest.Point, do pipelinetest.Action) pipelinetest.Script {
	return pipelinetest.Script{Faults: []pipelinetest.Fault{{At: at, Do: do}}}
}

// once is a fault that does not happen again in the next worker.
func once(t *testing.T, at pipelinetest.Point, nth int, do pipelinetest.Action) pipelinetest.Script {
	t.Helper()
	return pipelinetest.Script{Faults: []pipelinetest.Fault{{At: at, Nth: nth, Do: do, Once: filepath.Join(t.TempDir(), "happened")}}}
}

func TestOpenReportsWhyAStageCannotStart(t *testing.T) {
	short := func(cfg *pipeline.Config) {
		cfg.Limits.Hello, cfg.Limits.Load = 150*time.Millisecond, 150*time.Millisecond
	}
	tests := map[string]struct {
		scripts map[string]pipelinetest.Script
		change  func(*pipeline.Config)
		want    []string // in the error
		code    message.Code
	}{
		"an engine that refuses": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Talker: fault(pipelinetest.AtOpen, pipelinetest.Error)},
			want:    []string{"stage 1 (talker)", "scripted error at open"}, code: message.InvalidArgument,
		},
		"weights that cannot be read": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Code2Wav: fault(pipelinetest.AtLoad, pipelinetest.Error)},
			want:    []string{"stage 2 (code2wav)", "scripted error at load"}, code: message.InvalidArgument,
		},
		"killed while loading": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Thinker: {Parts: 5, Faults: []pipelinetest.Fault{{At: pipelinetest.AtLoad, Nth: 3, Do: pipelinetest.Kill}}}},
			want:    []string{"stage 0 (thinker)", "killed by signal 9", "last words: scripted: kill at load"}, code: message.Internal,
		},
		"an end with status 0": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Thinker: fault(pipelinetest.AtOpen, pipelinetest.Exit0)},
			want:    []string{"stage 0 (thinker)", "ended by itself with status 0"}, code: message.Internal,
		},
		"an end with status 3 before hello": {
			scripts: map[string]pipelinetest.Script{pipelinetest.AnyStage: fault(pipelinetest.AtStart, pipelinetest.Exit3)},
			want:    []string{"ended with status 3", "scripted: exit3 at start"}, code: message.Internal,
		},
		"garbage before hello": {
			scripts: map[string]pipelinetest.Script{pipelinetest.AnyStage: fault(pipelinetest.AtStart, pipelinetest.Garbage)},
			want:    []string{`malformed frame: expected "OMN1"`}, code: message.Internal,
		},
		"garbage while loading": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Thinker: fault(pipelinetest.AtLoad, pipelinetest.Garbage)},
			want:    []string{"stage 0 (thinker)", `malformed frame: expected "OMN1"`}, code: message.Internal,
		},
		"a hang before hello": {
			scripts: map[string]pipelinetest.Script{pipelinetest.AnyStage: fault(pipelinetest.AtStart, pipelinetest.Hang)}, change: short,
			want: []string{"has not said hello for 150ms"}, code: message.Internal,
		},
		"a hang while loading": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Thinker: fault(pipelinetest.AtLoad, pipelinetest.Hang)},
			change:  func(cfg *pipeline.Config) { cfg.Limits.Load = 150 * time.Millisecond },
			want:    []string{"stage 0 (thinker)", "stood still for 150ms"}, code: message.Internal,
		},
		"a panic": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Thinker: fault(pipelinetest.AtOpen, pipelinetest.Panic)},
			want:    []string{"stage 0 (thinker)", "status 2", "panic: scripted panic at open"}, code: message.Internal,
		},
		"a limit of memory while loading": {
			scripts: map[string]pipelinetest.Script{pipelinetest.Talker: {Parts: 5, Faults: []pipelinetest.Fault{{At: pipelinetest.AtLoad, Nth: 3, Do: pipelinetest.Exhaust}}}},
			want:    []string{"stage 1 (talker)", "the process ended with status 2", "fatal error: "}, code: message.Internal,
		},
		"no executable": {
			change: func(cfg *pipeline.Config) { cfg.WorkerPath = "/nonexistent/omni-worker" },
			want:   []string{"worker executable", "/nonexistent/omni-worker"}, code: message.Internal,
		},
		"an executable that is none": {
			change: func(cfg *pipeline.Config) {
				cfg.WorkerPath = filepath.Join(t.TempDir(), "omni-worker")
				if err := os.WriteFile(cfg.WorkerPath, []byte("\x7fELF"), 0o700); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{"stage ", "start ", "exec format error"}, code: message.FailedPrecondition,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := pipelinetest.Config(t, tt.scripts)
			if tt.change != nil {
				tt.change(&cfg)
			}
			o, err := pipeline.OpenGraph(t.Context(), cfg, pipelinetest.Graph())
			if err == nil {
				o.Close()
				t.Fatal("the pipeline opened")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to hold %q", err, want)
				}
			}
			if got := pipeline.CodeOf(err); got != tt.code {
				t.Errorf("got code %s, want %s", got, tt.code)
			}
		})
	}
}

func TestOpenCanBeCancelledWhileLoading(t *testing.T) {
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Parts: 1000, Part: 5 * time.Millisecond}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	loading := make(chan struct{})
	told := sync.OnceFunc(func() { close(loading) })
	cfg.Progress = func(p pipeline.Progress) {
		if p.Stage == 0 && p.Done > 0 {
			told()
		}
	}
	go func() { <-loading; cancel() }()
	if _, err := pipeline.OpenGraph(ctx, cfg, pipelinetest.Graph()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
}

func TestLoadingReportsProgress(t *testing.T) {
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Talker: {Parts: 4, Part: 60 * time.Millisecond}})
	last := map[int]pipeline.Progress{}
	parts := 0
	cfg.Progress = func(p pipeline.Progress) { // one goroutine at a time, so no lock
		if p.Done < last[p.Stage].Done && !p.Ready {
			t.Errorf("stage %d went from %d to %d", p.Stage, last[p.Stage].Done, p.Done)
		}
		if p.Stage == pipelinetest.StageTalker {
			parts++
		}
		last[p.Stage] = p
	}
	o := pipelinetest.Open(t, cfg)
	for id := range 3 {
		if !last[id].Ready || last[id].Name == "" {
			t.Errorf("stage %d: the last report is %+v", id, last[id])
		}
	}
	if parts < 3 {
		t.Errorf("%d reports about the talker, want one per part", parts)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// A worker's death at any point of a request: Generate has shown nothing, so the request is run again and succeeds.
func TestRequestIsRunAgainAfterADeath(t *testing.T) {
	tests := map[string]struct {
		stage string
		at    pipelinetest.Point
		nth   int
		do    pipelinetest.Action
	}{
		"killed at admission":      {pipelinetest.Code2Wav, pipelinetest.AtAdmit, 1, pipelinetest.Kill},
		"killed in prefill":        {pipelinetest.Thinker, pipelinetest.AtPrefill, 1, pipelinetest.Kill},
		"killed in decode":         {pipelinetest.Thinker, pipelinetest.AtDecode, 5, pipelinetest.Kill},
		"killed as it is fed":      {pipelinetest.Talker, pipelinetest.AtFeed, 3, pipelinetest.Kill},
		"killed as it hands on":    {pipelinetest.Thinker, pipelinetest.AtDecode, 3, pipelinetest.Cut},
		"killed in the last stage": {pipelinetest.Code2Wav, pipelinetest.AtDecode, 1, pipelinetest.Kill},
		"status 0 in decode":       {pipelinetest.Talker, pipelinetest.AtDecode, 2, pipelinetest.Exit0},
		"panic in decode":          {pipelinetest.Talker, pipelinetest.AtDecode, 2, pipelinetest.Panic},
		"garbage in decode":        {pipelinetest.Thinker, pipelinetest.AtDecode, 2, pipelinetest.Garbage},
		"device lost in decode":    {pipelinetest.Thinker, pipelinetest.AtDecode, 2, pipelinetest.Lose},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{tt.stage: once(t, tt.at, tt.nth, tt.do)}))
			r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "again", MaxTokens: 12})
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, "again", 12)
			restarts := 0
			for _, s := range o.Stages() {
				restarts += s.Restarts
				if s.State != pipeline.StageReady || s.PID == 0 || s.Error != "" {
					t.Errorf("got %+v, want a stage that is ready", s)
				}
			}
			if restarts != 1 {
				t.Errorf("%d restarts, want 1", restarts)
			}
			if err := o.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestRequestIsRunAgainOnlyOnce(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Talker: fault(pipelinetest.AtPrefill, pipelinetest.Kill)}))
	_, err := o.Generate(t.Context(), pipeline.Request{ID: "doomed", Prompt: "again"})
	var stage *pipeline.StageError
	if !errors.As(err, &stage) || !errors.Is(err, pipeline.ErrWorkerDied) {
		t.Fatalf("got %v, want the death of a worker", err)
	}
	if stage.Stage != 1 || stage.Name != "talker" || !strings.Contains(stage.LastWords, "scripted: kill at prefill") {
		t.Errorf("got %+v", stage)
	}
	if !strings.Contains(err.Error(), `request "doomed": stage 1 (talker): the worker died: the process was killed by signal 9`) {
		t.Errorf("got %q", err)
	}
}

// A worker that is killed in the middle of a message has died, whatever the half of the message looks like.
func TestDeathInsideAMessageIsADeath(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Talker: fault(pipelinetest.AtDecode, pipelinetest.Cut)}))
	_, err := o.Generate(t.Context(), pipeline.Request{ID: "cut", Prompt: "again"})
	if err == nil || !strings.Contains(err.Error(), `request "cut": stage 1 (talker): the worker died: the process was killed by signal 9`) {
		t.Errorf("got %v", err)
	}
}

// What the caller has seen cannot be taken back: such a request fails when the worker dies, before there is another one and
// without any limit of time.
func TestDeathFailsWhatHasBeenShown(t *testing.T) {
	gate := pipelinetest.NewGate(t)
	script := gate.Script(pipelinetest.AtLoad, 1)
	killed := filepath.Join(t.TempDir(), "killed")
	script.Faults[0].After = killed
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: script})
	cfg.Limits.Ping, cfg.Limits.Pong = time.Hour, time.Hour
	o := pipelinetest.Open(t, cfg)
	var failure error
	shown := 0
	for _, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "shown", MaxTokens: 1 << 30}) {
		if err != nil {
			failure = err
			break
		}
		if shown++; shown == 3 {
			require.NoError(t, os.WriteFile(killed, nil, 0o600))
			pipelinetest.Signal(t, o, 0, syscall.SIGKILL)
		}
	}
	if !errors.Is(failure, pipeline.ErrWorkerDied) {
		t.Fatalf("got %v, want the death of the worker", failure)
	}
	gate.Reached()
	gate.Open()
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "next", MaxTokens: 5})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "next", 5)
}

func TestFrozenWorkerIsReplaced(t *testing.T) {
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: once(t, pipelinetest.AtDecode, 2, pipelinetest.Freeze)})
	cfg.Limits.Ping, cfg.Limits.Pong = 20*time.Millisecond, 300*time.Millisecond
	o := pipelinetest.Open(t, cfg)
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "frozen", MaxTokens: 5})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "frozen", 5)
}

// A worker whose step never ends answers pings; the limit of a step finds it, and cancelling its request works before.
func TestHangingStepIsFoundByItsLimit(t *testing.T) {
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: once(t, pipelinetest.AtDecode, 2, pipelinetest.Hang)})
	cfg.Limits.Ping, cfg.Limits.Step = 20*time.Millisecond, 400*time.Millisecond
	o := pipelinetest.Open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := o.Generate(ctx, pipeline.Request{Prompt: "hang", MaxTokens: 5}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "after", MaxTokens: 5})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "after", 5)
}

func TestFloodOfStderrHoldsUpNothing(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Faults: []pipelinetest.Fault{
		{At: pipelinetest.AtLoad, Do: pipelinetest.Flood}, {At: pipelinetest.AtDecode, Nth: 2, Do: pipelinetest.Flood}, {At: pipelinetest.AtDecode, Nth: 9, Do: pipelinetest.Kill},
	}}}))
	_, err := o.Generate(t.Context(), pipeline.Request{Prompt: "flood", MaxTokens: 20})
	var stage *pipeline.StageError
	if !errors.As(err, &stage) {
		t.Fatalf("got %v", err)
	}
	if len(stage.LastWords) > 8<<10 || !strings.HasSuffix(stage.LastWords, "scripted: kill at decode") {
		t.Errorf("got %d bytes of last words that end with %q", len(stage.LastWords), stage.LastWords[max(0, len(stage.LastWords)-60):])
	}
}

func TestWorkerThatCannotComeBackFailsWhoeverWaits(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "omni-worker")
	cfg := pipelinetest.Config(t, nil)
	if err := os.Link(cfg.WorkerPath, gone); err != nil {
		if err := os.Symlink(cfg.WorkerPath, gone); err != nil {
			t.Fatal(err)
		}
	}
	cfg.WorkerPath = gone
	o := pipelinetest.Open(t, cfg)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	_, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello"})
	if err == nil || !strings.Contains(err.Error(), "stage 1 (talker)") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v, want the stage and why it cannot start", err)
	}
	if s := o.Stages()[1]; s.State == pipeline.StageReady {
		t.Errorf("got %+v, want a stage that is not ready", s)
	}
}

func TestWorkerThatIgnoresStoppingIsKilled(t *testing.T) {
	gate := pipelinetest.NewGate(t)
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: gate.Script(pipelinetest.AtDecode, 1)})
	cfg.Limits.Drain, cfg.Limits.Terminate = 50*time.Millisecond, 50*time.Millisecond
	o := pipelinetest.Open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := o.Generate(ctx, pipeline.Request{Prompt: "hang"})
		ended <- err
	}()
	gate.Reached()
	cancel()
	if err := <-ended; err == nil {
		t.Error("a request ended in a worker that hangs")
	}
	pids := []int{}
	for _, s := range o.Stages() {
		pids = append(pids, s.PID)
	}
	err := o.Close()
	if err == nil || !strings.Contains(err.Error(), "stage 0 (thinker)") || !strings.Contains(err.Error(), "did not stop") {
		t.Errorf("close: got %v, want the stage that had to be killed", err)
	}
	for _, pid := range pids {
		if pipelinetest.Alive(pid) {
			t.Errorf("worker %d is alive after Close", pid)
		}
	}
}

// Whoever stops a worker from outside stops its requests, which are run again.
func TestTerminatedWorkerComesBack(t *testing.T) {
	gate := pipelinetest.NewGate(t)
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: gate.Script(pipelinetest.AtDecode, 5)}))
	type result struct {
		response *pipeline.Response
		err      error
	}
	ended := make(chan result, 1)
	go func() {
		r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "terminated", MaxTokens: 100})
		ended <- result{r, err}
	}()
	gate.Reached()
	pipelinetest.Signal(t, o, 0, syscall.SIGTERM)
	gate.Open()
	restarted(t, o, 0, 1)
	gate.Reached()
	gate.Open()
	got := <-ended
	if got.err != nil {
		t.Fatal(got.err)
	}
	check(t, got.response, "terminated", 100)
}
