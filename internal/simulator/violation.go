package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// ViolationKind is one thing that a client must not do.
type ViolationKind string

const (
	BadMethod        ViolationKind = "bad_method"
	BadPath          ViolationKind = "bad_path"
	RedirectFollowed ViolationKind = "redirect_followed"
	TokenMissing     ViolationKind = "token_missing"
	TokenWrong       ViolationKind = "token_wrong"
	TokenExpired     ViolationKind = "token_expired"
	TokenInQuery     ViolationKind = "token_in_query"
	TooManyInitial   ViolationKind = "too_many_initial"
	TooManyPages     ViolationKind = "too_many_pages"
	TooImpatient     ViolationKind = "too_impatient"
	UnknownParameter ViolationKind = "unknown_parameter"
	TwiceParameter   ViolationKind = "parameter_twice"
	TimeMissing      ViolationKind = "time_missing"
	BadTime          ViolationKind = "bad_time"
	EndBeforeStart   ViolationKind = "end_before_start"
	WindowTooWide    ViolationKind = "window_too_wide"
	WindowTooRecent  ViolationKind = "window_too_recent"
	WindowTooOld     ViolationKind = "window_too_old"
	TooManyLocations ViolationKind = "too_many_locations"
	BadMax           ViolationKind = "bad_max"
	BadCursor        ViolationKind = "bad_cursor"
	ForeignOrg       ViolationKind = "foreign_org"
	BadTokenRequest  ViolationKind = "bad_token_request"
	BadClient        ViolationKind = "bad_client"
	RefreshTokenDead ViolationKind = "refresh_token_dead"
)

// Violation is a request that a client should not have made.
type Violation struct {
	Time         time.Time     `json:"time"`
	Kind         ViolationKind `json:"kind"`
	Organization string        `json:"organization,omitempty"`
	Method       string        `json:"method"`
	URL          string        `json:"url"`
	Detail       string        `json:"detail"`
	// Request is its number among those of the organization; 0 if it was
	// refused before it was counted.
	Request int `json:"request,omitempty"`
}

func (v Violation) String() string {
	return fmt.Sprintf("%s %s: %s %s: %s", v.Time.Format(time.RFC3339Nano), v.Kind, v.Method, v.URL, v.Detail)
}

// maxViolations are kept in full; beyond that they are only counted.
const maxViolations = 1000

// stats counts what was asked and answered. It is safe for concurrent use.
type stats struct {
	mu         sync.Mutex
	requests   map[string]map[string]int // by endpoint and status
	faults     map[Fault]int
	counts     map[ViolationKind]int
	violations []Violation
	items      int64
	bytes      int64
}

// Stats is a copy of the counts.
type Stats struct {
	// Requests are counted by path and status; "aborted" is a connection that
	// was cut.
	Requests map[string]map[string]int `json:"requests"`
	Faults   map[Fault]int             `json:"faults"`
	// Violations are counted by kind.
	Violations map[ViolationKind]int `json:"violations"`
	Items      int64                 `json:"items"` // delivered, repeats and doubles included
	Bytes      int64                 `json:"bytes"` // of bodies, before compression
}

func (s *stats) count(endpoint, status string, fault Fault, items int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests == nil {
		s.requests, s.faults = make(map[string]map[string]int), make(map[Fault]int)
	}
	if s.requests[endpoint] == nil {
		s.requests[endpoint] = make(map[string]int)
	}
	s.requests[endpoint][status]++
	if fault != "" {
		s.faults[fault]++
	}
	s.items += int64(items)
	s.bytes += bytes
}

// Stats returns what was counted since the simulator was made.
func (s *Simulator) Stats() Stats {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	copied := Stats{Requests: make(map[string]map[string]int), Faults: make(map[Fault]int), Violations: make(map[ViolationKind]int), Items: s.stats.items, Bytes: s.stats.bytes}
	for endpoint, byStatus := range s.stats.requests {
		copied.Requests[endpoint] = make(map[string]int)
		for status, n := range byStatus {
			copied.Requests[endpoint][status] = n
		}
	}
	for f, n := range s.stats.faults {
		copied.Faults[f] = n
	}
	for kind, n := range s.stats.counts {
		copied.Violations[kind] = n
	}
	return copied
}

// Violations returns the first thousand of them, in order.
func (s *Simulator) Violations() []Violation {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	return append([]Violation(nil), s.stats.violations...)
}

// violated records what a request did wrong. Tokens in the query are cut out.
func (s *Simulator) violated(r *http.Request, kind ViolationKind, organization string, request int, detail string) {
	v := Violation{Time: s.now(), Kind: kind, Organization: organization, Method: r.Method, URL: withoutToken(r.URL), Detail: detail, Request: request}
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	if s.stats.counts == nil {
		s.stats.counts = make(map[ViolationKind]int)
	}
	s.stats.counts[kind]++
	if len(s.stats.violations) < maxViolations {
		s.stats.violations = append(s.stats.violations, v)
	}
}

func withoutToken(u *url.URL) string {
	q := u.Query()
	if !q.Has("access_token") {
		return u.RequestURI()
	}
	q.Set("access_token", "***")
	return u.Path + "?" + q.Encode()
}
