package api_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// completion is an answer as clients read it, whole or a chunk.
type completion struct {
	ID, Object, Model string
	Choices           []struct {
		Index          int
		Message, Delta struct {
			Role    string
			Content *string
			Audio   *struct {
				ID, Data, Transcript string
				ExpiresAt            int64 `json:"expires_at"`
			}
		}
		FinishReason  *string `json:"finish_reason"`
		AudioMetadata *struct {
			SampleRate int `json:"sample_rate_hz"`
			Frames     int `json:"frame_count"`
		} `json:"audio_metadata"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
	Metrics *struct {
		Stages []struct {
			Name   string
			Tokens int
		}
		E2E float64 `json:"e2e_ms"`
	}
	Error json.RawMessage
}

// overPipeline makes a server over three scripted worker processes.
func overPipeline(t *testing.T, scripts map[string]pipelinetest.Script, change func(*api.Config)) (*server, *pipeline.Omni) {
	t.Helper()
	cfg := pipelinetest.Config(t, scripts)
	cfg.MaxConcurrency = 4
	o := pipelinetest.Open(t, cfg)
	return newServer(t, func(c *api.Config) {
		c.Engine, c.Limits.Running = o, 4
		if change != nil {
			change(c)
		}
	}), o
}

// bytesOf is the audio of an answer: raw 16 bit samples after the header.
func bytesOf(t *testing.T, data string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(data)
	require.NoError(t, err)
	return raw
}

func (s *server) chat(body string, headers ...string) completion {
	s.t.Helper()
	answer := s.do("POST", "/v1/chat/completions", body, append(headers, "Content-Type", "application/json")...)
	require.Equal(s.t, 200, answer.Code, answer.Body)
	var c completion
	require.NoError(s.t, json.Unmarshal(answer.Body.Bytes(), &c))
	require.Len(s.t, c.Choices, 1, "the only choice")
	return c
}

func TestChatGivesTextAndSpeech(t *testing.T) {
	s, _ := overPipeline(t, nil, nil)
	want := pipelinetest.Expect("Hello", 20)
	c := s.chat(`{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"max_tokens":20,"return_stage_metrics":true}`,
		"X-Request-Id", "one")
	choice := c.Choices[0]
	require.Equal(t, "chatcmpl-one chat.completion tiny", c.ID+" "+c.Object+" "+c.Model)
	require.Equal(t, want.Text, *choice.Message.Content)
	require.Equal(t, want.Text, choice.Message.Audio.Transcript)
	require.Equal(t, "length", *choice.FinishReason)
	require.Len(t, bytesOf(t, choice.Message.Audio.Data), 44+2*len(want.PCM))
	require.Equal(t, len(want.PCM), choice.AudioMetadata.Frames)
	require.Equal(t, 20, c.Usage.Completion)
	require.Equal(t, c.Usage.Total, c.Usage.Prompt+20)
	require.Len(t, c.Metrics.Stages, 3)

	c = s.chat(`{"messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]}],"modalities":["text"],"max_completion_tokens":20}`)
	require.Equal(t, want.Text, *c.Choices[0].Message.Content)
	require.Nil(t, c.Choices[0].Message.Audio)
	require.Nil(t, c.Metrics)

	c = s.chat(`{"messages":[{"role":"user","content":"Hello"}],"extra_body":{"modalities":["audio"],"sampling_params_list":[{"max_tokens":20},{},null]}}`)
	require.Nil(t, c.Choices[0].Message.Content)
	require.Equal(t, want.Text, c.Choices[0].Message.Audio.Transcript)

	c = s.chat(fmt.Sprintf(`{"messages":[{"role":"user","content":"Hello"}],"max_tokens":20,"stop":%q}`, want.Text[6:8]))
	require.Equal(t, want.Text[:6], *c.Choices[0].Message.Content)
	require.Equal(t, "stop", *c.Choices[0].FinishReason)
}

// stream reads all chunks of a streamed answer; last is the line after them.
func stream(t *testing.T, body io.Reader) (chunks []completion, last string) {
	t.Helper()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			require.Empty(t, lines.Text())
			continue
		}
		if last = data; data == "[DONE]" {
			continue
		}
		var c completion
		require.NoError(t, json.Unmarshal([]byte(data), &c))
		chunks = append(chunks, c)
	}
	require.NoError(t, lines.Err())
	return chunks, last
}

