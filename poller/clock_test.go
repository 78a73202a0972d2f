package poller

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestCompareClock: any answer tells the time, and the request has neither token nor query.
func TestCompareClock(t *testing.T) {
	for _, c := range []struct {
		date string
		want Clock
	}{
		{time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat), Clock{Skew: 10 * time.Minute}},
		{"yesterday", Clock{NoDate: true}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead || r.URL.String() != "/" || r.Header.Get("Authorization") != "" || !strings.HasPrefix(r.UserAgent(), "cdrbus/") {
				t.Errorf("asked by %s %s, %v", r.Method, r.URL, r.Header)
			}
			w.Header().Set("Date", c.date)
			w.WriteHeader(http.StatusForbidden)
		}))
		feed, err := url.Parse(server.URL + "/v1/cdr_feed?orgId=secret")
		if err != nil {
			t.Fatal(err)
		}
		clock, err := CompareClock(t.Context(), HTTPOptions{}, feed)
		if err != nil || (clock.Skew-c.want.Skew).Abs() > 2*time.Second || clock.NoDate != c.want.NoDate || clock.Stale(time.Now()) || clock.Guessed(time.Now()) {
			t.Errorf("Date %q: %+v, %v; want %+v", c.date, clock, err, c.want)
		}
		server.Close()
		if _, err := CompareClock(t.Context(), HTTPOptions{}, feed); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("a host that is gone: %v", err)
		}
	}
}

func TestClockGrowsStale(t *testing.T) {
	now := time.Now()
	if never := (Clock{}); !never.Stale(now) || !never.Guessed(now) {
		t.Error("a clock that was never compared passes for known")
	}
	if old := (Clock{ComparedAt: now.Add(-time.Hour)}); !old.Stale(now) || old.Guessed(now) {
		t.Error("after an hour a clock is stale, but no guess")
	}
	for _, c := range []struct {
		shown, elapsed time.Duration
		want           bool
	}{
		{time.Hour, time.Hour, false}, {time.Hour + time.Second, time.Hour, false},
		{0, 10 * time.Minute, true}, {-time.Hour, time.Second, true}, {time.Hour, time.Minute, true},
	} {
		if differ(c.shown, c.elapsed) != c.want {
			t.Errorf("a clock that shows %s after %s: want %v", c.shown, c.elapsed, c.want)
		}
	}
}

func TestDescribeSkew(t *testing.T) {
	if got := DescribeSkew(10*time.Minute) + ", " + DescribeSkew(-90*time.Second); got != "10m0s ahead of this machine's, 1m30s behind this machine's" {
		t.Error(got)
	}
}
