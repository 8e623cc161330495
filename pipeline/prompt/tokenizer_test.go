package prompt_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/prompt"
)

// tokenizerParts are the pieces of the small tokenizer.json that the older files hold.
type tokenizerParts struct {
	AddedTokens []map[string]any `json:"added_tokens"`
	Model       struct {
		Vocab  map[string]int `json:"vocab"`
		Merges [][2]string    `json:"merges"`
	} `json:"model"`
}

func readParts(t testing.TB) tokenizerParts {
	t.Helper()
	var parts tokenizerParts
	require.NoError(t, json.Unmarshal([]byte(smallJSON(t)), &parts))
	return parts
}

// olderFiles are the small tokenizer in the layout before tokenizer.json.
func olderFiles(t testing.TB) map[string]string {
	t.Helper()
	parts := readParts(t)
	merges := "#version: 0.2\n"
	for _, m := range parts.Model.Merges {
		merges += m[0] + " " + m[1] + "\n"
	}
	added := map[string]any{}
	for _, token := range parts.AddedTokens {
		added[fmt.Sprint(token["id"])] = token
		delete(token, "id")
	}
	return map[string]string{
		"vocab.json": quoted(t, parts.Model.Vocab), "merges.txt": merges,
		"tokenizer_config.json": quoted(t, map[string]any{"added_tokens_decoder": added}),
	}
}

func TestOlderFilesEqualHuggingFace(t *testing.T) {
	tok, err := prompt.OpenTokenizer(folder(t, olderFiles(t)))
	require.NoError(t, err)
	checkGolden(t, tok, unpack[golden](t, "testdata/small.json.gz"))
}

func TestTokensOfTokenizerConfigAreAdded(t *testing.T) {
	tok, err := prompt.OpenTokenizer(folder(t, map[string]string{
		"tokenizer.json":        smallJSON(t),
		"tokenizer_config.json": `{"added_tokens_decoder":{"1602":{"content":"<|im_end|>"},"1622":{"content":"<|new|>","special":true}}}`,
	}))
	require.NoError(t, err)
	ids, err := tok.Encode("<|im_end|><|new|>")
	require.NoError(t, err)
	assert.Equal(t, []int64{1602, 1622}, ids)
	assert.Equal(t, 1623, tok.Size())
	assert.Empty(t, tok.Decode(ids, true), "the flags of tokenizer.json stay, the new token is special")
	id, ok := tok.ID("<|new|>")
	assert.True(t, ok)
	assert.Equal(t, int64(1622), id)
}

func TestTokenizerFaultsNameTheFile(t *testing.T) {
	change := func(path string, value any) map[string]string {
		return map[string]string{"tokenizer.json": patched(t, map[string]any{path: value})}
	}
	older := func(file, text string) map[string]string {
		files := olderFiles(t)
		files[file] = text
		return files
	}
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no tokenizer", nil, "has no tokenizer: want tokenizer.json, or vocab.json and merges.txt"},
		{"damaged", map[string]string{"tokenizer.json": "{"}, "tokenizer.json: unexpected end of JSON input"},
		{"another model", change("model.type", "Unigram"), `tokenizer.json: model.type is "Unigram", want BPE`},
		{"dropout", change("model.dropout", 0.1), "model.dropout is set"},
		{"byte fallback", change("model.byte_fallback", true), "not a byte-level vocabulary"},
		{"suffix", change("model.end_of_word_suffix", "</w>"), "end_of_word_suffix are not supported"},
		{"empty vocabulary", change("model.vocab", map[string]int{}), "model.vocab is empty"},
		{"negative id", change("model.vocab", map[string]int{"a": -1}), `token "a" has id -1`},
		{"huge id", change("model.vocab", map[string]int{"a": 1 << 30}), `token "a" has id 1073741824`},
		{"foreign merge", change("model.merges", []any{[]string{"no", "pe"}}), `merge 1: ["no" "pe"] or a part of it is not in the vocabulary`},
		{"damaged merge", change("model.merges", []string{"a b c"}), `merge 1: "a b c" is not two tokens`},
		{"unknown token", change("model.unk_token", "<nope>"), `model.unk_token "<nope>" is not in the vocabulary`},
		{"normalizer", change("normalizer", map[string]any{"type": "Lowercase"}), `normalizer: type "Lowercase" is not supported`},
		{"nested normalizer", change("normalizer", map[string]any{"type": "Sequence", "normalizers": []any{map[string]any{"type": "Strip"}}}), `normalizer.normalizers[0]: type "Strip"`},
		{"no pre-tokenizer", change("pre_tokenizer", nil), "pre_tokenizer is missing, want ByteLevel"},
		{"pre-tokenizer", change("pre_tokenizer", map[string]any{"type": "Metaspace"}), "pre_tokenizer step 1: want Split"},
		{"damaged pattern", change("pre_tokenizer", map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Split", "behavior": "Isolated", "pattern": map[string]any{"Regex": "("}}, map[string]any{"type": "ByteLevel"},
		}}), "pre_tokenizer step 1: pre-tokenizer pattern"},
		{"no decoder", change("decoder", nil), "decoder is missing, want ByteLevel"},
		{"decoder", change("decoder", map[string]any{"type": "WordPiece"}), `decoder: type "WordPiece" is not supported`},
		{"post-processor", change("post_processor", map[string]any{"type": "Sequence", "processors": []any{map[string]any{"type": "Template"}}}), `post_processor.processors[0]: type "Template"`},
		{"vocab.json", older("vocab.json", `{"a":`), "vocab.json: line 1"},
		{"merges.txt", older("merges.txt", "a b\nab"), `merges.txt: merge 2: "ab" is not two tokens`},
		{"tokenizer_config.json", older("tokenizer_config.json", `{"added_tokens_decoder":{"x":{"content":"y"}}}`), `tokenizer_config.json: added_tokens_decoder: "x" is not a token id`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := prompt.OpenTokenizer(folder(t, tt.files))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestTokenizerIsSafeForConcurrentUse(t *testing.T) {
	tok := small(t)
	want, err := tok.Encode("Hello, <|im_start|>\U00013928 e\u0301!")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				got, err := tok.Encode("Hello, <|im_start|>\U00013928 e\u0301!")
				assert.NoError(t, err)
				assert.Equal(t, want, got)
			}
		})
	}
	wg.Wait()
}

