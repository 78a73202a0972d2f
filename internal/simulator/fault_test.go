package simulator

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
)

// hour is a window that has records.
func hour(s *Simulator, more ...string) string {
	end := s.now().Add(-time.Hour).Truncate(time.Second)
	return recordsURL("/v1/cdr_feed", end.Add(-time.Hour), end, more...)
}

// TestStatusFaults injects every fault that is a status.
func TestStatusFaults(t *testing.T) {
	for _, traits := range faultTable {
		if traits.status == 0 {
			continue
		}
		t.Run(string(traits.name), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimulator(t, nil)
				must(t, s.Inject("org-1", traits.name))
				answer, body := get(t, s, hour(s))
				expectStatus(t, answer, traits.status)
				if saysNoCDRs(body) != (traits.name == FalseEmpty) {
					t.Errorf("body %s", body)
				}
				wait := answer.Header.Get("Retry-After")
				if waits := traits.status == 423 || traits.status == 429 || traits.status == 503; waits != (wait == "2") {
					t.Errorf("Retry-After %q", wait)
				}
				if isRedirect := traits.status/100 == 3; isRedirect != (answer.Header.Get("Location") == redirectTarget) {
					t.Errorf("Location %q", answer.Header.Get("Location"))
				}
				if traits.name != HTML && traits.name != NoItems && traits.name != FalseEmpty && !strings.Contains(string(body), `"trackingId"`) {
					t.Errorf("error body %s", body)
				}
				time.Sleep(2 * time.Second)
				answer, _ = get(t, s, hour(s))
				expectStatus(t, answer, 200)
				noViolations(t, s)
			})
		})
	}
}

// TestErrorBodies words one error in every form.
func TestErrorBodies(t *testing.T) {
	for _, test := range []struct {
		form              ErrorBody
		contentType, body string
	}{
		{ErrorJSON, "application/json;charset=utf-8", `{"message":"Server`},
		{ErrorTop, "application/json;charset=utf-8", `{"message":"Server is overloaded with requests. Try again later.","errorCode":503,"trackingId":"SIM_`},
		{ErrorText, "text/plain;charset=utf-8", "Server is"},
		{ErrorHTML, "text/html;charset=utf-8", "<!DOCTYPE html>"},
		{ErrorEmpty, "", ""},
	} {
		s := newSimulator(t, func(o *Options) { o.Answers.ErrorBody, o.Answers.Always = test.form, Fault503 })
		answer, body := get(t, s, hour(s))
		if got := answer.Header.Get("Content-Type"); got != test.contentType || !strings.HasPrefix(string(body), test.body) || (test.body == "") != (len(body) == 0) {
			t.Errorf("%s: %q %.200s", test.form, got, body)
		}
	}
}

// TestRetryAfter demands a wait in every form.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(300 * time.Millisecond) // a date has whole seconds
		for form, want := range map[RetryAfter][]string{
			RetrySeconds: {"2"},
			RetryDate:    {s2000.Add(3 * time.Second).Format(http.TimeFormat)},
			RetryAbsent:  {""},
			RetryGarbage: {"soon", "-5", "1e3", ""},
		} {
			s := newSimulator(t, func(o *Options) { o.Answers.RetryAfter, o.Answers.Always = form, Fault429 })
			answer, _ := get(t, s, hour(s))
			if got := answer.Header.Get("Retry-After"); !slices.Contains(want, got) {
				t.Errorf("%s: %q, want %q", form, got, want)
			}
		}
	})
}

// s2000 is when a synctest bubble begins.
var s2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// TestRegion names the right host in each shape.
func TestRegion(t *testing.T) {
	const home = "analytics-calling-eu.webexapis.com"
	for form, want := range map[RegionAnswer]string{
		RegionMessage: `"message":"This server cannot serve the data for this organization. Please use ` + home + `","errorCode":451`,
		RegionText:    `should go to URL: "https://` + home + `/v1/cdr_feed"`,
		RegionURL:     `https://` + home + `/`,
		RegionForeign: `attacker.example`,
	} {
		s := newSimulator(t, func(o *Options) {
			o.Answers.Region = form
			o.Organizations = []Organization{{Name: "org-1", Token: "token-org-1", HomeHost: home}}
		})
		answer, body := get(t, s, "https://analytics-calling.webexapis.com"+hour(s))
		if answer.StatusCode != 451 || !strings.Contains(string(body), want) {
			t.Errorf("%s: status %d, %s", form, answer.StatusCode, body)
		}
		answer, _ = get(t, s, "https://"+home+hour(s))
		expectStatus(t, answer, 200)
		noViolations(t, s)
	}
}

