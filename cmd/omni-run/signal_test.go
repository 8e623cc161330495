package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/trace"
)

// phase is a moment in the life of the command: a worker stands at a gate, so that nothing can go on.
type phase struct {
	name    string
	model   string // whose worker comes to the gate
	at      pipelinetest.Point
	nth     int
	again   bool // the worker dies, and its successor comes to the gate
	profile bool // the requests are recorded
	done    bool // the request's result is there
}

var phases = []phase{
	{name: "before hello", model: pipelinetest.AnyStage, at: pipelinetest.AtStart},
	{name: "loading", model: pipelinetest.Thinker, at: pipelinetest.AtLoad, nth: 2},
	{name: "a recording begins", model: pipelinetest.Talker, at: pipelinetest.AtProfile, profile: true},
	{name: "admission", model: pipelinetest.Code2Wav, at: pipelinetest.AtAdmit},
	{name: "prefill", model: pipelinetest.Thinker, at: pipelinetest.AtPrefill},
	{name: "decoding", model: pipelinetest.Thinker, at: pipelinetest.AtDecode, nth: 3},
	{name: "handing on to the talker", model: pipelinetest.Talker, at: pipelinetest.AtFeed, nth: 2},
	{name: "in the talker", model: pipelinetest.Talker, at: pipelinetest.AtDecode, nth: 2},
	{name: "handing on to code2wav", model: pipelinetest.Code2Wav, at: pipelinetest.AtFeed, nth: 2},
	{name: "in code2wav", model: pipelinetest.Code2Wav, at: pipelinetest.AtDecode},
	{name: "while a stage comes back", model: pipelinetest.Talker, at: pipelinetest.AtLoad, again: true},
	{name: "while profiled", model: pipelinetest.Talker, at: pipelinetest.AtDecode, nth: 2, profile: true},
	{name: "writing profiles", model: pipelinetest.Code2Wav, at: pipelinetest.AtWrite, profile: true, done: true},
	{name: "closing", model: pipelinetest.Talker, at: pipelinetest.AtClose, done: true},
}

// enter starts the command and returns when it is in the phase.
func (f phase) enter(t *testing.T, profiles string, limits *pipeline.Limits) (*process, *pipelinetest.Gate) {
	t.Helper()
	gate := pipelinetest.NewGate(t)
	script := pipelinetest.Script{Parts: 3, Faults: []pipelinetest.Fault{gate.Fault(f.at, f.nth)}}
	if f.again {
		died := filepath.Join(t.TempDir(), "died")
		script.Faults[0].After = died
		script.Faults = append(script.Faults, pipelinetest.Fault{At: pipelinetest.AtPrefill, Do: pipelinetest.Kill, Once: died})
	}
	args := []string{"--prompt", "one", "--max-tokens", "12", "--format", "json"}
	if f.profile {
		args = append(args, "--profile-dir", profiles)
	}
	p := newCommand(t, behaviour{Scripts: map[string]pipelinetest.Script{f.model: script}, Limits: limits}, args...)
	p.start()
	gate.Reached()
	require.NotEmpty(t, p.workers())
	return p, gate
}

var stopSignals = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}

// One signal ends the command in every phase. What was asked for and is there is kept and whole, what is not is said to be
// missing, and the exit code says whether anything is.
func TestSignalsStopCleanlyInEveryPhase(t *testing.T) {
	for _, f := range phases {
		for _, signal := range stopSignals {
			t.Run(fmt.Sprintf("%s, %v", f.name, signal), func(t *testing.T) {
				profiles := t.TempDir()
				p, gate := f.enter(t, profiles, nil)
				p.interrupt(signal)
				p.await("interrupt again to stop at once")
				gate.Open()
				got := p.end()
				request := got.object(t)["requests"].([]any)[0].(map[string]any)
				if f.done {
					require.Equal(t, pipelinetest.Expect("one", 12).Text, request["text"])
					p.wholeResult("0", "one", 12)
				} else {
					require.Equal(t, "CANCELLED", request["error"].(map[string]any)["code"])
					require.Empty(t, p.results())
				}
				wholeProfile(t, profiles, f.profile)
				if f.done && !f.profile {
					require.Zero(t, got.code, got.stderr)
					return
				}
				require.Equal(t, exitInterrupted, got.code, got.stderr)
				require.Contains(t, got.stderr, "omni-run: interrupted")
				if f.profile {
					profile := got.object(t)["profile"].(map[string]any)
					require.Len(t, profile["files"], 6)
					require.Contains(t, profile["error"], "omni-run profile merge "+profiles, "the pictures are missing")
					require.Contains(t, got.stderr, "omni-run profile merge "+profiles)
				}
			})
		}
	}
}

