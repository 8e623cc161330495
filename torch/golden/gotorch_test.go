package golden_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/wangkuiyi/gotorch"
	"github.com/wangkuiyi/gotorch/nn/functional"

	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/torch"
)

// The thinker's output layer, computed a second time by gotorch, which reaches libtorch through C code of its own: from
// the rows that the engine hands on, the same layer of the same weights must choose the same token at every step.
func TestGotorchComputesTheSameOutputLayer(t *testing.T) {
	for _, preset := range []string{"tiny-a", "tiny-b", "tiny-c"} {
		t.Run(preset, func(t *testing.T) {
			c := familytest.Read(t, filepath.Join(goldens, "qwen2_5_omni", preset))[0]
			folder := c.WriteCheckpoint(t, scratchFolder)
			p := openPipeline(t, folder)
			tokens, rows := think(t, p.engines[0], c.PromptTokenIDs)

			weights := readWeights(t, folder, "thinker.model.embed_tokens.weight", "thinker.lm_head.weight")
			embedding, head := weights[0], weights[1]
			if head.T == nil {
				head = embedding // tied
			}
			inputs := append(append([]int64{}, c.PromptTokenIDs...), tokens...)
			hidden := len(rows) / (len(inputs) - 1)
			for step, want := range tokens {
				at := len(c.PromptTokenIDs) - 1 + step // the place of the token that went in when want came out
				row := rows[at*hidden:][:hidden]
				require.Equal(t, want, mostLikely(row, inputs[at], embedding, head), "step %d", step)
			}
		})
	}
}

// think writes 24 tokens, always the most likely one, and returns them and all rows.
func think(t *testing.T, engine *torch.Engine, prompt []int64) (tokens []int64, rows []float32) {
	t.Helper()
	params, err := json.Marshal(map[string]any{
		"prompt_token_ids": prompt, "emit_rows": true,
		"sampling": map[string]any{"temperature": 0, "max_tokens": 24, "stop_token_ids": []int64{}},
	})
	require.NoError(t, err)
	onThread(t, func() error {
		if err := engine.Admit(1, params); err != nil {
			return err
		}
		for {
			results, err := engine.Step([]uint64{1})
			if err != nil {
				return err
			}
			tokens = append(tokens, results[0].Tokens...)
			for _, tensor := range results[0].Tensors {
				if tensor.Name == "prompt_rows" || tensor.Name == "reply_rows" {
					rows = append(rows, familytest.Floats(tensor.Data)...)
				}
			}
			switch results[0].State {
			case torch.Done:
				return engine.Release(1)
			case torch.Failed, torch.Waiting:
				return fmt.Errorf("the thinker is %s: %w", results[0].State, results[0].Err)
			case torch.Ready:
			}
		}
	})
	require.Greater(t, len(tokens), 5)
	return tokens, rows
}

// mostLikely takes the token's embedding off the row, which leaves the final hidden state, and applies the output layer.
func mostLikely(row []float32, token int64, embedding, head gotorch.Tensor) int64 {
	sum := gotorch.FromBlob(unsafe.Pointer(&row[0]), gotorch.Float, []int64{1, int64(len(row))})
	at := gotorch.FromBlob(unsafe.Pointer(&token), gotorch.Long, []int64{1})
	state := gotorch.Sub(sum, embedding.IndexSelect(0, at), 1)
	best := functional.Linear(state, head, gotorch.Tensor{}).Argmax().Item().(int64)
	for _, used := range []gotorch.Tensor{sum, at, state, head, embedding} { // their finalizers free them
		runtime.KeepAlive(used.T)
	}
	return best
}

// weightTypes are gotorch's numbers for the element types of checkpoints.
var weightTypes = map[string]int8{"F32": gotorch.Float, "F16": gotorch.Half, "BF16": gotorch.BFloat16}

// readWeights reads tensors of a checkpoint as float32; one that is not there has no T.
func readWeights(t *testing.T, folder string, names ...string) []gotorch.Tensor {
	t.Helper()
	weights := make([]gotorch.Tensor, len(names))
	paths, err := filepath.Glob(filepath.Join(folder, "*.safetensors"))
	require.NoError(t, err)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		length := binary.LittleEndian.Uint64(data)
		var header map[string]struct {
			DType   string
			Shape   []int64
			Offsets [2]int `json:"data_offsets"`
		}
		require.NoError(t, json.Unmarshal(data[8:8+length], &header), path)
		for i, name := range names {
			if entry, ok := header[name]; ok {
				part := data[8+length:][entry.Offsets[0]:entry.Offsets[1]]
				view := gotorch.FromBlob(unsafe.Pointer(&part[0]), weightTypes[entry.DType], entry.Shape)
				weights[i] = gotorch.Add(view.CastTo(gotorch.Float), gotorch.Full([]int64{1}, 0, false), 1) // a copy
				runtime.KeepAlive(view.T)
				runtime.KeepAlive(data)
			}
		}
	}
	return weights
}
