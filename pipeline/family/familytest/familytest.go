// Package familytest reads what the reference computed with the random checkpoints of every model family, for the tests
// of each layer: the engines alone, the preparation of requests, and whole pipelines of processes.
//
// The goldens lie in pipeline/family/testdata, a folder per family of [random.Families] with a folder per checkpoint in it.
// A case is one request: <case>.json, which the fields of [Case] describe, and <case>.safetensors with float32 tensors named
// <stage>.<tensor>. The script make_goldens.py of the family wrote them, greedy and sampled, with the reference in float32
// on one thread. What a stage is, and what it hands on, is not in the goldens: tests take it from the family's own graph,
// so a test that loops with [EachCheckpoint] runs for a new family as soon as that has goldens.
package familytest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint/random"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/prompt"
)

// Case is one request and what the reference answered, stage by stage.
type Case struct {
	Name       string     `json:"case"`
	Checkpoint Checkpoint `json:"checkpoint"`
	// Reference says which versions made the golden; nothing depends on it.
	Reference      map[string]string `json:"reference"`
	Messages       []prompt.Message  `json:"messages"`
	Seed           int64             `json:"seed"`
	Speaker        string            `json:"speaker"`
	RenderedPrompt string            `json:"rendered_prompt"`
	PromptTokenIDs []int64           `json:"prompt_token_ids"`
	Text           string            `json:"text"`
	// Stages holds every stage of the family's graph by its name.
	Stages map[string]*Stage `json:"stages"`
	// ReferenceError says why the reference answered no more than the case holds. Ours ends without the rest.
	ReferenceError string `json:"reference_error"`
}

// Checkpoint says which checkpoint a case was computed with.
type Checkpoint struct {
	Family, Preset string
	Seed           uint64
	Path           string // instead of the three: a checkpoint that is not ours
	SHA256         string
}

// Stage is what one stage was given beyond the outputs of the stages before it, and what it answered.
type Stage struct {
	// Params go to the engine in place of what the family would choose: sampling, and whatever else the engine takes.
	Params       map[string]json.RawMessage `json:"params"`
	TokenIDs     []int64                    `json:"token_ids"`
	FinishReason string                     `json:"finish_reason"`
	RNGAfter     string                     `json:"rng_after"` // SHA-256 of the random generator's state that is handed on
	// Tolerances say how far the elements of a tensor that the stage hands out may be from the reference's.
	Tolerances map[string]float64 `json:"tolerances"`
	// Tensors are the reference's, by the same names; those are missing that it did not compute.
	Tensors map[string][]float32 `json:"-"`
}

// EachCheckpoint runs f as a subtest for every checkpoint of every family. testdata is the path of pipeline/family/testdata.
func EachCheckpoint(t *testing.T, testdata string, f func(t *testing.T, cases []*Case)) {
	t.Helper()
	for _, name := range random.Families() {
		entries, err := os.ReadDir(filepath.Join(testdata, name))
		require.NoError(t, err, "family %s has no goldens", name)
		checkpoints := 0
		for _, entry := range entries {
			if !entry.IsDir() {
				continue
			}
			checkpoints++
			t.Run(name+"/"+entry.Name(), func(t *testing.T) { f(t, Read(t, filepath.Join(testdata, name, entry.Name()))) })
		}
		require.Positive(t, checkpoints, "family %s has goldens of no checkpoint", name)
	}
}

// Read returns all cases in a folder.
func Read(tb testing.TB, folder string) []*Case {
	tb.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	require.NoError(tb, err)
	require.NotEmpty(tb, paths, "no goldens in %s", folder)
	cases := make([]*Case, len(paths))
	for i, path := range paths {
		cases[i], err = read(path)
		require.NoError(tb, err, path)
	}
	return cases
}

func read(path string) (*Case, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c := &Case{}
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, err
	}
	tensors, err := readTensors(strings.TrimSuffix(path, "json") + "safetensors")
	if err != nil {
		return nil, err
	}
	for _, s := range c.Stages {
		s.Tensors = map[string][]float32{}
	}
	for name, values := range tensors {
		stage, tensor, _ := strings.Cut(name, ".")
		s := c.Stages[stage]
		if s == nil {
			return nil, fmt.Errorf("tensor %s: there is no such stage", name)
		}
		if _, ok := s.Tolerances[tensor]; !ok {
			return nil, fmt.Errorf("tensor %s has no tolerance", name)
		}
		s.Tensors[tensor] = values
	}
	return c, nil
}

