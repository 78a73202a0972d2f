package schema

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Event is a decoded event. Its zero value has no fields; only decoding makes
// one that is of use.
type Event struct {
	SchemaID int               // of the value that it was read from
	Unmapped map[string]string // see [AvroJSON]; nil if empty

	values [fieldCount]fieldValue
}

// fieldValue is the value of one field, as its kind says.
type fieldValue struct {
	present bool
	text    string // String
	number  int64  // Long, Int, TimestampMillis; Boolean: 0 or 1
}

// ReportID returns the text that identifies the record.
func (e *Event) ReportID() string { return e.values[fieldReportID].text }

// Value returns the value of the field that is named so in Avro: a string, an
// int64, an int32, a bool or a time.Time in UTC; nil if it is null or if there
// is no such field.
func (e *Event) Value(avroName string) any {
	if field := indexOf(avroName); field >= 0 {
		return e.value(field)
	}
	return nil
}

func (e *Event) value(field int) any {
	v := &e.values[field]
	switch {
	case !v.present:
		return nil
	case kinds[field] == Long:
		return v.number
	case kinds[field] == Int:
		return int32(v.number)
	case kinds[field] == Boolean:
		return v.number != 0
	case kinds[field] == TimestampMillis:
		return time.UnixMilli(v.number).UTC()
	}
	return v.text
}

// MarshalJSON writes the event with its Avro names, in the order of the table.
// Nulls are left out; times are RFC 3339 in UTC with milliseconds.
func (e *Event) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for field := range fieldCount {
		if e.values[field].present {
			b = e.appendMember(b, field)
		}
	}
	if len(e.Unmapped) > 0 {
		b = append(b, quote(UnmappedName)+`:{`...)
		for _, name := range slices.Sorted(maps.Keys(e.Unmapped)) {
			b = append(b, quote(name)+`:`+quote(e.Unmapped[name])+`,`...)
		}
		b = append(b[:len(b)-1], `},`...)
	}
	return append(bytes.TrimSuffix(b, []byte{','}), '}'), nil
}

// appendMember appends one field and a comma.
func (e *Event) appendMember(b []byte, field int) []byte {
	b = append(b, `"`+fields[field].AvroName+`":`...)
	switch v := e.value(field).(type) {
	case string:
		b = append(b, quote(v)...)
	case time.Time:
		b = v.AppendFormat(append(b, '"'), "2006-01-02T15:04:05.000Z07:00")
		b = append(b, '"')
	default:
		b = fmt.Append(b, v)
	}
	return append(b, ',')
}

// Masked is what stands for personal data in a masked event.
const Masked = "***"

// Mask returns a copy without personal data: the text of every field whose
// [PII] is not NoPII, and every text in Unmapped, since nobody knows what it
// holds, is [Masked].
func (e *Event) Mask() *Event {
	masked := *e
	for field := range fieldCount {
		if fields[field].PII != NoPII && masked.values[field].present {
			masked.values[field].text = Masked
		}
	}
	masked.Unmapped = maps.Clone(e.Unmapped)
	for name := range masked.Unmapped {
		masked.Unmapped[name] = Masked
	}
	return &masked
}

// Only returns a copy that holds nothing but the named fields, by their Avro
// names; [UnmappedName] keeps what is unmapped.
func (e *Event) Only(avroNames ...string) *Event {
	only := &Event{SchemaID: e.SchemaID}
	for _, name := range avroNames {
		if field := indexOf(name); field >= 0 {
			only.values[field] = e.values[field]
		} else if name == UnmappedName {
			only.Unmapped = e.Unmapped
		}
	}
	return only
}

// Decode reads an event that was written under this very schema, which its
// schema ID cannot tell by itself: see [DecodeWith] and [Decoder].
func Decode(value []byte) (*Event, error) {
	schemaID, body, err := SplitValue(value)
	if err != nil {
		return nil, err
	}
	e := &Event{SchemaID: schemaID}
	if err := e.decode(body); err != nil {
		return nil, fmt.Errorf("decode event of schema %d: %w", schemaID, err)
	}
	return e, nil
}

