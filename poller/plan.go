package poller

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cdrbus/internal/cdr"
)

// Policy is what may be asked of one endpoint.
type Policy struct {
	Endpoint       cdr.Endpoint
	MinAge         time.Duration // the young end of what may be asked, counted back from now
	SkewMargin     time.Duration // by which both ends are kept away from the feed's, for clocks that differ
	Overlap        time.Duration // by which a live request reaches back over the published watermark
	MaxWindow      time.Duration // the widest span of one request
	MinSpan        time.Duration // the shortest
	Lookback       time.Duration // the old end
	MaxWindowBytes int64         // that one window may take in memory; 0: any

	// MaxWindowRecords keeps windows behind the live edge so short that the edge does
	// not wait long for their pages; 0: any.
	MaxWindowRecords int64
}

// DefaultPolicy returns what Webex documents of an endpoint.
func DefaultPolicy(endpoint cdr.Endpoint) Policy {
	policy := Policy{
		Endpoint:   cdr.Feed,
		MinAge:     5 * time.Minute,
		SkewMargin: 30 * time.Second,
		Overlap:    time.Minute,
		MaxWindow:  12 * time.Hour,
		MinSpan:    time.Second,
		Lookback:   30 * 24 * time.Hour,
	}
	if endpoint == cdr.Stream {
		policy.Endpoint = cdr.Stream
		policy.MinAge, policy.MaxWindow, policy.Lookback = time.Minute, 2*time.Hour, 12*time.Hour
	}
	return policy
}

// Validate reports a policy under which no window could be asked for.
func (p Policy) Validate() error {
	switch {
	case p.MinAge < 0 || p.SkewMargin < 0 || p.Overlap < 0 || p.MaxWindowBytes < 0:
		return errors.New("check polling policy: min_age, clock margin, overlap and max_window_bytes must not be negative")
	case p.MinSpan < time.Second:
		return errors.New("check polling policy: the shortest span must be at least 1s, the grain of the feed")
	case p.MaxWindow < p.MinSpan:
		return fmt.Errorf("check polling policy: max_window %s must be at least %s", p.MaxWindow, p.MinSpan)
	case p.Lookback < p.MinAge+2*p.SkewMargin+p.MinSpan:
		return fmt.Errorf("check polling policy: lookback %s leaves nothing beyond min_age %s", p.Lookback, p.MinAge)
	}
	return nil
}

// Earliest returns the oldest start of a new source that leaves time to ask for
// it, instead of recording a gap at once.
func (p Policy) Earliest(now time.Time) cdr.Instant {
	s := State{Policy: p}
	return s.oldestStart(now).Add(gapMargin)
}

const (
	// minSkewMargin covers the grain of the Date header and of spans, a second each.
	minSkewMargin = 2 * time.Second
	// gapMargin is how far inside the lookback a gap ends: the time that its
	// commit and the next request may take.
	gapMargin = 10 * time.Second
	// fillShare is the part of MaxWindowBytes that a window is planned to fill: an
	// hour may hold twice what was learned of the hours before it.
	fillShare = 0.5
	// minTimedOutSpan is the shortest span to which timeouts lead. Below it the
	// fault is not the width, and every request would win little.
	minTimedOutSpan = time.Minute
	// goodWindowsToGrow is how many windows must succeed before a larger page is tried again.
	goodWindowsToGrow = 8
	// replansToHalve is how often in a row a window begins again over the same span.
	replansToHalve = 2
	// strikesToSkip is how often the cursor may stop at one instant before that is given up.
	strikesToSkip = 2
	// maxGivenUp is how many runs of such seconds are remembered: enough for all rounds
	// of the sweeps, each of which needs two.
	maxGivenUp = 64
)

