package pipeline_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// A stop string ends the text before it, wherever the pieces of the text are cut, and the speech after what was written.
func TestStopStringsEndTextAndSpeech(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	whole := pipelinetest.Expect("Hello", 20).Text
	for _, test := range []struct {
		stop []string
		cut  int // letters of the text
	}{
		{[]string{whole[5:8]}, 5},
		{[]string{whole[9:10], whole[5:8]}, 5},
		{[]string{whole[:1]}, 0},
		{[]string{whole[5:8] + "never"}, 20},
		{[]string{whole[19:]}, 19},
		{[]string{whole[18:] + "x", whole[18:]}, 18},
	} {
		request := pipeline.Request{Prompt: "Hello", MaxTokens: 20, Stop: test.stop}
		response, err := o.Generate(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		finish := "stop"
		if test.cut == 20 {
			finish = "length"
		}
		if response.Text != whole[:test.cut] || response.FinishReason != finish {
			t.Errorf("%q: got %q, %s, want %q, %s", test.stop, response.Text, response.FinishReason, whole[:test.cut], finish)
		}
		want := pipelinetest.Expect("Hello", len(response.TokenIDs))
		if len(response.TokenIDs) < test.cut || len(response.Audio.PCM) != len(want.PCM) {
			t.Errorf("%q: got %d tokens and %d samples, want %d samples", test.stop, len(response.TokenIDs), len(response.Audio.PCM), len(want.PCM))
		}
		var shown strings.Builder
		for event, err := range o.Stream(t.Context(), request) {
			if err != nil {
				t.Fatal(err)
			}
			shown.WriteString(event.Text)
		}
		if shown.String() != whole[:test.cut] {
			t.Errorf("%q: streamed %q, want %q", test.stop, shown.String(), whole[:test.cut])
		}
	}
	if _, err := o.Generate(t.Context(), pipeline.Request{Prompt: "x", Stop: []string{""}}); !errors.Is(err, pipeline.ErrInvalidRequest) {
		t.Errorf("got %v, want an invalid request", err)
	}
}
