package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

const (
	// scriptsVariable makes the test binary the command, over workers that behave as its value says.
	scriptsVariable = "OMNI_RUN_TEST_SCRIPTS"
	// markVariable is inherited by the workers, so that a test finds them among all processes.
	markVariable = "OMNI_RUN_TEST_MARK"
)

func TestMain(m *testing.M) {
	pipelinetest.RunIfWorker()
	if text := os.Getenv(scriptsVariable); text != "" {
		os.Exit(execute(os.Args, func(ctx context.Context, cfg pipeline.Config) (engine, error) {
			var scripts map[string]pipelinetest.Script
			if err := json.Unmarshal([]byte(text), &scripts); err != nil {
				return nil, err
			}
			fake, err := pipelinetest.NewConfig(scripts)
			if err != nil {
				return nil, err
			}
			cfg.WorkerPath, cfg.WorkerEnv, cfg.Limits = fake.WorkerPath, fake.WorkerEnv, fake.Limits
			return pipeline.OpenGraph(ctx, cfg, pipelinetest.Graph())
		}))
	}
	os.Exit(m.Run())
}

// process is a running omni-run with workers of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	mark   string
	stdout strings.Builder
	stderr *bufio.Scanner
	log    strings.Builder // of stderr
}

var marks atomic.Int64

func startCommand(t *testing.T, scripts map[string]pipelinetest.Script, args ...string) *process {
	t.Helper()
	text, err := json.Marshal(scripts)
	require.NoError(t, err)
	p := &process{t: t, mark: fmt.Sprintf("%d-%d", os.Getpid(), marks.Add(1))}
	p.cmd = exec.Command(os.Args[0], append([]string{"--model", "none", "--output-dir", filepath.Join(t.TempDir(), "out")}, args...)...)
	p.cmd.Env = append(os.Environ(), scriptsVariable+"="+string(text), markVariable+"="+p.mark, "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout = &p.stdout
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	p.stderr = bufio.NewScanner(stderr)
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// await reads standard error up to a line that holds text.
func (p *process) await(text string) {
	p.t.Helper()
	for p.stderr.Scan() {
		line := p.stderr.Text()
		p.log.WriteString(line + "\n")
		if strings.Contains(line, text) {
			return
		}
	}
	require.Fail(p.t, "the command ended before it said "+text, p.log.String())
}

// end waits for the command and returns what it left; no worker may be left.
func (p *process) end() outcome {
	p.t.Helper()
	for p.stderr.Scan() {
		p.log.WriteString(p.stderr.Text() + "\n")
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil {
		require.ErrorAs(p.t, err, &exit)
	}
	require.Eventually(p.t, func() bool { return len(p.workers()) == 0 }, time.Second, 5*time.Millisecond, "workers outlive the command")
	return outcome{code: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.String(), stderr: p.log.String()}
}

func (p *process) interrupt(signal syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(signal))
}

// workers returns the processes that carry the mark, but for the command itself.
func (p *process) workers() []string {
	folders, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(p.t, err)
	var found []string
	for _, folder := range folders {
		environ, err := os.ReadFile(filepath.Join(folder, "environ")) // processes come and go
		if err == nil && strings.Contains(string(environ), markVariable+"="+p.mark+"\x00") && filepath.Base(folder) != fmt.Sprint(p.cmd.Process.Pid) {
			found = append(found, folder)
		}
	}
	return found
}

func TestRequestsThroughRealWorkers(t *testing.T) {
	got := startCommand(t, map[string]pipelinetest.Script{}, "--prompt", "one", "--prompt", "two", "--max-tokens", "5", "--format", "json").end()
	require.Zero(t, got.code, got.stderr)
	for i, prompt := range []string{"one", "two"} {
		want := pipelinetest.Expect(prompt, 5)
		request := got.object(t)["requests"].([]any)[i].(map[string]any)
		require.Equal(t, want.Text, request["text"])
		path := request["audio"].(map[string]any)["path"].(string)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.EqualValues(t, 44+2*len(want.PCM), info.Size())
	}
}

func TestAWorkerThatDiesOnceCostsNoRequest(t *testing.T) {
	once := filepath.Join(t.TempDir(), "happened")
	scripts := map[string]pipelinetest.Script{
		pipelinetest.Talker: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtDecode, Nth: 2, Do: pipelinetest.Kill, Once: once}}},
	}
	got := startCommand(t, scripts, "--prompt", "one", "--prompt", "two").end()
	require.Zero(t, got.code, got.stderr)
	require.FileExists(t, once)
	require.Contains(t, got.stdout, pipelinetest.Expect("two", 8).Text)
}

