package poller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"cdrbus/internal/cdr"
)

func repeatReply(n int, reply http.HandlerFunc, then ...http.HandlerFunc) []http.HandlerFunc {
	var all []http.HandlerFunc
	for range n {
		all = append(all, reply)
	}
	return append(all, then...)
}

func replies(all ...http.HandlerFunc) []http.HandlerFunc { return all }

const noCDRs = `{"message":"No CDRs for requested time range and filters","errorCode":404,"trackingId":"T_1"}`

// later5min is a Retry-After date, five minutes after the bubble's beginning.
const later5min = "Sat, 01 Jan 2000 00:05:00 GMT"

// TestTreatments holds every answer against what is done about it: how many
// requests, what comes out, and how long it takes. The script fails the test if
// one request more is made.
func TestTreatments(t *testing.T) {
	refused := func(message string) string { return `{"message":"` + message + `","trackingId":"T_1"}` }
	for _, c := range []struct {
		name    string
		replies []http.HandlerFunc
		want    string        // errorKind
		says    string        // a part of the error
		pages   int           // that reached the sink
		took    time.Duration // of fake time, to the second
	}{
		{name: "200", replies: replies(page("")), pages: 1},
		{name: "200, three pages, an empty one amid", replies: replies(page(cursor(1)), page(cursor(2)), page("")), pages: 3},
		{name: "200 HTML, then good", replies: replies(status(200, "<html>log in</html>"), page("")), pages: 1, took: time.Second},
		{name: "200 empty body, then good", replies: replies(status(200, ""), page("")), pages: 1, took: time.Second},
		{name: "200 HTML for ever", replies: repeatReply(7, status(200, " <html>")), want: "retry later", says: `"<html>": malformed page`, took: 63 * time.Second},
		{name: "201", replies: replies(status(201, "")), want: "stopped 201"},
		{name: "202 three times", replies: repeatReply(3, status(202, ""), page("")), pages: 1, took: 90 * time.Second},
		{name: "202 for ever", replies: repeatReply(4, status(202, "")), want: "retry later", says: "202 Accepted", took: 90 * time.Second},
		{name: "203", replies: replies(status(203, emptyPage)), want: "stopped 203"},
		{name: "204", replies: replies(status(204, ""))},
		{name: "206", replies: replies(status(206, emptyPage)), want: "stopped 206"},
		{name: "302 is not followed", replies: replies(status(302, "", "Location: https://evil.example/x?token=1")), want: "stopped 302", says: "redirecting to https://evil.example;"},
		{name: "304", replies: replies(status(304, "")), want: "stopped 304"},
		{name: "307 on a page", replies: replies(page(cursor(1)), status(307, "", "Location: /v1/cdr_feed")), want: "stopped 307", pages: 1},
		{name: "400, page size", replies: replies(status(400, refused("max")), page("")), pages: 1},
		{name: "400 whatever the page size", replies: replies(status(400, refused("bad")), status(400, refused("bad"))), want: "stopped 400", says: `"bad" (TrackingID cdrbus_`},
		{name: "400 and the server's clock is behind", replies: replies(status(400, refused("too recent"), "Date: Fri, 31 Dec 1999 23:04:00 GMT")), want: "retry later", says: "1m0s short of old enough"},
		{name: "400 on a link", replies: replies(page(cursor(1)), status(400, "")), want: "replan", pages: 1},
		{name: "401 once", replies: replies(status(401, ""), page("")), pages: 1},
		{name: "401 twice", replies: repeatReply(2, status(401, refused("expired"))), want: "stopped 401", says: "replace it, or authorise again"},
		{name: "401 twice for a scope", replies: repeatReply(2, status(401, "", `WWW-Authenticate: Bearer error="insufficient_scope"`)), want: "stopped 401", says: "spark-admin:calling_cdr_read"},
		{name: "401 on each of two pages", replies: replies(status(401, ""), page(cursor(1)), status(401, ""), page("")), pages: 2},
		{name: "403", replies: replies(status(403, refused("no"))), want: "stopped 403", says: "look alike"},
		{name: "403 for a scope", replies: replies(status(403, refused("Missing required scope"))), want: "stopped 403", says: "; give the integration"},
		{name: "403 for a role", replies: replies(status(403, refused("Caller lacks the role"))), want: "stopped 403", says: "; give the account"},
		{name: "404 without records", replies: replies(status(404, noCDRs))},
		{name: "404 without records, other case", replies: replies(status(404, refused("no cdrs found")))},
		{name: "404 of a wrong path", replies: replies(status(404, refused("Not Found"))), want: "stopped 404", says: "check url"},
		{name: "404 that only looks so", replies: replies(status(404, "No CDRs for requested time range")), want: "stopped 404"},
		{name: "404 in HTML", replies: replies(status(404, "<html>No CDRs</html>")), want: "stopped 404"},
		{name: "404 cut, then whole", replies: replies(breaks("HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n"+noCDRs[:30]), status(404, noCDRs)), took: time.Second},
		{name: "404 without records on a link", replies: replies(page(cursor(1)), status(404, noCDRs)), pages: 1},
		{name: "404 on a link", replies: replies(page(cursor(1)), status(404, refused("gone"))), want: "replan", pages: 1},
		{name: "405", replies: replies(status(405, "")), want: "stopped 405"},
		{name: "407", replies: replies(status(407, "")), want: "stopped 407"},
		{name: "409 twice", replies: repeatReply(2, status(409, ""), page("")), pages: 1, took: 3 * time.Second},
		{name: "409 for ever", replies: repeatReply(3, status(409, "")), want: "stopped 409", took: 3 * time.Second},
		{name: "410 once", replies: replies(status(410, ""), page("")), pages: 1, took: time.Second},
		{name: "410 twice", replies: repeatReply(2, status(410, "")), want: "stopped 410", says: "withdrawn", took: time.Second},
		{name: "410 on a link", replies: replies(page(cursor(1)), status(410, "")), want: "replan", pages: 1},
		{name: "415", replies: replies(status(415, "")), want: "stopped 415"},
		{name: "418", replies: replies(status(418, "")), want: "stopped 418"},
		{name: "423 without a wait", replies: replies(status(423, ""), page("")), pages: 1, took: time.Minute},
		{name: "423 with seconds, on a page", replies: replies(page(cursor(1)), status(423, "", "Retry-After: 7"), page("")), pages: 2, took: 7 * time.Second},
		{name: "423 for ever", replies: repeatReply(5, status(423, "", "Retry-After: 7")), want: "retry later", says: "trying again in 7s", took: 28 * time.Second},
		{name: "428", replies: replies(status(428, "")), want: "stopped 428"},
		{name: "429 without a wait", replies: replies(status(429, ""), page("")), pages: 1, took: time.Minute},
		{name: "429 with seconds", replies: replies(status(429, "", "Retry-After: 17"), page("")), pages: 1, took: 17 * time.Second},
		{name: "429 with a date, on a page", replies: replies(page(cursor(1)), status(429, "", "Retry-After: "+later5min), page("")), pages: 2, took: 5 * time.Minute},
		{name: "429 with a day, on a page", replies: replies(page(cursor(1)), status(429, "", "Retry-After: 86400"), page("")), pages: 2, took: 15 * time.Minute},
		{name: "429 with garbage", replies: replies(status(429, "", "Retry-After: -5"), page("")), pages: 1, took: time.Minute},
		{name: "429 with a long wait, before anything was read", replies: replies(status(429, "", "Retry-After: 300")), want: "retry later", says: "429 Too Many Requests"},
		{name: "451 without a host", replies: replies(status(451, refused("elsewhere"))), want: "stopped 451", says: "names no host"},
		{name: "451 with a host that is not ours", replies: replies(status(451, `{"message":"https://analytics-calling-eu.webexapis.com.evil.example"}`)), want: "stopped 451", says: "names no host"},
		{name: "451 with two hosts", replies: replies(status(451, "analytics-calling-eu.webexapis.com or analytics-calling-in.webexapis.com")), want: "stopped 451", says: "the right one of https://analytics-calling-eu.webexapis.com, https://analytics-calling-in"},
		{name: "500, 502, then good", replies: replies(status(500, ""), status(502, "<html>"), page("")), pages: 1, took: 3 * time.Second},
		{name: "500 for ever", replies: repeatReply(7, status(500, "")), want: "retry later", says: "trying again in 1m0s", took: 63 * time.Second},
		{name: "503 with a wait", replies: replies(status(503, "", "Retry-After: 20"), page("")), pages: 1, took: 20 * time.Second},
		{name: "503 with a long wait", replies: replies(status(503, "", "Retry-After: 600")), want: "retry later", says: "trying again in 10m0s"},
		{name: "504, smaller and smaller", replies: repeatReply(4, status(504, ""), page("")), pages: 1, took: 15 * time.Second},
		{name: "504 for ever", replies: repeatReply(7, status(504, "")), want: "replan, half", took: 63 * time.Second},
		{name: "504 on a link", replies: replies(page(cursor(1)), status(504, ""), status(504, ""), status(504, "")), want: "replan", pages: 1, took: 3 * time.Second},
		{name: "599", replies: replies(status(599, ""), page("")), pages: 1, took: time.Second},

		{name: "connection broken", replies: replies(breaks(""), page("")), pages: 1, took: time.Second},
		{name: "connection broken for ever", replies: repeatReply(7, breaks("")), want: "retry later", says: "GET http://127.0.0.1/v1/cdr_feed: EOF (TrackingID", took: 63 * time.Second},
		{name: "no HTTP", replies: replies(breaks("SSH-2.0-x\r\n"), page("")), pages: 1, took: time.Second},
		{name: "body cut", replies: replies(page(cursor(1)), breaks("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\":["), page("")), pages: 2, took: time.Second},
		{name: "chunked body cut", replies: replies(breaks("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ite\r\n"), page("")), pages: 1, took: time.Second},
		{name: "body stalls", replies: replies(hangs, page("")), pages: 1, took: 31 * time.Second},
		{name: "no answer", replies: replies(silent, page("")), pages: 1, took: 61 * time.Second},
		{name: "no answer for ever", replies: repeatReply(2, silent), want: "retry later", says: "no answer within the deadline", took: 121 * time.Second},
		{name: "an encoding not asked for", replies: replies(status(200, emptyPage, "Content-Encoding: br"), page("")), pages: 1, took: time.Second},

		{name: "link to another host", replies: replies(page("", "Link: <http://evil.example/v1/cdr_feed?startTimeForNextFetch=1>; rel=next")), want: "stopped 200", says: "it leads to http://evil.example/v1/cdr_feed,"},
		{name: "link to another port", replies: replies(page("", "Link: <http://127.0.0.1:81/v1/cdr_feed?startTimeForNextFetch=1>; rel=next")), want: "stopped 200"},
		{name: "link to another scheme", replies: replies(page("", "Link: <https://127.0.0.1:80/v1/cdr_feed?startTimeForNextFetch=1>; rel=next")), want: "stopped 200"},
		{name: "link to another path", replies: replies(page("", "Link: </v1/cdr_stream?startTimeForNextFetch=1>; rel=next")), want: "stopped 200"},
		{name: "link with a user", replies: replies(page("", "Link: <http://u@127.0.0.1/v1/cdr_feed?startTimeForNextFetch=1>; rel=next")), want: "stopped 200"},
		{name: "unreadable link, then none", replies: replies(page("", "Link: </v1/cdr_feed; rel=next"), page("")), pages: 1, took: time.Second},
		{name: "cursor does not move", replies: replies(page(cursor(1)), page(cursor(1))), want: "replan", says: "the cursor stays at 1999-12-31T22:01:00Z with 5000", pages: 1},
		{name: "cursor does not move at the end", replies: replies(page("1999-12-31T23:00:00.000Z"), page("1999-12-31T23:00:00.000Z")), pages: 2},
		{name: "link met before", replies: replies(page(cursor(1)), page(cursor(2)), page(cursor(1))), want: "replan", says: "met before", pages: 2},
		{name: "too many pages", replies: replies(page(cursor(1)), page(cursor(2)), page(cursor(3)), page(cursor(4))), want: "replan, half", says: "no more than 4 pages", pages: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies)
				s.feed.maxPages = 4
				began := time.Now()
				out, err := s.fetch(t.Context())
				if got := errorKind(err); got != c.want {
					t.Errorf("Fetch ended with %q (%v), want %q", got, err, c.want)
				}
				if c.says != "" && !strings.Contains(fmt.Sprint(err), c.says) {
					t.Errorf("error %q does not say %q", err, c.says)
				}
				checkNoSecrets(t, err)
				if got := time.Since(began).Round(time.Second); got != c.took {
					t.Errorf("Fetch took %s, want %s", got, c.took)
				}
				if got := len(s.script.requests()); got != len(c.replies) || out.Requests != got || len(s.seen) != got {
					t.Errorf("%d requests seen, %d counted, %d observed, want %d", got, out.Requests, len(s.seen), len(c.replies))
				}
				if len(s.sink.bodies) != c.pages || out.Pages != c.pages {
					t.Errorf("%d pages reached the sink, %d counted, want %d", len(s.sink.bodies), out.Pages, c.pages)
				}
			})
		})
	}
}

func checkNoSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"secret-token", "startTime=", "?"} {
		if strings.Contains(fmt.Sprintf("%v %+v", err, err), secret) {
			t.Errorf("error %q shows %q", err, secret)
		}
	}
}

// TestEveryStatusHasATreatment walks through all statuses: none may be read as a
// page or as empty but those that are.
func TestEveryStatusHasATreatment(t *testing.T) {
	for code := 200; code < 600; code++ {
		how := treatmentOf(code)
		if (how.action == readPage) != (code == 200) || (how.action == endEmpty) != (code == 204) {
			t.Errorf("status %d is treated as %d", code, how.action)
		}
		if how.action == stop && how.remedy == "" && code != 403 {
			t.Errorf("status %d stops the source without a remedy", code)
		}
	}
}

func TestRequestOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(page(cursor(1)), page("")), func(o *FeedOptions) {
			o.URL = mustURL("http://127.0.0.1/v1/cdr_feed?orgId=partner")
			o.Locations = []string{"Main Street / 1", "Zürich+"}
		})
		if _, err := s.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		first, second := s.script.requests()[0], s.script.requests()[1]
		want := "orgId=partner&startTime=1999-12-31T22:00:00.000Z&endTime=1999-12-31T23:00:00.000Z&locations=Main%20Street%20%2F%201,Z%C3%BCrich%2B&max=5000"
		if first.raw != want {
			t.Errorf("first query is\n%s, want\n%s", first.raw, want)
		}
		want = "endTime=1999-12-31T23:00:00.000Z&startTime=1999-12-31T22:00:00.000Z&startTimeForNextFetch=1999-12-31T22:01:00.000Z&totalCount=20000&max=5000&orgId=O"
		if second.raw != want {
			t.Errorf("next link was asked as\n%s, want it untouched:\n%s", second.raw, want)
		}
		for name, want := range map[string]string{
			"Authorization": "Bearer secret-token-1", "Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "cdrbus/1.2.3",
		} {
			if got := first.header.Get(name); got != want {
				t.Errorf("header %s is %q, want %q", name, got, want)
			}
		}
		if first.length != 0 || first.header.Get("Transfer-Encoding") != "" {
			t.Errorf("the GET has a body of %d bytes", first.length)
		}
		one, two := first.header.Get("TrackingID"), second.header.Get("TrackingID")
		if !strings.HasPrefix(one, "cdrbus_") || len(one) != 43 || one == two {
			t.Errorf("TrackingIDs %q and %q are not one to each attempt", one, two)
		}
	})
}

func TestStreamEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(page("")))
		request := testRequest()
		request.Endpoint = cdr.Stream
		if _, err := s.feed.Fetch(t.Context(), request, s.sink); err != nil {
			t.Fatal(err)
		}
		if got := s.script.requests()[0].path; got != "/v1/cdr_stream" {
			t.Errorf("the stream was asked at %s", got)
		}
	})
}

func TestOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := newSetup(t, highLimits, replies(
			status(500, ""),
			page(cursor(1), "Date: Sat, 01 Jan 2000 00:00:31 GMT"),
			page("")))
		out, err := s.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := Outcome{
			Pages: 2, Requests: 3, TotalCount: 20000, Bytes: 2 * int64(len(emptyPage)),
			ServerDate: began.Add(31 * time.Second).UTC(), Skew: out.Skew, Waited: time.Second,
			FirstRequestAt: began, LastInitialAt: began.Add(time.Second), LastRequestAt: began.Add(time.Second),
			PageSize: 5000, Host: "127.0.0.1",
		}
		for _, at := range []*time.Time{&out.FirstRequestAt, &out.LastInitialAt, &out.LastRequestAt, &want.FirstRequestAt, &want.LastInitialAt, &want.LastRequestAt} {
			*at = at.Round(0).UTC()
		}
		out.ServerDate = out.ServerDate.UTC()
		if out != want {
			t.Errorf("Outcome is\n%+v, want\n%+v", out, want)
		}
	})
}

func TestSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(page("", "Date: Sat, 01 Jan 2000 00:00:31 GMT")))
		out, err := s.fetch(t.Context())
		if err != nil || out.Skew != 31500*time.Millisecond {
			t.Errorf("skew is %s, %v; want 31.5s: the Date is cut to the second", out.Skew, err)
		}
	})
}

// TestUnproven lists the ends that are complete in form and prove nothing.
func TestUnproven(t *testing.T) {
	withoutCount := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "<"+strings.Replace(linkTo(r, cursor(1)), "totalCount=20000&", "", 1)+`>; rel="next"`)
		fmt.Fprint(w, emptyPage)
	}
	for _, c := range []struct {
		name    string
		replies []http.HandlerFunc
		proven  bool
		total   int64
	}{
		{"one page", replies(page("")), true, -1},
		{"404 without records", replies(status(404, noCDRs)), true, 0},
		{"204", replies(status(204, "")), false, -1},
		{"204 on a link", replies(page(cursor(1)), status(204, "")), false, 20000},
		{"404 without records on a link", replies(page(cursor(1)), status(404, noCDRs)), true, 20000},
		{"the same without a count", replies(withoutCount, status(404, noCDRs)), false, -1},
		{"cursor stuck at the end", replies(page("1999-12-31T23:00:00.000Z"), page("1999-12-31T23:00:00.000Z")), false, 20000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies)
				out, err := s.fetch(t.Context())
				if err != nil || (out.Unproven == "") != c.proven || out.TotalCount != c.total {
					t.Errorf("unproven %q, total %d, %v; want proven %t, total %d", out.Unproven, out.TotalCount, err, c.proven, c.total)
				}
			})
		})
	}
}

// TestAgeRule: a window counts only if the feed's own clock says so, for a page
// as for an empty answer, and without a Date the local clock needs a margin.
func TestAgeRule(t *testing.T) {
	const (
		youngDate = "Date: Fri, 31 Dec 1999 23:04:59 GMT"
		oldDate   = "Date: Fri, 31 Dec 1999 23:05:00 GMT"
		noDate    = "Date:"
	)
	localMin := 5*time.Minute + clockMargin
	for _, c := range []struct {
		name     string
		reply    http.HandlerFunc
		endedAgo time.Duration // by the local clock
		after    time.Duration // of the RetryLater; 0: none
		undated  bool
	}{
		{"page, old enough", page("", oldDate), time.Hour, 0, false},
		{"page, a second short", page("", youngDate), time.Hour, 2 * time.Second, false},
		{"204, a second short", status(204, "", youngDate), time.Hour, 2 * time.Second, false},
		{"404, a second short", status(404, noCDRs, youngDate), time.Hour, 2 * time.Second, false},
		{"no Date, old enough with the margin", page("", noDate), localMin, 0, true},
		{"no Date, a second short of the margin", page("", noDate), localMin - time.Second, 2 * time.Second, true},
		{"a Date that is none", page("", "Date: yesterday"), localMin - 10*time.Second, 11 * time.Second, true},
		{"a Date of last year", page("", "Date: Thu, 31 Dec 1998 23:05:00 GMT"), time.Hour, maxYoungWait, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, replies(c.reply))
				request := testRequest()
				request.Span.EndExclusive = cdr.InstantOf(time.Now()).Add(-c.endedAgo)
				out, err := s.feed.Fetch(t.Context(), request, s.sink)
				var later *RetryLater
				switch {
				case c.after == 0 && err != nil:
					t.Errorf("Fetch = %v, want success", err)
				case c.after != 0 && (!errors.As(err, &later) || later.After != c.after || len(s.sink.calls) != 0):
					t.Errorf("Fetch = %v with %d pages, want to retry after %s with none", err, len(s.sink.calls), c.after)
				}
				if out.ServerDate.IsZero() != c.undated {
					t.Errorf("the Outcome says that the server's date was %s", out.ServerDate)
				}
			})
		})
	}
}

// TestSink: a malformed page is asked for again, anything else ends the window.
func TestSink(t *testing.T) {
	malformed := fmt.Errorf("item 3: %w", cdr.ErrMalformedPage)
	t.Run("malformed once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, highLimits, replies(page(cursor(1)), page(""), page("")))
			s.sink.errs[1] = []error{malformed}
			out, err := s.fetch(t.Context())
			if err != nil || out.Pages != 2 || fmt.Sprint(s.sink.calls) != "[0 1 1]" {
				t.Errorf("Fetch = %+v, %v with calls %v", out, err, s.sink.calls)
			}
			if a, b := s.script.requests()[1].raw, s.script.requests()[2].raw; a != b {
				t.Errorf("the page was asked again as\n%s, not as\n%s", b, a)
			}
		})
	})
	t.Run("malformed for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, highLimits, repeatReply(7, page("")))
			s.sink.errs[0] = []error{malformed, malformed, malformed, malformed, malformed, malformed, malformed}
			if _, err := s.fetch(t.Context()); errorKind(err) != "retry later" || !errors.Is(err, cdr.ErrMalformedPage) {
				t.Errorf("Fetch = %v", err)
			}
		})
	})
	t.Run("too large", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, highLimits, replies(page(cursor(1)), page(cursor(2))))
			s.sink.errs[1] = []error{cdr.ErrWindowTooLarge}
			if _, err := s.fetch(t.Context()); err != cdr.ErrWindowTooLarge {
				t.Errorf("Fetch = %v, want the sink's error as it is", err)
			}
		})
	})
}

