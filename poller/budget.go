package poller

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"
)

// Bucket is one of the two allowances of a credential.
type Bucket uint8

const (
	// Initial requests begin a window.
	Initial Bucket = iota
	// Pages are requests of a next link.
	Pages

	buckets = 2
)

func (b Bucket) String() string {
	if b == Initial {
		return "initial"
	}
	return "pages"
}

// Limits are the requests that the feed allows one credential in any minute.
type Limits struct {
	InitialPerMinute int
	PagesPerMinute   int
}

// DefaultLimits are those that Webex documents.
var DefaultLimits = Limits{InitialPerMinute: 1, PagesPerMinute: 10}

// Validate reports limits under which nothing could ever be read.
func (l Limits) Validate() error {
	if l.InitialPerMinute < 1 || l.PagesPerMinute < 1 {
		return fmt.Errorf("check request limits: want at least 1 initial and 1 page request a minute, not %d and %d", l.InitialPerMinute, l.PagesPerMinute)
	}
	return nil
}

// budgetWindow is the minute in which the server counts, and a second: it may
// count in whole seconds, and its clock may run a little faster than ours.
const budgetWindow = time.Minute + time.Second

// Budget keeps the requests of one credential within its limits: however long
// a request or its answer is under way, the server sees no more than the limit
// in any minute. It is safe for concurrent use; callers are served in the order
// of their arrival.
//
// Each bucket has as many slots as its limit. A request takes a slot before it
// is sent. The server counts the request at some moment between then and its
// answer, so the slot is free again one minute after the answer was seen, and
// not before it was. Waiting on a slot costs the same whatever the limit.
type Budget struct {
	mu      sync.Mutex
	logs    [buckets]slotLog
	changed chan struct{}          // closed and replaced when a slot comes back or moves
	turn    [buckets]chan struct{} // held by the one caller that waits for the next slot
}

// evenFrom is the limit from which a bucket that starts empty fills evenly. A
// process that may send that many rarely spends a minute's worth at once before
// it ends, and a 429 in the minute after costs less than the minute.
const evenFrom = 60

// NewBudget returns the budget of a credential at the start of a process.
//
// What an earlier process asked for just before it ended is not known, so both
// buckets start empty, and nothing goes out for a minute; limits of 60 and more
// fill evenly over it. lastInitial is the [Outcome].LastInitialAt that a position
// tells of, the latest of all sources of the credential. If it is less than a
// minute ago, and the limit is one, then the earlier process cannot have made a
// later initial request, and the minute counts from there. The zero time says
// that nobody used the credential before: the buckets start full.
func NewBudget(limits Limits, lastInitial, now time.Time) *Budget {
	b := &Budget{changed: make(chan struct{})}
	for bucket, limit := range []int{Initial: limits.InitialPerMinute, Pages: limits.PagesPerMinute} {
		b.logs[bucket] = newSlotLog(max(limit, 1))
		b.turn[bucket] = make(chan struct{}, 1)
	}
	if lastInitial.IsZero() {
		return b
	}
	emptyUntil := now.Add(budgetWindow)
	b.logs[Pages].empty(emptyUntil)
	if ago := now.Sub(lastInitial); limits.InitialPerMinute <= 1 && 0 <= ago && ago < time.Minute {
		emptyUntil = now.Add(budgetWindow - ago)
	}
	b.logs[Initial].empty(emptyUntil)
	return b
}

// Wait takes a slot of the bucket, as soon as there is one. Every nil return is
// to be followed by one Done or Unused.
func (b *Budget) Wait(ctx context.Context, bucket Bucket) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	select {
	case b.turn[bucket] <- struct{}{}:
		defer func() { <-b.turn[bucket] }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		wait, changed := b.take(bucket)
		if wait == 0 {
			return nil
		}
		if err := waitFor(ctx, wait, changed); err != nil {
			return err
		}
	}
}

// take takes a slot and returns 0, or tells how long the next one takes and
// what might make that shorter or longer.
func (b *Budget) take(bucket Bucket) (wait time.Duration, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	log := &b.logs[bucket]
	if log.len == 0 {
		return untilChanged, b.changed
	}
	if wait := time.Until(log.first()); wait > 0 {
		return wait, b.changed
	}
	log.popFirst()
	return 0, nil
}

