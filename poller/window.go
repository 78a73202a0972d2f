package poller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
)

const (
	// patience is how long one page is tried for before the lane is given back.
	// Waits that the feed demands and those for the budget are not counted.
	patience = 2 * time.Minute
	// maxBackoff is the longest wait between two tries, and the first wait after
	// patience ended.
	maxBackoff = time.Minute
	// maxThrottles is how often in a row the feed may put one page off.
	maxThrottles = 5
	// maxTimeouts is how often a page may time out before it is made smaller,
	// where that costs the window.
	maxTimeouts = 2
	// clockMargin is what the local clock is trusted less than the server's Date.
	clockMargin = 30 * time.Second
	// agedOutMargin is how near to the lookback a refused start counts as aged out.
	agedOutMargin = time.Hour
)

// step is what became of an answer.
type step uint8

const (
	again  step = iota // ask for the same page
	turned             // the page was read, and there is another
	ended              // the page was read, and it was the last
)

// window is one Fetch under way.
type window struct {
	feed   *Feed
	asked  Request
	sink   PageSink
	log    *zap.Logger
	buffer *pageBuffer

	out      Outcome
	pageSize int
	page     int      // the one in hand, the first being 0
	next     *url.URL // of the page in hand; nil for the first
	seen     map[string]bool
	trouble  trouble

	refusedLarge bool // the large page size got a 400, and the small one is being tried
}

// trouble is what went wrong with the page in hand.
type trouble struct {
	spent     time.Duration // of the patience
	failures  int
	throttles int
	timeouts  int
	repeats   int
	startOver bool   // a 410 was met once
	renewed   bool   // the token
	rejected  string // the token before it
}

func (f *Feed) newWindow(request Request, sink PageSink) *window {
	size := f.knowledge().pageSize
	if request.PageSize > 0 {
		size = min(size, request.PageSize)
	}
	return &window{
		feed:     f,
		asked:    request,
		sink:     sink,
		log:      f.log.With(zap.String("source", string(f.source)), zap.Stringer("span", request.Span)),
		buffer:   pageBuffers.take(),
		out:      Outcome{TotalCount: -1},
		pageSize: size,
		seen:     map[string]bool{},
	}
}

func (w *window) close() {
	pageBuffers.give(w.buffer)
	w.buffer = nil
}

func (w *window) outcome() Outcome {
	w.out.PageSize = w.pageSize
	return w.out
}

func (w *window) bucket() Bucket {
	if w.page == 0 {
		return Initial
	}
	return Pages
}

// turn reads the page in hand, however often it has to be asked for.
func (w *window) turn(ctx context.Context) (step, error) {
	for {
		began := time.Now()
		waited := w.out.Waited
		ans, err := w.ask(ctx)
		w.trouble.spent += time.Since(began) - (w.out.Waited - waited)
		result := again
		if err != nil {
			err = w.noAnswer(ctx, err)
		} else {
			result, err = w.treat(ctx, ans)
		}
		if err != nil || result != again {
			return result, err
		}
	}
}

// ask spends a request on the page in hand.
func (w *window) ask(ctx context.Context) (*answer, error) {
	bucket := w.bucket()
	began := time.Now()
	if err := w.feed.budget.Wait(ctx, bucket); err != nil {
		return nil, err
	}
	w.out.Waited += time.Since(began)
	token, err := w.feed.tokens.Token(ctx)
	if err != nil {
		w.feed.budget.Unused(bucket)
		return nil, fmt.Errorf("get token of source %s: %w", w.feed.source, err)
	}
	target := w.next
	if target == nil {
		target = w.feed.firstURL(w.asked, w.pageSize)
	}

	now := time.Now()
	w.out.Requests++
	w.out.Host = target.Hostname()
	w.out.LastRequestAt = now
	if w.out.FirstRequestAt.IsZero() {
		w.out.FirstRequestAt = now
	}
	ans, err := w.feed.get(ctx, target, token, bucket, w.buffer)
	answeredAt := time.Now()
	if err == nil {
		answeredAt = ans.headerAt
		if skew, dated := SkewOf(ans.header, ans.sentAt, ans.headerAt); dated {
			w.out.Skew, w.out.SkewError = skew, ans.headerAt.Sub(ans.sentAt)/2
		}
	}
	if bucket == Initial {
		w.out.LastInitialAt = answeredAt
	}
	return ans, err
}

