package pipeline_test

import (
	"context"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// pauses is a slog.Handler that collects the pauses before workers are started again.
type pauses struct {
	mu   sync.Mutex // guards list
	list []time.Duration
}

func (p *pauses) Enabled(context.Context, slog.Level) bool { return true }
func (p *pauses) WithAttrs([]slog.Attr) slog.Handler       { return p }
func (p *pauses) WithGroup(string) slog.Handler            { return p }

func (p *pauses) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "restart_in" {
			p.mu.Lock()
			p.list = append(p.list, a.Value.Duration())
			p.mu.Unlock()
		}
		return true
	})
	return nil
}

func (p *pauses) all() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]time.Duration{}, p.list...)
}

// removable is a worker's executable that a test can take away and give back.
func removable(t *testing.T, cfg *pipeline.Config) (remove, restore func()) {
	t.Helper()
	real, path := cfg.WorkerPath, filepath.Join(t.TempDir(), "omni-worker")
	restore = func() { require.NoError(t, os.Symlink(real, path)) }
	remove = func() { require.NoError(t, os.Remove(path)) }
	restore()
	cfg.WorkerPath = path
	return remove, restore
}

// A worker that cannot be started is tried again after longer and longer pauses, up to a limit; all that time its stage is
// reported as not ready, with the reason, and requests fail with it at once. When it can be started again it is, without
// anybody's doing, and requests work.
func TestRestartsPauseLongerUpToALimit(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Limits.Backoff, cfg.Limits.BackoffMax = 4*time.Millisecond, 40*time.Millisecond
	log := &pauses{}
	cfg.Log = slog.New(log)
	remove, restore := removable(t, &cfg)
	o := pipelinetest.Open(t, cfg)
	remove()
	pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
	require.Eventually(t, func() bool {
		s := o.Stages()[1]
		if s.State == pipeline.StageReady && s.Restarts > 0 {
			t.Errorf("ready without an executable: %+v", s)
		}
		return len(log.all()) >= 12
	}, 30*time.Second, time.Millisecond)
	list := log.all()
	require.Less(t, list[0], 10*time.Millisecond, "the first pause is short")
	for i, pause := range list {
		require.LessOrEqual(t, pause, 60*time.Millisecond, "pause %d: the limit and its random part", i)
	}
	for _, pause := range list[8:] {
		require.Greater(t, pause, 15*time.Millisecond, "pauses grow: %v", list)
	}
	_, err := o.Generate(t.Context(), pipeline.Request{Prompt: "while it is gone"})
	require.ErrorContains(t, err, "stage 1 (talker)")
	require.ErrorContains(t, err, "no such file")

	restore()
	require.Eventually(t, func() bool { return o.Stages()[1].State == pipeline.StageReady }, 30*time.Second, time.Millisecond)
	s := o.Stages()[1]
	require.Empty(t, s.Error)
	require.GreaterOrEqual(t, s.Restarts, 12)
	r, err := o.Generate(t.Context(), pipeline.Request{Prompt: "after", MaxTokens: 5})
	require.NoError(t, err)
	check(t, r, "after", 5)
}

// A worker that was ready for long enough has the pauses after its death begin anew; one that dies soon after it was ready does
// not, however often it was ready.
func TestPausesBeginAnewAfterALongLife(t *testing.T) {
	const first, deaths = 4 * time.Millisecond, 9
	// A pause is half as long again as the one before, give or take half of it.
	shortest := func(n int) time.Duration {
		return time.Duration(float64(first) * math.Pow(backoff.DefaultMultiplier, float64(n)) * (1 - backoff.DefaultRandomizationFactor))
	}
	longest := time.Duration(float64(first) * (1 + backoff.DefaultRandomizationFactor))
	for _, test := range []struct {
		name string
		long time.Duration
		anew bool
	}{
		{"long", time.Nanosecond, true},
		{"short", time.Hour, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := pipelinetest.Config(t, nil)
			cfg.Limits.Backoff, cfg.Limits.BackoffMax, cfg.Limits.BackoffReset = first, time.Hour, test.long
			log := &pauses{}
			cfg.Log = slog.New(log)
			o := pipelinetest.Open(t, cfg)
			for death := range deaths {
				pipelinetest.Signal(t, o, 1, syscall.SIGKILL)
				restarted(t, o, 1, death+1)
			}
			list := log.all()
			require.Len(t, list, deaths)
			for n, pause := range list {
				if test.anew {
					require.LessOrEqual(t, pause, longest, "pause %d of %v", n, list)
				} else {
					require.GreaterOrEqual(t, pause, shortest(n), "pause %d of %v", n, list)
				}
			}
			require.Greater(t, shortest(deaths-1), longest, "the two cannot be confused")
		})
	}
}
