// Package probe asks a real feed the questions that its documents leave open, and
// says what it answered, without a word of whose calls were read.
//
//	question.go   the questions, as data: what is asked, and what hangs on it
//	steps.go      which windows are asked for, in which order
//	reading.go    one window that was read: its pages, in short
//	item.go       one record in short: hashes of identity and content, and times
//	fields.go     how each field is written
//	judge*.go     from what was seen to what is known, pure
//	report.go     the findings, for a person and as JSON
//
// A finding is only what was seen: where the observations allow two answers, or
// are too few, it is "cannot tell" with the reason. Of a record nothing is kept
// but hashes under a key that dies with the run, times and the kinds of its
// values; a [Report] holds counts, durations, kinds and names of fields.
//
// Nothing here writes to Kafka or moves a position.
package probe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
)

// Asker makes one request: a [poller.Feed].
type Asker interface {
	Ask(ctx context.Context, inquiry poller.Inquiry, see func(*poller.Reply)) error
}

// Options say whom to ask, and how much.
type Options struct {
	Feed Asker
	// Unbridled asks without a budget, to provoke a 429. nil: that is not done.
	Unbridled Asker
	Limits    poller.Limits // of Feed, for the plan
	// Pace is the least time between two initial requests, besides the budget.
	Pace time.Duration

	MinAge, Lookback, MaxWindow time.Duration // as configured for cdr_feed
	// Stream says that cdr_stream can be asked too.
	Stream bool
	// For is how long records are watched for changes, from the first reading.
	For time.Duration
	// AlsoForbidden asks windows that are too wide and too old.
	AlsoForbidden bool
	// LinkLifetime asks an old next link again and again.
	LinkLifetime bool

	Progress func(Progress) // nil: nobody
}

// Progress is how far a probe has come.
type Progress struct {
	Step, Steps int
	Doing       string
	Requests    int // made so far
	Left        time.Duration
}

// prober is one run.
type prober struct {
	Options
	seen        *Observations
	startedAt   time.Time
	lastInitial time.Time
	failures    int // steps in a row that came to nothing
	step, steps int
	left        time.Duration // of the steps behind the one in hand
}

// Run asks, and judges what it has when it ends, for whatever reason. The report
// is never nil. The error says why not everything was asked: nil, the end of ctx,
// or what a person must see to.
func Run(ctx context.Context, options Options) (*Report, error) {
	p := &prober{Options: options, seen: newObservations(), startedAt: time.Now()}
	err := p.run(ctx)
	report := judge(p.seen)
	report.StartedAt, report.EndedAt = p.startedAt.UTC().Truncate(time.Second), time.Now().UTC().Truncate(time.Second)
	if err != nil {
		report.Ended = err.Error()
	}
	return report, err
}

func (p *prober) run(ctx context.Context) error {
	steps := p.plan()
	p.steps = len(steps)
	for i, s := range steps {
		p.step, p.left = i+1, p.duration(steps[i+1:])
		p.progress(s.doing)
		err := s.run(p, ctx)
		if err = p.survive(ctx, s, err); err != nil {
			return err
		}
	}
	return nil
}

// maxFailures is how many steps in a row may come to nothing.
const maxFailures = 3

// survive goes on after what concerns one step only.
func (p *prober) survive(ctx context.Context, s step, err error) error {
	var stopped *poller.Stopped
	switch {
	case err == nil:
		p.failures = 0
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted while asking for %s", s.doing)
	case errors.As(err, &stopped):
		return &refusal{status: stopped.Code, remedy: stopped.Remedy}
	}
	p.seen.Failed = append(p.seen.Failed, s.doing)
	if p.failures++; p.failures < maxFailures {
		return nil
	}
	return fmt.Errorf("ask for %s: the feed did not deliver, nor for the %d steps before; try again when it answers", s.doing, maxFailures-1)
}

