package coverage

import (
	"cmp"
	"context"
	"slices"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// A source that was moved to another shard (cdrbus offsets move) has its receipts of
// before in the partition of the former one. Its counter goes on: the receipt of the
// arrival does not follow the one before it in the partition, and the counters tell the
// order of all.

// comesFromElsewhere reports whether the receipts before this one lie in another
// partition, or are gone. A position that was mended where it is counts on.
func (w watermarks) comesFromElsewhere(r *offsets.Receipt) bool {
	return r.Purpose == cdr.Mend && r.Counter != w.counter+1
}

// refold makes the map of a source that was moved anew, from all partitions; from that
// of its shard up to an offset.
func (r *Reader) refold(ctx context.Context, shard int, untilExclusive int64, source cdr.SourceName, before *Map) (*Map, error) {
	all, undecodable, err := r.gather(ctx, shard, untilExclusive, source, before.view.StartInclusive)
	if err != nil {
		return nil, err
	}
	m := newSurvey(before.view)
	if before.hours != nil {
		m = NewMap(before.view)
	}
	for _, receipt := range all {
		m.Add(receipt, 0)
	}
	if m.last.counter < before.last.counter { // no receipt tells of the view
		m.last = before.last
	}
	m.began, m.moved, m.undecodable = max(m.began, before.began), true, undecodable
	return m, nil
}

// gather returns the receipts of a source in all partitions that tell of an instant and
// of all after it, in the order in which they were committed.
func (r *Reader) gather(ctx context.Context, shard int, untilExclusive int64, source cdr.SourceName, from cdr.Instant) (all []*offsets.Receipt, undecodable int64, err error) {
	wanted := func(key []byte) bool { return string(key) == string(source) }
	for partition := range r.partitions {
		offset, err := r.OffsetFor(ctx, partition, from)
		if err != nil {
			return nil, 0, err
		}
		until := int64(committed.LastStable)
		if partition == shard {
			until = untilExclusive
		}
		_, err = r.Each(ctx, partition, offset, until, wanted, nil, func(_ int64, _ cdr.SourceName, receipt *offsets.Receipt, broken error) error {
			if broken != nil {
				undecodable++
			} else {
				all = append(all, receipt)
			}
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	slices.SortStableFunc(all, func(a, b *offsets.Receipt) int {
		return cmp.Or(cmp.Compare(a.Counter, b.Counter), a.CommitTime.Compare(b.CommitTime))
	})
	return all, undecodable, nil
}
