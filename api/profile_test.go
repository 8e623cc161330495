package api_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// volatile is what differs from run to run.
var volatile = regexp.MustCompile(`("(?:request_id|dir)": |"bytes": |request_ids or one of )(?:"[^"]*"|\d+|[^"\\]*)`)

// transcripts run the requests of a file in testdata/profile one after the other against one server, and compare the answers
// with those in the file. A request is a line "> METHOD PATH" and its body, an answer a line "< STATUS" and its body.
func TestProfileTranscripts(t *testing.T) {
	servers := map[string]func(*fakeProfiler){
		"sessions.txt": nil,
		"bodies.txt":   nil,
		"refusals.txt": nil,
		"partial.txt":  func(f *fakeProfiler) { f.broken = map[int]string{1: "the disk is full"} },
		"failed.txt": func(f *fakeProfiler) {
			f.broken = map[int]string{0: "the disk is full", 1: "the disk is full", 2: "the worker died"}
		},
		"writing.txt": func(f *fakeProfiler) { f.writing = make(chan struct{}) },
	}
	for name, change := range servers {
		t.Run(name, func(t *testing.T) {
			s, _ := newProfiled(t, change)
			path := filepath.Join("testdata", "profile", name)
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			var got strings.Builder
			for exchange := range strings.SplitSeq("\n"+string(want), "\n> ") {
				if strings.TrimSpace(exchange) == "" {
					continue
				}
				request, _, _ := strings.Cut(exchange, "\n< ")
				line, body, _ := strings.Cut(request, "\n")
				method, target, _ := strings.Cut(line, " ")
				answer := s.do(method, target, body)
				fmt.Fprintf(&got, "> %s\n< %d\n%s\n\n", strings.TrimSpace(request), answer.Code, readable(t, answer))
			}
			if *update {
				require.NoError(t, os.WriteFile(path, []byte(got.String()), 0o600))
			}
			require.Equal(t, string(want), got.String())
		})
	}
}

// readable is an answer with what concerns its route; of what the workers report, only how they stand.
func readable(t *testing.T, answer *httptest.ResponseRecorder) string {
	t.Helper()
	if answer.Body.Len() == 0 {
		return ""
	}
	var body map[string]any
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &body), answer.Body)
	for _, list := range []string{"workers", "reports"} {
		reports, _ := body[list].([]any)
		for i, report := range reports {
			if w, ok := report.(map[string]any); ok {
				reports[i] = strings.TrimSpace(fmt.Sprint(w["worker"], " ", w["state"]))
			}
		}
	}
	text, err := json.MarshalIndent(body, "", "  ")
	require.NoError(t, err)
	return volatile.ReplaceAllString(string(text), `${1}…`)
}

func TestStartProfileTranslatesSettings(t *testing.T) {
	s, f := newProfiled(t, nil)
	body := `{"stages":[2],"num_steps":5,"start_step":2,"with_stack":false,"record_shapes":true,"activities":["CPU","GPU"],
		"profile_prefix":"night","max_seconds":1.5,"max_events":null,"detail":"modules"}`
	require.Equal(t, 200, s.do("POST", "/start_profile", body).Code)
	require.Equal(t, pipeline.ProfileOptions{Stages: []int{2}, Settings: map[string]any{
		"max_iterations": 5.0, "delay_iterations": 2.0, "torch_profiler_with_stack": false, "torch_profiler_record_shapes": true,
		"activities": []any{"CPU", "CUDA"}, "profile_prefix": "night", "max_seconds": 1.5, "detail": "modules",
	}}, f.options)
}