// refusal is an answer that a person must see to. It quotes nothing of it.
type refusal struct {
	status int
	remedy string
}

func (e *refusal) Error() string {
	if e.status == 0 {
		return "the probe cannot ask: " + e.remedy
	}
	return fmt.Sprintf("the feed answers %d: %s", e.status, e.remedy)
}

func (p *prober) progress(doing string) {
	if p.Progress != nil {
		p.Progress(Progress{Step: p.step, Steps: p.steps, Doing: doing, Requests: p.seen.Wire.Requests, Left: p.left.Round(time.Second)})
	}
}

// now is the earlier of the local time and what the feed's Date tells: what is
// old enough by it is so by either. latest is the later of the two.
func (p *prober) now() time.Time    { return time.Now().Add(min(p.skew(), 0)) }
func (p *prober) latest() time.Time { return time.Now().Add(max(p.skew(), 0)) }

// skew is how far the feed's clock is ahead of this machine's; 0: it tells no time.
func (p *prober) skew() time.Duration { return median(p.seen.Wire.Skews) }

// youngMargin is kept beyond the least age, for clocks.
const youngMargin = 30 * time.Second

// youngest is the youngest end that a window of cdr_feed may have.
func (p *prober) youngest() cdr.Instant {
	return cdr.InstantOf(p.now().Add(-p.MinAge - youngMargin))
}

// read asks for a window and follows its pages, at most so many that hold records.
func (p *prober) read(ctx context.Context, r *Reading, maxPages int) error {
	if err := r.Span.Validate(); err != nil {
		return fmt.Errorf("probe a window: %w", err)
	}
	if err := p.pace(ctx); err != nil {
		return err
	}
	p.seen.Readings = append(p.seen.Readings, r)
	inquiry := poller.Inquiry{Span: r.Span, Endpoint: r.Endpoint, PageSize: r.Max}
	for {
		page, err := p.ask(ctx, r, inquiry)
		if err != nil || page == nil {
			return err
		}
		r.Pages = append(r.Pages, *page)
		next := page.next
		switch {
		case next == nil:
			r.Complete = page.readable
			return nil
		case inquiry.Next != nil && next.Cursor.Equal(inquiry.Next.Cursor) && len(page.Items) > 0:
			r.Stuck = true
			return nil
		case r.filled() >= maxPages, len(r.Pages) >= maxPages+maxEmptyPages:
			return nil
		}
		inquiry.Next = next
		p.progress(string(r.Why))
	}
}

// maxEmptyPages is how many pages without records are followed besides.
const maxEmptyPages = 10

// pace keeps initial requests apart beyond what the budget does.
func (p *prober) pace(ctx context.Context) error {
	if p.Pace > 0 && !p.lastInitial.IsZero() {
		if err := sleep(ctx, time.Until(p.lastInitial.Add(p.Pace))); err != nil {
			return err
		}
	}
	p.lastInitial = time.Now()
	return nil
}

// ask makes one request of a reading. A nil page says that the answer was none.
func (p *prober) ask(ctx context.Context, r *Reading, inquiry poller.Inquiry) (*Page, error) {
	var page *Page
	var refused *refusal
	err := p.Feed.Ask(ctx, inquiry, func(reply *poller.Reply) {
		p.seen.Wire.note(reply)
		page, refused = nil, nil
		r.noteAnswer(reply, inquiry.Next != nil)
		switch reply.Status {
		case 200:
			page = p.seen.digest(r, reply)
		case 401, 403:
			refused = &refusal{status: reply.Status, remedy: reply.Remedy}
		}
	})
	if err == nil && refused != nil && r.Endpoint == cdr.Feed {
		err = &poller.Stopped{Code: refused.status, Remedy: refused.remedy}
	}
	return page, err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// newSalt makes the key of all hashes of a run.
func newSalt() (salt [16]byte) {
	rand.Read(salt[:]) // never fails: it ends the program instead
	return salt
}

func median(values []time.Duration) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
