package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/faultnet"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
)

// fleet is several daemons in one world that share its shards.
type fleet struct {
	*world
	config  *config.Config
	net     *faultnet.Network
	members []*member // at work, or frozen
	started int
	outcast atomic.Pointer[member] // nil: none; the group's coordinator does not hear it
}

// member is one process of a fleet.
type member struct {
	name  string
	board *status.Board
	end   context.CancelFunc
	ended chan error
}

const fleetSession = 6 * time.Second

// busy polls as often as the feed has something new.
const busy = "limits: {initial_per_minute: 60, pages_per_minute: 600}"

// newFleet makes a world of as many sources, one an organization, on 8 shards.
func newFleet(t *testing.T, sources int, limits string, tune func(*simulator.Options)) *fleet {
	w := newUnlimitedWorld(t, func(o *simulator.Options) {
		o.Organizations = nil
		for i := range sources {
			name := fmt.Sprintf("org-%03d", i)
			o.Organizations = append(o.Organizations, simulator.Organization{Name: name, Token: "token-" + name})
		}
		o.Records.Rate = 0.05
		if tune != nil {
			tune(o)
		}
	})
	w.shards = 8
	brokers := newStrictBrokers(scenario{seed: 1})
	brokers.calm.Store(true)
	f := &fleet{world: w}
	f.net = faultnet.New(faultnet.Options{Dial: w.dialKafka, Decide: f.decide, Deliver: brokers.deliver})
	var texts []string
	for i := range sources {
		texts = append(texts, w.source(fmt.Sprintf("org-%03d", i), limits, "max_window: 20m"))
	}
	f.config = w.config("ownership: group", texts...)
	f.config.Kafka.Group.SessionTimeout = fleetSession
	t.Cleanup(f.net.Close)
	return f
}

// decide cuts off what an outcast tells the group, and nothing else of it.
func (f *fleet) decide(r faultnet.Request) faultnet.Fate {
	if outcast := f.outcast.Load(); outcast != nil && outcast.name == r.Client {
		switch kmsg.Key(r.Key) {
		case kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup:
			return faultnet.Fate{Fault: faultnet.CutBefore}
		}
	}
	return faultnet.Fate{}
}

func (f *fleet) names() (names []string) {
	for _, s := range f.config.Sources {
		names = append(names, s.Name)
	}
	return names
}

// join starts a member, which runs until it is ended or has reached until.
func (f *fleet) join(until cdr.Instant) *member {
	f.started++
	m := &member{name: fmt.Sprintf("m%d", f.started), board: status.New(status.Build{Version: "test"}, status.Options{}), ended: make(chan error, 1)}
	cfg := *f.config
	cfg.Kafka.Group.Member = m.name
	var ctx context.Context
	ctx, m.end = context.WithCancel(f.t.Context())
	go func() {
		d, err := daemon.New(ctx, daemon.Options{
			Config: &cfg, Log: f.log, Board: m.board, Version: "test", Until: until,
			DialKafka: f.net.Dialer(m.name), DialFeed: f.dialFeed, MetadataTTL: time.Minute, // no leader moves
		})
		if err == nil {
			err = d.Run(ctx)
			d.Close()
		}
		if ctx.Err() != nil {
			err = nil
		}
		m.ended <- err
	}()
	f.members = append(f.members, m)
	return m
}

// leave ends a member as SIGTERM does.
func (f *fleet) leave(m *member) {
	f.t.Helper()
	m.end()
	if err := <-m.ended; err != nil {
		f.t.Errorf("%s ended with %v", m.name, err)
	}
	f.remove(m)
}

// kill ends a member as SIGKILL does: nothing that it still says is heard.
func (f *fleet) kill(m *member) {
	f.net.Kill(m.name)
	m.end()
	<-m.ended
	f.remove(m)
}

func (f *fleet) remove(m *member) {
	f.members = slices.DeleteFunc(f.members, func(other *member) bool { return other == m })
}

// owned returns how many sources a member shows as its own.
func (m *member) owned() int { return len(m.board.Snapshot().Sources) }

// takeovers returns how often a member has begun to take a shard over.
func (m *member) takeovers() (n uint64) {
	for _, s := range m.board.Snapshot().Shards {
		n += s.Takeovers
	}
	return n
}

