package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/producer"
)

// source is one feed as its lane knows it. It belongs to the lane's goroutine;
// of a window that is with the committer, the committer only calls positionAfter.
type source struct {
	name       cdr.SourceName
	config     *config.Source
	definition offsets.Definition
	openFeed   func(*poller.Budget) (*poller.Feed, error)
	askTime    func(context.Context) (poller.Clock, error) // of the feed's host
	host       string
	clocks     *clocks
	feed       *poller.Feed // nil until the shard is first restored: its budget depends on it
	headers    *headerBuilder
	board      *status.Board
	log        *zap.Logger

	// What to ask next. All of it runs ahead of position by the window in flight.
	position  offsets.Position // as of the last definite commit; counter 0: none yet
	plan      poller.State     // of cdr_feed: its live edge, or how far the sweeps have followed it
	stream    poller.State     // of cdr_stream
	streaming bool             // the live edge is that of cdr_stream
	restUntil time.Time        // cdr_stream was refused: not asked before
	sweeps    poller.Sweeps    // what is read again behind the live edge
	errands   []*errand        // jobs, the oldest first
	tries     [works]tries     // what became of the last requests, by work

	tokenWarning string // as last told
	stops        int    // times in a row that it needed a person
	finish       *finish
	tokenState   func(now time.Time) status.Token // nil: a bare token, of which nothing is known
	halt         status.State                     // why nothing more is asked; empty: it runs
}

// tries is what the last windows of one work have come to.
type tries struct {
	servedAt   time.Time // of the last fetch
	shortfalls shortfalls
	leastBytes int64 // that the next window needs, because the last one found no more room; 0: not known
}

// shortfalls counts, by where a window begins, how often in a row the feed returned less
// for it than it announced: sweeps read windows of several rounds in turns, and those of
// one say nothing of the other's.
type shortfalls map[cdr.Instant]int

// maxShortfalls bounds them: a window whose round was given up never comes again.
const maxShortfalls = 16

// again counts one more.
func (f *shortfalls) again(startInclusive cdr.Instant) int {
	if *f == nil || len(*f) > maxShortfalls {
		*f = shortfalls{}
	}
	(*f)[startInclusive]++
	return (*f)[startInclusive]
}

// live is the plan of the live edge.
func (s *source) live() *poller.State {
	if s.streaming {
		return &s.stream
	}
	return &s.plan
}

// planOf is the plan that a request came from.
func (s *source) planOf(request poller.Request) *poller.State {
	switch {
	case request.Purpose == cdr.Sweep:
		return &s.sweeps.State
	case workOf(request.Purpose) == errands && len(s.errands) > 0:
		return &s.errands[0].plan
	case request.Endpoint == cdr.Stream:
		return &s.stream
	default:
		return &s.plan
	}
}

// halted reports whether the source waits for a person.
func (s *source) halted() bool { return s.halt != "" }

// planned reports whether everything before until is at least handed over.
func (s *source) planned(until cdr.Instant) bool {
	return !until.IsZero() && s.live().Published >= until
}

// agesOut reports whether the oldest unpublished instant is within the last
// tenth of the endpoint's lookback.
func (s *source) agesOut(now time.Time) bool {
	live := s.live()
	age := now.Sub(live.Published.Time())
	return age > live.Lookback-live.Lookback/10
}

// resume takes the position that a restore found, and plans on from it.
func (s *source) resume(position offsets.Position, now time.Time) {
	s.position = position
	s.plan.AskFrom = max(s.plan.AskFrom, position.Start) // nothing from before its start
	s.stream.AskFrom = max(s.stream.AskFrom, position.Start)
	s.sweeps.Start = position.Start
	s.setClock(s.clocks.of(s.host).Clock)
	s.rewind(now)
	s.halt = ""
	for i := range s.tries {
		s.tries[i].shortfalls, s.tries[i].leastBytes = nil, 0
	}
	s.report(func(b *status.Source) {
		b.Published, b.Settled, b.Counter = position.Published(), position.FeedSettled, position.Counter
		b.Shard = position.Shard
	})
	s.showPlan()
	s.finish.published(s.name, position.Published())
}

