package poller

import (
	"slices"
	"time"

	"cdrbus/internal/cdr"
)

// Sweep is one configured re-reading of cdr_feed: every so often, what reaches so
// far back.
type Sweep struct{ Every, Back time.Duration }

// Sweeps plans the re-reading of one source: what the feed holds behind the live
// edge, for the records that appear minutes or a day after their time. The caller
// keeps it, one goroutine at a time. Rounds and Rechecks are stored with the
// position, the rest is learned again.
//
// Each sweep goes in rounds. A round reads, in windows as wide as wise, from Back
// before its beginning to the live edge; the next one is due Every after it began,
// and a round that is late delays the next rather than being given up. Two of
// them reach further: the widest begins where nothing was read late enough yet
// (Settled), whatever delayed it; the narrowest where the feed was not read at
// all (Published), which is so while the live edge is that of cdr_stream.
type Sweeps struct {
	State // of cdr_feed, and what its windows taught; its Published is where the feed is read to without a hole

	Sweeps   []Sweep          // the narrowest first
	Rounds   []cdr.SweepRound // of each sweep the latest
	Rechecks []cdr.Recheck

	Start   cdr.Instant // of the source: nothing from before is asked for
	Settled cdr.Instant
	Edge    cdr.Instant // end of a new round; unset: the youngest instant that may be asked for
}

// recheckDelay is how long after an incomplete window it is read again.
const recheckDelay = 5 * time.Minute

// maxRechecks bounds what a position carries. The sweeps read the rest.
const maxRechecks = 16

// Widest is how far back the widest sweep reads; 0 without sweeps.
func (s *Sweeps) Widest() time.Duration {
	if len(s.Sweeps) == 0 {
		return 0
	}
	return s.Sweeps[len(s.Sweeps)-1].Back
}

// Plan decides what to read again next. It is pure, as [Plan] is. A Decision has a
// Wait or a Request, never a Gap: what is lost is for the live edge to tell.
func (s *Sweeps) Plan(b BudgetView, now time.Time) Decision {
	if s.NotBefore.After(now) {
		return wait(s.NotBefore, WhyBackoff)
	}
	request, due := s.mostLate(now)
	switch {
	case request == nil:
		return wait(due, WhySweep)
	case b.NextInitial.After(now):
		return wait(b.NextInitial, WhyBudget)
	}
	return Decision{Request: request}
}

// WhySweep says that no sweep is due.
const WhySweep = "next sweep"

// mostLate returns the request that is due for the longest, in terms of its own
// cadence; or none, and when to look again.
func (s *Sweeps) mostLate(now time.Time) (*Request, time.Time) {
	next := now.Add(time.Minute)
	for i := range s.Rechecks {
		recheck := s.Rechecks[i]
		if recheck.Due.Time().After(now) {
			next = earlier(next, recheck.Due.Time())
			continue
		}
		if request := s.requestWithin(recheck.Span, cdr.Sweep, now); request != nil {
			return request, now
		}
	}
	var best *Request
	lateness := -1.0
	for i, sweep := range s.Sweeps {
		round, due := s.roundOf(i, now)
		if due.After(now) {
			next = earlier(next, due)
			continue
		}
		request := s.requestWithin(cdr.Span{StartInclusive: round.Next, EndExclusive: round.End}, cdr.Sweep, now)
		if late := float64(now.Sub(due)) / float64(sweep.Every); request != nil && late > lateness {
			round.Next = request.Span.EndExclusive
			request.Round = round
			best, lateness = request, late
		}
	}
	return best, next
}

// Begin takes up the rounds as they were stored. The first round of a sweep is due
// Every from now.
func (s *Sweeps) Begin(stored []cdr.SweepRound, now time.Time) {
	s.Rounds = nil
	for _, sweep := range s.Sweeps {
		round := cdr.SweepRound{BackSeconds: int64(sweep.Back / time.Second), Began: cdr.InstantOf(now), Next: s.Start, End: s.Start}
		if at := slices.IndexFunc(stored, func(r cdr.SweepRound) bool { return r.BackSeconds == round.BackSeconds }); at >= 0 {
			round = stored[at]
		}
		s.Rounds = append(s.Rounds, round)
	}
}

// roundOf returns the round of a sweep to go on with, and since when it is due: the
// present one, or the next if nothing of that is left that can be asked for.
func (s *Sweeps) roundOf(i int, now time.Time) (cdr.SweepRound, time.Time) {
	round := s.Rounds[i]
	if round.Running() && s.BeginsAt(max(round.Next, s.oldestStart(now))) < round.End {
		return round, round.Began.Time()
	}
	due := round.Began.Time().Add(s.Sweeps[i].Every)
	if round.Began > cdr.InstantOf(now) {
		due = now // it began by a clock that was wrong
	}
	return s.newRound(s.Sweeps[i], now), due
}

func (s *Sweeps) newRound(sweep Sweep, now time.Time) cdr.SweepRound {
	began := cdr.InstantOf(now)
	from := cdr.InstantOf(s.FeedTime(now).Add(-sweep.Back))
	if sweep == s.Sweeps[0] {
		from = min(from, s.Published)
	}
	if sweep.Back == s.Widest() {
		from = min(from, s.Settled)
	}
	end := s.Edge
	if end.IsZero() {
		end = s.youngestEnd(now)
	}
	return cdr.SweepRound{BackSeconds: int64(sweep.Back / time.Second), Began: began, Next: min(max(from, s.Start), end), End: end}
}

// Advance moves on behind a window that is being committed. What it leaves of a recheck
// is dropped if all of that is given up.
func (s *Sweeps) Advance(request Request) {
	ofRound := !request.Round.IsZero()
	rest := make([]cdr.Recheck, 0, len(s.Rechecks))
	for _, r := range s.Rechecks {
		if !ofRound && r.Span.Contains(request.Span.StartInclusive) {
			r.Span.StartInclusive = request.Span.EndExclusive
		}
		if s.BeginsAt(r.Span.StartInclusive) < r.Span.EndExclusive {
			rest = append(rest, r)
		}
	}
	s.Rechecks = rest
	if !ofRound {
		return
	}
	at := slices.IndexFunc(s.Rounds, func(r cdr.SweepRound) bool { return r.BackSeconds == request.Round.BackSeconds })
	s.Rounds = slices.Clone(s.Rounds) // a window in flight has the former
	s.Rounds[at] = request.Round
	if widest := len(s.Rounds) - 1; at == widest && !request.Round.Running() {
		s.forgetGivenUp() // the next one asks once more
	}
}

// Doubt has a span read again soon, because its window was not complete.
func (s *Sweeps) Doubt(span cdr.Span, now time.Time) {
	oldest := s.oldestStart(now)
	rest := slices.DeleteFunc(slices.Clone(s.Rechecks), func(r cdr.Recheck) bool { return r.Span.EndExclusive <= oldest })
	if len(rest) == maxRechecks {
		rest = rest[1:]
	}
	s.Rechecks = append(rest, cdr.Recheck{Span: span, Due: cdr.InstantOf(now.Add(recheckDelay))})
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
