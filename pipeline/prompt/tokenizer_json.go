package prompt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// tokenizerFile is what we use of tokenizer.json.
type tokenizerFile struct {
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         struct {
		Type         string           `json:"type"`
		Dropout      *float64         `json:"dropout"`
		UnkToken     *string          `json:"unk_token"`
		Prefix       *string          `json:"continuing_subword_prefix"`
		Suffix       *string          `json:"end_of_word_suffix"`
		FuseUnk      bool             `json:"fuse_unk"`
		ByteFallback bool             `json:"byte_fallback"`
		IgnoreMerges bool             `json:"ignore_merges"`
		Vocab        map[string]int32 `json:"vocab"`
		Merges       mergeList        `json:"merges"`
	} `json:"model"`
}

// mergeList reads both forms of merges: "left right", and ["left","right"].
type mergeList [][2]string

// UnmarshalJSON implements json.Unmarshaler.
func (m *mergeList) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if !bytes.HasPrefix(bytes.TrimSpace(bytes.TrimPrefix(data, []byte("["))), []byte(`"`)) {
		var pairs [][2]string
		if err := json.Unmarshal(data, &pairs); err != nil {
			return err
		}
		*m = pairs
		return nil
	}
	var lines []string
	if err := json.Unmarshal(data, &lines); err != nil {
		return err
	}
	pairs, err := parseMerges(lines)
	*m = pairs
	return err
}

func parseMerges(lines []string) (mergeList, error) {
	pairs := make(mergeList, 0, len(lines))
	for i, line := range lines {
		left, right, ok := strings.Cut(line, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") {
			return nil, fmt.Errorf("merge %d: %q is not two tokens with a space between", i+1, line)
		}
		pairs = append(pairs, [2]string{left, right})
	}
	return pairs, nil
}

// parseTokenizer reads tokenizer.json. more are added tokens from elsewhere, used where the file has none of that
// content.
func parseTokenizer(data []byte, more []addedToken) (*Tokenizer, error) {
	var file tokenizerFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	m := file.Model
	switch {
	case m.Type != "BPE" && !(m.Type == "" && m.Merges != nil):
		return nil, fmt.Errorf("model.type is %q, want BPE", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, errors.New("model.dropout is set: the same text would not always give the same ids")
	case m.ByteFallback:
		return nil, errors.New("model.byte_fallback is set: not a byte-level vocabulary")
	case m.Prefix != nil && *m.Prefix != "", m.Suffix != nil && *m.Suffix != "":
		return nil, errors.New("model.continuing_subword_prefix and end_of_word_suffix are not supported")
	}
	t := &Tokenizer{prefixAt: -1}
	err := errors.Join(
		t.readNormalizer(file.Normalizer, "normalizer"),
		t.readPreTokenizer(file.PreTokenizer),
		checkByteLevel(file.PostProcessor, "post_processor", true),
		checkByteLevel(file.Decoder, "decoder", false),
	)
	if err != nil {
		return nil, err
	}
	unknown := ""
	if m.UnkToken != nil {
		unknown = *m.UnkToken
	}
	if err := t.build(m.Vocab, m.Merges, unknown); err != nil {
		return nil, err
	}
	t.model.fuse = m.FuseUnk
	if m.IgnoreMerges {
		t.model.whole = m.Vocab
	}
	return t, t.addTokens(file.AddedTokens, more)
}

// component is a node of the normalizer, pre_tokenizer, post_processor or decoder.
type component struct {
	Type          string            `json:"type"`
	Normalizers   []json.RawMessage `json:"normalizers"`
	PreTokenizers []json.RawMessage `json:"pretokenizers"`
	Processors    []json.RawMessage `json:"processors"`
	Pattern       struct {
		Regex  *string
		String *string
	} `json:"pattern"`
	Behavior       string `json:"behavior"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	UseRegex       *bool  `json:"use_regex"`
}

// readComponent returns nil for an absent component.
func readComponent(raw json.RawMessage, where string) (*component, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil // absent is a valid value of these four
	}
	c := &component{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return c, nil
}

func (t *Tokenizer) readNormalizer(raw json.RawMessage, where string) error {
	c, err := readComponent(raw, where)
	if c == nil {
		return err
	}
	switch c.Type {
	case "Sequence":
		for i, n := range c.Normalizers {
			if err := t.readNormalizer(n, fmt.Sprintf("%s.normalizers[%d]", where, i)); err != nil {
				return err
			}
		}
	case "NFC":
		t.forms = append(t.forms, norm.NFC)
	case "NFD":
		t.forms = append(t.forms, norm.NFD)
	case "NFKC":
		t.forms = append(t.forms, norm.NFKC)
	case "NFKD":
		t.forms = append(t.forms, norm.NFKD)
	default:
		return fmt.Errorf("%s: type %q is not supported, want NFC, NFD, NFKC, NFKD or a Sequence of them", where, c.Type)
	}
	return nil
}

// readPreTokenizer accepts any number of Split steps and then ByteLevel.
func (t *Tokenizer) readPreTokenizer(raw json.RawMessage) error {
	const where = "pre_tokenizer"
	c, err := readComponent(raw, where)
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("%s is missing, want ByteLevel", where)
	}
	steps := []json.RawMessage{raw}
	if c.Type == "Sequence" {
		steps = c.PreTokenizers
	}
	for i, step := range steps {
		at := fmt.Sprintf("%s step %d", where, i+1)
		s, err := readComponent(step, at)
		if err != nil {
			return err
		}
		last := i == len(steps)-1
		switch {
		case s != nil && s.Type == "ByteLevel" && last:
			if s.AddPrefixSpace {
				t.prefixAt = len(t.splitters)
			}
			if s.UseRegex == nil || *s.UseRegex {
				err = t.addSplitter(patternGPT2)
			}
		case s != nil && s.Type == "Split" && !last && s.Behavior == "Isolated" && s.Pattern.Regex != nil:
			err = t.addSplitter(*s.Pattern.Regex)
		default:
			err = errors.New("want Split (behavior Isolated, pattern Regex) steps and then one ByteLevel")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
	}
	return nil
}

func (t *Tokenizer) addSplitter(pattern string) error {
	s, err := newSplitter(pattern)
	if err != nil {
		return err
	}
	t.splitters = append(t.splitters, s)
	return nil
}

// checkByteLevel accepts the ByteLevel component, which changes no ids and is what Decode does. A post-processor
// may be absent.
func checkByteLevel(raw json.RawMessage, where string, optional bool) error {
	c, err := readComponent(raw, where)
	switch {
	case err != nil:
		return err
	case c == nil && optional:
		return nil
	case c != nil && c.Type == "ByteLevel":
		return nil
	case c != nil && optional && c.Type == "Sequence":
		for i, p := range c.Processors {
			if err := checkByteLevel(p, fmt.Sprintf("%s.processors[%d]", where, i), true); err != nil {
				return err
			}
		}
		return nil
	case c == nil:
		return fmt.Errorf("%s is missing, want ByteLevel", where)
	}
	return fmt.Errorf("%s: type %q is not supported, want ByteLevel", where, c.Type)
}
