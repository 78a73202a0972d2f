package daemon_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/simulator"
)

var (
	simSeeds = flag.Uint64("sim.seeds", 0, "how many worlds full of faults the daemon has to survive; 0: as many as take about 30 s of one processor")
	simFirst = flag.Uint64("sim.first", 0, "the first seed")
	simSeed  = flag.Int64("sim.seed", -1, "replay this one seed and tell everything that happened")
)

const (
	// seedsPerBatch run one after another; batches run side by side.
	seedsPerBatch = 10
	// enoughFailures end the test: each prints its whole story.
	enoughFailures = 3
)

// TestSimulation lets daemons live in worlds full of faults, and demands of each
// world in the end that every record is published, once, that windows are whole,
// that the books agree with the events, and that life goes on.
//
// A seed chooses the scenario, and for each request of each owner what becomes of
// it. The same seed does nearly the same: goroutines that are ready at the same
// instant of fake time run in any order, and kafka-go and the daemon draw their
// pauses from a source that has no seed. So a replay is worth several tries: of the
// seeds that catch a mutant, three replays in four catch it again.
func TestSimulation(t *testing.T) {
	if *simSeed >= 0 {
		synctest.Test(t, func(t *testing.T) { t.Log(simulate(t, uint64(*simSeed), true)) })
		return
	}
	labelPanics(t)
	// Every seed makes a world and throws it away: most of the garbage is young.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	total := newTotals()
	var failures atomic.Int32
	t.Run("seeds", func(t *testing.T) {
		end := *simFirst + seedsAsked()
		for first := *simFirst; first < end; first += seedsPerBatch {
			t.Run(fmt.Sprint(first), func(t *testing.T) {
				t.Parallel()
				for seed := first; seed < min(first+seedsPerBatch, end) && failures.Load() < enoughFailures; seed++ {
					watched(seed, func() {
						synctest.Test(t, func(t *testing.T) {
							defer func() {
								if t.Failed() {
									failures.Add(1)
								}
							}()
							total.add(simulate(t, seed, false))
						})
					})
				}
			})
		}
	})
	t.Logf("%s", total)
}

// labelPanics lets the stack of a panic tell the labels of its goroutine. An owner's
// goroutines inherit the one that names their seed.
func labelPanics(t *testing.T) {
	t.Helper()
	before := os.Getenv("GODEBUG")
	setting := strings.TrimPrefix(before+",tracebacklabels=1", ",")
	if err := os.Setenv("GODEBUG", setting); err != nil { // t.Setenv forbids parallel tests
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Setenv("GODEBUG", before) })
}

func seedsAsked() uint64 {
	switch {
	case *simSeeds > 0:
		return *simSeeds
	case testing.Short():
		return 15
	default:
		return 100
	}
}

// watched names the seed if it comes to nothing: a goroutine that never ends, a
// world that stands still in real time, or a panic in the daemon, whose stack has
// the seed as a label.
func watched(seed uint64, run func()) {
	const patience = 3 * time.Minute
	watchdog := time.AfterFunc(patience, func() { panic(fmt.Sprintf("seed %d: nothing for %s", seed, patience)) })
	defer watchdog.Stop()
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Sprintf("seed %d: %v", seed, r))
		}
	}()
	pprof.Do(context.Background(), pprof.Labels("seed", fmt.Sprint(seed)), func(context.Context) { run() })
}

const (
	// stormLasts is how long faults go on at most.
	stormLasts = 4 * time.Minute
	// calmSuffices is how long an owner may take to reach the end without faults.
	calmSuffices = 30 * time.Minute
)

// simulate runs one seed.
func simulate(t *testing.T, seed uint64, tell bool) tally {
	sim := newSimulation(t, scenarioOf(seed))
	defer func() {
		if t.Failed() || tell {
			t.Logf("%s\nreplay: go test ./internal/daemon -run TestSimulation -sim.seed=%d -count=5\n%s", sim.scenario, seed, sim.story())
		}
	}()
	sim.storm("a", "b")
	if sim.outage {
		sim.rest()
		sim.storm("d", "e")
	}
	sim.settle()
	sim.check()
	return sim.total()
}

