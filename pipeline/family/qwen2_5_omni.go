package family

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/prompt"
)

// The stages of Qwen2.5-Omni.
const (
	qwen25Thinker  = 0
	qwen25Talker   = 1
	qwen25Code2Wav = 2
)

// qwen25SystemPrompt is the system message that the released models were trained to speak with; with another one
// the talker's speech degrades.
const qwen25SystemPrompt = "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of " +
	"perceiving auditory and visual inputs, as well as generating text and speech."

// qwen25Speaker is the reference's default speaker.
const qwen25Speaker = "Chelsie"

// qwen25Omni: the thinker writes text; its rows (hidden state plus embedding) feed the talker, which writes codec
// tokens; code2wav makes sound of them. The generator's state goes along, so that a seeded request draws the numbers
// that the reference draws in one process.
//
// The sampling defaults are those of transformers' Qwen2_5OmniForConditionalGeneration.generate. It does not read
// generation_config.json for any of the three stages, and neither do we. One default differs: a thinker that samples
// takes no top-k unless it is asked for, as in vLLM, where transformers takes its global default of 50.
var qwen25Omni = Family{
	Name:          "qwen2_5_omni",
	Architectures: []string{"Qwen2_5OmniForConditionalGeneration", "Qwen2_5OmniModel"},
	ModelTypes:    []string{"qwen2_5_omni"},
	Stages: []Stage{
		{ID: qwen25Thinker, Name: "thinker", Model: "qwen2_5_omni.thinker", Kind: Autoregressive, Final: Text},
		{ID: qwen25Talker, Name: "talker", Model: "qwen2_5_omni.talker", Kind: Autoregressive, Inputs: []int{qwen25Thinker}},
		{ID: qwen25Code2Wav, Name: "code2wav", Model: "qwen2_5_omni.token2wav", Kind: Generation, Inputs: []int{qwen25Talker}, Final: Audio, Chunks: true},
	},
	Edges: []Edge{
		{From: qwen25Thinker, To: qwen25Talker, Tensors: []string{"prompt_rows", "reply_rows", "rng_state"}},
		{From: qwen25Talker, To: qwen25Code2Wav, Tokens: true, Tensors: []string{"rng_state"}},
	},
	Sampling: []config.SamplingParams{
		qwen25Thinker: {
			Temperature: config.Ptr(0.0), TopP: config.Ptr(1.0), TopK: config.Ptr(int64(-1)),
			MaxTokens: config.Ptr(int64(1024)), RepetitionPenalty: config.Ptr(1.0),
		},
		qwen25Talker: {
			Temperature: config.Ptr(0.9), TopP: config.Ptr(0.8), TopK: config.Ptr(int64(40)),
			MaxTokens: config.Ptr(int64(4096)), RepetitionPenalty: config.Ptr(1.05),
		},
		qwen25Code2Wav: {},
	},
	adapt: adaptQwen25Omni,
	open:  openQwen25Omni,
}

// qwen25Model is a checkpoint of the family, opened.
type qwen25Model struct {
	family    *Family
	config    *config.Config
	tokenizer *prompt.Tokenizer
	template  *prompt.Template
	eos       []int64
}

// adaptQwen25Omni leaves the thinker alone in a checkpoint without speech.
func adaptQwen25Omni(f *Family, folder *checkpoint.Folder) error {
	file := struct {
		Audio *bool `json:"enable_audio_output"`
	}{}
	if err := folder.ReadJSON("config.json", &file); err != nil {
		return err
	}
	if file.Audio != nil && !*file.Audio {
		f.Stages, f.Edges, f.Sampling = f.Stages[:1], nil, f.Sampling[:1]
	}
	return nil
}

func openQwen25Omni(f *Family, folder *checkpoint.Folder, cfg *config.Config) (Model, error) {
	tokenizer, errTokenizer := prompt.OpenTokenizer(folder)
	template, errTemplate := prompt.OpenTemplate(folder)
	eos, errEOS := qwen25EOS(folder)
	errFiles := folder.RequireWeights()
	if _, speaks := cfg.Stage(qwen25Talker); speaks {
		errFiles = errors.Join(errFiles, folder.Require("spk_dict.pt"))
	}
	if err := errors.Join(errTokenizer, errTemplate, errEOS, errFiles); err != nil {
		return nil, err
	}
	return &qwen25Model{family: f, config: cfg.Clone(), tokenizer: tokenizer, template: template, eos: eos}, nil
}

// qwen25EOS returns the ids that end the thinker's reply. The reference builds the thinker's generation config from
// thinker_config and, where that names none, from its text_config; it ignores generation_config.json here. A config
// that names none lets the thinker write until max_tokens.
func qwen25EOS(folder *checkpoint.Folder) ([]int64, error) {
	var file struct {
		Thinker struct {
			EOS  tokenIDs `json:"eos_token_id"`
			Text struct {
				EOS tokenIDs `json:"eos_token_id"`
			} `json:"text_config"`
		} `json:"thinker_config"`
	}
	if err := folder.ReadJSON("config.json", &file); err != nil {
		return nil, err
	}
	if file.Thinker.EOS != nil {
		return file.Thinker.EOS, nil
	}
	return file.Thinker.Text.EOS, nil
}

// tokenIDs reads 5, [5, 6] and null.
type tokenIDs []int64

