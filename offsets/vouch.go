package offsets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
//
// Receipts are looked up by the time of the commits, those that lie close to one
// another together, and no further than they have to be read: a source that stopped a
// month ago costs no month of the others' receipts.
func (r *Restored) vouch(ctx context.Context, reader Reader) error {
	var wanting []*SourceState
	for i := range r.Sources {
		if s := &r.Sources[i]; !s.New && s.Refused == nil && !s.Position.Mended {
			wanting = append(wanting, s)
		}
	}
	if len(wanting) == 0 {
		return nil
	}
	bounds, err := reader.Bounds(ctx, r.options.WindowsTopic, r.options.Shard)
	if err != nil {
		return fmt.Errorf("bounds of %s-%d: %w", r.options.WindowsTopic, r.options.Shard, err)
	}
	slices.SortFunc(wanting, func(a, b *SourceState) int { return a.chosen.at.Compare(b.chosen.at) })
	for len(wanting) > 0 {
		together := 1
		for together < len(wanting) && wanting[together].chosen.at.Sub(wanting[together-1].chosen.at) <= receiptMargin {
			together++
		}
		if err := r.vouchTogether(ctx, reader, bounds, wanting[:together]); err != nil {
			return err
		}
		wanting = wanting[together:]
	}
	return nil
}

// errAllVouched ends a read that has found what it was for.
var errAllVouched = errors.New("every receipt is found")

// vouchTogether vouches for sources whose last commits lie close to one another, in
// the order of these.
func (r *Restored) vouchTogether(ctx context.Context, reader Reader, bounds committed.Bounds, sources []*SourceState) error {
	topic, shard := r.options.WindowsTopic, r.options.Shard
	from, err := reader.OffsetAt(ctx, topic, shard, sources[0].chosen.at.Add(-receiptMargin))
	if err != nil {
		return fmt.Errorf("look for receipts in %s-%d: %w", topic, shard, err)
	}
	wanting := make(map[string]*SourceState, len(sources))
	for _, s := range sources {
		wanting[string(s.Source)] = s
	}
	// Where nothing older is left, the first receipt tells since when there are any.
	oldestIsLeft, someIsLeft := from > bounds.LogStart && from > 0, false
	codecs := map[int]*ReceiptCodec{}
	err = readSettled(ctx, reader, topic, shard, bounds, min(from, bounds.LastStable), func(record committed.Record) error {
		if !oldestIsLeft && !someIsLeft {
			maps.DeleteFunc(wanting, func(_ string, s *SourceState) bool { return record.Timestamp.After(s.chosen.at) })
		}
		someIsLeft = true
		if s := wanting[string(record.Key)]; s != nil && vouches(codecs, record.Value, s.chosen.position.Counter) {
			delete(wanting, string(record.Key))
		}
		if len(wanting) == 0 {
			return errAllVouched
		}
		return nil
	})
	if err != nil && !errors.Is(err, errAllVouched) {
		return fmt.Errorf("look for receipts: %w", err)
	}
	if !oldestIsLeft && !someIsLeft {
		return nil
	}
	for _, s := range wanting {
		s.Refused = r.options.refuseUnvouched(s)
		s.Position, s.Offset = Position{}, 0
	}
	return nil
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
