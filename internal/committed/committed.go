// Package committed reads what is committed of a Kafka partition. It is the
// one read_committed reader of cdrbus: positions, the ID journal, receipts and
// events are all read through it.
//
// It speaks kafka-go's low-level Fetch, because kafka-go's Reader hands out
// aborted and control records as messages and kafka-go's Client.Fetch hides
// what tells them apart. The rules of a read:
//
//   - It ends at the last stable offset and never waits for more.
//   - What an aborted transaction wrote is left out, by the rule in filter.go.
//   - Offsets have holes (markers, compaction); only the leader's answer tells
//     where the next batch is. An answer without any, below the last stable
//     offset, is asked for again, and believed of a compacted topic only.
//   - A partition that moves, or a broker that restarts, is waited for. An
//     offset that no longer or does not yet exist is an [OutOfRangeError]: never
//     "nothing there".
package committed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listoffsets"

	"cdrbus/internal/kafkaconn"
)

// Offsets with a meaning of their own, as arguments of [Reader.Read].
const (
	// LastStable as untilExclusive is the last stable offset at the call.
	LastStable int64 = -1
	// Earliest as fromInclusive is the first offset that still exists.
	Earliest int64 = -2
)

// Record is one record of a partition. Its slices are valid only during the
// call that hands it over; a nil key or value is Kafka's null.
type Record struct {
	Offset    int64
	Key       []byte
	Value     []byte
	Headers   []kafka.Header
	Timestamp time.Time
}

// Bounds are the offsets between which a partition can be read, all three from
// one answer of its leader.
type Bounds struct {
	LogStart      int64 // first offset that still exists
	LastStable    int64 // everything below is committed or aborted: the end for read_committed
	HighWatermark int64 // everything below is replicated: the end for read_uncommitted
}

// OutOfRangeError says that an offset to read from does not exist: retention or
// deletion took it, or the log was cut or created anew.
type OutOfRangeError struct {
	Topic     string
	Partition int
	Offset    int64
	Bounds    Bounds
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("offset %d of %s-%d does not exist: the log reaches from %d to %d",
		e.Offset, e.Topic, e.Partition, e.Bounds.LogStart, e.Bounds.HighWatermark)
}

// Reader reads committed records. It is safe for concurrent use: all state of
// a read is on its stack.
type Reader struct {
	client *kafka.Client
	retry  retryPolicy
}

// NewReader returns a reader that sends through client, which the caller keeps
// open meanwhile and closes.
func NewReader(client *kafka.Client) *Reader {
	return &Reader{client: client, retry: defaultRetry}
}

// Bounds returns the bounds of a partition.
func (r *Reader) Bounds(ctx context.Context, topic string, partition int) (Bounds, error) {
	// Fetching at the end costs no data, and one answer holds all three bounds.
	// If the log is cut in between, the end is asked for again.
	for {
		end, err := r.listOffset(ctx, topic, partition, latestTimestamp, readUncommitted)
		if err != nil {
			return Bounds{}, err
		}
		page, err := r.fetch(ctx, topic, partition, end, end, fetchBytes)
		if errors.Is(err, errOutOfRange) {
			continue
		}
		if err != nil {
			return Bounds{}, err
		}
		page.release()
		return page.bounds, nil
	}
}

// OffsetAt returns the offset of the first committed record with a timestamp of
// at or later, and the last stable offset if there is none.
func (r *Reader) OffsetAt(ctx context.Context, topic string, partition int, at time.Time) (int64, error) {
	offset, err := r.listOffset(ctx, topic, partition, at.UnixMilli(), readCommitted)
	if err != nil || offset >= 0 {
		return offset, err
	}
	return r.listOffset(ctx, topic, partition, latestTimestamp, readCommitted)
}

// Partitions returns the number of partitions of a topic.
func (r *Reader) Partitions(ctx context.Context, topic string) (int, error) {
	what := "look up partitions of topic " + topic
	var count int
	err := r.retry.do(ctx, func() error {
		resp, err := r.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return err
		}
		count = len(resp.Topics[0].Partitions)
		return resp.Topics[0].Error
	})
	return count, kafkaconn.Explain(err, what)
}

// Read hands every committed record of [fromInclusive, untilExclusive) to each,
// in the order of the log, and returns the offset to go on from. It ends at the
// last stable offset if that comes first, so next < untilExclusive means that
// the rest is not stable yet. The bounds are those of the first answer: with
// [LastStable], next is never below their LastStable.
//
// An error of each ends the read and is returned as it is, with next the offset
// of the record it refused. Read may be called again from next after any error.
func (r *Reader) Read(ctx context.Context, topic string, partition int, fromInclusive, untilExclusive int64, each func(Record) error) (next int64, bounds Bounds, err error) {
	next, page, err := r.first(ctx, topic, partition, fromInclusive)
	if err != nil {
		return next, Bounds{}, err
	}
	bounds = page.bounds
	endExclusive := bounds.LastStable
	if untilExclusive >= 0 {
		endExclusive = min(endExclusive, untilExclusive)
	}
	next, err = r.readFrom(ctx, topic, partition, page, next, endExclusive, each)
	return next, bounds, err
}

