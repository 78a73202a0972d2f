package offsets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// JournalIndex knows where in the ID journal of a shard the records of an older span
// of time lie, so that windows from before a set's beginning can be checked too:
//
//	Extend, then Pin for each part of the span, extended again before
//
// A window may return whatever an earlier window over the same time published. Of
// windows of cdr_feed their spans tell: both are of the time by which the feed
// selects. Of those of cdr_stream they do not, so records are looked for a day around
// their report times and their time of insertion: the longest that a call lasts, if
// the feed should select by its start.
type JournalIndex struct {
	topic     string
	partition int
	sources   map[string]bool // keys of the credential group
	span      cdr.Span
	next      int64 // offset to index from
	chunks    []indexedChunk
	// Unreadable counts the records of the sources that are no chunks. What they held
	// is not known: it may be published again, as the person accepted who let the
	// restore begin behind them.
	Unreadable int
}

// indexedChunk is one chunk that may matter, and what time it may matter for.
type indexedChunk struct {
	offset int64
	covers cdr.Span
}

const (
	// insertionMargin is how far from their report time and time of insertion cdr_feed
	// may return records that cdr_stream has returned.
	insertionMargin = 24 * time.Hour
	// journalMargin is by how much the brokers' clocks may be behind the feed's: a
	// record is committed after its time.
	journalMargin = 2 * time.Hour
	// neighbours is how many offsets are rather read in vain than left out by another
	// request.
	neighbours = 500
)

// NewJournalIndex returns an empty index for windows within a span, of the sources of
// one credential group.
func NewJournalIndex(topic string, partition int, sources []cdr.SourceName, span cdr.Span) *JournalIndex {
	x := &JournalIndex{topic: topic, partition: partition, sources: map[string]bool{}, span: span, next: -1}
	for _, s := range sources {
		x.sources[string(s)] = true
	}
	return x
}

// Extend takes in what was committed since it was last called, all of it: what is still
// on its way to committed readers is waited for. Reading takes time the first time: the
// whole journal since the span began.
func (x *JournalIndex) Extend(ctx context.Context, r Reader) error {
	if x.next < 0 {
		from, err := r.OffsetAt(ctx, x.topic, x.partition, x.span.StartInclusive.Time().Add(-journalMargin))
		if err != nil {
			return fmt.Errorf("index the ID journal: %w", err)
		}
		x.next = from
	}
	bounds, err := committed.AwaitStable(ctx, r, x.topic, x.partition)
	if err != nil {
		return fmt.Errorf("index the ID journal: %w", err)
	}
	x.next = max(x.next, bounds.LogStart)
	if x.next >= bounds.LastStable {
		return nil
	}
	next, _, err := r.Read(ctx, x.topic, x.partition, x.next, bounds.LastStable, func(record committed.Record) error {
		if !x.sources[string(record.Key)] {
			return nil
		}
		c, err := DecodeChunk(record.Value)
		if errors.Is(err, ErrUnreadableJournal) {
			x.Unreadable++
			return nil
		}
		if err != nil {
			return fmt.Errorf("offset %d: %w", record.Offset, err)
		}
		if covers := c.covers(); overlap(covers, x.span) {
			x.chunks = append(x.chunks, indexedChunk{record.Offset, covers})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index the ID journal %s-%d: %w", x.topic, x.partition, err)
	}
	x.next = next
	return nil
}

// covers is the time by which cdr_feed may return the records of a chunk.
func (c Chunk) covers() cdr.Span {
	if !c.ByInsertion {
		return cdr.Span{StartInclusive: c.Span.StartInclusive.Add(-edgeMargin), EndExclusive: c.Span.EndExclusive.Add(edgeMargin)}
	}
	covers := c.Span
	if t := c.ReportTimes; t.EarliestMillis <= t.LatestMillis {
		covers.StartInclusive = min(covers.StartInclusive, cdr.Instant(t.EarliestMillis/1000))
		covers.EndExclusive = max(covers.EndExclusive, cdr.Instant(t.LatestMillis/1000)+1)
	}
	return cdr.Span{StartInclusive: covers.StartInclusive.Add(-insertionMargin), EndExclusive: covers.EndExclusive.Add(insertionMargin)}
}

func overlap(a, b cdr.Span) bool {
	return a.StartInclusive < b.EndExclusive && b.StartInclusive < a.EndExclusive
}

// Pin loads into a set what was published of a span, in place of what was pinned
// before. No window may be pending in the set, and the index must have been extended
// since the last one was adopted.
func (x *JournalIndex) Pin(ctx context.Context, r Reader, s *Seen, span cdr.Span) error {
	s.Unpin()
	wanted := map[int64]bool{}
	var offsets []int64
	for _, c := range x.chunks {
		if overlap(c.covers, span) {
			wanted[c.offset] = true
			offsets = append(offsets, c.offset)
		}
	}
	s.pinned = span
	for len(offsets) > 0 {
		n := 1
		for n < len(offsets) && offsets[n]-offsets[n-1] <= neighbours {
			n++
		}
		if err := x.load(ctx, r, s, offsets[0], offsets[n-1]+1, wanted); err != nil {
			s.Unpin()
			return err
		}
		offsets = offsets[n:]
	}
	return nil
}

func (x *JournalIndex) load(ctx context.Context, r Reader, s *Seen, fromInclusive, untilExclusive int64, wanted map[int64]bool) error {
	_, _, err := r.Read(ctx, x.topic, x.partition, fromInclusive, untilExclusive, func(record committed.Record) error {
		if !wanted[record.Offset] {
			return nil
		}
		delete(wanted, record.Offset)
		c, err := DecodeChunk(record.Value)
		if err != nil {
			return fmt.Errorf("offset %d: %w", record.Offset, err)
		}
		s.loadPinned(c, record.Timestamp)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load published IDs from %s-%d: %w", x.topic, x.partition, err)
	}
	return nil
}
