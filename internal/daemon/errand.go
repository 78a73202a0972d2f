package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
)

// errand is a job that its source's lane works off beside the live edge and the
// sweeps: oldest first, in windows that take no more than a minute's pages, so that
// the live edge never waits longer. It belongs to the lane.
type errand struct {
	source *source
	state  offsets.JobState // as of the last definite commit
	ahead  offsets.JobState // with the window in flight
	plan   poller.State
	verify *verification // nil: a backfill
	index  *offsets.JournalIndex

	// What the job needs to know of the topics may take long to read, and much memory to
	// keep: it is read when the job's turn has come, and nothing is asked before.
	prepare   func()             // begins to read
	stop      context.CancelFunc // ends that
	prepared  chan error
	prepareAt time.Time // zero: it is under way, or done
	ready     bool
	failed    string // why the job cannot be done after all
}

// unfitError says that a job cannot be done, however often it is tried.
type unfitError struct{ error }

// newErrand begins a job, or goes on with one, from what is committed of it.
func (l *lane) newErrand(ctx context.Context, s *source, state offsets.JobState) *errand {
	ctx, stop := context.WithCancel(ctx)
	e := &errand{source: s, state: state, ahead: state, prepared: make(chan error, 1), prepareAt: time.Now(), stop: stop}
	e.plan.Policy, e.plan.Clock = s.plan.Policy, s.plan.Clock
	e.plan.MaxWindowRecords = s.sweeps.MaxWindowRecords
	if state.Job.Kind == offsets.Verify {
		e.verify = l.daemon.newVerification(s, &state, time.Now())
		e.ahead.Next = e.verify.span.StartInclusive // what a former owner has not concluded is forgotten
		e.tellFindings()
		e.state = e.ahead
	}
	e.index = l.indexOf(cdr.Span{StartInclusive: e.ahead.Next, EndExclusive: e.end()})
	e.prepare = func() {
		l.beside.Go(func() { e.prepared <- e.read(ctx, l.daemon.reader) })
	}
	return e
}

// read reads what the job needs to know of the topics.
func (e *errand) read(ctx context.Context, reader offsets.Reader) error {
	if e.verify != nil {
		if err := e.verify.load(ctx); err != nil {
			return err
		}
	}
	return e.index.Extend(ctx, reader)
}

// isReady reports whether everything is read that the job needs to know. What could
// not be read is tried again, or fails the job.
func (e *errand) isReady(now time.Time) bool {
	const retryAfter = time.Minute
	select {
	case err := <-e.prepared:
		switch unfit := new(unfitError); {
		case err == nil:
			e.ready = true
			if e.verify != nil {
				e.verify.take()
			}
		case errors.As(err, unfit):
			e.failed = err.Error()
		default:
			e.ahead.Message, e.prepareAt = err.Error(), now.Add(retryAfter)
		}
	default:
	}
	if !e.prepareAt.IsZero() && !now.Before(e.prepareAt) {
		e.prepareAt = time.Time{}
		e.prepare()
	}
	return e.ready
}

// end is where the job is done.
func (e *errand) end() cdr.Instant {
	if e.verify != nil {
		return e.verify.span.EndExclusive
	}
	return e.state.Job.Span.EndExclusive
}

// purpose is that of the job's windows.
func (e *errand) purpose() cdr.Purpose {
	switch {
	case e.verify == nil:
		return cdr.Backfill
	case e.state.Job.Repair:
		return cdr.Repair
	default:
		return cdr.Verify
	}
}

// indexOf returns an empty index of the ID journal for windows of the lane's sources.
func (l *lane) indexOf(span cdr.Span) *offsets.JournalIndex {
	names := make([]cdr.SourceName, len(l.sources))
	for i, s := range l.sources {
		names[i] = s.name
	}
	return offsets.NewJournalIndex(l.daemon.config.Kafka.Topics.IDs, l.shard.index, names, span)
}

// whyReading says that the topics are being read for a job.
const whyReading = "what the topics hold of the job's span"