// TestLinks writes the next link in each form, right and wrong.
func TestLinks(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate = 1 })
	start := "startTimeForNextFetch="
	forms := map[string]bool{}
	for _, form := range linkChoices {
		must(t, s.Update("", func(a *Answers) { a.Link = form }))
		for range 12 {
			answer, _ := get(t, s, "https://feed.example"+hour(s, "max=500", "locations=Richardson,NA,%E6%9D%B1%E4%BA%AC,R%26D%20Campus"))
			raw := answer.Header.Get("Link")
			link := nextLink(answer.Header)
			if !strings.HasPrefix(link, "https://feed.example/v1/cdr_feed?endTime=") || !strings.Contains(link, "&"+start) || !strings.Contains(link, "&totalCount=") || !strings.Contains(link, "&max=500&orgId="+s.Organizations()[0].UUID) {
				t.Fatalf("link %s", raw)
			}
			next, _ := get(t, s, link)
			expectStatus(t, next, 200)
			switch {
			case strings.HasPrefix(raw, "<<"):
				forms["double"] = true
			case strings.Contains(raw, "NEXT"):
				forms["loud"] = true
			case strings.Contains(raw, "first"):
				forms["listed"] = true
			default:
				forms["single"] = true
			}
		}
	}
	if len(forms) != 4 {
		t.Errorf("forms %v", forms)
	}
	for fault, want := range map[Fault]string{LinkForeign: "https://analytics-calling.example/v1/cdr_feed?", LinkElsePath: "https://feed.example/v1/people?"} {
		must(t, s.Inject("org-1", fault))
		answer, _ := get(t, s, "https://feed.example"+hour(s, "max=500"))
		if link := nextLink(answer.Header); !strings.HasPrefix(link, want) {
			t.Errorf("%s: %s", fault, link)
		}
	}
	must(t, s.Inject("org-1", "", LinkLoop))
	answer, _ := get(t, s, "https://feed.example"+hour(s, "max=500"))
	link := nextLink(answer.Header)
	answer, _ = get(t, s, link)
	if again := nextLink(answer.Header); again != link {
		t.Errorf("link-loop leads on to %s, want %s again", again, link)
	}
	noViolations(t, s)
}

// TestTotalCount compares what the link says with the truth.
func TestTotalCount(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate = 1 })
	url := hour(s, "max=500")
	end := s.now().Add(-time.Hour).Truncate(time.Second)
	truth, err := s.CountTruth(TruthQuery{Span: span(end.Add(-time.Hour), time.Hour)})
	must(t, err)
	for mode, check := range map[TotalCount]func(first, second int) bool{
		TotalOn:  func(first, second int) bool { return first == truth.Records && second == first },
		TotalOff: func(first, second int) bool { return first == -1 && second == -1 },
		TotalRemaining: func(first, second int) bool {
			return near(first, truth.Records-500) && near(second, truth.Records-1000)
		},
		TotalWrong: func(first, second int) bool { return first != truth.Records && second == first },
	} {
		must(t, s.Update("", func(a *Answers) { a.TotalCount = mode }))
		answer, _ := get(t, s, url)
		first := nextLink(answer.Header)
		answer, _ = get(t, s, first)
		if a, b := totalOf(first), totalOf(nextLink(answer.Header)); !check(a, b) {
			t.Errorf("%s: totalCount %d, then %d; in truth %d", mode, a, b, truth.Records)
		}
	}
}

// near allows for the legs of a call that end together and come again at an edge.
func near(got, want int) bool { return got >= want && got < want+10 }

// TestEmptyWindows answers a night without calls.
func TestEmptyWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Records.EmptyNights = true })
		for _, form := range emptyChoices {
			must(t, s.Update("", func(a *Answers) { a.EmptyWindow = form }))
			seen := map[int]bool{}
			for minutes := range 20 {
				to := s.now().Add(-time.Duration(minutes+5) * time.Minute)
				answer, body := get(t, s, recordsURL("/v1/cdr_feed", to.Add(-10*time.Minute), to))
				seen[answer.StatusCode] = true
				switch answer.StatusCode {
				case 200:
					if len(itemsOf(t, body)) != 0 || !strings.Contains(string(body), `"items":[]`) {
						t.Errorf("body %s", body)
					}
				case 204:
					if len(body) != 0 {
						t.Errorf("body %s", body)
					}
				case 404:
					var e struct {
						Message   string
						ErrorCode int
					}
					must(t, json.Unmarshal(body, &e))
					if e.Message != noCDRs || e.ErrorCode != 404 {
						t.Errorf("body %s", body)
					}
				}
			}
			if wants := map[EmptyWindow]int{Empty404: 1, Empty200: 1, Empty204: 1, EmptyMixed: 3}[form]; len(seen) != wants {
				t.Errorf("%s: answers %v", form, seen)
			}
		}
		noViolations(t, s)
	})
}

