package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/producer"
)

// lane fetches the windows of the sources that share a credential, one at a
// time: they share its request budget, so there is nothing to gain from more,
// and the set of published IDs has one owner, the lane's goroutine.
//
// It runs one window ahead of the commit: while a window commits, the next one
// is fetched and encoded against its pending IDs. If the first leaves no trace,
// the second is thrown away with it.
type lane struct {
	daemon  *Daemon
	shard   *shard
	sources []*source
	budget  *poller.Budget
	seen    *offsets.Seen
	turns   turns
	jobs    chan offsets.Job // of its sources, from the shard
	beside  sync.WaitGroup   // readers of the ID journal; they end with the lane
	log     *zap.Logger

	name               string
	seenIDs, seenBytes uint64   // as last reported
	held               *holding // the set of published IDs
	inFlight           *window  // handed to the committer, verdict pending; or nil
}

// run fetches windows until ctx ends.
func (l *lane) run(ctx context.Context) error {
	defer l.daemon.board.Ended(l.name)
	defer l.beside.Wait()
	for {
		choice, err := l.choose(ctx)
		if err != nil {
			return err
		}
		w, err := l.prepare(ctx, choice)
		if err != nil {
			return err
		}
		if w == nil {
			continue
		}
		// One window at a time is with the committer. If the one before left no
		// trace, its loss took this one's IDs along.
		kept, err := l.settle(ctx)
		if err != nil || !kept {
			w.release() // the memory budget outlives the lane
		}
		if err != nil {
			return err
		}
		if !kept {
			continue
		}
		if err := l.handOver(ctx, w); err != nil {
			return err
		}
	}
}

// requestPatience is how long a lane may be at one request before the process
// counts as stuck: the feed may ask for up to a quarter of an hour.
const requestPatience = 20 * time.Minute

// choice is what a lane does next: a window to fetch, or a gap to record.
type choice struct {
	source  *source
	request *poller.Request
	gap     *cdr.Span
}

// choose waits until some source has something to do and returns the most urgent.
func (l *lane) choose(ctx context.Context) (choice, error) {
	for {
		if err := l.takeJobs(ctx); err != nil {
			return choice{}, err
		}
		if err := l.endFailed(ctx); err != nil {
			return choice{}, err
		}
		now := time.Now()
		ready, wakeAt := l.ready(now)
		best := l.turns.next(ready, now)
		if sure, err := l.sureOfTime(ctx, best, now); err != nil {
			return choice{}, err
		} else if !sure {
			continue
		}
		if best.source != nil {
			return best, nil
		}
		l.daemon.board.Progress(l.name, wakeAt.Sub(now)+time.Minute)
		if err := l.sleep(ctx, wakeAt.Sub(now)); err != nil {
			return choice{}, err
		}
	}
}

// ready finds of each kind of work what is most urgent, and when there may be more.
func (l *lane) ready(now time.Time) (ready [works]choice, wakeAt time.Time) {
	view := l.budget.View(now)
	wakeAt = now.Add(time.Minute)
	for _, s := range l.sources {
		if s.halted() || s.planned(l.daemon.until) {
			continue
		}
		for i, decide := range [works]func(poller.BudgetView, time.Time) poller.Decision{live: s.decide, sweep: s.decideSweep, errands: s.decideErrand} {
			kind, best := work(i), &ready[i]
			if l.daemon.only != nil && kind != errands {
				continue
			}
			decision := decide(view, now)
			if decision.Wait != nil {
				s.showWait(kind, decision.Wait)
				wakeAt = earlier(wakeAt, decision.Wait.Until)
				continue
			}
			if best.source == nil || s.moreUrgentThan(best.source, kind, now) {
				*best = choice{s, decision.Request, decision.Gap}
			}
		}
	}
	return ready, wakeAt
}

// sleep waits for a duration, or less long if the window in flight is settled.
func (l *lane) sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(max(wait, time.Millisecond))
	defer timer.Stop()
	var settled <-chan verdict
	if l.inFlight != nil {
		settled = l.inFlight.settled
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case job := <-l.jobs:
		return l.begin(ctx, job)
	case v := <-settled:
		l.resolve(v)
	}
	return nil
}

