package offsets

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"cdrbus/internal/cdr"
)

// Seen is the exact set of the records that one credential group has published:
// the identity of each, the hash of its content, and the schema that the hash
// belongs to. The lane of the group owns it; nothing in it is locked.
//
// A window's records enter through a Pending. They count at once for every later
// window, and leave again if the window's commit fails:
//
//	Begin -> Check, Check, ... -> (commit) -> Adopt or Discard
//
// Memory: about 29 bytes a record, see Bytes, and 24 more for those pending.
//
// Entries belong to generations of an hour by the end of the window that published
// them; EvictBefore drops whole generations. All generations share one table, because
// a lookup then costs the same however far back the set reaches.
type Seen struct {
	table       table
	generations []generation // by number; freed numbers are used again
	numbers     map[generationKey]uint16
	freed       []uint16
	pendings    []*Pending // oldest first
	// journalNext is a lower bound of the offset of every adoption to come.
	journalNext int64
	// reach is where the set begins: it holds every record that a window of any time
	// from there on may return, and of earlier ones those of pinned.
	reach  cdr.Instant
	pinned cdr.Span
}

// generationKey says which entries are dropped together, and which hashes can be
// compared.
type generationKey struct {
	endExclusive      cdr.Instant // of its latest windows, a whole hour
	schemaFingerprint uint32
}

type generation struct {
	generationKey
	live        bool
	journalFrom int64 // no entry lies before it in the ID journal; noOffset: none is adopted
}

const (
	generationSeconds = 3600
	noOffset          = math.MaxInt64
	// edgeMargin is how far beyond its span a window may return records: a feed may take
	// its end to be inclusive, so that the window behind it returns them again.
	edgeMargin = time.Minute
)

// NewSeen returns an empty set. Whatever is adopted later lies at journalNext or
// beyond in the ID journal.
func NewSeen(journalNext int64) *Seen {
	return &Seen{table: newTable(), numbers: map[generationKey]uint16{}, journalNext: journalNext}
}

// Verdict says what a record is to the set.
type Verdict uint8

const (
	// Known: this content of this ID is published, or pending. Leave it out. So is
	// content that cannot be compared, because another schema hashed what the set
	// holds; from then on it can.
	Known Verdict = iota
	// New: the ID was never published.
	New
	// Revised: the ID was published with other content under the same schema.
	Revised
)

