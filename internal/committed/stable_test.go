package committed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// laggingBounds are of a partition whose open transaction ends at an instant.
type laggingBounds struct {
	ends  time.Time
	asked int
}

func (l *laggingBounds) Bounds(context.Context, string, int) (Bounds, error) {
	l.asked++
	written := int64(10 + l.asked) // others go on
	if time.Now().Before(l.ends) {
		return Bounds{LastStable: 4, HighWatermark: written}, nil
	}
	return Bounds{LastStable: 11, HighWatermark: written}, nil
}

// TestAwaitStable: what the partition held at the call is waited for, and nothing later;
// and not for ever.
func TestAwaitStable(t *testing.T) {
	for _, c := range []struct {
		takes   time.Duration
		asked   int
		failure error
	}{{0, 1, nil}, {3 * time.Millisecond, 3, nil}, {4 * time.Second, 28, nil}, {time.Minute, 33, ErrUnstable}} {
		synctest.Test(t, func(t *testing.T) {
			l := &laggingBounds{ends: time.Now().Add(c.takes)}
			began := time.Now()
			bounds, err := AwaitStable(t.Context(), l, "events", 0)
			if !errors.Is(err, c.failure) || l.asked != c.asked || err == nil && bounds.LastStable != 11 {
				t.Errorf("a transaction of %s: %+v, %v after %s, asked %d times; want %v, %d times", c.takes, bounds, err, time.Since(began), l.asked, c.failure, c.asked)
			}
		})
	}
}
