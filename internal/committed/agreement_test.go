package committed_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
)

// sentinel is the key of the last stable record.
const sentinel = "sentinel"

// These tests read a partition that foreign clients have written, and compare
// with what foreign clients read: franz-go's kgo, and kcat on a real Kafka.

func TestAgreesWithKgoOnEmbeddedKafka(t *testing.T) {
	cluster := startEmbedded(t)
	client := newClient(t, cluster.Brokers())
	createTopic(t, client, map[string]string{"cleanup.policy": "compact"})
	w := writeHistory(t, cluster.Brokers())
	checkAgreement(t, client, cluster.Brokers(), w)
	before := len(readAll(t, client, committed.Earliest))
	cluster.Kafka.Compact()
	checkAgreement(t, client, cluster.Brokers(), w)
	if after := len(readAll(t, client, committed.Earliest)); after >= before {
		t.Errorf("%d records before and %d after compaction: nothing was compacted", before, after)
	}
}

// TestAgreesWithKgoAndKcatOnKafka lets the real cleaner run, with markers going
// at once, so that aborted data, markers and whole batches are missing.
func TestAgreesWithKgoAndKcatOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, Properties: map[string]string{"log.cleaner.backoff.ms": "200"}})
		client := newClient(t, cluster.Bootstrap())
		createTopic(t, client, map[string]string{
			"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001",
			"delete.retention.ms": "0", "max.compaction.lag.ms": "100",
		})
		w := writeHistory(t, cluster.Bootstrap())
		before := len(readAll(t, client, committed.Earliest))
		kafkatest.Eventually(t, 60*time.Second, "the cleaner has run", func() error {
			// The active segment is never cleaned, and how much it holds depends on how
			// fast the history was written.
			if after := len(readAll(t, client, committed.Earliest)); after >= before*3/4 {
				return fmt.Errorf("%d of %d records remain", after, before)
			}
			return nil
		})
		checkAgreement(t, client, cluster.Bootstrap(), w)
		checkKcat(t, client, cluster.Bootstrap()[0])
	})
}

const topic = "history"

func startEmbedded(t *testing.T) *embedded.Cluster {
	t.Helper()
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() }) // after the clients, which wait for a broker that is gone
	return cluster
}

func newClient(t *testing.T, brokers []string) *kafka.Client {
	t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: brokers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(client) })
	return client
}

func createTopic(t *testing.T, client *kafka.Client, settings map[string]string) {
	t.Helper()
	config := kafka.TopicConfig{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}
	for key, value := range settings {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	resp, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err == nil {
		err = resp.Errors[topic]
	}
	if err != nil {
		t.Fatal(err)
	}
}

// writer writes the history, as three transactional producers and one without
// transactions, each with another compression.
type writer struct {
	t         *testing.T
	clients   []*kgo.Client
	open      []bool
	committed int // transactions
	aborted   int
}

var compressions = []kgo.CompressionCodec{kgo.ZstdCompression(), kgo.GzipCompression(), kgo.Lz4Compression(), kgo.SnappyCompression()}

const plainProducer = 3 // writes without transactions

// writeHistory leaves one transaction open, so that the log has an unstable end.
func writeHistory(t *testing.T, brokers []string) *writer {
	t.Helper()
	w := &writer{t: t, open: make([]bool, plainProducer+1)}
	for i, compression := range compressions {
		opts := []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(compression)}
		if i != plainProducer {
			opts = append(opts, kgo.TransactionalID(fmt.Sprintf("writer-%d", i)), kgo.TransactionTimeout(10*time.Minute))
		}
		client, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		w.clients = append(w.clients, client)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		switch i := random.IntN(len(w.clients)); {
		case i != plainProducer && w.open[i] && random.IntN(3) == 0:
			w.end(i, random.IntN(2) == 0)
		default:
			w.produce(i, random)
		}
	}
	for i := range plainProducer {
		w.end(i, true)
	}
	w.send(plainProducer, &kgo.Record{Key: []byte(sentinel)})
	w.produce(0, random)
	if w.committed < 5 || w.aborted < 5 {
		t.Fatalf("the history has %d committed and %d aborted transactions, too few to prove anything", w.committed, w.aborted)
	}
	return w
}

func (w *writer) produce(i int, random *rand.Rand) {
	if i != plainProducer && !w.open[i] {
		if err := w.clients[i].BeginTransaction(); err != nil {
			w.t.Fatal(err)
		}
		w.open[i] = true
	}
	var records []*kgo.Record
	for range 1 + random.IntN(20) {
		r := &kgo.Record{Key: fmt.Appendf(nil, "key-%d", random.IntN(40)), Value: make([]byte, random.IntN(3000))}
		for j := range r.Value {
			r.Value[j] = byte(random.IntN(256))
		}
		switch random.IntN(25) {
		case 0, 1, 2:
			r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "empty", Value: nil}}
		case 3, 4, 5:
			r.Value = []byte{}
		case 6:
			r.Value = bytes.Repeat(r.Value, 100) // over several of kafka-go's pages
		}
		records = append(records, r)
	}
	w.send(i, records...)
}

func (w *writer) send(i int, records ...*kgo.Record) {
	if err := w.clients[i].ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) end(i int, commit bool) {
	if !w.open[i] {
		return
	}
	if err := w.clients[i].EndTransaction(w.t.Context(), kgo.TransactionEndTry(commit)); err != nil {
		w.t.Fatal(err)
	}
	w.open[i] = false
	if commit {
		w.committed++
	} else {
		w.aborted++
	}
}

