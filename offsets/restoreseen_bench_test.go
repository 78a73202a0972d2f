//go:build unix

package offsets

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/cputime"
)

// journalOf returns a log with the ID journal of n records, in windows of 10,000 and of
// 10 minutes, and the position behind it.
func journalOf(n int) (*memoryLog, Position) {
	s, logs, windows := NewSeen(0), newLog(), 0
	logs.trusting = true
	for ids := randomIDs(n, 1); len(ids) > 0; windows++ {
		part := ids[:min(10_000, len(ids))]
		ids = ids[len(part):]
		p := s.Begin(window(windows, schemaA))
		for _, id := range part {
			p.Check(id, 1)
		}
		for _, value := range p.AppendJournal(nil, NoReportTimes) {
			logs.append("ids", 1, "acme", value)
		}
		p.Adopt(int64(windows))
	}
	return logs, journalPosition("acme", cdr.Counter(windows), 0)
}

// reportLoading tells how fast IDs are read, by the clock and by the CPU time that it
// took since began.
func reportLoading(b *testing.B, ids int, began time.Duration) {
	all := float64(ids) * float64(b.N)
	b.ReportMetric(all/b.Elapsed().Seconds(), "IDs/s")
	b.ReportMetric(all/(cputime.Of(b)-began).Seconds(), "IDs/cpu-s")
}

// BenchmarkRestoreSeen rebuilds a set from the ID journal, as a restart does.
func BenchmarkRestoreSeen(b *testing.B) {
	const n = 2_000_000
	logs, position := journalOf(n)
	b.ReportAllocs()
	began := cputime.Of(b)
	for b.Loop() {
		back, err := RestoreSeen(context.Background(), logs, seenOptions(position))
		if err != nil || back[0].Seen.Len() != n {
			b.Fatal(back, err)
		}
	}
	reportLoading(b, n, began)
}

// BenchmarkJournalIndex loads the same journal a day at a time, as a backfill does,
// into a set that begins later.
func BenchmarkJournalIndex(b *testing.B) {
	const n = 2_000_000
	logs, position := journalOf(n)
	last := window(int(position.Counter)-1, schemaA).Span.EndExclusive
	b.ReportAllocs()
	began := cputime.Of(b)
	for b.Loop() {
		s, loaded := NewSeen(0), 0
		s.EvictBefore(last)
		index := NewJournalIndex("ids", 1, []cdr.SourceName{"acme"}, cdr.Span{StartInclusive: day, EndExclusive: last})
		for at := day; at < last; at = at.Add(24 * time.Hour) {
			if err := index.Extend(context.Background(), logs); err != nil {
				b.Fatal(err)
			}
			if err := index.Pin(context.Background(), logs, s, cdr.Span{StartInclusive: at, EndExclusive: min(at.Add(24*time.Hour), last)}); err != nil {
				b.Fatal(err)
			}
			loaded += s.Len()
		}
		if most := n + n/50; loaded < n || loaded > most { // the window at an edge belongs to both days
			b.Fatalf("%d IDs are loaded, want %d to %d", loaded, n, most)
		}
	}
	reportLoading(b, n, began)
}

// BenchmarkRestoreSeenOfManyGroups rebuilds the sets of 1,000 credential groups of one
// shard, each of one source that published five records in each of 60 windows.
func BenchmarkRestoreSeenOfManyGroups(b *testing.B) {
	const sources, windows, perWindow = 1000, 60, 5
	logs := newLog()
	logs.trusting = true
	sets, groups := make([]*Seen, sources), make([]SeenOptions, sources)
	name := func(i int) cdr.SourceName { return cdr.SourceName(fmt.Sprintf("source-%04d", i)) }
	for i := range groups {
		sets[i], groups[i] = NewSeen(0), seenOptions(journalPosition(name(i), windows, 0))
	}
	for n := range windows {
		for i, s := range sets {
			first := (n*sources + i) * perWindow
			commitWindow(b, logs, s, ofSource(window(n, schemaA), name(i)), first, first+1, first+2, first+3, first+4)
		}
	}
	for b.Loop() {
		results, err := RestoreSeen(context.Background(), logs, groups...)
		if err != nil || results[sources-1].IDs != windows*perWindow {
			b.Fatal(results, err)
		}
	}
	b.ReportMetric(float64(sources*windows*perWindow)*float64(b.N)/b.Elapsed().Seconds(), "IDs/s")
}
