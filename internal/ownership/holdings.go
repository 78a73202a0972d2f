package ownership

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// holdings are the shards that a member works on: each has a loop, which goes on
// when the group is dealt out anew and the shard stays. It is safe for concurrent
// use.
type holdings struct {
	ctx   context.Context // of all loops; it ends with the first error
	loops *errgroup.Group
	own   Own
	prove func(ctx context.Context, shard int) error

	mu         sync.Mutex
	current    map[int]*holding
	ending     map[int]*holding // given up, and not at their end yet
	generation int32            // in which current was dealt out
}

// holding is one shard's loop.
type holding struct {
	giveUp context.CancelFunc
	ended  chan struct{}
}

// assign makes current just the given shards: gives up what is not among them,
// keeps what is, and begins what is new.
func (h *holdings) assign(generation int32, shards []int) (given, kept, begun []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generation = generation
	for shard, held := range h.current {
		if !slices.Contains(shards, shard) {
			held.giveUp()
			delete(h.current, shard)
			h.ending[shard] = held
			given = append(given, shard)
		}
	}
	for _, shard := range shards {
		if h.current[shard] != nil {
			kept = append(kept, shard)
			continue
		}
		h.current[shard] = h.begin(shard, h.ending[shard])
		delete(h.ending, shard)
		begun = append(begun, shard)
	}
	slices.Sort(given)
	return given, kept, begun
}

// begin starts a shard's loop, after the loop that had it before has ended.
func (h *holdings) begin(shard int, before *holding) *holding {
	ctx, giveUp := context.WithCancel(h.ctx)
	held := &holding{giveUp: giveUp, ended: make(chan struct{})}
	h.loops.Go(func() error {
		defer close(held.ended)
		defer giveUp()
		if before != nil {
			<-before.ended
		}
		if ctx.Err() != nil {
			return nil
		}
		return h.own(ctx, Lease{Shard: shard, prove: func(ctx context.Context) error { return h.prove(ctx, shard) }})
	})
	return held
}

// claimed returns the shards at work and the generation they were dealt out in.
func (h *holdings) claimed() (shards []int, generation int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	shards = make([]int, 0, len(h.current))
	for shard := range h.current {
		shards = append(shards, shard)
	}
	slices.Sort(shards)
	return shards, h.generation
}
