package daemon_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/faultnet"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

var lateFull = flag.Bool("late.full", false, "in TestLateRecords, thousands of records up to 20 hours late, and the default sweeps")

// lateScale is how late records are, and how long it takes to have them all.
type lateScale struct {
	rate                float64 // records a second
	latest, live, after time.Duration
	sweeps              string // setting of the source
}

func scaleOfLateness() lateScale {
	if *lateFull {
		return lateScale{0.1, 20 * time.Hour, 24 * time.Hour, 62 * time.Hour, "min_age: 5m"}
	}
	return lateScale{0.01, 6 * time.Hour, 8 * time.Hour, 12 * time.Hour, "sweeps: [{every: 15m, back: 2h}, {every: 3h, back: 8h}]"}
}

// lateFeed delivers records late, twice, at both edges of a page, and changes some of
// them afterwards.
func lateFeed(o *simulator.Options, scale lateScale) {
	o.Records.Rate = scale.rate
	o.Records.LateShare, o.Records.RevisedShare, o.Records.DoubleShare = 0.05, 0.02, 0.01
	o.Records.LateMax, o.Records.RevisedMax = scale.latest, scale.latest
	o.Answers.BoundaryRepeats = 3
	o.Answers.MaxFloor, o.Answers.MaxCeiling = 1, 100
	o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = 1, 10
	o.Answers.TotalCount = simulator.TotalMixed
}

// TestLateRecords: whatever comes late is published, once, and so is each revision,
// on each endpoint and whatever happens meanwhile.
func TestLateRecords(t *testing.T) {
	if testing.Short() {
		t.Skip("a day of fake time takes a while under the race detector; the simulation has late records too")
	}
	scale := scaleOfLateness()
	for _, c := range []struct {
		name, source string
		outage       time.Duration
		byStart      bool // the feed selects by start of call
	}{
		{name: "feed", source: "endpoint: feed"},
		{name: "stream", source: "endpoint: stream"},
		{name: "auto", source: "endpoint: auto"},
		{name: "feed, outage", source: "endpoint: feed", outage: 14 * time.Hour},
		{name: "stream, outage", source: "endpoint: stream", outage: 14 * time.Hour},
		{name: "auto, outage", source: "endpoint: auto", outage: 14 * time.Hour},
		{name: "feed, by start of call", source: "endpoint: feed", byStart: true},
		{name: "auto, by start of call", source: "endpoint: auto", byStart: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *simulator.Options) {
					lateFeed(o, scale)
					if c.byStart {
						o.Answers.SelectBy = simulator.ByStart
					}
				})
				w.metadataTTL = time.Minute
				cfg := w.config("", w.source("acme", c.source, scale.sweeps))
				random := rand.New(rand.NewPCG(7, 7))
				if c.outage > 0 {
					w.liveAndDie(cfg, time.Now().Add(scale.live/4), random)
					time.Sleep(c.outage)
				}
				until := time.Now().Add(scale.live / 2)
				w.liveAndDie(cfg, until, random)
				w.liveAndDie(cfg, until.Add(scale.after), random)
				w.demandRevisions("acme", cdr.InstantOf(until), c.byStart)
				for _, violation := range w.feed.Violations() {
					t.Errorf("%+v", violation)
				}
			})
		})
	}
}

// liveAndDie runs a daemon that dies every few hours, in the middle of whatever it does,
// as kill -9 ends it: nothing more of it reaches Kafka.
func (w *world) liveAndDie(cfg *config.Config, until time.Time, random *rand.Rand) {
	w.t.Helper()
	for time.Now().Before(until) {
		life := min(time.Until(until), time.Duration(1+random.IntN(10*3600))*time.Second)
		w.killAfter(cfg, life+time.Duration(random.IntN(1000))*time.Millisecond)
		time.Sleep(time.Minute) // so that the feed counts no requests of the life before
	}
}

