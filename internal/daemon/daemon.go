// Package daemon is a running cdrbus: it knows the four rooms, which do not know
// one another, and carries a record through them.
//
//	lane       one for each credential: plans, fetches and encodes its sources' windows   (lane.go)
//	window     the sink of a window's pages: leaves out what is published, keeps the rest  (window.go)
//	committer  one for each shard: windows -> one transaction -> verdicts to the lanes     (commit.go)
//	shard      take over, restore, run the lanes and the committer, until it is lost       (shard.go)
//	fleet      which shards this process owns, alone or as one of several                  (fleet.go)
//
// Whatever is mutable has one owner: a lane owns its sources and its set of
// published IDs, a committer its producer and its positions, and a window is
// handed from the one to the other and back. The board of package status is the
// only thing that all write to.
//
// A crash at any instant is a restart: everything that counts is in the log.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/producer"
	"cdrbus/schema"
)

// DialFunc opens a connection.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Options say what to run. Config, Log and Board are required.
type Options struct {
	Config  *config.Config
	Log     *zap.Logger
	Board   *status.Board
	Version string

	// Until ends the run when every source has published all before it. Nothing
	// younger is asked for. Zero: run for ever.
	Until cdr.Instant

	// Only lets the daemon do nothing but one job, which was written to the jobs topic
	// and found no owner, and end with it. It takes the job's shard without asking.
	Only *offsets.Job

	// DialKafka and DialFeed open connections instead of the network, for networks
	// in memory. The schema registry is reached through DialFeed too.
	DialKafka, DialFeed DialFunc
	// MetadataTTL is that of [kafkaconn.Options].
	MetadataTTL time.Duration

	// VerifyEvents is how many events a verification keeps at once, unless one hour has
	// more; 0: half a million.
	VerifyEvents int

	// LimitMemory lets the daemon set the process's memory limit by what it is
	// configured to hold. Only for a process that does nothing else.
	LimitMemory bool
}

// Daemon is one process's share of the work. Make one with [New], run it once
// with [Daemon.Run], then Close it.
type Daemon struct {
	config *config.Config
	log    *zap.Logger
	board  *status.Board
	until  cdr.Instant
	only   *offsets.Job            // nil: all there is to do
	end    context.CancelCauseFunc // of Run
	finish finish

	client        *kafka.Client
	reader        *committed.Reader
	layout        *producer.Layout
	receipts      *offsets.ReceiptCodec
	schemaByID    func(ctx context.Context, id int) (string, error) // of the registry
	encoders      *encoderPool
	memory        *memory
	everCommitted atomic.Bool  // the settings and rights of this process suffice
	seenBytes     atomic.Int64 // of all sets of published IDs
	fingerprint   uint32       // of the event schema
	verifyEvents  int          // see Options
	shards        map[int][]*source

	vaults map[string]*vault // by credential, of those whose tokens lie in Kafka

	budgetsMu sync.Mutex
	budgets   map[string]*poller.Budget // by credential group; they outlive a shard's loss
	clocks    *clocks

	gate *gate // opens when every shard has been restored for the first time
}

// fatalError ends the daemon: a person has to act before anything can run.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// New connects to Kafka and to the schema registry and checks everything that
// can be checked before a shard is owned: brokers, topics, schemas, tokens'
// files. Nothing has been published when it fails.
func New(ctx context.Context, options Options) (*Daemon, error) {
	d := &Daemon{
		config:       options.Config,
		log:          options.Log,
		board:        options.Board,
		until:        options.Until,
		only:         options.Only,
		finish:       finish{until: options.Until},
		memory:       newMemory(int64(options.Config.Memory.Budget), int64(options.Config.Memory.MaxWindowBytes)),
		fingerprint:  schema.Fingerprint(),
		verifyEvents: cmp.Or(options.VerifyEvents, verifyEvents),
		budgets:      map[string]*poller.Budget{},
		clocks:       newClocks(options.Log),
		shards:       map[int][]*source{},
		vaults:       map[string]*vault{},
	}
	var err error
	if d.client, err = connect(options); err != nil {
		return nil, err
	}
	d.reader = committed.NewReader(d.client)
	if options.LimitMemory {
		d.memory.limitFromNow(d.besides())
	}
	if err := d.prepare(ctx, options); err != nil {
		kafkaconn.Close(d.client)
		return nil, err
	}
	return d, nil
}

func (d *Daemon) prepare(ctx context.Context, options Options) error {
	if err := d.prepareTopics(ctx); err != nil {
		return err
	}
	if err := d.prepareSchemas(ctx, options.DialFeed, d.layout.MaxValueBytes(producer.Events)); err != nil {
		return err
	}
	if err := d.prepareSources(options); err != nil {
		return err
	}
	if d.only != nil {
		if err := d.onlySources(); err != nil {
			return err
		}
	}
	d.gate = newGate()
	if !d.inFleet() {
		d.gate = newGate(slices.Collect(maps.Keys(d.shards))...)
	}
	return nil
}

// Close ends the connections. Run must have returned.
func (d *Daemon) Close() { kafkaconn.Close(d.client) }

// Memory tells how many bytes windows have reserved, and how many they may.
func (d *Daemon) Memory() (usedBytes, limitBytes int64) {
	return d.memory.used.Load(), d.memory.budgetBytes
}

// Run polls and publishes until ctx ends, or until every source has reached
// Options.Until. After ctx has ended an open commit is finished or aborted.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.end = cancel
	d.logOnly()
	d.finish.begin(d.shards, cancel)
	var beside sync.WaitGroup
	if d.inFleet() && !d.until.IsZero() {
		beside.Go(func() { d.followOthers(ctx) })
	}
	err := d.owner().Run(ctx, d.ownShard)
	cause := context.Cause(ctx)
	cancel(nil)
	beside.Wait()
	switch {
	case errors.Is(cause, errReached), errors.Is(cause, errJobEnded):
		return nil
	case errors.Is(cause, ErrNotReached):
		return cause
	default:
		return err
	}
}

// sourcesOf returns the sources placed in a shard.
func (d *Daemon) sourcesOf(shard int) []*source { return d.shards[shard] }

// opened waits until every shard that this process is sure to own has been taken
// over and restored for the first time: nothing is published before all of them
// have passed.
func (d *Daemon) opened(ctx context.Context, shard int) error {
	d.gate.arrive(shard)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.gate.open:
		return nil
	}
}

// firstTime makes an error fatal while shards are awaited that have never been
// open: what fails at start is shown to whoever started it; what fails later is
// tried again.
func (d *Daemon) firstTime(shard int, err error) error {
	if d.gate.awaits(shard) {
		return &fatalError{err}
	}
	return err
}

// gate opens, for good, when each of the shards it awaits has arrived.
type gate struct {
	open chan struct{}

	mu      sync.Mutex
	pending map[int]bool
	passed  bool // some shard has arrived
}

// newGate returns a gate that awaits shards. Awaiting none it is open: the members
// of a fleet do not know beforehand which shards they will get.
func newGate(shards ...int) *gate {
	g := &gate{open: make(chan struct{}), pending: map[int]bool{}}
	for _, shard := range shards {
		g.pending[shard] = true
	}
	if len(shards) == 0 {
		close(g.open)
	}
	return g
}

// awaits reports whether the process is still starting, as far as a shard shows.
func (g *gate) awaits(shard int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending[shard] || !g.passed
}

func (g *gate) arrive(shard int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = true
	if g.pending[shard] {
		delete(g.pending, shard)
		if len(g.pending) == 0 {
			close(g.open)
		}
	}
}
