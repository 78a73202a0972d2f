package simulator

import "time"

// bucketSpan is the sliding minute over which requests are counted.
const bucketSpan = time.Minute

// spent is what one principal has asked for lately: two buckets.
type spent struct {
	initial, pages slidingLog
	// notBefore is when the last 429 allows the next request.
	notBefore time.Time
}

// slidingLog holds the times of the requests that were let in during the last
// span. Requests that were refused do not count.
type slidingLog struct{ times []time.Time }

// admit lets a request in, or says how long it has to wait for that. A limit of
// zero is none.
func (l *slidingLog) admit(now time.Time, limit int) (wait time.Duration, ok bool) {
	for len(l.times) > 0 && now.Sub(l.times[0]) >= bucketSpan {
		l.times = l.times[1:]
	}
	if limit == 0 {
		return 0, true
	}
	if len(l.times) >= limit {
		return bucketSpan - now.Sub(l.times[len(l.times)-limit]), false
	}
	l.times = append(l.times, now)
	return 0, true
}

// refusal is why a request has to come again later.
type refusal struct {
	kind   ViolationKind
	wait   time.Duration
	detail string
}

// admit checks the budget of a principal. nil: come in.
func (o *org) admit(a *Answers, x *exchange) *refusal {
	o.mu.Lock()
	defer o.mu.Unlock()
	budget := o.budgets[x.principal]
	if budget == nil {
		budget = new(spent)
		o.budgets[x.principal] = budget
	}
	if early := budget.notBefore.Sub(x.now); early > 0 {
		return &refusal{kind: TooImpatient, wait: early, detail: "the Retry-After of a 429 was not waited for, " + early.String() + " early"}
	}
	if early := o.waits[x.ask.key()].Sub(x.now); early > 0 {
		return &refusal{kind: TooImpatient, wait: early, detail: "the Retry-After of this request was not waited for, " + early.String() + " early"}
	}
	delete(o.waits, x.ask.key())
	if x.ask.isPage {
		if wait, ok := budget.pages.admit(x.now, a.PagesPerMinute); !ok {
			return &refusal{kind: TooManyPages, wait: wait, detail: "more page requests within 60 s than the limit"}
		}
		return nil
	}
	if wait, ok := budget.initial.admit(x.now, a.InitialPerMinute); !ok {
		return &refusal{kind: TooManyInitial, wait: wait, detail: "more initial requests within 60 s than the limit"}
	}
	return nil
}

// maxWaits bounds the memory of demanded waits.
const maxWaits = 4096

// demandWait remembers a wait that an answer demands: of the principal after a
// 429, of this very request after a 423 or 503.
func (o *org) demandWait(x *exchange, status int, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if status == 429 {
		o.budgets[x.principal].notBefore = until
		return
	}
	if len(o.waits) >= maxWaits {
		clear(o.waits)
	}
	o.waits[x.ask.key()] = until
}
