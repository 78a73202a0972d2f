package poller

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Clock is what is known of a feed's clock. By it is judged what is old enough to
// be asked for and what is forgotten; the local clock only measures how time goes by.
type Clock struct {
	Skew       time.Duration // of the server's clock, ahead of ours
	NoDate     bool          // the feed sends no Date: the local clock has to do
	ComparedAt time.Time     // zero: never, and the local clock is taken at its word
}

// FeedTime returns the feed's time at a time of the local clock.
func (c Clock) FeedTime(now time.Time) time.Time { return now.Add(c.Skew) }

// learn takes in what a window's answers have told, if they tell it to within a margin:
// a request that hung says less than is known.
func (c *Clock) learn(out Outcome, margin time.Duration) {
	if out.Requests == 0 || out.SkewError > margin {
		return
	}
	if !out.ServerDate.IsZero() || out.Skew != 0 {
		*c = Clock{Skew: out.Skew, ComparedAt: out.LastRequestAt}
	}
}

// SkewOf returns how far the clock of a server is ahead of ours: its Date, which is
// cut to the second, against the middle of the request. False: it sent no Date.
func SkewOf(header http.Header, sentAt, headerAt time.Time) (skew time.Duration, dated bool) {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0, false
	}
	middle := sentAt.Add(headerAt.Sub(sentAt) / 2)
	return date.Add(500 * time.Millisecond).Sub(middle), true
}

// DescribeSkew says how a server's clock goes.
func DescribeSkew(skew time.Duration) string {
	if skew < 0 {
		return (-skew).Round(time.Second).String() + " behind this machine's"
	}
	return skew.Round(time.Second).String() + " ahead of this machine's"
}

// CompareClock asks a feed's host for the time, with a request that needs no token
// and counts against no budget. Any answer will do.
func CompareClock(ctx context.Context, options HTTPOptions, feed *url.URL) (Clock, error) {
	client := NewHTTPClient(options)
	defer client.CloseIdleConnections()
	host := &url.URL{Scheme: feed.Scheme, Host: feed.Host, Path: "/"}
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, host.String(), nil)
	if err != nil {
		return Clock{}, fmt.Errorf("ask %s for the time: %w", host.Host, err)
	}
	request.Header.Set("User-Agent", options.UserAgent())
	sentAt := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return Clock{}, fmt.Errorf("ask %s for the time: %w", host.Host, plainCause(ctx, err))
	}
	response.Body.Close()
	headerAt := time.Now()
	skew, dated := SkewOf(response.Header, sentAt, headerAt)
	return Clock{Skew: skew, NoDate: !dated, ComparedAt: headerAt}, nil
}

// Stale reports whether the clocks should be compared again before something is given
// up by them: it is a while ago, or the local clock was set since.
func (c Clock) Stale(now time.Time) bool {
	const goodFor = time.Minute
	return c.ComparedAt.IsZero() || now.Sub(c.ComparedAt) > goodFor || c.wasSet(now)
}

// Guessed reports whether nothing is known of the feed's clock, or nothing any more.
func (c Clock) Guessed(now time.Time) bool { return c.ComparedAt.IsZero() || c.wasSet(now) }

// wasSet reports whether the local clock was set since the comparison.
func (c Clock) wasSet(now time.Time) bool {
	return differ(now.Round(0).Sub(c.ComparedAt.Round(0)), now.Sub(c.ComparedAt)) // Round drops the monotonic reading
}

// differ reports whether the clock shows another stretch of time than has gone by:
// it was set, or it stood still with the machine.
func differ(shown, elapsed time.Duration) bool {
	const jitter = 5 * time.Second
	return (shown - elapsed).Abs() > jitter
}
