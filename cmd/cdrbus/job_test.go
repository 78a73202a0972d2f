package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/offsets"
)

var jobSpan = cdr.Span{StartInclusive: 1_000_000, EndExclusive: 1_036_000}

// TestProgressText: how far, what was found, and how much longer at the pace so far.
func TestProgressText(t *testing.T) {
	began := time.Unix(2_000_000, 0).UTC()
	job := func(kind offsets.JobKind) offsets.Job { return offsets.Job{Kind: kind, Source: "acme", Span: jobSpan} }
	for _, c := range []struct {
		state offsets.JobState
		want  string
	}{
		{offsets.JobState{Job: job(offsets.Backfill), Next: 1_000_000, BeganAt: began}, "backfill acme: 0 published, at 1970-01-12T13:46:40Z"},
		{offsets.JobState{Job: job(offsets.Backfill), Next: 1_009_000, BeganAt: began, Windows: 1, Published: 70}, "backfill acme: 70 published, at 1970-01-12T16:16:40Z, about 5m0s to go"},
		{offsets.JobState{Job: job(offsets.Verify), Next: 990_000, BeganAt: began, Windows: 1, Items: 9, Findings: &offsets.Findings{}}, "verify acme: 9 compared, at 1970-01-12T11:00:00Z"},
		{offsets.JobState{Job: job(offsets.Verify), Next: 1_036_000, BeganAt: began, Windows: 9, Items: 9, Findings: &offsets.Findings{Missing: 2, Doubled: 1}}, "verify acme: 9 compared, 2 missing, 1 doubled, at 1970-01-12T23:46:40Z"},
	} {
		if got := progressText(c.state, began.Add(100*time.Second)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestFindingsAreNamed: which record, when, and where.
func TestFindingsAreNamed(t *testing.T) {
	f := &offsets.Findings{Missing: 300, Unexpected: 1, Listed: []offsets.Finding{
		{What: "unexpected", ReportID: "a", ReportTime: time.Unix(1_000_000, 0).UTC(), At: "2:77"},
	}}
	for range offsets.MaxListed - 1 {
		f.Listed = append(f.Listed, offsets.Finding{What: "missing", ReportID: "b", Key: "c"})
	}
	var text bytes.Buffer
	if err := listFindings(&text, f); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")
	if len(lines) != shownFindings+2 || lines[0] != "  unexpected  a  1970-01-12T13:46:40Z  at offset 2:77" || lines[1] != "  missing     b                        key c" || lines[shownFindings] != "  and 251 more; -o json lists the first 200" {
		t.Errorf("%d lines: %q", len(lines), lines[:2])
	}
}

// TestTimesAreTaken: every command takes the same forms of a time.
func TestTimesAreTaken(t *testing.T) {
	now := time.Date(2026, 11, 25, 22, 0, 0, 0, time.UTC)
	source := &config.Source{Lookback: 30 * 24 * time.Hour}
	for text, want := range map[string]string{
		"2026-11-22": "2026-11-22T00:00:00Z", "2026-11-22T06:00:00Z": "2026-11-22T06:00:00Z",
		"36h": "2026-11-24T10:00:00Z", "-36h": "2026-11-24T10:00:00Z", "2d": "2026-11-23T22:00:00Z",
	} {
		if at, err := timeFlag("--from", text, source, now); err != nil || at.String() != want {
			t.Errorf("--from %s: %s, %v, want %s", text, at, err, want)
		}
		if at, err := coverageTime(text, time.UTC, cdr.InstantOf(now)); err != nil || at.String() != want {
			t.Errorf("coverage --from %s: %s, %v, want %s", text, at, err, want)
		}
	}
}
