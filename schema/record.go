package schema

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// record is one item between scanning and encoding: where the value of each
// field stands in the page, and what the fields could not take.
type record struct {
	seen   bitset // fields whose key came
	filled bitset // fields with a value that is no null mark
	values [fieldCount]jsonValue
	key    jsonValue // the unknown key that was read last

	offsets   [fieldCount]int // where each field begins in the arena
	leftovers []leftover
}

// leftover is what goes into unmapped.
type leftover struct {
	name  []byte // key in the map
	value jsonValue
	field int // unknownField for a key that the table lacks
}

// keptLeftovers is how many leftovers a record keeps memory for.
const keptLeftovers = 256

// release forgets what points into pages, and the memory of a strange record.
func (r *record) release() {
	clear(r.leftovers[:cap(r.leftovers)])
	if cap(r.leftovers) > keptLeftovers {
		r.leftovers = nil
	}
}

// bitset is a set of fields.
type bitset [(fieldCount + 63) / 64]uint64

func (b *bitset) has(field int) bool { return b[field/64]>>(field%64)&1 == 1 }
func (b *bitset) add(field int)      { b[field/64] |= 1 << (field % 64) }

// kinds and marks repeat the table in a form that fits a few cache lines.
var (
	kinds = func() (k [fieldCount]Kind) {
		for f := range fields {
			k[f] = fields[f].Kind
		}
		return k
	}()
	marks = func() (m [fieldCount]Marks) {
		for f := range fields {
			m[f] = fields[f].Absent
		}
		return m
	}()
)

// scanRecord reads the object whose inside begins at i into e.record, and
// returns its end. This loop is where an encoder spends most of its time.
func (e *Encoder) scanRecord(page []byte, i int) (end int, err error) {
	r := &e.record
	r.seen, r.filled, r.leftovers = bitset{}, bitset{}, r.leftovers[:0]
	e.scratch = e.scratch[:0]
	if i = skipSpace(page, i); byteAt(page, i, '}') {
		return i + 1, nil
	}
	for previous := fieldCount; ; {
		field, at, err := e.scanRecordKey(page, i, previous)
		if err != nil {
			return 0, err
		}
		v := jsonValue{start: at, kind: tokenString}
		switch {
		case byteAt(page, at, '"') && byteAt(page, at+1, '"'): // most values are blank
			v.end = at + 2
		case byteAt(page, at, '"'):
			v.end, v.flags, err = scanString(page, at+1)
			v.end++
		default:
			v, err = e.nesting.scanValue(page, at)
		}
		if err != nil {
			return 0, err
		}
		if field == unknownField {
			r.leftovers = append(r.leftovers, leftover{e.keyName(page, &r.key), v, unknownField})
		} else {
			e.store(page, field, &v)
			previous = field
		}
		if i = skipSpace(page, v.end); byteAt(page, i, '}') {
			return i + 1, nil
		}
		if !byteAt(page, i, ',') {
			return 0, malformed(page, i, "a comma or the end of an item")
		}
		i = skipSpace(page, i+1)
	}
}

// scanRecordKey reads the key at i and the colon behind it. Of an unknown one
// it leaves the place in e.record.key.
func (e *Encoder) scanRecordKey(page []byte, i, previous int) (field, next int, err error) {
	if !byteAt(page, i, '"') {
		return 0, 0, malformed(page, i, "a key")
	}
	field, next, expected := e.keys.expect(page, i+1, previous)
	if !expected {
		key, err := scanScalar(page, i)
		if err != nil {
			return 0, 0, err
		}
		e.record.key = key
		field, next = e.fieldOf(page, &key, previous), key.end
	}
	if byteAt(page, next, ':') && next+1 < len(page) && page[next+1] > ' ' {
		return field, next + 1, nil
	}
	next, err = scanColon(page, next)
	return field, next, err
}

// fieldOf looks up the field of a key that was not the expected one.
func (e *Encoder) fieldOf(page []byte, key *jsonValue, previous int) int {
	text := key.inner(page)
	escaped := key.flags&hasEscape != 0
	if escaped {
		var ok bool
		if text, ok = e.unescaped(page, key); !ok {
			return unknownField
		}
	}
	field := lookUp(text)
	if field != unknownField && !escaped {
		e.keys.learn(previous, field, text)
	}
	return field
}

// keyName returns an unknown key as valid text.
func (e *Encoder) keyName(page []byte, key *jsonValue) []byte {
	inner := key.inner(page)
	if key.flags == 0 {
		return inner
	}
	if text, ok := e.unescaped(page, key); ok {
		return text
	}
	start := len(e.scratch)
	e.scratch = appendVisible(e.scratch, inner)
	return e.scratch[start:]
}

// unescaped returns the text of a string with escapes, in scratch memory that
// lasts until the next record.
func (e *Encoder) unescaped(page []byte, v *jsonValue) ([]byte, bool) {
	start := len(e.scratch)
	var ok bool
	e.scratch, ok = appendUnescaped(e.scratch, v.inner(page))
	return e.scratch[start:], ok
}

// store keeps the value of a field. Of several, the first that is no null mark
// is the field's; the others are left over, unless they say the same.
func (e *Encoder) store(page []byte, field int, v *jsonValue) {
	r := &e.record
	again := r.seen.has(field)
	r.seen.add(field)
	if again {
		e.page.foldedKeys++
	}
	switch {
	case e.isNullMark(page, field, v):
	case !r.filled.has(field):
		r.filled.add(field)
		r.values[field] = *v
	case !bytes.Equal(v.text(page), r.values[field].text(page)):
		e.leaveOver(field, v)
	}
}

