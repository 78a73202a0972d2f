package daemon

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff waits longer after each failure, up to a limit, with jitter so that
// those who failed together do not try again together.
type backoff struct{ next, limit time.Duration }

func newBackoff(first, limit time.Duration) *backoff { return &backoff{next: first, limit: limit} }

// wait sleeps between half of the next delay and all of it, or until ctx ends.
func (b *backoff) wait(ctx context.Context) error {
	delay := b.next/2 + rand.N(b.next/2+1)
	b.next = min(b.next*2, b.limit)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
