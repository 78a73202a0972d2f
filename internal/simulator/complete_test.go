package simulator

import (
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// TestComplete lets the naive client fetch a window under every switch and
// holds what it got against the truth: every record that had appeared, with its
// very bytes, and not one more.
func TestComplete(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Options)
		client func(*client)
		by     string // of the truth
		path   string
		width  time.Duration
		check  func(*testing.T, *Simulator, *client, collected)
	}{
		{name: "plain", check: func(t *testing.T, _ *Simulator, c *client, got collected) {
			if distinct := len(got.records()); c.pages < 4 || c.total != distinct {
				t.Errorf("%d pages, totalCount %d, %d distinct of %d items: want many pages and a true count", c.pages, c.total, distinct, len(got.items))
			}
		}},
		{name: "stream", path: "/v1/cdr_stream", by: "insert", width: 2 * time.Hour},
		{name: "by start", by: "start", change: func(o *Options) { o.Answers.SelectBy = ByStart }},
		{name: "by creation", by: "insert", change: func(o *Options) { o.Answers.SelectBy = ByCreation }},
		{name: "end exclusive, many a second", width: 5 * time.Minute, change: func(o *Options) { o.Records.Rate = 10 }},
		{name: "end inclusive, many a second", width: 5 * time.Minute, change: func(o *Options) { o.Records.Rate, o.Answers.EndInclusive = 10, true }},
		{name: "single link", change: func(o *Options) { o.Answers.Link = LinkSingle }},
		{name: "mixed links", change: func(o *Options) { o.Answers.Link = LinkMixed }},
		{name: "no total", change: func(o *Options) { o.Answers.TotalCount = TotalOff }},
		{name: "wrong total", change: func(o *Options) { o.Answers.TotalCount = TotalWrong }, check: func(t *testing.T, _ *Simulator, c *client, got collected) {
			if c.total == len(got.items) {
				t.Errorf("totalCount %d is right", c.total)
			}
		}},
		{name: "boundary repeats", change: func(o *Options) { o.Answers.BoundaryRepeats = 7 }, check: func(t *testing.T, _ *Simulator, c *client, got collected) {
			if repeats := len(got.items) - len(got.records()); repeats < 7*(c.pages-1) {
				t.Errorf("%d repeats on %d pages, want 7 at each edge", repeats, c.pages)
			}
		}},
		{name: "cursor in seconds", change: func(o *Options) { o.Answers.CursorSeconds = true }},
		{name: "burst", change: func(o *Options) { o.Records.Burst = 450 }},
		{name: "burst, seconds, repeats", change: func(o *Options) {
			o.Records.Burst, o.Answers.CursorSeconds, o.Answers.BoundaryRepeats = 450, true, 5
		}},
		{name: "doubles", change: func(o *Options) { o.Records.DoubleShare = 0.2 }, check: func(t *testing.T, _ *Simulator, c *client, got collected) {
			if twice, items := len(got.items)-len(got.records()), len(got.items); twice < items/8 || twice > items/5 {
				t.Errorf("%d of %d items are doubles, want about a sixth", twice, items)
			}
		}},
		{name: "shuffled", change: func(o *Options) { o.Answers.Shuffle = true }},
		{name: "empty pages", change: func(o *Options) { o.Answers.EmptyPageShare = 0.5 }, check: func(t *testing.T, _ *Simulator, c *client, got collected) {
			if full := (len(got.items) + 499) / 500; c.pages < full*5/4 {
				t.Errorf("%d pages, %d of them with items: want some without", c.pages, full)
			}
		}},
		{name: "max not said", client: func(c *client) { c.max = 0 }},
		{name: "max clamped up", client: func(c *client) { c.max = 10 }},
		{name: "max clamped down", client: func(c *client) { c.max = 100_000 }},
		{name: "first edition", change: func(o *Options) { must(t, o.ApplyProfile("seed")) }, client: func(c *client) { c.max = 100 }},
		{name: "late", change: func(o *Options) { o.Records.LateShare = 0.3 }},
		{name: "late on the stream", path: "/v1/cdr_stream", by: "insert", width: 2 * time.Hour, change: func(o *Options) { o.Records.LateShare = 0.3 }},
		{name: "revised", change: func(o *Options) { o.Records.RevisedShare = 0.3 }},
		{name: "gzip", change: func(o *Options) { o.Answers.Gzip = GzipOn }, client: func(c *client) { c.gzip = true }},
		{name: "day curve", change: func(o *Options) { o.Records.Rate, o.Records.DayCurve, o.Records.EmptyNights = 0.4, true, true }},
		{name: "content", change: func(o *Options) { must(t, o.ApplyProfile("content")); o.Records.GiantBytes = 100_000 }},
		{name: "paging", change: func(o *Options) { must(t, o.ApplyProfile("paging")) }},
		{name: "faults", change: func(o *Options) { must(t, o.ApplyProfile("faults")) }, client: func(c *client) { c.gzip = true }},
		{name: "every other request fails", change: func(o *Options) {
			o.Records.Rate, o.Answers.Faults = 0.6, faultMix(faultTable, false, 0.5)
		}, client: func(c *client) { c.gzip = true }, check: func(t *testing.T, s *Simulator, c *client, _ collected) {
			if len(s.Stats().Faults) < 10 {
				t.Errorf("only these faults happened: %v", s.Stats().Faults)
			}
		}},
		{name: "all", change: func(o *Options) { must(t, o.ApplyProfile("all")); o.Records.GiantBytes = 100_000 }, client: func(c *client) { c.gzip = true }},
		{name: "real limits", change: func(o *Options) { o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = 1, 10 }, client: func(c *client) { c.paced = true }},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if testing.Short() && i%5 != 0 {
				t.Skip("one of five in short mode")
			}
			synctest.Test(t, func(t *testing.T) {
				s := newSimulator(t, test.change)
				c := &client{t: t, http: http.Client{Transport: direct{s}}, token: "token-org-1", max: 500}
				if test.client != nil {
					test.client(c)
				}
				got := checkComplete(t, s, c, test.path, test.by, test.width)
				noViolations(t, s)
				if test.check != nil {
					test.check(t, s, c, got)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkComplete fetches the newest window of a width and compares.
func checkComplete(t *testing.T, s *Simulator, c *client, path, by string, width time.Duration) collected {
	t.Helper()
	if path == "" {
		path = "/v1/cdr_feed"
	}
	if width == 0 {
		width = 4 * time.Hour
	}
	end := s.now().Add(-5 * time.Minute).Truncate(time.Second)
	url := "http://sim" + recordsURL(path, end.Add(-width), end)
	if c.max > 0 {
		url = "http://sim" + recordsURL(path, end.Add(-width), end, "max="+strconv.Itoa(c.max))
	}
	begun := s.now()
	got, err := c.window(url)
	must(t, err)
	query := TruthQuery{Organization: "org-1", Span: span(end.Add(-width), width), By: by, Hash: true}
	if a, _ := s.Answers(""); a.EndInclusive {
		query.Span.EndExclusive++
	}
	compare(t, s, got, query, begun, s.now())
	return got
}

// compare holds items against the truth. What appeared or changed while the
// client was at it may be in or out.
func compare(t *testing.T, s *Simulator, got collected, query TruthQuery, begun, ended time.Time) {
	t.Helper()
	truth, err := s.TruthOf(query)
	must(t, err)
	records, compared := got.records(), 0
	for want := range truth {
		key := want.ReportID
		if key == "" {
			key = "raw " + want.SHA256
		}
		r, found := records[key]
		delete(records, key)
		if !found {
			if !want.InsertTime.After(begun) {
				t.Fatalf("missing: %+v", want)
			}
			continue
		}
		compared++
		first := r.sum == want.SHA256 && (want.RevisedTime.IsZero() || want.RevisedTime.After(begun))
		second := r.sum == want.RevisedSHA256 && !want.RevisedTime.After(ended)
		switch {
		case want.InsertTime.After(ended):
			t.Fatalf("delivered before it appeared: %+v", want)
		case !first && !second:
			t.Fatalf("item %s has other bytes than the truth says: %+v", r.sum, want)
		}
	}
	for key := range records {
		t.Fatalf("%d records that are not in the truth, among them %s", len(records), key)
	}
	if compared < 400 {
		t.Fatalf("only %d records compared: the test shows nothing", compared)
	}
}
