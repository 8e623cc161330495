package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/routers"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/family"
)

// fakeEngine answers as its stream function says; without one, with the prompt in capital letters and a sample a letter.
type fakeEngine struct {
	state  pipeline.StageState
	stream func(ctx context.Context, req pipeline.Request, yield func(pipeline.Event, error) bool)
	forget bool // do not keep requests

	mu       sync.Mutex // guards what follows
	requests []pipeline.Request
}

// Stages implements api.Engine.
func (f *fakeEngine) Stages() []pipeline.StageStatus {
	state := f.state
	if state == "" {
		state = pipeline.StageReady
	}
	voices := family.StageInfo{Speakers: []string{"Chelsie", "Ethan"}, DefaultSpeaker: "Chelsie", SampleRate: 24000}
	return []pipeline.StageStatus{
		{ID: 0, Name: "thinker", State: pipeline.StageReady, Info: family.StageInfo{MaxPositions: 32768}},
		{ID: 1, Name: "talker", State: state, Info: voices},
		{ID: 2, Name: "code2wav", State: pipeline.StageReady, Info: voices},
	}
}

// Load implements api.Engine.
func (f *fakeEngine) Load(context.Context) []pipeline.StageLoad {
	var list []pipeline.StageLoad
	for _, stage := range f.Stages() {
		list = append(list, pipeline.StageLoad{StageStatus: stage, Answered: true, Sequences: 3, Queued: 1, Steps: 10, Stepped: 25, Tokens: 25})
	}
	return list
}

// Stream implements api.Engine.
func (f *fakeEngine) Stream(ctx context.Context, req pipeline.Request) iter.Seq2[pipeline.Event, error] {
	f.mu.Lock()
	if !f.forget {
		f.requests = append(f.requests, req)
	}
	f.mu.Unlock()
	return func(yield func(pipeline.Event, error) bool) { f.stream(ctx, req, yield) }
}

// server is a running server with a client.
type server struct {
	*api.Server
	t      *testing.T
	router routers.Router // of the document, once it was asked for
	log    *bytes.Buffer
}

// newServer makes a server over a fake engine.
func newServer(t *testing.T, change func(*api.Config)) *server {
	t.Helper()
	s := &server{t: t, log: &bytes.Buffer{}}
	cfg := api.Config{
		Engine: &fakeEngine{}, Models: []string{"tiny", "Qwen/Qwen2.5-Omni-7B"}, Version: "v1.2.3", Limits: api.DefaultLimits(),
		Log: slog.New(slog.NewJSONHandler(s.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	s.Server, err = api.New(cfg)
	require.NoError(t, err)
	return s
}

// do sends a request and returns the answer; headers are name, value, name, value.
func (s *server) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	request := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, request)
	s.conforms(request, answer)
	return answer
}

// apiError is an error as clients read it.
type apiError struct {
	Error struct {
		Message   string  `json:"message"`
		Type      string  `json:"type"`
		Param     *string `json:"param"`
		Code      string  `json:"code"`
		RequestID string  `json:"request_id"`
	} `json:"error"`
}

// failure checks the status of an answer and returns its error.
func failure(t *testing.T, answer *httptest.ResponseRecorder, status int) apiError {
	t.Helper()
	require.Equal(t, status, answer.Code, answer.Body)
	require.Equal(t, "application/json", answer.Header().Get("Content-Type"))
	var e apiError
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &e), answer.Body)
	require.NotEmpty(t, e.Error.Message)
	require.Equal(t, answer.Header().Get("X-Request-Id"), e.Error.RequestID)
	return e
}

func TestHealthIsReadyOnlyWhenEveryStageIs(t *testing.T) {
	s := newServer(t, nil)
	answer := s.do("GET", "/health", "")
	require.Equal(t, 200, answer.Code)
	require.JSONEq(t, `{"status":"healthy","stages":[{"id":0,"name":"thinker","state":"ready"},
		{"id":1,"name":"talker","state":"ready"},{"id":2,"name":"code2wav","state":"ready"}]}`, answer.Body.String())
	s = newServer(t, func(c *api.Config) { c.Engine = &fakeEngine{state: pipeline.StageDown} })
	answer = s.do("GET", "/health", "")
	require.Equal(t, 503, answer.Code)
	require.Contains(t, answer.Body.String(), `"status":"unhealthy"`)
}

func TestModelsAndVersion(t *testing.T) {
	s := newServer(t, nil)
	require.JSONEq(t, `{"version":"v1.2.3"}`, s.do("GET", "/version", "").Body.String())
	require.Contains(t, s.do("GET", "/v1/models", "").Body.String(), `"id":"Qwen/Qwen2.5-Omni-7B","object":"model"`)
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	s := newServer(t, nil)
	require.Equal(t, "not_found", failure(t, s.do("GET", "/nothing", ""), 404).Error.Code)
	answer := s.do("DELETE", "/version", "")
	require.Equal(t, "method_not_allowed", failure(t, answer, 405).Error.Code)
	require.Contains(t, answer.Header().Get("Allow"), "GET")
	require.Equal(t, 404, s.do("POST", "/start_profile", "").Code, "there is no profiler")
	require.Equal(t, "not_found", failure(t, s.do("GET", "/page/nothing.js", ""), 404).Error.Code)
	failure(t, s.do("POST", "/page/main.js", ""), 405)
}

