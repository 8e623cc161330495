package prompt

import "unicode/utf8"

// A byte-level vocabulary spells every byte as a visible character: printable Latin-1 bytes stand for themselves,
// the others for U+0100 onwards in their order.
var byteToRune, runeToByte = byteTables()

func byteTables() (toRune [256]rune, toByte map[rune]byte) {
	toByte = make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		visible := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE
		if !visible {
			r = next
			next++
		}
		toRune[b] = r
		toByte[r] = byte(b)
	}
	return toRune, toByte
}

// tokenBytes undoes the byte-level spelling. A token with any character that spells no byte (an added token in plain
// text) stands for its own UTF-8.
func tokenBytes(token string) []byte {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		b, ok := runeToByte[r]
		if !ok {
			return []byte(token)
		}
		out = append(out, b)
	}
	return out
}

// visible spells bytes as characters.
func visible(text []byte) string {
	out := make([]byte, 0, 2*len(text))
	for _, b := range text {
		out = utf8.AppendRune(out, byteToRune[b])
	}
	return string(out)
}