// UnmarshalJSON implements json.Unmarshaler.
func (t *tokenIDs) UnmarshalJSON(data []byte) error {
	var one int64
	if string(data) == "null" {
		return nil
	}
	if json.Unmarshal(data, &one) == nil {
		*t = tokenIDs{one}
		return nil
	}
	var many []int64
	if err := json.Unmarshal(data, &many); err != nil {
		return fmt.Errorf("want a token id or a list of token ids, got %s", data)
	}
	*t = many
	return nil
}

// NewTextDecoder implements Model.
func (m *qwen25Model) NewTextDecoder() *prompt.StreamDecoder {
	return m.tokenizer.NewStreamDecoder(true)
}

// Prepare implements Model.
func (m *qwen25Model) Prepare(req Request, infos map[int]StageInfo) (*Prepared, error) {
	messages, err := m.messages(req)
	if err != nil {
		return nil, err
	}
	finals, err := m.family.finals(req.Modalities, m.config)
	if err != nil {
		return nil, err
	}
	sampling, err := mergeSampling(m.config, req, qwen25Thinker)
	if err != nil {
		return nil, err
	}
	speech, err := mergeSpeech(m.config, req, qwen25Code2Wav)
	if err != nil {
		return nil, err
	}
	p := &Prepared{
		Finals: finals, Stages: m.family.needed(finals), Params: map[int]json.RawMessage{},
		Full: map[int]bool{qwen25Code2Wav: speech.Mode == config.ModeFull},
	}
	if err := m.tokenize(p, messages, infos[qwen25Thinker]); err != nil {
		return nil, err
	}
	audio := len(p.Stages) > 1
	if p.Speaker, err = m.speaker(req.Speaker, audio, infos); err != nil {
		return nil, err
	}
	if !audio {
		p.Speaker = ""
	}
	seeds := planSeeds(req, sampling)
	for _, id := range p.Stages {
		params := seeds[id].params()
		switch id {
		case qwen25Thinker:
			params["prompt_token_ids"] = p.PromptTokenIDs
			params["emit_rows"] = audio
			params["sampling"] = engineSampling(sampling[id], within(m.eos, infos[id].VocabSize))
		case qwen25Talker:
			params["prompt_tokens"] = len(p.PromptTokenIDs)
			params["speaker"] = p.Speaker
			params["sampling"] = engineSampling(limitCodes(sampling[id], req.MaxAudio, infos[qwen25Code2Wav]), nil)
		case qwen25Code2Wav:
			if speech.Mode == config.ModeStream {
				params = streamParams(speech, seeds[id].alone(req))
			}
			params["speaker"] = p.Speaker
		}
		if p.Params[id], err = json.Marshal(params); err != nil {
			return nil, fmt.Errorf("stage %d: %w", id, err)
		}
	}
	return p, nil
}

// messages is the conversation to render. A prompt alone gets the system message that the models speak with; a whole
// conversation stays as it is (the template has a default of its own), but for a system message asked for.
func (m *qwen25Model) messages(req Request) ([]prompt.Message, error) {
	switch {
	case len(req.Messages) > 0 && req.Prompt != "":
		return nil, errors.New("the request has both a prompt and messages, want one of them")
	case len(req.Messages) == 0 && req.Prompt == "":
		return nil, errors.New("the request has no prompt")
	case len(req.Messages) > 0 && req.System != "" && req.Messages[0].Role == "system":
		return nil, errors.New("the request has a system prompt and a system message, want one of them")
	case len(req.Messages) > 0 && req.System != "":
		return append([]prompt.Message{{Role: "system", Text: req.System}}, req.Messages...), nil
	case len(req.Messages) > 0 && req.UsualSystem && req.Messages[0].Role != "system":
		return append([]prompt.Message{{Role: "system", Text: qwen25SystemPrompt}}, req.Messages...), nil
	case len(req.Messages) > 0:
		return req.Messages, nil
	}
	system := req.System
	if system == "" {
		system = qwen25SystemPrompt
	}
	return []prompt.Message{{Role: "system", Text: system}, {Role: "user", Text: req.Prompt}}, nil
}

// tokenize renders the conversation and makes token ids of it.
func (m *qwen25Model) tokenize(p *Prepared, messages []prompt.Message, info StageInfo) (err error) {
	if p.RenderedPrompt, err = m.template.Render(messages, true); err != nil {
		return err
	}
	if p.PromptTokenIDs, err = m.tokenizer.Encode(p.RenderedPrompt); err != nil {
		return err
	}
	if len(p.PromptTokenIDs) == 0 {
		return errors.New("the prompt has no tokens")
	}
	if n := int64(len(p.PromptTokenIDs)); info.MaxPositions > 0 && n > info.MaxPositions {
		return fmt.Errorf("the prompt has %d tokens, the thinker takes at most %d", n, info.MaxPositions)
	}
	for _, id := range p.PromptTokenIDs {
		if info.VocabSize > 0 && id >= info.VocabSize {
			return fmt.Errorf("the tokenizer gives id %d, but the thinker's vocabulary ends at %d: tokenizer and model do not belong together",
				id, info.VocabSize-1)
		}
	}
	return nil
}

// speaker checks the wanted speaker, by exact name like the reference, against those that the talker and code2wav
// both know; without a wish it is the reference's default, or the checkpoint's own if that speaker is not there.
func (m *qwen25Model) speaker(want string, audio bool, infos map[int]StageInfo) (string, error) {
	if !audio && want == "" {
		return "", nil
	}
	return pickSpeaker(want, qwen25Speaker, infos[qwen25Talker], infos[qwen25Code2Wav])
}
