package coverage

import (
	"fmt"
	"time"

	"cdrbus/internal/cdr"
)

// Report is what the receipts of one source tell of a span.
type Report struct {
	Source    cdr.SourceName `json:"source"`
	Span      cdr.Span       `json:"span"`
	Start     cdr.Instant    `json:"start,omitzero"`     // of the source, if the receipts reach back so far
	Published cdr.Instant    `json:"published,omitzero"` // live edge
	FeedRead  cdr.Instant    `json:"feedRead,omitzero"`  // by cdr_feed, which the live edge may be ahead of
	Settled   cdr.Instant    `json:"settled,omitzero"`
	Counter   cdr.Counter    `json:"counter"`               // of the last receipt
	Committed time.Time      `json:"lastCommitAt,omitzero"` // by the last receipt

	Stretches   []Stretch       `json:"stretches,omitempty"`
	Seconds     map[State]int64 `json:"seconds"`         // of the span, by state
	Counts      Counts          `json:"counts,omitzero"` // of the receipts that tell of the span
	Undecodable int64           `json:"undecodable,omitempty"`
}

// Report returns what is known of a span within the view.
func (m *Map) Report(source cdr.SourceName, span cdr.Span) Report {
	r := Report{
		Source: source, Span: span, Start: m.began, Published: m.last.published(), FeedRead: m.last.feedPublished, Settled: m.last.feedSettled,
		Counter: m.last.counter, Committed: m.last.committed,
		Stretches: m.Stretches(span), Seconds: map[State]int64{}, Counts: m.totals, Undecodable: m.undecodable,
	}
	for i := range r.Stretches {
		s := &r.Stretches[i]
		r.Seconds[s.State] += s.Seconds
		if s.Reason == "" {
			s.Reason = r.reasonOf(*s)
		}
	}
	return r
}

// reasonOf says why a stretch of which no receipt gives a reason is not better.
func (r *Report) reasonOf(s Stretch) string {
	switch {
	case s.State == Unread && r.Published.IsZero():
		return "no receipt of this source"
	case s.State == Unread && s.Span.EndExclusive <= r.Start:
		return "before the start of the source"
	case s.State == Unread && s.Span.StartInclusive >= r.Published:
		return "after the live edge"
	case s.State == Unread:
		return "no receipt tells of it"
	case s.State == Published:
		return "so far read by cdr_stream only"
	default:
		return ""
	}
}

// Sweep is the widest sweep of a source: it settles.
type Sweep struct{ Every, Back time.Duration }

// settlesBy is when what ends at an instant has probably settled.
func (s Sweep) settlesBy(end cdr.Instant) cdr.Instant { return end.Add(s.Back + s.Every) }

// slower reports whether s settles later than another.
func (s Sweep) slower(than Sweep) bool { return s.Back+s.Every > than.Back+than.Every }

// Verdict is whether a source is complete over a span that somebody requires.
type Verdict struct {
	Source   cdr.SourceName `json:"source"`
	Span     cdr.Span       `json:"span"`
	Complete bool           `json:"complete"` // proven and settled throughout
	Lacking  []Lack         `json:"lacking,omitempty"`
	// SettlesBy is when it is probably complete; unset where that takes a person.
	SettlesBy time.Time `json:"settlesBy,omitzero"`
}

// Lack is a stretch that is not settled, and what becomes of it.
type Lack struct {
	Stretch
	Outlook string `json:"outlook"`
}

// Judge returns the verdict about a span that lies within that of the report.
func (r *Report) Judge(span cdr.Span, widest Sweep, now cdr.Instant) Verdict {
	v := Verdict{Source: r.Source, Span: span, Complete: true}
	helpless := false
	for _, s := range r.Stretches {
		s.Span.StartInclusive, s.Span.EndExclusive = max(s.Span.StartInclusive, span.StartInclusive), min(s.Span.EndExclusive, span.EndExclusive)
		if s.Seconds = secondsOf(s.Span); s.Seconds <= 0 || s.State == Settled {
			continue
		}
		v.Complete = false
		outlook, by := r.outlook(s, widest, now)
		v.Lacking = append(v.Lacking, Lack{Stretch: s, Outlook: outlook})
		helpless = helpless || by.IsZero()
		if by.After(v.SettlesBy) {
			v.SettlesBy = by
		}
	}
	if helpless {
		v.SettlesBy = time.Time{}
	}
	return v
}

// outlook says what becomes of a stretch, and when it will probably have settled; the
// zero time where it does not by itself.
//
// The widest sweep settles what lies its width behind the time when it begins. It
// begins every so often, so that the end of a stretch waits for one round at most.
func (r *Report) outlook(s Stretch, widest Sweep, now cdr.Instant) (string, time.Time) {
	backfill := fmt.Sprintf("cdrbus backfill -c FILE --source %s --from %s --to %s", r.Source, s.Span.StartInclusive, s.Span.EndExclusive)
	settles := widest.settlesBy(s.Span.EndExclusive)
	switch {
	case s.State == Gap:
		return "if the feed still has some of it: " + backfill, time.Time{}
	case s.State == Unread && s.Span.EndExclusive <= r.Published || s.State == Unread && r.Published.IsZero():
		return "to read it: " + backfill, time.Time{}
	case settles <= now && s.Span.EndExclusive > r.Settled:
		return fmt.Sprintf("should have settled by %s: is cdrbus running? see cdrbus status", settles), time.Time{}
	case settles <= now:
		return "the sweeps have passed it; to read it again: " + backfill, time.Time{}
	case s.State == Unread || s.State == Published:
		return fmt.Sprintf("cdr_feed has read to %s; probably settled by %s, when it has caught up", r.FeedRead, settles), settles.Time()
	case s.State == Unproven || s.Reason != "":
		return fmt.Sprintf("the sweeps read it again; settled by %s if one proves it", settles), settles.Time()
	default:
		return fmt.Sprintf("probably settled by %s", settles), settles.Time()
	}
}
