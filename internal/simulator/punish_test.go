package simulator

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPunishment makes every mistake once.
func TestPunishment(t *testing.T) {
	const feed, stream = "/v1/cdr_feed", "/v1/cdr_stream"
	ago := func(d time.Duration) time.Time { return time.Now().UTC().Add(-d) }
	window := func(path string, from, to time.Duration, more ...string) func() string {
		return func() string { return recordsURL(path, ago(from), ago(to), more...) }
	}
	good := window(feed, 2*time.Hour, time.Hour)
	tests := []struct {
		name   string
		kind   ViolationKind
		status int
		url    func() string
		change func(*http.Request)
	}{
		{name: "nothing wrong", status: 200, url: good},
		{name: "nothing wrong on the stream", status: 200, url: window(stream, 2*time.Hour, time.Minute)},
		{name: "as wide, old and young as allowed", status: 200, url: window(feed, 720*time.Hour, 708*time.Hour)},
		{name: "exactly five minutes ago", status: 200, url: window(feed, time.Hour, 5*time.Minute)},
		{name: "ten locations", status: 200, url: window(feed, 2*time.Hour, time.Hour, "locations=Richardson,b,c,d,e,f,g,h,i,j")},
		{name: "method", kind: BadMethod, status: 405, url: good, change: func(r *http.Request) { r.Method = http.MethodPost }},
		{name: "path", kind: BadPath, status: 404, url: func() string { return "/v1/cdr_feeds" }},
		{name: "redirect", kind: RedirectFollowed, status: 404, url: func() string { return redirectTarget }},
		{name: "no token", kind: TokenMissing, status: 401, url: good, change: func(r *http.Request) { r.Header.Del("Authorization") }},
		{name: "other scheme", kind: TokenMissing, status: 401, url: good, change: func(r *http.Request) { r.Header.Set("Authorization", "Basic token-org-1") }},
		{name: "wrong token", kind: TokenWrong, status: 401, url: good, change: func(r *http.Request) { r.Header.Set("Authorization", "Bearer token-org-9") }},
		{name: "token in the query", kind: TokenInQuery, status: 401, url: window(feed, 2*time.Hour, time.Hour, "access_token=token-org-1")},
		{name: "too wide", kind: WindowTooWide, status: 400, url: window(feed, 14*time.Hour, 2*time.Hour-time.Second)},
		{name: "too wide for the stream", kind: WindowTooWide, status: 400, url: window(stream, 3*time.Hour+time.Second, time.Hour)},
		{name: "too recent", kind: WindowTooRecent, status: 400, url: window(feed, time.Hour, 5*time.Minute-time.Second)},
		{name: "too recent for the stream", kind: WindowTooRecent, status: 400, url: window(stream, time.Hour, time.Minute-time.Second)},
		{name: "too old", kind: WindowTooOld, status: 400, url: window(feed, 720*time.Hour+time.Second, 719*time.Hour)},
		{name: "too old for the stream", kind: WindowTooOld, status: 400, url: window(stream, 12*time.Hour+time.Second, 11*time.Hour)},
		{name: "end before start", kind: EndBeforeStart, status: 400, url: window(feed, time.Hour, 2*time.Hour)},
		{name: "end at start", kind: EndBeforeStart, status: 400, url: window(feed, time.Hour, time.Hour)},
		{name: "eleven locations", kind: TooManyLocations, status: 400, url: window(feed, 2*time.Hour, time.Hour, "locations=a,b,c,d,e,f,g,h,i,j,k")},
		{name: "unknown parameter", kind: UnknownParameter, status: 400, url: window(feed, 2*time.Hour, time.Hour, "limit=5")},
		{name: "orgId of our own", kind: UnknownParameter, status: 400, url: window(feed, 2*time.Hour, time.Hour, "orgId=x")},
		{name: "parameter twice", kind: TwiceParameter, status: 400, url: window(feed, 2*time.Hour, time.Hour, "max=500", "max=500")},
		{name: "max of letters", kind: BadMax, status: 400, url: window(feed, 2*time.Hour, time.Hour, "max=many")},
		{name: "max of zero", kind: BadMax, status: 400, url: window(feed, 2*time.Hour, time.Hour, "max=0")},
		{name: "no endTime", kind: TimeMissing, status: 400, url: func() string { return feed + "?startTime=" + ago(time.Hour).Format(feedLayout) }},
		{name: "next link with more", kind: UnknownParameter, status: 400, url: window(feed, 2*time.Hour, time.Hour, cursorParameter+"=1999-12-31T22:30:00.000Z", "limit=5")},
		{name: "cursor elsewhere", kind: BadCursor, status: 400, url: window(feed, 2*time.Hour, time.Hour, cursorParameter+"=1999-12-31T21:30:00.000Z")},
		{name: "foreign orgId", kind: ForeignOrg, status: 400, url: window(feed, 2*time.Hour, time.Hour, cursorParameter+"=1999-12-31T22:30:00.000Z", "orgId=x")},
	}
	for _, format := range []string{"2006-01-02T15:04:05Z", "2006-01-02T15:04:05.000000Z", "2006-01-02T15:04:05.000+00:00", "2006-01-02 15:04:05.000Z", "2006-01-02T15:04:05.00Z", "2006-01-02T15:04:05,000Z", "20060102T150405.000Z", "yesterday"} {
		tests = append(tests, tests[0])
		last := &tests[len(tests)-1]
		last.name, last.kind, last.status = "time like "+format, BadTime, 400
		last.url = func() string {
			return feed + "?startTime=" + url.QueryEscape(ago(2*time.Hour).Format(format)) + "&endTime=" + ago(time.Hour).Format(feedLayout)
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				checkPunished(t, test.url(), test.change, test.status, test.kind)
			})
		})
	}
}