func TestSessionsOfCertainRequests(t *testing.T) {
	s, f := newProfiled(t, nil)
	require.Equal(t, 200, s.do("POST", "/start_profile", `{"request_ids":["req-1","my.id"],"stages":[0]}`).Code)
	require.Equal(t, pipeline.ProfileOptions{Stages: []int{0}, RequestIDs: []string{"req-1", "my.id"}}, f.options)
	require.Equal(t, 200, s.do("POST", "/stop_profile", "").Code)
	require.Equal(t, 200, s.do("GET", "/profile?seconds=0.01&request_ids=a,b", "").Code)
	require.Equal(t, []string{"a", "b"}, f.options.RequestIDs)
	many := `"` + strings.Repeat(`x","`, 1000) + `y"`
	for body, param := range map[string]string{
		`{"request_ids":["a","a"]}`: "request_ids[1]", `{"request_ids":["a",""]}`: "request_ids[1]", `{"request_ids":["a b"]}`: "request_ids[0]",
		`{"request_ids":["..."]}`: "request_ids[0]", `{"request_ids":"a"}`: "request_ids", `{"request_ids":[` + many + `]}`: "request_ids",
		`{"request_ids":["` + strings.Repeat("x", 129) + `"]}`: "request_ids[0]", `{"request_ids":[1]}`: "request_ids[0]",
	} {
		e := failure(t, s.do("POST", "/start_profile", body), 400)
		require.NotNil(t, e.Error.Param, "%.50s: %s", body, e.Error.Message)
		require.Equal(t, param, *e.Error.Param, "%.50s", body)
	}
	failure(t, s.do("GET", "/profile?request_ids=", ""), 400)
}

func TestProfileRoutesNeedAProfiler(t *testing.T) {
	s := newServer(t, nil)
	for _, route := range []string{
		"POST /start_profile", "POST /stop_profile", "POST /dump_profile", "GET /profile_status", "GET /profile", "GET /profiles",
		"GET /profiles/s1", "DELETE /profiles/s1", "GET /profiles/s1/x.txt", "GET /profiles/s1/analysis",
	} {
		method, path, _ := strings.Cut(route, " ")
		require.Equal(t, 404, s.do(method, path, "").Code, route)
	}
}

func TestProfileRoutesHaveAKeyOfTheirOwn(t *testing.T) {
	f := &fakeProfiler{t: t, dir: t.TempDir()}
	s := newServer(t, func(c *api.Config) { c.Profiler, c.APIKey, c.ProfileKey = f, "all", "profiles" })
	require.Equal(t, 401, s.do("POST", "/start_profile", "", "Authorization", "Bearer all").Code)
	require.Equal(t, 401, s.do("GET", "/profiles", "").Code)
	require.Equal(t, 200, s.do("POST", "/start_profile", "", "Authorization", "Bearer profiles").Code)
}

const firstTrace = "/profiles/s1/stage-0_s1.1795311375000000000.pt.trace.json.gz"

func TestProfileFilesInWholeAndInRanges(t *testing.T) {
	s, f := newProfiled(t, nil)
	record(t, s)
	want, err := os.ReadFile(filepath.Join(f.dir, filepath.Base(firstTrace)))
	require.NoError(t, err)
	answer := s.do("GET", firstTrace, "")
	require.Equal(t, 200, answer.Code)
	require.Equal(t, want, answer.Body.Bytes())
	require.Equal(t, "application/gzip", answer.Header().Get("Content-Type"))
	require.Empty(t, answer.Header().Get("Content-Encoding"))
	require.Contains(t, answer.Header().Get("Content-Disposition"), "attachment; filename=")
	tag := answer.Header().Get("ETag")
	answer = s.do("GET", firstTrace, "", "Range", "bytes=10-19")
	require.Equal(t, 206, answer.Code)
	require.Equal(t, want[10:20], answer.Body.Bytes())
	require.Equal(t, fmt.Sprintf("bytes 10-19/%d", len(want)), answer.Header().Get("Content-Range"))
	answer = s.do("GET", firstTrace, "", "Range", "bytes=-5")
	require.Equal(t, want[len(want)-5:], answer.Body.Bytes())
	answer = s.do("GET", firstTrace, "", "Range", "bytes=999999-")
	require.Equal(t, "range_not_satisfiable", failure(t, answer, 416).Error.Code)
	require.Equal(t, fmt.Sprintf("bytes */%d", len(want)), answer.Header().Get("Content-Range"))
	require.Empty(t, answer.Header().Get("Content-Disposition"), "an error is no file to save")
	failure(t, s.do("GET", firstTrace, "", "Range", "lines=1-2"), 416)
	require.Equal(t, "precondition_failed", failure(t, s.do("GET", firstTrace, "", "If-Match", `"another"`), 412).Error.Code)
	require.Equal(t, 304, s.do("GET", firstTrace, "", "If-None-Match", tag).Code)
	head := s.do("HEAD", firstTrace, "")
	require.Equal(t, 200, head.Code)
	require.Equal(t, fmt.Sprint(len(want)), head.Header().Get("Content-Length"))
}

