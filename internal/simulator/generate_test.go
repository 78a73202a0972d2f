package simulator

import (
	"bytes"
	"math"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
)

var noon = time.Date(2026, 10, 5, 12, 0, 0, 0, time.UTC)

// TestDeterminism asks two simulators of one seed in different orders, one of
// them with hardly any cache, and gets the same bytes. Another seed differs.
func TestDeterminism(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := func(o *Options) {
			must(t, o.ApplyProfile("content"))
			o.Records.LateShare, o.Records.RevisedShare = 0.1, 0.1
		}
		one := newSimulator(t, odd)
		two := newSimulator(t, func(o *Options) { odd(o); o.CacheBytes = 1 << 20 })
		other := newSimulator(t, func(o *Options) { odd(o); o.Seed = 2 })
		end := one.now().Add(-time.Hour).Truncate(time.Second)
		for _, path := range []string{"/v1/cdr_feed", "/v1/cdr_stream"} {
			var urls []string
			for back := range 3 {
				from := end.Add(-time.Duration(back+1) * time.Hour)
				urls = append(urls, recordsURL(path, from, from.Add(time.Hour)))
			}
			pages := map[string][]byte{}
			for _, url := range urls {
				_, pages[url] = get(t, one, url)
			}
			slices.Reverse(urls)
			for _, url := range urls {
				if _, again := get(t, two, url); !bytes.Equal(again, pages[url]) {
					t.Errorf("%s differs between two simulators of one seed", url)
				}
				if _, foreign := get(t, other, url); bytes.Equal(foreign, pages[url]) {
					t.Errorf("%s is the same under another seed", url)
				}
			}
		}
	})
}

// TestOrganizationsDiffer asks for the same hour of two organizations.
func TestOrganizationsDiffer(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Count = 2 })
	ids := map[string]string{}
	for r := range s.Truth("", span(noon, time.Hour)) {
		if other, taken := ids[r.ReportID]; taken {
			t.Fatalf("Report ID %s is in %s and in %s", r.ReportID, other, r.Organization)
		}
		ids[r.ReportID] = r.Organization
	}
	if orgs := s.Organizations(); len(orgs) != 2 || orgs[0].UUID == orgs[1].UUID {
		t.Errorf("organizations %+v", orgs)
	}
}

// TestAxesAgree finds the same records by report time, by start and by
// appearance, each exactly once, also across the edges of minutes and hours.
func TestAxesAgree(t *testing.T) {
	s := newSimulator(t, func(o *Options) {
		o.Records.Rate, o.Records.LateShare, o.Records.Burst = 2, 0.2, 50
		o.Records.LongestCall, o.Records.LateMax = time.Hour, 3*time.Hour
	})
	inner := span(noon, time.Hour)
	outer := span(noon.Add(-4*time.Hour), 9*time.Hour)
	reference := map[string]bool{}
	for r := range s.Truth("org-1", inner) {
		if reference[r.ReportID] {
			t.Fatalf("by report time twice: %s", r.ReportID)
		}
		reference[r.ReportID] = true
	}
	if len(reference) < 5000 {
		t.Fatalf("only %d records", len(reference))
	}
	for _, by := range []string{"report", "start", "insert"} {
		truth, err := s.TruthOf(TruthQuery{Span: outer, By: by})
		must(t, err)
		found, last := map[string]bool{}, time.Time{}
		for r := range truth {
			at := map[string]time.Time{"report": r.ReportTime, "start": r.StartTime, "insert": r.InsertTime}[by]
			if at.Before(last) {
				t.Fatalf("by %s: %s comes after %s", by, at, last)
			}
			last = at
			if inner.Contains(cdr.InstantOf(r.ReportTime)) {
				if found[r.ReportID] {
					t.Fatalf("by %s twice: %s", by, r.ReportID)
				}
				found[r.ReportID] = true
			}
		}
		if len(found) != len(reference) {
			t.Errorf("by %s: %d records, by report time %d", by, len(found), len(reference))
		}
	}
}

// TestNoLegIsLost plans every call of four hours and finds each of its legs in
// the minute of its report time, also where that is long before the call's end.
func TestNoLegIsLost(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate = 5 })
	o := s.orgs[0]
	inner := span(noon, 2*time.Hour)
	want := map[string]bool{}
	for minute := noon.Unix()/60 - 60; minute < noon.Unix()/60+180; minute++ {
		for number := range int64(o.callsIn(minute)) {
			c := o.call(minute, number)
			for leg := range c.shape.legs {
				if _, _, end := c.legTimes(leg); inner.Contains(cdr.InstantOf(time.UnixMilli(end))) {
					want[reportID("", legHash(c.hash, leg))] = true
				}
			}
		}
	}
	for r := range s.Truth("org-1", inner) {
		if !want[r.ReportID] {
			t.Fatalf("no call has this leg: %+v", r)
		}
		delete(want, r.ReportID)
	}
	if len(want) > 0 {
		t.Errorf("%d legs are in no minute", len(want))
	}
}