func (w *world) killAfter(cfg *config.Config, life time.Duration) {
	w.t.Helper()
	network := faultnet.New(faultnet.Options{Dial: w.dialKafka})
	defer network.Close()
	own := *w
	own.dialKafka = network.Dialer("daemon")
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	timer := time.AfterFunc(life, func() {
		network.Kill("daemon")
		cancel()
	})
	defer timer.Stop()
	if _, err := own.run(ctx, cfg, 0); err != nil && ctx.Err() == nil {
		w.t.Fatal(err)
	}
}

// demandRevisions holds the events against the feed's truth up to an instant that is
// settled: each record once, each revision once more, and marked. By start of call the
// source was not asked for calls that began before it.
func (w *world) demandRevisions(name string, until cdr.Instant, byStart bool) {
	w.t.Helper()
	position := w.position(name)
	if position.FeedSettled < until {
		w.t.Errorf("%s is settled to %s, want %s and more", name, position.FeedSettled, until)
	}
	events := map[string][]string{} // marks of each, by Report ID
	first := map[string]time.Time{} // when each was published for the first time
	late := 0
	for _, r := range w.topic(eventsTopic, w.events) {
		mark := headerOf(r, "revision")
		if headerOf(r, "late") != "" {
			late++
		}
		id := headerOf(r, "ce_id")
		events[id] = append(events[id], mark)
		if first[id].IsZero() {
			first[id] = r.Timestamp
		}
	}
	records, revised := 0, 0
	for truth := range w.feed.Truth(name, cdr.Span{StartInclusive: w.start, EndExclusive: until}) {
		marks := events[truth.ReportID]
		if byStart && len(marks) == 0 && truth.StartTime.Before(w.start.Time()) {
			continue
		}
		records++
		plain := len(slices.DeleteFunc(slices.Clone(marks), func(m string) bool { return m != "" }))
		if plain != 1 || len(marks) > 2 || truth.RevisedTime.IsZero() && len(marks) != 1 {
			w.t.Errorf("record %s at %s, inserted %s later, revised at %s, is there with the marks %q", truth.ReportID, truth.ReportTime, truth.InsertTime.Sub(truth.ReportTime), truth.RevisedTime, marks)
		}
		if len(marks) == 2 {
			revised++
		} else if first[truth.ReportID].Before(truth.RevisedTime) {
			w.t.Errorf("record %s of %s, published at %s, was revised at %s and no event says so", truth.ReportID, truth.ReportTime, first[truth.ReportID], truth.RevisedTime)
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

// TestFiveSourcesOneCredential: at the real limits, a request a minute for all of them,
// every source settles, and a backfill goes on beside.
func TestFiveSourcesOneCredential(t *testing.T) {
	if testing.Short() {
		t.Skip("a day and a half of five sources")
	}
	synctest.Test(t, func(t *testing.T) {
		locations := []string{"East", "West", "North", "South", "Middle"}
		w := newWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.LateShare, o.Records.LateMax = 0.02, 0.05, 4*time.Hour
			o.Organizations = []simulator.Organization{{Name: "acme", Token: "token-acme", Locations: locations}}
		})
		w.metadataTTL = time.Minute
		w.source("acme")
		w.scopes = map[string]scope{}
		var sources []string
		for _, location := range locations {
			name := strings.ToLower(location)
			w.scopes[name] = scope{"acme", location}
			text := w.source(name, "locations: ["+location+"]", "shard_key: acme", "sweeps: [{every: 15m, back: 2h}, {every: 6h, back: 12h}]")
			sources = append(sources, strings.ReplaceAll(text, name+".token", "acme.token"))
		}
		cfg := w.config("", sources...)
		w.runFor(cfg, 4*time.Hour)
		until := w.position("east").FeedPublished
		span := cdr.Span{StartInclusive: w.start.Add(-5 * 24 * time.Hour), EndExclusive: w.start}
		id := w.ask(offsets.Job{Kind: offsets.Backfill, Source: "east", Span: span})
		board := w.runFor(cfg, 32*time.Hour)
		w.settled = until
		for name := range w.scopes {
			p := w.position(name)
			purposes := map[cdr.Purpose]int{}
			for _, r := range w.receipts(name) {
				purposes[r.Purpose]++
			}
			t.Logf("%s: settled %s behind, windows %v", name, time.Since(p.FeedSettled.Time()).Round(time.Minute), purposes)
			if behind := time.Since(p.FeedSettled.Time()); behind > 24*time.Hour {
				t.Errorf("%s is settled %s behind", name, behind)
			}
		}
		if state := w.jobState(id); state.Phase != offsets.JobDone {
			t.Errorf("the backfill has not come to its end: %+v", state)
		}
		for _, violation := range w.feed.Violations() {
			t.Errorf("%+v", violation)
		}
		for _, s := range board.Snapshot().Sources {
			if s.LiveSeconds < 60 || s.LiveSeconds > 15*60 || len(s.Sweeps) != 2 {
				t.Errorf("%s is said to be asked every %.0f s, with the sweeps %+v", s.Name, s.LiveSeconds, s.Sweeps)
			}
		}
	})
}

// TestStreamBeginsAtStart: cdr_stream brings nothing that was there before the start of
// a source.
func TestStreamBeginsAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) { o.Records.Rate, o.Records.LateShare = 0.1, 0 })
		w.runFor(w.config("", w.source("acme", "endpoint: stream")), 15*time.Minute)
		const inserted = time.Minute // after its report time a record is there at the latest
		earliest := w.start.Add(-inserted).Time().Format("2006-01-02T15:04:05")
		events := w.topic(eventsTopic, w.events)
		for _, r := range events {
			if at := headerOf(r, "ce_time"); at < earliest {
				t.Errorf("an event of %s, before the start at %s", at, w.start)
			}
		}
		if len(events) < 100 {
			t.Errorf("%d events", len(events))
		}
	})
}

