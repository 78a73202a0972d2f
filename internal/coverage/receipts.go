package coverage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// Reader reads the receipts of the windows topic. It is not safe for concurrent use.
type Reader struct {
	log    offsets.Reader
	topic  string
	schema func(ctx context.Context, id int) (string, error)
	codecs map[int]*offsets.ReceiptCodec

	partitions int // of the topic
}

// NewReader returns a reader of a windows topic with so many partitions. schema returns
// the text of the Avro schema of a registry's id; where it fails, the receipts are taken
// to be of this version, and those that are not do not decode.
func NewReader(log offsets.Reader, topic string, partitions int, schema func(ctx context.Context, id int) (string, error)) *Reader {
	return &Reader{log: log, topic: topic, partitions: partitions, schema: schema, codecs: map[int]*offsets.ReceiptCodec{}}
}

// committedEarly is how much earlier than its report time, by the clock of the feed, a
// window can be committed by the clock of the daemon or the broker.
const committedEarly = time.Hour

// OffsetFor returns the offset from which on a partition tells of an instant and of all
// after it: no window is committed before its time is over.
func (r *Reader) OffsetFor(ctx context.Context, partition int, from cdr.Instant) (int64, error) {
	return r.log.OffsetAt(ctx, r.topic, partition, from.Time().Add(-committedEarly))
}

// Progress is told now and then how far a read has come. It may be nil.
type Progress func(done, total int64)

// progressEvery is how many records are passed between two reports.
const progressEvery = 1 << 12

// Each hands over every receipt in [fromInclusive, untilExclusive) of a partition that
// one of the sources wants, or the record that cannot be one. It returns the offset to
// go on from.
func (r *Reader) Each(ctx context.Context, partition int, fromInclusive, untilExclusive int64, wanted func(source []byte) bool, progress Progress, each func(offset int64, source cdr.SourceName, receipt *offsets.Receipt, broken error) error) (int64, error) {
	bounds, err := r.log.Bounds(ctx, r.topic, partition)
	if err != nil {
		return fromInclusive, fmt.Errorf("read receipts: %w", err)
	}
	end := bounds.LastStable
	if untilExclusive >= 0 {
		end = min(end, untilExclusive)
	}
	if fromInclusive > bounds.HighWatermark {
		return fromInclusive, &committed.OutOfRangeError{Topic: r.topic, Partition: partition, Offset: fromInclusive, Bounds: bounds}
	}
	from := max(fromInclusive, bounds.LogStart)
	if from >= end {
		return from, nil
	}
	passed := 0
	next, _, err := r.log.Read(ctx, r.topic, partition, from, end, func(record committed.Record) error {
		if passed++; progress != nil && passed%progressEvery == 0 {
			progress(record.Offset-from, end-from)
		}
		if !wanted(record.Key) {
			return nil
		}
		receipt, err := r.decode(ctx, record)
		return each(record.Offset, cdr.SourceName(record.Key), receipt, err)
	})
	if err != nil {
		return next, fmt.Errorf("read receipts: %w", err)
	}
	return next, nil
}

// decode reads one receipt. One that names another source than its key was written by
// something else, or with a schema that is not the one it is taken for.
func (r *Reader) decode(ctx context.Context, record committed.Record) (*offsets.Receipt, error) {
	id, err := offsets.ReceiptSchemaID(record.Value)
	if err != nil {
		return nil, err
	}
	codec := r.codecs[id]
	if codec == nil {
		if codec, err = r.codecOf(ctx, id); err != nil {
			return nil, err
		}
		r.codecs[id] = codec
	}
	receipt, err := codec.Decode(record.Value)
	if err != nil {
		return nil, err
	}
	if string(receipt.Source) != string(record.Key) {
		return nil, errors.New("the receipt is not of the source that it is keyed by")
	}
	return &receipt, nil
}

func (r *Reader) codecOf(ctx context.Context, id int) (*offsets.ReceiptCodec, error) {
	if r.schema != nil {
		if text, err := r.schema(ctx, id); err == nil {
			if codec, err := offsets.NewReceiptDecoder(id, text); err == nil {
				return codec, nil
			}
		}
	}
	return offsets.NewReceiptCodec(id)
}

// Fold reads a partition from an offset to its end into the maps of sources, and
// returns the offset to go on from. Records that do not decode are counted.
func (r *Reader) Fold(ctx context.Context, partition int, fromInclusive int64, maps map[cdr.SourceName]*Map, progress Progress) (int64, error) {
	wanted := func(source []byte) bool { return maps[cdr.SourceName(source)] != nil }
	return r.Each(ctx, partition, fromInclusive, committed.LastStable, wanted, progress, func(offset int64, source cdr.SourceName, receipt *offsets.Receipt, broken error) error {
		if broken != nil {
			maps[source].undecodable++
			return nil
		}
		maps[source].Add(receipt, offset)
		return nil
	})
}

// Last gives each map that has no receipt yet the last one before an offset, for what
// its watermarks tell: the source has stopped earlier than anybody asks for.
func (r *Reader) Last(ctx context.Context, partition int, untilExclusive int64, maps map[cdr.SourceName]*Map, progress Progress) error {
	last := map[cdr.SourceName]committed.Record{}
	for source, m := range maps {
		if m.last.counter == 0 {
			last[source] = committed.Record{}
		}
	}
	if len(last) == 0 || untilExclusive == 0 {
		return nil
	}
	return r.lastOf(ctx, partition, untilExclusive, last, maps, progress)
}

func (r *Reader) lastOf(ctx context.Context, partition int, untilExclusive int64, last map[cdr.SourceName]committed.Record, maps map[cdr.SourceName]*Map, progress Progress) error {
	_, _, err := r.log.Read(ctx, r.topic, partition, committed.Earliest, untilExclusive, func(record committed.Record) error {
		if progress != nil && record.Offset%progressEvery == 0 {
			progress(record.Offset, untilExclusive)
		}
		kept, wanted := last[cdr.SourceName(record.Key)]
		if wanted {
			kept.Key, kept.Value, kept.Offset = append(kept.Key[:0], record.Key...), append(kept.Value[:0], record.Value...), record.Offset
			last[cdr.SourceName(record.Key)] = kept
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read receipts: %w", err)
	}
	for source, record := range last {
		if record.Value == nil {
			continue
		}
		if receipt, err := r.decode(ctx, record); err == nil {
			maps[source].resume(receipt)
		}
	}
	return nil
}
