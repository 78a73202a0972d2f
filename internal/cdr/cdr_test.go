package cdr

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestInstantRoundsDown(t *testing.T) {
	base := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	if got := InstantOf(base.Add(999 * time.Millisecond)); got != InstantOf(base) {
		t.Errorf("InstantOf rounds to %s, want %s", got, base)
	}
	i := InstantOf(base)
	for _, c := range []struct {
		add  time.Duration
		want Instant
	}{{time.Second, i + 1}, {1500 * time.Millisecond, i + 1}, {-time.Millisecond, i - 1}, {-time.Second, i - 1}, {-1001 * time.Millisecond, i - 2}} {
		if got := i.Add(c.add); got != c.want {
			t.Errorf("Add(%s) = %d, want %d", c.add, got-i, c.want-i)
		}
	}
}

func TestInstantText(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"},
		{"2026-11-22T10:00:00+02:00", "2026-11-22T08:00:00Z"},
	} {
		got, err := ParseInstant(c.in)
		if err != nil || got.String() != c.want {
			t.Errorf("ParseInstant(%q) = %s, %v; want %s", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "yesterday", "2026-11-22", "2026-11-22T10:00:00", "2026-11-22T10:00:00.5Z"} {
		if got, err := ParseInstant(bad); err == nil {
			t.Errorf("ParseInstant(%q) = %s, want an error", bad, got)
		}
	}
}

func TestSpan(t *testing.T) {
	span, err := ParseSpan("2026-11-22T10:00:00Z/2026-11-22T11:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	if span.Duration() != time.Hour || !span.Contains(span.StartInclusive) || span.Contains(span.EndExclusive) {
		t.Errorf("span %s is not half-open", span)
	}
	text, err := json.Marshal(span)
	if err != nil {
		t.Fatal(err)
	}
	var back Span
	if err := json.Unmarshal(text, &back); err != nil || back != span {
		t.Errorf("JSON round trip of %s gave %s, %v", span, back, err)
	}
	for _, bad := range []string{"", "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z/2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z/2026-11-22T10:00:00Z"} {
		if _, err := ParseSpan(bad); err == nil {
			t.Errorf("ParseSpan(%q) succeeded, want an error", bad)
		}
	}
}

func TestReportID(t *testing.T) {
	id := ReportIDOf([]byte("0a0c2eb7-f1f6-3326-86f9-565d2e11553d"))
	if got, want := id.String(), "0a0c2eb7f1f6332686f9565d2e11553d"; got != want {
		t.Errorf("UUID became %s, want %s", got, want)
	}
	if ReportIDOf([]byte("0A0C2EB7-F1F6-3326-86F9-565D2E11553D")) != id {
		t.Error("the case of a UUID's digits changes its identity")
	}
	for _, other := range []string{"", "0a0c2eb7f1f6332686f9565d2e11553d", "ga0c2eb7-f1f6-3326-86f9-565d2e11553d", "0a0c2eb7-f1f6-3326-86f9-565d2e11553d "} {
		if ReportIDOf([]byte(other)) == id {
			t.Errorf("text %q shares the identity of a UUID", other)
		}
	}
	if ReportIDOf([]byte("x")) == ReportIDOfRaw([]byte("x")) {
		t.Error("a text and an item of the same bytes share an identity")
	}
	if allocs := testing.AllocsPerRun(100, func() { ReportIDOf([]byte("0a0c2eb7-f1f6-3326-86f9-565d2e11553d")) }); allocs != 0 {
		t.Errorf("ReportIDOf a UUID allocates %v times", allocs)
	}
}

func TestSourceName(t *testing.T) {
	for _, good := range []string{"acme", "acme.eu-1", "A_b", "0"} {
		if err := SourceName(good).Validate(); err != nil {
			t.Errorf("Validate(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", ".a", "a b", "a/b", "ä", strings.Repeat("a", 101)} {
		if SourceName(bad).Validate() == nil {
			t.Errorf("Validate(%q) succeeded, want an error", bad)
		}
	}
}
