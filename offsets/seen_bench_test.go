package offsets

import (
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

// BenchmarkSeenMemory fills a set with five million records, as windows do, and holds
// what the heap has grown by, and what the set counts, to 32 bytes an ID.
func BenchmarkSeenMemory(b *testing.B) {
	const n, perWindow, limitBytes = 5_000_000, 1000, 32
	before := heapBytes()
	var s *Seen
	for b.Loop() {
		s = NewSeen(0)
		for w := range n / perWindow {
			p := s.Begin(window(w, schemaA))
			for _, id := range randomIDs(perWindow, uint64(w)) {
				p.Check(id, uint64(id[0]))
			}
			p.Adopt(int64(w))
		}
	}
	heap, counted := float64(heapBytes()-before)/n, float64(s.Bytes())/n
	b.ReportMetric(heap, "heap-B/ID")
	b.ReportMetric(counted, "counted-B/ID")
	if s.Len() != n || max(heap, counted) > limitBytes {
		b.Errorf("%d IDs take %.1f bytes each on the heap, and %.1f by their own count", s.Len(), heap, counted)
	}
}
