package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/ownership"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// heartbeatInterval is how often a member of a fleet says that it is alive, and
// so how soon it learns that another one came or went. The smallest session
// time-out that brokers allow (6 s) is six times as long.
const heartbeatInterval = time.Second

// inFleet reports whether this process shares the shards with others.
func (d *Daemon) inFleet() bool { return d.config.Ownership == config.Group && d.only == nil }

// owner returns who chooses this process's shards.
func (d *Daemon) owner() ownership.Owner {
	if !d.inFleet() {
		return ownership.NewStatic(slices.Collect(maps.Keys(d.shards))...)
	}
	k := &d.config.Kafka
	return ownership.NewGroup(ownership.GroupOptions{
		Client:            d.client,
		Dialer:            kafkaconn.DialerOf(d.client),
		Brokers:           k.Brokers,
		ID:                k.GroupID(),
		Topic:             k.Topics.Offsets,
		Name:              d.name(),
		SessionTimeout:    k.Group.SessionTimeout,
		HeartbeatInterval: heartbeatInterval,
		Loaded:            func(shard int) bool { return len(d.shards[shard]) > 0 },
		Changed:           d.showFleet,
		Log:               d.log,
	})
}

// memberName is what people call this process.
func memberName(configured string) string {
	if configured != "" {
		return configured
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

func (d *Daemon) showFleet(fleet ownership.Fleet) {
	shown := status.Fleet{Group: fleet.Group, State: fleet.State, At: fleet.At}
	for _, m := range fleet.Members {
		member := status.Member{Name: m.Name, Host: m.Host, Shards: m.Shards, Self: m.Self}
		for _, shard := range m.Shards {
			member.Sources += len(d.shards[shard])
		}
		shown.Members = append(shown.Members, member)
	}
	d.board.SetFleet(shown)
}

// shutdownGrace is how long a commit may go on after its shard was given up: a
// third of the session time-out in a fleet, for then another member is at it.
func (d *Daemon) shutdownGrace() time.Duration {
	const grace = 5 * time.Second
	if d.inFleet() {
		return min(grace, d.config.Kafka.Group.SessionTimeout/3)
	}
	return grace
}

// announce shows a shard's sources on the board.
func (d *Daemon) announce(shard int) {
	for _, s := range d.sourcesOf(shard) {
		s.announce()
	}
}

// release forgets what this process knew of a shard that another one owns from
// here on, its request budgets above all: others spend them now.
func (d *Daemon) release(shard int) {
	if !d.inFleet() {
		return
	}
	groups := map[string][]*source{}
	for _, s := range d.sourcesOf(shard) {
		groups[s.config.Group()] = append(groups[s.config.Group()], s)
		s.forget()
	}
	for group, sources := range groups {
		d.forgetBudget(group, sources)
	}
	d.board.UpdateShard(shard, func(b *status.Shard) { b.State, b.Reason = status.ShardReleased, "" })
}

// forgetBudget lets the request budget of a credential group begin anew, from
// what the positions tell of its last use.
func (d *Daemon) forgetBudget(group string, sources []*source) {
	d.budgetsMu.Lock()
	defer d.budgetsMu.Unlock()
	delete(d.budgets, group)
	for _, s := range sources {
		s.feed = nil // it holds the budget
	}
}

// proven waits until this process is proven to be the shard's chosen owner. Its
// error is that of ctx.
func (d *Daemon) proven(ctx context.Context, lease ownership.Lease) error {
	pause := newBackoff(100*time.Millisecond, 2*time.Second)
	for {
		err := lease.Prove(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		d.log.Info("waiting for a proof of ownership", zap.Int("shard", lease.Shard), zap.Error(err))
		d.board.UpdateShard(lease.Shard, func(b *status.Shard) { b.State, b.Reason = status.ShardLost, err.Error() })
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// othersInterval is how often a bounded run looks how far the others are.
const othersInterval = 2 * time.Second

// followOthers reads, in a bounded run of a fleet, how far the sources of the
// other members are: the run ends when all of them have got there.
func (d *Daemon) followOthers(ctx context.Context) {
	ticker := time.NewTicker(othersInterval)
	defer ticker.Stop()
	next := map[int]int64{} // offset to read on from, by shard
	for {
		for shard := range d.shards {
			from, begun := next[shard]
			if !begun {
				from = committed.Earliest
			}
			reached, err := d.followShard(ctx, shard, from)
			var gone *committed.OutOfRangeError
			switch {
			case errors.As(err, &gone):
				delete(next, shard)
			case err != nil:
				d.log.Debug("read how far the others are", zap.Int("shard", shard), zap.Error(err))
			default:
				next[shard] = reached
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// followShard reads on in one shard's positions. One that cannot be read is for
// its owner to refuse.
func (d *Daemon) followShard(ctx context.Context, shard int, from int64) (next int64, err error) {
	next, _, err = d.reader.Read(ctx, d.config.Kafka.Topics.Offsets, shard, from, committed.LastStable, func(r committed.Record) error {
		if p, err := offsets.DecodePosition(r.Value); err == nil && string(p.Source) == string(r.Key) {
			d.finish.published(cdr.SourceName(p.Source), p.Published())
		}
		return nil
	})
	return next, err
}
