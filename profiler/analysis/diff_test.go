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

func one(s *Session) []*Session { return []*Session{s} }

var strict = DiffOptions{Threshold: 0.05, Alpha: 0.01, MinShare: 0.01}

func TestDiffFindsWhatIsSlower(t *testing.T) {
	d, err := Compare(one(session(1, 100, 1, 5)), one(session(2, 80, 1.2, 5)), strict)
	require.NoError(t, err)
	stage := d.Stages[0]
	require.Equal(t, 100, stage.StepsBefore)
	require.Equal(t, 80, stage.StepsAfter)
	require.Equal(t, "mm", stage.Ops[0].Name)
	require.InDelta(t, 1.2, stage.Ops[0].Ratio, 0.03)
	require.InDelta(t, 1.17, stage.Step.Ratio, 0.03)
	require.Len(t, d.Regressions(), 2, "the step and mm, not relu")
	require.False(t, stage.Ops[1].Regression)
	faster, err := Compare(one(session(2, 80, 1.2, 5)), one(session(1, 100, 1, 5)), strict)
	require.NoError(t, err)
	require.Empty(t, faster.Regressions())
	require.Less(t, faster.Stages[0].Ops[0].P, 0.01)
}

// Sessions that differ by chance alone hardly ever count as different.
func TestDiffOfTheSame(t *testing.T) {
	found := 0
	for seed := range uint64(200) {
		d, err := Compare(one(session(seed, 30, 1, 20)), one(session(seed+1000, 30, 1, 20)), DiffOptions{Alpha: 0.01})
		require.NoError(t, err)
		found += len(d.Regressions())
	}
	require.LessOrEqual(t, found, 6)
}

// alike is a session whose steps are like those before them: times in milliseconds that drift around level.
func alike(seed uint64, steps int, level, drift float64) *Session {
	random := rand.New(rand.NewPCG(seed, 2))
	w := &Worker{Worker: "stage-0"}
	off := 0.0
	for range steps {
		off = 0.95*off + drift*random.NormFloat64()
		ns := int64((level + off) * 1e6)
		w.steps = append(w.steps, &stepTimes{ns: ns, self: map[nodeKey]int64{{"mm", "cpu_op"}: ns}})
		w.StepNS = append(w.StepNS, ns)
	}
	return &Session{ID: "s1", Workers: []*Worker{w}}
}

// Steps that are like those before them say less than as many that are not: most differences between two sessions of equal
// code would count, were each step taken for news. What remains is told in the output and in the documentation.
func TestDiffOfStepsThatAreAlike(t *testing.T) {
	steps, found := 0, 0
	for seed := range uint64(100) {
		a, b := alike(seed, 600, 100, 1), alike(seed+1000, 600, 100, 1)
		d, err := Compare(one(a), one(b), DiffOptions{Alpha: 0.01})
		require.NoError(t, err)
		require.Equal(t, TestBlocks, d.Stages[0].Test)
		if d.Stages[0].Step.P < 0.01 {
			found++
		}
		if mannWhitney(milliseconds(a.Workers[0].StepNS), milliseconds(b.Workers[0].StepNS)) < 0.01 {
			steps++
		}
	}
	require.Greater(t, steps, 50, "the steps are alike")
	require.Less(t, found, 10)
}

// Runs of equal code differ. Over several sessions a side that is no regression, and a change is one.
func TestDiffOfSeveralSessions(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	runs := func(level float64, count int) (list []*Session) {
		for range count {
			list = append(list, alike(random.Uint64(), 100, level*(1+0.02*random.NormFloat64()), 0.1))
		}
		return list
	}
	found, missed, single := 0, 0, 0
	for range 100 {
		before, after, slower := runs(100, 4), runs(100, 4), runs(120, 4)
		d, err := Compare(before, after, DiffOptions{Alpha: 0.01})
		require.NoError(t, err)
		require.Equal(t, TestSessions, d.Stages[0].Test)
		require.Equal(t, 400, d.Stages[0].StepsBefore)
		found += min(1, len(d.Regressions()))
		if d, err = Compare(before, slower, strict); err != nil || !d.Stages[0].Step.Regression {
			missed++
		}
		d, err = Compare(before[:1], after[:1], DiffOptions{Alpha: 0.01})
		require.NoError(t, err)
		single += min(1, len(d.Regressions()))
	}
	require.LessOrEqual(t, found, 5)
	require.LessOrEqual(t, missed, 2)
	require.Greater(t, single, 20, "one session a side does not know how much runs differ")
}

func TestDiffSaysWhatSomeSessionsLack(t *testing.T) {
	other := session(4, 10, 1, 1)
	other.ID, other.Workers[0].Worker = "s4", "stage-1"
	d, err := Compare([]*Session{session(1, 10, 1, 1), other}, []*Session{session(2, 10, 1, 1), session(3, 10, 1, 1)}, strict)
	require.NoError(t, err)
	require.Equal(t, []string{"s1", "s4"}, d.Before)
	require.Equal(t, TestBlocks, d.Stages[0].Test, "one session before has the worker")
	require.Equal(t, []string{"stage-1 (before)", "stage-1 (not in s1)", "stage-0 (not in s4)"}, d.Skipped)
}

func TestDiffNeedsSteps(t *testing.T) {
	d, err := Compare(one(session(1, 3, 1, 1)), one(session(2, 3, 9, 1)), strict)
	require.NoError(t, err)
	require.EqualValues(t, 1, d.Stages[0].Step.P)
	require.Empty(t, d.Regressions())
	_, err = Compare(one(session(1, 3, 1, 1)), one(session(2, 3, 9, 1)), DiffOptions{Alpha: 2})
	require.ErrorContains(t, err, "alpha 2")
	other := session(1, 3, 1, 1)
	other.Workers[0].Worker = "stage-1"
	_, err = Compare(one(session(1, 3, 1, 1)), one(other), strict)
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

// The values are those of the density of Student's distribution, integrated by Simpson's rule.
func TestWelch(t *testing.T) {
	tests := []struct {
		x, y []float64
		p    float64
	}{
		{[]float64{1, 2, 3, 4}, []float64{2.5, 3.5, 5, 7.5}, 0.15511778850425928},
		{[]float64{10, 11}, []float64{20, 21.5, 22}, 0.0009701355438106463},
		{[]float64{5, 5}, []float64{5, 5}, 1},
		{[]float64{0, 0}, []float64{5, 5}, 0},
		{[]float64{5}, []float64{7, 8, 9}, 1},
	}
	for _, test := range tests {
		require.InDelta(t, test.p, welch(test.x, test.y), 1e-9)
	}
}

func TestHolm(t *testing.T) {
	changes := []Change{{P: 0.03}, {P: 0.01}, {P: 0.04}, {P: 0.5}}
	holm(changes)
	for i, want := range []float64{0.09, 0.04, 0.09, 0.5} {
		require.InDelta(t, want, changes[i].P, 1e-12)
	}
}
