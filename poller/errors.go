package poller

import (
	"fmt"
	"time"

	"cdrbus/internal/cdr"
)

// Stopped says that a person must decide: asking again as things are would not help.
type Stopped struct {
	Code    int           // the feed's or token endpoint's status; 0: none
	Message string        // what was asked and what came back
	Remedy  string        // what to do about it
	Reprobe time.Duration // try by yourself after so long; 0: not before something was changed
}

func (e *Stopped) Error() string {
	if e.Remedy == "" {
		return e.Message
	}
	return e.Message + "; " + e.Remedy
}

// RetryLater says that time may help, and that the lane is better used meanwhile.
type RetryLater struct {
	After time.Duration
	Cause error
}

func (e *RetryLater) Error() string {
	return fmt.Sprintf("%v; trying again in %s", e.Cause, e.After.Round(time.Second))
}

func (e *RetryLater) Unwrap() error { return e.Cause }

// Replan says that the window has to begin again, over half the span if
// HalveSpan, with the page size of the Outcome.
type Replan struct {
	Cause     error
	HalveSpan bool
}

func (e *Replan) Error() string {
	if e.HalveSpan {
		return fmt.Sprintf("%v; planning the window again at half the span", e.Cause)
	}
	return fmt.Sprintf("%v; planning the window again", e.Cause)
}

func (e *Replan) Unwrap() error { return e.Cause }

// CursorStuck is the cause of a Replan: a page's next link leads to that page
// itself. More records share the instant than a page holds.
type CursorStuck struct {
	At       cdr.Instant // 0: the cursor is no time that we can read
	PageSize int         // that was in use
}

func (e *CursorStuck) Error() string {
	return fmt.Sprintf("follow next link: the cursor stays at %s with %d records a page", e.At, e.PageSize)
}

// AgedOut says that the feed refuses the span because it begins too far back.
type AgedOut struct {
	Start cdr.Instant   // that was refused
	Age   time.Duration // of it, by the server's clock where known
	Cause error
}

func (e *AgedOut) Error() string {
	return fmt.Sprintf("%v; the span begins at %s, %s ago, at the edge of what the feed keeps", e.Cause, e.Start, e.Age.Round(time.Second))
}

func (e *AgedOut) Unwrap() error { return e.Cause }
