package api_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// bothRoutes has the beginning of a good body for each route that speaks.
var bothRoutes = map[string]string{
	"/v1/chat/completions": `{"messages":[{"role":"user","content":"x"}]`,
	"/v1/audio/speech":     `{"input":"x"`,
}

func TestSpeechModeReachesThePipeline(t *testing.T) {
	size := func(n int64) *int64 { return &n }
	for _, test := range []struct {
		fields string
		want   config.Speech
	}{
		{``, config.Speech{}},
		{`,"speech_mode":"stream"`, config.Speech{Mode: "stream"}},
		{`,"speech_mode":null,"async_chunk":false`, config.Speech{Mode: "full"}},
		{`,"async_chunk":true,"speech_mode":"stream"`, config.Speech{Mode: "stream"}},
		{
			`,"extra_body":{"speech_mode":"stream","initial_codec_chunk_frames":24,"codec_chunk_frames":48,"codec_right_context_frames":0}`,
			config.Speech{Mode: "stream", InitialChunk: size(24), Chunk: size(48), RightContext: size(0)},
		},
		{
			`,"speech_mode":"full","codec_chunk_frames":12,"initial_codec_chunk_frames":1,"extra_body":{"async_chunk":true,"codec_chunk_frames":48}`,
			config.Speech{Mode: "stream", InitialChunk: size(1), Chunk: size(48)},
		},
	} {
		for path, body := range bothRoutes {
			engine := &fakeEngine{stream: func(_ context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
				yield(pipeline.Event{Kind: pipeline.EventDone, Response: &pipeline.Response{FinishReason: "stop"}}, nil)
			}}
			s := newServer(t, func(c *api.Config) { c.Engine = engine })
			answer := s.do("POST", path, body+test.fields+"}")
			require.Equal(t, 200, answer.Code, answer.Body)
			require.Equal(t, test.want, engine.requests[0].Speech, "%s %s", path, test.fields)
		}
	}
}

func TestSpeechModesThatAreNone(t *testing.T) {
	s := newServer(t, nil)
	for _, test := range []struct{ fields, param, text string }{
		{`"speech_mode":"fast"`, "speech_mode", `speech_mode is "fast", want full or stream`},
		{`"speech_mode":""`, "speech_mode", "want full or stream"},
		{`"speech_mode":true`, "speech_mode", "want a string"},
		{`"async_chunk":"yes"`, "async_chunk", "want true or false"},
		{`"async_chunk":true,"speech_mode":"full"`, "async_chunk", "contradict each other"},
		{`"initial_codec_chunk_frames":0`, "initial_codec_chunk_frames", "want 1 to 1048576"},
		{`"codec_chunk_frames":1048577`, "codec_chunk_frames", "want 1 to 1048576"},
		{`"codec_right_context_frames":-1`, "codec_right_context_frames", "want 0 to 1048576"},
		{`"extra_body":{"codec_chunk_frames":1.5}`, "extra_body.codec_chunk_frames", "want a whole number"},
	} {
		for path, body := range bothRoutes {
			e := failure(t, s.do("POST", path, body+","+test.fields+"}"), 400).Error
			require.Contains(t, e.Message, test.text, "%s %s", path, test.fields)
			require.NotNil(t, e.Param, test.fields)
			require.Equal(t, test.param, *e.Param, test.fields)
		}
	}
}

// The scripted model makes three codes a piece in mode stream, and two pieces of all its codes in mode full.
func TestSpeechModeOfARequest(t *testing.T) {
	const codes = 19
	s, _ := overPipeline(t, nil, nil)
	want := pipelinetest.Expect("Hello", codes+1)
	for mode, pieces := range map[string]int{"full": 2, "stream": (codes + pipelinetest.ChunkCodes - 1) / pipelinetest.ChunkCodes} {
		answer := s.do("POST", "/v1/chat/completions", fmt.Sprintf(
			`{"messages":[{"role":"user","content":"Hello"}],"max_tokens":%d,"stream":true,"audio":{"format":"pcm16"},"speech_mode":%q}`, codes+1, mode))
		require.Equal(t, 200, answer.Code, answer.Body)
		chunks, _ := stream(t, answer.Body)
		frames, got := 0, 0
		for _, c := range chunks {
			if len(c.Choices) > 0 && c.Choices[0].AudioMetadata != nil {
				got++
				frames += c.Choices[0].AudioMetadata.Frames
			}
		}
		require.Equal(t, pieces, got, mode)
		require.Equal(t, len(want.PCM), frames, mode)
	}
}
