// Package ownership decides which shards a process owns, and for how long.
//
//	Static   a fixed list: one process, or several that an operator has told apart   (ownership.go)
//	Group    a share: the members of a Kafka consumer group deal the shards out      (group.go)
//	balance  who gets what: evenly, and moving as little as possible                 (balance.go)
//	Fleet    who owns what just now, for people                                      (fleet.go)
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

// Own is a shard's loop: it works on the shard until ctx ends, which says that
// the shard was taken away or that the process ends. It must then return soon.
// An error ends the whole process.
type Own func(ctx context.Context, lease Lease) error

// Owner hands shards to their loops.
type Owner interface {
	// Run calls own once for each shard that this process comes to own, each in
	// its own goroutine and never twice at a time for one shard, until ctx ends.
	// It returns when all of them have, with the first error.
	Run(ctx context.Context, own Own) error
}

// Lease is a shard that this process was chosen to own.
type Lease struct {
	Shard int
	prove func(context.Context) error
}

// Prove returns nil if this process still is the chosen owner, as far as can be
// told. To be asked before each take-over: one who was fenced because somebody
// else was chosen must not fence that one back.
func (l Lease) Prove(ctx context.Context) error {
	if l.prove == nil {
		return nil
	}
	return l.prove(ctx)
}

// Static owns a fixed list of shards for as long as it runs.
type Static []int

// NewStatic returns the distinct shards, in order.
func NewStatic(shards ...int) Static {
	slices.Sort(shards)
	return Static(slices.Compact(shards))
}

// Run implements Owner.
func (s Static) Run(ctx context.Context, own Own) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, shard := range s {
		group.Go(func() error { return own(ctx, Lease{Shard: shard}) })
	}
	return group.Wait()
}
