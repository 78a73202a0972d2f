package producer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// Mode is what a shard promises.
type Mode uint8

const (
	// ExactlyOnce commits each group of windows in one transaction.
	ExactlyOnce Mode = iota
	// AtLeastOnce is for brokers that do not allow transactions. The same path
	// without them: what a position vouches for is acknowledged by all replicas
	// before the position is sent. A failure in between repeats events.
	AtLeastOnce
)

func (m Mode) String() string { return [...]string{"exactly_once", "at_least_once"}[m] }

// ShardOptions say whose commits a shard sends, and within which times.
type ShardOptions struct {
	// TransactionalID is the shard's name at the coordinator. Whoever takes it
	// over fences the former owner. Unused in AtLeastOnce.
	TransactionalID string
	// Partition is the shard: the drafts it commits must be made for it.
	Partition int
	// Layout of the drafts.
	Layout *Layout
	// Mode is ExactlyOnce unless said otherwise.
	Mode Mode

	// TransactionTimeout is after how long the coordinator aborts a transaction
	// whose owner is silent. Default 60 s; brokers allow 15 min at most.
	TransactionTimeout time.Duration
	// AbortAfter is how long a commit may take from its first request to its last
	// batch. It stays below TransactionTimeout, so that we are the ones who end
	// it. Default 45 s.
	AbortAfter time.Duration
	// ShutdownGrace is how long a commit may go on after its context has ended,
	// to abort what is open, or to get the answer to a commit that was asked for.
	// Default 5 s.
	ShutdownGrace time.Duration

	// Observe, if set, is told of each request and its answer, from the goroutine
	// that owns the shard. It must not block.
	Observe func(Step)
	// Log, if set, is told when Kafka is silent for long, and when it answers again.
	Log *zap.Logger
}

const (
	defaultTransactionTimeout = 60 * time.Second
	defaultAbortAfter         = 45 * time.Second
	defaultShutdownGrace      = 5 * time.Second
	defaultRequestTimeout     = 10 * time.Second
)

