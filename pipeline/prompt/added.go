package prompt

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is cut out of the text before the model sees it.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only between non-word characters
	LStrip     bool   `json:"lstrip"`      // swallows white space on its left
	RStrip     bool   `json:"rstrip"`      // swallows white space on its right
	Normalized bool   `json:"normalized"`  // looked for in the normalised text, not in the raw text
	Special    bool   `json:"special"`     // left out of decoded text
}

// matcher finds added tokens in a text: the leftmost, and of those the longest.
type matcher struct {
	root  *trieNode
	first [256]bool // bytes that some token starts with
}

type trieNode struct {
	next  map[byte]*trieNode
	token *addedToken
}

// newMatcher returns nil if there are no tokens.
func newMatcher(tokens []*addedToken) *matcher {
	var m *matcher
	for _, t := range tokens {
		if t.Content == "" {
			continue
		}
		if m == nil {
			m = &matcher{root: &trieNode{}}
		}
		m.first[t.Content[0]] = true
		n := m.root
		for i := range len(t.Content) {
			child := n.next[t.Content[i]]
			if child == nil {
				child = &trieNode{}
				if n.next == nil {
					n.next = map[byte]*trieNode{}
				}
				n.next[t.Content[i]] = child
			}
			n = child
		}
		n.token = t
	}
	return m
}

// longestAt returns the longest token that text starts with.
func (m *matcher) longestAt(text string) *addedToken {
	var found *addedToken
	n := m.root
	for i := range len(text) {
		n = n.next[text[i]]
		if n == nil {
			break
		}
		if n.token != nil {
			found = n.token
		}
	}
	return found
}

// split calls plain with the stretches of text between added tokens and added with the tokens, in order. A nil
// matcher finds nothing.
func (m *matcher) split(text string, plain func(string), added func(*addedToken)) {
	done := 0 // everything before was handed out
	for i := 0; m != nil && i < len(text); {
		if !m.first[text[i]] {
			i++
			continue
		}
		t := m.longestAt(text[i:])
		if t == nil {
			i++
			continue
		}
		start, stop := i, i+len(t.Content)
		i = stop
		if t.SingleWord && (endsInWord(text[:start]) || startsWithWord(text[stop:])) {
			continue
		}
		if t.LStrip {
			start = max(done, len(strings.TrimRightFunc(text[:start], unicode.IsSpace)))
		}
		if t.RStrip {
			stop = len(text) - len(strings.TrimLeftFunc(text[stop:], unicode.IsSpace))
		}
		if done < start {
			plain(text[done:start])
		}
		added(t)
		done = stop
	}
	if done < len(text) {
		plain(text[done:])
	}
}

func endsInWord(text string) bool {
	r, size := utf8.DecodeLastRuneInString(text)
	return size > 0 && isWord(r)
}

func startsWithWord(text string) bool {
	r, size := utf8.DecodeRuneInString(text)
	return size > 0 && isWord(r)
}

// isWord is \w of Unicode regular expressions.
func isWord(r rune) bool {
	return r == 0x200C || r == 0x200D ||
		unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Pc, unicode.Other_Alphabetic, unicode.Nl)
}
