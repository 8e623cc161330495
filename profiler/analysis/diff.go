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

// Change compares a stage's steps, or one operator in them, between two sessions.
type Change struct {
	Stage    int    `json:"stage"`
	Worker   string `json:"worker"`
	Name     string `json:"name"`     // "step" for the whole steps
	Category string `json:"category"` // empty for the whole steps
	// BeforeNS and AfterNS are the typical time in a step: the median, or the mean of what is not in most steps.
	BeforeNS float64 `json:"before_ns"`
	AfterNS  float64 `json:"after_ns"`
	// Ratio is AfterNS/BeforeNS; 0 for what is new.
	Ratio float64 `json:"ratio"`
	// P is the probability of such a difference if there were none (Mann-Whitney, corrected by Holm for the number of
	// operators that were compared); 1 if there are too few steps to say.
	P float64 `json:"p"`
	// Regression says that it takes longer by more than the threshold, that this is no chance, and that it matters.
	Regression bool `json:"regression"`
}

// DeltaNS is what a step has become longer by.
func (c *Change) DeltaNS() float64 { return c.AfterNS - c.BeforeNS }

// Diff is the comparison of two sessions.
type Diff struct {
	Before  string     `json:"before"`
	After   string     `json:"after"`
	Stages  []StageSet `json:"stages"`
	Skipped []string   `json:"skipped"` // workers that only one of the sessions has
}

// StageSet are the changes of one worker.
type StageSet struct {
	Stage       int      `json:"stage"`
	Worker      string   `json:"worker"`
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

// Compare compares the steps of two sessions, worker by worker.
func Compare(before, after *Session, o DiffOptions) (*Diff, error) {
	if o.Threshold < 0 || o.Alpha <= 0 || o.Alpha >= 1 || o.MinShare < 0 {
		return nil, fmt.Errorf("compare: threshold %v and share %v must not be negative, alpha %v between 0 and 1", o.Threshold, o.MinShare, o.Alpha)
	}
	d := &Diff{Before: before.ID, After: after.ID, Stages: []StageSet{}, Skipped: []string{}}
	same := func(w *Worker) func(*Worker) bool {
		return func(v *Worker) bool { return v.Stage == w.Stage && v.Rank == w.Rank && v.Worker == w.Worker }
	}
	for _, a := range before.Workers {
		i := slices.IndexFunc(after.Workers, same(a))
		if i < 0 {
			d.Skipped = append(d.Skipped, a.Worker+" (before)")
			continue
		}
		d.Stages = append(d.Stages, compareWorkers(a, after.Workers[i], o))
	}
	for _, b := range after.Workers {
		if !slices.ContainsFunc(before.Workers, same(b)) {
			d.Skipped = append(d.Skipped, b.Worker+" (after)")
		}
	}
	if len(d.Stages) == 0 {
		return nil, errors.New("compare: the sessions have no worker in common")
	}
	return d, nil
}

func compareWorkers(a, b *Worker, o DiffOptions) StageSet {
	set := StageSet{Stage: a.Stage, Worker: a.Worker, StepsBefore: len(a.steps), StepsAfter: len(b.steps), Ops: []Change{}}
	x, y := milliseconds(a.StepNS), milliseconds(b.StepNS)
	set.Step = change(a, nodeKey{name: "step"}, x, y)
	set.Step.judge(o, math.Inf(1))
	keys := map[nodeKey]struct{}{}
	for _, w := range []*Worker{a, b} {
		for _, s := range w.steps {
			for key := range s.self {
				keys[key] = struct{}{}
			}
			for key := range s.device {
				keys[key] = struct{}{}
			}
		}
	}
	for key := range keys {
		set.Ops = append(set.Ops, change(a, key, a.perStep(key), b.perStep(key)))
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

// change compares two samples in milliseconds; it sorts them.
func change(w *Worker, key nodeKey, x, y []float64) Change {
	c := Change{Stage: w.Stage, Worker: w.Worker, Name: key.name, Category: key.category, P: mannWhitney(x, y)}
	slices.Sort(x)
	slices.Sort(y)
	before, after := median(x), median(y)
	if before == 0 || after == 0 {
		before, after = mean(x), mean(y)
	}
	c.BeforeNS, c.AfterNS = before*1e6, after*1e6
	if before > 0 {
		c.Ratio = after / before
	}
	return c
}

// judge decides whether the change is a regression; share is that of the step.
func (c *Change) judge(o DiffOptions, share float64) {
	longer := c.AfterNS > c.BeforeNS*(1+o.Threshold)
	c.Regression = longer && c.P < o.Alpha && share >= o.MinShare
}

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

// minSteps is how many steps either side needs for a test to say anything.
const minSteps = 5

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