func (e *Event) decode(body []byte) error {
	r := &bodyReader{rest: body}
	for field := range fieldCount {
		e.values[field] = r.field(field)
		if r.err != nil {
			return fmt.Errorf("field %s: %w", fields[field].AvroName, r.err)
		}
	}
	e.Unmapped = r.unmapped()
	return r.end()
}

// What a body that is not of this schema looks like.
var (
	errCut    = errors.New("the value ends too early")
	errLong   = errors.New("no valid number")
	errBranch = errors.New("no branch of the union")
	errLength = errors.New("a length that the value cannot hold")
	errTwice  = errors.New("a name that comes twice")
)

// bodyReader reads Avro's binary encoding. After the first error, which it
// keeps, it returns zeros.
type bodyReader struct {
	rest []byte
	err  error
}

func (r *bodyReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// end is the error of a body of which only the map's end was still to come.
func (r *bodyReader) end() error {
	if r.err != nil {
		return fmt.Errorf("field %s: %w", UnmappedName, r.err)
	}
	if len(r.rest) > 0 {
		return fmt.Errorf("%d bytes behind the last field: was it written under another schema?", len(r.rest))
	}
	return nil
}

// present reads which branch of its union a field is of.
func (r *bodyReader) present(field int) bool {
	if field == fieldReportID {
		return true
	}
	switch r.long() {
	case 0:
		return false
	case 1:
	default:
		r.fail(errBranch)
	}
	return true
}

func (r *bodyReader) field(field int) fieldValue {
	if !r.present(field) {
		return fieldValue{}
	}
	switch kinds[field] {
	case String:
		return fieldValue{present: true, text: string(r.bytes())}
	case Boolean:
		return fieldValue{present: true, number: r.boolean()}
	}
	return fieldValue{present: true, number: r.long()}
}

func (r *bodyReader) long() int64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 { // most are of one byte
		v := int64(r.rest[0]>>1) ^ -int64(r.rest[0]&1)
		r.rest = r.rest[1:]
		return v
	}
	v, size := binary.Varint(r.rest)
	switch {
	case size == 0:
		r.fail(errCut)
		return 0
	case size < 0:
		r.fail(errLong)
		return 0
	}
	r.rest = r.rest[size:]
	return v
}

func (r *bodyReader) boolean() int64 {
	if len(r.rest) == 0 {
		r.fail(errCut)
		return 0
	}
	b := r.rest[0]
	if b > 1 {
		r.fail(errBranch)
		return 0
	}
	r.rest = r.rest[1:]
	return int64(b)
}

// bytes reads a text and leaves it in the body.
func (r *bodyReader) bytes() []byte {
	length := r.long()
	if length < 0 || length > int64(len(r.rest)) {
		r.fail(errLength)
		return nil
	}
	text := r.rest[:length]
	r.rest = r.rest[length:]
	return text
}

func (r *bodyReader) unmapped() map[string]string {
	var entries map[string]string
	r.entries(func(name, text []byte) {
		if entries == nil {
			entries = map[string]string{}
		}
		if _, twice := entries[string(name)]; twice {
			r.fail(errTwice)
		}
		entries[string(name)] = string(text)
	})
	return entries
}

// entries reads the map in its blocks. A negative count is followed by the
// size of the block, which is of no use here. No entry is smaller than two
// bytes, so the value's length bounds the loop whatever the counts say.
func (r *bodyReader) entries(each func(name, text []byte)) {
	for {
		count := r.long()
		if count < 0 {
			count = -count
			r.long()
		}
		if count == 0 || r.err != nil {
			return
		}
		for ; count > 0 && r.err == nil; count-- {
			name := r.bytes()
			each(name, r.bytes())
		}
	}
}

var _ json.Marshaler = (*Event)(nil)
