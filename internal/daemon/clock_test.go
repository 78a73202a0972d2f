package daemon_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/jobs"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// wrongClocks are this machine's, by how far the feed's is ahead.
var wrongClocks = map[string]time.Duration{"10 min fast": -10 * time.Minute, "10 min slow": 10 * time.Minute}

// TestWrongClock: windows end at what the feed's clock allows, so everything comes,
// once and no later than by a right clock; and a person is told.
func TestWrongClock(t *testing.T) {
	for clock, ahead := range wrongClocks {
		for _, endpoint := range []string{"feed", "stream", "auto"} {
			t.Run(clock+", "+endpoint, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, func(o *simulator.Options) {
						o.ClockOffset = ahead
						o.Records.Rate = 0.02
						o.Records.LateShare, o.Records.LateMax = 0.1, 20*time.Minute
					})
					cfg := w.config("", w.source("acme", "endpoint: "+endpoint, "sweeps: [{every: 5m, back: 15m}, {every: 10m, back: 30m}]"))
					lives := 0
					for random := rand.New(rand.NewPCG(3, 3)); lives < 3; lives++ {
						board := w.runFor(cfg, 15*time.Minute+time.Duration(random.IntN(1800))*time.Second)
						w.demandClockShown(board, ahead)
						time.Sleep(time.Minute) // so that the feed counts no requests of the life before
					}
					w.settled = w.position("acme").FeedSettled
					feedNow := time.Now().Add(ahead)
					if behind := feedNow.Sub(w.position("acme").Published().Time()); behind < time.Minute || behind > 15*time.Minute {
						t.Errorf("published is %s behind the feed's clock", behind)
					}
					if behind := feedNow.Sub(w.settled.Time()); behind > time.Hour {
						t.Errorf("settled is %s behind the feed's clock", behind)
					}
					t.Logf("%d events", w.demandTruth("acme"))
					if said := w.logs.FilterMessageSnippet("this machine's clock is not the feed's").Len(); said != lives {
						t.Errorf("the log tells %d times in %d lives of the wrong clock", said, lives)
					}
					w.demandFewTooYoung(lives)
				})
			})
		}
	}
}

// demandClockShown looks for the wrong clock on the board.
func (w *world) demandClockShown(board *status.Board, ahead time.Duration) {
	w.t.Helper()
	snapshot := board.Snapshot()
	for _, s := range snapshot.Sources {
		if wrong := s.ClockAheadSeconds - ahead.Seconds(); wrong < -2 || wrong > 2 {
			w.t.Errorf("the feed's clock is said to be %.1f s ahead, and is %s", s.ClockAheadSeconds, ahead)
		}
		if s.LagSeconds > 5*60 {
			w.t.Errorf("the lag is said to be %.0f s", s.LagSeconds)
		}
	}
	if len(snapshot.Alerts) != 1 || snapshot.Alerts[0].Title != "clock" {
		w.t.Errorf("alerts are %+v, want one of the clock", snapshot.Alerts)
	}
}

// demandFewTooYoung allows one request for what the feed does not answer for yet, in
// each life: from its answer on the feed's clock counts, for all that is asked.
func (w *world) demandFewTooYoung(lives int) {
	w.t.Helper()
	young := 0
	for _, violation := range w.feed.Violations() {
		if violation.Kind != simulator.WindowTooRecent {
			w.t.Errorf("%+v", violation)
			continue
		}
		if young++; young > lives {
			w.t.Errorf("asked too early again, in %d lives: %+v", lives, violation)
		}
	}
}

