package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/coverage"
	"cdrbus/offsets"
)

// testCoverage answers from receipts in memory, as the daemon's does from Kafka.
type testCoverage struct {
	names    []cdr.SourceName
	receipts map[cdr.SourceName][]offsets.Receipt
	fails    error
}

func (c *testCoverage) Sources() []cdr.SourceName { return c.names }

func (c *testCoverage) Calendar(_ context.Context, source cdr.SourceName, days int) (any, error) {
	if c.fails != nil {
		return nil, c.fails
	}
	now := lateToday()
	m := coverage.NewMap(cdr.Span{StartInclusive: now.Add(-40 * 24 * time.Hour), EndExclusive: now + 1})
	for i := range c.receipts[source] {
		m.Add(&c.receipts[source][i], int64(i))
	}
	today := now - now%(24*3600)
	span := cdr.Span{StartInclusive: today - cdr.Instant(days-1)*24*3600, EndExclusive: now}
	return coverage.Calendar{Report: m.Report(source, span), Days: m.Calendar(days, now)}, nil
}

// lateToday is the time that the coverage of these boards is of, whatever the time of
// day, so that yesterday always looks the same.
func lateToday() cdr.Instant {
	now := cdr.InstantOf(time.Now())
	return now - now%(24*3600) + 23*3600
}

func (c *testCoverage) Receipts(_ context.Context, source cdr.SourceName, span cdr.Span) (any, error) {
	if c.fails != nil {
		return nil, c.fails
	}
	excerpt := coverage.Excerpt{Source: source, Span: span}
	for i := range c.receipts[source] {
		if r := &c.receipts[source][i]; max(r.Asked.EndExclusive, r.Gap.EndExclusive) > span.StartInclusive && max(r.Asked.StartInclusive, r.Gap.StartInclusive) < span.EndExclusive {
			excerpt.Add(r)
		}
	}
	return excerpt, nil
}

// past gives a source receipts of some days: windows of half an hour, a sweep that
// settles, and, by seed, a gap, unproven windows, cdr_stream at the end, or no end.
func (c *testCoverage) past(source cdr.SourceName, days int, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 5))
	now := lateToday()
	start := now.Add(-time.Duration(days) * 24 * time.Hour)
	r := offsets.Receipt{Source: source, Counter: 1, Purpose: cdr.Start, Endpoint: cdr.Feed, TotalCount: -1, FeedPublished: start, CommitTime: start.Time()}
	list := []offsets.Receipt{r}
	for at := start; at+1800 < now-330; at += 1800 {
		r.Counter++
		r.Purpose, r.Endpoint, r.Unproven, r.Gap = cdr.Live, cdr.Feed, "", cdr.Span{}
		r.Asked = cdr.Span{StartInclusive: at - 60, EndExclusive: at + 1800}
		r.FeedPublished = at + 1800
		r.CommitTime = r.Asked.EndExclusive.Time().Add(6 * time.Minute)
		r.Pages, r.Published, r.AlreadyKnown = 1, int64(300+random.IntN(900)), int64(random.IntN(40))
		r.Late = int64(random.IntN(5))
		r.Items = r.Published + r.AlreadyKnown
		switch n := random.IntN(120); {
		case seed%3 == 0 && n == 0:
			r.Unproven = "the feed announced 412 records for this span and returned 408"
		case seed%5 == 0 && n < 2:
			r.Purpose, r.Gap, r.Asked, r.Published, r.Items, r.Late = cdr.Gap, r.Asked, cdr.Span{}, 0, 0, 0
		}
		list = append(list, r)
	}
	if seed%4 == 1 {
		r.Counter++
		r.Purpose, r.Endpoint, r.Asked = cdr.Live, cdr.Stream, cdr.Span{StartInclusive: r.FeedPublished, EndExclusive: now - 60}
		r.FeedPublished, r.StreamPublished = r.FeedPublished-7200, now-60
		list = append(list[:len(list)-4], r)
	}
	settled := now.Add(-50 * time.Hour)
	switch seed % 6 {
	case 2: // its sweeps reach back an hour only
		settled = now.Add(-time.Hour)
	case 4: // it was stopped two days ago
		list = list[:max(2, len(list)-96)]
	}
	last := &list[len(list)-1]
	last.FeedSettled = max(start, min(settled, last.FeedPublished))
	c.receipts[source] = list
}

