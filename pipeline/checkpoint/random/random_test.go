package random

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func write(t *testing.T, o Options) (string, *Summary) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	summary, err := Write(t.Context(), dir, o)
	require.NoError(t, err)
	return dir, summary
}

// omni returns a preset of family qwen2_5_omni.
func omni(t testing.TB, name string) *omniPreset {
	t.Helper()
	p, ok := findFamily(familyQwen25Omni).find(name).(*omniPreset)
	require.True(t, ok, name)
	return p
}

// A folder is replaced only if every file in it is one that some family writes: isOurs has to know them all.
func TestEveryFamilyWritesKnownFiles(t *testing.T) {
	for _, f := range families {
		require.Equal(t, f.presets[0], f.find(presetAlias))
		for _, p := range f.presets {
			options := p.usual()
			require.Equal(t, f.name, options.Family)
			require.Equal(t, p, f.find(options.Preset), "two presets have this name")
			tok, err := newTokenizer(p.vocabulary())
			require.NoError(t, err)
			for _, options.Spelling = range []Spelling{Transformers4, Transformers5} {
				files, err := p.files(options, tok)
				require.NoError(t, err)
				for name := range files {
					assert.True(t, isOurs(name), "%s %s: write.go's isOurs does not name %s", f.name, options.Preset, name)
				}
			}
		}
	}
}

// TestSameBytes pins every byte of the tiny checkpoints: goldens and users' notes refer to them by preset and seed. A
// change here is a change of format that needs new goldens.
func TestSameBytes(t *testing.T) {
	for name, want := range map[string]string{
		"tiny-a": "08b276f2becd89627700367712dd97dce2d4cc2dd70adeaf4c24677685788d69",
		"tiny-b": "7291091c514c8534251b0e87cf02fbad4a063912928fdf7b695582626438aeff",
		"tiny-c": "517f022dd9c98d1062f481b00f08ae8cb04023a542793c68fba86dcfdf3c3b68",
	} {
		t.Run(name, func(t *testing.T) {
			dir, summary := write(t, Options{Preset: name, Seed: 7})
			sum, err := Sum(dir)
			require.NoError(t, err)
			assert.Equal(t, want, sum)

			options, ok := Written(dir)
			assert.True(t, ok)
			assert.Equal(t, summary.Options, options)
		})
	}
}

func TestSeedChangesWeightsOnly(t *testing.T) {
	first, _ := write(t, Options{Seed: 1})
	second, _ := write(t, Options{Seed: 2})
	names, err := fileNames(first)
	require.NoError(t, err)
	for _, name := range names {
		a, err := os.ReadFile(filepath.Join(first, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(second, name))
		require.NoError(t, err)
		random := strings.HasSuffix(name, ".safetensors") || name == "spk_dict.pt"
		assert.Equal(t, !random, bytes.Equal(a, b), name)
	}
}

// storedTensor is an entry of a safetensors header with its bytes.
type storedTensor struct {
	DType   string
	Shape   []int
	Offsets [2]int `json:"data_offsets"`
	data    []byte
}

// readWeights reads all weights files of a checkpoint and checks that their tensors lie end to end.
func readWeights(t *testing.T, dir string) map[string]storedTensor {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "model*.safetensors"))
	require.NoError(t, err)
	all := map[string]storedTensor{}
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		length := binary.LittleEndian.Uint64(data)
		require.Zero(t, length%8, path)
		raw := map[string]json.RawMessage{}
		require.NoError(t, json.Unmarshal(data[8:8+length], &raw), path)
		body := data[8+length:]
		delete(raw, "__metadata__")
		covered := 0
		for name, value := range raw {
			var tensor storedTensor
			require.NoError(t, json.Unmarshal(value, &tensor), name)
			tensor.data = body[tensor.Offsets[0]:tensor.Offsets[1]]
			covered += len(tensor.data)
			require.NotContains(t, all, name)
			all[name] = tensor
		}
		require.Len(t, body, covered, path)
	}
	return all
}

