package positions

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/offsets"
)

// evidence is all that a shard's partitions tell of one source.
type evidence struct {
	source  *config.Source
	expect  offsets.Expectation
	options offsets.RestoreOptions // of the shard, expecting this source alone

	state    offsets.SourceState // what a restore says of its position
	last     *offsets.Position   // the last that can be read, whatever a restore says; nil: none
	lastAt   time.Time           // when that was committed
	counter  cdr.Counter         // the highest that anything speaks of
	prefixes []string            // other than the configured one, under which positions were committed
	receipts receiptFacts
	journal  journalFacts
}

// receiptFacts is what receipts tell of a source.
type receiptFacts struct {
	last       *offsets.Receipt
	start      cdr.Instant // where the source began; unset: that receipt is gone
	lowest     cdr.Instant // the least that was ever published to
	gap        cdr.Span    // the latest
	windows    []readWindow
	unreadable int
}

// readWindow is a window that was asked for.
type readWindow struct {
	span    cdr.Span
	records int64
}

// journalFacts is what the ID journal tells of a source.
type journalFacts struct {
	bounds  committed.Bounds
	reset   int64 // where it must count from if the source goes back to the time of the edit
	chunks  []chunk
	refusal *offsets.Refusal    // of what the present position makes of it
	cut     *offsets.JournalCut // the same
}

type chunk struct {
	offset int64
	ids    int
}

// idsBetween counts the IDs of [fromInclusive, untilExclusive).
func (j *journalFacts) idsBetween(fromInclusive, untilExclusive int64) (ids int64) {
	for _, c := range j.chunks {
		if fromInclusive <= c.offset && c.offset < untilExclusive {
			ids += int64(c.ids)
		}
	}
	return ids
}

// within counts the windows that reach into a span, and their records.
func (f *receiptFacts) within(span cdr.Span) (windows, records int64) {
	for _, w := range f.windows {
		if w.span.StartInclusive < span.EndExclusive && span.StartInclusive < w.span.EndExclusive {
			windows++
			records += w.records
		}
	}
	return windows, records
}