// TestRate counts days.
func TestRate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Records)
		rate   float64
	}{
		{"flat", func(*Records) {}, 2},
		{"slow", func(*Records) {}, 0.002},
		{"curve", func(r *Records) { r.DayCurve = true }, 1},
		{"nights", func(r *Records) { r.EmptyNights = true }, 1},
		{"both", func(r *Records) { r.DayCurve, r.EmptyNights = true, true }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSimulator(t, func(o *Options) { o.Records.Rate = test.rate; test.change(&o.Records) })
			const days = 3
			byHour, total := [24]int{}, 0
			truth, err := s.TruthOf(TruthQuery{Span: span(noon, days*24*time.Hour)})
			must(t, err)
			for r := range truth {
				byHour[r.ReportTime.Hour()]++
				total++
			}
			want := test.rate * days * 86400
			if off := math.Abs(float64(total) - want); off > max(5*math.Sqrt(want*5), 0.03*want) {
				t.Errorf("%d records in %d days, want about %.0f", total, days, want)
			}
			// A call that ends at six may have had legs that ended before.
			if night := byHour[23] + byHour[2] + byHour[4]; s.options.Records.EmptyNights != (night == 0) && test.rate >= 1 {
				t.Errorf("%d records at night", night)
			}
			if s.options.Records.DayCurve && byHour[9] < 5*byHour[7]/2 {
				t.Errorf("%d records after nine, %d after seven: no curve", byHour[9], byHour[7])
			}
		})
	}
}

// TestBounds keeps history between its ends.
func TestBounds(t *testing.T) {
	since, until := noon.Add(17*time.Second), noon.Add(40*time.Minute)
	s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Records.Since, o.Records.Until = 5, since, until })
	first, last, n := time.Time{}, time.Time{}, 0
	for r := range s.Truth("org-1", span(noon.Add(-time.Hour), 3*time.Hour)) {
		if n == 0 {
			first = r.ReportTime
		}
		last = r.ReportTime
		n++
	}
	if n < 10000 || first.Before(since) || !last.Before(until) || first.Sub(since) > 10*time.Second || until.Sub(last) > 10*time.Second {
		t.Errorf("%d records from %s to %s, want them between %s and %s", n, first, last, since, until)
	}
}

// TestLateness spreads late records over their whole range, the soon ones first.
func TestLateness(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Records.LateShare = 10, 0.1 })
	late, soon, veryLate, n := 0, 0, 0, 0
	for r := range s.Truth("org-1", span(noon, 20*time.Minute)) {
		n++
		delay := r.InsertTime.Sub(r.ReportTime)
		if r.Late != (delay >= time.Minute) || delay > 20*time.Hour {
			t.Fatalf("late %t, appeared after %s", r.Late, delay)
		}
		switch {
		case !r.Late:
			continue
		case delay < 30*time.Minute:
			soon++
		case delay > 10*time.Hour:
			veryLate++
		}
		late++
	}
	if late < n*8/100 || late > n*12/100 || soon < late/3 || veryLate == 0 {
		t.Errorf("%d of %d are late, %d of them within half an hour, %d after ten hours", late, n, soon, veryLate)
	}
}

// TestBurst finds the records of one millisecond.
func TestBurst(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate, o.Records.Burst = 0.1, 300 })
	for hour := range 3 {
		at := map[time.Time]int{}
		for r := range s.Truth("org-1", span(noon.Add(time.Duration(hour)*time.Hour), time.Hour)) {
			at[r.ReportTime]++
		}
		bursts := 0
		for _, n := range at {
			if n >= 300 {
				bursts++
			}
		}
		if bursts != 1 {
			t.Errorf("%d bursts in an hour, want 1", bursts)
		}
	}
}

// TestMemoryIsBounded drains three days through a small cache.
func TestMemoryIsBounded(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Records.Rate, o.CacheBytes = 10, 1<<20 })
	w := &discard{header: make(http.Header)}
	end := s.now().Add(-time.Hour).Truncate(time.Second)
	peak := uint64(0)
	for url, page := recordsURL("/v1/cdr_feed", end.Add(-6*time.Hour), end), 0; url != ""; page++ {
		clear(w.header)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		must(t, err)
		r.Header.Set("Authorization", "Bearer token-org-1")
		s.ServeHTTP(w, r)
		url = nextLink(w.header)
		if page%10 == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}
	if items := s.Stats().Items; items < 200_000 {
		t.Fatalf("only %d items", items)
	}
	if s.buckets.entries > s.buckets.limitEntries {
		t.Errorf("cache holds %d entries, limit %d", s.buckets.entries, s.buckets.limitEntries)
	}
	if peak > 24<<20 {
		t.Errorf("heap of %d MiB for a cache of 1 MiB", peak>>20)
	}
}

// TestCacheKeepsTheLatest is the one rule of the cache that costs nothing to break.
func TestCacheKeepsTheLatest(t *testing.T) {
	c := newBucketCache(100)
	built := 0
	ask := func(unit int64) {
		c.get(bucketKey{unit: unit}, func() []entry { built++; return make([]entry, 12) })
	}
	for unit := range int64(5) {
		ask(unit)
	}
	ask(0)
	ask(5) // five fit: the one that leaves is 1
	ask(0)
	if built != 6 {
		t.Errorf("built %d buckets, want 6", built)
	}
	ask(1)
	if built != 7 {
		t.Errorf("built %d buckets, want 7", built)
	}
	if c.entries > c.limitEntries {
		t.Errorf("%d entries in a cache of %d", c.entries, c.limitEntries)
	}
}