// TestTokens: the token of an answer is the one that is rejected, the new one is
// used, and what the source says about itself is passed on.
func TestTokens(t *testing.T) {
	t.Run("renewed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, highLimits, replies(status(401, ""), page("")))
			if _, err := s.fetch(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := s.script.requests()[1].header.Get("Authorization"); got != "Bearer secret-token-2" || fmt.Sprint(s.tokens.rejected) != "[secret-token-1]" {
				t.Errorf("rejected %v, then used %q", s.tokens.rejected, got)
			}
		})
	})
	for _, c := range []struct {
		err  error
		want string
	}{
		{&Stopped{Code: 400, Message: "refresh token is revoked"}, "stopped 400"},
		{&RetryLater{After: time.Hour, Cause: errors.New("token endpoint is down")}, "retry later"},
		{errors.New("cannot read file"), "retry later"},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, DefaultLimits, nil)
				s.tokens.err = c.err
				if _, err := s.fetch(t.Context()); errorKind(err) != c.want {
					t.Errorf("Fetch = %v, want %s", err, c.want)
				}
				if next := s.budget.View(time.Now()).NextInitial; next.After(time.Now()) {
					t.Errorf("no request was made, but the next may go only at %s", next)
				}
			})
		})
	}
}

// TestAgedOut: a 400 at the edge of the lookback is a loss, not a puzzle.
func TestAgedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, repeatReply(2, status(400, "")))
		request := testRequest()
		request.Span.StartInclusive = cdr.InstantOf(time.Now()).Add(-request.Lookback + agedOutMargin/2)
		_, err := s.feed.Fetch(t.Context(), request, s.sink)
		var aged *AgedOut
		if !strings.Contains(fmt.Sprint(err), "at the edge of what the feed keeps") {
			t.Errorf("error %q does not say what happened", err)
		}
		if !errors.As(err, &aged) || aged.Start != request.Span.StartInclusive || aged.Age != request.Lookback-agedOutMargin/2 {
			t.Errorf("Fetch = %v, want it aged out", err)
		}
	})
}

// TestPageSize: what the feed takes is learned for later windows, and a fixed
// size is never second-guessed.
func TestPageSize(t *testing.T) {
	sizes := func(s *setup) string {
		var all []string
		for _, r := range s.script.requests() {
			all = append(all, r.query.Get("max"))
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		name    string
		fixed   int
		replies []http.HandlerFunc
		want    string
		next    int
		told    bool // the second request passes the first's page size on
	}{
		{"refused once, then remembered", 0, replies(status(400, ""), page(""), page("")), "5000 500 500", 500, false},
		{"accepted: a later 400 is about something else", 0, replies(page(""), status(400, "")), "5000 5000", 5000, false},
		{"refused, then empty", 0, replies(status(400, ""), status(404, noCDRs), page("")), "5000 500 500", 500, false},
		{"fixed", 1000, replies(page(""), status(400, "")), "1000 1000", 1000, false},
		{"timeouts halve it for the next window too", 0, replies(status(504, ""), status(504, ""), page(""), page("")), "5000 2500 1250 1250", 1250, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies, func(o *FeedOptions) { o.PageSize = c.fixed })
				request := testRequest()
				first, _ := s.feed.Fetch(t.Context(), request, s.sink)
				if c.told {
					request.PageSize = first.PageSize
				}
				second, _ := s.feed.Fetch(t.Context(), request, s.sink)
				if got := sizes(s); got != c.want || second.PageSize != c.next {
					t.Errorf("asked for %s, next %d; want %s, next %d", got, second.PageSize, c.want, c.next)
				}
			})
		})
	}
}

func TestPageTooLarge(t *testing.T) {
	body := `{"items":["` + strings.Repeat("x", 2000) + `"]}`
	for _, c := range []struct {
		name    string
		replies []http.HandlerFunc
		want    string
	}{
		{"smaller pages are small enough", replies(status(200, body), page("")), ""},
		{"at the smallest", repeatReply(5, status(200, body)), "replan, half"},
		{"on a link", replies(page(cursor(1)), status(200, body)), "replan"},
		{"packed", replies(status(200, gzipped(body), "Content-Encoding: gzip"), page("")), ""},
		{"just the limit", replies(status(200, body[:1000-2]+"]}")), ""},
		{"an error body is cut", replies(status(403, body)), "stopped 403"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies)
				s.feed.maxPageBytes = 1000
				if _, err := s.fetch(t.Context()); errorKind(err) != c.want {
					t.Errorf("Fetch = %v, want %q", err, c.want)
				}
				if got := len(s.script.requests()); got != len(c.replies) {
					t.Errorf("%d requests, want %d", got, len(c.replies))
				}
			})
		})
	}
}

