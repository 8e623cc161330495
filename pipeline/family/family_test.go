package family_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/prompt"
)

const template = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

// write makes a folder with the small tokenizer, the template above, a config.json and empty files for the engines.
func write(t testing.TB, configJSON string) string {
	t.Helper()
	tokenizer, err := os.ReadFile("../checkpoint/random/tokenizer.json")
	require.NoError(t, err)
	return writeWith(t, string(tokenizer), configJSON)
}

func writeWith(t testing.TB, tokenizer, configJSON string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"tokenizer.json": tokenizer, "chat_template.jinja": template, "config.json": configJSON,
		"model.safetensors": "", "spk_dict.pt": "",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	return dir
}

const omniConfig = `{"architectures":["Qwen2_5OmniForConditionalGeneration"],"thinker_config":{"eos_token_id":1602}}`

func omni(t testing.TB) family.Model {
	t.Helper()
	_, m := openFolder(t, write(t, omniConfig))
	return m
}

// object is one stage's parameters, decoded.
func object(t testing.TB, p *family.Prepared, stage int) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(p.Params[stage], &m))
	return m
}

func sampling(t testing.TB, p *family.Prepared, stage int) map[string]any {
	t.Helper()
	m, ok := object(t, p, stage)["sampling"].(map[string]any)
	require.True(t, ok)
	return m
}

func TestLookup(t *testing.T) {
	tests := []struct{ name, config, err string }{
		{"released architecture", `{"architectures":["Qwen2_5OmniModel"],"model_type":"qwen2_5_omni"}`, ""},
		{"architecture of transformers", `{"architectures":["Qwen2_5OmniForConditionalGeneration"]}`, ""},
		{"model type alone", `{"model_type":"qwen2_5_omni"}`, ""},
		{"unknown", `{"architectures":["LlamaForCausalLM"],"model_type":"llama"}`, `config.json: unknown architecture ["LlamaForCausalLM"] (model_type "llama"); known are Qwen2_5OmniForConditionalGeneration, Qwen2_5OmniModel`},
		{"an unknown architecture outweighs a known type", `{"architectures":["Other"],"model_type":"qwen2_5_omni"}`, `unknown architecture ["Other"]`},
		{"nothing", `{}`, `unknown architecture [] (model_type "")`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			folder, err := checkpoint.Open(write(t, tt.config), noEnv)
			require.NoError(t, err)
			f, err := family.Lookup(folder)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "qwen2_5_omni", f.Name)
		})
	}
}

func TestDefaultsAreTheReference(t *testing.T) {
	p, err := omni(t).Prepare(family.Request{Prompt: "Hi"}, infos(1700, "Ethan", "Chelsie"))
	require.NoError(t, err)
	assert.Equal(t, "<|im_start|>system\nYou are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of "+
		"perceiving auditory and visual inputs, as well as generating text and speech.<|im_end|>\n"+
		"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", p.RenderedPrompt)
	assert.Equal(t, []int{0, 1, 2}, p.Stages)
	assert.Equal(t, map[int]string{0: "text", 2: "audio"}, p.Finals)
	assert.Equal(t, "Chelsie", p.Speaker)
	assert.Equal(t, map[string]any{
		"temperature": 0.0, "top_p": 1.0, "top_k": -1.0, "max_tokens": 1024.0, "min_tokens": 0.0, "repetition_penalty": 1.0, "stop_token_ids": []any{1602.0},
	}, sampling(t, p, 0))
	assert.Equal(t, map[string]any{
		"temperature": 0.9, "top_p": 0.8, "top_k": 40.0, "max_tokens": 4096.0, "min_tokens": 0.0, "repetition_penalty": 1.05, "stop_token_ids": []any{},
	}, sampling(t, p, 1))
	thinker, talker, wave := object(t, p, 0), object(t, p, 1), object(t, p, 2)
	assert.Len(t, thinker["prompt_token_ids"], len(p.PromptTokenIDs))
	assert.Equal(t, true, thinker["emit_rows"])
	assert.InDelta(t, len(p.PromptTokenIDs), talker["prompt_tokens"], 0)
	assert.Equal(t, "Chelsie", talker["speaker"])
	assert.Equal(t, "Chelsie", wave["speaker"])
	for _, stage := range []map[string]any{thinker, talker, wave} {
		assert.Contains(t, stage, "seed", "without a seed every stage draws its own")
		assert.NotContains(t, stage, "rng_from_upstream")
	}
	assert.NotEqual(t, talker["seed"], wave["seed"])
}