// overtakenBy reports whether a restored position is further than this process
// can have brought it, with the one window whose verdict it may not know: somebody
// else has owned the source meanwhile, and has spent its request budget.
func (s *source) overtakenBy(restored offsets.Position) bool {
	return s.position.Counter > 0 && restored.Counter > s.position.Counter+1
}

// rewind plans again from the last definite commit.
func (s *source) rewind(now time.Time) {
	s.plan.Published = s.position.FeedPublished
	s.stream.Published = s.position.StreamPublished
	s.streaming = s.config.Endpoint != config.Feed && s.stream.Published > s.plan.Published
	if s.config.Endpoint == config.Stream {
		s.toStream()
	}
	s.sweeps.Begin(s.position.Sweeps, now)
	s.sweeps.Rechecks = s.position.Rechecks
	for _, e := range s.errands {
		e.ahead = e.state
	}
	s.enter(status.Waiting, "")
}

// toStream lets cdr_stream follow the live edge from here on: from a little before
// where cdr_feed was read to, if it was not further already; from no record that was
// there before the source's start.
func (s *source) toStream() {
	s.streaming = true
	s.stream.Published = max(s.stream.Published, poller.StreamFrom(s.plan.Published), s.position.Start)
}

// decide plans the live edge. A source that lags too far behind for cdr_stream
// reads cdr_feed until it has caught up; one that was told to use nothing else
// skips what cdr_stream has forgotten, and leaves it to the sweeps.
func (s *source) decide(view poller.BudgetView, now time.Time) poller.Decision {
	if s.streaming && s.config.Endpoint == config.Auto && poller.TooFarForStream(&s.stream, now) {
		s.log.Warn("too far behind for cdr_stream, reading cdr_feed until it has caught up", zap.Stringer("published", s.stream.Published))
		s.streaming = false
	}
	if !s.streaming {
		return poller.Plan(s.plan, view, now)
	}
	if lost := s.plan.Lost(now); lost != nil {
		return poller.Decision{Gap: lost}
	}
	if begins := s.sweeps.BeginsAt(s.plan.Published); begins > s.plan.Published { // only sweeps read cdr_feed
		return poller.Decision{Gap: &cdr.Span{StartInclusive: s.plan.Published, EndExclusive: begins}}
	}
	decision := poller.Plan(s.stream, view, now)
	if skipped := decision.Gap; skipped != nil {
		s.log.Warn("cdr_stream has no more of this time, the next sweep reads it from cdr_feed", zap.Stringer("span", skipped))
		s.stream.SkipGap(*skipped)
		return poller.Plan(s.stream, view, now)
	}
	return decision
}

// decideSweep plans what is read again.
func (s *source) decideSweep(view poller.BudgetView, now time.Time) poller.Decision {
	s.sweeps.Published, s.sweeps.Settled, s.sweeps.Edge = s.plan.Published, s.position.FeedSettled, s.plan.Published
	if s.streaming {
		s.sweeps.Edge = 0
	}
	if pause := s.live().NotBefore; pause.After(s.sweeps.NotBefore) {
		s.sweeps.NotBefore = pause // it is the same feed that answers
	}
	return s.sweeps.Plan(view, now)
}

// nextCounter is the counter of the next window, with one of the lane in flight.
func (s *source) nextCounter(inFlight *window) cdr.Counter {
	next := s.position.Counter + 1
	if inFlight != nil && inFlight.source == s {
		next++
	}
	return next
}

// horizon is the oldest window end whose IDs a window of this source may still
// meet: the widest sweep, the overlap and a day for good measure.
func (s *source) horizon() cdr.Instant {
	return min(s.position.FeedSettled, s.position.FeedPublished.Add(-s.sweeps.Widest())).Add(-s.plan.Overlap - 24*time.Hour)
}

