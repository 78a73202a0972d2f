package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/faultnet"
	"cdrbus/internal/kafkatest"
)

var (
	killsFlag   = flag.Int("siege.kills", 12, "kill -9 of the program on each version of Kafka, in TestSiegeProcess")
	stormsFlag  = flag.Int("siege.storms", 1, "lives in a storm, and as many without answers to commits, of about 25 s each, on each version of Kafka, in TestSiegeProcess")
	freezesFlag = flag.Int("siege.freezes", 2, "SIGSTOP of the program on each version of Kafka, in TestSiegeProcess; every second one outlasts its transaction")
)

// TestSiegeProcess strikes the program itself: kill -9 at random and at named
// points of a commit, and SIGSTOP while another process with the same
// configuration takes over. The network between it and the broker cuts
// connections, and delivers requests twice, or when nobody waits any more.
func TestSiegeProcess(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		s := startProcessSiege(t, "process", kafkatest.Options{Version: version})
		freezes, every := 0, max(1, *killsFlag/max(1, *freezesFlag))
		for life := range *killsFlag {
			s.life(s.point(life))
			if life%every == every-1 && freezes < *freezesFlag {
				freezes++
				s.frozenLife(freezes%2 == 0)
			}
		}
		for range *stormsFlag {
			s.stormyLife()
			s.unansweredLife(faultnet.CutBefore, "killed after its commit did not arrive")
			s.unansweredLife(faultnet.CutAfter, "killed after its commit was not answered")
		}
		for len(s.ghosts) > 0 {
			p, _ := s.begin()
			s.strikeAtRandom(p)
		}
		s.demandPoints()
		s.settle()
		t.Logf("the network's faults: %v", s.network.Trace().Counts())
	})
}

const (
	// The shortest that the configuration takes, so that a frozen process outlasts it.
	transactionTimeout = 20 * time.Second
	longFreeze         = transactionTimeout + 3*time.Second
	shortFreeze        = 3 * time.Second
)

// processSiege is one process at a time, and the ghosts of those that were frozen.
type processSiege struct {
	*siege
	network *faultnet.Network
	stormy  atomic.Bool
	commits atomic.Int32 // a faultnet.Fault that befalls every EndTxn; 0: none
	trap    trap
	lives   int
	ghosts  []ghost
}

// ghost is a frozen process.
type ghost struct {
	process *process
	thawAt  time.Time
}

func startProcessSiege(t *testing.T, name string, options kafkatest.Options) *processSiege {
	t.Helper()
	s := &processSiege{}
	s.network = faultnet.New(faultnet.Options{Decide: s.decide()})
	options.Advertise = func(_ int, address string) string {
		entrance, err := s.network.Listen("127.0.0.1:0", address)
		if err != nil {
			t.Fatal(err)
		}
		return entrance.String()
	}
	cluster := kafkatest.Start(t, options)
	o := siegeFeed()
	o.kafka = fmt.Sprintf("  transaction_timeout: %s", transactionTimeout)
	s.siege = startSiege(t, name, cluster, cluster.Bootstrap(), o)
	t.Cleanup(s.network.Close) // before the broker ends; after the processes
	return s
}

// decide is what becomes of each request: a trap may be set for it, else it is a
// matter of the weather. In a storm some are never answered, which costs the
// program its time-out of 10 s.
func (s *processSiege) decide() func(faultnet.Request) faultnet.Fate {
	weather := commitChaos(0.02, 2*time.Second, map[faultnet.Fault]int{faultnet.CutBefore: 1, faultnet.CutAfter: 1, faultnet.LateCut: 2, faultnet.Twice: 2})
	storm := commitChaos(0.05, 10*time.Second, map[faultnet.Fault]int{faultnet.CutAfter: 2, faultnet.LateCut: 3, faultnet.Twice: 3, faultnet.Delay: 2, faultnet.Swallow: 1, faultnet.LateSilent: 1})
	return func(r faultnet.Request) faultnet.Fate {
		if fate, sprung := s.trap.take(r); sprung {
			return fate
		}
		if fault := faultnet.Fault(s.commits.Load()); fault != faultnet.Deliver && r.Key == int16(kmsg.EndTxn) {
			return faultnet.Fate{Fault: fault}
		}
		if s.stormy.Load() {
			return storm.Decide(r)
		}
		return weather.Decide(r)
	}
}

