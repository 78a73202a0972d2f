package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"cdrbus/internal/cdr"
)

// oneField encodes an item that holds, besides a Report ID, one member, and
// returns the value of that field and what went into unmapped.
func oneField(t *testing.T, avroName, member string) (any, map[string]string) {
	t.Helper()
	rec := checkReaders(t, encodeOne(t, `{"Report ID":"r1",`+member+`}`))
	return rec.values[avroName], rec.unmapped
}

// TestTypedValues goes through every way to write a value. An empty unmapped
// means that the column holds all of it.
func TestTypedValues(t *testing.T) {
	const duration, zone, answered, start, location = "Duration", "Site timezone", "Answered", "Start time", "Location"
	avroNames := map[string]string{duration: "duration", zone: "siteTimezone", answered: "answered", start: "startTime", location: "location"}
	for _, c := range []struct {
		key, raw string
		want     string // of the column, "null" if null
		left     bool   // the text is in unmapped, too
	}{
		{duration, `36`, "36", false}, {duration, `"36"`, "36", false}, {duration, `0`, "0", false}, {duration, `-5`, "-5", false},
		{duration, `"+5"`, "5", false}, {duration, `"007"`, "7", false}, {duration, `36.0`, "36", false}, {duration, `36.5`, "null", true},
		{duration, `1e3`, "1000", false}, {duration, `"1E3"`, "1000", false}, {duration, `3.6e1`, "36", false}, {duration, `3600e-2`, "36", false},
		{duration, `9223372036854775807`, "9223372036854775807", false}, {duration, `-9223372036854775808`, "-9223372036854775808", false},
		{duration, `9223372036854775808`, "null", true}, {duration, `-9223372036854775809`, "null", true}, {duration, `123456789012345678901234567890`, "null", true},
		{duration, `1e400`, "null", true}, {duration, `0e999999999999999999999`, "0", false}, {duration, `1e-400`, "null", true},
		{duration, `1e99999999999999999999`, "null", true}, {duration, `1e18446744073709551616`, "null", true}, {duration, `18446744073709551617`, "null", true},
		{duration, `100000000000000000000000000000000000001`, "null", true}, {duration, `"00000000000000000000007.0"`, "7", false}, {duration, `10000000000000000000000e-22`, "1", false}, {duration, `-0`, "0", false},
		{duration, `true`, "null", true}, {duration, `"36 "`, "null", true}, {duration, `"abc"`, "null", true}, {duration, `"-"`, "null", true},
		{duration, `"0x24"`, "null", true}, {duration, `".5"`, "null", true}, {duration, `"5."`, "null", true}, {duration, `"1e"`, "null", true},
		{duration, `[36]`, "null", true}, {duration, `{"s":36}`, "null", true}, {duration, `"\u0033\u0036"`, "36", false}, {duration, `" "`, "null", true},
		{zone, `"-420"`, "-420", false}, {zone, `-420`, "-420", false}, {zone, `"+60"`, "60", false}, {zone, `2147483647`, "2147483647", false},
		{zone, `2147483648`, "null", true}, {zone, `-2147483649`, "null", true},
		{answered, `"true"`, "true", false}, {answered, `true`, "true", false}, {answered, `"FALSE"`, "false", false}, {answered, `false`, "false", false},
		{answered, `1`, "true", false}, {answered, `"0"`, "false", false}, {answered, `"yes"`, "null", true}, {answered, `2`, "null", true}, {answered, `1.0`, "null", true},
		{start, `"2026-10-05T08:14:31.208Z"`, "2026-10-05T08:14:31.208Z", false}, {start, `"2026-10-05T08:14:31Z"`, "2026-10-05T08:14:31.000Z", false},
		{start, `"2026-10-05T08:14:31"`, "2026-10-05T08:14:31.000Z", false}, {start, `"2026-10-05 08:14:31.2"`, "2026-10-05T08:14:31.200Z", false},
		{start, `"2026-10-05T08:14:31.208+02:00"`, "2026-10-05T06:14:31.208Z", false}, {start, `"2026-10-05T08:14:31-0330"`, "2026-10-05T11:44:31.000Z", false},
		{start, `"2026-10-05t08:14:31+02"`, "2026-10-05T06:14:31.000Z", false}, {start, `"2026-10-05T08:14:31.208000000Z"`, "2026-10-05T08:14:31.208Z", false},
		{start, `"2026-10-05T08:14:31.208000001Z"`, "2026-10-05T08:14:31.208Z", true}, {start, `"2026-10-05T08:14:31.2089Z"`, "2026-10-05T08:14:31.208Z", true},
		{start, `"1969-12-31T23:59:59.999Z"`, "1969-12-31T23:59:59.999Z", false}, {start, `"0000-03-01T00:00:00Z"`, "0000-03-01T00:00:00.000Z", false},
		{start, `"9999-12-31T23:59:59.999Z"`, "9999-12-31T23:59:59.999Z", false}, {start, `"2024-02-29T00:00:00Z"`, "2024-02-29T00:00:00.000Z", false},
		{start, `"2000-02-29T00:00:00Z"`, "2000-02-29T00:00:00.000Z", false}, {start, `"1900-02-29T00:00:00Z"`, "null", true},
		{start, `"2026-02-29T00:00:00Z"`, "null", true}, {start, `"2026-13-01T00:00:00Z"`, "null", true}, {start, `"2026-04-31T00:00:00Z"`, "null", true},
		{start, `"2026-10-05T24:00:00Z"`, "null", true}, {start, `"2026-10-05T23:59:60Z"`, "null", true}, {start, `"2026-10-05"`, "null", true},
		{start, `"2026-10-05T08:14Z"`, "null", true}, {start, `"2026-10-05T08:14:31."`, "null", true}, {start, `"2026-10-05T08:14:31ZZ"`, "null", true},
		{start, `"2026-10-05T08:14:31+24:00"`, "null", true}, {start, `"2026-10-05T08:14:31+02:60"`, "null", true}, {start, `1759652071208`, "null", true},
		{start, `"yesterday"`, "null", true}, {start, `"2026/10/05T08:14:31Z"`, "null", true}, {start, `"202a-10-05T08:14:31Z"`, "null", true},
		{start, `true`, "null", true}, {start, `"2026-10-05T08:14:31 +02:00"`, "null", true}, {start, `"2026-10-05T08:14:31+0a:00"`, "null", true},
		{location, `"Richardson"`, "Richardson", false}, {location, `36`, "36", false}, {location, `1e3`, "1e3", false}, {location, `true`, "true", false},
		{location, `"Z\u00fcrich \"West\" \/ \\ \b\f\n\r\t"`, "Zürich \"West\" / \\ \b\f\n\r\t", false}, {location, `"\ud83d\ude00"`, "😀", false},
		{location, `"a\u0000b"`, "a\x00b", false}, {location, `" "`, " ", false}, {location, `"\ud83d"`, "null", true}, {location, `"\ude00\ud83d"`, "null", true},
		{location, `"\ud83dx"`, "null", true}, {location, `"\ud83d\u0041"`, "null", true}, {location, `"\ufffd"`, "\ufffd", false},
		{location, `{"a":[1,{"b":null}]}`, "null", true}, {location, `[]`, "null", true}, {location, `"NA"`, "NA", false}, {location, `"na"`, "na", false},
	} {
		t.Run(c.key+"="+c.raw, func(t *testing.T) {
			got, left := oneField(t, avroNames[c.key], fmt.Sprintf("%q:%s", c.key, c.raw))
			if text := textOf(got); text != c.want {
				t.Errorf("column is %s, want %s", text, c.want)
			}
			want := map[string]string{}
			if c.left {
				want[c.key] = c.raw
			}
			if !maps.Equal(left, want) {
				t.Errorf("unmapped is %q, want %q", left, want)
			}
			ref, _ := reference(t, fmt.Appendf(nil, `{"Report ID":"r1",%q:%s}`, c.key, c.raw))
			if text := textOf(ref.values[avroNames[c.key]]); text != c.want {
				t.Errorf("the reference reads %s", text)
			}
		})
	}
}

