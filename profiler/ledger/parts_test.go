package ledger

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// overlapping is a request whose stages work at the same time.
func overlapping() Request {
	return Request{
		ID: "r", ArrivedNS: 100, EnteredNS: 110, DoneNS: 1000,
		Stages: []Stage{
			{
				ID: 0, Name: "thinker", DispatchedNS: 112, ReceivedNS: 120, FirstInputNS: 120, LastInputNS: 120,
				FirstComputeNS: 150, LastComputeNS: 500, FirstOutputNS: 200, LastOutputNS: 501, DoneNS: 505,
			},
			{
				ID: 1, Name: "talker", From: []int{0}, DispatchedNS: 113, ReceivedNS: 121, FirstInputNS: 210, LastInputNS: 510,
				FirstComputeNS: 220, LastComputeNS: 800, FirstOutputNS: 230, LastOutputNS: 801, DoneNS: 803,
			},
			{
				ID: 2, Name: "code2wav", From: []int{1}, DispatchedNS: 114, ReceivedNS: 122, FirstInputNS: 240, LastInputNS: 810,
				FirstComputeNS: 815, LastComputeNS: 990, FirstOutputNS: 991, LastOutputNS: 991, DoneNS: 995,
			},
		},
	}
}

func TestCriticalPathSumsUpToTheRequest(t *testing.T) {
	r := overlapping()
	require.Equal(t, []Part{
		{Queue, 0, "thinker", 100, 112},
		{Transfer, 0, "thinker", 112, 120},
		{Queue, 0, "thinker", 120, 150},
		{Compute, 0, "thinker", 150, 501},
		{Transfer, 1, "talker", 501, 510},
		{Compute, 1, "talker", 510, 801},
		{Transfer, 2, "code2wav", 801, 810},
		{Queue, 2, "code2wav", 810, 815},
		{Compute, 2, "code2wav", 815, 991},
		{Transfer, 2, "code2wav", 991, 1000},
	}, r.CriticalPath())
	r.Error = "x"
	require.Nil(t, r.CriticalPath())
}

func TestHandOver(t *testing.T) {
	r := overlapping()
	out, in := r.Stages[1].HandOver(&r.Stages[0])
	require.Equal(t, []int64{200, 210}, []int64{out, in}, "the talker begins with its first input")
	out, in = r.Stages[2].HandOver(&r.Stages[1])
	require.Equal(t, []int64{801, 810}, []int64{out, in}, "code2wav begins with its last")
}

// Whatever the moments are, the parts neither overlap nor leave a gap.
func TestPartsTileTheirTime(t *testing.T) {
	r := overlapping()
	tests := []func(){
		func() {},
		func() { r.Stages[1].LastInputNS = 5 },
		func() { r.Stages[0].LastComputeNS = 5000 },
		func() { r.Stages[2].FirstComputeNS = 0 },
		func() { r.Stages[2].From = nil },
		func() { r.Stages[0].DispatchedNS = 0 },
	}
	for _, change := range tests {
		change()
		tile(t, r.CriticalPath(), r.ArrivedNS, r.DoneNS)
		for _, s := range r.Stages {
			if s.DispatchedNS > 0 {
				tile(t, r.StageParts(&s), s.DispatchedNS, s.DoneNS)
			} else {
				require.Nil(t, r.StageParts(&s))
			}
		}
	}
	r = overlapping()
	require.Equal(t, Part{Wait, 1, "talker", 121, 210}, r.StageParts(&r.Stages[1])[1])
	require.Equal(t, Part{Wait, 2, "code2wav", 122, 810}, r.StageParts(&r.Stages[2])[1])
}

// Of a request that runs, a stage's parts are those that are known, and it has no critical path yet.
func TestPartsOfARequestThatRuns(t *testing.T) {
	r := overlapping()
	r.Unfinished = true
	r.Stages[1].DoneNS = 0
	r.Stages[2] = Stage{ID: 2, Name: "code2wav", From: []int{1}, DispatchedNS: 114}
	require.Nil(t, r.CriticalPath())
	tile(t, r.StageParts(&r.Stages[0]), 112, 505)
	tile(t, r.StageParts(&r.Stages[1]), 113, 800)
	require.Empty(t, r.StageParts(&r.Stages[2]))
	start, end := r.StageSpan(&r.Stages[2])
	require.Equal(t, []int64{114, 1000}, []int64{start, end})
	r.Unfinished = false
	_, end = r.StageSpan(&r.Stages[1])
	require.Zero(t, end, "it failed there")
}

func tile(t *testing.T, parts []Part, start, end int64) {
	t.Helper()
	require.NotEmpty(t, parts)
	for _, p := range parts {
		require.Equal(t, start, p.StartNS, "%+v", parts)
		require.Positive(t, p.NS())
		start = p.EndNS
	}
	require.Equal(t, end, start, "%+v", parts)
}
