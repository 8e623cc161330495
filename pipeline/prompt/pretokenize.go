package prompt

import (
	"fmt"

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
	usual *regexp2.Regexp
	wide  *regexp2.Regexp // with the letters and numbers that Go does not know; slower
}

func newSplitter(pattern string) (*splitter, error) {
	pattern = foldLongS(pattern)
	usual, err := regexp2.Compile(pattern, regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("pre-tokenizer pattern: %w", err)
	}
	wide, err := regexp2.Compile(widenClasses(pattern), regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("pre-tokenizer pattern: %w", err)
	}
	return &splitter{usual: usual, wide: wide}, nil
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
	expression := s.usual
	if hasNew(text) {
		expression = s.wide
	}
	m, err := expression.FindStringMatch(text)
	for ; m != nil && err == nil; m, err = expression.FindNextMatch(m) {
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
