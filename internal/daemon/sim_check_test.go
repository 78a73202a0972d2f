package daemon_test

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

// ledger is what is committed of the topics, read by another client than cdrbus's.
type ledger struct {
	events, letters []*kgo.Record
	positions       []entry[offsets.Position]
	receipts        []entry[offsets.Receipt]
	ids             []entry[offsets.Chunk]
	jobs            []entry[offsets.JobState]
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
	repairs                  bool     // some of it is in the journal already
}

// check holds the topics against the promises.
func (s *simulation) check() {
	s.t.Helper()
	ledger := s.read()
	s.checkTruth(ledger)
	s.checkSources(ledger)
	s.checkTransactions(ledger)
	s.checkJournal(ledger)
	s.checkJobs(ledger)
	s.checkFeed()
	s.count(func(n *tally) { n.windows, n.events = len(ledger.receipts), len(ledger.events) })
}

// read reads all topics as committed readers do, and demands that no transaction
// holds these back.
func (s *simulation) read() *ledger {
	s.t.Helper()
	for topic, partitions := range s.topics.next {
		for p := range partitions {
			if info := s.cluster.Kafka.PartitionInfo(topic, p); info.LastStableOffset != info.HighWatermark {
				s.t.Errorf("a transaction hangs in %s-%d: stable to %d of %d", topic, p, info.LastStableOffset, info.HighWatermark)
			}
		}
	}
	if !s.remember() {
		s.t.Errorf("not everything that is committed can be read within %s", rememberPatience)
	}
	windows := s.topics.all("webex.cdr.windows")
	receipts, err := offsets.NewReceiptCodec(s.receiptSchema(windows))
	if err != nil {
		s.t.Fatal(err)
	}
	var positions, states []*kgo.Record
	for _, r := range s.topics.all("webex.cdr.offsets") {
		if _, isJob := offsets.JobOf(r.Key); isJob {
			states = append(states, r)
		} else {
			positions = append(positions, r)
		}
	}
	return &ledger{
		events: s.topics.all(eventsTopic), letters: s.topics.all("webex.cdr.deadletter"),
		positions: decoded(s, positions, offsets.DecodePosition),
		jobs:      decoded(s, states, offsets.DecodeJobState),
		receipts:  decoded(s, windows, receipts.Decode),
		ids:       decoded(s, s.topics.all("webex.cdr.ids"), offsets.DecodeChunk),
	}
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

func kgoHeader(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// truthOf is everything that jobs or the source itself can have asked for.
func (s *simulation) truthOf(organization string) iter.Seq[simulator.TruthRecord] {
	old := s.start.Add(-simOld)
	return func(yield func(simulator.TruthRecord) bool) {
		for _, span := range []cdr.Span{
			{StartInclusive: old, EndExclusive: old.Add(simBackfilled + time.Minute)},
			{StartInclusive: s.start.Add(-time.Hour), EndExclusive: cdr.InstantOf(time.Now())},
		} {
			for truth := range s.feed.Truth(organization, span) {
				if !yield(truth) {
					return
				}
			}
		}
	}
}

// traces are the events and dead letters of one record.
type traces struct {
	plain, revisions int       // that are there
	lost             int       // that were, until they were deleted
	first            time.Time // when it was published for the first time
}

// checkTruth: everything that the feed had is there, once, and each change once more
// and marked; and nothing else.
func (s *simulation) checkTruth(l *ledger) {
	s.t.Helper()
	found := s.tracesOf(l)
	for i, name := range simSources {
		scope := s.scopeOf(name)
		read := s.readOf(l, i)
		for truth := range s.truthOf(scope.organization) {
			if scope.location != "" && truth.Location != scope.location {
				continue
			}
			event, letter := daemon.EventSource(cdr.SourceName(name))+" "+truth.ReportID, name+" "+truth.SHA256
			trace := found[event]
			if trace == nil {
				trace = cmp.Or(found[letter], &traces{})
			}
			if why := read.wrong(&truth, trace); why != "" {
				s.t.Errorf("record %q of %s at %s, inserted %s later, %s: %+v", truth.ReportID, name, truth.ReportTime, truth.InsertTime.Sub(truth.ReportTime), why, *trace)
			}
			delete(found, event)
			delete(found, letter)
		}
	}
	for what := range found {
		s.t.Errorf("%q is of no record of the feed", what)
	}
}

// tracesOf finds events by source and Report ID, dead letters by source and hash.
func (s *simulation) tracesOf(l *ledger) map[string]*traces {
	found := map[string]*traces{}
	of := func(key string, r *kgo.Record) *traces {
		if found[key] == nil {
			found[key] = &traces{first: r.Timestamp}
		}
		if r.Timestamp.Before(found[key].first) {
			found[key].first = r.Timestamp
		}
		return found[key]
	}
	for _, r := range l.events {
		switch trace := of(kgoHeader(r, "ce_source")+" "+kgoHeader(r, "ce_id"), r); {
		case s.topics.lost(r):
			trace.lost++
		case kgoHeader(r, "revision") != "":
			trace.revisions++
		default:
			trace.plain++
		}
	}
	for _, r := range l.letters {
		if isFirstPart(r) {
			of(string(r.Key)+" "+kgoHeader(r, "sha256"), r).plain++
		}
	}
	return found
}

func (s *simulation) scopeOf(name string) scope {
	if scope, scoped := s.scopes[name]; scoped {
		return scope
	}
	return scope{organization: name}
}

// reach is what was read of a source.
type reach struct {
	published  cdr.Span    // by the source itself; of cdr_feed
	settled    cdr.Instant // from where on records may be late still, unset: nowhere
	streams    bool        // and cdr_stream, whatever came there
	backfilled []cdr.Span
	begun      []cdr.Span // may have been read as well
	repaired   []cdr.Span // since events were lost
}

func (s *simulation) readOf(l *ledger, i int) reach {
	name := simSources[i]
	read := reach{
		published: cdr.Span{StartInclusive: s.start, EndExclusive: s.publishedTo(l, name)}, settled: s.settled,
		streams: s.endpoints[i] != config.Feed,
	}
	if s.endInclusive(name) {
		read.begun = append(read.begun, cdr.Span{StartInclusive: read.published.EndExclusive, EndExclusive: read.published.EndExclusive + 1})
	}
	last := map[string]offsets.JobState{}
	for _, state := range l.jobs {
		last[state.value.Job.ID] = state.value
	}
	for _, state := range last {
		span := state.Job.Span
		switch {
		case string(state.Job.Source) != name:
		case state.Job.Kind == offsets.Backfill:
			read.backfilled = append(read.backfilled, cdr.Span{StartInclusive: span.StartInclusive, EndExclusive: state.Next})
			read.begun = append(read.begun, cdr.Span{StartInclusive: span.StartInclusive, EndExclusive: span.EndExclusive + 1})
		case state.Job.Repair && state.Phase == offsets.JobDone && state.Job.CreatedAt.After(s.topics.lostAt):
			read.repaired = append(read.repaired, span)
		}
	}
	return read
}

// endInclusive reports whether the feed has the quirk that a window's end belongs to it.
func (s *simulation) endInclusive(name string) bool {
	s.t.Helper()
	answers, err := s.feed.Answers(s.scopeOf(name).organization)
	if err != nil {
		s.t.Fatal(err)
	}
	return answers.EndInclusive
}

// wrong says what is wrong with what there is of a record; empty: nothing.
func (r *reach) wrong(truth *simulator.TruthRecord, t *traces) string {
	at := cdr.InstantOf(truth.ReportTime)
	holds := func(spans []cdr.Span) bool {
		return slices.ContainsFunc(spans, func(span cdr.Span) bool { return span.Contains(at) })
	}
	published := r.published.Contains(at)
	stillLate := r.settled > 0 && truth.Late && at >= r.settled
	revised := !truth.RevisedTime.IsZero()
	switch there := t.plain + t.revisions; {
	case t.plain > 1, t.revisions > 1, t.revisions > 0 && !revised:
		return "is there too often"
	case t.lost > 0 && there == 0 && holds(r.repaired):
		return "was lost and is not repaired"
	case t.lost > 0:
		return ""
	case there == 0 && (published && !stillLate || holds(r.backfilled)):
		return "is not there"
	case there > 0 && t.plain == 0:
		return "is there only as a revision"
	case there > 0 && !published && !r.streams && !holds(r.begun):
		return "was not asked for"
	case revised && published && at < r.settled && t.first.Before(truth.RevisedTime) && t.revisions == 0:
		return "was revised, and no event says so"
	}
	return ""
}

// publishedTo is up to where all of a source's records are there: what it was asked to
// reach, or, if it went on from there, how far it came.
func (s *simulation) publishedTo(l *ledger, name string) (last cdr.Instant) {
	if !s.swept() {
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
		at, stream := s.start, cdr.Instant(0)
		for i, p := range positions[name] {
			if p.Counter != cdr.Counter(i+1) {
				s.t.Errorf("position %d of %s has counter %d", i+1, name, p.Counter)
			}
			if i >= len(receipts[name]) {
				break
			}
			r := receipts[name][i]
			s.checkReceipt(r, p)
			if why := misplaced(r, p, at, stream); why != "" {
				s.t.Errorf("window %d of %s, %s %s of %s, %s", i+1, name, r.Purpose, r.Commit, r.Endpoint, why)
			}
			at, stream = p.FeedPublished, p.StreamPublished
		}
		if at != s.publishedTo(l, name) || len(receipts[name]) != len(positions[name]) {
			s.t.Errorf("%s ends at %s, want %s, with %d positions and %d receipts", name, at, s.until, len(positions[name]), len(receipts[name]))
		}
	}
}

// misplaced says why a window and its position do not follow what was published before;
// empty: they do. Only an edit goes back, and only an edit skips time of cdr_feed.
func misplaced(r offsets.Receipt, p offsets.Position, feed, stream cdr.Instant) string {
	switch {
	case r.Purpose == cdr.Mend:
		return ""
	case p.FeedPublished < feed || p.StreamPublished < stream:
		return fmt.Sprintf("goes back to %s and %s from %s and %s", p.FeedPublished, p.StreamPublished, feed, stream)
	case r.Purpose != cdr.Live:
		return ""
	case r.Endpoint == cdr.Stream && r.Commit.StartInclusive < stream:
		return fmt.Sprintf("begins before %s", stream)
	case r.Endpoint == cdr.Feed && r.Commit.StartInclusive != feed:
		return fmt.Sprintf("does not begin at %s", feed)
	}
	return ""
}

// checkReceipt: a receipt tells of the window that its position ends with.
func (s *simulation) checkReceipt(r offsets.Receipt, p offsets.Position) {
	s.t.Helper()
	if r.Counter != p.Counter || r.FeedPublished != p.FeedPublished || r.Purpose != cdr.Gap && r.Asked != p.LastWindow.Span {
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
		b.repairs = b.repairs || r.value.Purpose == cdr.Repair
	}
	for transaction, b := range books {
		journalled := b.journal == b.published+b.deadLetters || b.repairs && b.journal < b.published+b.deadLetters
		if b.events != b.published || b.letters != b.deadLetters || !journalled || !slices.Equal(b.positions, b.receipts) {
			s.t.Errorf("the transaction of %s is not whole: %+v", transaction, *b)
		}
	}
}

// checkJournal: the ID journal holds the IDs that are published, and no others. What a
// repair brings back it holds already.
func (s *simulation) checkJournal(l *ledger) {
	s.t.Helper()
	published, lost := map[cdr.ReportID]int{}, map[cdr.ReportID]bool{}
	for _, r := range l.events {
		id := cdr.ReportIDOf([]byte(kgoHeader(r, "ce_id")))
		lost[id] = lost[id] || s.topics.lost(r)
		published[id]++
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
		if n != 0 && !(n == 1 && lost[id]) {
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
		case simulator.WindowTooOld:
			if s.outage {
				continue // whoever asked stood still for longer than the planner allows for
			}
		case simulator.TooManyInitial, simulator.TooManyPages:
			if s.rivals || s.commands() {
				continue
			}
		}
		s.t.Errorf("the feed was asked wrongly: %s", v)
	}
}
