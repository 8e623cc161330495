package config

import (
	"errors"
	"fmt"
)

// The modes of a stage that makes sound of codes.
const (
	// ModeFull begins when all codes are there. What it gives equals the reference.
	ModeFull = "full"
	// ModeStream works on chunks of codes while the stage before writes.
	ModeStream = "stream"
)

// Speech says how such a stage works. Sizes are in codes ("codec frames"); one that is not set follows from the model.
type Speech struct {
	// Mode is ModeFull or ModeStream; empty is not set.
	Mode string `json:"mode,omitempty"`
	// InitialChunk is the size of the first chunk.
	InitialChunk *int64 `json:"initial_codec_chunk_frames,omitempty"`
	// Chunk bounds the size of the chunks after it.
	Chunk *int64 `json:"codec_chunk_frames,omitempty"`
	// RightContext is how many codes after a chunk must be there, and are seen, when it is computed.
	RightContext *int64 `json:"codec_right_context_frames,omitempty"`
}

// Merge returns s overlaid with over: a field that over sets wins. The result shares no memory with either.
func (s Speech) Merge(over Speech) Speech {
	if over.Mode == "" {
		over.Mode = s.Mode
	}
	return Speech{
		Mode:         over.Mode,
		InitialChunk: pick(s.InitialChunk, over.InitialChunk),
		Chunk:        pick(s.Chunk, over.Chunk),
		RightContext: pick(s.RightContext, over.RightContext),
	}
}

// Validate reports all faults, joined.
func (s Speech) Validate() error {
	var errs []error
	if s.Mode != "" {
		errs = append(errs, CheckMode(s.Mode))
	}
	size := func(name string, value *int64, least int64) {
		if value != nil && (*value < least || *value > maxChunk) {
			errs = append(errs, fmt.Errorf("%s is %d, want %d to %d", name, *value, least, maxChunk))
		}
	}
	size("initial_codec_chunk_frames", s.InitialChunk, 1)
	size("codec_chunk_frames", s.Chunk, 1)
	size("codec_right_context_frames", s.RightContext, 0)
	return errors.Join(errs...)
}

// maxChunk is hours of speech: more than any model takes.
const maxChunk = 1 << 20

// CheckMode reports what is wrong with the name of a mode.
func CheckMode(mode string) error {
	if mode != ModeFull && mode != ModeStream {
		return fmt.Errorf("mode is %q, want %s or %s", mode, ModeFull, ModeStream)
	}
	return nil
}

// WithMode returns a copy in which every stage that can work on chunks is in that mode.
func (c *Config) WithMode(mode string) *Config { return c.setMode(mode, false) }

// WithDefaultMode returns a copy in which the stages that can work on chunks, and for which no mode is set, are in that
// mode.
func (c *Config) WithDefaultMode(mode string) *Config { return c.setMode(mode, true) }

func (c *Config) setMode(mode string, unset bool) *Config {
	out := c.Clone()
	for i := range out.Stages {
		if s := &out.Stages[i]; s.Chunks && !(unset && s.Speech.Mode != "") {
			s.Speech.Mode = mode
		}
	}
	return out
}
