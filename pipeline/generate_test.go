package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// check compares a response with what the engines' arithmetic makes of the prompt.
func check(t *testing.T, r *pipeline.Response, prompt string, tokens int) {
	t.Helper()
	want := pipelinetest.Expect(prompt, tokens)
	if r.Text != want.Text || !slices.Equal(r.TokenIDs, want.Tokens) {
		t.Errorf("prompt %q: got text %q of %v, want %q of %v", prompt, r.Text, r.TokenIDs, want.Text, want.Tokens)
	}
	if r.FinishReason != "length" {
		t.Errorf("prompt %q: finish reason %q, want length", prompt, r.FinishReason)
	}
	if r.Audio == nil {
		t.Fatalf("prompt %q: no audio", prompt)
	}
	if !slices.Equal(r.Audio.Codes, want.Codes) {
		t.Errorf("prompt %q: got codes %v, want %v", prompt, r.Audio.Codes, want.Codes)
	}
	if !slices.Equal(r.Audio.PCM, want.PCM) || r.Audio.Samples != len(want.PCM) {
		t.Errorf("prompt %q: got %d samples (%d), want %d, or their values differ", prompt, len(r.Audio.PCM), r.Audio.Samples, len(want.PCM))
	}
}

func TestRequestGoesThroughAllStages(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	r, err := o.Generate(t.Context(), pipeline.Request{ID: "r1", Prompt: "hello", MaxTokens: 100})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "hello", 100)
	if r.RequestID != "r1" || r.RenderedPrompt != "<hello>" || len(r.PromptTokenIDs) != 7 {
		t.Errorf("got %+v", r)
	}
	if err := o.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestLedgerAddsUp(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: time.Millisecond}}))
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Stages) != 3 {
		t.Fatalf("got %d stages, want 3", len(r.Stages))
	}
	const rowBytes = 16
	wantTokens := []int64{20, 19, 4 * 19}
	wantBytes := []int64{20*8 + (7+19)*rowBytes, 19 * 8, 4 * 4 * 19}
	for i, s := range r.Stages {
		if s.ID != i || s.Tokens != wantTokens[i] || s.BytesOut != wantBytes[i] {
			t.Errorf("stage %d: got %+v, want %d tokens and %d bytes", i, s, wantTokens[i], wantBytes[i])
		}
		if s.ComputeMS <= 0 || s.TransferMS <= 0 || s.QueueMS <= 0 || s.ComputeMS+s.QueueMS > r.E2EMS {
			t.Errorf("stage %d: %+v does not fit into %v ms", i, s, r.E2EMS)
		}
	}
	if r.Stages[0].ComputeMS < 20 {
		t.Errorf("20 steps of 1 ms took %v ms", r.Stages[0].ComputeMS)
	}
	if r.FirstTextMS == nil || r.FirstAudioMS == nil || r.RTF == nil {
		t.Fatalf("got first text %v, first audio %v, rtf %v", r.FirstTextMS, r.FirstAudioMS, r.RTF)
	}
	if !(*r.FirstTextMS < *r.FirstAudioMS && *r.FirstAudioMS <= r.E2EMS) {
		t.Errorf("got first text %v, first audio %v, end %v", *r.FirstTextMS, *r.FirstAudioMS, r.E2EMS)
	}
	if seconds := float64(4*19) / 40; *r.RTF != r.E2EMS/1000/seconds {
		t.Errorf("rtf %v, want %v", *r.RTF, r.E2EMS/1000/seconds)
	}
}

func TestResponseHasTheKeysOfTheCommandLine(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello", Modalities: []string{pipeline.ModalityText}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	keys := []string{
		"request_id", "prompt", "rendered_prompt", "prompt_token_ids", "token_ids", "text", "finish_reason", "audio", "stages",
		"first_text_ms", "first_audio_ms", "e2e_ms", "rtf",
	}
	for _, k := range keys {
		if _, ok := got[k]; !ok {
			t.Errorf("no key %q in %s", k, text)
		}
	}
	if len(got) != len(keys) {
		t.Errorf("%d keys, want %d: %s", len(got), len(keys), text)
	}
	if got["audio"] != nil || got["rtf"] != nil || got["first_audio_ms"] != nil {
		t.Errorf("a request for text has audio: %s", text)
	}
	if len(r.Stages) != 1 {
		t.Errorf("a request for text went through %d stages", len(r.Stages))
	}
}