// coverageBoard is a board of some sources with their coverage.
func coverageBoard(sources int) func() *Board {
	return func() *Board {
		c := &testCoverage{receipts: map[cdr.SourceName][]offsets.Receipt{}}
		b := newTestBoard()
		b.options.Coverage = c
		readyShards(b, 4)
		for i := range sources {
			name := cdr.SourceName([]string{"acme-eu", "acme-us", "globex", "initech"}[i%4])
			if i >= 4 {
				name += cdr.SourceName(fmt.Sprintf("-%d", i/4))
			}
			c.names = append(c.names, name)
			c.past(name, []int{40, 5, 12, 1}[i%4], uint64(i))
			if i < 12 {
				runSource(b, name, i%4, 60, 20*time.Second, 640)
				b.Update(name, func(s *Source) { s.State, s.NextRequestAt = Waiting, time.Now().Add(30*time.Second) })
			}
		}
		return b
	}
}

func TestCoverageIsServed(t *testing.T) {
	b := coverageBoard(2)()
	answer := get(b, http.MethodGet, "/coverage")
	if want := `{"sources":["acme-eu","acme-us"]}`; answer.Code != 200 || strings.TrimSpace(answer.Body.String()) != want {
		t.Errorf("got %d %s, want %s", answer.Code, answer.Body, want)
	}
	for query, wantDays := range map[string]int{"": 7, "&days=1": 1, "&days=31": 31} {
		answer = get(b, http.MethodGet, "/coverage?source=acme-eu"+query)
		var calendar coverage.Calendar
		if err := json.Unmarshal(answer.Body.Bytes(), &calendar); err != nil {
			t.Fatalf("%d: %v", answer.Code, err)
		}
		if answer.Header().Get("Content-Type") != "application/json" || calendar.Source != "acme-eu" || len(calendar.Days) != wantDays || len(calendar.Days[0].Hours) != 24 {
			t.Errorf("%s: got %d days of %s", query, len(calendar.Days), calendar.Source)
		}
	}
	hour := cdr.Span{StartInclusive: lateToday().Add(-50 * time.Hour), EndExclusive: lateToday().Add(-49 * time.Hour)}
	answer = get(b, http.MethodGet, fmt.Sprintf("/coverage/receipts?source=acme-us&from=%s&to=%s", hour.StartInclusive, hour.EndExclusive))
	var excerpt coverage.Excerpt
	if err := json.Unmarshal(answer.Body.Bytes(), &excerpt); err != nil || excerpt.Source != "acme-us" || len(excerpt.Receipts) == 0 || excerpt.Span != hour {
		t.Errorf("got %+v, %v", excerpt, err)
	}
}

func TestCoverageRefuses(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"/coverage?source=acme-eu&days=0", "want a whole number, 1 to 31"},
		{"/coverage?source=acme-eu&days=32", "want a whole number, 1 to 31"},
		{"/coverage?source=acme-eu&days=x", "want a whole number, 1 to 31"},
		{"/coverage/receipts?source=acme-eu&from=2026-11-22T10:00:00Z", "parse instant"},
		{"/coverage/receipts?source=acme-eu&from=2026-11-22T10:00:00Z&to=2026-11-22T09:00:00Z", "the end must be later"},
		{"/coverage/receipts?source=acme-eu&from=0001-11-22T10:00:00Z&to=9026-11-24T09:00:00Z", "no more than 24 hours"},
	} {
		answer := get(coverageBoard(1)(), http.MethodGet, c.path)
		if answer.Code != http.StatusBadRequest || !strings.Contains(answer.Body.String(), c.want) {
			t.Errorf("%s: got %d %q, want 400 and %q", c.path, answer.Code, answer.Body, c.want)
		}
	}
	if answer := get(newTestBoard(), http.MethodGet, "/coverage?source=acme-eu"); answer.Code != http.StatusNotFound {
		t.Errorf("a board without coverage answers %d", answer.Code)
	}
}

func TestCoverageFails(t *testing.T) {
	for _, c := range []struct {
		fails  error
		status int
		after  string
	}{
		{&CoverageError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Err: errors.New("still reading")}, 503, "1"},
		{&CoverageError{Status: http.StatusNotFound, Err: errors.New("no such source")}, 404, ""},
		{errors.New("something else"), 500, ""},
	} {
		b := coverageBoard(1)()
		b.options.Coverage.(*testCoverage).fails = c.fails
		for _, path := range []string{"/coverage?source=x", "/coverage/receipts?source=x&from=2026-11-22T10:00:00Z&to=2026-11-22T11:00:00Z"} {
			answer := get(b, http.MethodGet, path)
			if after := answer.Header().Get("Retry-After"); answer.Code != c.status || after != c.after || strings.TrimSpace(answer.Body.String()) != c.fails.Error() {
				t.Errorf("%s: got %d, Retry-After %q, %q", path, answer.Code, after, answer.Body)
			}
		}
	}
}

func TestSnapshotTellsOfCoverage(t *testing.T) {
	if newTestBoard().Snapshot().Process.Coverage || !coverageBoard(1)().Snapshot().Process.Coverage {
		t.Error("a snapshot does not tell whether there is coverage")
	}
}