// decide plans the next window of the job.
func (e *errand) decide(view poller.BudgetView, now time.Time) poller.Decision {
	span := cdr.Span{StartInclusive: max(e.ahead.Next, e.plan.Oldest(now)), EndExclusive: e.end()}
	if e.beyondReach(now) || e.givesUp(now) && e.source.plan.Stale(now) {
		return poller.Decision{Wait: &poller.Wait{Until: now.Add(10 * time.Second), Why: "what the clock of the feed says"}}
	}
	next := e.plan.BeginsAt(span.StartInclusive)
	if e.verify != nil && e.ready && e.verify.wantsPart(next) {
		e.ready, e.prepareAt = false, now
		if e.givesUp(now) && e.ahead.Next == e.state.Next { // nothing is in flight
			e.verify.skip(cdr.Span{StartInclusive: e.ahead.Next, EndExclusive: span.StartInclusive})
			e.verify.conclude(span.StartInclusive)
		}
	}
	if !e.isReady(now) {
		return poller.Decision{Wait: &poller.Wait{Until: now.Add(time.Second), Why: whyReading}}
	}
	if span.StartInclusive < e.end() && next >= e.end() {
		why := whyStuck(e.end()-1) + ", where the span ends"
		if e.ahead.Next == e.state.Next { // nothing is in flight
			e.failed = why
		}
		return poller.Decision{Wait: &poller.Wait{Until: now.Add(time.Second), Why: why}}
	}
	if e.verify != nil {
		span.EndExclusive = e.verify.windowEnd(next)
	}
	if pause := e.source.live().NotBefore; pause.After(e.plan.NotBefore) {
		e.plan.NotBefore = pause
	}
	return e.plan.PlanSpan(span, e.purpose(), view, now)
}

// givesUp reports whether the feed no longer answers for what comes next.
func (e *errand) givesUp(now time.Time) bool {
	return e.ahead.Next < e.end() && e.ahead.Next < e.plan.Oldest(now)
}

// beyondReach reports whether the feed no longer answers for what is left of the job.
func (e *errand) beyondReach(now time.Time) bool {
	end := e.end()
	if e.verify != nil && e.ahead.Next <= e.verify.begunAt {
		end = e.state.Job.Span.EndExclusive // what lies behind it was not asked for
	}
	return e.givesUp(now) && end <= e.plan.Oldest(now)
}

// whyStuck says why a second is left out.
func whyStuck(second cdr.Instant) string {
	return fmt.Sprintf("the feed does not get beyond a page of the second %s", second)
}

// whySkipped says why a request leaves out what lies before it of the job's span; empty:
// that lies beyond it.
func (e *errand) whySkipped(request poller.Request) string {
	var why []string
	job := e.state.Job.Span
	if follows := request.Follows; e.ahead.Next < min(follows, job.EndExclusive) && job.StartInclusive < follows {
		why = append(why, fmt.Sprintf("the feed no longer answers for what lies before %s", follows))
	}
	if last := min(request.Span.StartInclusive, job.EndExclusive) - 1; last >= max(request.Follows, job.StartInclusive) {
		why = append(why, whyStuck(last))
	}
	return strings.Join(why, "; ")
}

// handedOver goes on as if the window were committed, and returns the state that its
// commit writes.
func (e *errand) handedOver(w *window) {
	e.plan.Learn(w.request, w.outcome, w.facts.items, w.bytes())
	e.source.setClock(e.plan.Clock)
	a := &e.ahead
	if skipped := w.request.Span.StartInclusive - a.Next; skipped > 0 {
		if e.verify == nil {
			a.SkippedSeconds += int64(skipped)
		}
		a.Message = cmp.Or(e.whySkipped(w.request), a.Message)
	}
	a.Next = w.request.Span.EndExclusive
	a.Phase = offsets.JobRunning
	if a.Next >= e.end() {
		a.Phase = offsets.JobDone
	}
	if e.verify != nil {
		e.tellFindings()
		a.Findings.Repaired += int64(len(w.repaired))
	}
	a.Windows++
	a.Pages += int64(w.outcome.Pages)
	a.Took += time.Since(w.began)
	a.Items += w.facts.items
	a.Published += w.facts.published
	a.Known += w.facts.known
	a.Revised += w.facts.revised
	a.DeadLetters += w.facts.deadLetters
	a.UpdatedAt = time.Now().UTC()
	w.job = e.ahead
}

