// Package poller decides what to ask the feed of Webex Calling, and asks it.
//
//	Plan    pure: from what is known of a source to a Request, a Wait or a Gap   (plan.go)
//	Sweeps  the same for what lies behind the live edge and is read again        (sweep.go)
//	Budget  how many requests a credential may make, and when the next is legal  (budget.go)
//	Feed    one window: every page of it, in order, or an error                  (feed.go)
//	tokens  access tokens from a file or by refresh grant                        (token*.go)
//	Ask     one request of a probe, whose answer is looked at and not used       (inquiry.go)
//
// A window is read like this: Plan names a [Request]; [Feed.Fetch] asks for its
// first page, checks that the span is old enough by the server's own clock,
// hands the page's raw JSON to a [PageSink], follows the next link and goes on
// until a page has none. A nil error means that every page was read and
// accepted; any other end moves nothing.
//
// What the feed answers is treated by one table (treatment.go), and everything
// that ends a window early is one of four types (errors.go): [Stopped] needs a
// person, [RetryLater] needs time, [Replan] needs another span or page size,
// [AgedOut] is lost to the feed's lookback.
//
// Nothing in this package prints a token, the query of a URL, or an item.
package poller

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap/zapcore"

	"cdrbus/internal/cdr"
)

// Request is one window to be asked for.
type Request struct {
	Span     cdr.Span // what is asked, overlap included
	Commit   cdr.Span // what the window will settle: it starts at the published watermark; unset: it moves no watermark of the live edge
	Endpoint cdr.Endpoint
	Purpose  cdr.Purpose
	MinAge   time.Duration // the feed's Date must be this much later than Span.EndExclusive
	Lookback time.Duration // how far back the feed answers; 0: unknown
	PageSize int           // the max parameter; 0: as the Feed sees fit

	Round   cdr.SweepRound // of a sweep: how far it will have come; unset otherwise
	Follows cdr.Instant    // what it goes on behind; from there to Span the feed does not page on. Unset: a window of the live edge
}

// PageSink takes the pages of one window in order.
type PageSink interface {
	// Page takes the raw JSON of page n, the first being 0. The body is valid
	// during the call only.
	//
	// An error wrapping [cdr.ErrMalformedPage] says that nothing of the page was
	// used; the page is asked again, and Page called again with the same n. Any
	// other error ends the window and comes back from Fetch as it is.
	Page(ctx context.Context, n int, body []byte) error
}

// Outcome is what became known while a window was read. It is meaningful also
// next to an error.
type Outcome struct {
	Pages      int   // read and accepted by the sink
	Requests   int   // attempted, whatever came back
	TotalCount int64 // of the first page's next link, or 0 where the feed said that there is nothing; -1: unknown
	Bytes      int64 // decoded, of the accepted pages

	// ServerDate is the Date of the first page. If it is zero the feed sent none,
	// and the window was judged old enough by the local clock plus a margin.
	ServerDate time.Time
	Skew       time.Duration // how far the server's clock is ahead of ours; 0 without a Date
	SkewError  time.Duration // by how much that may be wrong: half of what the request took
	// Unproven tells why the answer, although complete in form, proves nothing;
	// "" means proven as far as the feed client can tell.
	Unproven string

	NotBefore      time.Time     // until when the feed demanded to be left alone; zero: it did not
	Waited         time.Duration // for the budget, on the feed's demand, or backing off
	FirstRequestAt time.Time
	LastRequestAt  time.Time
	LastInitialAt  time.Time // when the last request out of the initial bucket was answered or given up: what NewBudget wants to know after a crash
	PageSize       int       // to use for the next window
	Host           string    // that was asked last: another than the configured one after a change of region
}

// Attempt is one request and what came of it, for metrics.
type Attempt struct {
	Source     cdr.SourceName
	Host       string
	Bucket     Bucket
	Status     int // 0: no answer
	TrackingID string
	SentAt     time.Time
	Took       time.Duration // until the end of the body
	Bytes      int64         // decoded
	Err        error         // network, deadline, size; nil for any complete answer, also an error status
}

// TokenSource hands out access tokens. It is safe for concurrent use.
type TokenSource interface {
	// Token returns a token that is good for some minutes. A *[Stopped] says that
	// a person must act, a *[RetryLater] when to ask again; any other error is
	// transient, and the caller backs off.
	Token(ctx context.Context) (Token, error)
	// Rejected says that the feed answered 401 to this very token: the next Token
	// is another one, if there is any. Concurrent calls cause one refresh.
	Rejected(ctx context.Context, token Token) error
}

// Token is a bearer token. However it is printed, the secret stays out.
type Token struct {
	AccessToken string
	Expiry      time.Time // zero: unknown
}

const redacted = "[redacted]"

// String tells the expiry, never the token.
func (t Token) String() string {
	if t.Expiry.IsZero() {
		return "token " + redacted
	}
	return "token " + redacted + " until " + t.Expiry.UTC().Format(time.RFC3339)
}

// Format prints String for every verb, so that %+v and %#v show no field.
func (t Token) Format(s fmt.State, _ rune) { fmt.Fprint(s, t.String()) }

// MarshalText writes String: JSON and YAML of a token hold no secret.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalLogObject shows the expiry to zap, never the token.
func (t Token) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddTime("expiry", t.Expiry)
	return nil
}
