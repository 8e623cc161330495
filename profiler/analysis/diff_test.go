package analysis

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// session makes a session of one worker whose steps hold two operators with times in microseconds.
func session(seed uint64, steps int, slow, noise float64) *Session {
	random := rand.New(rand.NewPCG(seed, 1))
	w := &Worker{Worker: "stage-0"}
	for range steps {
		mm := int64((100*slow + noise*random.NormFloat64()) * 1000)
		relu := int64((20 + noise*random.NormFloat64()/5) * 1000)
		s := &stepTimes{ns: mm + relu, self: map[nodeKey]int64{{"mm", "cpu_op"}: mm, {"relu", "cpu_op"}: relu}}
		w.steps = append(w.steps, s)
		w.StepNS = append(w.StepNS, s.ns)
	}
	return &Session{ID: "s1", Workers: []*Worker{w}}
}

var strict = DiffOptions{Threshold: 0.05, Alpha: 0.01, MinShare: 0.01}

func TestDiffFindsWhatIsSlower(t *testing.T) {
	d, err := Compare(session(1, 100, 1, 5), session(2, 80, 1.2, 5), strict)
	require.NoError(t, err)
	stage := d.Stages[0]
	require.Equal(t, 100, stage.StepsBefore)
	require.Equal(t, 80, stage.StepsAfter)
	require.Equal(t, "mm", stage.Ops[0].Name)
	require.InDelta(t, 1.2, stage.Ops[0].Ratio, 0.03)
	require.InDelta(t, 1.17, stage.Step.Ratio, 0.03)
	require.Len(t, d.Regressions(), 2, "the step and mm, not relu")
	require.False(t, stage.Ops[1].Regression)
	faster, err := Compare(session(2, 80, 1.2, 5), session(1, 100, 1, 5), strict)
	require.NoError(t, err)
	require.Empty(t, faster.Regressions())
	require.Less(t, faster.Stages[0].Ops[0].P, 0.01)
}

// Sessions that differ by chance alone hardly ever count as different.
func TestDiffOfTheSame(t *testing.T) {
	found := 0
	for seed := range uint64(200) {
		d, err := Compare(session(seed, 30, 1, 20), session(seed+1000, 30, 1, 20), DiffOptions{Alpha: 0.01})
		require.NoError(t, err)
		found += len(d.Regressions())
	}
	require.LessOrEqual(t, found, 6)
}

func TestDiffNeedsSteps(t *testing.T) {
	d, err := Compare(session(1, 3, 1, 1), session(2, 3, 9, 1), strict)
	require.NoError(t, err)
	require.EqualValues(t, 1, d.Stages[0].Step.P)
	require.Empty(t, d.Regressions())
	_, err = Compare(session(1, 3, 1, 1), session(2, 3, 9, 1), DiffOptions{Alpha: 2})
	require.ErrorContains(t, err, "alpha 2")
	other := session(1, 3, 1, 1)
	other.Workers[0].Worker = "stage-1"
	_, err = Compare(session(1, 3, 1, 1), other, strict)
	require.ErrorContains(t, err, "no worker in common")
}

// The values are those of scipy.stats.mannwhitneyu(x, y, method="asymptotic").
func TestMannWhitney(t *testing.T) {
	tests := []struct {
		x, y []float64
		p    float64
	}{
		{[]float64{1, 2, 3, 4, 5, 6}, []float64{4, 5, 6, 7, 8, 9, 10}, 0.021722119820512295},
		{[]float64{1, 1, 2, 2, 3, 3}, []float64{1, 2, 2, 3, 3, 3}, 0.5504668540589885},
		{[]float64{5, 5, 5, 5, 5}, []float64{5, 5, 5, 5, 5}, 1},
	}
	for _, test := range tests {
		require.InDelta(t, test.p, mannWhitney(test.x, test.y), 1e-9)
	}
}

func TestHolm(t *testing.T) {
	changes := []Change{{P: 0.03}, {P: 0.01}, {P: 0.04}, {P: 0.5}}
	holm(changes)
	for i, want := range []float64{0.09, 0.04, 0.09, 0.5} {
		require.InDelta(t, want, changes[i].P, 1e-12)
	}
}
