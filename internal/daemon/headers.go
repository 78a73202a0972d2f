package daemon

import (
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/schema"
)

// EventType is the CloudEvents type of every event.
const EventType = "com.webex.calling.cdr.v1"

// ContentType is the media type of an event's value: Avro behind the five-byte
// header of the Confluent wire format.
const ContentType = "application/avro"

// headerBuilder makes the headers of one source's events: CloudEvents 1.0 in
// the binary mode of its Kafka binding, and where the record key came from.
// It reuses its memory, so the headers last until the next call.
type headerBuilder struct {
	enabled bool
	source  []byte    // ce_source
	keyFrom [3][]byte // by schema.KeyFrom
	headers []kafka.Header
	time    []byte
}

var (
	specVersion = []byte("1.0")
	eventType   = []byte(EventType)
	contentType = []byte(ContentType)
	headerTrue  = []byte("true")
)

// EventSource is the CloudEvents source of a cdrbus source: with the Report ID
// it names an event for ever, whichever region or endpoint it came from.
func EventSource(name cdr.SourceName) string { return "urn:cdrbus:" + string(name) }

func newHeaderBuilder(name cdr.SourceName, enabled bool) *headerBuilder {
	b := &headerBuilder{enabled: enabled, source: []byte(EventSource(name))}
	for _, from := range []schema.KeyFrom{schema.FromCorrelationID, schema.FromInteractionID, schema.FromReportID} {
		b.keyFrom[from] = []byte(from.String())
	}
	return b
}

func (b *headerBuilder) event(item *schema.Item, late, revised bool) []kafka.Header {
	b.headers = b.headers[:0]
	if !b.enabled {
		return nil
	}
	b.add("ce_specversion", specVersion)
	b.add("ce_id", item.ReportID)
	b.add("ce_source", b.source)
	b.add("ce_type", eventType)
	if item.HasReportTime {
		b.time = time.UnixMilli(item.ReportTimeMillis).UTC().AppendFormat(b.time[:0], "2006-01-02T15:04:05.000Z")
		b.add("ce_time", b.time)
	}
	b.add("content-type", contentType)
	b.add("key_from", b.keyFrom[item.KeyFrom])
	if late {
		b.add("late", headerTrue)
	}
	if revised {
		b.add("revision", headerTrue)
	}
	return b.headers
}

func (b *headerBuilder) add(key string, value []byte) {
	b.headers = append(b.headers, kafka.Header{Key: key, Value: value})
}