// noAnswer treats what ended a request before there was a status.
func (w *window) noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var stopped *Stopped
	var later *RetryLater
	if errors.As(err, &stopped) || errors.As(err, &later) {
		return err
	}
	if errors.Is(err, errNoHeader) || errors.Is(err, errTooSlow) {
		return w.shrink(ctx, err, false)
	}
	return w.backOff(ctx, err)
}

// treat does what the table says about an answer.
func (w *window) treat(ctx context.Context, ans *answer) (step, error) {
	how := treatmentOf(ans.status)
	if how.needsBody && ans.bodyErr != nil {
		if errors.Is(ans.bodyErr, errPageTooLarge) {
			return again, w.shrink(ctx, ans.failure("", ans.bodyErr), true)
		}
		return again, w.noAnswer(ctx, ans.failure("", ans.bodyErr))
	}
	switch how.action {
	case readPage:
		return w.readPage(ctx, ans)
	case endEmpty:
		return w.endEmpty(ans, fmt.Sprintf("the feed answered %d without a body", ans.status))
	case judgeNotFound:
		return w.notFound(ans, how)
	case judgeRequest:
		return again, w.badRequest(ans)
	case renewToken:
		return again, w.unauthorized(ctx, ans, how)
	case obeyThrottle:
		return again, w.throttled(ctx, ans, how)
	case changeRegion:
		return again, w.otherRegion(ans)
	case backOff:
		return again, w.serverFault(ctx, ans)
	case shrink:
		return again, w.shrink(ctx, ans.failure("", nil), false)
	case repeat:
		return again, w.repeatSome(ctx, ans, how)
	case startOver:
		return again, w.gone(ctx, ans, how)
	}
	return again, ans.stopped(how)
}

// readPage checks a page, hands it to the sink and finds the next.
func (w *window) readPage(ctx context.Context, ans *answer) (step, error) {
	if !looksLikePage(ans.body) {
		message := quoteMessage(collapse(ans.body), ans.token)
		return again, w.backOff(ctx, ans.failure(message, fmt.Errorf("%w: not a JSON object", cdr.ErrMalformedPage)))
	}
	if young := w.tooYoung(ans); young != nil {
		return again, young
	}
	next, last, err := w.findNext(ans)
	if errors.Is(err, errBadLink) {
		return again, w.backOff(ctx, ans.failure("", err))
	}
	if err != nil {
		return again, err
	}
	err = w.sink.Page(ctx, w.page, ans.body)
	if errors.Is(err, cdr.ErrMalformedPage) && ctx.Err() == nil {
		return again, w.backOff(ctx, ans.failure("", err))
	}
	if err != nil {
		return again, err
	}
	w.accepted(ans, next)
	if last {
		return ended, nil
	}
	return turned, nil
}

// accepted moves on to the next page.
func (w *window) accepted(ans *answer, next *url.URL) {
	if w.page == 0 {
		if next != nil {
			w.out.TotalCount = totalCountOf(next)
		}
		w.learnPageSize()
	}
	w.out.Pages++
	w.out.Bytes += int64(len(ans.body))
	w.recovered()
	w.page++
	w.next = next
}

// recovered closes what was opened by noteFailure.
func (w *window) recovered() {
	if w.trouble.failures > 0 {
		w.log.Info("the feed answers again", zap.Int("failures", w.trouble.failures), zap.Int("page", w.page))
	}
	w.trouble = trouble{}
}

// learnPageSize remembers which page sizes the feed takes.
func (w *window) learnPageSize() {
	w.feed.learn(func(l *learned) {
		if w.refusedLarge {
			l.pageSize = w.pageSize
		} else if w.pageSize > SmallestPageSize {
			l.largeAllowed = true
		}
	})
}

// errNoDate marks a wait that the local clock imposed.
var errNoDate = errors.New("no Date came with the page, so the local clock decides")

// maxYoungWait is how long a span that is too young is left alone at most. If it is by
// more, the clocks differ: now that this is known, a span is planned by the feed's.
const maxYoungWait = time.Minute

