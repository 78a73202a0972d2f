package eventlog_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/eventlog"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
	"cdrbus/schema"
)

const topic = "webex.cdr.events"

// kit is an events topic, written by another Kafka client, and its registry.
type kit struct {
	tb       testing.TB
	cluster  *embedded.Cluster
	client   *kafka.Client
	reader   *committed.Reader
	registry *schema.Registry
	producer *kgo.Client
}

func newKit(tb testing.TB, partitions int) *kit {
	tb.Helper()
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cluster.Close() })
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { kafkaconn.Close(client) })
	created, err := client.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}}})
	if err != nil || created.Errors[topic] != nil {
		tb.Fatal(err, created)
	}
	registry, err := schema.NewRegistry(schema.RegistryOptions{URLs: []string{cluster.RegistryURL()}, Patience: time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	k := &kit{tb: tb, cluster: cluster, client: client, reader: committed.NewReader(client), registry: registry}
	k.connectProducer()
	return k
}

func (k *kit) connectProducer() {
	k.tb.Helper()
	producer, err := kgo.NewClient(kgo.SeedBrokers(k.cluster.Brokers()...), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		k.tb.Fatal(err)
	}
	k.tb.Cleanup(producer.Close)
	k.producer = producer
}

// addPartition makes the topic one of count partitions, and waits until that is known.
func (k *kit) addPartition(count int) {
	k.tb.Helper()
	answer, err := k.client.CreatePartitions(context.Background(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: int32(count)}}})
	if err != nil || answer.Errors[topic] != nil {
		k.tb.Fatal(err, answer)
	}
	kafkatest.Eventually(k.tb, 10*time.Second, "the new partition is known", func() error {
		known, err := k.reader.Partitions(context.Background(), topic)
		if err == nil && known != count {
			err = fmt.Errorf("%d partitions", known)
		}
		return err
	})
	k.connectProducer()
}

// register gives a schema its ID.
func (k *kit) register(subject, text string) int {
	k.tb.Helper()
	id, err := k.registry.Resolve(context.Background(), subject, text, true)
	if err != nil {
		k.tb.Fatal(err)
	}
	return id
}

func (k *kit) produce(records ...*kgo.Record) {
	k.tb.Helper()
	if err := k.producer.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		k.tb.Fatal(err)
	}
}

// start is when the first event of the tests is committed.
var start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// reportID is of the nth record.
func reportID(n int) string { return fmt.Sprintf("0a0c2eb7-f1f6-3326-86f9-%012x", n) }

// item is the nth record of the feed.
func item(n int) string {
	return fmt.Sprintf(`{"Report ID":%q,"Report time":"2026-10-05T08:14:31.208Z","Correlation ID":"call-%d","Calling number":"+12025550143","Duration":%d}`, reportID(n), n/2, n)
}

// encoded is the event of a record.
func encoded(tb testing.TB, schemaID int, item string) schema.Item {
	tb.Helper()
	var found schema.Item
	err := schema.NewEncoder(schema.EncoderOptions{SchemaID: schemaID}).Each([]byte(`{"items":[`+item+`]}`), func(i *schema.Item) error {
		found = *i
		return nil
	})
	if err != nil || found.Reject != nil {
		tb.Fatalf("encode %s: %v, %v", item, err, found.Reject)
	}
	return found
}

// event is the nth record as an event, committed n seconds after start.
func event(tb testing.TB, schemaID, partition, n int, headers ...string) *kgo.Record {
	tb.Helper()
	r := &kgo.Record{Partition: int32(partition), Key: fmt.Appendf(nil, "call-%d", n/2), Value: encoded(tb, schemaID, item(n)).Value, Timestamp: start.Add(time.Duration(n) * time.Second)}
	for _, h := range headers {
		key, value, _ := strings.Cut(h, "=")
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	return r
}

// changedSchema is this version's schema with its fields passed through change.
func changedSchema(tb testing.TB, change func(fields []map[string]any) []map[string]any) string {
	tb.Helper()
	var s struct {
		Type      string           `json:"type"`
		Name      string           `json:"name"`
		Namespace string           `json:"namespace"`
		Fields    []map[string]any `json:"fields"`
	}
	if err := json.Unmarshal([]byte(schema.AvroJSON()), &s); err != nil {
		tb.Fatal(err)
	}
	s.Fields = change(s.Fields)
	text, err := json.Marshal(s)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// newerSchema has one field more than this version's.
func newerSchema(tb testing.TB) string {
	return changedSchema(tb, func(fields []map[string]any) []map[string]any {
		last := fields[len(fields)-1]
		added := map[string]any{"name": "mood", "type": []string{"null", "string"}, "default": nil, "feedName": "Mood"}
		return append(fields[:len(fields)-1], added, last)
	})
}

// newerValue is an event of newerSchema.
func newerValue(tb testing.TB, schemaID, n int) []byte {
	tb.Helper()
	value := encoded(tb, schemaID, item(n)).Value
	// Before the empty map, which is one zero byte: branch 1, four bytes.
	return append(append([]byte(nil), value[:len(value)-1]...), 2, 8, 'g', 'o', 'o', 'd', 0)
}

// scanned are the events of a scan, as copies.
func (k *kit) scanned(o eventlog.Options) ([]*eventlog.Event, eventlog.Ends, error) {
	k.tb.Helper()
	o.Topic = topic
	var events []*eventlog.Event
	ends, err := eventlog.Scan(context.Background(), k.reader, o, func(e *eventlog.Event) error {
		events = append(events, e.Clone())
		return nil
	})
	return events, ends, err
}
