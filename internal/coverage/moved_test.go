package coverage

import (
	"context"
	"slices"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// memoryLogs are the partitions of a topic in memory.
type memoryLogs []*memoryLog

func (l memoryLogs) Bounds(ctx context.Context, topic string, partition int) (committed.Bounds, error) {
	return l[partition].Bounds(ctx, topic, partition)
}

func (l memoryLogs) OffsetAt(ctx context.Context, topic string, partition int, at time.Time) (int64, error) {
	return l[partition].OffsetAt(ctx, topic, partition, at)
}

func (l memoryLogs) Read(ctx context.Context, topic string, partition int, from, until int64, each func(committed.Record) error) (int64, committed.Bounds, error) {
	return l[partition].Read(ctx, topic, partition, from, until, each)
}

// movedThere and back: acme commits in one shard, then in another, then in the first
// again. Each arrival has a receipt of its own, and so has each departure.
func movedThereAndBack(t *testing.T) (logs memoryLogs, now time.Time) {
	logs = memoryLogs{{}, {}, {}}
	var last offsets.Receipt
	write := func(shard int, purpose cdr.Purpose, counter int) {
		last = live("acme", counter)
		if last.Purpose = purpose; purpose == cdr.Mend {
			last.Asked, last.Commit, last.Items, last.Published, last.AlreadyKnown, last.DistinctIDs = cdr.Span{}, cdr.Span{}, 0, 0, 0, 0
		}
		logs[shard].receipt(t, last)
	}
	counter := 0
	for _, shard := range []int{0, 2, 0} {
		for i := range 12 {
			counter++
			switch {
			case i == 0 && counter > 1, i == 11:
				write(shard, cdr.Mend, counter)
			default:
				write(shard, cdr.Live, counter)
			}
		}
	}
	return logs, last.CommitTime
}

// TestMovedSource: what lies in former shards is told as if it lay in this one.
func TestMovedSource(t *testing.T) {
	logs, now := movedThereAndBack(t)
	reader := NewReader(logs, "t", len(logs), noSchema)
	span := cdr.Span{StartInclusive: noon, EndExclusive: noon + 36*60}
	reports, err := reader.Survey(t.Context(), map[cdr.SourceName]int{"acme": 0}, span, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := reports[0]
	if r.Counts.Windows != 31 || r.Counts.Published != 62 || r.Counter != 36 {
		t.Errorf("%+v, counter %d, want the windows of all shards", r.Counts, r.Counter)
	}
	if r.Seconds[Proven] < 31*60 { // each departure and arrival counts on, without a window
		t.Errorf("%d seconds are read: %+v", r.Seconds[Proven], r.Stretches)
	}

	l := NewLedger(func(context.Context) (*Reader, error) { return reader, nil }, map[cdr.SourceName]int{"acme": 0})
	for range 2 { // the second time it reads on
		calendar, err := l.Calendar(t.Context(), "acme", 1, now)
		if err != nil || calendar.Seconds[Proven] != r.Seconds[Proven] {
			t.Errorf("the ledger says %v, %v, want %v", calendar.Seconds, err, r.Seconds)
		}
		excerpt, err := l.Receipts(t.Context(), "acme", span, now)
		newest := func(a, b Entry) int { return int(b.Counter) - int(a.Counter) }
		if err != nil || len(excerpt.Receipts) != 31 || !slices.IsSortedFunc(excerpt.Receipts, newest) {
			t.Errorf("%d receipts, %v, want those of all shards, the newest first", len(excerpt.Receipts), err)
		}
	}
	logs[0].receipt(t, live("acme", 37))
	if calendar, err := l.Calendar(t.Context(), "acme", 1, now); err != nil || calendar.Counter != 37 {
		t.Errorf("counter %d, %v, want it to read on", calendar.Counter, err)
	}
}

// TestMendedWhereItIs: a reset is no move, and nothing else is read for it.
func TestMendedWhereItIs(t *testing.T) {
	logs := memoryLogs{{}, {}}
	for counter := range 3 {
		r := live("acme", counter+1)
		if counter == 1 {
			r.Purpose, r.Asked, r.Commit = cdr.Mend, cdr.Span{}, cdr.Span{}
		}
		logs[0].receipt(t, r)
	}
	if _, err := NewReader(logs, "t", len(logs), noSchema).Survey(t.Context(), map[cdr.SourceName]int{"acme": 0}, cdr.Span{StartInclusive: noon - 3600, EndExclusive: noon + 600}, nil); err != nil || logs[0].reads != 3 {
		t.Errorf("%d records were read, %v", logs[0].reads, err)
	}
}