func TestLongInputsAreNotQuadratic(t *testing.T) {
	tok := small(t)
	for name, text := range longTexts(1 << 17) {
		t.Run(name, func(t *testing.T) {
			ids, err := tok.Encode(text)
			require.NoError(t, err)
			assert.Equal(t, text, tok.Decode(ids, false))
		})
	}
}

func TestStreamHoldsBackHalfCharacters(t *testing.T) {
	tok := small(t)
	tests := []struct {
		name  string
		bytes []byte
		want  []string // per push, then the flush
	}{
		{"a character in four", []byte("\U0001F600"), []string{"", "", "", "\U0001F600", ""}},
		{"cut at the end", []byte("\U0001F600")[:3], []string{"", "", "", "\uFFFD"}},
		{"cut by a letter", []byte{0xE4, 0xBD, 'x'}, []string{"", "", "\uFFFDx", ""}},
		{"cut by another character", []byte{0xE4, 0xE4, 0xBD, 0xA0}, []string{"", "\uFFFD", "", "\u4f60", ""}},
		{"a stray continuation", []byte{0x80, 'x'}, []string{"\uFFFD", "x", ""}},
		{"bytes that never occur", []byte{0xFF, 0xC0, 'x'}, []string{"\uFFFD", "\uFFFD", "x", ""}},
		{"a surrogate", []byte{0xED, 0xA0, 0x80}, []string{"", "\uFFFD\uFFFD", "\uFFFD", ""}},
		{"beyond Unicode", []byte{0xF4, 0x90}, []string{"", "\uFFFD\uFFFD", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tok.NewStreamDecoder(true)
			var got []string
			for _, b := range tt.bytes {
				got = append(got, d.Push(byteID(t, tok, b)))
			}
			assert.Equal(t, tt.want, append(got, d.Flush()))
			assert.Equal(t, strings.ToValidUTF8(strings.Join(tt.want, ""), ""), strings.Join(tt.want, ""))
		})
	}
}

// byteID is the token that stands for one byte, by the vocabulary's spelling of bytes: printable Latin-1 as it is, the
// others from U+0100 on.
func byteID(t testing.TB, tok *prompt.Tokenizer, b byte) int64 {
	t.Helper()
	next := rune(0x100)
	for other := range 256 {
		r := rune(other)
		if !(other >= '!' && other <= '~' || other >= 0xA1 && other <= 0xAC || other >= 0xAE) {
			r = next
			next++
		}
		if byte(other) == b {
			id, ok := tok.ID(string(r))
			require.True(t, ok, "no token for byte %#x", b)
			return id
		}
	}
	return -1
}

