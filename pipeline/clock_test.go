package pipeline_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/picture"
	"github.com/omni-run/omni/profiler/trace"
)

// ahead is how far the clocks of the stages' workers are ahead of the pipeline's.
var ahead = []time.Duration{5 * time.Second, -3 * time.Second, 0}

// apart opens a pipeline whose workers have clocks of their own, records a session of some requests and returns its report.
func apart(t *testing.T) *pipeline.ProfileReport {
	t.Helper()
	o := profiled(t, map[string]pipelinetest.Script{
		pipelinetest.Thinker:  {Step: 5 * time.Millisecond, Ahead: ahead[0]},
		pipelinetest.Talker:   {Step: 3 * time.Millisecond, Ahead: ahead[1]},
		pipelinetest.Code2Wav: {Step: 20 * time.Millisecond, Ahead: ahead[2]},
	}, nil)
	_, err := o.StartProfile(nil)
	require.NoError(t, err)
	var requests sync.WaitGroup
	for _, id := range []string{"one", "two", "three"} {
		requests.Go(func() {
			if _, err := o.Generate(t.Context(), pipeline.Request{ID: id, Prompt: "hello " + id, MaxTokens: 30}); err != nil {
				t.Error(err)
			}
		})
	}
	requests.Wait()
	_, err = o.StopProfile(nil)
	require.NoError(t, err)
	report, err := o.WaitProfile(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, report.Pictures.Error)
	return report
}

// The clocks of workers are measured, and what the ledger says of them is on the pipeline's clock.
func TestLedgerOfWorkersWithOtherClocks(t *testing.T) {
	report := apart(t)
	about, requests, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	var unsure int64
	for stage, w := range about.Workers {
		require.Positive(t, w.ErrorNS)
		require.InDelta(t, ahead[stage].Nanoseconds(), w.OffsetNS, float64(w.ErrorNS), "the clock of stage %d", stage)
		unsure = max(unsure, w.ErrorNS)
	}
	require.Less(t, unsure, time.Second.Nanoseconds(), "the measurement says something")
	require.Len(t, requests, 3)
	for _, r := range requests {
		total := r.DoneNS - r.ArrivedNS
		sum := int64(0)
		for _, part := range r.CriticalPath() {
			require.Positive(t, part.NS(), "%+v", part)
			sum += part.NS()
		}
		require.InEpsilon(t, total, sum, 0.01)
		for i := range r.Stages {
			s := &r.Stages[i]
			inputs := int64(1) // the admission, and what every token of the stage before has caused
			after(t, unsure, r.ArrivedNS, s.DispatchedNS, s.ReceivedNS, s.FirstInputNS, s.FirstComputeNS, s.FirstOutputNS, s.LastOutputNS, s.DoneNS, r.DoneNS)
			for _, from := range s.From {
				after(t, unsure, r.Stages[from].FirstOutputNS, s.FirstInputNS)
				after(t, unsure, r.Stages[from].LastOutputNS, s.LastInputNS)
				inputs += r.Stages[from].Tokens + 1
				require.Positive(t, s.TransferNS)
			}
			inside := float64(s.ReceivedNS-s.DispatchedNS) + float64(s.QueueNS+s.WaitNS+s.ComputeNS) + float64(s.DoneNS-s.LastOutputNS)
			require.InEpsilon(t, float64(s.DoneNS-s.DispatchedNS), inside, 0.01, "stage %d", s.ID)
			require.Less(t, s.TransferNS, inputs*total, "stage %d: each input was under way for a part of the time", s.ID)
			for _, part := range r.StageParts(s) {
				require.Positive(t, part.NS(), "%+v", part)
			}
		}
	}
}

// after checks that moments follow each other, as far as the clocks that they were taken from are known.
func after(t *testing.T, unsure int64, moments ...int64) {
	t.Helper()
	for i := 1; i < len(moments); i++ {
		require.GreaterOrEqual(t, moments[i]+2*unsure, moments[i-1], "moment %d of %v", i, moments)
	}
}

// In the merged trace the steps of all workers lie where the requests were, arrows point forward, and each begins and ends in
// a slice of the request that it belongs to.
func TestMergedTraceOfWorkersWithOtherClocks(t *testing.T) {
	report := apart(t)
	about, _, err := ledger.Read(report.Ledger.Paths[0])
	require.NoError(t, err)
	var path string
	for _, f := range report.Pictures.Files {
		if f.Kind == picture.KindMerged {
			path = f.Path
		}
	}
	type place struct{ process, thread trace.ID }
	slices, starts, ends := map[place][]trace.Event{}, map[trace.ID]trace.Event{}, map[trace.ID]trace.Event{}
	var from, to int64 // of all requests
	var steps []trace.Event
	_, err = trace.Read(t.Context(), path, func(e *trace.Event) error {
		switch {
		case e.Phase == trace.Complete && e.Category == "request":
			slices[place{e.Process, e.Thread}] = append(slices[place{e.Process, e.Thread}], *e)
			if from == 0 || e.Time < from {
				from = e.Time
			}
			to = max(to, e.End())
		case e.Phase == trace.Complete && e.Category == "user_annotation" && e.Name != "stage.wait":
			steps = append(steps, *e)
		case e.Phase == trace.FlowStart:
			starts[e.Flow] = *e
		case e.Phase == trace.FlowEnd:
			ends[e.Flow] = *e
		}
		return nil
	})
	require.NoError(t, err)
	var unsure int64
	for _, w := range about.Workers {
		unsure = max(unsure, w.ErrorNS)
	}
	require.NotEmpty(t, steps)
	for _, step := range steps {
		after(t, unsure, from, step.Time, step.End(), to)
	}
	require.Len(t, starts, 6, "two for each request")
	for id, start := range starts {
		end := ends[id]
		require.GreaterOrEqual(t, end.Time, start.Time)
		for _, e := range []trace.Event{start, end} {
			require.True(t, covered(slices[place{e.Process, e.Thread}], e.Time), "%+v is in no slice", e)
		}
	}
	for _, w := range report.Workers { // what reports say themselves is on the worker's own clock
		require.InDelta(t, about.StampNS+ahead[w.Stage].Nanoseconds(), w.StartedNS, float64(time.Second.Nanoseconds()))
		require.Equal(t, profiler.StateDone, w.State)
	}
}

func covered(slices []trace.Event, at int64) bool {
	for _, s := range slices {
		if s.Time <= at && at <= s.End() {
			return true
		}
	}
	return false
}
