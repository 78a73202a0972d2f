package coverage

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/offsets"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

var usualSweep = Sweep{Every: 12 * time.Hour, Back: 48 * time.Hour}

// midnight begins the day of the tests.
var midnight = noon - 12*3600

// kept are the receipts of a week: acme with a gap and a window that fell short, globex
// which was begun later and follows cdr_stream.
func kept(t *testing.T) *memoryLog {
	log := &memoryLog{}
	settled := midnight - 72*3600
	tell := func(r offsets.Receipt) {
		r.Counter++
		r.TotalCount = -1
		log.receipt(t, r)
	}
	hour := func(source cdr.SourceName, n int) offsets.Receipt {
		at := midnight + cdr.Instant(n)*3600
		return offsets.Receipt{
			Source: source, Counter: cdr.Counter(n + 200), Purpose: cdr.Live, Endpoint: cdr.Feed,
			Asked: cdr.Span{StartInclusive: at, EndExclusive: at + 3600}, CommitTime: at.Time().Add(66 * time.Minute), Pages: 1,
			Items: 100, Published: 90, AlreadyKnown: 9, DeadLetters: 1, Late: 2, DistinctIDs: 100,
			FeedPublished: at + 3600, FeedSettled: settled,
		}
	}
	sweep := func(n int) { // the widest, of the hour two days before
		r := hour("acme", n-48)
		r.Counter, r.Purpose, r.CommitTime = cdr.Counter(n+200), cdr.Sweep, hour("acme", n).CommitTime
		r.Items, r.Published, r.Late, r.DeadLetters, r.AlreadyKnown, r.DistinctIDs = 99, 2, 2, 0, 97, 99
		switch n - 48 {
		case 5:
			return
		case 6:
			r.Asked.StartInclusive -= 1800
			r.Unproven = "the feed announced 12 records and returned 11"
		}
		settled = r.Asked.EndExclusive
		r.FeedPublished, r.FeedSettled = hour("acme", n).FeedPublished, settled
		tell(r)
	}
	for n := -72; n < 96; n++ {
		r := hour("acme", n)
		switch n {
		case 5:
			r.Purpose, r.Gap, r.Asked = cdr.Gap, cdr.Span{StartInclusive: r.Asked.StartInclusive, EndExclusive: r.Asked.StartInclusive + 1800}, cdr.Span{}
			r.Items, r.Published, r.AlreadyKnown, r.DeadLetters, r.Late, r.DistinctIDs = 0, 0, 0, 0, 0, 0
		case 6:
			r.Asked.StartInclusive -= 1800
			r.Unproven = "the feed announced 12 records and returned 11"
		}
		tell(r)
		if n >= -24 {
			sweep(n)
		}
		if n == 24 {
			start := hour("globex", n)
			start.Purpose, start.Asked, start.FeedSettled = cdr.Start, cdr.Span{}, start.FeedPublished
			start.Items, start.Published, start.AlreadyKnown, start.DeadLetters, start.Late, start.DistinctIDs = 0, 0, 0, 0, 0, 0
			tell(start)
		}
		if n > 24 && n < 90 {
			r := hour("globex", n)
			r.FeedSettled = midnight + 25*3600
			if n == 89 {
				r.Asked.StartInclusive, r.FeedSettled = midnight+25*3600, midnight+40*3600 // as a sweep does
			}
			tell(r)
		}
		if n == 95 {
			r := hour("globex", n)
			r.Endpoint, r.FeedPublished, r.StreamPublished, r.FeedSettled = cdr.Stream, midnight+90*3600, r.FeedPublished, midnight+40*3600
			tell(r)
		}
	}
	log.write("acme", []byte("not a receipt"), (midnight + 96*3600).Time())
	return log
}

func question(require ...string) *Question {
	q := &Question{Now: midnight + 96*3600 + 600, Sources: []Subject{{"acme", 0, usualSweep}, {"globex", 0, usualSweep}}}
	for _, text := range require {
		span, err := ParseDemand(text, time.UTC)
		if err != nil {
			panic(err)
		}
		q.Require = append(q.Require, span)
	}
	return q
}

