package prompt

import "unicode/utf8"

// StreamDecoder decodes the token ids of one request as they come. It never emits half a character: bytes that may
// still become one wait. What it has emitted, put together, equals Decode of all ids.
type StreamDecoder struct {
	tokenizer   *Tokenizer
	skipSpecial bool
	pending     []byte // a proper prefix of a UTF-8 character, at most 3 bytes
}

// NewStreamDecoder returns a decoder; skipSpecial leaves out special tokens.
func (t *Tokenizer) NewStreamDecoder(skipSpecial bool) *StreamDecoder {
	return &StreamDecoder{tokenizer: t, skipSpecial: skipSpecial}
}

// Push returns the text that ids complete.
func (d *StreamDecoder) Push(ids ...int64) string {
	for _, id := range ids {
		d.pending = append(d.pending, d.tokenizer.bytesOf(id, d.skipSpecial)...)
	}
	text, rest := validUTF8(d.pending, false)
	d.pending = append(d.pending[:0], rest...)
	return text
}

// Flush returns what is left at the end: U+FFFD if a character was cut, else nothing.
func (d *StreamDecoder) Flush() string {
	text, _ := validUTF8(d.pending, true)
	d.pending = d.pending[:0]
	return text
}

// validUTF8 replaces each longest run of bytes that starts like a character and does not end as one, or each byte
// that cannot start one, by U+FFFD (the Unicode standard's "maximal subpart" practice). Unless final, bytes at the
// end that may still become a character are returned as rest.
func validUTF8(data []byte, final bool) (text string, rest []byte) {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r != utf8.RuneError || size > 1 {
			out = append(out, data[i:i+size]...)
			i += size
			continue
		}
		n := subpart(data[i:])
		if i+n == len(data) && !final && !utf8.FullRune(data[i:]) {
			return string(out), data[i:]
		}
		out = append(out, "\uFFFD"...)
		i += n
	}
	return string(out), nil
}

// subpart returns the length of the longest start of an invalid sequence that a valid character could begin with, at
// least 1.
func subpart(data []byte) int {
	n := 1
	for n < len(data) && n < 4 && !utf8.FullRune(data[:n]) {
		if utf8.FullRune(data[:n+1]) {
			if r, size := utf8.DecodeRune(data[:n+1]); r == utf8.RuneError && size == 1 {
				break
			}
		}
		n++
	}
	return n
}
