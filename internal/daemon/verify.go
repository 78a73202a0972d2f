package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/eventlog"
	"cdrbus/offsets"
	"cdrbus/schema"
)

// verification holds a span of the feed against the events topic, in parts: so many
// events that memory does not grow with the span.
//
//  1. survey: how many events the topic has of the source, hour by hour
//  2. load: those of the next part                          (both beside the lane)
//  3. window by window, in the lane: catch up with what was published since, read the
//     feed again, and look up each record in the parts it may be of
//  4. conclude, where the feed is read well beyond a part: what is in the topic and was
//     not in the feed. Whoever goes on with the job begins behind the parts concluded
//
// With Repair the windows are committed, and publish what the topic lacks although it
// was published once. Nobody else publishes records of the source's credential while
// the lane reads, so what is missing after catching up is missing.
type verification struct {
	job     offsets.Job
	span    cdr.Span // what is read: what is left of the job's, and so much more that both ends are clear
	topic   string
	letters string // dead-letter topic
	shards  int    // its partitions: a source that was moved has letters in former shards
	source  string
	byID    func(ctx context.Context, id int) (string, error)
	reader  *committed.Reader
	limit   int // of events in a part, unless one hour has more

	until    cdr.Instant      // up to where parts are concluded
	before   offsets.Findings // in them
	parts    []*part          // loaded, in the order of time
	unloaded []cdr.Span       // of the parts to come
	loaded   *part            // on its way to the lane
	held     *holding         // of the parts and the maps
	mapsHeld int64            // of that, the maps

	surveyed bool
	next     eventlog.Place  // where catching up begins
	dead     map[string]bool // SHA-256 of dead letters
	nextDead []int64         // by partition; nil: not read yet
	foreign  int64

	missing map[cdr.ReportID]lack // as far as the feed may return it again
	pruneAt int                   // so many

	skips     []cdr.Span // what the feed no longer answers for
	begunAt   cdr.Instant
	skippedBy int64 // seconds of the job's span before that, by former owners
}

// part is what the events topic has of the source of a span of report times.
type part struct {
	span     cdr.Span
	first    bool // of the job's
	table    topicTable
	unheaded int64 // events that do not tell their source
	findings offsets.Findings
	held     *holding
	reported int64 // of that holding
}

// lack is a record that the topic was found to lack.
type lack struct {
	part  *part
	at    cdr.Instant // begin of the window that returned it
	still bool        // it was not published since
}

const (
	// verifyMargin is how far beyond a span the feed is read, so that a record which it
	// selects by another time than the report time is not taken for unexpected.
	verifyMargin = 4 * time.Hour
	// revisionMargin is by how much a revision may have moved a record's report time out
	// of a span.
	revisionMargin = 24 * time.Hour
	// verifyEvents is how many events a part has at most, in 40 bytes each, unless one
	// hour has more.
	verifyEvents = 1 << 19
	// verifySpan is how long a part is at most: as much is done again by whoever goes on
	// with the job.
	verifySpan = 7 * 24 * time.Hour
)

func (d *Daemon) newVerification(s *source, state *offsets.JobState, now time.Time) *verification {
	k, job := &d.config.Kafka, state.Job
	v := &verification{
		job: job, topic: k.Topics.Events, letters: k.Topics.DeadLetter, shards: k.Shards, source: string(s.name),
		byID: d.schemaByID, reader: d.reader, limit: d.verifyEvents, held: d.memory.newHolding(),
		dead: map[string]bool{}, missing: map[cdr.ReportID]lack{},
	}
	v.until, v.before, v.skippedBy = state.Conclusion()
	v.begunAt = v.until
	margin, oldest := v.until.Add(-verifyMargin), s.plan.Oldest(now).Add(time.Minute)
	v.span = cdr.Span{
		StartInclusive: min(v.until, max(margin, oldest, s.position.Start)),
		EndExclusive:   max(job.Span.EndExclusive, min(job.Span.EndExclusive.Add(verifyMargin), s.position.FeedPublished)),
	}
	if oldest > margin {
		v.skip(cdr.Span{StartInclusive: margin, EndExclusive: v.span.StartInclusive})
	}
	return v
}

