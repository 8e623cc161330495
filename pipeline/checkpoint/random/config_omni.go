package random

// The positions of media on the time axis of the rotary embedding: constants of the family.
const (
	positionsPerSecond = 25
	secondsPerChunk    = 2
)

// omniConfig returns config.json. The two spellings differ in the names of rotary settings, of the dtype and of the
// architecture, and the old one names some sizes of the DiT twice.
func omniConfig(o Options, p *omniPreset, ids tokenIDs) map[string]any {
	config := map[string]any{
		"architectures": []string{"Qwen2_5OmniForConditionalGeneration"}, "enable_audio_output": true,
		"model_type": familyQwen25Omni, "thinker_config": thinkerConfig(o, p, ids), "talker_config": talkerConfig(o, p, ids),
		"token2wav_config": token2wavConfig(o, p), "transformers_version": o.transformersVersion(),
	}
	if o.Spelling == Transformers4 {
		config["architectures"] = []string{"Qwen2_5OmniModel"}
		config["enable_talker"] = true
	}
	o.nameDType(config)
	return config
}

// nameDType adds the element type under the spelling's name.
func (o Options) nameDType(config map[string]any) {
	if o.Spelling == Transformers4 {
		config["torch_dtype"] = o.DType
	} else {
		config["dtype"] = o.DType
	}
}

// nameRope adds the rotary settings under the spelling's names.
func (o Options) nameRope(config map[string]any, d *decoderSpec) {
	if o.Spelling == Transformers4 {
		config["rope_theta"] = d.Theta
		config["rope_scaling"] = map[string]any{"mrope_section": d.MRope, "rope_type": "default", "type": "default"}
		return
	}
	config["rope_parameters"] = map[string]any{"mrope_section": d.MRope, "rope_theta": d.Theta, "rope_type": "default"}
}

// mediaIDs adds the ids of media placeholders, which thinker and talker share.
func mediaIDs(config map[string]any, ids tokenIDs) {
	config["audio_token_index"], config["image_token_index"] = ids.Audio, ids.Image
	config["video_token_index"] = ids.Video
	config["audio_start_token_id"], config["audio_end_token_id"] = ids.AudioStart, ids.AudioEnd
	config["vision_start_token_id"], config["vision_end_token_id"] = ids.VisionStart, ids.VisionEnd
	config["position_id_per_seconds"], config["seconds_per_chunk"] = positionsPerSecond, secondsPerChunk
	config["initializer_range"] = 0.02
}

// decoderConfig returns what both text decoders have.
func decoderConfig(o Options, d *decoderSpec) map[string]any {
	config := map[string]any{
		"attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": d.Hidden, "initializer_range": 0.02,
		"intermediate_size": d.Intermediate, "max_position_embeddings": d.MaxPositions, "max_window_layers": d.Layers,
		"num_attention_heads": d.Heads, "num_hidden_layers": d.Layers, "num_key_value_heads": d.KVHeads,
		"rms_norm_eps": d.Eps, "use_cache": true, "use_sliding_window": d.Window > 0, "vocab_size": d.Vocabulary,
	}
	switch {
	case d.Window > 0:
		config["sliding_window"], config["max_window_layers"] = d.Window, d.FullLayers
	case o.Spelling == Transformers4:
		config["sliding_window"] = d.MaxPositions // named, though it is not used
	default:
		config["sliding_window"] = nil
	}
	if o.Spelling == Transformers5 {
		layers := make([]string, d.Layers)
		for i := range layers {
			layers[i] = "full_attention"
			if d.Window > 0 && i >= d.FullLayers {
				layers[i] = "sliding_attention"
			}
		}
		config["layer_types"] = layers
	}
	o.nameRope(config, d)
	return config
}

// thinkerConfig returns the member of that name.
func thinkerConfig(o Options, p *omniPreset, ids tokenIDs) map[string]any {
	text := decoderConfig(o, &p.Thinker)
	text["model_type"] = "qwen2_5_omni_text"
	text["tie_word_embeddings"] = p.Tied
	if p.Thinker.HeadDim*p.Thinker.Heads != p.Thinker.Hidden {
		text["head_dim"] = p.Thinker.HeadDim
	}
	config := map[string]any{
		"model_type": "qwen2_5_omni_thinker", "text_config": text, "tie_word_embeddings": p.Tied,
		"audio_config": audioConfig(&p.Audio, p.Thinker.Hidden), "vision_config": visionConfig(o, &p.Vision, p.Thinker.Hidden),
		"user_token_id": ids.User, "bos_token_id": ids.MessageStart, "eos_token_id": ids.MessageEnd,
		"pad_token_id": ids.EndOfText, "vision_token_id": ids.VisionPad, "ignore_index": -100,
	}
	mediaIDs(config, ids)
	o.nameDType(config)
	return config
}

