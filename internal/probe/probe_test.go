package probe

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/simulator"
	"cdrbus/poller"
)

// verdicts are the answers that a setting demands. "?" stands for "cannot tell".
type verdicts map[string]string

// plain is what the feed of the world must be found to be.
var plain = verdicts{
	"selects_by": "end", "start_bound": "inclusive", "end_bound": "exclusive",
	"order": "ascending by report time", "edge_repeats": "none|same instant", "doubles": "none", "page_cursor": "milliseconds",
	"link_form": "double", "total_count": "window", "max_small": "100", "max_large": "1000",
	"empty_feed": "404", "empty_stream": "404", "lookback": "answered", "too_wide": "?", "too_old": "?",
	"retry_after": "?", "shared_bucket": "?", "date": "on", "gzip": "off", "late": "none seen", "revised": "none seen",
	"report_time": "equal", "duration": "answer", "report_id": "uuid", "field_types": "fit",
	"new_fields": "none", "unused_fields": "some", "link_lifetime": "?",
}

// settings are the switches of the simulator, and what each must change in the
// answers. Whatever a setting does not name must be answered as for the plain
// feed; a second answer, behind a bar, is allowed because the observations may not
// suffice.
var settings = []struct {
	name   string
	tune   func(*simulator.Options)
	change verdicts
}{
	{"plain", nil, nil},
	{"documented limits", func(o *simulator.Options) {
		o.Records.Rate, o.Answers.MaxFloor, o.Answers.MaxCeiling = 0.3, 500, 5000
	}, verdicts{"max_small": "500", "max_large": "5000"}},
	{"selects by start", func(o *simulator.Options) { o.Answers.SelectBy = simulator.ByStart },
		verdicts{"selects_by": "start", "order": "ascending by start time", "late": "some|none seen"}},
	{"selects by creation", func(o *simulator.Options) { o.Answers.SelectBy = simulator.ByCreation },
		verdicts{"selects_by": "creation", "order": "none", "start_bound": "?", "end_bound": "exclusive|?", "edge_repeats": "none|same instant|some"}},
	{"end inclusive", func(o *simulator.Options) { o.Answers.EndInclusive = true },
		verdicts{"end_bound": "inclusive"}},
	{"end inclusive, by start", func(o *simulator.Options) { o.Answers.EndInclusive, o.Answers.SelectBy = true, simulator.ByStart },
		verdicts{"end_bound": "inclusive", "selects_by": "start", "order": "ascending by start time", "late": "some|none seen"}},
	{"end inclusive, by creation", func(o *simulator.Options) {
		o.Answers.EndInclusive, o.Answers.SelectBy = true, simulator.ByCreation
	}, verdicts{"end_bound": "inclusive|?", "selects_by": "creation", "order": "none", "start_bound": "?"}},
	{"obeys max", func(o *simulator.Options) { o.Answers.MaxFloor = 1 }, verdicts{"max_small": "obeyed"}},
	{"moves max up to 50", func(o *simulator.Options) { o.Answers.MaxFloor = 50 }, verdicts{"max_small": "50"}},
	{"moves max down to 700", func(o *simulator.Options) { o.Answers.MaxCeiling = 700 }, verdicts{"max_large": "700"}},
	{"refuses max over 500", func(o *simulator.Options) { o.Answers.RefuseMaxOver = 500 },
		verdicts{"max_small": "obeyed", "max_large": "refused"}},
	{"times out over 500", func(o *simulator.Options) { o.Answers.TimeoutMaxOver = 500 }, verdicts{"max_large": "times out"}},
	{"single links", func(o *simulator.Options) { o.Answers.Link = simulator.LinkSingle }, verdicts{"link_form": "single"}},
	{"mixed links", func(o *simulator.Options) { o.Answers.Link = simulator.LinkMixed }, verdicts{"link_form": "several"}},
	{"no total", func(o *simulator.Options) { o.Answers.TotalCount = simulator.TotalOff }, verdicts{"total_count": "absent"}},
	{"remaining total", func(o *simulator.Options) { o.Answers.TotalCount = simulator.TotalRemaining }, verdicts{"total_count": "remaining"}},
	{"wrong total", func(o *simulator.Options) { o.Answers.TotalCount = simulator.TotalWrong }, verdicts{"total_count": "wrong|?"}},
	{"mixed total", func(o *simulator.Options) { o.Answers.TotalCount = simulator.TotalMixed },
		verdicts{"total_count": "mixed|window|absent|remaining|wrong|?"}},
	{"whole seconds", func(o *simulator.Options) { o.Answers.CursorSeconds = true },
		verdicts{"page_cursor": "seconds", "edge_repeats": "none|same instant|some"}},
	{"boundary repeats", func(o *simulator.Options) { o.Answers.BoundaryRepeats = 3 }, verdicts{"edge_repeats": "some"}},
	{"boundary repeats, remaining total", func(o *simulator.Options) {
		o.Answers.BoundaryRepeats, o.Answers.TotalCount = 3, simulator.TotalRemaining
	}, verdicts{"edge_repeats": "some", "total_count": "remaining"}},
	{"empty pages", func(o *simulator.Options) { o.Answers.EmptyPageShare = 0.3 }, nil},
	{"shuffled", func(o *simulator.Options) { o.Answers.Shuffle = true }, verdicts{"order": "none"}},
	{"empty is 200", func(o *simulator.Options) { o.Answers.EmptyWindow = simulator.Empty200 },
		verdicts{"empty_feed": "200", "empty_stream": "200"}},
	{"empty is 204", func(o *simulator.Options) { o.Answers.EmptyWindow = simulator.Empty204 },
		verdicts{"empty_feed": "204", "empty_stream": "204"}},
	{"empty is mixed", func(o *simulator.Options) { o.Answers.EmptyWindow = simulator.EmptyMixed },
		verdicts{"empty_feed": "404|200|204|several", "empty_stream": "404|200|204|several"}},
	{"gzip", func(o *simulator.Options) { o.Answers.Gzip = simulator.GzipOn }, verdicts{"gzip": "on"}},
	{"some gzip", func(o *simulator.Options) { o.Answers.Gzip = simulator.GzipMixed }, verdicts{"gzip": "mixed"}},
	{"no Date", func(o *simulator.Options) { o.Answers.Date = simulator.DateAbsent }, verdicts{"date": "absent"}},
	{"some Date", func(o *simulator.Options) { o.Answers.Date = simulator.DateMixed }, verdicts{"date": "mixed"}},
	{"clock 10 minutes fast", func(o *simulator.Options) { o.ClockOffset = 10 * time.Minute }, nil},
	{"clock 10 minutes slow", func(o *simulator.Options) { o.ClockOffset = -10 * time.Minute }, nil},
	{"late", func(o *simulator.Options) { o.Records.LateShare, o.Records.LateMax = 0.3, time.Hour },
		verdicts{"late": "some", "selects_by": "end|?", "start_bound": "inclusive|?", "end_bound": "exclusive|?", "total_count": "window|?"}},
	{"revised", func(o *simulator.Options) {
		o.Records.RevisedShare, o.Records.RevisedMin, o.Records.RevisedMax = 0.5, 10*time.Minute, time.Hour
	}, verdicts{"revised": "some"}},
	{"doubles", func(o *simulator.Options) { o.Records.DoubleShare = 0.05 }, verdicts{"doubles": "some"}},
	{"documented keys", func(o *simulator.Options) { o.Records.Keys = simulator.KeysDocumented }, nil},
	{"wild keys", func(o *simulator.Options) { o.Records.Keys = simulator.KeysWild }, verdicts{"new_fields": "none|some"}},
	{"null marks", func(o *simulator.Options) { o.Records.NullMarks = true }, nil},
	{"mixed types", func(o *simulator.Options) { o.Records.MixedTypes = true }, verdicts{"field_types": "mixed"}},
	{"new fields", func(o *simulator.Options) { o.Records.NewFieldShare = 0.1 }, verdicts{"new_fields": "some"}},
	{"odd IDs", poison(simulator.IDOdd), verdicts{"report_id": "other"}},
	{"blank IDs", poison(simulator.IDBlank), verdicts{"report_id": "other"}},
	{"no IDs", poison(simulator.IDMissing), verdicts{"report_id": "other"}},
	{"no objects", poison(simulator.NotObjectText), verdicts{}},
	{"bad values", poison(simulator.BadValues), verdicts{"field_types": "misfits"}},
	{"bad UTF-8", poison(simulator.BadUTF8), verdicts{"new_fields": "some"}},
	{"deep", poison(simulator.Deep), verdicts{"new_fields": "some"}},
	{"bursts", func(o *simulator.Options) { o.Records.Burst = 120 },
		verdicts{"order": "ascending by report time"}},
	{"no records", func(o *simulator.Options) { o.Records.Rate = 0 }, nothing(verdicts{"empty_feed": "404", "empty_stream": "404", "date": "on"})},
	{"few records", func(o *simulator.Options) { o.Records.Rate = 0.001 }, few},
	{"few records by creation", func(o *simulator.Options) { o.Records.Rate, o.Answers.SelectBy = 0.001, simulator.ByCreation }, with(few, verdicts{"selects_by": "creation|?", "start_bound": "?"})},
	{"shorter lookback", func(o *simulator.Options) { o.Answers.Feed.Lookback = 48 * time.Hour }, verdicts{"lookback": "refused"}},
	{"history begins", func(o *simulator.Options) { o.Records.Since = time.Date(1999, 12, 30, 0, 0, 0, 0, time.UTC) }, verdicts{"lookback": "?"}},
	{"busy", func(o *simulator.Options) { o.Records.Rate = 3 }, verdicts{"empty_feed": "404|?", "empty_stream": "404|?", "late": "none seen"}},
	{"faults", func(o *simulator.Options) {
		if err := o.ApplyProfile("faults"); err != nil {
			panic(err)
		}
	}, doubtful(verdicts{"date": "mixed", "gzip": "mixed", "retry_after": "seconds|date|absent|garbage|several"})},
}

