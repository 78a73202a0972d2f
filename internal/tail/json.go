package tail

import (
	"encoding/json"
	"io"

	"cdrbus/internal/eventlog"
	"cdrbus/schema"
)

// line is an event as a line of JSON. Its names are a contract.
type line struct {
	Topic     string        `json:"topic"`
	Partition int           `json:"partition"`
	Offset    int64         `json:"offset"`
	Committed string        `json:"committed"`
	Key       *string       `json:"key"` // null: the record has none
	Source    string        `json:"source,omitempty"`
	Late      bool          `json:"late"`
	Revision  bool          `json:"revision"`
	SchemaID  int           `json:"schema_id"`
	Event     *schema.Event `json:"event"`
}

// JSON prints events as lines of JSON, as they are.
type JSON struct {
	encoder *json.Encoder
	view    View
}

// NewJSON prints to w.
func NewJSON(w io.Writer, view View) *JSON {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return &JSON{encoder: encoder, view: view}
}

// Print writes one line.
func (j *JSON) Print(topic string, e *eventlog.Event, decoded *schema.Event) error {
	l := line{
		Topic: topic, Partition: e.Partition, Offset: e.Offset, Committed: e.At.Format(committedLayout),
		Source: e.Source, Late: e.Late, Revision: e.Revision, SchemaID: e.SchemaID, Event: j.view.of(decoded),
	}
	if e.Key != nil {
		key := string(e.Key)
		l.Key = &key
	}
	return j.encoder.Encode(&l)
}

const committedLayout = "2006-01-02T15:04:05.000Z07:00"

// View is what is shown of an event.
type View struct {
	Fields       []string // Avro names; nil: all
	PersonalData bool     // else it is masked, as on the status page
}

func (v *View) of(e *schema.Event) *schema.Event {
	if v.Fields != nil {
		e = e.Only(v.Fields...)
	}
	if !v.PersonalData {
		e = e.Mask()
	}
	return e
}
