package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
)

var sourcesFlag = flag.Int("e2e.sources", 60, "sources that the fleet of TestThousandSources shares")

// TestThousandSources: three processes share many sources in sixteen shards. One of
// them is killed in the middle, the others do its work, and in the end every
// record is there once. Small on the embedded broker in every go test; what it is
// named after is asked for with
//
//	go test ./internal/e2e -run TestThousandSources -v -timeout 30m -e2e.sources=1000 -kafka.versions=4.4.0
//
// and prints what it took.
func TestThousandSources(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the processes are not built with the race detector, and checks that are let the work run away")
		}
		f := newFleet(t, startEmbedded(t).Brokers())
		f.liveThroughAKill()
		f.truth().compare(t, f.readThrough(), false)
		f.checkPositions(f.receiptsThrough())
	})
	t.Run("real", func(t *testing.T) {
		kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
			f := newFleet(t, kafkatest.Start(t, kafkatest.Options{Version: version}).Bootstrap())
			f.liveThroughAKill()
			f.awaitMarkers()
			f.truth().compare(t, f.readWithKcat(), false)
			f.checkPositions(f.receiptsThrough())
		})
	})
}

// fleet is a rig whose sources several processes share.
type fleet struct {
	*rig
	members []*member
	began   time.Time
}

// member is one process of a fleet.
type member struct {
	*process
	name string
	url  string          // of its status page
	last status.Snapshot // as it was last seen, without sources
}

const (
	fleetShards  = 16
	fleetMembers = 3
	fleetSession = 6 * time.Second // the least that brokers allow
)

// newFleet makes a day of a feed that takes its time, as Webex does: so the work
// lasts for some seconds however fast the machine is.
func newFleet(t *testing.T, brokers []string) *fleet {
	var names []string
	for i := range *sourcesFlag {
		names = append(names, fmt.Sprintf("org-%04d", i))
	}
	r := newRig(t, brokers, rigOptions{
		// A budget remembers each request of a minute: with a thousand of them,
		// limits beyond need would be what the figures show.
		sources: names, shards: fleetShards, limits: "{initial_per_minute: 600, pages_per_minute: 6000}",
		span: 24 * time.Hour, window: time.Hour, rate: 0.01 * float64(len(names)),
		profiles: []string{"unlimited"},
		top:      "ownership: group",
		kafka:    fmt.Sprintf("  group: {session_timeout: %s}", fleetSession),
		tune: func(o *simulator.Options) {
			o.Answers.Always, o.Answers.SlowFor = simulator.Slow, 100*time.Millisecond
		},
	})
	return &fleet{rig: r}
}

// join starts one more member.
func (f *fleet) join() {
	f.t.Helper()
	m := &member{name: fmt.Sprintf("member-%d", len(f.members)+1)}
	address := freeAddress(f.t)
	m.url = "http://" + address
	m.process = f.startRunIn([]string{"CDRBUS_KAFKA_GROUP_MEMBER=" + m.name, "CDRBUS_ADMIN_LISTEN=" + address})
	f.members = append(f.members, m)
}

// liveThroughAKill lets a fleet do all the work, and kills one of it in the middle.
func (f *fleet) liveThroughAKill() {
	f.t.Helper()
	if _, err := binary(); err != nil { // built before the clock starts
		f.t.Fatal(err)
	}
	f.began = time.Now()
	for range fleetMembers {
		f.join()
	}
	f.settled("the fleet shares the sources")
	f.checkStatusCommand(f.members[0])

	// By what the members tell: reading the positions takes long enough for a small
	// fleet to be done meanwhile.
	const atLeast = 0.2 // of each member's windows
	share := atLeast * f.until.Sub(f.start).Hours() * float64(len(f.sources)) / fleetMembers
	kafkatest.Eventually(f.t, f.patience(), "the work is under way", func() error {
		for _, m := range f.members {
			if err := f.look(m); err != nil {
				return err
			}
			if done := m.last.Totals.Windows; float64(done) < share {
				return fmt.Errorf("%s has done %d windows, want %.0f", m.name, done, share)
			}
		}
		return nil
	})
	victim := f.members[1]
	victim.kill()
	killed := time.Now()
	f.members = slices.DeleteFunc(f.members, func(m *member) bool { return m == victim })
	f.t.Logf("%s is killed after %s, when the source furthest behind has done %.0f %%", victim, f.age(), 100*f.progress())
	f.settled("the others share the sources of the one that was killed")
	f.t.Logf("its sources have found new owners after %s", time.Since(killed).Round(time.Millisecond))

	f.reached()
	f.t.Logf("%d sources are published to %s after %s", len(f.sources), f.until, f.age())
	for _, m := range append(f.members, victim) {
		f.t.Log(m)
	}
}

func (f *fleet) age() time.Duration { return time.Since(f.began).Round(time.Millisecond) }

// patience grows with the work.
func (f *fleet) patience() time.Duration {
	return time.Minute + time.Duration(len(f.sources))*time.Second
}