func TestChatStreamsTextAndSpeechAsTheyAreMade(t *testing.T) {
	s, _ := overPipeline(t, nil, nil)
	want := pipelinetest.Expect("Hello", 20)
	answer := s.do("POST", "/v1/chat/completions",
		`{"messages":[{"role":"user","content":"Hello"}],"max_tokens":20,"stream":true,"stream_options":{"include_usage":true},"audio":{"format":"pcm16"}}`)
	require.Equal(t, 200, answer.Code)
	require.Equal(t, "text/event-stream; charset=utf-8", answer.Header().Get("Content-Type"))
	chunks, last := stream(t, answer.Body)
	require.Equal(t, "[DONE]", last)
	require.Equal(t, "assistant", chunks[0].Choices[0].Delta.Role)
	var text, transcript string
	var audio []byte
	pieces, finished := 0, ""
	for _, c := range chunks[:len(chunks)-1] {
		require.Equal(t, "chat.completion.chunk", c.Object)
		choice := c.Choices[0]
		if choice.Delta.Content != nil {
			text += *choice.Delta.Content
		}
		if a := choice.Delta.Audio; a != nil {
			audio = append(audio, bytesOf(t, a.Data)...)
			transcript += a.Transcript
			pieces++
		}
		if choice.FinishReason != nil {
			finished = *choice.FinishReason
		}
	}
	require.Equal(t, want.Text, text)
	require.Equal(t, want.Text, transcript)
	require.Len(t, audio, 2*len(want.PCM))
	require.Greater(t, pieces, 2, "the speech comes in pieces")
	require.Equal(t, "length", finished)
	end := chunks[len(chunks)-1]
	require.Empty(t, end.Choices)
	require.Equal(t, 20, end.Usage.Completion)
}

