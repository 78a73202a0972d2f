package coverage

import (
	"fmt"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// ParseDemand reads the span that somebody requires: a day (2026-11-22) or a month
// (2026-11) of a time zone, or START/END in RFC 3339. Days are as long as the zone has
// them, 23 to 25 hours.
func ParseDemand(text string, zone *time.Location) (cdr.Span, error) {
	if strings.Contains(text, "/") {
		return cdr.ParseSpan(text)
	}
	for _, period := range []struct {
		layout       string
		months, days int
	}{{time.DateOnly, 0, 1}, {"2006-01", 1, 0}} {
		if first, err := time.Parse(period.layout, text); err == nil {
			year, month, day := first.Date()
			span := cdr.Span{
				StartInclusive: StartOfDay(year, month, day, zone),
				EndExclusive:   StartOfDay(year, month+time.Month(period.months), day+period.days, zone),
			}
			return span, span.Validate()
		}
	}
	return cdr.Span{}, fmt.Errorf("%q: want a day such as 2026-11-22, a month such as 2026-11, or START/END in RFC 3339", text)
}

// ParseTime reads an end of a span: an RFC 3339 time, or the beginning of a day.
func ParseTime(text string, zone *time.Location) (cdr.Instant, error) {
	if date, err := time.Parse(time.DateOnly, text); err == nil {
		year, month, day := date.Date()
		return StartOfDay(year, month, day, zone), nil
	}
	return cdr.ParseInstant(text)
}

// StartOfDay is the first instant of a day in a zone. Where clocks change at midnight
// that is not 00:00, or the earlier one of two.
func StartOfDay(year int, month time.Month, day int, zone *time.Location) cdr.Instant {
	noon := time.Date(year, month, day, 12, 0, 0, 0, zone)
	start := time.Date(year, month, day, 0, 0, 0, 0, zone)
	if start.Day() != noon.Day() {
		_, start = start.ZoneBounds() // midnight is skipped: the day begins with the change
	}
	if earlier := start.Add(-time.Hour); earlier.Day() == noon.Day() {
		start = earlier
	}
	return cdr.InstantOf(start)
}

// Demandable reports why nobody can require a span yet.
func Demandable(span cdr.Span, widest Sweep, now cdr.Instant) error {
	if span.EndExclusive <= now {
		return nil
	}
	return fmt.Errorf("%s ends in the future; it can be complete by %s, ask again then", span, widest.settlesBy(span.EndExclusive))
}

// Outside reports a span of which the receipts tell nothing at all: there is nothing to
// judge.
func (r *Report) Outside(span cdr.Span) error {
	for _, s := range r.Stretches {
		if s.State != Unread && s.Span.StartInclusive < span.EndExclusive && span.StartInclusive < s.Span.EndExclusive {
			return nil
		}
	}
	backfill := fmt.Sprintf("cdrbus backfill -c FILE --source %s --from %s --to %s", r.Source, span.StartInclusive, span.EndExclusive)
	switch {
	case r.Counter == 0:
		return fmt.Errorf("source %s has no receipt: has cdrbus run with this configuration? select others with --source", r.Source)
	case !r.Start.IsZero() && span.EndExclusive <= r.Start:
		return fmt.Errorf("source %s begins at %s, and no receipt tells of %s; to read it: %s, to leave the source out: --source", r.Source, r.Start, span, backfill)
	case span.StartInclusive >= r.Published:
		return fmt.Errorf("source %s is published to %s, and %s comes after that: is cdrbus running? see cdrbus status", r.Source, r.Published, span)
	default:
		return fmt.Errorf("no receipt of source %s tells of %s: it was not read, or the receipts are gone with the topic's retention; to read it: %s", r.Source, span, backfill)
	}
}
