package eventlog

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/schema"
)

// interpreter reads records as events, and counts what is none. It belongs to
// one partition and reuses its memory.
type interpreter struct {
	partition int
	schemas   *Schemas
	warn      func(string)
	counts    Counts
	event     Event // the last one found

	sources map[string]string // so that a name costs no allocation for each event
}

// interpret reads a record into in.event, and reports whether it is an event. An
// error is one of the registry only.
func (in *interpreter) interpret(ctx context.Context, r *committed.Record) (found bool, err error) {
	schemaID, body, err := schema.SplitValue(r.Value)
	if err != nil {
		in.skip(&in.counts.Foreign, r, err)
		return false, nil
	}
	w, err := in.schemas.of(ctx, schemaID, in.warn)
	if err != nil {
		return false, err
	}
	in.event = Event{
		Partition: in.partition, Offset: r.Offset, At: r.Timestamp.UTC(), Key: r.Key, Value: r.Value,
		SchemaID: schemaID, Hash: schema.BodyHash(body), Comparable: w.kind == own, assumed: w.kind == unknown,
	}
	switch w.kind {
	case foreign:
		in.skip(&in.counts.Foreign, r, w.err)
		return false, nil
	case other:
		err = in.decode(w.schema)
	default:
		err = in.skim(body)
	}
	switch {
	case err == nil:
	case w.kind != unknown:
		in.skip(&in.counts.Undecodable, r, err)
		return false, nil
	case !w.lost:
		return false, fmt.Errorf("read the event at offset %d of partition %d, which this version cannot read without its schema: %w", r.Offset, in.partition, w.err)
	default:
		in.counts.Lost++ // the schema itself was named when it was looked up
		return false, nil
	}
	in.readHeaders(r.Headers)
	return true, nil
}

// skim reads an event that is laid out as this version's.
func (in *interpreter) skim(body []byte) error {
	o, err := schema.Skim(body)
	if err != nil {
		return err
	}
	in.event.ReportIDText, in.event.ReportTimeMillis = o.ReportID, o.ReportTimeMillis
	in.event.ReportID = cdr.ReportIDOf(o.ReportID)
	return nil
}

// decode reads an event of another version.
func (in *interpreter) decode(writer *schema.WriterSchema) error {
	decoded, err := schema.DecodeWith(writer, in.event.Value)
	if err != nil {
		return err
	}
	in.event.writer, in.event.decoded = writer, decoded
	in.event.ReportIDText = []byte(decoded.ReportID())
	in.event.ReportID = cdr.ReportIDOf(in.event.ReportIDText)
	if at, ok := decoded.Value("reportTime").(time.Time); ok {
		in.event.ReportTimeMillis = at.UnixMilli()
	}
	return nil
}

// skip counts a record that is no event, and names the first of its kind.
func (in *interpreter) skip(count *int64, r *committed.Record, why error) {
	*count++
	kind := "is no event of cdrbus"
	if count == &in.counts.Undecodable {
		kind = "cannot be decoded"
	}
	in.schemas.warnOnce(kind, fmt.Sprintf("the record at offset %d of partition %d %s (%v); it and others like it are skipped", r.Offset, in.partition, kind, why), in.warn)
}

const (
	sourcePrefix = "urn:cdrbus:"
	maxSources   = 10_000 // remembered; a process has a thousand
)

func (in *interpreter) readHeaders(headers []kafka.Header) {
	for _, h := range headers {
		switch h.Key {
		case "ce_source":
			in.event.Source = in.sourceOf(h.Value)
		case "late":
			in.event.Late = string(h.Value) == "true"
		case "revision":
			in.event.Revision = string(h.Value) == "true"
		}
	}
}

func (in *interpreter) sourceOf(urn []byte) string {
	name, found := bytes.CutPrefix(urn, []byte(sourcePrefix))
	if !found {
		return ""
	}
	if known, found := in.sources[string(name)]; found {
		return known
	}
	if in.sources == nil || len(in.sources) >= maxSources {
		in.sources = map[string]string{}
	}
	in.sources[string(name)] = string(name)
	return string(name)
}

// Clone returns a copy that may be kept.
func (e *Event) Clone() *Event {
	clone, _ := e.copyTo(nil)
	return &clone
}

// copyTo returns a copy whose bytes are appended to arena. Those of earlier
// copies stay where they are, should the arena move.
func (e *Event) copyTo(arena []byte) (Event, []byte) {
	clone := *e
	for _, slice := range []*[]byte{&clone.Key, &clone.Value, &clone.ReportIDText} {
		if *slice != nil {
			start := len(arena)
			arena = append(arena, *slice...)
			*slice = arena[start:len(arena):len(arena)]
		}
	}
	return clone, arena
}
