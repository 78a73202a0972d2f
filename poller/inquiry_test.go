package poller

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
)

// TestAsk: what Ask hands on, asks again after, and returns.
func TestAsk(t *testing.T) {
	linked := func(link string) http.HandlerFunc { return status(http.StatusOK, emptyPage, "Link: "+link) }
	const noCDRs = `{"message":"No CDRs for requested time range and filters","errorCode":404}`
	for _, c := range []struct {
		name     string
		replies  []http.HandlerFunc
		statuses []int
		check    func(*Reply) bool // of the last reply
		err      string
	}{
		{"a page", []http.HandlerFunc{page("")}, []int{200}, func(r *Reply) bool {
			return r.Next == nil && !r.Date.IsZero() && !r.Compressed && r.RetryAfter == RetryAfterAbsent
		}, ""},
		{"no records", []http.HandlerFunc{status(404, noCDRs)}, []int{404}, func(r *Reply) bool { return r.NoRecords }, ""},
		{"wrong URL", []http.HandlerFunc{status(404, `{"message":"nothing here"}`)}, []int{404}, func(r *Reply) bool { return !r.NoRecords }, ""},
		{"refused", []http.HandlerFunc{status(400, "")}, []int{400}, func(r *Reply) bool { return r.Remedy == "" }, ""},
		{"throttled", []http.HandlerFunc{status(429, "", "Retry-After: 7"), page("")}, []int{429, 200}, func(r *Reply) bool { return r.RetryAfter == RetryAfterAbsent }, ""},
		{"server's fault", []http.HandlerFunc{status(500, ""), status(503, "", "Retry-After: soon"), page("")}, []int{500, 503, 200}, nil, ""},
		{"token renewed", []http.HandlerFunc{status(401, ""), page("")}, []int{401, 200}, nil, ""},
		{"token refused", []http.HandlerFunc{status(401, ""), status(401, "")}, []int{401, 401}, func(r *Reply) bool { return r.Remedy != "" }, ""},
		{"role missing", []http.HandlerFunc{status(403, "")}, []int{403}, func(r *Reply) bool {
			return strings.Contains(r.Remedy, "scope") && strings.Contains(r.Remedy, "permission")
		}, ""},
		{"timed out", []http.HandlerFunc{status(504, "")}, []int{504}, nil, ""},
		{"redirect", []http.HandlerFunc{status(302, "", "Location: http://elsewhere.example/")}, []int{302}, nil, ""},
		{"foreign link", []http.HandlerFunc{linked(`<http://elsewhere.example/v1/cdr_feed?a=b>; rel="next"`)}, []int{200}, func(r *Reply) bool { return r.Next == nil && r.LinkErr != nil }, ""},
		{"double link", []http.HandlerFunc{linked(`<<http://127.0.0.1/v1/cdr_feed?startTimeForNextFetch=1999-12-31T22:00:00.123Z&totalCount=7>;rel="next">`)}, []int{200},
			func(r *Reply) bool {
				return r.Next.Doubled && r.Next.TotalCount == 7 && r.Next.Cursor.Nanosecond() == 123e6 && !strings.Contains(r.Next.Shape, "7")
			}, ""},
		{"single link", []http.HandlerFunc{linked(`<http://127.0.0.1/v1/cdr_feed?a=b>; rel="next"`)}, []int{200},
			func(r *Reply) bool { return !r.Next.Doubled && r.Next.TotalCount == -1 && r.Next.Cursor.IsZero() }, ""},
		{"other region", []http.HandlerFunc{status(451, "somewhere else")}, []int{451}, nil, "set url"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies)
				var statuses []int
				var last Reply
				err := s.feed.Ask(t.Context(), Inquiry{Span: testRequest().Span, Endpoint: cdr.Feed, PageSize: 10}, func(r *Reply) {
					statuses = append(statuses, r.Status)
					last = *r
				})
				if err == nil && c.err != "" || err != nil && (c.err == "" || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("ask: %v, want %q", err, c.err)
				}
				if len(statuses) != len(c.statuses) || statuses[len(statuses)-1] != c.statuses[len(statuses)-1] {
					t.Errorf("saw %v, want %v", statuses, c.statuses)
				}
				if c.check != nil && !c.check(&last) {
					t.Errorf("the last reply is %+v", last)
				}
				for _, request := range s.script.requests() {
					if max := request.query.Get("max"); max != "10" {
						t.Errorf("asked with max=%s", max)
					}
				}
				if len(s.net.dialed) > 0 && strings.Contains(strings.Join(s.net.dialed, " "), "elsewhere") {
					t.Errorf("dialed %v", s.net.dialed)
				}
			})
		})
	}
}

// TestAskSpendsTheBudget: an inquiry counts like any request, and a page of it as a page.
func TestAskSpendsTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Limits{InitialPerMinute: 1, PagesPerMinute: 1}, []http.HandlerFunc{page(cursor(1)), page(""), page("")})
		began := time.Now()
		inquiry := Inquiry{Span: testRequest().Span, Endpoint: cdr.Feed, PageSize: 500}
		ask := func() {
			t.Helper()
			if err := s.feed.Ask(t.Context(), inquiry, func(r *Reply) { inquiry.Next = r.Next }); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		ask()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the page of an inquiry waited %s for the initial bucket", took)
		}
		ask()
		if took := time.Since(began); took < time.Minute {
			t.Errorf("the second initial request went out after %s", took)
		}
	})
}
