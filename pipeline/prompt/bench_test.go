package prompt_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// longTexts are inputs of about size bytes. At a megabyte a careless implementation takes minutes for most of them.
func longTexts(size int) map[string]string {
	fill := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	return map[string]string{
		"prose":       fill("The quick brown fox jumps over the lazy dog, 42 times; don't ask why.\n"),
		"one word":    fill("abcdefghij"),
		"one letter":  fill("a"),
		"spaces":      fill(" "),
		"lines":       fill("\n"),
		"space lines": fill(" \n"),
		"punctuation": fill("!?.,"),
		"Chinese":     fill("你好世界"),
		"emoji":       fill("😀👩‍👩‍👧"),
		"marks":       "\u00e9" + fill("\u0301"),
		"added":       fill("<|im_start|>x<|im_end|>"),
		"near added":  fill("<|im_star"),
	}
}

func BenchmarkEncode(b *testing.B) {
	tok := small(b)
	for name, text := range longTexts(1 << 20) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, err := tok.Encode(text)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := small(b)
	ids, err := tok.Encode(longTexts(1 << 20)["prose"])
	require.NoError(b, err)
	for b.Loop() {
		tok.Decode(ids, true)
	}
}
