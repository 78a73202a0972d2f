package daemon_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/embedded"
	"cdrbus/internal/faultnet"
	"cdrbus/internal/simulator"
)

// simulation is one seed's world: brokers as strict as Kafka, a network and a feed
// that misbehave, and owners that come and go.
//
//	owners ──► faultnet ──► strictBrokers ──► kfake
//	   └─────► the feed and its faults; a frozen owner does not reach it either
type simulation struct {
	*world
	scenario
	net     *faultnet.Network
	brokers *strictBrokers
	chaos   faultnet.Chaos
	calm    atomic.Bool // the network delivers everything
	cfg     *config.Config
	until   cdr.Instant
	began   time.Time
	lives   sync.WaitGroup // dead ones included, until they are gone

	errands []*errand // what people ask for
	asking  sync.WaitGroup
	topics  topicLog

	mu     sync.Mutex
	living map[string]bool // by client name
	tally  tally
}

// scenario is what a seed chooses beforehand.
type scenario struct {
	seed    uint64
	nodes   int  // brokers
	rivals  bool // two owners at a time
	limits  bool // the feed's limits are in force
	spoiled bool // brokers take no event of one source from the first owners, which park it
	late    bool // records appear late, and are swept up; the run goes on until all of them have
	quirks  []string
	share   float64 // of the requests of the commit protocol that meet a fault

	endpoints [3]config.Endpoint // of simSources
	outage    bool               // nobody lives for longer than cdr_stream reaches back
	jobs      int                // how many are asked for
}

// streams reports whether a source follows cdr_stream.
func (s scenario) streams() bool { return s.endpoints != onlyFeed }

var onlyFeed = [3]config.Endpoint{config.Feed, config.Feed, config.Feed}

// swept reports whether the sources are swept, and live on until all that was asked
// for is settled.
func (s scenario) swept() bool { return s.late || s.streams() || s.jobs > 0 }

func scenarioOf(seed uint64) scenario {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := scenario{seed: seed, nodes: 2 + rng.IntN(2), rivals: rng.IntN(2) == 0, limits: rng.IntN(4) == 0}
	s.share = []float64{0.06, 0.12, 0.2}[rng.IntN(3)]
	s.spoiled = rng.IntN(5) == 0
	s.late = rng.IntN(3) == 0
	if rng.IntN(2) == 0 {
		s.quirks = append(s.quirks, "paging")
	}
	if rng.IntN(4) == 0 {
		s.quirks = append(s.quirks, "content")
	}
	s.endpoints = onlyFeed
	if rng.IntN(3) == 0 {
		for i := range s.endpoints {
			s.endpoints[i] = []config.Endpoint{config.Feed, config.Stream, config.Auto, config.Auto}[rng.IntN(4)]
		}
	}
	s.outage = rng.IntN(6) == 0 && s.streams()
	s.limits = s.limits && !s.outage // hours are read again afterwards, by jobs too
	if rng.IntN(3) == 0 {
		s.jobs = 1 + rng.IntN(3)
	}
	return s
}

func (s scenario) String() string {
	return fmt.Sprintf("seed %d: %d brokers, rivals %t, limits in force %t, spoiled %t, late %t, endpoints %v, outage %t, jobs %d, quirks %v, %.0f %% of the protocol's requests meet a fault",
		s.seed, s.nodes, s.rivals, s.limits, s.spoiled, s.late, s.endpoints, s.outage, s.jobs, s.quirks, 100*s.share)
}

const (
	// simHistory and simYoungest bound what is to be published, counted back from
	// the beginning: most of it can be asked for at once, the rest becomes old
	// enough only while the faults happen.
	simHistory  = 36 * time.Minute
	simYoungest = 5 * time.Minute
	// simTransactionTimeout is as short as the configuration allows.
	simTransactionTimeout = 20 * time.Second
	// simClientTimeout is that of cdrbus's requests to Kafka.
	simClientTimeout = 10 * time.Second
)

func newSimulation(t *testing.T, s scenario) *simulation {
	t.Helper()
	sim := &simulation{scenario: s, brokers: newStrictBrokers(s), chaos: chaosOf(s), living: map[string]bool{}, tally: newTally(), topics: newTopicLog(), began: time.Now()}
	sim.world = newWorldWith(t, embedded.Options{Brokers: s.nodes}, func(o *simulator.Options) { tuneFeed(t, o, s) })
	sim.world.verifyEvents = 3 // so that a verification goes in parts
	sim.start = cdr.InstantOf(time.Now().Add(-simHistory))
	sim.until = cdr.InstantOf(time.Now().Add(-simYoungest))
	sim.net = faultnet.New(faultnet.Options{Dial: sim.network.DialContext, Decide: sim.decide, Deliver: sim.brokers.deliver})
	sim.cfg = sim.configure(simRequests)
	sim.errands = drawErrands(s)
	return sim
}