// storm lets owners live in one or two places and everything go wrong, until the work
// is done or time is up.
func (s *simulation) storm(slots ...string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), stormLasts)
	defer cancel()
	if !s.rivals {
		slots = slots[:1]
	}
	s.askAll(ctx)
	done := make(chan struct{})
	for _, slot := range slots {
		s.lives.Go(func() { s.own(ctx, slot); done <- struct{}{} })
	}
	s.lives.Go(func() { s.shake(ctx) })
	<-done // the first to reach the end, or all of them at the end of time
	cancel()
	for range slots[1:] {
		<-done
	}
	s.asking.Wait()
}

// outageLasts is longer than cdr_stream reaches back.
const outageLasts = 13 * time.Hour

// rest lets nobody live for as long as an outage lasts. What is in the log is kept in
// mind, for kfake compacts after an hour, and the check wants every position.
func (s *simulation) rest() {
	s.t.Helper()
	time.Sleep(2*simClientTimeout + 2*simTransactionTimeout)
	s.remember()
	s.note("outage")
	time.Sleep(outageLasts)
	s.until = cdr.InstantOf(time.Now().Add(-simYoungest))
}

// settle ends the faults, lets one last owner reach the end, and waits until
// whatever was late has arrived and whatever was dead is gone.
func (s *simulation) settle() {
	s.t.Helper()
	s.calm.Store(true)
	s.brokers.calm.Store(true)
	if err := s.feed.Update("", func(a *simulator.Answers) { a.Faults = nil }); err != nil {
		s.t.Fatal(err)
	}
	s.brokers.exclusively(func() { clear(s.brokers.downUntil) })
	s.note("calm")
	ended, end := s.begin("z", s.until)
	select {
	case err := <-ended:
		if err != nil {
			s.t.Errorf("the last owner fails: %v", err)
		}
	case <-time.After(calmSuffices):
		s.t.Errorf("the last owner has not reached the end in %s", calmSuffices)
		end()
	}
	time.Sleep(2*simClientTimeout + 2*simTransactionTimeout)
	if s.swept() {
		s.sweepUp()
	}
	s.net.Close()
	s.lives.Wait()
}

// sweepUp lets one more owner live, in no haste, until the widest sweep has passed
// whatever was asked for so far, and every job has ended.
func (s *simulation) sweepUp() {
	s.t.Helper()
	reached := s.until
	s.settled = reached
	hasty := s.cfg
	requests := sweepRequests
	if s.outage {
		requests *= 5 // there is much to settle
	}
	s.cfg = s.configure(requests)
	ended, end := s.begin("y", 0)
	s.askRest()
	const step = time.Minute
	for waited := time.Duration(0); waited < calmSuffices && s.unfinished(reached) != ""; waited += step {
		time.Sleep(step)
	}
	if what := s.unfinished(reached); what != "" {
		s.t.Errorf("after %s: %s", calmSuffices, what)
	}
	end()
	<-ended
	s.cfg = hasty
}

// sweepRequests is how many windows are asked for a minute where only sweeps and jobs
// are waited for.
const sweepRequests = 6

// unfinished says what there is still to be done; empty: nothing.
func (s *simulation) unfinished(until cdr.Instant) string {
	seen := s.look()
	for _, name := range simSources {
		if settled := seen.positions[name].FeedSettled; settled < until {
			return fmt.Sprintf("%s is settled to %s, want %s", name, settled, until)
		}
	}
	for _, e := range s.errands {
		if state := seen.states[e.job.ID]; !state.Phase.Ended() {
			return fmt.Sprintf("%s has not ended: %+v", e, state)
		}
	}
	return ""
}

// story is the trace, with what the log of the owners warned of.
func (s *simulation) story() string {
	type line struct {
		at   time.Duration
		text string
	}
	var lines []line
	for _, e := range s.net.Trace().Events() {
		lines = append(lines, line{e.After, e.String()})
	}
	for _, step := range s.brokers.steps {
		after := step.at.Sub(s.began)
		lines = append(lines, line{after, fmt.Sprintf("%12.3fs  %s", after.Seconds(), step)})
	}
	for _, entry := range s.logs.All() {
		after := entry.Time.Sub(s.began)
		lines = append(lines, line{after, fmt.Sprintf("%12.3fs  log: %s %v", after.Seconds(), entry.Message, entry.ContextMap())})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&text, l.text)
	}
	return text.String()
}