// committedSince is when the first event of report times from start on can have been
// committed.
func committedSince(start cdr.Instant) time.Time {
	return start.Add(-verifyMargin).Time().Add(-2 * time.Hour)
}

// load reads what the topics have of the next part; the lane takes it. Meanwhile it asks
// nothing of the verification.
func (v *verification) load(ctx context.Context) error {
	if v.loaded != nil {
		return nil // by a try that failed later
	}
	if err := v.scanDead(ctx); err != nil {
		return err
	}
	if !v.surveyed {
		if err := v.survey(ctx); err != nil || v.loaded != nil {
			return err
		}
	}
	p := v.newPart(v.unloaded[0])
	ends, err := v.scan(ctx, eventlog.AtTime(committedSince(p.span.StartInclusive)), func(e *eventlog.Event) { v.offer(p, e) })
	if err != nil {
		p.drop()
		return err
	}
	v.next = v.next.Earlier(ends.Next()) // a new leader may answer for less
	v.unloaded = v.unloaded[1:]
	v.deliver(p)
	return nil
}

// survey counts what the topic has of the source, and divides what is left of the job's
// span. If that needs no division, its only part is then loaded.
func (v *verification) survey(ctx context.Context) error {
	left := cdr.Span{StartInclusive: v.until, EndExclusive: v.job.Span.EndExclusive}
	whole := v.newPart(left)
	events := make([]int64, (left.Duration()+time.Hour-1)/time.Hour)
	ends, err := v.scan(ctx, eventlog.AtTime(committedSince(v.job.Span.StartInclusive)), func(e *eventlog.Event) {
		if at := cdr.Instant(e.ReportTimeMillis / 1000); left.Contains(at) && (e.Source == "" || e.Source == v.source) {
			events[at.Sub(left.StartInclusive)/time.Hour]++
		}
		if whole == nil {
			return
		}
		if v.offer(whole, e); whole.table.n > v.limit*whole.worth() {
			whole.drop()
			whole = nil
		}
	})
	if err != nil {
		if whole != nil {
			whole.drop()
		}
		return err
	}
	v.next, v.foreign, v.surveyed = ends.Next(), ends.Skipped(), true
	if whole != nil && whole.worth() == 1 && left.Duration() > verifySpan {
		whole.drop()
		whole = nil
	}
	if whole != nil {
		v.deliver(whole)
	} else {
		v.unloaded = divide(left, events, int64(v.limit))
	}
	return nil
}

// worth is how many parts may be one. Of events without headers each would hold those of
// two more days.
func (p *part) worth() int {
	if p.unheaded > 0 {
		return 8
	}
	return 1
}

// divide cuts a span at full hours from its begin, so that no part has more than limit
// events unless one hour has, nor takes longer than verifySpan.
func divide(span cdr.Span, events []int64, limit int64) (parts []cdr.Span) {
	rest, n := span, int64(0)
	for hour, more := range events {
		cut := span.StartInclusive.Add(time.Duration(hour) * time.Hour)
		if n > 0 && more > 0 && n+more > limit || cut.Sub(rest.StartInclusive) >= verifySpan {
			parts = append(parts, cdr.Span{StartInclusive: rest.StartInclusive, EndExclusive: cut})
			rest.StartInclusive, n = cut, 0
		}
		n += more
	}
	return append(parts, rest)
}

func (v *verification) newPart(span cdr.Span) *part {
	return &part{span: span, first: span.StartInclusive == v.job.Span.StartInclusive, held: v.held}
}

// deliver makes a part ready to be asked.
func (v *verification) deliver(p *part) {
	p.table.sort(func(e topicEntry) {
		if p.contains(&e) || p.first && e.reportSeconds == 0 {
			p.findings.Doubled++
			p.list(e.finding("doubled"))
		}
	})
	for e := range p.table.all() {
		if p.contains(e) {
			p.findings.Events++
		}
	}
	p.report()
	v.loaded = p
}