func TestShardsHoldTheSameTensors(t *testing.T) {
	whole, _ := write(t, Options{Preset: "tiny-a", Shards: 1})
	parts, summary := write(t, Options{Preset: "tiny-a", Shards: 5})
	want, got := readWeights(t, whole), readWeights(t, parts)
	assert.Equal(t, summary.Tensors, len(got))
	require.Equal(t, len(want), len(got))
	for name, tensor := range want {
		assert.True(t, bytes.Equal(tensor.data, got[name].data), name)
	}

	var index struct {
		Metadata struct {
			Total int `json:"total_size"`
		}
		Weights map[string]string `json:"weight_map"`
	}
	data, err := os.ReadFile(filepath.Join(parts, "model.safetensors.index.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &index))
	assert.Len(t, index.Weights, len(want))
	total, files := 0, map[string]bool{}
	for name, tensor := range got {
		total += len(tensor.data)
		files[index.Weights[name]] = true
	}
	assert.Equal(t, total, index.Metadata.Total)
	assert.Len(t, files, 5)
	assert.True(t, files["model-00005-of-00005.safetensors"])
}

func TestElementTypesRoundTheSameNumbers(t *testing.T) {
	decode := map[string]func([]byte, int) float64{
		"F32": func(b []byte, i int) float64 {
			return float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		},
		"BF16": func(b []byte, i int) float64 {
			return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16))
		},
		"F16": func(b []byte, i int) float64 { return halfValue(binary.LittleEndian.Uint16(b[2*i:])) },
	}
	exact := readWeights(t, first(write(t, Options{DType: Float32})))
	for dtype, step := range map[string]float64{BFloat16: 1.0 / 256, Float16: 1.0 / 2048} {
		rounded := readWeights(t, first(write(t, Options{DType: dtype})))
		require.Len(t, rounded, len(exact))
		for name, want := range exact {
			got := rounded[name]
			for i := range len(want.data) / 4 {
				x, y := decode["F32"](want.data, i), decode[got.DType](got.data, i)
				if math.Abs(x-y) > step*math.Abs(x)+1e-7 {
					t.Fatalf("%s %s[%d]: %g, want %g", dtype, name, i, y, x)
				}
			}
		}
	}
}

func first(dir string, _ *Summary) string { return dir }

// halfValue decodes a float16.
func halfValue(bits uint16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	value := math.Ldexp(1024+fraction, exponent-25)
	switch exponent {
	case 0:
		value = math.Ldexp(fraction, -24)
	case 31:
		value = math.Inf(1)
	}
	if bits>>15 == 1 {
		return -value
	}
	return value
}

func TestFloat16RoundsToNearestEven(t *testing.T) {
	for bits := range uint16(0x7c00) { // every finite non-negative one
		value := halfValue(bits)
		require.Equal(t, bits, float16(float32(value)))
		require.Equal(t, bits|0x8000, float16(float32(-value)))
		middle := (value + halfValue(bits+1)) / 2
		if bits+1 == 0x7c00 {
			middle = 65520
		}
		even := bits + bits&1
		require.Equal(t, even, float16(float32(middle)), "between %g and the next", value)
		require.Equal(t, bits, float16(math.Nextafter32(float32(middle), 0)))
		require.Equal(t, bits+1, float16(math.Nextafter32(float32(middle), math.MaxFloat32)))
	}
}

func TestBFloat16RoundsToNearestEven(t *testing.T) {
	for value, want := range map[float32]uint16{
		0: 0, 1: 0x3f80, -1: 0xbf80, 1 + 1.0/256: 0x3f80, 1 + 3.0/256: 0x3f82, 1 + 1.01/256: 0x3f81, 3.14159265: 0x4049,
	} {
		assert.Equal(t, want, bfloat16(value), value)
	}
}

