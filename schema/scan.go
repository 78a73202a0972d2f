package schema

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"cdrbus/internal/cdr"
)

// The scanner of the feed's JSON. It finds where values begin and end and
// leaves their meaning to the caller, so nothing is copied or allocated.
//
// Outside strings it is as strict as RFC 8259. Inside strings it takes any byte
// but an unescaped quote: names typed by customers must not be able to make a
// whole page unreadable. What such a string is worth is decided per value.

// tokenKind tells the JSON values apart.
type tokenKind uint8

const (
	tokenNull tokenKind = iota
	tokenTrue
	tokenFalse
	tokenNumber
	tokenString
	tokenNested // object or array
)

// textFlags says what a string holds besides plain ASCII.
type textFlags uint8

const (
	hasEscape   textFlags = 1 << iota // a backslash
	hasNonASCII                       // a byte of 0x80 or above
)

// jsonValue is where one JSON value stands in the page.
type jsonValue struct {
	start, end int // its JSON text is page[start:end], quotes included
	kind       tokenKind
	flags      textFlags // of a string
}

// text returns the JSON text of the value.
func (v *jsonValue) text(page []byte) []byte { return page[v.start:v.end] }

// inner returns what stands between the quotes of a string.
func (v *jsonValue) inner(page []byte) []byte { return page[v.start+1 : v.end-1] }

// syntaxError says where a page stops being JSON. It quotes nothing of it:
// pages hold personal data.
type syntaxError struct {
	at    int
	bytes int // size of the page
	want  string
}

func (e *syntaxError) Error() string {
	if e.at >= e.bytes {
		return fmt.Sprintf("read page: cut after %d bytes: want %s", e.bytes, e.want)
	}
	return fmt.Sprintf("read page: byte %d of %d: want %s", e.at, e.bytes, e.want)
}

func (e *syntaxError) Unwrap() error { return cdr.ErrMalformedPage }

func malformed(page []byte, at int, want string) error {
	return &syntaxError{at: at, bytes: len(page), want: want}
}

// skipSpace returns the first place at or after i that is not white space.
func skipSpace(page []byte, i int) int {
	for i < len(page) && page[i] <= ' ' {
		switch page[i] {
		case ' ', '\n', '\r', '\t':
			i++
		default:
			return i
		}
	}
	return i
}

// byteAt reports whether page[i] is c; false beyond the end.
func byteAt(page []byte, i int, c byte) bool { return i < len(page) && page[i] == c }

// Eight bytes at a time: see "Determine if a word has a byte equal to n" in
// Anderson's Bit Twiddling Hacks. The lowest byte found is always a true one.
const (
	lowBits     = 0x0101010101010101
	highBits    = 0x8080808080808080
	quotes      = lowBits * '"'
	backslashes = lowBits * '\\'
)

// scanString returns the place of the quote that closes the string whose
// inside begins at i. It fails only where the page is cut.
func scanString(page []byte, i int) (closing int, flags textFlags, err error) {
	for i+8 <= len(page) {
		word := binary.LittleEndian.Uint64(page[i:])
		quote, slash := word^quotes, word^backslashes
		found := ((quote-lowBits)&^quote | (slash-lowBits)&^slash) & highBits
		if found == 0 {
			if word&highBits != 0 {
				flags |= hasNonASCII
			}
			i += 8
			continue
		}
		if word&(found&-found-1)&highBits != 0 {
			flags |= hasNonASCII
		}
		i += bits.TrailingZeros64(found) / 8
		if page[i] == '"' {
			return i, flags, nil
		}
		flags |= hasEscape
		i++
		if i < len(page) && page[i] >= 0x80 {
			flags |= hasNonASCII
		}
		i++
	}
	return scanStringTail(page, i, flags)
}

// scanStringTail is scanString for the last bytes of a page.
func scanStringTail(page []byte, i int, flags textFlags) (int, textFlags, error) {
	for ; i < len(page); i++ {
		switch c := page[i]; {
		case c == '"':
			return i, flags, nil
		case c == '\\':
			flags |= hasEscape
			i++
			if i < len(page) && page[i] >= 0x80 {
				flags |= hasNonASCII
			}
		case c >= 0x80:
			flags |= hasNonASCII
		}
	}
	return 0, 0, malformed(page, len(page), "the end of a string")
}

// scanNumber returns the end of the number that begins at i.
func scanNumber(page []byte, i int) (end int, err error) {
	if byteAt(page, i, '-') {
		i++
	}
	switch {
	case byteAt(page, i, '0'):
		i++
	default:
		if i, err = scanDigits(page, i); err != nil {
			return 0, err
		}
	}
	if byteAt(page, i, '.') {
		if i, err = scanDigits(page, i+1); err != nil {
			return 0, err
		}
	}
	if byteAt(page, i, 'e') || byteAt(page, i, 'E') {
		i++
		if byteAt(page, i, '+') || byteAt(page, i, '-') {
			i++
		}
		if i, err = scanDigits(page, i); err != nil {
			return 0, err
		}
	}
	return i, nil
}