// A second signal ends the command at once, although a worker stands where it is and would be waited for longer than this
// test can take. Nothing that is there under the name of a result is incomplete.
func TestTheSecondSignalStopsAtOnceInEveryPhase(t *testing.T) {
	patient := &pipeline.Limits{Drain: time.Hour, Terminate: time.Hour, ProfileDrain: time.Hour, Backoff: time.Millisecond}
	for _, f := range phases {
		if f.at == pipelinetest.AtStart || f.at == pipelinetest.AtLoad {
			continue // the first signal kills a worker that loads, wherever it stands
		}
		for _, signal := range stopSignals {
			t.Run(fmt.Sprintf("%s, %v", f.name, signal), func(t *testing.T) {
				profiles := t.TempDir()
				p, _ := f.enter(t, profiles, patient)
				p.interrupt(signal)
				p.await("interrupt again to stop at once")
				p.interrupt(signal)
				got := p.end()
				require.Equal(t, exitInterrupted, got.code, got.stderr)
				require.Contains(t, got.stderr, "stopped at once")
				require.Empty(t, got.stdout)
				if f.done {
					p.wholeResult("0", "one", 12)
				} else {
					require.Empty(t, p.results())
				}
				for _, path := range traces(t, profiles) {
					readWhole(t, path)
				}
			})
		}
	}
}

// A worker that is frozen cannot be asked for anything; the second signal does not need to.
func TestTheSecondSignalEndsFrozenWorkers(t *testing.T) {
	frozen := filepath.Join(t.TempDir(), "frozen")
	p := newCommand(t, behaviour{
		Scripts: map[string]pipelinetest.Script{pipelinetest.Thinker: {Faults: []pipelinetest.Fault{{At: pipelinetest.AtPrefill, Do: pipelinetest.Freeze, Once: frozen}}}},
		Limits:  &pipeline.Limits{Drain: time.Hour, Terminate: time.Hour, Pong: time.Hour},
	}, "--prompt", "one")
	p.start()
	await(t, "the thinker is frozen", func() bool { _, err := os.Stat(frozen); return err == nil })
	p.interrupt(syscall.SIGINT)
	p.await("interrupt again to stop at once")
	p.interrupt(syscall.SIGINT)
	require.Equal(t, exitInterrupted, p.end().code)
}

// Standard output takes no more when the signal comes, so the command stands in the middle of writing its result. It writes
// all of it: a program that reads half of an object could not tell what happened.
func TestSignalWhileTheResultsAreWritten(t *testing.T) {
	for _, signal := range stopSignals {
		t.Run(signal.String(), func(t *testing.T) {
			prompt := strings.Repeat("x", 5000)
			p := newCommand(t, behaviour{}, "--prompt", prompt, "--max-tokens", "12", "--format", "json")
			out, in := smallPipe(t)
			p.cmd.Stdout = in
			p.start()
			require.NoError(t, in.Close())
			await(t, "the pipe is full", func() bool { return held(t, out) == pipeBytes })
			p.interrupt(signal)
			p.await("interrupt again to stop at once")
			text, err := io.ReadAll(out)
			require.NoError(t, err)
			got := p.end()
			got.stdout = string(text)
			require.Greater(t, len(text), 2*pipeBytes)
			require.Equal(t, pipelinetest.Expect(prompt, 12).Text, got.object(t)["requests"].([]any)[0].(map[string]any)["text"])
			p.wholeResult("0", prompt, 12)
			require.Zero(t, got.code, "all that was asked for is there: %s", got.stderr)
		})
	}
}

