package prompt

import (
	"slices"
	"strings"
)

// The letters and numbers of Unicode 15.1 and 16 that Go's tables (Unicode 15) lack and Hugging Face's regular
// expressions have, as ranges of a character class.
const (
	newLetters = "\u1c89-\u1c8a\ua7cb-\ua7cd\ua7da-\ua7dc\U000105c0-\U000105f3\U00010d4a-\U00010d65\U00010d6f-\U00010d85" +
		"\U00010ec2-\U00010ec4\U00011380-\U00011389\U0001138b\U0001138e\U00011390-\U000113b5\U000113b7\U000113d1\U000113d3" +
		"\U00011bc0-\U00011be0\U00013460-\U000143fa\U00016100-\U0001611d\U00016d40-\U00016d6c\U00018cff\U0001e5d0-\U0001e5ed" +
		"\U0001e5f0\U0002ebf0-\U0002ee5d"
	newNumbers = "\U00010d40-\U00010d49\U000116d0-\U000116e3\U00011bf0-\U00011bf9\U00016130-\U00016139\U00016d70-\U00016d79" +
		"\U0001ccf0-\U0001ccf9\U0001e5f1-\U0001e5fa"
)

// newRanges are the same as pairs of first and last, ascending.
var newRanges = parseRanges(newLetters + newNumbers)

func parseRanges(class string) [][2]rune {
	var ranges [][2]rune
	for runes := []rune(class); len(runes) > 0; {
		if len(runes) > 2 && runes[1] == '-' {
			ranges = append(ranges, [2]rune{runes[0], runes[2]})
			runes = runes[3:]
			continue
		}
		ranges = append(ranges, [2]rune{runes[0], runes[0]})
		runes = runes[1:]
	}
	slices.SortFunc(ranges, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	return ranges
}

// hasNew reports whether text holds a character of the ranges.
func hasNew(text string) bool {
	for _, r := range text {
		if r < newRanges[0][0] {
			continue
		}
		after, exact := slices.BinarySearchFunc(newRanges, r, func(pair [2]rune, r rune) int { return int(pair[0] - r) })
		if exact || (after > 0 && r <= newRanges[after-1][1]) {
			return true
		}
	}
	return false
}

// foldLongS lets a case-insensitive 's match the long s: Unicode folds U+017F to s, regexp2 does not.
func foldLongS(pattern string) string { return strings.Replace(pattern, `(?i:'s|`, `(?i:'[sſ]|`, 1) }

// widenClasses adds the ranges to every \p{L} and \p{N} of a pattern, inside a character class or alone.
func widenClasses(pattern string) string {
	var out strings.Builder
	inClass := false
	for i := 0; i < len(pattern); i++ {
		rest := pattern[i:]
		more, property := "", ""
		switch {
		case strings.HasPrefix(rest, `\p{L}`):
			property, more = `\p{L}`, newLetters
		case strings.HasPrefix(rest, `\p{N}`):
			property, more = `\p{N}`, newNumbers
		case rest[0] == '\\' && len(rest) > 1:
			out.WriteString(rest[:2])
			i++
			continue
		case rest[0] == '[':
			inClass = true
		case rest[0] == ']':
			inClass = false
		}
		if property == "" {
			out.WriteByte(rest[0])
			continue
		}
		i += len(property) - 1
		if inClass {
			out.WriteString(property + more)
		} else {
			out.WriteString("[" + property + more + "]")
		}
	}
	return out.String()
}