// tuneFeed makes a small feed with faults.
func tuneFeed(t *testing.T, o *simulator.Options, s scenario) {
	t.Helper()
	o.Seed = s.seed
	o.Records.Rate = 0.03
	o.Organizations = []simulator.Organization{
		{Name: "acme", Token: "token-acme", Locations: []string{"East", "West"}, Rate: 0.05},
		{Name: "globex", Token: "token-globex"},
	}
	for _, profile := range append([]string{"faults"}, s.quirks...) {
		if err := o.ApplyProfile(profile); err != nil {
			t.Fatal(err)
		}
	}
	if s.late {
		o.Records.LateShare, o.Records.LateMin, o.Records.LateMax = 0.15, time.Minute, simLatest
		o.Records.RevisedShare, o.Records.RevisedMin, o.Records.RevisedMax = 0.1, 10*time.Second, simRevised
	}
	o.Records.Burst = 0 // a hundred records at once cost time and prove nothing here
	o.Answers.StallFor = time.Minute
	if slices.Contains(s.quirks, "paging") {
		o.Answers.MaxFloor, o.Answers.MaxCeiling = 1, 6 // so that small windows have several pages
	}
	o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = 0, 0
	if s.limits {
		o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = simInitial, simPages
	}
}

// simLatest is how late records are, at most, simRevised how much later they change,
// and simWidest how far back both is looked for.
const simLatest, simRevised, simWidest = 6 * time.Minute, 3 * time.Minute, 10 * time.Minute

// simInitial and simPages are the feed's limits where they are in force, and
// simRequests how many windows an owner asks for where they are not.
const simInitial, simPages, simRequests = 6, 60, 60

// configure is three sources, two of which share a credential and so a lane, of which
// no more than so many windows are asked for a minute.
func (s *simulation) configure(requests int) *config.Config {
	s.t.Helper()
	s.scopes = map[string]scope{"east": {"acme", "East"}, "west": {"acme", "West"}}
	s.kafka = fmt.Sprintf(", transaction_timeout: %s", simTransactionTimeout)
	pages := 600
	if s.limits {
		requests, pages = min(requests, simInitial), simPages
	}
	more := []string{fmt.Sprintf("limits: {initial_per_minute: %d, pages_per_minute: %d}", requests, pages), "max_window: 5m"}
	if s.outage {
		more[1] = "max_window: 1h"
	}
	if s.swept() {
		more = append(more, fmt.Sprintf("sweeps: [{every: 1m, back: 5m}, {every: 5m, back: %s}]", simWidest))
	}
	s.source("acme")
	endpoint := func(i int) string { return "endpoint: " + string(s.endpoints[i]) }
	half := func(i int, location string) string {
		name := simSources[i]
		text := s.source(name, slices.Concat(more, []string{endpoint(i), "shard_key: acme", "locations: [" + location + "]"})...)
		return strings.ReplaceAll(text, name+".token", "acme.token")
	}
	return s.world.config("", half(0, "East"), half(1, "West"), s.source("globex", append(more, endpoint(2))...))
}

// simSources are the names of the sources.
var simSources = []string{"east", "west", "globex"}

// chaosOf shares the network's faults out: most to the commit protocol, some to
// all the rest. What costs a client its time-out is rarer than what does not.
func chaosOf(s scenario) faultnet.Chaos {
	return faultnet.Chaos{
		Seed: s.seed, Timeout: simClientTimeout, Freeze: simTransactionTimeout * 2, Delay: 2 * time.Second, Requests: 6,
		Share: map[int16]float64{
			faultnet.AnyKey:                s.share / 3,
			int16(kmsg.InitProducerID):     s.share,
			int16(kmsg.AddPartitionsToTxn): s.share,
			int16(kmsg.Produce):            s.share,
			int16(kmsg.EndTxn):             s.share,
			int16(kmsg.Metadata):           s.share / 20,
			int16(kmsg.FindCoordinator):    s.share / 10,
			int16(kmsg.ApiVersions):        s.share / 10,
			int16(kmsg.DescribeConfigs):    s.share / 10,
			int16(kmsg.CreateTopics):       s.share / 10,
		},
		Faults: map[int16]map[faultnet.Fault]int{faultnet.AnyKey: {
			faultnet.CutBefore: 4, faultnet.CutAfter: 6, faultnet.Swallow: 1, faultnet.LateCut: 6, faultnet.LateSilent: 2,
			faultnet.Twice: 6, faultnet.Delay: 3, faultnet.Freeze: 1,
		}},
	}
}

func (s *simulation) decide(r faultnet.Request) faultnet.Fate {
	if s.calm.Load() {
		return faultnet.Fate{}
	}
	return s.chaos.Decide(r)
}

// dialFeedAs connects an owner to the feed. While it is frozen, it neither sends
// nor receives.
func (s *simulation) dialFeedAs(name string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := s.net.Thawed(ctx, name); err != nil {
			return nil, err
		}
		conn, err := s.network.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &freezingConn{conn, func() error { return s.net.Thawed(context.Background(), name) }}, nil
	}
}

type freezingConn struct {
	net.Conn
	thawed func() error
}

func (c *freezingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	_ = c.thawed() // never fails
	return n, err
}

func (c *freezingConn) Write(p []byte) (int, error) {
	_ = c.thawed() // never fails
	return c.Conn.Write(p)
}
