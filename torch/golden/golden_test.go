package golden_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint/random"
)

// goldenFolder holds one folder per checkpoint with two files per case, see make_goldens.py there.
const goldenFolder = "../../pipeline/family/testdata/qwen2_5_omni"

// A goldenCase is one request and what transformers answered, stage by stage.
type goldenCase struct {
	Case       string
	Checkpoint struct {
		Preset string
		Seed   uint64
		Path   string // instead of preset and seed: a checkpoint that is not ours
		SHA256 string
	}
	Seed     uint64
	Speaker  string
	Sampling struct {
		Thinker, Talker, Token2wav map[string]any
	}
	PromptTokenIDs  []int64 `json:"prompt_token_ids"`
	TokenIDs        []int64 `json:"token_ids"`
	FinishReason    string  `json:"finish_reason"`
	Codes           []int64 // nil where the reference failed before the talker
	CodesFinish     string  `json:"codes_finish"`
	RNGAfterThinker string  `json:"rng_after_thinker"` // SHA-256 of torch.get_rng_state()
	RNGAfterTalker  string  `json:"rng_after_talker"`
	ReferenceError  string  `json:"reference_error"`

	promptRows, replyRows, waveform []float32
}

// readCases reads all cases in a folder.
func readCases(t testing.TB, folder string) []*goldenCase {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, "no goldens in %s", folder)
	cases := make([]*goldenCase, len(paths))
	for i, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		cases[i] = &goldenCase{}
		require.NoError(t, json.Unmarshal(data, cases[i]), path)
		tensors := readSafetensors(t, path[:len(path)-len("json")]+"safetensors")
		cases[i].promptRows, cases[i].replyRows = tensors["prompt_rows"], tensors["reply_rows"]
		cases[i].waveform = tensors["waveform"]
	}
	return cases
}

// readSafetensors reads a file of float32 tensors.
func readSafetensors(t testing.TB, path string) map[string][]float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	length := binary.LittleEndian.Uint64(data)
	var header map[string]struct {
		DType   string
		Offsets [2]int `json:"data_offsets"`
	}
	require.NoError(t, json.Unmarshal(data[8:8+length], &header), path)
	tensors := map[string][]float32{}
	for name, entry := range header {
		if name == "__metadata__" {
			continue
		}
		require.Equal(t, "F32", entry.DType, "%s: %s", path, name)
		tensors[name] = floats(data[8+length:][entry.Offsets[0]:entry.Offsets[1]])
	}
	return tensors
}

// floats decodes float32 numbers.
func floats(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

// distance returns the largest absolute difference; infinite for other lengths and for anything that is not a number.
func distance(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	largest := 0.0
	for i := range a {
		d := math.Abs(float64(a[i]) - float64(b[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		largest = max(largest, d)
	}
	return largest
}

// folders holds the checkpoints that were written, by fingerprint, for the whole test binary.
var folders = struct {
	sync.Mutex
	made map[string]string
}{made: map[string]string{}}

// checkpoint writes the checkpoint of a case once and checks that it is the one that the goldens were made with.
func checkpoint(t testing.TB, c *goldenCase) string {
	t.Helper()
	if c.Checkpoint.Path != "" {
		return c.Checkpoint.Path
	}
	folders.Lock()
	defer folders.Unlock()
	options := random.Options{Family: "qwen2_5_omni", Preset: c.Checkpoint.Preset, Seed: c.Checkpoint.Seed}
	folder, ok := folders.made[c.Checkpoint.SHA256]
	if ok {
		return folder
	}
	folder = filepath.Join(scratchFolder, c.Checkpoint.Preset)
	_, err := random.Write(t.Context(), folder, options)
	require.NoError(t, err)
	sum, err := random.Sum(folder)
	require.NoError(t, err)
	if sum != c.Checkpoint.SHA256 {
		t.Fatalf("make-checkpoint writes another %s (seed %d) than the one that the goldens were made with:\n got %s\nwant %s\n"+
			"If that is meant, run %s/make_goldens.py again and look at the difference.",
			options.Preset, options.Seed, sum, c.Checkpoint.SHA256, goldenFolder)
	}
	folders.made[sum] = folder
	return folder
}