// TestPageBufferIsBounded: one byte beyond the limit is read to know, and no
// memory is taken for more, whatever the body promises.
func TestPageBufferIsBounded(t *testing.T) {
	for _, limitBytes := range []int{10, firstPageBytes, 2*firstPageBytes + 10} {
		body := &endless{}
		buffer := new(pageBuffer)
		if err := buffer.read(http.Header{}, body, limitBytes); !errors.Is(err, errPageTooLarge) {
			t.Errorf("an endless body ended with %v", err)
		}
		if body.read != limitBytes+1 || len(buffer.data) != limitBytes || cap(buffer.data) > limitBytes+limitBytes/2+64 {
			t.Errorf("limit %d: %d bytes read into %d of %d", limitBytes, body.read, len(buffer.data), cap(buffer.data))
		}
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.String()
}

func TestGzip(t *testing.T) {
	const body = `{"items":["packed"]}`
	packed := gzipped(body)
	for _, c := range []struct {
		name    string
		replies []http.HandlerFunc
	}{
		{"whole", replies(status(200, packed, "Content-Encoding: gzip"))},
		{"in capitals", replies(status(200, packed, "Content-Encoding: GZIP"))},
		{"cut, then whole", replies(status(200, packed[:len(packed)-9], "Content-Encoding: gzip"), status(200, packed, "Content-Encoding: gzip"))},
		{"cut to nothing, then whole", replies(status(200, "", "Content-Encoding: gzip"), status(200, packed, "Content-Encoding: gzip"))},
		{"broken, then whole", replies(status(200, "{}", "Content-Encoding: gzip"), status(200, packed, "Content-Encoding: gzip"))},
		{"not packed at all", replies(status(200, body))},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies)
				out, err := s.fetch(t.Context())
				if err != nil || len(s.sink.bodies) != 1 || s.sink.bodies[0] != body || out.Bytes != int64(len(body)) || out.Requests != len(c.replies) {
					t.Errorf("Fetch = %+v, %v with %q; want %d requests", out, err, s.sink.bodies, len(c.replies))
				}
			})
		})
	}
}

// TestSlowBody: a body that trickles is ended by the deadline of the whole.
func TestSlowBody(t *testing.T) {
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			fmt.Fprint(w, " ")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Second):
			}
		}
		fmt.Fprint(w, emptyPage)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(trickle))
		began := time.Now()
		out, err := s.fetch(t.Context())
		if errorKind(err) != "retry later" || time.Since(began) != defaultBodyTimeout || out.PageSize != 2500 {
			t.Errorf("Fetch = %v after %s, next page size %d", err, time.Since(began), out.PageSize)
		}
	})
}

// TestNoHiddenRepeat: net/http repeats a GET by itself when a kept connection
// breaks. The server would count both, and we one.
func TestNoHiddenRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(page(cursor(1)), breaks(""), page("")))
		began := time.Now()
		out, err := s.fetch(t.Context())
		if err != nil || out.Requests != 3 || len(s.script.requests()) != 3 {
			t.Errorf("Fetch = %+v, %v; the server saw %d requests", out, err, len(s.script.requests()))
		}
		if got := time.Since(began); got != time.Second {
			t.Errorf("the page came after %s: the transport repeated the request itself", got)
		}
		if got := len(s.net.dialed); got != 2 {
			t.Errorf("%d connections for three requests, one of them broken; want 2", got)
		}
	})
}

// TestNoConnectionCostsNoBudget: what never left this machine is not counted.
func TestNoConnectionCostsNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, DefaultLimits, replies(page("")))
		s.net.refuse = 3
		began := time.Now()
		if _, err := s.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(began); got != 7*time.Second {
			t.Errorf("the page came after %s, want only the backoff of 7s", got)
		}
	})
}

func TestRegion(t *testing.T) {
	moved := status(451, `{"message":"This server cannot serve the data for this organization. Please use https://analytics-calling-eu.webexapis.com","errorCode":451}`)
	regional := func(t *testing.T, strict bool, first []http.HandlerFunc, there []http.HandlerFunc) (*setup, *script) {
		certificate, roots := authority()
		s := newSetup(t, highLimits, nil, func(o *FeedOptions) {
			o.URL = mustURL("https://analytics-calling.webexapis.com/v1/cdr_feed")
			o.HTTP.RootCAs = roots
			o.StrictRegion = strict
		})
		s.feed.client.Transport.(*http.Transport).DialContext = s.net.DialContext
		s.script.replies = first
		europe := &script{t: t, replies: there}
		s.net.serve(t, "analytics-calling.webexapis.com:443", certificate, s.script)
		s.net.serve(t, "analytics-calling-eu.webexapis.com:443", certificate, europe)
		return s, europe
	}
	t.Run("changes once and remembers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, europe := regional(t, false, replies(moved), replies(page(cursor(1)), page(""), page("")))
			out, err := s.fetch(t.Context())
			if err != nil || out.Host != "analytics-calling-eu.webexapis.com" || out.Pages != 2 {
				t.Fatalf("Fetch = %+v, %v", out, err)
			}
			if _, err := s.fetch(t.Context()); err != nil || len(europe.requests()) != 3 {
				t.Errorf("the second window asked %d times in the region, %v", len(europe.requests()), err)
			}
		})
	})
	t.Run("strict stops and names the host", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := regional(t, true, replies(moved), nil)
			if _, err := s.fetch(t.Context()); errorKind(err) != "stopped 451" || !strings.Contains(err.Error(), "set url to https://analytics-calling-eu.webexapis.com/v1/cdr_feed") {
				t.Errorf("Fetch = %v", err)
			}
		})
	})
	t.Run("never twice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			back := status(451, "analytics-calling.webexapis.com")
			s, _ := regional(t, false, replies(moved), replies(back))
			if _, err := s.fetch(t.Context()); errorKind(err) != "stopped 451" || !strings.Contains(err.Error(), "changed once already") {
				t.Errorf("Fetch = %v", err)
			}
		})
	})
	t.Run("amid a window begins it again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := regional(t, false, replies(page(cursor(1)), moved), replies(page("")))
			if _, err := s.fetch(t.Context()); errorKind(err) != "replan" {
				t.Errorf("Fetch = %v", err)
			}
			if _, err := s.fetch(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("unknown authority", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := regional(t, false, nil, nil)
			s.feed.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
			if _, err := s.fetch(t.Context()); errorKind(err) != "retry later" || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("Fetch = %v, want it to speak of the certificate", err)
			}
		})
	})
}