func TestTextOnlyNeedsTheFirstStage(t *testing.T) {
	p, err := omni(t).Prepare(family.Request{Prompt: "Hi", Modalities: []string{"text"}}, map[int]family.StageInfo{0: {VocabSize: 1700}})
	require.NoError(t, err)
	assert.Equal(t, []int{0}, p.Stages)
	assert.Equal(t, map[int]string{0: "text"}, p.Finals)
	assert.Equal(t, false, object(t, p, 0)["emit_rows"])
	assert.Len(t, p.Params, 1)
	assert.Empty(t, p.Speaker)
}

func TestAudioAloneStillNeedsTheThinker(t *testing.T) {
	p, err := omni(t).Prepare(family.Request{Prompt: "Hi", Modalities: []string{"audio"}}, infos(1700, "Chelsie"))
	require.NoError(t, err)
	assert.Equal(t, []int{0, 1, 2}, p.Stages)
	assert.Equal(t, map[int]string{2: "audio"}, p.Finals)
}

func TestSeeds(t *testing.T) {
	seed := func(v int64) config.SamplingParams { return config.SamplingParams{Seed: &v} }
	tests := []struct {
		name   string
		req    family.Request
		deploy map[int]int64 // seeds of the stage configuration
		want   [3]any        // a seed, or "upstream"
	}{
		{"of the request: one generator for all", family.Request{Seed: config.Ptr(int64(7))}, nil, [3]any{7.0, "upstream", "upstream"}},
		{"of the request, over the configuration's", family.Request{Seed: config.Ptr(int64(7))}, map[int]int64{0: 42, 1: 42, 2: 42}, [3]any{7.0, "upstream", "upstream"}},
		{"of a stage's own parameters", family.Request{Seed: config.Ptr(int64(7)), Sampling: []config.SamplingParams{{}, seed(9)}}, nil, [3]any{7.0, 9.0, "upstream"}},
		{"of every stage's own parameters", family.Request{Sampling: []config.SamplingParams{seed(1), seed(2), seed(3)}}, nil, [3]any{1.0, 2.0, 3.0}},
		{"of the configuration", family.Request{}, map[int]int64{0: 40, 1: 41, 2: 42}, [3]any{40.0, 41.0, 42.0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			folder, err := checkpoint.Open(write(t, omniConfig), noEnv)
			require.NoError(t, err)
			f, err := family.Lookup(folder)
			require.NoError(t, err)
			c := f.DefaultConfig()
			for id, v := range tt.deploy {
				c.Stages[id].Sampling.Seed = config.Ptr(v)
			}
			m, err := f.Open(folder, c)
			require.NoError(t, err)
			tt.req.Prompt = "Hi"
			p, err := m.Prepare(tt.req, infos(1700, "Chelsie"))
			require.NoError(t, err)
			for id, want := range tt.want {
				stage := object(t, p, id)
				if want == "upstream" {
					assert.Equal(t, true, stage["rng_from_upstream"], "stage %d", id)
					assert.NotContains(t, stage, "seed", "stage %d", id)
				} else {
					assert.Equal(t, want, stage["seed"], "stage %d", id)
				}
			}
		})
	}
}

// In mode stream code2wav cannot wait for the generator that the talker hands on at its end: the request's seed starts one
// of its own.
func TestSpeechInChunks(t *testing.T) {
	folder, err := checkpoint.Open(write(t, omniConfig), noEnv)
	require.NoError(t, err)
	f, err := family.Lookup(folder)
	require.NoError(t, err)
	c := f.DefaultConfig().WithMode(config.ModeStream)
	c.Stages[2].Speech.Chunk = config.Ptr(int64(48))
	m, err := f.Open(folder, c)
	require.NoError(t, err)
	seed := config.Ptr(int64(7))
	prepare := func(r family.Request) *family.Prepared {
		r.Prompt = "Hi"
		p, err := m.Prepare(r, infos(1700, "Chelsie"))
		require.NoError(t, err)
		return p
	}
	p := prepare(family.Request{Seed: seed, Speech: config.Speech{InitialChunk: config.Ptr(int64(12)), RightContext: config.Ptr(int64(0))}})
	assert.Equal(t, map[string]any{
		"mode": "stream", "seed": 7.0, "speaker": "Chelsie",
		"initial_codec_chunk_frames": 12.0, "codec_chunk_frames": 48.0, "codec_right_context_frames": 0.0,
	}, object(t, p, 2))
	assert.False(t, p.Full[2])
	assert.Equal(t, true, object(t, p, 1)["rng_from_upstream"], "the talker draws as the reference does")

	p = prepare(family.Request{Seed: seed, Sampling: []config.SamplingParams{{}, {}, {Seed: config.Ptr(int64(9))}}})
	assert.InDelta(t, 9, object(t, p, 2)["seed"], 0, "a seed of the stage's own stays")

	p = prepare(family.Request{Seed: seed, Speech: config.Speech{Mode: config.ModeFull}})
	assert.Equal(t, map[string]any{"rng_from_upstream": true, "speaker": "Chelsie"}, object(t, p, 2))
	assert.True(t, p.Full[2])

	p, err = omni(t).Prepare(family.Request{Prompt: "Hi"}, infos(1700, "Chelsie"))
	require.NoError(t, err)
	assert.True(t, p.Full[2], "by default the reference's")
}