// TestWrongClockLosesNothing: nothing is given up as forgotten by the feed, and nothing
// waited for, by a clock that was not compared with the feed's.
func TestWrongClockLosesNothing(t *testing.T) {
	const lookback = 48 * time.Hour
	for _, c := range []struct {
		name  string
		ahead time.Duration
		start time.Duration // before the feed's time
		gap   bool
	}{
		{"within the lookback, by a fast clock beyond it", -10 * time.Minute, lookback - 5*time.Minute, false},
		{"within the lookback, by a clock of next month", -30 * 24 * time.Hour, lookback / 2, false},
		{"beyond the lookback, by a slow clock within it", 10 * time.Minute, lookback + 5*time.Minute, true},
		{"past, by a slow clock in the future", 30 * 24 * time.Hour, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *simulator.Options) {
					o.ClockOffset = c.ahead
					o.Records.Rate = 0.01
					o.Answers.Feed.Lookback = lookback
				})
				w.start = cdr.InstantOf(time.Now().Add(c.ahead - c.start))
				w.runFor(w.config("", w.source("acme", "lookback: 48h", "sweeps: []")), 30*time.Minute)
				position := w.position("acme")
				if behind := time.Now().Add(c.ahead).Sub(position.Published().Time()); behind > 15*time.Minute {
					t.Errorf("published is %s behind the feed's clock", behind)
				}
				if gap := position.LastGap; gap.IsZero() == c.gap {
					t.Errorf("gap %s", gap)
				}
				if !c.gap {
					t.Logf("%d events", w.demandTruth("acme"))
				}
			})
		})
	}
}

// TestStartByWrongClock: a start that goes by the time is of the feed's time.
func TestStartByWrongClock(t *testing.T) {
	for clock, ahead := range wrongClocks {
		t.Run(clock, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(o *simulator.Options) { o.ClockOffset = ahead })
				text := strings.Replace(w.source("acme"), "start: "+w.start.String(), "start: 5m", 1)
				began := time.Now()
				w.runFor(w.config("", text), time.Minute)
				want := began.Add(ahead - 5*time.Minute)
				if late := w.position("acme").Start.Time().Sub(want).Abs(); late > 10*time.Second {
					t.Errorf("it starts at %s, want %s", w.position("acme").Start, want.UTC().Format(time.RFC3339))
				}
			})
		})
	}
}

// TestUnreachableHostGivesNothingUp: while nobody can be asked for the time, what seems
// forgotten is not given up.
func TestUnreachableHostGivesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.start = cdr.InstantOf(time.Now().Add(-40 * 24 * time.Hour))
		unreachable := strings.Replace(w.source("acme"), fmt.Sprint(feedPort), "9", 1)
		board := w.runFor(w.config("", unreachable), 10*time.Minute)
		if position := w.position("acme"); position.Counter != 1 || !position.LastGap.IsZero() {
			t.Errorf("position %+v, want nothing but the start", position)
		}
		if s := board.Snapshot().Sources[0]; s.State != status.BackingOff || !strings.Contains(s.Reason, "for the time") {
			t.Errorf("state %s: %s", s.State, s.Reason)
		}
	})
}

// TestJobByWrongClock: a command that does a job itself skips nothing that the feed still
// has, though by its own clock that is forgotten.
func TestJobByWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lookback = 48 * time.Hour
		w := newWorld(t, func(o *simulator.Options) {
			o.ClockOffset = wrongClocks["10 min fast"]
			o.Records.Rate = 0.01
			o.Answers.Feed.Lookback = lookback
		})
		cfg := w.config("", w.source("acme", "lookback: 48h"))
		w.runFor(cfg, 15*time.Minute)
		job := jobs.New(offsets.Backfill, "acme", "test")
		oldest := cdr.InstantOf(time.Now().Add(wrongClocks["10 min fast"] - lookback + 5*time.Minute))
		job.Span = cdr.Span{StartInclusive: oldest, EndExclusive: oldest.Add(time.Hour)}
		state, err := w.runner(cfg).Run(t.Context(), job)
		if err != nil || state.Phase != offsets.JobDone || state.SkippedSeconds != 0 || state.Items == 0 {
			t.Errorf("%+v, %v", state, err)
		}
	})
}
