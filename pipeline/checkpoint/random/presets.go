package random

// presetAlias is another name of the first preset.
const presetAlias = "tiny"

// decoderSpec holds the dimensions of a Qwen2.5 text decoder: the thinker's and the talker's.
type decoderSpec struct {
	Hidden, Intermediate int
	Layers               int
	Heads, KVHeads       int
	HeadDim              int // written to config.json only where the reference expects it or it is not Hidden/Heads
	MRope                []int
	Theta, Eps           float64
	Vocabulary           int
	MaxPositions         int
	Window, FullLayers   int // a sliding window in all but the first layers; 0 is none
}

// codecSpec holds the ids of the talker's vocabulary that are not sounds.
type codecSpec struct{ Pad, Start, End, Mask int }

// ditSpec holds the dimensions of token2wav's diffusion transformer and of its speaker encoder.
type ditSpec struct {
	Hidden, Layers, Heads, HeadDim int
	FFMult, Emb                    int
	Block                          int
	Ahead, Back                    []int // the layers that see one block ahead, and one block back
	Repeats, Embeds, Mel           int
	MaxPositions                   int
	Theta                          float64

	SpeakerEmb, Enc                                     int // size of "cond" in spk_dict.pt; of the encoder's output
	EncChannels, EncKernels, EncDilations               []int
	EncAttentionChannels, EncRes2NetScale, EncSEChannel int
}

// vocoderSpec holds the dimensions of BigVGAN.
type vocoderSpec struct {
	Channels              int
	Kernels               []int
	Dilations             [][]int
	Rates, UpsampleKernel []int
}

// audioSpec and visionSpec hold the dimensions of the thinker's encoders.
type audioSpec struct{ Mel, Layers, Heads, FFN, Model, MaxPositions, Window int }

type visionSpec struct {
	Depth, Hidden, Intermediate, Heads     int
	Patch, Merge, TemporalPatch, WindowLen int
	FullAttention                          []int
}

// speakerSpec is one voice of spk_dict.pt; Frames is the length of its reference mel spectrogram.
type speakerSpec struct {
	Name   string
	Frames int
}

// templatePlace says which file holds the chat template: repositories differ.
type templatePlace int

const (
	templateJinja           templatePlace = iota // chat_template.jinja
	templateJSON                                 // chat_template.json
	templateTokenizerConfig                      // tokenizer_config.json
)

// omniPreset is one checkpoint of Qwen2.5-Omni: every size, and the defaults of Options.
type omniPreset struct {
	Name       string
	Vocabulary int // tokens of the tokenizer before the added ones
	Thinker    decoderSpec
	Tied       bool // lm_head is embed_tokens and is not stored
	Talker     decoderSpec
	Codec      codecSpec
	DiT        ditSpec
	Vocoder    vocoderSpec
	Audio      audioSpec
	Vision     visionSpec
	Speakers   []speakerSpec

	TextEndGain, CodecEndGain float64 // how much wider the heads' end rows are drawn, see doc.go

	Spelling  Spelling
	Shards    int
	DType     string
	Template  templatePlace
	InvFreq   bool // store the DiT's rotary frequencies, as old files do
	PairMerge bool // tokenizer.json's merges as pairs instead of "a b" strings
}

// usual implements preset.
func (p *omniPreset) usual() Options {
	return Options{Family: familyQwen25Omni, Preset: p.Name, Spelling: p.Spelling, Shards: p.Shards, DType: p.DType}
}

// vocabulary implements preset.
func (p *omniPreset) vocabulary() int { return p.Vocabulary }