// talkerConfig returns the member of that name.
func talkerConfig(o Options, p *omniPreset, ids tokenIDs) map[string]any {
	config := decoderConfig(o, &p.Talker)
	mediaIDs(config, ids)
	config["model_type"] = "qwen2_5_omni_talker"
	config["embedding_size"], config["head_dim"] = p.Thinker.Hidden, p.Talker.HeadDim
	config["spatial_merge_size"] = p.Vision.Merge
	config["tie_word_embeddings"] = false
	config["tts_codec_pad_token_id"], config["tts_codec_mask_token_id"] = p.Codec.Pad, p.Codec.Mask
	config["tts_codec_start_token_id"], config["tts_codec_end_token_id"] = p.Codec.Start, p.Codec.End
	config["tts_text_pad_token_id"] = ids.SpeechPad
	config["tts_text_start_token_id"], config["tts_text_end_token_id"] = ids.SpeechStart, ids.SpeechEnd
	o.nameDType(config)
	return config
}

// audioConfig returns the member of that name; out is the width of the rows that the thinker reads.
func audioConfig(a *audioSpec, out int) map[string]any {
	return map[string]any{
		"model_type": "qwen2_5_omni_audio_encoder", "activation_dropout": 0.0, "activation_function": "gelu",
		"attention_dropout": 0.0, "d_model": a.Model, "dropout": 0.0, "encoder_attention_heads": a.Heads,
		"encoder_ffn_dim": a.FFN, "encoder_layers": a.Layers, "initializer_range": 0.02,
		"max_source_positions": a.MaxPositions, "n_window": a.Window, "num_mel_bins": a.Mel, "output_dim": out,
		"scale_embedding": false,
	}
}

// visionConfig returns the member of that name; out is the width of the rows that the thinker reads.
func visionConfig(o Options, v *visionSpec, out int) map[string]any {
	config := map[string]any{
		"model_type": "qwen2_5_omni_vision_encoder", "depth": v.Depth, "fullatt_block_indexes": v.FullAttention,
		"hidden_act": "silu", "hidden_size": v.Hidden, "in_channels": 3, "initializer_range": 0.02,
		"intermediate_size": v.Intermediate, "num_heads": v.Heads, "out_hidden_size": out, "patch_size": v.Patch,
		"spatial_merge_size": v.Merge, "temporal_patch_size": v.TemporalPatch, "window_size": v.WindowLen,
	}
	if o.Spelling == Transformers4 {
		config["spatial_patch_size"], config["tokens_per_second"] = v.Patch, positionsPerSecond
	} else {
		config["rope_parameters"] = map[string]any{"rope_theta": 10000.0, "rope_type": "axial"}
	}
	return config
}

// token2wavConfig returns the member of that name.
func token2wavConfig(o Options, p *omniPreset) map[string]any {
	d, v := &p.DiT, &p.Vocoder
	dit := map[string]any{
		"model_type": "qwen2_5_omni_dit", "block_size": d.Block, "dropout": 0.1, "emb_dim": d.Emb,
		"enc_attention_channels": d.EncAttentionChannels, "enc_channels": d.EncChannels, "enc_dilations": d.EncDilations,
		"enc_dim": d.Enc, "enc_emb_dim": d.SpeakerEmb, "enc_kernel_sizes": d.EncKernels,
		"enc_res2net_scale": d.EncRes2NetScale, "enc_se_channels": d.EncSEChannel, "ff_mult": d.FFMult,
		"head_dim": d.HeadDim, "hidden_size": d.Hidden, "look_ahead_layers": d.Ahead, "look_backward_layers": d.Back,
		"max_position_embeddings": d.MaxPositions, "mel_dim": d.Mel, "num_attention_heads": d.Heads,
		"num_embeds": d.Embeds, "num_hidden_layers": d.Layers, "repeats": d.Repeats,
	}
	bigvgan := map[string]any{
		"model_type": "qwen2_5_omni_bigvgan", "mel_dim": d.Mel, "resblock_dilation_sizes": v.Dilations,
		"resblock_kernel_sizes": v.Kernels, "upsample_initial_channel": v.Channels,
		"upsample_kernel_sizes": v.UpsampleKernel, "upsample_rates": v.Rates,
	}
	if o.Spelling == Transformers4 {
		dit["dim"], dit["depth"], dit["heads"] = d.Hidden, d.Layers, d.Heads
		dit["enc_global_context"], dit["enc_lin_neurons"] = true, d.SpeakerEmb
		dit["rope_theta"] = d.Theta
		dit["torch_dtype"], bigvgan["use_bias_at_final"] = Float32, false
	} else {
		dit["rope_parameters"] = map[string]any{"rope_theta": d.Theta, "rope_type": "default"}
	}
	return map[string]any{"model_type": "qwen2_5_omni_token2wav", "dit_config": dit, "bigvgan_config": bigvgan}
}
