package offsets

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

const day = cdr.Instant(1795305600) // 2026-11-22T00:00:00Z

// examplePosition has every field set.
func examplePosition() Position {
	return Position{
		Source:              "acme",
		Definition:          NewDefinition("auto", "analytics-calling.webexapis.com", "/v1/cdr_feed", []string{"Oslo <HQ> & Co", "Bergen"}),
		OrgUUID:             "6a29a3f1-9d5c-4c4e-8d6c-0f5ee1c3d2ab",
		TransactionalPrefix: "cdrbus",
		Shard:               3,
		Shards:              16,
		Counter:             42,
		Start:               day.Add(-31 * 24 * time.Hour),
		FeedPublished:       day.Add(10 * time.Hour),
		FeedSettled:         day.Add(-38 * time.Hour),
		StreamPublished:     day.Add(10*time.Hour + 4*time.Minute),
		Sweeps: []cdr.SweepRound{
			{BackSeconds: 7200, Began: day.Add(9 * time.Hour), Next: day.Add(9 * time.Hour), End: day.Add(9 * time.Hour)},
			{BackSeconds: 172800, Began: day.Add(8 * time.Hour), Next: day.Add(-38 * time.Hour), End: day.Add(8 * time.Hour)},
		},
		Rechecks: []cdr.Recheck{{Span: cdr.Span{StartInclusive: day, EndExclusive: day.Add(time.Hour)}, Due: day.Add(11 * time.Hour)}},
		LastWindow: WindowSummary{
			Span:     cdr.Span{StartInclusive: day.Add(9*time.Hour + 59*time.Minute), EndExclusive: day.Add(10*time.Hour + 4*time.Minute)},
			Endpoint: cdr.Stream,
			Purpose:  cdr.Live,
		},
		LastRequestAt:     day.Time().Add(10*time.Hour + 5*time.Minute + 123456789*time.Nanosecond),
		OldestRecord:      day.Add(-30 * 24 * time.Hour),
		LastGap:           cdr.Span{StartInclusive: day.Add(-40 * 24 * time.Hour), EndExclusive: day.Add(-30 * 24 * time.Hour)},
		JournalFrom:       1234,
		SchemaFingerprint: 0xdeadbeef,
	}
}

// startPosition is the first one of a new source: nothing was asked yet.
func startPosition() Position {
	return Position{
		Source: "new", Definition: NewDefinition("feed", "localhost:8080", "/v1/cdr_feed", nil), TransactionalPrefix: "cdrbus", Shards: 1,
		Counter: 1, FeedPublished: day, FeedSettled: day, LastWindow: WindowSummary{Endpoint: cdr.Feed, Purpose: cdr.Start},
	}
}

func encoded(t testing.TB, p Position) []byte {
	t.Helper()
	value, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestPositionGolden(t *testing.T) {
	for name, p := range map[string]Position{"position.json": examplePosition(), "position_start.json": startPosition()} {
		value := encoded(t, p)
		golden(t, name, append(value, '\n'))
		back, err := DecodePosition(value)
		if err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("%s decodes to %+v, %v; want %+v", name, back, err, p)
		}
		if !json.Valid(value) || bytes.ContainsAny(value, "\n") {
			t.Errorf("%s is not one line of JSON", name)
		}
	}
}

// TestPositionSetsEveryField fails when a new field is forgotten in the codec: it
// would come back unset.
func TestPositionSetsEveryField(t *testing.T) {
	p := examplePosition()
	p.Mended = true
	back, err := DecodePosition(encoded(t, p))
	if err != nil {
		t.Fatal(err)
	}
	fields := reflect.ValueOf(back)
	for i := range fields.NumField() {
		if name := fields.Type().Field(i).Name; name != "unknown" && fields.Field(i).IsZero() {
			t.Errorf("field %s is lost on the way", name)
		}
	}
}