// line is a record in a form that compares and prints.
func line(offset int64, key, value []byte, headers int, timestamp time.Time) string {
	return fmt.Sprintf("%d %q %d %x %d %d", offset, key, len(value), value[:min(8, len(value))], headers, timestamp.UnixMilli())
}

func readAll(t *testing.T, client *kafka.Client, from int64) []string {
	t.Helper()
	var lines []string
	next, bounds, err := committed.NewReader(client).Read(t.Context(), topic, 0, from, committed.LastStable, func(r committed.Record) error {
		lines = append(lines, line(r.Offset, r.Key, r.Value, len(r.Headers), r.Timestamp))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if next != bounds.LastStable {
		t.Errorf("reading from %d ended at %d, want the last stable offset %d", from, next, bounds.LastStable)
	}
	return lines
}

func readWithKgo(t *testing.T, brokers []string, from int64) []string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(from)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var lines []string
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("kgo from %d after %d records: %v", from, len(lines), err)
		}
		for _, r := range fetches.Records() {
			lines = append(lines, line(r.Offset, r.Key, r.Value, len(r.Headers), r.Timestamp))
			if string(r.Key) == sentinel {
				return lines
			}
		}
	}
}

// checkAgreement reads from the start and from offsets all over the log.
func checkAgreement(t *testing.T, client *kafka.Client, brokers []string, w *writer) {
	t.Helper()
	bounds, err := committed.NewReader(client).Bounds(t.Context(), topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	if bounds.LastStable >= bounds.HighWatermark {
		t.Errorf("bounds %+v, want an unstable end", bounds)
	}
	all := readWithKgo(t, brokers, bounds.LogStart)
	for unlike := disagreement(t, client, all, bounds); unlike != ""; unlike = disagreement(t, client, all, bounds) {
		again := readWithKgo(t, brokers, bounds.LogStart)
		if slices.Equal(again, all) {
			t.Fatal(unlike)
		}
		all = again // the cleaner came between
	}
	if last := all[len(all)-1]; !strings.Contains(last, sentinel) {
		t.Errorf("the last record is %s, want the sentinel", last)
	}
	if !w.open[0] {
		t.Error("the history has no open transaction")
	}
}

// disagreement tells where a reading is not what kgo has read; empty: nowhere.
func disagreement(t *testing.T, client *kafka.Client, all []string, bounds committed.Bounds) string {
	t.Helper()
	for from := bounds.LogStart; from < bounds.LastStable; from += 1 + bounds.LastStable/30 {
		want := all[slices.IndexFunc(all, func(l string) bool { return offsetOf(l) >= from }):]
		if got := readAll(t, client, from); !slices.Equal(got, want) {
			return fmt.Sprintf("reading from %d: %d records, kgo reads %d\n%s", from, len(got), len(want), difference(got, want))
		}
	}
	return ""
}

func offsetOf(line string) (offset int64) {
	fmt.Sscan(line, &offset)
	return offset
}

func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			return fmt.Sprintf("from record %d on:\n got  %s\n want %s", i, strings.Join(got[i:min(len(got), i+3)], "\n      "), strings.Join(want[i:min(len(want), i+3)], "\n      "))
		}
	}
	return "none"
}

func checkKcat(t *testing.T, client *kafka.Client, bootstrap string) {
	t.Helper()
	for want := readForKcat(t, client); ; {
		// %S is the length of the value; kcat writes -1 for null.
		got := strings.ReplaceAll(string(kafkatest.KcatRead(t, bootstrap, topic, "%o %k %S\n")), " -1\n", " 0\n")
		again := readForKcat(t, client)
		if got == again {
			return
		}
		if again == want {
			t.Fatalf("kcat reads something else: %s", difference(strings.Split(want, "\n"), strings.Split(got, "\n")))
		}
		want = again // the cleaner came between
	}
}

// readForKcat is the log as kcat is asked to print it.
func readForKcat(t *testing.T, client *kafka.Client) string {
	t.Helper()
	var want strings.Builder
	_, _, err := committed.NewReader(client).Read(t.Context(), topic, 0, committed.Earliest, committed.LastStable, func(r committed.Record) error {
		fmt.Fprintf(&want, "%d %s %d\n", r.Offset, r.Key, len(r.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return want.String()
}

func TestOffsetLookups(t *testing.T) {
	cluster := startEmbedded(t)
	client := newClient(t, cluster.Brokers())
	createTopic(t, client, nil)
	producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.Brokers()...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	base := time.UnixMilli(1_700_000_000_000)
	for i := range 3 {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Timestamp: base.Add(time.Duration(i) * time.Minute)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	reader := committed.NewReader(client)
	for _, c := range []struct {
		at   time.Time
		want int64
	}{{base.Add(-time.Hour), 0}, {base, 0}, {base.Add(time.Second), 1}, {base.Add(2 * time.Minute), 2}, {base.Add(time.Hour), 3}} {
		if got, err := reader.OffsetAt(t.Context(), topic, 0, c.at); err != nil || got != c.want {
			t.Errorf("OffsetAt(base%+d min) = %d, %v; want %d", c.at.Sub(base)/time.Minute, got, err, c.want)
		}
	}
	if got, err := reader.Partitions(t.Context(), topic); err != nil || got != 1 {
		t.Errorf("Partitions = %d, %v; want 1", got, err)
	}
}
