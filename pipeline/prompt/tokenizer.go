package prompt

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/omni-run/omni/pipeline/checkpoint"
)

// Tokenizer is a byte-level BPE tokenizer.
type Tokenizer struct {
	raw        *matcher // added tokens of the raw text
	normalised *matcher // added tokens of the normalised text
	forms      []norm.Form
	splitters  []*splitter
	prefixAt   int // before this splitter a piece that does not start with a space gets one; -1 for never
	model      *bpe

	tokens  []string // by id; "" where there is none
	ids     map[string]int64
	special map[int64]bool
}

// OpenTokenizer reads the tokenizer of a checkpoint: tokenizer.json, or else vocab.json with merges.txt. Tokens that
// only tokenizer_config.json adds are added too.
func OpenTokenizer(folder *checkpoint.Folder) (*Tokenizer, error) {
	config, err := readTokenizerConfig(folder)
	if err != nil {
		return nil, err
	}
	data, err := folder.Read("tokenizer.json")
	if err == nil {
		t, err := parseTokenizer(data, config.added())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", folder.File("tokenizer.json"), err)
		}
		return t, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !folder.Has("vocab.json") || !folder.Has("merges.txt") {
		return nil, fmt.Errorf("checkpoint %s has no tokenizer: want tokenizer.json, or vocab.json and merges.txt", folder.Path)
	}
	return openVocabulary(folder, config)
}

// Encode returns the token ids of text. Added tokens written out in the text become their ids. Bytes that are not
// UTF-8 count as U+FFFD.
func (t *Tokenizer) Encode(text string) ([]int64, error) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	ids := make([]int64, 0, len(text)/3+8)
	var fault error
	add := func(token *addedToken) { ids = append(ids, token.ID) }
	t.raw.split(text, func(plain string) {
		for _, f := range t.forms {
			plain = normalise(f, plain)
		}
		t.normalised.split(plain, func(plain string) {
			if fault == nil {
				ids, fault = t.encodePlain(ids, plain)
			}
		}, add)
	}, add)
	if fault != nil {
		return nil, fault
	}
	return ids, nil
}

// encodePlain appends the ids of normalised text without added tokens.
func (t *Tokenizer) encodePlain(ids []int64, text string) ([]int64, error) {
	err := t.words(text, 0, func(word string) error {
		ids = t.model.encode(ids, []byte(word))
		return nil
	})
	return ids, err
}

// words applies the splitters one after the other.
func (t *Tokenizer) words(text string, level int, word func(string) error) error {
	if level == t.prefixAt && !strings.HasPrefix(text, " ") {
		text = " " + text
	}
	if level == len(t.splitters) {
		return word(text)
	}
	return t.splitters[level].words(text, func(w string) error { return t.words(w, level+1, word) })
}

// Decode returns the text of ids. Ids that name no token give nothing, as in Hugging Face's tokenizers; bytes that
// are not UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []int64, skipSpecial bool) string {
	d := t.NewStreamDecoder(skipSpecial)
	return d.Push(ids...) + d.Flush()
}

// ID returns the id of a token as the vocabulary spells it, or of an added token.
func (t *Tokenizer) ID(token string) (int64, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Size is one more than the largest id.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// bytesOf returns what a token adds to the text.
func (t *Tokenizer) bytesOf(id int64, skipSpecial bool) []byte {
	if id < 0 || id >= int64(len(t.tokens)) || (skipSpecial && t.special[id]) {
		return nil
	}
	return tokenBytes(t.tokens[id])
}