// State is all that Plan knows of a source. The caller keeps it, one goroutine
// at a time, and tells it through Learn, LearnFailure and SkipGap what happened.
// It is not stored: a restart learns it again from Published alone.
type State struct {
	Policy

	Published cdr.Instant // everything before is published, or in the window in flight; never unset
	NotBefore time.Time   // no request before

	Clock

	RecordsPerHour float64       // 0: not known
	BytesPerRecord float64       // 0: not known
	SpanLimit      time.Duration // after trouble with wider spans; 0: none
	PageSize       int           // 0: the feed's own choice

	AskFrom         cdr.Instant   // no overlap beyond: a gap ends there
	RefusedLookback time.Duration // the feed keeps less than Lookback; 0: not known
	Stuck           StuckCursor
	GivenUp         []cdr.Span // seconds that are not asked for, those of the latest proof last

	GoodWindows int // in a row
	Replans     int // in a row
	AgedOuts    int // in a row
}

// StuckCursor is an instant at which the feed does not page on.
type StuckCursor struct {
	At      cdr.Instant
	Strikes int
}

// Decision is what to do next: exactly one of its fields is set.
type Decision struct {
	Wait    *Wait
	Request *Request
	Gap     *cdr.Span // is lost: to be recorded, loudly, and skipped
}

// Wait says when to plan again.
type Wait struct {
	Until time.Time
	Why   string // one of the Why constants
}

// Why a source waits.
const (
	WhyBackoff = "backoff"
	WhyMinAge  = "minimum age"
	WhyBudget  = "request budget"
)

// Plan decides what to do next for a source. It is pure: the same arguments give
// the same decision.
//
// A backlog is worked off in the widest windows that the feed and the memory
// allow, as fast as the budget allows. At its young end the source lives: each
// request reaches from a little before the published watermark to the youngest
// instant that may be asked, as often as the initial bucket permits.
func Plan(s State, b BudgetView, now time.Time) Decision {
	if s.NotBefore.After(now) {
		return wait(s.NotBefore, WhyBackoff)
	}
	if begins := s.BeginsAt(s.Published); begins > s.Published {
		return Decision{Gap: &cdr.Span{StartInclusive: s.Published, EndExclusive: begins}}
	}
	youngest := s.youngestEnd(now)
	if earliestEnd := s.Published.Add(s.MinSpan); youngest < earliestEnd {
		return wait(later(s.askableAt(earliestEnd), b.NextInitial), WhyMinAge)
	}
	if b.NextInitial.After(now) {
		return wait(b.NextInitial, WhyBudget)
	}
	if lost := s.Lost(now); lost != nil {
		return Decision{Gap: lost}
	}
	return Decision{Request: s.request(youngest, s.oldestStart(now))}
}

func wait(until time.Time, why string) Decision { return Decision{Wait: &Wait{Until: until, Why: why}} }

// request plans the window that begins at the published watermark.
func (s *State) request(youngest, oldest cdr.Instant) *Request {
	limit := s.spanLimit()
	end := s.endsBefore(s.Published, min(s.Published.Add(limit), youngest))
	start, purpose := s.Published, cdr.CatchUp
	if end == youngest {
		purpose = cdr.Live
		start = min(s.Published, max(s.Published.Add(-s.Overlap), end.Add(-limit), oldest, s.AskFrom))
	}
	return &Request{
		Span:     cdr.Span{StartInclusive: start, EndExclusive: end},
		Commit:   cdr.Span{StartInclusive: s.Published, EndExclusive: end},
		Endpoint: s.Endpoint,
		Purpose:  purpose,
		MinAge:   s.MinAge,
		Lookback: s.lookback(),
		PageSize: s.PageSize,
	}
}

// spanLimit is the widest span that seems wise, in whole seconds.
func (s *State) spanLimit() time.Duration {
	limit := s.MaxWindow
	if s.SpanLimit > 0 {
		limit = min(limit, s.SpanLimit)
	}
	if bytesPerHour := s.RecordsPerHour * s.BytesPerRecord; s.MaxWindowBytes > 0 && bytesPerHour > 0 {
		hours := fillShare * float64(s.MaxWindowBytes) / bytesPerHour
		if hours < limit.Hours() {
			limit = time.Duration(hours * float64(time.Hour))
		}
	}
	if s.MaxWindowRecords > 0 && s.RecordsPerHour > 0 {
		if hours := float64(s.MaxWindowRecords) / s.RecordsPerHour; hours < limit.Hours() {
			limit = time.Duration(hours * float64(time.Hour))
		}
	}
	return max(limit.Truncate(time.Second), s.MinSpan)
}

