package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// SamplingParams are vLLM's sampling parameters. A nil field is not set: the layer below decides.
type SamplingParams struct {
	// Temperature scales the logits; 0 is greedy decoding.
	Temperature *float64 `json:"temperature,omitempty"`
	// TopP keeps the smallest set of tokens whose probabilities add up to it; 1 is off.
	TopP *float64 `json:"top_p,omitempty"`
	// TopK keeps the k likeliest tokens; -1 (and 0, as in vLLM) is off.
	TopK *int64 `json:"top_k,omitempty"`
	// MaxTokens ends the sequence after so many tokens.
	MaxTokens *int64 `json:"max_tokens,omitempty"`
	// MinTokens lets no token end the sequence before so many.
	MinTokens *int64 `json:"min_tokens,omitempty"`
	// RepetitionPenalty divides positive and multiplies negative logits of tokens seen before; 1 is off.
	RepetitionPenalty *float64 `json:"repetition_penalty,omitempty"`
	// Seed starts the stage's own random generator.
	Seed *int64 `json:"seed,omitempty"`
	// StopTokenIDs end the sequence, besides the model's own end tokens. Nil is not set; empty is "none".
	StopTokenIDs []int64 `json:"stop_token_ids,omitzero"`
}

// Merge returns p overlaid with over: a field that over sets wins. The result shares no memory with either.
func (p SamplingParams) Merge(over SamplingParams) SamplingParams {
	stop := p.StopTokenIDs
	if over.StopTokenIDs != nil {
		stop = over.StopTokenIDs
	}
	return SamplingParams{
		Temperature:       pick(p.Temperature, over.Temperature),
		TopP:              pick(p.TopP, over.TopP),
		TopK:              pick(p.TopK, over.TopK),
		MaxTokens:         pick(p.MaxTokens, over.MaxTokens),
		MinTokens:         pick(p.MinTokens, over.MinTokens),
		RepetitionPenalty: pick(p.RepetitionPenalty, over.RepetitionPenalty),
		Seed:              pick(p.Seed, over.Seed),
		StopTokenIDs:      slices.Clone(stop),
	}
}

func pick[T any](under, over *T) *T {
	chosen := under
	if over != nil {
		chosen = over
	}
	if chosen == nil {
		return nil
	}
	value := *chosen
	return &value
}

// Validate reports all faults, joined, one line each.
func (p SamplingParams) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	if v := p.Temperature; v != nil && (!finite(*v) || *v < 0) {
		add("temperature is %v, want 0 (greedy) or more", *v)
	}
	if v := p.TopP; v != nil && (!finite(*v) || *v <= 0 || *v > 1) {
		add("top_p is %v, want more than 0 and at most 1", *v)
	}
	if v := p.TopK; v != nil && *v < -1 {
		add("top_k is %d, want -1 (off) or 1 or more", *v)
	}
	if v := p.MaxTokens; v != nil && *v < 1 {
		add("max_tokens is %d, want 1 or more", *v)
	}
	if v := p.MinTokens; v != nil && *v < 0 {
		add("min_tokens is %d, want 0 or more", *v)
	}
	if v := p.RepetitionPenalty; v != nil && (!finite(*v) || *v <= 0) {
		add("repetition_penalty is %v, want more than 0", *v)
	}
	if v := p.Seed; v != nil && *v < 0 {
		add("seed is %d, want 0 or more", *v)
	}
	for i, id := range p.StopTokenIDs {
		if id < 0 {
			add("stop_token_ids[%d] is %d, want 0 or more", i, id)
		}
	}
	return errors.Join(errs...)
}

// Ptr returns a pointer to a copy of v, for literals of SamplingParams.
func Ptr[T any](v T) *T { return &v }