func TestChatRefusesWhatItCannotDo(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.Limits.PromptBytes, c.Limits.MaxTokens, c.Limits.BodyBytes = 100, 1000, 2000 })
	const messages = `"messages":[{"role":"user","content":"x"}]`
	for _, test := range []struct {
		body   string
		status int
		param  string
		text   string
	}{
		{``, 400, "messages", "missing"},
		{`{}`, 400, "messages", "missing"},
		{`null`, 400, "", ""},
		{`[]`, 400, "", "the body: got a list, want an object"},
		{`{"messages":`, 400, "messages", "no valid JSON"},
		{`{"messages":[]}`, 400, "messages", "missing"},
		{`{` + messages + `,"mesages":1}`, 400, "mesages", `unknown field "mesages"`},
		{`{` + messages + `,"seed":1,"seed":1}`, 400, "seed", "comes twice"},
		{`{"messages":[{"role":"user","content":"x"},{"role":"user","content":5}]}`, 400, "messages[1].content", "want a string or a list"},
		{`{"messages":[{"role":"user","content":"x","colour":1}]}`, 400, "messages[0].colour", "unknown field"},
		{`{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"x"}}]}]}`, 400, "messages[0].content[1].type", "does not take images"},
		{`{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}`, 400, "messages[0].content[0].type", "does not take audio"},
		{`{"messages":[{"role":"user","content":[{"type":"video_url","video_url":{}}]}]}`, 400, "messages[0].content[0].type", "does not take video"},
		{`{"messages":[{"role":"tool","content":"x"}]}`, 400, "messages[0].role", "unknown role"},
		{`{"messages":[{"role":"user","content":""}]}`, 400, "messages[0].content", "no text"},
		{`{"messages":[{"role":"user","content":"` + strings.Repeat("x", 101) + `"}]}`, 400, "messages[0].content", "more than 100 bytes"},
		{`{` + messages + `,"model":"gpt-4"}`, 404, "model", `"gpt-4" is not served`},
		{`{` + messages + `,"n":2}`, 400, "n", "not supported"},
		{`{` + messages + `,"tools":[{}]}`, 400, "tools", "not supported"},
		{`{` + messages + `,"temperature":-1}`, 400, "temperature", "want 0"},
		{`{` + messages + `,"temperature":1e-9}`, 400, "temperature", "0.001 to 100"},
		{`{` + messages + `,"repetition_penalty":5e-324}`, 400, "repetition_penalty", "0.01 to 100"},
		{`{` + messages + `,"sampling_params_list":[{},{"repetition_penalty":101}]}`, 400, "sampling_params_list[1].repetition_penalty", "0.01 to 100"},
		{`{` + messages + `,"temperature":"hot"}`, 400, "temperature", "got a string, want a number"},
		{`{` + messages + `,"max_tokens":1.5}`, 400, "max_tokens", "want a whole number"},
		{`{` + messages + `,"max_tokens":0}`, 400, "max_tokens", "want 1"},
		{`{` + messages + `,"max_tokens":0,"max_completion_tokens":1}`, 400, "max_tokens", "want 1"},
		{`{` + messages + `,"max_tokens":1001}`, 400, "max_tokens", "limit is 1000"},
		{`{` + messages + `,"seed":-1}`, 400, "seed", "want 0"},
		{`{` + messages + `,"stop_token_ids":[1,null]}`, 400, "stop_token_ids[1]", "want a whole number"},
		{`{` + messages + `,"stop_token_ids":["a"]}`, 400, "stop_token_ids[0]", "want a whole number"},
		{`{` + messages + `,"stop":[""]}`, 400, "stop[0]", "0 characters"},
		{`{` + messages + `,"stop":5}`, 400, "stop", "want a string or a list"},
		{`{` + messages + `,"modalities":["video"]}`, 400, "modalities[0]", "unknown modality"},
		{`{` + messages + `,"modalities":[]}`, 400, "modalities", "empty"},
		{`{` + messages + `,"sampling_params_list":[{},{"top_p":2}]}`, 400, "sampling_params_list[1].top_p", "at most 1"},
		{`{` + messages + `,"sampling_params_list":[{},{},{},{}]}`, 400, "sampling_params_list", "4 stages"},
		{`{` + messages + `,"extra_body":{"top_k":-2}}`, 400, "top_k", "want -1"},
		{`{` + messages + `,"audio":{"voice":"alloy"}}`, 400, "audio.voice", `this checkpoint has ["Chelsie" "Ethan"]`},
		{`{` + messages + `,"audio":{"format":"ogg"}}`, 400, "audio.format", "unknown format"},
		{`{` + messages + `} {}`, 400, "", "no valid JSON"},
		{"\x00\xff\xfe", 400, "", "no valid JSON"},
		{`{"messages":[{"role":"user","content":"` + "\xff" + `"}]}`, 400, "", "no valid JSON"},
		{strings.Repeat(" ", 2001), 413, "", "larger than 2000 bytes"},
	} {
		e := failure(t, s.do("POST", "/v1/chat/completions", test.body, "Content-Type", "application/json"), test.status).Error
		require.Contains(t, e.Message, test.text, test.body)
		if test.param != "" {
			require.NotNil(t, e.Param, "%s: %+v", test.body, e)
			require.Equal(t, test.param, *e.Param, test.body)
		}
		require.Equal(t, "invalid_request_error", e.Type)
	}
	failure(t, s.do("POST", "/v1/chat/completions", "x=1", "Content-Type", "text/plain"), 415)
}

