package api_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
)

// document reads a server's own description of its routes.
func document(t *testing.T, s *server) (*openapi3.T, routers.Router) {
	t.Helper()
	text, err := s.Document()
	require.NoError(t, err)
	doc, err := openapi3.NewLoader().LoadFromData(text)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	router, err := legacy.NewRouter(doc)
	require.NoError(t, err)
	return doc, router
}

// conforms checks an answer against the document: every answer that a test gets is described there.
func (s *server) conforms(request *http.Request, answer *httptest.ResponseRecorder) {
	s.t.Helper()
	if s.router == nil {
		_, s.router = document(s.t, s)
	}
	route, parameters, err := s.router.FindRoute(request)
	if err != nil {
		require.Contains(s.t, []int{401, 403, 404, 405, 200}, answer.Code, "%s %s is not described", request.Method, request.URL)
		return
	}
	kind := answer.Header().Get("Content-Type")
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route},
		Status:                 answer.Code, Header: answer.Header(),
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, ExcludeResponseBody: !strings.HasPrefix(kind, "application/json"), MultiError: true,
		},
		Body: io.NopCloser(bytes.NewReader(answer.Body.Bytes())),
	}
	require.NoError(s.t, openapi3filter.ValidateResponse(s.t.Context(), input), answer.Body)
	if answer.Code == http.StatusOK && request.Method != http.MethodHead {
		media, _, _ := strings.Cut(kind, ";")
		require.NotNil(s.t, route.Operation.Responses.Status(200).Value.Content.Get(media), "%s %s: %q is not described", request.Method, request.URL, kind)
	}
}

func TestDocumentHasEveryRoute(t *testing.T) {
	doc, _ := document(t, newServer(t, nil))
	for _, path := range []string{
		"/v1/chat/completions", "/v1/audio/speech", "/v1/audio/voices", "/v1/models", "/health", "/version", "/metrics", "/openapi.json", "/stages",
	} {
		require.NotNil(t, doc.Paths.Value(path), path)
	}
	require.Nil(t, doc.Paths.Value("/start_profile"), "there is no profiler")
	require.Nil(t, doc.Components.SecuritySchemes["key"], "there is no key")

	doc, _ = document(t, newServer(t, func(c *api.Config) { c.APIKey = "secret" }))
	require.Nil(t, doc.Paths.Value("/health").Get.Security)
	require.NotNil(t, doc.Paths.Value("/version").Get.Security)
}

// The document names every setting of a session, and what the profile routes refuse is not in it.
func TestDocumentDescribesProfileRequests(t *testing.T) {
	f := &fakeProfiler{t: t, dir: t.TempDir()}
	s := newServer(t, func(c *api.Config) { c.Profiler, c.Limits.ProfileSeconds = f, 0.1 })
	_, router := document(t, s)
	for _, test := range []struct {
		target, body string
		good         bool
	}{
		{"POST /start_profile", ``, true},
		{"POST /start_profile", `null`, true},
		{"POST /start_profile", `{"stages":null,"request_ids":["a"],"max_seconds":null,"detail":null}`, true},
		{"POST /start_profile", `{"max_seconds":1.5,"num_steps":3,"with_stack":false,"activities":["CPU","GPU"],"profile_prefix":"night","recorder":"kineto"}`, true},
		{"POST /start_profile", `{"torch_profiler_dir":"/tmp"}`, false},
		{"POST /start_profile", `{"colour":1}`, false},
		{"POST /start_profile", `{"detail":"all"}`, false},
		{"POST /start_profile", `{"max_events":1.5}`, false},
		{"POST /start_profile", `{"max_iterations":-1}`, false},
		{"POST /start_profile", `{"activities":[]}`, false},
		{"POST /start_profile", `{"profile_prefix":"../x"}`, false},
		{"POST /start_profile", `{"request_ids":["a b"]}`, false},
		{"POST /stop_profile", `{"stages":[0],"wait":true}`, true},
		{"POST /stop_profile", `{"wait":"no"}`, false},
		{"GET /profile?seconds=0.01&max_iterations=3&activities=CPU,GPU&use_gzip=true", ``, true},
		{"GET /profile?seconds=0", ``, false},
		{"GET /profile?seconds=0.2", ``, false}, // more than the server allows
		{"GET /profile?seconds=0.01&detail=all", ``, false},
		{"GET /profile?seconds=0.01&max_iterations=few", ``, false},
	} {
		method, target, _ := strings.Cut(test.target, " ")
		request := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(test.body))
		if test.body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		route, parameters, err := router.FindRoute(request)
		require.NoError(t, err)
		err = openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route})
		if target == "/stop_profile" {
			require.Equal(t, 200, s.do("POST", "/start_profile", "").Code)
		}
		answer := s.do(method, target, test.body)
		s.do("POST", "/stop_profile", "")
		if test.good {
			require.NoError(t, err, test)
			require.Equal(t, 200, answer.Code, "%v: %s", test, answer.Body)
			continue
		}
		require.Error(t, err, test)
		require.Equal(t, 400, answer.Code, "%v: %s", test, answer.Body)
	}
}

// What the document says of requests is what the decoder takes: bodies that it allows are not refused for their form.
func TestDocumentDescribesRequests(t *testing.T) {
	s, _ := overPipeline(t, nil, nil)
	_, router := document(t, s)
	for _, test := range []struct {
		path, body string
		good       bool
	}{
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`, true},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stop":null,"n":1,"tools":[],"seed":null,"user":{"a":1}}`, true},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stop":"a","audio":{"voice":{"id":"Tester"},"format":"pcm16"},"extra_body":{"top_k":3}}`, true},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"sampling_params_list":[{"temperature":0},null]}`, true},
		{"/v1/chat/completions", `{"messages":[]}`, false},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"n":2}`, false},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"what":2}`, false},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}`, false},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"top_p":0}`, false},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"extra_body":{"model":"x"}}`, false},
		{"/v1/audio/speech", `{"input":"x","speed":1,"response_format":"wav","voice":null}`, true},
		{"/v1/audio/speech", `{"input":""}`, false},
		{"/v1/audio/speech", `{"input":"x","speed":0.1}`, false},
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, test.path, strings.NewReader(test.body))
		request.Header.Set("Content-Type", "application/json")
		route, parameters, err := router.FindRoute(request)
		require.NoError(t, err)
		err = openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route})
		answer := s.do("POST", test.path, test.body)
		if test.good {
			require.NoError(t, err, test.body)
			require.Equal(t, 200, answer.Code, answer.Body)
			continue
		}
		require.Error(t, err, test.body)
		require.Equal(t, 400, answer.Code, answer.Body)
	}
}
