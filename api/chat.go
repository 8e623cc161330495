package api

import (
	"encoding/base64"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/media"
)

// chatRequest is the body of POST /v1/chat/completions.
type chatRequest struct {
	Model               string        `json:"model"`
	Messages            []chatMessage `json:"messages" schema:"required;minItems=1;example=[{\"role\":\"user\",\"content\":\"Hello\"}]"`
	Audio               *chatAudio    `json:"audio"`
	Stream              *bool         `json:"stream"`
	StreamOptions       *chatStream   `json:"stream_options"`
	Temperature         *float64      `json:"temperature" schema:"min=0;max=100"`
	TopP                *float64      `json:"top_p" schema:"min=0.000001;max=1"`
	MaxTokens           *int64        `json:"max_tokens" schema:"min=1;max=@tokens"`
	MaxCompletionTokens *int64        `json:"max_completion_tokens" schema:"min=1;max=@tokens"`
	Seed                *int64        `json:"seed" schema:"min=0"`
	Stop                stopStrings   `json:"stop"`

	extensions `json:",inline"`
	ExtraBody  *extensions `json:"extra_body"`

	// These change what is made, in ways that this server does not know: only values that change nothing are taken.
	N                jsontext.Value `json:"n" schema:"enum=1"`
	Logprobs         jsontext.Value `json:"logprobs" schema:"enum=false"`
	TopLogprobs      jsontext.Value `json:"top_logprobs" schema:"enum=0"`
	LogitBias        jsontext.Value `json:"logit_bias" schema:"enum={}"`
	FrequencyPenalty jsontext.Value `json:"frequency_penalty" schema:"enum=0"`
	PresencePenalty  jsontext.Value `json:"presence_penalty" schema:"enum=0"`
	ResponseFormat   jsontext.Value `json:"response_format" schema:"enum={\"type\":\"text\"}"`
	Tools            jsontext.Value `json:"tools" schema:"enum=[]"`
	ToolChoice       jsontext.Value `json:"tool_choice" schema:"enum=\"none\",\"auto\""`
	Functions        jsontext.Value `json:"functions" schema:"enum=[]"`
	FunctionCall     jsontext.Value `json:"function_call" schema:"enum=\"none\",\"auto\""`
	Prediction       jsontext.Value `json:"prediction" schema:"enum="`
	WebSearchOptions jsontext.Value `json:"web_search_options" schema:"enum="`

	// These are for OpenAI's own service and change nothing here.
	User                 jsontext.Value `json:"user"`
	Store                jsontext.Value `json:"store"`
	Metadata             jsontext.Value `json:"metadata"`
	ServiceTier          jsontext.Value `json:"service_tier"`
	SafetyIdentifier     jsontext.Value `json:"safety_identifier"`
	PromptCacheKey       jsontext.Value `json:"prompt_cache_key"`
	PromptCacheRetention jsontext.Value `json:"prompt_cache_retention"`
	ParallelToolCalls    jsontext.Value `json:"parallel_tool_calls"`
	ReasoningEffort      jsontext.Value `json:"reasoning_effort"`
	Verbosity            jsontext.Value `json:"verbosity"`
}

// chatAudio says how the speech of an answer shall be.
type chatAudio struct {
	Voice  voice  `json:"voice"`
	Format string `json:"format" schema:"enum=\"wav\",\"pcm\",\"pcm16\",\"flac\",\"mp3\",\"opus\",\"aac\""`
}

// chatStream are the options of a streamed answer.
type chatStream struct {
	IncludeUsage       *bool `json:"include_usage"`
	IncludeObfuscation *bool `json:"include_obfuscation"` // random padding; there is none here
}

// chatResponse is the answer that is not streamed.
type chatResponse struct {
	ID      string       `json:"id"`
	Object  string       `json:"object"`
	Created int64        `json:"created"`
	Model   string       `json:"model"`
	Choices []chatChoice `json:"choices"`
	Usage   usage        `json:"usage"`
	Metrics *metrics     `json:"metrics,omitempty"`
}

// chatChoice is the only choice of an answer.
type chatChoice struct {
	Index        int         `json:"index"`
	Message      chatAnswer  `json:"message"`
	Logprobs     *struct{}   `json:"logprobs"`
	FinishReason string      `json:"finish_reason"`
	AudioFormat  *audioFacts `json:"audio_metadata,omitempty"`
}

// chatAnswer is the message of an answer.
type chatAnswer struct {
	Role        string       `json:"role"`
	Content     *string      `json:"content"` // null if no text was asked for
	Refusal     *string      `json:"refusal"`
	Annotations []struct{}   `json:"annotations"`
	Audio       *answerAudio `json:"audio,omitempty"`
}