// TestTokenStaysHome asks where a token may go, one URL after another.
func TestTokenStaysHome(t *testing.T) {
	s := newSetup(t, highLimits, nil, func(o *FeedOptions) { o.URL = mustURL("https://cdr.example:8443/v1/cdr_feed") })
	for target, want := range map[string]bool{
		"https://cdr.example:8443/x":                          true,
		"https://CDR.example:8443/x":                          true,
		"https://cdr.example/x":                               false,
		"http://cdr.example:8443/x":                           false,
		"https://analytics-calling-eu.webexapis.com/x":        true,
		"https://analytics-calling-eu.webexapis.com:444/x":    false,
		"http://analytics-calling-eu.webexapis.com/x":         false,
		"https://analytics-calling-xx.webexapis.com/x":        false,
		"https://user@analytics-calling-eu.webexapis.com/x":   false,
		"https://analytics-calling-eu.webexapis.com.evil.x/x": false,
	} {
		if got := s.feed.mayCarryToken(mustURL(target)); got != want {
			t.Errorf("mayCarryToken(%s) = %t", target, got)
		}
	}
}

// TestGetRefusesOtherHosts is the last line of defence: however a URL came to be
// asked, the token does not go there, nor anything else.
func TestGetRefusesOtherHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, DefaultLimits, nil)
		evil := &script{t: t}
		s.net.serve(t, "evil.example:443", nil, evil)
		if err := s.budget.Wait(t.Context(), Initial); err != nil {
			t.Fatal(err)
		}
		_, err := s.feed.get(t.Context(), mustURL("https://evil.example/v1/cdr_feed"), Token{AccessToken: "secret"}, Initial, new(pageBuffer))
		if errorKind(err) != "stopped 0" || len(s.net.dialed) != 0 {
			t.Errorf("get = %v after dialing %v", err, s.net.dialed)
		}
		if next := s.budget.View(time.Now()).NextInitial; next.After(time.Now()) {
			t.Errorf("nothing was sent, but the next request may go only at %s", next)
		}
	})
}

// TestTimeoutsHalveTheSpan: a window that the feed never manages in time gets
// shorter, also where each try takes so long that patience ends first.
func TestTimeoutsHalveTheSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, repeatReply(2, silent), func(o *FeedOptions) { o.PageSize = SmallestPageSize })
		if _, err := s.fetch(t.Context()); errorKind(err) != "replan, half" || len(s.script.requests()) != 2 {
			t.Errorf("Fetch = %v after %d requests", err, len(s.script.requests()))
		}
	})
}

func TestProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, nil, func(o *FeedOptions) {
			o.URL = mustURL("http://cdr.example/v1/cdr_feed")
			o.HTTP.InsecureHTTPHosts = []string{"cdr.example"}
			o.HTTP.Proxy = http.ProxyURL(mustURL("http://proxy.example:3128"))
		})
		through := &script{t: t, replies: replies(page(""))}
		s.net.serve(t, "proxy.example:3128", nil, through)
		if _, err := s.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := through.requests()[0].host; got != "cdr.example" {
			t.Errorf("the proxy was asked for %s", got)
		}
	})
}

// TestCancel: a context that ends, ends every kind of waiting at once, with its
// own cause.
func TestCancel(t *testing.T) {
	cause := errors.New("the daemon ends")
	for name, reply := range map[string]http.HandlerFunc{
		"no answer": silent, "stalled body": hangs, "throttled": status(429, ""), "backing off": status(500, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, repeatReply(1, reply))
				ctx, cancel := context.WithCancelCause(t.Context())
				began := time.Now()
				time.AfterFunc(500*time.Millisecond, func() { cancel(cause) })
				if _, err := s.fetch(ctx); !errors.Is(err, cause) {
					t.Errorf("Fetch = %v, want the cause", err)
				}
				if took := time.Since(began); took != 500*time.Millisecond {
					t.Errorf("Fetch ended after %s", took)
				}
			})
		})
	}
	t.Run("budget", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, DefaultLimits, replies(page("")))
			s.fetch(t.Context())
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
			defer cancel()
			if _, err := s.fetch(ctx); !errors.Is(err, cause) {
				t.Errorf("Fetch = %v, want the cause", err)
			}
		})
	})
}

// TestLog: one line when trouble begins, one when it ends; never a secret.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		s := newSetup(t, highLimits, append(repeatReply(4, status(500, "Bearer secret-token-1 of someone@example.com")), page("")),
			func(o *FeedOptions) { o.Log = zap.New(core) })
		if _, err := s.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, entry := range logs.All() {
			lines = append(lines, fmt.Sprint(entry.Message, entry.ContextMap()))
		}
		all := strings.Join(lines, "\n")
		if len(lines) != 2 || !strings.Contains(all, "failures:4") {
			t.Errorf("logged\n%s\nwant two lines", all)
		}
		for _, secret := range []string{"secret", "someone", "startTime="} {
			if strings.Contains(all, secret) {
				t.Errorf("logged\n%s\nwhich shows %q", all, secret)
			}
		}
	})
}

