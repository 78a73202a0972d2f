// Package producer carries what a window yields into Kafka: all of it in one
// transaction, or nothing.
//
// A record's way through it:
//
//	Draft    collects the records of one window           (any goroutine, one at a time)
//	Commit   is drafts sealed together                     (immutable)
//	rounds   cut a commit into record batches, one round in memory at a time
//	Shard    sends the rounds inside one transaction       (the shard's goroutine)
//
// [Shard] is the protocol: a small state machine around one transactional.id,
// made by [TakeOver] and driven by [Shard.Commit], [Shard.Recover] and
// [Shard.Restored]. A commit ends in exactly one of three ways: [Committed],
// [MustRestore] or [Fenced]. There is no fourth and no bare error: a caller that
// does not know what became of its records has to ask the log.
//
// The protocol speaks through kafka-go's RoundTripper and builds its record
// batches itself, since kafka-go's own cannot carry a producer's identity. Which
// error of Kafka means what is one table, in errors.go.
package producer

import (
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Topic is one of the topics a commit writes to. Their order is the order of a
// commit: what is published first, the position that vouches for it last.
type Topic uint8

// The topics of a commit.
const (
	Events      Topic = iota // the records, by key over all partitions
	DeadLetters              // items that cannot be an event, in the shard's partition
	Receipts                 // what each window asked for and got, in the shard's partition
	IDs                      // the ID journal, in the shard's partition
	Positions                // how far each source is, in the shard's partition

	TopicCount = int(Positions) + 1
)

func (t Topic) String() string {
	return [TopicCount]string{"events", "dead letters", "receipts", "ids", "positions"}[t]
}

// Layout says where records go and how large a batch may be. It is shared by
// all drafts and shards of a process and must not change after its first use.
type Layout struct {
	// Names are the names of the topics, by Topic.
	Names [TopicCount]string
	// EventPartitions is how many partitions the events topic has. The other
	// topics have one for each shard.
	EventPartitions int
	// MaxMessageBytes is each topic's max.message.bytes, by Topic: the largest
	// batch that the broker takes. Batches are cut by their uncompressed size, so
	// that the limit holds however badly they compress.
	MaxMessageBytes [TopicCount]int
	// Compression of the batches. The zero value is none.
	Compression kafka.Compression
}

// Validate reports a layout that no draft could be written to.
func (l *Layout) Validate() error {
	if l.EventPartitions < 1 {
		return fmt.Errorf("check layout: topic %s has %d partitions, want at least 1", l.Names[Events], l.EventPartitions)
	}
	if l.Compression != 0 && l.Compression.Codec() == nil {
		return fmt.Errorf("check layout: unknown compression %d", l.Compression)
	}
	seen := make(map[string]Topic, TopicCount)
	for t := range Topic(TopicCount) {
		name, limitBytes := l.Names[t], l.MaxMessageBytes[t]
		if name == "" {
			return fmt.Errorf("check layout: the topic for %s has no name", t)
		}
		if other, taken := seen[name]; taken {
			return fmt.Errorf("check layout: %s and %s share topic %s, each needs its own", other, t, name)
		}
		seen[name] = t
		if limitBytes < 2*reservedBytes {
			return fmt.Errorf("check layout: max.message.bytes of topic %s is %d, want at least %d", name, limitBytes, 2*reservedBytes)
		}
	}
	return nil
}

// reservedBytes is what [Layout.MaxValueBytes] leaves of a batch for its header,
// the key and the headers of a record.
const reservedBytes = 8 << 10

// MaxValueBytes is how long a value may be in a topic, if its key and headers
// together stay below 8,000 bytes. An event's key and ce_id count with its value:
// the feed sets no bound to them.
func (l *Layout) MaxValueBytes(t Topic) int { return l.MaxMessageBytes[t] - reservedBytes }

// slotCount is how many partitions one shard writes to. Each is a slot: first
// the partitions of the events topic, then the shard's partition of the others.
func (l *Layout) slotCount() int { return l.EventPartitions + TopicCount - 1 }

func (l *Layout) slotOf(t Topic, eventPartition int) int {
	if t == Events {
		return eventPartition
	}
	return l.EventPartitions + int(t) - 1
}

// placeOf is the inverse of slotOf for the shard that owns a partition.
func (l *Layout) placeOf(slot, shard int) place {
	if slot < l.EventPartitions {
		return place{Events, int32(slot)}
	}
	return place{Topic(slot - l.EventPartitions + 1), int32(shard)}
}

// place is one partition of one topic.
type place struct {
	topic     Topic
	partition int32
}
