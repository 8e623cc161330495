package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/checkpoint/random"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/worker"
)

// memoryVariable says when a worker's memory is limited to little more than it has.
const memoryVariable = "OMNI_WORKER_TEST_MEMORY"

// The values of memoryVariable.
const (
	limitedAtStart = "start" // from its first moment on
	limitedInLoad  = "load"  // when the first part of its weights is loaded
)

// limitMemory bounds the address space of this process. It is done here and not from outside because the race detector maps
// terabytes before main.
func limitMemory(more uint64) error {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var pages uint64
	if _, err := fmt.Sscan(string(text), &pages); err != nil {
		return err
	}
	most := pages*uint64(os.Getpagesize()) + more
	return syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most})
}

// limited is a backend whose engines have no room for the second part of their weights.
type limited struct{ worker.Backend }

func (b limited) OpenEngine(config json.RawMessage) (worker.Engine, error) {
	e, err := b.Backend.OpenEngine(config)
	return limitedEngine{e}, err
}

type limitedEngine struct{ worker.Engine }

// Load implements worker.Engine. Half of a large tensor leaves room for everything but that tensor.
func (e limitedEngine) Load(progress func(done, total int64) error) error {
	return e.Engine.Load(func(done, total int64) error {
		if err := progress(done, total); err != nil || done == total {
			return err
		}
		return limitMemory(largeRows * tinyHidden * 4 / 2)
	})
}

// A checkpoint that is loaded in more than one part, since it has more tokens than a tiny one: the rows of the thinker's
// first and last matrix.
const (
	largeRows  = 750_000 // of 16 bits each value in the file: more than the 64 MiB of a part
	tinyHidden = 48
)

// writeLarge writes that checkpoint. What it has beyond the tiny one is holes in the file.
func writeLarge(t *testing.T, folder string) {
	t.Helper()
	_, err := random.Write(t.Context(), folder, random.Options{Preset: "tiny-a", Seed: 1, DType: random.BFloat16})
	require.NoError(t, err)

	path := filepath.Join(folder, "config.json")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, json.Unmarshal(text, &config))
	words := config["thinker_config"].(map[string]any)["text_config"].(map[string]any)
	require.EqualValues(t, tinyHidden, words["hidden_size"])
	words["vocab_size"] = largeRows
	text, err = json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text, 0o600))

	growTensors(t, filepath.Join(folder, "model.safetensors"), "thinker.model.embed_tokens.weight", "thinker.lm_head.weight")
}

// growTensors gives tensors of a file largeRows rows, whose new values are 0.
func growTensors(t *testing.T, path string, names ...string) {
	t.Helper()
	old, err := os.ReadFile(path)
	require.NoError(t, err)
	start := 8 + binary.LittleEndian.Uint64(old)
	var header map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(old[8:start], &header))
	delete(header, "__metadata__")
	type tensor struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	tensors := map[string]*tensor{}
	for name, text := range header {
		tensors[name] = &tensor{}
		require.NoError(t, json.Unmarshal(text, tensors[name]))
	}
	values := map[*tensor][]byte{}
	end := int64(0)
	for _, name := range slices.SortedFunc(maps.Keys(tensors), func(a, b string) int {
		return cmp.Compare(tensors[a].Offsets[0], tensors[b].Offsets[0])
	}) {
		tensor := tensors[name]
		values[tensor] = old[start:][tensor.Offsets[0]:tensor.Offsets[1]]
		bytes := int64(len(values[tensor]))
		if slices.Contains(names, name) {
			require.Equal(t, "BF16", tensor.DType)
			require.EqualValues(t, tinyHidden, tensor.Shape[1])
			tensor.Shape[0], bytes = largeRows, largeRows*tinyHidden*2
		}
		tensor.Offsets = [2]int64{end, end + bytes}
		end += bytes
	}
	text, err := json.Marshal(tensors)
	require.NoError(t, err)
	text = append(text, strings.Repeat(" ", (8-len(text)%8)%8)...)
	file, err := os.Create(path)
	require.NoError(t, err)
	_, err = file.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...))
	require.NoError(t, err)
	for tensor, bytes := range values {
		_, err = file.WriteAt(bytes, int64(8+len(text))+tensor.Offsets[0])
		require.NoError(t, err)
	}
	require.NoError(t, file.Truncate(int64(8+len(text))+end))
	require.NoError(t, file.Close())
}

// openLimited opens a pipeline whose workers hit a limit of memory.
func openLimited(t *testing.T, folder, limit string, progress func(pipeline.Progress)) error {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	o, err := pipeline.Open(t.Context(), pipeline.Config{
		Model: folder, DType: "float32", Progress: progress,
		WorkerPath: self, WorkerEnv: []string{workerVariable + "=1", memoryVariable + "=" + limit, "GORACE=atexit_sleep_ms=0"},
	})
	if err == nil {
		o.Close()
	}
	return err
}

// A real worker hits its limit of memory between two parts of its weights: the pipeline does not open, and says which stage
// was loading and what there was no memory for.
func TestMemoryLimitWhileLoadingIsAnErrorOfAStage(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "large")
	writeLarge(t, folder)
	var last pipeline.Progress // of the thinker
	err := openLimited(t, folder, limitedInLoad, func(p pipeline.Progress) {
		if p.Stage == 0 {
			last = p
		}
	})
	var stage *pipeline.StageError
	require.ErrorAs(t, err, &stage)
	require.Equal(t, 0, stage.Stage, err)
	require.Equal(t, message.ResourceExhausted, stage.Code)
	require.ErrorContains(t, err, "load")
	require.ErrorContains(t, err, fmt.Sprintf("%d bytes", largeRows*tinyHidden*4))
	require.Positive(t, last.Done, "the first part was loaded")
	require.Less(t, last.Done, last.Total, "and not the last")
}

// A limit that leaves no room for a thread ends the process, one way or another; which stage it was and what was seen of it
// is said.
func TestMemoryLimitAtTheStartIsAnErrorOfAStage(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "tiny")
	_, err := random.Write(t.Context(), folder, random.Options{Seed: 1})
	require.NoError(t, err)
	err = openLimited(t, folder, limitedAtStart, nil)
	var stage *pipeline.StageError
	require.ErrorAs(t, err, &stage)
	t.Logf("%.300s", err)
	require.NotEmpty(t, stage.Name)
	require.Regexp(t, "(?i)memory|allocate|pthread_create failed|thread: Resource temporarily", stage.Error())
}