func TestSamplingIsLaidOverTheDefaults(t *testing.T) {
	m := omni(t)
	p, err := m.Prepare(family.Request{
		Prompt: "Hi", MaxTokens: 5,
		Sampling: []config.SamplingParams{{StopTokenIDs: []int64{11, 1602}}, {Temperature: config.Ptr(0.0), TopK: config.Ptr(int64(0))}},
	}, infos(1700, "Chelsie"))
	require.NoError(t, err)
	assert.InDelta(t, 5, sampling(t, p, 0)["max_tokens"], 0)
	assert.Equal(t, []any{1602.0, 11.0}, sampling(t, p, 0)["stop_token_ids"])
	assert.InDelta(t, 0, sampling(t, p, 1)["temperature"], 0)
	assert.InDelta(t, -1, sampling(t, p, 1)["top_k"], 0)
	assert.InDelta(t, 0.8, sampling(t, p, 1)["top_p"], 0, "what is not set stays")
	assert.InDelta(t, 4096, sampling(t, p, 1)["max_tokens"], 0, "MaxTokens is the text stage's")

	p, err = m.Prepare(family.Request{
		Prompt: "Hi", MaxTokens: 5, Sampling: []config.SamplingParams{{MaxTokens: config.Ptr(int64(9))}},
	}, infos(1700, "Chelsie"))
	require.NoError(t, err)
	assert.InDelta(t, 9, sampling(t, p, 0)["max_tokens"], 0, "the stage's own parameters are closer")
}

