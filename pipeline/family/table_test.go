package family

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint/random"
)

// Checkpoints with random weights are what the goldens of a family are made with: without them the suites that run over
// random.Families would leave the family out.
func TestEveryFamilyHasRandomCheckpoints(t *testing.T) {
	var names []string
	for _, f := range families {
		names = append(names, f.Name)
	}
	assert.ElementsMatch(t, names, random.Families())
}

func TestTheGraphsAreConsistent(t *testing.T) {
	for _, f := range families {
		t.Run(f.Name, func(t *testing.T) {
			c := f.DefaultConfig()
			require.NoError(t, c.Validate())
			require.Len(t, f.Sampling, len(f.Stages))
			for i, s := range f.Stages {
				assert.Equal(t, i, s.ID)
				assert.Equal(t, s.Name, c.Stages[i].Name)
				for _, in := range s.Inputs {
					assert.Less(t, in, s.ID, "a stage comes after its inputs")
					joins := func(e Edge) bool { return e.From == in && e.To == s.ID }
					assert.True(t, slices.ContainsFunc(f.Edges, joins), "no edge from %d to %d", in, s.ID)
				}
				if temperature := c.Stages[i].Sampling.Temperature; temperature != nil {
					usual := *temperature
					*temperature = usual + 5
					assert.InDelta(t, usual, *f.DefaultConfig().Stages[i].Sampling.Temperature, 0, "the default configuration shares memory with the table")
				}
			}
			for _, e := range f.Edges {
				to, ok := f.Stage(e.To)
				require.True(t, ok)
				assert.Contains(t, to.Inputs, e.From)
			}
		})
	}
}
