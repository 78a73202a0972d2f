package offsets_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/offsets"
)

const (
	shard       = 1
	shards      = 2
	prefix      = "test"
	fingerprint = 7
	start       = cdr.Instant(1795305600) // 2026-11-22T00:00:00Z
)

var definition = offsets.NewDefinition("feed", "localhost", "/v1/cdr_feed", nil)

// world is an embedded broker with the topics of one shard, and what ought to be in
// them.
type world struct {
	t       *testing.T
	brokers []string
	reader  *committed.Reader
	random  *rand.Rand
	want    map[string][]string // by source: the events of its committed windows, in order
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	cluster, err := embedded.Start(embedded.Options{Kafka: []kfake.Opt{kfake.SeedTopics(shards, "events", "offsets", "windows", "ids")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), DialContext: cluster.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(client) })
	return &world{t: t, brokers: cluster.Brokers(), reader: committed.NewReader(client), random: rand.New(rand.NewPCG(seed, 0)), want: map[string][]string{}}
}

func (w *world) producer(transactionalID string) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.TransactionalID(transactionalID), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	return client
}

// owner is one incarnation of a shard's owner: a credential group of two sources.
type owner struct {
	*world
	client    *kgo.Client
	seen      *offsets.Seen
	receipts  *offsets.ReceiptCodec
	restored  *offsets.Restored
	positions map[cdr.SourceName]offsets.Position
}

var sources = []cdr.SourceName{"acme", "beta"}

func restoreOptions() offsets.RestoreOptions {
	o := offsets.RestoreOptions{OffsetsTopic: "offsets", WindowsTopic: "windows", Shard: shard, Shards: shards, Partitions: shards, Prefix: prefix}
	for _, s := range sources {
		o.Expect = append(o.Expect, offsets.Expectation{Source: s, Definition: definition})
	}
	return o
}

