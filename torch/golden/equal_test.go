package golden_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/torch"
)

// How far a float32 computation may be from the reference's. Ids and codes must be equal.
const (
	rowsTolerance  = 1e-4 // of hidden rows, whose elements are around 1
	audioTolerance = 2e-3 // of samples, which lie in [-1, 1]
)

var presets = []string{"tiny-a", "tiny-b", "tiny-c"}

// TestEqualToTransformers answers every case alone.
func TestEqualToTransformers(t *testing.T) {
	for _, preset := range presets {
		t.Run(preset, func(t *testing.T) { checkEqual(t, readCases(t, filepath.Join(goldenFolder, preset))) })
	}
}

// TestManyAtOnceEqualAlone answers all cases together and each alone.
func TestManyAtOnceEqualAlone(t *testing.T) {
	for _, preset := range presets {
		t.Run(preset, func(t *testing.T) { checkTogether(t, readCases(t, filepath.Join(goldenFolder, preset))) })
	}
}

// ownGoldens names a folder that make_goldens.py --out has written, for any other checkpoint.
const ownGoldens = "OMNI_GOLDENS"

func TestOwnCheckpoint(t *testing.T) {
	folder := os.Getenv(ownGoldens)
	if folder == "" {
		t.Skipf("%s is not set: see %s/make_goldens.py", ownGoldens, goldenFolder)
	}
	cases := readCases(t, folder)
	t.Run("equal", func(t *testing.T) { checkEqual(t, cases) })
	t.Run("together", func(t *testing.T) { checkTogether(t, cases) })
}

// checkEqual compares the answer to each case, alone, with its golden.
func checkEqual(t *testing.T, cases []*goldenCase) {
	p := openPipeline(t, checkpoint(t, cases[0]))
	var worst deviation
	for i, c := range cases {
		t.Run(c.Case, func(t *testing.T) {
			checkpoint(t, c)
			f := &flow{golden: c, sequence: uint64(i + 1)}
			onThread(t, func() error { return p.run([]*flow{f}) })
			require.NoError(t, f.failure)
			worst.add(compare(t, f))
		})
	}
	t.Logf("largest differences: %v", worst)
}

// checkTogether answers all cases together, joining one after the other, and compares bit by bit with each alone: what
// else runs must not change an answer.
func checkTogether(t *testing.T, cases []*goldenCase) {
	p := openPipeline(t, checkpoint(t, cases[0]))
	together := make([]*flow, len(cases))
	for i, c := range cases {
		together[i] = &flow{golden: c, sequence: uint64(i + 1), late: 2 * (i % 5)}
	}
	onThread(t, func() error { return p.run(together) })
	for i, c := range cases {
		f := &flow{golden: c, sequence: uint64(i + 1)}
		onThread(t, func() error { return p.run([]*flow{f}) })
		assert.Equal(t, f.failure, together[i].failure, c.Case)
		assert.Equal(t, f.tokens, together[i].tokens, c.Case)
		assert.Equal(t, f.finish, together[i].finish, c.Case)
		assert.Equal(t, f.rng, together[i].rng, c.Case)
		for _, name := range []string{"prompt_rows", "reply_rows", "audio"} {
			d := distance(floats(f.tensors[name]), floats(together[i].tensors[name]))
			assert.Zero(t, d, "%s: %s", c.Case, name)
		}
	}
}

// deviation holds the largest differences of some answers.
type deviation struct{ prompt, reply, audio float64 }

func (d *deviation) add(other deviation) {
	d.prompt, d.reply, d.audio = max(d.prompt, other.prompt), max(d.reply, other.reply), max(d.audio, other.audio)
}

// String returns the three numbers.
func (d deviation) String() string {
	return fmt.Sprintf("prompt rows %.2g, reply rows %.2g (tolerance %g), samples %.2g (tolerance %g)",
		d.prompt, d.reply, rowsTolerance, d.audio, audioTolerance)
}

// compare checks an answer against its golden and returns how far it is from it.
func compare(t *testing.T, f *flow) deviation {
	t.Helper()
	g := f.golden
	require.Equal(t, g.TokenIDs, f.tokens[0], "token ids")
	assert.Equal(t, g.FinishReason, f.finish[0].String(), "finish reason")
	assert.Equal(t, g.RNGAfterThinker, f.rng[0], "generator's state after the thinker")
	d := deviation{
		prompt: distance(g.promptRows, floats(f.tensors["prompt_rows"])),
		reply:  distance(g.replyRows, floats(f.tensors["reply_rows"])),
	}
	assert.LessOrEqual(t, d.prompt, rowsTolerance, "prompt rows")
	assert.LessOrEqual(t, d.reply, rowsTolerance, "reply rows")
	if len(g.Codes) == 0 {
		// The reference fails without codes. Ours ends without audio.
		assert.Empty(t, f.tokens[1], "codes")
		assert.Empty(t, f.tensors["audio"], "audio")
		assert.NotEmpty(t, g.ReferenceError)
		return d
	}
	require.Equal(t, g.Codes, f.tokens[1], "codes")
	assert.Equal(t, g.CodesFinish, f.finish[1].String(), "why the codes end")
	assert.Equal(t, g.RNGAfterTalker, f.rng[1], "generator's state after the talker")
	audio := floats(f.tensors["audio"])
	require.Len(t, audio, len(g.waveform), "samples")
	d.audio = distance(g.waveform, audio)
	assert.LessOrEqual(t, d.audio, audioTolerance, "samples")
	return d
}

// TestGoldensCoverWhatTheyShould fails when a change of cases.py or of a preset loses a situation.
func TestGoldensCoverWhatTheyShould(t *testing.T) {
	for _, preset := range presets {
		seen := map[string]bool{}
		speakers := map[string]bool{}
		for _, c := range readCases(t, filepath.Join(goldenFolder, preset)) {
			speakers[c.Speaker] = true
			seen["thinker ends by "+c.FinishReason] = true
			seen["talker ends by "+c.CodesFinish] = true
			seen[fmt.Sprintf("audio %t", len(c.waveform) > 0)] = true
			seen[fmt.Sprintf("one token %t", len(c.TokenIDs) == 1)] = true
			seen[fmt.Sprintf("greedy thinker %v, greedy talker %v",
				c.Sampling.Thinker["temperature"] == 0.0, c.Sampling.Talker["temperature"] == 0.0)] = true
		}
		for _, want := range []string{
			"thinker ends by " + torch.FinishStop.String(), "thinker ends by " + torch.FinishLength.String(),
			"talker ends by " + torch.FinishStop.String(), "talker ends by " + torch.FinishLength.String(),
			"audio true", "audio false", "one token true",
			"greedy thinker true, greedy talker true", "greedy thinker true, greedy talker false",
			"greedy thinker false, greedy talker true", "greedy thinker false, greedy talker false",
		} {
			assert.True(t, seen[want], "%s: no case with %s", preset, want)
		}
		if preset != "tiny-b" {
			assert.Greater(t, len(speakers), 1, "%s: one speaker only", preset)
		}
	}
}
