package family_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/checkpoint/random"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/prompt"
)

// golden is what transformers made of one request; see testdata/qwen2_5_omni/make_goldens.py.
type golden struct {
	Checkpoint struct {
		Preset string
		Seed   uint64
	}
	Messages       []prompt.Message
	Seed           int64
	Speaker        string
	Sampling       struct{ Thinker, Talker config.SamplingParams }
	RenderedPrompt string  `json:"rendered_prompt"`
	PromptTokenIDs []int64 `json:"prompt_token_ids"`
	TokenIDs       []int64 `json:"token_ids"`
	Text           string
}

func noEnv(string) string { return "" }

// open opens a family on a random checkpoint.
func open(t testing.TB, preset string, seed uint64) family.Model {
	t.Helper()
	dir := filepath.Join(t.TempDir(), preset)
	_, err := random.Write(t.Context(), dir, random.Options{Preset: preset, Seed: seed})
	require.NoError(t, err)
	return openFolder(t, dir)
}

func openFolder(t testing.TB, dir string) family.Model {
	t.Helper()
	folder, err := checkpoint.Open(dir, noEnv)
	require.NoError(t, err)
	f, err := family.Lookup(folder)
	require.NoError(t, err)
	m, err := f.Open(folder, f.DefaultConfig())
	require.NoError(t, err)
	return m
}

// infos are those of engines with that vocabulary and those speakers.
func infos(vocabulary int64, speakers ...string) map[int]family.StageInfo {
	return map[int]family.StageInfo{
		0: {VocabSize: vocabulary, MaxPositions: 4096},
		1: {Speakers: speakers, DefaultSpeaker: speakers[0]},
		2: {Speakers: speakers, DefaultSpeaker: speakers[0], SampleRate: 24000},
	}
}

func TestPromptsAndTextEqualTheReference(t *testing.T) {
	for _, preset := range []string{"tiny-a", "tiny-b", "tiny-c"} {
		t.Run(preset, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join("testdata", "qwen2_5_omni", preset, "*.json"))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			model := family.Model(nil)
			for _, file := range files {
				data, err := os.ReadFile(file)
				require.NoError(t, err)
				var g golden
				require.NoError(t, json.Unmarshal(data, &g), file)
				if model == nil {
					model = open(t, g.Checkpoint.Preset, g.Checkpoint.Seed)
				}
				checkGolden(t, model, g, filepath.Base(file))
			}
		})
	}
}

func checkGolden(t *testing.T, model family.Model, g golden, name string) {
	t.Helper()
	p, err := model.Prepare(family.Request{
		Messages: g.Messages, Speaker: g.Speaker, Seed: &g.Seed,
		Sampling: []config.SamplingParams{g.Sampling.Thinker, g.Sampling.Talker},
	}, infos(100_000, g.Speaker))
	require.NoError(t, err, name)
	assert.Equal(t, g.RenderedPrompt, p.RenderedPrompt, name)
	assert.Equal(t, g.PromptTokenIDs, p.PromptTokenIDs, name)
	assert.Equal(t, []int{0, 1, 2}, p.Stages, name)
	d := model.NewTextDecoder()
	assert.Equal(t, g.Text, d.Push(g.TokenIDs...)+d.Flush(), name)
}