// untilChanged waits for other callers' answers: every slot is in use.
const untilChanged = time.Duration(1<<63 - 1)

// waitFor returns nil after the time, or when changed is closed.
func waitFor(ctx context.Context, wait time.Duration, changed <-chan struct{}) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// Done says that the answer to a request has been seen, or that none will be:
// the server may have counted the request until now.
func (b *Budget) Done(bucket Bucket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logs[bucket].pushLast(time.Now().Add(budgetWindow))
	b.signal()
}

// Unused gives a slot back for which no request left this machine.
func (b *Budget) Unused(bucket Bucket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logs[bucket].pushFirst()
	b.signal()
}

// Drain empties both buckets, because the server says that it counted
// differently: nothing goes out before until, and then they fill evenly.
func (b *Budget) Drain(until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.logs {
		b.logs[i].drain(until)
	}
	b.signal()
}

// signal is called with the lock held.
func (b *Budget) signal() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// BudgetView tells the planner when the next request of each kind is legal.
type BudgetView struct {
	NextInitial time.Time
	NextPage    time.Time
	PagesLeft   int // page requests that could go out at once
}

// View returns when the next request of each kind may be made: now, or later.
// While every slot of a bucket is in use, that is a full minute from now.
func (b *Budget) View(now time.Time) BudgetView {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := func(log *slotLog) time.Time {
		switch {
		case log.len == 0:
			return now.Add(budgetWindow)
		case log.first().After(now):
			return log.first()
		}
		return now
	}
	return BudgetView{NextInitial: next(&b.logs[Initial]), NextPage: next(&b.logs[Pages]), PagesLeft: b.logs[Pages].freeBy(now)}
}

// slotLog holds the slots that are not in use, each as the time from which it
// is free, the earliest first: a ring, so that a limit of thousands costs no
// more than a limit of one.
type slotLog struct {
	freeAt       []time.Time // as many as the limit
	head         int         // index of the earliest
	len          int
	drainedUntil time.Time // no slot is free before, nor one that is in use now
}

func newSlotLog(limit int) slotLog { return slotLog{freeAt: make([]time.Time, limit), len: limit} }

func (l *slotLog) at(i int) *time.Time { return &l.freeAt[(l.head+i)%len(l.freeAt)] }

func (l *slotLog) first() time.Time { return *l.at(0) }

func (l *slotLog) popFirst() {
	l.head = (l.head + 1) % len(l.freeAt)
	l.len--
}

// pushLast keeps the order even where a drain has moved the others later.
func (l *slotLog) pushLast(freeAt time.Time) {
	l.mustHaveRoom()
	freeAt = later(freeAt, l.drainedUntil)
	if l.len > 0 {
		freeAt = later(freeAt, *l.at(l.len - 1))
	}
	l.len++
	*l.at(l.len - 1) = freeAt
}

// pushFirst puts a slot back as it was when it was taken: free, unless a drain
// came between.
func (l *slotLog) pushFirst() {
	l.mustHaveRoom()
	l.head = (l.head + len(l.freeAt) - 1) % len(l.freeAt)
	l.len++
	*l.at(0) = l.drainedUntil
}

func (l *slotLog) mustHaveRoom() {
	if l.len == len(l.freeAt) {
		panic("poller: a budget slot was given back twice")
	}
}

// empty is how a bucket starts whose last minute is not known.
func (l *slotLog) empty(until time.Time) {
	for i := range l.len {
		*l.at(i) = until
		if l.len >= evenFrom {
			*l.at(i) = until.Add(-l.step() * time.Duration(l.len-1-i))
		}
	}
}

// drain makes the first slot free at until and the others evenly after it,
// none earlier than it would have been.
func (l *slotLog) drain(until time.Time) {
	l.drainedUntil = later(l.drainedUntil, until)
	for i := range l.len {
		*l.at(i) = later(*l.at(i), until.Add(l.step()*time.Duration(i)))
	}
}

// step is the time between two requests of a bucket that is spent evenly.
// freeBy counts the slots that are free at an instant. They are in order, so it
// is a binary search.
func (l *slotLog) freeBy(now time.Time) int {
	return sort.Search(l.len, func(i int) bool { return l.at(i).After(now) })
}

func (l *slotLog) step() time.Duration { return budgetWindow / time.Duration(len(l.freeAt)) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
