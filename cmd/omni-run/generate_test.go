package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/profiler"
)

func TestTextGoesToStandardOutputAndFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	got := runCommand(t, &fakeOmni{}, "", "--model", "m", "--prompt", "hello", "--output-dir", dir)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "HELLO\n", got.stdout)
	require.Contains(t, got.stderr, "loading stage 0 (thinker)\nstage 0 (thinker) is ready: 2.0 kB after ")
	require.Contains(t, got.stderr, `1 of 1 done: request "0": 3 tokens, 0.00 s of speech, 1.50 s; wrote `+filepath.Join(dir, "0.txt"))
	text, err := os.ReadFile(filepath.Join(dir, "0.txt"))
	require.NoError(t, err)
	require.Equal(t, "HELLO", string(text))
	info, err := os.Stat(filepath.Join(dir, "output_0.wav"))
	require.NoError(t, err)
	require.EqualValues(t, 44+2*len("hello"), info.Size())
}

func TestSeveralTextsComeInTheOrderOfTheirPrompts(t *testing.T) {
	got := runCommand(t, &fakeOmni{}, "one\ntwo, or 2\nthree\n", "--model", "m", "--modalities", "text", "--output-dir", t.TempDir(), "-")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "== 0\nONE\n== 1\nTWO, OR 2\n== 2\nTHREE\n", got.stdout)
}

func TestModalitiesDecideWhichFilesThereAre(t *testing.T) {
	tests := map[string][]string{"text": {"0.txt"}, "audio": {"output_0.wav"}, "text, audio": {"0.txt", "output_0.wav"}}
	for modalities, want := range tests {
		t.Run(modalities, func(t *testing.T) {
			dir := t.TempDir()
			got := runCommand(t, &fakeOmni{}, "", "--model", "m", "--prompt", "a", "--modalities", modalities, "--output-dir", dir)
			require.Zero(t, got.code, got.stderr)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			var names []string
			for _, entry := range entries {
				names = append(names, entry.Name())
			}
			require.Equal(t, want, names)
		})
	}
}

func TestJSONIsOneObjectWithEverything(t *testing.T) {
	dir := t.TempDir()
	got := runCommand(t, &fakeOmni{}, "", "--model", "m", "--prompt", "a <b>", "--format", "json", "--output-dir", dir, "--profile-dir", dir)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, map[string]any{
		"requests": []any{map[string]any{
			"request_id": "0", "prompt": "a <b>", "rendered_prompt": "<user>a <b>",
			"prompt_token_ids": []any{1.0, 2.0}, "token_ids": []any{3.0, 4.0, 5.0}, "text": "A <B>", "finish_reason": "stop",
			"audio": map[string]any{"path": filepath.Join(dir, "output_0.wav"), "sample_rate": 24000.0, "samples": 5.0, "codes": []any{7.0, 8.0}},
			"stages": []any{map[string]any{
				"id": 0.0, "name": "thinker", "queue_ms": 1.0, "compute_ms": 2.0, "transfer_ms": 0.25, "tokens": 3.0, "bytes_out": 4096.0,
			}},
			"first_text_ms": 12.5, "first_audio_ms": 12.5, "e2e_ms": 1500.0, "rtf": 0.5,
		}},
		"profile": map[string]any{"session": "s1", "files": []any{
			map[string]any{"path": filepath.Join(dir, "stage-0_s1.17.pt.trace.json.gz"), "stage": 0.0, "rank": 0.0, "kind": "trace", "bytes": 2048.0, "events": 99.0, "dropped": 1.0},
			map[string]any{"path": filepath.Join(dir, "profiler_out_0.txt"), "stage": 0.0, "rank": 0.0, "kind": "table", "bytes": 512.0, "events": 99.0, "dropped": 0.0},
		}},
	}, got.object(t))
	require.Contains(t, got.stdout, "<user>a <b>", "text is not escaped for HTML")
}