// TestStuckSeconds: of seconds with more records than a page holds, the live edge tells as
// gaps, whichever endpoint it reads. Nothing else is missing, and both watermarks go on.
func TestStuckSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("ten hours of fake time for each endpoint take a minute under the race detector")
	}
	for _, endpoint := range []string{"feed", "stream", "auto"} {
		t.Run(endpoint, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Records.Rate, o.Records.Burst = 0.002, 30 // once an hour
					o.Answers.MaxFloor, o.Answers.MaxCeiling = 20, 20
				})
				cfg := w.config("", w.source("acme", "endpoint: "+endpoint,
					"sweeps: [{every: 15m, back: 1h}, {every: 1h, back: 3h}]", "limits: {initial_per_minute: 3, pages_per_minute: 30}"))
				random := rand.New(rand.NewPCG(3, 1))
				w.liveAndDie(cfg, time.Now().Add(8*time.Hour), random)
				w.runFor(cfg, 2*time.Hour)
				position := w.position("acme")
				if behind := time.Since(position.FeedPublished.Time()); behind > 45*time.Minute {
					t.Errorf("published is %s behind", behind)
				}
				if behind := time.Since(position.FeedSettled.Time()); behind > 5*time.Hour {
					t.Errorf("settled is %s behind", behind)
				}
				gaps := map[cdr.Instant]int{}
				for _, r := range w.receipts("acme") {
					if r.Purpose == cdr.Gap {
						gaps[r.Gap.StartInclusive]++
						if r.Gap.Duration() != time.Second || !strings.Contains(r.Unproven, "does not get beyond a page") {
							t.Errorf("gap %s: %s", r.Gap, r.Unproven)
						}
					}
				}
				elsewhere := w.missingBut("acme", func(at time.Time) bool { return gaps[cdr.InstantOf(at)] > 0 })
				if hours := int(time.Since(w.start.Time()) / time.Hour); len(gaps) < hours-1 || len(gaps) > hours+1 || elsewhere > 0 {
					t.Errorf("%d gaps in %d hours, and %d records are missing elsewhere", len(gaps), hours, elsewhere)
				}
				w.demandNothingTwice()
			})
		})
	}
}