func TestNewFeedRefuses(t *testing.T) {
	good := func() FeedOptions {
		return FeedOptions{Source: "acme", URL: mustURL("https://cdr.example/v1/cdr_feed"), Tokens: &fakeTokens{}, Budget: NewBudget(DefaultLimits, time.Time{}, time.Now())}
	}
	if _, err := NewFeed(good()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		says   string
		change func(*FeedOptions)
	}{
		{"source name", func(o *FeedOptions) { o.Source = "" }},
		{"are required", func(o *FeedOptions) { o.Budget = nil }},
		{"insecure_http_hosts", func(o *FeedOptions) { o.URL = mustURL("http://cdr.example/v1/cdr_feed") }},
		{"want https", func(o *FeedOptions) { o.URL = mustURL("ftp://cdr.example/v1/cdr_feed") }},
		{"names no host", func(o *FeedOptions) { o.URL = mustURL("/v1/cdr_feed") }},
		{"user and password", func(o *FeedOptions) { o.URL = mustURL("https://u:hunter2@cdr.example/v1/cdr_feed") }},
		{"take max out", func(o *FeedOptions) { o.URL = mustURL("https://cdr.example/v1/cdr_feed?max=7") }},
		{"page size 5001", func(o *FeedOptions) { o.PageSize = 5001 }},
		{"page size -1", func(o *FeedOptions) { o.PageSize = -1 }},
		{"11 locations", func(o *FeedOptions) { o.Locations = strings.Split("abcdefghijk", "") }},
		{`location "a,b"`, func(o *FeedOptions) { o.Locations = []string{"a,b"} }},
	} {
		options := good()
		c.change(&options)
		_, err := NewFeed(options)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("NewFeed = %v, want it to say %q", err, c.says)
		}
	}
}

func TestTokenIsNeverPrinted(t *testing.T) {
	token := Token{AccessToken: "hunter2", Expiry: time.Now()}
	core, logs := observer.New(zap.DebugLevel)
	zap.New(core).Info("x", zap.Any("token", token), zap.Object("object", token), zap.Reflect("reflect", token))
	text := fmt.Sprintf("%v %+v %#v %s %q %x", token, token, token, token, token, token)
	marshalled, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	text += string(marshalled)
	text += fmt.Sprint([]Token{token}, &token, struct{ T Token }{token}, logs.All()[0].ContextMap())
	if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
		t.Errorf("the token is printed: %s", text)
	}
}

// TestThrottleDrains: a 429 speaks for the whole credential, a 423 for one source.
func TestThrottleDrains(t *testing.T) {
	for code, drained := range map[int]bool{429: true, 423: false} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, replies(status(code, "", "Retry-After: 300")))
				if _, err := s.fetch(t.Context()); errorKind(err) != "retry later" {
					t.Fatal(err)
				}
				now := time.Now()
				view := s.budget.View(now)
				want := BudgetView{NextInitial: now, NextPage: now}
				if drained {
					want = BudgetView{NextInitial: now.Add(5 * time.Minute), NextPage: now.Add(5 * time.Minute)}
				}
				if !view.NextInitial.Equal(want.NextInitial) || !view.NextPage.Equal(want.NextPage) {
					t.Errorf("the budget is %v, want %v", view, want)
				}
			})
		})
	}
}

// TestJitter: waits grow by a part of themselves, and never over their cap.
func TestJitter(t *testing.T) {
	const most = 0.999
	for _, c := range []struct {
		name    string
		replies []http.HandlerFunc
		least   time.Duration
		most    time.Duration
	}{
		{"backoff", replies(status(500, ""), page("")), 1400 * time.Millisecond, 1500 * time.Millisecond},
		{"throttled", replies(status(429, ""), page("")), 65 * time.Second, 66 * time.Second},
		{"throttled at the cap", replies(page(cursor(1)), status(423, "", "Retry-After: 900"), page("")), maxRetryAfter, maxRetryAfter},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, highLimits, c.replies)
				s.feed.jitter = func() float64 { return most }
				out, err := s.fetch(t.Context())
				if err != nil || out.Waited < c.least || out.Waited > c.most {
					t.Errorf("Fetch waited %s, %v; want %s to %s", out.Waited, err, c.least, c.most)
				}
			})
		})
	}
}

// addresses is a sink that notes where the bodies lie.
type addresses []*byte

func (a *addresses) Page(_ context.Context, _ int, body []byte) error {
	*a = append(*a, &body[0])
	return nil
}

// TestPageBufferIsReused: one buffer serves all pages of a window.
func TestPageBufferIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(page(cursor(1)), page(cursor(2)), page("")))
		var at addresses
		if _, err := s.feed.Fetch(t.Context(), testRequest(), &at); err != nil {
			t.Fatal(err)
		}
		if len(at) != 3 || at[0] != at[1] || at[1] != at[2] {
			t.Errorf("the pages lie at %v", at)
		}
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, highLimits, replies(status(503, "busy"), page(cursor(1)), hangs, page("")))
		if _, err := s.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range s.seen {
			if a.Source != "acme" || a.Host != "127.0.0.1" || !strings.HasPrefix(a.TrackingID, "cdrbus_") || a.SentAt.IsZero() {
				t.Errorf("attempt %+v lacks its marks", a)
			}
			got = append(got, fmt.Sprintf("%s %d %dB %s %v", a.Bucket, a.Status, a.Bytes, a.Took, a.Err))
		}
		want := "initial 503 4B 0s <nil>|initial 200 12B 0s <nil>|pages 200 10B 30s the body stalled|pages 200 12B 0s <nil>"
		if strings.Join(got, "|") != want {
			t.Errorf("observed %s\nwant %s", strings.Join(got, "|"), want)
		}
	})
}
