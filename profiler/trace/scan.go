package trace

import (
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// Members yields the members of a JSON object that is known to be valid: keys with their quotes, and values, both as
// they stand in the text.
func Members(object jsontext.Value) iter.Seq2[[]byte, jsontext.Value] {
	return func(yield func([]byte, jsontext.Value) bool) {
		i := skipBlank(object, 0) + 1
		for {
			i = skipBlank(object, i)
			if i < len(object) && object[i] == ',' {
				i = skipBlank(object, i+1)
			}
			if i >= len(object) || object[i] != '"' {
				return
			}
			end := stringEnd(object, i)
			key := object[i:end]
			i = skipBlank(object, skipBlank(object, end)+1) // past the colon
			end = valueEnd(object, i)
			if !yield(key, object[i:end]) {
				return
			}
			i = end
		}
	}
}

func skipBlank(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the index after the string that begins at i.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// valueEnd returns the index after the value that begins at i.
func valueEnd(text []byte, i int) int {
	depth := 0
	for i < len(text) {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i // of what is around a number or a word
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// texts keeps strings that come again and again, so that they are allocated once.
type texts struct{ kept map[string]string }

// maxTexts bounds what is kept.
const maxTexts = 1 << 15

// keep returns raw as a string.
func (t *texts) keep(raw []byte) string {
	if kept, ok := t.kept[string(raw)]; ok {
		return kept
	}
	if t.kept == nil || len(t.kept) >= maxTexts {
		t.kept = map[string]string{}
	}
	text := string(raw)
	t.kept[text] = text
	return text
}

// text returns what a JSON string says; a value of another type is returned as it stands.
func (t *texts) text(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return t.keep(raw)
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' {
			unquoted, err := jsontext.AppendUnquote(nil, raw)
			_ = err // bytes that are no UTF-8 were replaced
			return t.keep(unquoted)
		}
	}
	return t.keep(inner)
}