func TestDecodePositionTellsFaultsApart(t *testing.T) {
	good := string(encoded(t, examplePosition()))
	seal := func(body string) string { return string(sealPosition([]byte(body))) }
	body := good[:strings.LastIndex(good, checksumKey)]
	swap := func(old, new string) string {
		if !strings.Contains(body, old) {
			t.Fatalf("the position has no %s", old)
		}
		return seal(strings.Replace(body, old, new, 1))
	}
	for _, c := range []struct {
		name, value string
		want        error
		message     string
	}{
		{"nothing", "", ErrAbsentPosition, "position is absent"},
		{"text", "hello", ErrUnreadablePosition, "not a JSON object"},
		{"null", "null", ErrUnreadablePosition, "not a JSON object"},
		{"an array", "[1]", ErrUnreadablePosition, "not a JSON object"},
		{"an empty object", "{}", ErrUnreadablePosition, "want version and min_reader first and checksum last"},
		{"half of it", good[:len(good)/2], ErrUnreadablePosition, "unexpected"},
		{"another's JSON", `{"foo":1,"bar":2,"baz":3}`, ErrUnreadablePosition, "want version and min_reader first"},
		{"text behind", good + "x", ErrUnreadablePosition, "text after the JSON object"},
		{"a newline behind", good + "\n", ErrBrokenChecksum, "is not the CRC-32C of what it closes"},
		{"blanks", strings.Replace(good, `,"shard"`, `, "shard"`, 1), ErrBrokenChecksum, ""},
		{"another counter", strings.Replace(good, `"counter":42`, `"counter":43`, 1), ErrBrokenChecksum, ""},
		{"no checksum", body + "}", ErrUnreadablePosition, ""},
		{"a later version", swap(`"version":1,"min_reader":1`, `"version":3,"min_reader":2`), ErrLaterPosition, "version 3, to be read by version 2 or later, while this program reads version 1"},
		{"a damaged version", strings.Replace(good, `"version":1,"min_reader":1`, `"version":3,"min_reader":2`, 1), ErrBrokenChecksum, ""},
		{"version 0", swap(`"version":1,"min_reader":1`, `"version":0,"min_reader":0`), ErrUnreadablePosition, "version 0 with min_reader 0"},
		{"min_reader above version", swap(`"version":1,"min_reader":1`, `"version":1,"min_reader":2`), ErrUnreadablePosition, ""},
		{"version of text", swap(`"version":1`, `"version":"1"`), ErrUnreadablePosition, ""},
		{"a key twice", swap(`"shard":3`, `"shard":3,"shard":3`), ErrUnreadablePosition, `key "shard" comes twice`},
		{"a key missing", swap(`,"journal_from":1234`, ``), ErrUnreadablePosition, `key "journal_from" is missing`},
		{"a null", swap(`"journal_from":1234`, `"journal_from":null`), ErrUnreadablePosition, "journal_from: null"},
		{"a counter of text", swap(`"counter":42`, `"counter":"42"`), ErrUnreadablePosition, "counter: json: cannot unmarshal string"},
		{"a negative counter", swap(`"counter":42`, `"counter":-1`), ErrUnreadablePosition, "counter: "},
		{"half a second", swap(`"feed_published":"2026-11-22T10:00:00Z"`, `"feed_published":"2026-11-22T10:00:00.5Z"`), ErrUnreadablePosition, "want whole seconds"},
		{"an unknown key within", swap(`"endpoint":"auto"`, `"endpoint":"auto","x":1`), ErrUnreadablePosition, `unknown field "x"`},
		{"counter 0", swap(`"counter":42`, `"counter":0`), ErrZeroPosition, "counter 0"},
		{"no watermark", seal(strings.NewReplacer(`"2026-11-22T10:00:00Z","feed_settled":"2026-11-20T10:00:00Z","stream_published":"2026-11-22T10:04:00Z"`, `"","feed_settled":"","stream_published":""`).Replace(body)), ErrZeroPosition, "neither feed_published nor stream_published is set"},
		{"settled beyond published", swap(`"feed_settled":"2026-11-20`, `"feed_settled":"2026-11-23`), ErrInvalidPosition, "later than feed_published"},
		{"shard out of range", swap(`"shard":3`, `"shard":16`), ErrInvalidPosition, "shard 16 of 16"},
		{"a bad source", swap(`"source":"acme"`, `"source":"a b"`), ErrInvalidPosition, "source name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodePosition([]byte(c.value))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.message) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.message)
			}
			for _, other := range []error{ErrAbsentPosition, ErrUnreadablePosition, ErrBrokenChecksum, ErrLaterPosition, ErrZeroPosition, ErrInvalidPosition} {
				if other != c.want && errors.Is(err, other) {
					t.Errorf("%v is also %v", err, other)
				}
			}
		})
	}
}

// TestPositionNoticesEveryDamage flips each bit of a value: none may pass.
func TestPositionNoticesEveryDamage(t *testing.T) {
	good := encoded(t, examplePosition())
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if p, err := DecodePosition(bad); err == nil {
				t.Fatalf("bit %d of byte %d passes: %+v", bit, i, p)
			}
		}
	}
}

