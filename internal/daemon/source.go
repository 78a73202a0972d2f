package daemon

import (
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
	feed       *poller.Feed // nil until the shard is first restored: its budget depends on it
	headers    *headerBuilder
	board      *status.Board
	log        *zap.Logger
	widest     time.Duration // how far back the widest sweep reads

	position     offsets.Position // as of the last definite commit; counter 0: none yet
	plan         poller.State     // runs ahead of position by the window in flight
	servedAt     time.Time        // of the last fetch
	tokenWarning string           // as last told
	stops        int              // times in a row that it needed a person
	shortfalls   int              // times in a row that the feed returned less than it announced
	leastBytes   int64            // that the next window needs, because the last one found no more room; 0: not known
	finish       *finish
	tokenState   func(now time.Time) status.Token // nil: a bare token, of which nothing is known
	halt         status.State                     // why nothing more is asked; empty: it runs
}

// halted reports whether the source waits for a person.
func (s *source) halted() bool { return s.halt != "" }

// planned reports whether everything before until is at least handed over.
func (s *source) planned(until cdr.Instant) bool {
	return !until.IsZero() && s.plan.Published >= until
}

// moreUrgentThan orders two sources that could both be asked now: first what the
// feed is about to forget, then whoever has waited longest.
func (s *source) moreUrgentThan(other *source, now time.Time) bool {
	if mine, theirs := s.agesOut(now), other.agesOut(now); mine != theirs {
		return mine
	}
	return s.servedAt.Before(other.servedAt)
}

// agesOut reports whether the oldest unpublished instant is within the last
// tenth of the feed's lookback.
func (s *source) agesOut(now time.Time) bool {
	age := now.Sub(s.plan.Published.Time())
	return age > s.plan.Lookback-s.plan.Lookback/10
}

// resume takes the position that a restore found, and plans on from it.
func (s *source) resume(position offsets.Position) {
	s.position = position
	s.plan.Published = position.FeedPublished
	if position.LastWindow.Purpose == cdr.Start {
		s.plan.AskFrom = position.FeedPublished // nothing from before its start
	}
	s.halt = ""
	s.shortfalls, s.leastBytes = 0, 0
	s.report(func(b *status.Source) {
		b.State, b.Reason, b.Remedy = status.Waiting, "", ""
		b.Published, b.Settled, b.Counter = position.FeedPublished, position.FeedSettled, position.Counter
		b.Shard = position.Shard
	})
	s.finish.published(s.name, position.FeedPublished)
}

// overtakenBy reports whether a restored position is further than this process
// can have brought it, with the one window whose verdict it may not know: somebody
// else has owned the source meanwhile, and has spent its request budget.
func (s *source) overtakenBy(restored offsets.Position) bool {
	return s.position.Counter > 0 && restored.Counter > s.position.Counter+1
}

// rewind plans again from the last definite commit.
func (s *source) rewind() {
	s.plan.Published = s.position.FeedPublished
	s.enter(status.Waiting, "")
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
	return s.position.FeedPublished.Add(-s.widest - s.plan.Overlap - 24*time.Hour)
}

// handedOver plans on as if the window were committed.
func (s *source) handedOver(w *window) {
	if w.purpose == cdr.Gap {
		s.plan.SkipGap(w.request.Commit)
		return
	}
	s.shortfalls, s.leastBytes = 0, 0
	s.plan.Published = w.request.Commit.EndExclusive
	s.plan.Learn(w.request, w.outcome, w.facts.items, w.bytes())
}

// committed takes over the position of a definite commit.
func (s *source) committed(position offsets.Position) {
	s.position = position
	s.stops = 0
	s.enter(status.Waiting, "")
	s.showToken()
	s.finish.published(s.name, position.FeedPublished)
}

// judge decides whether a completely read window counts, and as what. A feed
// that returned fewer records than it announced is asked again, at most twice,
// the second time over half the span.
func (s *source) judge(w *window) error {
	w.unproven = w.outcome.Unproven
	w.distinctIDs = w.distinct()
	if announced := w.outcome.TotalCount; announced > w.distinctIDs {
		s.shortfalls++
		shortfall := fmt.Errorf("the feed announced %d records for %s and returned %d", announced, w.request.Span, w.distinctIDs)
		if s.shortfalls <= 2 {
			return &poller.Replan{Cause: shortfall, HalveSpan: s.shortfalls == 2}
		}
		w.unproven = shortfall.Error()
		s.log.Error("window stays unproven", zap.Error(shortfall), zap.Int("attempts", s.shortfalls))
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
	after.LastWindow = offsets.WindowSummary{Endpoint: w.request.Endpoint, Purpose: w.purpose}
	if w.purpose != cdr.Start {
		after.LastWindow.Span = w.request.Commit
	}
	after.FeedPublished = w.request.Commit.EndExclusive
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
	if w.purpose == cdr.Gap {
		after.LastGap = w.request.Commit
	}
	// Asked for late enough, a window holds what the widest sweep would find; and
	// before its start a source has nothing to find.
	if w.purpose == cdr.Start || before.FeedSettled == before.FeedPublished && w.began.After(after.FeedPublished.Time().Add(s.widest)) {
		after.FeedSettled = after.FeedPublished
	}
	return after
}

// startWindow is the first commit of a new source: it fixes where it begins.
func (s *source) startWindow(layout *producer.Layout, shard int, now time.Time) *window {
	start := s.config.Start.Resolve(now, s.plan.Lookback)
	return &window{
		source:  s,
		purpose: cdr.Start,
		counter: 1,
		request: poller.Request{Commit: cdr.Span{EndExclusive: start}, Endpoint: s.plan.Endpoint, Purpose: cdr.Start},
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
		s.leastBytes = 2 * w.bytes()
	}
	var stopped *poller.Stopped
	switch unknown := s.plan.LearnFailure(w.request, w.outcome, err, now); {
	case errors.As(unknown, &stopped):
		s.stop(stopped)
	case unknown != nil:
		const pause = time.Minute
		s.plan.NotBefore = now.Add(pause)
		s.log.Error("window failed", zap.Stringer("span", w.request.Span), zap.Duration("pause", pause), zap.Error(unknown))
		s.enter(status.BackingOff, unknown.Error())
	default:
		s.log.Info("window is planned again", zap.Stringer("span", w.request.Span), zap.Error(err))
		s.enter(status.BackingOff, err.Error())
	}
}

// learnDensity takes from a window that outgrew its bytes what its first pages
// tell, so that the next one is as wide as it can be and not just half: at one
// initial request a minute each wrong guess costs a minute.
func (s *source) learnDensity(w *window) {
	if w.facts.items == 0 || w.outcome.TotalCount <= 0 {
		return
	}
	s.plan.RecordsPerHour = float64(w.outcome.TotalCount) / w.request.Span.Duration().Hours()
	s.plan.BytesPerRecord = float64(w.bytes()) / float64(w.facts.items)
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
		b.MinAgeSeconds, b.LookbackSeconds = s.plan.MinAge.Seconds(), s.plan.Lookback.Seconds()
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

func (s *source) report(change func(*status.Source)) { s.board.Update(s.name, change) }

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

// expectedBytes is what a window over span will probably take, by what the plan
// has learned; nothing is known of a source's first window.
func (s *source) expectedBytes(span cdr.Span) int64 {
	const firstGuess = 1 << 20
	if s.plan.RecordsPerHour == 0 {
		return max(firstGuess, s.leastBytes)
	}
	return max(int64(1.5*s.plan.RecordsPerHour*s.plan.BytesPerRecord*span.Duration().Hours()), s.leastBytes)
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
