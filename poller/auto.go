package poller

import (
	"time"

	"cdrbus/internal/cdr"
)

const (
	// streamSafety is how much of cdr_stream's lookback is kept in hand: a source
	// that lags behind further reads cdr_feed until it has caught up.
	streamSafety = 2 * time.Hour
	// streamOverlap is how far before the end of what cdr_feed was read to a change
	// to cdr_stream begins. A record is inserted after its report time, but for what
	// the clocks of Webex differ.
	streamOverlap = 10 * time.Minute
)

// TooFarForStream reports whether a source lags so far behind on cdr_stream that
// this may forget records before they are asked for.
func TooFarForStream(stream *State, now time.Time) bool {
	return stream.FeedTime(now).Sub(stream.Published.Time()) > stream.lookback()-streamSafety
}

// StreamFrom returns the time of insertion from which cdr_stream has whatever
// cdr_feed has not returned, if that was read to the watermark published: records
// that came into being since, and those that were late for it.
func StreamFrom(published cdr.Instant) cdr.Instant { return published.Add(-streamOverlap) }

// Lost returns the span that the endpoint no longer returns although it was not
// read; nil if there is none.
func (s *State) Lost(now time.Time) *cdr.Span {
	oldest := s.oldestStart(now)
	if s.Published >= oldest {
		return nil
	}
	return &cdr.Span{StartInclusive: s.Published, EndExclusive: min(oldest.Add(gapMargin), s.youngestEnd(now))}
}