func (q *Question) answer(t *testing.T) (Answer, error) {
	t.Helper()
	if err := q.Validate(); err != nil {
		t.Fatal(err)
	}
	return q.Ask(t.Context(), NewReader(kept(t), "t", 1, noSchema), nil)
}

func TestAnswer(t *testing.T) {
	q := question("2026-11-24", "2026-11-25")
	q.Span = cdr.Span{StartInclusive: midnight - 36*3600, EndExclusive: q.Now}
	answer, err := q.answer(t)
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := answer.Render(&table, 100); err != nil {
		t.Fatal(err)
	}
	golden(t, "answer.txt", table.String())
	body, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "answer.json", string(body)+"\n")
	if answer.Lacking() != 4 {
		t.Errorf("%d verdicts lack something, want all four", answer.Lacking())
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		source, require string
		want            string
	}{
		{"acme", "2026-11-21", "2026-11-21 00:00:00 to 2026-11-22 00:00:00 is complete"},
		{"acme", "2026-11-22", "to read it again: cdrbus backfill -c FILE --source acme"},
		{"acme", "2026-11-22", "gap 2026-11-22 05:00:00 to 2026-11-22 05:30:00 (30 min): the feed could no longer return it"},
		{"acme", "2026-11-22", "unproven 2026-11-22 05:30:00 to 2026-11-22 07:00:00 (1 h 30 min): the feed announced 12"},
		{"acme", "2026-11-22T07:00:00Z/2026-11-23T00:00:00Z", "is complete: proven and settled"},
		{"acme", "2026-11-25", "is NOT complete, probably by 2026-11-28 12:00:00"},
		{"globex", "2026-11-23", "unread 2026-11-23 00:00:00 to 2026-11-23 01:00:00 (1 h): before the start"},
		{"globex", "2026-11-25", "published 2026-11-25 18:00:00 to 2026-11-26 00:00:00 (6 h): so far read by cdr_stream only"},
	} {
		q := question(c.require)
		q.Sources = []Subject{{cdr.SourceName(c.source), 0, usualSweep}}
		answer, err := q.answer(t)
		if err != nil {
			t.Errorf("%s of %s: %v", c.require, c.source, err)
			continue
		}
		var text bytes.Buffer
		if err := RenderVerdicts(&text, answer.Required); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text.String(), c.want) {
			t.Errorf("%s of %s: got %q, want %q", c.require, c.source, text.String(), c.want)
		}
		if complete := strings.Contains(c.want, "is complete"); answer.Required[0].Complete != complete {
			t.Errorf("%s of %s: complete is %t", c.require, c.source, !complete)
		}
	}
}

// TestOneSecondLacks: a span is complete only if each second of it is.
func TestOneSecondLacks(t *testing.T) {
	for i, lacking := range []cdr.Span{at(0, 1), at(500, 501), at(999, 1000)} {
		s := newStory(at(-10, 1010))
		s.feed(-10, 1010, "")
		s.settle(1010)
		s.feed(int(lacking.StartInclusive-noon), int(lacking.EndExclusive-noon), "short")
		report := s.m.Report("acme", at(-10, 1010))
		if v := report.Judge(at(0, 1000), usualSweep, noon+1010); v.Complete || len(v.Lacking) != 1 || v.Lacking[0].Span != lacking || v.Lacking[0].Seconds != 1 {
			t.Errorf("%d: got %+v, want second %s to lack", i, v, lacking)
		}
		if v := report.Judge(cdr.Span{StartInclusive: lacking.EndExclusive, EndExclusive: lacking.EndExclusive + 5}, usualSweep, noon+1010); !v.Complete {
			t.Errorf("%d: got %+v for the span behind it", i, v)
		}
	}
}

func TestOutside(t *testing.T) {
	for _, c := range []struct{ source, require, want string }{
		{"acme", "2026-11-01", "no receipt of source acme tells of 2026-11-01"},
		{"globex", "2026-11-22", "source globex begins at 2026-11-23T01:00:00Z"},
		{"initech", "2026-11-22", "source initech has no receipt"},
		{"acme", "2026-11-26T00:00:00Z/2026-11-26T00:05:00Z", "source acme is published to 2026-11-26T00:00:00Z"},
	} {
		q := question(c.require)
		q.Sources = []Subject{{cdr.SourceName(c.source), 0, usualSweep}}
		_, err := q.answer(t)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s: got %v, want %q", c.require, c.source, err, c.want)
		}
	}
}

