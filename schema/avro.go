package schema

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
)

// The Avro record of an event.
const (
	recordNamespace = "webex.calling"
	recordName      = "CallDetailRecord"
	recordDoc       = "One call detail record of Webex Calling: one leg of a call, seen from its owner's side. reportId identifies it; whoever may read a record twice removes duplicates by it."

	// UnmappedName is the field behind those of the table.
	UnmappedName = "unmapped"
	unmappedDoc  = "What the feed sent and no field above could take, as JSON text: under their own names the keys that this schema lacks, under their feedName the values that are not of their field's type. Several texts under one key stand on lines of their own. An invalid UTF-8 byte is written as a backslash, x and two hexadecimal digits."
)

// encodingVersion counts the changes to the encoder that give other bytes for
// the same item under an unchanged schema. See [Fingerprint].
const encodingVersion = 1

// AvroJSON returns the full text of the Avro schema: with doc, and with the
// JSON key of the feed as feedName. Line breaks stand between fields.
func AvroJSON() string { return avroJSON() }

var avroJSON = sync.OnceValue(func() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{\"type\":\"record\",\"name\":%s,\"namespace\":%s,\"doc\":%s,\"fields\":[\n",
		quote(recordName), quote(recordNamespace), quote(recordDoc))
	for i := range fields {
		f := &fields[i]
		typ := `["null",` + f.Kind.avroType() + `],"default":null`
		if f.Required() {
			typ = f.Kind.avroType()
		}
		fmt.Fprintf(&b, "{\"name\":%s,\"type\":%s,\"doc\":%s,\"feedName\":%s},\n",
			quote(f.AvroName), typ, quote(f.Doc), quote(f.FeedName))
	}
	fmt.Fprintf(&b, "{\"name\":%s,\"type\":{\"type\":\"map\",\"values\":\"string\"},\"default\":{},\"doc\":%s}\n]}\n",
		quote(UnmappedName), quote(unmappedDoc))
	return b.String()
})

// Fingerprint identifies what decides the bytes of an event body: names, order
// and types of the fields, and the encoder's own version. Body hashes are
// comparable only under one fingerprint; doc texts do not change it.
func Fingerprint() uint32 { return fingerprint() }

var fingerprint = sync.OnceValue(func() uint32 {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	fmt.Fprintf(h, "encoding %d\n", encodingVersion)
	for i := range fields {
		fmt.Fprintf(h, "%s %s\n", fields[i].AvroName, fields[i].Kind)
	}
	return h.Sum32()
})

// quote returns s as a JSON string, with <, > and & as they are.
func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}