// answerAudio is the speech of an answer, encoded.
type answerAudio struct {
	ID         string `json:"id"`
	Data       string `json:"data"` // base64
	ExpiresAt  int64  `json:"expires_at"`
	Transcript string `json:"transcript"`
}

// audioFacts describe the samples that an answer's audio was encoded from.
type audioFacts struct {
	Format     media.Format `json:"format"`
	SampleRate int          `json:"sample_rate_hz"`
	Frames     int          `json:"frame_count"`
	Channels   int          `json:"channels"`
}

// usage counts tokens. The completion's are those of the text; codes of speech are in the details.
type usage struct {
	PromptTokens            int          `json:"prompt_tokens"`
	CompletionTokens        int          `json:"completion_tokens"`
	TotalTokens             int          `json:"total_tokens"`
	CompletionTokensDetails usageDetails `json:"completion_tokens_details"`
}

// usageDetails are the kinds of tokens.
type usageDetails struct {
	AudioTokens int `json:"audio_tokens"`
}

// metrics say where the time of a request went.
type metrics struct {
	Stages       []pipeline.StageReport `json:"stages"`
	FirstTextMS  *float64               `json:"first_text_ms"`
	FirstAudioMS *float64               `json:"first_audio_ms"`
	E2EMS        float64                `json:"e2e_ms"`
	RTF          *float64               `json:"rtf"`
}

func usageOf(r *pipeline.Response) usage {
	u := usage{PromptTokens: len(r.PromptTokenIDs), CompletionTokens: len(r.TokenIDs)}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	if r.Audio != nil {
		u.CompletionTokensDetails.AudioTokens = len(r.Audio.Codes)
	}
	return u
}

func metricsOf(r *pipeline.Response) *metrics {
	return &metrics{Stages: r.Stages, FirstTextMS: r.FirstTextMS, FirstAudioMS: r.FirstAudioMS, E2EMS: r.E2EMS, RTF: r.RTF}
}

// chat is a chat request that has been checked.
type chat struct {
	request  pipeline.Request
	wants    extensions
	encoding media.Encoding
	text     bool // the answer has a content
	stream   bool
	usage    bool // a stream ends with its usage
	id       string
	created  int64
}

// chatCompletions answers POST /v1/chat/completions.
func (s *Server) chatCompletions(c echo.Context) error {
	var body chatRequest
	if err := decode(c, &body); err != nil {
		return err
	}
	chat, err := s.prepareChat(&body)
	if err != nil {
		return err
	}
	chat.id, chat.created = "chatcmpl-"+entryOf(c).id, time.Now().Unix()
	if chat.stream {
		return s.streamChat(c, chat)
	}
	response, err := s.generate(c, chat.request, func(pipeline.Event) error { return nil })
	if err != nil {
		return err
	}
	answer := chatAnswer{Role: "assistant", Annotations: []struct{}{}}
	if chat.text {
		answer.Content = &response.Text
	}
	choice := chatChoice{FinishReason: response.FinishReason}
	if response.Audio != nil {
		if answer.Audio, choice.AudioFormat, err = chat.encode(c, response); err != nil {
			return err
		}
	}
	choice.Message = answer
	reply := chatResponse{
		ID: chat.id, Object: "chat.completion", Created: chat.created, Model: s.cfg.Models[0],
		Choices: []chatChoice{choice}, Usage: usageOf(response),
	}
	if wanted(chat.wants.ReturnStageMetrics) {
		reply.Metrics = metricsOf(response)
	}
	return c.JSON(http.StatusOK, reply)
}