func (s *State) lookback() time.Duration {
	if s.RefusedLookback > 0 {
		return min(s.Lookback, s.RefusedLookback)
	}
	return s.Lookback
}

func (s *State) margin() time.Duration {
	if s.NoDate {
		return max(s.SkewMargin, clockMargin)
	}
	return max(s.SkewMargin, minSkewMargin)
}

// youngestEnd is the youngest end that may be asked for now.
func (s *State) youngestEnd(now time.Time) cdr.Instant {
	return cdr.InstantOf(s.FeedTime(now).Add(-s.MinAge - s.margin()))
}

// askableAt is the inverse of youngestEnd.
func (s *State) askableAt(end cdr.Instant) time.Time {
	return end.Time().Add(s.margin() + s.MinAge - s.Skew)
}

// oldestStart is the oldest start that may be asked for now.
func (s *State) oldestStart(now time.Time) cdr.Instant {
	return cdr.InstantOf(s.FeedTime(now).Add(s.margin()-s.lookback())) + 1
}

// Learn takes in a window that was read: how many items, and how many bytes it
// took of the MaxWindowBytes. Published stays the caller's.
func (s *State) Learn(request Request, out Outcome, items, bytes int64) {
	s.Clock.learn(out, s.margin())
	s.learnDensity(request.Span, items, bytes)
	s.NotBefore, s.Replans, s.AgedOuts = time.Time{}, 0, 0
	if s.SpanLimit > 0 && request.Span.Duration() >= s.spanLimit() {
		s.SpanLimit += max(s.SpanLimit/2, time.Second).Truncate(time.Second)
		if s.SpanLimit >= s.MaxWindow {
			s.SpanLimit = 0
		}
	}
	if request.Span.Contains(s.Stuck.At) {
		s.Stuck = StuckCursor{}
	}
	s.PageSize = out.PageSize
	if s.GoodWindows++; s.GoodWindows >= goodWindowsToGrow && s.PageSize > 0 {
		s.PageSize, s.GoodWindows = min(2*s.PageSize, LargestPageSize), 0
	}
}

// learnDensity rises fast and falls slowly: a window planned too wide is read in
// vain, one too short costs little.
func (s *State) learnDensity(span cdr.Span, items, bytes int64) {
	s.RecordsPerHour = blend(s.RecordsPerHour, float64(items)/span.Duration().Hours(), 0.5, 0.2)
	if items > 0 {
		s.BytesPerRecord = blend(s.BytesPerRecord, float64(bytes)/float64(items), 0.5, 0.2)
	}
}

func blend(known, seen, rise, fall float64) float64 {
	switch {
	case known == 0:
		return seen
	case seen > known:
		return known + rise*(seen-known)
	}
	return known + fall*(seen-known)
}

// LearnFailure takes in the error that ended a window. It returns nil if
// planning again is the right thing to do, perhaps after a Wait. A returned
// *[Stopped] needs a person; where it has a Reprobe, Plan asks again after that.
// Any other error is not the poller's and comes back as it is.
func (s *State) LearnFailure(request Request, out Outcome, err error, now time.Time) error {
	s.Clock.learn(out, s.margin())
	s.GoodWindows = 0
	if out.PageSize > 0 {
		s.PageSize = out.PageSize
	}
	var (
		stopped *Stopped
		retry   *RetryLater
		replan  *Replan
		aged    *AgedOut
	)
	switch {
	case errors.Is(err, cdr.ErrWindowTooLarge):
		return s.learnTooLarge(request)
	case errors.As(err, &stopped):
		if stopped.Reprobe > 0 {
			s.NotBefore = now.Add(stopped.Reprobe)
		}
		return err
	case errors.As(err, &retry):
		s.NoDate = s.NoDate || errors.Is(err, errNoDate)
		s.NotBefore = now.Add(retry.After)
	case errors.As(err, &replan):
		s.learnReplan(request, replan, now)
	case errors.As(err, &aged):
		s.RefusedLookback = max(aged.Age-time.Minute<<min(s.AgedOuts, 6), s.MinAge)
		s.AgedOuts++
	default:
		return err
	}
	return nil
}

