package api

import (
	"cmp"
	"fmt"

	"github.com/omni-run/omni/pipeline/config"
)

// speechMode says how the stage that makes sound works on a request: all at once, or in chunks while codes come. The names are
// those of its configuration; AsyncChunk is vLLM-Omni's word for the modes.
type speechMode struct {
	SpeechMode   *string `json:"speech_mode" schema:"enum=\"full\",\"stream\""`
	AsyncChunk   *bool   `json:"async_chunk"`
	InitialChunk *int64  `json:"initial_codec_chunk_frames" schema:"min=1;max=1048576"`
	Chunk        *int64  `json:"codec_chunk_frames" schema:"min=1;max=1048576"`
	RightContext *int64  `json:"codec_right_context_frames" schema:"min=0;max=1048576"`
}

// overlay returns m with what over sets. Both words for the mode are one setting.
func (m speechMode) overlay(over speechMode) speechMode {
	if over.SpeechMode != nil || over.AsyncChunk != nil {
		m.SpeechMode, m.AsyncChunk = over.SpeechMode, over.AsyncChunk
	}
	m.InitialChunk = cmp.Or(over.InitialChunk, m.InitialChunk)
	m.Chunk = cmp.Or(over.Chunk, m.Chunk)
	m.RightContext = cmp.Or(over.RightContext, m.RightContext)
	return m
}

// speech checks the wishes and returns them in the pipeline's words.
func (m speechMode) speech() (config.Speech, error) {
	for _, field := range []struct {
		name string
		only config.Speech
	}{
		{"initial_codec_chunk_frames", config.Speech{InitialChunk: m.InitialChunk}},
		{"codec_chunk_frames", config.Speech{Chunk: m.Chunk}},
		{"codec_right_context_frames", config.Speech{RightContext: m.RightContext}},
	} {
		if err := field.only.Validate(); err != nil {
			return config.Speech{}, &failure{code: codeInvalid, param: field.name, err: err}
		}
	}
	speech := config.Speech{InitialChunk: m.InitialChunk, Chunk: m.Chunk, RightContext: m.RightContext}
	if m.SpeechMode != nil {
		speech.Mode = *m.SpeechMode
		if err := config.CheckMode(speech.Mode); err != nil {
			return config.Speech{}, &failure{code: codeInvalid, param: "speech_mode", err: fmt.Errorf("speech_%w", err)}
		}
	}
	if m.AsyncChunk != nil {
		mode := map[bool]string{false: config.ModeFull, true: config.ModeStream}[*m.AsyncChunk]
		if speech.Mode != "" && speech.Mode != mode {
			return config.Speech{}, invalid("async_chunk", "async_chunk is %v and speech_mode is %q, which contradict each other", *m.AsyncChunk, speech.Mode)
		}
		speech.Mode = mode
	}
	return speech, nil
}
