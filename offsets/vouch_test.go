package offsets

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// receipt appends the receipt of a commit.
func (l *memoryLog) receipt(t testing.TB, partition int, source cdr.SourceName, counter cdr.Counter) {
	t.Helper()
	r := exampleReceipt()
	r.Source, r.Counter = source, counter
	value, err := newCodec(t, 7).Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	l.append("windows", partition, string(source), value)
}

// TestPositionsNeedTheirReceipt: a position is only believed with the receipt of its
// commit, if receipts of that time are there at all.
func TestPositionsNeedTheirReceipt(t *testing.T) {
	const jumped = 15
	for _, c := range []struct {
		name    string
		mode    Mode
		fill    func(t *testing.T, l *memoryLog)
		refused bool
	}{
		{"with it", ExactlyOnce, func(t *testing.T, l *memoryLog) {
			l.receipt(t, 1, "acme", 14)
			l.receipt(t, 1, "beta", 15)
			l.receipt(t, 1, "acme", 15)
			l.position(t, 1, at("acme", 15, 0))
		}, false},
		{"without it", ExactlyOnce, func(t *testing.T, l *memoryLog) {
			l.receipt(t, 1, "acme", 14)
			l.receipt(t, 1, "beta", 15)
			l.position(t, 1, at("acme", 14, 0))
			l.position(t, 1, at("acme", jumped, 0))
		}, true},
		{"without it, at least once", AtLeastOnce, func(t *testing.T, l *memoryLog) {
			l.receipt(t, 1, "acme", 14)
			l.position(t, 1, at("acme", 14, 0))
			l.position(t, 1, at("acme", jumped, 0))
		}, true},
		{"behind a furthest one, at least once", AtLeastOnce, func(t *testing.T, l *memoryLog) {
			l.receipt(t, 1, "acme", 14)
			l.receipt(t, 1, "acme", 15)
			l.position(t, 1, at("acme", 14, time.Hour))
			l.position(t, 1, at("acme", 15, 0))
		}, false},
		{"with one of a later version", ExactlyOnce, func(t *testing.T, l *memoryLog) {
			l.append("windows", 1, "acme", []byte{0, 0, 0, 0, 8, 1, 2, 3})
			l.position(t, 1, at("acme", 15, 0))
		}, false},
		{"receipts were deleted", ExactlyOnce, func(t *testing.T, l *memoryLog) {
			l.receipt(t, 1, "acme", 14)
			l.cut("windows", 1, 2)
			l.position(t, 1, at("acme", jumped, 0))
		}, false},
		{"receipts were deleted, and others followed", ExactlyOnce, func(t *testing.T, l *memoryLog) {
			l.position(t, 1, at("acme", jumped, 0))
			l.receipt(t, 1, "acme", 14)
			l.receipt(t, 1, "beta", 1)
			l.cut("windows", 1, 2)
		}, false},
		{"mended", ExactlyOnce, func(t *testing.T, l *memoryLog) {
			l.receipt(t, 1, "acme", 14)
			p := at("acme", jumped, 0)
			p.Mended = true
			l.position(t, 1, p)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog()
			c.fill(t, l)
			s := restore(t, l, shardOptions(c.mode, "acme")).Sources[0]
			switch {
			case !c.refused && (s.Refused != nil || s.Position.Counter != 15):
				t.Errorf("acme is refused: %v, counter %d", s.Refused, s.Position.Counter)
			case c.refused && (s.Refused == nil || s.Refused.Code != PositionUnvouched || s.Position.Counter != 0):
				t.Errorf("acme is %+v, want it refused", s)
			}
		})
	}
}

// TestReceiptsAreReadFromTheOldestCommitOn: old receipts cost nothing.
func TestReceiptsAreReadFromTheOldestCommitOn(t *testing.T) {
	l := newLog()
	for counter := range cdr.Counter(500) {
		l.receipt(t, 1, "acme", counter+1)
		l.position(t, 1, at("acme", counter+1, 0))
	}
	if s := restore(t, l, shardOptions(ExactlyOnce, "acme")).Sources[0]; s.Refused != nil {
		t.Error(s.Refused)
	}
	last := int64(998)
	if got, want := l.reads[len(l.reads)-1], "windows/1[698,1000)"; got != want {
		t.Errorf("the read was %s, want %s: from %s before offset %d on", got, want, receiptMargin, last)
	}
}

// TestVouchReadsNoFurther: a source that stopped long ago costs a look at that time,
// and not all receipts since.
func TestVouchReadsNoFurther(t *testing.T) {
	l := newLog()
	l.receipt(t, 1, "acme", 1)
	l.position(t, 1, at("acme", 1, 0))
	for counter := range cdr.Counter(1000) {
		l.receipt(t, 1, "beta", counter+1)
		l.position(t, 1, at("beta", counter+1, 0))
	}
	before := l.handed
	r := restore(t, l, shardOptions(ExactlyOnce, "acme", "beta"))
	for _, s := range r.Sources {
		if s.Refused != nil {
			t.Error(s.Refused)
		}
	}
	positions, receipts := 1001, int(receiptMargin/(2*time.Second))+2
	if n := l.handed - before; n > positions+receipts {
		t.Errorf("%d records were read, want %d positions and %d receipts at most", n, positions, receipts)
	}
}

// TestVouchPassesErrorsOn: receipts that cannot be read vouch for nothing.
func TestVouchPassesErrorsOn(t *testing.T) {
	for _, what := range []string{"bounds of windows", "offset of windows", "read of windows"} {
		l := newLog()
		l.receipt(t, 1, "acme", 1)
		l.position(t, 1, at("acme", 1, 0))
		broken := errors.New("broken")
		l.fail[what] = broken
		if _, err := Restore(t.Context(), l, shardOptions(ExactlyOnce, "acme")); !errors.Is(err, broken) || !strings.Contains(err.Error(), "restore shard 1") {
			t.Errorf("%s: Restore = %v, want %v", what, err, broken)
		}
	}
}