// asOf is when what a window publishes may be met again, where that is not its own
// time: cdr_stream returns by the time of insertion what cdr_feed has returned before.
func (s *source) asOf(request poller.Request) cdr.Instant {
	if s.config.Endpoint == config.Feed || request.Endpoint == cdr.Stream {
		return 0
	}
	return cdr.InstantOf(time.Now())
}

// handedOver plans on as if the window were committed.
func (s *source) handedOver(w *window) {
	switch work := w.work(); {
	case w.purpose == cdr.Gap:
		s.plan.SkipGap(w.request.Commit)
	case work == sweep:
		if follows, begins := w.request.Follows, w.request.Span.StartInclusive; !follows.IsZero() && follows < begins {
			s.log.Warn("a sweep leaves out what the feed does not page beyond", zap.Stringer("span", cdr.Span{StartInclusive: follows, EndExclusive: begins}))
		}
		s.learn(w)
		s.sweeps.Advance(w.request)
		if read := w.request.Span; read.StartInclusive <= s.plan.Published {
			s.plan.Published = max(s.plan.Published, read.EndExclusive)
		}
	case work == errands:
		s.errands[0].handedOver(w)
	default:
		s.learn(w)
		s.live().Published = w.request.Commit.EndExclusive
		if s.config.Endpoint == config.Auto && w.purpose == cdr.Live && !s.streaming && w.began.After(s.restUntil) {
			s.toStream()
		}
	}
	w.rounds, w.rechecks = s.sweeps.Rounds, s.sweeps.Rechecks
}

// learn takes in what a window that was read tells of those to come.
func (s *source) learn(w *window) {
	plan := s.planOf(w.request)
	plan.Learn(w.request, w.outcome, w.facts.items, w.bytes())
	s.setClock(plan.Clock)
	tries := &s.tries[w.work()]
	delete(tries.shortfalls, w.request.Span.StartInclusive)
	tries.leastBytes = 0
	if w.doubtful {
		s.sweeps.Doubt(w.request.Span, w.began)
	}
}

// committed takes over the position of a definite commit.
func (s *source) committed(position offsets.Position) {
	s.position = position
	s.stops = 0
	s.enter(status.Waiting, "")
	s.showPlan()
	s.showToken()
	s.finish.published(s.name, position.Published())
}

// judge decides whether a completely read window counts, and as what. A feed
// that returned fewer records than it announced is asked again, at most twice,
// the second time over half the span.
func (s *source) judge(w *window) error {
	w.unproven = w.outcome.Unproven
	w.distinctIDs = w.distinct()
	if announced := w.outcome.TotalCount; announced > w.distinctIDs {
		times := s.tries[w.work()].shortfalls.again(w.request.Span.StartInclusive)
		shortfall := fmt.Errorf("the feed announced %d records for %s and returned %d", announced, w.request.Span, w.distinctIDs)
		if times <= 2 {
			return &poller.Replan{Cause: shortfall, HalveSpan: times == 2}
		}
		w.unproven = shortfall.Error()
		w.doubtful = w.work() == live
		s.log.Error("window stays unproven", zap.Error(shortfall), zap.Int("attempts", times))
	}
	if w.unproven == "" && w.facts.items == 0 && s.beyondMemory(w.request.Span) {
		w.unproven = "empty, and older than any record this source ever returned: the feed may not reach back so far"
	}
	return nil
}

// beyondMemory reports whether a span ends before the oldest record ever seen.
func (s *source) beyondMemory(span cdr.Span) bool {
	return s.position.OldestRecord.IsZero() || span.EndExclusive <= s.position.OldestRecord
}