// look reads what a shard tells of a source, as far as an edit needs it; none is the
// zero value.
func (l *Log) look(ctx context.Context, r offsets.Reader, source *config.Source, shard int, edit offsets.Edit) (*evidence, error) {
	e := &evidence{source: source}
	var err error
	if e.expect, err = ExpectationOf(source); err != nil {
		return nil, err
	}
	e.options = RestoreOptions(l.Config, shard)
	e.options.Expect = []offsets.Expectation{e.expect}
	for _, read := range []func() error{
		func() error { return e.restore(ctx, r) },
		func() error { return e.readPositions(ctx, r) },
		func() error { return e.readReceipts(ctx, r, l) },
		func() error { return e.readJournal(ctx, r, l.Config.Kafka.Topics.IDs, edit) },
	} {
		if err := read(); err != nil {
			return nil, fmt.Errorf("look at source %s in shard %d: %w", source.Name, shard, err)
		}
	}
	if position := e.state.Position; e.state.Refused == nil && !e.state.New {
		if e.journal.refusal, e.journal.cut, err = e.rebuild(ctx, r, l.Config.Kafka.Topics.IDs, position); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *evidence) restore(ctx context.Context, r offsets.Reader) error {
	restored, err := offsets.Restore(ctx, r, e.options)
	if err == nil {
		e.state = restored.Sources[0]
	}
	return err
}

// read reads a whole partition of what is the source's.
func (e *evidence) read(ctx context.Context, r offsets.Reader, topic string, fromInclusive int64, each func(committed.Record)) error {
	bounds, err := r.Bounds(ctx, topic, e.options.Shard)
	if err != nil || max(fromInclusive, bounds.LogStart) >= bounds.LastStable {
		return err
	}
	_, _, err = r.Read(ctx, topic, e.options.Shard, max(fromInclusive, bounds.LogStart), bounds.LastStable, func(record committed.Record) error {
		if string(record.Key) == e.source.Name {
			each(record)
		}
		return nil
	})
	return err
}

func (e *evidence) readPositions(ctx context.Context, r offsets.Reader) error {
	return e.read(ctx, r, e.options.OffsetsTopic, 0, func(record committed.Record) {
		p, err := offsets.DecodePosition(record.Value)
		if err != nil || p.Source != e.expect.Source {
			return
		}
		e.last, e.lastAt = &p, record.Timestamp
		e.counter = max(e.counter, p.Counter)
		if p.TransactionalPrefix != e.options.Prefix && !slices.Contains(e.prefixes, p.TransactionalPrefix) {
			e.prefixes = append(e.prefixes, p.TransactionalPrefix)
		}
	})
}

func (e *evidence) readReceipts(ctx context.Context, r offsets.Reader, l *Log) error {
	return e.read(ctx, r, e.options.WindowsTopic, 0, func(record committed.Record) {
		receipt, err := l.decodeReceipt(ctx, record.Value)
		if err != nil || receipt.Source != e.expect.Source {
			e.receipts.unreadable++
			return
		}
		e.counter = max(e.counter, receipt.Counter)
		e.receipts.add(receipt)
	})
}

func (l *Log) decodeReceipt(ctx context.Context, value []byte) (offsets.Receipt, error) {
	id, err := offsets.ReceiptSchemaID(value)
	if err != nil {
		return offsets.Receipt{}, err
	}
	codec, err := l.codecOf(ctx, id)
	if err != nil {
		return offsets.Receipt{}, err
	}
	return codec.Decode(value)
}

func (f *receiptFacts) add(receipt offsets.Receipt) {
	if f.last = &receipt; receipt.Purpose == cdr.Start {
		f.start = receipt.FeedPublished
	}
	if f.lowest.IsZero() || receipt.FeedPublished < f.lowest {
		f.lowest = receipt.FeedPublished
	}
	if !receipt.Gap.IsZero() {
		f.gap = receipt.Gap
	}
	if !receipt.Asked.IsZero() {
		f.windows = append(f.windows, readWindow{receipt.Asked, receipt.Published})
	}
}

// journalMargin is by how much the brokers' clocks may be behind the feed's: a record
// is committed after its time.
const journalMargin = 2 * time.Hour

// readJournal reads the part of the ID journal that anything counts on, or is to.
func (e *evidence) readJournal(ctx context.Context, r offsets.Reader, topic string, edit offsets.Edit) (err error) {
	j := &e.journal
	if j.bounds, err = r.Bounds(ctx, topic, e.options.Shard); err != nil {
		return err
	}
	from := j.bounds.LastStable
	switch edit.What {
	case offsets.EditReset, offsets.EditPublished:
		if j.reset, err = r.OffsetAt(ctx, topic, e.options.Shard, horizon(e.source, edit.To, edit.To).Time().Add(-journalMargin)); err != nil {
			return err
		}
		from = min(from, j.reset)
	case offsets.EditJournalFrom:
		from = min(from, edit.JournalFrom)
	case offsets.EditMove:
		from = j.bounds.LogStart
	}
	if e.last == nil && e.receipts.last == nil {
		from = j.bounds.LogStart
	}
	if e.last != nil {
		from = min(from, e.last.JournalFrom)
	}
	if e.receipts.last != nil {
		from = min(from, e.receipts.last.JournalFrom)
	}
	return e.read(ctx, r, topic, from, func(record committed.Record) {
		c, err := offsets.DecodeChunk(record.Value)
		if err == nil {
			e.counter = max(e.counter, c.Counter)
		}
		j.chunks = append(j.chunks, chunk{record.Offset, c.Len()})
	})
}

// horizon is the oldest window end whose IDs a source meets again that is settled and
// published so far: the widest sweep, the overlap and a day for good measure.
func horizon(source *config.Source, settled, published cdr.Instant) cdr.Instant {
	widest := time.Duration(0)
	for _, sweep := range source.Sweeps {
		widest = max(widest, sweep.Back)
	}
	return min(settled, published.Add(-widest)).Add(-source.Overlap - 24*time.Hour)
}

// rebuild tells what a restore would make of the ID journal, with a position.
func (e *evidence) rebuild(ctx context.Context, r offsets.Reader, topic string, p offsets.Position) (*offsets.Refusal, *offsets.JournalCut, error) {
	results, err := offsets.RestoreSeen(ctx, r, offsets.SeenOptions{
		Topic: topic, Partition: e.options.Shard, Mode: e.options.Mode, Positions: []offsets.Position{p},
		Horizon: horizon(e.source, p.FeedSettled, p.FeedPublished),
	})
	if err != nil {
		return nil, nil, err
	}
	if refused := results[0].Refused; len(refused) > 0 {
		return refused[0], results[0].Cut, nil
	}
	return nil, results[0].Cut, nil
}