// tooYoung holds the rule that a window counts only if the server's clock, when
// it answered the first page, was a minimum age beyond the window's end. It
// returns nil if so.
func (w *window) tooYoung(ans *answer) *RetryLater {
	if w.page > 0 {
		return nil
	}
	oldEnoughAt := w.asked.Span.EndExclusive.Time().Add(w.asked.MinAge)
	date, err := http.ParseTime(ans.header.Get("Date"))
	if err == nil {
		w.out.ServerDate = date
	} else {
		date, err = time.Now(), errNoDate
		oldEnoughAt = oldEnoughAt.Add(clockMargin)
	}
	short := oldEnoughAt.Sub(date)
	if short <= 0 {
		return nil
	}
	cause := fmt.Errorf("check age of span %s: at %s it is %s short of old enough to be complete", w.asked.Span, date.UTC().Format(time.RFC3339), short)
	if err != nil {
		cause = fmt.Errorf("%w; %w", cause, err)
	}
	return &RetryLater{After: min(short+time.Second, maxYoungWait), Cause: cause}
}

// findNext returns the URL of the next page, or says that this is the last.
func (w *window) findNext(ans *answer) (next *url.URL, last bool, err error) {
	target, err := nextTarget(ans.header)
	if err != nil {
		return nil, false, err
	}
	if target == "" {
		return nil, true, nil
	}
	next, err = resolveNext(ans.asked, target)
	var foreign *foreignLink
	if errors.As(err, &foreign) {
		return nil, false, &Stopped{
			Code:    ans.status,
			Message: foreign.Error() + " (TrackingID " + ans.trackingID + ")",
			Remedy:  "if that is the feed's right address set url to it; else report it to Webex: the token was not sent there",
			Reprobe: reprobeInterval,
		}
	}
	if err != nil {
		return nil, false, err
	}
	return w.checkProgress(ans, next)
}

// checkProgress refuses a link that would read the same pages for ever.
func (w *window) checkProgress(ans *answer, next *url.URL) (*url.URL, bool, error) {
	identity := linkIdentity(next)
	switch {
	case w.page > 0 && identity == linkIdentity(ans.asked):
		at := cursorOf(next)
		if at >= w.asked.Span.EndExclusive {
			// Everything before the cursor has been read, and the span ends before it.
			w.out.Unproven = "the page cursor stopped moving at the end of the span"
			return nil, true, nil
		}
		return nil, false, &Replan{Cause: &CursorStuck{At: at, PageSize: w.pageSize}}
	case w.seen[identity]:
		return nil, false, &Replan{Cause: fmt.Errorf("follow next link of page %d: it was met before in this window", w.page)}
	case w.page+1 >= w.feed.maxPages:
		return nil, false, &Replan{Cause: fmt.Errorf("follow next link of page %d: a window has no more than %d pages", w.page, w.feed.maxPages), HalveSpan: true}
	}
	w.seen[identity] = true
	return next, false, nil
}

// endEmpty ends the window with an answer that holds no page.
func (w *window) endEmpty(ans *answer, unproven string) (step, error) {
	if young := w.tooYoung(ans); young != nil {
		return again, young
	}
	if w.page == 0 {
		w.learnPageSize()
	}
	w.out.Unproven = unproven
	w.recovered()
	return ended, nil
}

// notFound tells an empty window from a wrong URL.
func (w *window) notFound(ans *answer, how treatment) (step, error) {
	switch {
	case !parseErrorBody(ans.body).saysNoRecords() && w.page > 0:
		return again, &Replan{Cause: ans.failure("", nil)}
	case !parseErrorBody(ans.body).saysNoRecords():
		return again, ans.stopped(how)
	case w.page > 0 && w.out.TotalCount < 0:
		return w.endEmpty(ans, "the feed had announced another page and then no records for it, and no total count to check against")
	case w.page == 0:
		w.out.TotalCount = 0
	}
	return w.endEmpty(ans, "")
}

