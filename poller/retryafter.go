package poller

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultRetryAfter is the wait where the feed names none: its buckets are by the minute.
	defaultRetryAfter = time.Minute
	// maxRetryAfter is the longest wait at a stretch, whatever the feed demands.
	maxRetryAfter = 15 * time.Minute
)

// retryAfter reads a Retry-After header in either form of RFC 9110, seconds or
// a date. A date counts from the server's own Date, if it sent one. Garbage,
// negative numbers and dates gone by are no demand.
func retryAfter(header http.Header, now time.Time) (demand time.Duration, ok bool) {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if text == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil {
		if seconds > uint64(maxDemand/time.Second) {
			return maxDemand, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	if demand = at.Sub(now); demand < 0 {
		return 0, false
	}
	return min(demand, maxDemand), true
}

// maxDemand keeps a demand printable and addable.
const maxDemand = 1000 * 24 * time.Hour
