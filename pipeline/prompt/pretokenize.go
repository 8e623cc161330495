package prompt

import (
	"fmt"
	"strings"

	"github.com/dlclark/regexp2"
)

// The patterns of the two families of byte-level tokenizers that do not write theirs down: GPT-2's, built into the
// ByteLevel pre-tokenizer, and Qwen2's, for a checkpoint with vocab.json and merges.txt only.
const (
	patternGPT2  = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternQwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// splitter cuts a text into words: every match of the expression and every stretch between matches is one.
type splitter struct {
	expression *regexp2.Regexp
}

func newSplitter(pattern string) (*splitter, error) {
	re, err := regexp2.Compile(widenFolds(pattern), regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("pre-tokenizer pattern: %w", err)
	}
	return &splitter{expression: re}, nil
}

// widenFolds makes a case-insensitive 's match the long s too: Unicode folds U+017F to s, regexp2 does not.
func widenFolds(pattern string) string {
	return strings.Replace(pattern, `(?i:'s|`, `(?i:'[sſ]|`, 1)
}

// words calls word for each word of text, in order; together they are text.
func (s *splitter) words(text string, word func(string) error) error {
	// Matches are counted in characters; at walks the same distance in bytes.
	at, atRune := 0, 0
	advance := func(runes int) string {
		start := at
		for ; atRune < runes; atRune++ {
			at++
			for at < len(text) && text[at]&0xC0 == 0x80 {
				at++
			}
		}
		return text[start:at]
	}
	m, err := s.expression.FindStringMatch(text)
	for ; m != nil && err == nil; m, err = s.expression.FindNextMatch(m) {
		if m.Index > atRune {
			if err := word(advance(m.Index)); err != nil {
				return err
			}
		}
		if m.Length > 0 {
			if err := word(advance(m.Index + m.Length)); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return fmt.Errorf("pre-tokenize: %w", err)
	}
	if at < len(text) {
		return word(text[at:])
	}
	return nil
}
