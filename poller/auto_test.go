package poller

import (
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// TestSeams: a change of endpoint overlaps. Records take a while from their report time
// to their insertion, and the clocks that tell these differ by minutes.
func TestSeams(t *testing.T) {
	published := cdr.InstantOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	if from := StreamFrom(published); published.Sub(from) < 5*time.Minute {
		t.Errorf("cdr_stream goes on at %s where cdr_feed was read to %s", from, published)
	}
	s := State{Policy: DefaultPolicy(cdr.Stream), Published: published}
	for _, c := range []struct {
		lag, skew time.Duration
		tooFar    bool
	}{{9 * time.Hour, 0, false}, {11 * time.Hour, 0, true}, {9 * time.Hour, 2 * time.Hour, true}, {11 * time.Hour, -2 * time.Hour, false}} {
		s.Skew = c.skew
		if got := TooFarForStream(&s, published.Time().Add(c.lag)); got != c.tooFar {
			t.Errorf("a lag of %s, the feed's clock %s ahead: too far %t", c.lag, c.skew, got)
		}
	}
	s.Skew = 0
	if lost := s.Lost(published.Time().Add(11 * time.Hour)); lost != nil {
		t.Errorf("lost after 11 h: %s", lost)
	}
	if lost := s.Lost(published.Time().Add(13 * time.Hour)); lost == nil || lost.StartInclusive != published {
		t.Errorf("lost after 13 h: %v", lost)
	}
}