func checkPunished(t *testing.T, url string, change func(*http.Request), status int, kind ViolationKind) {
	t.Helper()
	s := newSimulator(t, nil)
	r := httptest.NewRequest(http.MethodGet, url, nil)
	r.Header.Set("Authorization", "Bearer token-org-1")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != status {
		t.Errorf("status %d, want %d: %.300s", w.Code, status, w.Body)
	}
	violations := s.Violations()
	if kind == "" {
		noViolations(t, s)
		return
	}
	if len(violations) != 1 || violations[0].Kind != kind || s.Stats().Violations[kind] != 1 {
		t.Fatalf("violations %v, want one of kind %s", violations, kind)
	}
	v := violations[0]
	path, _, _ := strings.Cut(url, "?")
	if !strings.HasPrefix(v.URL, path) || v.Method != r.Method || v.Detail == "" || !v.Time.Equal(time.Now()) {
		t.Errorf("violation does not describe the request: %s", v)
	}
	if strings.Contains(v.String(), "token-org") {
		t.Errorf("violation tells the token: %s", v)
	}
	if strings.HasPrefix(w.Body.String(), "No CDRs") || saysNoCDRs(w.Body.Bytes()) {
		t.Errorf("a mistake is answered like an empty window: %s", w.Body)
	}
}

// TestTrim answers what it may of a window that is too wide or too old, and
// counts the violation.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) {
			o.Answers.TooWide, o.Answers.TooOld = Trim, Trim
			o.Answers.Feed.Lookback = 20 * time.Hour
		})
		now := s.now()
		for _, test := range []struct {
			from, to time.Duration // asked, before now
			want     [2]time.Duration
			kind     ViolationKind
		}{
			{15 * time.Hour, time.Hour, [2]time.Duration{15 * time.Hour, 3 * time.Hour}, WindowTooWide},
			{24 * time.Hour, 18 * time.Hour, [2]time.Duration{20 * time.Hour, 18 * time.Hour}, WindowTooOld},
		} {
			before := s.Stats().Violations[test.kind]
			_, body := get(t, s, recordsURL("/v1/cdr_feed", now.Add(-test.from), now.Add(-test.to), "max=100000"))
			want := 0
			for r := range s.Truth("org-1", span(now.Add(-test.want[0]), test.want[0]-test.want[1])) {
				if !r.InsertTime.After(now) {
					want++
				}
			}
			got := len(itemsOf(t, body))
			if limit := 5000; want > limit {
				want = limit
			}
			if got != want {
				t.Errorf("%s: %d items, want %d", test.kind, got, want)
			}
			if s.Stats().Violations[test.kind] != before+1 {
				t.Errorf("%s is not counted", test.kind)
			}
		}
	})
}

