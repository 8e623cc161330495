package prompt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/text/unicode/norm"
)

// Where x/text adds nothing, the textbook algorithm must give the same.
func TestTextbookNormalisationEqualsTheLibrary(t *testing.T) {
	texts := []string{
		"", "plain", "e\u0301", "\u1e9b\u0323", "\u212b\u2126\ufb01", "\u0344", "\u1100\u1161\u11a8\uac00\u11a8", "a\u0323\u0307b\u0307\u0323",
		"\u0301\u0300a", "\u0b47\u0300\u0b3e", "\u0958\u2adc", "\U0001d15e\U0001d15f", "\u00bd\u2167\u33ff", "a\u034f\u0301", "\u0f71\u0f72\u0f80",
	}
	for low := rune(0x20); low < 0x3400; low += 7 {
		texts = append(texts, string([]rune{low, 0x0327, low + 3, 0x0301, 0x0323, low ^ 0x1F}))
	}
	for _, form := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
		for _, text := range texts {
			text = strings.ToValidUTF8(text, "")
			assert.Equal(t, form.String(text), normaliseLong(form, text), "form %d of %+q", form, text)
		}
	}
}

func TestNormalisationHasNoLimitOfMarks(t *testing.T) {
	marks := strings.Repeat("\u0301", 100)
	assert.Equal(t, "\u00e9"+marks[2:], normalise(norm.NFC, "e"+marks))
	assert.Equal(t, "e"+marks, normalise(norm.NFD, "\u00e9"+marks[2:]))
	assert.Equal(t, strings.Repeat("\u0323", 50)+strings.Repeat("\u0301", 50), normalise(norm.NFD, strings.Repeat("\u0301\u0323", 50)))
}