// TestWeightsAreSpreadAsTheyShould checks mean and deviation of large tensors, and of the wider rows.
func TestWeightsAreSpreadAsTheyShould(t *testing.T) {
	spec := tensorSpec{Name: "x", Shape: []int{400, 1000}, Mean: 0.5, Std: 2, Gains: map[int]float64{0: 3, 399: 0.5}}
	f := newFiller(&spec, encoderFor(Float32), "test", 1)
	require.Equal(t, 2, f.blocks())
	var values []float64
	for block := range f.blocks() {
		data := f.fill(block, nil)
		for i := 0; i < len(data); i += 4 {
			values = append(values, float64(math.Float32frombits(binary.LittleEndian.Uint32(data[i:]))))
		}
	}
	require.Len(t, values, 400*1000)
	for _, part := range []struct {
		name     string
		values   []float64
		std, tol float64
	}{
		{"first row", values[:1000], 6, 0.5},
		{"last row", values[399000:], 1, 0.1},
		{"between", values[1000:399000], 2, 0.01},
	} {
		sum, squares := 0.0, 0.0
		for _, v := range part.values {
			sum += v
			squares += (v - 0.5) * (v - 0.5)
		}
		n := float64(len(part.values))
		assert.InDelta(t, 0.5, sum/n, part.tol, part.name)
		assert.InDelta(t, part.std, math.Sqrt(squares/n), part.tol, part.name)
	}
}

func TestEveryPresetSaysWhatTheFilesHold(t *testing.T) {
	for _, p := range qwen25OmniPresets {
		t.Run(p.Name, func(t *testing.T) {
			tok, err := newTokenizer(p.Vocabulary)
			require.NoError(t, err)
			ids := tok.ids()
			lastVoice := ids.Voice + 2*(len(p.Speakers)-1)
			assert.Less(t, lastVoice, p.Thinker.Vocabulary, "speakers' ids")
			assert.LessOrEqual(t, p.Talker.Vocabulary, p.DiT.Embeds+1, "every code must have an embedding")
			for _, d := range []decoderSpec{p.Thinker, p.Talker} {
				assert.Zero(t, d.Heads%d.KVHeads)
				sections := 0
				for _, s := range d.MRope {
					sections += s
				}
				assert.Equal(t, d.HeadDim/2, sections)
			}
			last := len(p.DiT.EncChannels) - 1
			sum := 0
			for _, c := range p.DiT.EncChannels[1:last] {
				sum += c
				assert.Zero(t, c%p.DiT.EncRes2NetScale)
			}
			assert.Equal(t, p.DiT.EncChannels[last], sum)
			assert.Len(t, p.Vocoder.UpsampleKernel, len(p.Vocoder.Rates))
			assert.Len(t, p.Vocoder.Dilations, len(p.Vocoder.Kernels))

			names := map[string]bool{}
			for _, tensor := range p.tensors(ids) {
				assert.False(t, names[tensor.Name], tensor.Name)
				names[tensor.Name] = true
				assert.NotZero(t, tensor.elements(), tensor.Name)
			}
			assert.Equal(t, !p.Tied, names["thinker.lm_head.weight"])
		})
	}
}

// TestTinyPresetsDifferEverywhere guards what the tiny presets are for: no dimension of one fits another.
func TestTinyPresetsDifferEverywhere(t *testing.T) {
	dims := func(p omniPreset) map[string]any {
		return map[string]any{
			"vocabulary": p.Vocabulary, "hidden": p.Thinker.Hidden, "layers": p.Thinker.Layers, "head_dim": p.Thinker.HeadDim,
			"groups": p.Thinker.Heads / p.Thinker.KVHeads, "mrope": p.Thinker.MRope, "theta": p.Thinker.Theta,
			"talker hidden": p.Talker.Hidden, "talker layers": p.Talker.Layers, "talker vocabulary": p.Talker.Vocabulary,
			"talker groups": p.Talker.Heads / p.Talker.KVHeads, "codec": p.Codec, "dit hidden": p.DiT.Hidden,
			"dit layers": p.DiT.Layers, "dit head_dim": p.DiT.HeadDim, "block": p.DiT.Block, "ahead": p.DiT.Ahead,
			"back": p.DiT.Back, "mel": p.DiT.Mel, "repeats": p.DiT.Repeats, "ff_mult": p.DiT.FFMult, "enc": p.DiT.Enc,
			"channels": p.Vocoder.Channels, "rates": p.Vocoder.Rates, "kernels": p.Vocoder.Kernels,
			"dilations": p.Vocoder.Dilations, "speakers": len(p.Speakers), "dtype": p.DType, "shards": p.Shards,
			"template": p.Template,
		}
	}
	tiny := qwen25OmniPresets[:3]
	for i, a := range tiny {
		for _, b := range tiny[i+1:] {
			for name, value := range dims(a) {
				assert.NotEqual(t, value, dims(b)[name], "%s and %s: %s", a.Name, b.Name, name)
			}
		}
	}
}