// TestLocations filters as the feed does: by the very name, without a word about
// an unknown one.
func TestLocations(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate = 0.2 })
	end := s.now().Add(-time.Hour).Truncate(time.Second)
	want := map[string]int{}
	for r := range s.Truth("org-1", span(end.Add(-time.Hour), time.Hour)) {
		want[r.Location]++
	}
	if len(want) != len(usualLocations) {
		t.Fatalf("locations %v", want)
	}
	for _, test := range []struct {
		filter string
		want   int
	}{
		{"Richardson", want["Richardson"]},
		{"Richardson,NA", want["Richardson"] + want["NA"]},
		{"Erlanger%20Urgent%20/%20Primary%20Care%20Main", want["Erlanger Urgent / Primary Care Main"]},
		{"%E6%9D%B1%E4%BA%AC,nowhere", want["東京"]},
		{"richardson", 0},
		{"Lab,%20Building%207", 0},
	} {
		answer, body := get(t, s, hour(s, "max=5000", "locations="+test.filter))
		got := 0
		if answer.StatusCode == 200 {
			got = len(itemsOf(t, body))
		}
		if got != test.want {
			t.Errorf("%s: %d items, want %d", test.filter, got, test.want)
		}
	}
}

// TestSizes refuses what is too large.
func TestSizes(t *testing.T) {
	s := newSimulator(t, nil)
	end := s.now().Add(-time.Hour)
	for _, test := range []struct {
		change func(*Answers)
		max    string
		width  time.Duration
		want   int
	}{
		{func(a *Answers) { a.RefuseMaxOver = 500 }, "max=501", time.Hour, 400},
		{func(a *Answers) { a.RefuseMaxOver = 500 }, "max=500", time.Hour, 200},
		{func(a *Answers) { a.TimeoutMaxOver = 2000 }, "max=2001", time.Hour, 504},
		{func(a *Answers) { a.TimeoutMaxOver = 2000 }, "max=2000", time.Hour, 200},
		{func(a *Answers) { a.TimeoutWindowOver = 2 * time.Hour }, "max=500", 2*time.Hour + time.Second, 504},
		{func(a *Answers) { a.TimeoutWindowOver = 2 * time.Hour }, "max=500", 2 * time.Hour, 200},
	} {
		must(t, s.Update("", func(a *Answers) {
			a.RefuseMaxOver, a.TimeoutMaxOver, a.TimeoutWindowOver = 0, 0, 0
			test.change(a)
		}))
		answer, _ := get(t, s, recordsURL("/v1/cdr_feed", end.Add(-test.width), end, test.max))
		if answer.StatusCode != test.want {
			t.Errorf("%s over %s: status %d, want %d", test.max, test.width, answer.StatusCode, test.want)
		}
	}
	noViolations(t, s)
}

// TestDate checks the clock that answers show.
func TestDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			change func(*Options)
			want   string
		}{
			{func(*Options) {}, s2000.Format(http.TimeFormat)},
			{func(o *Options) { o.ClockOffset = 10 * time.Minute }, s2000.Add(10 * time.Minute).Format(http.TimeFormat)},
			{func(o *Options) { o.Answers.DateSkew = -3 * time.Minute }, s2000.Add(-3 * time.Minute).Format(http.TimeFormat)},
			{func(o *Options) { o.Answers.Date = DateAbsent }, ""},
			{func(o *Options) { o.Answers.Always = NoDate }, ""},
		} {
			s := newSimulator(t, test.change)
			answer, _ := get(t, s, hour(s))
			if got := answer.Header.Get("Date"); got != test.want {
				t.Errorf("Date %q, want %q", got, test.want)
			}
		}
	})
}

