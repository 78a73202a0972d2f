package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/producer"
	"cdrbus/schema"
)

// window is one window of a source on its way from the feed to Kafka: the sink
// of its pages first, and then, once every page was read, what a commit needs
// of it. It belongs to its lane until it is handed to the committer, and to the
// committer until a verdict comes back on settled.
type window struct {
	source  *source
	purpose cdr.Purpose
	counter cdr.Counter
	request poller.Request
	outcome poller.Outcome
	began   time.Time // local clock, before the first request

	draft    *producer.Draft
	pending  *offsets.Pending // nil: nothing was asked
	known    []cdr.ReportID   // of records met in this window and known already, doubles and all, until they are counted
	facts    facts
	share    *share // of the process's memory budget; nil: none
	headers  *headerBuilder
	encoders *encoderPool
	page     int
	sample   []byte           // the last event's value, for the status page
	unmapped map[string]int64 // values by field

	distinctIDs       int64            // once every page was read
	unproven          string           // why the receipt says unproven; empty: proven
	doubtful          bool             // it was incomplete, and is to be read again soon
	rounds            []cdr.SweepRound // as they are after it
	rechecks          []cdr.Recheck
	job               offsets.JobState // of an errand, as it is after it
	verify            *verification    // what is missing in the topic is published again; nil: nothing is
	repaired          map[cdr.ReportID]bool
	journal           [][]byte
	journalFrom       int64 // where the set's part of the ID journal begins
	schemaFingerprint uint32
	concluded         bool         // a verdict was given; the committer's
	settled           chan verdict // capacity 1: the committer never waits for a lane
}

// verdict is what became of a window that was handed over.
type verdict struct {
	position      offsets.Position // of the source, after the commit
	journalOffset int64            // no journal record of the commit lies before it
	err           error            // nil: committed. Else the window left no trace
}

// facts counts what the pages of a window held.
type facts struct {
	items, published, known, late, revised, deadLetters int64

	reports offsets.ReportTimes
	org     string
}

// Page implements [poller.PageSink].
func (w *window) Page(_ context.Context, n int, body []byte) error {
	encoder := w.encoders.take()
	defer w.encoders.put(encoder)
	w.page = n
	if err := encoder.Each(body, w.add); err != nil {
		return err
	}
	counts := encoder.PageCounts()
	w.noteUnmapped(counts.Unknown)
	w.noteUnmapped(counts.Unparseable)
	w.source.report(func(b *status.Source) {
		b.Current = status.Current{Span: w.request.Span, Purpose: w.purpose, Pages: n + 1, TotalCount: -1, Items: uint64(w.facts.items)}
	})
	return w.share.hold(w.bytes())
}

// noteUnmapped counts what went into the events' unmapped maps, by field.
func (w *window) noteUnmapped(fields map[string]int64) {
	if len(fields) > 0 && w.unmapped == nil {
		w.unmapped = map[string]int64{}
	}
	for field, n := range fields {
		w.unmapped[field] += n
	}
}

// bytes is what the window keeps in memory.
func (w *window) bytes() int64 {
	const bytesPerID = 24
	kept := w.draft.Bytes() + bytesPerID*int64(len(w.known))
	if w.pending != nil {
		kept += 2 * bytesPerID * int64(w.pending.Len()) // pending, and again as journal
	}
	return kept
}

// add takes one item of a page into the window, unless it was published already.
func (w *window) add(item *schema.Item) error {
	w.facts.items++
	if item.HasReportTime {
		w.facts.reports.Add(item.ReportTimeMillis)
	}
	if w.facts.org == "" {
		w.facts.org = string(item.OrgUUID)
	}
	seen := w.pending.Check(item.ID, item.Hash)
	if w.verify != nil && w.verify.lacks(item, w.request.Span.StartInclusive) && !w.repaired[item.ID] {
		w.repaired[item.ID] = true
		if seen == offsets.Known {
			w.known = append(w.known, item.ID)
			seen = offsets.New
		}
	}
	switch {
	case seen == offsets.Known:
		w.facts.known++
		w.known = append(w.known, item.ID)
		return nil
	case item.Reject != nil:
		return w.addDeadLetter(item)
	default:
		return w.addEvent(item, seen == offsets.Revised)
	}
}

// distinct counts the records of the window without its doubles: those that were known
// already, and those that it adds or revises, each of which may have come again.
func (w *window) distinct() int64 {
	if w.pending == nil {
		return 0
	}
	if len(w.known) == 0 && w.facts.revised == 0 {
		return int64(w.pending.Len())
	}
	// Sorted, because a map would take several times as much as the window counts.
	w.known = slices.AppendSeq(w.known, w.pending.IDs())
	slices.SortFunc(w.known, func(a, b cdr.ReportID) int { return bytes.Compare(a[:], b[:]) })
	w.known = slices.Compact(w.known)
	return int64(len(w.known))
}

// usualDelay is how long after its report time a record reaches cdr_stream at the
// latest, unless it is late.
const usualDelay = 5 * time.Minute

// late reports whether the record of an item should have come with an earlier
// window.
func (w *window) late(item *schema.Item) bool {
	if w.purpose == cdr.Sweep || w.purpose == cdr.Repair {
		return true
	}
	first := w.request.Commit.StartInclusive
	if w.request.Endpoint == cdr.Stream {
		first = first.Add(-usualDelay)
	}
	return item.HasReportTime && item.ReportTimeMillis < first.Time().UnixMilli()
}

// work is what kind of work the window is.
func (w *window) work() work { return workOf(w.purpose) }