// qwen25OmniPresets are the checkpoints of family qwen2_5_omni. The tiny ones differ from one another in every
// dimension and list, so that a constant of one never fits another; "small" has layers of real shape, so that its
// speed means something.
var qwen25OmniPresets = []omniPreset{
	{
		Name:       "tiny-a",
		Vocabulary: 1600,
		Thinker: decoderSpec{
			Hidden: 48, Intermediate: 72, Layers: 3, Heads: 6, KVHeads: 2, HeadDim: 8, MRope: []int{1, 1, 2},
			Theta: 1e6, Eps: 1e-6, Vocabulary: 1664, MaxPositions: 2048,
		},
		Talker: decoderSpec{
			Hidden: 40, Intermediate: 56, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 16, MRope: []int{2, 3, 3},
			Theta: 1e6, Eps: 1e-6, Vocabulary: 68, MaxPositions: 2048,
		},
		Codec: codecSpec{Pad: 61, Start: 62, End: 63, Mask: 65},
		DiT: ditSpec{
			Hidden: 32, Layers: 3, Heads: 4, HeadDim: 8, FFMult: 2, Emb: 16, Block: 4, Ahead: []int{1}, Back: []int{0, 2},
			Repeats: 2, Embeds: 67, Mel: 20, MaxPositions: 4096, Theta: 1e4, SpeakerEmb: 12, Enc: 10,
			EncChannels: []int{16, 16, 16, 16, 48}, EncKernels: []int{5, 3, 3, 3, 1}, EncDilations: []int{1, 2, 3, 4, 1},
			EncAttentionChannels: 8, EncRes2NetScale: 2, EncSEChannel: 6,
		},
		Vocoder: vocoderSpec{
			Channels: 32, Kernels: []int{3, 7, 11}, Dilations: [][]int{{1, 3, 5}, {1, 3, 5}, {1, 3, 5}},
			Rates: []int{5, 3, 2}, UpsampleKernel: []int{11, 7, 4},
		},
		Audio: audioSpec{Mel: 24, Layers: 2, Heads: 4, FFN: 36, Model: 32, MaxPositions: 300, Window: 20},
		Vision: visionSpec{
			Depth: 3, Hidden: 32, Intermediate: 44, Heads: 4, Patch: 14, Merge: 2, TemporalPatch: 2, WindowLen: 56,
			FullAttention: []int{1},
		},
		Speakers:    []speakerSpec{{Name: "Chelsie", Frames: 37}, {Name: "Ethan", Frames: 29}},
		TextEndGain: 2.2, CodecEndGain: 0.8,
		Spelling: Transformers5, Shards: 1, DType: Float32, Template: templateJinja, PairMerge: true,
	},
	{
		Name:       "tiny-b",
		Vocabulary: 900,
		Thinker: decoderSpec{
			Hidden: 64, Intermediate: 80, Layers: 2, Heads: 4, KVHeads: 4, HeadDim: 16, MRope: []int{2, 3, 3},
			Theta: 1e4, Eps: 1e-5, Vocabulary: 960, MaxPositions: 1536,
		},
		Tied: true,
		Talker: decoderSpec{
			Hidden: 24, Intermediate: 60, Layers: 3, Heads: 5, KVHeads: 1, HeadDim: 8, MRope: []int{2, 1, 1},
			Theta: 5e5, Eps: 1e-5, Vocabulary: 44, MaxPositions: 1280, Window: 40, FullLayers: 1,
		},
		Codec: codecSpec{Pad: 37, Start: 40, End: 39, Mask: 42},
		DiT: ditSpec{
			Hidden: 40, Layers: 4, Heads: 2, HeadDim: 12, FFMult: 3, Emb: 14, Block: 3, Ahead: []int{1, 3}, Back: []int{0, 3},
			Repeats: 3, Embeds: 44, Mel: 16, MaxPositions: 3072, Theta: 2e4, SpeakerEmb: 9, Enc: 7,
			EncChannels: []int{12, 12, 12, 24}, EncKernels: []int{3, 5, 3, 1}, EncDilations: []int{1, 2, 3, 1},
			EncAttentionChannels: 5, EncRes2NetScale: 3, EncSEChannel: 4,
		},
		Vocoder: vocoderSpec{
			Channels: 24, Kernels: []int{3, 5}, Dilations: [][]int{{1, 2, 4}, {1, 3, 6}},
			Rates: []int{4, 3}, UpsampleKernel: []int{8, 9},
		},
		Audio: audioSpec{Mel: 16, Layers: 1, Heads: 2, FFN: 28, Model: 24, MaxPositions: 200, Window: 12},
		Vision: visionSpec{
			Depth: 2, Hidden: 24, Intermediate: 30, Heads: 2, Patch: 7, Merge: 2, TemporalPatch: 2, WindowLen: 28,
			FullAttention: []int{1},
		},
		Speakers:    []speakerSpec{{Name: "Ethan", Frames: 23}},
		TextEndGain: 2.2, CodecEndGain: 0.8,
		Spelling: Transformers4, Shards: 3, DType: Float16, Template: templateJSON, InvFreq: true,
	},
	{
		Name:       "tiny-c",
		Vocabulary: 1250,
		Thinker: decoderSpec{
			Hidden: 56, Intermediate: 96, Layers: 4, Heads: 8, KVHeads: 1, HeadDim: 12, MRope: []int{3, 1, 2},
			Theta: 2e5, Eps: 1e-6, Vocabulary: 1312, MaxPositions: 3000, Window: 24, FullLayers: 2,
		},
		Talker: decoderSpec{
			Hidden: 32, Intermediate: 44, Layers: 4, Heads: 3, KVHeads: 3, HeadDim: 12, MRope: []int{1, 3, 2},
			Theta: 1e5, Eps: 2e-6, Vocabulary: 97, MaxPositions: 2500,
		},
		Codec: codecSpec{Pad: 3, Start: 1, End: 90, Mask: 0},
		DiT: ditSpec{
			Hidden: 24, Layers: 5, Heads: 3, HeadDim: 10, FFMult: 4, Emb: 11, Block: 5, Ahead: []int{}, Back: []int{1, 2, 4},
			Repeats: 1, Embeds: 96, Mel: 28, MaxPositions: 2048, Theta: 3e3, SpeakerEmb: 15, Enc: 6,
			EncChannels: []int{8, 8, 8, 8, 8, 32}, EncKernels: []int{5, 5, 3, 3, 3, 1}, EncDilations: []int{2, 1, 2, 3, 4, 1},
			EncAttentionChannels: 7, EncRes2NetScale: 4, EncSEChannel: 3,
		},
		Vocoder: vocoderSpec{
			Channels: 48, Kernels: []int{5}, Dilations: [][]int{{2, 1, 3}},
			Rates: []int{3, 2, 2, 2}, UpsampleKernel: []int{7, 4, 6, 2},
		},
		Audio: audioSpec{Mel: 32, Layers: 3, Heads: 3, FFN: 20, Model: 18, MaxPositions: 240, Window: 16},
		Vision: visionSpec{
			Depth: 4, Hidden: 48, Intermediate: 52, Heads: 3, Patch: 16, Merge: 2, TemporalPatch: 2, WindowLen: 64,
			FullAttention: []int{0, 3},
		},
		Speakers:    []speakerSpec{{Name: "Aiden", Frames: 19}, {Name: "Chelsie", Frames: 41}, {Name: "Zoë 小雨", Frames: 31}},
		TextEndGain: 2.2, CodecEndGain: 0.8,
		Spelling: Transformers5, Shards: 2, DType: BFloat16, Template: templateTokenizerConfig, PairMerge: true,
	},
	{
		Name:       "small",
		Vocabulary: 151643,
		Thinker: decoderSpec{
			Hidden: 1024, Intermediate: 4096, Layers: 16, Heads: 16, KVHeads: 2, HeadDim: 64, MRope: []int{8, 12, 12},
			Theta: 1e6, Eps: 1e-6, Vocabulary: 151936, MaxPositions: 32768,
		},
		Talker: decoderSpec{
			Hidden: 512, Intermediate: 2048, Layers: 8, Heads: 8, KVHeads: 2, HeadDim: 64, MRope: []int{8, 12, 12},
			Theta: 1e6, Eps: 1e-6, Vocabulary: 8448, MaxPositions: 32768,
		},
		Codec: codecSpec{Pad: 8292, Start: 8293, End: 8294, Mask: 8296},
		DiT: ditSpec{
			Hidden: 256, Layers: 8, Heads: 4, HeadDim: 64, FFMult: 2, Emb: 192, Block: 24, Ahead: []int{4}, Back: []int{0, 7},
			Repeats: 2, Embeds: 8447, Mel: 80, MaxPositions: 32768, Theta: 1e4, SpeakerEmb: 192, Enc: 128,
			EncChannels: []int{256, 256, 256, 256, 768}, EncKernels: []int{5, 3, 3, 3, 1}, EncDilations: []int{1, 2, 3, 4, 1},
			EncAttentionChannels: 64, EncRes2NetScale: 2, EncSEChannel: 64,
		},
		Vocoder: vocoderSpec{
			Channels: 256, Kernels: []int{3, 7, 11}, Dilations: [][]int{{1, 3, 5}, {1, 3, 5}, {1, 3, 5}},
			Rates: []int{5, 3, 2, 2, 2, 2}, UpsampleKernel: []int{11, 7, 4, 4, 4, 4},
		},
		Audio: audioSpec{Mel: 128, Layers: 2, Heads: 4, FFN: 256, Model: 128, MaxPositions: 1500, Window: 100},
		Vision: visionSpec{
			Depth: 2, Hidden: 128, Intermediate: 256, Heads: 4, Patch: 14, Merge: 2, TemporalPatch: 2, WindowLen: 112,
			FullAttention: []int{1},
		},
		Speakers:    []speakerSpec{{Name: "Chelsie", Frames: 300}, {Name: "Ethan", Frames: 260}},
		TextEndGain: 2.4, CodecEndGain: 2.1,
		Spelling: Transformers5, Shards: 1, DType: BFloat16, Template: templateJinja, PairMerge: true,
	},
}