func TestAWorkerThatKeepsDyingFailsItsRequestsByName(t *testing.T) {
	scripts := map[string]pipelinetest.Script{
		pipelinetest.Code2Wav: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtPrefill, Do: pipelinetest.Kill}}},
	}
	got := startCommand(t, scripts, "--prompt", "one", "--format", "json").end()
	require.Equal(t, exitFailed, got.code, got.stderr)
	fault := got.object(t)["requests"].([]any)[0].(map[string]any)["error"].(map[string]any)
	require.EqualValues(t, 2, fault["stage"])
	require.Contains(t, fault["message"], "code2wav")
	require.Contains(t, fault["message"], "killed")
}

// A signal comes while a worker stands at a point of each phase, not at some time after the start.
func TestSignalsStopCleanlyInEveryPhase(t *testing.T) {
	type phase struct {
		name, stage string
		at          pipelinetest.Point
		dies        bool // at the admission of the request, once
		profile     bool
	}
	phases := []phase{
		{name: "loading", stage: pipelinetest.Talker, at: pipelinetest.AtLoad},
		{name: "admitting", stage: pipelinetest.Code2Wav, at: pipelinetest.AtAdmit},
		{name: "prefilling", stage: pipelinetest.Thinker, at: pipelinetest.AtPrefill},
		{name: "decoding in the thinker", stage: pipelinetest.Thinker, at: pipelinetest.AtDecode},
		{name: "handing on to the talker", stage: pipelinetest.Talker, at: pipelinetest.AtFeed},
		{name: "decoding in the talker", stage: pipelinetest.Talker, at: pipelinetest.AtDecode},
		{name: "handing on to code2wav", stage: pipelinetest.Code2Wav, at: pipelinetest.AtFeed},
		{name: "decoding in code2wav", stage: pipelinetest.Code2Wav, at: pipelinetest.AtDecode},
		{name: "while profiled", stage: pipelinetest.Thinker, at: pipelinetest.AtDecode, profile: true},
		{name: "writing a profile", stage: pipelinetest.Talker, at: pipelinetest.AtWrite, profile: true},
		{name: "while a stage comes back", stage: pipelinetest.Talker, at: pipelinetest.AtLoad, dies: true},
	}
	for _, test := range phases {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(fmt.Sprintf("%s, %v", test.name, signal), func(t *testing.T) {
				gate := pipelinetest.NewGate(t)
				script := gate.Script(test.at, 1)
				if test.dies { // the gate is for the worker that follows
					died := filepath.Join(t.TempDir(), "died")
					script.Faults[0].After = died
					script.Faults = append(script.Faults, pipelinetest.Fault{At: pipelinetest.AtAdmit, Do: pipelinetest.Kill, Once: died})
				}
				args := []string{"--prompt", "one", "--max-tokens", "20", "--format", "json"}
				profiles := t.TempDir()
				if test.profile {
					args = append(args, "--profile-dir", profiles)
				}
				p := startCommand(t, map[string]pipelinetest.Script{test.stage: script}, args...)
				gate.Reached()
				p.interrupt(signal)
				p.await("stopping")
				gate.Open()
				got := p.end()
				request := got.object(t)["requests"].([]any)[0].(map[string]any)
				if test.at == pipelinetest.AtWrite { // what was asked for is done and written, all but the pictures
					require.Zero(t, got.code, got.stderr)
					require.Equal(t, pipelinetest.Expect("one", 20).Text, request["text"])
				} else {
					require.Equal(t, exitInterrupted, got.code, got.stderr)
					require.Contains(t, got.stderr, "omni-run: interrupted")
					require.Equal(t, "CANCELLED", request["error"].(map[string]any)["code"])
				}
				left, err := filepath.Glob(filepath.Join(profiles, "*.tmp"))
				require.NoError(t, err)
				require.Empty(t, left, "every profile file is complete")
				if test.profile {
					traces, err := filepath.Glob(filepath.Join(profiles, "*.pt.trace.json*"))
					require.NoError(t, err)
					require.Len(t, traces, 3, "what had been recorded is kept")
				}
			})
		}
	}
}

func TestTheSecondSignalStopsAtOnce(t *testing.T) {
	scripts := map[string]pipelinetest.Script{
		pipelinetest.Thinker: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtPrefill, Do: pipelinetest.Freeze}}},
	}
	p := startCommand(t, scripts, "--prompt", "one")
	p.await("loaded 3 stages")
	began := time.Now()
	p.interrupt(syscall.SIGINT)
	p.await("interrupt again to stop at once")
	p.interrupt(syscall.SIGINT)
	got := p.end()
	require.Equal(t, exitInterrupted, got.code, got.stderr)
	require.Less(t, time.Since(began), 3*time.Second, "without waiting for a worker that does not answer")
}
