package offsets

import (
	"context"
	"fmt"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// receiptMargin is how much earlier than its position a receipt can be stamped, where
// the broker stamps records as they come.
const receiptMargin = 5 * time.Minute

// vouch refuses positions without the receipt of their commit. A position that says
// more than was committed would pass over records in silence, and nothing else tells
// it from a sound one: its counter may be any, since compaction leaves holes. What a
// command mended has its reasons, and where receipts of that time are gone none can
// be asked for.
func (r *Restored) vouch(ctx context.Context, reader Reader) error {
	wanting := map[string]*SourceState{}
	var oldest time.Time
	for i := range r.Sources {
		s := &r.Sources[i]
		if s.New || s.Refused != nil || s.Position.Mended {
			continue
		}
		wanting[string(s.Source)] = s
		if oldest.IsZero() || s.chosen.at.Before(oldest) {
			oldest = s.chosen.at
		}
	}
	if len(wanting) == 0 {
		return nil
	}
	since, err := r.strikeVouched(ctx, reader, oldest.Add(-receiptMargin), wanting)
	if err != nil {
		return err
	}
	for _, s := range wanting {
		if !since.IsZero() && !since.After(s.chosen.at) {
			s.Refused = r.options.refuseUnvouched(s)
			s.Position, s.Offset = Position{}, 0
		}
	}
	return nil
}

// strikeVouched takes out of wanting whoever has the receipt of its position, and
// returns since when there are receipts; zero: there is none.
func (r *Restored) strikeVouched(ctx context.Context, reader Reader, from time.Time, wanting map[string]*SourceState) (since time.Time, err error) {
	topic, shard := r.options.WindowsTopic, r.options.Shard
	bounds, err := reader.Bounds(ctx, topic, shard)
	if err != nil {
		return since, fmt.Errorf("bounds of %s-%d: %w", topic, shard, err)
	}
	first, err := reader.OffsetAt(ctx, topic, shard, from)
	if err != nil {
		return since, fmt.Errorf("look for receipts in %s-%d: %w", topic, shard, err)
	}
	if first > bounds.LogStart && first > 0 {
		since = from // there are older ones
	}
	codecs := map[int]*ReceiptCodec{}
	err = readSettled(ctx, reader, topic, shard, bounds, min(first, bounds.LastStable), func(record committed.Record) error {
		if since.IsZero() {
			since = record.Timestamp
		}
		s := wanting[string(record.Key)]
		if s != nil && vouches(codecs, record.Value, s.chosen.position.Counter) {
			delete(wanting, string(record.Key))
		}
		return nil
	})
	if err != nil {
		return since, fmt.Errorf("look for receipts: %w", err)
	}
	return since, nil
}

// vouches reports whether a record is the receipt of a counter, or one that this
// version cannot read.
func vouches(codecs map[int]*ReceiptCodec, value []byte, counter cdr.Counter) bool {
	id, err := ReceiptSchemaID(value)
	if err != nil {
		return true
	}
	if codecs[id] == nil {
		if codecs[id], err = NewReceiptCodec(id); err != nil {
			return true
		}
	}
	receipt, err := codecs[id].Decode(value)
	return err != nil || receipt.Counter == counter
}

func (o RestoreOptions) refuseUnvouched(s *SourceState) *Refusal {
	return &Refusal{
		Source: s.Source, Code: PositionUnvouched, Topic: o.OffsetsTopic, Partition: o.Shard, Offset: s.chosen.offset,
		Message: fmt.Sprintf("its position has counter %d, and %s-%d has no receipt of that commit: something else than cdrbus wrote it", s.chosen.position.Counter, o.WindowsTopic, o.Shard),
		Remedy:  rebuildCommand(s.Source),
	}
}