func TestFlagsReachThePipeline(t *testing.T) {
	omni := &fakeOmni{}
	dir := t.TempDir()
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--prompt", "b, c", "--system", "s", "--modalities", "audio", "--speaker", "Ethan",
		"--seed", "0", "--sampling-params", `[{"temperature":0},{"top_k":-1,"seed":3}]`, "--max-tokens", "9", "--dtype", "bfloat16", "--device", "cpu",
		"--speech-mode", "stream", "--max-concurrency", "2", "--stage-configs-path", "f.yaml", "--output-dir", dir, "--profile-dir", dir, "--profile-stages", "0, 2",
		"--profiler-config", "max_iterations=4", "--profiler-config.torch_profiler_record_shapes=true", "--profiler-config.delay_iterations", "1")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, []int{0, 2}, omni.stages)
	require.Equal(t, []string{"start", "stop", "close"}, omni.calls)

	want := profiler.FromDir(dir)
	want.MaxIterations, want.TorchProfilerRecordShapes, want.DelayIterations = 4, true, 1
	require.Equal(t, want, omni.config.Profiler)
	require.Equal(t, "f.yaml", omni.config.StageConfigsPath)
	require.Equal(t, "bfloat16", omni.config.DType)
	require.Equal(t, "cpu", omni.config.Device)
	require.Equal(t, 2, omni.config.MaxConcurrency)
	require.Equal(t, config.ModeStream, omni.config.SpeechMode)
	require.ElementsMatch(t, []pipeline.Request{
		{
			ID: "0", Prompt: "a", System: "s", Modalities: []string{"audio"}, Speaker: "Ethan", Seed: ptr(int64(0)), MaxTokens: 9,
			Sampling: []config.SamplingParams{{Temperature: ptr(0.0)}, {TopK: ptr(int64(-1)), Seed: ptr(int64(3))}},
		},
		{
			ID: "1", Prompt: "b, c", System: "s", Modalities: []string{"audio"}, Speaker: "Ethan", Seed: ptr(int64(0)), MaxTokens: 9,
			Sampling: []config.SamplingParams{{Temperature: ptr(0.0)}, {TopK: ptr(int64(-1)), Seed: ptr(int64(3))}},
		},
	}, omni.requests)
}

func TestProfileDirFromTheEnvironment(t *testing.T) {
	fallback, dir := t.TempDir(), t.TempDir()
	limited := profiler.FromDir(fallback)
	limited.Activities, limited.MaxEvents = []string{"CPU"}, 9
	cuda := profiler.Default()
	cuda.Profiler = profiler.KindCUDA
	for name, tt := range map[string]struct {
		args []string
		want profiler.Config
	}{
		"no flag":             {nil, profiler.FromDir(fallback)},
		"settings":            {[]string{"--profiler-config.activities=CPU", "--profiler-config", "max_events=9"}, limited},
		"a flag comes first":  {[]string{"--profile-dir", dir}, profiler.FromDir(dir)},
		"off":                 {[]string{"--profiler-config", "profiler=none"}, profiler.Default()},
		"the folder twice":    {[]string{"--profile-dir", dir, "--profiler-config", "torch_profiler_dir=" + dir + "/."}, profiler.FromDir(dir)},
		"another profiler":    {[]string{"--profiler-config", "profiler=cuda"}, cuda},
		"a directory as JSON": {[]string{"--profiler-config", `{"torch_profiler_dir":"` + dir + `"}`}, profiler.FromDir(dir)},
	} {
		t.Run(name, func(t *testing.T) {
			omni := &fakeOmni{variables: map[string]string{"VLLM_TORCH_PROFILER_DIR": fallback}}
			args := append([]string{"--model", "m", "--prompt", "a", "--output-dir", t.TempDir()}, tt.args...)
			got := runCommand(t, omni, "", args...)
			require.Zero(t, got.code, got.stderr)
			require.Equal(t, tt.want, omni.config.Profiler)
		})
	}
}

