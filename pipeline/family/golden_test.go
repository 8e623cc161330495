package family_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/family/familytest"
)

func noEnv(string) string { return "" }

func openFolder(t testing.TB, dir string) (*family.Family, family.Model) {
	t.Helper()
	folder, err := checkpoint.Open(dir, noEnv)
	require.NoError(t, err)
	f, err := family.Lookup(folder)
	require.NoError(t, err)
	m, err := f.Open(folder, f.DefaultConfig())
	require.NoError(t, err)
	return f, m
}

// infos are those of engines with that vocabulary and those speakers.
func infos(vocabulary int64, speakers ...string) map[int]family.StageInfo {
	return map[int]family.StageInfo{
		0: {VocabSize: vocabulary, MaxPositions: 4096},
		1: {Speakers: speakers, DefaultSpeaker: speakers[0]},
		2: {Speakers: speakers, DefaultSpeaker: speakers[0], SampleRate: 24000},
	}
}

// every describes engines of all stages, so that a request can be prepared without them.
func every(stages []family.Stage, speaker string) map[int]family.StageInfo {
	all := map[int]family.StageInfo{}
	for _, s := range stages {
		all[s.ID] = family.StageInfo{
			VocabSize: 100_000, MaxPositions: 4096, Speakers: []string{speaker}, DefaultSpeaker: speaker, SampleRate: 24000,
		}
	}
	return all
}

func TestPromptsAndTextEqualTheReference(t *testing.T) {
	familytest.EachCheckpoint(t, "testdata", func(t *testing.T, cases []*familytest.Case) {
		f, model := openFolder(t, cases[0].WriteCheckpoint(t, t.TempDir()))
		for _, g := range cases {
			p, err := model.Prepare(family.Request{
				Messages: g.Messages, Speaker: g.Speaker, Seed: &g.Seed, Sampling: g.Sampling(t, f.Stages),
			}, every(f.Stages, g.Speaker))
			require.NoError(t, err, g.Name)
			assert.Equal(t, g.RenderedPrompt, p.RenderedPrompt, g.Name)
			assert.Equal(t, g.PromptTokenIDs, p.PromptTokenIDs, g.Name)
			assert.Len(t, p.Stages, len(f.Stages), g.Name)
			for _, s := range f.Stages {
				if s.Final == family.Text {
					d := model.NewTextDecoder()
					assert.Equal(t, g.Text, d.Push(g.Stages[s.Name].TokenIDs...)+d.Flush(), g.Name)
				}
			}
		}
	})
}
