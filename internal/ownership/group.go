package ownership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// GroupOptions say which group to join, and how patiently. All but Loaded,
// Changed and Log is required.
type GroupOptions struct {
	// Client asks whether a membership holds, and who else is a member.
	Client *kafka.Client
	// Dialer and Brokers are for the membership itself, which has a connection of
	// its own.
	Dialer  *kafka.Dialer
	Brokers []string

	// ID of the group; Topic whose partitions are the shards.
	ID, Topic string
	// Name of this process, for people.
	Name string

	// SessionTimeout is after how long of silence the coordinator deals a
	// member's shards out to others.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often a member says that it is alive, and so how
	// soon it learns that shards are dealt out anew.
	HeartbeatInterval time.Duration

	// Loaded reports whether a shard has anything to do. Default: all have.
	Loaded func(shard int) bool
	// Changed, if set, is told who owns what, after each change and every now and
	// then, from one goroutine at a time.
	Changed func(Fleet)
	Log     *zap.Logger
}

// Group shares shards with the other members of a Kafka consumer group.
//
// Membership chooses and fencing protects. While the group is dealt out anew the
// loops go on; only what falls to another member is given up, and the two owners
// do not wait for each other: the new one takes over by fencing, which ends what
// the old one left open. A member that cannot reach the coordinator works on
// until it is fenced, and then proves that it still is a member before it takes
// a shard back. kafka-go's ConsumerGroup speaks the protocol; nothing is consumed
// through it, and no offset is committed to it.
type Group struct {
	options    GroupOptions
	holdings   *holdings
	generation generation
	changed    chan struct{} // capacity 1: something changed since the fleet was last looked at
}

// generation is one dealing-out, as one member knows it.
type generation struct {
	mu     sync.Mutex
	id     int32
	member string // empty: no member
}

func (g *generation) set(id int32, member string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.id, g.member = id, member
}

func (g *generation) get() (id int32, member string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.id, g.member
}

// NewGroup returns a member-to-be.
func NewGroup(options GroupOptions) *Group {
	if options.Loaded == nil {
		options.Loaded = func(int) bool { return true }
	}
	if options.Changed == nil {
		options.Changed = func(Fleet) {}
	}
	if options.Log == nil {
		options.Log = zap.NewNop()
	}
	return &Group{options: options, changed: make(chan struct{}, 1)}
}

const (
	// rejoinPause is how long a member whose membership failed waits before it
	// joins again. Its loops go on meanwhile.
	rejoinPause = time.Second
	// coordinatorTimeout bounds a request to the group's coordinator.
	coordinatorTimeout = 5 * time.Second
	// leavePatience bounds the farewell. kafka-go's Close may hang; whoever does
	// not say goodbye is missed after the session time-out.
	leavePatience = 2 * time.Second
)

// Run implements Owner. At the end it gives all shards up first and leaves the
// group then, so that the others take over what nobody holds any more.
func (g *Group) Run(ctx context.Context, own Own) error {
	loops, ctx := errgroup.WithContext(ctx)
	g.holdings = &holdings{ctx: ctx, loops: loops, own: own, prove: g.prove, current: map[int]*holding{}, ending: map[int]*holding{}}
	membership, err := kafka.NewConsumerGroup(g.membership())
	if err != nil {
		return fmt.Errorf("join consumer group %s: %w", g.options.ID, err)
	}
	loops.Go(func() error { return g.follow(ctx, membership) })
	loops.Go(func() error { g.watch(ctx); return nil })
	err = loops.Wait()
	g.leave(membership)
	return err
}

// membership says how kafka-go joins.
func (g *Group) membership() kafka.ConsumerGroupConfig {
	return kafka.ConsumerGroupConfig{
		ID:                g.options.ID,
		Brokers:           g.options.Brokers,
		Dialer:            g.options.Dialer,
		Topics:            []string{g.options.Topic},
		GroupBalancers:    []kafka.GroupBalancer{&balancer{topic: g.options.Topic, claim: g.claim, loaded: g.options.Loaded}},
		HeartbeatInterval: g.options.HeartbeatInterval,
		SessionTimeout:    g.options.SessionTimeout,
		// A member that died just before is waited for no longer than one that
		// dies at any other time.
		RebalanceTimeout: g.options.SessionTimeout,
		JoinGroupBackoff: rejoinPause,
		StartOffset:      kafka.FirstOffset,
		Timeout:          coordinatorTimeout,
		ErrorLogger:      kafka.LoggerFunc(func(format string, args ...any) { g.options.Log.Debug(fmt.Sprintf(format, args...)) }),
	}
}

