package daemon_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// tally counts what happened in one seed, or in all of them.
type tally struct {
	seeds, kills, stops, takeOvers, lost, restores, parked, windows, events, requests, repaired int

	faults   map[string]int // by kind
	feed     map[string]int // faults of the feed, by kind
	shakes   map[string]int
	failures map[string]int // of owners that ended by themselves
	worlds   map[string]int // by what a seed has
	jobs     map[string]int // by kind and end
}

func newTally() tally {
	return tally{faults: map[string]int{}, feed: map[string]int{}, shakes: map[string]int{}, failures: map[string]int{}, worlds: map[string]int{}, jobs: map[string]int{}}
}

// count changes the tally of a seed.
func (s *simulation) count(change func(*tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.tally)
}

// total is the tally of a seed that is over.
func (s *simulation) total() tally {
	n := s.tally
	n.seeds = 1
	for fault, count := range s.net.Trace().Counts() {
		n.faults[fault.String()] += count
	}
	for _, step := range s.brokers.steps {
		if strings.HasSuffix(step.what, "refused at random") || strings.HasSuffix(step.what, "but refused") {
			n.faults["refused"]++
		}
	}
	for fault, count := range s.feed.Stats().Faults {
		n.feed[string(fault)] += count
	}
	n.requests = len(s.brokers.steps)
	n.takeOvers = s.logs.FilterMessage("shard ready").Len()
	n.lost = s.logs.FilterMessageSnippet("shard lost").Len()
	n.parked = s.logs.FilterMessageSnippet("source parked").Len()
	n.restores = s.logs.FilterMessageSnippet("commit of unknown outcome").Len()
	for world, so := range map[string]bool{"late records": s.late, "cdr_stream": s.streams(), "an outage beyond it": s.outage, "jobs": s.jobs > 0, "rivals": s.rivals} {
		if so {
			n.worlds[world]++
		}
	}
	return n
}

// totals adds the tallies of seeds up.
type totals struct {
	mu sync.Mutex
	tally
}

func newTotals() *totals { return &totals{tally: newTally()} }

func (t *totals) add(n tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, field := range []struct{ sum, one *int }{
		{&t.seeds, &n.seeds}, {&t.kills, &n.kills}, {&t.stops, &n.stops}, {&t.takeOvers, &n.takeOvers}, {&t.lost, &n.lost},
		{&t.restores, &n.restores}, {&t.parked, &n.parked}, {&t.windows, &n.windows}, {&t.events, &n.events}, {&t.requests, &n.requests}, {&t.repaired, &n.repaired},
	} {
		*field.sum += *field.one
	}
	for _, counts := range []struct{ sum, one map[string]int }{{t.faults, n.faults}, {t.feed, n.feed}, {t.shakes, n.shakes}, {t.failures, n.failures}, {t.worlds, n.worlds}, {t.jobs, n.jobs}} {
		for kind, count := range counts.one {
			counts.sum[kind] += count
		}
	}
}

// String is the summary.
func (n tally) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d seeds, %d windows, %d events, %d requests of the commit protocol\n", n.seeds, n.windows, n.events, n.requests)
	fmt.Fprintf(&text, "owners: %d killed, %d asked to end, %d take-overs of a shard, %d shards lost, %d restores after an unknown outcome, %d sources parked\n",
		n.kills, n.stops, n.takeOvers, n.lost, n.restores, n.parked)
	for _, counts := range []struct {
		what string
		of   map[string]int
	}{{"faults of the network and the brokers", n.faults}, {"faults of the feed", n.feed}, {"shaken", n.shakes}, {"owners ended by themselves", n.failures}, {"worlds with", n.worlds}, {"jobs", n.jobs}} {
		sum := 0
		for _, count := range counts.of {
			sum += count
		}
		fmt.Fprintf(&text, "%s: %d\n", counts.what, sum)
		for _, kind := range slices.Sorted(maps.Keys(counts.of)) {
			fmt.Fprintf(&text, "  %6d  %s\n", counts.of[kind], kind)
		}
	}
	return text.String()
}