func TestSpeakerFileIsAlignedZip(t *testing.T) {
	for _, preset := range []string{"tiny-b", "tiny-c"} { // one speaker, three speakers
		dir, _ := write(t, Options{Preset: preset})
		archive, err := zip.OpenReader(filepath.Join(dir, "spk_dict.pt"))
		require.NoError(t, err)
		defer archive.Close()
		sizes := map[string]uint64{}
		for _, member := range archive.File {
			assert.Equal(t, zip.Store, member.Method, member.Name)
			offset, err := member.DataOffset()
			require.NoError(t, err)
			assert.Zero(t, offset%storageAlignment, member.Name)
			body, err := member.Open() // checks the sum when read to its end
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, body)
			require.NoError(t, err)
			sizes[member.Name] = member.UncompressedSize64
		}
		p := omni(t, preset)
		for i, s := range p.Speakers {
			assert.EqualValues(t, 4*p.DiT.SpeakerEmb, sizes["spk_dict/data/"+string(rune('0'+2*i))])
			assert.EqualValues(t, 4*p.DiT.Mel*s.Frames, sizes["spk_dict/data/"+string(rune('1'+2*i))])
		}
	}
}

func TestTokenizerSizes(t *testing.T) {
	trained, err := newTokenizer(1600)
	require.NoError(t, err)
	for _, size := range []int{alphabet, 900, 1600, 1700, 151643} {
		tok, err := newTokenizer(size)
		require.NoError(t, err)
		require.Len(t, tok.tokens, size)
		require.Len(t, tok.merges, size-alphabet)
		common := min(size, 1600)
		assert.Equal(t, trained.tokens[:common], tok.tokens[:common])
		seen := map[string]bool{}
		for i, token := range tok.tokens {
			require.False(t, seen[token], token)
			seen[token] = true
			if i >= alphabet {
				merge := tok.merges[i-alphabet]
				require.Equal(t, merge[0]+merge[1], token)
				require.True(t, seen[merge[0]] && seen[merge[1]], token)
			}
		}
		assert.Equal(t, size, tok.ids().EndOfText)
	}
	released, err := newTokenizer(releasedVocabulary)
	require.NoError(t, err)
	assert.Equal(t, tokenIDs{
		EndOfText: 151643, MessageStart: 151644, MessageEnd: 151645, Audio: 151646, AudioStart: 151647, AudioEnd: 151648,
		VisionStart: 151652, VisionEnd: 151653, VisionPad: 151654, Image: 151655, Video: 151656, SpeechPad: 151859,
		SpeechStart: 151860, SpeechEnd: 151861, Voice: 151870, User: released.ids().User,
	}, released.ids())
	_, err = newTokenizer(100)
	assert.ErrorContains(t, err, "a vocabulary of 100 tokens: the 256 bytes must fit")
	_, err = newTokenizer(100_000_000)
	assert.ErrorContains(t, err, "can be extended to")
}

func TestSpellings(t *testing.T) {
	read := func(o Options, name string) map[string]any {
		data, err := os.ReadFile(filepath.Join(first(write(t, o)), name))
		require.NoError(t, err)
		var config map[string]any
		require.NoError(t, json.Unmarshal(data, &config))
		return config
	}
	old := read(Options{Preset: "tiny-a", Spelling: Transformers4}, "config.json")
	talker := old["talker_config"].(map[string]any)
	assert.Equal(t, "float32", old["torch_dtype"])
	assert.EqualValues(t, 1e6, talker["rope_theta"])
	assert.Equal(t, []any{2.0, 3.0, 3.0}, talker["rope_scaling"].(map[string]any)["mrope_section"])
	assert.NotContains(t, talker, "rope_parameters")

	young := read(Options{Preset: "tiny-a", Spelling: Transformers5}, "config.json")
	talker = young["talker_config"].(map[string]any)
	assert.Equal(t, "float32", young["dtype"])
	assert.EqualValues(t, 1e6, talker["rope_parameters"].(map[string]any)["rope_theta"])
	assert.NotContains(t, talker, "rope_theta")
	read(Options{Preset: "tiny-a", Spelling: Transformers4}, "preprocessor_config.json")
	read(Options{Preset: "tiny-a", Spelling: Transformers5}, "processor_config.json")
}

