package random

import "math"

// The spread of the heads' logits: wide enough that a reply is not noise, narrow enough that the choice stays open.
const (
	textLogitStd  = 2.5
	codecLogitStd = 2.0
)

// tensors implements preset.
func (p *omniPreset) tensors(ids tokenIDs) []tensorSpec {
	var tensors []tensorSpec
	root := builder{tensors: &tensors}
	thinkerTensors(root.in("thinker"), p, ids)
	talkerTensors(root.in("talker"), p)
	token2wav := root.in("token2wav")
	ditTensors(token2wav.in("code2wav_dit_model"), &p.DiT, p.InvFreq)
	vocoderTensors(token2wav.in("code2wav_bigvgan_model"), &p.Vocoder, p.DiT.Mel)
	return tensors
}

// thinkerTensors lists the text decoder with its head, and the two encoders.
func thinkerTensors(b builder, p *omniPreset, ids tokenIDs) {
	audioTensors(b.in("audio_tower"), &p.Audio, p.Thinker.Hidden)
	visionTensors(b.in("visual"), &p.Vision, p.Thinker.Hidden)

	// A tied table is both: rows of size 1 as embeddings would make logits sqrt(hidden) wide.
	headStd := textLogitStd / math.Sqrt(float64(p.Thinker.Hidden))
	ends := map[int]float64{ids.MessageEnd: p.TextEndGain}
	embedding := tensorSpec{
		Name: "model.embed_tokens.weight", Shape: []int{p.Thinker.Vocabulary, p.Thinker.Hidden}, Std: 1,
	}
	if p.Tied {
		embedding.Std, embedding.Gains = headStd, ends
	}
	b.add(embedding)
	decoderTensors(b.in("model"), &p.Thinker)
	if p.Tied {
		// Signs in the last norm keep a token from always choosing itself again.
		last := &(*b.tensors)[len(*b.tensors)-1]
		last.Mean, last.Std = 0, 1
	} else {
		b.add(tensorSpec{
			Name: "lm_head.weight", Shape: []int{p.Thinker.Vocabulary, p.Thinker.Hidden}, Std: headStd, Gains: ends,
		})
	}
}

// talkerTensors lists the talker: it reads rows of the thinker's size and writes codes.
func talkerTensors(b builder, p *omniPreset) {
	b.linear("thinker_to_talker_proj", p.Talker.Hidden, p.Thinker.Hidden, 0.7, true)
	b.table("model.embed_tokens", p.Talker.Vocabulary, p.Thinker.Hidden, 2)
	decoderTensors(b.in("model"), &p.Talker)
	b.add(tensorSpec{
		Name: "codec_head.weight", Shape: []int{p.Talker.Vocabulary, p.Talker.Hidden},
		Std:   codecLogitStd / math.Sqrt(float64(p.Talker.Hidden)),
		Gains: map[int]float64{p.Codec.Pad: p.CodecEndGain, p.Codec.End: p.CodecEndGain},
	})
}

// decoderTensors lists the layers and the last norm of a text decoder.
func decoderTensors(b builder, d *decoderSpec) {
	for i := range d.Layers {
		layer := b.in("layers.%d", i)
		attn := layer.in("self_attn")
		attn.linear("q_proj", d.Heads*d.HeadDim, d.Hidden, 1.2, true)
		attn.linear("k_proj", d.KVHeads*d.HeadDim, d.Hidden, 1.2, true)
		attn.linear("v_proj", d.KVHeads*d.HeadDim, d.Hidden, 1, true)
		attn.linear("o_proj", d.Hidden, d.Heads*d.HeadDim, 1, false)
		mlp := layer.in("mlp")
		mlp.linear("gate_proj", d.Intermediate, d.Hidden, 1.2, false)
		mlp.linear("up_proj", d.Intermediate, d.Hidden, 1.2, false)
		mlp.linear("down_proj", d.Hidden, d.Intermediate, 1, false)
		layer.norm("input_layernorm", d.Hidden, false)
		layer.norm("post_attention_layernorm", d.Hidden, false)
	}
	b.norm("norm", d.Hidden, false)
}

// audioTensors lists the thinker's audio encoder.
func audioTensors(b builder, a *audioSpec, out int) {
	b.conv("conv1", a.Model, a.Mel, 3, 1, true)
	b.conv("conv2", a.Model, a.Model, 3, 1, true)
	b.table("audio_bos_eos_token", 2, out, 1)
	for i := range a.Layers {
		layer := b.in("layers.%d", i)
		attn := layer.in("self_attn")
		attn.linear("k_proj", a.Model, a.Model, 1, false)
		attn.linear("v_proj", a.Model, a.Model, 1, true)
		attn.linear("q_proj", a.Model, a.Model, 1, true)
		attn.linear("out_proj", a.Model, a.Model, 1, true)
		layer.norm("self_attn_layer_norm", a.Model, true)
		layer.linear("fc1", a.FFN, a.Model, 1, true)
		layer.linear("fc2", a.Model, a.FFN, 1, true)
		layer.norm("final_layer_norm", a.Model, true)
	}
	b.norm("ln_post", a.Model, true)
	b.linear("proj", out, a.Model, 1, true)
}

// visionTensors lists the thinker's vision encoder.
func visionTensors(b builder, v *visionSpec, out int) {
	patch := v.TemporalPatch * v.Patch * v.Patch
	b.add(tensorSpec{
		Name: "patch_embed.proj.weight", Shape: []int{v.Hidden, 3, v.TemporalPatch, v.Patch, v.Patch},
		Std: 1 / math.Sqrt(float64(3*patch)),
	})
	for i := range v.Depth {
		block := b.in("blocks.%d", i)
		block.norm("norm1", v.Hidden, false)
		block.norm("norm2", v.Hidden, false)
		for _, name := range []string{"q", "k", "v", "proj"} {
			block.in("attn").linear(name, v.Hidden, v.Hidden, 1, true)
		}
		block.in("mlp").linear("gate_proj", v.Intermediate, v.Hidden, 1, true)
		block.in("mlp").linear("up_proj", v.Intermediate, v.Hidden, 1, true)
		block.in("mlp").linear("down_proj", v.Hidden, v.Intermediate, 1, true)
	}
	merged := v.Hidden * v.Merge * v.Merge
	b.norm("merger.ln_q", v.Hidden, false)
	b.linear("merger.mlp.0", merged, merged, 1, true)
	b.linear("merger.mlp.2", out, merged, 1, true)
}