// TestFaultsAreDeterministic asks two simulators the same questions, and a
// third of another seed.
func TestFaultsAreDeterministic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := func(seed uint64) (log []Exchange, longest int) {
			s := newSimulator(t, func(o *Options) {
				must(t, o.ApplyProfile("faults"))
				o.Answers.Faults, o.Answers.MaxFaultRun, o.Seed = faultMix(faultTable, false, 0.7), 2, seed
				o.Answers.RetryAfter = RetryAbsent
				o.Observe = func(e Exchange) { log = append(log, e) }
			})
			inARow := 0
			for i := range 300 {
				end := s2000.Add(-time.Duration(i+60) * time.Minute)
				r := httptest.NewRequest(http.MethodGet, recordsURL("/v1/cdr_feed", end.Add(-time.Minute), end), nil)
				r.Header.Set("Authorization", "Bearer token-org-1")
				serve(s, httptest.NewRecorder(), r)
				if inARow++; log[i].Fault == "" {
					inARow = 0
				}
				longest = max(longest, inARow)
			}
			return log, longest
		}
		one, longest := run(1)
		two, _ := run(1)
		other, _ := run(2)
		if !slices.Equal(one, two) {
			t.Error("the same seed brings other faults")
		}
		if slices.Equal(one, other) {
			t.Error("another seed brings the same faults")
		}
		if longest != 2 {
			t.Errorf("%d faults in a row, want up to 2", longest)
		}
	})
}

// TestOncePerWindow asks for two windows again and again: what would stop a
// collector the second time comes once to each, all the rest more often.
func TestOncePerWindow(t *testing.T) {
	seen := map[string]int{}
	s := newSimulator(t, func(o *Options) {
		o.Answers.Faults, o.Answers.MaxFaultRun, o.Answers.RetryAfter = faultMix(faultTable, false, 0.9), 1000, RetryAbsent
		o.Answers.StallFor, o.Answers.SlowFor = 0, 0
		o.Observe = func(e Exchange) {
			if e.Fault == "" {
				return
			}
			name := string(e.Fault)
			if once := traitsOf(faultTable, e.Fault).once; once != "" {
				name = once
			}
			seen[name+" "+e.Start.String()]++
		}
	})
	from := s.now().Add(-2 * time.Hour).Truncate(time.Second)
	for i := range 600 {
		start := from.Add(-time.Duration(i%2) * time.Hour)
		url := recordsURL("/v1/cdr_feed", start, start.Add(10*time.Minute))
		if i%4 > 1 {
			url += "&" + cursorParameter + "=" + start.Format(feedLayout) + "&orgId=" + s.Organizations()[0].UUID
		}
		r := httptest.NewRequest(http.MethodGet, url, nil)
		r.Header.Set("Authorization", "Bearer token-org-1")
		r.Header.Set("Accept-Encoding", "gzip")
		serve(s, httptest.NewRecorder(), r)
	}
	noViolations(t, s)
	for _, start := range []time.Time{from, from.Add(-time.Hour)} {
		for _, traits := range faultTable {
			switch n := seen[traits.once+" "+start.String()]; {
			case traits.stops:
			case traits.once != "" && n != 1:
				t.Errorf("%s happened %d times to one window", traits.once, n)
			case traits.once == "" && seen[string(traits.name)+" "+start.String()] < 2:
				t.Errorf("%s hardly ever happens", traits.name)
			}
		}
	}
}

// TestLinkRefused refuses next links, and nothing else.
func TestLinkRefused(t *testing.T) {
	s := newSimulator(t, func(o *Options) {
		o.Records.Rate, o.Answers.Faults = 1, map[Fault]float64{LinkRefused: 1}
	})
	seen := map[int]bool{}
	for range 20 {
		url := hour(s, "max=500")
		answer, _ := get(t, s, url)
		expectStatus(t, answer, 200)
		link := nextLink(answer.Header)
		answer, _ = get(t, s, link)
		seen[answer.StatusCode] = true
		answer, _ = get(t, s, link)
		expectStatus(t, answer, 200)
		s.orgs[0].once = onceLog{}
	}
	if seen[200] || len(seen) != 3 {
		t.Errorf("links were answered %v, want 400, 404 and 410", seen)
	}
}

