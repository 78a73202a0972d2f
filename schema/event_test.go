package schema

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
)

// goldenItems are the items whose events are held byte by byte: the sample of
// the first documentation, a made-up record with the quirks of the wire, and
// one with every field, three unknown keys, two values that are not of their
// field's type, and every null mark.
func goldenItems(t *testing.T) []json.RawMessage {
	t.Helper()
	text, err := os.ReadFile("testdata/golden-page.json")
	if err != nil {
		t.Fatal(err)
	}
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal(text, &page); err != nil {
		t.Fatal(err)
	}
	return page.Items
}

// TestGoldenEvents fails when an event gets other bytes than before. If that
// is meant and the schema is the same, encodingVersion has to go up.
func TestGoldenEvents(t *testing.T) {
	page, err := os.ReadFile("testdata/golden-page.json")
	if err != nil {
		t.Fatal(err)
	}
	var bytesText, jsonText strings.Builder
	for _, item := range encodePage(t, EncoderOptions{SchemaID: 7}, string(page)) {
		if item.Reject != nil {
			t.Fatalf("item %d is a reject for %s", item.Index, item.Reject.Cause)
		}
		fmt.Fprintf(&bytesText, "item %d, key %s from %s, hash %016x\n%s\n", item.Index, item.Key, item.KeyFrom, item.Hash, hex.Dump(item.Value))
		event := must(Decode(item.Value))
		fmt.Fprintf(&jsonText, "%s\n%s\n", must(json.Marshal(event)), must(json.Marshal(event.Mask())))
	}
	golden(t, "testdata/golden-events.hex", []byte(bytesText.String()))
	golden(t, "testdata/golden-events.jsonl", []byte(jsonText.String()))
}

// TestEverythingComesBack reads the golden items through every decoder and
// holds them against the reference.
func TestEverythingComesBack(t *testing.T) {
	for i, item := range goldenItems(t) {
		want, ok := reference(t, item)
		if !ok {
			t.Fatalf("item %d has no Report ID", i)
		}
		got := checkReaders(t, encodeOne(t, string(item)))
		compareRecords(t, fmt.Sprintf("item %d", i), got, want)
	}
}

// TestCompleteRecord spells out what the last golden item has to come back as.
func TestCompleteRecord(t *testing.T) {
	items := goldenItems(t)
	item := items[len(items)-1]
	present := map[string]bool{}
	for _, m := range refMembers(t, item) {
		if f := refField(m.key); f != nil {
			present[f.FeedName] = true
		}
	}
	if len(present) != fieldCount {
		t.Fatalf("the item has %d known keys, want %d", len(present), fieldCount)
	}
	got := checkReaders(t, encodeOne(t, string(item)))
	wantUnmapped := map[string]string{
		"Field of tomorrow": `"x"`, "Number of tomorrow": `12345678901234567890`, "Object of tomorrow": `{"a": [1, {"b": null}]}`,
		"Ring duration": `"a while"`, "Call transfer Time": `"later"`,
	}
	if !maps.Equal(got.unmapped, wantUnmapped) {
		t.Errorf("unmapped is %q, want %q", got.unmapped, wantUnmapped)
	}
	null := map[string]string{"answerTime": `""`, "authorizationCode": "null", "calledLineId": "NA", "osType": "na", "ringDuration": "unparseable", "callTransferTime": "unparseable"}
	for i := range fields {
		name := fields[i].AvroName
		if _, isNull := null[name]; isNull != (got.values[name] == nil) {
			t.Errorf("%s is %v; written as %q", name, got.values[name], null[name])
		}
	}
	for name, want := range map[string]any{"location": "NA", "wxccConsultMergeStatus": "NA", "answerReason": "N/A", "answered": true, "holdDuration": int64(0), "siteTimezone": int32(-240)} {
		if got.values[name] != want {
			t.Errorf("%s is %v, want %v", name, got.values[name], want)
		}
	}
}

