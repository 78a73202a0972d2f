package coverage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// Ledger keeps the maps of the sources that somebody looks at, and reads on from where
// it was when they look again. It reads when it is asked and never else, one question
// at a time. It is safe for concurrent use.
type Ledger struct {
	open     func(ctx context.Context) (*Reader, error)
	placed   map[cdr.SourceName]int // shard of each source
	patience time.Duration

	turn   chan struct{} // holds one token: who has it may touch what follows
	reader *Reader       // nil: not opened yet
	pages  map[cdr.SourceName]*page
	asked  uint64 // questions so far

	mu      sync.Mutex
	reading cdr.SourceName // whose receipts are read just now
	share   atomic.Uint64  // how much of that is done, as the bits of a float
}

// page is one source of the ledger.
type page struct {
	m    *Map
	next int64  // offset to read on from
	used uint64 // the last question about it

	whole bool // the source was moved, and what lies in former shards is in the map
}

const (
	// KeptDays is how far back a ledger tells of, today included.
	KeptDays = 31
	// keptPages bounds the sources that a ledger remembers, a few hundred KiB each.
	keptPages = 24
	// keptReceipts bounds one answer with receipts.
	keptReceipts = 200
	// usualPatience is how long a question waits for its answer. What is read meanwhile
	// is kept, so that the next one finds it.
	usualPatience = 4 * time.Second
	// readLimit ends a read that nobody can be waiting for any more.
	readLimit = 5 * time.Minute
)

// ErrUnknownSource says that a ledger was asked for a source that it has not.
var ErrUnknownSource = errors.New("no such source")

// StillReading says that the receipts take longer to read than a question waits.
type StillReading struct {
	Source cdr.SourceName
	Share  float64 // of its receipts, 0 to 1
}

func (e *StillReading) Error() string {
	return fmt.Sprintf("still reading the receipts of source %s, %.0f %% done: ask again in a moment", e.Source, 100*e.Share)
}

// NewLedger returns a ledger of sources by their shards. It opens its reader at the
// first question.
func NewLedger(open func(ctx context.Context) (*Reader, error), placed map[cdr.SourceName]int) *Ledger {
	l := &Ledger{open: open, placed: placed, patience: usualPatience, turn: make(chan struct{}, 1), pages: map[cdr.SourceName]*page{}}
	l.turn <- struct{}{}
	return l
}

// Calendar is what a picture of one source shows.
type Calendar struct {
	Report
	Days []Day `json:"days"`
}

// Calendar tells of the last days of a source, today included.
func (l *Ledger) Calendar(ctx context.Context, source cdr.SourceName, days int, now time.Time) (Calendar, error) {
	if days < 1 || days > KeptDays {
		return Calendar{}, fmt.Errorf("%d days: want 1 to %d", days, KeptDays)
	}
	return ask(ctx, l, source, now, func(_ context.Context, p *page) (Calendar, error) {
		until := cdr.InstantOf(now)
		span := cdr.Span{StartInclusive: dayOf(until) - cdr.Instant(days-1)*secondsPerDay, EndExclusive: until}
		c := Calendar{Report: p.m.Report(source, span), Days: p.m.Calendar(days, until)}
		c.Stretches, c.Counts = nil, Counts{} // the hours tell
		return c, nil
	})
}

// Receipts returns the last receipts that tell of a span, the newest first, and how
// many more there are.
func (l *Ledger) Receipts(ctx context.Context, source cdr.SourceName, span cdr.Span, now time.Time) (Excerpt, error) {
	return ask(ctx, l, source, now, func(ctx context.Context, p *page) (Excerpt, error) {
		excerpt := Excerpt{Source: source, Span: span}
		if p.whole {
			all, _, err := l.reader.gather(ctx, l.placed[source], p.next, source, span.StartInclusive)
			for _, r := range all {
				if tellsOf(r, span) {
					excerpt.Add(r)
				}
			}
			return excerpt, err
		}
		from, until := p.m.offsets(span)
		wanted := func(key []byte) bool { return string(key) == string(source) }
		_, err := l.reader.Each(ctx, l.placed[source], from, until, wanted, nil, func(_ int64, _ cdr.SourceName, r *offsets.Receipt, broken error) error {
			if broken == nil && tellsOf(r, span) {
				excerpt.Add(r)
			}
			return nil
		})
		return excerpt, err
	})
}

// ask answers a question about a source whose receipts are read to the end first. Who
// loses patience gets a *StillReading, and the reading goes on without them.
func ask[Answer any](ctx context.Context, l *Ledger, source cdr.SourceName, now time.Time, answer func(context.Context, *page) (Answer, error)) (Answer, error) {
	var none Answer
	if _, known := l.placed[source]; !known {
		return none, fmt.Errorf("%w: %s", ErrUnknownSource, source)
	}
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	select {
	case <-ctx.Done():
		return none, l.stillReading(source)
	case <-l.turn:
	}
	type result struct {
		answer Answer
		err    error
	}
	results := make(chan result, 1)
	go func() {
		defer func() { l.turn <- struct{}{} }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readLimit)
		defer cancel()
		p, err := l.readOn(ctx, source, now)
		if err != nil {
			results <- result{err: err}
			return
		}
		a, err := answer(ctx, p)
		results <- result{a, err}
	}()
	select {
	case <-ctx.Done():
		return none, l.stillReading(source)
	case r := <-results:
		return r.answer, r.err
	}
}

