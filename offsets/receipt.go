package offsets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/linkedin/goavro/v2"

	"cdrbus/internal/cdr"
)

// Receipt tells of one committed window what was asked, what came, what was
// published, and whether it is proven to be complete. There is exactly one for
// each counter of a source, so whoever reads them in order sees every window, and
// can rebuild a lost position from the last. The fields are explained once, in the
// table that also makes the Avro schema.
type Receipt struct {
	Source     cdr.SourceName
	Counter    cdr.Counter
	Purpose    cdr.Purpose
	Endpoint   cdr.Endpoint
	Definition string
	OrgUUID    string

	Asked  cdr.Span // overlap included; unset if nothing was asked
	Commit cdr.Span // unset if the watermark did not move
	Gap    cdr.Span // unset if nothing was lost

	Requests   int64
	Pages      int64
	TotalCount int64 // -1: the feed did not say
	Bytes      int64

	Items        int64 // = Published + AlreadyKnown + DeadLetters
	DistinctIDs  int64
	Published    int64
	AlreadyKnown int64
	Late         int64
	Revised      int64
	DeadLetters  int64

	FirstReportTime time.Time // unset without records
	LastReportTime  time.Time

	FirstRequestAt time.Time // unset without requests
	LastRequestAt  time.Time
	ServerDate     time.Time // unset: the feed sent no Date
	Waited         time.Duration
	Unproven       string // why not; empty: proven
	CommitTime     time.Time

	FeedPublished     cdr.Instant // the position's watermarks after this commit
	FeedSettled       cdr.Instant
	StreamPublished   cdr.Instant
	OldestRecord      cdr.Instant
	JournalFrom       int64
	SchemaFingerprint uint32
}

// Proven reports whether the window is known to hold all that the feed had.
func (r *Receipt) Proven() bool { return r.Unproven == "" }

// Validate reports a receipt that does not add up. Such a receipt is a fault of the
// program and must not be written: people gate bill runs on it.
func (r *Receipt) Validate() error {
	if err := r.Source.Validate(); err != nil {
		return err
	}
	for _, s := range []cdr.Span{r.Asked, r.Commit, r.Gap} {
		if !s.IsZero() && s.Validate() != nil {
			return s.Validate()
		}
	}
	for _, f := range receiptFields {
		if n, isCount := f.at(r).(*count); isCount && *n < 0 {
			return fmt.Errorf("%s is %d", f.name, *n)
		}
	}
	switch {
	case r.Counter == 0 || r.Counter > math.MaxInt64:
		return fmt.Errorf("counter %d", r.Counter)
	case r.CommitTime.IsZero():
		return errors.New("commit time is unset")
	case r.TotalCount < -1:
		return fmt.Errorf("totalCount is %d", r.TotalCount)
	case r.Items != r.Published+r.AlreadyKnown+r.DeadLetters:
		return fmt.Errorf("%d items are not %d published, %d already known and %d dead letters", r.Items, r.Published, r.AlreadyKnown, r.DeadLetters)
	case r.DistinctIDs > r.Items || r.Late > r.Published || r.Revised > r.Published:
		return fmt.Errorf("%d distinct IDs of %d items, %d late and %d revised of %d published", r.DistinctIDs, r.Items, r.Late, r.Revised, r.Published)
	case r.FirstReportTime.After(r.LastReportTime):
		return fmt.Errorf("first report time %s is after the last, %s", r.FirstReportTime, r.LastReportTime)
	}
	return nil
}

// receiptField is one field of the Avro record and where its value lives.
type receiptField struct {
	name, doc string
	at        func(*Receipt) avroValue
}

