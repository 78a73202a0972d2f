package coverage

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// slowLog is a log that waits before each record, and counts who reads at once.
type slowLog struct {
	*memoryLog
	wait time.Duration

	mu      sync.Mutex
	readers int
	most    int
}

func (l *slowLog) Read(ctx context.Context, topic string, partition int, from, until int64, each func(committed.Record) error) (int64, committed.Bounds, error) {
	l.mu.Lock()
	l.readers++
	l.most = max(l.most, l.readers)
	l.mu.Unlock()
	defer func() { l.mu.Lock(); l.readers--; l.mu.Unlock() }()
	return l.memoryLog.Read(ctx, topic, partition, from, until, func(r committed.Record) error {
		time.Sleep(l.wait)
		return each(r)
	})
}

func ledgerOf(log interface {
	Bounds(context.Context, string, int) (committed.Bounds, error)
	OffsetAt(context.Context, string, int, time.Time) (int64, error)
	Read(context.Context, string, int, int64, int64, func(committed.Record) error) (int64, committed.Bounds, error)
}, sources ...cdr.SourceName) *Ledger {
	placed := map[cdr.SourceName]int{}
	for _, s := range sources {
		placed[s] = 0
	}
	return NewLedger(func(context.Context) (*Reader, error) { return NewReader(log, "t", 1, noSchema), nil }, placed)
}

func TestLedgerReadsOn(t *testing.T) {
	log := &memoryLog{}
	for i := range 100 {
		log.receipt(t, live("acme", i+1))
	}
	l := ledgerOf(log, "acme", "globex")
	now := live("acme", 100).CommitTime
	first, err := l.Calendar(t.Context(), "acme", 2, now)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Days) != 2 || first.Days[1].Date != "2026-11-22" || first.Counter != 100 {
		t.Fatalf("got %+v", first)
	}
	if h := first.Days[1].Hours[12]; h.State != Proven || h.Windows != 61 || h.Published != 122 || h.FirstCounter != 1 || h.LastCounter != 61 {
		t.Errorf("the first hour is %+v", h)
	}
	if h := first.Days[1].Hours[13]; h.State != Proven || h.Until != noon+6000 {
		t.Errorf("the hour of the live edge is %+v", h)
	}
	log.reads = 0
	log.receipt(t, live("acme", 101))
	if second, err := l.Calendar(t.Context(), "acme", 2, now); err != nil || second.Counter != 101 || log.reads != 1 {
		t.Errorf("got counter %d after %d reads, %v; want the one that is new", second.Counter, log.reads, err)
	}

	log.reads = 0
	excerpt, err := l.Receipts(t.Context(), "acme", at(0, 3600), now)
	if err != nil || len(excerpt.Receipts) != 61 || excerpt.Receipts[0].Counter != 61 || excerpt.LeftOut != 0 {
		t.Errorf("got %d receipts, %v; want 61, the newest first", len(excerpt.Receipts), err)
	}
	if log.reads > 61 {
		t.Errorf("read %d records for an hour of 61", log.reads)
	}
	if excerpt, err = l.Receipts(t.Context(), "acme", at(-7200, -3600), now); err != nil || len(excerpt.Receipts) != 0 {
		t.Errorf("got %+v, %v for an hour without receipts", excerpt, err)
	}
	if none, err := l.Calendar(t.Context(), "globex", 1, now); err != nil || none.Counter != 0 || none.Days[0].Hours[3].State != Unread {
		t.Errorf("got %+v, %v for a source without receipts", none, err)
	}
}