// What is no HTTP never gets to this package: the library answers in a word, and closes.
func TestWhatIsNoHTTPIsAnsweredByTheLibrary(t *testing.T) {
	address, _ := serveOn(t, newServer(t, nil))
	for request, status := range map[string]string{
		"nonsense\r\n\r\n":                        "400 Bad Request",
		"GET /health HTTP/1.1\r\n\r\n":            "400 Bad Request", // no Host
		"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n":    "400 Bad Request",
		"GET /health HTTP/3.0\r\nHost: x\r\n\r\n": "505 HTTP Version Not Supported",
		"GET /health HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<17) + "\r\n\r\n": "431 Request Header Fields Too Large",
	} {
		require.True(t, strings.HasPrefix(exchange(t, address, request), "HTTP/1.1 "+status), "%.40q", request)
	}
}

func TestKeys(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.APIKey = "secret" })
	for _, test := range []struct {
		path, header string
		status       int
	}{
		{"/health", "", 200},
		{"/version", "", 401},
		{"/version", "Bearer secret", 200},
		{"/version", "bearer secret", 200},
		{"/version", "Bearer secre", 401},
		{"/version", "Bearer secretx", 401},
		{"/version", "Basic OnNlY3JldA==", 200}, // ":secret"
		{"/version", "Basic c2VjcmV0", 401},
		{"/", "", 401},
		{"/", "Basic OnNlY3JldA==", 200},
	} {
		answer := s.do("GET", test.path, "", "Authorization", test.header)
		require.Equal(t, test.status, answer.Code, "%+v", test)
		if test.status == 401 {
			require.Equal(t, "authentication_error", failure(t, answer, 401).Error.Type)
			scheme, _, _ := strings.Cut(answer.Header().Get("WWW-Authenticate"), " ")
			require.Equal(t, map[bool]string{true: "Basic", false: "Bearer"}[test.path == "/"], scheme)
		}
	}
	require.NotContains(t, s.log.String(), "secret")
}

func TestRequestIDsGoInAndOut(t *testing.T) {
	s := newServer(t, nil)
	require.Equal(t, "my-id.1", s.do("GET", "/version", "", "X-Request-Id", "my-id.1").Header().Get("X-Request-Id"))
	for _, bad := range []string{"", "a b", "../../etc", "..", "a\"b", strings.Repeat("x", 129)} {
		require.Regexp(t, `^req-[a-z0-9]{20}$`, s.do("GET", "/version", "", "X-Request-Id", bad).Header().Get("X-Request-Id"))
	}
	var line struct {
		Request, Method, Path string
		Status                int
	}
	require.NoError(t, json.Unmarshal(bytes.SplitN(s.log.Bytes(), []byte("\n"), 2)[0], &line))
	require.Equal(t, "my-id.1 GET /version", line.Request+" "+line.Method+" "+line.Path)
	require.Equal(t, 200, line.Status)
}

func TestPagesOfOtherOriginsMayNotPost(t *testing.T) {
	s := newServer(t, nil)
	answer := s.do("POST", "/version", "", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, "forbidden", failure(t, answer, 403).Error.Code)
	answer = s.do("POST", "/version", "", "Origin", "https://elsewhere.org")
	require.Equal(t, "forbidden", failure(t, answer, 403).Error.Code)
}

func TestALocalServerIsCalledByItsNames(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.Local = true })
	for host, status := range map[string]int{
		"localhost": 200, "localhost:8000": 200, "LOCALHOST:1": 200, "127.0.0.1:8000": 200, "127.1.2.3": 200, "[::1]:8000": 200, "[::1]": 200,
		"example.com": 403, "localhost.example.com:8000": 403, "10.0.0.1": 403, "": 403, "127.0.0.1.nip.io": 403,
	} {
		request := httptest.NewRequestWithContext(t.Context(), "GET", "/version", nil)
		request.Host = host
		answer := httptest.NewRecorder()
		s.ServeHTTP(answer, request)
		require.Equal(t, status, answer.Code, host)
	}
}

// serveOn starts a server on a free port and returns its address and a function that ends it and returns Serve's error.
func serveOn(t *testing.T, s *server) (address string, end func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	end = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { end() })
	return listener.Addr().String(), end
}

// exchange sends raw bytes, ends its side, and returns all that the server says.
func exchange(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(answer)
}

// A body that does not arrive in time is answered with that, one that never ends is not waited for.
func TestASlowBodyIsRefused(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.Limits.Body = 100 * time.Millisecond })
	address, _ := serveOn(t, s)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "408 Request Timeout")
	require.Contains(t, string(answer), "did not arrive in time")
}

func TestASlowClientIsCutOff(t *testing.T) {
	s := newServer(t, func(c *api.Config) { c.Limits.Body = 50 * time.Millisecond })
	address, _ := serveOn(t, s)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = io.ReadAll(conn)
	require.NoError(t, err, "the server has not closed the connection")
}