func TestPathsOutOfTheProfileFolderLeadNowhere(t *testing.T) {
	s, f := newProfiled(t, nil)
	record(t, s)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "..", "secret.txt"), []byte("secret"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(f.dir, "..", "secret.txt"), filepath.Join(f.dir, "stage-8_s1.1795311375000000000.pt.trace.json")))
	for _, path := range []string{
		"/profiles/s1/..%2Fsecret.txt", "/profiles/s1/%2e%2e%2fsecret.txt", "/profiles/s1/../../secret.txt", "/profiles/..%2f/secret.txt",
		"/profiles/%2e%2e/secret.txt", "/profiles/s1/%2fetc%2fpasswd", "/profiles/s1/..%5csecret.txt", "/profiles/s1/%00", "/profiles/s1/%zz",
		"/profiles/../secret.txt", "/profiles/s1/stage-8_s1.1795311375000000000.pt.trace.json", "/profiles/s1/ledger", "/profiles/s1/", "/profiles//",
		"/profiles/s1/%252e%252e%252fsecret.txt",
	} {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.URL.Path, request.URL.RawPath = path, path
		answer := httptest.NewRecorder()
		s.ServeHTTP(answer, request)
		require.Equal(t, 404, answer.Code, path)
		require.NotContains(t, answer.Body.String(), "secret\n", path)
	}
	require.FileExists(t, filepath.Join(f.dir, "..", "secret.txt"))
	answer := s.do("DELETE", "/profiles/..%2f", "")
	require.Equal(t, 404, answer.Code)
}

func TestDeleteRemovesTheSessionAndNothingElse(t *testing.T) {
	s, f := newProfiled(t, nil)
	record(t, s)
	record(t, s)
	require.Equal(t, 204, s.do("DELETE", "/profiles/s1", "").Code)
	require.Equal(t, 404, s.do("GET", "/profiles/s1", "").Code)
	require.NoFileExists(t, filepath.Join(f.dir, filepath.Base(firstTrace)))
	require.Equal(t, 200, s.do("GET", "/profiles/s2", "").Code)
	require.Equal(t, 200, s.do("GET", "/profiles/s2/analysis", "").Code)
}

func TestAnalysisFlameAndDiff(t *testing.T) {
	s, _ := newProfiled(t, func(f *fakeProfiler) { f.slower = 1.3 })
	record(t, s)
	record(t, s)
	var a struct {
		Stages []struct {
			Worker string
			Name   string
			Steps  int
			Top    []struct{ Name string }
		}
		Timeline struct{ Stages []struct{ Busy []float64 } }
		Path     struct{ Parts []struct{ Share float64 } }
		Requests []struct {
			ID     string
			E2EMS  float64 `json:"e2e_ms"`
			Stages []struct {
				Parts []struct {
					Kind    string
					StartMS float64 `json:"start_ms"`
					MS      float64 `json:"ms"`
				}
			}
		}
		RequestsTotal int `json:"requests_total"`
	}
	answer := s.do("GET", "/profiles/s1/analysis?top=2&requests=1", "")
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &a), answer.Body)
	require.Len(t, a.Stages, 3)
	require.Equal(t, "stage-1 talker", a.Stages[1].Worker+" "+a.Stages[1].Name)
	require.Equal(t, 20, a.Stages[1].Steps)
	require.Len(t, a.Stages[1].Top, 2)
	require.Len(t, a.Timeline.Stages, 3)
	require.Equal(t, "first", a.Requests[0].ID)
	require.Len(t, a.Requests, 1)
	require.Equal(t, 2, a.RequestsTotal)
	require.Equal(t, "transfer", a.Requests[0].Stages[0].Parts[0].Kind)
	require.InDelta(t, 1, a.Requests[0].Stages[0].Parts[0].MS, 1e-6)
	sum := 0.0
	for _, p := range a.Path.Parts {
		sum += p.Share
	}
	require.InDelta(t, 1, sum, 1e-6, "the parts of the path are the whole time")

	var flame struct {
		Children []struct {
			Name     string
			Children []struct{ Name string }
		}
	}
	answer = s.do("GET", "/profiles/s1/flame?stage=2", "")
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &flame), answer.Body)
	require.Equal(t, "stage-2 ProfilerStep", flame.Children[0].Name+" "+flame.Children[0].Children[0].Name)

	var diff struct {
		Stages []struct {
			Step struct {
				Ratio      float64
				Regression bool
			}
		}
	}
	answer = s.do("GET", "/profiles/s1/diff?after=s2", "")
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &diff), answer.Body)
	require.Len(t, diff.Stages, 3)
	require.True(t, diff.Stages[0].Step.Regression)
	require.InDelta(t, 1.24, diff.Stages[0].Step.Ratio, 0.02)

	for path, status := range map[string]int{
		"/profiles/s1/analysis?top=no": 400, "/profiles/s1/analysis?requests=-1": 400, "/profiles/s1/flame?stage=7": 400, "/profiles/s1/diff": 400,
		"/profiles/s1/diff?after=s9": 404, "/profiles/s9/analysis": 404, "/profiles/s9/flame": 404,
	} {
		require.Equal(t, status, s.do("GET", path, "").Code, path)
	}
}

