// Package cdr holds the words that every room of cdrbus speaks: an [Instant] of
// feed time, a half-open [Span] of it, the [Endpoint] that is asked, the name of
// a source, the identity of a record and of a window.
//
// It is a leaf: small comparable values, no I/O, no goroutines, and no import
// from the rest of the module. Everything in it is safe for concurrent use.
package cdr

import (
	"errors"
	"fmt"
	"regexp"
)

// ErrMalformedPage says that a page of the feed is not the JSON it should be:
// cut short, HTML, or without an items array. The page has to be asked for
// again; nothing of it has been used.
var ErrMalformedPage = errors.New("malformed page")

// ErrWindowTooLarge says that a window outgrew the bytes that one window may
// hold. It has to be abandoned and planned again over a shorter span.
var ErrWindowTooLarge = errors.New("window too large")

// Endpoint is one of the two feeds of Webex Calling.
type Endpoint string

const (
	// Feed is /v1/cdr_feed: windows by report time, old enough and far back.
	Feed Endpoint = "feed"
	// Stream is /v1/cdr_stream: windows by time of insertion, young and short.
	Stream Endpoint = "stream"
)

// Purpose says why a window is asked for. It ends up in the window's receipt.
type Purpose string

const (
	// Live follows the young end of the feed.
	Live Purpose = "live"
	// CatchUp works off a backlog, in windows as wide as the feed allows.
	CatchUp Purpose = "catch_up"
	// Sweep reads again what was read before, for records that came late.
	Sweep Purpose = "sweep"
	// Backfill reads a span behind the live edge because a person asked for it.
	Backfill Purpose = "backfill"
	// Repair publishes anew what the events topic lacks although it was published.
	Repair Purpose = "repair"
	// Verify reads a span again to compare it. It is never committed.
	Verify Purpose = "verify"
	// Gap records a span that the feed can no longer return. No request is made.
	Gap Purpose = "gap"
	// Start fixes the first position of a new source. No request is made.
	Start Purpose = "start"
	// Mend is no window: a person's command wrote the position. No request is made.
	Mend Purpose = "mend"
)

// SourceName is the identity of a source. It keys its positions and receipts,
// so it never changes while the source lives.
type SourceName string

var sourceNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Validate reports whether the name can be a Kafka key, a metric label, a file
// name and a URN part without any escaping.
func (n SourceName) Validate() error {
	if !sourceNamePattern.MatchString(string(n)) {
		return fmt.Errorf("source name %q: want 1 to 100 letters, digits, dots, dashes or underscores, beginning with a letter or digit", string(n))
	}
	return nil
}

// Counter counts the commits of one source's position: the first is 1, and each
// commit adds one. Zero means no commit yet.
type Counter uint64

// WindowID names one window for ever: the commit of a source that it was.
type WindowID struct {
	Source  SourceName
	Counter Counter
}

func (id WindowID) String() string { return fmt.Sprintf("%s#%d", id.Source, id.Counter) }