// take lets the lane have what was loaded.
func (v *verification) take() {
	v.parts, v.loaded = append(v.parts, v.loaded), nil
}

// reach is up to where windows may be read with the parts that are loaded.
func (v *verification) reach() cdr.Instant {
	if len(v.unloaded) == 0 {
		return v.span.EndExclusive
	}
	return v.unloaded[0].StartInclusive.Add(-verifyMargin)
}

// wantsPart reports whether the next part must be loaded before a window. Where there is
// room it is loaded as long before as a call may last, of a feed that selects by its start.
func (v *verification) wantsPart(next cdr.Instant) bool {
	if len(v.unloaded) == 0 {
		return false
	}
	loaded := 0
	for _, p := range v.parts {
		loaded += p.table.n
	}
	return v.reach() <= next || loaded <= v.limit && v.unloaded[0].StartInclusive.Add(-revisionMargin) <= next
}

// windowEnd is up to where a window may go that begins at an instant: it lies within one
// part, so that what tells no time of its own belongs to the part of its window.
func (v *verification) windowEnd(start cdr.Instant) cdr.Instant {
	end := v.reach()
	for _, p := range v.parts {
		for _, bound := range []cdr.Instant{p.span.StartInclusive, p.span.EndExclusive} {
			if bound > start {
				end = min(end, bound)
			}
		}
	}
	return end
}

// partOf returns the part of an instant; nil if it is not loaded, or not of the job.
func (v *verification) partOf(at cdr.Instant) *part {
	for _, p := range v.parts {
		if p.span.Contains(at) {
			return p
		}
	}
	return nil
}

// catchUp concludes what lies well behind the next window, and reads what was published
// since, to the end. No window of the lane may be in flight. Other shards write to the
// events topic too: behind a transaction of theirs that is open lies what this one has
// committed, unseen.
func (v *verification) catchUp(ctx context.Context, next cdr.Instant) error {
	v.conclude(next)
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
	ends, err := v.scan(ctx, v.next, func(e *eventlog.Event) { // of a try that failed, some come again
		for _, p := range v.parts {
			v.offer(p, e)
		}
	})
	if err != nil {
		return err
	}
	v.next = ends.Next()
	v.foreign += ends.Skipped()
	if err := v.scanDead(ctx); err != nil {
		return err
	}
	v.reportMemory()
	return nil
}

func (v *verification) scan(ctx context.Context, from eventlog.Place, each func(*eventlog.Event)) (eventlog.Ends, error) {
	// One partition at a time: the answers of each that is read take 10 MiB and more.
	options := eventlog.Options{Topic: v.topic, From: from, SchemaByID: v.byID, Parallel: 1}
	ends, err := eventlog.Scan(ctx, v.reader, options, func(e *eventlog.Event) error {
		each(e)
		return nil
	})
	switch unread := ends.Lost + ends.Undecodable; {
	case err != nil:
		return ends, fmt.Errorf("read topic %s: %w", v.topic, err)
	case v.job.Repair && unread > 0:
		return ends, unfitError{fmt.Errorf("%d events of topic %s cannot be read (schemas that the registry has lost: %v): what they are would be published again; bring the schemas back, or verify without --repair", unread, v.topic, ends.LostIDs)}
	}
	return ends, nil
}

// reportMemory tells what the maps take, and each part.
func (v *verification) reportMemory() {
	const missingBytes, deadBytes = 72, 120 // with their maps' slack
	now := missingBytes*int64(len(v.missing)) + deadBytes*int64(len(v.dead))
	v.held.add(now - v.mapsHeld)
	v.mapsHeld = now
	for _, p := range v.parts {
		p.report()
	}
}

// report tells what the part takes.
func (p *part) report() {
	now := p.table.bytes()
	p.held.add(now - p.reported)
	p.reported = now
}