// badRequest finds out what a 400 is about: a link gone stale, the page size, the
// clock, the age, or something for a person.
func (w *window) badRequest(ans *answer) error {
	cause := ans.failure("", nil)
	if w.page > 0 {
		return &Replan{Cause: cause}
	}
	if young := w.tooYoung(ans); young != nil {
		return &RetryLater{After: young.After, Cause: fmt.Errorf("%w; %w", cause, young.Cause)}
	}
	if w.pageSize > SmallestPageSize && !w.feed.fixedSize && !w.feed.knowledge().largeAllowed {
		w.log.Info("the feed refuses the request; trying the smaller page size", zap.Int("page_size", w.pageSize), zap.Error(cause))
		w.pageSize, w.refusedLarge = SmallestPageSize, true
		return nil
	}
	now := w.out.ServerDate
	if now.IsZero() {
		now = time.Now()
	}
	age := now.Sub(w.asked.Span.StartInclusive.Time())
	if w.asked.Lookback > 0 && age > w.asked.Lookback-agedOutMargin {
		return &AgedOut{Start: w.asked.Span.StartInclusive, Age: age, Cause: cause}
	}
	return &Stopped{
		Code:    ans.status,
		Message: cause.Error(),
		Remedy: fmt.Sprintf("the span of %s begins %s ago and its pages hold %d: check lookback, max_window, page_size and locations against the message, and the clock (the server's is %s ahead)",
			w.asked.Span.Duration(), age.Round(time.Second), w.pageSize, w.out.Skew.Round(time.Second)),
		Reprobe: reprobeInterval,
	}
}

// unauthorized gets another token, once.
func (w *window) unauthorized(ctx context.Context, ans *answer, how treatment) error {
	// A bare token may be handed out a second time, and only its second rejection
	// counts. A fresh one that is rejected too is not the token's fault.
	if w.trouble.renewed && ans.token.AccessToken != w.trouble.rejected {
		return ans.stopped(how)
	}
	w.trouble.renewed, w.trouble.rejected = true, ans.token.AccessToken
	if err := w.feed.tokens.Rejected(ctx, ans.token); err != nil {
		return w.noAnswer(ctx, fmt.Errorf("renew token of source %s: %w", w.feed.source, err))
	}
	return nil
}

// throttled waits as the feed demands, up to a cap, and asks the same URL again.
func (w *window) throttled(ctx context.Context, ans *answer, how treatment) error {
	now := time.Now()
	demand, told := retryAfter(ans.header, now)
	if !told {
		demand = defaultRetryAfter
	}
	wait := min(w.jittered(max(demand, time.Second), 0.1), maxRetryAfter)
	cause := ans.failure("", nil)
	if demand > maxRetryAfter {
		w.log.Warn("the feed demands a longer wait than cdrbus keeps at a stretch", zap.Duration("demand", demand), zap.Duration("wait", wait), zap.Error(cause))
	}
	if how.drains {
		w.feed.budget.Drain(now.Add(wait))
	}
	w.out.NotBefore = now.Add(wait)
	w.trouble.throttles++
	w.noteFailure(cause, wait)
	if w.trouble.throttles >= maxThrottles || w.page == 0 && wait > patience {
		return &RetryLater{After: wait, Cause: cause}
	}
	return w.sleep(ctx, wait)
}

// otherRegion goes to the host that the answer names, if it is on the list, the
// only one, and the first.
func (w *window) otherRegion(ans *answer) error {
	named := regionsNamed(ans.body, ans.asked.Hostname())
	stopped := &Stopped{Code: ans.status, Message: ans.failure("", nil).Error()}
	switch {
	case len(named) == 0:
		stopped.Remedy = "the records are kept in another region, but the answer names no host of Webex Calling's: set url to that of the organisation's region"
	case len(named) > 1:
		stopped.Remedy = "the records are kept in another region: set url to the right one of https://" + strings.Join(named, ", https://")
	case w.feed.strictRegion:
		stopped.Remedy = "the records are kept in another region: if they may be fetched from there, set url to https://" + named[0] + ans.asked.Path
	case w.feed.knowledge().region != "":
		stopped.Remedy = "the region was changed once already, and now the answer names https://" + named[0] + ": set url to the right one"
	default:
		w.feed.learn(func(l *learned) { l.region = named[0] })
		w.log.Warn("the records are kept in another region: asking there from now on; set url to this host to avoid the detour",
			zap.String("asked", ans.asked.Hostname()), zap.String("host", named[0]), zap.String("tracking_id", ans.trackingID))
		if w.page > 0 {
			return &Replan{Cause: ans.failure("", nil)}
		}
		return nil
	}
	return stopped
}