func TestMask(t *testing.T) {
	var members []string
	for i := range fields {
		text := "secret"
		if k := fields[i].Kind; k == Long || k == Int {
			text = "5"
		}
		members = append(members, fmt.Sprintf("%q:%q", fields[i].FeedName, text))
	}
	value := encodeOne(t, "{"+strings.Join(members, ",")+`,"Unknown":"secret"}`)
	event := must(Decode(value))
	masked := event.Mask()
	for i := range fields {
		f := &fields[i]
		want := event.Value(f.AvroName)
		if f.PII != NoPII {
			if f.Kind != String {
				t.Errorf("%s holds personal data and is %s, which Mask does not mask", f.AvroName, f.Kind)
			}
			want = Masked
		}
		if got := masked.Value(f.AvroName); got != want {
			t.Errorf("%s is masked as %v, want %v", f.AvroName, got, want)
		}
	}
	if masked.Unmapped["Unknown"] != Masked || event.Unmapped["Unknown"] != `"secret"` || event.Value("callId") != "secret" {
		t.Error("Mask left a text of unmapped, or changed the event itself")
	}
	if masked.ReportID() != "secret" {
		t.Errorf("the Report ID is masked as %q", masked.ReportID())
	}
	if got := must(Decode(encodeOne(t, `{"Report ID":"r"}`))).Mask(); got.Value("callId") != nil || got.Unmapped != nil {
		t.Error("Mask put something where nothing was")
	}
}