func (g *Group) claim() claim {
	holds, generation := g.holdings.claimed()
	return claim{Name: g.options.Name, Holds: holds, Generation: generation}
}

// follow takes in one generation after another until ctx ends. A membership that
// fails is told of once, and kafka-go joins again by itself; only what a person
// has to mend ends a member that never was one.
func (g *Group) follow(ctx context.Context, membership *kafka.ConsumerGroup) error {
	joined, failing := false, false
	for {
		next, err := membership.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if failing {
				g.options.Log.Info("member of the consumer group again", zap.String("group", g.options.ID))
			}
			joined, failing = true, false
			g.adopt(next)
		case errors.Is(err, kafka.RebalanceInProgress):
		case !joined && refusalOf(err) != "":
			return fmt.Errorf("join consumer group %s: %w; %s", g.options.ID, err, refusalOf(err))
		case !failing:
			failing = true
			g.options.Log.Warn("membership of the consumer group failed, joining again; shards at work go on",
				zap.String("group", g.options.ID), zap.Error(err), zap.String("remedy", refusalOf(err)))
		}
	}
}

// refusals are the answers that stay the same until a person acts, and what to do.
var refusals = []struct {
	code   kafka.Error
	remedy string
}{
	{kafka.GroupAuthorizationFailed, "grant Read and Describe on the group with kafka-acls.sh"},
	{kafka.TopicAuthorizationFailed, "grant Describe on the offsets topic with kafka-acls.sh"},
	{kafka.InvalidSessionTimeout, "set kafka.group.session_timeout within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"},
	{kafka.InconsistentGroupProtocol, "another kind of consumer uses the group's name: choose another kafka.group.id, or stop it"},
	{kafka.GroupMaxSizeReached, "raise the brokers' group.max.size, or run fewer members"},
}

// refusalOf returns what a person has to do about a failed membership; empty if
// it may pass by itself.
func refusalOf(err error) string {
	for _, r := range refusals {
		if errors.Is(err, r.code) {
			return r.remedy
		}
	}
	return ""
}

// adopt takes in a generation.
func (g *Group) adopt(next *kafka.Generation) {
	var shards []int
	for _, p := range next.Assignments[g.options.Topic] {
		shards = append(shards, p.ID)
	}
	slices.Sort(shards)
	g.generation.set(next.ID, next.MemberID)
	given, kept, begun := g.holdings.assign(next.ID, shards)
	g.options.Log.Info("shards dealt out", zap.String("group", g.options.ID), zap.Int32("generation", next.ID),
		zap.Ints("begun", begun), zap.Ints("kept", kept), zap.Ints("given_up", given))
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// errNotMember says that this process is not, or not yet again, the owner that
// the group has chosen.
var errNotMember = errors.New("not a member of the consumer group just now")

// prove asks the coordinator whether the generation in which the shard was dealt
// out to us still stands. The answer is good for the moment only; who takes a
// shard over after a wrong one is fenced by its right owner.
func (g *Group) prove(ctx context.Context, shard int) error {
	id, member := g.generation.get()
	answer, err := g.options.Client.Heartbeat(ctx, &kafka.HeartbeatRequest{GroupID: g.options.ID, GenerationID: id, MemberID: member})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return fmt.Errorf("prove ownership of shard %d: %w: %w", shard, errNotMember, err)
	}
	if holds, _ := g.holdings.claimed(); !slices.Contains(holds, shard) {
		return fmt.Errorf("prove ownership of shard %d: %w: it was dealt out to another", shard, errNotMember)
	}
	return nil
}

// leave says goodbye, if the coordinator listens.
func (g *Group) leave(membership *kafka.ConsumerGroup) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = membership.Close() // it has no error of interest: the coordinator misses us later
	}()
	timer := time.NewTimer(leavePatience)
	defer timer.Stop()
	select {
	case <-left:
	case <-timer.C:
		g.options.Log.Warn("the consumer group's coordinator did not take the farewell; others take over after the session time-out", zap.String("group", g.options.ID))
	}
}
