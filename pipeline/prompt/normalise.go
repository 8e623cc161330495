package prompt

import (
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// joiner is U+034F, which x/text puts into runs of more than 30 combining marks ("stream-safe" text). Unicode's
// normal forms, and with them every other implementation, have no such limit.
const joiner = "\u034F"

// normalise brings text into a normal form.
func normalise(form norm.Form, text string) string {
	if form.IsNormalString(text) {
		return text
	}
	out := form.String(text)
	if strings.Count(out, joiner) == strings.Count(text, joiner) {
		return out
	}
	return normaliseLong(form, text)
}

// normaliseLong is the textbook algorithm: decompose, order marks by combining class, compose.
func normaliseLong(form norm.Form, text string) string {
	decompose := norm.NFD
	if form == norm.NFKC || form == norm.NFKD {
		decompose = norm.NFKD
	}
	var runes []rune
	for _, r := range text {
		if d := decompose.PropertiesString(string(r)).Decomposition(); d != nil {
			runes = append(runes, []rune(string(d))...)
		} else {
			runes = append(runes, []rune(decompose.String(string(r)))...) // Hangul has no table entry
		}
	}
	for start := 0; start < len(runes); {
		end := start + 1
		for end < len(runes) && class(runes[end]) != 0 {
			end++
		}
		marks := runes[start:end]
		if class(marks[0]) == 0 {
			marks = marks[1:]
		}
		slices.SortStableFunc(marks, func(a, b rune) int { return int(class(a)) - int(class(b)) })
		start = end
	}
	if form == norm.NFC || form == norm.NFKC {
		runes = compose(runes)
	}
	return string(runes)
}

func class(r rune) uint8 { return norm.NFD.PropertiesString(string(r)).CCC() }

// compose joins each character with the last starter before it, unless a character in between blocks it.
func compose(runes []rune) []rune {
	out := runes[:0]
	starter := -1 // in out
	var last uint8
	for _, r := range runes {
		c := class(r)
		adjacent := starter >= 0 && starter == len(out)-1
		if starter >= 0 && (adjacent || last < c) {
			if joined := []rune(norm.NFC.String(string([]rune{out[starter], r}))); len(joined) == 1 {
				out[starter] = joined[0]
				continue
			}
		}
		if c == 0 {
			starter = len(out)
		}
		last = c
		out = append(out, r)
	}
	return out
}