// takeOver fences the former owner, restores, and gives new sources their first
// position.
func (w *world) takeOver() *owner {
	w.t.Helper()
	client := w.producer(prefix + ".offsets.1")
	if _, _, err := client.ProducerID(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	o := &owner{world: w, client: client, positions: map[cdr.SourceName]offsets.Position{}}
	var err error
	if o.receipts, err = offsets.NewReceiptCodec(1); err != nil {
		w.t.Fatal(err)
	}
	if o.restored, err = offsets.Restore(w.t.Context(), w.reader, restoreOptions()); err != nil {
		w.t.Fatal(err)
	}
	o.takePositions()
	if o.seen, err = o.rebuild(); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range sources {
		if _, found := o.positions[s]; !found {
			first := offsets.Position{Source: s, Definition: definition, TransactionalPrefix: prefix, Shard: shard, Shards: shards, FeedPublished: start, FeedSettled: start}
			o.positions[s] = first
			o.commit(s, 0, cdr.Start, true)
		}
	}
	return o
}

func (o *owner) takePositions() {
	o.t.Helper()
	for _, s := range o.restored.Sources {
		if s.Refused != nil {
			o.t.Fatal(s.Refused)
		}
		if !s.New {
			o.positions[s.Source] = s.Position
		}
	}
}

func (o *owner) rebuild() (*offsets.Seen, error) {
	results, err := offsets.RestoreSeen(o.t.Context(), o.reader, offsets.SeenOptions{Topic: "ids", Partition: shard, Positions: slices.Collect(maps.Values(o.positions))})
	switch {
	case err != nil:
		return nil, err
	case len(results[0].Refused) > 0 || results[0].Cut != nil:
		return nil, fmt.Errorf("rebuilt with %+v", results[0])
	}
	return results[0].Seen, nil
}

// commit publishes a window of n records, most of which came before, and either
// commits it or aborts it and reads the log again, as after an unknown outcome.
func (o *owner) commit(source cdr.SourceName, n int, purpose cdr.Purpose, succeed bool) {
	o.t.Helper()
	ctx := o.t.Context()
	position := o.positions[source]
	span := cdr.Span{StartInclusive: position.FeedPublished, EndExclusive: position.FeedPublished.Add(10 * time.Minute)}
	position.Counter++
	position.FeedPublished = span.EndExclusive
	position.LastWindow = offsets.WindowSummary{Span: span, Endpoint: cdr.Feed, Purpose: purpose}
	position.JournalFrom = o.seen.JournalFrom()

	if err := o.client.BeginTransaction(); err != nil {
		o.t.Fatal(err)
	}
	pending := o.seen.Begin(offsets.Window{ID: cdr.WindowID{Source: source, Counter: position.Counter}, Span: span, SchemaFingerprint: fingerprint})
	receipt := offsets.Receipt{Source: source, Counter: position.Counter, Purpose: purpose, Endpoint: cdr.Feed, Asked: span, TotalCount: -1, CommitTime: time.Now()}
	events := o.window(pending, source, n, &receipt)
	journalAt := int64(0)
	for i, value := range pending.AppendJournal(nil, offsets.NoReportTimes) {
		offset := o.produce("ids", shard, string(source), value)
		if i == 0 {
			journalAt = offset
		}
	}
	value, err := o.receipts.Encode(receipt)
	if err != nil {
		o.t.Fatal(err)
	}
	o.produce("windows", shard, string(source), value)
	if value, err = position.Encode(); err != nil {
		o.t.Fatal(err)
	}
	o.produce("offsets", shard, string(source), value)
	if err := o.client.EndTransaction(ctx, kgo.TransactionEndTry(succeed)); err != nil {
		o.t.Fatal(err)
	}
	o.settle(source, position.Counter, succeed)
	if succeed {
		pending.Adopt(journalAt)
		o.want[string(source)] = append(o.want[string(source)], events...)
	} else {
		pending.Discard()
	}
}

// window checks n records and produces those to publish.
func (o *owner) window(pending *offsets.Pending, source cdr.SourceName, n int, receipt *offsets.Receipt) (events []string) {
	for range n {
		number, hash := o.random.IntN(200), uint64(o.random.IntN(20)/19)
		verdict := pending.Check(cdr.ReportIDOf(fmt.Append(nil, source, number)), hash)
		receipt.Items++
		switch verdict {
		case offsets.Known:
			receipt.AlreadyKnown++
			continue
		case offsets.Revised:
			receipt.Revised++
		}
		receipt.Published++
		event := fmt.Sprintf("%d %s %d", number, verdict, hash)
		o.produce("events", int32(number%shards), string(source), []byte(event))
		events = append(events, event)
	}
	return events
}

// settle asks the log, as after an unknown outcome, and lets it decide.
func (o *owner) settle(source cdr.SourceName, counter cdr.Counter, want bool) {
	o.t.Helper()
	var err error
	if o.restored, err = offsets.ReadPositions(o.t.Context(), o.reader, o.restored); err != nil {
		o.t.Fatal(err)
	}
	o.takePositions()
	if got := o.positions[source].Counter == counter; got != want {
		o.t.Fatalf("%s is at %d after counter %d was committed: %v", source, o.positions[source].Counter, counter, want)
	}
}

func (o *owner) produce(topic string, partition int32, key string, value []byte) int64 {
	o.t.Helper()
	r, err := o.client.ProduceSync(o.t.Context(), &kgo.Record{Topic: topic, Partition: partition, Key: []byte(key), Value: value}).First()
	if err != nil {
		o.t.Fatal(err)
	}
	return r.Offset
}

// TestLogDecides lives through commits, aborts and changes of owner on a broker. After
// it every record is published once, revisions in their order, and each restart knows
// all of them again.
func TestLogDecides(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			o := w.takeOver()
			for range 60 {
				source := sources[w.random.IntN(2)]
				switch w.random.IntN(10) {
				case 0:
					o.client.Close()
					o = w.takeOver()
				case 1, 2:
					o.commit(source, w.random.IntN(40), cdr.Live, false)
				default:
					o.commit(source, w.random.IntN(40), cdr.Live, true)
				}
			}
			w.check()
		})
	}
}

