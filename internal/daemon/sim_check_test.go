package daemon_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

// ledger is what is committed of the topics, read by another client than cdrbus's.
type ledger struct {
	events, letters []*kgo.Record
	positions       []entry[offsets.Position]
	receipts        []entry[offsets.Receipt]
	ids             []entry[offsets.Chunk]
}

// entry is a decoded record and the transaction that committed it.
type entry[T any] struct {
	transaction string
	value       T
}

// transactionOf names the transaction of a record: each has an epoch of its own.
func transactionOf(r *kgo.Record) string {
	return fmt.Sprintf("producer %d epoch %d", r.ProducerID, r.ProducerEpoch)
}

// decoded decodes the records of a topic.
func decoded[T any](s *simulation, records []*kgo.Record, decode func([]byte) (T, error)) (entries []entry[T]) {
	s.t.Helper()
	for _, r := range records {
		value, err := decode(r.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		entries = append(entries, entry[T]{transactionOf(r), value})
	}
	return entries
}

// book is everything that one transaction committed.
type book struct {
	events, letters, journal int
	positions, receipts      []string // source and counter
	published, deadLetters   int      // as the receipts say
}

// check holds the topics against the promises.
func (s *simulation) check() {
	s.t.Helper()
	ledger := s.read()
	s.checkTruth(ledger)
	s.checkSources(ledger)
	s.checkTransactions(ledger)
	s.checkJournal(ledger)
	s.checkFeed()
	s.count(func(n *tally) { n.windows, n.events = len(ledger.receipts), len(ledger.events) })
}

// read reads all topics as committed readers do.
func (s *simulation) read() *ledger {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Brokers()...), kgo.Dialer(s.network.DialContext), kgo.DisableClientMetrics(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(s.partitions()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	records := map[string][]*kgo.Record{} // by topic
	for left := s.ends(); len(left) > 0; {
		client.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
			if partition := fmt.Sprint(r.Topic, r.Partition); r.Offset >= left[partition] {
				delete(left, partition)
			}
			if !r.Attrs.IsControl() {
				records[r.Topic] = append(records[r.Topic], r)
			}
		})
	}
	receipts, err := offsets.NewReceiptCodec(s.receiptSchema(records["webex.cdr.windows"]))
	if err != nil {
		s.t.Fatal(err)
	}
	return &ledger{
		events: records["webex.cdr.events"], letters: records["webex.cdr.deadletter"],
		positions: decoded(s, records["webex.cdr.offsets"], offsets.DecodePosition),
		receipts:  decoded(s, records["webex.cdr.windows"], receipts.Decode),
		ids:       decoded(s, records["webex.cdr.ids"], offsets.DecodeChunk),
	}
}

// ends returns the last offset of each partition that holds anything, and demands
// that no transaction holds its readers back.
func (s *simulation) ends() map[string]int64 {
	s.t.Helper()
	ends := map[string]int64{}
	for topic, partitions := range s.partitions() {
		for p := range partitions {
			info := s.cluster.Kafka.PartitionInfo(topic, p)
			if info.LastStableOffset != info.HighWatermark {
				s.t.Errorf("a transaction hangs in %s-%d: stable to %d of %d", topic, p, info.LastStableOffset, info.HighWatermark)
			}
			if info.LastStableOffset > 0 {
				ends[fmt.Sprint(topic, p)] = info.LastStableOffset - 1
			}
		}
	}
	return ends
}

