package random

import (
	"fmt"
	"math"
)

// timeFrequencies is the width of the DiT's sinusoidal time embedding: a constant of the architecture.
const timeFrequencies = 256

// ditTensors lists token2wav's diffusion transformer.
func ditTensors(b builder, d *ditSpec, invFreq bool) {
	b.linear("time_embed.time_mlp.0", d.Hidden, timeFrequencies, 1.4, true)
	b.linear("time_embed.time_mlp.2", d.Hidden, d.Hidden, 1.4, true)
	b.table("text_embed.codec_embed", d.Embeds+1, d.Emb, 1)
	b.linear("input_embed.proj", d.Hidden, d.Mel+d.Enc+d.SpeakerEmb+d.Emb, 1, true)
	speakerEncoderTensors(b.in("input_embed.spk_encoder"), d)
	if invFreq {
		b.add(tensorSpec{Name: "rotary_embed.inv_freq", Shape: []int{d.HeadDim / 2}, Values: inverseFrequencies(d)})
	}
	inner := d.Heads * d.HeadDim
	for i := range d.Layers {
		block := b.in("transformer_blocks.%d", i)
		block.linear("attn_norm.linear", 6*d.Hidden, d.Hidden, 0.8, true)
		attn := block.in("attn")
		attn.linear("to_q", inner, d.Hidden, 1.2, true)
		attn.linear("to_k", inner, d.Hidden, 1.2, true)
		attn.linear("to_v", inner, d.Hidden, 1, true)
		attn.linear("to_out.0", d.Hidden, inner, 1, true)
		block.linear("ff.ff.0", d.FFMult*d.Hidden, d.Hidden, 1, true)
		block.linear("ff.ff.3", d.Hidden, d.FFMult*d.Hidden, 1, true)
	}
	b.linear("norm_out.linear", 2*d.Hidden, d.Hidden, 0.5, true)
	// The solver adds up the velocity from 0 to 1, so a velocity around -4 turns noise around 0 into log-mel values
	// around -4, in the middle of what the vocoder does not clamp.
	b.linear("proj_out", d.Mel, d.Hidden, 1, false)
	b.add(tensorSpec{Name: "proj_out.bias", Shape: []int{d.Mel}, Mean: -4, Std: 1})
}

// inverseFrequencies computes the rotary frequencies of the DiT.
func inverseFrequencies(d *ditSpec) []float64 {
	values := make([]float64, d.HeadDim/2)
	for i := range values {
		values[i] = math.Pow(d.Theta, -float64(2*i)/float64(d.HeadDim))
	}
	return values
}

// speakerEncoderTensors lists the ECAPA-TDNN that reads a speaker's reference mel.
func speakerEncoderTensors(b builder, d *ditSpec) {
	last := len(d.EncChannels) - 1
	b.conv("blocks.0.conv", d.EncChannels[0], d.Mel, d.EncKernels[0], 1.4, true)
	for i := 1; i < last; i++ {
		block := b.in("blocks.%d", i)
		in, out := d.EncChannels[i-1], d.EncChannels[i]
		block.conv("tdnn1.conv", out, in, 1, 1.4, true)
		part := out / d.EncRes2NetScale
		for j := range d.EncRes2NetScale - 1 {
			block.in("res2net_block.blocks.%d", j).conv("conv", part, part, d.EncKernels[i], 1, true)
		}
		block.conv("tdnn2.conv", out, out, 1, 1.4, true)
		block.conv("se_block.conv1", d.EncSEChannel, out, 1, 1, true)
		block.conv("se_block.conv2", out, d.EncSEChannel, 1, 1, true)
	}
	channels := d.EncChannels[last]
	b.conv("mfa.conv", channels, channels, d.EncKernels[last], 1.4, true)
	b.conv("asp.tdnn.conv", d.EncAttentionChannels, 3*channels, 1, 1, true)
	b.conv("asp.conv", channels, d.EncAttentionChannels, 1, 1, true)
	b.conv("fc", d.Enc, 2*channels, 1, 1, true)
}

// vocoderTensors lists BigVGAN.
func vocoderTensors(b builder, v *vocoderSpec, mel int) {
	b.conv("conv_pre", v.Channels, mel, 7, 1.5, true)
	channels := v.Channels
	for i, rate := range v.Rates {
		kernel := v.UpsampleKernel[i]
		// A transposed convolution [in, out, kernel]: every output sample is the sum of kernel/rate taps.
		taps := float64(kernel) / float64(rate)
		up := b.in("ups.%d.0", i)
		up.add(tensorSpec{
			Name: "weight", Shape: []int{channels, channels / 2, kernel}, Std: 1 / math.Sqrt(float64(channels)*taps),
		})
		channels /= 2
		up.add(tensorSpec{Name: "bias", Shape: []int{channels}, Std: biasStd})
	}
	channels = v.Channels
	for i := range v.Rates {
		channels /= 2
		for j, kernel := range v.Kernels {
			resblockTensors(b.in("resblocks.%d", i*len(v.Kernels)+j), channels, kernel, len(v.Dilations[j]))
		}
	}
	snakeTensors(b.in("activation_post"), channels)
	b.conv("conv_post", 1, channels, 7, 0.2, false)
}

// resblockTensors lists one residual block of BigVGAN. Its branch is narrow, so that the sum of many keeps its size.
func resblockTensors(b builder, channels, kernel, dilations int) {
	for _, name := range []string{"convs1", "convs2"} {
		for k := range dilations {
			b.conv(fmt.Sprintf("%s.%d", name, k), channels, channels, kernel, 0.6, true)
		}
	}
	for k := range 2 * dilations {
		snakeTensors(b.in("activations.%d", k), channels)
	}
}

// snakeTensors lists the two parameters of a SnakeBeta activation, both logarithms.
func snakeTensors(b builder, channels int) {
	b.add(tensorSpec{Name: "act.alpha", Shape: []int{channels}, Std: 0.3})
	b.add(tensorSpec{Name: "act.beta", Shape: []int{channels}, Std: 0.3})
}