// readFrom hands over the records of [next, endExclusive), of which page is the
// first answer. The answer behind the one in hand is already on its way.
func (r *Reader) readFrom(ctx context.Context, topic string, partition int, page *page, next, endExclusive int64, each func(Record) error) (int64, error) {
	var scratch []byte
	for next < endExclusive && len(page.batches) > 0 {
		following, err := page.following(next)
		if err != nil {
			page.release()
			return next, err
		}
		if following >= endExclusive {
			if next, _, err = page.each(next, endExclusive, scratch, each); err != nil {
				return next, err
			}
			return endExclusive, nil
		}
		limitBytes := int32(fetchBytes)
		if following == next+1 {
			limitBytes = steppingBytes
		}
		ahead := r.fetchAhead(ctx, topic, partition, following, endExclusive, limitBytes)
		if next, scratch, err = page.each(next, endExclusive, scratch, each); err != nil {
			ahead.abandon()
			return next, err
		}
		next = following
		if page, err = ahead.wait(); err != nil {
			return next, r.outOfRange(ctx, topic, partition, next, err)
		}
	}
	page.release()
	// Without a batch it is a hole to the end, see fetch.
	return max(next, endExclusive), nil
}

// compacted reports whether holes are to be expected at the end of the topic's
// partitions. Only compaction makes them; in any other topic a leader that shows
// nothing has something it cannot read just now, such as a segment in slow
// remote storage, and passing over it would lose records.
func (r *Reader) compacted(ctx context.Context, topic string) bool {
	const policy = "cleanup.policy"
	resp, err := r.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{policy}},
	}})
	if err != nil {
		return false
	}
	for _, resource := range resp.Resources {
		for _, entry := range resource.ConfigEntries {
			if entry.ConfigName == policy {
				return strings.Contains(entry.ConfigValue, "compact")
			}
		}
	}
	return false
}

// first resolves the offset to read from and fetches there.
func (r *Reader) first(ctx context.Context, topic string, partition int, fromInclusive int64) (int64, *page, error) {
	for {
		from := fromInclusive
		if fromInclusive == Earliest {
			var err error
			if from, err = r.listOffset(ctx, topic, partition, earliestTimestamp, readCommitted); err != nil {
				return fromInclusive, nil, err
			}
		}
		page, err := r.fetch(ctx, topic, partition, from, from, fetchBytes)
		if errors.Is(err, errOutOfRange) && fromInclusive == Earliest {
			continue // retention took it in between
		}
		if err != nil {
			return from, nil, r.outOfRange(ctx, topic, partition, from, err)
		}
		return from, page, nil
	}
}

// outOfRange completes an out-of-range answer, which carries no bounds, with
// the bounds that hold now. Any other error passes unchanged.
func (r *Reader) outOfRange(ctx context.Context, topic string, partition int, offset int64, err error) error {
	if !errors.Is(err, errOutOfRange) {
		return err
	}
	bounds, err := r.Bounds(ctx, topic, partition)
	if err != nil {
		return err
	}
	return &OutOfRangeError{Topic: topic, Partition: partition, Offset: offset, Bounds: bounds}
}

// Timestamps with a meaning of their own in ListOffsets (KIP-79).
const (
	latestTimestamp   = -1
	earliestTimestamp = -2
)

// Isolation levels of Fetch and ListOffsets (KIP-98).
const (
	readUncommitted int8 = 0
	readCommitted   int8 = 1
)

// listOffset looks up one offset, -1 if no record is that young.
func (r *Reader) listOffset(ctx context.Context, topic string, partition int, timestamp int64, isolation int8) (int64, error) {
	request := &listoffsets.Request{
		ReplicaID:      consumerReplicaID,
		IsolationLevel: isolation,
		Topics: []listoffsets.RequestTopic{{
			Topic: topic,
			Partitions: []listoffsets.RequestPartition{{
				Partition:          int32(partition),
				CurrentLeaderEpoch: unknownLeaderEpoch,
				Timestamp:          timestamp,
			}},
		}},
	}
	offset := int64(-1)
	err := r.retry.do(ctx, func() error {
		answer, err := roundTrip[*listoffsets.Response](ctx, r.client, request)
		if err != nil {
			return err
		}
		for _, t := range answer.Topics {
			for _, p := range t.Partitions {
				if t.Topic == topic && p.Partition == int32(partition) {
					offset = p.Offset
					return codeError(p.ErrorCode)
				}
			}
		}
		return errNoAnswer
	})
	return offset, kafkaconn.Explain(err, fmt.Sprintf("look up an offset of %s-%d", topic, partition))
}

// roundTrip sends one request with the client's time limit.
func roundTrip[Response protocol.Message](ctx context.Context, client *kafka.Client, request protocol.Message) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, client.Timeout)
	defer cancel()
	var none Response
	answer, err := client.Transport.RoundTrip(ctx, client.Addr, request)
	if err != nil {
		return none, err
	}
	response, ok := answer.(Response)
	if !ok {
		return none, fmt.Errorf("answer of type %T to a %T", answer, request)
	}
	return response, nil
}