func TestLedgerBounds(t *testing.T) {
	log := &memoryLog{}
	for i := range 3 * keptReceipts {
		r := live("acme", i+1)
		r.Asked = at(0, 60)
		log.receipt(t, r)
	}
	var names []cdr.SourceName
	for i := range keptPages + 5 {
		names = append(names, cdr.SourceName(fmt.Sprintf("source-%d", i)))
	}
	l := ledgerOf(log, append(names, "acme")...)
	now := noon.Time().Add(20 * time.Hour)
	excerpt, err := l.Receipts(t.Context(), "acme", at(0, 3600), now)
	if err != nil || len(excerpt.Receipts) != keptReceipts || excerpt.LeftOut != 2*keptReceipts || excerpt.Receipts[0].Counter != 3*keptReceipts {
		t.Errorf("got %d receipts from %+v on and %d left out, %v", len(excerpt.Receipts), excerpt.Receipts[0], excerpt.LeftOut, err)
	}
	for _, name := range names {
		if _, err := l.Calendar(t.Context(), name, 1, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.pages) != keptPages || l.pages["acme"] != nil || l.pages[names[len(names)-1]] == nil {
		t.Errorf("%d pages are kept, want %d, and not of who was asked for first", len(l.pages), keptPages)
	}
	for _, days := range []int{0, -1, KeptDays + 1} {
		if _, err := l.Calendar(t.Context(), "acme", days, now); err == nil {
			t.Errorf("%d days are told of", days)
		}
	}
	if _, err := l.Calendar(t.Context(), "nobody", 1, now); !errors.Is(err, ErrUnknownSource) {
		t.Errorf("got %v for an unknown source", err)
	}
}

// TestLedgerFollowsDays: what leaves the view is forgotten, what comes is taken in.
func TestLedgerFollowsDays(t *testing.T) {
	log := &memoryLog{}
	l := ledgerOf(log, "acme")
	for day := range 60 {
		log.receipt(t, live("acme", day*24*60+10))
		now := noon.Time().AddDate(0, 0, day).Add(time.Hour)
		c, err := l.Calendar(t.Context(), "acme", KeptDays, now)
		if err != nil {
			t.Fatal(err)
		}
		proven := 0
		for _, d := range c.Days {
			if d.Hours[12].Windows > 0 {
				proven++
			}
		}
		if want := min(day+1, KeptDays); proven != want || len(l.pages["acme"].m.hours) > KeptDays+1 || len(l.pages["acme"].m.pieces) > KeptDays+1 {
			t.Fatalf("day %d: %d hours with windows, want %d; %d hours and %d pieces kept", day, proven, want, len(l.pages["acme"].m.hours), len(l.pages["acme"].m.pieces))
		}
	}
}

// TestLedgerIsPatient: who asks gets an answer in time, one read runs at a time, and
// what was read is there for the next question.
func TestLedgerIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{memoryLog: &memoryLog{}, wait: 10 * time.Millisecond}
		for i := range 2 * progressEvery {
			log.receipt(t, live("acme", i+1))
		}
		l := ledgerOf(log, "acme", "globex")
		now := live("acme", 2*progressEvery).CommitTime
		var group sync.WaitGroup
		for _, source := range []cdr.SourceName{"acme", "globex", "acme"} {
			group.Go(func() {
				began := time.Now()
				_, err := l.Calendar(context.Background(), source, 1, now)
				var reading *StillReading
				if !errors.As(err, &reading) || time.Since(began) != l.patience {
					t.Errorf("%s: got %v after %s, want to be told to ask again after %s", source, err, time.Since(began), l.patience)
				}
			})
			synctest.Wait() // the first has the turn
		}
		group.Wait()
		time.Sleep(50 * time.Second)
		var reading *StillReading
		if _, err := l.Calendar(context.Background(), "acme", 1, now); !errors.As(err, &reading) || reading.Share < .4 || reading.Share > 1 {
			t.Errorf("got %v, want how far it is", err)
		}
		time.Sleep(time.Minute)
		if c, err := l.Calendar(context.Background(), "acme", 1, now); err != nil || c.Counter != 2*progressEvery {
			t.Errorf("got counter %d, %v once it is read", c.Counter, err)
		}
		if log.most != 1 {
			t.Errorf("%d read at once", log.most)
		}
	})
}

// TestLedgerStartsAnew: a topic that was made anew is read from its beginning.
func TestLedgerStartsAnew(t *testing.T) {
	log := &memoryLog{}
	for i := range 10 {
		log.receipt(t, live("acme", i+1))
	}
	l := ledgerOf(log, "acme")
	now := live("acme", 10).CommitTime
	if _, err := l.Calendar(t.Context(), "acme", 1, now); err != nil {
		t.Fatal(err)
	}
	log.records = log.records[:2]
	var gone *committed.OutOfRangeError
	if _, err := l.Calendar(t.Context(), "acme", 1, now); !errors.As(err, &gone) {
		t.Errorf("got %v of a log that was cut", err)
	}
	if c, err := l.Calendar(t.Context(), "acme", 1, now); err != nil || c.Counter != 2 {
		t.Errorf("got counter %d, %v; want it read anew", c.Counter, err)
	}
}

func TestLedgerOpensLater(t *testing.T) {
	log, fails := &memoryLog{}, errors.New("no broker")
	l := NewLedger(func(context.Context) (*Reader, error) {
		if fails != nil {
			return nil, fails
		}
		return NewReader(log, "t", 1, noSchema), nil
	}, map[cdr.SourceName]int{"acme": 0})
	if _, err := l.Calendar(t.Context(), "acme", 1, noon.Time()); !errors.Is(err, fails) {
		t.Errorf("got %v", err)
	}
	fails = nil
	if _, err := l.Calendar(t.Context(), "acme", 1, noon.Time()); err != nil {
		t.Error(err)
	}
}

// TestHours tells of hours that are not of one state.
func TestHours(t *testing.T) {
	s := newStory(at(-36_000, 36_000))
	s.m.began = noon + 1800
	s.feed(1800, 3600+900, "")
	s.feed(3600+900, 3600+1000, "short")
	s.feed(3600+1000, 7200+60, "")
	s.gap(7200+60, 7200+61)
	s.feed(7200+61, 4*3600-100, "")
	s.settle(3600 + 900)
	for hour, want := range map[int]State{-1: Unread, 0: Settled, 1: Unproven, 2: Gap, 3: Proven, 4: Unread} {
		if got := s.m.hour(noon+cdr.Instant(hour)*3600, noon+4*3600+300); got.State != want {
			t.Errorf("hour %d is %+v, want %s", hour, got, want)
		}
	}
	if h := s.m.hour(noon+3*3600, noon+5*3600+300); h.State != Unread {
		t.Errorf("an hour whose end is unread for more than an hour is %+v", h)
	}
	if h := s.m.hour(noon+3600, noon+5*3600); h.Reason != "short" {
		t.Errorf("its reason is %q", h.Reason)
	}
	var nothing Hour
	nothing.State = Unread
	if h := NewMap(at(0, 10)).hour(noon, noon+10); !reflect.DeepEqual(h, nothing) {
		t.Errorf("an hour of nothing is %+v", h)
	}
}
