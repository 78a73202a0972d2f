package committed

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrUnstable says that transactions hold committed readers back.
var ErrUnstable = errors.New("a transaction is open and holds readers back")

// stablePatience is how long [AwaitStable] waits. A transaction takes less, unless its
// owner stands still; and then it may take until its time-out.
const stablePatience = 5 * time.Second

// AwaitStable waits until everything that a partition holds at the call is committed or
// aborted, and returns the bounds that say so: a read to their LastStable then misses
// nothing that was committed before the call. It need not be so at once. Others write to
// the partition too, and one's own commit is definite before its markers are written.
// Its error wraps ErrUnstable if that takes long.
func AwaitStable(ctx context.Context, r interface {
	Bounds(ctx context.Context, topic string, partition int) (Bounds, error)
}, topic string, partition int) (Bounds, error) {
	bounds, err := r.Bounds(ctx, topic, partition)
	if err != nil {
		return bounds, err
	}
	reached, began := bounds.HighWatermark, time.Now()
	for pause := time.Millisecond; bounds.LastStable < reached; pause = min(2*pause, 200*time.Millisecond) {
		if time.Since(began) > stablePatience {
			return bounds, fmt.Errorf("read %s-%d: %w at offset %d of %d", topic, partition, ErrUnstable, bounds.LastStable, reached)
		}
		select {
		case <-ctx.Done():
			return bounds, ctx.Err()
		case <-time.After(pause):
		}
		if bounds, err = r.Bounds(ctx, topic, partition); err != nil {
			return bounds, err
		}
	}
	return bounds, nil
}
