package coverage

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/offsets"
)

// Map is what the receipts of one source tell about a view of report time. It takes
// memory for the stretches that differ, not for the receipts.
type Map struct {
	view   cdr.Span              // nothing outside is kept
	pieces []piece               // in order, none of them unread; those that touch have different readings
	edited []piece               // reused by splice
	hours  map[cdr.Instant]*Hour // nil: nobody wants a calendar
	totals Counts
	last   watermarks
	began  cdr.Instant // of the source, if its first receipt was seen

	moved       bool  // the source was in another shard before
	undecodable int64 // records of the source that are no receipts
}

// piece is a span of one reading.
type piece struct {
	span        cdr.Span
	reading     reading
	reason      string // the last one
	first, last cdr.Counter
}

// reading is what is known of an instant from the receipts alone, before a watermark
// says more.
type reading uint8

const (
	unread   reading = iota
	streamed         // by cdr_stream only
	lost
	unproven
	proven
	lapsed  // proven, and then out of the feed's reach before the widest sweep came
	doubted // proven, and read once more since by a window that proved nothing
)

// watermarks are those of the last receipt.
type watermarks struct {
	feedPublished, feedSettled, streamPublished cdr.Instant
	committed                                   time.Time
	counter                                     cdr.Counter
}

// published is the live edge.
func (w watermarks) published() cdr.Instant { return max(w.feedPublished, w.streamPublished) }

// NewMap returns the map of a source without receipts. The view must be valid.
func NewMap(view cdr.Span) *Map {
	return &Map{view: view, hours: map[cdr.Instant]*Hour{}}
}

// newSurvey is a NewMap that has no calendar: a view of years, of a thousand sources,
// has millions of hours.
func newSurvey(view cdr.Span) *Map { return &Map{view: view} }

// latest ends the times that a receipt can mean, with the year 9999.
const latest cdr.Instant = 253402300800

// sane returns a span if it is one, and nothing for one that is unset or cannot be.
func sane(s cdr.Span) cdr.Span {
	if s.StartInclusive <= 0 || s.EndExclusive > latest || s.EndExclusive <= s.StartInclusive {
		return cdr.Span{}
	}
	return s
}

// Add takes in the next receipt, which lies at an offset of its partition.
func (m *Map) Add(r *offsets.Receipt, offset int64) {
	for _, skipped := range skippedBy(r, m.last.feedSettled) {
		if skipped = m.clip(skipped); !skipped.IsZero() {
			m.apply(skipped, r.Counter, toLapsed, "")
		}
	}
	m.resume(r)
	read, gone := m.clip(r.Asked), m.clip(r.Gap)
	if !read.IsZero() {
		m.apply(read, r.Counter, transitionOf(r), r.Unproven)
		m.countHours(read, r, offset)
	}
	if !gone.IsZero() {
		m.apply(gone, r.Counter, toLost, strings.TrimPrefix(r.Unproven, "gap: "))
		m.countHours(gone, r, offset)
	}
	if !read.IsZero() || !gone.IsZero() {
		m.totals.add(r)
	}
}

// resume takes over the watermarks of a receipt.
func (m *Map) resume(r *offsets.Receipt) {
	m.moved = m.moved || m.last.comesFromElsewhere(r)
	m.last = watermarks{r.FeedPublished, r.FeedSettled, r.StreamPublished, r.CommitTime, r.Counter}
	if r.Purpose == cdr.Start {
		m.began = r.FeedPublished
	}
}

// skippedBy returns what a receipt has settled without reading it: the watermark has
// passed over what the feed no longer answers for. No sweep has been there.
func skippedBy(r *offsets.Receipt, settledBefore cdr.Instant) []cdr.Span {
	if settledBefore.IsZero() || r.FeedSettled <= settledBefore {
		return nil
	}
	passed := cdr.Span{StartInclusive: settledBefore, EndExclusive: r.FeedSettled}
	read := sane(r.Asked)
	if r.Endpoint != cdr.Feed || read.IsZero() {
		return []cdr.Span{passed}
	}
	return []cdr.Span{
		{StartInclusive: passed.StartInclusive, EndExclusive: min(passed.EndExclusive, read.StartInclusive)},
		{StartInclusive: max(passed.StartInclusive, read.EndExclusive), EndExclusive: passed.EndExclusive},
	}
}

