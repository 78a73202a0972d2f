package offsets

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// randomIDs returns n different UUIDs, the same for each seed.
func randomIDs(n int, seed uint64) []cdr.ReportID {
	random := rand.New(rand.NewPCG(seed, 0))
	ids := make([]cdr.ReportID, n)
	for i := range ids {
		binary.LittleEndian.PutUint64(ids[i][:], random.Uint64())
		binary.LittleEndian.PutUint64(ids[i][8:], random.Uint64())
	}
	return ids
}

// fill publishes ids in windows of 10 minutes, 1000 records each.
func fill(s *Seen, ids []cdr.ReportID) {
	for n := 0; len(ids) > 0; n++ {
		part := ids[:min(1000, len(ids))]
		ids = ids[len(part):]
		p := s.Begin(window(n, schemaA))
		for _, id := range part {
			p.Check(id, uint64(id[0]))
		}
		p.Adopt(int64(n))
	}
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSeenMemory holds the set to 32 bytes an ID at every size on its way, by its own
// count, and that count to the truth of the heap.
func TestSeenMemory(t *testing.T) {
	const n = 400_000
	ids := randomIDs(n, 1)
	before := heapBytes()
	s := NewSeen(0)
	worst, at := 0.0, 0
	for from := 0; from < n; from += 1000 {
		fill(s, ids[from:from+1000])
		if per := float64(s.Bytes()) / float64(s.Len()); s.Len() >= 10_000 && per > worst {
			worst, at = per, s.Len()
		}
	}
	heap := float64(heapBytes()-before) / n
	t.Logf("at most %.1f bytes an ID (at %d), at the end %.1f counted and %.1f on the heap", worst, at, float64(s.Bytes())/n, heap)
	if worst > 32 {
		t.Errorf("%.1f bytes an ID at %d IDs, want at most 32", worst, at)
	}
	if own := float64(s.Bytes()) / n; heap > own*1.05 {
		t.Errorf("the heap grew by %.1f bytes an ID, and the set counts %.1f", heap, own)
	}
	runtime.KeepAlive(ids)
	runtime.KeepAlive(s)
}

func TestSeenShrinks(t *testing.T) {
	ids := randomIDs(300_000, 1)
	s := NewSeen(0)
	fill(s, ids) // 300 windows: 50 hours
	s.EvictBefore(day.Add(45 * time.Hour))
	if per := float64(s.Bytes()) / float64(s.Len()); per > 32 {
		t.Errorf("%.1f bytes an ID after most of the set was evicted, want at most 32", per)
	}
}

func TestCheckOfKnownDoesNotAllocate(t *testing.T) {
	ids := randomIDs(10_000, 1)
	s := NewSeen(0)
	fill(s, ids)
	p := s.Begin(window(100, schemaA))
	if allocs := testing.AllocsPerRun(10, func() {
		for _, id := range ids {
			p.Check(id, uint64(id[0]))
		}
	}); allocs != 0 {
		t.Errorf("checking 10000 known records allocates %v times", allocs)
	}
}

var benchSizes = []int{100_000, 3_000_000}

func BenchmarkSeenKnown(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ids := randomIDs(n, 1)
			s := NewSeen(0)
			fill(s, ids)
			p := s.Begin(window(1_000_000, schemaA))
			rand.New(rand.NewPCG(2, 2)).Shuffle(n, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				id := ids[i%n]
				if p.Check(id, uint64(id[0])) != Known {
					b.Fatal("not known")
				}
			}
			b.ReportMetric(float64(s.Bytes())/float64(n), "B/ID")
		})
	}
}

func BenchmarkSeenNew(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ids := randomIDs(n, 1)
			b.ReportAllocs()
			var s *Seen
			for b.Loop() {
				s = NewSeen(0)
				fill(s, ids)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/ID")
			b.ReportMetric(float64(s.Bytes())/float64(n), "B/ID")
		})
	}
}

func BenchmarkSeenEvict(b *testing.B) {
	const n = 1_000_000
	ids := randomIDs(n, 1)
	for b.Loop() {
		b.StopTimer()
		s := NewSeen(0)
		fill(s, ids)
		b.StartTimer()
		s.EvictBefore(day.Add(3 * time.Hour))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/ID")
}

func BenchmarkRestoreSeen(b *testing.B) {
	const n = 2_000_000
	s := NewSeen(0)
	logs := newLog()
	ids := randomIDs(n, 1)
	windows := 0
	for ; len(ids) > 0; windows++ {
		part := ids[:min(10_000, len(ids))]
		ids = ids[len(part):]
		p := s.Begin(window(windows, schemaA))
		for _, id := range part {
			p.Check(id, 1)
		}
		for _, value := range p.AppendJournal(nil, NoReportTimes) {
			logs.append("ids", 0, "acme", value)
		}
		p.Adopt(int64(windows))
	}
	position := startPosition()
	position.Source, position.Counter = "acme", cdr.Counter(windows)
	b.ReportAllocs()
	for b.Loop() {
		back, err := RestoreSeen(context.Background(), logs, SeenOptions{Topic: "ids", Positions: []Position{position}})
		if err != nil || back[0].Seen.Len() != n {
			b.Fatal(back, err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "IDs/s")
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
