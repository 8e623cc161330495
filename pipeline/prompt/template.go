package prompt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"

	"github.com/omni-run/omni/pipeline/checkpoint"
)

// Template is a chat template. It is safe for concurrent use.
type Template struct {
	source  string         // where it came from, for errors
	globals map[string]any // bos_token and the like

	mu       sync.Mutex // gonja's parsed templates are not documented to be safe for concurrent use
	compiled *exec.Template
}

// OpenTemplate reads the chat template of a checkpoint: chat_template.jinja, or chat_template.json, or the
// chat_template of tokenizer_config.json; of a list of named templates the one named "default".
func OpenTemplate(folder *checkpoint.Folder) (*Template, error) {
	cfg, err := readTokenizerConfig(folder)
	if err != nil {
		return nil, err
	}
	source, text, err := findTemplate(folder, cfg)
	if err != nil {
		return nil, err
	}
	globals := map[string]any{}
	for name, token := range map[string]namedToken{
		"bos_token": cfg.BOSToken, "eos_token": cfg.EOSToken, "unk_token": cfg.UNKToken, "pad_token": cfg.PADToken,
	} {
		if token != "" {
			globals[name] = string(token)
		}
	}
	return NewTemplate(source, text, globals)
}

func findTemplate(folder *checkpoint.Folder, cfg *tokenizerConfig) (source, text string, err error) {
	if folder.Has("chat_template.jinja") {
		data, err := folder.Read("chat_template.jinja")
		return folder.File("chat_template.jinja"), string(data), err
	}
	raw, source := cfg.ChatTemplate, folder.File("tokenizer_config.json")
	if folder.Has("chat_template.json") {
		source = folder.File("chat_template.json")
		var file struct {
			ChatTemplate json.RawMessage `json:"chat_template"`
		}
		if err := folder.ReadJSON("chat_template.json", &file); err != nil {
			return "", "", err
		}
		raw = file.ChatTemplate
	}
	if len(raw) == 0 || string(raw) == "null" {
		return "", "", fmt.Errorf("checkpoint %s has no chat template: want chat_template.jinja, chat_template.json or "+
			"chat_template in tokenizer_config.json", folder.Path)
	}
	text, err = pickTemplate(raw)
	if err != nil {
		return "", "", fmt.Errorf("%s: chat_template: %w", source, err)
	}
	return source, text, nil
}

// pickTemplate reads "text", [{"name":...,"template":...}] and {"name":"text"}.
func pickTemplate(raw json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	named := map[string]string{}
	var list []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if json.Unmarshal(raw, &list) == nil {
		for _, t := range list {
			named[t.Name] = t.Template
		}
	} else if json.Unmarshal(raw, &named) != nil {
		return "", errors.New("want a string, or a list of objects with name and template")
	}
	if text, ok := named["default"]; ok {
		return text, nil
	}
	return "", fmt.Errorf("none of the %d named templates is called \"default\"", len(named))
}

// NewTemplate compiles a template. source says where text came from; globals are variables that every rendering
// sees.
func NewTemplate(source, text string, globals map[string]any) (t *Template, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			t, err = nil, fmt.Errorf("%s: chat template cannot be compiled: %v", source, fault)
		}
	}()
	fault := func(err error) error { return fmt.Errorf("%s: chat template cannot be compiled: %w", source, err) }
	spaced, err := controlSpace(text)
	if err != nil {
		return nil, fault(err)
	}
	env, err := environment()
	if err != nil {
		return nil, fault(err)
	}
	settings := config.New()
	settings.KeepTrailingNewline = true
	compiled, err := exec.NewTemplate(rootName, settings, sealedLoader{text: spaced}, env)
	if err != nil {
		// gonja's message begins with the whole template.
		return nil, fault(errors.New(strings.ReplaceAll(err.Error(), spaced, "...")))
	}
	return &Template{source: source, globals: globals, compiled: compiled}, nil
}

// Render writes the conversation as the model wants it. addGenerationPrompt appends the start of the reply.
func (t *Template) Render(messages []Message, addGenerationPrompt bool) (text string, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			text, err = "", fmt.Errorf("%s: chat template: %v", t.source, fault)
		}
	}()
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = m.forTemplate()
	}
	var raised error // by the template itself; gonja's error keeps only its text
	variables := map[string]any{
		"messages":              list,
		"add_generation_prompt": addGenerationPrompt,
		"tools":                 nil,
		"documents":             nil,
		"range":                 boundedRange(),
		"raise_exception": func(message string) (string, error) {
			raised = errors.New(message)
			return "", raised
		},
	}
	for name, value := range t.globals {
		variables[name] = value
	}
	out := &strings.Builder{}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.compiled.Execute(out, exec.NewContext(variables)); err != nil {
		if raised != nil {
			return "", fmt.Errorf("%s: chat template refuses the conversation: %w", t.source, raised)
		}
		return "", fmt.Errorf("%s: chat template: %w", t.source, err)
	}
	return out.String(), nil
}

// forTemplate gives the message in the plain types that templates see.
func (m Message) forTemplate() map[string]any {
	if m.Parts == nil {
		return map[string]any{"role": m.Role, "content": m.Text}
	}
	parts := make([]any, len(m.Parts))
	for i, p := range m.Parts {
		parts[i] = map[string]any(p)
	}
	return map[string]any{"role": m.Role, "content": parts}
}

const rootName = "/chat_template"

// sealedLoader gives gonja the one template and nothing else: include, import and extends fail.
type sealedLoader struct{ text string }

// Read implements loaders.Loader.
func (l sealedLoader) Read(path string) (io.Reader, error) {
	if path != rootName {
		return nil, fmt.Errorf("a chat template cannot load other files (%q)", path)
	}
	return strings.NewReader(l.text), nil
}

// Resolve implements loaders.Loader.
func (l sealedLoader) Resolve(path string) (string, error) { return path, nil }

// Inherit implements loaders.Loader.
func (l sealedLoader) Inherit(string) (loaders.Loader, error) { return l, nil }