func TestManyRequestsAtOnceGiveWhatTheyGiveAlone(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	var requests sync.WaitGroup
	for i := range 32 {
		requests.Go(func() {
			prompt, tokens := fmt.Sprintf("prompt %d %s", i, strings.Repeat("x", 31*i)), 1+i*2
			r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: tokens})
			if err != nil {
				t.Error(err)
				return
			}
			check(t, r, prompt, tokens)
		})
	}
	requests.Wait()
}

func TestStreamGivesPiecesInOrderAndTheResponseLast(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	var text strings.Builder
	var pcm []float32
	var last pipeline.Event
	for e, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 300}) {
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(e.Text)
		pcm = append(pcm, e.Samples...)
		last = e
	}
	if last.Kind != pipeline.EventDone {
		t.Fatalf("the last event is %q", last.Kind)
	}
	check(t, last.Response, "hello", 300)
	if text.String() != last.Response.Text || !slices.Equal(pcm, last.Response.Audio.PCM) {
		t.Errorf("the events hold %q and %d samples, the response %q and %d", text.String(), len(pcm), last.Response.Text, last.Response.Audio.Samples)
	}
}

// A reader of a stream that stops reading must stop its own stages, and no other request.
func TestSlowReaderHoldsUpItsOwnRequestOnly(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	events := 0
	for e, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "slow", MaxTokens: 600}) {
		if err != nil {
			t.Fatal(err)
		}
		if events++; events == 1 {
			for i := range 3 { // while nobody takes the events of the first
				prompt := fmt.Sprintf("other %d", i)
				r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: 50})
				if err != nil {
					t.Fatal(err)
				}
				check(t, r, prompt, 50)
			}
		}
		if e.Kind == pipeline.EventDone {
			check(t, e.Response, "slow", 600)
		}
	}
}

func TestBreakingOutOfAStreamCancelsIt(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: time.Millisecond}}))
	for _, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 1 << 30}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "next", MaxTokens: 5})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "next", 5)
}

func TestConcurrencyIsLimited(t *testing.T) {
	cfg := pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: time.Millisecond}})
	cfg.MaxConcurrency = 1
	o := pipelinetest.Open(t, cfg)
	for _, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "first", MaxTokens: 1 << 30}) {
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, err := o.Generate(ctx, pipeline.Request{Prompt: "second"})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v while another request had the only place", err)
		}
		break
	}
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "third"}); err != nil {
		t.Error(err)
	}
}

func TestInvalidRequestIsRefused(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	_, err := o.Generate(t.Context(), pipeline.Request{ID: "empty"})
	if !errors.Is(err, pipeline.ErrInvalidRequest) || pipeline.CodeOf(err) != message.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestErrorOfOneSequenceConcernsItAlone(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{
		pipelinetest.Talker: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtPrefill, Nth: 3, Do: pipelinetest.Error}}},
	}))
	var requests sync.WaitGroup
	failed := make(chan error, 8)
	for i := range 8 {
		requests.Go(func() {
			prompt := fmt.Sprintf("prompt %d", i)
			r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: 40})
			if err != nil {
				failed <- err
				return
			}
			check(t, r, prompt, 40)
		})
	}
	requests.Wait()
	close(failed)
	if len(failed) != 1 {
		t.Fatalf("%d requests failed, want 1", len(failed))
	}
	err := <-failed
	var stage *pipeline.StageError
	if !errors.As(err, &stage) || stage.Stage != 1 || stage.Name != "talker" || stage.Code != message.InvalidArgument {
		t.Errorf("got %v", err)
	}
	if errors.Is(err, pipeline.ErrWorkerDied) {
		t.Errorf("%v passes for a death", err)
	}
}

func TestCloseEndsRequestsAndRefusesNewOnes(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: time.Millisecond}}))
	started := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		once := sync.OnceFunc(func() { close(started) })
		for _, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 1 << 30}) {
			once()
			if err != nil {
				ended <- err
			}
		}
	}()
	<-started
	if err := o.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; !errors.Is(err, pipeline.ErrClosed) {
		t.Errorf("the running request ended with %v, want ErrClosed", err)
	}
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "hello"}); !errors.Is(err, pipeline.ErrClosed) {
		t.Errorf("a new request ended with %v, want ErrClosed", err)
	}
	if err := o.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	for _, s := range o.Stages() {
		if s.State != pipeline.StageClosed || s.PID != 0 {
			t.Errorf("stage %d is %s with pid %d", s.ID, s.State, s.PID)
		}
	}
}
