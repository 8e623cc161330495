package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
)

// remote is a server's pipeline with one session in its folder.
type remote struct {
	engine // what no test asks for

	dir     string
	report  pipeline.ProfileReport
	options pipeline.ProfileOptions
	stop    pipeline.ProfileStopOptions
}

func (r *remote) StartProfileWith(_ context.Context, options pipeline.ProfileOptions) (*pipeline.ProfileReport, error) {
	r.options = options
	if r.report.Active {
		return nil, pipeline.ErrProfileActive
	}
	r.report.Session, r.report.Active = "s1", true
	r.report.Workers = []profiler.Report{{Identity: profiler.Identity{Worker: "stage-0"}, State: profiler.StateRecording}}
	return &r.report, nil
}

func (r *remote) StopProfileWith(_ context.Context, options pipeline.ProfileStopOptions) (*pipeline.ProfileReport, error) {
	r.stop = options
	r.report.Active, r.report.Complete = false, true
	r.report.Workers[0].State, r.report.Workers[0].Steps = profiler.StateDone, 20
	return &r.report, nil
}

func (r *remote) ProfileStatus() (*pipeline.ProfileReport, error) { return &r.report, nil }

func (r *remote) ProfileDir() string { return r.dir }

func (r *remote) Stages() []pipeline.StageStatus { return []pipeline.StageStatus{{Name: "thinker"}} }

func serveRemote(t *testing.T, r *remote, key string) string {
	t.Helper()
	server, err := api.New(api.Config{Engine: r, Profiler: r, Models: []string{"m"}, Limits: api.DefaultLimits(), APIKey: key})
	require.NoError(t, err)
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	return web.URL
}

func TestProfileOfAServer(t *testing.T) {
	r := &remote{dir: writeProfile(t, 1)}
	url := serveRemote(t, r, "")
	run := func(args ...string) outcome {
		return runCommand(t, &fakeOmni{}, "", append([]string{"profile", args[0], "--url", url}, args[1:]...)...)
	}
	require.Equal(t, "no session since the server was started\n", run("status").stdout)
	got := run("start", "--stages", "0,2", "--set", "max_iterations=5", "--set", "detail=modules", "--request-ids", "a,b")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "s1\n", got.stdout)
	require.Contains(t, got.stderr, "stage-0  recording")
	require.Equal(t, pipeline.ProfileOptions{Stages: []int{0, 2}, Settings: map[string]any{"max_iterations": 5.0, "detail": "modules"}, RequestIDs: []string{"a", "b"}}, r.options)
	again := run("start")
	require.Equal(t, 1, again.code)
	require.Contains(t, again.stderr, "omni-run: a profile session is active")
	require.Contains(t, run("status").stdout, "session s1 is active\n")
	require.Equal(t, "s1", run("status", "--json").object(t)["session"])
	got = run("stop", "--no-wait")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "s1\n", got.stdout)
	require.False(t, r.stop.Wait)

	out := t.TempDir()
	got = run("fetch", "--output", out)
	require.Zero(t, got.code, got.stderr)
	files := strings.Fields(got.stdout)
	require.Len(t, files, 3, "two traces and the times of requests")
	for _, file := range files {
		name, err := filepath.Rel(out, file)
		require.NoError(t, err)
		want, err := os.ReadFile(filepath.Join(r.dir, name))
		require.NoError(t, err)
		have, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, want, have, name)
	}
	summary := runCommand(t, &fakeOmni{}, "", "profile", "summary", out)
	require.Zero(t, summary.code, summary.stderr)
	require.Contains(t, summary.stdout, "talker")
}

func TestProfileOfAServerFaults(t *testing.T) {
	open := serveRemote(t, &remote{dir: t.TempDir()}, "")
	locked := serveRemote(t, &remote{dir: t.TempDir()}, "secret")
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	plain, err := api.New(api.Config{Engine: &remote{}, Models: []string{"m"}, Limits: api.DefaultLimits()})
	require.NoError(t, err)
	unprofiled := httptest.NewServer(plain)
	t.Cleanup(unprofiled.Close)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"start", "--url", "localhost:8000"}, 2, `--url is "localhost:8000", want something like http://`},
		{[]string{"start", "--url", "http://127.0.0.1:1"}, 1, "cannot be reached"},
		{[]string{"start", "--url", other.URL}, 1, "is it an omni server?"},
		{[]string{"start", "--url", unprofiled.URL}, 1, "start it with --profile-dir DIR"},
		{[]string{"start", "--url", locked}, 1, "set OMNI_PROFILE_API_KEY, or --api-key"},
		{[]string{"start", "--url", open, "--stages", "a"}, 2, `--stages: "a" is no stage id`},
		{[]string{"start", "--url", open, "--set", "colour"}, 2, `--set: profiler config: got "colour", want name=value`},
		{[]string{"start", "--url", open, "--set", "colour=red"}, 2, `unknown field "colour"`},
		{[]string{"start", "--url", open, "--set", "torch_profiler_dir=/tmp"}, 1, "files go to the server's own folder"},
		{[]string{"start", "--url", open, "DIR"}, 2, "got 1 arguments, want none"},
		{[]string{"stop", "--url", open}, 1, "there is nothing to stop"},
		{[]string{"fetch", "--url", open}, 1, "has no sessions: omni-run profile start begins one"},
		{[]string{"fetch", "--url", open, "--session", "s4"}, 1, `no such profile session: "s4"`},
	} {
		got := runCommand(t, &fakeOmni{}, "", append([]string{"profile"}, test.args...)...)
		require.Equal(t, test.code, got.code, "%s: %s", test.args, got.stderr)
		require.Contains(t, got.stderr, test.want, test.args)
	}
	got := runCommand(t, &fakeOmni{}, "", "profile", "status", "--url", locked, "--api-key", "secret")
	require.Zero(t, got.code, got.stderr)
}

func TestFetchKeepsFilesWithinItsFolder(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/profiles/s1" {
			_, _ = w.Write([]byte(`{"id":"../../up","files":[{"name":"../../../evil.txt","kind":"made","bytes":4,"complete":true}]}`))
			return
		}
		_, _ = w.Write([]byte("evil"))
	}))
	t.Cleanup(web.Close)
	out := filepath.Join(t.TempDir(), "a", "b")
	got := runCommand(t, &fakeOmni{}, "", "profile", "fetch", "--url", web.URL, "--session", "s1", "-o", out)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, filepath.Join(out, "up", "evil.txt")+"\n", got.stdout)
}
