package schema

import (
	"bytes"
	"encoding/json"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/hamba/avro/v2"
	"github.com/linkedin/goavro/v2"
)

// The reference is a second, slow reading of the rules of docs/event.md, made
// of encoding/json, math/big, regexp and time. The encoder is held against it.

// refRecord is what an item becomes: Go values by Avro name, no nulls.
type refRecord struct {
	values   map[string]any // string, int64, int32, bool, time.Time
	unmapped map[string]string
}

// refMember is one key of an item with the text of its value.
type refMember struct {
	key string
	raw json.RawMessage
}

func refMembers(tb testing.TB, item []byte) []refMember {
	tb.Helper()
	d := json.NewDecoder(bytes.NewReader(item))
	token := func() json.Token {
		got, err := d.Token()
		if err != nil {
			tb.Fatalf("the reference cannot read an item that the encoder took: %v", err)
		}
		return got
	}
	token()
	var members []refMember
	for d.More() {
		m := refMember{key: token().(string)}
		if err := d.Decode(&m.raw); err != nil {
			tb.Fatalf("the reference cannot read a value that the encoder took: %v", err)
		}
		members = append(members, m)
	}
	return members
}

// reference returns the record of an item of valid UTF-8, without half
// surrogates in its keys. ok is false if the item has no Report ID.
func reference(tb testing.TB, item []byte) (rec refRecord, ok bool) {
	tb.Helper()
	rec = refRecord{map[string]any{}, map[string]string{}}
	chosen := map[string]json.RawMessage{}
	left := map[string][]string{}
	for _, m := range refMembers(tb, item) {
		f := refField(m.key)
		switch {
		case f == nil:
			left[m.key] = append(left[m.key], string(m.raw))
		case refIsNull(f, m.raw):
		case chosen[f.AvroName] == nil:
			chosen[f.AvroName] = m.raw
		case !bytes.Equal(chosen[f.AvroName], m.raw):
			left[f.FeedName] = append(left[f.FeedName], string(m.raw))
		}
	}
	for i := range fields {
		f := &fields[i]
		raw := chosen[f.AvroName]
		if raw == nil {
			continue
		}
		v, inFull := refValue(f.Kind, raw)
		if v != nil {
			rec.values[f.AvroName] = v
		}
		if !inFull {
			left[f.FeedName] = append(left[f.FeedName], string(raw))
		}
	}
	for name, texts := range left {
		rec.unmapped[name] = strings.Join(texts, "\n")
	}
	id, _ := rec.values["reportId"].(string)
	return rec, strings.TrimSpace(id) != "" && chosen["reportId"][0] != 't' && chosen["reportId"][0] != 'f'
}

func refField(key string) *Field {
	asciiLower := func(s string) string {
		return strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, s)
	}
	for i := range fields {
		if asciiLower(fields[i].FeedName) == asciiLower(key) {
			return &fields[i]
		}
	}
	return nil
}

func refIsNull(f *Field, raw json.RawMessage) bool {
	if string(raw) == "null" {
		return true
	}
	var text string
	if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return false
	}
	return slices.Contains(strings.Fields(strings.Replace(f.Absent.String(), "empty", "", 1)), text) || text == ""
}

// refValue returns nil if the value does not fit the kind, and whether all of
// it fits.
func refValue(kind Kind, raw json.RawMessage) (v any, inFull bool) {
	text := string(raw)
	switch raw[0] {
	case '{', '[':
		return nil, false
	case '"':
		if hasHalfSurrogate(text) || json.Unmarshal(raw, &text) != nil {
			return nil, false
		}
	}
	switch kind {
	case String:
		return text, true
	case Boolean:
		switch strings.ToLower(text) {
		case "true", "1":
			return true, true
		case "false", "0":
			return false, true
		}
		return nil, false
	case TimestampMillis:
		if raw[0] != '"' {
			return nil, false
		}
		return refTime(text)
	}
	n, ok := refInteger(text)
	switch {
	case !ok:
		return nil, false
	case kind == Long:
		return n, true
	case n == int64(int32(n)):
		return int32(n), true
	}
	return nil, false
}

var refNumber = regexp.MustCompile(`^[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

// refInteger leaves numbers with absurd exponents to the tests of parseInteger.
func refInteger(text string) (int64, bool) {
	m := refNumber.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	if m[2] != "" {
		if exponent, err := strconv.Atoi(m[2][1:]); err != nil || exponent > 5000 || exponent < -5000 {
			return 0, strings.Trim(text[:len(text)-len(m[2])], "+-0.") == ""
		}
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return r.Num().Int64(), true
}

var refTimeForm = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[-+]\d\d(?::?\d\d)?)?$`)

func refTime(text string) (v any, inFull bool) {
	m := refTimeForm.FindStringSubmatch(text)
	if m == nil {
		return nil, false
	}
	t, err := time.Parse("2006-01-02T15:04:05", m[1]+"T"+m[2])
	if err != nil {
		return nil, false
	}
	millis, _ := strconv.Atoi((m[3] + "000")[:3])
	t = t.Add(time.Duration(millis) * time.Millisecond)
	if zone := strings.ReplaceAll(m[4], ":", ""); len(zone) > 1 {
		hours, _ := strconv.Atoi(zone[1:3])
		minutes, _ := strconv.Atoi((zone[3:] + "00")[:2])
		if hours > 23 || minutes > 59 {
			return nil, false
		}
		offset := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
		if zone[0] == '-' {
			offset = -offset
		}
		t = t.Add(-offset)
	}
	return t.UTC(), len(m[3]) <= 3 || strings.Trim(m[3][3:], "0") == ""
}