// takeJobs begins what has come in, without waiting for it.
func (l *lane) takeJobs(ctx context.Context) error {
	for {
		select {
		case job := <-l.jobs:
			if err := l.begin(ctx, job); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (l *lane) sourceNamed(name cdr.SourceName) *source {
	for _, s := range l.sources {
		if s.name == name {
			return s
		}
	}
	return nil
}

// settle waits for the window in flight, if there is one, and reports whether
// windows that were encoded after it may be kept.
func (l *lane) settle(ctx context.Context) (kept bool, err error) {
	if l.inFlight == nil {
		return true, nil
	}
	l.daemon.board.Progress(l.name, commitPatience)
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case v := <-l.inFlight.settled:
		return l.resolve(v), nil
	}
}

// resolve applies a verdict to the set of IDs and to the source.
func (l *lane) resolve(v verdict) (kept bool) {
	w := l.inFlight
	l.inFlight = nil
	defer w.release()
	if v.err != nil {
		w.pending.Discard()
		w.source.rewind(time.Now())
		if errors.Is(v.err, cdr.ErrWindowTooLarge) {
			w.source.failed(w, v.err, time.Now())
		} else {
			w.source.park(v.err)
		}
		return false
	}
	w.pending.Adopt(v.journalOffset)
	w.source.committed(v.position)
	if w.work() == errands {
		w.source.errands[0].repaired(w)
		w.source.errands[0].state = w.job
		w.source.endErrands(l)
		if w.job.Phase.Ended() {
			l.daemon.jobEnded(&w.job)
		}
	}
	l.seen.EvictBefore(horizon(l.sources))
	l.shrinkSeen()
	l.reportSeen()
	return true
}

// shrinkSeen keeps the sets of all lanes within what they may take together, each by
// its share. What the live edge meets stays in any case.
func (l *lane) shrinkSeen() {
	limit, all := int64(l.daemon.config.Memory.MaxIDBytes), l.daemon.seenBytes.Load()
	if all <= limit {
		return
	}
	latest := cdr.InstantOf(time.Now())
	for _, s := range l.sources {
		if !s.halted() {
			latest = min(latest, s.position.FeedPublished.Add(-s.plan.Overlap-time.Hour))
		}
	}
	if before := l.seen.Reach(); !l.seen.Shrink(int64(float64(l.seen.Bytes())*float64(limit)/float64(all)), latest) || l.seen.Reach() > before {
		l.log.Warn("too many Report IDs to keep: sweeps of older spans load them from the journal, which takes longer; raise memory.max_id_bytes",
			zap.Stringer("kept_from", l.seen.Reach()), zap.Int64("bytes", l.seen.Bytes()))
	}
}

// reportSeen adds this lane's set of IDs to what the board says of the shard.
func (l *lane) reportSeen() {
	ids, bytes := uint64(l.seen.Len()), uint64(l.seen.Bytes())
	l.daemon.board.UpdateShard(l.shard.index, func(b *status.Shard) {
		b.SeenIDs += ids - l.seenIDs
		b.SeenBytes += bytes - l.seenBytes
	})
	l.daemon.seenBytes.Add(int64(bytes - l.seenBytes))
	l.held.set(roomFor(l.seen.Bytes()))
	l.seenIDs, l.seenBytes = ids, bytes
}

// roomFor is what a set of published IDs is given: it grows between two reports, and its
// blocks leave gaps where they move.
func roomFor(seenBytes int64) int64 { return seenBytes + seenBytes/4 }

// prepare fetches what was chosen. A nil window without an error means that
// nothing came of it and the lane plans anew.
func (l *lane) prepare(ctx context.Context, c choice) (*window, error) {
	if c.gap != nil {
		return l.gapWindow(c.source, *c.gap), nil
	}
	request := l.trimmed(c)
	share, err := l.reserve(ctx, c.source.expectedBytes(request))
	if err != nil || share == nil {
		return nil, err
	}
	if ok, err := l.covered(ctx, c.source, request); !ok {
		share.release()
		return nil, err
	}
	w := l.newWindow(c.source, request, share)
	if err := l.fetch(ctx, w); err != nil {
		if ctx.Err() == nil {
			c.source.failed(w, err, time.Now())
		} else {
			c.source.planOf(request).LearnInterrupted(w.outcome)
		}
		w.discard()
		return nil, ctx.Err()
	}
	if request.Purpose == cdr.Verify {
		defer w.discard()
		return nil, l.verified(ctx, w)
	}
	return w, nil
}

// fetch reads a window's pages, and judges whether it counts.
func (l *lane) fetch(ctx context.Context, w *window) (err error) {
	l.daemon.board.Progress(l.name, requestPatience)
	w.source.enter(status.Fetching, "")
	sink := poller.PageSink(w)
	if w.purpose == cdr.Verify {
		sink = comparison{w}
	}
	w.outcome, err = w.source.feed.Fetch(ctx, w.request, sink)
	w.source.tries[w.work()].servedAt = time.Now()
	if err == nil && w.purpose != cdr.Verify {
		err = w.source.judge(w)
	}
	return err
}

// reserve takes memory for a window. A lane that has to wait for it waits first
// for its own window in flight: else lanes could hold what each other wait for. If
// that one left no trace, what was chosen may begin behind records that are not
// published; then there is no share, and the lane plans anew.
func (l *lane) reserve(ctx context.Context, expectedBytes int64) (*share, error) {
	if share := l.daemon.memory.tryReserve(expectedBytes); share != nil {
		return share, nil
	}
	if kept, err := l.settle(ctx); err != nil || !kept {
		return nil, err
	}
	l.daemon.board.Ended(l.name) // a long wait is no fault: who holds the memory is watched
	return l.daemon.memory.reserve(ctx, expectedBytes)
}

// trimmed cuts a request at the instant the daemon was asked to run to.
func (l *lane) trimmed(c choice) poller.Request {
	request := *c.request
	if until := l.daemon.until; !until.IsZero() && request.Commit.EndExclusive > until { // of a sweep there is none
		request.Commit.EndExclusive = until
		request.Span.EndExclusive = until
	}
	return request
}

func (l *lane) newWindow(s *source, request poller.Request, share *share) *window {
	counter := s.nextCounter(l.inFlight)
	w := &window{
		source:            s,
		purpose:           request.Purpose,
		counter:           counter,
		request:           request,
		began:             time.Now(),
		draft:             producer.NewDraft(l.daemon.layout, l.shard.index),
		facts:             facts{reports: offsets.NoReportTimes},
		schemaFingerprint: l.daemon.fingerprint,
		share:             share,
		headers:           s.headers,
		encoders:          l.daemon.encoders,
		settled:           make(chan verdict, 1),
	}
	if w.work() == errands {
		w.verify, w.repaired = s.errands[0].verify, map[cdr.ReportID]bool{}
	}
	if request.Purpose != cdr.Verify {
		w.pending = l.seen.Begin(offsets.Window{
			ID:                cdr.WindowID{Source: s.name, Counter: counter},
			Span:              request.Span,
			SchemaFingerprint: l.daemon.fingerprint,
			ByInsertion:       request.Endpoint == cdr.Stream,
			AsOf:              s.asOf(request),
		})
	}
	return w
}

// gapWindow commits, without a request, that the feed does not return a span: it no
// longer reaches back so far, or it does not page on.
func (l *lane) gapWindow(s *source, gap cdr.Span) *window {
	why := "older than the feed answers"
	if gap.StartInclusive >= s.plan.Oldest(time.Now()) {
		why = whyStuck(gap.StartInclusive)
	}
	l.log.Error("records are lost: "+why, zap.String("source", string(s.name)), zap.Stringer("gap", gap), zap.Duration("lookback", s.plan.Lookback))
	w := l.newWindow(s, poller.Request{Span: gap, Commit: gap, Endpoint: cdr.Feed, Purpose: cdr.Gap}, nil)
	w.outcome.TotalCount = -1
	w.unproven = "gap: " + why
	return w
}

// handOver gives a window to the committer. From here on the plan goes on as if
// it were committed; resolve rewinds it if not.
func (l *lane) handOver(ctx context.Context, w *window) error {
	w.journalFrom = l.seen.JournalFrom()
	w.journal = w.pending.AppendJournal(nil, w.facts.reports)
	w.source.handedOver(w)
	l.inFlight = w
	select {
	case <-ctx.Done():
		return ctx.Err()
	case l.shard.ready <- w:
		return nil
	}
}

// abandon gives back what the lane holds when its shard is lost or the daemon
// ends. No verdict is to be expected any more, and jobs are begun anew from what is
// committed of them by whoever owns the shard next.
func (l *lane) abandon() {
	if l.inFlight != nil {
		l.inFlight.release()
	}
	l.daemon.board.UpdateShard(l.shard.index, func(b *status.Shard) {
		b.SeenIDs -= l.seenIDs
		b.SeenBytes -= l.seenBytes
	})
	l.daemon.seenBytes.Add(-int64(l.seenBytes))
	l.held.release()
	for _, s := range l.sources {
		s.dropErrands()
	}
}