func TestConversationsAndOptionsReachThePipeline(t *testing.T) {
	engine := &fakeEngine{stream: func(_ context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
		yield(pipeline.Event{Kind: pipeline.EventDone, Response: &pipeline.Response{FinishReason: "stop"}}, nil)
	}}
	s := newServer(t, func(c *api.Config) { c.Engine = engine })
	s.chat(`{"messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":"Hi"},
		{"role":"assistant","content":null,"audio":{"id":"audio-1","transcript":"Hello!"},"refusal":null,"tool_calls":null,"annotations":[]},
		{"role":"user","content":[{"type":"text","text":"How"},{"type":"text","text":"so?"}]}],
		"temperature":0.5,"top_p":0.9,"top_k":7,"seed":3,"stop":["a","b"],"max_tokens":9,"audio":{"voice":"ethan","format":"wav"},
		"user":"me","metadata":{"a":"b"},"n":1,"logprobs":false,"response_format":{"type":"text"},
		"sampling_params_list":[{"temperature":0.25,"detokenize":true},{"seed":4}]}`)
	r := engine.requests[0]
	require.Equal(t, "system Be brief.|user Hi|assistant Hello!|user How\nso?", func() string {
		var all []string
		for _, m := range r.Messages {
			all = append(all, m.Role+" "+m.Text)
		}
		return strings.Join(all, "|")
	}())
	require.Equal(t, "Ethan", r.Speaker)
	require.Equal(t, []string{"a", "b"}, r.Stop)
	require.EqualValues(t, 3, *r.Seed)
	require.Equal(t, 9, r.MaxTokens)
	require.Equal(t, 5*time.Minute, r.MaxAudio)
	require.InDelta(t, 0.25, *r.Sampling[0].Temperature, 0)
	require.InDelta(t, 0.9, *r.Sampling[0].TopP, 0)
	require.EqualValues(t, 7, *r.Sampling[0].TopK)
	require.EqualValues(t, 4, *r.Sampling[1].Seed)
}

func TestErrorsOfThePipelineHaveTheirStatus(t *testing.T) {
	stage := func(code message.Code) error {
		return &pipeline.StageError{Stage: 1, Name: "talker", Code: code, Cause: message.Errorf(code, "it broke")}
	}
	for _, test := range []struct {
		err    error
		status int
	}{
		{fmt.Errorf("request: %w: too long", pipeline.ErrInvalidRequest), 400},
		{stage(message.InvalidArgument), 400},
		{stage(message.DeviceLost), 503},
		{stage(message.Unimplemented), 501},
		{stage(message.Internal), 500},
		{fmt.Errorf("%w: signal: killed", pipeline.ErrWorkerDied), 503},
		{pipeline.ErrClosed, 503},
		{errors.New("something else"), 500},
	} {
		s := newServer(t, func(c *api.Config) {
			c.Engine = &fakeEngine{stream: func(_ context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
				yield(pipeline.Event{}, test.err)
			}}
		})
		for _, body := range []string{`{"messages":[{"role":"user","content":"x"}]}`, `{"messages":[{"role":"user","content":"x"}],"stream":true}`} {
			e := failure(t, s.do("POST", "/v1/chat/completions", body), test.status)
			require.Contains(t, e.Error.Message, test.err.Error())
		}
	}
}

func TestAnErrorInTheMiddleOfAStreamIsItsLastEvent(t *testing.T) {
	s := newServer(t, func(c *api.Config) {
		c.Engine = &fakeEngine{stream: func(_ context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
			if yield(pipeline.Event{Kind: pipeline.EventText, Text: "Hel"}, nil) {
				yield(pipeline.Event{}, fmt.Errorf("%w: signal: killed", pipeline.ErrWorkerDied))
			}
		}}
	})
	answer := s.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stream":true}`)
	require.Equal(t, 200, answer.Code)
	chunks, last := stream(t, answer.Body)
	require.Equal(t, "Hel", *chunks[1].Choices[0].Delta.Content)
	require.Contains(t, last, `{"error":{"message":"the worker died: signal: killed","type":"server_error"`)
	require.Contains(t, s.log.String(), "service_unavailable")
}

// A request beyond those that run and wait is told to come again; when one has ended there is room.
func TestQueueIsBounded(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	s := newServer(t, func(c *api.Config) {
		c.Limits.Running, c.Limits.Waiting = 1, 1
		c.Engine = &fakeEngine{stream: func(ctx context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
			started <- struct{}{}
			<-release
			yield(pipeline.Event{Kind: pipeline.EventDone, Response: &pipeline.Response{FinishReason: "stop"}}, nil)
		}}
	})
	const body = `{"messages":[{"role":"user","content":"x"}]}`
	answers := make(chan int, 2)
	for range 2 {
		go func() { answers <- s.do("POST", "/v1/chat/completions", body).Code }()
		<-started
	}
	answer := s.do("POST", "/v1/chat/completions", body)
	require.Equal(t, "rate_limit_error", failure(t, answer, 429).Error.Type)
	require.Equal(t, "1", answer.Header().Get("Retry-After"))
	metrics := s.do("GET", "/metrics", "").Body.String()
	require.Contains(t, metrics, "vllm_omni:num_requests_running 1\n")
	require.Contains(t, metrics, "vllm_omni:num_requests_waiting 1\n")
	close(release)
	require.Equal(t, []int{200, 200}, []int{<-answers, <-answers})
	go func() { <-started }()
	require.Equal(t, 200, s.do("POST", "/v1/chat/completions", body).Code)
}

