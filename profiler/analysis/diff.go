package analysis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// DiffOptions say what counts as a regression.
type DiffOptions struct {
	// Threshold is how much longer something must take: 0.05 for 5 %.
	Threshold float64
	// Alpha is the probability at which a change that is none is taken for one.
	Alpha float64
	// MinShare is the share of a step below which an operator does not count.
	MinShare float64
}

// Tests that tell a change from chance.
const (
	// TestSessions compares the typical times of whole sessions, of which each side has several (Welch's t-test).
	TestSessions = "sessions"
	// TestBlocks compares blocks of consecutive steps, since steps that follow each other are alike (Mann-Whitney). It knows
	// nothing of what differs from run to run of the same code.
	TestBlocks = "blocks"
)

// Change compares a stage's steps, or one operator in them, before and after.
type Change struct {
	Stage    int    `json:"stage"`
	Worker   string `json:"worker"`
	Name     string `json:"name"`     // "step" for the whole steps
	Category string `json:"category"` // empty for the whole steps
	// BeforeNS and AfterNS are the typical time in a step: the median, or the mean of what is not in most steps; of several
	// sessions, the median of theirs.
	BeforeNS float64 `json:"before_ns"`
	AfterNS  float64 `json:"after_ns"`
	// Ratio is AfterNS/BeforeNS; 0 for what is new.
	Ratio float64 `json:"ratio"`
	// P is the probability of such a difference if there were none, by the test of the StageSet, corrected by Holm for the
	// number of operators that were compared; 1 if there is too little to say.
	P float64 `json:"p"`
	// Regression says that it takes longer by more than the threshold, that this is no chance, and that it matters.
	Regression bool `json:"regression"`
}

// DeltaNS is what a step has become longer by.
func (c *Change) DeltaNS() float64 { return c.AfterNS - c.BeforeNS }

// Diff is the comparison of sessions.
type Diff struct {
	Before  []string   `json:"before"`
	After   []string   `json:"after"`
	Stages  []StageSet `json:"stages"`
	Skipped []string   `json:"skipped"` // workers that only one of the sides has, or not all of its sessions
}

// StageSet are the changes of one worker.
type StageSet struct {
	Stage       int      `json:"stage"`
	Worker      string   `json:"worker"`
	Test        string   `json:"test"` // TestSessions or TestBlocks
	StepsBefore int      `json:"steps_before"`
	StepsAfter  int      `json:"steps_after"`
	Step        Change   `json:"step"`
	Ops         []Change `json:"ops"` // by the size of the change, the largest first
}

// Regressions are all changes for the worse.
func (d *Diff) Regressions() []Change {
	var list []Change
	for _, s := range d.Stages {
		for _, c := range append([]Change{s.Step}, s.Ops...) {
			if c.Regression {
				list = append(list, c)
			}
		}
	}
	return list
}

// Compare compares the steps of sessions before and after a change, worker by worker.
func Compare(before, after []*Session, o DiffOptions) (*Diff, error) {
	if o.Threshold < 0 || o.Alpha <= 0 || o.Alpha >= 1 || o.MinShare < 0 {
		return nil, fmt.Errorf("compare: threshold %v and share %v must not be negative, alpha %v between 0 and 1", o.Threshold, o.MinShare, o.Alpha)
	}
	d := &Diff{Before: ids(before), After: ids(after), Stages: []StageSet{}, Skipped: []string{}}
	a, b := sideOf(before), sideOf(after)
	for _, who := range a.order {
		switch {
		case len(b.workers[who]) == 0:
			d.Skipped = append(d.Skipped, who.name+" (before)")
		default:
			d.Stages = append(d.Stages, compareWorkers(a.workers[who], b.workers[who], o))
		}
	}
	for _, who := range b.order {
		if len(a.workers[who]) == 0 {
			d.Skipped = append(d.Skipped, who.name+" (after)")
		}
	}
	if len(d.Stages) == 0 {
		return nil, errors.New("compare: the sessions have no worker in common")
	}
	d.Skipped = append(d.Skipped, slices.Concat(a.lacking(before), b.lacking(after))...)
	return d, nil
}

func ids(sessions []*Session) []string {
	list := []string{}
	for _, s := range sessions {
		list = append(list, s.ID)
	}
	return list
}

