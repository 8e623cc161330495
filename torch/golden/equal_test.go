package golden_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/torch"
)

// TestEqualToTheReference answers every case alone.
func TestEqualToTheReference(t *testing.T) { familytest.EachCheckpoint(t, goldens, checkEqual) }

// TestManyAtOnceEqualAlone answers all cases together and each alone.
func TestManyAtOnceEqualAlone(t *testing.T) { familytest.EachCheckpoint(t, goldens, checkTogether) }

// ownGoldens names a folder that a family's make_goldens.py --out has written, for any other checkpoint.
const ownGoldens = "OMNI_GOLDENS"

func TestOwnCheckpoint(t *testing.T) {
	folder := os.Getenv(ownGoldens)
	if folder == "" {
		t.Skipf("%s is not set: see make_goldens.py of a family in %s", ownGoldens, goldens)
	}
	cases := familytest.Read(t, folder)
	t.Run("equal", func(t *testing.T) { checkEqual(t, cases) })
	t.Run("together", func(t *testing.T) { checkTogether(t, cases) })
}

// checkEqual compares the answer to each case, alone, with its golden.
func checkEqual(t *testing.T, cases []*familytest.Case) {
	p := openPipeline(t, cases[0].WriteCheckpoint(t, scratchFolder))
	worst := deviation{}
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			c.WriteCheckpoint(t, scratchFolder)
			f := &flow{golden: c, sequence: uint64(i + 1)}
			p.answer(t, f)
			require.NoError(t, f.failure)
			compare(t, p.family.Stages, f, worst)
		})
	}
	t.Logf("largest differences: %v", worst)
}

// checkTogether answers all cases together, joining one after the other, and compares bit by bit with each alone: what
// else runs must not change an answer.
func checkTogether(t *testing.T, cases []*familytest.Case) {
	p := openPipeline(t, cases[0].WriteCheckpoint(t, scratchFolder))
	together := make([]*flow, len(cases))
	for i, c := range cases {
		together[i] = &flow{golden: c, sequence: uint64(i + 1), late: 2 * (i % 5)}
	}
	p.answer(t, together...)
	for i, c := range cases {
		f := &flow{golden: c, sequence: uint64(i + 1)}
		p.answer(t, f)
		assert.Equal(t, f.failure, together[i].failure, c.Name)
		for stage := range f.passages {
			assert.Equal(t, f.passages[stage].outcome, together[i].passages[stage].outcome, "%s: %s", c.Name, p.family.Stages[stage].Name)
		}
	}
}

// deviation holds the largest difference of every tensor.
type deviation map[string]float64

// String returns the numbers in a fixed order.
func (d deviation) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(d)) {
		parts = append(parts, fmt.Sprintf("%s %.2g", name, d[name]))
	}
	return strings.Join(parts, ", ")
}

// compare checks an answer against its golden and notes how far it is from it.
func compare(t *testing.T, stages []family.Stage, f *flow, worst deviation) {
	t.Helper()
	g := f.golden
	assert.Equal(t, g.RenderedPrompt, f.prepared.RenderedPrompt)
	require.Equal(t, g.PromptTokenIDs, f.prepared.PromptTokenIDs, "token ids of the prompt")
	for i, stage := range stages {
		got, want := f.passages[i], g.Stages[stage.Name]
		require.True(t, slices.Equal(want.TokenIDs, got.tokens), "%s: token ids: got %v, want %v", stage.Name, got.tokens, want.TokenIDs)
		if want.FinishReason != "" {
			assert.Equal(t, want.FinishReason, got.finish.String(), "%s: finish reason", stage.Name)
		}
		if want.RNGAfter != "" {
			assert.Equal(t, want.RNGAfter, got.rng, "%s: state of the generator after the stage", stage.Name)
		}
		for name, tolerance := range want.Tolerances {
			values := familytest.Floats(got.tensors[name])
			reference, computed := want.Tensors[name]
			if !computed {
				assert.NotEmpty(t, g.ReferenceError, "%s: the golden lacks %s", stage.Name, name)
				assert.Empty(t, values, "%s: %s, which the reference cannot make", stage.Name, name)
				continue
			}
			d := familytest.Distance(reference, values)
			assert.LessOrEqual(t, d, tolerance, "%s: %s", stage.Name, name)
			worst[stage.Name+"."+name] = max(worst[stage.Name+"."+name], d)
		}
	}
}

// TestGoldensCoverWhatTheyShould fails when a change of a family's cases or presets loses a situation.
func TestGoldensCoverWhatTheyShould(t *testing.T) {
	speakers := map[string]int{} // by family, the most that one checkpoint has
	familytest.EachCheckpoint(t, goldens, func(t *testing.T, cases []*familytest.Case) {
		p := openPipeline(t, cases[0].WriteCheckpoint(t, scratchFolder))
		seen, voices := map[string]bool{}, map[string]bool{}
		for _, c := range cases {
			if c.Speaker != "" {
				voices[c.Speaker] = true
			}
			for _, situation := range situations(t, p.family, c) {
				seen[situation] = true
			}
		}
		for _, want := range wantedSituations(p.family) {
			assert.True(t, seen[want], "no case in which %s", want)
		}
		speakers[p.family.Name] = max(speakers[p.family.Name], len(voices))
	})
	for name, n := range speakers {
		assert.NotEqual(t, 1, n, "%s: every checkpoint's goldens have one speaker only", name)
	}
}

// situations says what a case shows, in the words of wantedSituations.
func situations(t *testing.T, f *family.Family, c *familytest.Case) []string {
	var seen []string
	choice := ""
	sampling := c.Sampling(t, f.Stages)
	for i, s := range f.Stages {
		stage := c.Stages[s.Name]
		if s.Kind == family.Autoregressive {
			seen = append(seen, s.Name+" ends by "+stage.FinishReason)
			choice += fmt.Sprintf("%s is greedy: %t; ", s.Name, *sampling[i].Temperature == 0)
		}
		switch s.Final {
		case family.Text:
			if len(stage.TokenIDs) == 1 {
				seen = append(seen, s.Name+" writes one token")
			}
		case family.Audio:
			seen = append(seen, fmt.Sprintf("%s makes sound: %t", s.Name, len(stage.Tensors) > 0))
		}
	}
	return append(seen, choice)
}

// wantedSituations are those that the goldens of a family have to show: every end, every limit, every mixture of greedy and
// sampled stages.
func wantedSituations(f *family.Family) []string {
	var wanted []string
	choices := []string{""}
	for _, s := range f.Stages {
		if s.Kind == family.Autoregressive {
			wanted = append(wanted, s.Name+" ends by "+torch.FinishStop.String(), s.Name+" ends by "+torch.FinishLength.String())
			var more []string
			for _, choice := range choices {
				for _, greedy := range []bool{true, false} {
					more = append(more, choice+fmt.Sprintf("%s is greedy: %t; ", s.Name, greedy))
				}
			}
			choices = more
		}
		switch s.Final {
		case family.Text:
			wanted = append(wanted, s.Name+" writes one token")
		case family.Audio:
			wanted = append(wanted, s.Name+" makes sound: true", s.Name+" makes sound: false")
		}
	}
	return append(wanted, choices...)
}