// transition says what a receipt makes of what was known before.
type transition func(before reading) reading

// transitionOf a window that was read. One of cdr_stream proves nothing about report
// time, and so changes nothing that cdr_feed has told.
func transitionOf(r *offsets.Receipt) transition {
	switch {
	case r.Endpoint != cdr.Feed:
		return toStreamed
	case r.Proven():
		return toProven
	default:
		return toUnproven
	}
}

func toStreamed(before reading) reading { return max(before, streamed) }
func toLost(reading) reading            { return lost }
func toProven(reading) reading          { return proven }

// toUnproven keeps what was proven: those records are there. But what the later window
// should have found in addition may be missing.
func toUnproven(before reading) reading {
	if before >= proven {
		return doubted
	}
	return unproven
}

func toLapsed(before reading) reading {
	if before == proven {
		return lapsed
	}
	return before
}

// clip returns the part of a span that lies in view, if it has one.
func (m *Map) clip(s cdr.Span) cdr.Span {
	s = sane(s)
	s.StartInclusive, s.EndExclusive = max(s.StartInclusive, m.view.StartInclusive), min(s.EndExclusive, m.view.EndExclusive)
	return sane(s)
}

// apply changes the readings of a span.
func (m *Map) apply(span cdr.Span, counter cdr.Counter, to transition, reason string) {
	first := sort.Search(len(m.pieces), func(i int) bool { return m.pieces[i].span.EndExclusive >= span.StartInclusive })
	m.edited = m.edited[:0]
	next, at := first, span.StartInclusive
	for ; next < len(m.pieces) && m.pieces[next].span.StartInclusive <= span.EndExclusive; next++ {
		p := m.pieces[next]
		m.edit(p.within(cdr.Span{StartInclusive: p.span.StartInclusive, EndExclusive: span.StartInclusive}))
		m.edit(piece{span: cdr.Span{StartInclusive: at, EndExclusive: p.span.StartInclusive}}.turned(counter, to, reason))
		m.edit(p.within(span).turned(counter, to, reason))
		m.edit(p.within(cdr.Span{StartInclusive: span.EndExclusive, EndExclusive: p.span.EndExclusive}))
		at = max(at, min(p.span.EndExclusive, span.EndExclusive))
	}
	m.edit(piece{span: cdr.Span{StartInclusive: at, EndExclusive: span.EndExclusive}}.turned(counter, to, reason))
	m.pieces = slices.Replace(m.pieces, first, next, m.edited...)
}

// within returns the part of a piece that lies in a span; it may be none.
func (p piece) within(s cdr.Span) piece {
	p.span.StartInclusive = max(p.span.StartInclusive, s.StartInclusive)
	p.span.EndExclusive = min(p.span.EndExclusive, s.EndExclusive)
	return p
}

// turned returns the piece as a receipt leaves it.
func (p piece) turned(counter cdr.Counter, to transition, reason string) piece {
	before := p.reading
	p.reading = to(before)
	if p.reading != before {
		p.reason = ""
	}
	if p.reading == unproven || p.reading == doubted || p.reading == lost {
		p.reason = keptReason(reason, p.reason)
	}
	p.count(counter, counter)
	return p
}

// keptReason is the later of two reasons, if it says anything.
func keptReason(later, earlier string) string {
	if later != "" {
		return later
	}
	return earlier
}

// edit appends a piece to what will replace others, and merges it with the one before
// if they cannot be told apart. Nothing becomes of an empty one, or one that is unread.
func (m *Map) edit(p piece) {
	if p.span.StartInclusive >= p.span.EndExclusive || p.reading == unread {
		return
	}
	if n := len(m.edited); n > 0 && m.edited[n-1].joins(p) {
		m.edited[n-1].join(p)
		return
	}
	m.edited = append(m.edited, p)
}

// joins reports whether p goes on where the piece ends, with nothing new.
func (p *piece) joins(next piece) bool {
	return p.span.EndExclusive == next.span.StartInclusive && p.reading == next.reading
}

// join takes the next piece in.
func (p *piece) join(next piece) {
	p.span.EndExclusive = next.span.EndExclusive
	if next.last >= p.last {
		p.reason = keptReason(next.reason, p.reason)
	} else {
		p.reason = keptReason(p.reason, next.reason)
	}
	p.count(next.first, next.last)
}

