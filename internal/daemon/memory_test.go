package daemon

import (
	"encoding/binary"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/offsets"
	"cdrbus/poller"
)

func TestShareIsBounded(t *testing.T) {
	m := newMemory(3<<20, 2<<20)
	first, err := m.reserve(t.Context(), 1<<30)
	if err != nil || first.bytes != 2<<20 {
		t.Fatalf("reserved %d bytes, %v; want the window limit", first.bytes, err)
	}
	if err := first.hold(2<<20 + 1); !errors.Is(err, cdr.ErrWindowTooLarge) {
		t.Errorf("a window beyond its limit: %v", err)
	}
	second := m.tryReserve(1)
	if second == nil || second.bytes != 64<<10 {
		t.Fatalf("the least share is %+v, want 64 KiB", second)
	}
	if err := second.hold(1 << 20); err != nil {
		t.Errorf("growing within the budget: %v", err)
	}
	if err := second.hold(1<<20 + 1); !errors.Is(err, errNoRoom) {
		t.Errorf("growing beyond the budget: %v", err)
	}
	if m.tryReserve(1) != nil {
		t.Error("the budget gave more than it has")
	}
	first.release()
	first.release()
	if m.tryReserve(2<<20) == nil {
		t.Error("what was released once is not there once")
	}
	if m.tryReserve(1) != nil {
		t.Error("what was released once is there twice")
	}
}

func TestReserveWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(1<<20, 1<<20)
		held, err := m.reserve(t.Context(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, held.release)
		began := time.Now()
		if _, err := m.reserve(t.Context(), 1<<20); err != nil || time.Since(began) != time.Minute {
			t.Errorf("reserved after %s, %v; want one minute", time.Since(began), err)
		}
	})
}

// TestProcessLimit: the process may take what windows have held at a time, what holdings
// hold, and what it needs besides.
func TestProcessLimit(t *testing.T) {
	former := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(former) })
	demand := func(when string, want int64) {
		t.Helper()
		if got := debug.SetMemoryLimit(-1); got != want {
			t.Errorf("%s the limit is %d, want %d", when, got, want)
		}
	}
	m := newMemory(64<<20, 32<<20)
	h := m.newHolding()
	h.set(1 << 20)
	demand("for a process that is not ours", former)
	m.limitFromNow(besidesWindows)
	demand("with a holding", besidesWindows+1<<20)

	first, second := m.tryReserve(8<<20), m.tryReserve(8<<20)
	if err := second.hold(24 << 20); err != nil {
		t.Fatal(err)
	}
	first.release()
	second.release()
	m.tryReserve(1).release()
	demand("after two windows", besidesWindows+33<<20)

	h.set(2<<20 - 1)
	demand("with a larger holding", besidesWindows+34<<20)
	h.release()
	h.set(100 << 20) // its owner has not noticed yet
	demand("without it", besidesWindows+32<<20)
}

// TestTopicTableMemory holds the table's own count to the truth of the heap.
func TestTopicTableMemory(t *testing.T) {
	const n = 200_000
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var table topicTable
	for i := range uint64(n) {
		table.add(topicEntry{id: cdr.ReportIDOf(binary.BigEndian.AppendUint64(nil, i))})
	}
	table.sort(nil)
	grown, counted := heap()-before, table.bytes()
	t.Logf("%d bytes an event on the heap, %d counted", grown/n, counted/n)
	if grown > counted+counted/20 {
		t.Errorf("the heap grew by %d bytes, and the table counts %d", grown, counted)
	}
	runtime.KeepAlive(&table)
}

// TestOneJobIsPreparedAtATime: what a job needs to know of the topics is not read, and
// kept, before its turn has come.
func TestOneJobIsPreparedAtATime(t *testing.T) {
	var prepared []string
	now := time.Now()
	job := func(id string) *errand {
		return &errand{
			state: offsets.JobState{Job: offsets.Job{ID: id}}, prepareAt: now, prepared: make(chan error, 1),
			prepare: func() { prepared = append(prepared, id) }, stop: func() {},
		}
	}
	s := &source{errands: []*errand{job("first"), job("second")}}
	for range 2 {
		s.decideErrand(poller.BudgetView{}, now)
	}
	if !slices.Equal(prepared, []string{"first"}) {
		t.Errorf("prepared are %v", prepared)
	}
	m := newMemory(1<<20, 1<<20)
	v := &verification{held: m.newHolding()}
	v.parts = []*part{v.newPart(cdr.Span{})}
	v.parts[0].table.add(topicEntry{})
	v.reportMemory()
	s.errands[0].verify = v
	if m.kept == 0 {
		t.Error("what a verification keeps is not counted")
	}
	s.errands[0].state.Phase = offsets.JobCancelled
	s.endErrands(&lane{seen: offsets.NewSeen(0)})
	s.decideErrand(poller.BudgetView{}, now)
	if m.kept != 0 || !slices.Equal(prepared, []string{"first", "second"}) {
		t.Errorf("then prepared are %v, and %d bytes are kept", prepared, m.kept)
	}
}
