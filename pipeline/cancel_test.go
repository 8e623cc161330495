package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// A request is cancelled at every point of every stage, while the worker stands there. The caller is told at once, and when
// the worker goes on it forgets the request before anything else: nothing of it is left, and the next one gets its result.
func TestCancelInEveryStage(t *testing.T) {
	input := []pipelinetest.Point{pipelinetest.AtAdmit, pipelinetest.AtFeed, pipelinetest.AtPrefill, pipelinetest.AtDecode}
	points := map[string][]pipelinetest.Point{
		pipelinetest.Thinker: {pipelinetest.AtAdmit, pipelinetest.AtPrefill, pipelinetest.AtDecode}, // nobody feeds it
		pipelinetest.Talker:  input, pipelinetest.Code2Wav: input,
	}
	for model, list := range points {
		for _, at := range list {
			t.Run(fmt.Sprintf("%s at %s", model, at), func(t *testing.T) {
				gate := pipelinetest.NewGate(t)
				o := pipelinetest.Open(t, pipelinetest.Config(t, map[string]pipelinetest.Script{model: gate.Script(at, 1)}))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() {
					_, err := o.Generate(ctx, pipeline.Request{ID: "gone", Prompt: "hello", MaxTokens: 20})
					ended <- err
				}()
				gate.Reached()
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `"gone"`) {
					t.Errorf("got %v, want a cancelled request that is named", err)
				}
				gate.Open()
				empty(t, o)
				r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "next", MaxTokens: 2})
				require.NoError(t, err)
				check(t, r, "next", 2)
				require.NoError(t, o.Close(), "the engines report sequences that were not released")
			})
		}
	}
}

// empty waits until no worker has a sequence.
func empty(t *testing.T, o *pipeline.Omni) {
	t.Helper()
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(o.Load(t.Context()), func(s pipeline.StageLoad) bool { return !s.Answered || s.Sequences > 0 })
	}, 30*time.Second, time.Millisecond, "sequences are left in the workers")
}
