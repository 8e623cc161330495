package prompt

import (
	"fmt"
	"strings"
	"unicode"
)

// controlSpace applies Jinja's white space control to the source of a template, as transformers compiles chat
// templates: trim_blocks (the newline after a statement goes), lstrip_blocks (so does the indentation before one that
// begins its line), "-" and "+" signs, and one newline at the end. gonja gets the result with all of that switched
// off: it takes every blank before a statement for indentation. Newlines that go stay as comments, so that line numbers
// in errors are true.
func controlSpace(source string) (string, error) {
	source = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
	source = strings.TrimSuffix(source, "\n")
	s := &spacer{source: source, lineStart: true}
	for s.at < len(source) {
		if err := s.next(); err != nil {
			return "", err
		}
	}
	return s.out.String(), nil
}

// spacer walks over a template, a stretch of text and a tag at a time.
type spacer struct {
	source    string
	at        int
	out       strings.Builder
	lineStart bool // what was read last ends in a newline
	literal   bool // inside a raw block
}

// tag is {% ... %}, {{ ... }} or {# ... #}.
type tag struct {
	open, closing string // without signs
	left, right   byte   // '-', '+' or 0
	body          string
}

// next reads the text up to the next tag, and the tag.
func (s *spacer) next() error {
	rest := s.source[s.at:]
	start := nextTag(rest)
	if start < 0 {
		s.write(rest)
		s.at = len(s.source)
		return nil
	}
	line := 1 + strings.Count(s.source[:s.at+start], "\n")
	t, size, ok := readTag(rest[start:])
	if !ok {
		return fmt.Errorf("line %d: %s is not closed", line, rest[start:start+2])
	}
	s.textBefore(rest[:start], t)
	s.at += start + size
	if t.open == "{%" && strings.TrimSpace(t.body) == "raw" {
		if t.right == 0 {
			t.right = '+' // alone among statements it keeps the newline behind it
		}
		s.skipAfter(t)
		return s.raw(line)
	}
	if t.open == "{#" {
		s.blank(t.body)
	} else {
		s.out.WriteString(t.open + t.body + t.closing)
	}
	s.skipAfter(t)
	return nil
}

// blank keeps the newlines of text that goes.
func (s *spacer) blank(text string) {
	if n := strings.Count(text, "\n"); n > 0 {
		s.out.WriteString("{#" + strings.Repeat("\n", n) + "#}")
	}
}

// textBefore writes the text before a tag without what the tag strips.
func (s *spacer) textBefore(text string, t tag) {
	kept := text
	switch {
	case t.left == '-':
		kept = strings.TrimRightFunc(text, unicode.IsSpace)
	case t.left == 0 && t.open != "{{":
		begin := strings.LastIndexByte(text, '\n') + 1
		if (begin > 0 || s.lineStart) && strings.TrimSpace(text[begin:]) == "" {
			kept = text[:begin]
		}
	}
	s.write(kept)
	s.blank(text[len(kept):])
}

// skipAfter steps over what a tag strips behind itself.
func (s *spacer) skipAfter(t tag) {
	rest := s.source[s.at:]
	gone := 0
	switch {
	case t.right == '-':
		gone = len(rest) - len(strings.TrimLeftFunc(rest, unicode.IsSpace))
	case t.right == 0 && t.open != "{{" && strings.HasPrefix(rest, "\n"):
		gone = 1
	}
	s.at += gone
	s.lineStart = strings.HasSuffix(rest[:gone], "\n")
	s.blank(rest[:gone])
}

// raw writes what is between {% raw %} and {% endraw %} as it is, with the same rules for white space at the latter.
func (s *spacer) raw(line int) error {
	for at := s.at; ; {
		start := strings.Index(s.source[at:], "{%")
		if start < 0 {
			return fmt.Errorf("line %d: raw is not closed", line)
		}
		t, size, ok := readTag(s.source[at+start:])
		if !ok || strings.TrimSpace(t.body) != "endraw" {
			at += start + 2
			continue
		}
		text := s.source[s.at : at+start]
		s.literal = true
		s.textBefore(text, t)
		s.literal = false
		s.at = at + start + size
		s.skipAfter(t)
		return nil
	}
}

// write writes plain text. Braces that could be taken for tags, in a raw block or with what follows, are written as
// expressions.
func (s *spacer) write(text string) {
	if s.literal {
		text = strings.ReplaceAll(text, "{", `{{ "{" }}`)
	} else if body, ok := strings.CutSuffix(text, "{"); ok {
		text = body + `{{ "{" }}`
	}
	s.out.WriteString(text)
}

func nextTag(text string) int {
	for i := 0; i+1 < len(text); i++ {
		if text[i] == '{' && (text[i+1] == '%' || text[i+1] == '{' || text[i+1] == '#') {
			return i
		}
	}
	return -1
}

// readTag reads the tag that text begins with and returns its length.
func readTag(text string) (t tag, size int, ok bool) {
	t.open = text[:2]
	t.closing = map[string]string{"{%": "%}", "{{": "}}", "{#": "#}"}[t.open]
	i := 2
	if i < len(text) && (text[i] == '-' || text[i] == '+' && t.open != "{{") {
		t.left = text[i]
		i++
	}
	begin, depth := i, 0
	for ; i < len(text); i++ {
		if strings.HasPrefix(text[i:], t.closing) && depth == 0 {
			break
		}
		if t.open == "{#" {
			continue
		}
		switch text[i] {
		case '\'', '"':
			i += quotedLength(text[i:]) - 1
		case '{', '(', '[':
			depth++
		case '}', ')', ']':
			depth--
		}
	}
	if i >= len(text) {
		return tag{}, 0, false
	}
	t.body = text[begin:i]
	if n := len(t.body); n > 0 && (t.body[n-1] == '-' || t.body[n-1] == '+' && t.open != "{{") {
		t.right = t.body[n-1]
		t.body = t.body[:n-1]
	}
	return t, i + len(t.closing), true
}

// quotedLength is the length of the quoted string that text begins with.
func quotedLength(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[0]:
			return i + 1
		}
	}
	return len(text)
}
