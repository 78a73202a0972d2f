// Package positions shows where sources stand, and mends a position as a person says.
//
//	look    what the log tells of a source: positions, receipts, ID journal   (look.go)
//	plan    what an edit would make of that, what it repeats and what it loses (plan.go)
//	apply   the new position, committed as an owner commits                   (apply.go)
//	move    the same, when the source's shard changes                         (move.go)
//	do      by the owner of the shard if there is one, else by the command    (do.go)
//
// An edit says what is wanted, never what was. So the plan that a person has seen is
// made anew by whoever does it, from the log as it is then, behind the fence.
package positions

import (
	"context"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/offsets"
	"cdrbus/producer"
)

// Log is what a configuration's topics tell. It is safe for concurrent use.
type Log struct {
	Config *config.Config
	Reader Reader
	// SchemaByID asks the registry, for receipts that another version wrote.
	SchemaByID func(ctx context.Context, id int) (string, error)

	mu     sync.Mutex
	codecs map[int]*offsets.ReceiptCodec
}

// Reader reads what is committed. [*committed.Reader] is one.
type Reader interface {
	offsets.Reader
	Partitions(ctx context.Context, topic string) (int, error)
}

// checkShards demands that the topics have the shards that are configured.
func (l *Log) checkShards(ctx context.Context) error {
	k := &l.Config.Kafka
	for _, topic := range []string{k.Topics.Offsets, k.Topics.Windows, k.Topics.IDs} {
		count, err := l.Reader.Partitions(ctx, topic)
		switch {
		case err != nil:
			return err
		case count < k.Shards:
			return impossible("topic %s has %d partitions, and kafka.shards is %d: set that back, or add partitions to all topics but the events: kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions %d", topic, count, k.Shards, k.Brokers[0], topic, k.Shards)
		case count > k.Shards:
			return impossible("topic %s has %d partitions, and kafka.shards is %d: set it to %d; Kafka cannot take partitions away, so shards can only become more", topic, count, k.Shards, count)
		}
	}
	return nil
}

// codecOf returns the codec of receipts that were written under a schema id. If the
// registry has lost it, our own schema has to do.
func (l *Log) codecOf(ctx context.Context, id int) (*offsets.ReceiptCodec, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if codec := l.codecs[id]; codec != nil {
		return codec, nil
	}
	text, err := l.SchemaByID(ctx, id)
	if err != nil {
		text = offsets.ReceiptSchema()
	}
	codec, err := offsets.NewReceiptDecoder(id, text)
	if err != nil {
		return nil, err
	}
	if l.codecs == nil {
		l.codecs = map[int]*offsets.ReceiptCodec{}
	}
	l.codecs[id] = codec
	return codec, nil
}

// ExpectationOf is what a restore expects of a source.
func ExpectationOf(source *config.Source) (offsets.Expectation, error) {
	address, err := source.FeedURL()
	if err != nil {
		return offsets.Expectation{}, err
	}
	return offsets.Expectation{
		Source:     cdr.SourceName(source.Name),
		Definition: offsets.NewDefinition(string(source.Endpoint), address.Host, address.Path, source.Locations),
	}, nil
}

// RestoreOptions say how a shard of a configuration is restored. Whoever restores adds
// the sources that are to be expected.
func RestoreOptions(cfg *config.Config, shard int) offsets.RestoreOptions {
	k := &cfg.Kafka
	return offsets.RestoreOptions{
		OffsetsTopic: k.Topics.Offsets,
		WindowsTopic: k.Topics.Windows,
		Shard:        shard,
		Shards:       k.Shards,
		Partitions:   k.Shards,
		Prefix:       k.TransactionalIDPrefix,
		Mode:         modeOf(cfg),
	}
}

// ShardOptions say how a shard is taken over, under a transactional prefix.
func ShardOptions(cfg *config.Config, prefix string, shard int, layout *producer.Layout, log *zap.Logger) producer.ShardOptions {
	k := &cfg.Kafka
	options := producer.ShardOptions{
		TransactionalID:    fmt.Sprintf("%s.%s.%d", prefix, k.Topics.Offsets, shard),
		Partition:          shard,
		Layout:             layout,
		TransactionTimeout: k.TransactionTimeout,
		AbortAfter:         k.AbortAfter(),
		Log:                log,
	}
	if modeOf(cfg) == offsets.AtLeastOnce {
		options.Mode = producer.AtLeastOnce
	}
	return options
}

func modeOf(cfg *config.Config) offsets.Mode {
	if cfg.Delivery == config.AtLeastOnce {
		return offsets.AtLeastOnce
	}
	return offsets.ExactlyOnce
}
