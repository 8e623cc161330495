package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
)

// quickEngine answers every request at once, with a word and some samples.
func quickEngine() *fakeEngine {
	return &fakeEngine{forget: true, stream: func(_ context.Context, req pipeline.Request, yield func(pipeline.Event, error) bool) {
		pcm := []float32{0, 0.5, -0.5, 1}
		if !yield(pipeline.Event{Kind: pipeline.EventText, Text: "Hi", TokenIDs: []int64{1}}, nil) ||
			!yield(pipeline.Event{Kind: pipeline.EventAudio, Samples: pcm, SampleRate: 24000}, nil) {
			return
		}
		yield(pipeline.Event{Kind: pipeline.EventDone, Response: &pipeline.Response{
			Text: "Hi", FinishReason: "stop", TokenIDs: []int64{1}, Audio: &pipeline.Audio{SampleRate: 24000, PCM: pcm, Samples: 4},
		}}, nil)
	}}
}

// seeds are bodies that are good or nearly so; mutants are made of them.
var seeds = []string{
	`{"model":"tiny","messages":[{"role":"user","content":"Hello"}],"max_tokens":4}`,
	`{"messages":[{"role":"system","content":"x"},{"role":"user","content":[{"type":"text","text":"y"}]}],"stream":true,"stream_options":{"include_usage":true}}`,
	`{"messages":[{"role":"user","content":"x"}],"modalities":["text","audio"],"audio":{"voice":"Ethan","format":"wav"},"seed":1,"stop":["a"]}`,
	`{"messages":[{"role":"user","content":"x"}],"sampling_params_list":[{"temperature":0.5,"top_p":0.9,"top_k":4},{},null],"extra_body":{"top_k":1}}`,
	`{"input":"Hello","voice":"Chelsie","response_format":"pcm","speed":1}`,
	`{"input":"Hello","stream_format":"sse","response_format":"wav","instructions":"Slowly."}`,
	`{"stages":[0,2],"max_iterations":5}`,
	`{}`, `null`, `[]`, `"x"`, `0`, ``,
}

// values replace parts of a body.
var values = []string{
	`null`, `true`, `-1`, `0`, `1e400`, `-0.0`, `1.5`, `9223372036854775808`, `""`, `"\u0000"`, `"\ud800"`, `[]`, `{}`, `[[[[[[]]]]]]`, `{"a":{"a":{}}}`,
	`"` + "\xff" + `"`, `"` + strings.Repeat("x", 300) + `"`, `[1,2,3]`, `NaN`,
}

// mutant changes a seed: a value for another, bytes for others, a cut, a piece twice.
func mutant(r *rand.Rand) []byte {
	body := []byte(seeds[r.IntN(len(seeds))])
	for range r.IntN(4) {
		if len(body) == 0 {
			return body
		}
		at := r.IntN(len(body))
		switch r.IntN(6) {
		case 0:
			body[at] = byte(r.UintN(256))
		case 1:
			body = body[:at]
		case 2:
			end := at + r.IntN(len(body)-at)
			body = append(bytes.Clone(body[:end]), body[at:]...)
		case 3, 4:
			if colon := bytes.IndexByte(body[at:], ':'); colon >= 0 {
				start := at + colon + 1
				end := start + max(bytes.IndexAny(body[start:], ",}]"), 0)
				body = append(append(bytes.Clone(body[:start]), values[r.IntN(len(values))]...), body[end:]...)
			}
		default:
			body = append(body, values[r.IntN(len(values))]...)
		}
	}
	return body
}

// meant are the statuses above 499 that a request may have: the format that the machine has no encoder for.
var meant = map[int]bool{http.StatusNotImplemented: true}

// check sends a request and fails on a crash, an unmeant 5xx, or an error that is not in the shape of errors.
func check(t *testing.T, handler http.Handler, request *http.Request) {
	t.Helper()
	answer := httptest.NewRecorder()
	func() {
		defer func() {
			if p := recover(); p != nil {
				t.Fatalf("%s %q: panic %v", request.Method, request.URL, p)
			}
		}()
		handler.ServeHTTP(answer, request)
	}()
	if answer.Code >= 500 && !meant[answer.Code] {
		t.Fatalf("%s %q: %d %s", request.Method, request.URL, answer.Code, answer.Body)
	}
	if answer.Code >= 400 {
		var e apiError
		if err := json.Unmarshal(answer.Body.Bytes(), &e); err != nil || e.Error.Message == "" || e.Error.Code == "" {
			t.Fatalf("%s %q: %d is no error: %s", request.Method, request.URL, answer.Code, answer.Body)
		}
	}
}

// fuzzServer is a server with all routes over engines that answer at once. It has no ffmpeg, which would be most of the time.
func fuzzServer(t testing.TB) *api.Server {
	t.Setenv("PATH", "")
	limits := api.DefaultLimits()
	limits.BodyBytes, limits.PromptBytes = 4096, 1024
	s, err := api.New(api.Config{
		Engine: quickEngine(), Models: []string{"tiny"}, Limits: limits,
		Log: slog.New(slog.NewJSONHandler(io.Discard, nil)), //nolint:sloglint // what is logged is made and thrown away
	})
	require.NoError(t, err)
	return s
}

// TestRandomRequests sends OMNI_FUZZ_REQUESTS requests (5,000), which none may crash or bring to an unmeant 5xx.
func TestRandomRequests(t *testing.T) {
	n := 5000
	if text := os.Getenv("OMNI_FUZZ_REQUESTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	s := fuzzServer(t)
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	paths := []string{
		"/v1/chat/completions", "/v1/audio/speech", "/v1/audio/voices", "/v1/models", "/health", "/metrics", "/start_profile", "/stages",
		"/", "//", "/v1/../health", "/%00", "/profiles/..%2f..%2fetc", "/page/%2e%2e/server.go",
	}
	methods := []string{"POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X"}
	types := []string{"application/json", "application/json", "application/json", "", "text/plain", "application/json; charset=\"", "multipart/form-data; boundary=x"}
	for i := range n {
		path := paths[r.IntN(len(paths))]
		if r.IntN(3) > 0 {
			path = paths[r.IntN(2)]
		}
		request := httptest.NewRequestWithContext(t.Context(), methods[r.IntN(len(methods))], path, bytes.NewReader(mutant(r)))
		request.Header.Set("Content-Type", types[r.IntN(len(types))])
		if r.IntN(8) == 0 {
			request.Header.Set("X-Request-Id", fmt.Sprintf("%c%d", rune(r.IntN(300)), i))
		}
		if request.Method == http.MethodHead {
			continue // its errors have no body
		}
		check(t, s, request)
	}
}

func FuzzChat(f *testing.F)   { fuzzBody(f, "/v1/chat/completions") }
func FuzzSpeech(f *testing.F) { fuzzBody(f, "/v1/audio/speech") }

func fuzzBody(f *testing.F, path string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	s := fuzzServer(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		check(t, s, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body)))
	})
}