// drop gives back what the part holds.
func (p *part) drop() {
	p.held.add(-p.reported)
	p.table, p.reported = topicTable{}, 0
}

// offer adds an event to a part if it belongs there.
func (v *verification) offer(p *part, e *eventlog.Event) {
	const reportEvery = 1 << 14
	if !v.wants(p.span, e) {
		return
	}
	if e.Source == "" {
		p.unheaded++
	}
	p.table.add(topicEntry{
		id: e.ReportID, hash: e.Hash, comparable: e.Comparable, reportSeconds: uint32(e.ReportTimeMillis / 1000),
		partition: uint16(e.Partition), offset: e.Offset,
	})
	if p.table.n%reportEvery == 0 {
		p.report()
	}
}

// wants reports whether an event belongs to a span: the source's, of a report time
// within, or without one. From beyond the span only revisions are wanted, whose record
// may have been within it before; without headers, any event may be one, and any
// source's.
func (v *verification) wants(span cdr.Span, e *eventlog.Event) bool {
	at := cdr.Instant(e.ReportTimeMillis / 1000)
	switch {
	case e.Source != "" && e.Source != v.source:
		return false
	case e.ReportTimeMillis == 0, span.Contains(at):
		return true
	case e.Source != "" && !e.Revision:
		return false
	}
	around := cdr.Span{StartInclusive: span.StartInclusive.Add(-revisionMargin), EndExclusive: span.EndExclusive.Add(revisionMargin)}
	return around.Contains(at)
}