// settled waits until the members share all sources, each ready.
func (f *fleet) settled() time.Duration {
	f.t.Helper()
	began := time.Now()
	for {
		total, ready := 0, true
		for _, m := range f.members {
			snapshot := m.board.Snapshot()
			total += len(snapshot.Sources)
			ready = ready && snapshot.Ready
		}
		if total == len(f.config.Sources) && ready {
			return time.Since(began)
		}
		if time.Since(began) > 2*time.Minute {
			f.t.Fatalf("after %s the members own %d sources of %d, all ready: %v", time.Since(began), total, len(f.config.Sources), ready)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestFleetShares: three members share sources, evenly by shards, and each knows
// of all; what one leaves the others take.
func TestFleetShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 24, busy, nil)
		a := f.join(0)
		f.settled()
		b, c := f.join(0), f.join(0)
		t.Logf("three members are settled after %s", f.settled())
		time.Sleep(20 * time.Second)
		told := a.board.Snapshot().Fleet
		if told == nil || len(told.Members) != 3 || told.State != "Stable" {
			t.Fatalf("a member is told of the fleet %+v", told)
		}
		sources := 0
		for _, m := range told.Members {
			if len(m.Shards) < 2 || len(m.Shards) > 3 {
				t.Errorf("%s has shards %v, want 2 or 3 of 8", m.Name, m.Shards)
			}
			sources += m.Sources
		}
		if sources != 24 {
			t.Errorf("the members have %d sources, want 24", sources)
		}
		f.leave(b)
		if took := f.settled(); took > 3*time.Second {
			t.Errorf("after a clean end the others took over in %s, want 3 s at most", took)
		}
		f.kill(c)
		if took := f.settled(); took > fleetSession+3*time.Second {
			t.Errorf("after a kill the others took over in %s, want the session time-out of %s and 3 s at most", took, fleetSession)
		}
		if a.owned() != 24 {
			t.Errorf("the last member owns %d sources, want 24", a.owned())
		}
		time.Sleep(time.Minute)
		f.leave(a)
		f.demandTruth(f.names()...)
	})
}

// TestFleetChanges: members are killed, frozen, ended and started at random while
// the feed goes on; nothing is lost and nothing is there twice. At the end a
// bounded run ends in each member once all sources have got there.
func TestFleetChanges(t *testing.T) {
	seeds := uint64(2)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 12, busy, nil)
				random := rand.New(rand.NewPCG(seed, 3))
				changes := f.change(random, 25)
				for len(f.members) > 0 {
					f.leave(f.members[0])
				}
				until := cdr.InstantOf(time.Now().Add(-6 * time.Minute))
				members := []*member{f.join(until), f.join(until), f.join(until)}
				for _, m := range members {
					if err := <-m.ended; err != nil {
						t.Errorf("the bounded run of %s ended with %v", m.name, err)
					}
					m.end()
				}
				events := f.demandTruth(f.names()...)
				for _, name := range f.names() {
					if got := f.position(name).FeedPublished; got < until {
						t.Errorf("%s is published to %s, want %s", name, got, until)
					}
					f.demandReceipts(name, f.position(name).FeedPublished)
				}
				fenced := f.logs.FilterMessageSnippet("shard lost").Len()
				t.Logf("%v, %d shards fenced, %d events", changes, fenced, events)
			})
		})
	}
}

// change changes the membership at random, n times.
func (f *fleet) change(random *rand.Rand, n int) map[string]int {
	changes := map[string]int{}
	for range n {
		var some *member
		if len(f.members) > 0 {
			some = f.members[random.IntN(len(f.members))]
		}
		switch kind := random.IntN(5); {
		case len(f.members) < 3 || kind == 0 && len(f.members) < 5:
			f.join(0)
			changes["joined"]++
		case kind <= 1:
			f.leave(some)
			changes["left"]++
		case kind <= 3:
			f.kill(some)
			changes["killed"]++
		default:
			f.net.Freeze(some.name, fleetSession/2+time.Duration(random.Int64N(int64(2*fleetSession))))
			changes["frozen"]++
		}
		time.Sleep(time.Duration(random.Int64N(int64(20 * time.Second))))
	}
	return changes
}

// TestOutcastTakesNothingBack: a member that the group does not hear any more works
// on until the next owner fences it. It then takes no shard back, for it cannot
// prove that it is still chosen, and the next owner works undisturbed.
func TestOutcastTakesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 8, busy, nil)
		a := f.join(0)
		f.settled()
		time.Sleep(10 * time.Second)
		before := a.takeovers()
		f.outcast.Store(a)
		b := f.join(0)
		time.Sleep(fleetSession + 2*time.Minute)
		if b.owned() != len(f.config.Sources) || f.logs.FilterMessageSnippet("shard lost").Len() == 0 {
			t.Fatalf("the next owner has %d sources and has fenced nobody", b.owned())
		}
		if again := a.takeovers() - before; again > 0 {
			t.Errorf("the outcast took shards over %d times", again)
		}
		if got, want := b.takeovers(), before; got != want {
			t.Errorf("the next owner took shards over %d times, want each of %d once", got, want)
		}
		f.outcast.Store(nil)
		f.settled()
		f.leave(a)
		f.leave(b)
		f.demandTruth(f.names()...)
	})
}

// TestFleetRefused: what a fleet can never get past is told to whoever starts it.
func TestFleetRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1, busy, nil)
		f.config.Kafka.Group.SessionTimeout = 2 * time.Hour // brokers allow 30 min at most
		m := f.join(0)
		select {
		case err := <-m.ended:
			if err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("the member ended with %v", err)
			}
			t.Log(err)
		case <-time.After(5 * time.Minute):
			t.Error("a member with an impossible session time-out is not refused")
		}
		m.end()
	})
}
