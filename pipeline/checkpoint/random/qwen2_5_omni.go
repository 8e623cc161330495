package random

import (
	_ "embed"
	"fmt"
)

const familyQwen25Omni = "qwen2_5_omni"

// chatTemplate is a ChatML template with the media placeholders of Qwen2.5-Omni.
//
//go:embed chat_template.jinja
var chatTemplate string

// files implements preset.
func (p *omniPreset) files(o Options, t *tokenizer) (map[string][]byte, error) {
	files, err := t.files(p.PairMerge)
	if err != nil {
		return nil, err
	}
	ids := t.ids()
	tokenizerConfig := omniTokenizerConfig(t, p.Thinker.MaxPositions)
	documents := map[string]any{
		"config.json": omniConfig(o, p, ids),
		"generation_config.json": map[string]any{
			"bos_token_id": ids.MessageStart, "eos_token_id": []int{ids.MessageEnd, ids.EndOfText},
			"pad_token_id": ids.EndOfText, "transformers_version": o.transformersVersion(),
		},
		"tokenizer_config.json": tokenizerConfig,
	}
	if o.Spelling == Transformers4 {
		documents["preprocessor_config.json"] = omniPreprocessor4(p)
	} else {
		documents["processor_config.json"] = omniProcessor5(p)
	}
	switch p.Template {
	case templateJinja:
		files["chat_template.jinja"] = []byte(chatTemplate)
	case templateJSON:
		documents["chat_template.json"] = map[string]any{"chat_template": chatTemplate}
	case templateTokenizerConfig:
		tokenizerConfig["chat_template"] = chatTemplate
	}
	for name, document := range documents {
		if files[name], err = jsonFile(document); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if files["spk_dict.pt"], err = speakerFile(newVoices(p, o.Seed, ids.Voice)); err != nil {
		return nil, fmt.Errorf("spk_dict.pt: %w", err)
	}
	return files, nil
}

// transformersVersion is the version of transformers whose words the config uses.
func (o Options) transformersVersion() string {
	if o.Spelling == Transformers4 {
		return "4.52.3"
	}
	return "5.23.0"
}

// omniTokenizerConfig returns tokenizer_config.json.
func omniTokenizerConfig(t *tokenizer, maxLength int) map[string]any {
	added := map[string]any{}
	var special []string
	for _, token := range t.added {
		added[fmt.Sprint(token.ID)] = map[string]any{
			"content": token.Content, "lstrip": token.LStrip, "normalized": token.Normalized, "rstrip": token.RStrip,
			"single_word": token.SingleWord, "special": token.Special,
		}
		if token.Special && token.Content != "<|endoftext|>" {
			special = append(special, token.Content)
		}
	}
	media := map[string]any{
		"audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>", "audio_token": "<|AUDIO|>",
		"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>",
		"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
	}
	config := map[string]any{
		"add_bos_token": false, "add_prefix_space": false, "added_tokens_decoder": added,
		"additional_special_tokens": special, "bos_token": nil, "clean_up_tokenization_spaces": false,
		"eos_token": "<|im_end|>", "errors": "replace", "extra_special_tokens": media, "model_max_length": maxLength,
		"pad_token": "<|endoftext|>", "processor_class": "Qwen2_5OmniProcessor", "split_special_tokens": false,
		"tokenizer_class": "Qwen2Tokenizer", "unk_token": nil,
	}
	for name, token := range media {
		config[name] = token
	}
	return config
}

// imageProcessor returns the settings of the image processor, which both spellings share.
func imageProcessor(v *visionSpec) map[string]any {
	unit := v.Patch * v.Merge
	return map[string]any{
		"image_mean": []float64{0.48145466, 0.4578275, 0.40821073}, "image_std": []float64{0.26862954, 0.26130258, 0.27577711},
		"image_processor_type": "Qwen2VLImageProcessor", "merge_size": v.Merge, "patch_size": v.Patch,
		"temporal_patch_size": v.TemporalPatch, "min_pixels": 4 * unit * unit, "max_pixels": 16384 * unit * unit,
	}
}

// audioProcessor returns the settings of the log-mel front end, which both spellings share.
func audioProcessor(a *audioSpec) map[string]any {
	const rate, seconds, hop = 16000, 300, 160
	return map[string]any{
		"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": a.Mel, "sampling_rate": rate,
		"chunk_length": seconds, "hop_length": hop, "n_fft": 400, "n_samples": rate * seconds,
		"nb_max_frames": rate * seconds / hop, "padding_side": "right", "padding_value": 0.0, "dither": 0.0,
		"return_attention_mask": true,
	}
}

// omniPreprocessor4 returns preprocessor_config.json: image and audio settings in one flat object.
func omniPreprocessor4(p *omniPreset) map[string]any {
	config := imageProcessor(&p.Vision)
	for name, value := range audioProcessor(&p.Audio) {
		config[name] = value
	}
	config["processor_class"] = "Qwen2_5OmniProcessor"
	return config
}

// omniProcessor5 returns processor_config.json: one object per processor.
func omniProcessor5(p *omniPreset) map[string]any {
	video := imageProcessor(&p.Vision)
	delete(video, "image_processor_type")
	video["video_processor_type"] = "Qwen2VLVideoProcessor"
	return map[string]any{
		"processor_class": "Qwen2_5OmniProcessor", "feature_extractor": audioProcessor(&p.Audio),
		"image_processor": imageProcessor(&p.Vision), "video_processor": video,
	}
}