func TestSomeRequestsFail(t *testing.T) {
	dir := t.TempDir()
	omni := &fakeOmni{requestError: map[string]error{
		"1": &pipeline.StageError{Stage: 2, Name: "code2wav", Code: message.ResourceExhausted, Cause: errors.New("out of memory")},
	}}
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--prompt", "b", "--format", "json", "--output-dir", dir, "--log-stats")
	require.Equal(t, exitFailed, got.code)
	requests := got.object(t)["requests"].([]any)
	require.NotContains(t, requests[0], "error")
	require.Equal(t, map[string]any{"code": "RESOURCE_EXHAUSTED", "message": "stage 2 (code2wav): out of memory", "stage": 2.0}, requests[1].(map[string]any)["error"])
	require.Equal(t, "b", requests[1].(map[string]any)["prompt"])
	require.Contains(t, got.stderr, "of 2 failed: stage 2 (code2wav): out of memory")
	require.Regexp(t, `(?m)^ +0 +3 +0\.00 s +12 ms +12 ms +1\.50 s +0\.50`, got.stderr)
	require.Regexp(t, `(?m)^ +0 thinker +1 +3 +4\.1 kB`, got.stderr)
	require.NoFileExists(t, filepath.Join(dir, "1.txt"))
}

func TestAModelThatCannotBeOpenedFailsEveryRequest(t *testing.T) {
	omni := &fakeOmni{openError: fmt.Errorf("model %q: no config.json", "m")}
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--format", "json", "--output-dir", t.TempDir())
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, `omni-run: model "m": no config.json`)
	requests := got.object(t)["requests"].([]any)
	require.Equal(t, `model "m": no config.json`, requests[0].(map[string]any)["error"].(map[string]any)["message"])
	require.Nil(t, got.object(t)["profile"])
}

func TestAFileThatAppearsMeanwhileIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.txt")
	omni := &fakeOmni{onGenerate: func(pipeline.Request) { _ = os.WriteFile(path, []byte("mine"), 0o600) }}
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--output-dir", dir)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, `failed: request "0": write text: open `+path+": file exists")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
}

func TestInterruptStopsCleanly(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	dir := t.TempDir()
	omni := &fakeOmni{onGenerate: func(request pipeline.Request) {
		if request.Prompt == "b" {
			cancel(errInterrupted)
		}
	}}
	got := runCommandIn(ctx, omni, "", "--model", "m", "--prompt", "b", "--format", "json", "--output-dir", dir, "--profile-dir", dir)
	require.Equal(t, exitInterrupted, got.code)
	require.Equal(t, []string{"start", "stop", "close"}, omni.calls, "the profile is written and the workers are stopped")
	require.Equal(t, map[string]any{"code": "CANCELLED", "message": "interrupted", "stage": nil}, got.object(t)["requests"].([]any)[0].(map[string]any)["error"])
	require.Contains(t, got.stderr, "omni-run: interrupted")
}

func TestProfileThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	omni := &fakeOmni{stopError: errors.New("disk full")}
	got := runCommand(t, omni, "", "--model", "m", "--prompt", "a", "--format", "json", "--output-dir", dir, "--profile-dir", dir)
	require.Equal(t, exitFailed, got.code)
	require.Contains(t, got.stderr, "omni-run: disk full")
	require.Equal(t, "disk full", got.object(t)["profile"].(map[string]any)["error"])
	require.NotContains(t, got.object(t)["requests"].([]any)[0], "error", "the request itself is done")
}

