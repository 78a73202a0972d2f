package offsets

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/linkedin/goavro/v2"

	"cdrbus/internal/cdr"
)

const receiptSchemaDoc = "Receipt of one committed window of a Webex Calling CDR source: what was asked, what came, what was published, and whether it is proven to be complete. Keyed by the source's name; written in the transaction that publishes the window's events."

// ReceiptSchema returns the Avro schema of a receipt, in its full form. Every later
// field gets a default, so that any two versions read each other.
func ReceiptSchema() string {
	type field struct {
		Name    string          `json:"name"`
		Type    any             `json:"type"`
		Doc     string          `json:"doc"`
		Default json.RawMessage `json:"default,omitempty"`
	}
	fields := make([]field, len(receiptFields))
	for i, f := range receiptFields {
		fields[i] = field{Name: f.name, Doc: f.doc, Type: f.at(new(Receipt)).avroType()}
		if _, isUnion := fields[i].Type.([]any); isUnion {
			fields[i].Default = json.RawMessage("null")
		}
	}
	text, err := json.MarshalIndent(struct {
		Type      string  `json:"type"`
		Namespace string  `json:"namespace"`
		Name      string  `json:"name"`
		Doc       string  `json:"doc"`
		Fields    []field `json:"fields"`
	}{"record", "webex.calling", "WindowReceipt", receiptSchemaDoc, fields}, "", "  ")
	if err != nil {
		panic(err) // the table is constant
	}
	return string(text)
}

// avroValue is a value of a receipt on its way to or from goavro's native form.
type avroValue interface {
	avroType() any
	native() (any, error)
	fill(native any) error
}

type (
	text          string        // string
	optionalText  string        // null if empty
	count         int64         // long, never negative
	optionalCount int64         // null if negative
	ordinal       cdr.Counter   // long
	fingerprint   uint32        // long
	millis        time.Duration // long, whole milliseconds
	moment        time.Time     // timestamp-millis, null if unset
	instant       cdr.Instant   // timestamp-millis, null if unset
)

// timestampUnion is how goavro names the second branch of ["null", timestamp-millis].
const timestampUnion = "long.timestamp-millis"

var timestampType = []any{"null", map[string]string{"type": "long", "logicalType": "timestamp-millis"}}

func (v *text) avroType() any          { return "string" }
func (v *optionalText) avroType() any  { return []any{"null", "string"} }
func (v *count) avroType() any         { return "long" }
func (v *optionalCount) avroType() any { return []any{"null", "long"} }
func (v *ordinal) avroType() any       { return "long" }
func (v *fingerprint) avroType() any   { return "long" }
func (v *millis) avroType() any        { return "long" }
func (v *moment) avroType() any        { return timestampType }
func (v *instant) avroType() any       { return timestampType }

func (v *text) native() (any, error) { return string(*v), v.valid() }

func (v *text) valid() error {
	if !utf8.ValidString(string(*v)) {
		return fmt.Errorf("text %q is not UTF-8", string(*v))
	}
	return nil
}

func (v *optionalText) native() (any, error) {
	if *v == "" {
		return nil, nil
	}
	return goavro.Union("string", string(*v)), (*text)(v).valid()
}

func (v *optionalCount) native() (any, error) {
	if *v < 0 {
		return nil, nil
	}
	return goavro.Union("long", int64(*v)), nil
}

func (v *count) native() (any, error)       { return int64(*v), nil }
func (v *ordinal) native() (any, error)     { return int64(*v), nil }
func (v *fingerprint) native() (any, error) { return int64(*v), nil }
func (v *millis) native() (any, error)      { return time.Duration(*v).Milliseconds(), nil }

func (v *moment) native() (any, error) {
	if time.Time(*v).IsZero() {
		return nil, nil
	}
	return goavro.Union(timestampUnion, time.Time(*v).UnixMilli()), nil
}

func (v *instant) native() (any, error) {
	if *v == 0 {
		return nil, nil
	}
	return goavro.Union(timestampUnion, int64(*v)*1000), nil
}

func (v *text) fill(native any) error {
	s, err := as[string](native)
	*v = text(s)
	return err
}

func (v *optionalText) fill(native any) error {
	s, _, err := branch[string](native, "string")
	*v = optionalText(s)
	return err
}

func (v *count) fill(native any) error {
	n, err := as[int64](native)
	*v = count(n)
	return err
}

func (v *optionalCount) fill(native any) error {
	n, present, err := branch[int64](native, "long")
	*v = optionalCount(n)
	if !present {
		*v = -1
	}
	return err
}

func (v *ordinal) fill(native any) error {
	n, err := as[int64](native)
	*v = ordinal(n)
	return err
}

func (v *fingerprint) fill(native any) error {
	n, err := as[int64](native)
	*v = fingerprint(n)
	return err
}

func (v *millis) fill(native any) error {
	n, err := as[int64](native)
	*v = millis(time.Duration(n) * time.Millisecond)
	return err
}

func (v *moment) fill(native any) error {
	t, _, err := branch[time.Time](native, timestampUnion)
	*v = moment(t)
	return err
}

func (v *instant) fill(native any) error {
	t, _, err := branch[time.Time](native, timestampUnion)
	*v = instant(cdr.InstantOf(t))
	return err
}

func as[T any](native any) (T, error) {
	v, ok := native.(T)
	if !ok {
		return v, fmt.Errorf("is %T, want %T", native, v)
	}
	return v, nil
}

// branch reads an optional value: goavro hands out nil, or a map from the name of
// the branch to its value.
func branch[T any](native any, name string) (value T, present bool, err error) {
	if native == nil {
		return value, false, nil
	}
	union, err := as[map[string]any](native)
	if err != nil {
		return value, false, err
	}
	value, err = as[T](union[name])
	return value, err == nil, err
}
