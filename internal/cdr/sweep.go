package cdr

import (
	"fmt"
	"time"
)

// SweepRound is how far the latest round of one sweep has come. A sweep is known
// by how far back it reads.
type SweepRound struct {
	BackSeconds int64   `json:"back_seconds"`
	Began       Instant `json:"began"`
	Next        Instant `json:"next"` // everything of the round before is read again
	End         Instant `json:"end"`  // exclusive; Next has reached it when the round is over
}

// Back is how far back the sweep reads.
func (r SweepRound) Back() time.Duration { return time.Duration(r.BackSeconds) * time.Second }

// IsZero reports whether there is no round.
func (r SweepRound) IsZero() bool { return r == SweepRound{} }

// Running reports whether something of the round is still to be read.
func (r SweepRound) Running() bool { return r.Next < r.End }

// Validate reports a round that cannot be.
func (r SweepRound) Validate() error {
	if r.BackSeconds <= 0 || r.Began <= 0 || r.Next <= 0 || r.Next > r.End {
		return fmt.Errorf("sweep round of %s, begun %s, read to %s of %s", r.Back(), r.Began, r.Next, r.End)
	}
	return nil
}

// Recheck is a span whose window did not prove complete: it is read again once,
// and soon.
type Recheck struct {
	Span Span    `json:"span"`
	Due  Instant `json:"due"`
}
