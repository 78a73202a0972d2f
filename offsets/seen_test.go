package offsets

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

const (
	schemaA = 0xa
	schemaB = 0xb
)

// window returns the n-th of a row of 10 minutes each.
func window(n int, schema uint32) Window {
	start := day.Add(time.Duration(n) * 10 * time.Minute)
	return Window{
		ID:                cdr.WindowID{Source: "acme", Counter: cdr.Counter(n + 1)},
		Span:              cdr.Span{StartInclusive: start, EndExclusive: start.Add(10 * time.Minute)},
		SchemaFingerprint: schema,
	}
}

func expect(t *testing.T, p *Pending, id int, hash uint64, want Verdict) {
	t.Helper()
	if got := p.Check(numberedID(id), hash); got != want {
		t.Errorf("window %s: Check(%d, %d) = %s, want %s", p.window.ID, id, hash, got, want)
	}
}

func TestSeenVerdicts(t *testing.T) {
	s := NewSeen(0)
	p := s.Begin(window(0, schemaA))
	expect(t, p, 0, 1, New) // the nil UUID is an ID like any other
	expect(t, p, 1, 1, New)
	expect(t, p, 1, 1, Known) // twice on one page
	expect(t, p, 2, 1, New)
	expect(t, p, 2, 2, Revised) // revised within the window
	expect(t, p, 2, 2, Known)
	later := s.Begin(window(1, schemaA))
	expect(t, later, 1, 1, Known) // pending counts for later windows
	expect(t, later, 1, 9, Revised)
	expect(t, later, 3, 0, New)
	p.Adopt(100)
	later.Adopt(101)
	last := s.Begin(window(2, schemaA))
	expect(t, last, 1, 9, Known) // the revision replaced the hash
	expect(t, last, 1, 1, Revised)
	expect(t, last, 2, 2, Known)
	if s.Len() != 4 {
		t.Errorf("Len() = %d, want 4", s.Len())
	}
}

func TestSeenDiscardTakesLaterWindowsAlong(t *testing.T) {
	s := NewSeen(0)
	base := s.Begin(window(0, schemaA))
	expect(t, base, 1, 1, New)
	base.Adopt(10)
	first := s.Begin(window(1, schemaA))
	expect(t, first, 1, 2, Revised)
	expect(t, first, 2, 1, New)
	expect(t, first, 2, 2, Revised)
	second := s.Begin(window(2, schemaA))
	expect(t, second, 1, 3, Revised)
	expect(t, second, 2, 2, Known)
	expect(t, second, 3, 1, New)
	third := s.Begin(window(3, schemaA))
	expect(t, third, 3, 1, Known)

	first.Discard()
	if s.Len() != 1 || len(s.pendings) != 0 {
		t.Fatalf("%d records and %d pendings are left, want 1 and 0", s.Len(), len(s.pendings))
	}
	second.Discard() // as whoever walks over all windows of a failed commit does
	third.Discard()
	mustPanic(t, "adopt after discard", func() { second.Adopt(20) })
	mustPanic(t, "check after discard", func() { second.Check(numberedID(1), 1) })

	again := s.Begin(window(1, schemaA))
	expect(t, again, 1, 1, Known) // as before the first revision
	expect(t, again, 2, 7, New)
	expect(t, again, 3, 7, New)
}

func TestSeenDiscardLeavesOlderWindows(t *testing.T) {
	s := NewSeen(0)
	first := s.Begin(window(0, schemaA))
	expect(t, first, 1, 1, New)
	second := s.Begin(window(1, schemaA))
	expect(t, second, 2, 1, New)
	second.Discard()
	expect(t, first, 2, 1, New) // first is the one begun last again
	first.Adopt(5)
	if s.Len() != 2 {
		t.Errorf("Len() = %d, want 2", s.Len())
	}
}

func TestSeenPanicsOnDisorder(t *testing.T) {
	s := NewSeen(0)
	first, second := s.Begin(window(0, schemaA)), s.Begin(window(1, schemaA))
	mustPanic(t, "check in an older window", func() { first.Check(numberedID(1), 1) })
	mustPanic(t, "adopt out of order", func() { second.Adopt(1) })
	expect(t, second, 1, 1, New)
	first.Adopt(1)
	mustPanic(t, "adopt twice", func() { first.Adopt(1) })
	mustPanic(t, "discard after adopt", func() { first.Discard() })
	mustPanic(t, "adopt nowhere", func() { second.Adopt(-1) })
	second.Adopt(2)
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", what)
		}
	}()
	f()
}