// tellFindings lets the state say what the verification has found.
func (e *errand) tellFindings() {
	findings, concluded := e.verify.result(e.ahead.Phase == offsets.JobDone)
	e.ahead.Findings, e.ahead.Concluded = &findings, concluded
	e.ahead.SkippedSeconds = e.verify.skippedSeconds(e.state.Job.Span.EndExclusive)
}

// begin looks for what a job asks. A job that cannot be done ends at once, with the
// reason.
func (l *lane) begin(ctx context.Context, job offsets.Job) error {
	s := l.sourceNamed(job.Source)
	state, known := l.stateOf(job.ID)
	switch {
	case job.Cancel:
		return l.cancel(ctx, s, job.ID)
	case known && state.Phase.Ended(), s.hasErrand(job.ID):
		return nil
	}
	if _, err := l.settle(ctx); err != nil { // the source may be further than it knows
		return err
	}
	if !known {
		job = s.upToEdge(job)
		state = offsets.JobState{Job: job, Phase: offsets.JobAccepted, Next: job.Span.StartInclusive, BeganAt: time.Now().UTC()}
	}
	state.Owner = l.daemon.name()
	if reason := s.unfit(state.Job, time.Now()); reason != "" { // as it was accepted
		state.Phase, state.Message = offsets.JobFailed, reason
	}
	if err := l.shard.noteJob(ctx, &state); err != nil {
		return err
	}
	l.log.Info("job", zap.String("job", job.ID), zap.String("source", string(job.Source)), zap.String("phase", string(state.Phase)), zap.String("reason", state.Message))
	if state.Phase.Ended() {
		l.daemon.jobEnded(&state)
		return nil
	}
	s.errands = append(s.errands, l.newErrand(ctx, s, state))
	return nil
}

// upToEdge ends a job's span where the source itself is, if that is asked for and there
// is something of the span before.
func (s *source) upToEdge(job offsets.Job) offsets.Job {
	if published := s.position.FeedPublished; job.UpToEdge && job.Span.StartInclusive < published {
		job.Span.EndExclusive = min(job.Span.EndExclusive, published)
	}
	return job
}

// unfit tells why a source cannot do a job; empty: it can.
func (s *source) unfit(job offsets.Job, now time.Time) string {
	switch published := s.position.FeedPublished; {
	case s.halted():
		return fmt.Sprintf("source %s waits for a person itself (%s): see cdrbus status", s.name, s.halt)
	case job.Kind != offsets.Backfill && job.Kind != offsets.Verify:
		return fmt.Sprintf("this version does not know jobs of kind %s", job.Kind)
	case job.Span.EndExclusive <= s.plan.Oldest(now) && !s.plan.Stale(now): // else it is found out
		return s.beyondReach()
	case job.Span.EndExclusive > published:
		return fmt.Sprintf("the span ends after %s, where the source itself is: it will come there by itself", published)
	}
	return ""
}

func (s *source) beyondReach() string {
	return fmt.Sprintf("the feed answers %s back, and the span ends before that", s.plan.Lookback)
}

