package api

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/media"
)

// speechRequest is the body of POST /v1/audio/speech.
type speechRequest struct {
	Model          string   `json:"model"`
	Input          string   `json:"input" schema:"required;minLength=1"`
	Voice          voice    `json:"voice"`
	Instructions   string   `json:"instructions"`
	ResponseFormat string   `json:"response_format" schema:"enum=\"wav\",\"pcm\",\"pcm16\",\"flac\",\"mp3\",\"opus\",\"aac\""`
	Speed          *float64 `json:"speed" schema:"min=0.25;max=4;example=1"`
	Stream         *bool    `json:"stream"`
	StreamFormat   string   `json:"stream_format" schema:"enum=\"audio\",\"sse\""`
	Seed           *int64   `json:"seed" schema:"min=0"`
	MaxTokens      *int64   `json:"max_tokens" schema:"min=1;max=@tokens"`

	extensions `json:",inline"`
	ExtraBody  *extensions `json:"extra_body"`

	// User is for OpenAI's own service and changes nothing here.
	User jsontext.Value `json:"user"`
}

// speechDelta is an event of a stream of speech, with a piece of the file.
type speechDelta struct {
	Type  string `json:"type"`
	Audio string `json:"audio"` // base64
}

// speechDone is the last event of a stream of speech.
type speechDone struct {
	Type  string      `json:"type"`
	Usage speechUsage `json:"usage"`
}

// speechUsage counts tokens and codes.
type speechUsage struct {
	InputTokens  int `json:"input_tokens"`
	OutputTokens int `json:"output_tokens"`
	TotalTokens  int `json:"total_tokens"`
}

// readAloud is what a model that answers is told, to have it read instead.
const readAloud = "Read the following text aloud, word for word, and say nothing else.\n\n"

// speech answers POST /v1/audio/speech.
func (s *Server) speech(c echo.Context) error {
	var body speechRequest
	if err := decode(c, &body); err != nil {
		return err
	}
	request, encoding, err := s.prepareSpeech(&body)
	if err != nil {
		return err
	}
	switch {
	case body.StreamFormat == "sse":
		return s.streamSpeech(c, request, encoding)
	case encoding.Format == media.WAV && !wanted(body.Stream):
		return s.wholeSpeech(c, request, encoding)
	}
	return s.rawSpeech(c, request, encoding)
}

// prepareSpeech checks a request and makes the pipeline's of it.
func (s *Server) prepareSpeech(body *speechRequest) (request pipeline.Request, e media.Encoding, err error) {
	stages := s.cfg.Engine.Stages()
	e = media.Encoding{Format: media.WAV, SampleRate: sampleRate(stages)}
	if err := s.checkModel(body.Model); err != nil {
		return request, e, err
	}
	switch {
	case body.Input == "":
		return request, e, invalid("input", "input is missing or empty, want the text to speak")
	case len(body.Input)+len(body.Instructions) > s.cfg.Limits.PromptBytes:
		return request, e, invalid("input", "the text is longer than %d bytes, the server's limit", s.cfg.Limits.PromptBytes)
	case body.StreamFormat != "" && body.StreamFormat != "audio" && body.StreamFormat != "sse":
		return request, e, invalid("stream_format", "unknown format of a stream %q, want audio or sse", body.StreamFormat)
	case e.SampleRate == 0:
		return request, e, fail(codeUnsupported, "this model does not speak")
	}
	if body.Speed != nil {
		e.Speed = *body.Speed
		if err := e.Validate(); err != nil || e.Speed == 0 {
			return request, e, invalid("speed", "speed is %v, want 0.25 to 4", e.Speed)
		}
	}
	format := body.ResponseFormat
	if format == "" {
		format = string(media.WAV)
	}
	if e, err = pickFormat("response_format", format, e); err != nil {
		return request, e, err
	}
	if request.Speaker, err = body.Voice.pick("voice", stages); err != nil {
		return request, e, err
	}
	request.Modalities = []string{pipeline.ModalityAudio}
	request.MaxAudio = time.Duration(s.cfg.Limits.AudioSeconds * float64(time.Second))
	request.Prompt = readAloud + body.Input
	if body.Instructions != "" {
		request.Prompt = body.Instructions + "\n" + request.Prompt
	}
	wants := body.overlay(body.ExtraBody)
	if _, err := modalities(wants.Modalities); err != nil { // it is speech, whatever else is asked for
		return request, e, err
	}
	if request.Speech, err = wants.speech(); err != nil {
		return request, e, err
	}
	given := sampling{
		top: wants.params(config.SamplingParams{MaxTokens: body.MaxTokens}), list: wants.SamplingParamsList, seed: body.Seed,
	}
	return request, e, given.apply(&request, s.cfg.Limits, len(stages))
}