func TestUsageMistakes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"no model", []string{"--prompt", "a"}, []string{"--model is missing"}},
		{"no prompt", []string{"--model", "m"}, []string{"want prompts from one of"}},
		{"unknown flag", []string{"--modell", "m"}, []string{"flag provided but not defined: -modell"}},
		{"unknown flag of a command", []string{"make-checkpoint", "--presets", "m"}, []string{"flag provided but not defined: -presets"}},
		{"not a number", []string{"--seed", "x"}, []string{`invalid value "x" for flag -seed`}},
		{
			"all mistakes at once",
			[]string{
				"--model", "m", "--prompt", "a", "--dtype", "int4", "--device", "tpu", "--speech-mode", "half", "--max-concurrency", "0", "--format", "xml", "--output-dir", "",
				"--seed", "-1", "--max-tokens", "0", "--modalities", "smell", "--sampling-params", "{}", "--profile-stages", "1",
			},
			[]string{
				`--dtype: unknown dtype "int4"`, "--device: ", `--speech-mode: mode is "half"`, "--max-concurrency is 0", `--format is "xml"`, "--output-dir is empty", "--seed is -1",
				"--max-tokens is 0", `unknown modality "smell"`, "--sampling-params: want a JSON list", "--profile-stages needs --profile-dir",
			},
		},
		{"sampling out of range", []string{"--model", "m", "--prompt", "a", "--sampling-params", `[{},{"top_p":0}]`}, []string{"--sampling-params: stage 1: top_p is 0"}},
		{"unknown sampling key", []string{"--model", "m", "--prompt", "a", "--sampling-params", `[{"topp":1}]`}, []string{"topp: unknown key"}},
		{"stage that is no number", []string{"--model", "m", "--prompt", "a", "--profile-dir", "d", "--profile-stages", "thinker"}, []string{`"thinker" is no stage id`}},
		{"stage that is not there", []string{"--model", "m", "--prompt", "a", "--output-dir", t.TempDir(), "--profile-dir", t.TempDir(), "--profile-stages", "7"}, []string{"--profile-stages", "no such stage"}},
		{"unknown profiler setting", []string{"--model", "m", "--prompt", "a", "--profiler-config", "bogus=1"}, []string{"--profiler-config", "bogus"}},
		{
			"faults of every kind in the profiler's settings",
			[]string{
				"--model", "m", "--prompt", "a", "--profile-dir", "d", "--profiler-config", "bogus=1,delay_iterations=-1,max_events=x", "--profiler-config.detail=all",
				"--profile-stages", "one",
			},
			[]string{`unknown field "bogus"`, "delay_iterations: got -1", `max_events: got "x"`, `detail: got "all"`, `"one" is no stage id`},
		},
		{
			"a folder for a profiler that has none",
			[]string{"--model", "m", "--prompt", "a", "--profile-dir", "d", "--profiler-config", "profiler=cuda"},
			[]string{"--profile-dir d asks for profiler=torch, and --profiler-config for profiler=cuda: leave one of them out"},
		},
		{
			"a folder for no profiler",
			[]string{"--model", "m", "--prompt", "a", "--profile-dir", "d", "--profiler-config", `{"profiler":null}`},
			[]string{"and --profiler-config for profiler=null"},
		},
		{
			"two folders",
			[]string{"--model", "m", "--prompt", "a", "--profile-dir", "d", "--profiler-config", "torch_profiler_dir=e"},
			[]string{"--profile-dir d and --profiler-config torch_profiler_dir=e are two folders"},
		},
		{
			"settings and no profiler",
			[]string{"--model", "m", "--prompt", "a", "--profiler-config", "max_iterations=5"},
			[]string{"--profiler-config: max_iterations: nothing would be recorded, since no profiler is chosen", "--profile-dir DIR"},
		},
		{"JSON and more", []string{"--model", "m", "--prompt", "a", "--profiler-config", "{}", "--profiler-config", "max_iterations=1"}, []string{"cannot be combined"}},
		{"a profile folder that cannot be", []string{"--model", "m", "--prompt", "a", "--output-dir", t.TempDir(), "--profile-dir", "/dev/null/x"}, []string{"--profile-dir: mkdir /dev/null"}},
		{"checkpoint without a place", []string{"make-checkpoint"}, []string{"--out is missing"}},
		{"unknown preset", []string{"make-checkpoint", "--out", "x", "--preset", "huge"}, []string{`unknown preset "huge"`, "tiny", "small"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := runCommand(t, &fakeOmni{}, "", test.args...)
			require.Equal(t, exitUsage, got.code, got.stderr)
			for _, part := range test.want {
				require.Contains(t, got.stderr, part)
			}
			require.Contains(t, got.stderr, "omni-run --help")
			require.Empty(t, got.stdout)
		})
	}
}

func TestMakeCheckpoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "checkpoint")
	got := runCommand(t, &fakeOmni{}, "", "make-checkpoint", "--preset", "tiny", "--seed", "3", "--out", dir)
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, dir+"\n", got.stdout)
	require.Contains(t, got.stderr, "seed 3")
	require.FileExists(t, filepath.Join(dir, "config.json"))
}