// follows reports whether the window may be committed behind a position: its number
// is the next one, and if it follows the live edge of cdr_feed, it leaves no hole.
// cdr_stream may be skipped: how far cdr_feed was read says what is still to be had.
func (w *window) follows(before offsets.Position) bool {
	commit := w.request.Commit
	switch {
	case w.counter != before.Counter+1:
		return false
	case w.purpose == cdr.Start, commit.IsZero():
		return true
	case w.request.Endpoint == cdr.Stream:
		return commit.StartInclusive >= before.StreamPublished
	default:
		return commit.StartInclusive == before.FeedPublished
	}
}

func (w *window) addEvent(item *schema.Item, revised bool) error {
	late := w.late(item) && !revised
	if err := w.draft.Add(producer.Events, item.Key, item.Value, w.headers.event(item, late, revised)); err != nil {
		return err
	}
	w.facts.published++
	if late {
		w.facts.late++
	}
	if revised {
		w.facts.revised++
	}
	w.sample = append(w.sample[:0], item.Value...)
	return nil
}

// addDeadLetter keeps an item that cannot be an event, byte for byte. One that
// its topic cannot take in one record is cut in parts.
func (w *window) addDeadLetter(item *schema.Item) error {
	w.facts.deadLetters++
	raw := item.Reject.Raw
	sum := sha256.Sum256(raw)
	limit := w.draft.MaxValueBytes(producer.DeadLetters)
	parts := max(1, (len(raw)+limit-1)/limit)
	for part := range parts {
		end := min(len(raw), (part+1)*limit)
		headers := []kafka.Header{
			{Key: "cause", Value: []byte(item.Reject.Cause.String())},
			{Key: "window", Value: []byte(w.request.Span.String())},
			{Key: "counter", Value: strconv.AppendUint(nil, uint64(w.counter), 10)},
			{Key: "page", Value: strconv.AppendInt(nil, int64(w.page), 10)},
			{Key: "index", Value: strconv.AppendInt(nil, int64(item.Index), 10)},
			{Key: "sha256", Value: hex.AppendEncode(nil, sum[:])},
			{Key: "part", Value: []byte(strconv.Itoa(part+1) + "/" + strconv.Itoa(parts))},
		}
		if err := w.draft.Add(producer.DeadLetters, []byte(w.source.name), raw[part*limit:end], headers); err != nil {
			return err
		}
	}
	return nil
}

// discard gives up a window that was not handed over.
func (w *window) discard() {
	if w.pending != nil {
		w.pending.Discard()
	}
	w.release()
}

// release gives the window's memory back. The window must not be used again.
func (w *window) release() {
	w.share.release()
	w.draft, w.known, w.journal = nil, nil, nil
}

// receipt tells what the window was, for those who gate on it.
func (w *window) receipt(position offsets.Position, at time.Time) offsets.Receipt {
	receipt := offsets.Receipt{
		Source:     w.source.name,
		Counter:    w.counter,
		Purpose:    w.purpose,
		Endpoint:   w.request.Endpoint,
		Definition: position.Definition.String(),
		OrgUUID:    position.OrgUUID,

		Asked:      w.request.Span,
		Commit:     w.request.Commit,
		Requests:   int64(w.outcome.Requests),
		Pages:      int64(w.outcome.Pages),
		TotalCount: w.outcome.TotalCount,
		Bytes:      w.outcome.Bytes,

		Items:        w.facts.items,
		DistinctIDs:  w.distinctIDs,
		Published:    w.facts.published,
		AlreadyKnown: w.facts.known,
		Late:         w.facts.late,
		Revised:      w.facts.revised,
		DeadLetters:  w.facts.deadLetters,

		FirstRequestAt: w.outcome.FirstRequestAt,
		LastRequestAt:  w.outcome.LastRequestAt,
		ServerDate:     w.outcome.ServerDate,
		Waited:         w.outcome.Waited,
		Unproven:       w.unproven,
		CommitTime:     at,

		FeedPublished:     position.FeedPublished,
		FeedSettled:       position.FeedSettled,
		StreamPublished:   position.StreamPublished,
		OldestRecord:      position.OldestRecord,
		JournalFrom:       position.JournalFrom,
		SchemaFingerprint: position.SchemaFingerprint,
	}
	if t := w.facts.reports; t.EarliestMillis <= t.LatestMillis {
		receipt.FirstReportTime, receipt.LastReportTime = time.UnixMilli(t.EarliestMillis).UTC(), time.UnixMilli(t.LatestMillis).UTC()
	}
	switch w.purpose {
	case cdr.Gap:
		receipt.Gap, receipt.Asked = w.request.Commit, cdr.Span{}
	case cdr.Start:
		receipt.Commit = cdr.Span{}
	}
	return receipt
}

// summary is the window as the board shows it.
func (w *window) summary(position offsets.Position) status.Window {
	return status.Window{
		Source:       w.source.name,
		Counter:      w.counter,
		Span:         w.request.Span,
		Purpose:      w.purpose,
		Endpoint:     w.request.Endpoint,
		Pages:        w.outcome.Pages,
		Requests:     w.outcome.Requests,
		TotalCount:   w.outcome.TotalCount,
		Bytes:        uint64(w.outcome.Bytes),
		Items:        uint64(w.facts.items),
		Events:       uint64(w.facts.published),
		Known:        uint64(w.facts.known),
		Late:         uint64(w.facts.late),
		Revised:      uint64(w.facts.revised),
		DeadLetters:  uint64(w.facts.deadLetters),
		Unproven:     w.unproven,
		FetchSeconds: w.outcome.LastRequestAt.Sub(w.outcome.FirstRequestAt).Seconds(),
		WaitSeconds:  w.outcome.Waited.Seconds(),
		Published:    position.Published(),
		Settled:      position.FeedSettled,
	}
}