// LearnInterrupted takes in a window that nobody waited for to the end. What the
// feed demanded meanwhile still holds.
func (s *State) LearnInterrupted(out Outcome) {
	s.NotBefore = later(s.NotBefore, out.NotBefore)
}

// learnTooLarge halves the span of a window that outgrew its bytes.
func (s *State) learnTooLarge(request Request) error {
	span := request.Span.Duration()
	if span <= s.MinSpan {
		return &Stopped{
			Message: fmt.Sprintf("read window %s: a span of %s holds more than max_window_bytes (%d)", request.Span, span, s.MaxWindowBytes),
			Remedy:  "raise max_window_bytes",
		}
	}
	s.halve(span, s.MinSpan)
	return nil
}

func (s *State) halve(span, shortest time.Duration) {
	s.SpanLimit = max((span / 2).Truncate(time.Second), shortest, s.MinSpan)
}

// learnReplan decides how a window begins again.
func (s *State) learnReplan(request Request, replan *Replan, now time.Time) {
	var stuck *CursorStuck
	if errors.As(replan, &stuck) && request.Span.Contains(stuck.At) {
		s.learnStuck(stuck)
		return
	}
	s.Replans++
	if !replan.HalveSpan && s.Replans < replansToHalve {
		return
	}
	if span := request.Span.Duration(); span > minTimedOutSpan {
		s.halve(span, minTimedOutSpan)
		return
	}
	s.NotBefore = now.Add(maxBackoff)
}

// learnStuck tries an instant once more with the largest pages, and then gives
// it up: Plan reads up to it, returns it as a Gap, and goes on behind it.
func (s *State) learnStuck(stuck *CursorStuck) {
	if s.Stuck.At != stuck.At {
		s.Stuck = StuckCursor{At: stuck.At}
	}
	s.Stuck.Strikes++
	s.PageSize = LargestPageSize
	if s.Stuck.Strikes < strikesToSkip {
		return
	}
	if stuck.At < s.Published {
		s.AskFrom = stuck.At.Add(time.Second)
	}
	s.giveUp(stuck.At)
}

// giveUp remembers a second of which a page leads to itself whatever is tried.
func (s *State) giveUp(second cdr.Instant) {
	for i := range s.GivenUp {
		if s.GivenUp[i].EndExclusive == second {
			s.GivenUp[i].EndExclusive = second.Add(time.Second)
			return
		}
	}
	s.GivenUp = append(s.GivenUp, cdr.Span{StartInclusive: second, EndExclusive: second.Add(time.Second)})
	if len(s.GivenUp) > maxGivenUp {
		s.GivenUp = slices.Delete(s.GivenUp, 0, 1)
	}
}

// BeginsAt returns where a window begins that goes on behind an instant: there, or
// behind the seconds that are given up.
func (s *State) BeginsAt(at cdr.Instant) cdr.Instant {
	for {
		i := slices.IndexFunc(s.GivenUp, func(run cdr.Span) bool { return run.Contains(at) })
		if i < 0 {
			return at
		}
		at = s.GivenUp[i].EndExclusive
	}
}

// endsBefore returns where a window ends at the latest that begins at an instant: before
// the seconds that are given up.
func (s *State) endsBefore(start, end cdr.Instant) cdr.Instant {
	for _, run := range s.GivenUp {
		if run.StartInclusive > start {
			end = min(end, run.StartInclusive)
		}
	}
	return end
}

// forgetGivenUp lets everything be asked for again.
func (s *State) forgetGivenUp() { s.Stuck, s.GivenUp = StuckCursor{}, nil }

// SkipGap moves on behind a gap that was recorded. No overlap reaches into it.
func (s *State) SkipGap(gap cdr.Span) {
	s.Published, s.AskFrom = gap.EndExclusive, gap.EndExclusive
	if s.Stuck.At < gap.EndExclusive {
		s.Stuck = StuckCursor{}
	}
	s.GivenUp = slices.DeleteFunc(s.GivenUp, func(run cdr.Span) bool { return run.EndExclusive <= gap.EndExclusive })
}
