package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/config"
)

// base is a built-in configuration of three stages.
func base() *config.Config {
	stage := func(id int, name, final string, inputs ...int) config.Stage {
		return config.Stage{
			ID: id, Name: name, FinalOutput: final, Inputs: inputs, Device: "cpu", DType: "auto", MaxBatchSize: 16,
			Sampling: config.SamplingParams{TopP: config.Ptr(0.5), TopK: config.Ptr(int64(40))},
		}
	}
	speech := stage(2, "code2wav", "audio", 1)
	speech.Chunks = true
	return &config.Config{Source: "built-in", Stages: []config.Stage{
		stage(0, "thinker", "text"), stage(1, "talker", "", 0), speech,
	}}
}

func load(t *testing.T, name string) *config.Config {
	t.Helper()
	c, err := config.Load(filepath.Join("testdata", name), base())
	require.NoError(t, err)
	return c
}

func TestOlderFormIsReadOverTheDefaults(t *testing.T) {
	c := load(t, "stage_args.good.yml")
	require.Len(t, c.Stages, 3)
	assert.Equal(t, config.Stage{
		ID: 0, Name: "thinker", FinalOutput: "text", Device: "cuda:0", Threads: 2, DType: "bfloat16", MaxBatchSize: 4,
		Sampling: config.SamplingParams{
			Temperature: config.Ptr(0.0), TopP: config.Ptr(0.5), TopK: config.Ptr(int64(-1)), MaxTokens: config.Ptr(int64(2048)),
			RepetitionPenalty: config.Ptr(1.1), Seed: config.Ptr(int64(42)),
		},
	}, c.Stages[0])
	assert.Equal(t, []int64{8294}, c.Stages[1].Sampling.StopTokenIDs)
	assert.Equal(t, "cpu", c.Stages[1].Device)
	assert.Equal(t, map[string]any{
		"profiler": "torch", "torch_profiler_dir": "./profiles",
		"options": map[string]any{"with_stack": false, "ranks": []any{uint64(0), uint64(1)}},
	}, c.Stages[2].Profiler)
	assert.Contains(t, strings.Join(c.Notes, "\n"),
		"stage_args.good.yml:13: stage_args[0].engine_args.gpu_memory_utilization has no effect here: memory is taken as it is needed")
}

func TestNewerFormMayLeaveOutStages(t *testing.T) {
	c := load(t, "stages.good.yml")
	require.Len(t, c.Stages, 1)
	s := c.Stages[0]
	assert.Equal(t, "cuda:1", s.Device)
	assert.Equal(t, "float32", s.DType)
	assert.Equal(t, 8, s.MaxBatchSize)
	assert.Equal(t, int64(16), *s.Sampling.MaxTokens)
	assert.Equal(t, int64(40), *s.Sampling.TopK)
}

func TestBaseIsNotModified(t *testing.T) {
	b := base()
	_, err := config.Load(filepath.Join("testdata", "stage_args.good.yml"), b)
	require.NoError(t, err)
	assert.Equal(t, base(), b)
}

// Every *.bad.yml begins with the faults that it must give, all of them, one "# want:" line each.
func TestBadFilesReportAllFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			var want []string
			for line := range strings.Lines(string(data)) {
				if text, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, strings.TrimSpace(text))
				}
			}
			require.NotEmpty(t, want, "the file says no fault")
			_, err = config.Decode(data, name, base())
			require.Error(t, err)
			assert.ElementsMatch(t, want, strings.Split(err.Error(), "\n"))
		})
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	_, err := config.Load("testdata/absent.yml", base())
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "testdata/absent.yml")
}

func TestModesOfSpeech(t *testing.T) {
	c := load(t, "speech.good.yml")
	assert.Equal(t, config.Speech{
		Mode: config.ModeStream, InitialChunk: config.Ptr(int64(24)), Chunk: config.Ptr(int64(48)), RightContext: config.Ptr(int64(0)),
	}, c.Stages[2].Speech)
	assert.Equal(t, config.Speech{}, c.Stages[0].Speech)
	notes := strings.Join(c.Notes, "\n")
	assert.Contains(t, notes, "codec_left_context_frames has no effect here: what lies before a chunk is kept as it was computed, and seen whole")
	assert.Contains(t, notes, "connectors.near.extra.codec_chunk_frames has no effect here: chunks are set at the stage that makes sound of codes")
	assert.Equal(t, config.ModeStream, c.WithDefaultMode(config.ModeFull).Stages[2].Speech.Mode, "the file's word stands")
	assert.Equal(t, config.ModeFull, c.WithMode(config.ModeFull).Stages[2].Speech.Mode)

	b := base()
	assert.Equal(t, config.ModeStream, b.WithDefaultMode(config.ModeStream).Stages[2].Speech.Mode)
	assert.Empty(t, b.WithMode(config.ModeStream).Stages[1].Speech.Mode)
	assert.Equal(t, base(), b)
	b.Stages[0].Speech.Mode = config.ModeStream
	require.ErrorContains(t, b.Validate(), "stage 0: mode and sizes of chunks are set, but the stage does not work on chunks")
}

// A later layer wins setting by setting.
func TestMergeOfSpeech(t *testing.T) {
	under := config.Speech{Mode: config.ModeStream, InitialChunk: config.Ptr(int64(1)), Chunk: config.Ptr(int64(2))}
	got := under.Merge(config.Speech{Chunk: config.Ptr(int64(7)), RightContext: config.Ptr(int64(0))})
	assert.Equal(t, config.Speech{
		Mode: config.ModeStream, InitialChunk: config.Ptr(int64(1)), Chunk: config.Ptr(int64(7)), RightContext: config.Ptr(int64(0)),
	}, got)
	assert.Equal(t, config.ModeFull, under.Merge(config.Speech{Mode: config.ModeFull}).Mode)
}

func TestOverridesCopy(t *testing.T) {
	b := base()
	assert.Equal(t, "cuda:3", b.WithDevice("cuda:3").Stages[2].Device)
	assert.Equal(t, "float16", b.WithDType("float16").Stages[1].DType)
	assert.Equal(t, base(), b)
	require.NoError(t, b.Validate())
	require.ErrorContains(t, b.WithDevice("gpu").Validate(), `stage 2: devices: unknown device "gpu"`)
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yml")
	require.NoError(f, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte("stages: [{stage_id: !!str 0, <<: {a: b}, ? [x] : y, devices: |\n cpu}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Decode(data, "f.yml", base())
		if err == nil {
			assert.NoError(t, c.Validate())
		}
	})
}