var unicodeEscape = regexp.MustCompile(`\\(?:u[0-9a-fA-F]{4}|.)`)

// hasHalfSurrogate reports whether a JSON text escapes half of a surrogate
// pair, for which encoding/json would put a replacement character.
func hasHalfSurrogate(text string) bool {
	text = strings.ReplaceAll(text, "\n", " ") // no rune of an escape
	high, end := rune(0), -1
	for _, at := range unicodeEscape.FindAllStringIndex(text, -1) {
		r := rune(0)
		if text[at[0]+1] == 'u' {
			n, _ := strconv.ParseUint(text[at[0]+2:at[1]], 16, 16)
			r = rune(n)
		}
		pairs := high != 0 && end == at[0] && utf16.DecodeRune(high, r) != utf8.RuneError
		switch {
		case pairs:
			high = 0
			continue
		case high != 0:
			return true
		case utf16.IsSurrogate(r):
			high, end = r, at[1]
		}
	}
	return high != 0
}

var (
	oracleCodec  = func() *goavro.Codec { c, _ := goavro.NewCodec(AvroJSON()); return c }()
	oracleSchema = avro.MustParse(AvroJSON())
	oracleConfig = avro.Config{MaxByteSliceSize: -1}.Freeze() // its default would refuse a text of a megabyte
)

// decodeGoavro returns what goavro reads in a value.
func decodeGoavro(tb testing.TB, value []byte) refRecord {
	tb.Helper()
	native, rest, err := oracleCodec.NativeFromBinary(value[wireHeaderBytes:])
	if err != nil || len(rest) > 0 {
		tb.Fatalf("goavro: %v, %d bytes left", err, len(rest))
	}
	rec := refRecord{map[string]any{}, map[string]string{}}
	for name, v := range native.(map[string]any) {
		switch branch, isMap := v.(map[string]any); {
		case name == UnmappedName:
			for k, text := range branch {
				rec.unmapped[k] = text.(string)
			}
		case isMap:
			for _, v := range branch {
				rec.values[name] = v
			}
		case v != nil:
			rec.values[name] = v
		}
	}
	return rec
}

// decodeHamba returns what hamba/avro reads in a value.
func decodeHamba(tb testing.TB, value []byte) refRecord {
	tb.Helper()
	var native map[string]any
	if err := oracleConfig.Unmarshal(oracleSchema, value[wireHeaderBytes:], &native); err != nil {
		tb.Fatalf("hamba/avro: %v", err)
	}
	rec := refRecord{map[string]any{}, map[string]string{}}
	for name, v := range native {
		switch branch, isMap := v.(map[string]any); {
		case name == UnmappedName:
			for k, text := range branch {
				rec.unmapped[k] = text.(string)
			}
		case isMap:
			for _, v := range branch {
				rec.values[name] = v
			}
		case v != nil:
			rec.values[name] = v
		}
	}
	for name, v := range rec.values {
		f := &fields[indexOf(name)]
		switch n := v.(type) {
		case *time.Time:
			rec.values[name] = n.UTC()
		case time.Time:
			rec.values[name] = n.UTC()
		case int:
			if rec.values[name] = int64(n); f.Kind == Int {
				rec.values[name] = int32(n)
			}
		}
	}
	return rec
}

// decodeOwn returns what this package's decoder reads in a value.
func decodeOwn(tb testing.TB, value []byte) refRecord {
	tb.Helper()
	e, err := Decode(value)
	if err != nil {
		tb.Fatal(err)
	}
	return eventRecord(e)
}

func eventRecord(e *Event) refRecord {
	rec := refRecord{map[string]any{}, map[string]string{}}
	for i := range fields {
		if v := e.Value(fields[i].AvroName); v != nil {
			rec.values[fields[i].AvroName] = v
		}
	}
	maps.Copy(rec.unmapped, e.Unmapped)
	return rec
}

// compareRecords reports every difference between two readings.
func compareRecords(tb testing.TB, what string, got, want refRecord) {
	tb.Helper()
	names := slices.Sorted(maps.Keys(maps.Collect(func(yield func(string, bool) bool) {
		for _, rec := range []refRecord{got, want} {
			for name := range rec.values {
				if !yield(name, true) {
					return
				}
			}
		}
	})))
	for _, name := range names {
		g, w := got.values[name], want.values[name]
		gotTime, ok1 := g.(time.Time)
		wantTime, ok2 := w.(time.Time)
		if ok1 && ok2 && gotTime.Equal(wantTime) {
			continue
		}
		if g != w {
			tb.Errorf("%s: %s is %T %v, want %T %v", what, name, g, g, w, w)
		}
	}
	if !maps.Equal(got.unmapped, want.unmapped) {
		tb.Errorf("%s: unmapped is %q, want %q", what, got.unmapped, want.unmapped)
	}
}

// checkReaders holds the three decoders against each other and returns what
// they agree on.
func checkReaders(tb testing.TB, value []byte) refRecord {
	tb.Helper()
	want := decodeGoavro(tb, value)
	compareRecords(tb, "hamba/avro against goavro", decodeHamba(tb, value), want)
	compareRecords(tb, "Decode against goavro", decodeOwn(tb, value), want)
	return want
}