func TestQuestionsRefused(t *testing.T) {
	for _, c := range []struct {
		change func(*Question)
		want   string
	}{
		{func(q *Question) { *q = *question("2026-11-26") }, "ends in the future; it can be complete by 2026-11-29T12:00:00Z"},
		{func(q *Question) { *q = *question("2027-01") }, "ends in the future"},
		{func(q *Question) { q.Span = cdr.Span{StartInclusive: q.Now, EndExclusive: q.Now + 1} }, "begins in the future"},
		{func(q *Question) { q.Span = at(100, 50) }, "the end must be later than the start"},
		{func(q *Question) { q.Span = cdr.Span{StartInclusive: -5, EndExclusive: noon} }, "begins before 1970"},
		{func(q *Question) { q.Sources = nil }, "no source is configured"},
	} {
		q := question()
		q.Span = at(0, 100)
		c.change(q)
		if err := q.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestParseDemand(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	santiago, err := time.LoadLocation("America/Santiago")
	if err != nil {
		t.Fatal(err)
	}
	havana, err := time.LoadLocation("America/Havana")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		zone *time.Location
		want string
	}{
		{"2026-11-22", time.UTC, "2026-11-22T00:00:00Z/2026-11-23T00:00:00Z"},
		{"2026-11-22", berlin, "2026-11-21T23:00:00Z/2026-11-22T23:00:00Z"},
		{"2026-03-29", berlin, "2026-03-28T23:00:00Z/2026-03-29T22:00:00Z"},   // 23 hours
		{"2026-10-25", berlin, "2026-10-24T22:00:00Z/2026-10-25T23:00:00Z"},   // 25 hours
		{"2026-09-06", santiago, "2026-09-06T04:00:00Z/2026-09-07T03:00:00Z"}, // it begins at 01:00
		{"2026-11-01", havana, "2026-11-01T04:00:00Z/2026-11-02T05:00:00Z"},   // it has two midnights
		{"2026-02", time.UTC, "2026-02-01T00:00:00Z/2026-03-01T00:00:00Z"},
		{"2026-12", berlin, "2026-11-30T23:00:00Z/2026-12-31T23:00:00Z"},
		{"2026-11-22T10:00:00+01:00/2026-11-22T12:00:00Z", berlin, "2026-11-22T09:00:00Z/2026-11-22T12:00:00Z"},
	} {
		span, err := ParseDemand(c.text, c.zone)
		if err != nil || span.String() != c.want {
			t.Errorf("%s in %s: got %s, %v; want %s", c.text, c.zone, span, err, c.want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-11-31", "2026-11-22T10:00:00Z", "2026-11-22T12:00:00Z/2026-11-22T10:00:00Z", "22.11.2026"} {
		if span, err := ParseDemand(text, time.UTC); err == nil {
			t.Errorf("%q is taken for %s", text, span)
		}
	}
}

func TestLengths(t *testing.T) {
	for seconds, want := range map[int64]string{0: "0 s", 59: "59 s", 60: "1 min", 61: "1 min 1 s", 3600: "1 h", 5430: "1 h 30 min", 3601: "1 h", 86400: "1 d", 100_000: "1 d 3 h"} {
		if got := length(seconds); got != want {
			t.Errorf("%d seconds: got %s, want %s", seconds, got, want)
		}
	}
	for _, c := range []struct {
		part, whole int64
		want        string
	}{{1, 1, "100 %"}, {99_999, 100_000, "99.9 %"}, {1, 100_000, "<0.1 %"}, {1, 3, "33.3 %"}} {
		if got := percent(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: got %s, want %s", c.part, c.whole, got, c.want)
		}
	}
}

// TestPrintable: nothing that a terminal takes for a command comes through.
func TestPrintable(t *testing.T) {
	if got := printable("a\tb\x1b[2J\u009b31m\u2028é"); got != "a b [2J 31m é" {
		t.Errorf("%q", got)
	}
}