// check reads the committed events: exactly those of the committed windows, each
// content of an ID once in a row.
func (w *world) check() {
	w.t.Helper()
	got := map[string][]string{}
	for partition := range shards {
		if _, _, err := w.reader.Read(w.t.Context(), "events", partition, 0, committed.LastStable, func(r committed.Record) error {
			got[string(r.Key)] = append(got[string(r.Key)], string(r.Value))
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, source := range sources {
		published := got[string(source)]
		last := map[string]string{}
		for _, event := range published {
			fields := strings.Fields(event)
			number, verdict, hash := fields[0], fields[1], fields[2]
			if before, known := last[number]; known != (verdict == "revised") || before == hash {
				w.t.Errorf("%s: record %s with content %s comes as %s after content %q", source, number, hash, verdict, before)
			}
			last[number] = hash
		}
		want := slices.Clone(w.want[string(source)])
		slices.Sort(published)
		slices.Sort(want)
		if len(published) == 0 || !slices.Equal(published, want) {
			w.t.Errorf("%s: %d events are committed, want %d", source, len(published), len(want))
		}
	}
}

// TestHangingTransactionOnABroker: an open transaction of nobody's stops the restore of
// its shard, and of that shard only.
func TestHangingTransactionOnABroker(t *testing.T) {
	w := newWorld(t, 1)
	o := w.takeOver()
	o.commit("acme", 5, cdr.Live, true)
	foreign := w.producer("somebody")
	if err := foreign.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	intruder := &owner{world: w, client: foreign}
	hangsAt := intruder.produce("offsets", shard, "acme", []byte("half done"))
	var hanging *offsets.HangingTransaction
	if _, err := offsets.Restore(t.Context(), w.reader, restoreOptions()); !errors.As(err, &hanging) || hanging.Bounds.LastStable != hangsAt {
		t.Fatalf("got %v, want a hanging transaction at %d", err, hangsAt)
	}
	other := restoreOptions()
	other.Shard = 0
	restored, err := offsets.Restore(t.Context(), w.reader, other)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range restored.Sources {
		if s.Refused == nil || s.Refused.Code != offsets.PositionElsewhere || s.Refused.Partition != shard {
			t.Errorf("%s in the wrong shard is %+v", s.Source, s)
		}
	}
	if err := foreign.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	restored, err = offsets.Restore(t.Context(), w.reader, restoreOptions())
	if err != nil || restored.Sources[0].Position.Counter != 2 {
		t.Errorf("after the abort got %+v, %v", restored, err)
	}
}

// TestLargeJournalOnABroker rebuilds a set whose windows take several chunks.
func TestLargeJournalOnABroker(t *testing.T) {
	w := newWorld(t, 1)
	o := w.takeOver()
	const n = 60_000
	position := o.positions["acme"]
	position.Counter, position.LastWindow.Purpose = 2, cdr.CatchUp
	o.positions["acme"] = position
	var id cdr.ReportID
	pending := o.seen.Begin(offsets.Window{ID: cdr.WindowID{Source: "acme", Counter: position.Counter}, Span: cdr.Span{StartInclusive: start, EndExclusive: start + 60}, SchemaFingerprint: fingerprint})
	for i := range uint64(n) {
		binary.BigEndian.PutUint64(id[:], i)
		pending.Check(id, i)
	}
	if err := o.client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, value := range pending.AppendJournal(nil, offsets.NoReportTimes) {
		o.produce("ids", shard, "acme", value)
	}
	if err := o.client.EndTransaction(context.Background(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	seen, err := o.rebuild()
	if err != nil || seen.Len() != n {
		t.Errorf("rebuilt %d records, %v; want %d", seen.Len(), err, n)
	}
}

var _ offsets.Reader = (*committed.Reader)(nil)
