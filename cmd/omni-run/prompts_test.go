package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/prompt"
)

func ptr[T any](value T) *T { return &value }

func TestPromptsFile(t *testing.T) {
	defaults := pipeline.Request{System: "sys", Speaker: "Ethan", MaxTokens: 5, Seed: ptr(int64(1))}
	with := func(change func(*pipeline.Request)) pipeline.Request {
		request := defaults
		change(&request)
		return request
	}
	say := func(text string) pipeline.Request {
		return with(func(r *pipeline.Request) { r.Prompt = text })
	}
	tests := []struct {
		name, file, content string
		want                []pipeline.Request
	}{
		{"a prompt a line", "p.txt", "one\ntwo\n", []pipeline.Request{say("one"), say("two")}},
		{"blank lines, other line ends and no last one", "p.txt", "\n one \r\n\n\ttwo", []pipeline.Request{say(" one "), say("\ttwo")}},
		{"byte order mark", "p.txt", "\ufeffone\n", []pipeline.Request{say("one")}},
		{"all of Unicode", "p.txt", "Grüße 你好 👋🏽 \u2028 x\n", []pipeline.Request{say("Grüße 你好 👋🏽 \u2028 x")}},
		{"a plain line that begins like JSON", "p.txt", "{\"a\": 1} what is this?\n", []pipeline.Request{say(`{"a": 1} what is this?`)}},
		{
			"JSON lines by their content", "p.txt",
			`{"prompt":"one","request_id":"r1","system":"","modalities":["text"],"speaker":"Chelsie","seed":7,"max_tokens":3,"speech":{"mode":"stream","codec_chunk_frames":24}}` + "\n" + `{"prompt":"two"}`,
			[]pipeline.Request{
				with(func(r *pipeline.Request) {
					r.Speech = config.Speech{Mode: config.ModeStream, Chunk: ptr(int64(24))}
					r.ID, r.Prompt, r.System, r.Modalities, r.Speaker, r.Seed, r.MaxTokens = "r1", "one", "", []string{"text"}, "Chelsie", ptr(int64(7)), 3
				}),
				say("two"),
			},
		},
		{
			"JSON lines by the file's name", "p.jsonl", `{"messages":[{"role":"user","content":"hi"}]}`,
			[]pipeline.Request{with(func(r *pipeline.Request) { r.Messages = []prompt.Message{{Role: "user", Text: "hi"}} })},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), test.file)
			require.NoError(t, os.WriteFile(path, []byte(test.content), 0o600))
			got, err := readPrompts(promptSources{file: path}, defaults)
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestPromptsFromStandardInput(t *testing.T) {
	for _, sources := range []promptSources{{args: []string{"-"}}, {file: "-"}} {
		sources.stdin = strings.NewReader("one\n")
		got, err := readPrompts(sources, pipeline.Request{})
		require.NoError(t, err)
		require.Equal(t, []pipeline.Request{{Prompt: "one"}}, got)
	}
}

func TestPromptMistakes(t *testing.T) {
	tests := []struct {
		name    string
		sources promptSources
		stdin   string
		want    []string // parts of the error
	}{
		{"none", promptSources{}, "", []string{"want prompts from one of", "got 0"}},
		{"two sources", promptSources{texts: []string{"a"}, args: []string{"-"}}, "", []string{"got 2"}},
		{"an argument", promptSources{args: []string{"hello"}}, "", []string{`unexpected argument "hello"`, "--prompt"}},
		{"a blank prompt", promptSources{texts: []string{" "}}, "", []string{"not blank"}},
		{"no such file", promptSources{file: "no-such-file"}, "", []string{"--prompts-file", "no-such-file"}},
		{"nothing on standard input", promptSources{args: []string{"-"}}, "\n \n", []string{"standard input: there is no prompt"}},
		{"not UTF-8", promptSources{args: []string{"-"}}, "a\n\xff\n", []string{"standard input line 2: not UTF-8"}},
		{
			"every line that is wrong",
			promptSources{args: []string{"-"}},
			`{"prompt":"a","speeker":"x"}` + "\n" + `{"prompt":"a","messages":[{"role":"user","content":"b"}]}` + "\nplain\n" + `{"prompt":"a","seed":-1}` +
				"\n" + `{"prompt":"a","max_tokens":0}` + "\n" + `{"prompt":"a","modalities":["smell"]}` + "\n" + `{"prompt":"a","sampling_params":[{"top_p":2}]}` +
				"\n" + `{"prompt":"a","speech":{"mode":"half"}}`,
			[]string{
				`line 1: want one JSON object with a prompt: json: unknown field "speeker"`, "line 2: want either prompt or messages", "line 3: want one JSON",
				"line 4: seed is -1", "line 5: max_tokens is 0", `line 6: unknown modality "smell"`, "line 7: sampling_params: stage 0: top_p is 2",
				`line 8: speech: mode is "half", want full or stream`,
			},
		},
		{
			"an id twice",
			promptSources{args: []string{"-"}},
			`{"prompt":"a","request_id":"x"}` + "\n" + `{"prompt":"b","request_id":"x"}`,
			[]string{`line 2: request_id "x" is that of line 1 too`},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.sources.stdin = strings.NewReader(test.stdin)
			_, err := readPrompts(test.sources, pipeline.Request{})
			var usage *usageError
			require.ErrorAs(t, err, &usage)
			for _, part := range test.want {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

func FuzzParsePrompts(f *testing.F) {
	f.Add("one\ntwo", false)
	f.Add(`{"prompt":"a"}`, true)
	f.Add(`{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}`, false)
	f.Fuzz(func(t *testing.T, text string, isJSON bool) {
		requests, err := parsePrompts("input", strings.NewReader(text), isJSON, pipeline.Request{})
		if err == nil && len(requests) == 0 {
			t.Fatal("no request and no error")
		}
		for _, request := range requests {
			if err == nil && strings.TrimSpace(request.Prompt) == "" && len(request.Messages) == 0 {
				t.Fatalf("an empty request from %q", text)
			}
		}
	})
}
