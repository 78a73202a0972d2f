// Package ownership decides which shards a process owns, and for how long.
//
// It only chooses. What keeps two owners of one shard from both committing is
// the fencing of the shard's transactional.id, so a mistake here costs a
// take-over and never a record.
package ownership

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
)

// Owner hands shards to their loops.
type Owner interface {
	// Run calls own once for each shard that this process comes to own, each in
	// its own goroutine, until ctx ends. The context given to own ends when the
	// shard is taken away; own must then return soon. Run returns when all of
	// them have, with the first error.
	Run(ctx context.Context, own func(ctx context.Context, shard int) error) error
}

// Static owns a fixed list of shards for as long as it runs: one process, or
// several that an operator has told apart.
type Static []int

// NewStatic returns the distinct shards, in order.
func NewStatic(shards ...int) Static {
	slices.Sort(shards)
	return Static(slices.Compact(shards))
}

// Run implements Owner.
func (s Static) Run(ctx context.Context, own func(ctx context.Context, shard int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, shard := range s {
		group.Go(func() error { return own(ctx, shard) })
	}
	return group.Wait()
}