// count widens the range of counters that told of the piece; 0 is none.
func (p *piece) count(first, last cdr.Counter) {
	if p.first == 0 || first != 0 && first < p.first {
		p.first = first
	}
	p.last = max(p.last, last)
}

// Roll moves the view on, and forgets what has left it. A view never goes back.
func (m *Map) Roll(view cdr.Span) {
	m.view = view
	gone := sort.Search(len(m.pieces), func(i int) bool { return m.pieces[i].span.EndExclusive > view.StartInclusive })
	m.pieces = slices.Delete(m.pieces, 0, gone)
	if len(m.pieces) > 0 {
		m.pieces[0] = m.pieces[0].within(view)
	}
	for hour := range m.hours {
		if hour+secondsPerHour <= view.StartInclusive {
			delete(m.hours, hour)
		}
	}
}

// Stretches returns the whole of a span within the view, in order; each differs from
// the next.
func (m *Map) Stretches(span cdr.Span) []Stretch {
	span = m.clip(span)
	var out []Stretch
	add := func(p piece, state State) { out = appendStretch(out, p.within(span), state) }
	at := span.StartInclusive
	first := sort.Search(len(m.pieces), func(i int) bool { return m.pieces[i].span.EndExclusive > span.StartInclusive })
	for _, p := range m.pieces[first:] {
		if p.span.StartInclusive >= span.EndExclusive {
			break
		}
		m.untold(cdr.Span{StartInclusive: at, EndExclusive: p.span.StartInclusive}, add)
		m.told(p, add)
		at = p.span.EndExclusive
	}
	m.untold(cdr.Span{StartInclusive: at, EndExclusive: span.EndExclusive}, add)
	return out
}

// told names the state of a piece, which is settled up to the watermark.
func (m *Map) told(p piece, add func(piece, State)) {
	switch p.reading {
	case lost:
		p.reason = cmp.Or(p.reason, "the feed could no longer return it") + ": what it held is lost"
		add(p, Gap)
	case unproven:
		add(p, Unproven)
	case streamed:
		add(p, Published)
	case lapsed:
		p.reason = "out of the feed's reach before the widest sweep came: what appeared late is lost"
		add(p, Proven)
	case doubted:
		p.reason = "read again since, by a window that is not proven: " + p.reason
		add(p, Proven)
	case proven:
		settled := m.last.feedSettled
		add(p.within(cdr.Span{StartInclusive: p.span.StartInclusive, EndExclusive: settled}), Settled)
		add(p.within(cdr.Span{StartInclusive: settled, EndExclusive: p.span.EndExclusive}), Proven)
	}
}

// untold is a span of which no receipt tells. What cdr_feed has still to read, but
// lies before the live edge, was published by cdr_stream.
func (m *Map) untold(s cdr.Span, add func(piece, State)) {
	feed, edge := m.last.feedPublished, m.last.published()
	add(piece{span: s}.within(cdr.Span{StartInclusive: s.StartInclusive, EndExclusive: min(feed, edge)}), Unread)
	add(piece{span: s}.within(cdr.Span{StartInclusive: feed, EndExclusive: edge}), Published)
	add(piece{span: s}.within(cdr.Span{StartInclusive: max(feed, edge), EndExclusive: s.EndExclusive}), Unread)
}

func appendStretch(out []Stretch, p piece, state State) []Stretch {
	if p.span.StartInclusive >= p.span.EndExclusive {
		return out
	}
	if n := len(out); n > 0 && out[n-1].State == state && out[n-1].Span.EndExclusive == p.span.StartInclusive {
		last := &out[n-1]
		before := piece{span: last.Span, reason: last.Reason, first: last.FirstCounter, last: last.LastCounter}
		before.join(p)
		last.Span, last.Reason, last.FirstCounter, last.LastCounter = before.span, before.reason, before.first, before.last
		last.Seconds = secondsOf(last.Span)
		return out
	}
	return append(out, Stretch{State: state, Span: p.span, Seconds: secondsOf(p.span), Reason: p.reason, FirstCounter: p.first, LastCounter: p.last})
}

func secondsOf(s cdr.Span) int64 { return int64(s.EndExclusive - s.StartInclusive) }