func TestAnalysisOfASessionWithoutTraces(t *testing.T) {
	s, f := newProfiled(t, nil)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "stage-0_s4.17.pt.trace.json.gz.tmp"), []byte("x"), 0o600))
	answer := s.do("GET", "/profiles/s4/analysis", "")
	require.Equal(t, "conflict", failure(t, answer, 409).Error.Code)
	require.Contains(t, s.do("GET", "/profiles", "").Body.String(), `"state":"failed"`)
}

func TestProfileInOneCallIsTheMergedTrace(t *testing.T) {
	s, f := newProfiled(t, nil)
	answer := s.do("GET", "/profile?seconds=0.01&stages=0,2&detail=modules&max_iterations=3", "")
	require.Equal(t, 200, answer.Code, answer.Body)
	require.Equal(t, "application/gzip", answer.Header().Get("Content-Type"))
	require.Equal(t, "attachment; filename=s1.1795311375000000000.merged.trace.json.gz", answer.Header().Get("Content-Disposition"))
	require.Equal(t, pipeline.ProfileOptions{Stages: []int{0, 2}, Settings: map[string]any{"detail": "modules", "max_iterations": 3}}, f.options)
	reader, err := gzip.NewReader(answer.Body)
	require.NoError(t, err)
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	var merged struct {
		TraceEvents []struct{ Name string } `json:"traceEvents"`
	}
	require.NoError(t, json.Unmarshal(text, &merged))
	require.Greater(t, len(merged.TraceEvents), 200)
	for query, param := range map[string]string{
		"seconds=0": "seconds", "seconds=x": "seconds", "seconds=1&seconds=2": "seconds", "stages=a": "stages", "stages=1,1": "stages",
		"colour=red": "colour", "max_iterations=few": "max_iterations", "torch_profiler_dir=%2Ftmp": "torch_profiler_dir",
	} {
		e := failure(t, s.do("GET", "/profile?"+query, ""), 400)
		require.Equal(t, param, *e.Error.Param, query)
	}
}

func TestProfileInOneCallThatRecordsNothing(t *testing.T) {
	s, _ := newProfiled(t, func(f *fakeProfiler) { f.idle = true })
	e := failure(t, s.do("GET", "/profile?seconds=0.01&delay_iterations=1000", ""), 409)
	require.Contains(t, e.Error.Message, "recorded nothing: it ended before the step in which recording was to begin")
}

func TestProfileInOneCallNamesWhatIsMissing(t *testing.T) {
	s, _ := newProfiled(t, func(f *fakeProfiler) { f.broken = map[int]string{1: "the disk is full"} })
	answer := s.do("GET", "/profile?seconds=0.01", "")
	require.Equal(t, 200, answer.Code, answer.Body)
	require.Equal(t, "stage-1: the disk is full", answer.Header().Get("X-Profile-Missing"))
}

func TestAClientThatLeavesEndsTheRecording(t *testing.T) {
	s, f := newProfiled(t, nil)
	stopped := make(chan struct{})
	f.changed = stopped
	address, _ := serveOn(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/profile?seconds=3000", nil)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		ended <- err
	}()
	require.Eventually(t, func() bool { r, _ := f.ProfileStatus(); return r.Active }, 30*time.Second, 5*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	select {
	case <-stopped:
	case <-time.After(30 * time.Second):
		t.Fatal("the recording goes on")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Equal(t, []pipeline.ProfileStopOptions{{Session: "s1"}}, f.stops)
}