// FuzzOpenTokenizer reads any bytes as tokenizer.json: nothing may panic, and what is accepted encodes and decodes.
func FuzzOpenTokenizer(f *testing.F) {
	f.Add([]byte(smallJSON(f)))
	f.Add([]byte(patched(f, map[string]any{"normalizer": nil, "added_tokens": nil})))
	const levels = `"pre_tokenizer":{"type":"ByteLevel","use_regex":false},"decoder":{"type":"ByteLevel"}`
	for _, seed := range []string{
		`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`,
		`{` + levels + `,"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`,
		`{` + levels + `,"model":{"type":"BPE","unk_token":"a","fuse_unk":true,"ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`,
		`{` + levels + `,"model":{"type":"BPE","unk_token":"z","vocab":{"a":0},"merges":[]}}`,
		`{` + levels + `,"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":["a b","b a","x y"]}}`,
		`{` + levels + `,"model":{"type":"BPE","dropout":0.5,"vocab":{},"merges":[]}}`,
		`{` + levels + `,"model":{"type":"BPE","byte_fallback":true,"vocab":{},"merges":[]}}`,
		`{` + levels + `,"model":{"type":"BPE","continuing_subword_prefix":"##","vocab":{},"merges":[]}}`,
		`{` + levels + `,"normalizer":{"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"NFKC"},null]},"model":{"type":"BPE","vocab":{"H":1},"merges":[]}}`,
		`{` + levels + `,"normalizer":{"type":"Lowercase"},"post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing"}]},"model":{"type":"BPE","vocab":{},"merges":[]}}`,
		`{` + levels + `,"added_tokens":[{"id":7,"content":"<|x|>","special":true,"lstrip":true,"rstrip":true,"single_word":true,"normalized":true},{"id":7,"content":"<|y|>"},{"id":-1,"content":"<|x|>"}],"model":{"type":"BPE","vocab":{"H":1},"merges":[]}}`,
		`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","behavior":"Isolated","pattern":{"Regex":"\\p{L}+|(?=\\d)"}},{"type":"ByteLevel","add_prefix_space":true}]},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"H":1},"merges":[]}}`,
		`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","behavior":"Removed","pattern":{"String":" "}},{"type":"Split","behavior":"Isolated","pattern":{"Regex":"("}}]},"model":{"type":"BPE","vocab":{},"merges":[]}}`,
		`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[]},"decoder":null,"model":{"type":"BPE","vocab":{},"merges":["a"," b","a b c"]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":-1,"b":9223372036854775807},"merges":[["a","b"],["b"]]}}`))
	f.Add([]byte(`{"added_tokens":[{"id":3,"content":""}],"model":{"type":"BPE","vocab":{},"merges":[]}}`))
	f.Add([]byte(`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+$"}},"model":null}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := prompt.OpenTokenizer(folder(t, map[string]string{"tokenizer.json": string(data)}))
		if err != nil {
			assert.ErrorContains(t, err, "tokenizer.json")
			return
		}
		ids, err := tok.Encode("Hello, ab\u00e9!")
		if err == nil {
			tok.Decode(ids, true)
		}
		tok.Decode([]int64{-1, 0, 1, 1 << 40}, false)
	})
}

func FuzzEncodeDecode(f *testing.F) {
	for _, text := range []string{"", "Hello, world!", " \n\t ", "e\u0301\u0323", "\U0001F468\u200d\U0001F469", "<|im_start|>x<|im_en", "\xff\xfeabc", "\u0344'\u017f", "\U00013928'll"} {
		f.Add(text)
	}
	tok := small(f)
	// Without a normaliser the text itself comes back.
	exact, err := prompt.OpenTokenizer(folder(f, map[string]string{"tokenizer.json": patched(f, map[string]any{"normalizer": nil})}))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := exact.Encode(text)
		require.NoError(t, err)
		assert.Equal(t, strings.ToValidUTF8(text, "\uFFFD"), exact.Decode(ids, false))
		ids, err = tok.Encode(text)
		require.NoError(t, err)
		again, err := tok.Encode(tok.Decode(ids, false))
		require.NoError(t, err)
		assert.Equal(t, tok.Decode(ids, false), tok.Decode(again, false), "encoding decoded text changes it")
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte{0xF0, 0x9F, 0x98, 0x80}, uint8(1))
	f.Add([]byte{0xE4, 0xBD, 'x', 0xFF}, uint8(2))
	tok := small(f)
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		ids := make([]int64, len(data))
		for i, b := range data {
			ids[i] = int64(b) * int64(step%8)
		}
		d, text := tok.NewStreamDecoder(false), ""
		for _, id := range ids {
			piece := d.Push(id)
			assert.True(t, utf8.ValidString(piece), "half a character in %q", piece)
			text += piece
		}
		assert.Equal(t, tok.Decode(ids, false), text+d.Flush())
	})
}
