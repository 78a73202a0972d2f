package poller

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// stuckFeed answers for every second but some, at which its cursor does not move on.
type stuckFeed []cdr.Instant

// answer reads a window, or fails at the first second that does not page on.
func (f stuckFeed) answer(t *testing.T, s *State, request Request, now time.Time) bool {
	t.Helper()
	for _, at := range f {
		if !request.Span.Contains(at) {
			continue
		}
		if err := s.LearnFailure(request, Outcome{PageSize: LargestPageSize}, &Replan{Cause: &CursorStuck{At: at}}, now); err != nil {
			t.Fatal(err)
		}
		return false
	}
	s.Learn(request, Outcome{PageSize: LargestPageSize}, 10, 10)
	return true
}

// TestSpanBeyondStuckSeconds: a span with seconds that do not page on is read to its
// end, all but those, wherever they lie.
func TestSpanBeyondStuckSeconds(t *testing.T) {
	start := cdr.InstantOf(noon.Add(-10 * time.Hour))
	row := make([]int, 2*maxGivenUp)
	for i := range row {
		row[i] = 600 + i
	}
	for name, at := range map[string][]int{
		"none":             {},
		"a long row":       row,
		"one":              {600},
		"two":              {600, 1200},
		"two in a row":     {600, 601},
		"three in a row":   {600, 601, 602},
		"rows":             {0, 1, 2, 600, 601, 900, 902, 903, 1800},
		"the first second": {0},
		"near the end":     {3590, 3598},
	} {
		t.Run(name, func(t *testing.T) {
			var feed stuckFeed
			for _, second := range at {
				feed = append(feed, start+cdr.Instant(second))
			}
			s := State{Policy: DefaultPolicy(cdr.Feed)}
			span := cdr.Span{StartInclusive: start, EndExclusive: start + 3600}
			var missed []cdr.Instant
			requests := 0
			for ; span.StartInclusive < span.EndExclusive; requests++ {
				if requests > 4*len(at)+1 {
					t.Fatalf("after %d requests at %s, with %+v and %v", requests, span.StartInclusive, s.Stuck, s.GivenUp)
				}
				d := s.PlanSpan(span, cdr.Backfill, BudgetView{NextInitial: noon}, noon)
				if d.Request == nil {
					t.Fatalf("nothing is asked of %s: %+v", span, d.Wait)
				}
				if !feed.answer(t, &s, *d.Request, noon) {
					continue
				}
				for at := span.StartInclusive; at < d.Request.Span.StartInclusive; at++ {
					missed = append(missed, at)
				}
				span.StartInclusive = d.Request.Span.EndExclusive
			}
			if !slices.Equal(missed, feed) {
				t.Errorf("left out: %v, want %v", missed, feed)
			}
		})
	}
}

// TestSweepBeyondStuckSeconds: a round, and a recheck, whose last second does not page
// on ends before it, and the next rounds come in their time.
func TestSweepBeyondStuckSeconds(t *testing.T) {
	s := testSweeps(noon)
	edge := s.Edge
	s.Doubt(cdr.Span{StartInclusive: edge - 3600, EndExclusive: edge}, noon.Add(-recheckDelay))
	feed := stuckFeed{edge - 1}
	rounds := 0
	for m := range 120 {
		now := noon.Add(time.Duration(m) * time.Minute)
		if m > 20 {
			s.Published = cdr.InstantOf(now.Add(-6 * time.Minute))
			s.Edge = s.Published
		}
		d := s.Plan(BudgetView{NextInitial: now}, now)
		if d.Request == nil || !feed.answer(t, &s.State, *d.Request, now) {
			continue
		}
		s.Advance(*d.Request)
		if !d.Request.Round.IsZero() && !d.Request.Round.Running() {
			rounds++
		}
	}
	if len(s.Rechecks) > 0 || rounds < 6 {
		t.Errorf("%d rounds came to their end in two hours, want one each 15 minutes; left to be read again: %v", rounds, s.Rechecks)
	}
}

// TestSweepsBeyondAnyStuckSeconds: whatever seconds do not page on, both rounds and all
// rechecks come to their end in their time, and nothing else is left out.
func TestSweepsBeyondAnyStuckSeconds(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := testSweeps(noon)
		s.MaxWindow = time.Duration(1+random.IntN(12*60)) * time.Minute
		var feed stuckFeed
		for at := s.Edge.Add(-50 * time.Hour); at < s.Edge.Add(24*time.Hour); at = at.Add(time.Duration(random.IntN(10*3600)) * time.Second) {
			for range 1 + random.IntN(4) { // in a row, mostly
				feed = append(feed, at)
				at = at.Add(time.Duration(random.IntN(8)/7+1) * time.Second)
			}
		}
		inVain := 0
		for m := range 30 * 60 {
			now := noon.Add(time.Duration(m) * time.Minute)
			s.Published = cdr.InstantOf(now.Add(-6 * time.Minute))
			s.Edge, s.Settled = s.Published, s.Published.Add(-s.Widest())
			if last := feed[random.IntN(len(feed))]; random.IntN(60) == 0 && last < s.Edge && m < 29*60 {
				s.Doubt(cdr.Span{StartInclusive: last.Add(-5 * time.Minute), EndExclusive: last + 1}, now)
			}
			d := s.Plan(BudgetView{NextInitial: now}, now)
			if d.Request == nil {
				continue
			}
			if !feed.answer(t, &s.State, *d.Request, now) {
				if inVain++; inVain > 40 {
					t.Fatalf("seed %d: %d requests in vain after %d minutes: %v, %v, given up %v", seed, inVain, m, s.Rounds, s.Rechecks, s.GivenUp)
				}
				continue
			}
			for at := d.Request.Follows; at < d.Request.Span.StartInclusive; at++ {
				if !slices.Contains(feed, at) {
					t.Fatalf("seed %d: %s is left out", seed, at)
				}
			}
			s.Advance(*d.Request)
			inVain = 0
		}
		for i, r := range s.Rounds {
			if late := noon.Add(30 * time.Hour).Sub(r.Began.Time()); late > 2*s.Sweeps[i].Every {
				t.Errorf("seed %d: the last round of %s began %s ago", seed, s.Sweeps[i].Back, late)
			}
		}
	}
}

// TestSweepsAskOnceMore: the widest round that comes next asks for what was given up, and
// reads it if the feed is well again.
func TestSweepsAskOnceMore(t *testing.T) {
	s := testSweeps(noon)
	s.Sweeps = s.Sweeps[1:] // the widest alone
	s.Begin(nil, noon)
	stuck := cdr.InstantOf(noon.Add(-20 * time.Hour))
	feed := stuckFeed{stuck}
	var read []string
	for m := range 25 * 60 {
		now := noon.Add(time.Duration(m) * time.Minute)
		s.Published = cdr.InstantOf(now.Add(-6 * time.Minute))
		s.Edge, s.Settled = s.Published, s.Published.Add(-s.Widest())
		if m == 18*60 {
			feed = nil
		}
		d := s.Plan(BudgetView{NextInitial: now}, now)
		if d.Request == nil || !feed.answer(t, &s.State, *d.Request, now) {
			continue
		}
		if d.Request.Span.Contains(stuck) {
			read = append(read, "read")
		} else if d.Request.Follows == stuck {
			read = append(read, "left out")
		}
		s.Advance(*d.Request)
	}
	if want := []string{"left out", "read"}; !slices.Equal(read, want) {
		t.Errorf("the second is %v, want %v", read, want)
	}
}