func TestPositionKeepsWhatLaterVersionsAdd(t *testing.T) {
	good := encoded(t, startPosition())
	body := string(good[:bytes.LastIndex(good, []byte(checksumKey))])
	body = strings.Replace(body, `"version":1`, `"version":2`, 1)
	body = strings.Replace(body, `,"shard":`, `,"stream_settled":"2026-11-22T00:00:00Z","shard":`, 1) + `,"later \u0001":[{"a": 1.50e3}, null]`
	p, err := DecodePosition(sealPosition([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	p.Counter++
	again := string(encoded(t, p))
	for _, want := range []string{`"version":1,"min_reader":1`, `"counter":2`, `,"stream_settled":"2026-11-22T00:00:00Z"`, `,"later \u0001":[{"a":1.50e3},null]`} {
		if !strings.Contains(again, want) {
			t.Errorf("written again without %s: %s", want, again)
		}
	}
	if back, err := DecodePosition([]byte(again)); err != nil || !reflect.DeepEqual(back, p) {
		t.Errorf("decodes to %+v, %v; want %+v", back, err, p)
	}
}

func TestPositionRefusesToEncodeNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Position)
		want   error
	}{
		"zero value":          {func(p *Position) { *p = Position{} }, ErrZeroPosition},
		"no counter":          {func(p *Position) { p.Counter = 0 }, ErrZeroPosition},
		"no watermark":        {func(p *Position) { p.FeedPublished, p.FeedSettled, p.StreamPublished = 0, 0, 0 }, ErrZeroPosition},
		"no prefix":           {func(p *Position) { p.TransactionalPrefix = "" }, ErrInvalidPosition},
		"shard":               {func(p *Position) { p.Shard = -1 }, ErrInvalidPosition},
		"relative path":       {func(p *Position) { p.Definition.Path = "v1" }, ErrInvalidPosition},
		"unsorted locations":  {func(p *Position) { p.Definition.Locations = []string{"b", "a"} }, ErrInvalidPosition},
		"doubled location":    {func(p *Position) { p.Definition.Locations = []string{"a", "a"} }, ErrInvalidPosition},
		"location not UTF-8":  {func(p *Position) { p.Definition.Locations = []string{"\xff"} }, ErrInvalidPosition},
		"host not UTF-8":      {func(p *Position) { p.Definition.Host = "\xff" }, ErrInvalidPosition},
		"org not UTF-8":       {func(p *Position) { p.OrgUUID = "\xff" }, ErrInvalidPosition},
		"before 1970":         {func(p *Position) { p.OldestRecord = -1 }, ErrInvalidPosition},
		"after 9999":          {func(p *Position) { p.FeedPublished = lastInstant + 1 }, ErrInvalidPosition},
		"request after 9999":  {func(p *Position) { p.LastRequestAt = time.Unix(int64(lastInstant)+1, 0) }, ErrInvalidPosition},
		"reversed gap":        {func(p *Position) { p.LastGap = cdr.Span{StartInclusive: 2, EndExclusive: 1} }, ErrInvalidPosition},
		"reversed window":     {func(p *Position) { p.LastWindow.Span.EndExclusive = 1 }, ErrInvalidPosition},
		"window without end":  {func(p *Position) { p.LastWindow.Span.EndExclusive = 0 }, ErrInvalidPosition},
		"no endpoint":         {func(p *Position) { p.LastWindow.Endpoint = "auto" }, ErrInvalidPosition},
		"no purpose":          {func(p *Position) { p.LastWindow.Purpose = "" }, ErrInvalidPosition},
		"journal before zero": {func(p *Position) { p.JournalFrom = -1 }, ErrInvalidPosition},
	} {
		p := examplePosition()
		c.change(&p)
		if value, err := p.Encode(); !errors.Is(err, c.want) {
			t.Errorf("%s: Encode gave %s, %v; want %v", name, value, err, c.want)
		}
	}
}

func TestDefinitionIgnoresOrderAndDoublesOfLocations(t *testing.T) {
	a := NewDefinition("feed", "h", "/p", []string{"b", "a", "b"})
	if !a.Equal(NewDefinition("feed", "h", "/p", []string{"a", "b"})) {
		t.Error("the order of locations makes another definition")
	}
	for _, other := range []Definition{
		NewDefinition("stream", "h", "/p", []string{"a", "b"}), NewDefinition("feed", "i", "/p", []string{"a", "b"}),
		NewDefinition("feed", "h", "/q", []string{"a", "b"}), NewDefinition("feed", "h", "/p", []string{"a"}), NewDefinition("feed", "h", "/p", nil),
	} {
		if a.Equal(other) {
			t.Errorf("%s equals %s", a, other)
		}
	}
}

// FuzzDecodePosition closes every input with a right checksum too, so that the fuzzer
// gets behind it: nothing panics, and what decodes is written again to the same value.
func FuzzDecodePosition(f *testing.F) {
	for _, p := range []Position{examplePosition(), startPosition()} {
		value := encoded(f, p)
		f.Add(value)
		f.Add(value[:bytes.LastIndex(value, []byte(checksumKey))])
	}
	f.Add([]byte(`{"version":9,"min_reader":1,"x":{}`))
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, value := range [][]byte{input, sealPosition(bytes.Clone(input))} {
			p, err := DecodePosition(value)
			if err != nil {
				continue
			}
			again, err := p.Encode()
			if err != nil {
				t.Fatalf("%s decodes, but does not encode: %v", value, err)
			}
			if back, err := DecodePosition(again); err != nil || !reflect.DeepEqual(back, p) {
				t.Fatalf("%s decodes to %+v, but again to %+v, %v", value, p, back, err)
			}
		}
	})
}
