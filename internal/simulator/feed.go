package simulator

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// Exchange is one request of a feed endpoint and its answer, as Observe sees it.
type Exchange struct {
	Organization string
	Request      int // its number among those of the organization; 0: refused before it was counted
	Endpoint     cdr.Endpoint
	Query        string
	Start, End   time.Time // of a request without a mistake
	Page         bool      // asked for by a next link
	Status       int       // 0: the connection was cut before there was one
	Fault        Fault     // "": none
	Items        int       // delivered
	Next         bool      // a next link was given
	Aborted      bool      // the connection was cut
}

// exchange is a request being answered. It belongs to one goroutine.
type exchange struct {
	s *Simulator
	w http.ResponseWriter
	r *http.Request

	endpoint  cdr.Endpoint
	answers   Answers
	now       time.Time
	org       *org   // nil until the token is known
	principal string // whose budget this is
	number    int
	hash      uint64 // decides everything that is left to chance here
	ask       ask

	fault   Fault
	status  int
	items   int
	bytes   int64
	next    bool
	aborted bool
}

// serveRecords answers /v1/cdr_feed and /v1/cdr_stream:
//
//  1. who asks (401), at the right door (451)
//  2. may it ask now (429)
//  3. is the question right (400)
//  4. does anything go wrong (faults)
//  5. the page
func (s *Simulator) serveRecords(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer x.finish()
	if r.Method != http.MethodGet {
		x.violated(BadMethod, "only GET is known here")
		x.fail(http.StatusMethodNotAllowed, "")
		return
	}
	if !x.identify() {
		return
	}
	if home := x.org.HomeHost; home != "" && r.Host != home {
		x.failRegion(home)
		return
	}
	problem := x.parse()
	if refused := x.org.admit(&x.answers, x); refused != nil {
		x.violated(refused.kind, refused.detail)
		x.failWait(http.StatusTooManyRequests, refused.wait)
		return
	}
	if problem == nil {
		problem = x.checkWindow()
	}
	if problem != nil {
		x.violated(problem.kind, problem.message)
		x.fail(http.StatusBadRequest, problem.message)
		return
	}
	x.fault = x.org.chooseFault(&x.answers, x)
	if x.failOnPurpose() || x.failBySize() {
		return
	}
	x.servePage()
}

func (s *Simulator) newExchange(w http.ResponseWriter, r *http.Request) *exchange {
	endpoint := cdr.Feed
	if strings.HasSuffix(r.URL.Path, "stream") {
		endpoint = cdr.Stream
	}
	answers, _ := s.Answers("")
	return &exchange{s: s, w: w, r: r, endpoint: endpoint, answers: answers, now: s.now(), hash: mix(s.options.Seed)}
}

// identify finds the organization by its token and numbers the request.
func (x *exchange) identify() bool {
	o, principal, kind := x.s.authorize(x.r, x.now)
	if o != nil {
		x.org, x.principal, x.answers = o, principal, x.s.answersOf(o)
	}
	if kind != "" {
		x.violated(kind, tokenProblem[kind])
		x.fail(http.StatusUnauthorized, "")
		return false
	}
	o.mu.Lock()
	o.requests++
	x.number = o.requests
	o.mu.Unlock()
	x.hash = mix(o.generator.seed ^ mix(uint64(x.number)))
	return true
}

func (x *exchange) violated(kind ViolationKind, detail string) {
	name := ""
	if x.org != nil {
		name = x.org.Name
	}
	x.s.violated(x.r, kind, name, x.number, detail)
}

// finish counts the exchange, also when the connection was cut on purpose.
func (x *exchange) finish() {
	status := strconv.Itoa(x.status)
	if x.aborted {
		status = "aborted"
	}
	x.s.stats.count(x.r.URL.Path, status, x.fault, x.items, x.bytes)
	if x.s.options.Observe == nil {
		return
	}
	e := Exchange{Request: x.number, Endpoint: x.endpoint, Query: x.r.URL.RawQuery, Page: x.ask.isPage, Status: x.status,
		Fault: x.fault, Items: x.items, Next: x.next, Aborted: x.aborted, Start: x.ask.start, End: x.ask.end}
	if x.org != nil {
		e.Organization = x.org.Name
	}
	x.s.options.Observe(e)
}

// abort cuts the connection. It does not return.
func (x *exchange) abort() {
	x.aborted = true
	panic(http.ErrAbortHandler)
}

// failOnPurpose answers with the fault of the exchange, if it is one that
// leaves no page, and reports whether it did.
func (x *exchange) failOnPurpose() bool {
	switch x.fault {
	case "":
		return false
	case Reset:
		x.abort()
	case LinkRefused:
		x.fail([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusGone}[scale(mix(x.hash), 3)], "The next page can no longer be fetched")
		return true
	case HTML:
		x.send(http.StatusOK, "text/html;charset=utf-8", htmlBody("Welcome", "Please sign in to continue."))
		return true
	case NoItems:
		x.send(http.StatusOK, "application/json;charset=utf-8", []byte(`{"status":"ok","records":[]}`))
		return true
	case FalseEmpty:
		x.fail(http.StatusNotFound, noCDRs)
		return true
	case Fault301, Fault307:
		x.w.Header().Set("Location", redirectTarget)
	case Fault451:
		x.failRegion("analytics-calling-eu.webexapis.com")
		return true
	case Fault423, Fault429, Fault503:
		x.failWait(traitsOf(faultTable, x.fault).status, x.answers.FaultWait)
		return true
	}
	if status := traitsOf(faultTable, x.fault).status; status != 0 {
		x.fail(status, "")
		return true
	}
	return false
}

// failBySize refuses what is too much for this feed, though it may be asked.
func (x *exchange) failBySize() bool {
	a := &x.answers
	switch {
	case a.RefuseMaxOver > 0 && x.ask.max > a.RefuseMaxOver:
		x.fail(http.StatusBadRequest, "Invalid max: the range is 1 to "+strconv.Itoa(a.RefuseMaxOver))
	case a.TimeoutMaxOver > 0 && x.clampedMax() > a.TimeoutMaxOver,
		a.TimeoutWindowOver > 0 && x.ask.end.Sub(x.ask.start) > a.TimeoutWindowOver:
		x.fail(http.StatusGatewayTimeout, "")
	default:
		return false
	}
	return true
}