func TestWrongOptions(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    []string
	}{
		{Options{Family: "gpt"}, []string{`unknown family "gpt": known are qwen2_5_omni`}},
		{Options{Preset: "huge"}, []string{`unknown preset "huge" of family qwen2_5_omni: known are tiny, tiny-a, tiny-b, tiny-c, small`}},
		{Options{Spelling: 3, DType: "int8"}, []string{"unknown spelling 3", `unknown dtype "int8"`}},
		{Options{Shards: -1}, []string{"-1 shards: 1 to 512"}},
		{Options{Shards: 512}, []string{"512 shards: the checkpoint has 481 tensors"}},
	} {
		dir := filepath.Join(t.TempDir(), "x")
		_, err := Write(t.Context(), dir, c.options)
		for _, want := range c.want {
			assert.ErrorContains(t, err, want)
		}
		assert.NoDirExists(t, dir)
	}
}

func TestReplacesOnlyItsOwn(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "deep", "checkpoint")
	for seed := range uint64(2) { // the second replaces the first
		_, err := Write(t.Context(), dir, Options{Seed: seed})
		require.NoError(t, err)
	}
	options, ok := Written(dir)
	assert.True(t, ok)
	assert.EqualValues(t, 1, options.Seed)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	_, err := Write(t.Context(), dir, Options{})
	assert.ErrorContains(t, err, "and also notes.txt")
	assert.FileExists(t, filepath.Join(dir, "notes.txt"))

	foreign := filepath.Join(parent, "foreign")
	require.NoError(t, os.Mkdir(foreign, 0o700))
	_, err = Write(t.Context(), foreign, Options{}) // empty: fine
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(foreign, "model.safetensors")))
	_, err = Write(t.Context(), foreign, Options{})
	assert.ErrorContains(t, err, "is not empty and was not made by omni-run make-checkpoint: it holds chat_template.jinja, config.json, "+
		"generation_config.json and 6 more")

	file := filepath.Join(parent, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Write(t.Context(), file, Options{})
	assert.ErrorContains(t, err, "not a directory")

	names, err := fileNames(parent)
	require.NoError(t, err)
	assert.Equal(t, []string{"deep", "file", "foreign"}, names, "temporary folders must be gone")
}

func TestStopsWhenCancelled(t *testing.T) {
	parent := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := 0
	_, err := Write(ctx, filepath.Join(parent, "x"), Options{Progress: func(done, total int64) {
		calls++
		assert.Less(t, done, total)
		if calls == 10 {
			cancel()
		}
	}})
	assert.ErrorIs(t, err, context.Canceled)
	names, err := fileNames(parent)
	require.NoError(t, err)
	assert.Empty(t, names)
}

func TestProgressEndsAtTotal(t *testing.T) {
	var seen []int64
	_, summary := write(t, Options{Preset: "tiny-b", Progress: func(done, total int64) { seen = append(seen, done) }})
	assert.True(t, slices.IsSorted(seen))
	assert.Equal(t, summary.Bytes, seen[len(seen)-1])
}

func TestSaysWhenThereIsNoSpace(t *testing.T) {
	err := checkSpace(t.TempDir(), math.MaxInt64)
	assert.ErrorContains(t, err, "no space in")
	assert.ErrorContains(t, err, "needs 9223372036854775807 bytes")
	assert.NoError(t, checkSpace(t.TempDir(), 1))
}

func BenchmarkSmall(b *testing.B) {
	p := omni(b, "small")
	tok, err := newTokenizer(p.Vocabulary)
	require.NoError(b, err)
	tensors := p.tensors(tok.ids())
	i := slices.IndexFunc(tensors, func(s tensorSpec) bool { return s.Name == "thinker.model.embed_tokens.weight" })
	f := newFiller(&tensors[i], encoderFor(BFloat16), p.Name, 0)
	b.SetBytes(2 * blockElements)
	var buffer []byte
	for block := 0; b.Loop(); block++ {
		buffer = f.fill(block%(f.blocks()-1), buffer)
	}
}
