package schema

import (
	"encoding/binary"
	"math/bits"
)

// The way from a JSON key to its field. Keys match without regard to the case
// of ASCII letters. A record's keys nearly always come in the order and the
// spelling of the record before, so keyReader expects that first; a perfect
// hash over the folded names finds the others.

// unknownField is the field of a key that the table lacks.
const unknownField = -1

// keyReader learns order and spelling of the keys from record to record.
type keyReader struct {
	// next[f] is the field that came after field f last time; next[fieldCount]
	// the one that came first.
	next [fieldCount + 1]uint8
	// spelling[f] is the key of field f as it came last time, with its closing quote.
	spelling [fieldCount][]byte
}

// newKeyReader expects the order and spelling of the table.
func newKeyReader() *keyReader {
	k := &keyReader{}
	for f := range fields {
		k.next[f] = uint8((f + 1) % fieldCount)
		k.spelling[f] = []byte(fields[f].FeedName + `"`)
	}
	return k
}

// expect returns the field of the key whose inside begins at i, and the place
// behind its closing quote, if that is the key that came after previous last
// time.
func (k *keyReader) expect(page []byte, i, previous int) (field, end int, ok bool) {
	field = int(k.next[previous])
	spelling := k.spelling[field]
	end = i + len(spelling)
	return field, end, end <= len(page) && string(page[i:end]) == string(spelling)
}

// learn notes that the key with this text, which belongs to field, came after
// previous. It reuses the old spelling's memory: folding keeps the length.
func (k *keyReader) learn(previous, field int, text []byte) {
	k.next[previous] = uint8(field)
	copy(k.spelling[field], text)
}

// lookUp returns the field whose feed name is text but for the case of ASCII
// letters, or unknownField.
func lookUp(text []byte) int {
	field := int(keyTable.fields[keyTable.slot(text)])
	if field == fieldCount || !equalFold(fields[field].FeedName, text) {
		return unknownField
	}
	return field
}

// keySlotBits is the size of the hash table: large enough to find a perfect
// multiplier within some dozen tries.
const keySlotBits = 10

// perfectHash maps folded names to slots without a collision.
type perfectHash struct {
	multiplier uint64
	fields     [1 << keySlotBits]uint8 // fieldCount where no name falls
}

var keyTable = newPerfectHash()

// newPerfectHash tries odd multipliers, in a fixed order, until no two names
// share a slot.
func newPerfectHash() *perfectHash {
	const tries = 100_000
	t := &perfectHash{}
	for n := range uint64(tries) {
		t.multiplier = (n*2 + 1) * 0x9e3779b97f4a7c15
		if t.fill() {
			return t
		}
	}
	panic("schema: no perfect hash for the feed names: two of them fold to one, or differ only in their middle")
}

func (t *perfectHash) fill() bool {
	for slot := range t.fields {
		t.fields[slot] = uint8(fieldCount)
	}
	for f := range fields {
		slot := t.slot([]byte(fields[f].FeedName))
		if int(t.fields[slot]) != fieldCount {
			return false
		}
		t.fields[slot] = uint8(f)
	}
	return true
}

// slot hashes length, first and last bytes. Setting the bit that tells the
// cases of a letter apart folds them; what else it folds, equalFold sorts out.
func (t *perfectHash) slot(text []byte) uint64 {
	const fold = lowBits * 0x20
	var first, last uint64
	if len(text) >= 8 {
		first = binary.LittleEndian.Uint64(text)
		last = binary.LittleEndian.Uint64(text[len(text)-8:])
	} else {
		for _, c := range text {
			first = first<<8 | uint64(c)
		}
	}
	h := (first|fold)*0xff51afd7ed558ccd ^ bits.RotateLeft64(last|fold, 23) ^ uint64(len(text))
	return (h ^ h>>29) * t.multiplier >> (64 - keySlotBits)
}

// equalFold reports whether text is name but for the case of ASCII letters.
func equalFold(name string, text []byte) bool {
	if len(name) != len(text) {
		return false
	}
	for i, c := range text {
		if c != name[i] && lower(c) != lower(name[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
