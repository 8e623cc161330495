package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// served is a server over a scripted pipeline.
func served(t *testing.T) *httptest.Server {
	t.Helper()
	cfg := pipelinetest.Config(t, nil)
	server, err := api.New(api.Config{Engine: pipelinetest.Open(t, cfg), Models: []string{"tiny"}, Limits: api.DefaultLimits()})
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

func TestBenchServeFlags(t *testing.T) {
	for text, args := range map[string][]string{
		"--requests is 0":            {"--prompt", "x", "--requests", "0"},
		"--concurrency is 0":         {"--prompt", "x", "--concurrency", "0"},
		"--rate is -1":               {"--prompt", "x", "--rate", "-1"},
		"want one of them":           {"--prompt", "x", "--rate", "1", "--concurrency", "2"},
		"want prompts from one of":   {},
		"--format is \"xml\"":        {"--prompt", "x", "--format", "xml"},
		"--url is \"localhost\"":     {"--prompt", "x", "--url", "localhost"},
		"unknown modality \"smell\"": {"--prompt", "x", "--modalities", "smell"},
	} {
		got := runCommand(t, &fakeOmni{}, "", append([]string{"bench", "serve"}, args...)...)
		require.Equal(t, exitUsage, got.code, text)
		require.Contains(t, got.stderr, text)
	}
}
