package prompt_test

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/prompt"
)

// golden is the output of testdata/make_goldens.py.
type golden struct {
	Texts   [][4]json.RawMessage // text, ids, decoded, decoded without special tokens
	Streams [][3]json.RawMessage // ids, decoded, decoded without special tokens
}

func decode[T any](t testing.TB, raw json.RawMessage) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal(raw, &v))
	return v
}

// unpack reads a .json.gz file.
func unpack[T any](t testing.TB, path string) T {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	packed, err := gzip.NewReader(file)
	require.NoError(t, err)
	var v T
	require.NoError(t, json.NewDecoder(packed).Decode(&v))
	return v
}

// folder is a checkpoint folder of the given files, with a config.json.
func folder(t testing.TB, files map[string]string) *checkpoint.Folder {
	t.Helper()
	dir := t.TempDir()
	if _, ok := files["config.json"]; !ok {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{}`), 0o600))
	}
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	f, err := checkpoint.Open(dir, func(string) string { return "" })
	require.NoError(t, err)
	return f
}

// smallJSON is the tokenizer that random checkpoints carry.
func smallJSON(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("../checkpoint/random/tokenizer.json")
	require.NoError(t, err)
	return string(data)
}

func small(t testing.TB) *prompt.Tokenizer {
	t.Helper()
	tok, err := prompt.OpenTokenizer(folder(t, map[string]string{"tokenizer.json": smallJSON(t)}))
	require.NoError(t, err)
	return tok
}

func TestEqualsHuggingFace(t *testing.T) {
	checkGolden(t, small(t), unpack[golden](t, "testdata/small.json.gz"))
}

func checkGolden(t *testing.T, tok *prompt.Tokenizer, g golden) {
	t.Helper()
	require.NotEmpty(t, g.Texts)
	for _, row := range g.Texts {
		text, want := decode[string](t, row[0]), decode[[]int64](t, row[1])
		got, err := tok.Encode(text)
		require.NoError(t, err)
		if !assert.Equal(t, want, got, "ids of %q", text) {
			continue
		}
		checkDecode(t, tok, got, decode[string](t, row[2]), decode[string](t, row[3]))
	}
	for _, row := range g.Streams {
		checkDecode(t, tok, decode[[]int64](t, row[0]), decode[string](t, row[1]), decode[string](t, row[2]))
	}
}

// The output of testdata/make_variants.py: tokenizers that are patches of the small one.
func TestVariantsEqualHuggingFace(t *testing.T) {
	type variant struct {
		Name  string
		Patch map[string]any
		Texts [][4]json.RawMessage
	}
	for _, v := range unpack[[]variant](t, "testdata/variants.json.gz") {
		t.Run(v.Name, func(t *testing.T) {
			tok, err := prompt.OpenTokenizer(folder(t, map[string]string{"tokenizer.json": patched(t, v.Patch)}))
			require.NoError(t, err)
			checkGolden(t, tok, golden{Texts: v.Texts})
		})
	}
}

// patched is the small tokenizer.json with other values; "a.b" names the key b of object a.
func patched(t testing.TB, patch map[string]any) string {
	t.Helper()
	var file map[string]any
	require.NoError(t, json.Unmarshal([]byte(smallJSON(t)), &file))
	for path, value := range patch {
		target, keys := file, strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			target = target[key].(map[string]any)
		}
		target[keys[len(keys)-1]] = value
	}
	data, err := json.Marshal(file)
	require.NoError(t, err)
	return string(data)
}

// checkDecode checks Decode, and the stream decoder fed one id at a time.
func checkDecode(t *testing.T, tok *prompt.Tokenizer, ids []int64, full, plain string) {
	t.Helper()
	assert.Equal(t, full, tok.Decode(ids, false), "text of %v", ids)
	assert.Equal(t, plain, tok.Decode(ids, true), "text of %v without special tokens", ids)
	stream, text := tok.NewStreamDecoder(true), ""
	for _, id := range ids {
		text += stream.Push(id)
	}
	assert.Equal(t, plain, text+stream.Flush(), "stream of %v", ids)
}
