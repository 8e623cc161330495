package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

var streamed = config.Speech{Mode: config.ModeStream}

// In mode stream audio comes while the text is written: here it never ends.
func TestAudioBeginsBeforeTheCodesEnd(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	var pcm []float32
	for e, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "hello", MaxTokens: 1 << 30, Speech: streamed}) {
		if err != nil {
			t.Fatal(err)
		}
		if pcm = append(pcm, e.Samples...); len(pcm) > 4*4*pipelinetest.ChunkCodes {
			break
		}
	}
	if want := pipelinetest.Expect("hello", 1000).PCM[:len(pcm)]; !slices.Equal(pcm, want) {
		t.Errorf("got %v, want %v", pcm, want)
	}
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "next", MaxTokens: 5, Speech: streamed})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "next", 5)
	if err := o.Close(); err != nil { // the engines report sequences that were not released
		t.Errorf("close: %v", err)
	}
}

// Replies of every length around chunks' ends, both modes at once.
func TestStreamedSpeechIsWhole(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	var requests sync.WaitGroup
	for tokens := 1; tokens < 5*pipelinetest.ChunkCodes; tokens++ {
		for _, speech := range []config.Speech{{}, streamed} {
			requests.Go(func() {
				prompt := fmt.Sprintf("prompt %d", tokens)
				r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: tokens, Speech: speech})
				if err != nil {
					t.Error(err)
					return
				}
				check(t, r, prompt, tokens)
			})
		}
	}
	requests.Wait()
}

// A reader that has stopped holds up its own speech, and nobody else's.
func TestSlowListenerHoldsUpItsOwnRequestOnly(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	stopped := false
	for e, err := range o.Stream(t.Context(), pipeline.Request{Prompt: "slow", MaxTokens: 600, Speech: streamed}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == pipeline.EventAudio && !stopped {
			stopped = true
			for i := range 3 { // while nobody takes the events of the first
				prompt := fmt.Sprintf("other %d", i)
				r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: 50, Speech: streamed})
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
	if !stopped {
		t.Error("there was no audio")
	}
}

func TestCancelWhileAudioStreams(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{pipelinetest.Code2Wav: {Step: 5 * time.Millisecond}}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for e, err := range o.Stream(ctx, pipeline.Request{Prompt: "hello", MaxTokens: 1 << 30, Speech: streamed}) {
		if err != nil {
			break
		}
		if e.Kind == pipeline.EventAudio {
			cancel()
		}
	}
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "next", MaxTokens: 2})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "next", 2)
	if err := o.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
