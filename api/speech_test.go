package api_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-audio/wav"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// spoken is what the scripted pipeline says when it is to read a text.
func spoken(text string, tokens int) pipelinetest.Expected {
	return pipelinetest.Expect("Read the following text aloud, word for word, and say nothing else.\n\n"+text, tokens)
}

func TestSpeechIsAFile(t *testing.T) {
	s, _ := overPipeline(t, nil, nil)
	want := spoken("Hello", 20)
	answer := s.do("POST", "/v1/audio/speech", `{"model":"tiny","input":"Hello","voice":"Tester","max_tokens":20}`)
	require.Equal(t, 200, answer.Code, answer.Body)
	require.Equal(t, "audio/wav", answer.Header().Get("Content-Type"))
	buffer, err := wav.NewDecoder(bytes.NewReader(answer.Body.Bytes())).FullPCMBuffer()
	require.NoError(t, err)
	require.Len(t, buffer.Data, len(want.PCM))
	require.Equal(t, 40, buffer.Format.SampleRate)

	answer = s.do("POST", "/v1/audio/speech", `{"input":"Hello","response_format":"pcm","max_tokens":20}`)
	require.Equal(t, "audio/pcm", answer.Header().Get("Content-Type"))
	require.Equal(t, "40", answer.Header().Get("X-Sample-Rate"))
	require.Len(t, answer.Body.Bytes(), 2*len(want.PCM))

	answer = s.do("POST", "/v1/audio/speech", `{"input":"Hello","stream":true,"max_tokens":20}`)
	require.Len(t, answer.Body.Bytes(), 44+2*len(want.PCM))
	require.True(t, answer.Flushed)

	answer = s.do("POST", "/v1/audio/speech", `{"input":"Hello","response_format":"pcm","max_tokens":1}`)
	require.Equal(t, 200, answer.Code)
	require.Empty(t, answer.Body.Bytes(), "one token has no code")
}

func TestSpeechStreamsEvents(t *testing.T) {
	s, _ := overPipeline(t, nil, nil)
	answer := s.do("POST", "/v1/audio/speech", `{"input":"Hello","response_format":"pcm","stream_format":"sse","max_tokens":20}`)
	require.Equal(t, "text/event-stream; charset=utf-8", answer.Header().Get("Content-Type"))
	var audio []byte
	var last struct {
		Type, Audio string
		Usage       struct {
			Output int `json:"output_tokens"`
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(answer.Body.String()), "\n\n") {
		last.Audio = ""
		require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &last))
		piece, err := base64.StdEncoding.DecodeString(last.Audio)
		require.NoError(t, err)
		audio = append(audio, piece...)
	}
	require.Len(t, audio, 2*len(spoken("Hello", 20).PCM))
	require.Equal(t, "speech.audio.done", last.Type)
	require.Equal(t, 20+19, last.Usage.Output)
}

func TestSpeechInEveryFormat(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	s, _ := overPipeline(t, nil, nil)
	for format, media := range map[string]string{"flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac"} {
		// The scripted model speaks at 40 Hz, which only FLAC takes: that the others answer with a clear error is the point.
		answer := s.do("POST", "/v1/audio/speech", `{"input":"Hello","response_format":"`+format+`"}`)
		if answer.Code == 200 {
			require.Equal(t, media, answer.Header().Get("Content-Type"))
			continue
		}
		require.Contains(t, failure(t, answer, 500).Error.Message, "encode audio as "+format)
	}
}

func TestSpeechWithoutFFmpeg(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s := newServer(t, nil)
	for _, body := range []string{`{"input":"x","response_format":"mp3"}`, `{"input":"x","speed":2}`} {
		e := failure(t, s.do("POST", "/v1/audio/speech", body), 501)
		require.Contains(t, e.Error.Message, "needs ffmpeg, which is not on the PATH of the server: install it")
	}
}

func TestSpeechRefusesWhatItCannotDo(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.Limits.PromptBytes = 100 })
	for _, test := range []struct{ body, param, text string }{
		{``, "input", "missing"},
		{`{"input":5}`, "input", "want a string"},
		{`{"input":"` + strings.Repeat("x", 101) + `"}`, "input", "longer than 100 bytes"},
		{`{"input":"x","voice":"alloy"}`, "voice", "unknown voice"},
		{`{"input":"x","voice":7}`, "voice", "want a voice"},
		{`{"input":"x","voice":{"id":null}}`, "voice.id", "want a voice"},
		{`{"input":"x","voice":{"id":7}}`, "voice.id", "want a string"},
		{`{"input":"x","response_format":"ogg"}`, "response_format", "unknown format"},
		{`{"input":"x","speed":0}`, "speed", "want 0.25 to 4"},
		{`{"input":"x","speed":4.5}`, "speed", "want 0.25 to 4"},
		{`{"input":"x","stream_format":"x"}`, "stream_format", "want audio or sse"},
		{`{"input":"x","modalities":["smell"]}`, "modalities[0]", "unknown modality"},
		{`{"input":"x","colour":1}`, "colour", "unknown field"},
	} {
		e := failure(t, s.do("POST", "/v1/audio/speech", test.body), 400).Error
		require.Contains(t, e.Message, test.text)
		require.NotNil(t, e.Param, test.body)
		require.Equal(t, test.param, *e.Param)
	}
}

func TestVoicesAreTheCheckpoints(t *testing.T) {
	s := newServer(t, nil)
	require.JSONEq(t, `{"voices":["Chelsie","Ethan"],"default":"Chelsie"}`, s.do("GET", "/v1/audio/voices", "").Body.String())
}

// Speech that cannot be completed is broken off: a client must not take the part for the whole.
func TestSpeechThatBreaksOff(t *testing.T) {
	// The second call of code2wav's prefill is of the second request; a fault in a later step comes after the first piece.
	s, _ := overPipeline(t, map[string]pipelinetest.Script{
		pipelinetest.Code2Wav: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtDecode, Nth: 3, Do: pipelinetest.Error}}},
	}, nil)
	address, _ := serveOn(t, s)
	answer, err := http.Post("http://"+address+"/v1/audio/speech", "application/json",
		strings.NewReader(`{"input":"Hello","response_format":"pcm","max_tokens":20}`))
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, 200, answer.StatusCode)
	got, err := io.ReadAll(answer.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotEmpty(t, got)
	http.DefaultClient.CloseIdleConnections()
}

func TestBodiesThatAreNone(t *testing.T) {
	s := newServer(t, nil)
	address, _ := serveOn(t, s)
	for name, request := range map[string]string{
		"no body":           "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"of length 0":       "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"chunked and empty": "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"only blanks":       "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n\r\n",
	} {
		require.Contains(t, exchange(t, address, request), "input is missing or empty", name)
	}
	truncated := "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 20\r\n\r\n{\"input\""
	require.Contains(t, exchange(t, address, truncated), "400 Bad Request")
}