// workerKey is what the same worker has in common in several sessions.
type workerKey struct {
	stage, rank int
	name        string
}

func keyOf(w *Worker) workerKey { return workerKey{w.Stage, w.Rank, w.Worker} }

// side are the workers of the sessions before or after, each as often as there are sessions that have it.
type side struct {
	order   []workerKey
	workers map[workerKey][]*Worker
}

func sideOf(sessions []*Session) side {
	s := side{workers: map[workerKey][]*Worker{}}
	for _, session := range sessions {
		for _, w := range session.Workers {
			key := keyOf(w)
			if s.workers[key] == nil {
				s.order = append(s.order, key)
			}
			s.workers[key] = append(s.workers[key], w)
		}
	}
	return s
}

// lacking names the workers that some of the sessions have and others have not.
func (s side) lacking(sessions []*Session) (list []string) {
	for _, session := range sessions {
		for _, who := range s.order {
			if !slices.ContainsFunc(session.Workers, func(w *Worker) bool { return keyOf(w) == who }) {
				list = append(list, fmt.Sprintf("%s (not in %s)", who.name, session.ID))
			}
		}
	}
	return list
}

// compareWorkers compares one worker in all sessions before with the same in all sessions after.
func compareWorkers(before, after []*Worker, o DiffOptions) StageSet {
	set := StageSet{Stage: before[0].Stage, Worker: before[0].Worker, Test: TestBlocks, Ops: []Change{}}
	if len(before) > 1 && len(after) > 1 {
		set.Test = TestSessions
	}
	keys := map[nodeKey]struct{}{}
	note := func(workers []*Worker, steps *int) {
		for _, w := range workers {
			*steps += len(w.steps)
			for _, s := range w.steps {
				for key := range s.self {
					keys[key] = struct{}{}
				}
				for key := range s.device {
					keys[key] = struct{}{}
				}
			}
		}
	}
	note(before, &set.StepsBefore)
	note(after, &set.StepsAfter)
	compare := func(key nodeKey, times func(*Worker) []float64) Change {
		x, y := make([][]float64, len(before)), make([][]float64, len(after))
		for i, w := range before {
			x[i] = times(w)
		}
		for i, w := range after {
			y[i] = times(w)
		}
		c := Change{Stage: set.Stage, Worker: set.Worker, Name: key.name, Category: key.category}
		c.measure(set.Test, x, y)
		return c
	}
	set.Step = compare(nodeKey{name: "step"}, func(w *Worker) []float64 { return milliseconds(w.StepNS) })
	set.Step.judge(o, math.Inf(1))
	for key := range keys {
		set.Ops = append(set.Ops, compare(key, func(w *Worker) []float64 { return w.perStep(key) }))
	}
	holm(set.Ops)
	step := max(set.Step.BeforeNS, set.Step.AfterNS)
	for i := range set.Ops {
		c := &set.Ops[i]
		c.judge(o, max(c.BeforeNS, c.AfterNS)/step)
	}
	slices.SortFunc(set.Ops, func(a, b Change) int {
		return cmp.Or(cmp.Compare(math.Abs(b.DeltaNS()), math.Abs(a.DeltaNS())), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Category, b.Category))
	})
	return set
}

// perStep is the operator's self time in every step that keeps it, or what a GPU did of that name for it, in milliseconds.
func (w *Worker) perStep(key nodeKey) []float64 {
	list := make([]float64, 0, min(len(w.steps), maxDetailed))
	for _, s := range w.steps {
		if s.self != nil {
			list = append(list, ms(s.self[key]+s.device[key]))
		}
	}
	return list
}

// measure compares times in milliseconds, of each session in the order of its steps.
func (c *Change) measure(test string, before, after [][]float64) {
	typical := medianOf
	if medianOf(each(before, typical)) == 0 || medianOf(each(after, typical)) == 0 {
		typical = mean
	}
	x, y := each(before, typical), each(after, typical)
	c.BeforeNS, c.AfterNS = medianOf(x)*1e6, medianOf(y)*1e6
	if c.BeforeNS > 0 {
		c.Ratio = c.AfterNS / c.BeforeNS
	}
	if test == TestSessions {
		c.P = welch(x, y)
		return
	}
	c.P = mannWhitney(slices.Concat(blocks(before, typical)...), slices.Concat(blocks(after, typical)...))
}

