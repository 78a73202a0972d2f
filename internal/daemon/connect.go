package daemon

import (
	"github.com/segmentio/kafka-go"

	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
)

// Connect returns a client of the Kafka of a configuration, for commands that read
// or write beside a daemon. The caller closes it with [kafkaconn.Close].
func Connect(cfg *config.Config) (*kafka.Client, error) { return connect(cfg, nil) }

// connect is Connect through dial, or through the network if dial is nil.
func connect(cfg *config.Config, dial DialFunc) (*kafka.Client, error) {
	options, err := kafkaOptions(cfg, dial)
	if err != nil {
		return nil, err
	}
	return kafkaconn.New(options)
}

// ShardOf places a source: murmur2 of its shard key, so that sources which share a
// credential share a shard. It is the partition of everything that cdrbus writes
// about the source.
func ShardOf(source *config.Source, shards int) int {
	return source.Shard(shards)
}
