package ownership

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

func TestStaticOwnsEachShardOnce(t *testing.T) {
	var mu sync.Mutex
	var owned []int
	err := NewStatic(3, 1, 3).Run(t.Context(), func(_ context.Context, lease Lease) error {
		mu.Lock()
		defer mu.Unlock()
		owned = append(owned, lease.Shard)
		return nil
	})
	slices.Sort(owned)
	if err != nil || !slices.Equal(owned, []int{1, 3}) {
		t.Errorf("owned %v, %v; want [1 3]", owned, err)
	}
}

func TestStaticEndsAllWhenOneFails(t *testing.T) {
	broken := errors.New("broken")
	err := NewStatic(0, 1).Run(t.Context(), func(ctx context.Context, lease Lease) error {
		if lease.Shard == 0 {
			return broken
		}
		<-ctx.Done()
		return nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("Run = %v, want %v", err, broken)
	}
}
