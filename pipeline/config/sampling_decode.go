package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// samplingKeys are the keys of SamplingParams in the order of the fields.
var samplingKeys = []string{
	"temperature", "top_p", "top_k", "max_tokens", "min_tokens", "repetition_penalty", "seed", "stop_token_ids",
}

// set gives the field called key a decoded JSON or YAML value. Null leaves the field unset.
func (p *SamplingParams) set(key string, value any) (err error) {
	if value == nil {
		if !slices.Contains(samplingKeys, key) {
			return unknownKey(key, samplingKeys)
		}
		return nil
	}
	switch key {
	case "temperature":
		p.Temperature, err = floatPtr(value)
	case "top_p":
		p.TopP, err = floatPtr(value)
	case "top_k":
		p.TopK, err = intPtr(value)
	case "max_tokens":
		p.MaxTokens, err = intPtr(value)
	case "min_tokens":
		p.MinTokens, err = intPtr(value)
	case "repetition_penalty":
		p.RepetitionPenalty, err = floatPtr(value)
	case "seed":
		p.Seed, err = intPtr(value)
	case "stop_token_ids":
		p.StopTokenIDs, err = intList(value)
	default:
		return unknownKey(key, samplingKeys)
	}
	return err
}

// UnmarshalJSON decodes strictly: an unknown key or a value of the wrong kind is an error that names the key. All
// such faults are reported.
func (p *SamplingParams) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var fields map[string]any
	if err := dec.Decode(&fields); err != nil {
		return fmt.Errorf("sampling parameters: want a JSON object: %w", err)
	}
	var out SamplingParams
	var faults []error
	for _, key := range sortedKeys(fields) {
		if err := out.set(key, fields[key]); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	*p = out
	return nil
}

// unjoin takes errors.Join apart.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

func unknownKey(key string, known []string) error {
	if near := nearest(key, known); near != "" {
		return fmt.Errorf("unknown key, did you mean %q?", near)
	}
	return fmt.Errorf("unknown key, want one of %s", strings.Join(known, ", "))
}

func floatPtr(value any) (*float64, error) {
	switch v := value.(type) {
	case float64:
		return &v, nil
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return &f, nil
		}
	default:
		if i, ok := toInt(value); ok {
			f := float64(i)
			return &f, nil
		}
	}
	return nil, fmt.Errorf("want a number, got %s", show(value))
}

func intPtr(value any) (*int64, error) {
	if i, ok := toInt(value); ok {
		return &i, nil
	}
	return nil, fmt.Errorf("want a whole number, got %s", show(value))
}

func intList(value any) ([]int64, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("want a list of token ids, got %s", show(value))
	}
	out := make([]int64, len(list))
	for i, item := range list {
		if out[i], ok = toInt(item); !ok {
			return nil, fmt.Errorf("[%d]: want a whole number, got %s", i, show(item))
		}
	}
	return out, nil
}

// toInt accepts the whole numbers of the JSON and the YAML decoder, and 3.0.
func toInt(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), true
		}
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, true
		}
		if f, err := v.Float64(); err == nil {
			return toInt(f)
		}
	}
	return 0, false
}

// show writes a value as JSON would, short.
func show(value any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return fmt.Sprint(value)
	}
	text, _ := io.ReadAll(&out)
	line := strings.TrimSpace(string(text))
	if len(line) > 40 {
		line = line[:40] + "..."
	}
	return line
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