// receiptFields is the record: schema, encoder and decoder are made from it. Its
// order is the order of the fields on the wire.
var receiptFields = []receiptField{
	{"source", "Name of the source.", func(r *Receipt) avroValue { return (*text)(&r.Source) }},
	{"counter", "Number of the commit of this source: 1 is the first, each adds one.", func(r *Receipt) avroValue { return (*ordinal)(&r.Counter) }},
	{"purpose", "Why the window was asked for: live, catch_up, sweep, backfill and so on; gap, start and mend (a position as a person said) ask nothing.", func(r *Receipt) avroValue { return (*text)(&r.Purpose) }},
	{"endpoint", "feed (windows by report time) or stream (windows by time of insertion).", func(r *Receipt) avroValue { return (*text)(&r.Endpoint) }},
	{"definition", "What the source asked for then: endpoint, host, path and locations, for people to read.", func(r *Receipt) avroValue { return (*text)(&r.Definition) }},
	{"orgUuid", "Organisation, once a record told it.", func(r *Receipt) avroValue { return (*optionalText)(&r.OrgUUID) }},

	{"askedStart", "Inclusive start of the span that was asked for, overlap included; null if nothing was asked.", func(r *Receipt) avroValue { return (*instant)(&r.Asked.StartInclusive) }},
	{"askedEnd", "Exclusive end of the span that was asked for.", func(r *Receipt) avroValue { return (*instant)(&r.Asked.EndExclusive) }},
	{"commitStart", "Inclusive start of the span that this commit settles; null if it moves no watermark.", func(r *Receipt) avroValue { return (*instant)(&r.Commit.StartInclusive) }},
	{"commitEnd", "Exclusive end of the span that this commit settles.", func(r *Receipt) avroValue { return (*instant)(&r.Commit.EndExclusive) }},
	{"gapStart", "Inclusive start of a span that the feed could no longer return: its records are lost; null if there is none.", func(r *Receipt) avroValue { return (*instant)(&r.Gap.StartInclusive) }},
	{"gapEnd", "Exclusive end of a span that the feed could no longer return.", func(r *Receipt) avroValue { return (*instant)(&r.Gap.EndExclusive) }},

	{"requests", "HTTP requests that the window took, refused and repeated ones included.", func(r *Receipt) avroValue { return (*count)(&r.Requests) }},
	{"pages", "Pages that were read and used.", func(r *Receipt) avroValue { return (*count)(&r.Pages) }},
	{"totalCount", "What the first page said to be the number of records; null if it did not say.", func(r *Receipt) avroValue { return (*optionalCount)(&r.TotalCount) }},
	{"bytes", "Bytes of the pages after decompression.", func(r *Receipt) avroValue { return (*count)(&r.Bytes) }},

	{"items", "Items on the pages. Always published + alreadyKnown + deadLetters.", func(r *Receipt) avroValue { return (*count)(&r.Items) }},
	{"distinctIds", "Different identities among the items.", func(r *Receipt) avroValue { return (*count)(&r.DistinctIDs) }},
	{"published", "Items published as events by this commit, late and revised ones included.", func(r *Receipt) avroValue { return (*count)(&r.Published) }},
	{"alreadyKnown", "Items left out: published already, by an earlier window or earlier in this one.", func(r *Receipt) avroValue { return (*count)(&r.AlreadyKnown) }},
	{"late", "Published items that their time's own window had not returned.", func(r *Receipt) avroValue { return (*count)(&r.Late) }},
	{"revised", "Published items whose Report ID was published before with other content.", func(r *Receipt) avroValue { return (*count)(&r.Revised) }},
	{"deadLetters", "Items written to the dead-letter topic by this commit.", func(r *Receipt) avroValue { return (*count)(&r.DeadLetters) }},

	{"firstReportTime", "Earliest report time among the items; null without one.", func(r *Receipt) avroValue { return (*moment)(&r.FirstReportTime) }},
	{"lastReportTime", "Latest report time among the items; null without one.", func(r *Receipt) avroValue { return (*moment)(&r.LastReportTime) }},

	{"firstRequestAt", "When the first request was sent, by the local clock; null without requests.", func(r *Receipt) avroValue { return (*moment)(&r.FirstRequestAt) }},
	{"lastRequestAt", "When the last request was sent, by the local clock.", func(r *Receipt) avroValue { return (*moment)(&r.LastRequestAt) }},
	{"serverDate", "The feed's own Date on the first page; null if it sent none, and then the age of the window rests on the local clock and a margin.", func(r *Receipt) avroValue { return (*moment)(&r.ServerDate) }},
	{"waitedMillis", "Milliseconds spent waiting for the request budget and as Retry-After demanded.", func(r *Receipt) avroValue { return (*millis)(&r.Waited) }},
	{"unproven", "Why the window is not proven to be complete; null: it is proven.", func(r *Receipt) avroValue { return (*optionalText)(&r.Unproven) }},
	{"commitTime", "When the commit was made; also the timestamp of its events.", func(r *Receipt) avroValue { return (*moment)(&r.CommitTime) }},

	{"feedPublished", "Position after this commit: every feed window before it is committed.", func(r *Receipt) avroValue { return (*instant)(&r.FeedPublished) }},
	{"feedSettled", "Position after this commit: passed by the widest sweep for late records.", func(r *Receipt) avroValue { return (*instant)(&r.FeedSettled) }},
	{"streamPublished", "Position after this commit: every stream window before it is committed.", func(r *Receipt) avroValue { return (*instant)(&r.StreamPublished) }},
	{"oldestRecord", "Position after this commit: oldest report time ever seen from this source.", func(r *Receipt) avroValue { return (*instant)(&r.OldestRecord) }},
	{"journalFrom", "Position after this commit: offset in the ids topic from which the set of published IDs is rebuilt.", func(r *Receipt) avroValue { return (*count)(&r.JournalFrom) }},
	{"schemaFingerprint", "Fingerprint of the event schema that the window was encoded with.", func(r *Receipt) avroValue { return (*fingerprint)(&r.SchemaFingerprint) }},
}

