package pipeline

import (
	"time"

	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/prompt"
)

// What a request can ask for and an event can hold.
const (
	ModalityText  = family.Text
	ModalityAudio = family.Audio
)

// Request is one thing to generate.
type Request struct {
	// ID names the request in results and errors; empty for one made here.
	ID string
	// Prompt is one user message; not together with Messages.
	Prompt string
	// System is the system message; empty for the family's own.
	System string
	// UsualSystem gives a conversation without a system message the family's own, as Prompt has it.
	UsualSystem bool
	// Messages is a whole conversation.
	Messages []prompt.Message
	// Modalities are the wanted outputs, ModalityText and ModalityAudio; empty for all that the model makes.
	Modalities []string
	// Speaker names the voice; empty for the model's default.
	Speaker string
	// Seed makes the request draw the reference's own random numbers; nil for new ones each time.
	Seed *int64
	// MaxTokens limits the text; 0 for the default.
	MaxTokens int
	// Stop ends the text before the first of these strings; speech is made of what was written until then. With Stop, a
	// Seed starts a generator in each stage, and the draws are not the reference's.
	Stop []string
	// MaxAudio limits the duration of the speech; 0 for the default.
	MaxAudio time.Duration
	// Sampling overlays each stage's defaults, by position.
	Sampling []config.SamplingParams
	// Speech overlays how sound is made: all at once when its codes are there, or in chunks while they come.
	Speech config.Speech
}

// Response is the result of one request. Its JSON form is that of `omni-run --format json`.
type Response struct {
	RequestID      string        `json:"request_id"`
	Prompt         string        `json:"prompt"`
	RenderedPrompt string        `json:"rendered_prompt"`
	PromptTokenIDs []int64       `json:"prompt_token_ids"`
	TokenIDs       []int64       `json:"token_ids"`
	Text           string        `json:"text"`
	FinishReason   string        `json:"finish_reason"` // "stop" or "length"
	Audio          *Audio        `json:"audio"`         // nil if none was asked for
	Stages         []StageReport `json:"stages"`
	// FirstTextMS and FirstAudioMS are the times from the request's arrival to the first output; nil without one.
	FirstTextMS  *float64 `json:"first_text_ms"`
	FirstAudioMS *float64 `json:"first_audio_ms"`
	E2EMS        float64  `json:"e2e_ms"`
	// RTF is the time of the whole request divided by the duration of its audio; nil without audio.
	RTF *float64 `json:"rtf"`
}

// Audio is the speech of a response: mono, float samples in [-1, 1].
type Audio struct {
	// Path is left to whoever writes the file.
	Path       string `json:"path"`
	SampleRate int    `json:"sample_rate"`
	// Samples is the length of PCM.
	Samples int       `json:"samples"`
	Codes   []int64   `json:"codes"`
	PCM     []float32 `json:"-"`
}

// StageReport is what a request cost in one stage.
type StageReport struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	// QueueMS is the time in which the request could have been worked on and was not; for the first stage it
	// includes the time before the request was let in.
	QueueMS float64 `json:"queue_ms"`
	// ComputeMS is the time in steps, whatever the number of requests in them.
	ComputeMS float64 `json:"compute_ms"`
	// TransferMS is the time that the stage's input was under way from its producers.
	TransferMS float64 `json:"transfer_ms"`
	// Tokens counts tokens or codes produced, for a stage of audio its samples.
	Tokens int64 `json:"tokens"`
	// BytesOut is the size of everything that the stage handed on.
	BytesOut int64 `json:"bytes_out"`
}

// EventKind says what an Event holds.
type EventKind string

// The kinds of events.
const (
	EventText  EventKind = "text"  // Text and TokenIDs
	EventAudio EventKind = "audio" // Samples and SampleRate
	EventDone  EventKind = "done"  // Response; the last event
)

// Event is a piece of a result, given out as soon as it exists.
type Event struct {
	Kind EventKind
	// Text is what the tokens so far add to the text; it may be empty while a character is incomplete.
	Text     string
	TokenIDs []int64
	// Samples follow those of the events before.
	Samples    []float32
	SampleRate int
	Response   *Response
}
