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
	`"` + "\xff" + `"`, `"` + strings.Repeat("x", 300) + `"`, `"` + strings.Repeat("x", 5000) + `"`, `[1,2,3]`, `NaN`,
}

// targets are good or nearly so: requests to the model first, then those about sessions, of which s1 is the first, and at last the
// others.
var targets = []string{
	"POST /v1/chat/completions", "POST /v1/audio/speech",
	"POST /start_profile", "POST /stop_profile", "POST /dump_profile", "GET /profile_status", "GET /profiles",
	"GET /profile", "GET /profile?seconds=0.001&stages=0,1", "GET /profile?stages=7", "GET /profile?seconds=1e99",
	"GET /profile?seconds=NaN&seconds=1", "GET /profile?x=%ff",
	"GET /profiles/s1", "GET /profiles/s1.1795311375000000000", "GET /profiles/s99999999999999999999", "GET /profiles/%00",
	"GET /profiles/..%2f..%2fetc", "DELETE /profiles/s2", "DELETE /profiles/..",
	"GET " + firstTrace, "HEAD " + firstTrace, "GET /profiles/s1/merged.trace.json.gz", "GET /profiles/s1/..%2fx", "GET /profiles/s1/profiler_out_0.txt",
	"GET /profiles/s1/analysis", "GET /profiles/s1/analysis?limit=-1", "GET /profiles/s1/flame?stage=1e9", "GET /profiles/s1/diff?with=s2",
	"GET /profiles/s1/diff",
	"GET /v1/audio/voices", "GET /v1/models", "GET /health", "GET /metrics", "GET /stages", "GET /openapi.json", "GET /version", "GET /", "GET //",
	"DELETE /v1/chat/completions", "GET /v1/../health", "GET /%00", "GET /page/%2e%2e/server.go",
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

// check sends a request and fails on a crash, an unmeant 5xx, or an error that is not in the shape of errors. It returns the status.
func check(t *testing.T, handler http.Handler, request *http.Request) int {
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
	if answer.Code >= 400 && request.Method != http.MethodHead { // whose answers have no body
		var e apiError
		if err := json.Unmarshal(answer.Body.Bytes(), &e); err != nil || e.Error.Message == "" || e.Error.Code == "" {
			t.Fatalf("%s %q: %d is no error: %s", request.Method, request.URL, answer.Code, answer.Body)
		}
	}
	return answer.Code
}

// fuzzServer is a server with all routes over engines that answer at once. It has no ffmpeg, which would be most of the time.
func fuzzServer(t testing.TB) *api.Server {
	t.Setenv("PATH", "")
	limits := api.DefaultLimits()
	limits.BodyBytes, limits.PromptBytes = 4096, 1024
	limits.ProfileSeconds = 0.001
	f := &fakeProfiler{t: t, dir: t.TempDir()}
	s, err := api.New(api.Config{
		Engine: quickEngine(), Profiler: f, Models: []string{"tiny"}, Limits: limits,
		Log: slog.New(slog.NewJSONHandler(io.Discard, nil)), //nolint:sloglint // what is logged is made and thrown away
	})
	require.NoError(t, err)
	return s
}

// TestRandomRequests sends OMNI_FUZZ_REQUESTS requests, but at least 5,000, to all routes, which none may crash or bring to an
// unmeant 5xx.
func TestRandomRequests(t *testing.T) {
	const least = 5000 // among so many there is an answer of every status below
	n := least
	if text := os.Getenv("OMNI_FUZZ_REQUESTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	s := fuzzServer(t)
	const seed = 1
	r := rand.New(rand.NewPCG(seed, seed))
	methods := []string{"POST", "GET", "PUT", "HEAD", "OPTIONS", "PATCH", "X"} // DELETE only where targets say so: it would take s1 away
	types := []string{"", "text/plain", "application/json; charset=\"", "multipart/form-data; boundary=x"}
	ranges := []string{"bytes=0-9", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=0-1,3-4", "bytes=99999999999999999999-", "lines=1-2", "\xff"}
	statuses := map[int]int{}
	for i := range max(n, least) {
		target := targets[r.IntN(2)] // those of requests to the model
		if r.IntN(3) == 0 {
			target = targets[r.IntN(len(targets))]
		}
		method, path, _ := strings.Cut(target, " ")
		if r.IntN(8) == 0 {
			method = methods[r.IntN(len(methods))]
		}
		request := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(mutant(r)))
		request.Header.Set("Content-Type", "application/json")
		if r.IntN(8) == 0 {
			request.Header.Set("Content-Type", types[r.IntN(len(types))])
		}
		if r.IntN(8) == 0 {
			request.Header.Set("X-Request-Id", fmt.Sprintf("%c%d", rune(r.IntN(300)), i))
		}
		if r.IntN(8) == 0 {
			request.Header.Set("Range", ranges[r.IntN(len(ranges))])
		}
		statuses[check(t, s, request)]++
	}
	t.Logf("requests by the status of their answer: %v", statuses)
	for _, status := range []int{200, 206, 400, 404, 405, 409, 413, 416} {
		require.Positive(t, statuses[status], "no answer has status %d", status)
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