func poison(kind simulator.Poison) func(*simulator.Options) {
	return func(o *simulator.Options) {
		o.Records.PoisonShare, o.Records.PoisonKinds = 0.05, []simulator.Poison{kind}
	}
}

// nothing is what can be told of a feed without records, besides some answers.
func nothing(besides verdicts) verdicts {
	v := verdicts{}
	for name := range plain {
		v[name] = "?"
	}
	return with(v, besides)
}

// doubtful is what is told of a feed that may fail to answer any question.
func doubtful(change verdicts) verdicts {
	v := with(plain, change)
	for name := range v {
		v[name] += "|?"
	}
	return v
}

func with(some, others verdicts) verdicts {
	v := maps.Clone(some)
	maps.Copy(v, others)
	return v
}

// few is what may be told of a feed with about 40 records in 12 hours.
var few = nothing(verdicts{
	"selects_by": "end|?", "order": "ascending by report time|none|?", "max_small": "more than 10|?", "empty_feed": "404|?", "empty_stream": "404|?", "date": "on", "gzip": "off",
	"report_time": "equal|?", "duration": "answer|?", "report_id": "uuid", "field_types": "fit", "new_fields": "none", "unused_fields": "some|?", "lookback": "answered|?", "doubles": "none|?",
	"start_bound": "inclusive|?", "end_bound": "exclusive|?",
})

