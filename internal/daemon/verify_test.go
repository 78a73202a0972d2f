package daemon

import (
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/eventlog"
	"cdrbus/offsets"
)

// TestVerificationWants: the memory of a verification follows the span that was asked
// for, not the topic.
func TestVerificationWants(t *testing.T) {
	start := cdr.InstantOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	v := &verification{source: "acme", job: offsets.Job{Span: cdr.Span{StartInclusive: start, EndExclusive: start.Add(time.Hour)}}}
	at := func(d time.Duration) int64 { return start.Add(d).Time().UnixMilli() }
	for _, c := range []struct {
		name  string
		event eventlog.Event
		want  bool
	}{
		{"within", eventlog.Event{Source: "acme", ReportTimeMillis: at(0)}, true},
		{"at its end", eventlog.Event{Source: "acme", ReportTimeMillis: at(time.Hour)}, false},
		{"before", eventlog.Event{Source: "acme", ReportTimeMillis: at(0) - 1000}, false},
		{"another source's", eventlog.Event{Source: "globex", ReportTimeMillis: at(0)}, false},
		{"without a time", eventlog.Event{Source: "acme"}, true},
		{"a revision from before", eventlog.Event{Source: "acme", ReportTimeMillis: at(-time.Hour), Revision: true}, true},
		{"a revision from long before", eventlog.Event{Source: "acme", ReportTimeMillis: at(-25 * time.Hour), Revision: true}, false},
		{"without headers, within", eventlog.Event{ReportTimeMillis: at(0)}, true},
		{"without headers, behind", eventlog.Event{ReportTimeMillis: at(2 * time.Hour)}, true},
		{"without headers, far behind", eventlog.Event{ReportTimeMillis: at(26 * time.Hour)}, false},
	} {
		if got := v.wants(&c.event); got != c.want {
			t.Errorf("an event %s: wanted %t, want %t", c.name, got, c.want)
		}
	}
}
