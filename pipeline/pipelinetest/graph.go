package pipelinetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
)

// Stages of Graph.
const (
	StageThinker  = 0
	StageTalker   = 1
	StageCode2Wav = 2
)

// Config is NewConfig for a test.
func Config(tb testing.TB, scripts map[string]Script) pipeline.Config {
	tb.Helper()
	cfg, err := NewConfig(scripts)
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

// NewConfig returns a configuration whose workers are the running test binary, behaving as scripts say by the name of
// their engine, with limits short enough for tests.
func NewConfig(scripts map[string]Script) (pipeline.Config, error) {
	text, err := json.Marshal(scripts)
	if err != nil {
		return pipeline.Config{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return pipeline.Config{}, err
	}
	return pipeline.Config{
		WorkerPath: self,
		// The race detector sleeps for a second at the end of each process unless told otherwise.
		WorkerEnv: []string{workerVariable + "=1", scriptVariable + "=" + string(text), "GORACE=atexit_sleep_ms=0"},
		Limits: pipeline.Limits{
			Drain: 5 * time.Second, Terminate: 200 * time.Millisecond, Backoff: 10 * time.Millisecond, BackoffMax: 50 * time.Millisecond,
		},
	}, nil
}

// Graph returns a speaking model of three stages.
func Graph() *pipeline.Graph {
	stages := []family.Stage{
		{ID: StageThinker, Name: "thinker", Model: Thinker, Kind: family.Autoregressive, Final: family.Text},
		{ID: StageTalker, Name: "talker", Model: Talker, Kind: family.Autoregressive, Inputs: []int{StageThinker}},
		{ID: StageCode2Wav, Name: "code2wav", Model: Code2Wav, Kind: family.Generation, Inputs: []int{StageTalker}, Final: family.Audio, Chunks: true},
	}
	deployed := &config.Config{Source: "test"}
	for _, s := range stages {
		deployed.Stages = append(deployed.Stages, config.Stage{
			ID: s.ID, Name: s.Name, Inputs: s.Inputs, FinalOutput: s.Final, Device: "cpu", DType: "auto", Threads: 1, MaxBatchSize: 4,
			Chunks: s.Chunks,
		})
	}
	return &pipeline.Graph{
		Stages: stages,
		Edges: []family.Edge{
			{From: StageThinker, To: StageTalker, Tensors: []string{"prompt_rows", "reply_rows"}},
			{From: StageTalker, To: StageCode2Wav, Tokens: true},
		},
		Config: deployed,
		Model:  model{},
	}
}

// Open opens a pipeline of Graph and closes it when the test ends; closing must succeed unless the test has closed it.
func Open(tb testing.TB, cfg pipeline.Config) *pipeline.Omni {
	tb.Helper()
	o, err := pipeline.OpenGraph(tb.Context(), cfg, Graph())
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	tb.Cleanup(func() { o.Close() })
	return o
}

// model is a pipeline.Model whose token ids are the bytes of the text.
type model struct{}

// Prepare implements pipeline.Model.
func (model) Prepare(req family.Request, _ map[int]family.StageInfo) (*family.Prepared, error) {
	for _, m := range req.Messages { // a conversation is the texts in a row
		req.Prompt += m.Text
	}
	if req.Prompt == "" {
		return nil, errors.New("the request has no prompt")
	}
	limit := req.MaxTokens
	if limit == 0 {
		limit = 8
	}
	p := &family.Prepared{
		RenderedPrompt: "<" + req.Prompt + ">", Stages: []int{StageThinker}, Params: map[int]json.RawMessage{}, Finals: map[int]string{},
	}
	for _, b := range []byte(p.RenderedPrompt) {
		p.PromptTokenIDs = append(p.PromptTokenIDs, int64(b))
	}
	if len(req.Modalities) == 0 || slices.Contains(req.Modalities, family.Text) {
		p.Finals[StageThinker] = family.Text
	}
	speaks := len(req.Modalities) == 0 || slices.Contains(req.Modalities, family.Audio)
	if speaks {
		p.Stages = []int{StageThinker, StageTalker, StageCode2Wav}
		p.Finals[StageCode2Wav] = family.Audio
	}
	p.Full = map[int]bool{StageCode2Wav: req.Speech.Mode != config.ModeStream}
	text, err := json.Marshal(map[string]any{
		"mode":             req.Speech.Mode,
		"prompt_token_ids": p.PromptTokenIDs, "emit_rows": speaks, "sampling": map[string]int{"max_tokens": limit},
	})
	for _, id := range p.Stages {
		p.Params[id] = text
	}
	return p, err
}

// NewTextDecoder implements pipeline.Model.
func (model) NewTextDecoder() pipeline.TextDecoder { return decoder{} }

type decoder struct{}

// Push implements pipeline.TextDecoder.
func (decoder) Push(ids ...int64) string {
	text := make([]byte, len(ids))
	for i, id := range ids {
		text[i] = byte(id)
	}
	return string(text)
}

// Flush implements pipeline.TextDecoder.
func (decoder) Flush() string { return "" }

// Expected is what a request must give.
type Expected struct {
	Tokens []int64
	Text   string
	Codes  []int64
	PCM    []float32
}

// Expect computes what Graph makes of a prompt with that many tokens.
func Expect(prompt string, tokens int) Expected {
	return ExpectIDs(ids("<"+prompt+">"), tokens)
}

// ExpectIDs computes what the engines make of a prompt of these token ids.
func ExpectIDs(prompt []int64, tokens int) Expected {
	e := Expected{Tokens: []int64{}, Codes: []int64{}}
	for i := range tokens {
		e.Tokens = append(e.Tokens, letter(prompt, i))
	}
	e.Text = decoder{}.Push(e.Tokens...)
	for i, t := range e.Tokens[:max(tokens-1, 0)] { // the last token is never fed back, so it has no row
		e.Codes = append(e.Codes, code(t, i))
	}
	e.PCM = samples(e.Codes)
	return e
}

func ids(text string) []int64 {
	var list []int64
	for _, b := range []byte(text) {
		list = append(list, int64(b))
	}
	return list
}

// Signal sends a signal to the worker of a stage, which must be there: pid 0 would be the test's own process group. After
// SIGSTOP it waits until every thread of the worker has stopped.
func Signal(tb testing.TB, o *pipeline.Omni, stage int, sig syscall.Signal) {
	tb.Helper()
	for _, s := range o.Stages() {
		if s.ID != stage {
			continue
		}
		if s.PID == 0 {
			tb.Fatalf("stage %d is %s and has no process", stage, s.State)
		}
		if err := syscall.Kill(s.PID, sig); err != nil {
			tb.Fatalf("stage %d: %v", stage, err)
		}
		for sig == syscall.SIGSTOP && !stopped(tb, s.PID) {
			time.Sleep(time.Millisecond)
		}
		return
	}
	tb.Fatalf("there is no stage %d", stage)
}

// stopped reports whether no thread of a process runs.
func stopped(tb testing.TB, pid int) bool {
	tb.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		if stateOf(text) != 'T' {
			return false
		}
	}
	return true
}
