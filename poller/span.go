package poller

import (
	"time"

	"cdrbus/internal/cdr"
)

// WhyNothing says that nothing is left to be asked for.
const WhyNothing = "nothing to ask"

// PlanSpan decides what to ask next of a span behind the live edge, of which nothing
// before its start is left to do. It is pure, as [Plan] is.
func (s *State) PlanSpan(span cdr.Span, purpose cdr.Purpose, b BudgetView, now time.Time) Decision {
	if s.NotBefore.After(now) {
		return wait(s.NotBefore, WhyBackoff)
	}
	request := s.requestWithin(span, purpose, now)
	switch {
	case request == nil:
		return wait(now.Add(time.Minute), WhyNothing)
	case b.NextInitial.After(now):
		return wait(b.NextInitial, WhyBudget)
	}
	return Decision{Request: request}
}

// Oldest is the oldest start that may be asked for.
func (s *State) Oldest(now time.Time) cdr.Instant { return s.oldestStart(now) }

// requestWithin plans the next window of a span behind the live edge; nil if nothing
// of it can be asked for. Such a window moves no watermark of the live edge.
func (s *State) requestWithin(span cdr.Span, purpose cdr.Purpose, now time.Time) *Request {
	follows := max(span.StartInclusive, s.oldestStart(now))
	start := s.BeginsAt(follows)
	end := s.endsBefore(start, min(span.EndExclusive, s.youngestEnd(now), start.Add(s.spanLimit())))
	if end <= start {
		return nil
	}
	return &Request{
		Span:     cdr.Span{StartInclusive: start, EndExclusive: end},
		Endpoint: cdr.Feed,
		Purpose:  purpose,
		Follows:  follows,
		MinAge:   s.MinAge,
		Lookback: s.lookback(),
		PageSize: s.PageSize,
	}
}
