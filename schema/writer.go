package schema

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/linkedin/goavro/v2"
)

// WriterSchema is the schema that an event was written under: this one, or an
// older or newer compatible one. It is safe for concurrent use.
type WriterSchema struct {
	codec    *goavro.Codec
	sameForm bool                   // its bodies are laid out as this schema's
	fields   map[string]schemaField // by Avro name
}

// schemaField is what is read of a field of a schema's JSON.
type schemaField struct {
	Name     string          `json:"name"`
	FeedName string          `json:"feedName"`
	Type     json.RawMessage `json:"type"`
	Default  json.RawMessage `json:"default"`
	Doc      string          `json:"doc"`
}

// schemaRecord is what is read of a schema's JSON.
type schemaRecord struct {
	Type      string        `json:"type"`
	Name      string        `json:"name"`
	Namespace string        `json:"namespace"`
	Fields    []schemaField `json:"fields"`
}

// ownCodec is goavro's reading of this schema, which the tests hold valid.
var ownCodec = sync.OnceValue(func() *goavro.Codec {
	codec, err := goavro.NewCodec(AvroJSON())
	if err != nil {
		panic("schema: " + err.Error())
	}
	return codec
})

// ParseWriterSchema reads the text of a schema, as the registry returns it.
func ParseWriterSchema(text string) (*WriterSchema, error) {
	codec, err := goavro.NewCodec(text)
	if err != nil {
		return nil, fmt.Errorf("parse writer schema: %w", err)
	}
	var record schemaRecord
	if err := json.Unmarshal([]byte(text), &record); err != nil || record.Type != "record" {
		return nil, fmt.Errorf("parse writer schema: not an Avro record, so nothing that cdrbus has written")
	}
	w := &WriterSchema{
		codec:    codec,
		sameForm: codec.CanonicalSchema() == ownCodec().CanonicalSchema(),
		fields:   map[string]schemaField{},
	}
	for _, f := range record.Fields {
		w.fields[f.Name] = f
	}
	return w, nil
}

// SameForm reports whether bodies of the schema are laid out as this schema's:
// [Decode] and [Skim] read them, and their hashes compare.
func (w *WriterSchema) SameForm() bool { return w.sameForm }

// HasReportID reports whether the schema is of records that can be told apart as
// call detail records are. Any other is none of an event's.
func (w *WriterSchema) HasReportID() bool { return w.fields[requiredAvroName].Name != "" }

// DecodeWith reads an event that was written under the given schema. A field
// that the writer did not have is null. One that only the writer has goes into
// Unmapped under its feed name, as JSON text, unless it is there already.
func DecodeWith(writer *WriterSchema, value []byte) (*Event, error) {
	if writer.sameForm {
		return Decode(value)
	}
	schemaID, body, err := SplitValue(value)
	if err != nil {
		return nil, err
	}
	native, rest, err := writer.codec.NativeFromBinary(body)
	if err != nil {
		return nil, fmt.Errorf("decode event of schema %d: %w", schemaID, err)
	}
	record, ok := native.(map[string]any)
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("decode event of schema %d: %d bytes behind the last field: was it written under another schema?", schemaID, len(rest))
	}
	e := &Event{SchemaID: schemaID}
	if err := e.resolve(writer, record); err != nil {
		return nil, fmt.Errorf("decode event of schema %d: %w", schemaID, err)
	}
	return e, nil
}

// resolve takes over a record in goavro's native form.
func (e *Event) resolve(writer *WriterSchema, record map[string]any) error {
	for field := range fieldCount {
		f := &fields[field]
		native := writer.value(record, f.AvroName)
		v, ok := fromNative(f.Kind, native)
		if !ok {
			return fmt.Errorf("field %s: the writer's %T cannot be read as %s: the schemas are not compatible", f.AvroName, native, f.Kind)
		}
		if f.Required() && !v.present {
			return fmt.Errorf("field %s: the writer's schema lacks it: the schemas are not compatible", f.AvroName)
		}
		e.values[field] = v
	}
	return e.resolveUnmapped(writer, record)
}

