package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
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