func (o ShardOptions) withDefaults() ShardOptions {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&o.TransactionTimeout, defaultTransactionTimeout},
		{&o.AbortAfter, defaultAbortAfter},
		{&o.ShutdownGrace, defaultShutdownGrace},
	} {
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	if o.Observe == nil {
		o.Observe = func(Step) {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return o
}

func (o ShardOptions) validate() error {
	switch {
	case o.Layout == nil:
		return errors.New("no layout")
	case o.Mode == ExactlyOnce && o.TransactionalID == "":
		return errors.New("no transactional.id")
	case o.AbortAfter >= o.TransactionTimeout:
		return fmt.Errorf("own abort after %s, want less than the transaction timeout of %s", o.AbortAfter, o.TransactionTimeout)
	}
	return o.Layout.Validate()
}

// Shard sends the commits of one shard, one after another. It belongs to one
// goroutine, starts none that outlives a call, and holds nothing to be closed:
// an owner that goes away simply drops it.
type Shard struct {
	wire    wire
	options ShardOptions
	log     *zap.Logger

	state state
	// own is our identity; in ExactlyOnce its epoch serves one transaction.
	own identity
	// open says that the coordinator may have an open transaction of ours.
	open bool
	// sequences counts the records sent in this identity, by partition. Empty in
	// ExactlyOnce, where each transaction counts from 0.
	sequences map[place]int32
}

// state is what a shard may do next.
//
//	TakeOver, Recover:          restoring
//	Restored:                   restoring -> fresh
//	Commit, Committed:          fresh, spent -> spent (fresh without transactions)
//	Commit, MustRestore:        fresh, spent -> broken
//	Recover, MustRestore:       broken -> broken
//
// and from anywhere, when fenced, to lost.
type state uint8

const (
	// restoring: the epoch is new and the log lies still, but the caller has not
	// read it yet.
	restoring state = iota
	// fresh: this epoch has not been used for a transaction.
	fresh
	// spent: this epoch has committed a transaction, for certain.
	spent
	// broken: it is unknown what became of the last transaction.
	broken
	// lost: somebody else may own the shard.
	lost
)

func (s state) String() string {
	return [...]string{"waiting for Restored", "ready", "ready", "waiting for Recover", "lost"}[s]
}

// demand panics unless the shard is in one of the states. Going on in another
// would lose records or publish them twice, so it is no error to be handled.
func (s *Shard) demand(call string, states ...state) {
	for _, allowed := range states {
		if s.state == allowed {
			return
		}
	}
	panic(fmt.Sprintf("producer: %s of shard %d, which is %s", call, s.options.Partition, s.state))
}

// leastTakeOverPatience is longer than a coordinator waits for a broker that stands
// still (its request.timeout.ms, 30 s) before the former owner's transaction can end.
const leastTakeOverPatience = time.Minute

// TakeOver makes this process the owner of a shard: protocol A.
//
// It retries for as long as ctx allows, at most one transaction timeout or a minute. Its
// error wraps a [*Failure] that says whether a person has to act. Only after it
// returned may the caller read the shard's positions, and then calls
// [Shard.Restored]: read before, they could still change.
func TakeOver(ctx context.Context, client *kafka.Client, options ShardOptions) (*Shard, error) {
	options = options.withDefaults()
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("take over shard %d: %w", options.Partition, err)
	}
	s := newShard(client, options)
	ctx, cancel := context.WithTimeoutCause(ctx, max(options.TransactionTimeout, leastTakeOverPatience), errOutOfTime)
	defer cancel()

	// 1. Whoever owned the transactional.id is fenced, and a transaction it left
	//    open is aborted. The answer's epoch is ours alone.
	//
	//    A crash here leaves an epoch that nobody uses. The next owner takes the
	//    one after it.
	if failure := s.newIdentity(ctx, unidentified); failure != nil {
		return nil, fmt.Errorf("take over shard %d: %w", options.Partition, failure)
	}

	// 2. The caller restores.
	s.state = restoring
	return s, nil
}

func newShard(client *kafka.Client, options ShardOptions) *Shard {
	s := &Shard{
		wire: wire{
			transport:      client.Transport,
			addr:           client.Addr,
			requestTimeout: client.Timeout,
			txnTimeout:     options.TransactionTimeout,
			layout:         options.Layout,
			observe:        options.Observe,
		},
		options: options,
		log:     options.Log.With(zap.Int("shard", options.Partition)),
		own:     unidentified,
	}
	if s.wire.transport == nil {
		s.wire.transport = kafka.DefaultTransport
	}
	if s.wire.requestTimeout <= 0 {
		s.wire.requestTimeout = defaultRequestTimeout
	}
	if options.Mode == ExactlyOnce {
		s.wire.transactionalID = options.TransactionalID
	}
	return s
}

// Restored tells the shard that the caller has read the positions after
// [TakeOver] or [Shard.Recover]. Only then may it commit.
func (s *Shard) Restored() {
	s.demand("Restored", restoring)
	s.state = fresh
}

// Prove tells whether the shard has been ours all the time since [TakeOver] or
// [Shard.Recover], so that nobody else wrote while the caller read. Whoever finds
// the log at odds with itself asks before believing it: an owner that took over
// and committed between two reads looks the same.
//
// It takes the next epoch, which nobody is given who is not the owner. After an
// error the shard is to be dropped, and taken over anew after a pause.
func (s *Shard) Prove(ctx context.Context) error {
	s.demand("Prove", restoring, fresh, spent)
	if !s.transactional() {
		return nil // nobody is fenced, and nothing can be proven
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.TransactionTimeout, errOutOfTime)
	defer cancel()
	if failure := s.succeed(ctx); failure != nil {
		s.surrender(failure)
		return fmt.Errorf("prove ownership of shard %d: %w", s.options.Partition, failure)
	}
	if s.state == spent {
		s.state = fresh
	}
	return nil
}

// Commit brings a commit into the log: protocol B. It panics if a restore is
// owed, if the shard is lost, or if the commit is another shard's.
//
// The end of ctx means: begin nothing new. What is open is aborted, and a commit
// that has been asked for already is waited for; both take at most
// ShutdownGrace. The result then is what is known by that time.
func (s *Shard) Commit(ctx context.Context, c *Commit) Result {
	s.demand("Commit", fresh, spent)
	if c.layout != s.options.Layout || c.shard != s.options.Partition {
		panic(fmt.Sprintf("producer: commit of shard %d, made for shard %d or for another layout", s.options.Partition, c.shard))
	}
	began := time.Now()
	sending, cancel := context.WithDeadlineCause(ctx, began.Add(s.options.AbortAfter), errOutOfTime)
	defer cancel()

	// 1. A new epoch, if this one has had its transaction. From here on whatever
	//    of the former transaction is still on its way is refused.
	//
	//    A crash here leaves an unused epoch, and nothing in the log.
	if failure := s.nextEpoch(sending); failure != nil {
		return s.giveUp(ctx, failure)
	}

	// 2. The transaction begins, with all its partitions in one request. The
	//    coordinator's clock runs.
	//
	//    A crash here leaves an empty open transaction. The next owner's TakeOver
	//    aborts it; without one the coordinator does after TransactionTimeout.
	//    Until then readers of committed records wait.
	if failure := s.beginTransaction(sending, c); failure != nil {
		return s.giveUp(ctx, failure)
	}

	// 3. The records, round by round, the positions in the last one.
	//
	//    A crash here leaves records in an open transaction, which nobody will
	//    see: it is aborted as above.
	placed, failure := s.produce(sending, c)
	if failure != nil {
		return s.giveUp(ctx, failure)
	}

	// 4. The commit itself, asked for until the answer is definite.
	//
	//    A crash here leaves a commit that happened or not, as a whole. The next
	//    owner reads in the log which.
	if failure := s.commitTransaction(ctx, began); failure != nil {
		return s.giveUp(ctx, failure)
	}
	return Committed{placed}
}

// Recover ends whatever a broken commit left open and takes a new epoch: protocol
// C, as far as it is ours. Then the log is at rest, the caller reads the positions
// and calls [Shard.Restored].
//
// It panics unless the last result was MustRestore. A MustRestore from it means
// that Kafka could not be asked: it may be called again, or the shard taken over
// anew.
func (s *Shard) Recover(ctx context.Context) Recovery {
	s.demand("Recover", broken)
	ctx, cancel := context.WithTimeoutCause(ctx, s.options.TransactionTimeout, errOutOfTime)
	defer cancel()

	// 1. Abort first: asking for an epoch while our own transaction is open fences
	//    ourselves. A commit on its way is refused from here on, or was in time;
	//    then nothing is left to abort, which is an answer too.
	//
	//    A crash here leaves the transaction open, or ended one way or the other.
	if failure := s.abortTransaction(ctx); failure != nil {
		return s.surrender(failure)
	}

	// 2. A new epoch, whichever: with a restore to follow it need not be the next.
	//
	//    A crash here leaves an unused epoch.
	if failure := s.newIdentity(ctx, s.own); failure != nil {
		return s.surrender(failure)
	}

	// 3. The caller restores.
	s.state = restoring
	return Recovered{}
}

// giveUp ends a commit that failed. If the caller is about to go away, nobody may
// come to Recover, so what is open is aborted here.
func (s *Shard) giveUp(ctx context.Context, failure *Failure) Result {
	result := s.surrender(failure)
	if s.state != broken || ctx.Err() == nil || failure.Request == CommitTransaction && failure.class == indefinite {
		return result
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.options.ShutdownGrace, errOutOfTime)
	defer cancel()
	if failure := s.abortTransaction(ctx); failure != nil {
		return s.surrender(failure)
	}
	return result
}

// outcome is a result that Commit and Recover share.
type outcome interface {
	Result
	Recovery
}

// surrender turns a failure into a result and remembers what it forbids.
func (s *Shard) surrender(failure *Failure) outcome {
	if failure.class == fenced {
		s.state = lost
		return Fenced{Cause: failure}
	}
	s.state = broken
	return MustRestore{Cause: failure, Blame: failure.Blame}
}

// Epoch is the producer epoch in use: each transaction takes the next one.
func (s *Shard) Epoch() int16 { return s.own.epoch }

// Partition is the shard: the partition of every topic but the events.
func (s *Shard) Partition() int { return s.options.Partition }
