package cdr

import (
	"crypto/sha256"
	"encoding/hex"
)

// ReportID is the 128-bit identity by which a record is known again. It is the
// UUID itself where the feed's Report ID is one, so that two records never
// share one by accident; any other text is hashed to as many bits.
type ReportID [16]byte

// ReportIDOf returns the identity of a record whose Report ID is text.
func ReportIDOf(text []byte) ReportID {
	if id, ok := parseUUID(text); ok {
		return id
	}
	return hashID("text:", text)
}

// ReportIDOfRaw returns the identity of an item that has no usable Report ID:
// a hash of its bytes as the feed sent them.
func ReportIDOfRaw(raw []byte) ReportID { return hashID("raw:", raw) }

func (id ReportID) String() string { return hex.EncodeToString(id[:]) }

// hashID keeps texts and raw items apart by a prefix, so that no text can be
// made to collide with an item.
func hashID(domain string, data []byte) ReportID {
	h := sha256.New()
	h.Write([]byte(domain))
	h.Write(data)
	var sum [sha256.Size]byte
	return ReportID(h.Sum(sum[:0])[:16])
}

// parseUUID reads the canonical form of RFC 9562 (8-4-4-4-12 hexadecimal
// digits, either case) without allocating.
func parseUUID(text []byte) (id ReportID, ok bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return ReportID{}, false
	}
	at := 0
	for i := range id {
		if text[at] == '-' {
			at++
		}
		high, low := hexDigit[text[at]], hexDigit[text[at+1]]
		if high|low == notHex {
			return ReportID{}, false
		}
		id[i] = high<<4 | low
		at += 2
	}
	return id, true
}

const notHex = 0xff

// hexDigit maps a byte to the value of its hexadecimal digit, or to notHex.
var hexDigit = func() (table [256]byte) {
	for i := range table {
		table[i] = notHex
	}
	for i := range byte(10) {
		table['0'+i] = i
	}
	for i := range byte(6) {
		table['a'+i], table['A'+i] = 10+i, 10+i
	}
	return table
}()