func textOf(v any) string {
	type formatter interface{ Format(layout string) string }
	switch v := v.(type) {
	case nil:
		return "null"
	case formatter:
		return v.Format("2006-01-02T15:04:05.000Z07:00")
	}
	return fmt.Sprint(v)
}

// TestNullMarks writes every null mark, and what only looks like one, into
// every field.
func TestNullMarks(t *testing.T) {
	for i := range fields {
		f := &fields[i]
		if f.Required() {
			continue
		}
		for _, raw := range []string{`""`, `null`, `"NA"`, `"na"`, `"N\u0041"`, `"\u006e\u0061"`, `"Na"`, `"N/A"`, `"NA "`} {
			var text string
			if err := json.Unmarshal([]byte(raw), &text); err != nil {
				t.Fatal(err)
			}
			isNull := text == "" || text == "NA" && f.Absent&NA != 0 || text == "na" && f.Absent&LowerNA != 0
			got, left := oneField(t, f.AvroName, fmt.Sprintf("%q:%s", f.FeedName, raw))
			switch {
			case isNull && (got != nil || len(left) > 0):
				t.Errorf("%s %s is %v, unmapped %q; want null and nothing", f.FeedName, raw, got, left)
			case !isNull && f.Kind == String && (got != text || len(left) > 0):
				t.Errorf("%s %s is %v, unmapped %q; want the text", f.FeedName, raw, got, left)
			case !isNull && f.Kind != String && (got != nil || left[f.FeedName] != raw):
				t.Errorf("%s %s is %v, unmapped %q; want null and the text in unmapped", f.FeedName, raw, got, left)
			}
		}
	}
}

