package daemon_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/simulator"
)

// TestWeekAtRealLimits lives a week with two sources that share a credential, and
// so one initial and ten page requests a minute. The simulator punishes whatever
// the real feed would, a second initial request within a minute above all.
func TestWeekAtRealLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("a week of fake time takes a while under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.DayCurve, o.Records.EmptyNights = 0.04, true, true
			o.Organizations = []simulator.Organization{{Name: "acme", Token: "token-acme", Locations: []string{"East", "West"}}}
		})
		w.scopes = map[string]scope{"east": {"acme", "East"}, "west": {"acme", "West"}}
		w.metadataTTL = time.Minute
		half := func(name, location string) string {
			w.source("acme")
			return strings.ReplaceAll(w.source(name, "shard_key: both", "locations: ["+location+"]"), name+".token", "acme.token")
		}
		cfg := w.config("", half("east", "East"), half("west", "West"))
		board := w.runFor(cfg, 7*24*time.Hour)
		for _, violation := range w.feed.Violations() {
			t.Errorf("the feed was asked wrongly: %+v", violation)
		}
		snapshot := board.Snapshot()
		for _, s := range snapshot.Sources {
			t.Logf("%s: %d windows, lag %.0f s, requests %v", s.Name, s.Counter, s.LagSeconds, s.Requests)
			if s.LagSeconds > 240 {
				t.Errorf("%s ends the week %.0f s behind", s.Name, s.LagSeconds)
			}
		}
		events := w.demandTruth("east", "west")
		t.Logf("%d events in a week", events)
	})
}

// TestQuirks runs through everything odd that the feed may say, at raised limits.
func TestQuirks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) {
			for _, profile := range []string{"all", "unlimited"} {
				if err := o.ApplyProfile(profile); err != nil {
					t.Fatal(err)
				}
			}
		})
		limits := "limits: {initial_per_minute: 600, pages_per_minute: 6000}"
		cfg := w.config("", w.source("acme", limits, "max_window: 10m"), w.source("globex", limits, "max_window: 20m"))
		until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
		if _, err := w.run(t.Context(), cfg, until); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d events", w.demandTruth("acme", "globex"))
		for _, name := range []string{"acme", "globex"} {
			if got := w.position(name).FeedPublished; got != until {
				t.Errorf("%s is published to %s, want %s", name, got, until)
			}
			for i, receipt := range w.receipts(name) {
				if receipt.Counter != cdr.Counter(i+1) {
					t.Errorf("receipt %d of %s has counter %d", i, name, receipt.Counter)
				}
			}
		}
	})
}

// TestSecondRunPublishesNothing: what is published is not published again.
func TestSecondRunPublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		cfg := w.config("", w.source("acme"))
		until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
		for range 2 {
			if _, err := w.run(t.Context(), cfg, until); err != nil {
				t.Fatal(err)
			}
		}
		w.demandTruth("acme")
		if n := len(w.receipts("acme")); n != 2 { // the start, and one window
			t.Errorf("there are %d receipts, want 2", n)
		}
	})
}

// TestIdleRoundCounts: a quiet minute costs one request, one commit, no more.
func TestIdleRoundCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) { o.Records.Until = time.Now().Add(-time.Hour) })
		cfg := w.config("", w.source("acme"))
		board := w.runFor(cfg, 10*time.Minute+30*time.Second)
		source := board.Snapshot().Sources[0]
		if n := source.Requests["404"] + source.Requests["200"]; n < 10 || n > 12 {
			t.Errorf("ten idle minutes cost %d requests (%v), want 10 to 12", n, source.Requests)
		}
		if source.Counter > 13 {
			t.Errorf("ten idle minutes cost %d commits", source.Counter)
		}
	})
}

// TestGap: what the feed has forgotten is recorded, and life goes on.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) { o.Answers.Feed.Lookback = 24 * time.Hour })
		cfg := w.config("", w.source("acme", "lookback: 24h", "sweeps: []"))
		w.runFor(cfg, 5*time.Minute)
		before := w.position("acme").FeedPublished
		time.Sleep(42 * time.Hour)
		w.runFor(cfg, 10*time.Minute)
		var gap cdr.Span
		for _, receipt := range w.receipts("acme") {
			if !receipt.Gap.IsZero() {
				gap = receipt.Gap
			}
		}
		if gap.StartInclusive != before || gap.Duration() < 17*time.Hour {
			t.Errorf("the receipts tell of gap %s, want one of 18 h from %s", gap, before)
		}
		if got := w.position("acme").LastGap; got != gap {
			t.Errorf("the position tells of gap %s, want %s", got, gap)
		}
		if w.logs.FilterMessageSnippet("records are lost").Len() != 1 {
			t.Error("the log does not tell of the gap, or more than once")
		}
	})
}

// TestShutdown: the end of the context ends the daemon within its grace, and
// leaves a position that the next one goes on from.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		cfg := w.config("", w.source("acme"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan time.Duration, 1)
		go func() {
			if _, err := w.run(ctx, cfg, 0); err != nil {
				t.Error(err)
			}
			ended <- 0
		}()
		time.Sleep(90 * time.Second)
		began := time.Now()
		cancel()
		<-ended
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the end took %s", took)
		}
		w.demandTruth("acme")
	})
}

// TestTooLargeIsMeasured: one window that outgrows its bytes teaches how wide the
// next may be. Halving from 12 h would cost a minute for each wrong guess.
func TestTooLargeIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) { o.Records.Rate = 8 })
		cfg := w.config("memory: {max_window_bytes: 12MiB, budget: 24MiB}", w.source("acme"))
		until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
		if _, err := w.run(t.Context(), cfg, until); err != nil {
			t.Fatal(err)
		}
		w.demandTruth("acme")
		if n := w.logs.FilterMessage("window is planned again").Len(); n != 1 {
			t.Errorf("%d windows were planned again, want one", n)
		}
	})
}
