// Package eventtest is for tests of what reads the events topic: a broker and a
// registry in the process, and events of numbered records, made by the encoder and
// written by another Kafka client.
package eventtest

import (
	"bytes"
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

// Topic is the events topic.
const Topic = "webex.cdr.events"

// Kit is an events topic, written by another Kafka client, and its registry.
type Kit struct {
	Reader   *committed.Reader
	Registry *schema.Registry

	tb       testing.TB
	cluster  *embedded.Cluster
	client   *kafka.Client
	producer *kgo.Client
}

// NewKit starts one, with a topic of so many partitions.
func NewKit(tb testing.TB, partitions int) *Kit {
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
	created, err := client.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: Topic, NumPartitions: partitions, ReplicationFactor: 1}}})
	if err != nil || created.Errors[Topic] != nil {
		tb.Fatal(err, created)
	}
	registry, err := schema.NewRegistry(schema.RegistryOptions{URLs: []string{cluster.RegistryURL()}, Patience: time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	k := &Kit{tb: tb, cluster: cluster, client: client, Reader: committed.NewReader(client), Registry: registry}
	k.connectProducer()
	return k
}

func (k *Kit) connectProducer() {
	k.tb.Helper()
	producer, err := kgo.NewClient(kgo.SeedBrokers(k.cluster.Brokers()...), kgo.DefaultProduceTopic(Topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		k.tb.Fatal(err)
	}
	k.tb.Cleanup(producer.Close)
	k.producer = producer
}

// AddPartition makes the Topic one of count partitions, and waits until that is known.
func (k *Kit) AddPartition(count int) {
	k.tb.Helper()
	answer, err := k.client.CreatePartitions(context.Background(), &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: Topic, Count: int32(count)}}})
	if err != nil || answer.Errors[Topic] != nil {
		k.tb.Fatal(err, answer)
	}
	kafkatest.Eventually(k.tb, 10*time.Second, "the new partition is known", func() error {
		known, err := k.Reader.Partitions(context.Background(), Topic)
		if err == nil && known != count {
			err = fmt.Errorf("%d partitions", known)
		}
		return err
	})
	k.connectProducer()
}

// Register gives a schema its ID.
func (k *Kit) Register(subject, text string) int {
	k.tb.Helper()
	id, err := k.Registry.Resolve(context.Background(), subject, text, true)
	if err != nil {
		k.tb.Fatal(err)
	}
	return id
}

// Produce writes records, each to its Partition.
func (k *Kit) Produce(records ...*kgo.Record) {
	k.tb.Helper()
	if err := k.producer.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		k.tb.Fatal(err)
	}
}

// Start is when the first event of the tests is committed.
var Start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// ReportID is of the nth record.
func ReportID(n int) string { return fmt.Sprintf("0a0c2eb7-f1f6-3326-86f9-%012x", n) }

// Item is the nth record of the feed.
func Item(n int) string {
	return fmt.Sprintf(`{"Report ID":%q,"Report time":"2026-10-05T08:14:31.208Z","Correlation ID":"call-%d","Calling number":"+12025550143","Duration":%d}`, ReportID(n), n/2, n)
}

// Encoded is the event of a record.
func Encoded(tb testing.TB, schemaID int, item string) schema.Item {
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

// Event is the nth record as an event, committed n seconds after Start.
func Event(tb testing.TB, schemaID, partition, n int, headers ...string) *kgo.Record {
	tb.Helper()
	r := &kgo.Record{Partition: int32(partition), Key: fmt.Appendf(nil, "call-%d", n/2), Value: Encoded(tb, schemaID, Item(n)).Value, Timestamp: Start.Add(time.Duration(n) * time.Second)}
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

// NewerSchema has one field more than this version's.
func NewerSchema(tb testing.TB) string {
	return changedSchema(tb, func(fields []map[string]any) []map[string]any {
		last := fields[len(fields)-1]
		added := map[string]any{"name": "mood", "type": []string{"null", "string"}, "default": nil, "feedName": "Mood"}
		return append(fields[:len(fields)-1], added, last)
	})
}

// NewerValue is an event of NewerSchema.
func NewerValue(tb testing.TB, schemaID, n int) []byte {
	tb.Helper()
	value := Encoded(tb, schemaID, Item(n)).Value
	// Before the empty map, which is one zero byte: branch 1, four bytes.
	return append(append([]byte(nil), value[:len(value)-1]...), 2, 8, 'g', 'o', 'o', 'd', 0)
}

// Scanned are the events of a scan, as copies.
func (k *Kit) Scanned(o eventlog.Options) ([]*eventlog.Event, eventlog.Ends, error) {
	k.tb.Helper()
	o.Topic = Topic
	var events []*eventlog.Event
	ends, err := eventlog.Scan(context.Background(), k.Reader, o, func(e *eventlog.Event) error {
		events = append(events, e.Clone())
		return nil
	})
	return events, ends, err
}

// Fill produces events over partitions, so that neighbours by time lie apart.
func (k *Kit) Fill(count, partitions int) {
	k.tb.Helper()
	id := k.Register(Topic+"-value", schema.AvroJSON())
	var items []string
	for n := range count {
		items = append(items, Item(n))
	}
	var records []*kgo.Record
	page := `{"items":[` + strings.Join(items, ",") + `]}`
	err := schema.NewEncoder(schema.EncoderOptions{SchemaID: id}).Each([]byte(page), func(i *schema.Item) error {
		records = append(records, &kgo.Record{
			Partition: int32(i.Index % partitions), Key: bytes.Clone(i.Key), Value: bytes.Clone(i.Value),
			Timestamp: Start.Add(time.Duration(i.Index) * time.Second),
		})
		return nil
	})
	if err != nil {
		k.tb.Fatal(err)
	}
	k.Produce(records...)
}