func (s *simulation) receiptSchema(receipts []*kgo.Record) int {
	s.t.Helper()
	if len(receipts) == 0 {
		s.t.Fatal("there are no receipts")
	}
	id, err := offsets.ReceiptSchemaID(receipts[0].Value)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// partitions are all of them, from their beginning.
func (s *simulation) partitions() map[string]map[int32]kgo.Offset {
	all := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range map[string]int{"events": eventParts, "deadletter": fewShards, "offsets": fewShards, "windows": fewShards, "ids": fewShards} {
		all["webex.cdr."+topic] = map[int32]kgo.Offset{}
		for p := range partitions {
			all["webex.cdr."+topic][int32(p)] = kgo.NewOffset().AtStart()
		}
	}
	return all
}

func kgoHeader(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// checkTruth: everything that the feed had is there, once.
func (s *simulation) checkTruth(l *ledger) {
	s.t.Helper()
	found, letters, published := map[string]int{}, map[string]int{}, map[string]cdr.Instant{}
	for _, r := range l.events {
		found[kgoHeader(r, "ce_source")+" "+kgoHeader(r, "ce_id")]++
	}
	for _, r := range l.letters {
		if isFirstPart(r) {
			letters[string(r.Key)+" "+kgoHeader(r, "sha256")]++
		}
	}
	for _, name := range simSources {
		published[name] = s.publishedTo(l, name)
	}
	s.compareTruth(found, letters, published)
}

// publishedTo is up to where all of a source's records are there: what it was asked to
// reach, or, if it went on from there, what may still be late.
func (s *simulation) publishedTo(l *ledger, name string) (last cdr.Instant) {
	if !s.late {
		return s.until
	}
	for _, p := range l.positions {
		if string(p.value.Source) == name {
			last = p.value.FeedPublished
		}
	}
	return last
}

// isFirstPart tells one dead letter from its further parts.
func isFirstPart(r *kgo.Record) bool { return strings.HasPrefix(kgoHeader(r, "part"), "1/") }

// checkSources: the counters of each source rise by one, its windows follow one
// another from the start to the end, and each has a receipt that says so.
func (s *simulation) checkSources(l *ledger) {
	s.t.Helper()
	positions := map[string][]offsets.Position{}
	for _, p := range l.positions {
		positions[string(p.value.Source)] = append(positions[string(p.value.Source)], p.value)
	}
	receipts := map[string][]offsets.Receipt{}
	for _, r := range l.receipts {
		receipts[string(r.value.Source)] = append(receipts[string(r.value.Source)], r.value)
	}
	for _, name := range simSources {
		at := s.start
		for i, p := range positions[name] {
			if p.Counter != cdr.Counter(i+1) {
				s.t.Errorf("position %d of %s has counter %d", i+1, name, p.Counter)
			}
			if i >= len(receipts[name]) {
				break
			}
			r := receipts[name][i]
			s.checkReceipt(r, p)
			if r.Purpose != cdr.Sweep && r.Purpose != cdr.Start && r.Commit.StartInclusive != at || p.FeedPublished < at {
				s.t.Errorf("window %d of %s is %s and does not begin at %s", i+1, name, r.Commit, at)
			}
			at = p.FeedPublished
		}
		if at != s.publishedTo(l, name) || len(receipts[name]) != len(positions[name]) {
			s.t.Errorf("%s ends at %s, want %s, with %d positions and %d receipts", name, at, s.until, len(positions[name]), len(receipts[name]))
		}
	}
}

// checkReceipt: a receipt tells of the window that its position ends with.
func (s *simulation) checkReceipt(r offsets.Receipt, p offsets.Position) {
	s.t.Helper()
	if r.Counter != p.Counter || r.FeedPublished != p.FeedPublished || r.Asked != p.LastWindow.Span {
		s.t.Errorf("receipt %d of %s, %s to %s, does not fit position %d, %s to %s", r.Counter, r.Source, r.Asked, r.FeedPublished, p.Counter, p.LastWindow.Span, p.FeedPublished)
	}
	if r.Items != r.Published+r.AlreadyKnown+r.DeadLetters {
		s.t.Errorf("receipt %d of %s does not add up: %+v", r.Counter, r.Source, r)
	}
}

// checkTransactions: what one transaction committed is whole. Its receipts are of
// the windows that its positions tell of, and say as many events, dead letters
// and IDs as it holds.
func (s *simulation) checkTransactions(l *ledger) {
	s.t.Helper()
	books := map[string]*book{}
	of := func(transaction string) *book {
		if books[transaction] == nil {
			books[transaction] = &book{}
		}
		return books[transaction]
	}
	for _, r := range l.events {
		of(transactionOf(r)).events++
	}
	for _, r := range l.letters {
		if isFirstPart(r) {
			of(transactionOf(r)).letters++
		}
	}
	for _, c := range l.ids {
		of(c.transaction).journal += c.value.Len()
	}
	for _, p := range l.positions {
		b := of(p.transaction)
		b.positions = append(b.positions, fmt.Sprint(p.value.Source, p.value.Counter))
	}
	for _, r := range l.receipts {
		b := of(r.transaction)
		b.receipts = append(b.receipts, fmt.Sprint(r.value.Source, r.value.Counter))
		b.published += int(r.value.Published)
		b.deadLetters += int(r.value.DeadLetters)
	}
	for transaction, b := range books {
		if b.events != b.published || b.letters != b.deadLetters || b.journal != b.published+b.deadLetters || !slices.Equal(b.positions, b.receipts) {
			s.t.Errorf("the transaction of %s is not whole: %+v", transaction, *b)
		}
	}
}

// checkJournal: the ID journal holds the IDs that are published, and no others.
func (s *simulation) checkJournal(l *ledger) {
	s.t.Helper()
	published := map[cdr.ReportID]int{}
	for _, r := range l.events {
		published[cdr.ReportIDOf([]byte(kgoHeader(r, "ce_id")))]++
	}
	raw := map[string][]byte{} // of dead letters, their parts joined
	for _, r := range l.letters {
		letter := string(r.Key) + kgoHeader(r, "sha256")
		raw[letter] = append(raw[letter], r.Value...)
	}
	for letter := range maps.Values(raw) {
		published[cdr.ReportIDOfRaw(letter)]++
	}
	for _, c := range l.ids {
		for id := range c.value.All() {
			published[id]--
		}
	}
	for id, n := range published {
		if n != 0 {
			s.t.Errorf("record %s is published %d times more often than the journal tells", id, n)
		}
	}
}

// checkFeed: the feed was asked nothing that it does not allow. Two owners at a
// time cannot know of each other's requests, and a wait that the feed demanded ends
// with whoever waited.
func (s *simulation) checkFeed() {
	s.t.Helper()
	for _, v := range s.feed.Violations() {
		switch v.Kind {
		case simulator.TooImpatient:
			continue
		case simulator.TooManyInitial, simulator.TooManyPages:
			if s.rivals {
				continue
			}
		}
		s.t.Errorf("the feed was asked wrongly: %s", v)
	}
}