// readTensors reads a file of float32 tensors.
func readTensors(path string) (map[string][]float32, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) < 8 || uint64(len(data))-8 < binary.LittleEndian.Uint64(data) {
		return nil, errors.New("the header of the safetensors is cut off")
	}
	body := 8 + binary.LittleEndian.Uint64(data)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(data[8:body], &header); err != nil {
		return nil, err
	}
	delete(header, "__metadata__")
	tensors := map[string][]float32{}
	for name, text := range header {
		var entry struct {
			DType   string
			Offsets [2]uint64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(text, &entry); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", name, err)
		}
		if size := uint64(len(data)) - body; entry.DType != "F32" || entry.Offsets[0] > entry.Offsets[1] || entry.Offsets[1] > size {
			return nil, fmt.Errorf("tensor %s: got %+v in a file with %d bytes of data, want F32 inside of it", name, entry, size)
		}
		tensors[name] = Floats(data[body:][entry.Offsets[0]:entry.Offsets[1]])
	}
	return tensors, nil
}

// Floats decodes float32 numbers.
func Floats(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

// Distance returns the largest absolute difference; infinite for other lengths and for anything that is not a number.
func Distance(a, b []float32) float64 {
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

// Decibels returns the ratio of a signal to its difference from another of its length.
func Decibels(signal, other []float32) float64 {
	var power, difference float64
	for i := range signal {
		power += float64(signal[i]) * float64(signal[i])
		d := float64(signal[i]) - float64(other[i])
		difference += d * d
	}
	return 10 * math.Log10(power/max(difference, 1e-30))
}

// WriteCheckpoint writes the checkpoint of the case below parent, unless it is there, and checks that it is the one that the
// golden was made with.
func (c *Case) WriteCheckpoint(tb testing.TB, parent string) string {
	tb.Helper()
	if c.Checkpoint.Path != "" {
		return c.Checkpoint.Path
	}
	options := random.Options{Family: c.Checkpoint.Family, Preset: c.Checkpoint.Preset, Seed: c.Checkpoint.Seed}
	folder := filepath.Join(parent, fmt.Sprintf("%s-%s-%d", options.Family, options.Preset, options.Seed))
	if _, ok := random.Written(folder); !ok {
		_, err := random.Write(tb.Context(), folder, options)
		require.NoError(tb, err)
	}
	sum, err := random.Sum(folder)
	require.NoError(tb, err)
	if sum != c.Checkpoint.SHA256 {
		tb.Fatalf("make-checkpoint writes another %s %s (seed %d) than the one that golden %s was made with:\n got %s\nwant %s\n"+
			"If that is meant, run the family's make_goldens.py again and look at the difference.",
			options.Family, options.Preset, options.Seed, c.Name, sum, c.Checkpoint.SHA256)
	}
	return folder
}

// Sampling returns the sampling parameters of every stage, by position. What the golden does not name is off: left out, it
// would be the family's default.
func (c *Case) Sampling(tb testing.TB, stages []family.Stage) []config.SamplingParams {
	tb.Helper()
	off := config.SamplingParams{
		TopP: config.Ptr(1.0), TopK: config.Ptr(int64(-1)), RepetitionPenalty: config.Ptr(1.0), StopTokenIDs: []int64{},
	}
	all := make([]config.SamplingParams, len(stages))
	for i, stage := range stages {
		require.Contains(tb, c.Stages, stage.Name, "%s: the golden lacks a stage", c.Name)
		if text, ok := c.Stages[stage.Name].Params["sampling"]; ok {
			var own config.SamplingParams
			require.NoError(tb, json.Unmarshal(text, &own), "%s: %s", c.Name, stage.Name)
			all[i] = off.Merge(own)
		}
	}
	return all
}

// Askable reports whether a request can express the case: engines take more parameters than requests have.
func (c *Case) Askable() bool {
	for _, s := range c.Stages {
		for name := range s.Params {
			if name != "sampling" {
				return false
			}
		}
	}
	return true
}