// commitChaos lets a share of the requests of commits meet faults.
func commitChaos(share float64, timeout time.Duration, faults map[faultnet.Fault]int) *faultnet.Chaos {
	chaos := &faultnet.Chaos{
		Seed:    rand.Uint64(),
		Share:   map[int16]float64{faultnet.AnyKey: 0},
		Faults:  map[int16]map[faultnet.Fault]int{faultnet.AnyKey: faults},
		Timeout: timeout, Delay: timeout, Requests: 20,
	}
	for _, key := range commitRequests {
		chaos.Share[int16(key)] = share
	}
	return chaos
}

// commitRequests are the requests of a commit, in their order.
var commitRequests = []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.Produce, kmsg.EndTxn}

// moment says when, around a request, its sender is struck.
type moment string

const (
	unsent   moment = "never arrives"       // the broker does not see the request
	orphaned moment = "arrives"             // it does, when its sender is gone
	overdue  moment = "arrives late"        // and somebody else may own the shard by then
	answered moment = "is answered in vain" // it has acted, and its sender never knows
)

var moments = []moment{unsent, orphaned, overdue, answered}

// point is a named point of a commit. The zero point is a random one.
type point struct {
	request kmsg.Key
	moment  moment
}

func (p point) String() string {
	if p.moment == "" {
		return "killed at random"
	}
	return fmt.Sprintf("killed when %s %s", p.request.Name(), p.moment)
}

// point chooses where a life ends: every second one at the next of all points.
func (s *processSiege) point(life int) point {
	if life%2 == 0 {
		return point{}
	}
	i := life / 2
	return point{commitRequests[i%len(commitRequests)], moments[i/len(commitRequests)%len(moments)]}
}

// demandPoints demands that every point was struck, if there were lives enough.
func (s *processSiege) demandPoints() {
	s.t.Helper()
	struck := map[string]bool{}
	for _, b := range s.blows {
		struck[b.kind] = true
	}
	all := len(commitRequests) * len(moments)
	for i := range min(all, *killsFlag/4) { // half of the lives are for points, and some end early
		if p := s.point(2*i + 1); !struck[p.String()] {
			s.t.Errorf("no process was %s: this proved nothing about it", p)
		}
	}
}

// begin starts the next process, with a client id of its own.
func (s *processSiege) begin() (*process, string) {
	s.t.Helper()
	s.lives++
	client := fmt.Sprintf("life-%d", s.lives)
	return s.startRunIn([]string{"CDRBUS_KAFKA_CLIENT_ID=" + client}), client
}

// life is one process that ends with kill -9. Where the point does not come, it
// ends at random.
func (s *processSiege) life(at point) {
	s.t.Helper()
	p, client := s.begin()
	if at.moment == "" || !s.comesTo(s.trap.arm(client, at, 4*time.Second, p.kill), p) {
		s.strikeAtRandom(p)
		return
	}
	<-p.ended
	s.strike(at.String())
	s.layGhosts()
}

// pointPatience is how long a process may take to come to a point.
const pointPatience = 8 * time.Second

// comesTo reports whether a process steps into the trap in time. Else the trap is
// disarmed.
func (s *processSiege) comesTo(sprung <-chan struct{}, p *process) bool {
	s.t.Helper()
	select {
	case <-sprung:
	case <-p.ended:
	case <-time.After(pointPatience):
		s.trap.disarm()
	}
	select {
	case <-sprung:
		return true
	default:
		s.alive(p)
		return false
	}
}

func (s *processSiege) strikeAtRandom(p *process) {
	s.t.Helper()
	s.killWithin(p, 1500*time.Millisecond)
	s.strike(point{}.String())
}

// killWithin kills a process at random.
func (s *processSiege) killWithin(p *process, longest time.Duration) {
	s.t.Helper()
	life := time.After(200*time.Millisecond + rand.N(longest-200*time.Millisecond))
	s.layGhosts()
	<-life
	s.alive(p)
	p.kill()
}