// serverFault backs off, or waits as a 503 asks for.
func (w *window) serverFault(ctx context.Context, ans *answer) error {
	cause := ans.failure("", nil)
	if demand, told := retryAfter(ans.header, time.Now()); told {
		wait := min(w.jittered(max(demand, time.Second), 0.1), maxRetryAfter)
		w.out.NotBefore = time.Now().Add(wait)
		return w.pause(ctx, wait, cause)
	}
	return w.backOff(ctx, cause)
}

// shrink treats an answer that was too much for the feed or for us: a smaller
// page, down to the smallest, then a shorter span. Where that costs the window,
// a timeout gets some tries first; a page that is too large never helps itself.
func (w *window) shrink(ctx context.Context, cause error, certain bool) error {
	canShrink := w.pageSize > SmallestPageSize
	if w.page == 0 && canShrink {
		w.pageSize = max(w.pageSize/2, SmallestPageSize)
		return w.backOff(ctx, cause)
	}
	w.trouble.timeouts++
	if !certain && w.trouble.timeouts <= maxTimeouts {
		var impatient *RetryLater
		if err := w.backOff(ctx, cause); !errors.As(err, &impatient) {
			return err
		}
	}
	if canShrink {
		w.pageSize = max(w.pageSize/2, SmallestPageSize)
	}
	return &Replan{Cause: cause, HalveSpan: !canShrink}
}

// repeatSome asks a few times more.
func (w *window) repeatSome(ctx context.Context, ans *answer, how treatment) error {
	w.trouble.repeats++
	switch {
	case w.trouble.repeats > how.tries && how.thenStop:
		return ans.stopped(how)
	case w.trouble.repeats > how.tries:
		return &RetryLater{After: maxBackoff, Cause: ans.failure("", nil)}
	case how.wait > 0:
		return w.pause(ctx, how.wait, ans.failure("", nil))
	}
	return w.backOff(ctx, ans.failure("", nil))
}

// gone begins the window again, once.
func (w *window) gone(ctx context.Context, ans *answer, how treatment) error {
	if w.page > 0 {
		return &Replan{Cause: ans.failure("", nil)}
	}
	if w.trouble.startOver {
		return ans.stopped(how)
	}
	w.trouble.startOver = true
	return w.backOff(ctx, ans.failure("", nil))
}

// backOff waits a little, more each time, before the page is asked for again.
func (w *window) backOff(ctx context.Context, cause error) error {
	wait := time.Second << min(w.trouble.failures, 6)
	return w.pause(ctx, min(w.jittered(wait, 0.5), maxBackoff), cause)
}

// pause waits on the window's patience, and gives the lane back when that ends.
func (w *window) pause(ctx context.Context, wait time.Duration, cause error) error {
	w.noteFailure(cause, wait)
	w.trouble.spent += wait
	if w.trouble.spent > patience {
		return &RetryLater{After: max(wait, maxBackoff), Cause: cause}
	}
	return w.sleep(ctx, wait)
}

// noteFailure logs the first failure of a page; the recovery tells how many followed.
func (w *window) noteFailure(cause error, wait time.Duration) {
	if w.trouble.failures == 0 {
		w.log.Warn("the feed did not deliver a page: asking again", zap.Int("page", w.page), zap.Duration("wait", wait), zap.Error(cause))
	}
	w.trouble.failures++
}

func (w *window) jittered(wait time.Duration, share float64) time.Duration {
	return wait + time.Duration(share*w.feed.jitter()*float64(wait))
}

func (w *window) sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		w.out.Waited += wait
		return nil
	}
}

// stopped turns an answer into the error that asks for a person.
func (ans *answer) stopped(how treatment) *Stopped {
	remedy := how.remedy
	if remedy == "" {
		remedy = refusalRemedy(ans.status, ans.header, parseErrorBody(ans.body))
	}
	message := ans.failure("", nil).Error()
	if location, err := url.Parse(ans.header.Get("Location")); err == nil && location.Host != "" && ans.status/100 == 3 {
		message += ", redirecting to " + (&url.URL{Scheme: location.Scheme, Host: location.Host}).String()
	}
	return &Stopped{Code: ans.status, Message: message, Remedy: remedy, Reprobe: how.reprobe}
}
