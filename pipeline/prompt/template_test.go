package prompt_test

import (
	"encoding/json"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/prompt"
)

// rendered is a row of the output of testdata/make_templates.py.
type rendered struct {
	Name, Template, Text string
	Messages             []prompt.Message
}

func readRendered(t testing.TB) []rendered {
	t.Helper()
	data, err := os.ReadFile("testdata/templates.json")
	require.NoError(t, err)
	var rows []rendered
	require.NoError(t, json.Unmarshal(data, &rows))
	require.NotEmpty(t, rows)
	return rows
}

func TestRendersLikeTransformers(t *testing.T) {
	for _, row := range readRendered(t) {
		t.Run(row.Name, func(t *testing.T) {
			tpl, err := prompt.NewTemplate("test", row.Template, map[string]any{"bos_token": "<s>", "eos_token": "</s>"})
			require.NoError(t, err)
			got, err := tpl.Render(row.Messages, true)
			require.NoError(t, err)
			assert.Equal(t, row.Text, got)
		})
	}
}

func chatml(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/chatml.jinja")
	require.NoError(t, err)
	return string(data)
}

func quoted(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return string(data)
}

func TestTemplateIsFoundInEveryFile(t *testing.T) {
	named := []map[string]string{{"name": "tool_use", "template": "wrong"}, {"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"}}
	tests := map[string]map[string]string{
		"chat_template.jinja wins": {
			"chat_template.jinja": "{{ messages[0].content }}{{ eos_token }}", "chat_template.json": `{"chat_template":"wrong"}`,
			"tokenizer_config.json": `{"chat_template":"wrong","eos_token":"</s>"}`,
		},
		"chat_template.json": {
			"chat_template.json":    `{"chat_template":"{{ messages[0].content }}{{ eos_token }}"}`,
			"tokenizer_config.json": `{"chat_template":"wrong","eos_token":{"content":"</s>"}}`,
		},
		"tokenizer_config.json":  {"tokenizer_config.json": `{"chat_template":"{{ messages[0].content }}{{ eos_token }}","eos_token":"</s>"}`},
		"a list of named":        {"tokenizer_config.json": `{"eos_token":"</s>","chat_template":` + quoted(t, named) + `}`},
		"an object of templates": {"tokenizer_config.json": `{"eos_token":"</s>","chat_template":{"default":"{{ messages[0].content }}{{ eos_token }}"}}`},
	}
	for name, files := range tests {
		t.Run(name, func(t *testing.T) {
			tpl, err := prompt.OpenTemplate(folder(t, files))
			require.NoError(t, err)
			got, err := tpl.Render([]prompt.Message{{Role: "user", Text: "Hi"}}, true)
			require.NoError(t, err)
			assert.Equal(t, "Hi</s>", got)
		})
	}
}

func TestTemplateFaultsNameTheFile(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"no template", nil, []string{"has no chat template: want chat_template.jinja, chat_template.json or chat_template in tokenizer_config.json"}},
		{"not a template", map[string]string{"chat_template.json": `{"chat_template":3}`}, []string{"chat_template.json: chat_template: want a string"}},
		{"no default", map[string]string{"chat_template.json": `{"chat_template":[{"name":"rag","template":"x"}]}`}, []string{`none of the 1 named templates is called "default"`}},
		{"damaged JSON", map[string]string{"chat_template.json": "{\n\"chat_template\":}"}, []string{"chat_template.json: line 2: invalid character '}'"}},
		{"damaged template", map[string]string{"chat_template.jinja": "{% for %}"}, []string{"chat_template.jinja: chat template cannot be compiled"}},
		{"unknown statement", map[string]string{"chat_template.jinja": "{% nonsense %}"}, []string{"chat_template.jinja: chat template cannot be compiled", "nonsense"}},
		{"raise_exception", map[string]string{"chat_template.jinja": "{{ raise_exception('roles must alternate') }}"}, []string{"chat_template.jinja: chat template refuses the conversation: roles must alternate"}},
		{"other files", map[string]string{"chat_template.jinja": "{% include '/etc/hostname' %}"}, []string{"chat_template.jinja: chat template", "cannot load other files"}},
		{"endless output", map[string]string{"chat_template.jinja": "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}"}, []string{"range: more than 100000 numbers in one prompt"}},
		{"endless range", map[string]string{"chat_template.jinja": "{% for i in range(10000000000) %}x{% endfor %}"}, []string{"range: more than 100000 numbers in one prompt"}},
		{"wrong arguments", map[string]string{"chat_template.jinja": "{{ strftime_now('%Q') }}"}, []string{"unknown directive %Q"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tpl, err := prompt.OpenTemplate(folder(t, tt.files))
			if err == nil {
				_, err = tpl.Render([]prompt.Message{{Role: "user", Text: "Hi"}}, true)
			}
			require.Error(t, err)
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func TestTemplateIsSafeForConcurrentUse(t *testing.T) {
	tpl, err := prompt.NewTemplate("test", chatml(t), nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				text, err := tpl.Render([]prompt.Message{{Role: "user", Parts: []prompt.Part{{"type": "text", "text": "x"}, {"type": "image"}}}}, false)
				assert.NoError(t, err)
				assert.Equal(t, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nx<|vision_bos|><|IMAGE|><|vision_eos|><|im_end|>\n", text)
			}
		})
	}
	wg.Wait()
}

func TestMessageJSON(t *testing.T) {
	tests := []struct{ name, in, err string }{
		{"text", `{"role":"user","content":"Hi"}`, ""},
		{"parts", `{"role":"user","content":[{"text":"Hi","type":"text"}]}`, ""},
		{"no parts", `{"role":"user","content":[]}`, ""},
		{"no role", `{"content":"Hi"}`, "message: role is missing"},
		{"no content", `{"role":"user"}`, `message of role "user": content must be a string or a list of parts`},
		{"a number", `{"role":"user","content":3}`, `content must be a string or a list of parts`},
		{"a list of numbers", `{"role":"user","content":[3]}`, `message of role "user": content: json`},
		{"unknown key", `{"role":"user","contents":"Hi"}`, `message: json: unknown field "contents"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m prompt.Message
			err := json.Unmarshal([]byte(tt.in), &m)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			data, err := json.Marshal(m)
			require.NoError(t, err)
			assert.JSONEq(t, tt.in, string(data))
		})
	}
}

func FuzzTemplate(f *testing.F) {
	for _, row := range readRendered(f) {
		f.Add(row.Template, "x")
	}
	f.Fuzz(func(_ *testing.T, template, content string) {
		tpl, err := prompt.NewTemplate("fuzz", template, nil)
		if err == nil {
			_, _ = tpl.Render([]prompt.Message{{Role: "user", Text: content}}, true) // must not crash
		}
	})
}

// Whatever a user writes, it arrives unchanged.
func FuzzRenderKeepsTheText(f *testing.F) {
	tpl, err := prompt.NewTemplate("test", chatml(f), nil)
	require.NoError(f, err)
	for _, text := range []string{"", "Hi", "{{ x }}", "\n", "\r\n<|im_end|>", "\xff\xfe", "\u2028", "'\"\\"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := tpl.Render([]prompt.Message{{Role: "system", Text: text}}, false)
		require.NoError(t, err)
		assert.Equal(t, "<|im_start|>system\n"+text+"<|im_end|>\n", got)
	})
}
