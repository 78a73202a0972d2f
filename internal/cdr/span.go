package cdr

import (
	"fmt"
	"strings"
	"time"
)

// Instant is a point of feed time in whole seconds since the Unix epoch, UTC:
// the grain at which the feed compares times. The zero Instant means unset.
type Instant int64

// instantLayout is RFC 3339 in whole seconds, always UTC.
const instantLayout = "2006-01-02T15:04:05Z"

// InstantOf returns the instant at or just before t.
func InstantOf(t time.Time) Instant {
	if t.IsZero() {
		return 0
	}
	return Instant(t.Unix())
}

// ParseInstant reads an RFC 3339 time with any zone; a fraction of a second is refused.
func ParseInstant(s string) (Instant, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, fmt.Errorf("parse instant %q: want RFC 3339, such as 2026-11-22T00:00:00Z", s)
	}
	if t.Nanosecond() != 0 {
		return 0, fmt.Errorf("parse instant %q: want whole seconds", s)
	}
	return InstantOf(t), nil
}

// IsZero reports whether the instant is unset.
func (i Instant) IsZero() bool { return i == 0 }

// Time returns the instant as a UTC time; the zero time if unset.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(int64(i), 0).UTC()
}

// Add returns the instant d later, rounded down to a whole second.
func (i Instant) Add(d time.Duration) Instant {
	seconds := int64(d / time.Second)
	if d%time.Second < 0 {
		seconds--
	}
	return i + Instant(seconds)
}

// Sub returns how much later i is than earlier.
func (i Instant) Sub(earlier Instant) time.Duration { return time.Duration(i-earlier) * time.Second }

// String returns RFC 3339 in UTC, or "unset".
func (i Instant) String() string {
	if i == 0 {
		return "unset"
	}
	return i.Time().Format(instantLayout)
}

// MarshalText writes RFC 3339 in UTC, and nothing for an unset instant.
func (i Instant) MarshalText() ([]byte, error) {
	if i == 0 {
		return nil, nil
	}
	return i.Time().AppendFormat(nil, instantLayout), nil
}

// UnmarshalText is the inverse of MarshalText.
func (i *Instant) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*i = 0
		return nil
	}
	parsed, err := ParseInstant(string(text))
	if err != nil {
		return err
	}
	*i = parsed
	return nil
}

// Span is the half-open stretch of feed time [StartInclusive, EndExclusive).
type Span struct {
	StartInclusive Instant `json:"start"`
	EndExclusive   Instant `json:"end"`
}

// ParseSpan reads the form that String writes: START/END.
func ParseSpan(s string) (Span, error) {
	start, end, found := strings.Cut(s, "/")
	if !found {
		return Span{}, fmt.Errorf("parse span %q: want START/END in RFC 3339", s)
	}
	var span Span
	var err error
	if span.StartInclusive, err = ParseInstant(start); err != nil {
		return Span{}, err
	}
	if span.EndExclusive, err = ParseInstant(end); err != nil {
		return Span{}, err
	}
	return span, span.Validate()
}

// Validate reports a span that is unset, empty or reversed.
func (s Span) Validate() error {
	if s.StartInclusive.IsZero() || s.EndExclusive.IsZero() {
		return fmt.Errorf("span %s: a bound is unset", s)
	}
	if s.EndExclusive <= s.StartInclusive {
		return fmt.Errorf("span %s: the end must be later than the start", s)
	}
	return nil
}

// IsZero reports whether the span is unset.
func (s Span) IsZero() bool { return s == Span{} }

// Duration returns the length of the span.
func (s Span) Duration() time.Duration { return s.EndExclusive.Sub(s.StartInclusive) }

// Contains reports whether the span holds i.
func (s Span) Contains(i Instant) bool { return s.StartInclusive <= i && i < s.EndExclusive }

func (s Span) String() string { return s.StartInclusive.String() + "/" + s.EndExclusive.String() }