// The reference takes the thinker's end tokens from thinker_config, then from its text_config, then from nowhere.
func TestEndTokensOfTheThinker(t *testing.T) {
	arch := `"architectures":["Qwen2_5OmniModel"],"thinker_config":`
	tests := []struct {
		name, config string
		want         []any
		err          string
	}{
		{"thinker_config", `{` + arch + `{"eos_token_id":1602,"text_config":{"eos_token_id":5}}}`, []any{1602.0}, ""},
		{"a list", `{` + arch + `{"eos_token_id":[1602,1600]}}`, []any{1602.0, 1600.0}, ""},
		{"text_config", `{` + arch + `{"eos_token_id":null,"text_config":{"eos_token_id":5}}}`, []any{5.0}, ""},
		{"none", `{` + arch + `{"text_config":{}}}`, []any{}, ""},
		{"beyond the vocabulary", `{` + arch + `{"eos_token_id":[151645,1602]}}`, []any{1602.0}, ""},
		{"not a number", `{` + arch + `{"eos_token_id":"x"}}`, nil, `config.json: want a token id or a list of token ids, got "x"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, tt.config)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(`{"eos_token_id":77,"do_sample":true}`), 0o600))
			folder, err := checkpoint.Open(dir, noEnv)
			require.NoError(t, err)
			f, err := family.Lookup(folder)
			require.NoError(t, err)
			m, err := f.Open(folder, f.DefaultConfig())
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			p, err := m.Prepare(family.Request{Prompt: "Hi"}, infos(1700, "Chelsie"))
			require.NoError(t, err)
			assert.Equal(t, tt.want, sampling(t, p, 0)["stop_token_ids"])
			assert.InDelta(t, 0, sampling(t, p, 0)["temperature"], 0)
		})
	}
}

func TestMessages(t *testing.T) {
	user, system := prompt.Message{Role: "user", Text: "Hi"}, prompt.Message{Role: "system", Text: "S"}
	tests := []struct {
		name string
		req  family.Request
		want string
	}{
		{"a system prompt", family.Request{Prompt: "Hi", System: "S"}, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
		{"a conversation is left alone", family.Request{Messages: []prompt.Message{user}}, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
		{"a conversation that gets the usual system message", family.Request{Messages: []prompt.Message{system, user}, UsualSystem: true}, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
		{"a conversation with a system message", family.Request{Messages: []prompt.Message{system, user}}, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
		{"a conversation and a system prompt", family.Request{Messages: []prompt.Message{user}, System: "S"}, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
	}
	m := omni(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := m.Prepare(tt.req, infos(1700, "Chelsie"))
			require.NoError(t, err)
			assert.Equal(t, tt.want, p.RenderedPrompt)
		})
	}
}

func TestRefusals(t *testing.T) {
	hi := func(change func(*family.Request)) family.Request {
		r := family.Request{Prompt: "Hi"}
		change(&r)
		return r
	}
	usual := infos(1700, "Ethan", "Chelsie")
	tests := []struct {
		name  string
		req   family.Request
		infos map[int]family.StageInfo
		want  string
	}{
		{"no prompt", family.Request{}, usual, "the request has no prompt"},
		{"two prompts", hi(func(r *family.Request) { r.Messages = []prompt.Message{{Role: "user", Text: "x"}} }), usual, "the request has both a prompt and messages"},
		{"two system messages", family.Request{Messages: []prompt.Message{{Role: "system", Text: "x"}}, System: "S"}, usual, "the request has a system prompt and a system message, want one of them"},
		{"unknown modality", hi(func(r *family.Request) { r.Modalities = []string{"text", "video"} }), usual, `unknown modality "video", this model makes text, audio`},
		{"unknown speaker", hi(func(r *family.Request) { r.Speaker = "Bob" }), usual, `unknown speaker "Bob", this checkpoint has ["Ethan", "Chelsie"]`},
		{"speaker in another case", hi(func(r *family.Request) { r.Speaker = "ethan" }), usual, `did you mean "Ethan"?`},
		{"unknown speaker of a text request", hi(func(r *family.Request) { r.Speaker, r.Modalities = "Bob", []string{"text"} }), usual, `unknown speaker "Bob"`},
		{"too many parameters", hi(func(r *family.Request) { r.Sampling = make([]config.SamplingParams, 4) }), usual, "sampling parameters for 4 stages, but the pipeline has 3"},
		{"bad parameters", hi(func(r *family.Request) { r.Sampling = []config.SamplingParams{{}, {TopP: config.Ptr(2.0)}} }), usual, "sampling parameters of stage 1: top_p is 2"},
		{"unknown mode", hi(func(r *family.Request) { r.Speech.Mode = "half" }), usual, `mode is "half", want full or stream`},
		{"negative limit", hi(func(r *family.Request) { r.MaxTokens = -1 }), usual, "max_tokens is -1"},
		{"negative seed", hi(func(r *family.Request) { r.Seed = config.Ptr(int64(-1)) }), usual, "seed is -1, want 0 or more"},
		{"too long", hi(func(*family.Request) {}), map[int]family.StageInfo{0: {MaxPositions: 3}, 1: usual[1], 2: usual[2]}, "tokens, the thinker takes at most 3"},
		{"foreign tokenizer", hi(func(*family.Request) {}), map[int]family.StageInfo{0: {VocabSize: 1000}, 1: usual[1], 2: usual[2]}, "tokenizer and model do not belong together"},
		{"no speakers", hi(func(*family.Request) {}), map[int]family.StageInfo{}, "this checkpoint has no speakers"},
	}
	m := omni(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := m.Prepare(tt.req, tt.infos)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestSpeakerWithoutAWish(t *testing.T) {
	m := omni(t)
	for want, names := range map[string][]string{"Chelsie": {"Ethan", "Chelsie"}, "Ethan": {"Ethan", "Zoe"}} {
		p, err := m.Prepare(family.Request{Prompt: "Hi"}, infos(1700, names...))
		require.NoError(t, err)
		assert.Equal(t, want, p.Speaker)
	}
}

func TestAPartialDeploymentRefusesWhatItCannotMake(t *testing.T) {
	folder, err := checkpoint.Open(write(t, omniConfig), noEnv)
	require.NoError(t, err)
	f, err := family.Lookup(folder)
	require.NoError(t, err)
	c, err := config.Decode([]byte("stages: [{stage_id: 0}]"), "text.yml", f.DefaultConfig())
	require.NoError(t, err)
	m, err := f.Open(folder, c)
	require.NoError(t, err)
	p, err := m.Prepare(family.Request{Prompt: "Hi"}, map[int]family.StageInfo{0: {}})
	require.NoError(t, err)
	assert.Equal(t, []int{0}, p.Stages)
	_, err = m.Prepare(family.Request{Prompt: "Hi", Modalities: []string{"audio"}}, map[int]family.StageInfo{0: {}})
	require.ErrorContains(t, err, `modality "audio" needs stage 1, which the stage configuration text.yml leaves out`)
}

func TestOpenReportsEveryFault(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(omniConfig), 0o600))
	folder, err := checkpoint.Open(dir, noEnv)
	require.NoError(t, err)
	f, err := family.Lookup(folder)
	require.NoError(t, err)
	_, err = f.Open(folder, f.DefaultConfig())
	require.ErrorContains(t, err, "has no tokenizer")
	require.ErrorContains(t, err, "has no chat template")
	require.ErrorContains(t, err, "has no weights")
	require.ErrorContains(t, err, "it has no spk_dict.pt")
}

func TestACheckpointWithoutSpeechHasOneStage(t *testing.T) {
	dir := write(t, `{"architectures":["Qwen2_5OmniModel"],"enable_audio_output":false}`)
	require.NoError(t, os.Remove(filepath.Join(dir, "spk_dict.pt")))
	folder, err := checkpoint.Open(dir, noEnv)
	require.NoError(t, err)
	f, err := family.Lookup(folder)
	require.NoError(t, err)
	assert.Len(t, f.Stages, 1)
	assert.Empty(t, f.Edges)
	c := f.DefaultConfig()
	assert.Len(t, c.Stages, 1)
	m, err := f.Open(folder, c)
	require.NoError(t, err)
	p, err := m.Prepare(family.Request{Prompt: "Hi"}, map[int]family.StageInfo{0: {}})
	require.NoError(t, err)
	assert.Equal(t, map[int]string{0: "text"}, p.Finals)
	_, err = m.Prepare(family.Request{Prompt: "Hi", Modalities: []string{"audio"}}, map[int]family.StageInfo{0: {}})
	require.ErrorContains(t, err, `unknown modality "audio", this model makes text`)

	whole, err := checkpoint.Open(write(t, omniConfig), noEnv)
	require.NoError(t, err)
	again, err := family.Lookup(whole)
	require.NoError(t, err)
	assert.Len(t, again.Stages, 3, "one checkpoint changed the table for the others")
}

// FuzzConfig reads any bytes as config.json: nothing may panic, every fault names the file or what the folder lacks, and with
// what is accepted a request can be prepared or is refused.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(omniConfig))
	f.Add([]byte(`{"architectures":["Qwen2_5OmniModel"],"torch_dtype":"bfloat16","enable_audio_output":false}`))
	f.Add([]byte(`{"model_type":"qwen2_5_omni","dtype":"torch.float32","thinker_config":{"text_config":{"eos_token_id":[5,1602]}}}`))
	f.Add([]byte(`{"model_type":"qwen2_5_omni","thinker_config":{"eos_token_id":[-1,99999999999]}}`))
	f.Add([]byte(`{"model_type":"qwen2_5_omni","thinker_config":{"eos_token_id":1e400}}`))
	f.Add([]byte(`{"architectures":["LlamaForCausalLM"]}`))
	f.Add([]byte(`{"architectures":"A"}`))
	f.Add([]byte(`{"architectures":null,"model_type":7}`))
	f.Add([]byte("{\"model_type\":\"\xff\"}"))
	f.Add([]byte(`[`))
	const tokenizer = `{"pre_tokenizer":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},
		"model":{"type":"BPE","unk_token":"a","vocab":{"a":0},"merges":[]}}`
	f.Fuzz(func(t *testing.T, config []byte) {
		dir := writeWith(t, tokenizer, string(config))
		folder, err := checkpoint.Open(dir, noEnv)
		if err != nil {
			require.ErrorContains(t, err, "config.json")
			return
		}
		row, err := family.Lookup(folder)
		if err != nil {
			require.ErrorContains(t, err, "config.json")
			return
		}
		deployment := row.DefaultConfig()
		require.NoError(t, deployment.Validate())
		model, err := row.Open(folder, deployment)
		if err != nil {
			require.ErrorContains(t, err, "config.json")
			return
		}
		p, err := model.Prepare(family.Request{Prompt: "Hi"}, infos(1700, "Chelsie"))
		require.NoError(t, err)
		require.Len(t, p.Params, len(p.Stages))
	})
}
