package daemon

import (
	"github.com/segmentio/kafka-go"

	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
)

// Connect returns a client of the Kafka of a configuration, for commands that read
// or write beside a daemon. The caller closes it with [kafkaconn.Close].
func Connect(cfg *config.Config) (*kafka.Client, error) { return connect(Options{Config: cfg}) }

// connect is Connect in the way of a daemon's options.
func connect(o Options) (*kafka.Client, error) {
	options, err := kafkaOptions(o.Config, o.DialKafka)
	if err != nil {
		return nil, err
	}
	options.MetadataTTL = o.MetadataTTL
	return kafkaconn.New(options)
}

// ShardOf places a source: murmur2 of its shard key, so that sources which share a
// credential share a shard. It is the partition of everything that cdrbus writes
// about the source.
func ShardOf(source *config.Source, shards int) int {
	return source.Shard(shards)
}
