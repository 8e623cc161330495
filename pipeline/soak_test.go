package pipeline_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// killer kills workers of a pipeline while requests run: in pairs, so that some requests are hit again when they are run again.
type killer struct {
	omni *pipeline.Omni

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	ended  int          // requests
	next   int          // at how many the next kill is due
	killed map[int]bool // pids
}

// requestEnded kills the worker of a random stage if that is due, in any state of the others. If the stage has none at that
// moment, because of the kill before, the next request that ends tries again.
func (k *killer) requestEnded() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended++; k.ended < k.next {
		return
	}
	s := k.omni.Stages()[k.random.IntN(3)]
	if s.State != pipeline.StageReady || k.killed[s.PID] || syscall.Kill(s.PID, syscall.SIGKILL) != nil {
		return
	}
	k.killed[s.PID] = true
	k.next = k.ended + 1
	if len(k.killed)%2 == 0 {
		k.next = k.ended + 20 + k.random.IntN(60)
	}
}

// A thousand requests while workers are killed at random: each ends with its right result or with an error that names a
// stage and a cause, and this process does not grow.
func TestThousandRequestsWithRandomKills(t *testing.T) {
	const rounds, each, tokens = 4, 250, 5
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	o := pipelinetest.Open(t, pipelinetest.Config(t, nil))
	k := &killer{omni: o, random: rand.New(rand.NewPCG(seed, 0)), next: 20, killed: map[int]bool{}}
	var results, errs atomic.Int64
	generate := func(prompt string) {
		defer k.requestEnded()
		r, err := o.Generate(t.Context(), pipeline.Request{Prompt: prompt, MaxTokens: tokens})
		if err == nil {
			check(t, r, prompt, tokens)
			results.Add(1)
			return
		}
		errs.Add(1)
		var stage *pipeline.StageError
		if !errors.As(err, &stage) || !errors.Is(err, pipeline.ErrWorkerDied) || !strings.Contains(err.Error(), "killed by signal 9") ||
			!strings.Contains(err.Error(), fmt.Sprintf("stage %d (%s)", stage.Stage, stage.Name)) {
			t.Errorf("got %v, want the stage whose worker died and how", err)
		}
	}
	var first usage // after the first round
	for round := range rounds {
		var requests sync.WaitGroup
		for i := range each {
			requests.Go(func() { generate(fmt.Sprintf("prompt %d of round %d %s", i, round, strings.Repeat("x", 500))) })
		}
		requests.Wait()
		if round == 0 {
			first = usageNow(t)
		}
	}
	last := usageNow(t)
	t.Logf("%d results, %d errors, %d kills; grown by %d bytes", results.Load(), errs.Load(), len(k.killed), last.rss-first.rss)
	require.EqualValues(t, rounds*each, results.Load()+errs.Load(), "every request has ended")
	require.Positive(t, errs.Load(), "of requests that were hit twice")
	require.Less(t, last.rss-first.rss, int64(32<<20), "bytes by which this process has grown")
	require.LessOrEqual(t, last.files, first.files+2*3, "open files: a worker may have just been started")

	// All that were killed have been replaced, and nothing else.
	require.GreaterOrEqual(t, len(k.killed), 20)
	require.Eventually(t, func() bool {
		restarts := 0
		for _, s := range o.Stages() {
			if s.State != pipeline.StageReady || k.killed[s.PID] {
				return false
			}
			restarts += s.Restarts
		}
		return restarts == len(k.killed)
	}, 30*time.Second, time.Millisecond, "%d workers were killed: %+v", len(k.killed), o.Stages())
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "after", MaxTokens: tokens})
	require.NoError(t, err)
	check(t, r, "after", tokens)
}

// usage is what this process has of the system.
type usage struct {
	rss   int64 // bytes
	files int   // open
}

func usageNow(t *testing.T) usage {
	t.Helper()
	debug.FreeOSMemory() // what is garbage is no growth
	text, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(text), &size, &resident)
	require.NoError(t, err)
	files, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return usage{rss: resident * int64(os.Getpagesize()), files: len(files)}
}
