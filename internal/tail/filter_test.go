package tail

import (
	"encoding/binary"
	"testing"

	"cdrbus/internal/cdr"
)

func idOf(n int) (id cdr.ReportID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	return id
}

// TestRecentIsBounded: at least limit IDs are remembered, and at most twice as many.
func TestRecentIsBounded(t *testing.T) {
	const limit = 100
	for last := limit; last < 5*limit; last++ {
		r := newRecent(limit)
		for n := range last + 1 {
			if r.repeats(idOf(n), 1) {
				t.Fatalf("%d is taken for a repeat", n)
			}
			if known := len(r.newer) + len(r.older); known > 2*limit {
				t.Fatalf("%d IDs are remembered", known)
			}
		}
		if forgettable := idOf(last - 2*limit); last >= 2*limit && r.repeats(forgettable, 1) {
			t.Errorf("the ID %d before %d is remembered", 2*limit, last)
		}
		if !r.repeats(idOf(last-limit+1), 1) {
			t.Errorf("of %d IDs, the one %d before the last is forgotten", last+1, limit-1)
		}
	}
}

func BenchmarkRecent(b *testing.B) {
	b.ReportAllocs()
	r := newRecent(rememberedIDs)
	for n := 0; b.Loop(); n++ {
		r.repeats(idOf(n), 1)
	}
}
