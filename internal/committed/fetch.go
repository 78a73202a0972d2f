package committed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"cdrbus/internal/kafkaconn"
)

const (
	// fetchBytes is the size of an answer as it is sent. Decompressed it is several
	// times as large, and a read holds two, for every shard that is being restored.
	// Larger ones are hardly faster, and far slower where the memory limit of the
	// process makes the garbage collector work for them.
	fetchBytes = 1 << 20

	// steppingBytes is asked for behind an answer that moved on by one offset: in the
	// middle of a batch that compaction has shortened. An answer that shows no other
	// batch costs a request for each offset stepped over.
	steppingBytes = 8 << 20

	// patientWaitMillis lets the broker wait for what it should have, for
	// instance from remote storage. An answer with data is never held back.
	patientWaitMillis = 500

	consumerReplicaID  = -1 // not a follower
	unknownLeaderEpoch = -1
	noSession          = -1 // SessionEpoch: a full fetch outside any session (KIP-227)
)

// errOutOfRange is inside this package what becomes an OutOfRangeError.
var errOutOfRange = kafka.OffsetOutOfRange

// errNoAnswer is an answer without the partition asked for. A broker that
// throttles a client answers so (KIP-219).
var errNoAnswer = errors.New("the broker's answer leaves the partition out")

// errNothingThere is an answer without a batch where there should be one: below
// the last stable offset.
var errNothingThere = errors.New("the leader shows no record batch below the last stable offset")

// fetch returns what the leader has at offset. It waits for a partition that
// moves; offset may lie anywhere from the log's start to its end. Below
// stableExclusive, and below the last stable offset of the answer itself, there
// must be something; a page without batches is a hole that compaction has made.
func (r *Reader) fetch(ctx context.Context, topic string, partition int, offset, stableExclusive int64, limitBytes int32) (*page, error) {
	request := &fetch.Request{
		ReplicaID:      consumerReplicaID,
		MaxWaitTime:    0, // what is stable is there already
		MinBytes:       1,
		MaxBytes:       2 * limitBytes, // the partition's limit is to decide: kfake names no aborted transaction where this one does
		IsolationLevel: readCommitted,
		SessionEpoch:   noSession,
		Topics: []fetch.RequestTopic{{
			Topic: topic,
			Partitions: []fetch.RequestPartition{{
				Partition:          int32(partition),
				CurrentLeaderEpoch: unknownLeaderEpoch,
				FetchOffset:        offset,
				LogStartOffset:     -1, // for followers only
				PartitionMaxBytes:  limitBytes,
			}},
		}},
	}
	var result *page
	err := r.retry.do(ctx, func() error {
		answer, err := roundTrip[*fetch.Response](ctx, r.client, request)
		if err != nil {
			return r.routingCause(ctx, topic, err)
		}
		if result, err = newPage(answer, topic, partition); err != nil {
			return err
		}
		if len(result.batches) == 0 && offset < max(stableExclusive, result.bounds.LastStable) {
			request.MaxWaitTime = patientWaitMillis
			return errNothingThere
		}
		return nil
	})
	switch {
	case errors.Is(err, errOutOfRange):
		return nil, err
	case errors.Is(err, errNothingThere) && r.compacted(ctx, topic):
		return result, nil
	}
	return result, kafkaconn.Explain(err, fmt.Sprintf("read %s-%d at offset %d", topic, partition, offset))
}

// routingCause looks behind kafka-go's "topic not found": it also says so when
// it has never reached a broker, and then only Metadata tells why.
func (r *Reader) routingCause(ctx context.Context, topic string, err error) error {
	if !errors.Is(err, protocol.ErrNoTopic) && !errors.Is(err, protocol.ErrNoPartition) {
		return err
	}
	metadata, metadataErr := r.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if metadataErr != nil {
		return metadataErr
	}
	if topicErr := metadata.Topics[0].Error; topicErr != nil {
		return topicErr
	}
	return err
}

// newPage takes the one partition out of an answer.
func newPage(answer *fetch.Response, topic string, partition int) (*page, error) {
	if err := codeError(answer.ErrorCode); err != nil {
		return nil, err
	}
	for i := range answer.Topics {
		for j := range answer.Topics[i].Partitions {
			p := &answer.Topics[i].Partitions[j]
			if answer.Topics[i].Topic != topic || p.Partition != int32(partition) {
				continue
			}
			if err := codeError(p.ErrorCode); err != nil {
				return nil, err
			}
			return pageOf(p)
		}
	}
	return nil, errNoAnswer
}

func codeError(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// retryPolicy says how long to wait for a partition before giving up.
type retryPolicy struct {
	// patience is for a cluster in motion: electing a leader after a broker's
	// death takes up to its session (9 s by default) and then some.
	patience time.Duration
	// missingPatience is for a topic that is not there: created a moment ago,
	// or never.
	missingPatience time.Duration
	// holePatience is for an answer without the data that should be there.
	holePatience         time.Duration
	backoff, longBackoff time.Duration
}

var defaultRetry = retryPolicy{
	patience:        30 * time.Second,
	missingPatience: 5 * time.Second,
	holePatience:    10 * time.Second,
	backoff:         50 * time.Millisecond,
	longBackoff:     time.Second,
}

// do calls attempt until it succeeds, fails for good or the patience ends, and
// returns its last error.
func (p retryPolicy) do(ctx context.Context, attempt func() error) error {
	start := time.Now()
	for backoff := p.backoff; ; backoff = min(2*backoff, p.longBackoff) {
		err := attempt()
		if err == nil || ctx.Err() != nil || permanent(err) || time.Since(start)+backoff > p.patienceFor(err) {
			return err
		}
		timer := time.NewTimer(backoff/2 + rand.N(backoff/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (p retryPolicy) patienceFor(err error) time.Duration {
	switch {
	case errors.Is(err, kafka.UnknownTopicOrPartition), errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition):
		return p.missingPatience
	case errors.Is(err, errNothingThere):
		return p.holePatience
	default:
		return p.patience
	}
}

// permanent tells what no waiting mends. Whatever else a broker may answer to
// a read can be asked again without harm.
func permanent(err error) bool {
	return errors.Is(err, errOutOfRange) || errors.Is(err, errUnknownFormat) || kafkaconn.Permanent(err)
}