func (v Verdict) String() string {
	switch v {
	case Known:
		return "known"
	case New:
		return "new"
	case Revised:
		return "revised"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Window is what the set has to know of a window.
type Window struct {
	ID                cdr.WindowID
	Span              cdr.Span // as asked
	SchemaFingerprint uint32   // of the schema that its hashes belong to

	// ByInsertion: Span is of the time at which records were inserted, not of that
	// by which cdr_feed selects.
	ByInsertion bool
	// AsOf is when the window is read, where its records may be met again by the time
	// at which they came, rather than by their own: then they live as long as those
	// of a window that ends then. Unset otherwise.
	AsOf cdr.Instant
}

// Pending holds what one window adds to the set until its commit is definite.
type Pending struct {
	seen       *Seen
	window     Window
	generation uint16
	state      pendingState
	entries    []byte     // New and Revised, in order, as the journal writes them
	revised    []int      // which of them are Revised, ascending
	replaced   []replaced // what to put back, latest last
}

type pendingState uint8

const (
	open pendingState = iota
	adopted
	discarded
)

// replaced is an entry as it was before a pending changed it.
type replaced struct {
	id   cdr.ReportID
	hash uint64
	generationKey
}

// Begin opens the pending of the next window. Windows are begun, checked and adopted
// in the order of their commits. It panics if the set does not hold what the window
// may return (see [Seen.Covers]): unchecked, it would be published twice.
func (s *Seen) Begin(w Window) *Pending {
	if !s.Covers(w.Span) {
		panic(fmt.Sprintf("offsets: window %s of %s begins before the set of published IDs, %s, and is not pinned (%s)", w.ID, w.Span, s.reach, s.pinned))
	}
	p := &Pending{seen: s, window: w, generation: s.generation(w.generation())}
	s.pendings = append(s.pendings, p)
	return p
}

// Covers reports whether the set holds whatever a window over a span may return of
// what is published already, at its very edges too.
func (s *Seen) Covers(span cdr.Span) bool {
	return span.StartInclusive.Add(-edgeMargin) >= s.reach || s.pinned.StartInclusive <= span.StartInclusive && span.EndExclusive <= s.pinned.EndExclusive
}

// Reach is where the set begins. Windows that begin earlier need a [JournalIndex].
func (s *Seen) Reach() cdr.Instant { return s.reach }

// Unpin forgets what was loaded for windows before the set's beginning. No such
// window may be pending.
func (s *Seen) Unpin() {
	if s.pinned.IsZero() {
		return
	}
	s.pinned = cdr.Span{}
	s.EvictBefore(s.reach)
}

// generation rounds the end of the window up to a whole hour.
func (w Window) generation() generationKey {
	hours := (max(w.Span.EndExclusive, w.AsOf) + generationSeconds - 1) / generationSeconds
	return generationKey{hours * generationSeconds, w.SchemaFingerprint}
}

// generation returns the number of a generation, which begins to live if it did not.
func (s *Seen) generation(key generationKey) uint16 {
	number, ok := s.numbers[key]
	if ok {
		return number
	}
	fresh := generation{generationKey: key, live: true, journalFrom: noOffset}
	if last := len(s.freed) - 1; last >= 0 {
		number = s.freed[last]
		s.freed = s.freed[:last]
		s.generations[number] = fresh
	} else {
		if len(s.generations) > math.MaxUint16 {
			panic("offsets: the set reaches over more than 65536 hours; evict")
		}
		number = uint16(len(s.generations))
		s.generations = append(s.generations, fresh)
	}
	s.numbers[key] = number
	return number
}

// Check says what a record is to the set, and takes it in as pending if it is New or
// Revised. Only the pending that was begun last may check.
func (p *Pending) Check(id cdr.ReportID, hash uint64) Verdict {
	s := p.seen
	if p.state != open || s.pendings[len(s.pendings)-1] != p {
		panic(fmt.Sprintf("offsets: window %s is not the one begun last, or has ended", p.window.ID))
	}
	at := s.table.find(&id)
	if !at.found {
		s.table.insert(at, &id, hash, p.generation)
		p.entries = appendEntry(p.entries, id, hash)
		return New
	}
	entry := s.table.at(at)
	old := &s.generations[entry.generation()]
	switch {
	case old.schemaFingerprint != p.window.SchemaFingerprint:
		p.rebase(id, entry, hash)
		return Known
	case entry.hash() == hash:
		return Known
	}
	p.replaced = append(p.replaced, replaced{id, entry.hash(), old.generationKey})
	p.revised = append(p.revised, len(p.entries)/entryBytes)
	p.entries = appendEntry(p.entries, id, hash)
	s.revise(entry, hash, p.window.generation())
	return Revised
}

// rebase gives an entry the hash that its content has under the window's schema, so
// that the next revision of it is noticed. It is not journalled: after a restart the
// old hash is rebased again. Until then the old generation, which ends with the new
// one, remembers where the journal has the entry.
func (p *Pending) rebase(id cdr.ReportID, entry slot, hash uint64) {
	s := p.seen
	old := s.generations[entry.generation()].generationKey
	p.replaced = append(p.replaced, replaced{id, entry.hash(), old})
	entry.set(hash, s.generation(generationKey{old.endExclusive, p.window.SchemaFingerprint}))
}

// revise gives an entry new content and returns its generation. It lives as long as
// the later of both generations: a revision may have moved the record in time.
func (s *Seen) revise(entry slot, hash uint64, newer generationKey) uint16 {
	older := s.generations[entry.generation()]
	newer.endExclusive = max(newer.endExclusive, older.endExclusive)
	number := s.generation(newer)
	entry.set(hash, number)
	return number
}

// Len returns how many records the window adds to the set or revises in it.
func (p *Pending) Len() int { return len(p.entries) / entryBytes }

// IDs yields the records that the window adds or revises, in order. One that it
// adds and then revises comes twice.
func (p *Pending) IDs() iter.Seq[cdr.ReportID] {
	return func(yield func(cdr.ReportID) bool) {
		for e := p.entries; len(e) > 0; e = e[entryBytes:] {
			if !yield(cdr.ReportID(e[:len(cdr.ReportID{})])) {
				return
			}
		}
	}
}

// AppendJournal appends the ID journal of the window to dst: values for the ids
// topic, in order, keyed by the source's name. There is none if the window adds
// nothing. Buffers within dst's capacity are used again.
func (p *Pending) AppendJournal(dst [][]byte, times ReportTimes) [][]byte {
	return appendChunks(dst, JournalHeader{
		Counter:           p.window.ID.Counter,
		Span:              p.window.Span,
		ReportTimes:       times,
		SchemaFingerprint: p.window.SchemaFingerprint,
		ByInsertion:       p.window.ByInsertion,
		AsOfCommit:        !p.window.AsOf.IsZero(),
	}, p.entries)
}

// Adopt makes the window's records a part of the set for good: its commit is
// definite. journalOffset is the offset of its first journal record, or any lower
// one that lies behind all commits before it; without records it does not count. It
// panics unless the window is the oldest one pending.
func (p *Pending) Adopt(journalOffset int64) {
	s := p.seen
	if p.state != open || s.pendings[0] != p {
		panic(fmt.Sprintf("offsets: window %s is adopted twice, after its end, or before an older one", p.window.ID))
	}
	if len(p.entries) > 0 {
		if journalOffset < 0 {
			panic(fmt.Sprintf("offsets: window %s is adopted at offset %d", p.window.ID, journalOffset))
		}
		s.journalled(p.generation, journalOffset)
		s.journalNext = max(s.journalNext, journalOffset)
	}
	s.pendings = slices.Delete(s.pendings, 0, 1)
	p.end(adopted)
}

// Discard takes the window's records out of the set, and before them those of every
// window that was begun later and checked against them: its commit did not happen.
// A window that was discarded with an older one may be discarded once more.
func (p *Pending) Discard() {
	s := p.seen
	switch p.state {
	case adopted:
		panic(fmt.Sprintf("offsets: window %s is discarded after it was adopted", p.window.ID))
	case discarded:
		return
	}
	for p.state == open {
		last := len(s.pendings) - 1
		s.pendings[last].undo()
		s.pendings[last].end(discarded)
		s.pendings = s.pendings[:last]
	}
}

func (p *Pending) end(s pendingState) {
	p.state, p.entries, p.revised, p.replaced = s, nil, nil, nil
}

// undo puts the set back to what it was when the pending began. What was evicted
// since stays away.
func (p *Pending) undo() {
	s := p.seen
	for _, r := range slices.Backward(p.replaced) {
		at := s.table.find(&r.id)
		if !at.found {
			continue
		}
		if number, live := s.numbers[r.generationKey]; live {
			s.table.at(at).set(r.hash, number)
		} else {
			s.table.remove(at)
		}
	}
	revised := p.revised
	for i := range p.Len() {
		if len(revised) > 0 && revised[0] == i {
			revised = revised[1:]
			continue
		}
		id := cdr.ReportID(p.entries[i*entryBytes:])
		if at := s.table.find(&id); at.found {
			s.table.remove(at)
		}
	}
}

// load takes in one committed chunk of the ID journal, in the order of the journal. A
// chunk of a generation that ends before the set begins adds nothing, but still
// revises what it finds.
func (s *Seen) load(c Chunk, offset int64, committed time.Time) {
	key := c.generation(committed)
	keep := key.endExclusive > s.reach
	var number uint16
	if keep {
		number = s.generation(key)
		s.journalled(number, offset)
	}
	for id, hash := range c.All() {
		at := s.table.find(&id)
		switch {
		case at.found:
			s.journalled(s.revise(s.table.at(at), hash, key), offset)
		case keep:
			s.table.insert(at, &id, hash, number)
		}
	}
	s.journalNext = max(s.journalNext, offset)
}

// loadPinned takes in a chunk for windows that are pinned, in the order of the journal.
// What the set has of its own accord, which ends behind its beginning, is as new as
// that, or newer.
func (s *Seen) loadPinned(c Chunk, committed time.Time) {
	key := c.generation(committed)
	key.endExclusive = min(key.endExclusive, s.reach)
	number := s.generation(key)
	for id, hash := range c.All() {
		at := s.table.find(&id)
		switch {
		case !at.found:
			s.table.insert(at, &id, hash, number)
		case s.generations[s.table.at(at).generation()].endExclusive <= s.reach:
			s.table.at(at).set(hash, number)
		}
	}
}

// generation is where the records of a chunk belong.
func (c Chunk) generation(committed time.Time) generationKey {
	w := Window{Span: c.Span, SchemaFingerprint: c.SchemaFingerprint}
	if c.AsOfCommit {
		w.AsOf = cdr.InstantOf(committed)
	}
	return w.generation()
}

// journalled notes that the ID journal holds entries of a generation at offset.
func (s *Seen) journalled(number uint16, offset int64) {
	g := &s.generations[number]
	g.journalFrom = min(g.journalFrom, offset)
}

// EvictBefore lets the set begin at horizon, and forgets the records of all
// generations that end there or before: no window that starts earlier may be fetched
// again without loading its IDs from the journal. A generation that a pending window
// belongs to stays until the next call, one that pinned windows may meet until Unpin.
func (s *Seen) EvictBefore(horizon cdr.Instant) {
	s.reach = max(s.reach, horizon)
	dead := make([]bool, len(s.generations))
	for number, g := range s.generations {
		pending := slices.ContainsFunc(s.pendings, func(p *Pending) bool { return int(p.generation) == number })
		pinned := !s.pinned.IsZero() && g.endExclusive.Add(edgeMargin) > s.pinned.StartInclusive
		if g.live && !pinned && !pending && g.endExclusive <= s.reach {
			dead[number] = true
			delete(s.numbers, g.generationKey)
			s.freed = append(s.freed, uint16(number))
			s.generations[number] = generation{}
		}
	}
	if slices.Contains(dead, true) {
		s.table.evict(dead)
	}
}

// Shrink lets the set begin later, until it takes no more than limitBytes or begins at
// latest, an hour at a time, and reports whether it does. Whatever lies before is
// still on record in the ID journal, from which windows of that time load it.
func (s *Seen) Shrink(limitBytes int64, latest cdr.Instant) bool {
	for s.Bytes() > limitBytes {
		oldest := cdr.Instant(math.MaxInt64)
		for _, g := range s.generations {
			if g.live && g.endExclusive > s.reach { // else it is pending, or pinned
				oldest = min(oldest, g.endExclusive)
			}
		}
		if oldest > latest {
			return false
		}
		s.EvictBefore(oldest)
	}
	return true
}

// Len returns the number of records in the set, pending ones included.
func (s *Seen) Len() int { return s.table.count }

// Bytes returns the memory that the set holds, all counted.
func (s *Seen) Bytes() int64 {
	const (
		bucketHeader    = 24
		generationBytes = 32 + 2*(16+2) // in the list and, with the map's slack, in the map
		replacedBytes   = 40
	)
	n := s.table.bytes + bucketHeader*cap(s.table.buckets) + generationBytes*cap(s.generations)
	for _, p := range s.pendings {
		n += cap(p.entries) + 8*cap(p.revised) + replacedBytes*cap(p.replaced)
	}
	return int64(n)
}

// JournalFrom returns the offset in the ID journal from which the set is rebuilt, as
// far as its adopted windows go, without those that end before it begins. The
// position of the next commit carries it.
func (s *Seen) JournalFrom() int64 {
	from := int64(noOffset)
	for _, g := range s.generations {
		if g.live && g.endExclusive > s.reach {
			from = min(from, g.journalFrom)
		}
	}
	if from == noOffset {
		return s.journalNext
	}
	return from
}
