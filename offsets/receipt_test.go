package offsets

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2"

	"cdrbus/internal/cdr"
)

// exampleReceipt has every field set.
func exampleReceipt() Receipt {
	at := func(d time.Duration) time.Time { return day.Time().Add(d) }
	return Receipt{
		Source: "acme", Counter: 42, Purpose: cdr.Live, Endpoint: cdr.Feed,
		Definition: "feed of https://localhost/v1/cdr_feed, all locations", OrgUUID: "6a29a3f1-9d5c-4c4e-8d6c-0f5ee1c3d2ab",
		Asked:    cdr.Span{StartInclusive: day.Add(-time.Minute), EndExclusive: day.Add(5 * time.Minute)},
		Commit:   cdr.Span{StartInclusive: day, EndExclusive: day.Add(5 * time.Minute)},
		Gap:      cdr.Span{StartInclusive: day.Add(-time.Hour), EndExclusive: day},
		Requests: 4, Pages: 3, TotalCount: 20, Bytes: 60000,
		Items: 21, DistinctIDs: 20, Published: 17, AlreadyKnown: 3, Late: 2, Revised: 1, DeadLetters: 1,
		FirstReportTime: at(-59 * time.Second), LastReportTime: at(4*time.Minute + 789*time.Millisecond),
		FirstRequestAt: at(11 * time.Minute), LastRequestAt: at(12 * time.Minute), ServerDate: at(11*time.Minute + time.Second),
		Waited: 61500 * time.Millisecond, Unproven: "20 records of 21 came three times", CommitTime: at(13*time.Minute + 5*time.Millisecond),
		FeedPublished: day.Add(5 * time.Minute), FeedSettled: day.Add(-48 * time.Hour), StreamPublished: day.Add(8 * time.Minute),
		OldestRecord: day.Add(-30 * 24 * time.Hour), JournalFrom: 1234, SchemaFingerprint: 0xdeadbeef,
	}
}

// bareReceipt has nothing set that can be unset.
func bareReceipt() Receipt {
	return Receipt{Source: "new", Counter: 1, Purpose: cdr.Start, Endpoint: cdr.Feed, TotalCount: -1, CommitTime: day.Time(), FeedPublished: day}
}