var (
	full  = flag.Bool("probe.full", false, "try every setting of the simulator, and every way to forbid and to throttle")
	seeds = flag.Int("probe.seeds", 1, "with -probe.full: how many simulated organizations each setting is tried on")
)

// byDefault are the settings that are tried without -probe.full: between them they
// change most answers.
var byDefault = []string{"plain", "end inclusive, by start", "boundary repeats, remaining total", "no records", "few records"}

// onlyFull leaves a test to -probe.full.
func onlyFull(t *testing.T, byDefault bool) {
	t.Helper()
	if !byDefault && !*full {
		t.Skip("asked for by -probe.full")
	}
}

// TestSettings: for each switch of the simulator, what the probe concludes is what
// the simulator was told, or "cannot tell" where the observations do not suffice.
func TestSettings(t *testing.T) {
	for i := range *seeds * len(settings) {
		setting, seed := settings[i%len(settings)], uint64(1+i/len(settings))
		t.Run(fmt.Sprintf("%s, seed %d", setting.name, seed), func(t *testing.T) {
			onlyFull(t, seed == 1 && slices.Contains(byDefault, setting.name))
			tune := func(o *simulator.Options) {
				if o.Seed = seed; setting.tune != nil {
					setting.tune(o)
				}
			}
			inWorld(t, tune, func(w *world) {
				report, err := Run(w.t.Context(), w.options())
				if err != nil {
					w.t.Error(err)
				}
				w.t.Log(describe(report))
				demand(w.t, report, setting.change)
				if setting.name != "shorter lookback" && setting.name != "faults" {
					w.demandNoViolation()
				}
			})
		})
	}
}

