package poller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// testSweeps are those of a source that began two weeks ago and lives.
func testSweeps(now time.Time) *Sweeps {
	s := &Sweeps{
		State:   State{Policy: DefaultPolicy(cdr.Feed)},
		Sweeps:  []Sweep{{15 * time.Minute, 2 * time.Hour}, {12 * time.Hour, 48 * time.Hour}},
		Start:   cdr.InstantOf(now.Add(-14 * 24 * time.Hour)),
		Settled: cdr.InstantOf(now.Add(-50 * time.Hour)),
	}
	s.Published, s.Edge = cdr.InstantOf(now.Add(-6*time.Minute)), cdr.InstantOf(now.Add(-6*time.Minute))
	s.Begin(nil, now)
	return s
}

// follow plans from minute to minute and takes every request for read. It returns
// what was asked: when, and which span, relative to now.
func (s *Sweeps) follow(from time.Time, minutes, every int) []string {
	var asked []string
	for m := 0; m < minutes; m += every {
		now := from.Add(time.Duration(m) * time.Minute)
		s.Published = cdr.InstantOf(now.Add(-6 * time.Minute))
		s.Edge = s.Published
		d := s.Plan(BudgetView{NextInitial: now}, now)
		if d.Request == nil {
			continue
		}
		at := func(i cdr.Instant) time.Duration { return now.Sub(i.Time()).Round(time.Minute) }
		asked = append(asked, fmt.Sprintf("%s: %s to %s ago", now.Sub(from), at(d.Request.Span.StartInclusive), at(d.Request.Span.EndExclusive)))
		s.Advance(*d.Request)
		if d.Request.Span.StartInclusive <= s.Settled {
			s.Settled = max(s.Settled, min(d.Request.Span.EndExclusive, cdr.InstantOf(now.Add(-s.Widest()))))
		}
	}
	return asked
}

// TestSweepRounds: the narrow sweep comes every quarter of an hour, the wide one twice
// a day in windows of 12 hours, from where nothing was read late enough yet.
func TestSweepRounds(t *testing.T) {
	s := testSweeps(noon)
	asked := s.follow(noon, 24*60, 1)
	narrow := slices.Collect(func(yield func(string) bool) {
		for _, a := range asked {
			if strings.Contains(a, ": 2h0m0s to 6m0s ago") && !yield(a) {
				return
			}
		}
	})
	if len(narrow) < 94 || len(narrow) > 96 {
		t.Errorf("%d narrow rounds in a day, want 95", len(narrow))
	}
	wide := slices.DeleteFunc(asked, func(a string) bool { return slices.Contains(narrow, a) })
	want := []string{
		"12h1m0s: 62h1m0s to 50h1m0s ago", "12h2m0s: 50h2m0s to 38h2m0s ago", "12h3m0s: 38h3m0s to 26h3m0s ago",
		"12h4m0s: 26h4m0s to 14h4m0s ago", "12h5m0s: 14h5m0s to 2h5m0s ago", "12h6m0s: 2h6m0s to 11m0s ago",
	}
	if !slices.Equal(wide, want) {
		t.Errorf("the wide round asks\n%s\nwant\n%s", strings.Join(wide, "\n"), strings.Join(want, "\n"))
	}
	if settled := cdr.InstantOf(noon.Add(12*time.Hour + 2*time.Minute - 48*time.Hour)); s.Settled != settled {
		t.Errorf("settled to %s, want %s", s.Settled, settled)
	}
}

// TestSweepsGoOn: a round that was begun goes on after a restart, a late one delays the
// next, and neither sweep starves the other.
func TestSweepsGoOn(t *testing.T) {
	s := testSweeps(noon)
	s.follow(noon, 12*60+2, 1)
	stored := s.Rounds
	again := testSweeps(noon)
	again.Settled = s.Settled
	again.Begin(stored, noon.Add(13*time.Hour))
	if asked := again.follow(noon.Add(13*time.Hour), 4, 1); !slices.Contains(asked, "1m0s: 51h1m0s to 39h1m0s ago") {
		t.Errorf("after a restart the wide round does not go on where it was:\n%s", strings.Join(asked, "\n"))
	}
	starved := testSweeps(noon)
	asked := starved.follow(noon, 7*24*60, 25)
	narrow := len(slices.DeleteFunc(slices.Clone(asked), func(a string) bool { return !strings.Contains(a, ": 2h0m0s") }))
	if narrow < 200 || len(asked)-narrow < 5*8 {
		t.Errorf("of %d requests in a week, one every 25 minutes, %d are narrow: want most of them, and 8 wide rounds", len(asked), narrow)
	}
	if behind := noon.Add(7 * 24 * time.Hour).Sub(starved.Settled.Time()); behind > 100*time.Hour {
		t.Errorf("settled %s behind", behind)
	}
}

