package schema

import (
	"slices"
	"strings"
)

// Field describes one field of a call detail record: how the feed calls and
// writes it, and what it is in the event.
type Field struct {
	FeedName string   // the JSON key as documented; the wire may write it in another case
	AvroName string   // name in the event
	Group    Group    // when it came to be documented
	Kind     Kind     // type in the event; every one but Report ID may be null
	Wire     string   // what records on the wire show
	Absent   Marks    // texts that mean "no value"; the empty text always does
	PII      PII      // which kind of personal data it holds
	Values   []string // values known so far; never a closed list
	Doc      string   // one sentence: meaning, unit, trap
}

// Fields returns the table in the order of the Avro record. It is a copy.
func Fields() []Field {
	all := slices.Clone(fields[:])
	for i := range all {
		all[i].Values = slices.Clone(all[i].Values)
	}
	return all
}

// Required reports whether a record without this field cannot be an event.
func (f *Field) Required() bool { return f.AvroName == requiredAvroName }

const requiredAvroName = "reportId"

// Group tells the fields of the first documentation from those that came later.
type Group uint8

// The groups of fields.
const (
	Seed Group = iota
	Later
)

func (g Group) String() string { return [...]string{"seed", "later"}[g] }

// Kind is the type of a field in the event.
type Kind uint8

// The kinds of fields.
const (
	String          Kind = iota
	Long                 // 64 bits
	Int                  // 32 bits
	Boolean              //
	TimestampMillis      // milliseconds since the Unix epoch, UTC
)

func (k Kind) String() string {
	return [...]string{"string", "long", "int", "boolean", "timestamp-millis"}[k]
}

// avroType returns the Avro type as JSON.
func (k Kind) avroType() string {
	if k == TimestampMillis {
		return `{"type":"long","logicalType":"timestamp-millis"}`
	}
	return `"` + k.String() + `"`
}

// Marks is the set of texts that mean "no value", besides the empty text. A
// text outside the set is a value: a location may truly be named NA.
type Marks uint8

// The null marks of the feed.
const (
	NA      Marks = 1 << iota // "NA"
	LowerNA                   // "na"
)

// has reports whether text is a null mark.
func (m Marks) has(text []byte) bool {
	switch len(text) {
	case 0:
		return true
	case 2:
		return m&NA != 0 && text[0] == 'N' && text[1] == 'A' ||
			m&LowerNA != 0 && text[0] == 'n' && text[1] == 'a'
	}
	return false
}

func (m Marks) String() string {
	texts := []string{"empty"}
	if m&NA != 0 {
		texts = append(texts, "NA")
	}
	if m&LowerNA != 0 {
		texts = append(texts, "na")
	}
	return strings.Join(texts, " ")
}

// PII is the kind of personal data that a field holds.
type PII uint8

// The kinds of personal data.
const (
	NoPII         PII = iota
	PIIIdentifier     // singles a person out: IDs, codes, free text about a call
	PIIName
	PIINumber
	PIIDevice
	PIIIP
)

func (p PII) String() string {
	return [...]string{"none", "id", "name", "number", "device", "ip"}[p]
}

// What records on the wire show, as far as any were seen.
const (
	wireText          = "string"
	wireTime          = "string, UTC, YYYY-MM-DDTHH:MM:SS.mmmZ"
	wireNumber        = "number (accept digits in a string)"
	wireQuotedNumber  = "digits inside a string (accept number)"
	wireQuotedSigned  = "signed digits inside a string"
	wireQuotedBoolean = "true/false inside a string"
)

const fieldCount = len(fields)

// The fields that the encoder has to know by name.
var (
	fieldReportID      = mustIndex("reportId")
	fieldReportTime    = mustIndex("reportTime")
	fieldCorrelationID = mustIndex("correlationId")
	fieldInteractionID = mustIndex("interactionId")
	fieldOrgUUID       = mustIndex("orgUuid")
)

// indexOf returns the place of the field that is named so in Avro, or -1.
func indexOf(avroName string) int {
	return slices.IndexFunc(fields[:], func(f Field) bool { return f.AvroName == avroName })
}

func mustIndex(avroName string) int {
	i := indexOf(avroName)
	if i < 0 {
		panic("schema: the field table has no " + avroName)
	}
	return i
}