func newCodec(t testing.TB, id int) *ReceiptCodec {
	t.Helper()
	c, err := NewReceiptCodec(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReceiptGolden(t *testing.T) {
	golden(t, "receipt.avsc", []byte(ReceiptSchema()+"\n"))
	codec := newCodec(t, 7)
	for name, r := range map[string]Receipt{"receipt.hex": exampleReceipt(), "receipt_bare.hex": bareReceipt()} {
		value, err := codec.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		goldenBytes(t, name, value)
		if id, err := ReceiptSchemaID(value); id != 7 || err != nil {
			t.Errorf("%s: schema id %d, %v; want 7", name, id, err)
		}
		back, err := codec.Decode(value)
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s decodes to\n%+v, %v; want\n%+v", name, back, err, r)
		}
	}
}

// TestReceiptSetsEveryField fails when a new field is forgotten in the table.
func TestReceiptSetsEveryField(t *testing.T) {
	r := exampleReceipt()
	fields := reflect.ValueOf(r)
	for i := range fields.NumField() {
		if fields.Field(i).IsZero() {
			t.Errorf("the example leaves %s unset", fields.Type().Field(i).Name)
		}
	}
	seen := map[string]bool{}
	for _, f := range receiptFields {
		if seen[f.name] || f.doc == "" {
			t.Errorf("field %q comes twice or has no doc", f.name)
		}
		seen[f.name] = true
	}
}

// TestReceiptReadsTheSameElsewhere decodes with a second Avro library.
func TestReceiptReadsTheSameElsewhere(t *testing.T) {
	schema, err := avro.Parse(ReceiptSchema())
	if err != nil {
		t.Fatal(err)
	}
	value, err := newCodec(t, 7).Encode(exampleReceipt())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := avro.Unmarshal(schema, value[wireHeaderBytes:], &got); err != nil {
		t.Fatal(err)
	}
	r := exampleReceipt()
	for name, want := range map[string]any{
		"source": "acme", "counter": int64(42), "purpose": "live", "endpoint": "feed", "unproven": r.Unproven, "orgUuid": r.OrgUUID,
		"askedStart": r.Asked.StartInclusive.Time(), "askedEnd": r.Asked.EndExclusive.Time(), "commitStart": day.Time(), "gapStart": r.Gap.StartInclusive.Time(),
		"requests": int64(4), "pages": int64(3), "totalCount": int64(20), "bytes": int64(60000),
		"items": int64(21), "distinctIds": int64(20), "published": int64(17), "alreadyKnown": int64(3), "late": int64(2), "revised": int64(1), "deadLetters": int64(1),
		"firstReportTime": r.FirstReportTime, "lastReportTime": r.LastReportTime, "serverDate": r.ServerDate, "waitedMillis": int64(61500), "commitTime": r.CommitTime,
		"feedSettled": r.FeedSettled.Time(), "journalFrom": int64(1234), "schemaFingerprint": int64(0xdeadbeef),
	} {
		v := got[name]
		if union, isUnion := v.(map[string]any); isUnion {
			for _, branch := range union {
				v = branch
			}
		}
		if !reflect.DeepEqual(v, want) {
			t.Errorf("%s is %v (%T), want %v (%T)", name, v, v, want, want)
		}
	}
}

func TestReceiptMustAddUp(t *testing.T) {
	for want, change := range map[string]func(*Receipt){
		"21 items are not 16 published":     func(r *Receipt) { r.Published-- },
		"22 distinct IDs of 21 items":       func(r *Receipt) { r.DistinctIDs = 22 },
		"18 late and 1 revised of 17":       func(r *Receipt) { r.Late = 18 },
		"2 late and 18 revised of 17":       func(r *Receipt) { r.Revised = 18 },
		"counter 0":                         func(r *Receipt) { r.Counter = 0 },
		"counter 9223372036854775808":       func(r *Receipt) { r.Counter = math.MaxInt64 + 1 },
		"commit time is unset":              func(r *Receipt) { r.CommitTime = time.Time{} },
		"totalCount is -2":                  func(r *Receipt) { r.TotalCount = -2 },
		"pages is -1":                       func(r *Receipt) { r.Pages = -1 },
		"first report time":                 func(r *Receipt) { r.LastReportTime = time.Time{} },
		"a bound is unset":                  func(r *Receipt) { r.Asked.EndExclusive = 0 },
		"the end must be later":             func(r *Receipt) { r.Gap.EndExclusive = 1 },
		"source name":                       func(r *Receipt) { r.Source = "" },
		`purpose: text "\xff" is not UTF-8`: func(r *Receipt) { r.Purpose = "\xff" },
		`unproven: text "\xff" is not UTF`:  func(r *Receipt) { r.Unproven = "\xff" },
	} {
		r := exampleReceipt()
		change(&r)
		if _, err := newCodec(t, 7).Encode(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Encode gave %v, want %q", err, want)
		}
	}
}

func TestReceiptOfAnotherSchema(t *testing.T) {
	value, err := newCodec(t, 7).Encode(exampleReceipt())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newCodec(t, 8).Decode(value); err == nil || !strings.Contains(err.Error(), "written with schema id 7, want 8") {
		t.Errorf("another schema id gave %v", err)
	}
	// A later version adds a field in front and drops one of ours.
	var schema map[string]any
	if err := json.Unmarshal([]byte(ReceiptSchema()), &schema); err != nil {
		t.Fatal(err)
	}
	fields := schema["fields"].([]any)
	schema["fields"] = append([]any{map[string]any{"name": "added", "type": "long", "default": 0}}, fields[:len(fields)-1]...)
	text, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	later, err := NewReceiptDecoder(9, string(text))
	if err != nil {
		t.Fatal(err)
	}
	fingerprintBytes := 5 // of a zigzag varint beyond 2^31
	laterValue := append([]byte{wireMagic, 0, 0, 0, 9, 2}, value[wireHeaderBytes:len(value)-fingerprintBytes]...)
	want := exampleReceipt()
	want.SchemaFingerprint = 0
	if got, err := later.Decode(laterValue); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a later receipt decodes to\n%+v, %v; want\n%+v", got, err, want)
	}
}

func TestReceiptCodecRefuses(t *testing.T) {
	for _, id := range []int{-1, math.MaxInt32 + 1} {
		if _, err := NewReceiptCodec(id); err == nil {
			t.Errorf("schema id %d is accepted", id)
		}
	}
	if _, err := NewReceiptDecoder(1, `{"type":"nonsense"}`); err == nil {
		t.Error("a schema that is none is accepted")
	}
	text, err := NewReceiptDecoder(1, `"string"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := text.Decode([]byte{0, 0, 0, 0, 1, 2, 'x'}); err == nil || !strings.Contains(err.Error(), "not a record") {
		t.Errorf("a schema that is no record gave %v", err)
	}
	codec := newCodec(t, 1)
	value, err := codec.Encode(bareReceipt())
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "no header": value[:4], "JSON": []byte(`{"source":"acme"}`), "cut": value[:len(value)-1], "more": append(bytes.Clone(value), 0),
	} {
		if r, err := codec.Decode(bad); err == nil {
			t.Errorf("%s decodes to %+v", name, r)
		}
	}
}

// FuzzDecodeReceipt: nothing panics, and what decodes to a receipt that adds up is
// written again to the same value.
func FuzzDecodeReceipt(f *testing.F) {
	codec := newCodec(f, 7)
	for _, r := range []Receipt{exampleReceipt(), bareReceipt()} {
		value, err := codec.Encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := codec.Decode(value)
		if err != nil || r.Validate() != nil {
			return
		}
		again, err := codec.Encode(r)
		if err != nil {
			return // texts that are not UTF-8
		}
		if back, err := codec.Decode(again); err != nil || !reflect.DeepEqual(back, r) {
			t.Fatalf("decodes to %+v, but again to %+v, %v", r, back, err)
		}
	})
}