// stillReading tells how far the read is that a question waits for.
func (l *Ledger) stillReading(source cdr.SourceName) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &StillReading{Source: source}
	if l.reading == source {
		e.Share = math.Float64frombits(l.share.Load())
	}
	return e
}

// readOn brings the map of a source to the end of its partition.
func (l *Ledger) readOn(ctx context.Context, source cdr.SourceName, now time.Time) (*page, error) {
	l.mu.Lock()
	l.reading = source
	l.share.Store(0)
	l.mu.Unlock()
	if l.reader == nil {
		reader, err := l.open(ctx)
		if err != nil {
			return nil, err
		}
		l.reader = reader
	}
	p, err := l.pageOf(ctx, source, now)
	if err != nil {
		return nil, err
	}
	progress := func(done, total int64) { l.share.Store(math.Float64bits(float64(done) / float64(total))) }
	from := p.next
	p.next, err = l.reader.Fold(ctx, l.placed[source], from, map[cdr.SourceName]*Map{source: p.m}, progress)
	if err == nil && p.m.moved && !p.whole {
		var whole *Map
		if whole, err = l.reader.refold(ctx, l.placed[source], p.next, source, p.m); err == nil {
			p.m, p.whole = whole, true
		}
	}
	var gone *committed.OutOfRangeError
	if errors.As(err, &gone) { // the topic was made anew, or its retention was faster than we
		delete(l.pages, source)
	}
	return p, err
}

// pageOf returns the page of a source with its view moved to now. A new one takes the
// place of the one that nobody has asked for the longest.
func (l *Ledger) pageOf(ctx context.Context, source cdr.SourceName, now time.Time) (*page, error) {
	today := dayOf(cdr.InstantOf(now))
	view := cdr.Span{StartInclusive: today - (KeptDays-1)*secondsPerDay, EndExclusive: today + 2*secondsPerDay}
	l.asked++
	if p := l.pages[source]; p != nil {
		p.m.Roll(view)
		p.used = l.asked
		return p, nil
	}
	p := &page{m: NewMap(view), used: l.asked}
	var err error
	if p.next, err = l.reader.OffsetFor(ctx, l.placed[source], view.StartInclusive); err != nil {
		return nil, err
	}
	if err := l.reader.Last(ctx, l.placed[source], p.next, map[cdr.SourceName]*Map{source: p.m}, nil); err != nil {
		return nil, err
	}
	if len(l.pages) >= keptPages {
		delete(l.pages, l.leastAsked())
	}
	l.pages[source] = p
	return p, nil
}

func (l *Ledger) leastAsked() (source cdr.SourceName) {
	least := uint64(math.MaxUint64)
	for name, p := range l.pages {
		if p.used < least {
			source, least = name, p.used
		}
	}
	return source
}

// offsets are those between which the receipts lie that tell of a span.
func (m *Map) offsets(span cdr.Span) (from, untilExclusive int64) {
	from = math.MaxInt64
	for hour := hourOf(span.StartInclusive); hour < span.EndExclusive; hour += secondsPerHour {
		if h := m.hours[hour]; h != nil {
			from, untilExclusive = min(from, h.firstOffset), max(untilExclusive, h.lastOffset+1)
		}
	}
	return min(from, untilExclusive), untilExclusive
}

func tellsOf(r *offsets.Receipt, span cdr.Span) bool {
	for _, told := range []cdr.Span{r.Asked, r.Gap} {
		if told.StartInclusive < span.EndExclusive && span.StartInclusive < told.EndExclusive {
			return true
		}
	}
	return false
}

// Excerpt is some of the receipts of a source.
type Excerpt struct {
	Source   cdr.SourceName `json:"source"`
	Span     cdr.Span       `json:"span"`
	Receipts []Entry        `json:"receipts"`          // the newest first
	LeftOut  int64          `json:"leftOut,omitempty"` // older ones
}

// Entry is what a picture shows of a receipt.
type Entry struct {
	Counter     cdr.Counter  `json:"counter"`
	Purpose     cdr.Purpose  `json:"purpose"`
	Endpoint    cdr.Endpoint `json:"endpoint"`
	Asked       cdr.Span     `json:"asked,omitzero"`
	Gap         cdr.Span     `json:"gap,omitzero"`
	Pages       int64        `json:"pages"`
	TotalCount  int64        `json:"totalCount"` // -1: the feed did not say
	Items       int64        `json:"items"`
	Published   int64        `json:"published"`
	Known       int64        `json:"known,omitempty"`
	Late        int64        `json:"late,omitempty"`
	Revised     int64        `json:"revised,omitempty"`
	DeadLetters int64        `json:"deadLetters,omitempty"`
	Unproven    string       `json:"unproven,omitempty"`
	Committed   time.Time    `json:"committedAt"`
}

// Add puts a receipt in front of those before it.
func (e *Excerpt) Add(r *offsets.Receipt) {
	e.Receipts = append([]Entry{{
		Counter: r.Counter, Purpose: r.Purpose, Endpoint: r.Endpoint, Asked: r.Asked, Gap: r.Gap,
		Pages: r.Pages, TotalCount: r.TotalCount, Items: r.Items, Published: r.Published, Known: r.AlreadyKnown,
		Late: r.Late, Revised: r.Revised, DeadLetters: r.DeadLetters, Unproven: r.Unproven, Committed: r.CommitTime,
	}}, e.Receipts...)
	if len(e.Receipts) > keptReceipts {
		e.Receipts = e.Receipts[:keptReceipts]
		e.LeftOut++
	}
}
