package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/eventlog"
	"cdrbus/offsets"
	"cdrbus/schema"
)

// verification holds a span of the feed against the events topic:
//
//  1. load: what the topic has of the source, around the span     (beside the lane)
//  2. window by window, in the lane: catch up with what was published since, read the
//     feed again, and look up each record
//  3. conclude: what is in the topic and was not in the feed
//
// With Repair the windows are committed, and publish what the topic lacks although it
// was published once. Nobody else publishes records of the source's credential while
// the lane reads, so what is missing after catching up is missing.
type verification struct {
	job     offsets.Job
	span    cdr.Span // what is read: the job's, and so much more that both ends are clear
	topic   string
	letters string // dead-letter topic
	shards  int    // its partitions: a source that was moved has letters in former shards
	source  string
	byID    func(ctx context.Context, id int) (string, error)
	reader  *committed.Reader

	table     topicTable
	held      *holding        // the table and the maps
	dead      map[string]bool // SHA-256 of dead letters
	next      eventlog.Place
	nextDead  []int64               // by partition; nil: not read yet
	missing   map[cdr.ReportID]bool // true: still; false: it was counted, and is there
	unheadedN int64                 // events that do not tell their source
	findings  offsets.Findings
}

const (
	// verifyMargin is how far beyond a span the feed is read, so that a record which it
	// selects by another time than the report time is not taken for unexpected.
	verifyMargin = 4 * time.Hour
	// revisionMargin is by how much a revision may have moved a record's report time out
	// of a span.
	revisionMargin = 24 * time.Hour
)

func (d *Daemon) newVerification(s *source, job offsets.Job, now time.Time) *verification {
	k := &d.config.Kafka
	v := &verification{
		job: job, topic: k.Topics.Events, letters: k.Topics.DeadLetter, shards: k.Shards, source: string(s.name),
		byID: d.schemaByID, reader: d.reader, held: d.memory.newHolding(),
		dead: map[string]bool{}, missing: map[cdr.ReportID]bool{},
	}
	v.span = cdr.Span{
		StartInclusive: min(job.Span.StartInclusive, max(job.Span.StartInclusive.Add(-verifyMargin), s.plan.Oldest(now).Add(time.Minute), s.position.Start)),
		EndExclusive:   max(job.Span.EndExclusive, min(job.Span.EndExclusive.Add(verifyMargin), s.position.FeedPublished)),
	}
	return v
}

// since is when the first event of the span can have been committed.
func (v *verification) since() time.Time { return v.span.StartInclusive.Time().Add(-2 * time.Hour) }

// load reads what the topics have. It is done before the lane asks anything.
func (v *verification) load(ctx context.Context) error {
	v.table, v.dead, v.nextDead, v.unheadedN, v.findings = topicTable{}, map[string]bool{}, nil, 0, offsets.Findings{} // of a try that failed
	if err := v.scan(ctx, eventlog.AtTime(v.since())); err != nil {
		return err
	}
	v.table.sort(func(e topicEntry) {
		v.findings.Doubled++
		v.list(e.finding("doubled"))
	})
	for e := range v.table.all() {
		if v.inSpan(e) {
			v.findings.Events++
		}
	}
	return v.scanDead(ctx)
}

// catchUp reads what was published since, to the end. No window of the lane may be in
// flight. Other shards write to the events topic too: behind a transaction of theirs that
// is open lies what this one has committed, unseen.
func (v *verification) catchUp(ctx context.Context) error {
	partitions, err := v.reader.Partitions(ctx, v.topic)
	if err != nil {
		return err
	}
	for p := range partitions {
		if _, err := committed.AwaitStable(ctx, v.reader, v.topic, p); err != nil {
			return err
		}
	}
	for p := range v.shards {
		if _, err := committed.AwaitStable(ctx, v.reader, v.letters, p); err != nil {
			return err
		}
	}
	if err := v.scan(ctx, v.next); err != nil {
		return err
	}
	return v.scanDead(ctx)
}

func (v *verification) scan(ctx context.Context, from eventlog.Place) error {
	defer v.reportMemory()
	const reportEvery = 1 << 14
	events := 0
	// One partition at a time: the answers of each that is read take 10 MiB and more.
	options := eventlog.Options{Topic: v.topic, From: from, SchemaByID: v.byID, Parallel: 1}
	ends, err := eventlog.Scan(ctx, v.reader, options, func(e *eventlog.Event) error {
		if events++; events%reportEvery == 0 {
			v.reportMemory()
		}
		if !v.wants(e) {
			return nil
		}
		if e.Source == "" {
			v.unheadedN++
		}
		v.table.add(topicEntry{
			id: e.ReportID, hash: e.Hash, comparable: e.Comparable, reportSeconds: uint32(e.ReportTimeMillis / 1000),
			partition: uint16(e.Partition), offset: e.Offset,
		})
		return nil
	})
	v.findings.Foreign += ends.Skipped()
	v.next = ends.Next()
	switch unread := ends.Lost + ends.Undecodable; {
	case err != nil:
		return fmt.Errorf("read topic %s: %w", v.topic, err)
	case v.job.Repair && unread > 0:
		return unfitError{fmt.Errorf("%d events of topic %s cannot be read (schemas that the registry has lost: %v): what they are would be published again; bring the schemas back, or verify without --repair", unread, v.topic, ends.LostIDs)}
	}
	return nil
}

// reportMemory tells what the verification keeps in memory.
func (v *verification) reportMemory() {
	const missingBytes, deadBytes = 40, 120 // with their maps' slack
	v.held.set(v.table.bytes() + missingBytes*int64(len(v.missing)) + deadBytes*int64(len(v.dead)))
}