// frozenLife is one process that stops at a point, its request half-way, and goes
// on when others have taken over: before the broker gives its transaction up, or
// long after.
func (s *processSiege) frozenLife(long bool) {
	s.t.Helper()
	p, client := s.begin()
	duration, kind := shortFreeze, "frozen for a while"
	if long {
		duration, kind = longFreeze, "frozen beyond its transaction"
	}
	at := point{commitRequests[rand.IntN(len(commitRequests))], overdue}
	if !s.comesTo(s.trap.arm(client, at, duration+2*time.Second, p.freeze), p) {
		p.freeze()
	}
	s.strike(kind)
	s.ghosts = append(s.ghosts, ghost{p, time.Now().Add(duration)})
}

// stormyLife is one process that fights with the network for longer than its
// requests may take, until it is killed.
func (s *processSiege) stormyLife() {
	s.t.Helper()
	p, _ := s.begin()
	s.strike("killed in a storm")
	s.stormy.Store(true)
	defer s.stormy.Store(false)
	select {
	case <-p.ended:
	case <-time.After(25 * time.Second):
	}
	s.alive(p)
	p.kill()
}

// unansweredLife is one process that never learns what became of a commit, until
// it asks the log. Then it gets answers again, for a while, and is killed.
func (s *processSiege) unansweredLife(fault faultnet.Fault, kind string) {
	s.t.Helper()
	p, _ := s.begin()
	kafkatest.Eventually(s.t, time.Minute, "the process commits", func() error { return p.says("shard ready") })
	s.strike(kind)
	s.commits.Store(int32(fault))
	kafkatest.Eventually(s.t, 3*transactionTimeout, "the process gives up on its commit", func() error {
		s.alive(p)
		return p.says("commit of unknown outcome")
	})
	s.commits.Store(int32(faultnet.Deliver))
	s.killWithin(p, 5*time.Second)
}

// layGhosts lets the frozen processes whose time has come go on beside the
// present one for a while, and kills them.
func (s *processSiege) layGhosts() {
	var still []ghost
	for _, g := range s.ghosts {
		if time.Now().Before(g.thawAt) {
			still = append(still, g)
			continue
		}
		g.process.thaw()
		select {
		case <-g.process.ended:
		case <-time.After(rand.N(3 * time.Second)):
		}
		g.process.kill()
	}
	s.ghosts = still
}

// trap waits for a request of a client, and strikes it there.
type trap struct {
	mu     sync.Mutex
	client string
	at     point
	late   time.Duration // within which an overdue request arrives
	skip   int           // requests of this kind that pass before
	strike func()
	sprung chan struct{} // nil: not armed
}

// arm sets the trap. The channel is closed when it has struck.
func (t *trap) arm(client string, at point, late time.Duration, strike func()) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.client, t.at, t.late, t.strike = client, at, late, strike
	t.skip, t.sprung = rand.IntN(8), make(chan struct{})
	return t.sprung
}

func (t *trap) disarm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sprung = nil
}

// take decides what becomes of a request that steps into the trap.
func (t *trap) take(r faultnet.Request) (fate faultnet.Fate, sprung bool) {
	t.mu.Lock()
	if t.sprung == nil || r.Client != t.client || r.Key != int16(t.at.request) {
		t.mu.Unlock()
		return faultnet.Fate{}, false
	}
	if t.skip--; t.skip >= 0 {
		t.mu.Unlock()
		return faultnet.Fate{}, false
	}
	moment, late, strike, done := t.at.moment, t.late, t.strike, t.sprung
	t.sprung = nil
	t.mu.Unlock()

	if moment == answered {
		return faultnet.Fate{Answered: func() { close(done); strike() }}, true
	}
	close(done)
	strike()
	switch moment {
	case unsent:
		return faultnet.Fate{Fault: faultnet.CutBefore}, true
	case overdue:
		return faultnet.Fate{Fault: faultnet.LateCut, After: rand.N(late)}, true
	default:
		return faultnet.Fate{}, true
	}
}
