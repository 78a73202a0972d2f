package offsets

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// deepPast is a feed, a set that holds two hours of it, and a naive one that forgets
// nothing.
type deepPast struct {
	t       *testing.T
	random  *rand.Rand
	log     *memoryLog
	seen    *Seen
	naive   map[cdr.ReportID]uint64
	now     cdr.Instant
	counter cdr.Counter
	pins    int
	stream  bool // the live edge is that of cdr_stream
}

const minute = 60

// latest is how late records appear, at most.
const latest = 1000 * minute / 4

// record is the record of a minute as the feed has it now: some appear late, and some
// change.
func (d *deepPast) record(at cdr.Instant) (id cdr.ReportID, hash uint64, inserted cdr.Instant) {
	m := int(at / minute)
	hash = 1
	if m%7 == 0 && d.now > at+3*3600 {
		hash = 2
	}
	return numberedID(m), hash, at + cdr.Instant(m%11*m%1000)*minute/4
}

// read reads a window, by insertion if it is so, and holds each verdict against the
// naive set. The feed takes its end to be inclusive.
func (d *deepPast) read(span cdr.Span, byInsertion bool) {
	d.t.Helper()
	if !d.seen.Covers(span) {
		d.pins++
		index := NewJournalIndex("ids", 0, []cdr.SourceName{"acme"}, span)
		for _, err := range []error{index.Extend(context.Background(), d.log), index.Pin(context.Background(), d.log, d.seen, span)} {
			if err != nil {
				d.t.Fatal(err)
			}
		}
	}
	d.counter++
	w := Window{ID: cdr.WindowID{Source: "acme", Counter: d.counter}, Span: span, SchemaFingerprint: schemaA, ByInsertion: byInsertion}
	if d.stream && !byInsertion {
		w.AsOf = d.now
	}
	p, times := d.seen.Begin(w), NoReportTimes
	for at := (span.StartInclusive - latest) / minute * minute; at <= span.EndExclusive; at += minute {
		id, hash, inserted := d.record(at)
		selected := at
		if byInsertion {
			selected = inserted
		}
		if selected < span.StartInclusive || selected > span.EndExclusive || inserted > d.now {
			continue
		}
		times.Add(int64(at) * 1000)
		want := Known
		switch old, known := d.naive[id]; {
		case !known:
			want = New
		case old != hash:
			want = Revised
		}
		d.naive[id] = hash
		if got := p.Check(id, hash); got != want {
			d.t.Fatalf("at %s, window %s: the record of %s is %s, want %s", d.now, span, at, got, want)
		}
	}
	first := int64(-1)
	for _, chunk := range p.AppendJournal(nil, times) {
		offset := d.log.append("ids", 0, "acme", chunk)
		records := d.log.partition("ids", 0).records
		records[len(records)-1].Timestamp = d.now.Time().Add(5 * time.Minute)
		if first < 0 {
			first = offset
		}
	}
	p.Adopt(max(first, 0))
	d.seen.EvictBefore(d.now.Add(-2 * time.Hour))
}

// TestJournalIndex: windows from any time, also from long before what the set holds,
// get the verdicts that a set would give which forgets nothing.
func TestJournalIndex(t *testing.T) {
	for seed := range uint64(20) {
		d := &deepPast{t: t, random: rand.New(rand.NewPCG(seed, 2)), log: newLog(), seen: NewSeen(0), naive: map[cdr.ReportID]uint64{}, now: day, stream: seed%2 == 0}
		for range 300 {
			d.now += 10 * minute
			end := d.now
			if d.stream {
				end -= 2 * minute // it is read later than cdr_feed returns a record, which may be first
			}
			d.read(cdr.Span{StartInclusive: end - 11*minute, EndExclusive: end}, d.stream)
			if d.random.IntN(3) == 0 {
				back := cdr.Instant(d.random.IntN(int(d.now-day))) / minute * minute
				width := cdr.Instant(1+d.random.IntN(360)) * minute
				start := max(d.now-back-width, day)
				d.read(cdr.Span{StartInclusive: start, EndExclusive: min(start+width, d.now)}, false)
			}
			if d.random.IntN(5) == 0 {
				d.seen.Unpin()
			}
		}
		if d.pins < 20 {
			t.Errorf("seed %d: %d windows were from before the set, too few to prove anything", seed, d.pins)
		}
	}
}

// lateMarkers is a log whose last commit committed readers see only later.
type lateMarkers struct {
	*memoryLog
	asked int
}

func (l *lateMarkers) Bounds(ctx context.Context, topic string, partition int) (committed.Bounds, error) {
	bounds, err := l.memoryLog.Bounds(ctx, topic, partition)
	if l.asked++; l.asked < 3 {
		bounds.LastStable -= 2
	}
	return bounds, err
}

// TestJournalIndexReadsToTheEnd: a commit is definite before its markers are written, and
// the window behind it must be checked against its IDs all the same.
func TestJournalIndexReadsToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lateMarkers{memoryLog: newLog()}
		span := cdr.Span{StartInclusive: day, EndExclusive: day + 3600}
		seen := NewSeen(0)
		seen.EvictBefore(day + 48*3600)
		for i := range 3 {
			p := NewSeen(0).Begin(Window{ID: cdr.WindowID{Source: "acme", Counter: cdr.Counter(i + 1)}, Span: span, SchemaFingerprint: schemaA})
			p.Check(numberedID(i), 1)
			log.append("ids", 0, "acme", p.AppendJournal(nil, NoReportTimes)[0])
		}
		index := NewJournalIndex("ids", 0, []cdr.SourceName{"acme"}, span)
		if err := errors.Join(index.Extend(t.Context(), log), index.Pin(t.Context(), log, seen, span)); err != nil {
			t.Fatal(err)
		}
		p := seen.Begin(Window{ID: cdr.WindowID{Source: "acme", Counter: 4}, Span: span, SchemaFingerprint: schemaA})
		for i := range 3 {
			if verdict := p.Check(numberedID(i), 1); verdict != Known {
				t.Errorf("record %d of 3 is %s", i+1, verdict)
			}
		}
	})
}
