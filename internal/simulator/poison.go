package simulator

import "slices"

// Poison is a kind of record that hurts whoever reads it carelessly. The page
// that holds it is well-formed JSON all the same.
type Poison string

// The kinds without an identity can only be kept as they are; all the others
// have a Report ID and are records like any other.
const (
	NotObjectText   Poison = "not_object_text"
	NotObjectNumber Poison = "not_object_number"
	NotObjectArray  Poison = "not_object_array"
	IDMissing       Poison = "id_missing"
	IDNull          Poison = "id_null"
	IDBlank         Poison = "id_blank"
	IDMark          Poison = "id_na"
	IDOdd           Poison = "id_odd" // a Report ID that is not a UUID
	BadValues       Poison = "bad_values"
	BadUTF8         Poison = "bad_utf8"
	LoneSurrogate   Poison = "lone_surrogate"
	Deep            Poison = "deep"
	Huge            Poison = "huge"
	Giant           Poison = "giant"
	TwinKeys        Poison = "twin_keys"
	Full            Poison = "full" // every field, unknown ones, unparseable ones
)

// poisonTable is indexed by entry.poison. Giants are rare, for they are slow.
var poisonTable = []struct {
	name  Poison
	hasID bool
	rare  bool
}{
	{}, // not poisonous
	{name: NotObjectText}, {name: NotObjectNumber}, {name: NotObjectArray},
	{name: IDMissing}, {name: IDNull}, {name: IDBlank}, {name: IDMark},
	{name: IDOdd, hasID: true}, {name: BadValues, hasID: true}, {name: BadUTF8, hasID: true}, {name: LoneSurrogate, hasID: true},
	{name: Deep, hasID: true}, {name: Huge, hasID: true, rare: true}, {name: Giant, hasID: true, rare: true},
	{name: TwinKeys, hasID: true}, {name: Full, hasID: true},
}

// commonPerRare is how much more often the usual kinds come.
const commonPerRare = 5

// index returns the kind's place in the table, 0 if there is none.
func (p Poison) index() uint8 {
	for i := 1; i < len(poisonTable); i++ {
		if poisonTable[i].name == p {
			return uint8(i)
		}
	}
	return 0
}

func poisonNames() []string {
	var names []string
	for _, row := range poisonTable[1:] {
		names = append(names, string(row.name))
	}
	return names
}

// poisonIndexes returns the kinds to choose from, each as often as it should come.
func poisonIndexes(kinds []Poison) []uint8 {
	var indexes []uint8
	for i := 1; i < len(poisonTable); i++ {
		row := poisonTable[i]
		if len(kinds) > 0 && !slices.Contains(kinds, row.name) {
			continue
		}
		times := commonPerRare
		if row.rare {
			times = 1
		}
		for range times {
			indexes = append(indexes, uint8(i))
		}
	}
	return indexes
}

// deepLevels is within what encoding/json reads (10,000), and beyond what a
// careless recursive reader likes.
const deepLevels = 3000

// appendNotObject writes an item that is no object. The hash makes it unlike
// every other, so that it can be counted by its bytes.
func appendNotObject(dst []byte, kind Poison, hash uint64) []byte {
	switch kind {
	case NotObjectText:
		return append(appendHex(append(dst, `"record lost, see `...), hash), '"')
	case NotObjectNumber:
		return append(appendInt(dst, int64(hash>>12)), ".5"...)
	default:
		return append(appendHex(append(dst, `["`...), hash), `",{"Report ID":"inside"},null]`...)
	}
}

// spoil changes the values of a record into those of its kind of poison.
func (r *renderer) spoil(o *org, kind Poison, hash uint64) {
	switch kind {
	case IDMissing:
		r.values[fReportID] = piece{absent: absentKey}
	case IDNull:
		r.values[fReportID] = piece{absent: absentNull}
	case IDBlank:
		r.values[fReportID] = piece{absent: absentBlank}
	case IDMark:
		r.values[fReportID] = piece{absent: absentNA}
	case IDOdd:
		r.setOddID(hash)
	case BadValues:
		r.setBadValues(hash)
	case BadUTF8:
		r.set(fUser, "\"\xc3\x28 caf\xe9 \xff\"")
		r.extra = append(r.extra, ",\"F\xfcld\":\"\xed\xa0\x80\""...)
	case LoneSurrogate:
		r.set(fCallingLineID, `"half \ud83d of a face"`)
	case Deep:
		r.setDeep()
	case Huge:
		r.setLong("Transcript", o.records.HugeBytes)
	case Giant:
		r.setLong("Transcript", o.records.GiantBytes)
	case TwinKeys:
		r.extra = append(r.extra, `,"MODEL":"","hold DURATION":null,"Hold Duration":"na"`...)
	case Full:
		r.setFull(hash)
	}
}

// oddIDPrefix begins a Report ID that is not a UUID.
const oddIDPrefix = "CDR/2026/"

func (r *renderer) setOddID(hash uint64) {
	from := r.open()
	r.arena = append(r.arena, oddIDPrefix...)
	r.arena = appendHex(r.arena, hash)
	r.close(fReportID, from)
}

func (r *renderer) setBadValues(hash uint64) {
	r.set(fStartTime, `"yesterday"`)
	r.set(fDuration, `"12 minutes"`)
	r.set(fAnswered, `"maybe"`)
	r.set(fSiteTimezone, `1e99`)
	r.set(fHoldDuration, `99999999999999999999999`)
	r.set(fRingDuration, `{"seconds":3}`)
	if hash%4 == 0 {
		r.set(fReportTime, `"31/12/1999 23:59"`)
	}
}

func (r *renderer) setDeep() {
	r.extra = append(r.extra, `,"Nested":`...)
	for range deepLevels {
		r.extra = append(r.extra, '[')
	}
	for range deepLevels {
		r.extra = append(r.extra, ']')
	}
}

func (r *renderer) setLong(name string, size int) {
	r.extra = append(r.extra, `,"`...)
	r.extra = append(r.extra, name...)
	r.extra = append(r.extra, `":"`...)
	for range size {
		r.extra = append(r.extra, 'x')
	}
	r.extra = append(r.extra, '"')
}

// setFull leaves no field without a value, and adds what no field can hold.
func (r *renderer) setFull(hash uint64) {
	for i := range r.values {
		if r.values[i].isBlank() {
			r.set(fieldIndex(i), sampleOf[fieldTable[i].kind])
		}
	}
	r.set(fRingDuration, `"a while"`)
	r.set(fSiteTimezone, `"Europe/Berlin"`)
	r.appendNewFields(hash, 3)
}

// sampleOf is a plain value of each kind.
var sampleOf = [...]string{text: `"sample"`, number: `7`, boolean: `"true"`, instant: `"2026-10-05T08:14:31.208Z"`}