// ReceiptCodec encodes and decodes receipts in Confluent wire format. It is safe for
// concurrent use.
type ReceiptCodec struct {
	schemaID uint32
	writer   *goavro.Codec
}

// NewReceiptCodec returns the codec of ReceiptSchema, which the registry knows
// under schemaID.
func NewReceiptCodec(schemaID int) (*ReceiptCodec, error) {
	return NewReceiptDecoder(schemaID, ReceiptSchema())
}

// NewReceiptDecoder returns a codec that decodes the receipts of another version of
// the schema, as the registry holds it under schemaID. Fields that it lacks stay
// unset, fields that we lack are passed over.
func NewReceiptDecoder(schemaID int, writerSchema string) (*ReceiptCodec, error) {
	if schemaID < 0 || schemaID > math.MaxInt32 {
		return nil, fmt.Errorf("receipt schema id %d is not one of a registry", schemaID)
	}
	writer, err := goavro.NewCodec(writerSchema)
	if err != nil {
		return nil, fmt.Errorf("parse receipt schema %d: %w", schemaID, err)
	}
	return &ReceiptCodec{schemaID: uint32(schemaID), writer: writer}, nil
}

// Encode returns the value to write.
func (c *ReceiptCodec) Encode(r Receipt) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("encode receipt %s#%d: %w", r.Source, r.Counter, err)
	}
	native := make(map[string]any, len(receiptFields))
	for _, f := range receiptFields {
		v, err := f.at(&r).native()
		if err != nil {
			return nil, fmt.Errorf("encode receipt %s#%d: %s: %w", r.Source, r.Counter, f.name, err)
		}
		native[f.name] = v
	}
	value := binary.BigEndian.AppendUint32([]byte{wireMagic}, c.schemaID)
	value, err := c.writer.BinaryFromNative(value, native)
	if err != nil {
		return nil, fmt.Errorf("encode receipt %s#%d: %w", r.Source, r.Counter, err)
	}
	return value, nil
}

const (
	wireMagic       = 0
	wireHeaderBytes = 5 // magic, then the schema id, big endian
)

// ReceiptSchemaID returns the id of the schema that a receipt was written with.
func ReceiptSchemaID(value []byte) (int, error) {
	if len(value) < wireHeaderBytes || value[0] != wireMagic {
		return 0, errors.New("decode receipt: not in Confluent wire format")
	}
	return int(binary.BigEndian.Uint32(value[1:])), nil
}

// Decode reads a receipt that was written with the codec's schema; one of another
// schema id is refused, for a guess would read nonsense.
func (c *ReceiptCodec) Decode(value []byte) (Receipt, error) {
	id, err := ReceiptSchemaID(value)
	if err != nil {
		return Receipt{}, err
	}
	if id != int(c.schemaID) {
		return Receipt{}, fmt.Errorf("decode receipt: written with schema id %d, want %d", id, c.schemaID)
	}
	native, rest, err := c.writer.NativeFromBinary(value[wireHeaderBytes:])
	if err != nil {
		return Receipt{}, fmt.Errorf("decode receipt: %w", err)
	}
	if len(rest) > 0 {
		return Receipt{}, fmt.Errorf("decode receipt: %d bytes after the record", len(rest))
	}
	fields, ok := native.(map[string]any)
	if !ok {
		return Receipt{}, fmt.Errorf("decode receipt: schema %d is not a record", c.schemaID)
	}
	r := Receipt{TotalCount: -1}
	for _, f := range receiptFields {
		v, present := fields[f.name]
		if !present {
			continue
		}
		if err := f.at(&r).fill(v); err != nil {
			return Receipt{}, fmt.Errorf("decode receipt: %s: %w", f.name, err)
		}
	}
	return r, nil
}
