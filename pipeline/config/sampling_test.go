package config_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/config"
)

func TestMergeTakesTheUpperLayerFieldByField(t *testing.T) {
	under := config.SamplingParams{
		Temperature: config.Ptr(0.9), TopK: config.Ptr(int64(40)), StopTokenIDs: []int64{1, 2}, Seed: config.Ptr(int64(7)),
	}
	over := config.SamplingParams{Temperature: config.Ptr(0.0), MaxTokens: config.Ptr(int64(5)), StopTokenIDs: []int64{}}
	got := under.Merge(over)
	assert.Equal(t, config.SamplingParams{
		Temperature: config.Ptr(0.0), TopK: config.Ptr(int64(40)), MaxTokens: config.Ptr(int64(5)),
		Seed: config.Ptr(int64(7)), StopTokenIDs: []int64{},
	}, got)
	*got.Temperature, *got.TopK = 5, 5
	assert.Zero(t, *over.Temperature, "the result shares memory with the upper layer")
	assert.Equal(t, int64(40), *under.TopK, "the result shares memory with the lower layer")
}

func TestValidateReportsEveryFault(t *testing.T) {
	p := config.SamplingParams{
		Temperature: config.Ptr(-1.0), TopP: config.Ptr(0.0), TopK: config.Ptr(int64(-2)), MaxTokens: config.Ptr(int64(0)), MinTokens: config.Ptr(int64(-1)),
		RepetitionPenalty: config.Ptr(math.NaN()), Seed: config.Ptr(int64(-1)), StopTokenIDs: []int64{3, -3},
	}
	err := p.Validate()
	require.Error(t, err)
	assert.Equal(t, []string{
		"temperature is -1, want 0 (greedy) or more",
		"top_p is 0, want more than 0 and at most 1",
		"top_k is -2, want -1 (off) or 1 or more",
		"max_tokens is 0, want 1 or more",
		"min_tokens is -1, want 0 or more",
		"repetition_penalty is NaN, want more than 0",
		"seed is -1, want 0 or more",
		"stop_token_ids[1] is -3, want 0 or more",
	}, strings.Split(err.Error(), "\n"))
	require.NoError(t, config.SamplingParams{TopK: config.Ptr(int64(0)), Temperature: config.Ptr(0.0)}.Validate())
}

func TestSamplingParamsAreReadStrictly(t *testing.T) {
	tests := []struct {
		name, in string
		want     config.SamplingParams
		err      string
	}{
		{"numbers", `{"temperature": 0.5, "seed": 3, "top_k": 5.0}`, config.SamplingParams{Temperature: config.Ptr(0.5), Seed: config.Ptr(int64(3)), TopK: config.Ptr(int64(5))}, ""},
		{"an empty list is not the same as none", `{"stop_token_ids": []}`, config.SamplingParams{StopTokenIDs: []int64{}}, ""},
		{"null leaves a field unset", `{"top_k": null}`, config.SamplingParams{}, ""},
		{
			"all faults", `{"top_q": 1, "top_k": "x", "max_tokens": 1.5}`,
			config.SamplingParams{},
			"max_tokens: want a whole number, got 1.5\n" + `top_k: want a whole number, got "x"` + "\n" + `top_q: unknown key, did you mean "top_p"?`,
		},
		{"an unknown key that is like no other", `{"best_of": 2}`, config.SamplingParams{}, `best_of: unknown key, ` +
			`want one of temperature, top_p, top_k, max_tokens, min_tokens, repetition_penalty, seed, stop_token_ids`},
		{"not an object", `3`, config.SamplingParams{}, "sampling parameters: want a JSON object: json: cannot unmarshal number into Go value of type map[string]interface {}"},
		{"a huge number", `{"seed": 99999999999999999999}`, config.SamplingParams{}, "seed: want a whole number, got 99999999999999999999"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got config.SamplingParams
			err := json.Unmarshal([]byte(tt.in), &got)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestSamplingParamsRoundTrip(t *testing.T) {
	const text = `{"temperature":0,"top_p":0.8,"top_k":40,"max_tokens":5,"repetition_penalty":1.05,"seed":9007199254740993,"stop_token_ids":[8294]}`
	var p config.SamplingParams
	require.NoError(t, json.Unmarshal([]byte(text), &p))
	data, err := json.Marshal(p)
	require.NoError(t, err)
	assert.Equal(t, text, string(data))
	data, err = json.Marshal(config.SamplingParams{StopTokenIDs: []int64{}})
	require.NoError(t, err)
	assert.JSONEq(t, `{"stop_token_ids":[]}`, string(data), "an empty list is not the same as none")
}
