package daemon_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/simulator"
)

// lateFeed delivers records up to 20 hours late, twice, at both edges of a page, and
// changes some of them afterwards.
func lateFeed(o *simulator.Options) {
	o.Records.Rate = 0.01
	o.Records.LateShare, o.Records.RevisedShare, o.Records.DoubleShare = 0.05, 0.01, 0.01
	o.Answers.BoundaryRepeats = 3
	o.Answers.MaxFloor, o.Answers.MaxCeiling = 1, 100
	o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = 1, 10
	o.Answers.TotalCount = simulator.TotalMixed
}

// TestLateRecords: whatever comes late is published, once, and so is each revision,
// on each endpoint and whatever happens meanwhile.
func TestLateRecords(t *testing.T) {
	for _, c := range []struct {
		name, source string
		tune         func(*simulator.Options)
		outage       time.Duration
	}{
		{name: "feed", source: "endpoint: feed"},
		{name: "stream", source: "endpoint: stream"},
		{name: "auto", source: "endpoint: auto"},
		{name: "feed, outage", source: "endpoint: feed", outage: 14 * time.Hour},
		{name: "stream, outage", source: "endpoint: stream", outage: 14 * time.Hour},
		{name: "auto, outage", source: "endpoint: auto", outage: 14 * time.Hour},
		{name: "feed, by start of call", source: "endpoint: feed", tune: func(o *simulator.Options) { o.Answers.SelectBy = simulator.ByStart }},
		{name: "auto, by start of call", source: "endpoint: auto", tune: func(o *simulator.Options) { o.Answers.SelectBy = simulator.ByStart }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *simulator.Options) {
					lateFeed(o)
					if c.tune != nil {
						c.tune(o)
					}
				})
				cfg := w.config("", w.source("acme", c.source))
				random := rand.New(rand.NewPCG(7, 7))
				until := time.Now().Add(24 * time.Hour)
				if c.outage > 0 {
					w.liveAndDie(cfg, time.Now().Add(6*time.Hour), random)
					time.Sleep(c.outage)
				}
				w.liveAndDie(cfg, until, random)
				w.liveAndDie(cfg, until.Add(62*time.Hour), random)
				w.demandRevisions("acme", cdr.InstantOf(until))
				for _, violation := range w.feed.Violations() {
					t.Errorf("%+v", violation)
				}
			})
		})
	}
}

// liveAndDie runs a daemon that dies every few hours.
func (w *world) liveAndDie(cfg *config.Config, until time.Time, random *rand.Rand) {
	w.t.Helper()
	for time.Now().Before(until) {
		w.runFor(cfg, min(time.Until(until), time.Duration(1+random.IntN(10*3600))*time.Second))
		time.Sleep(time.Minute) // so that the feed counts no requests of the life before
	}
}

// demandRevisions holds the events against the feed's truth up to an instant that is
// settled: each record once, each revision once more, and marked.
func (w *world) demandRevisions(name string, until cdr.Instant) {
	w.t.Helper()
	position := w.position(name)
	if position.FeedSettled < until {
		w.t.Errorf("%s is settled to %s, want %s and more", name, position.FeedSettled, until)
	}
	events := map[string][]string{} // marks of each, by Report ID
	late := 0
	for _, r := range w.topic(eventsTopic, w.events) {
		mark := headerOf(r, "revision")
		if headerOf(r, "late") != "" {
			late++
		}
		events[headerOf(r, "ce_id")] = append(events[headerOf(r, "ce_id")], mark)
	}
	records, revised := 0, 0
	for truth := range w.feed.Truth(name, cdr.Span{StartInclusive: w.start, EndExclusive: until}) {
		records++
		marks := events[truth.ReportID]
		plain := len(slices.DeleteFunc(slices.Clone(marks), func(m string) bool { return m != "" }))
		if plain != 1 || len(marks) > 2 || truth.RevisedTime.IsZero() && len(marks) != 1 {
			w.t.Errorf("record %s at %s, inserted %s later, revised at %s, is there with the marks %q", truth.ReportID, truth.ReportTime, truth.InsertTime.Sub(truth.ReportTime), truth.RevisedTime, marks)
		}
		if len(marks) == 2 {
			revised++
		}
	}
	receipts := w.receipts(name)
	sweeps := 0
	for _, r := range receipts {
		if r.Purpose == cdr.Sweep {
			sweeps++
		}
	}
	w.t.Logf("%d records, %d events marked late, %d revisions, %d windows of which %d sweeps; published %s, settled %s", records, late, revised, len(receipts), sweeps, position.Published(), position.FeedSettled)
}
