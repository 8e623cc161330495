package random

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"unicode"
	"unicode/utf8"
)

// trainedJSON is the tokenizer that tokenizer/train.py has learnt from tokenizer/corpus.txt.
//
//go:embed tokenizer.json
var trainedJSON []byte

// alphabet is the number of single-byte tokens, which come first in every byte-level vocabulary.
const alphabet = 256

// An addedToken is a token outside the BPE vocabulary, in the form of tokenizer.json.
type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// tokenIDs are the ids that config.json names.
type tokenIDs struct {
	EndOfText, MessageStart, MessageEnd      int
	Audio, AudioStart, AudioEnd              int
	VisionStart, VisionEnd, VisionPad        int
	Image, Video                             int
	SpeechPad, SpeechStart, SpeechEnd, Voice int // rows of the embedding table without a token; Voice is the first speaker's
	User                                     int
}

// A tokenizer is the trained BPE cut or extended to a wanted size. Ids are positions in tokens; the added tokens
// follow.
type tokenizer struct {
	tokens []string
	merges [][2]string // merge i makes token alphabet+i
	added  []addedToken
	parts  map[string]json.RawMessage // the other members of tokenizer.json: normalizer, pre_tokenizer, decoder, ...
	model  map[string]json.RawMessage // the other members of its model
}

// newTokenizer returns a tokenizer whose BPE vocabulary has the wanted number of tokens.
func newTokenizer(size int) (*tokenizer, error) {
	t := &tokenizer{}
	if err := t.parse(trainedJSON); err != nil {
		return nil, fmt.Errorf("embedded tokenizer.json: %w", err)
	}
	if size < alphabet {
		return nil, fmt.Errorf("a vocabulary of %d tokens: the %d bytes must fit", size, alphabet)
	}
	if size < len(t.tokens) {
		t.tokens, t.merges = t.tokens[:size], t.merges[:size-alphabet]
	}
	t.extend(size)
	if len(t.tokens) != size {
		return nil, fmt.Errorf("a vocabulary of %d tokens: the trained one can be extended to %d", size, len(t.tokens))
	}
	for i := range t.added {
		t.added[i].ID = size + i
	}
	return t, nil
}

// parse takes tokenizer.json apart.
func (t *tokenizer) parse(data []byte) error {
	if err := json.Unmarshal(data, &t.parts); err != nil {
		return err
	}
	var vocabulary map[string]int
	if err := json.Unmarshal(t.parts["model"], &t.model); err != nil {
		return err
	}
	for _, part := range []struct {
		from map[string]json.RawMessage
		name string
		into any
	}{{t.parts, "added_tokens", &t.added}, {t.model, "vocab", &vocabulary}, {t.model, "merges", &t.merges}} {
		if err := json.Unmarshal(part.from[part.name], part.into); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	t.tokens = make([]string, len(vocabulary))
	for token, id := range vocabulary {
		t.tokens[id] = token
	}
	for i, merge := range t.merges {
		if got := merge[0] + merge[1]; t.tokens[alphabet+i] != got {
			return fmt.Errorf("merge %d makes %q, token %d is %q", i, got, alphabet+i, t.tokens[alphabet+i])
		}
	}
	return nil
}

// extend appends tokens until there are size of them: every one is two trained words in a row, made by a merge of
// lowest rank, so that a vocabulary of real size stays a real BPE.
func (t *tokenizer) extend(size int) {
	if size <= len(t.tokens) {
		return
	}
	known := map[string]bool{}
	var words []string
	for _, token := range t.tokens {
		known[token] = true
		if isWord(token) {
			words = append(words, token)
		}
	}
	const exhausted = 1000 // draws in a row that found nothing new
	source := rand.New(rand.NewPCG(1, 2))
	for misses := 0; len(t.tokens) < size && misses < exhausted; misses++ {
		first, second := words[source.IntN(len(words))], words[source.IntN(len(words))]
		joined := first + second
		if strings.HasPrefix(second, blank) || known[joined] {
			continue
		}
		misses = 0
		known[joined] = true
		t.tokens = append(t.tokens, joined)
		t.merges = append(t.merges, [2]string{first, second})
	}
}

// blank is the byte-level spelling of a space.
const blank = "Ġ"

// isWord says whether a token is written with ASCII letters only, after an optional space.
func isWord(token string) bool {
	letters := strings.TrimPrefix(token, blank)
	for i := range len(letters) {
		if letters[i] >= utf8.RuneSelf || !unicode.IsLetter(rune(letters[i])) {
			return false
		}
	}
	return letters != ""
}

// ids returns the ids that config.json names. As in the released files there are gaps between the last token and the
// ids of the speech text tokens, and between those and the speakers'.
func (t *tokenizer) ids() tokenIDs {
	byName := map[string]int{}
	for _, token := range t.added {
		byName[token.Content] = token.ID
	}
	end := len(t.tokens) + len(t.added)
	gap, voiceGap := 2, 3
	if len(t.tokens) == releasedVocabulary {
		gap, voiceGap = releasedSpeechPad-end, releasedVoice-releasedSpeechPad-3
	}
	ids := tokenIDs{
		EndOfText: byName["<|endoftext|>"], MessageStart: byName["<|im_start|>"], MessageEnd: byName["<|im_end|>"],
		Audio: byName["<|AUDIO|>"], AudioStart: byName["<|audio_bos|>"], AudioEnd: byName["<|audio_eos|>"],
		VisionStart: byName["<|vision_bos|>"], VisionEnd: byName["<|vision_eos|>"], VisionPad: byName["<|vision_pad|>"],
		Image: byName["<|IMAGE|>"], Video: byName["<|VIDEO|>"],
		SpeechPad: end + gap, SpeechStart: end + gap + 1, SpeechEnd: end + gap + 2, Voice: end + gap + 3 + voiceGap,
	}
	for id, token := range t.tokens {
		if token == "user" {
			ids.User = id
		}
	}
	return ids
}

// With the released vocabulary's size every id is the released one.
const (
	releasedVocabulary = 151643
	releasedSpeechPad  = 151859
	releasedVoice      = 151870
)

// files returns tokenizer.json, vocab.json and merges.txt.
func (t *tokenizer) files(pairs bool) (map[string][]byte, error) {
	vocabulary := make(map[string]int, len(t.tokens))
	for id, token := range t.tokens {
		vocabulary[token] = id
	}
	lines := make([]string, len(t.merges))
	for i, merge := range t.merges {
		lines[i] = merge[0] + " " + merge[1]
	}
	model := map[string]any{}
	for name, value := range t.model {
		model[name] = value
	}
	model["vocab"], model["merges"] = vocabulary, lines
	if pairs {
		model["merges"] = t.merges
	}
	whole := map[string]any{}
	for name, value := range t.parts {
		whole[name] = value
	}
	whole["added_tokens"], whole["model"] = t.added, model
	files := map[string][]byte{"merges.txt": []byte("#version: 0.2\n" + strings.Join(lines, "\n") + "\n")}
	for name, value := range map[string]any{"tokenizer.json": whole, "vocab.json": vocabulary} {
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = text.Bytes()
	}
	return files, nil
}