func TestEventJSON(t *testing.T) {
	const item = `{"Report ID":"<r&>","Start time":"2026-10-05T08:14:31.2Z","Duration":5,"Answered":"false","Site timezone":"-60","Location":"a\"b","z":1,"a":"x"}`
	const want = `{"answered":false,"duration":5,"location":"a\"b","reportId":"<r&>","siteTimezone":-60,"startTime":"2026-10-05T08:14:31.200Z","unmapped":{"a":"\"x\"","z":"1"}}`
	event := must(Decode(encodeOne(t, item)))
	if got := string(must(event.MarshalJSON())); got != want {
		t.Errorf("JSON is %s\nwant %s", got, want)
	}
	if got := string(must(new(Event).MarshalJSON())); got != "{}" {
		t.Errorf("JSON of no event is %s", got)
	}
	if event.SchemaID != 7 || event.Value("nosuch") != nil {
		t.Error("schema ID or an unknown field is wrong")
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := encodeOne(t, benchRecord(1))
	for cut := range whole {
		if _, err := Decode(whole[:cut]); err == nil {
			t.Errorf("%d of %d bytes decode", cut, len(whole))
		}
	}
	body := func(field string, b ...byte) []byte {
		nulls := bytes.Repeat([]byte{0}, indexOf(field))
		return append(append([]byte{0, 0, 0, 0, 7}, nulls...), b...)
	}
	for name, c := range map[string]struct {
		value []byte
		want  string
	}{
		"nothing":    {nil, "0 bytes, want at least 5"},
		"no magic":   {[]byte("{\"a\":1}"), "first byte is 0x7b"},
		"more":       {append(bytes.Clone(whole), 0), "1 bytes behind the last field"},
		"branch":     {body("answered", 4), "field answered: no branch of the union"},
		"boolean":    {body("answered", 2, 2), "field answered: no branch of the union"},
		"length":     {body("callId", 2, 0x7e, 'x'), "field callId: a length that the value cannot hold"},
		"negative":   {body("callId", 2, 1), "field callId: a length that the value cannot hold"},
		"long":       {body("duration", 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "field duration: no valid number"},
		"end":        {body("duration", 2), "field duration: the value ends too early"},
		"twice":      {append(encodeOne(t, `{"Report ID":"r"}`)[:5+fieldCount-1+2], 4, 2, 'a', 0, 2, 'a', 0, 0), "field unmapped: a name that comes twice"},
		"end at all": {body("duration"), "field duration: the value ends too early"},
	} {
		if _, err := Decode(c.value); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// TestDecodeMapBlocks reads a map in the other form that Avro allows.
func TestDecodeMapBlocks(t *testing.T) {
	value := encodeOne(t, `{"Report ID":"r"}`)
	value = append(value[:len(value)-1], 1 /* -1 entry */, 8 /* 4 bytes */, 2, 'a', 2, '1', 2 /* 1 entry */, 2, 'b', 2, '2', 0)
	if got := checkReaders(t, value); !maps.Equal(got.unmapped, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("unmapped is %q", got.unmapped)
	}
}

// Schemas of a writer before and of one after this version.
const (
	olderSchema = `{"type":"record","name":"CallDetailRecord","namespace":"webex.calling","fields":[
		{"name":"reportId","type":"string"},
		{"name":"duration","type":["null","int"],"default":null},
		{"name":"unmapped","type":{"type":"map","values":"string"},"default":{}}]}`
	newerSchema = `{"type":"record","name":"CallDetailRecord","namespace":"webex.calling","fields":[
		{"name":"reportId","type":"string"},
		{"name":"tomorrow","type":["null","string"],"default":null,"feedName":"Field of tomorrow"},
		{"name":"count","type":["null","long"],"default":null},
		{"name":"startTime","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null,"feedName":"Start time"},
		{"name":"siteTimezone","type":["null","int"],"default":null},
		{"name":"answered","type":["null","boolean"],"default":null},
		{"name":"location","type":["null","string"],"default":null},
		{"name":"unmapped","type":{"type":"map","values":"string"},"default":{}}]}`
)

// writeAs encodes a record as another version would.
func writeAs(t *testing.T, schemaText string, native map[string]any) []byte {
	t.Helper()
	codec, err := goavro.NewCodec(schemaText)
	if err != nil {
		t.Fatal(err)
	}
	return must(codec.BinaryFromNative([]byte{0, 0, 0, 0, 9}, native))
}

func TestDecodeWith(t *testing.T) {
	for _, c := range []struct {
		name, schema string
		native       map[string]any
		want         string
	}{
		{"older", olderSchema, map[string]any{"reportId": "r", "duration": map[string]any{"int": 36}, "unmapped": map[string]any{"string": `"x"`}},
			`{"duration":36,"reportId":"r","unmapped":{"string":"\"x\""}}`},
		{"older, null", olderSchema, map[string]any{"reportId": "r", "duration": nil, "unmapped": map[string]any{}}, `{"reportId":"r"}`},
		{"newer", newerSchema, map[string]any{
			"reportId": "r", "tomorrow": map[string]any{"string": "x"}, "count": map[string]any{"long": 5}, "startTime": map[string]any{"long.timestamp-millis": int64(1500)},
			"siteTimezone": map[string]any{"int": -60}, "answered": map[string]any{"boolean": true}, "location": map[string]any{"string": "L"}, "unmapped": map[string]any{"New": "1"},
		}, `{"answered":true,"location":"L","reportId":"r","siteTimezone":-60,"startTime":"1970-01-01T00:00:01.500Z","unmapped":{"Field of tomorrow":"\"x\"","New":"1","count":"5"}}`},
		{"newer, promoted field in both", newerSchema, map[string]any{
			"reportId": "r", "tomorrow": map[string]any{"string": "x"}, "count": nil, "startTime": nil, "siteTimezone": nil, "answered": nil, "location": nil,
			"unmapped": map[string]any{"Field of tomorrow": `"\u0078"`},
		}, `{"reportId":"r","unmapped":{"Field of tomorrow":"\"\\u0078\""}}`},
	} {
		writer, err := ParseWriterSchema(c.schema)
		if err != nil {
			t.Fatal(err)
		}
		event, err := DecodeWith(writer, writeAs(t, c.schema, c.native))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := string(must(json.Marshal(event))); got != c.want || event.SchemaID != 9 {
			t.Errorf("%s: schema %d gives %s\nwant %s", c.name, event.SchemaID, got, c.want)
		}
	}
}

func TestDecodeWithRefuses(t *testing.T) {
	other := strings.Replace(olderSchema, `["null","int"]`, `["null","string"]`, 1)
	without := strings.Replace(olderSchema, `"reportId"`, `"id"`, 1)
	for _, c := range []struct {
		schema string
		native map[string]any
		want   string
	}{
		{other, map[string]any{"reportId": "r", "duration": map[string]any{"string": "x"}, "unmapped": map[string]any{}}, "field duration: the writer's string cannot be read as long"},
		{without, map[string]any{"id": "r", "duration": nil, "unmapped": map[string]any{}}, "field reportId: the writer's schema lacks it"},
	} {
		writer := must(ParseWriterSchema(c.schema))
		if _, err := DecodeWith(writer, writeAs(t, c.schema, c.native)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	older := must(ParseWriterSchema(olderSchema))
	for _, value := range [][]byte{nil, {0, 0, 0, 0, 1}, append(writeAs(t, olderSchema, map[string]any{"reportId": "r", "duration": nil, "unmapped": map[string]any{}}), 0)} {
		if _, err := DecodeWith(older, value); err == nil {
			t.Errorf("value % x decodes", value)
		}
	}
	for _, text := range []string{"", "{}", `"string"`, `{"type":"enum","name":"e","symbols":["a"]}`} {
		if _, err := ParseWriterSchema(text); err == nil {
			t.Errorf("schema %q is taken for a writer's", text)
		}
	}
}

// TestDecodeWithOwnSchema holds that the same layout needs no resolution, doc
// texts or not.
func TestDecodeWithOwnSchema(t *testing.T) {
	value := encodeOne(t, benchRecord(1))
	want := must(json.Marshal(must(Decode(value))))
	for _, text := range []string{AvroJSON(), strings.ReplaceAll(AvroJSON(), `"doc":"`, `"doc":"Once upon a time: `)} {
		writer := must(ParseWriterSchema(text))
		if !writer.sameForm {
			t.Error("this very schema is taken for another")
		}
		if got := must(json.Marshal(must(DecodeWith(writer, value)))); !bytes.Equal(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		writer.sameForm = false
		if got := must(json.Marshal(must(DecodeWith(writer, value)))); !bytes.Equal(got, want) {
			t.Errorf("by resolution: got %s, want %s", got, want)
		}
	}
}

func TestDecoderAsksOnce(t *testing.T) {
	asked := 0
	d := NewDecoder(func(_ context.Context, id int) (string, error) {
		asked++
		switch id {
		case 7:
			return AvroJSON(), nil
		case 8:
			return "{", nil
		}
		return "", errors.New("no such schema")
	})
	for range 3 {
		if got := must(d.Decode(t.Context(), encodeOne(t, `{"Report ID":"r"}`))); got.ReportID() != "r" {
			t.Errorf("Report ID is %q", got.ReportID())
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times for one schema", asked)
	}
	for _, value := range [][]byte{nil, {0, 0, 0, 0, 8}, {0, 0, 0, 0, 9}} {
		if _, err := d.Decode(t.Context(), value); err == nil {
			t.Errorf("value % x decodes", value)
		}
	}
}

func TestOnly(t *testing.T) {
	event := must(Decode(encodeOne(t, `{"Report ID":"a","Duration":5,"Location":"here","New":1}`)))
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, `{}`},
		{[]string{"duration", "reportId", "answerTime", "no such field"}, `{"duration":5,"reportId":"a"}`},
		{[]string{UnmappedName}, `{"unmapped":{"New":"1"}}`},
	} {
		if got := string(must(event.Only(c.names...).MarshalJSON())); got != c.want {
			t.Errorf("only %v: %s, want %s", c.names, got, c.want)
		}
	}
}