// TestRateLimit spends the budget of a token in fake time.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = 1, 1, 10 })
		end := s.now().Add(-time.Hour)
		url := recordsURL("/v1/cdr_feed", end.Add(-10*time.Hour), end, "max=500")
		answer, _ := get(t, s, url)
		expectStatus(t, answer, 200)
		link := strings.TrimPrefix(nextLink(answer.Header), "http://example.com")
		for range 10 {
			answer, _ = get(t, s, link)
			expectStatus(t, answer, 200)
			time.Sleep(time.Second)
		}
		noViolations(t, s)

		answer, _ = get(t, s, link) // the eleventh page, 10 s after the first
		expectStatus(t, answer, 429)
		if got := answer.Header.Get("Retry-After"); got != "50" {
			t.Errorf("Retry-After %q, want 50", got)
		}
		time.Sleep(49 * time.Second)
		answer, _ = get(t, s, link) // a second too early: impatience
		expectStatus(t, answer, 429)
		time.Sleep(time.Second)
		answer, _ = get(t, s, link)
		expectStatus(t, answer, 200)
		answer, _ = get(t, s, link) // only one has left the minute
		expectStatus(t, answer, 429)
		time.Sleep(time.Minute)
		want := map[ViolationKind]int{TooManyPages: 2, TooImpatient: 1}
		for kind, n := range want {
			if got := s.Stats().Violations[kind]; got != n {
				t.Errorf("%d violations of kind %s, want %d", got, kind, n)
			}
		}

		answer, _ = get(t, s, url)
		expectStatus(t, answer, 200)
		time.Sleep(time.Minute - time.Nanosecond)
		answer, _ = get(t, s, strings.Replace(url, "feed", "stream", 1)) // the two endpoints share the bucket
		expectStatus(t, answer, 429)
		time.Sleep(2 * time.Second)
		answer, _ = get(t, s, url)
		expectStatus(t, answer, 200)
		if got := s.Stats().Violations[TooManyInitial]; got != 1 {
			t.Errorf("%d violations of kind %s, want 1", got, TooManyInitial)
		}
	})
}

// TestBudgetsAreApart gives each token its own minute.
func TestBudgetsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Count, o.Answers.InitialPerMinute = 2, 1 })
		end := s.now().Add(-time.Hour)
		url := recordsURL("/v1/cdr_feed", end.Add(-time.Hour), end)
		for _, token := range []string{"token-org-1", "token-org-2"} {
			answer, _ := get(t, s, url, "Authorization", "Bearer "+token)
			expectStatus(t, answer, 200)
		}
		// A refused request takes nothing from the budget.
		time.Sleep(59 * time.Second)
		answer, _ := get(t, s, url)
		expectStatus(t, answer, 429)
		time.Sleep(time.Second)
		answer, _ = get(t, s, url)
		expectStatus(t, answer, 200)
	})
}

// TestImpatienceWithOneRequest punishes the request that was told to wait, and
// no other.
func TestImpatienceWithOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, nil)
		must(t, s.Inject("org-1", Fault503))
		end := s.now().Add(-time.Hour)
		url := recordsURL("/v1/cdr_feed", end.Add(-time.Hour), end)
		answer, _ := get(t, s, url)
		expectStatus(t, answer, 503)
		answer, _ = get(t, s, url+"&max=500")
		expectStatus(t, answer, 200)
		answer, _ = get(t, s, url)
		expectStatus(t, answer, 429)
		time.Sleep(2 * time.Second)
		answer, _ = get(t, s, url)
		expectStatus(t, answer, 200)
		if got := s.Violations(); len(got) != 1 || got[0].Kind != TooImpatient {
			t.Errorf("violations %v, want one of impatience", got)
		}
	})
}

func expectStatus(t *testing.T, answer *http.Response, want int) {
	t.Helper()
	if answer.StatusCode != want {
		t.Fatalf("status %d, want %d", answer.StatusCode, want)
	}
}
