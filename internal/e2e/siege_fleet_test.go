package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
)

var changesFlag = flag.Int("siege.changes", 8, "changes of membership in TestSiegeFleet, on each version of Kafka")

// TestSiegeFleet lets three processes share the work and changes the fleet at
// random: members are killed, stopped and let go on, ended as asked, and added.
// It measures how soon others ask the feed for what a member leaves behind.
func TestSiegeFleet(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		s := startFleetSiege(t, kafkatest.Start(t, kafkatest.Options{Version: version}))
		for range fleetMembers {
			s.add()
		}
		s.blows = nil // the fleet is complete: what follows counts
		for len(s.blows) < *changesFlag {
			s.change()
		}
		s.end()
	})
}

const (
	memberStop = 15 * time.Second
	// takeOverPatience bounds a take-over on a machine that does much else. The goal
	// is 3 s after the session time-out, or after the end.
	takeOverPatience = fleetSession + 30*time.Second
)

// fleetSources spread over all shards.
var fleetSources = []string{"acme", appSource, "initech", "hooli", "umbrella", "tyrell", "wonka", "stark"}

// fleetSiege is a fleet, and when its sources are asked for.
type fleetSiege struct {
	*siege
	members []*fleetMember
	losses  []func() // of members, still to come
	asked   requestClock

	afterKill, afterStop, afterEnd []time.Duration // take-overs; the session time-out not counted
}

// fleetMember is one process of the fleet.
type fleetMember struct {
	*process
	page  string
	awake time.Time // if stopped, it goes on then
}

func startFleetSiege(t *testing.T, cluster *kafkatest.Cluster) *fleetSiege {
	t.Helper()
	s := &fleetSiege{}
	o := siegeFeed()
	o.sources, o.rate, o.window = fleetSources, 0.4, 2*time.Minute
	o.limits = "{initial_per_minute: 180, pages_per_minute: 6000}"
	o.top = "ownership: group"
	o.kafka = fmt.Sprintf("  transaction_timeout: %s\n  group: {session_timeout: %s}", transactionTimeout, fleetSession)
	o.admin = "127.0.0.1:0"
	o.store = "    token_store: kafka\n    token_key_file: key\n    refresh_token_file: refresh"
	o.tune = func(options *simulator.Options) {
		tuneForSiege(options)
		options.Observe = func(e simulator.Exchange) { s.asked.note(e.Organization) }
	}
	s.siege = startSiege(t, "fleet", cluster, cluster.Bootstrap(), o)
	s.write("key", "a key of at least 32 characters, to seal tokens")
	s.write("refresh", "refresh-"+appSource)
	return s
}

// change is one random change of the fleet, which stays near its size.
func (s *fleetSiege) change() {
	s.t.Helper()
	for _, m := range s.members {
		s.alive(m.process)
	}
	awake := 0
	for _, m := range s.members {
		if !time.Now().Before(m.awake) {
			awake++
		}
	}
	switch {
	case awake < fleetMembers:
		s.add()
	case awake == fleetMembers && rand.IntN(4) == 0:
		s.add()
	default:
		if len(s.losses) == 0 { // as many of each, in any order
			s.losses = []func(){s.kill, s.stop, s.leave, s.kill, s.stop, s.leave}
			rand.Shuffle(len(s.losses), func(i, j int) { s.losses[i], s.losses[j] = s.losses[j], s.losses[i] })
		}
		next := s.losses[0]
		s.losses = s.losses[1:]
		next()
	}
}

// add starts a member, and waits until it works on a share.
func (s *fleetSiege) add() {
	s.t.Helper()
	s.strike("added")
	m := &fleetMember{process: s.startRun()}
	kafkatest.Eventually(s.t, takeOverPatience, "the new member has a share", func() (err error) {
		s.alive(m.process)
		if m.page == "" {
			if m.page, err = adminURLIn(m.log); err != nil {
				return err
			}
		}
		share, err := m.share()
		if err == nil && len(share) == 0 {
			err = errors.New("it has none")
		}
		return err
	})
	s.members = append(s.members, m)
}