// prepareChat checks a request and makes the pipeline's of it.
func (s *Server) prepareChat(body *chatRequest) (*chat, error) {
	if err := s.checkModel(body.Model); err != nil {
		return nil, err
	}
	if err := body.checkNeutral(); err != nil {
		return nil, err
	}
	chat := &chat{wants: body.overlay(body.ExtraBody), stream: wanted(body.Stream)}
	if body.StreamOptions != nil {
		chat.usage = wanted(body.StreamOptions.IncludeUsage)
	}
	var err error
	if chat.request.Modalities, err = modalities(chat.wants.Modalities); err != nil {
		return nil, err
	}
	chat.text = len(chat.request.Modalities) != 1 || chat.request.Modalities[0] == pipeline.ModalityText
	stages := s.cfg.Engine.Stages()
	chat.encoding = media.Encoding{Format: media.WAV, SampleRate: sampleRate(stages)}
	if body.Audio != nil {
		if chat.request.Speaker, err = body.Audio.Voice.pick("audio.voice", stages); err != nil {
			return nil, err
		}
		if body.Audio.Format != "" {
			if chat.encoding, err = pickFormat("audio.format", body.Audio.Format, chat.encoding); err != nil {
				return nil, err
			}
		}
	}
	if chat.request.Speech, err = chat.wants.speech(); err != nil {
		return nil, err
	}
	// Of the two names of the limit the newer one wins, but both must be good.
	if err := checkParams("", config.SamplingParams{MaxTokens: body.MaxTokens}, s.cfg.Limits); err != nil {
		return nil, err
	}
	chat.request.MaxAudio = time.Duration(s.cfg.Limits.AudioSeconds * float64(time.Second))
	if err := body.sampling(chat.wants).apply(&chat.request, s.cfg.Limits, len(stages)); err != nil {
		return nil, err
	}
	return chat, converse(&chat.request, body.Messages, s.cfg.Limits)
}

// sampling collects what the request says about it.
func (r *chatRequest) sampling(e extensions) sampling {
	limit := r.MaxTokens
	if r.MaxCompletionTokens != nil {
		limit = r.MaxCompletionTokens
	}
	return sampling{
		top:  e.params(config.SamplingParams{Temperature: r.Temperature, TopP: r.TopP, MaxTokens: limit}),
		list: e.SamplingParamsList, seed: r.Seed, stop: r.Stop,
	}
}

// checkNeutral refuses what this server cannot do.
func (r *chatRequest) checkNeutral() error {
	return checkNeutral([]neutral{
		{"n", r.N, []string{"1"}},
		{"logprobs", r.Logprobs, []string{"false"}},
		{"top_logprobs", r.TopLogprobs, []string{"0"}},
		{"logit_bias", r.LogitBias, []string{"{}"}},
		{"frequency_penalty", r.FrequencyPenalty, []string{"0", "0.0"}},
		{"presence_penalty", r.PresencePenalty, []string{"0", "0.0"}},
		{"response_format", r.ResponseFormat, []string{`{"type":"text"}`}},
		{"tools", r.Tools, []string{"[]"}},
		{"tool_choice", r.ToolChoice, []string{`"none"`, `"auto"`}},
		{"functions", r.Functions, []string{"[]"}},
		{"function_call", r.FunctionCall, []string{`"none"`, `"auto"`}},
		{"prediction", r.Prediction, nil},
		{"web_search_options", r.WebSearchOptions, nil},
	})
}

// pickFormat puts a format's name into an encoding. OpenAI calls pcm in one place pcm16.
func pickFormat(param, name string, e media.Encoding) (media.Encoding, error) {
	if name == "pcm16" {
		name = string(media.PCM)
	}
	e.Format = media.Format(name)
	if e.Format.MediaType() == "" {
		return e, invalid(param, "unknown format %q, want one of %q", name, media.Formats)
	}
	if err := media.CanEncode(e); err != nil {
		return e, &failure{code: codeUnsupported, param: param, err: err}
	}
	return e, nil
}

// encode makes the audio of an answer that is complete.
func (ch *chat) encode(c echo.Context, r *pipeline.Response) (*answerAudio, *audioFacts, error) {
	e := ch.encoding
	e.SampleRate, e.Samples = r.Audio.SampleRate, len(r.Audio.PCM)
	data, err := encodeAll(c, e, r.Audio.PCM)
	if err != nil {
		return nil, nil, err
	}
	audio := &answerAudio{
		ID: ch.audioID(), Data: base64.StdEncoding.EncodeToString(data), ExpiresAt: ch.expires(), Transcript: r.Text,
	}
	return audio, &audioFacts{Format: e.Format, SampleRate: e.SampleRate, Frames: e.Samples, Channels: 1}, nil
}

// encodeAll encodes speech that is complete.
func encodeAll(c echo.Context, e media.Encoding, samples []float32) ([]byte, error) {
	encoder, err := media.NewEncoder(c.Request().Context(), e)
	if err != nil {
		return nil, err
	}
	data, err := encoder.Encode(samples)
	rest, closing := encoder.Close()
	if err == nil {
		err = closing
	}
	return append(data, rest...), err
}

func (ch *chat) audioID() string { return "audio-" + ch.id[len("chatcmpl-"):] }

// expires is when the audio cannot be referred to any more, which is at once: a later request that names it must bring it along.
func (ch *chat) expires() int64 { return ch.created }

func wanted(b *bool) bool { return b != nil && *b }
