package ownership_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/ownership"
)

const (
	topic   = "webex.cdr.offsets"
	shards  = 8
	session = 6 * time.Second
)

// fleet is a broker and the processes that share its shards, in fake time.
type fleet struct {
	t       *testing.T
	network *kfake.VirtualNetwork
	cluster *embedded.Cluster

	mu      sync.Mutex
	owners  map[int]map[string]bool // by shard: usually one, two for a moment
	begun   int                     // loops
	overlap int                     // loops of one member for one shard at a time: never
	seen    map[string]ownership.Fleet
}

func inFleet(t *testing.T, test func(t *testing.T, f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, network: &kfake.VirtualNetwork{}, owners: map[int]map[string]bool{}, seen: map[string]ownership.Fleet{}}
		var err error
		f.cluster, err = embedded.Start(embedded.Options{Network: f.network, Kafka: []kfake.Opt{kfake.SeedTopics(shards, topic)}})
		if err != nil {
			t.Fatal(err)
		}
		test(t, f)
		if err := f.cluster.Close(); err != nil {
			t.Error(err)
		}
	})
}

// process is one member.
type process struct {
	fleet  *fleet
	name   string
	end    context.CancelFunc
	ended  chan error
	client *kafka.Client
	own    ownership.Own // what its loops do; nil: nothing

	mu     sync.Mutex
	frozen chan struct{} // nil: it runs; else connections stall until it is closed
	leases map[int]ownership.Lease
}

func (f *fleet) join(name string, own ownership.Own) *process {
	p := &process{fleet: f, name: name, ended: make(chan error, 1), own: own, leases: map[int]ownership.Lease{}}
	var err error
	p.client, err = kafkaconn.New(kafkaconn.Options{Brokers: f.cluster.Brokers(), ClientID: name, DialContext: p.dial})
	if err != nil {
		f.t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.end = context.WithCancel(f.t.Context())
	group := ownership.NewGroup(ownership.GroupOptions{
		Client: p.client, Dialer: kafkaconn.DialerOf(p.client), Brokers: f.cluster.Brokers(),
		ID: "cdrbus", Topic: topic, Name: name, SessionTimeout: session, HeartbeatInterval: time.Second,
		Changed: func(told ownership.Fleet) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.seen[name] = told
		},
	})
	go func() {
		p.ended <- group.Run(ctx, p.loop)
		kafkaconn.Close(p.client)
	}()
	return p
}

func (p *process) loop(ctx context.Context, lease ownership.Lease) error {
	f := p.fleet
	f.mu.Lock()
	if f.owners[lease.Shard] == nil {
		f.owners[lease.Shard] = map[string]bool{}
	}
	if f.owners[lease.Shard][p.name] {
		f.overlap++
	}
	f.owners[lease.Shard][p.name] = true
	f.begun++
	f.mu.Unlock()
	p.mu.Lock()
	p.leases[lease.Shard] = lease
	p.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.owners[lease.Shard], p.name)
	}()
	if p.own != nil {
		return p.own(ctx, lease)
	}
	<-ctx.Done()
	return nil
}

// leave ends a member as SIGTERM does.
func (p *process) leave() {
	p.fleet.t.Helper()
	p.end()
	if err := <-p.ended; err != nil {
		p.fleet.t.Errorf("%s ended with %v", p.name, err)
	}
}