// positionAfter returns the position that a commit of w gives the source. It
// reads only what does not change while w is with the committer.
func (s *source) positionAfter(w *window, before offsets.Position) offsets.Position {
	after := before
	after.Counter = w.counter
	after.Mended = false // this one has its receipt
	after.LastWindow = offsets.WindowSummary{Endpoint: w.request.Endpoint, Purpose: w.purpose}
	if w.purpose != cdr.Start {
		after.LastWindow.Span = w.request.Span
	}
	after.Sweeps, after.Rechecks = w.rounds, w.rechecks
	after.JournalFrom = w.journalFrom
	after.SchemaFingerprint = w.schemaFingerprint
	if after.OrgUUID == "" {
		after.OrgUUID = w.facts.org
	}
	if !w.outcome.LastInitialAt.IsZero() {
		after.LastRequestAt = w.outcome.LastInitialAt
	}
	if first := cdr.Instant(w.facts.reports.EarliestMillis / 1000); w.facts.reports.EarliestMillis <= w.facts.reports.LatestMillis && first > 0 && (after.OldestRecord.IsZero() || first < after.OldestRecord) {
		after.OldestRecord = first
	}
	switch {
	case w.purpose == cdr.Start:
		start := w.request.Commit.EndExclusive
		after.Start, after.FeedPublished, after.FeedSettled = start, start, start // before its start a source has nothing to find
	case w.request.Endpoint == cdr.Stream:
		after.StreamPublished = w.request.Commit.EndExclusive
	default:
		s.advanceFeed(w, &after)
	}
	return after
}

// advanceFeed moves the two watermarks of cdr_feed behind a window that begins
// where they are, or before, whatever it was asked for. What was asked for late
// enough holds what the widest sweep would find; what the feed no longer answers for,
// or does not page beyond, no sweep can find. Of the latter the live edge tells before.
func (s *source) advanceFeed(w *window, after *offsets.Position) {
	read := w.request.Span
	if w.purpose == cdr.Gap {
		after.LastGap = read
	}
	if read.StartInclusive <= after.FeedPublished {
		after.FeedPublished = max(after.FeedPublished, read.EndExclusive)
	}
	began := w.began.Add(w.outcome.Skew - w.outcome.SkewError)
	sweepable := after.FeedSettled
	if w.request.Lookback > 0 {
		sweepable = max(sweepable, cdr.InstantOf(began.Add(forgottenWithin-w.request.Lookback)))
	}
	begins := read.StartInclusive
	if follows := w.request.Follows; !follows.IsZero() && begins <= after.FeedPublished {
		begins = follows
	}
	if late := cdr.InstantOf(began.Add(-s.sweeps.Widest())); begins <= sweepable {
		after.FeedSettled = max(after.FeedSettled, min(read.EndExclusive, late, after.FeedPublished))
	}
}

// forgottenWithin is how far inside the lookback the oldest window may begin: what the
// planner keeps clear of, and the time from its plan to the request.
const forgottenWithin = 2 * time.Minute

// startWindow is the first commit of a new source: it fixes where it begins.
func (s *source) startWindow(layout *producer.Layout, shard int, now time.Time) *window {
	start := s.config.Start.Resolve(s.plan.FeedTime(now), s.plan.Lookback)
	return &window{
		source:  s,
		purpose: cdr.Start,
		counter: 1,
		request: poller.Request{Commit: cdr.Span{EndExclusive: start}, Endpoint: cdr.Feed, Purpose: cdr.Start},
		outcome: poller.Outcome{TotalCount: -1},
		began:   now,
		draft:   producer.NewDraft(layout, shard),
		facts:   facts{reports: offsets.NoReportTimes},
		settled: make(chan verdict, 1),
	}
}