func (v *verification) scanDead(ctx context.Context) error {
	if v.nextDead == nil {
		from := make([]int64, v.shards)
		for partition := range from {
			var err error
			if from[partition], err = v.reader.OffsetAt(ctx, v.letters, partition, committedSince(v.until)); err != nil {
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

// contains reports whether an event is of the part, and not of another one.
func (p *part) contains(e *topicEntry) bool { return p.span.Contains(cdr.Instant(e.reportSeconds)) }

// lacks looks one item up that the feed returned for a window that begins at an instant,
// and reports whether the topic lacks it. A record from beyond the parts is not missed.
func (v *verification) lacks(item *schema.Item, at cdr.Instant) bool {
	if item.Reject != nil {
		return v.lacksLetter(item, at)
	}
	found := false
	for _, p := range v.parts {
		if e := p.table.find(item.ID); e != nil {
			found = true
			v.compare(p, e, item)
		}
	}
	if found {
		return false
	}
	missing, of := offsets.Finding{What: "missing", ReportID: string(item.ReportID), Key: string(item.Key)}, at
	if item.HasReportTime {
		of = cdr.Instant(item.ReportTimeMillis / 1000)
		missing.ReportTime = of.Time()
	}
	return v.miss(item.ID, of, at, false, missing)
}

func (v *verification) lacksLetter(item *schema.Item, at cdr.Instant) bool {
	hash := sha256.Sum256(item.Reject.Raw)
	sum := hex.EncodeToString(hash[:])
	return v.miss(item.ID, at, at, v.dead[sum], offsets.Finding{What: "missing", ReportID: "without a Report ID, SHA-256 " + sum})
}

// miss counts a record of the feed that is in no part, and belongs to the one of an
// instant. It reports whether the topic lacks it, which it does not if it is there as a
// dead letter.
func (v *verification) miss(id cdr.ReportID, of, at cdr.Instant, dead bool, finding offsets.Finding) bool {
	if known, counted := v.missing[id]; counted {
		return known.still
	}
	p := v.partOf(of)
	if p == nil {
		return false
	}
	p.findings.FeedRecords++
	v.missing[id] = lack{part: p, at: at, still: !dead}
	if !dead {
		p.findings.Missing++
		if !slices.ContainsFunc(v.before.Listed, func(f offsets.Finding) bool { return f.What == finding.What && f.ReportID == finding.ReportID }) {
			p.list(finding)
		}
	}
	return !dead
}

func (v *verification) compare(p *part, e *topicEntry, item *schema.Item) {
	if e.seen {
		return
	}
	e.seen = true
	if !p.contains(e) {
		return
	}
	p.findings.FeedRecords++
	if v.job.Fields && e.comparable && e.hash != item.Hash {
		p.findings.Different++
		different := e.finding("different")
		different.ReportID = string(item.ReportID)
		p.list(different)
	}
}

// repaired takes in that what was missing is committed.
func (v *verification) repaired(ids map[cdr.ReportID]bool) {
	for id := range ids {
		if known, counted := v.missing[id]; counted && known.still {
			known.still = false
			known.part.findings.Repaired++
			v.missing[id] = known
		}
	}
}

// skip takes in that the feed no longer answers for a span, or for more than was said of
// it before.
func (v *verification) skip(span cdr.Span) {
	if last := len(v.skips) - 1; last >= 0 && v.skips[last].StartInclusive == span.StartInclusive {
		v.skips[last] = span
		return
	}
	v.skips = append(v.skips, span)
}

// skippedSeconds is how much of the job's span before an instant was skipped.
func (v *verification) skippedSeconds(before cdr.Instant) int64 {
	n := v.skippedBy
	for _, skip := range v.skips {
		n += int64(max(0, min(skip.EndExclusive, before)-max(skip.StartInclusive, v.begunAt)))
	}
	return n
}

// unanswered reports whether the feed may not have returned a record only because it no
// longer answers for its time.
func (v *verification) unanswered(at cdr.Instant) bool {
	return slices.ContainsFunc(v.skips, func(skip cdr.Span) bool {
		return skip.StartInclusive.Add(-verifyMargin) <= at && at < skip.EndExclusive.Add(verifyMargin)
	})
}

// conclude gives up the parts that the feed is read well beyond, and what it will not
// return again.
func (v *verification) conclude(next cdr.Instant) {
	for len(v.parts) > 0 && v.parts[0].span.EndExclusive.Add(verifyMargin) <= next {
		p := v.parts[0]
		v.parts = v.parts[1:]
		v.until = p.span.EndExclusive
		v.before.Add(v.conclusion(p))
		p.drop()
	}
	if len(v.missing) > v.pruneAt {
		maps.DeleteFunc(v.missing, func(_ cdr.ReportID, l lack) bool { return l.at.Add(revisionMargin) < next }) // windows end half a day later at most
		v.pruneAt = 2*len(v.missing) + 1<<12
	}
}

// conclusion adds to the findings of a part what is in the topic and was not in the feed.
// What the lane itself has published meanwhile was, and of what the feed no longer
// answers for nothing is said.
func (v *verification) conclusion(p *part) offsets.Findings {
	end := *p
	if p.unheaded > 0 {
		return end.findings // an event that does not tell its source may be another source's
	}
	for e := range p.table.all() {
		if !e.seen && p.contains(e) && !v.unanswered(cdr.Instant(e.reportSeconds)) {
			end.findings.Unexpected++
			end.list(e.finding("unexpected"))
		}
	}
	return end.findings
}

// result is what was found, of which so much for good.
func (v *verification) result(done bool) (all offsets.Findings, concluded *offsets.Conclusion) {
	all.Add(v.before)
	for _, p := range v.parts {
		if done {
			all.Add(v.conclusion(p))
		} else {
			all.Add(p.findings)
		}
	}
	all.Foreign = v.foreign
	if !done && v.until > v.job.Span.StartInclusive {
		concluded = offsets.Conclude(v.until, v.before, v.skippedSeconds(v.until))
	}
	return all, concluded
}

// list adds to the list of what was found. Who has a copy of it does not see that.
func (p *part) list(finding offsets.Finding) {
	if listed := p.findings.Listed; len(listed) < offsets.MaxListed {
		p.findings.Listed = append(listed, finding)
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
		c.verify.lacks(item, c.request.Span.StartInclusive)
		return nil
	})
}
