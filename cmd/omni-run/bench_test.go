package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
)

// served is a server over a scripted pipeline.
func served(t *testing.T) *httptest.Server {
	t.Helper()
	return servedWith(t, pipelinetest.Config(t, nil), api.Config{})
}

// servedWith is served with a pipeline and a server of the given configuration.
func servedWith(t *testing.T, cfg pipeline.Config, with api.Config) *httptest.Server {
	t.Helper()
	o := pipelinetest.Open(t, cfg)
	with.Engine, with.Models, with.Limits = o, []string{"tiny"}, api.DefaultLimits()
	if cfg.Profiler.Enabled() {
		with.Profiler = o
	}
	server, err := api.New(with)
	require.NoError(t, err)
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	return listening
}

func TestBenchServeMeasuresEveryRequest(t *testing.T) {
	server := served(t)
	for _, mode := range [][]string{{"--concurrency", "4"}, {"--rate", "500", "--seed", "1"}} {
		got := runCommand(t, &fakeOmni{}, "", append([]string{
			"bench", "serve", "--url", server.URL, "--prompt", "Hello", "--prompt", "Hi", "--requests", "20", "--max-tokens", "12", "--format", "json",
		}, mode...)...)
		require.Zero(t, got.code, got.stderr)
		var report benchReport
		require.NoError(t, json.Unmarshal([]byte(got.stdout), &report))
		require.Equal(t, 20, report.Requests)
		require.Zero(t, report.Failed)
		for name, d := range map[string]*distribution{"TTFT": report.TTFT, "TPOT": report.TPOT, "first audio": report.FirstAudio, "RTF": report.RTF, "E2E": report.E2E} {
			require.NotNil(t, d, name)
			require.LessOrEqual(t, d.P50, d.P99, name)
			require.LessOrEqual(t, d.P99, d.Max, name)
			require.Positive(t, d.Mean, name)
		}
		require.LessOrEqual(t, report.TTFT.Mean, report.E2E.Mean)
		require.Len(t, report.Stages, 3)
		total := 0
		for _, b := range report.E2EHistogram {
			total += b.Count
		}
		require.Equal(t, 20, total)
	}
}

func TestBenchServeInWords(t *testing.T) {
	server := served(t)
	file := filepath.Join(t.TempDir(), "prompts.txt")
	require.NoError(t, os.WriteFile(file, []byte("Hello\n{\"prompt\":\"Hi\",\"max_tokens\":3}\n"), 0o600))
	got := runCommand(t, &fakeOmni{}, "", "bench", "serve", "--url", server.URL, "--prompts-file", file, "--requests", "5", "--modalities", "text")
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stdout, "5 requests, 0 failed")
	require.Contains(t, got.stdout, "TTFT, ms")
	require.Regexp(t, `\nTTFT, ms\n +\d+\.\d - \d+\.\d +\d+  #`, got.stdout)
	require.Regexp(t, `\nE2E, ms\n +\d+\.\d - \d+\.\d +\d+  #`, got.stdout)
	require.Contains(t, got.stdout, "stage 0 (thinker) compute, ms")
	require.NotContains(t, got.stdout, "first audio")
}

func TestBenchServeSaysWhatFailed(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) > 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"error":{"message":"too many"}}`))
			return
		}
		_, _ = w.Write([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"))
	}))
	defer server.Close()
	got := runCommand(t, &fakeOmni{}, "", "bench", "serve", "--url", server.URL, "--prompt", "x", "--requests", "3")
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "3 of 3 requests failed, the first with: the server answers 429: too many")
	require.Contains(t, got.stdout, "3 requests, 3 failed")
}

// Requests and profile control may want different keys.
func TestBenchServeRecordsAProfile(t *testing.T) {
	cfg := pipelinetest.Config(t, nil)
	cfg.Profiler = profiler.FromDir(t.TempDir())
	server := servedWith(t, cfg, api.Config{APIKey: "secret", ProfileKey: "other"})
	bench := func(format string, variables map[string]string) outcome {
		return runCommand(t, &fakeOmni{variables: variables}, "", "bench", "serve", "--url", server.URL, "--prompt", "Hi", "--requests", "3", "--profile", "--format", format)
	}
	keys := map[string]string{"OMNI_API_KEY": "secret", "OMNI_PROFILE_API_KEY": "other"}
	got := bench("text", keys)
	require.Zero(t, got.code, got.stderr)
	fetch := regexp.MustCompile(`profile: omni-run (profile fetch --url \S+ --session (s1\.\d+))\n`).FindStringSubmatch(got.stdout)
	require.NotNil(t, fetch, got.stdout)
	fetched := runCommand(t, &fakeOmni{variables: keys}, "", append(strings.Fields(fetch[1]), "--output", t.TempDir())...)
	require.Zero(t, fetched.code, fetched.stderr)
	require.Contains(t, fetched.stdout, "stage-0_"+fetch[2])

	got = bench("json", keys)
	require.Regexp(t, `^s2\.\d+$`, got.object(t)["profile"])
	got = bench("text", map[string]string{"OMNI_API_KEY": "secret"})
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "start profile: the key is not the one for profile control")
}

// What a prompts file says of a request is sent with it.
func TestBenchServeSendsWhatThePromptsSay(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a part is no match
		got = append(got, string(body))
		_, _ = w.Write([]byte("data: [DONE]\n\n"))
	}))
	defer server.Close()
	prompts := `{"prompt":"Hi","system":"Be brief.","speaker":"Ethan","sampling_params":[{"temperature":0},{}],"speech":{"codec_chunk_frames":48}}` + "\n" +
		`{"messages":[{"role":"user","content":"Ho"}],"modalities":["text"],"seed":7,"max_tokens":3,"speech":{"mode":"full"}}`
	out := runCommand(t, &fakeOmni{}, prompts, "bench", "serve", "--url", server.URL, "--prompts-file", "-", "--requests", "2", "--warmup", "0", "--speech-mode", "stream")
	require.Zero(t, out.code, out.stderr)
	const rest = `"stream":true,"return_stage_metrics":true,"stream_options":{"include_usage":true}`
	require.Len(t, got, 2)
	require.JSONEq(t, `{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"audio":{"voice":"Ethan","format":"pcm16"},
		"sampling_params_list":[{"temperature":0},{}],"speech_mode":"stream","codec_chunk_frames":48,`+rest+`}`, got[0])
	require.JSONEq(t, `{"messages":[{"role":"user","content":"Ho"}],"modalities":["text"],"audio":{"format":"pcm16"},"seed":7,"max_tokens":3,
		"speech_mode":"full",`+rest+`}`, got[1])
}

func TestBenchServeFlags(t *testing.T) {
	for text, args := range map[string][]string{
		"--requests is 0":            {"--prompt", "x", "--requests", "0"},
		"--concurrency is 0":         {"--prompt", "x", "--concurrency", "0"},
		"--rate is -1":               {"--prompt", "x", "--rate", "-1"},
		"want one of them":           {"--prompt", "x", "--rate", "1", "--concurrency", "2"},
		"want prompts from one of":   {},
		"--format is \"xml\"":        {"--prompt", "x", "--format", "xml"},
		"--speech-mode: mode is":     {"--prompt", "x", "--speech-mode", "fast"},
		"--url is \"localhost\"":     {"--prompt", "x", "--url", "localhost"},
		"unknown modality \"smell\"": {"--prompt", "x", "--modalities", "smell"},
	} {
		got := runCommand(t, &fakeOmni{}, "", append([]string{"bench", "serve"}, args...)...)
		require.Equal(t, exitUsage, got.code, text)
		require.Contains(t, got.stderr, text)
	}
}
