package golden_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/wangkuiyi/gotorch"
	"github.com/wangkuiyi/gotorch/nn/functional"

	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/torch"
)

// The thinker, computed a second time from the same weights: every product of matrices through gotorch, which reaches
// libtorch through C code of its own, what is between them in plain Go. The rows that the engine hands to the talker (a
// token's embedding plus its last hidden state) must have the same numbers, for the prompt in one pass and for the reply
// token by token; and the output layer must choose the same tokens.
func TestGotorchComputesTheSameRows(t *testing.T) {
	for _, preset := range []string{"tiny-a", "tiny-b", "tiny-c"} {
		t.Run(preset, func(t *testing.T) {
			c := familytest.Read(t, filepath.Join(goldens, "qwen2_5_omni", preset))[0]
			folder := c.WriteCheckpoint(t, scratchFolder)
			tokens, rows := think(t, openPipeline(t, folder).engines[0], c.PromptTokenIDs)

			oracle := openOracle(t, folder)
			inputs := append(slices.Clone(c.PromptTokenIDs), tokens[:len(tokens)-1]...) // the last is nobody's input
			embedded, hidden := oracle.forward(inputs)
			want := added(embedded, hidden)
			require.Len(t, rows, len(want))
			d := familytest.Distance(want, rows)
			require.LessOrEqual(t, d, 5e-5, "of elements around 1")
			t.Logf("%d rows of %d elements, largest difference %.2g", len(inputs), oracle.size, d)
			written := hidden[(len(c.PromptTokenIDs)-1)*oracle.size:]
			require.Equal(t, tokens, oracle.mostLikely(written))
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

// matrix is a weight, row by row: out x in.
type matrix struct {
	values  []float32
	out, in int
}

// oracle is a Qwen2.5 text decoder (Qwen2.5 Technical Report, arXiv 2412.15115) that computes all tokens of a text at once,
// without a cache. Rows of n elements lie one after the other.
type oracle struct {
	weights map[string]matrix // by the names of the checkpoint below thinker.
	size    int               // elements of a row
	layers  int
	heads   int
	groups  int // heads that share keys and values
	eps     float64
	theta   float64
	window  func(layer int) int // how far a token sees back, itself included
}

// openOracle reads the thinker of a checkpoint, in either spelling of config.json.
func openOracle(t *testing.T, folder string) *oracle {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "config.json"))
	require.NoError(t, err)
	var file struct {
		Thinker struct {
			Text struct {
				Size       int      `json:"hidden_size"`
				Layers     int      `json:"num_hidden_layers"`
				Heads      int      `json:"num_attention_heads"`
				KeyHeads   int      `json:"num_key_value_heads"`
				Eps        float64  `json:"rms_norm_eps"`
				Theta      *float64 `json:"rope_theta"`
				UseWindow  bool     `json:"use_sliding_window"`
				Window     int      `json:"sliding_window"`
				FullLayers int      `json:"max_window_layers"`
				Rope       struct {
					Theta *float64 `json:"rope_theta"`
				} `json:"rope_parameters"`
			} `json:"text_config"`
		} `json:"thinker_config"`
	}
	require.NoError(t, json.Unmarshal(text, &file))
	c := file.Thinker.Text
	o := &oracle{
		weights: readWeights(t, folder), size: c.Size, layers: c.Layers, heads: c.Heads, groups: c.Heads / c.KeyHeads, eps: c.Eps,
	}
	for _, theta := range []*float64{c.Theta, c.Rope.Theta} {
		if theta != nil {
			o.theta = *theta
		}
	}
	require.Positive(t, o.theta)
	o.window = func(layer int) int {
		if c.UseWindow && layer >= c.FullLayers {
			return c.Window
		}
		return math.MaxInt
	}
	return o
}

// forward returns the embeddings of tokens and their hidden states after the last norm.
func (o *oracle) forward(tokens []int64) (embedded, hidden []float32) {
	table := o.weights["model.embed_tokens.weight"]
	for _, token := range tokens {
		embedded = append(embedded, table.values[int(token)*o.size:][:o.size]...)
	}
	hidden = embedded
	for i := range o.layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		hidden = added(hidden, o.attention(layer+"self_attn.", o.window(i), o.norm(layer+"input_layernorm.weight", hidden)))
		normed := o.norm(layer+"post_attention_layernorm.weight", hidden)
		gate, up := o.linear(layer+"mlp.gate_proj", normed), o.linear(layer+"mlp.up_proj", normed)
		for k := range up {
			up[k] *= gate[k] / float32(1+math.Exp(-float64(gate[k])))
		}
		hidden = added(hidden, o.linear(layer+"mlp.down_proj", up))
	}
	return embedded, o.norm("model.norm.weight", hidden)
}

// attention mixes the rows that each token may see, head by head.
func (o *oracle) attention(name string, window int, rows []float32) []float32 {
	tokens := len(rows) / o.size
	queries, keys, values := o.linear(name+"q_proj", rows), o.linear(name+"k_proj", rows), o.linear(name+"v_proj", rows)
	width := len(queries) / tokens / o.heads
	mixed := make([]float32, len(queries))
	for head := range o.heads {
		q, k := o.rotated(column(queries, tokens, head, width)), o.rotated(column(keys, tokens, head/o.groups, width))
		v := column(values, tokens, head/o.groups, width)
		scores := product(q, k)
		for i := range tokens {
			soften(scores.values[i*tokens:][:tokens], i-min(window-1, i), i, math.Sqrt(float64(width)))
		}
		for i, value := range product(scores, v.transposed()).values {
			mixed[i/width*width*o.heads+head*width+i%width] = value
		}
	}
	return o.linear(name+"o_proj", mixed)
}

// rotated turns the two halves of every row against each other by angles that grow with its position.
func (o *oracle) rotated(m matrix) matrix {
	half := m.in / 2
	for position := range m.out {
		row := m.values[position*m.in:][:m.in]
		for i := range half {
			sin, cos := math.Sincos(float64(position) * math.Pow(o.theta, -float64(i)/float64(half)))
			a, b := float64(row[i]), float64(row[half+i])
			row[i], row[half+i] = float32(a*cos-b*sin), float32(b*cos+a*sin)
		}
	}
	return m
}

// norm scales every row to a mean square of 1, then by the weight.
func (o *oracle) norm(name string, rows []float32) []float32 {
	weight := o.weights[name].values
	out := make([]float32, len(rows))
	for at := 0; at < len(rows); at += o.size {
		squares := 0.0
		for _, v := range rows[at:][:o.size] {
			squares += float64(v) * float64(v)
		}
		scale := 1 / math.Sqrt(squares/float64(o.size)+o.eps)
		for i, v := range rows[at:][:o.size] {
			out[at+i] = float32(float64(v)*scale) * weight[i]
		}
	}
	return out
}

// mostLikely applies the output layer, which is the table of embeddings where a checkpoint stores none.
func (o *oracle) mostLikely(hidden []float32) (tokens []int64) {
	head := "lm_head"
	if _, stored := o.weights[head+".weight"]; !stored {
		head = "model.embed_tokens"
	}
	logits := o.linear(head, hidden)
	for size := o.weights[head+".weight"].out; len(logits) > 0; logits = logits[size:] {
		tokens = append(tokens, int64(slices.Index(logits[:size], slices.Max(logits[:size]))))
	}
	return tokens
}

// linear applies a layer of the checkpoint to every row.
func (o *oracle) linear(name string, rows []float32) []float32 {
	weight := o.weights[name+".weight"]
	return product(matrix{rows, len(rows) / weight.in, weight.in}, weight, o.weights[name+".bias"].values...).values
}

// product is a·bᵀ plus the bias, if there is one, through gotorch.
func product(a, b matrix, bias ...float32) matrix {
	left, right, offset := a.tensor(), b.tensor(), gotorch.Tensor{}
	if len(bias) > 0 {
		offset = gotorch.FromBlob(unsafe.Pointer(&bias[0]), gotorch.Float, []int64{int64(len(bias))})
	}
	result := functional.Linear(left, right, offset)
	for _, used := range []gotorch.Tensor{left, right, offset} { // their finalizers free them
		runtime.KeepAlive(used.T)
	}
	return matrix{floatsOf(result), a.out, b.out}
}

// tensor is a copy.
func (m matrix) tensor() gotorch.Tensor {
	return gotorch.FromBlob(unsafe.Pointer(&m.values[0]), gotorch.Float, []int64{int64(m.out), int64(m.in)})
}

// floatsOf reads a float32 tensor. gotorch gives out single elements or pickles.
func floatsOf(tensor gotorch.Tensor) []float32 {
	pickle, err := tensor.GobEncode()
	runtime.KeepAlive(tensor.T)
	if err != nil {
		panic(err)
	}
	decoded, err := torch.DecodePickle(pickle)
	if err != nil {
		panic(err)
	}
	return familytest.Floats(decoded.Data)
}

// column is what one head has of every row.
func column(rows []float32, tokens, head, width int) matrix {
	m := matrix{make([]float32, 0, tokens*width), tokens, width}
	for stride := len(rows) / tokens; len(rows) > 0; rows = rows[stride:] {
		m.values = append(m.values, rows[head*width:][:width]...)
	}
	return m
}

func (m matrix) transposed() matrix {
	t := matrix{make([]float32, len(m.values)), m.in, m.out}
	for i, v := range m.values {
		t.values[i%m.in*m.out+i/m.in] = v
	}
	return t
}

// soften makes shares of the scores from first to last, and nothing of the others.
func soften(scores []float32, first, last int, divisor float64) {
	largest := float64(slices.Max(scores[first : last+1]))
	sum := 0.0
	for i, score := range scores {
		scores[i] = 0
		if i >= first && i <= last {
			e := math.Exp((float64(score) - largest) / divisor)
			sum += e
			scores[i] = float32(e)
		}
	}
	for i := range scores {
		scores[i] = float32(float64(scores[i]) / sum)
	}
}

func added(a, b []float32) []float32 {
	sum := make([]float32, len(a))
	for i := range a {
		sum[i] = a[i] + b[i]
	}
	return sum
}

// weightTypes are gotorch's numbers for the element types of checkpoints.
var weightTypes = map[string]int8{"F32": gotorch.Float, "F16": gotorch.Half, "BF16": gotorch.BFloat16}

// readWeights reads the text decoder of a thinker with its output layer, as float32.
func readWeights(t *testing.T, folder string) map[string]matrix {
	t.Helper()
	weights := map[string]matrix{}
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
		for name, entry := range header {
			name, ok := strings.CutPrefix(name, "thinker.")
			if !ok || !strings.HasPrefix(name, "model.") && !strings.HasPrefix(name, "lm_head.") {
				continue
			}
			stored := gotorch.FromBlob(unsafe.Pointer(&data[8+int(length)+entry.Offsets[0]]), weightTypes[entry.DType], entry.Shape)
			m := matrix{floatsOf(stored.CastTo(gotorch.Float)), int(entry.Shape[0]), 1}
			runtime.KeepAlive(stored.T)
			if len(entry.Shape) == 2 {
				m.in = int(entry.Shape[1])
			}
			weights[name] = m
		}
	}
	return weights
}
