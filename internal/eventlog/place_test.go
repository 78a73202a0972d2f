package eventlog

import (
	"maps"
	"testing"
)

// TestEarlier: what either place says of a partition holds, and a partition that one of
// them does not name is read from its beginning.
func TestEarlier(t *testing.T) {
	a, b := Following(map[int]int64{0: 10, 1: 20, 2: 30}), Following(map[int]int64{0: 12, 1: 18})
	for _, got := range []Place{a.Earlier(b), b.Earlier(a)} {
		if !maps.Equal(got.offsets, map[int]int64{0: 10, 1: 18}) || !got.others || !got.names(2) {
			t.Errorf("%+v", got)
		}
	}
	if a.Earlier(AtOffsets(nil)).others {
		t.Error("partitions are meant that one of the places does not mean")
	}
}
