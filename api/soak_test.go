package api_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/api/client"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// TestSoak sends OMNI_SOAK_REQUESTS requests (300), 64 at once. A fifth of the clients go away at a random moment; every other
// answer is complete and right. Nothing is left in the stages, and memory does not grow with the number of requests.
func TestSoak(t *testing.T) {
	const concurrency = 64
	n := 300
	if text := os.Getenv("OMNI_SOAK_REQUESTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	cfg := pipelinetest.Config(t, nil)
	o := pipelinetest.Open(t, cfg)
	s := newServer(t, func(c *api.Config) { c.Engine, c.Log = o, nil })
	address, _ := serveOn(t, s)
	transport := &http.Transport{MaxIdleConnsPerHost: concurrency}
	defer transport.CloseIdleConnections()
	soak := &soak{client: client.Client{URL: "http://" + address, HTTP: &http.Client{Transport: transport}}}

	soak.run(t, n/4, concurrency)
	soak.settle(t, o)
	before := memory(t, o)
	soak.run(t, n-n/4, concurrency)
	soak.settle(t, o)
	after := memory(t, o)
	require.Equal(t, int64(n), soak.complete.Load()+soak.left.Load())
	t.Logf("%d answers were complete, %d clients left; memory of each process before and after: %v, %v MB",
		soak.complete.Load(), soak.left.Load(), before, after)
	for i := range before {
		// A fixed allowance for caches and the heap's own pace; 10,000 requests that kept a kilobyte each would exceed it.
		require.Less(t, after[i], before[i]+10, "process %d of %v grew", i, before)
	}
}

// soak counts how requests ended.
type soak struct {
	client         client.Client
	complete, left atomic.Int64
}

// run sends n requests.
func (s *soak) run(t *testing.T, n, concurrency int) {
	var next atomic.Int64
	var clients sync.WaitGroup
	for worker := range concurrency {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for next.Add(1) <= int64(n) {
				s.one(t, r)
			}
		})
	}
	clients.Wait()
}

// one sends a request, and may leave in the middle of its answer.
func (s *soak) one(t *testing.T, r *rand.Rand) {
	prompt, tokens := fmt.Sprintf("prompt %d", r.IntN(1000)), 1+r.IntN(12)
	stay := 1 << 30 // pieces
	if r.IntN(5) == 0 {
		stay = r.IntN(6)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if stay == 0 {
		go cancel()
	}
	var text strings.Builder
	frames, pieces := 0, 0
	for piece, err := range s.client.Stream(ctx, client.Chat{
		Messages: []client.Message{{Role: "user", Content: prompt}}, MaxTokens: tokens, Audio: &client.Audio{Format: "pcm"},
	}) {
		if stay == 0 && err != nil {
			s.left.Add(1)
			return
		}
		if err != nil {
			t.Errorf("%q: %v", prompt, err)
			return
		}
		text.WriteString(piece.Text)
		frames += len(piece.Audio) / 2
		if pieces++; pieces == stay {
			s.left.Add(1)
			return
		}
	}
	want := pipelinetest.Expect(prompt, tokens)
	if text.String() != want.Text || frames != len(want.PCM) {
		t.Errorf("%q: got %q and %d samples, want %q and %d", prompt, text.String(), frames, want.Text, len(want.PCM))
	}
	s.complete.Add(1)
}

// settle waits until the stages hold no request.
func (s *soak) settle(t *testing.T, o *pipeline.Omni) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, stage := range o.Load(t.Context()) {
			if !stage.Answered || stage.Sequences > 0 {
				return false
			}
		}
		return true
	}, time.Minute, 5*time.Millisecond)
}

// memory is what this process keeps and each worker takes, in MB.
func memory(t *testing.T, o *pipeline.Omni) []int64 {
	t.Helper()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	list := []int64{int64(stats.HeapAlloc >> 20)}
	for _, stage := range o.Load(t.Context()) {
		list = append(list, stage.RSSBytes>>20)
	}
	return list
}
