package main

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
)

// A request is cancelled when it has come to a stage of real engines and made progress there. Nothing of it stays in any
// worker, and the next request gives what it gave before.
func TestCancelInEveryRealStage(t *testing.T) {
	const many = 1000 // more than can be made before it is cancelled
	long := endless(many)
	whole := endless(400) // code2wav begins when all codes are there
	whole.Speech = config.Speech{Mode: config.ModeFull}
	text := pipeline.Request{
		Prompt: "Count for ever.", Modalities: []string{pipeline.ModalityText}, MaxTokens: many,
		Sampling: []config.SamplingParams{{MinTokens: config.Ptr(int64(many))}},
	}
	tokens := func(s pipeline.StageLoad) int64 { return s.Tokens }
	tests := []struct {
		name    string
		stage   int
		request pipeline.Request
		made    func(pipeline.StageLoad) int64
	}{
		{"thinker", 0, text, tokens},
		{"talker", 1, long, tokens},
		{"code2wav in chunks", 2, long, func(s pipeline.StageLoad) int64 { return s.Samples }},
		{"code2wav as a whole", 2, whole, func(s pipeline.StageLoad) int64 { return s.Steps }},
	}
	o := open(t, "tiny-c", 1, nil)
	before, err := o.Generate(t.Context(), endless(40))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			made := test.made(o.Load(t.Context())[test.stage])
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := o.Generate(ctx, test.request)
				ended <- err
			}()
			reaches(t, o, test.stage, "works on the request", func(s pipeline.StageLoad) bool { return test.made(s) > made })
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want a cancelled request", err)
			}
			for stage := range 3 {
				reaches(t, o, stage, "has no request", func(s pipeline.StageLoad) bool { return s.Answered && s.Sequences == 0 })
			}
			after, err := o.Generate(t.Context(), endless(40))
			if err != nil || !reflect.DeepEqual(before.Audio, after.Audio) || before.Text != after.Text {
				t.Errorf("the next request: %v, or another answer", err)
			}
		})
	}
}
