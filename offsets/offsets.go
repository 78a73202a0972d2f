// Package offsets knows what is committed: where each source stands, what each
// window was, and which records are published already.
//
// Four things are written in the transaction that publishes a window's events:
//
//   - the [Position] of the source, JSON in the compacted offsets topic: how far
//     its windows are committed, and what a restart needs to know;
//   - one [Receipt] a window, Avro in the windows topic: what was asked, what
//     came, what was published, and whether it is proven;
//   - the ID journal, packed binary records in the ids topic: the identities of
//     the records that the window published, see [Pending.AppendJournal];
//   - the events and dead letters, which are not this package's business.
//
// In memory a credential group has one [Seen], the exact set of the records
// published already. A window's records are checked against it through a
// [Pending], which joins the set when the commit is definite and leaves without
// a trace when it is not.
//
// After a take-over the log is the only truth: [Restore] reads the positions of a
// shard, and refuses with a [*Refusal] what it cannot trust; [RestoreSeen]
// rebuilds a set from the ID journal; [ReadPositions] reads what was committed
// since, when the outcome of a transaction is unknown.
//
// The package starts no goroutine. Nothing in it is safe for concurrent use but
// the plain values and a [ReceiptCodec]; a Seen belongs to the lane of its
// credential group.
package offsets

import (
	"context"
	"fmt"
	"time"

	"cdrbus/internal/committed"
)

// Reader reads the committed records of a partition. [*committed.Reader] is one.
// It retries what is worth retrying; its errors end a restore as they are.
type Reader interface {
	// Bounds returns the bounds of a partition.
	Bounds(ctx context.Context, topic string, partition int) (committed.Bounds, error)
	// OffsetAt returns the offset of the first committed record with a timestamp of
	// at or later, and the last stable offset if there is none.
	OffsetAt(ctx context.Context, topic string, partition int, at time.Time) (int64, error)
	// Read calls each for every committed record in [fromInclusive, untilExclusive)
	// in the order of the log, and returns the offset to go on from. An error of
	// each ends it and is returned.
	Read(ctx context.Context, topic string, partition int, fromInclusive, untilExclusive int64, each func(committed.Record) error) (next int64, bounds committed.Bounds, err error)
}

// Mode is the delivery promise under which a log was written and is restored.
type Mode uint8

const (
	// ExactlyOnce: a commit is one transaction of one fenced writer. The log cannot
	// contradict itself, so whatever does is refused.
	ExactlyOnce Mode = iota
	// AtLeastOnce: no transactions, no fence. Two writers may have overlapped, and a
	// commit may be there in part; the furthest valid position is taken.
	AtLeastOnce
)

// HangingTransaction says that a transaction lies open in a partition whose only
// writer has just been fenced: nobody will ever end it, what lies behind it cannot
// be read, and every read_committed reader of the partition waits with us.
type HangingTransaction struct {
	Topic     string
	Partition int
	Bounds    committed.Bounds
}

func (e *HangingTransaction) Error() string {
	const tool = "kafka-transactions.sh --bootstrap-server BROKER"
	where := fmt.Sprintf("--topic %s --partition %d", e.Topic, e.Partition)
	return fmt.Sprintf("read %s-%d: hanging transaction: the last stable offset %d is below the high watermark %d although no writer is left; look at it with `%s find-hanging %s`, end it with `%s abort %s --start-offset %d`",
		e.Topic, e.Partition, e.Bounds.LastStable, e.Bounds.HighWatermark, tool, where, tool, where, e.Bounds.LastStable)
}

// readSettled reads a partition that has one fenced writer, to its very end:
// nothing may be undecided in it.
func readSettled(ctx context.Context, r Reader, topic string, partition int, bounds committed.Bounds, fromInclusive int64, each func(committed.Record) error) error {
	if bounds.LastStable != bounds.HighWatermark {
		return &HangingTransaction{Topic: topic, Partition: partition, Bounds: bounds}
	}
	if fromInclusive >= bounds.LastStable {
		return nil
	}
	next, _, err := r.Read(ctx, topic, partition, fromInclusive, bounds.LastStable, each)
	if err != nil {
		return fmt.Errorf("read %s-%d from offset %d: %w", topic, partition, fromInclusive, err)
	}
	if next < bounds.LastStable {
		return fmt.Errorf("read %s-%d: ended at offset %d, want %d", topic, partition, next, bounds.LastStable)
	}
	return nil
}
