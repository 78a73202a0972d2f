package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"cdrbus/internal/cdr"
)

// blankStrings returns data with the inside of every string replaced by x. The
// scanner is more tolerant than encoding/json inside strings, and nowhere else.
func blankStrings(data []byte) []byte {
	out := bytes.Clone(data)
	inside := false
	for i := 0; i < len(out); i++ {
		switch {
		case out[i] == '"':
			inside = !inside
		case inside && out[i] == '\\' && i+1 < len(out):
			out[i], out[i+1] = 'x', 'x'
			i++
		case inside:
			out[i] = 'x'
		}
	}
	return out
}

// tooDeepForJSON reports whether data could be nested deeper than encoding/json
// reads. The tests of maxDepth go there.
func tooDeepForJSON(data []byte) bool {
	return bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) > maxDepth-10
}

var valueSeeds = []string{
	`null`, `true`, `false`, `0`, `-0`, `36`, `36.0`, `1e3`, `-1.5E-7`, `01`, `1.`, `.5`, `-`, `+1`, `1e`, `tru`, `nulll`, `NaN`, ``, ` `,
	`""`, `"x"`, `"\u00e4\ud83d\ude00"`, `"\ud800"`, `"\ude00\ud800"`, `"\q"`, `"\u12g4"`, "\"a\xffb\"", "\"a\nb\"", `"abcdefghijklmnop\"qrstuvwx"`, `"\\"`, `"\`, `"äöüäöüäöü"`, "\"abcdefgh\\\xff abcdefgh\"",
	`{}`, `[]`, `{"a":1}`, `[1,"x",{"a":[null]}]`, `{"a":{"b":[{}]}}`, `[1,]`, `{"a":1,}`, `{"a"}`, `{1:2}`, `[}`, `{]`, `[[[[`, `]`, `{"a":1}}`, ` [ 1 , 2 ] `, `[1 2]`,
}

// FuzzScanValue holds the scanner against encoding/json: it takes the same
// values, ends at the same place and reads the same texts.
func FuzzScanValue(f *testing.F) {
	for _, seed := range valueSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if tooDeepForJSON(data) {
			return
		}
		var n nesting
		v, err := n.scanValue(data, skipSpace(data, 0))
		accepted := err == nil && skipSpace(data, v.end) == len(data)
		if want := json.Valid(blankStrings(data)); accepted != want {
			t.Fatalf("accepted is %v (%v), encoding/json says %v", accepted, err, want)
		}
		if !accepted {
			if err != nil && !errors.Is(err, cdr.ErrMalformedPage) {
				t.Fatalf("error %v is no malformed page", err)
			}
			return
		}
		checkText(t, data, v)
	})
}

// checkText compares the text of a string with encoding/json's.
func checkText(t *testing.T, data []byte, v jsonValue) {
	if v.kind != tokenString {
		return
	}
	raw := v.text(data)
	if got, want := v.flags&hasEscape != 0, bytes.IndexByte(raw, '\\') >= 0; got != want {
		t.Fatalf("hasEscape is %v, want %v", got, want)
	}
	ascii := bytes.IndexFunc(raw, func(r rune) bool { return r >= 0x80 }) < 0
	if got := v.flags&hasNonASCII != 0; got == ascii {
		t.Fatalf("hasNonASCII is %v, want %v", got, !ascii)
	}
	text, ok := appendUnescaped([]byte("before"), v.inner(data))
	var want string
	plain := json.Unmarshal(raw, &want) == nil && utf8.Valid(raw) && !hasHalfSurrogate(string(raw))
	switch {
	case !bytes.HasPrefix(text, []byte("before")):
		t.Fatal("what stood before is lost")
	case plain && (!ok || string(text[6:]) != want):
		t.Fatalf("text is %q, %v; want %q", text[6:], ok, want)
	case ok && !utf8.Valid(text):
		t.Fatalf("text %q is not valid", text)
	case ok && !plain && json.Valid(raw):
		t.Fatalf("text %q came of what cannot be told in UTF-8", text)
	}
	if visible := appendVisible(nil, raw); !utf8.Valid(visible) || utf8.Valid(raw) && !bytes.Equal(visible, raw) {
		t.Fatalf("visible text of %q is %q", raw, visible)
	}
}

var pageSeeds = []string{
	`{"items":[]}`, `{"items":[{"Report ID":"a"}]}`, `{"items":[{"Report ID":"a","Duration":"36","duration":1e3,"New":{"a":[1]},"new":"x","Location":"NA"},null,{}]}`,
	`{"x":1,"items":[{"report id":5,"Start time":"2026-10-05T08:14:31.2081+02:00","Answered":"TRUE","Site timezone":"-420","OS type":"na"}],"y":[]}`,
	`{"items":[{"Report ID":"a","Location":"\u00e4\ud800","Model":"\q","Hold Duration":36.0,"hold duration":"NA","x":1,"x":2}]}`,
	"{\"items\":[{\"Report ID\":\"a\",\"Location\":\"\xff\",\"x\xff\":\"\xc3\"}]}", `{"items":[{"Report ID":"a","Duration":9223372036854775808}],"items":[7]}`,
}

// FuzzPage feeds whole pages: what is a page for encoding/json is one here,
// and every event is complete, in goavro, in hamba/avro and in Decode, and
// equal to the reference.
func FuzzPage(f *testing.F) {
	for _, seed := range pageSeeds {
		f.Add([]byte(seed))
	}
	f.Add([]byte(`{"items":[` + benchRecord(1) + `]}`))
	enc := NewEncoder(EncoderOptions{SchemaID: 7})
	f.Fuzz(func(t *testing.T, page []byte) {
		if tooDeepForJSON(page) {
			return
		}
		var items []Item
		err := enc.Each(page, func(item *Item) error {
			items = append(items, copyItem(item))
			return nil
		})
		if err != nil {
			if !errors.Is(err, cdr.ErrMalformedPage) || len(items) > 0 {
				t.Fatalf("error %v after %d items", err, len(items))
			}
			if json.Valid(page) && hasItems(page) {
				t.Fatalf("a page for encoding/json is refused: %v", err)
			}
			return
		}
		if !json.Valid(blankStrings(page)) {
			t.Fatal("what is no JSON is taken")
		}
		for i := range items {
			checkItem(t, items[i], i)
		}
		if utf8.Valid(page) && json.Valid(page) && !hasHalfSurrogate(string(page)) {
			checkAgainstReference(t, page, items)
		}
	})
}

// hasItems reports whether the first key of the page that is items has an
// array. A page with any other is refused.
func hasItems(page []byte) bool {
	var top map[string]json.RawMessage
	if json.Unmarshal(page, &top) != nil {
		return false
	}
	found := false
	for key, raw := range top {
		if equalFold("items", []byte(key)) {
			found = true
			if raw[0] != '[' {
				return false
			}
		}
	}
	return found && countItems(page) == 1
}

// countItems counts the top-level keys that are items.
func countItems(page []byte) (n int) {
	d := json.NewDecoder(bytes.NewReader(page))
	if _, err := d.Token(); err != nil {
		return 0
	}
	for d.More() {
		key, _ := d.Token()
		if text, ok := key.(string); ok && equalFold("items", []byte(text)) {
			n++
		}
		var skipped json.RawMessage
		if d.Decode(&skipped) != nil {
			return n
		}
	}
	return n
}

// checkItem holds what is true of every item.
func checkItem(t *testing.T, item Item, index int) {
	if item.Index != index {
		t.Fatalf("index is %d, want %d", item.Index, index)
	}
	if item.Reject != nil {
		if item.ID != cdr.ReportIDOfRaw(item.Reject.Raw) || item.Hash != xxhash.Sum64(item.Reject.Raw) {
			t.Fatal("identity or hash of a reject is not that of its bytes")
		}
		return
	}
	got := checkReaders(t, item.Value)
	if got.values["reportId"] != string(item.ReportID) || item.ID != cdr.ReportIDOf(item.ReportID) || len(item.Key) == 0 {
		t.Fatalf("item %+v does not go with its value", item)
	}
	for name, v := range got.values {
		if text, ok := v.(string); ok && !utf8.ValidString(text) {
			t.Fatalf("field %s holds invalid UTF-8", name)
		}
	}
	for name, text := range got.unmapped {
		if !utf8.ValidString(name) || !utf8.ValidString(text) {
			t.Fatal("unmapped holds invalid UTF-8")
		}
	}
}

// checkAgainstReference compares every event with the slow reading of its item.
func checkAgainstReference(t *testing.T, page []byte, items []Item) {
	if countItems(page) != 1 {
		return
	}
	var raws []json.RawMessage
	d := json.NewDecoder(bytes.NewReader(page))
	for _, err := d.Token(); err == nil && d.More(); {
		key, _ := d.Token()
		var raw json.RawMessage
		if err = d.Decode(&raw); err == nil && equalFold("items", []byte(key.(string))) {
			err = json.Unmarshal(raw, &raws)
		}
	}
	if len(raws) != len(items) {
		t.Fatalf("%d items, encoding/json sees %d", len(items), len(raws))
	}
	for i, raw := range raws {
		if raw[0] != '{' {
			if items[i].Reject == nil || items[i].Reject.Cause != NotAnObject {
				t.Fatalf("item %d is no object and no reject", i)
			}
			continue
		}
		want, ok := reference(t, raw)
		if isEvent := items[i].Reject == nil; isEvent != ok {
			t.Fatalf("item %d is an event: %v, the reference says %v", i, isEvent, ok)
		}
		if ok {
			compareRecords(t, "encoder against reference", decodeGoavro(t, items[i].Value), want)
		}
	}
}

// FuzzTypedValue writes one text into a field of each kind, as a string and,
// where it is one, as a number, and compares with the reference.
func FuzzTypedValue(f *testing.F) {
	for _, seed := range []string{
		"", "36", "-300", "+60", "007", "36.0", "36.50e1", "1e3", "1e18", "1e19", "9223372036854775807", "-9223372036854775808", "10000000000000000000e-1",
		"0e99999999999", "1E+0000000000000000001", "123456789012345678.9e1", ".5", "5.", "1e", "true", "False", "1", "NA", "na", "N/A", "\u00e4\U0001f600\x00",
		"2026-10-05T08:14:31.208Z", "2026-10-05t08:14:31", "2026-10-05 08:14:31.2081+0200", "2026-02-29T00:00:00Z", "0000-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999-23", "2026-10-05T08:14:31.0000Z",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		raws := []string{string(quoted)}
		if text != "" && (text[0] == '-' || isDigit(text[0])) && json.Valid([]byte(text)) {
			raws = append(raws, strings.TrimSpace(text))
		}
		for _, raw := range raws {
			item := `{"Report ID":"r","Duration":` + raw + `,"Site timezone":` + raw + `,"Answered":` + raw + `,"Start time":` + raw + `,"Location":` + raw + `,"Model":` + raw + `}`
			want, _ := reference(t, []byte(item))
			compareRecords(t, item, checkReaders(t, encodeOne(t, item)), want)
		}
	})
}

// FuzzDecode holds that no value makes the decoder panic or take memory beyond
// its size, and that what it takes goavro takes, too.
func FuzzDecode(f *testing.F) {
	for _, seed := range pageSeeds {
		_ = NewEncoder(EncoderOptions{SchemaID: 7}).Each([]byte(seed), func(item *Item) error {
			f.Add(item.Value)
			return nil
		})
	}
	f.Add([]byte{0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := Decode(value)
		if err != nil {
			return
		}
		if _, err := json.Marshal(e); err != nil {
			t.Fatalf("marshal: %v", err)
		}
		native, rest, err := oracleCodec.NativeFromBinary(value[wireHeaderBytes:])
		if err != nil || len(rest) > 0 {
			t.Fatalf("goavro reads %v otherwise: %v, %d bytes left", native, err, len(rest))
		}
	})
}

// FuzzDecodeWith feeds schemas and bodies of other writers.
func FuzzDecodeWith(f *testing.F) {
	var value []byte
	_ = NewEncoder(EncoderOptions{SchemaID: 7}).Each([]byte(pageSeeds[3]), func(item *Item) error {
		value = bytes.Clone(item.Value)
		return nil
	})
	f.Add(AvroJSON(), value)
	f.Add(olderSchema, []byte("\x00\x00\x00\x00\x01\x02r\x02\x48\x00"))
	f.Add(newerSchema, []byte("\x00\x00\x00\x00\x01\x02r\x02\x02x\x00"))
	f.Fuzz(func(t *testing.T, text string, value []byte) {
		writer, err := ParseWriterSchema(text)
		if err != nil {
			return
		}
		if e, err := DecodeWith(writer, value); err == nil {
			if _, err := json.Marshal(e); err != nil {
				t.Fatalf("marshal: %v", err)
			}
		}
	})
}
