// Package schema is the event: what a record of the feed is called, typed and
// written as in Kafka.
//
//	page of the feed -> Encoder.Each -> Item{ID, Key, Hash, Value} | Item{Reject}
//	value of a Kafka record -> Decode -> Event -> JSON, masked or not
//
// One table, [Fields], holds every field. From it come the Avro schema
// ([AvroJSON]), the [Encoder], the decoder ([Decode], [DecodeWith]) and
// docs/event.md, so none of them can drift from the others.
//
// Nothing that the feed sent is dropped: a key that the table lacks, and a
// value that is not of its field's type, go into the map "unmapped" as the JSON
// text that came. What cannot be an event at all becomes a [Reject] with its
// bytes, for the dead-letter topic.
//
// [Registry] gives the schema its ID. An Encoder belongs to one goroutine at a
// time; everything else here is safe for concurrent use.
package schema

import (
	"encoding/binary"
	"fmt"
)

// The Confluent wire format: a zero byte, the schema ID in 4 bytes big endian,
// then the Avro body.
const (
	wireMagic       = 0
	wireHeaderBytes = 5
)

// appendWireHeader appends the five bytes that precede an Avro body.
func appendWireHeader(dst []byte, schemaID int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, wireMagic), uint32(schemaID))
}

// SplitValue separates a Kafka value in Confluent wire format into the ID of
// the schema that it was written with and its Avro body.
func SplitValue(value []byte) (schemaID int, body []byte, err error) {
	if len(value) < wireHeaderBytes {
		return 0, nil, fmt.Errorf("read the header of an event: %d bytes, want at least %d; is this topic written in Confluent wire format?", len(value), wireHeaderBytes)
	}
	if value[0] != wireMagic {
		return 0, nil, fmt.Errorf("read the header of an event: first byte is %#02x, want 0; is this topic written in Confluent wire format?", value[0])
	}
	return int(binary.BigEndian.Uint32(value[1:])), value[wireHeaderBytes:], nil
}