// The text of a recorded request is being written, to a standard output that takes no more, when the signal comes: it is
// delivered, and the recording completed.
func TestSignalWhileATextIsWritten(t *testing.T) {
	for _, signal := range stopSignals {
		t.Run(signal.String(), func(t *testing.T) {
			profiles := t.TempDir()
			p := newCommand(t, behaviour{}, "--prompt", "one", "--max-tokens", "12", "--profile-dir", profiles)
			out, in := smallPipe(t)
			filler := strings.Repeat(".", pipeBytes)
			_, err := in.WriteString(filler)
			require.NoError(t, err)
			p.cmd.Stdout = in
			p.start()
			require.NoError(t, in.Close())
			p.await("1 of 1 done") // and now it prints
			p.interrupt(signal)
			p.await("interrupt again to stop at once")
			text, err := io.ReadAll(out)
			require.NoError(t, err)
			got := p.end()
			require.Equal(t, filler+pipelinetest.Expect("one", 12).Text+"\n", string(text))
			p.wholeResult("0", "one", 12)
			wholeProfile(t, profiles, true)
			require.Equal(t, exitInterrupted, got.code, "there was no time for the pictures: %s", got.stderr)
		})
	}
}

// One request is done and another runs when the signal comes: the first is delivered, the second cancelled.
func TestSignalBetweenResults(t *testing.T) {
	for _, signal := range stopSignals {
		t.Run(signal.String(), func(t *testing.T) {
			gate := pipelinetest.NewGate(t)
			p := startCommand(t, map[string]pipelinetest.Script{pipelinetest.Thinker: gate.Script(pipelinetest.AtPrefill, 2)},
				"--prompt", "one", "--prompt", "two", "--max-concurrency", "1", "--max-tokens", "12")
			gate.Reached()
			p.await("1 of 2 done")
			p.interrupt(signal)
			p.await("interrupt again to stop at once")
			gate.Open()
			got := p.end()
			// Which of the two came first is theirs to decide.
			first, prompt := "0", "one"
			if !strings.Contains(got.stderr, `1 of 2 done: request "0"`) {
				first, prompt = "1", "two"
			}
			require.Equal(t, fmt.Sprintf("== %s\n%s\n", first, pipelinetest.Expect(prompt, 12).Text), got.stdout)
			p.wholeResult(first, prompt, 12)
			require.Len(t, p.results(), 2)
			require.Contains(t, got.stderr, "2 of 2 failed: interrupted")
			require.Equal(t, exitInterrupted, got.code, got.stderr)
		})
	}
}

// pipeBytes is the size of the smallest pipe.
var pipeBytes = os.Getpagesize()

func smallPipe(t *testing.T) (out, in *os.File) {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { out.Close(); in.Close() })
	_, err = unix.FcntlInt(in.Fd(), unix.F_SETPIPE_SZ, pipeBytes)
	require.NoError(t, err)
	return out, in
}

// held returns how many bytes a pipe holds.
func held(t *testing.T, pipe *os.File) int {
	t.Helper()
	n, err := unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ)
	require.NoError(t, err)
	return n
}

// await waits for a state of the system that nothing announces.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 30*time.Second, time.Millisecond, what)
}

// results are the files in the command's folder.
func (p *process) results() []string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.out, "*"))
	require.NoError(p.t, err)
	return files
}

// wholeResult checks that the files of a request hold all that there is.
func (p *process) wholeResult(id, prompt string, tokens int) {
	p.t.Helper()
	want := pipelinetest.Expect(prompt, tokens)
	text, err := os.ReadFile(filepath.Join(p.out, id+".txt"))
	require.NoError(p.t, err)
	require.Equal(p.t, want.Text, string(text))
	info, err := os.Stat(filepath.Join(p.out, "output_"+id+".wav"))
	require.NoError(p.t, err)
	require.EqualValues(p.t, 44+2*len(want.PCM), info.Size())
}

// wholeProfile checks that a folder has the complete files of three workers and a ledger, or of a run without a profile nothing.
func wholeProfile(t *testing.T, dir string, recorded bool) {
	t.Helper()
	if !recorded {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries)
		return
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.Len(t, traces(t, dir), 3)
	for _, path := range traces(t, dir) {
		readWhole(t, path)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "profiler_out_*.txt"))
	require.NoError(t, err)
	require.Len(t, tables, 3)
	ledgers, err := filepath.Glob(filepath.Join(dir, ledger.Folder, "*"))
	require.NoError(t, err)
	require.Len(t, ledgers, 1)
}

func traces(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.pt.trace.json*"))
	require.NoError(t, err)
	var complete []string
	for _, path := range paths {
		if !strings.HasSuffix(path, ".tmp") {
			complete = append(complete, path)
		}
	}
	return complete
}

// readWhole reads a trace to its end.
func readWhole(t *testing.T, path string) {
	t.Helper()
	_, err := trace.Read(context.Background(), path, func(*trace.Event) error { return nil })
	require.NoError(t, err)
}
