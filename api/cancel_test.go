package api_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// endings is a pipeline that says when a generation has ended: whatever is cancelled has been told so by then.
type endings struct {
	*pipeline.Omni
	ended chan struct{}
}

// Stream implements api.Engine.
func (e *endings) Stream(ctx context.Context, req pipeline.Request) iter.Seq2[pipeline.Event, error] {
	return func(yield func(pipeline.Event, error) bool) {
		defer func() { e.ended <- struct{}{} }()
		for event, err := range e.Omni.Stream(ctx, req) {
			if !yield(event, err) {
				return
			}
		}
	}
}

// awaitStep is the next step that begins.
func awaitStep(t *testing.T, stepper *pipelinetest.Stepper) *pipelinetest.HeldStep {
	t.Helper()
	select {
	case step := <-stepper.Steps():
		return step
	case <-time.After(time.Minute):
		t.Fatal("no stage steps")
		return nil
	}
}

// A client that goes away takes its request out of every stage within one step: the step that it is in ends, and no stage takes
// it into another. Whatever kind of answer was being made, and whichever stage was at work.
func TestAClientThatGoesAwayIsInNoFurtherStep(t *testing.T) {
	stepper := pipelinetest.NewStepper(t)
	scripts := map[string]pipelinetest.Script{}
	for _, model := range []string{pipelinetest.Thinker, pipelinetest.Talker, pipelinetest.Code2Wav} {
		scripts[model] = pipelinetest.Script{Stepper: stepper.Path}
	}
	engine := &endings{Omni: pipelinetest.Open(t, pipelinetest.Config(t, scripts)), ended: make(chan struct{}, 1)}
	s := newServer(t, func(c *api.Config) { c.Engine = engine })
	address, _ := serveOn(t, s)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	const chat = `"messages":[{"role":"user","content":"Hello"}]`
	bodies := map[string][2]string{
		"whole chat":    {"/v1/chat/completions", `{` + chat},
		"streamed chat": {"/v1/chat/completions", `{"stream":true,` + chat},
		"whole speech":  {"/v1/audio/speech", `{"input":"Hello"`},
		"raw speech":    {"/v1/audio/speech", `{"response_format":"pcm","input":"Hello"`},
		"speech events": {"/v1/audio/speech", `{"stream_format":"sse","input":"Hello"`},
	}
	for _, at := range []struct {
		model, mode string
		tokens      int
	}{
		{pipelinetest.Thinker, "stream", 1000},
		{pipelinetest.Talker, "stream", 1000},
		{pipelinetest.Code2Wav, "stream", 1000}, // while the other two work
		{pipelinetest.Code2Wav, "full", 20},     // when they have ended
	} {
		for _, kind := range slices.Sorted(maps.Keys(bodies)) {
			t.Run(fmt.Sprintf("%s/%s/%s", at.model, at.mode, kind), func(t *testing.T) {
				ctx, leave := context.WithCancel(t.Context())
				body := fmt.Sprintf(`%s,"max_tokens":%d,"speech_mode":%q}`, bodies[kind][1], at.tokens, at.mode)
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+bodies[kind][0], strings.NewReader(body))
				require.NoError(t, err)
				left := make(chan struct{})
				go func() {
					defer close(left)
					answer, err := client.Do(request)
					if err == nil {
						<-ctx.Done()
						answer.Body.Close()
					}
				}()

				// All stages go on until the one in question is in the middle of the request's second step there. From
				// then on every step is held.
				var held *pipelinetest.HeldStep
				for steps := 0; steps < 2; {
					if held != nil {
						held.Go()
					}
					if held = awaitStep(t, stepper); held.Model == at.model {
						steps++
					}
				}
				leave()
				<-left
				<-engine.ended
				// A worker that has answered this has read what was sent to it before.
				for _, stage := range engine.Load(t.Context()) {
					require.True(t, stage.Answered)
				}

				// What was held goes on, and with it whatever else would begin.
				held.Go()
				begun := map[string]int{}
				done, counted := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(counted)
					for {
						select {
						case step := <-stepper.Steps():
							begun[step.Model]++
							step.Go()
						case <-done:
							return
						}
					}
				}()
				require.Eventually(t, func() bool {
					return !slices.ContainsFunc(engine.Load(t.Context()), func(stage pipeline.StageLoad) bool { return !stage.Answered || stage.Sequences > 0 })
				}, time.Minute, time.Millisecond, "a stage still holds the request")
				close(done)
				<-counted
				for model, steps := range begun {
					require.NotEqual(t, at.model, model, "it has taken the request into another step")
					require.Equal(t, 1, steps, "%s: only the step that was held when the client left", model)
				}
			})
		}
	}
}