// TestStuckCursor has more records in one millisecond than a page may hold: the
// link leads to itself, until pages are large enough.
func TestStuckCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Records.Burst = 700 })
		end := s.now().Add(-time.Hour)
		for size, stuck := range map[string]bool{"max=500": true, "max=1000": false} {
			c := &client{t: t, http: http.Client{Transport: direct{s}}, token: "token-org-1"}
			_, err := c.window("http://sim" + recordsURL("/v1/cdr_feed", end.Add(-time.Hour), end, size))
			if got := err != nil && strings.HasPrefix(err.Error(), "link seen before"); got != stuck || !got && err != nil {
				t.Errorf("%s: %v, want stuck %t", size, err, stuck)
			}
		}
	})
}

// onNetwork serves a simulator on a real connection.
func onNetwork(t *testing.T, change func(*Options)) (*Simulator, string) {
	t.Helper()
	s := newSimulator(t, change)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

func fetch(t *testing.T, url string) (*http.Response, []byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer token-org-1")
	r.Header.Set("Accept-Encoding", "gzip")
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	reader := io.Reader(answer.Body)
	if answer.Header.Get("Content-Encoding") == "gzip" {
		if reader, err = gzip.NewReader(answer.Body); err != nil {
			return answer, nil, err
		}
	}
	body, err := io.ReadAll(reader)
	return answer, body, err
}

// TestBrokenConnections shows each fault of the body on a real connection.
func TestBrokenConnections(t *testing.T) {
	s, url := onNetwork(t, func(o *Options) { o.Answers.StallFor, o.Answers.SlowFor = 50*time.Millisecond, 50*time.Millisecond })
	cut := func(err error) bool {
		return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	}
	for _, test := range []struct {
		fault Fault
		check func(answer *http.Response, body []byte, err error) bool
	}{
		{Reset, func(answer *http.Response, _ []byte, err error) bool { return answer == nil && cut(err) }},
		{Truncated, func(answer *http.Response, body []byte, err error) bool {
			return answer != nil && cut(err) && len(body) > 10_000
		}},
		{Stalled, func(answer *http.Response, body []byte, err error) bool {
			return answer != nil && cut(err) && len(body) > 10_000
		}},
		{CutJSON, func(_ *http.Response, body []byte, err error) bool {
			return err == nil && len(body) > 10_000 && !json.Valid(body)
		}},
		{Slow, func(_ *http.Response, body []byte, err error) bool { return err == nil && json.Valid(body) }},
		{GzipPlain, func(answer *http.Response, _ []byte, err error) bool {
			return errors.Is(err, gzip.ErrHeader) && answer.StatusCode == 200
		}},
		{GzipBroken, func(_ *http.Response, _ []byte, err error) bool { return errors.Is(err, gzip.ErrChecksum) }},
	} {
		must(t, s.Inject("org-1", test.fault))
		answer, body, err := fetch(t, url+hour(s))
		if !test.check(answer, body, err) {
			t.Errorf("%s: answer %v, %d bytes, error %v", test.fault, answer, len(body), err)
		}
	}
	answer, body, err := fetch(t, url+hour(s))
	must(t, err)
	expectStatus(t, answer, 200)
	if len(itemsOf(t, body)) == 0 {
		t.Error("no items after all faults")
	}
	noViolations(t, s)
	if got := s.Stats().Requests["/v1/cdr_feed"]; got["aborted"] != 3 || got["200"] != 5 {
		t.Errorf("counted %v", got)
	}
}

// TestStallEndsWithTheClient hangs for an hour of fake time at most, and not at
// all longer than its client.
func TestStallEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Answers.Always, o.Answers.StallFor = Stalled, time.Hour })
		for _, patience := range []time.Duration{time.Minute, 2 * time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sim"+hour(s), nil)
			must(t, err)
			r.Header.Set("Authorization", "Bearer token-org-1")
			begun := time.Now()
			answer, err := direct{s}.RoundTrip(r)
			if err == nil {
				_, err = io.Copy(io.Discard, answer.Body)
			}
			cancel()
			if waited, want := time.Since(begun), min(patience, time.Hour); err == nil || waited != want {
				t.Errorf("waited %s, want %s; error %v", waited, want, err)
			}
		}
	})
}

// TestServe starts and stops on a real listener, with a stalled request open.
func TestServe(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Answers.Always = Stalled })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	connection, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer func() { _ = connection.Close() }()
	_, err = fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer token-org-1\r\n\r\n", hour(s))
	must(t, err)
	line, err := bufio.NewReader(connection).ReadString('\n')
	must(t, err)
	if !strings.Contains(line, "200") {
		t.Errorf("answer %q", line)
	}
	stop()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("Serve did not end")
	}
}