func TestRequestsMayNotTakeForEver(t *testing.T) {
	s := newServer(t, func(c *api.Config) {
		c.Limits.Request = 10 * time.Millisecond
		c.Engine = &fakeEngine{stream: func(ctx context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
			<-ctx.Done()
			yield(pipeline.Event{}, fmt.Errorf("request %q: %w", "x", context.Cause(ctx)))
		}}
	})
	e := failure(t, s.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`), 504)
	require.Equal(t, "deadline_exceeded", e.Error.Code)
}

// A client that goes away ends its request in every stage; the others go on.
func TestAClientThatGoesAwayCancelsItsRequest(t *testing.T) {
	s, o := overPipeline(t, map[string]pipelinetest.Script{pipelinetest.Thinker: {Step: 5 * time.Millisecond}}, nil)
	address, _ := serveOn(t, s)
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/chat/completions",
		strings.NewReader(`{"messages":[{"role":"user","content":"Hello"}],"max_tokens":60000,"stream":true}`))
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_, err = bufio.NewReader(answer.Body).ReadString('\n')
	require.NoError(t, err)
	leave()
	require.NoError(t, answer.Body.Close())
	require.Eventually(t, func() bool {
		for _, stage := range o.Load(t.Context()) {
			if !stage.Answered || stage.Sequences > 0 {
				return false
			}
		}
		return true
	}, time.Minute, 5*time.Millisecond, "a stage still holds the request")
	http.DefaultClient.CloseIdleConnections()
	require.Eventually(t, func() bool {
		return strings.Contains(s.do("GET", "/metrics", "").Body.String(), `vllm_omni:requests_failed{reason="client_closed_request"} 1`)
	}, time.Minute, 5*time.Millisecond)
}

// A server that is told to end lets what runs end, and takes nothing new.
func TestDrain(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	s := newServer(t, func(c *api.Config) {
		c.Engine = &fakeEngine{stream: func(_ context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
			close(started)
			<-release
			yield(pipeline.Event{Kind: pipeline.EventDone, Response: &pipeline.Response{FinishReason: "stop"}}, nil)
		}}
	})
	address, end := serveOn(t, s)
	status := make(chan int, 1)
	go func() {
		answer, err := http.Post("http://"+address+"/v1/chat/completions", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"x"}]}`))
		if err != nil {
			status <- 0
			return
		}
		answer.Body.Close()
		status <- answer.StatusCode
	}()
	<-started
	var ended atomic.Bool
	done := make(chan error, 1)
	go func() { err := end(); ended.Store(true); done <- err }()
	require.Eventually(t, func() bool { return s.do("GET", "/health", "").Code == 503 }, time.Minute, time.Millisecond)
	require.Contains(t, s.do("GET", "/health", "").Body.String(), "draining")
	failure(t, s.do("POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`), 503)
	require.False(t, ended.Load(), "a request still runs")
	close(release)
	require.Equal(t, 200, <-status)
	require.NoError(t, <-done)
	http.DefaultClient.CloseIdleConnections()
}

func TestRequestsThatDoNotEndWhileDrainingAreCancelled(t *testing.T) {
	started := make(chan struct{})
	s := newServer(t, func(c *api.Config) {
		c.Limits.Drain = 20 * time.Millisecond
		c.Engine = &fakeEngine{stream: func(ctx context.Context, _ pipeline.Request, yield func(pipeline.Event, error) bool) {
			close(started)
			<-ctx.Done()
			yield(pipeline.Event{}, context.Cause(ctx))
		}}
	})
	address, end := serveOn(t, s)
	go func() {
		answer, err := http.Post("http://"+address+"/v1/chat/completions", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"x"}]}`))
		if err == nil {
			answer.Body.Close()
		}
	}()
	<-started
	require.ErrorContains(t, end(), "requests still ran")
}