// settled waits until each shard has one owner, and the given members have them
// all, evenly.
func (f *fleet) settled(names ...string) time.Duration {
	f.t.Helper()
	began := time.Now()
	for {
		if f.dealtTo(names) {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			f.t.Fatalf("shards are not dealt out to %v after a minute: %v", names, f.owners)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (f *fleet) dealtTo(names []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[string]int{}
	for shard := range shards {
		if len(f.owners[shard]) != 1 {
			return false
		}
		for name := range f.owners[shard] {
			counts[name]++
		}
	}
	for _, name := range names {
		if counts[name] < shards/len(names) || counts[name] > (shards+len(names)-1)/len(names) {
			return false
		}
	}
	return len(counts) == min(len(names), shards)
}

func (f *fleet) loops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

// TestGroupDealsOutEvenly: members come and go, and only what has to move moves.
func TestGroupDealsOutEvenly(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		a := f.join("a", nil)
		f.settled("a")
		if n := f.loops(); n != shards {
			t.Errorf("%d loops were begun, want %d", n, shards)
		}
		b := f.join("b", nil)
		t.Logf("a second member has its share after %s", f.settled("a", "b"))
		if n := f.loops(); n != shards+shards/2 {
			t.Errorf("%d loops were begun, want %d: the shards that stay go on", n, shards+shards/2)
		}
		c := f.join("c", nil)
		f.settled("a", "b", "c")
		before := f.loops()
		b.leave()
		took := f.settled("a", "c")
		t.Logf("the others have its share %s after a clean end", took)
		if took > 3*time.Second {
			t.Errorf("the others took over %s after a clean end, want 3 s at most", took)
		}
		if n := f.loops() - before; n > 3 {
			t.Errorf("%d loops were begun when a member with at most 3 shards left", n)
		}
		a.leave()
		c.leave()
		if f.overlap > 0 {
			t.Errorf("%d times a member had two loops for one shard", f.overlap)
		}
	})
}

// TestGroupReplacesTheFrozen: a member that is silent is replaced after the session
// time-out. When it wakes it proves nothing that is no longer its own, and joins
// again.
func TestGroupReplacesTheFrozen(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		a, b := f.join("a", nil), f.join("b", nil)
		f.settled("a", "b")
		a.mu.Lock()
		lease := a.leases[f.shardOf("a")]
		a.mu.Unlock()
		if err := lease.Prove(t.Context()); err != nil {
			t.Errorf("a member cannot prove its own: %v", err)
		}
		a.freeze()
		took := f.ownedBy("b")
		t.Logf("a frozen member is replaced after %s", took)
		if took > session+3*time.Second {
			t.Errorf("a frozen member was replaced after %s, want the session time-out of %s and 3 s at most", took, session)
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := lease.Prove(impatient); err == nil {
			t.Error("a frozen member proves what was dealt out to another")
		}
		cancel()
		a.thaw()
		f.settled("a", "b")
		a.mu.Lock()
		leases := maps.Clone(a.leases)
		a.mu.Unlock()
		for shard, lease := range leases {
			if err := lease.Prove(t.Context()); (err == nil) != f.owners[shard]["a"] {
				t.Errorf("shard %d is owned by %v, and a's proof is %v", shard, f.owners[shard], err)
			}
		}
		a.leave()
		b.leave()
	})
}

// ownedBy waits until a member works on every shard, whoever else does.
func (f *fleet) ownedBy(name string) time.Duration {
	f.t.Helper()
	began := time.Now()
	for {
		f.mu.Lock()
		owned := 0
		for _, owners := range f.owners {
			if owners[name] {
				owned++
			}
		}
		f.mu.Unlock()
		if owned == shards {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			f.t.Fatalf("%s owns %d shards after a minute", name, owned)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// shardOf returns some shard that a member works on.
func (f *fleet) shardOf(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for shard, owners := range f.owners {
		if owners[name] {
			return shard
		}
	}
	return -1
}

// freeze stops everything that the process sends, as SIGSTOP does, until thaw.
func (p *process) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = make(chan struct{})
}

func (p *process) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.frozen)
	p.frozen = nil
}

func (p *process) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := p.fleet.network.DialContext(ctx, network, address)
	return &freezing{conn, p}, err
}

// freezing is a connection that stalls with its process.
type freezing struct {
	net.Conn
	process *process
}

func (c *freezing) Write(b []byte) (int, error) {
	c.process.mu.Lock()
	frozen := c.process.frozen
	c.process.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	return c.Conn.Write(b)
}

// TestGroupEndsWithTheFirstError: what one shard cannot mend ends the process.
func TestGroupEndsWithTheFirstError(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		broken := errors.New("broken")
		p := f.join("a", func(ctx context.Context, lease ownership.Lease) error {
			if lease.Shard == 3 {
				return broken
			}
			<-ctx.Done()
			return nil
		})
		if err := <-p.ended; !errors.Is(err, broken) {
			t.Errorf("Run = %v, want %v", err, broken)
		}
		p.end()
	})
}

// TestFleetIsTold: each member knows who owns what.
func TestFleetIsTold(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		a, b := f.join("a", nil), f.join("b", nil)
		f.settled("a", "b")
		time.Sleep(20 * time.Second)
		f.mu.Lock()
		for _, name := range []string{"a", "b"} {
			told := f.seen[name]
			var all []int
			for _, m := range told.Members {
				if m.Self != (m.Name == name) {
					t.Errorf("%s takes %s for itself: %v", name, m.Name, m.Self)
				}
				all = append(all, m.Shards...)
			}
			slices.Sort(all)
			if len(told.Members) != 2 || fmt.Sprint(all) != "[0 1 2 3 4 5 6 7]" || told.State != "Stable" {
				t.Errorf("%s is told %+v", name, told)
			}
		}
		f.mu.Unlock()
		a.leave()
		b.leave()
	})
}