// look asks a member how it is.
func (f *fleet) look(m *member) error {
	select {
	case <-m.ended:
		f.t.Fatalf("%s ended early: %v", m.name, m.err)
	default:
	}
	return get(m.url+"/status.json?limit=1&history=-1", func(body []byte) error {
		m.last = status.Snapshot{}
		return json.Unmarshal(body, &m.last)
	})
}

// settled waits until the members own all sources, each ready, in fair shares.
func (f *fleet) settled(what string) {
	f.t.Helper()
	kafkatest.Eventually(f.t, f.patience(), what, func() error {
		total := 0
		for _, m := range f.members {
			switch err := f.look(m); {
			case err != nil:
				return err
			case !m.last.Ready:
				return fmt.Errorf("%s is not ready: %s", m.name, strings.Join(m.last.NotReady, "; "))
			}
			total += m.last.Totals.Sources
		}
		if total != len(f.sources) {
			return fmt.Errorf("the members own %d of %d sources", total, len(f.sources))
		}
		return f.fair()
	})
	f.t.Logf("%s: after %s", what, f.age())
	for _, m := range f.members {
		f.t.Log(m)
	}
}

// fair demands that no member has two shards more than another.
func (f *fleet) fair() error {
	var counts []int
	for _, m := range f.members {
		counts = append(counts, len(m.owned()))
	}
	if least, most := slices.Min(counts), slices.Max(counts); most-least > 1 {
		return fmt.Errorf("the members own %v shards", counts)
	}
	return nil
}

// owned returns the shards with sources that a member works on.
func (m *member) owned() (shards []int) {
	for _, s := range m.last.Shards {
		if s.State != status.ShardReleased {
			shards = append(shards, s.Number)
		}
	}
	return shards
}

// String says what a member has and what it took.
func (m *member) String() string {
	var commits, aborts uint64
	for _, s := range m.last.Shards {
		commits, aborts = commits+s.Commits, aborts+s.Aborts
	}
	text := fmt.Sprintf("%s: %d sources in shards %v; %d windows, %d events, %d commits, %d aborts; RSS %d MiB",
		m.name, m.last.Totals.Sources, m.owned(), m.last.Totals.Windows, m.last.Totals.Events, commits, aborts, m.last.Process.RSSBytes>>20)
	if state := m.command.ProcessState; state != nil {
		text += fmt.Sprintf("; CPU %s user, %s system", state.UserTime().Round(time.Millisecond), state.SystemTime().Round(time.Millisecond))
		if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
			text += fmt.Sprintf(", peak RSS %d MiB", usage.Maxrss>>10)
		}
	}
	return text
}

// reached waits until each member has ended by itself: all sources, those of the
// others too, are published to the bound.
func (f *fleet) reached() {
	f.t.Helper()
	deadline := time.After(f.patience())
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for _, m := range f.members {
		for ended := false; !ended; {
			select {
			case <-m.ended:
				ended = true
			case <-deadline:
				_ = m.command.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
				<-m.ended
				f.t.Fatalf("%s did not reach %s within %s", m.name, f.until, f.patience())
			case <-look.C:
				for _, each := range f.members {
					f.glance(each)
				}
			}
		}
		if m.err != nil {
			f.t.Errorf("%s: %v", m.name, m.err)
		}
	}
}

// glance looks at a member that may end at any time.
func (f *fleet) glance(m *member) {
	last := m.last
	select {
	case <-m.ended:
		return
	default:
	}
	if f.look(m) != nil || len(m.owned()) == 0 { // at its end it has given all up
		m.last = last
	}
}

// checkStatusCommand demands that cdrbus status tells of the whole fleet, to a
// person and to a program.
func (f *fleet) checkStatusCommand(m *member) {
	f.t.Helper()
	code, text := runProgram(f.t, "status", "--url", m.url)
	for _, want := range []string{"FLEET", "3 members, Stable", m.name + " (this one)", "member-2", "member-3"} {
		if !strings.Contains(text, want) {
			f.t.Errorf("cdrbus status, exit code %d, does not show %q:\n%s", code, want, text)
		}
	}
	code, text = runProgram(f.t, "status", "--url", m.url, "-o", "json")
	var seen status.Snapshot
	if err := json.Unmarshal([]byte(text), &seen); err != nil || code != 0 {
		f.t.Fatalf("cdrbus status -o json: exit code %d, %v\n%s", code, err, text)
	}
	if err := f.wholeIn(seen.Fleet); err != nil {
		f.t.Errorf("cdrbus status -o json: %v", err)
	}
}

// wholeIn demands that a fleet, as one member tells of it, is this one.
func (f *fleet) wholeIn(told *status.Fleet) error {
	if told == nil {
		return errors.New("tells of no fleet")
	}
	sources := 0
	var shards []int
	for _, m := range told.Members {
		sources += m.Sources
		shards = append(shards, m.Shards...)
	}
	if slices.Sort(shards); len(told.Members) != len(f.members) || sources != len(f.sources) || len(slices.Compact(shards)) != fleetShards {
		return fmt.Errorf("tells of %d members with %d sources in shards %v: %+v", len(told.Members), sources, shards, told)
	}
	return nil
}