// failed takes in why a window did not come to be: the plan learns from it, and
// what needs a person is shown.
func (s *source) failed(w *window, err error, now time.Time) {
	s.board.Failed(s.name, err)
	if errors.Is(err, cdr.ErrWindowTooLarge) {
		s.learnDensity(w)
	}
	if errors.Is(err, errNoRoom) {
		s.tries[w.work()].leastBytes = 2 * w.bytes()
	}
	var stopped *poller.Stopped
	plan := s.planOf(w.request)
	unknown := plan.LearnFailure(w.request, w.outcome, err, now)
	s.setClock(plan.Clock)
	switch {
	case errors.As(unknown, &stopped):
		if w.request.Endpoint == cdr.Stream && s.config.Endpoint == config.Auto {
			s.leaveStream(stopped, now)
			return
		}
		s.stop(stopped)
	case unknown != nil:
		const pause = time.Minute
		plan.NotBefore = now.Add(pause)
		s.log.Error("window failed", zap.Stringer("span", w.request.Span), zap.Duration("pause", pause), zap.Error(unknown))
		s.enter(status.BackingOff, unknown.Error())
	default:
		s.log.Info("window is planned again", zap.Stringer("span", w.request.Span), zap.Error(err))
		s.enter(status.BackingOff, err.Error())
	}
}

// streamRest is how long cdr_stream is left alone after it refused a source.
const streamRest = time.Hour

// leaveStream goes on with cdr_feed where cdr_stream refuses: if it is the source
// that is refused, cdr_feed will tell.
func (s *source) leaveStream(stopped *poller.Stopped, now time.Time) {
	s.log.Warn("cdr_stream refuses, reading cdr_feed", zap.String("reason", stopped.Message), zap.Duration("for", streamRest))
	s.streaming, s.restUntil = false, now.Add(streamRest)
	s.stream.NotBefore = time.Time{}
	s.enter(status.Waiting, "")
}

// learnDensity takes from a window that outgrew its bytes what its first pages
// tell, so that the next one is as wide as it can be and not just half: at one
// initial request a minute each wrong guess costs a minute.
func (s *source) learnDensity(w *window) {
	if w.facts.items == 0 || w.outcome.TotalCount <= 0 {
		return
	}
	plan := s.planOf(w.request)
	plan.RecordsPerHour = float64(w.outcome.TotalCount) / w.request.Span.Duration().Hours()
	plan.BytesPerRecord = float64(w.bytes()) / float64(w.facts.items)
}

// soonReprobe is how soon a source that stopped must try again by itself for a
// bounded run to wait for that, once.
const soonReprobe = 2 * time.Minute

func (s *source) stop(stopped *poller.Stopped) {
	if stopped.Reprobe == 0 {
		s.halt = status.Stopped
	}
	s.report(func(b *status.Source) {
		b.State, b.Reason, b.Remedy = status.Stopped, stopped.Message, stopped.Remedy
	})
	if s.stops++; stopped.Reprobe == 0 || stopped.Reprobe > soonReprobe || s.stops > 1 {
		s.finish.stopped(s.name, stopped.Error())
	}
	s.log.Error("source stopped", zap.String("reason", stopped.Message), zap.String("remedy", stopped.Remedy), zap.Duration("reprobe", stopped.Reprobe))
}

func (s *source) park(err error) {
	s.board.Failed(s.name, err)
	s.halt = status.Parked
	s.report(func(b *status.Source) {
		b.State, b.Reason, b.Remedy = status.Parked, err.Error(), "mend what the reason names, then restart cdrbus"
	})
	s.finish.stopped(s.name, err.Error())
	s.log.Error("source parked, the others go on", zap.Error(err))
}

func (s *source) refuse(refusal *offsets.Refusal) {
	s.board.Failed(s.name, refusal)
	s.halt = status.Refused
	s.report(func(b *status.Source) {
		b.State, b.Reason, b.Remedy = status.Refused, refusal.Message, refusal.Remedy
	})
	s.finish.stopped(s.name, refusal.Error())
	s.log.Error("source refused", zap.Error(refusal))
}

// announce shows the source on the board, as one whose shard is being taken over.
func (s *source) announce() {
	s.report(func(b *status.Source) {
		b.Credential, b.Endpoint = s.config.Credential, s.plan.Endpoint
		b.MinAgeSeconds, b.Feed.LookbackSeconds = s.plan.MinAge.Seconds(), s.plan.Lookback.Seconds()
	})
}

