package api

import (
	"encoding/base64"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/media"
)

// chatChunk is one event of a streamed answer.
type chatChunk struct {
	ID       string        `json:"id"`
	Object   string        `json:"object"`
	Created  int64         `json:"created"`
	Model    string        `json:"model"`
	Modality string        `json:"modality,omitempty"` // of what the chunk brings
	Choices  []chunkChoice `json:"choices"`
	Usage    *usage        `json:"usage,omitempty"`
	Metrics  *metrics      `json:"metrics,omitempty"`
}

// chunkChoice is what a chunk adds to the only choice.
type chunkChoice struct {
	Index        int         `json:"index"`
	Delta        chunkDelta  `json:"delta"`
	Logprobs     *struct{}   `json:"logprobs"`
	FinishReason *string     `json:"finish_reason"`
	AudioFormat  *audioFacts `json:"audio_metadata,omitempty"`
}

// chunkDelta is what a chunk adds to the message.
type chunkDelta struct {
	Role    string      `json:"role,omitempty"`
	Content *string     `json:"content,omitempty"`
	Audio   *deltaAudio `json:"audio,omitempty"`
}

// deltaAudio is what a chunk adds to the audio. All data decoded and joined is one file of the wanted format.
type deltaAudio struct {
	ID         string `json:"id,omitempty"`
	Data       string `json:"data,omitempty"`
	Transcript string `json:"transcript,omitempty"`
	ExpiresAt  int64  `json:"expires_at,omitempty"`
}

// chatWriter streams one answer.
type chatWriter struct {
	*chat
	server  *Server
	c       echo.Context
	events  *eventStream
	encoder *media.Encoder // from the first audio on
	begun   bool
}

// streamChat answers with server-sent events, as the text and the speech are made.
func (s *Server) streamChat(c echo.Context, chat *chat) error {
	w := &chatWriter{chat: chat, server: s, c: c, events: newEventStream(c)}
	response, err := s.generate(c, chat.request, w.take)
	if err == nil {
		err = w.end(response)
	}
	if err != nil {
		return w.events.fail(err)
	}
	return nil
}

// take writes an event of the pipeline.
func (w *chatWriter) take(e pipeline.Event) error {
	if err := w.begin(); err != nil {
		return err
	}
	if e.Kind == pipeline.EventText {
		if e.Text == "" {
			return nil
		}
		return w.send(pipeline.ModalityText, chunkChoice{Delta: chunkDelta{Content: &e.Text}})
	}
	if w.encoder == nil {
		encoding := w.encoding
		encoding.SampleRate = e.SampleRate
		var err error
		if w.encoder, err = media.NewEncoder(w.c.Request().Context(), encoding); err != nil {
			return err
		}
	}
	data, err := w.encoder.Encode(e.Samples)
	if err != nil {
		return err
	}
	return w.audio(data, &audioFacts{Format: w.encoding.Format, SampleRate: e.SampleRate, Frames: len(e.Samples), Channels: 1})
}

// begin writes the first chunk, which says who speaks.
func (w *chatWriter) begin() error {
	if w.begun {
		return nil
	}
	w.begun = true
	empty := ""
	return w.send("", chunkChoice{Delta: chunkDelta{Role: "assistant", Content: &empty}})
}

// audio writes encoded speech, if there is any yet.
func (w *chatWriter) audio(data []byte, facts *audioFacts) error {
	if len(data) == 0 {
		return nil
	}
	return w.send(pipeline.ModalityAudio, chunkChoice{
		Delta:       chunkDelta{Audio: &deltaAudio{ID: w.audioID(), Data: base64.StdEncoding.EncodeToString(data)}},
		AudioFormat: facts,
	})
}

// end writes what is known only when everything is made.
func (w *chatWriter) end(r *pipeline.Response) error {
	if err := w.begin(); err != nil {
		return err
	}
	if w.encoder != nil {
		data, err := w.encoder.Close()
		if err != nil {
			return err
		}
		if err := w.audio(data, nil); err != nil {
			return err
		}
		last := deltaAudio{ID: w.audioID(), Transcript: r.Text, ExpiresAt: w.expires()}
		if err := w.send(pipeline.ModalityAudio, chunkChoice{Delta: chunkDelta{Audio: &last}}); err != nil {
			return err
		}
	}
	finish := w.chunk()
	finish.Choices = []chunkChoice{{FinishReason: &r.FinishReason}}
	if wanted(w.wants.ReturnStageMetrics) {
		finish.Metrics = metricsOf(r)
	}
	if err := w.events.send(finish); err != nil {
		return err
	}
	if w.usage {
		counts, used := w.chunk(), usageOf(r)
		counts.Usage = &used
		if err := w.events.send(counts); err != nil {
			return err
		}
	}
	return w.events.done()
}

func (w *chatWriter) send(modality string, choice chunkChoice) error {
	chunk := w.chunk()
	chunk.Modality, chunk.Choices = modality, []chunkChoice{choice}
	return w.events.send(chunk)
}

// chunk is a chunk without choices.
func (w *chatWriter) chunk() chatChunk {
	return chatChunk{
		ID: w.id, Object: "chat.completion.chunk", Created: w.created, Model: w.server.cfg.Models[0], Choices: []chunkChoice{},
	}
}