// wholeSpeech answers with a file whose header says how long it is.
func (s *Server) wholeSpeech(c echo.Context, request pipeline.Request, e media.Encoding) error {
	response, err := s.generate(c, request, func(pipeline.Event) error { return nil })
	if err != nil {
		return err
	}
	var samples []float32
	if response.Audio != nil {
		samples = response.Audio.PCM
	}
	e.Samples = len(samples)
	data, err := encodeAll(c, e, samples)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, e.Format.MediaType(), data)
}

// rawSpeech answers with a file, piece by piece. If it cannot be completed the connection is broken off, so that the client
// does not take the part for the whole.
func (s *Server) rawSpeech(c echo.Context, request pipeline.Request, e media.Encoding) error {
	response := c.Response()
	err := s.encodeSpeech(c, request, e, func(data []byte) error {
		if !response.Committed {
			response.Header().Set(echo.HeaderContentType, e.Format.MediaType())
			response.Header().Set("X-Sample-Rate", strconv.Itoa(e.SampleRate))
			response.WriteHeader(http.StatusOK)
		}
		return send(response, data)
	}, nil)
	switch {
	case err != nil && response.Committed:
		entryOf(c).breakOff = true
	case err == nil && !response.Committed: // there was nothing to say
		return c.Blob(http.StatusOK, e.Format.MediaType(), nil)
	}
	return err
}

// streamSpeech answers with server-sent events.
func (s *Server) streamSpeech(c echo.Context, request pipeline.Request, e media.Encoding) error {
	events := newEventStream(c)
	err := s.encodeSpeech(c, request, e, func(data []byte) error {
		return events.send(speechDelta{Type: "speech.audio.delta", Audio: base64.StdEncoding.EncodeToString(data)})
	}, func(r *pipeline.Response) error {
		used := usageOf(r)
		output := used.CompletionTokens + used.CompletionTokensDetails.AudioTokens
		return events.send(speechDone{Type: "speech.audio.done", Usage: speechUsage{
			InputTokens: used.PromptTokens, OutputTokens: output, TotalTokens: used.PromptTokens + output,
		}})
	})
	if err != nil {
		return events.fail(err)
	}
	return nil
}

// encodeSpeech generates and gives pieces of the file to write, as they come, and the response to end, which may be nil.
func (s *Server) encodeSpeech(
	c echo.Context, request pipeline.Request, e media.Encoding, write func([]byte) error, end func(*pipeline.Response) error,
) error {
	encoder, err := media.NewEncoder(c.Request().Context(), e)
	if err != nil {
		return err
	}
	some := func(data []byte, err error) error {
		if err != nil || len(data) == 0 {
			return err
		}
		return write(data)
	}
	response, err := s.generate(c, request, func(event pipeline.Event) error {
		if event.Kind != pipeline.EventAudio {
			return nil
		}
		return some(encoder.Encode(event.Samples))
	})
	rest, closing := encoder.Close()
	if err != nil {
		return err
	}
	if err := some(rest, closing); err != nil {
		return err
	}
	if end == nil {
		return nil
	}
	return end(response)
}
