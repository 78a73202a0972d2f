package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// expected is what the topics must hold of the feed between start and until.
type expected struct {
	keys    map[string]string // by Report ID: "key_from key"
	rejects map[string]bool   // SHA-256 of items without a usable Report ID, by source
	ids     map[string]string // SHA-256 of every item, to its Report ID
	edge    map[string]bool   // Report IDs just outside: a feed whose end is inclusive may add some
}

func (r *rig) truth() expected {
	r.t.Helper()
	e := expected{keys: map[string]string{}, rejects: map[string]bool{}, ids: map[string]string{}, edge: map[string]bool{}}
	asked := cdr.Span{StartInclusive: r.start, EndExclusive: r.until}
	around := cdr.Span{StartInclusive: r.start.Add(-time.Minute), EndExclusive: r.until.Add(time.Minute)}
	for _, source := range r.sources {
		for record := range r.feed.Truth(source, around) {
			e.ids[source+" "+record.SHA256] = record.ReportID
			switch {
			case !asked.Contains(cdr.InstantOf(record.ReportTime)):
				e.edge[record.ReportID] = true
			case record.ReportID == "":
				e.rejects[source+" "+record.SHA256] = true
			default:
				e.keys[record.ReportID] = record.KeyFrom + " " + record.Key
			}
		}
	}
	if len(e.keys) == 0 {
		r.t.Fatal("the feed has no records: the test would prove nothing")
	}
	return e
}

// found is what some client says of the topics.
type found struct {
	events     map[string]int    // by Report ID
	keys       map[string]string // by Report ID: "key_from key"
	partitions map[string]int    // by key
	letters    map[string]int    // by source and SHA-256, first parts only
}

// readEvents reads lines of "partition|key|headers", as kcat prints them.
func readEvents(t *testing.T, lines []byte) found {
	t.Helper()
	f := found{events: map[string]int{}, keys: map[string]string{}, partitions: map[string]int{}}
	eachLine(t, lines, func(line string) {
		fields := strings.SplitN(line, "|", 3)
		if len(fields) != 3 {
			t.Fatalf("cannot read event line %q", line)
		}
		headers := parseHeaders(fields[2])
		var partition int
		if _, err := fmt.Sscan(fields[0], &partition); err != nil {
			t.Fatalf("event line %q: %v", line, err)
		}
		id := headers["ce_id"]
		f.events[id]++
		f.keys[id] = headers["key_from"] + " " + fields[1]
		if former, known := f.partitions[fields[1]]; known && former != partition {
			t.Errorf("key %q is in partitions %d and %d", fields[1], former, partition)
		}
		f.partitions[fields[1]] = partition
	})
	return f
}

// readLetters reads lines of "key|headers" into the letters.
func (f *found) readLetters(t *testing.T, lines []byte) {
	t.Helper()
	f.letters = map[string]int{}
	eachLine(t, lines, func(line string) {
		key, rest, _ := strings.Cut(line, "|")
		if headers := parseHeaders(rest); strings.HasPrefix(headers["part"], "1/") {
			f.letters[key+" "+headers["sha256"]]++
		}
	})
}

func parseHeaders(text string) map[string]string {
	headers := map[string]string{}
	for _, field := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(field, "=")
		headers[key] = value
	}
	return headers
}

func eachLine(t *testing.T, text []byte, visit func(string)) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		visit(lines.Text())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// balance is the comparison of a topic with the truth.
type balance struct {
	records, events, letters int // of the feed; distinct ones in the topics
	missing, wrong           int
	doubled                  int // copies beyond the first
}

func (b balance) String() string {
	return fmt.Sprintf("%d records of the feed, %d distinct events, %d dead letters, %d missing, %d wrong, %d doubled", b.records, b.events, b.letters, b.missing, b.wrong, b.doubled)
}

// compare demands every record of the truth in a topic, once, and nothing else.
// With repeats allowed it only counts them.
func (e expected) compare(t *testing.T, f found, repeatsAllowed bool) balance {
	t.Helper()
	b := balance{records: len(e.keys) + len(e.rejects), events: len(f.events), letters: len(f.letters)}
	complain := func(count *int, format string, arguments ...any) {
		if *count++; *count <= 10 {
			t.Errorf(format, arguments...)
		}
	}
	count := func(what string, n int) {
		for range n - 1 {
			if b.doubled++; !repeatsAllowed && b.doubled <= 10 {
				t.Errorf("%s is there %d times", what, n)
			}
		}
	}
	inLetters := map[string]bool{}
	for letter, n := range f.letters {
		id, known := e.ids[letter]
		if !known {
			complain(&b.wrong, "dead letter %s is of no item of the feed", letter)
		}
		count("dead letter "+letter, n)
		inLetters[id] = true
	}
	for reject := range e.rejects {
		if f.letters[reject] == 0 {
			complain(&b.missing, "item %s without a Report ID is not in the dead-letter topic", reject)
		}
	}
	for id, key := range e.keys {
		if f.events[id] == 0 && !inLetters[id] {
			complain(&b.missing, "record %s is missing", id)
		}
		if f.events[id] > 0 && f.keys[id] != key {
			complain(&b.wrong, "record %s has key %q, want %q", id, f.keys[id], key)
		}
	}
	for id, n := range f.events {
		count("record "+id, n)
		if _, known := e.keys[id]; !known && !e.edge[id] {
			complain(&b.wrong, "event %s is of no record of the feed between start and end", id)
		}
	}
	t.Log(b)
	return b
}
