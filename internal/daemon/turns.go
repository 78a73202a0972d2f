package daemon

import (
	"time"

	"cdrbus/internal/cdr"
)

// work is what a request is spent on. Of those that are ready, the first goes
// first, but for the share that each of the others has.
type work int

const (
	live    work = iota // the live edge, and what it is behind with
	sweep               // reading again what lies behind it
	errands             // what people asked for
	works
)

func workOf(purpose cdr.Purpose) work {
	switch purpose {
	case cdr.Sweep:
		return sweep
	case cdr.Backfill, cdr.Verify, cdr.Repair:
		return errands
	default:
		return live
	}
}

// GuaranteedShare is the part of a credential's initial requests that each work
// but the live edge gets while it has something to do.
const GuaranteedShare = 0.2

// turns deals out a credential's initial requests. It belongs to the lane.
type turns struct {
	owed [works]float64 // requests that a work has waited for
}

// next takes the choice whose turn it is; one without a source if there is none.
// What the feed is about to forget goes before everything else, and a gap costs no
// request and so nobody's turn.
func (t *turns) next(ready [works]choice, now time.Time) choice {
	first := ready[live]
	if first.source != nil && (first.gap != nil || first.source.agesOut(now)) {
		return first
	}
	turn := work(-1)
	for w := range works {
		if ready[w].source == nil {
			continue
		}
		if w != live {
			t.owed[w] = min(t.owed[w]+GuaranteedShare, 2)
		}
		if turn < 0 || t.isDue(w) && !t.isDue(turn) {
			turn = w
		}
	}
	if turn < 0 {
		return choice{}
	}
	t.owed[turn] = max(0, t.owed[turn]-1)
	return ready[turn]
}

// isDue reports whether a work has waited for long enough.
func (t *turns) isDue(w work) bool { return t.owed[w] > 1-GuaranteedShare/2 }

// moreUrgentThan orders two sources that could both be asked now for the same
// work: first what the feed is about to forget, then whoever has waited longest.
func (s *source) moreUrgentThan(other *source, w work, now time.Time) bool {
	if mine, theirs := s.agesOut(now), other.agesOut(now); w == live && mine != theirs {
		return mine
	}
	return s.tries[w].servedAt.Before(other.tries[w].servedAt)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
