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
	// behaviourVariable makes the test binary the command, over workers that behave as its value says.
	behaviourVariable = "OMNI_RUN_TEST_BEHAVIOUR"
	// markVariable is inherited by the workers, so that a test finds them among all processes.
	markVariable = "OMNI_RUN_TEST_MARK"
)

// behaviour is what the workers of a command do, and how long their pipeline waits for them.
type behaviour struct {
	Scripts map[string]pipelinetest.Script
	Limits  *pipeline.Limits // nil for pipelinetest's
	// Profilers are the profiler_config of stages, by id, as a stage config has them.
	Profilers map[int]map[string]any
}

func TestMain(m *testing.M) {
	pipelinetest.RunIfWorker()
	if text := os.Getenv(behaviourVariable); text != "" {
		os.Exit(execute(os.Args, func(ctx context.Context, cfg pipeline.Config) (engine, error) {
			var b behaviour
			if err := json.Unmarshal([]byte(text), &b); err != nil {
				return nil, err
			}
			fake, err := pipelinetest.NewConfig(b.Scripts)
			if err != nil {
				return nil, err
			}
			cfg.WorkerPath, cfg.WorkerEnv, cfg.Limits = fake.WorkerPath, fake.WorkerEnv, fake.Limits
			if b.Limits != nil {
				cfg.Limits = *b.Limits
			}
			graph := pipelinetest.Graph()
			for id, settings := range b.Profilers {
				graph.Config.Stages[id].Profiler = settings
			}
			return pipeline.OpenGraph(ctx, cfg, graph)
		}))
	}
	os.Exit(m.Run())
}

// process is a running omni-run with workers of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	mark   string
	out    string // its folder for results
	stdout strings.Builder
	stderr *bufio.Scanner
	log    strings.Builder // of stderr
}

var marks atomic.Int64

func startCommand(t *testing.T, scripts map[string]pipelinetest.Script, args ...string) *process {
	t.Helper()
	p := newCommand(t, behaviour{Scripts: scripts}, args...)
	p.start()
	return p
}

// newCommand is a command that has not been started.
func newCommand(t *testing.T, b behaviour, args ...string) *process {
	t.Helper()
	text, err := json.Marshal(b)
	require.NoError(t, err)
	p := &process{t: t, mark: fmt.Sprintf("%d-%d", os.Getpid(), marks.Add(1)), out: filepath.Join(t.TempDir(), "out")}
	p.cmd = exec.Command(os.Args[0], append([]string{"--model", "none", "--output-dir", p.out}, args...)...)
	p.cmd.Env = append(os.Environ(), behaviourVariable+"="+string(text), markVariable+"="+p.mark, "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout = &p.stdout
	return p
}

func (p *process) start() {
	p.t.Helper()
	stderr, err := p.cmd.StderrPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, p.cmd.Start())
	p.stderr = bufio.NewScanner(stderr)
	p.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
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