// each returns what of makes of every session.
func each(sessions [][]float64, of func([]float64) float64) []float64 {
	list := make([]float64, len(sessions))
	for i, times := range sessions {
		list[i] = of(times)
	}
	return list
}

// maxBlocks is into how many blocks the steps of a session are put together. Something that disturbs a machine for a moment is
// then in a few of them, and not in hundreds of steps that look as if each said it anew.
const maxBlocks = 16

// blocks puts consecutive steps of each session together and returns what of makes of each block; few steps stay alone.
func blocks(sessions [][]float64, of func([]float64) float64) [][]float64 {
	list := make([][]float64, len(sessions))
	for i, times := range sessions {
		n := min(maxBlocks, len(times))
		for k := range n {
			list[i] = append(list[i], of(times[k*len(times)/n:(k+1)*len(times)/n]))
		}
	}
	return list
}

// judge decides whether the change is a regression; share is that of the step.
func (c *Change) judge(o DiffOptions, share float64) {
	longer := c.AfterNS > c.BeforeNS*(1+o.Threshold)
	c.Regression = longer && c.P < o.Alpha && share >= o.MinShare
}

// medianOf leaves the times in their order.
func medianOf(times []float64) float64 { return median(slices.Sorted(slices.Values(times))) }

func median(sorted []float64) float64 { return quantile(0.5, sorted) }

// quantile is 0 for nothing.
func quantile(p float64, sorted []float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return stat.Quantile(p, stat.Empirical, sorted, nil)
}

func mean(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	return stat.Mean(x, nil)
}

// minSteps is how many steps, or blocks of them, either side needs for a test to say anything.
const minSteps = 5

// welch is the probability that the means of two samples differ as much as they do if they came from normal distributions of
// one mean, whose variances may differ: two-sided. 1 for samples of one.
func welch(x, y []float64) float64 {
	if len(x) < 2 || len(y) < 2 {
		return 1
	}
	meanX, varX := stat.MeanVariance(x, nil)
	meanY, varY := stat.MeanVariance(y, nil)
	ex, ey := varX/float64(len(x)), varY/float64(len(y))
	if ex+ey == 0 {
		if meanX == meanY {
			return 1
		}
		return 0
	}
	t := (meanX - meanY) / math.Sqrt(ex+ey)
	freedom := (ex + ey) * (ex + ey) / (ex*ex/float64(len(x)-1) + ey*ey/float64(len(y)-1))
	return min(1, 2*distuv.StudentsT{Sigma: 1, Nu: freedom}.Survival(math.Abs(t)))
}

// mannWhitney is the probability that two samples differ in their ranks as much as they do if they came from one
// distribution: two-sided, by the normal approximation with corrections for ties and continuity. 1 for small samples.
func mannWhitney(x, y []float64) float64 {
	if len(x) < minSteps || len(y) < minSteps {
		return 1
	}
	type value struct {
		v     float64
		first bool
	}
	all := make([]value, 0, len(x)+len(y))
	for _, v := range x {
		all = append(all, value{v, true})
	}
	for _, v := range y {
		all = append(all, value{v, false})
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.v, b.v) })
	var rankSum, ties float64
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].v == all[i].v {
			j++
		}
		rank := float64(i+j+1) / 2 // the mean of the ranks i+1 to j
		for _, v := range all[i:j] {
			if v.first {
				rankSum += rank
			}
		}
		t := float64(j - i)
		ties += t*t*t - t
		i = j
	}
	n, m := float64(len(x)), float64(len(y))
	u := rankSum - n*(n+1)/2
	variance := n * m / 12 * ((n + m + 1) - ties/((n+m)*(n+m-1)))
	if variance <= 0 {
		return 1
	}
	z := max(0, math.Abs(u-n*m/2)-0.5) / math.Sqrt(variance)
	return min(1, 2*distuv.UnitNormal.Survival(z))
}

// holm corrects probabilities for the number of comparisons.
func holm(changes []Change) {
	order := make([]*Change, len(changes))
	for i := range changes {
		order[i] = &changes[i]
	}
	slices.SortFunc(order, func(a, b *Change) int { return cmp.Compare(a.P, b.P) })
	highest := 0.0
	for i, c := range order {
		highest = max(highest, min(1, c.P*float64(len(order)-i)))
		c.P = highest
	}
}