func (e *Event) resolveUnmapped(writer *WriterSchema, record map[string]any) error {
	unmapped := map[string]string{}
	for name, f := range writer.fields {
		native := writer.value(record, name)
		if native == nil || indexOf(name) >= 0 || name == UnmappedName {
			continue
		}
		text, err := json.Marshal(native)
		if err != nil {
			return fmt.Errorf("field %s, which this version does not know: %w", name, err)
		}
		if f.FeedName != "" {
			name = f.FeedName
		}
		unmapped[name] = string(text)
	}
	// What the feed itself sent goes before what was made of it.
	sent, _ := writer.value(record, UnmappedName).(map[string]any)
	for name, native := range sent {
		text, ok := native.(string)
		if !ok {
			return fmt.Errorf("field %s: the writer's %T cannot be read as string: the schemas are not compatible", UnmappedName, native)
		}
		unmapped[name] = text
	}
	if len(unmapped) > 0 {
		e.Unmapped = unmapped
	}
	return nil
}

// isUnion reports whether a value of the field is one of several types.
func (f schemaField) isUnion() bool { return bytes.HasPrefix(f.Type, []byte{'['}) }

// value returns the writer's value of a field, out of the single-entry map in
// which goavro hands over a value of a union; nil if null or absent.
func (w *WriterSchema) value(record map[string]any, name string) any {
	native := record[name]
	if branch, ok := native.(map[string]any); ok && w.fields[name].isUnion() {
		for _, v := range branch {
			return v
		}
	}
	return native
}

// fromNative converts a value of goavro's, promoted as Avro's schema resolution
// allows.
func fromNative(kind Kind, native any) (v fieldValue, ok bool) {
	if native == nil {
		return fieldValue{}, true
	}
	v.present = true
	switch n := native.(type) {
	case string:
		v.text = n
		return v, kind == String
	case []byte:
		v.text = string(n)
		return v, kind == String
	case bool:
		v.number = int64(boolByte(n))
		return v, kind == Boolean
	case int32:
		v.number = int64(n)
		return v, kind == Int || kind == Long || kind == TimestampMillis
	case int64:
		v.number = n
		return v, kind == Long || kind == TimestampMillis
	case time.Time:
		v.number = n.UnixMilli()
		return v, kind == Long || kind == TimestampMillis
	}
	return v, false
}

// Decoder reads events whatever compatible schema they were written under. It
// asks for each schema once. It is safe for concurrent use.
type Decoder struct {
	schemaByID func(ctx context.Context, id int) (string, error)

	mu      sync.Mutex
	writers map[int]*WriterSchema
}

// NewDecoder returns a decoder that learns the writers' schemas from
// schemaByID, which [Registry.SchemaByID] is made for.
func NewDecoder(schemaByID func(ctx context.Context, id int) (string, error)) *Decoder {
	return &Decoder{schemaByID: schemaByID, writers: map[int]*WriterSchema{}}
}

// Decode reads an event under the schema whose ID it carries.
func (d *Decoder) Decode(ctx context.Context, value []byte) (*Event, error) {
	id, _, err := SplitValue(value)
	if err != nil {
		return nil, err
	}
	writer, err := d.writer(ctx, id)
	if err != nil {
		return nil, err
	}
	return DecodeWith(writer, value)
}

func (d *Decoder) writer(ctx context.Context, id int) (*WriterSchema, error) {
	d.mu.Lock()
	writer := d.writers[id]
	d.mu.Unlock()
	if writer != nil {
		return writer, nil
	}
	text, err := d.schemaByID(ctx, id)
	if err != nil {
		return nil, err
	}
	if writer, err = ParseWriterSchema(text); err != nil {
		return nil, fmt.Errorf("read schema %d: %w", id, err)
	}
	d.mu.Lock()
	d.writers[id] = writer
	d.mu.Unlock()
	return writer, nil
}
