package main

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api/client"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// address reads the server's log up to the line that says where it listens.
func (p *process) address() string {
	p.t.Helper()
	p.await(`"msg":"serving"`)
	lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
	var line struct{ Address string }
	require.NoError(p.t, json.Unmarshal([]byte(lines[len(lines)-1]), &line))
	return "http://" + line.Address
}

func TestServeAnswersAndEndsProperly(t *testing.T) {
	dir := t.TempDir()
	p := startCommand(t, map[string]pipelinetest.Script{}, "serve", "--model", "none", "--port", "0", "--api-key", "secret", "--profile-dir", dir)
	url := p.address()
	answer, err := http.Get(url + "/health")
	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, 200, answer.StatusCode)
	server := &client.Client{URL: url, Key: "secret"}
	_, err = server.Post(t.Context(), "/start_profile", struct{}{})
	require.NoError(t, err)
	var text strings.Builder
	for piece, err := range server.Stream(t.Context(), client.Chat{Messages: []client.Message{{Role: "user", Content: "Hello"}}, MaxTokens: 20}) {
		require.NoError(t, err)
		text.WriteString(piece.Text)
	}
	require.Equal(t, pipelinetest.Expect("Hello", 20).Text, text.String())
	http.DefaultClient.CloseIdleConnections()

	p.interrupt(syscall.SIGTERM)
	got := p.end()
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, url+"\n", got.stdout)
	require.Contains(t, got.stderr, `"msg":"profiling is enabled`)
	require.NotContains(t, got.stderr, "secret")
}

// A profiler in the stage config alone is as good as one of the command.
func TestProfilerOfAStageConfig(t *testing.T) {
	profilers := func(dir string) behaviour {
		return behaviour{Profilers: map[int]map[string]any{1: {"profiler": "torch", "torch_profiler_dir": dir}}}
	}
	dir := t.TempDir()
	server := newCommand(t, profilers(dir), "serve", "--model", "none", "--port", "0")
	server.start()
	url := server.address()
	for _, route := range []string{"/start_profile", "/stop_profile"} {
		_, err := (&client.Client{URL: url}).Post(t.Context(), route, struct{}{})
		require.NoError(t, err, route)
	}
	http.DefaultClient.CloseIdleConnections()
	server.interrupt(syscall.SIGTERM)
	got := server.end()
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stderr, `"profiler":"torch","folder":"`+dir)
	require.FileExists(t, filepath.Join(dir, "profiler_out_1.txt"))

	dir = t.TempDir()
	command := newCommand(t, profilers(dir), "--prompt", "one", "--max-tokens", "3")
	command.start()
	got = command.end()
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stderr, "profile s1, in "+dir)
	require.FileExists(t, filepath.Join(dir, "profiler_out_1.txt"))
}

func TestServeSaysWhoItIsOpenTo(t *testing.T) {
	for _, test := range []struct {
		args []string
		warn string
	}{
		{nil, ""},
		{[]string{"--host", "0.0.0.0"}, "without a key"},
		{[]string{"--host", "0.0.0.0", "--api-key", "k"}, "plain HTTP"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it is told to end before it begins
		got := runCommandIn(ctx, &fakeOmni{}, "", append([]string{"serve", "--model", "x", "--port", "0"}, test.args...)...)
		require.Equal(t, test.warn != "", strings.Contains(got.stderr, "open to other machines"), got.stderr)
		require.Contains(t, got.stderr, test.warn)
	}
}

// What a session costs is the server's to say: recorder=kineto, for one, holds gigabytes.
func TestServeKeepsSettings(t *testing.T) {
	p := startCommand(t, map[string]pipelinetest.Script{}, "serve", "--model", "none", "--port", "0", "--profile-dir", t.TempDir(),
		"--keep-profile-settings", "recorder, detail")
	server := &client.Client{URL: p.address()}
	for setting, refused := range map[string]struct{ value, want string }{
		"recorder": {"kineto", "recorder: got kineto, the server keeps stream"},
		"detail":   {"modules", "detail: got modules, the server keeps ops"},
	} {
		_, err := server.Post(t.Context(), "/start_profile", map[string]any{setting: refused.value})
		require.ErrorContains(t, err, "400: ", setting)
		require.ErrorContains(t, err, refused.want)
	}
	_, err := server.Post(t.Context(), "/start_profile", map[string]any{"recorder": "stream", "max_iterations": 3})
	require.NoError(t, err)
	http.DefaultClient.CloseIdleConnections()
	p.interrupt(syscall.SIGTERM)
	require.Zero(t, p.end().code)
}

func TestServeSaysThatFFmpegIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it is told to end before it begins
	got := runCommandIn(ctx, &fakeOmni{}, "", "serve", "--model", "x", "--port", "0")
	require.Contains(t, got.stderr, "ffmpeg is not on the PATH; on Debian: apt-get install ffmpeg")
}

// What sessions may ask for at most is the server's to say.
func TestServeBoundsSessions(t *testing.T) {
	p := startCommand(t, map[string]pipelinetest.Script{}, "serve", "--model", "none", "--port", "0", "--profile-dir", t.TempDir(),
		"--max-profile-seconds", "2", "--max-profile-events", "5", "--max-profile-mb", "7.5")
	server := &client.Client{URL: p.address()}
	_, err := server.Post(t.Context(), "/start_profile", map[string]any{"max_seconds": 3})
	require.ErrorContains(t, err, "400: start profile: stages 0 (thinker), 1 (talker), 2 (code2wav): profiler setting refused: max_seconds: got 3, the server allows at most 2")
	_, err = server.Post(t.Context(), "/start_profile", map[string]any{"max_events": 6, "max_trace_mb": 8})
	require.ErrorContains(t, err, "max_events: got 6, the server allows at most 5\nmax_trace_mb: got 8, the server allows at most 7.5")
	answer, err := http.Get(server.URL + "/profile?seconds=2.5")
	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, 400, answer.StatusCode)
	http.DefaultClient.CloseIdleConnections()
	p.interrupt(syscall.SIGTERM)
	require.Zero(t, p.end().code)
}

func TestServeFlags(t *testing.T) {
	got := runCommand(t, &fakeOmni{}, "", "serve", "--host", "example.com", "--port", "70000", "--max-queue", "-1", "--log-format", "xml", "--request-timeout", "0s",
		"--keep-profile-settings", "recorder,colour", "--max-profile-seconds", "0", "--max-profile-events", "-1", "--max-profile-mb", "2e9")
	require.Equal(t, exitUsage, got.code)
	for _, text := range []string{
		"--model is missing", "--port is 70000", `--host: "example.com" is no address`, "limit of waiting requests is -1", `--log-format is "xml"`,
		"limit of request time is 0s", `--keep-profile-settings: settings to keep: profiler config: unknown field "colour"`,
		"--max-profile-seconds is 0, want more than 0", "--max-profile-events is -1", "--max-profile-mb is 2e+09",
	} {
		require.Contains(t, got.stderr, text)
	}
}