func TestSeenComparesOnlyWithinOneSchema(t *testing.T) {
	s := NewSeen(0)
	old := s.Begin(window(0, schemaA))
	expect(t, old, 1, 1, New)
	old.Adopt(50)

	p := s.Begin(window(1, schemaB))
	expect(t, p, 1, 101, Known) // another schema: not comparable, so no revision
	expect(t, p, 1, 102, Revised)
	if p.Len() != 1 {
		t.Errorf("the journal gets %d entries, want the revision only", p.Len())
	}
	p.Discard()

	p = s.Begin(window(1, schemaB))
	expect(t, p, 1, 103, Known) // the former rebase is gone with its window
	expect(t, p, 1, 103, Known)
	if p.Len() != 0 {
		t.Errorf("the journal gets %d entries, want none", p.Len())
	}
	p.Adopt(60)
	if from := s.JournalFrom(); from != 50 {
		t.Errorf("JournalFrom() = %d, want 50, where the journal has the ID", from)
	}
}

func TestSeenEviction(t *testing.T) {
	s := NewSeen(0)
	for n := range 12 { // two hours
		p := s.Begin(window(n, schemaA))
		expect(t, p, n, 1, New)
		p.Adopt(int64(100 + n))
	}
	s.EvictBefore(day.Add(time.Hour - time.Second))
	if s.Len() != 12 || s.JournalFrom() != 100 {
		t.Errorf("before the end of the first hour %d are left from %d, want 12 from 100", s.Len(), s.JournalFrom())
	}
	s.EvictBefore(day.Add(time.Hour))
	if s.Len() != 6 || s.JournalFrom() != 106 {
		t.Errorf("after the first hour %d are left from %d, want 6 from 106", s.Len(), s.JournalFrom())
	}
	p := s.Begin(window(12, schemaA))
	expect(t, p, 5, 1, New)
	expect(t, p, 6, 1, Known)
	s.EvictBefore(day.Add(100 * time.Hour)) // spares what is pending
	if s.Len() != 1 {
		t.Errorf("%d are left, want the pending one", s.Len())
	}
	p.Adopt(112)
	s.EvictBefore(day.Add(100 * time.Hour))
	if s.Len() != 0 || s.JournalFrom() != 112 {
		t.Errorf("%d are left from %d, want 0 from 112", s.Len(), s.JournalFrom())
	}
}

func TestSeenRevisionLivesAsLongAsItsWindow(t *testing.T) {
	s := NewSeen(0)
	old := s.Begin(window(0, schemaA))
	expect(t, old, 1, 1, New)
	expect(t, old, 2, 1, New)
	old.Adopt(100)
	young := s.Begin(window(12, schemaA))
	expect(t, young, 1, 2, Revised)
	young.Adopt(200)
	sweep := s.Begin(window(1, schemaA))
	expect(t, sweep, 1, 3, Revised) // an older window revises, but does not age
	sweep.Adopt(300)
	s.EvictBefore(day.Add(time.Hour))
	p := s.Begin(window(13, schemaA))
	expect(t, p, 1, 3, Known)
	expect(t, p, 2, 1, New)
}

func TestSeenUndoOfEvicted(t *testing.T) {
	s := NewSeen(0)
	old := s.Begin(window(0, schemaA))
	expect(t, old, 1, 1, New)
	old.Adopt(100)
	young := s.Begin(window(12, schemaA))
	expect(t, young, 1, 2, Revised)
	s.EvictBefore(day.Add(time.Hour)) // the generation to which an undo would put it back
	young.Discard()
	if s.Len() != 0 {
		t.Errorf("%d are left, want the evicted one gone", s.Len())
	}
}

func TestSeenUsesGenerationNumbersAgain(t *testing.T) {
	s := NewSeen(0)
	for n := range 6 * 24 * 7 {
		p := s.Begin(window(n, schemaA))
		expect(t, p, n, 1, New)
		p.Adopt(int64(n))
		s.EvictBefore(p.window.Span.EndExclusive.Add(-3 * time.Hour))
	}
	if len(s.generations) > 6 {
		t.Errorf("a set of three hours has %d generations", len(s.generations))
	}
}