func demand(t *testing.T, report *Report, change verdicts) {
	t.Helper()
	for name, want := range plain {
		if other, changed := change[name]; changed {
			want = other
		}
		if got := told(t, report, name); !allows(want, got) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestForbidden: what becomes of windows that ask for too much is told, if that is asked.
func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		excess simulator.Excess
		want   string
	}{{simulator.Refuse, "refused"}, {simulator.Trim, "trimmed"}} {
		t.Run(string(c.excess), func(t *testing.T) {
			onlyFull(t, c.excess == simulator.Trim)
			inWorld(t, func(o *simulator.Options) { o.Answers.TooWide, o.Answers.TooOld = c.excess, c.excess }, func(w *world) {
				options := w.options()
				options.AlsoForbidden, options.For = true, 0
				report, err := Run(w.t.Context(), options)
				if err != nil {
					w.t.Error(err)
				}
				w.t.Log(describe(report))
				demand(w.t, report, verdicts{"too_wide": c.want, "too_old": c.want, "late": "?", "revised": "?"})
				for _, violation := range w.feed.Violations() {
					if violation.Kind != simulator.WindowTooWide && violation.Kind != simulator.WindowTooOld {
						w.t.Errorf("violation: %+v", violation)
					}
				}
			})
		})
	}
	t.Run("allowed", func(t *testing.T) {
		onlyFull(t, false)
		inWorld(t, func(o *simulator.Options) {
			o.Answers.Feed.MaxWindow, o.Answers.Feed.Lookback = 24*time.Hour, 60*24*time.Hour
		}, func(w *world) {
			options := w.options()
			options.AlsoForbidden, options.For = true, 0
			report, err := Run(w.t.Context(), options)
			if err != nil {
				w.t.Error(err)
			}
			demand(w.t, report, verdicts{"too_wide": "answered", "too_old": "answered", "late": "?", "revised": "?"})
			w.demandNoViolation()
		})
	})
}

// TestProvoke: the form of Retry-After, and the bucket of both endpoints, are told
// if a 429 is asked for.
func TestProvoke(t *testing.T) {
	for _, c := range []struct {
		name         string
		tune         func(*simulator.Options)
		wait, bucket string
	}{
		{"seconds", nil, "seconds", "shared"},
		{"date", func(o *simulator.Options) { o.Answers.RetryAfter = simulator.RetryDate }, "date", "shared"},
		{"absent", func(o *simulator.Options) { o.Answers.RetryAfter = simulator.RetryAbsent }, "absent", "shared"},
		{"garbage", func(o *simulator.Options) { o.Answers.RetryAfter = simulator.RetryGarbage }, "garbage", "shared"},
		{"limit of 2", func(o *simulator.Options) { o.Answers.InitialPerMinute = 2 }, "seconds", "shared"},
		{"no limit", func(o *simulator.Options) { o.Answers.InitialPerMinute = 0 }, "?", "?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onlyFull(t, c.name == "seconds")
			inWorld(t, c.tune, func(w *world) {
				options := w.options()
				options.For, options.Unbridled = 0, w.asker(poller.Limits{InitialPerMinute: 60, PagesPerMinute: 60}, time.Time{})
				report, err := Run(w.t.Context(), options)
				if err != nil {
					w.t.Error(err)
				}
				demand(w.t, report, verdicts{"retry_after": c.wait, "shared_bucket": c.bucket, "late": "?", "revised": "?"})
			})
		})
	}
}

// allows reports whether a verdict is one of those wanted.
func allows(want, got string) bool {
	if got == "" {
		got = "?"
	}
	return slices.Contains(strings.Split(want, "|"), got)
}