// TestUnmapped is about what no column takes.
func TestUnmapped(t *testing.T) {
	for _, c := range []struct {
		name, item string
		want       map[string]string
	}{
		{"number, object, string", `{"Report ID":"r","N":1.50,"O":{ "a" : [1, "x"] },"S":"te\u0078t"}`,
			map[string]string{"N": `1.50`, "O": `{ "a" : [1, "x"] }`, "S": `"te\u0078t"`}},
		{"blank unknown keys are kept", `{"Report ID":"r","A":"","B":null,"C":"NA","":1}`,
			map[string]string{"A": `""`, "B": `null`, "C": `"NA"`, "": "1"}},
		{"unknown keys do not fold", `{"Report ID":"r","x":1,"X":2}`, map[string]string{"x": "1", "X": "2"}},
		{"one unknown key twice", `{"Report ID":"r","x":1,"y":0,"x":{"a":2}}`, map[string]string{"x": "1\n{\"a\":2}", "y": "0"}},
		{"escaped key", `{"Report ID":"r","\u0078\n":1}`, map[string]string{"x\n": "1"}},
		{"escaped known key", `{"Report ID":"r","Dur\u0061tion":"x"}`, map[string]string{"Duration": `"x"`}},
		{"known key in other case", `{"Report ID":"r","DURATION":"x"}`, map[string]string{"Duration": `"x"`}},
		{"invalid UTF-8 in a known field", "{\"Report ID\":\"r\",\"Location\":\"a\xff\xc3(b\"}", map[string]string{"Location": `"a\xff\xc3(b"`}},
		{"invalid UTF-8 in an unknown field", "{\"Report ID\":\"r\",\"x\":[\"\xe2\x82\"]}", map[string]string{"x": `["\xe2\x82"]`}},
		{"invalid UTF-8 in a key", "{\"Report ID\":\"r\",\"x\x80\":1}", map[string]string{`x\x80`: "1"}},
		{"half surrogate in a key", `{"Report ID":"r","x\ud800":1}`, map[string]string{`x\ud800`: "1"}},
		{"encoded surrogate", "{\"Report ID\":\"r\",\"Location\":\"\xed\xa0\x80\"}", map[string]string{"Location": `"\xed\xa0\x80"`}},
		{"an escape that JSON lacks", `{"Report ID":"r","Location":"C:\dir\x"}`, map[string]string{"Location": `"C:\dir\x"`}},
		{"escape and invalid byte", "{\"Report ID\":\"r\",\"Location\":\"\\n\xff\"}", map[string]string{"Location": `"\n\xff"`}},
		{"invalid byte in a typed field", "{\"Report ID\":\"r\",\"Duration\":\"3\xff\"}", map[string]string{"Duration": `"3\xff"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := checkReaders(t, encodeOne(t, c.item)); !maps.Equal(got.unmapped, c.want) {
				t.Errorf("unmapped is %q, want %q", got.unmapped, c.want)
			}
		})
	}
}

// TestUnmappedIsSorted holds that equal items have equal bytes whatever the
// order of their keys.
func TestUnmappedIsSorted(t *testing.T) {
	members := []string{`"Report ID":"r"`, `"b":1`, `"a":2`, `"é":3`, `"B":4`, `"Duration":"x"`, `"Zeta":5`, `"Location":"L"`, `"aa":6`}
	want := encodeOne(t, "{"+strings.Join(members, ",")+"}")
	if at := bytes.Index(want, []byte("\x02B\x02")); at < 0 || !slices.IsSorted([]int{at, bytes.Index(want, []byte("Duration")), bytes.Index(want, []byte("Zeta")), bytes.Index(want, []byte("\x02a\x02")), bytes.Index(want, []byte("aa")), bytes.Index(want, []byte("é"))}) {
		t.Errorf("unmapped is not sorted by name in %q", want)
	}
	slices.Reverse(members)
	if got := encodeOne(t, "{"+strings.Join(members, ",")+"}"); !bytes.Equal(got, want) {
		t.Errorf("another order of keys gives %q, want %q", got, want)
	}
}

// TestFoldedKeys is about keys that come more than once.
func TestFoldedKeys(t *testing.T) {
	for _, c := range []struct {
		members string
		want    string
		left    map[string]string
		folded  int64
	}{
		{`"Location":"a","location":"a"`, "a", nil, 1},
		{`"Location":"","location":"a"`, "a", nil, 1},
		{`"LOCATION":"a","location":null`, "a", nil, 1},
		{`"Location":"","location":"a","LOCATION":""`, "a", nil, 2},
		{`"Location":"a","location":"b"`, "a", map[string]string{"Location": `"b"`}, 1},
		{`"Location":"a","location":"b","Location":"c"`, "a", map[string]string{"Location": "\"b\"\n\"c\""}, 2},
		{`"Location":"","location":""`, "null", nil, 1},
		{`"Location":"a","x":1,"x":1`, "a", map[string]string{"x": "1\n1"}, 0},
	} {
		enc := NewEncoder(EncoderOptions{})
		items := eachCopy(t, enc, `{"items":[{"Report ID":"r",`+c.members+`}]}`)
		got := checkReaders(t, items[0].Value)
		if textOf(got.values["location"]) != c.want || !maps.Equal(got.unmapped, c.left) {
			t.Errorf("%s: location %v, unmapped %q; want %s, %q", c.members, got.values["location"], got.unmapped, c.want, c.left)
		}
		if n := enc.Counts().FoldedKeys; n != c.folded {
			t.Errorf("%s: %d folded keys counted, want %d", c.members, n, c.folded)
		}
	}
}

func TestItemFields(t *testing.T) {
	const page = `{"items":[
		{"Report ID":"5d1c7f0e-3b9a-3c42-8f6d-0a1b2c3d4e5f","Correlation ID":"c","Interaction ID":"i","Org UUID":"o","Report time":"1970-01-01T00:00:01.5Z"},
		{"Report ID":"r2","Correlation ID":"","Interaction ID":"i"},
		7,
		{"report id":3,"Correlation ID":"na","Interaction ID":{"a":1},"Report time":"never"}]}`
	items := encodePage(t, EncoderOptions{SchemaID: 0x01020304}, page)
	if len(items) != 4 {
		t.Fatalf("%d items, want 4", len(items))
	}
	for i, want := range []struct {
		id, key, org string
		from         KeyFrom
		millis       int64
	}{{"5d1c7f0e-3b9a-3c42-8f6d-0a1b2c3d4e5f", "c", "o", FromCorrelationID, 1500}, {"r2", "i", "", FromInteractionID, 0}, {}, {"3", "3", "", FromReportID, 0}} {
		got := items[i]
		if i == 2 {
			if got.Reject == nil || got.Reject.Cause != NotAnObject || string(got.Reject.Raw) != "7" || got.ID != cdr.ReportIDOfRaw([]byte("7")) {
				t.Errorf("item 2 is %+v, want the reject of 7", got)
			}
			continue
		}
		if got.Reject != nil || got.Index != i || string(got.ReportID) != want.id || string(got.Key) != want.key || got.KeyFrom != want.from ||
			string(got.OrgUUID) != want.org || got.HasReportTime != (want.millis != 0) || got.ReportTimeMillis != want.millis {
			t.Errorf("item %d is %+v, want %+v", i, got, want)
		}
		if got.ID != cdr.ReportIDOf([]byte(want.id)) || got.Hash != xxhash.Sum64(got.Value[5:]) {
			t.Errorf("item %d: identity or hash is not that of its Report ID or body", i)
		}
		if !bytes.HasPrefix(got.Value, []byte{0, 1, 2, 3, 4}) {
			t.Errorf("item %d: value begins with % x, want the wire header", i, got.Value[:5])
		}
	}
	for from, text := range map[KeyFrom]string{FromCorrelationID: "correlation_id", FromInteractionID: "interaction_id", FromReportID: "report_id"} {
		if from.String() != text {
			t.Errorf("KeyFrom %d is %q, want %q", from, from, text)
		}
	}
}

// TestRejects holds that what cannot be an event stops nothing.
func TestRejects(t *testing.T) {
	deep := func(depth int) string { return strings.Repeat(`[`, depth) + strings.Repeat(`]`, depth) }
	const tooLarge = 2000
	for _, c := range []struct {
		raw  string
		want Cause
	}{
		{`{}`, NoReportID}, {`{"Location":"x"}`, NoReportID}, {`{"Report ID":""}`, NoReportID}, {`{"Report ID":null}`, NoReportID},
		{`{"Report ID":"NA"}`, NoReportID}, {`{"Report ID":"na"}`, NoReportID}, {`{"Report ID":" \t"}`, NoReportID}, {`{"Report ID":{"id":1}}`, NoReportID},
		{`{"Report ID":["r"]}`, NoReportID}, {`{"Report ID":true}`, NoReportID}, {"{\"Report ID\":\"r\xff\"}", NoReportID}, {`{"Report ID":"\ud800"}`, NoReportID},
		{`null`, NotAnObject}, {`7`, NotAnObject}, {`-0.5e+7`, NotAnObject}, {`"text"`, NotAnObject}, {`true`, NotAnObject}, {`false`, NotAnObject},
		{`[]`, NotAnObject}, {`[{"Report ID":"r"}]`, NotAnObject}, {deep(maxDepth + 5), NotAnObject},
		{`{"Report ID":"r","x":"` + strings.Repeat("x", tooLarge) + `"}`, TooLarge}, {`{"Report ID":"r","Location":"` + strings.Repeat("x", tooLarge) + `"}`, TooLarge},
		{`{"Report ID":"r","x":` + deep(maxDepth+1) + `}`, TooDeep}, {`{"Report ID":"r","Location":{"x":` + deep(maxDepth) + `}}`, TooDeep},
		{`{"Report ID":"r","x":` + strings.Repeat(`{"a":[`, maxDepth) + `"]"` + strings.Repeat(`]}`, maxDepth) + `,"y":1}`, TooDeep},
	} {
		name := c.raw[:min(len(c.raw), 40)]
		enc := NewEncoder(EncoderOptions{MaxEventBytes: tooLarge})
		items := eachCopy(t, enc, `{"items":[{"Report ID":"a"},`+c.raw+` ,{"Report ID":"b"}]}`)
		if len(items) != 3 || items[0].Reject != nil || items[2].Reject != nil {
			t.Errorf("%s: the items around it are not events", name)
			continue
		}
		r := items[1]
		if r.Reject == nil || r.Reject.Cause != c.want || string(r.Reject.Raw) != c.raw {
			t.Errorf("%s: got %+v, want a reject for %s with its bytes", name, r.Reject, c.want)
			continue
		}
		if r.Index != 1 || r.ID != cdr.ReportIDOfRaw([]byte(c.raw)) || r.Hash != xxhash.Sum64String(c.raw) || r.Value != nil || r.Key != nil {
			t.Errorf("%s: identity, hash or index are not those of its bytes", name)
		}
		if want := len(items[0].Value) + len(items[2].Value); len(enc.arena) != want {
			t.Errorf("%s: the page fills %d bytes of the arena, want the %d of its events", name, len(enc.arena), want)
		}
		if got := enc.Counts(); got.Items != 3 || len(got.Rejects) != 1 || got.Rejects[c.want] != 1 {
			t.Errorf("%s: counts %+v", name, got)
		}
	}
	for cause, text := range map[Cause]string{NoReportID: "no_report_id", NotAnObject: "not_an_object", TooLarge: "too_large", TooDeep: "too_deep"} {
		if cause.String() != text {
			t.Errorf("cause %d is %q, want %q", cause, cause, text)
		}
	}
}

// TestDeepestValue holds that what encoding/json takes is no reject.
func TestDeepestValue(t *testing.T) {
	deep := strings.Repeat(`[`, maxDepth) + strings.Repeat(`]`, maxDepth)
	if !json.Valid([]byte(deep)) {
		t.Fatal("encoding/json does not take it either")
	}
	if got, want := must(Decode(encodeOne(t, `{"Report ID":"r","x":`+deep+`}`))).Unmapped["x"], deep; got != want {
		t.Error("the deepest value did not come back")
	}
}

// must returns v, or panics.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestHugeValues(t *testing.T) {
	huge := strings.Repeat("ä\\u00e4 ", 1<<20)
	item := fmt.Sprintf(`{"Report ID":"r","Location":"%s","x":"%s"}`, huge, huge)
	got := checkReaders(t, encodeOne(t, item))
	if got.values["location"] != strings.Repeat("ää ", 1<<20) || got.unmapped["x"] != `"`+huge+`"` {
		t.Error("a value of megabytes did not come back")
	}
}

// TestPages is about everything around the items.
func TestPages(t *testing.T) {
	const a, b = `{"Report ID":"a"}`, `{"Report ID":"b"}`
	for _, c := range []struct{ page, want string }{
		{`{"items":[]}`, ""}, {`{"items":[` + a + `]}`, "a"}, {" \t\r\n{ \"items\" : [ " + a + " , " + b + " ] } \n", "a b"},
		{`{"total":2,"x":{"items":[1]},"items":[` + a + `],"y":[[{}],"}"]}`, "a"}, {`{"Items":[` + a + `]}`, "a"}, {`{"it\u0065ms":[` + a + `]}`, "a"},
		{`{"items":[` + a + `],"items":[` + b + `]}`, "a b"}, {`{"items":[` + a + `],"ITEMS":[]}`, "a"}, {`{"\q":1,"items":[` + a + `]}`, "a"},
	} {
		var got []string
		for _, item := range encodePage(t, EncoderOptions{}, c.page) {
			got = append(got, string(item.ReportID))
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("page %s gives %q, want %q", c.page, text, c.want)
		}
	}
}

func TestMalformedPages(t *testing.T) {
	pages := []string{
		``, ` `, `null`, `[]`, `"items"`, `7`, `<html><body>Bad gateway</body></html>`, `{}`, `{"items":null}`, `{"items":{}}`, `{"items":"x"}`,
		`{"item":[]}`, `{"items":[]}x`, `{"items":[]}{}`, `{"items":[],}`, `{"items":[{}],,}`, `{"items":[,]}`, `{"items":[{},]}`, `{"items":[{}{}]}`,
		`{"items" []}`, `{items:[]}`, `{"items":[{"a"}]}`, `{"items":[{"a":}]}`, `{"items":[{"a":1,}]}`, `{"items":[{"a":1 "b":2}]}`, `{"items":[{,}]}`,
		`{"items":[{"a":tru}]}`, `{"items":[{"a":nul}]}`, `{"items":[{"a":falsy}]}`, `{"items":[{"a":NaN}]}`, `{"items":[{"a":01}]}`, `{"items":[{"a":.5}]}`,
		`{"items":[{"a":5.}]}`, `{"items":[{"a":1e}]}`, `{"items":[{"a":-}]}`, `{"items":[{"a":+1}]}`, `{"items":[{"a":[1,]}]}`, `{"items":[{"a":[1}]}]`,
		`{"items":[{"a":{"b":1]}}]}`, `{"items":[{"a":{"b"}}]}`, `{"items":[{"a":{1:2}}]}`, `{"items":[{"a":'x'}]}`, `{"items":[{'a':1}]}`, "{\"items\":[{\"a\":1}]}\x00",
		"\xef\xbb\xbf{\"items\":[]}", `{"items":[],"x":{"a":[}}`, `{"items":[]]`, `[{"items":[]}]`, `{"items":[{"Report ID":"r"}]`, "{\"items\":[\v]}",
	}
	whole := `{"x":[1],"items":[` + benchRecord(1) + `,{"Report ID":"r","a":{"b":[true,null,-1.5e3]}}]}`
	for cut := range whole {
		pages = append(pages, whole[:cut])
	}
	enc := NewEncoder(EncoderOptions{})
	for _, page := range pages {
		err := enc.Each([]byte(page), func(*Item) error {
			t.Errorf("page %.80q emits an item", page)
			return nil
		})
		if !errors.Is(err, cdr.ErrMalformedPage) {
			t.Errorf("page %.80q: error %v, want a malformed page", page, err)
		}
	}
	if got := enc.Counts(); got.Items != 0 || len(got.Unknown) != 0 || got.FoldedKeys != 0 {
		t.Errorf("malformed pages were counted: %+v", got)
	}
	if got := len(eachCopy(t, enc, whole)); got != 2 {
		t.Errorf("after malformed pages, a whole one gives %d items, want 2", got)
	}
}

// TestMalformedPageErrors holds that an error says where, and quotes nothing.
func TestMalformedPageErrors(t *testing.T) {
	for page, want := range map[string]string{
		`{"items":[{"Calling number":"+1202555`:       "read page: cut after 37 bytes: want the end of a string",
		`{"items":[{"Calling number":"+1202" 5}]}`:    "read page: byte 36 of 40: want a comma or the end of an item",
		`<html>+12025550143`:                          "read page: byte 0 of 18: want a JSON object that holds an items array",
		`{"message":"+12025550143"}`:                  "read page: cut after 26 bytes: want an items array in the page's object",
		`{"items":[{"a":[1,{"b":[2,{"c":+1202}]}]}]}`: "read page: byte 31 of 43: want a value",
	} {
		err := NewEncoder(EncoderOptions{}).Each([]byte(page), func(*Item) error { return nil })
		if err == nil || err.Error() != want {
			t.Errorf("page %s: error %q, want %q", page, err, want)
		}
	}
}

func TestEmitErrorEndsEach(t *testing.T) {
	enough := errors.New("enough")
	calls := 0
	err := NewEncoder(EncoderOptions{}).Each(benchPage(3), func(item *Item) error {
		calls++
		if item.Index == 1 {
			return enough
		}
		return nil
	})
	if err != enough || calls != 2 {
		t.Errorf("Each returned %v after %d calls, want the error of emit after 2", err, calls)
	}
}

// TestLearnedKeysDoNotMislead feeds records of other orders, spellings and
// sets of keys through one encoder; each must come out as from a new one.
func TestLearnedKeysDoNotMislead(t *testing.T) {
	var members []string
	for i := range fields {
		members = append(members, fmt.Sprintf("%q:\"%d\"", fields[i].FeedName, i))
	}
	records := []string{benchRecord(1)}
	for n := range 40 {
		shuffled := slices.Clone(members)
		for i := range shuffled { // a fixed permutation, another for each n
			j := (i*31 + n*17) % len(shuffled)
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		}
		record := "{" + strings.Join(shuffled[:len(shuffled)-n%7], ",") + `,"Report ID":"r"}`
		switch n % 3 {
		case 0:
			record = strings.ToLower(record)
		case 1:
			record = strings.ReplaceAll(record, `":"`, `" : "`)
		}
		records = append(records, record, benchRecord(n))
	}
	together := encodePage(t, EncoderOptions{SchemaID: 7}, `{"items":[`+strings.Join(records, ",")+`]}`)
	for i, record := range records {
		if want := encodeOne(t, record); !bytes.Equal(together[i].Value, want) {
			t.Fatalf("record %d comes out otherwise than alone: %.200s", i, record)
		}
	}
}

// TestNoAllocations holds what the benchmark shows.
func TestNoAllocations(t *testing.T) {
	page := benchPage(100)
	page = append(page[:len(page)-2], `,{"Report ID":"r","Location":"Z\u00fcrich","New field":{"a":1},"Duration":"x","Location":"B"}]}`...)
	enc := NewEncoder(EncoderOptions{})
	emit := func(*Item) error { return nil }
	each := func() {
		if err := enc.Each(page, emit); err != nil {
			t.Fatal(err)
		}
	}
	each()
	// The first sight of a name costs one for the page's counts.
	if allocs := testing.AllocsPerRun(20, each); allocs > 3 {
		t.Errorf("a page of 101 records costs %v allocations", allocs)
	}
}

// TestMemoryIsGivenBack holds that one huge page does not weigh on for ever.
func TestMemoryIsGivenBack(t *testing.T) {
	enc := NewEncoder(EncoderOptions{})
	emit := func(*Item) error { return nil }
	var huge strings.Builder
	huge.WriteString(`{"items":[{"Report ID":"r","Location":"` + strings.Repeat(`\u0061`, 4<<20) + `"`)
	for n := range 4 * keptLeftovers {
		fmt.Fprintf(&huge, `,"k%d":1`, n)
	}
	huge.WriteString(`}]}`)
	for _, page := range []string{huge.String(), `{"items":[{"Report ID":"r"}]}`} {
		if err := enc.Each([]byte(page), emit); err != nil {
			t.Fatal(err)
		}
	}
	if kept := cap(enc.arena) + cap(enc.scratch); kept > 2*keptBytes {
		t.Errorf("%d bytes are kept after a small page", kept)
	}
	if cap(enc.record.leftovers) > keptLeftovers {
		t.Errorf("room for %d leftovers is kept", cap(enc.record.leftovers))
	}
}

// TestScratchIsPerRecord holds that escapes do not pile up over a page.
func TestScratchIsPerRecord(t *testing.T) {
	enc := NewEncoder(EncoderOptions{})
	item := `{"Report ID":"r","Location":"` + strings.Repeat(`\u0061`, 100) + `"}`
	eachCopy(t, enc, `{"items":[`+strings.Repeat(item+",", 500)+item+`]}`)
	if got := cap(enc.scratch); got > 1000 {
		t.Errorf("%d bytes of scratch memory for texts of 100", got)
	}
}

func TestCounts(t *testing.T) {
	enc := NewEncoder(EncoderOptions{})
	page := func(items ...string) { eachCopy(t, enc, `{"items":[`+strings.Join(items, ",")+`]}`) }
	page(`{"Report ID":"a","New":1,"Duration":"x"}`, `{"Report ID":"b","New":1,"Start time":"2026-10-05T08:14:31.0001Z"}`, `{"New":1}`)
	page(`{"Report ID":"a","New":1,"duration":"y","`+strings.Repeat("n", maxUnknownNameBytes+1)+`":1}`, `null`)
	got := enc.Counts()
	if got.Items != 5 || got.Rejects[NoReportID] != 1 || got.Rejects[NotAnObject] != 1 || len(got.Rejects) != 2 ||
		!maps.Equal(got.Unknown, map[string]int64{"New": 3, OtherKeys: 1}) || !maps.Equal(got.Unparseable, map[string]int64{"Duration": 2, "Start time": 1}) {
		t.Errorf("counts are %+v", got)
	}
	if last := enc.PageCounts(); last.Items != 2 || last.Unknown["New"] != 1 || last.Unparseable["Duration"] != 1 || last.Rejects[NotAnObject] != 1 || len(last.Rejects) != 1 {
		t.Errorf("counts of the last page are %+v", last)
	}
	var many []string
	for n := range 5 * maxUnknownNames {
		many = append(many, fmt.Sprintf(`{"Report ID":"a","k%03d":1}`, n))
	}
	page(many...)
	var sum int64
	for _, n := range enc.Counts().Unknown {
		sum += n
	}
	if got := enc.Counts().Unknown; len(got) > maxUnknownNames+1 || sum != 4+5*maxUnknownNames {
		t.Errorf("%d names are counted, %d in sum; want at most %d, and %d", len(got), sum, maxUnknownNames+1, 4+5*maxUnknownNames)
	}
	got.Unknown["New"] = 99
	if enc.Counts().Unknown["New"] != 3 {
		t.Error("changing a snapshot changed the encoder's counts")
	}
}
