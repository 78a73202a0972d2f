package offsets_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
	"cdrbus/offsets"
)

// BenchmarkRestoreRealKafka restores a shard of 1,000 sources from a broker: what the
// cleaner leaves of one commit a minute, two hours, and a day that it never cleaned.
// Besides what the log itself costs, it reads the receipts of the last minutes.
//
//	go test ./offsets -run xxx -bench RestoreRealKafka -kafka.versions=4.4.0
func BenchmarkRestoreRealKafka(b *testing.B) {
	for _, version := range kafkatest.Versions(b) {
		cluster := kafkatest.Start(b, kafkatest.Options{Version: version})
		client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Bootstrap()})
		if err != nil {
			b.Fatal(err)
		}
		defer kafkaconn.Close(client)
		for _, c := range []struct {
			name    string
			minutes int
		}{{"two hours", 2 * 60}, {"a day, not compacted", 24 * 60}} {
			day := newFleetDay(b, cluster, c.minutes)
			b.Run(fmt.Sprintf("kafka-%s/%s", version, c.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					day.restore(b, committed.NewReader(client))
				}
				b.ReportMetric(float64(len(day.positions)*c.minutes)*float64(b.N)/b.Elapsed().Seconds(), "positions/s")
			})
		}
	}
}

// fleetDay is a shard of 1,000 sources that committed once a minute up to now, each
// minute in one transaction, as its only owner does.
type fleetDay struct {
	options   offsets.RestoreOptions
	positions []offsets.Position // the last ones
	minutes   int
	writer    *kgo.Client
	receipts  *offsets.ReceiptCodec
}

// receiptMinutes is for how many of the last minutes there are receipts: more than a
// restore reads.
const receiptMinutes = 15

func newFleetDay(b *testing.B, cluster *kafkatest.Cluster, minutes int) *fleetDay {
	b.Helper()
	o := offsets.RestoreOptions{
		OffsetsTopic: fmt.Sprintf("offsets-%d", minutes), WindowsTopic: fmt.Sprintf("windows-%d", minutes),
		Shards: 1, Partitions: 1, Prefix: prefix,
	}
	cluster.CreateTopic(b, o.OffsetsTopic, 1, map[string]string{"cleanup.policy": "compact", "min.compaction.lag.ms": fmt.Sprint(48 * time.Hour.Milliseconds())})
	cluster.CreateTopic(b, o.WindowsTopic, 1, nil)
	d := &fleetDay{minutes: minutes}
	for i := range 1000 {
		source := cdr.SourceName(fmt.Sprintf("source-%04d", i))
		o.Expect = append(o.Expect, offsets.Expectation{Source: source, Definition: definition})
		d.positions = append(d.positions, offsets.Position{
			Source: source, Definition: definition, OrgUUID: "5f4a2a5c-0a57-4d26-9cf1-2c6d4b1c6d3a",
			TransactionalPrefix: prefix, Shards: 1, FeedPublished: start, FeedSettled: start,
		})
	}
	d.options = o
	d.write(b, cluster.Bootstrap())
	return d
}

// write commits every minute of the day. Batches are compressed as by default.
func (d *fleetDay) write(b *testing.B, brokers []string) {
	b.Helper()
	var err error
	if d.receipts, err = offsets.NewReceiptCodec(1); err != nil {
		b.Fatal(err)
	}
	d.writer, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(d.options.OffsetsTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(time.Second))
	if err != nil {
		b.Fatal(err)
	}
	defer d.writer.Close()
	now := time.Now()
	for minute := range d.minutes {
		d.commit(b, now.Add(time.Duration(minute-d.minutes)*time.Minute), minute >= d.minutes-receiptMinutes)
	}
}

// commit writes the next position of every source in one transaction.
func (d *fleetDay) commit(b *testing.B, at time.Time, withReceipts bool) {
	b.Helper()
	if err := d.writer.BeginTransaction(); err != nil {
		b.Fatal(err)
	}
	for i := range d.positions {
		p := &d.positions[i]
		span := cdr.Span{StartInclusive: p.FeedPublished, EndExclusive: p.FeedPublished.Add(time.Minute)}
		p.Counter++
		p.FeedPublished, p.LastRequestAt = span.EndExclusive, at
		p.LastWindow = offsets.WindowSummary{Span: span, Endpoint: cdr.Feed, Purpose: cdr.Live}
		value, err := p.Encode()
		if err != nil {
			b.Fatal(err)
		}
		d.produce(b, d.options.OffsetsTopic, p.Source, at, value)
		if !withReceipts {
			continue
		}
		value, err = d.receipts.Encode(offsets.Receipt{Source: p.Source, Counter: p.Counter, Purpose: cdr.Live, Endpoint: cdr.Feed, Asked: span, TotalCount: -1, CommitTime: at})
		if err != nil {
			b.Fatal(err)
		}
		d.produce(b, d.options.WindowsTopic, p.Source, at, value)
	}
	if err := d.writer.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := d.writer.EndTransaction(b.Context(), kgo.TryCommit); err != nil {
		b.Fatal(err)
	}
}

func (d *fleetDay) produce(b *testing.B, topic string, source cdr.SourceName, at time.Time, value []byte) {
	d.writer.Produce(b.Context(), &kgo.Record{Topic: topic, Key: []byte(source), Value: value, Timestamp: at}, func(_ *kgo.Record, err error) {
		if err != nil {
			b.Error(err)
		}
	})
}

// restore restores the shard, and demands what was written last.
func (d *fleetDay) restore(b *testing.B, r offsets.Reader) {
	restored, err := offsets.Restore(b.Context(), r, d.options)
	if err != nil {
		b.Fatal(err)
	}
	for i, s := range restored.Sources {
		if s.Refused != nil || s.Position.Counter != d.positions[i].Counter {
			b.Fatalf("%s is restored as %+v, want counter %d", s.Source, s, d.positions[i].Counter)
		}
	}
}
