package prompt

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/omni-run/omni/pipeline/checkpoint"
)

// maxTokens bounds the ids that a file may name, so that a damaged file cannot ask for all memory.
const maxTokens = 1 << 22

// build makes the BPE model of a vocabulary in the byte-level spelling.
func (t *Tokenizer) build(vocab map[string]int32, merges mergeList, unknown string) error {
	if len(vocab) == 0 {
		return fmt.Errorf("model.vocab is empty")
	}
	t.ids = make(map[string]int64, len(vocab))
	t.special = map[int64]bool{}
	for token, id := range vocab {
		if err := t.place(token, int64(id)); err != nil {
			return fmt.Errorf("model.vocab: %w", err)
		}
	}
	m := &bpe{merges: make(map[uint64]merge, len(merges)), unknown: -1}
	for b := range m.bytes {
		m.bytes[b] = -1
		if id, ok := vocab[string(byteToRune[b])]; ok {
			m.bytes[b] = id
		}
	}
	if unknown != "" {
		id, ok := vocab[unknown]
		if !ok {
			return fmt.Errorf("model.unk_token %q is not in the vocabulary", unknown)
		}
		m.unknown = id
	}
	for rank, pair := range merges {
		left, okL := vocab[pair[0]]
		right, okR := vocab[pair[1]]
		both, okB := vocab[pair[0]+pair[1]]
		if !okL || !okR || !okB {
			return fmt.Errorf("merge %d: %q or a part of it is not in the vocabulary", rank+1, pair)
		}
		m.merges[pairKey(left, right)] = merge{rank: int32(rank), id: both}
	}
	t.model = m
	return nil
}

// place records that token has that id.
func (t *Tokenizer) place(token string, id int64) error {
	if id < 0 || id >= maxTokens {
		return fmt.Errorf("token %q has id %d, want 0 to %d", token, id, maxTokens-1)
	}
	if n := int(id) + 1 - len(t.tokens); n > 0 {
		t.tokens = append(t.tokens, make([]string, n)...)
	}
	t.tokens[id] = token
	t.ids[token] = id
	return nil
}

// addTokens takes the added tokens of the file, and those of more whose content the file does not add.
func (t *Tokenizer) addTokens(file, more []addedToken) error {
	all := slices.Clone(file)
	for _, token := range more {
		if !slices.ContainsFunc(file, func(f addedToken) bool { return f.Content == token.Content }) {
			all = append(all, token)
		}
	}
	var raw, normalised []*addedToken
	next := int64(len(t.ids)) // of the model's vocabulary
	for i := range all {
		token := all[i]
		// As in Hugging Face's library, the numbers in the file do not count: a token that the vocabulary has keeps
		// its id there, the others follow the vocabulary in their order.
		id, known := t.ids[token.Content]
		if !known {
			id = next
		}
		token.ID = id
		next = max(next, id+1)
		if err := t.place(token.Content, token.ID); err != nil {
			return fmt.Errorf("added_tokens: %w", err)
		}
		if token.Special {
			t.special[token.ID] = true
		}
		if !token.Normalized {
			raw = append(raw, &token)
			continue
		}
		for _, f := range t.forms {
			token.Content = normalise(f, token.Content)
		}
		normalised = append(normalised, &token)
	}
	t.raw, t.normalised = newMatcher(raw), newMatcher(normalised)
	return nil
}

// openVocabulary reads vocab.json and merges.txt, the older form of Qwen2's tokenizer: its pattern and NFC are not
// written down in the checkpoint, its added tokens are in tokenizer_config.json.
func openVocabulary(folder *checkpoint.Folder, config *tokenizerConfig) (*Tokenizer, error) {
	var vocab map[string]int32
	if err := folder.ReadJSON("vocab.json", &vocab); err != nil {
		return nil, err
	}
	data, err := folder.Read("merges.txt")
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#version") {
			continue
		}
		lines = append(lines, line)
	}
	merges, err := parseMerges(lines)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", folder.File("merges.txt"), err)
	}
	t := &Tokenizer{forms: []norm.Form{norm.NFC}, prefixAt: -1}
	if err := t.addSplitter(patternQwen2); err != nil {
		return nil, err
	}
	if config.AddPrefixSpace {
		t.prefixAt = len(t.splitters)
	}
	if err := t.build(vocab, merges, ""); err != nil {
		return nil, fmt.Errorf("%s: %w", folder.Path, err)
	}
	return t, t.addTokens(config.added(), nil)
}

// tokenizerConfig is what we use of tokenizer_config.json.
type tokenizerConfig struct {
	AddedTokensDecoder map[string]addedToken `json:"added_tokens_decoder"`
	AddPrefixSpace     bool                  `json:"add_prefix_space"`
	ChatTemplate       json.RawMessage       `json:"chat_template"`
	BOSToken           namedToken            `json:"bos_token"`
	EOSToken           namedToken            `json:"eos_token"`
	UNKToken           namedToken            `json:"unk_token"`
	PADToken           namedToken            `json:"pad_token"`
}

// namedToken reads "text", {"content":"text",...} and null.
type namedToken string

// UnmarshalJSON implements json.Unmarshaler.
func (n *namedToken) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var long struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(data, &long)
		*n = namedToken(long.Content)
		return err
	}
	var text string
	err := json.Unmarshal(data, &text)
	*n = namedToken(text)
	return err
}

// readTokenizerConfig gives an empty one if the file is absent.
func readTokenizerConfig(folder *checkpoint.Folder) (*tokenizerConfig, error) {
	c := &tokenizerConfig{}
	if !folder.Has("tokenizer_config.json") {
		return c, nil
	}
	if err := folder.ReadJSON("tokenizer_config.json", c); err != nil {
		return nil, err
	}
	for id := range c.AddedTokensDecoder {
		var n int64
		if err := json.Unmarshal([]byte(id), &n); err != nil {
			return nil, fmt.Errorf("%s: added_tokens_decoder: %q is not a token id", folder.File("tokenizer_config.json"), id)
		}
	}
	return c, nil
}

// added returns the tokens of added_tokens_decoder by ascending id.
func (c *tokenizerConfig) added() []addedToken {
	var out []addedToken
	for id, token := range c.AddedTokensDecoder {
		_ = json.Unmarshal([]byte(id), &token.ID) // checked by readTokenizerConfig
		out = append(out, token)
	}
	slices.SortFunc(out, func(a, b addedToken) int { return int(a.ID - b.ID) })
	return out
}
