package positions

import (
	"context"
	"fmt"
	"time"

	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// snapshot reads a shard as it was at one time, beside whoever is writing: a
// transaction that is open is not there yet. IDs are looked at first, then positions,
// then receipts, so that no position is younger than its receipt nor older than its IDs.
type snapshot struct {
	offsets.Reader
	shard  int
	bounds map[string]committed.Bounds // by topic
}

func (l *Log) snapshot(ctx context.Context, shard int) (*snapshot, error) {
	t := &l.Config.Kafka.Topics
	s := &snapshot{Reader: l.Reader, shard: shard, bounds: map[string]committed.Bounds{}}
	for _, topic := range []string{t.IDs, t.Offsets, t.Windows} {
		bounds, err := l.Reader.Bounds(ctx, topic, shard)
		if err != nil {
			return nil, fmt.Errorf("bounds of %s-%d: %w", topic, shard, err)
		}
		bounds.HighWatermark = bounds.LastStable
		s.bounds[topic] = bounds
	}
	return s, nil
}

// Bounds implements [offsets.Reader].
func (s *snapshot) Bounds(ctx context.Context, topic string, partition int) (committed.Bounds, error) {
	if bounds, frozen := s.bounds[topic]; frozen && partition == s.shard {
		return bounds, nil
	}
	bounds, err := s.Reader.Bounds(ctx, topic, partition)
	bounds.HighWatermark = bounds.LastStable
	return bounds, err
}

// A transaction's markers do not reach all partitions at once. What looks wrong
// meanwhile is looked at again before it is believed.
const (
	beliefTries = 3
	beliefPause = 500 * time.Millisecond
)

// believed reads a shard in snapshots until nothing seems wrong, or it does so again
// and again.
func believed[T any](ctx context.Context, l *Log, shard int, read func(offsets.Reader) (T, error), wrong func(T) bool) (result T, err error) {
	for try := 1; ; try++ {
		snapshot, err := l.snapshot(ctx, shard)
		if err != nil {
			return result, err
		}
		if result, err = read(snapshot); err != nil || try == beliefTries || !wrong(result) {
			return result, err
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(beliefPause):
		}
	}
}
