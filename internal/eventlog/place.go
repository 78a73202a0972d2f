package eventlog

import (
	"context"
	"time"

	"cdrbus/internal/committed"
)

// Place is where a scan begins or ends in each partition. The zero value is the
// first offset as a beginning, and the last stable one as an end.
type Place struct {
	latest  bool
	at      time.Time
	offsets map[int]int64
	others  bool // partitions without an offset are meant too
}

// Latest is the last stable offset when the scan begins.
func Latest() Place { return Place{latest: true} }

// AtTime is the first record that was committed at or after t. Where shards with
// clocks that differ write to one partition, a record behind it may bear an
// earlier time.
func AtTime(t time.Time) Place { return Place{at: t} }

// AtOffsets names an offset for each partition. As a beginning, other partitions
// are not read; as an end, they are read to the last stable offset.
func AtOffsets(offsets map[int]int64) Place { return Place{offsets: offsets} }

// Following is AtOffsets for all partitions, and for those that are added to the
// topic later.
func Following(offsets map[int]int64) Place { return Place{offsets: offsets, others: true} }

// Earlier is in each partition the earlier one of two places that name offsets.
func (p Place) Earlier(q Place) Place {
	earlier := Place{offsets: map[int]int64{}, others: p.others && q.others}
	for partition, offset := range p.offsets {
		if other, found := q.offsets[partition]; found {
			earlier.offsets[partition] = min(offset, other)
		}
	}
	return earlier
}

// names reports whether the place says something about a partition.
func (p Place) names(partition int) bool {
	_, found := p.offsets[partition]
	return found || p.others || p.offsets == nil
}

// offset is the place in a partition; unset is what the zero place means.
func (p Place) offset(ctx context.Context, reader *committed.Reader, topic string, partition int, unset int64) (int64, error) {
	if offset, found := p.offsets[partition]; found {
		return offset, nil
	}
	switch {
	case p.latest:
		bounds, err := reader.Bounds(ctx, topic, partition)
		return bounds.LastStable, err
	case !p.at.IsZero():
		return reader.OffsetAt(ctx, topic, partition, p.at)
	}
	return unset, nil
}
