package pipeline_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// A thousand requests while workers are killed at random: each ends with its right result or with an error that names a
// stage and a cause, and this process does not grow.
func TestThousandRequestsWithRandomKills(t *testing.T) {
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	var ended atomic.Int64
	// kill ends a worker after every 50th request, in any state of the others.
	kill := func() {
		if n := ended.Add(1); n%50 == 0 {
			if s := o.Stages()[n/50%3]; s.PID != 0 {
				syscall.Kill(s.PID, syscall.SIGKILL)
			}
		}
	}
	const rounds, each, tokens = 4, 250, 5
	var first int64 // resident bytes after the first round
	for round := range rounds {
		var requests sync.WaitGroup
		for i := range each {
			requests.Go(func() {
				defer kill()
				prompt := fmt.Sprintf("prompt %d of round %d %s", i, round, strings.Repeat("x", 500))
				r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: tokens})
				var stage *pipeline.StageError
				switch {
				case err == nil:
					check(t, r, prompt, tokens)
				case !errors.As(err, &stage) || !errors.Is(err, pipeline.ErrWorkerDied) || stage.Name == "":
					t.Errorf("got %v, want the death of a stage's worker", err)
				}
			})
		}
		requests.Wait()
		if round == 0 {
			first = rss(t)
		}
	}
	if grown := rss(t) - first; grown > 32<<20 {
		t.Errorf("this process has grown by %d bytes", grown)
	}
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "after", MaxTokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, "after", tokens)
}

// rss returns the resident bytes of this process.
func rss(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