// forget is for a source that another process serves from here on: what a person
// was asked to mend here is tried again there.
func (s *source) forget() {
	s.halt, s.feed, s.position = "", nil, offsets.Position{}
	s.board.Forget(s.name)
}

// enter shows a state of running, with the reason for a delay.
func (s *source) enter(state status.State, reason string) {
	s.report(func(b *status.Source) { b.State, b.Reason, b.Remedy = state, reason, "" })
}

// showWait shows when the source will be asked next.
func (s *source) showWait(w work, wait *poller.Wait) {
	if w == live {
		s.report(func(b *status.Source) { b.NextRequestAt = wait.Until })
	}
}

func (s *source) report(change func(*status.Source)) { s.board.Update(s.name, change) }

// showPlan shows how far the endpoints are read, and what is planned behind the live
// edge.
func (s *source) showPlan() {
	live := s.live()
	sweeps := make([]status.Sweep, len(s.sweeps.Rounds))
	for i, round := range s.sweeps.Rounds {
		planned := s.sweeps.Sweeps[i]
		sweeps[i] = status.Sweep{
			BackSeconds: planned.Back.Seconds(), EverySeconds: planned.Every.Seconds(),
			BeganAt: round.Began.Time(), DueAt: round.Began.Time().Add(planned.Every),
		}
		if round.Running() {
			sweeps[i].Next, sweeps[i].End = round.Next, round.End
		}
	}
	jobs := make([]status.Job, len(s.errands))
	for i, e := range s.errands {
		jobs[i] = boardJob(&e.state)
		jobs[i].Message = e.ahead.Message // what it waits for
	}
	s.report(func(b *status.Source) {
		b.Endpoint, b.MinAgeSeconds = live.Endpoint, live.MinAge.Seconds()
		b.Feed.Published = s.position.FeedPublished
		b.Stream = status.Edge{}
		if s.streaming {
			b.Stream = status.Edge{Published: s.position.StreamPublished, LookbackSeconds: s.stream.Lookback.Seconds()}
		}
		b.Sweeps, b.Jobs = sweeps, jobs
	})
}

// showToken puts what a person should know of the token on the board, and the
// log tells of a warning when it changes.
func (s *source) showToken() {
	if s.tokenState == nil {
		return
	}
	token := s.tokenState(time.Now())
	s.report(func(b *status.Source) { b.Token = token })
	if token.Warning != "" && token.Warning != s.tokenWarning {
		s.log.Warn("access token", zap.String("warning", token.Warning))
	}
	s.tokenWarning = token.Warning
}

// showBudget lets the board read the request budget, and the token's state, as
// they are when somebody looks.
func (s *source) showBudget(budget *poller.Budget) {
	limits := s.config.Limits
	s.report(func(b *status.Source) {
		b.BudgetNow = func(now time.Time) status.Budget {
			view := budget.View(now)
			return status.Budget{
				InitialPerMinute:   float64(limits.InitialPerMinute),
				InitialAvailableAt: view.NextInitial,
				PagesPerMinute:     float64(limits.PagesPerMinute),
				PagesLeft:          float64(view.PagesLeft),
			}
		}
	})
}

// expectedBytes is what a window will probably take, by what its plan has learned;
// nothing is known of a source's first window.
func (s *source) expectedBytes(request poller.Request) int64 {
	const firstGuess = 1 << 20
	least := s.tries[workOf(request.Purpose)].leastBytes
	plan := s.planOf(request)
	if plan.RecordsPerHour == 0 {
		return max(firstGuess, least)
	}
	return max(int64(1.5*plan.RecordsPerHour*plan.BytesPerRecord*request.Span.Duration().Hours()), least)
}

// horizon is the oldest window end whose IDs a window of these sources may still
// meet. A halted one meets none before its set is rebuilt from the journal.
func horizon(sources []*source) cdr.Instant {
	var oldest cdr.Instant
	for _, s := range sources {
		if s.halted() {
			continue
		}
		if h := s.horizon(); oldest.IsZero() || h < oldest {
			oldest = h
		}
	}
	return oldest
}