// scanDigits returns the end of a run of at least one digit.
func scanDigits(page []byte, i int) (end int, err error) {
	start := i
	for i < len(page) && isDigit(page[i]) {
		i++
	}
	if i == start {
		return 0, malformed(page, i, "a digit")
	}
	return i, nil
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// scanScalar reads the value at i unless it is an object or an array.
func scanScalar(page []byte, i int) (v jsonValue, err error) {
	if i >= len(page) {
		return v, malformed(page, i, "a value")
	}
	v.start = i
	switch c := page[i]; {
	case c == '"':
		v.kind = tokenString
		v.end, v.flags, err = scanString(page, i+1)
		v.end++
	case c == '-' || isDigit(c):
		v.kind = tokenNumber
		v.end, err = scanNumber(page, i)
	case c == 't':
		v.kind = tokenTrue
		v.end, err = scanLiteral(page, i, "true")
	case c == 'f':
		v.kind = tokenFalse
		v.end, err = scanLiteral(page, i, "false")
	case c == 'n':
		v.kind = tokenNull
		v.end, err = scanLiteral(page, i, "null")
	default:
		err = malformed(page, i, "a value")
	}
	return v, err
}

func scanLiteral(page []byte, i int, literal string) (end int, err error) {
	end = i + len(literal)
	if end > len(page) {
		return 0, malformed(page, len(page), literal)
	}
	if string(page[i:end]) != literal {
		return 0, malformed(page, i, literal)
	}
	return end, nil
}

// scanKey reads a key at i and the colon behind it; next is where its value
// begins.
func scanKey(page []byte, i int) (key jsonValue, next int, err error) {
	if !byteAt(page, i, '"') {
		return key, 0, malformed(page, i, "a key")
	}
	if key, err = scanScalar(page, i); err != nil {
		return key, 0, err
	}
	next, err = scanColon(page, key.end)
	return key, next, err
}

// scanColon returns where the value behind a colon begins.
func scanColon(page []byte, i int) (next int, err error) {
	if i = skipSpace(page, i); !byteAt(page, i, ':') {
		return 0, malformed(page, i, "a colon")
	}
	return skipSpace(page, i+1), nil
}

// maxDepth is how many objects and arrays may stand inside each other, as many
// as encoding/json takes. An item nested deeper is a dead letter.
const maxDepth = 10_000

// nesting checks nested values without recursion: one bit for each open
// bracket says whether it is an object's.
type nesting struct {
	objects [maxDepth/64 + 1]uint64
	depth   int
	tooDeep bool // a value went below maxDepth; it was only matched for brackets
}

func (n *nesting) push(object bool) {
	word, bit := n.depth/64, uint64(1)<<(n.depth%64)
	n.objects[word] &^= bit
	if object {
		n.objects[word] |= bit
	}
	n.depth++
}

// inObject reports whether the innermost open bracket is an object's.
func (n *nesting) inObject() bool {
	top := n.depth - 1
	return n.objects[top/64]>>(top%64)&1 == 1
}

// scanValue reads any value at i. Whether one was nested too deep is left in
// n.tooDeep.
func (n *nesting) scanValue(page []byte, i int) (jsonValue, error) {
	if !byteAt(page, i, '{') && !byteAt(page, i, '[') {
		return scanScalar(page, i)
	}
	start := i
	n.depth = 0
	for {
		var err error
		if i, err = n.open(page, i); err != nil {
			return jsonValue{}, err
		}
		if i, err = n.close(page, i); err != nil {
			return jsonValue{}, err
		}
		if n.depth == 0 {
			return jsonValue{start: start, end: i, kind: tokenNested}, nil
		}
		if i, err = n.member(page, skipSpace(page, i+1)); err != nil {
			return jsonValue{}, err
		}
	}
}

// open reads the value at i down to its first scalar or empty bracket, and
// returns the place behind that. What it opened stays open.
func (n *nesting) open(page []byte, i int) (next int, err error) {
	for byteAt(page, i, '{') || byteAt(page, i, '[') {
		if n.depth == maxDepth {
			n.tooDeep = true
			return matchBrackets(page, i)
		}
		n.push(page[i] == '{')
		i = skipSpace(page, i+1)
		if n.atClosing(page, i) {
			n.depth--
			return i + 1, nil
		}
		if i, err = n.member(page, i); err != nil {
			return 0, err
		}
	}
	v, err := scanScalar(page, i)
	return v.end, err
}

// member returns where the next value of the innermost bracket begins: behind
// the key in an object, here in an array.
func (n *nesting) member(page []byte, i int) (next int, err error) {
	if !n.inObject() {
		return i, nil
	}
	_, next, err = scanKey(page, i)
	return next, err
}

// close reads the brackets that end behind a value, and returns the place of
// the comma that follows, or of the end if nothing is open any more.
func (n *nesting) close(page []byte, i int) (next int, err error) {
	for n.depth > 0 {
		i = skipSpace(page, i)
		if byteAt(page, i, ',') {
			return i, nil
		}
		if !n.atClosing(page, i) {
			return 0, malformed(page, i, "a comma or the closing bracket")
		}
		n.depth--
		i++
	}
	return i, nil
}

// atClosing reports whether the bracket at i closes the innermost open one.
func (n *nesting) atClosing(page []byte, i int) bool {
	if n.inObject() {
		return byteAt(page, i, '}')
	}
	return byteAt(page, i, ']')
}

// matchBrackets returns the end of the object or array at i. It counts
// brackets outside strings and looks at nothing else.
func matchBrackets(page []byte, i int) (end int, err error) {
	for depth := 0; i < len(page); i++ {
		switch page[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, nil
			}
		case '"':
			if i, _, err = scanString(page, i+1); err != nil {
				return 0, err
			}
		}
	}
	return 0, malformed(page, len(page), "the closing bracket")
}