// noteJob commits the state of a job by itself. Where that fails, the shard is lost, and
// the committer tells why: the error is that of ctx.
func (s *shard) noteJob(ctx context.Context, state *offsets.JobState) error {
	state.UpdatedAt = time.Now().UTC()
	record, err := state.Encode()
	if err != nil {
		return err
	}
	if s.hand(newNote(offsets.JobKey(state.Job.ID), record)) != nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// stateOf returns the committed state of a job as the shard's owner found it.
func (l *lane) stateOf(id string) (offsets.JobState, bool) {
	state, err := offsets.DecodeJobState(l.shard.jobStates[id])
	return state, err == nil
}

func (s *source) hasErrand(id string) bool { return s.errandOf(id) != nil }

func (s *source) errandOf(id string) *errand {
	for _, e := range s.errands {
		if e.state.Job.ID == id {
			return e
		}
	}
	return nil
}

// compareClockFor makes sure that the clock is right which says that the feed does not
// answer for what comes next of a job. Where the feed cannot be asked, the job waits, and
// says so.
func (l *lane) compareClockFor(ctx context.Context, e *errand, now time.Time) error {
	s := e.source
	if !s.plan.Stale(now) {
		return nil
	}
	err := s.compareClock(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil || e.ahead.Message == err.Error() || e.ahead.Next != e.state.Next: // a window in flight has a state of its own
		return nil
	}
	l.daemon.board.Failed(s.name, err)
	l.log.Warn("a job waits until the feed tells its time", zap.String("job", e.state.Job.ID), zap.String("source", string(s.name)), zap.Error(err))
	e.ahead.Message = err.Error()
	if err := l.shard.noteJob(ctx, &e.ahead); err != nil {
		return err
	}
	e.state = e.ahead
	return nil
}

// endFailed ends the jobs that cannot be done after all. Where the feed seems to answer
// no longer for what comes next of one, it makes sure that the clock is right.
func (l *lane) endFailed(ctx context.Context) error {
	for _, s := range l.sources {
		for i, e := range s.errands {
			if now := time.Now(); i == 0 && e.failed == "" && e.givesUp(now) && !s.halted() {
				if err := l.compareClockFor(ctx, e, now); err != nil {
					return err
				}
				if e.beyondReach(now) && !s.plan.Stale(now) {
					e.failed = s.beyondReach()
				}
			}
			if e.failed == "" {
				continue
			}
			if _, err := l.settle(ctx); err != nil { // its window in flight still counts
				return err
			}
			if e.state.Phase.Ended() {
				continue
			}
			e.ahead = e.state
			e.ahead.Phase, e.ahead.Message = offsets.JobFailed, e.failed
			if err := l.shard.noteJob(ctx, &e.ahead); err != nil {
				return err
			}
			e.state = e.ahead
			l.daemon.jobEnded(&e.state)
		}
		s.endErrands(l)
	}
	return nil
}

// cancel ends a job before its time.
func (l *lane) cancel(ctx context.Context, s *source, id string) error {
	e := s.errandOf(id)
	if e == nil {
		return nil
	}
	if _, err := l.settle(ctx); err != nil { // its window in flight still counts
		return err
	}
	if e.state.Phase.Ended() {
		return nil
	}
	e.ahead.Phase = offsets.JobCancelled
	if err := l.shard.noteJob(ctx, &e.ahead); err != nil {
		return err
	}
	e.state = e.ahead
	s.endErrands(l)
	l.daemon.jobEnded(&e.state)
	return nil
}

// endErrands drops the jobs that have ended.
func (s *source) endErrands(l *lane) {
	var going []*errand
	for _, e := range s.errands {
		if e.state.Phase.Ended() {
			e.drop()
		} else {
			going = append(going, e)
		}
	}
	if len(going) < len(s.errands) {
		l.seen.Unpin()
	}
	s.errands = going
}

// dropErrands forgets all jobs: a lane that comes later begins them anew.
func (s *source) dropErrands() {
	for _, e := range s.errands {
		e.drop()
	}
	s.errands = nil
}

// drop gives back what the job holds.
func (e *errand) drop() {
	e.stop()
	if e.verify != nil {
		e.verify.held.release()
	}
}

// decideErrand plans the next window of the source's oldest job.
func (s *source) decideErrand(view poller.BudgetView, now time.Time) poller.Decision {
	if len(s.errands) == 0 {
		return poller.Decision{Wait: &poller.Wait{Until: now.Add(time.Hour), Why: "no job"}}
	}
	return s.errands[0].decide(view, now)
}

// pinnedSpan is how much of a job's span is loaded at once.
const pinnedSpan = 24 * time.Hour

// covered makes sure that the set of published IDs holds what a window may return.
// Where it does not reach back so far, it loads that from the ID journal: after the
// window in flight, for its IDs belong there too. If that one left no trace, the lane
// plans anew.
func (l *lane) covered(ctx context.Context, s *source, request poller.Request) (bool, error) {
	if workOf(request.Purpose) == errands && s.errands[0].verify != nil {
		if ok, err := l.caughtUp(ctx, s, request.Span.StartInclusive); !ok {
			return false, err
		}
	}
	if request.Purpose == cdr.Verify || l.seen.Covers(request.Span) {
		return true, nil
	}
	if kept, err := l.settle(ctx); err != nil || !kept {
		return false, err
	}
	index, span := l.indexOf(request.Span), request.Span
	if workOf(request.Purpose) == errands {
		e := s.errands[0]
		index = e.index
		span.EndExclusive = max(span.EndExclusive, min(span.StartInclusive.Add(pinnedSpan), e.end()))
	}
	err := index.Extend(ctx, l.daemon.reader)
	if err == nil {
		err = index.Pin(ctx, l.daemon.reader, l.seen, span)
		l.reportSeen()
	}
	if index.Unreadable > 0 {
		l.log.Warn("the ID journal has records that cannot be read: what they held may be published again", zap.String("source", string(s.name)), zap.Int("records", index.Unreadable))
	}
	if err != nil && ctx.Err() == nil {
		const pause = time.Minute
		s.planOf(request).NotBefore = time.Now().Add(pause)
		l.log.Error("published IDs cannot be loaded", zap.String("source", string(s.name)), zap.Stringer("span", request.Span), zap.Error(err))
		s.report(func(b *status.Source) { b.Reason = err.Error() })
		return false, nil
	}
	return err == nil, err
}

// caughtUp lets a verification know what was published up to now, with nothing of the
// lane in flight, before a window that begins at an instant.
func (l *lane) caughtUp(ctx context.Context, s *source, from cdr.Instant) (bool, error) {
	if kept, err := l.settle(ctx); err != nil || !kept {
		return false, err
	}
	e := s.errands[0]
	if from > e.ahead.Next {
		e.verify.skip(cdr.Span{StartInclusive: e.ahead.Next, EndExclusive: from})
	}
	if err := e.verify.catchUp(ctx, from); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if errors.As(err, new(unfitError)) {
			e.failed = err.Error()
			return false, nil
		}
		const pause = time.Minute
		e.plan.NotBefore = time.Now().Add(pause)
		e.ahead.Message = err.Error()
		l.log.Error("topics cannot be read for a verification", zap.String("job", e.state.Job.ID), zap.Error(err))
		return false, nil
	}
	return true, nil
}

// repaired takes in that a window of a verification is committed.
func (e *errand) repaired(w *window) {
	if e.verify != nil {
		e.verify.repaired(w.repaired)
	}
}

// boardJob is how the board shows a job.
func boardJob(state *offsets.JobState) status.Job {
	job := status.Job{
		ID: state.Job.ID, Kind: string(state.Job.Kind), Phase: status.JobPhase(state.Phase), Span: state.Job.Span, Next: state.Next,
		Items: state.Items, Published: state.Published, Message: state.Message, BeganAt: state.BeganAt, UpdatedAt: state.UpdatedAt,
	}
	if state.Job.Repair {
		job.Kind += " and repair"
	}
	job.Findings = state.Findings.Summary()
	job.Differs = state.Findings != nil && state.Findings.Differ()
	return job
}

// verified takes in a window that was read to be compared only.
func (l *lane) verified(ctx context.Context, w *window) error {
	s := w.source
	e := s.errands[0]
	e.handedOver(w)
	if err := l.shard.noteJob(ctx, &e.ahead); err != nil {
		return err
	}
	e.state = e.ahead
	s.endErrands(l)
	if e.state.Phase.Ended() {
		l.daemon.jobEnded(&e.state)
	}
	return nil
}
