package schema

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// appendUnescaped appends the text that the inside of a JSON string stands for.
// It reports false if that is no valid UTF-8 text: an invalid byte, half of a
// surrogate pair, or an escape that JSON does not have.
func appendUnescaped(dst, inner []byte) ([]byte, bool) {
	start := len(dst)
	for i := 0; i < len(inner); {
		if inner[i] != '\\' {
			dst = append(dst, inner[i])
			i++
			continue
		}
		r, size := unescape(inner[i:])
		if size == 0 {
			return dst[:start], false
		}
		dst = utf8.AppendRune(dst, r)
		i += size
	}
	if !utf8.Valid(dst[start:]) {
		return dst[:start], false
	}
	return dst, true
}

// unescape reads the escape, or the pair of them, that text begins with. size
// is 0 if it stands for no character.
func unescape(text []byte) (r rune, size int) {
	if len(text) < 2 {
		return 0, 0
	}
	switch c := text[1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return unescapeUnicode(text)
	}
	return 0, 0
}

const unicodeEscapeBytes = len(`\u0000`)

func unescapeUnicode(text []byte) (r rune, size int) {
	r, ok := hexRune(text)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, unicodeEscapeBytes
	}
	low, ok := hexRune(text[unicodeEscapeBytes:])
	if !ok {
		return 0, 0
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, 0
	}
	return r, 2 * unicodeEscapeBytes
}

// hexRune reads the four digits of the \uXXXX that text begins with.
func hexRune(text []byte) (r rune, ok bool) {
	if len(text) < unicodeEscapeBytes || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:unicodeEscapeBytes] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= lower(c) && lower(c) <= 'f':
			c = lower(c) - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendVisible appends text with each invalid UTF-8 byte written as \xNN, so
// that nothing of it is lost where only valid text may stand.
func appendVisible(dst, text []byte) []byte {
	const digits = "0123456789abcdef"
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, '\\', 'x', digits[text[0]>>4], digits[text[0]&15])
		} else {
			dst = append(dst, text[:size]...)
		}
		text = text[size:]
	}
	return dst
}

// The pieces of Avro's binary encoding that an event consists of.
const (
	unionNull  = 0 // branch 0, as a zigzag varint
	unionValue = 2 // branch 1
)

// appendLong appends a zigzag varint, which is Avro's int and long.
func appendLong(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

// appendText appends an Avro string.
func appendText(dst, text []byte) []byte {
	if len(text) < 64 {
		dst = append(dst, byte(len(text)<<1))
	} else {
		dst = appendLong(dst, int64(len(text)))
	}
	return append(dst, text...)
}