// share asks a member's status page which sources it works on.
func (m *fleetMember) share() ([]cdr.SourceName, error) {
	var view status.Snapshot
	if err := get(m.page+"/status.json", func(body []byte) error { return json.Unmarshal(body, &view) }); err != nil {
		return nil, err
	}
	var share []cdr.SourceName
	for _, shard := range view.Shards {
		for _, source := range view.Sources {
			if shard.State == status.ShardReady && source.Shard == shard.Number {
				share = append(share, source.Name)
			}
		}
	}
	return share, nil
}

// pick chooses a member that is awake, and tells its share.
func (s *fleetSiege) pick() (*fleetMember, []cdr.SourceName) {
	s.t.Helper()
	for {
		m := s.members[rand.IntN(len(s.members))]
		if time.Now().Before(m.awake) {
			continue
		}
		share, err := m.share()
		s.must(err)
		return m, share
	}
}

func (s *fleetSiege) remove(gone *fleetMember) {
	s.members = slices.DeleteFunc(s.members, func(m *fleetMember) bool { return m == gone })
}

// kill ends a member as kill -9 does.
func (s *fleetSiege) kill() {
	s.t.Helper()
	m, share := s.pick()
	s.strike("killed")
	m.kill()
	s.remove(m)
	s.afterKill = append(s.afterKill, s.takenOver(share, time.Now())-fleetSession)
}

// stop lets a member stand still for longer than its session, and go on while
// others do its work.
func (s *fleetSiege) stop() {
	s.t.Helper()
	m, share := s.pick()
	s.strike("stopped")
	m.freeze()
	m.awake = time.Now().Add(memberStop)
	time.AfterFunc(memberStop, m.thaw)
	s.afterStop = append(s.afterStop, s.takenOver(share, time.Now())-fleetSession)
}

// leave ends a member as asked.
func (s *fleetSiege) leave() {
	s.t.Helper()
	m, share := s.pick()
	s.strike("ended")
	s.terminate(m.process)
	s.remove(m)
	s.afterEnd = append(s.afterEnd, s.takenOver(share, time.Now()))
}

// takenOver waits until all sources of a share are asked for by others.
func (s *fleetSiege) takenOver(share []cdr.SourceName, gone time.Time) time.Duration {
	s.t.Helper()
	// What was under way is answered within a moment, and is not theirs.
	firsts := s.asked.watch(gone.Add(100 * time.Millisecond))
	last := gone
	kafkatest.Eventually(s.t, takeOverPatience, "others ask for what a member leaves", func() error {
		for _, source := range share {
			first := firsts(string(source))
			if first.IsZero() {
				return fmt.Errorf("nobody asks for %s", source)
			}
			if first.After(last) {
				last = first
			}
		}
		return nil
	})
	return last.Sub(gone)
}

// end lets all members go, and settles with one.
func (s *fleetSiege) end() {
	s.t.Helper()
	s.over()
	for _, m := range s.members {
		time.Sleep(time.Until(m.awake))
		s.terminate(m.process)
	}
	s.settle()
	s.t.Logf("take-overs beyond the session time-out of %s: after kill -9 %s; after SIGSTOP %s; after a clean end %s",
		fleetSession, spread(s.afterKill), spread(s.afterStop), spread(s.afterEnd))
}

// spread tells the median and the longest.
func spread(durations []time.Duration) string {
	if len(durations) == 0 {
		return "none"
	}
	slices.Sort(durations)
	return fmt.Sprintf("%.1f s, at most %.1f s (%d)", durations[len(durations)/2].Seconds(), durations[len(durations)-1].Seconds(), len(durations))
}

// requestClock knows when each source was first asked for after an instant.
type requestClock struct {
	mu    sync.Mutex
	after time.Time
	first map[string]time.Time
}

func (c *requestClock) note(source string) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first != nil && c.first[source].IsZero() && now.After(c.after) {
		c.first[source] = now
	}
}

// watch begins anew, and returns who tells; the zero time: not yet.
func (c *requestClock) watch(after time.Time) func(source string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after, c.first = after, map[string]time.Time{}
	return func(source string) time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.first[source]
	}
}