// wants reports whether an event belongs into the table: the source's, of the span that
// was asked for, or without a report time. From beyond the span only revisions are
// wanted, whose record may have been within it before; without headers, any event may
// be one, and any source's.
func (v *verification) wants(e *eventlog.Event) bool {
	at := cdr.Instant(e.ReportTimeMillis / 1000)
	switch {
	case e.Source != "" && e.Source != v.source:
		return false
	case e.ReportTimeMillis == 0, v.job.Span.Contains(at):
		return true
	case e.Source != "" && !e.Revision:
		return false
	}
	around := cdr.Span{StartInclusive: v.job.Span.StartInclusive.Add(-revisionMargin), EndExclusive: v.job.Span.EndExclusive.Add(revisionMargin)}
	return around.Contains(at)
}

func (v *verification) scanDead(ctx context.Context) error {
	if v.nextDead == nil {
		from := make([]int64, v.shards)
		for partition := range from {
			var err error
			if from[partition], err = v.reader.OffsetAt(ctx, v.letters, partition, v.since()); err != nil {
				return fmt.Errorf("read topic %s: %w", v.letters, err)
			}
		}
		v.nextDead = from
	}
	for partition, from := range v.nextDead {
		next, _, err := v.reader.Read(ctx, v.letters, partition, from, committed.LastStable, func(r committed.Record) error {
			for _, h := range r.Headers {
				if h.Key == "sha256" && string(r.Key) == v.source {
					v.dead[string(h.Value)] = true
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read topic %s: %w", v.letters, err)
		}
		v.nextDead[partition] = next
	}
	return nil
}

// inSpan reports whether an event belongs to the span that was asked for.
func (v *verification) inSpan(e *topicEntry) bool {
	return v.job.Span.Contains(cdr.Instant(e.reportSeconds))
}

// lacks looks one item of the feed up, and reports whether the topic lacks it. A
// record from beyond the span that was asked for is not missed.
func (v *verification) lacks(item *schema.Item) bool {
	if item.Reject != nil {
		return v.lacksLetter(item)
	}
	if e := v.table.find(item.ID); e != nil {
		v.compare(e, item)
		return false
	}
	within := !item.HasReportTime || v.job.Span.Contains(cdr.Instant(item.ReportTimeMillis/1000))
	if still, counted := v.missing[item.ID]; counted || !within {
		return still
	}
	v.missing[item.ID] = true
	v.findings.FeedRecords++
	v.findings.Missing++
	missing := offsets.Finding{What: "missing", ReportID: string(item.ReportID), Key: string(item.Key)}
	if item.HasReportTime {
		missing.ReportTime = time.Unix(item.ReportTimeMillis/1000, 0).UTC()
	}
	v.list(missing)
	return true
}

func (v *verification) lacksLetter(item *schema.Item) bool {
	if still, counted := v.missing[item.ID]; counted {
		return still
	}
	v.findings.FeedRecords++
	sum := sha256.Sum256(item.Reject.Raw)
	v.missing[item.ID] = !v.dead[hex.EncodeToString(sum[:])]
	if !v.missing[item.ID] {
		return false
	}
	v.findings.Missing++
	v.list(offsets.Finding{What: "missing", ReportID: "without a Report ID, SHA-256 " + hex.EncodeToString(sum[:])})
	return true
}

func (v *verification) compare(e *topicEntry, item *schema.Item) {
	if e.seen {
		return
	}
	e.seen = true
	if !v.inSpan(e) {
		return
	}
	v.findings.FeedRecords++
	if v.job.Fields && e.comparable && e.hash != item.Hash {
		v.findings.Different++
		different := e.finding("different")
		different.ReportID = string(item.ReportID)
		v.list(different)
	}
}

// conclude tells what is in the topic and was not in the feed.
func (v *verification) conclude() {
	if v.unheadedN > 0 {
		return // an event that does not tell its source may be another source's
	}
	for e := range v.table.all() {
		if _, missed := v.missing[e.id]; !e.seen && !missed && v.inSpan(e) { // or it was published meanwhile
			v.findings.Unexpected++
			v.list(e.finding("unexpected"))
		}
	}
}

func (v *verification) list(finding offsets.Finding) {
	if len(v.findings.Listed) < offsets.MaxListed {
		v.findings.Listed = append(v.findings.Listed, finding)
	}
}

// finding says what is wrong with an event.
func (e *topicEntry) finding(what string) offsets.Finding {
	finding := offsets.Finding{What: what, ReportID: uuidText(e.id), At: fmt.Sprintf("%d:%d", e.partition, e.offset)}
	if e.reportSeconds != 0 {
		finding.ReportTime = time.Unix(int64(e.reportSeconds), 0).UTC()
	}
	return finding
}

// uuidText writes an identity as the UUID that it is, unless the Report ID was none.
func uuidText(id cdr.ReportID) string {
	t := id.String()
	return strings.Join([]string{t[:8], t[8:12], t[12:16], t[16:20], t[20:]}, "-")
}

// comparison is the sink of a window that is read to be compared only.
type comparison struct{ *window }

// Page implements [poller.PageSink].
func (c comparison) Page(_ context.Context, _ int, body []byte) error {
	encoder := c.encoders.take()
	defer c.encoders.put(encoder)
	return encoder.Each(body, func(item *schema.Item) error {
		c.facts.items++
		c.verify.lacks(item)
		return nil
	})
}
