// Package client talks to a server of package api, or to another that speaks OpenAI's chat completions: a request goes out,
// and its answer comes back piece by piece as a sequence. Whoever breaks out of the sequence cancels the request.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
)

// Client is a server's address and key.
type Client struct {
	// URL is the server's, without the path: http://127.0.0.1:8000.
	URL string
	// Key is sent with each request; empty for none.
	Key string
	// HTTP sends the requests; nil for http.DefaultClient.
	HTTP *http.Client
}

// Chat is a request for an answer to a conversation. Fields that are not set are left to the server.
type Chat struct {
	Model      string    `json:"model,omitempty"`
	Messages   []Message `json:"messages"`
	Modalities []string  `json:"modalities,omitempty"`
	Audio      *Audio    `json:"audio,omitempty"`
	MaxTokens  int       `json:"max_tokens,omitempty"`
	Seed       *int64    `json:"seed,omitempty"`
	Stop       []string  `json:"stop,omitempty"`
	// Sampling is a list with an object for each stage.
	Sampling json.RawMessage `json:"sampling_params_list,omitempty"`
	Speech
}

// Speech says how sound is made: all at once, or in chunks of so many codes while they come. Sizes that are nil follow from the
// model.
type Speech struct {
	Mode         string `json:"speech_mode,omitempty"` // full or stream
	InitialChunk *int64 `json:"initial_codec_chunk_frames,omitempty"`
	Chunk        *int64 `json:"codec_chunk_frames,omitempty"`
	RightContext *int64 `json:"codec_right_context_frames,omitempty"`
}

// Message is a turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Audio says how the speech shall be.
type Audio struct {
	Voice  string `json:"voice,omitempty"`
	Format string `json:"format,omitempty"`
}

// Piece is what came in one event.
type Piece struct {
	Text  string
	Audio []byte // the next bytes of a file in the wanted format
	// SampleRate and Frames describe Audio before it was encoded.
	SampleRate, Frames int
	FinishReason       string
	Usage              *Usage
	Metrics            *Metrics
}

// Usage counts the tokens of a request.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
}

// Metrics say where the time of a request went.
type Metrics struct {
	Stages []StageMetrics `json:"stages"`
	E2EMS  float64        `json:"e2e_ms"`
}

// StageMetrics are a request's times in one stage.
type StageMetrics struct {
	ID         int     `json:"id"`
	Name       string  `json:"name"`
	QueueMS    float64 `json:"queue_ms"`
	ComputeMS  float64 `json:"compute_ms"`
	TransferMS float64 `json:"transfer_ms"`
	Tokens     int64   `json:"tokens"`
}

// Error is an answer that is an error, or an error at the end of a stream.
type Error struct {
	Status  int    // of HTTP; 200 for an error in a stream
	Message string `json:"message"`
	Type    string `json:"type"`
	Code    string `json:"code"`
}

// Error says what the server said.
func (e *Error) Error() string { return fmt.Sprintf("the server answers %d: %s", e.Status, e.Message) }

// ErrTruncated says that a stream ended without its mark.
var ErrTruncated = errors.New("the answer ends in the middle")

// chunk is an event as it is sent.
type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
			Audio   struct {
				Data string `json:"data"`
			} `json:"audio"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
		Audio        struct {
			SampleRate int `json:"sample_rate_hz"`
			Frames     int `json:"frame_count"`
		} `json:"audio_metadata"`
	} `json:"choices"`
	Usage   *Usage   `json:"usage"`
	Metrics *Metrics `json:"metrics"`
	Error   *Error   `json:"error"`
}

// Stream sends a request and gives out the answer as it comes. An error ends the sequence.
func (c *Client) Stream(ctx context.Context, chat Chat) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if err := c.stream(ctx, chat, yield); err != nil {
			yield(Piece{}, err)
		}
	}
}

// streamed is a Chat with what makes its answer a stream.
type streamed struct {
	Chat
	Stream  bool `json:"stream"`
	Metrics bool `json:"return_stage_metrics"`
	Options struct {
		Usage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// stream returns an error that has not been given out.
func (c *Client) stream(ctx context.Context, chat Chat, yield func(Piece, error) bool) error {
	request := streamed{Chat: chat, Stream: true, Metrics: true}
	request.Options.Usage = true
	answer, err := c.post(ctx, "/v1/chat/completions", request)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	lines := bufio.NewReader(answer.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = ErrTruncated
			}
			return err
		}
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		switch {
		case !ok:
			continue
		case data == "[DONE]":
			return nil
		}
		piece, err := parse(data)
		if err != nil {
			return err
		}
		if !yield(piece, nil) {
			return nil
		}
	}
}

// parse reads the data of an event.
func parse(data string) (Piece, error) {
	var event chunk
	if err := json.Unmarshal([]byte(data), &event); err != nil {
		return Piece{}, fmt.Errorf("read an event: %w", err)
	}
	if event.Error != nil {
		event.Error.Status = http.StatusOK
		return Piece{}, event.Error
	}
	piece := Piece{Usage: event.Usage, Metrics: event.Metrics}
	for _, choice := range event.Choices {
		piece.Text, piece.FinishReason = choice.Delta.Content, choice.FinishReason
		piece.SampleRate, piece.Frames = choice.Audio.SampleRate, choice.Audio.Frames
		var err error
		if piece.Audio, err = base64.StdEncoding.DecodeString(choice.Delta.Audio.Data); err != nil {
			return piece, fmt.Errorf("read the audio of an event: %w", err)
		}
	}
	return piece, nil
}

// Post sends v as JSON and returns the body of the answer.
func (c *Client) Post(ctx context.Context, path string, v any) ([]byte, error) {
	answer, err := c.post(ctx, path, v)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	return io.ReadAll(answer.Body)
}

// post returns an answer whose status is good; its body is to be closed.
func (c *Client) post(ctx context.Context, path string, v any) (*http.Response, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if c.Key != "" {
		request.Header.Set("Authorization", "Bearer "+c.Key)
	}
	sender := c.HTTP
	if sender == nil {
		sender = http.DefaultClient
	}
	answer, err := sender.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	var failed struct {
		Error Error `json:"error"`
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if json.Unmarshal(text, &failed) != nil || failed.Error.Message == "" {
		failed.Error.Message = strings.TrimSpace(string(text))
	}
	failed.Error.Status = answer.StatusCode
	return nil, errors.Join(&failed.Error, err)
}