// TestSweepBounds: nothing is asked from before the source's start, beyond the feed's
// lookback, or behind the edge.
func TestSweepBounds(t *testing.T) {
	ask := func(change func(*Sweeps)) string {
		s := testSweeps(noon.Add(-24 * time.Hour))
		change(s)
		d := s.Plan(BudgetView{NextInitial: noon}, noon)
		if d.Request == nil {
			return d.Wait.Why
		}
		return d.Request.Span.String()
	}
	for _, c := range []struct {
		name   string
		change func(*Sweeps)
		want   string
	}{
		{"as it is", func(s *Sweeps) { s.Edge, s.Published = 0, cdr.InstantOf(noon) }, "2026-11-22T10:00:00Z/2026-11-22T11:54:30Z"},
		{"begun an hour ago", func(s *Sweeps) {
			s.Edge, s.Start, s.Published = 0, cdr.InstantOf(noon.Add(-time.Hour)), cdr.InstantOf(noon)
		}, "2026-11-22T11:00:00Z/2026-11-22T11:54:30Z"},
		{"not read for five hours", func(s *Sweeps) { s.Edge, s.Published = 0, cdr.InstantOf(noon.Add(-5*time.Hour)) }, "2026-11-22T07:00:00Z/2026-11-22T11:54:30Z"},
		{"nothing read yet", func(s *Sweeps) { s.Edge, s.Published, s.Settled = s.Start, s.Start, s.Start }, WhySweep},
		{"feed keeps an hour", func(s *Sweeps) { s.Edge, s.Lookback = 0, time.Hour }, "2026-11-22T11:00:31Z/2026-11-22T11:54:30Z"},
		{"backing off", func(s *Sweeps) { s.NotBefore = noon.Add(time.Minute) }, WhyBackoff},
	} {
		if got := ask(c.change); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestRechecks: a window that was incomplete is read again once, five minutes later.
func TestRechecks(t *testing.T) {
	s := testSweeps(noon)
	doubtful := cdr.Span{StartInclusive: cdr.InstantOf(noon.Add(-30 * time.Hour)), EndExclusive: cdr.InstantOf(noon.Add(-10 * time.Hour))}
	s.Doubt(doubtful, noon)
	want := []string{"5m0s: 30h5m0s to 18h5m0s ago", "6m0s: 18h6m0s to 10h6m0s ago"}
	if asked := s.follow(noon, 14, 1); !slices.Equal(asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	if len(s.Rechecks) > 0 {
		t.Errorf("left: %v", s.Rechecks)
	}
	for i := range 2 * maxRechecks {
		s.Doubt(cdr.Span{StartInclusive: doubtful.StartInclusive.Add(time.Duration(i) * time.Hour), EndExclusive: doubtful.EndExclusive.Add(time.Duration(i) * time.Hour)}, noon)
	}
	if len(s.Rechecks) != maxRechecks {
		t.Errorf("%d rechecks, want %d", len(s.Rechecks), maxRechecks)
	}
}

// TestSweepByWrongClock: what is read again is counted back from the feed's time, and a
// round that a wrong clock says to begin in a year does not keep the next one waiting.
func TestSweepByWrongClock(t *testing.T) {
	s := testSweeps(noon)
	s.Skew = -10 * time.Minute
	d := s.Plan(BudgetView{}, noon.Add(20*time.Minute))
	if d.Request == nil || d.Request.Span.StartInclusive != cdr.InstantOf(noon.Add(-110*time.Minute)) {
		t.Errorf("at 12:20, the feed's 12:10: %+v, want what begins at 10:10", d.Request)
	}
	s = testSweeps(noon)
	s.Rounds[0].Began = s.Rounds[0].Began.Add(365 * 24 * time.Hour)
	if d := s.Plan(BudgetView{}, noon.Add(time.Minute)); d.Request == nil || d.Request.Round.Began != cdr.InstantOf(noon.Add(time.Minute)) {
		t.Errorf("after a round of next year: %+v", d)
	}
}