func TestPendingJournal(t *testing.T) {
	s := NewSeen(0)
	p := s.Begin(window(4, schemaA))
	if chunks := p.AppendJournal(nil, NoReportTimes); len(chunks) != 0 {
		t.Errorf("a window without records writes %d chunks", len(chunks))
	}
	expect(t, p, 1, 1, New)
	expect(t, p, 1, 1, Known)
	expect(t, p, 1, 2, Revised)
	chunks := p.AppendJournal(nil, ReportTimes{5, 6})
	if len(chunks) != 1 {
		t.Fatalf("%d chunks, want 1", len(chunks))
	}
	c, err := DecodeChunk(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := (JournalHeader{Counter: 5, Span: window(4, schemaA).Span, ReportTimes: ReportTimes{5, 6}, SchemaFingerprint: schemaA}); c.JournalHeader != want {
		t.Errorf("header is %+v, want %+v", c.JournalHeader, want)
	}
	var got []string
	for id, hash := range c.All() {
		got = append(got, fmt.Sprint(id == numberedID(1), hash))
	}
	if want := []string{"true 1", "true 2"}; !slices.Equal(got, want) {
		t.Errorf("entries are %v, want %v", got, want)
	}
}

func TestPendingIDs(t *testing.T) {
	p := NewSeen(0).Begin(window(0, schemaA))
	expect(t, p, 5, 1, New)
	expect(t, p, 6, 1, New)
	expect(t, p, 6, 1, Known)
	expect(t, p, 5, 2, Revised)
	if got, want := slices.Collect(p.IDs()), []cdr.ReportID{numberedID(5), numberedID(6), numberedID(5)}; !slices.Equal(got, want) {
		t.Errorf("IDs() yields %v, want %v", got, want)
	}
}

// naiveSeen is the set as its rules say it, with no thought of cost: a map, copied
// whole at each Begin.
type naiveSeen struct {
	entries   map[cdr.ReportID]naiveEntry
	snapshots []map[cdr.ReportID]naiveEntry
}

type naiveEntry struct {
	hash   uint64
	schema uint32
	end    cdr.Instant
}

func (n *naiveSeen) check(w Window, id cdr.ReportID, hash uint64) Verdict {
	end := (w.Span.EndExclusive + 3599) / 3600 * 3600
	e, found := n.entries[id]
	switch {
	case !found:
		n.entries[id] = naiveEntry{hash, w.SchemaFingerprint, end}
		return New
	case e.schema != w.SchemaFingerprint:
		n.entries[id] = naiveEntry{hash, w.SchemaFingerprint, e.end}
		return Known
	case e.hash == hash:
		return Known
	}
	n.entries[id] = naiveEntry{hash, w.SchemaFingerprint, max(e.end, end)}
	return Revised
}

// TestSeenModel runs random histories on the set and on the naive one: the same
// verdicts, and after every step the same content. What the journal holds rebuilds it.
func TestSeenModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

// model is one random history.
type model struct {
	t        *testing.T
	random   *rand.Rand
	seen     *Seen
	naive    naiveSeen
	pendings []*Pending
	log      [][]byte // the journal: what was adopted
	horizon  cdr.Instant
	windows  int
	schema   uint32
	ids      int // how many different ones there are

	schemaChanged bool
}

func runModel(t *testing.T, seed uint64) {
	m := &model{t: t, random: rand.New(rand.NewPCG(seed, 1)), seen: NewSeen(0), schema: schemaA, naive: naiveSeen{entries: map[cdr.ReportID]naiveEntry{}}}
	m.ids = 20 << m.random.IntN(9)
	for range 150 {
		switch m.random.IntN(10) {
		case 0, 1, 2, 3:
			m.fetch()
		case 4, 5, 6:
			m.adopt()
		case 7:
			m.discard()
		case 8:
			m.evict()
		case 9:
			if seed%2 == 0 && m.random.IntN(10) == 0 {
				m.schema ^= schemaA ^ schemaB
				m.schemaChanged = true
			}
		}
		m.compare(m.seen)
	}
	for len(m.pendings) > 0 {
		m.adopt()
	}
	m.rebuild()
}

func (m *model) fetch() {
	m.windows++
	n := m.windows
	if m.random.IntN(3) == 0 {
		n = max(m.random.IntN(m.windows), int(m.horizon-day)/600+1) // a sweep behind the young edge
	}
	w := window(n, m.schema)
	w.ID.Counter = cdr.Counter(m.windows)
	p := m.seen.Begin(w)
	m.naive.snapshots = append(m.naive.snapshots, maps.Clone(m.naive.entries))
	m.pendings = append(m.pendings, p)
	for range m.random.IntN(m.ids) {
		id, hash := numberedID(m.random.IntN(m.ids)), uint64(m.random.IntN(3))
		if got, want := p.Check(id, hash), m.naive.check(w, id, hash); got != want {
			m.t.Fatalf("window %s: Check(%s, %d) = %s, want %s", w.ID, id, hash, got, want)
		}
	}
}

func (m *model) adopt() {
	if len(m.pendings) == 0 {
		return
	}
	p := m.pendings[0]
	chunks := p.AppendJournal(nil, NoReportTimes)
	p.Adopt(int64(len(m.log)))
	m.log = append(m.log, chunks...)
	m.pendings = m.pendings[1:]
	m.naive.snapshots = m.naive.snapshots[1:]
}

func (m *model) discard() {
	if len(m.pendings) == 0 {
		return
	}
	i := m.random.IntN(len(m.pendings))
	m.pendings[i].Discard()
	m.naive.entries = m.naive.snapshots[i]
	m.pendings = m.pendings[:i]
	m.naive.snapshots = m.naive.snapshots[:i]
}

// evict comes with no window pending: what then becomes of those is a matter of cost,
// not of the rules.
func (m *model) evict() {
	for len(m.pendings) > 0 {
		m.adopt()
	}
	m.horizon = max(m.horizon, day.Add(time.Duration(m.random.IntN(m.windows+1))*10*time.Minute))
	m.seen.EvictBefore(m.horizon)
	maps.DeleteFunc(m.naive.entries, func(_ cdr.ReportID, e naiveEntry) bool { return e.end <= m.horizon })
}

// compare holds the content of a set against the naive one, and the inner order of the
// table against its rules.
func (m *model) compare(s *Seen) {
	m.t.Helper()
	if s.Len() != len(m.naive.entries) {
		m.t.Fatalf("the set has %d records, want %d", s.Len(), len(m.naive.entries))
	}
	for id, want := range m.naive.entries {
		at := s.table.find(&id)
		if !at.found {
			m.t.Fatalf("%s is missing", id)
		}
		e := s.table.at(at)
		g := s.generations[e.generation()]
		if got := (naiveEntry{e.hash(), g.schemaFingerprint, g.endExclusive}); got != want || !g.live {
			m.t.Fatalf("%s is %+v, want %+v", id, got, want)
		}
	}
	capacity := 0
	for i, bucket := range s.table.buckets {
		capacity += cap(bucket)
		for at := 0; at < len(bucket); at += slotBytes {
			if bucketOf(s.table.key(bucket[at:]), len(s.table.buckets)) != i {
				m.t.Fatalf("an entry lies in the wrong bucket")
			}
			if at > 0 && s.table.key(bucket[at-slotBytes:]) > s.table.key(bucket[at:]) {
				m.t.Fatalf("bucket %d is not sorted", i)
			}
		}
	}
	if capacity != s.table.bytes {
		m.t.Fatalf("the table counts %d bytes, and has %d", s.table.bytes, capacity)
	}
}

// rebuild loads the journal from JournalFrom on and wants the same set, but for what a
// change of schema rebased: that is not journalled.
func (m *model) rebuild() {
	back := NewSeen(int64(len(m.log)))
	back.EvictBefore(m.horizon)
	for offset := m.seen.JournalFrom(); offset < int64(len(m.log)); offset++ {
		c, err := DecodeChunk(m.log[offset])
		if err != nil {
			m.t.Fatal(err)
		}
		back.load(c, offset, time.Time{})
	}
	for id := range m.naive.entries {
		if at := back.table.find(&id); !at.found {
			m.t.Fatalf("%s is not rebuilt", id)
		}
	}
	if back.Len() != m.seen.Len() {
		m.t.Fatalf("%d are rebuilt, want %d", back.Len(), m.seen.Len())
	}
	if !m.schemaChanged {
		m.compare(back)
	}
}

// TestShrink: over its limit the set begins later, an hour at a time, but never later
// than it must hold, and a window of the time before is refused.
func TestShrink(t *testing.T) {
	s := NewSeen(0)
	for hour := range 10 {
		w := Window{ID: cdr.WindowID{Source: "acme", Counter: cdr.Counter(hour + 1)}, Span: cdr.Span{StartInclusive: day.Add(time.Duration(hour) * time.Hour), EndExclusive: day.Add(time.Duration(hour+1) * time.Hour)}}
		p := s.Begin(w)
		for i := range 1000 {
			p.Check(numberedID(hour*1000+i), 1)
		}
		p.Adopt(int64(hour))
	}
	all := s.Bytes()
	if !s.Shrink(all/2, day.Add(9*time.Hour)) || s.Bytes() > all/2 || s.Len()%1000 != 0 || s.Len() < 3000 {
		t.Errorf("shrunk to %d records, %d bytes of %d", s.Len(), s.Bytes(), all)
	}
	if from := s.JournalFrom(); s.Reach() != day.Add(time.Duration(from)*time.Hour) {
		t.Errorf("the set begins at %s, and its journal with window %d", s.Reach(), from)
	}
	if s.Shrink(1, day.Add(9*time.Hour)) || s.Reach() != day.Add(9*time.Hour) || s.Len() != 1000 {
		t.Errorf("the set begins at %s and holds %d records", s.Reach(), s.Len())
	}
	defer func() {
		if recover() == nil {
			t.Error("a window from before the set's beginning is checked against nothing")
		}
	}()
	s.Begin(Window{Span: cdr.Span{StartInclusive: day, EndExclusive: day.Add(time.Hour)}})
}