// leaveOver puts a value of a known field into unmapped.
func (e *Encoder) leaveOver(field int, v *jsonValue) {
	e.record.leftovers = append(e.record.leftovers, leftover{feedNames[field], *v, field})
}

var feedNames = func() (names [fieldCount][]byte) {
	for f := range fields {
		names[f] = []byte(fields[f].FeedName)
	}
	return names
}()

// maxMarkBytes is the longest way to write a null mark: NA in Unicode escapes.
const maxMarkBytes = 2 * unicodeEscapeBytes

// isNullMark reports whether the value means that there is none.
func (e *Encoder) isNullMark(page []byte, field int, v *jsonValue) bool {
	switch v.kind {
	case tokenNull:
		return true
	case tokenString:
		length := v.end - v.start - len(`""`)
		if length == 0 || length > maxMarkBytes {
			return length == 0
		}
		if v.flags&hasEscape == 0 {
			return marks[field].has(v.inner(page))
		}
		text, ok := e.unescaped(page, v)
		return ok && marks[field].has(text)
	}
	return false
}

// appendField appends a field's union, or the bare text of Report ID.
func (e *Encoder) appendField(page []byte, field int) {
	if !e.record.filled.has(field) {
		e.arena = append(e.arena, unionNull)
		return
	}
	v := &e.record.values[field]
	start := len(e.arena)
	if field != fieldReportID {
		e.arena = append(e.arena, unionValue)
	}
	switch e.appendValue(page, kinds[field], v) {
	case inFull:
	case inPart:
		e.leaveOver(field, v)
	case notAtAll:
		e.arena = append(e.arena[:start], unionNull)
		e.leaveOver(field, v)
	}
}

// fit says how much of a value its type could take.
type fit uint8

const (
	inFull fit = iota
	inPart
	notAtAll
)

// appendValue appends the value as its field's type.
func (e *Encoder) appendValue(page []byte, kind Kind, v *jsonValue) fit {
	text, ok := e.plainText(page, v)
	if !ok {
		return notAtAll
	}
	switch kind {
	case String:
		if v.flags&hasNonASCII != 0 && !utf8.Valid(text) {
			return notAtAll
		}
		e.arena = appendText(e.arena, text)
		return inFull
	case Long, Int:
		n, ok := parseInteger(text)
		if !ok || kind == Int && n != int64(int32(n)) {
			return notAtAll
		}
		e.arena = appendLong(e.arena, n)
		return inFull
	case Boolean:
		b, ok := parseBoolean(text)
		if !ok {
			return notAtAll
		}
		e.arena = append(e.arena, boolByte(b))
		return inFull
	default: // TimestampMillis
		return e.appendTime(text)
	}
}

// appendTime appends an instant.
func (e *Encoder) appendTime(text []byte) fit {
	millis, exact, ok := parseTime(text)
	if !ok {
		return notAtAll
	}
	e.arena = appendLong(e.arena, millis)
	if !exact {
		return inPart
	}
	return inFull
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// plainText returns the text of a string, number or boolean. It may still hold
// invalid UTF-8.
func (e *Encoder) plainText(page []byte, v *jsonValue) (text []byte, ok bool) {
	switch {
	case v.kind == tokenNested:
		return nil, false
	case v.kind != tokenString:
		return v.text(page), true
	case v.flags&hasEscape != 0:
		return e.unescaped(page, v)
	}
	return v.inner(page), true
}

// appendUnmapped appends the map of leftovers in the order of their names.
// Several of one name become one entry with a line for each.
func (e *Encoder) appendUnmapped(page []byte) {
	left := e.record.leftovers
	if len(left) == 0 {
		e.arena = append(e.arena, 0)
		return
	}
	slices.SortStableFunc(left, func(a, b leftover) int { return bytes.Compare(a.name, b.name) })
	entries := 1
	for i := 1; i < len(left); i++ {
		if !bytes.Equal(left[i-1].name, left[i].name) {
			entries++
		}
	}
	e.arena = appendLong(e.arena, int64(entries))
	for i := 0; i < len(left); {
		end := i + 1
		for end < len(left) && bytes.Equal(left[i].name, left[end].name) {
			end++
		}
		e.appendEntry(page, left[i:end])
		i = end
	}
	e.arena = append(e.arena, 0)
}

// appendEntry appends leftovers of one name.
func (e *Encoder) appendEntry(page []byte, left []leftover) {
	e.arena = appendText(e.arena, left[0].name)
	if text := left[0].value.text(page); len(left) == 1 && utf8.Valid(text) {
		e.arena = appendText(e.arena, text)
		return
	}
	start := len(e.scratch)
	for i := range left {
		if i > 0 {
			e.scratch = append(e.scratch, '\n')
		}
		e.scratch = appendVisible(e.scratch, left[i].value.text(page))
	}
	e.arena = appendText(e.arena, e.scratch[start:])
}

func (e *Encoder) countLeftovers() {
	for i := range e.record.leftovers {
		left := &e.record.leftovers[i]
		if left.field == unknownField {
			e.page.addUnknown(left.name)
		} else {
			e.page.unparsed[left.field]++
		}
	}
}

// encodedText returns where the text of a field stands in the arena; nowhere
// if it is null.
func (e *Encoder) encodedText(field int) span {
	at := e.record.offsets[field]
	if field != fieldReportID {
		if e.arena[at] == unionNull {
			return span{}
		}
		at++
	}
	length, size := binary.Varint(e.arena[at:])
	at += size
	return span{at, at + int(length)}
}

// encodedTime returns the instant of a field; false if it is null.
func (e *Encoder) encodedTime(field int) (millis int64, ok bool) {
	at := e.record.offsets[field]
	if e.arena[at] == unionNull {
		return 0, false
	}
	millis, _ = binary.Varint(e.arena[at+1:])
	return millis, true
}
