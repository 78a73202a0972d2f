package simulator

import (
	"fmt"
	"strings"
	"time"
)

// profile is a named set of switches. It changes what it is about and leaves
// the rest as it was, so profiles add up.
type profile struct {
	name    string
	help    string
	records func(*Records)
	answers func(*Answers)
}

var profiles = []profile{
	{name: "plain", help: "the default: strict, as documented in 2026, nothing odd", records: func(r *Records) {
		rate, since, until := r.Rate, r.Since, r.Until
		*r = DefaultOptions().Records
		r.Rate, r.Since, r.Until = rate, since, until
	}, answers: func(a *Answers) { *a = DefaultAnswers() }},
	{name: "seed", help: "the first edition of the feed: max 1 to 500 and refused above, 48 h back, single link, no totalCount", answers: func(a *Answers) {
		a.RefuseMaxOver, a.Feed.Lookback, a.Link, a.TotalCount = 500, 48*time.Hour, LinkSingle, TotalOff
	}},
	{name: "unlimited", help: "no rate limits", answers: func(a *Answers) { a.InitialPerMinute, a.PagesPerMinute = 0, 0 }},
	{name: "content", help: "odd records: doubles, bursts, wild keys, null marks, mixed types, new fields, poison", records: oddRecords},
	{name: "paging", help: "odd pages: repeats, empty pages, shuffled order, both link forms, doubtful totalCount, every empty answer", answers: oddPages},
	{name: "faults", help: "every fault that a collector must survive, about one request in ten", answers: everyFault},
	{name: "late", help: "5 % of the records appear 1 min to 20 h late", records: func(r *Records) { r.LateShare = 0.05 }},
	{name: "revised", help: "1 % of the records change within 20 h", records: func(r *Records) { r.RevisedShare = 0.01 }},
	{name: "stopping", help: "faults that a person must mend, or that deceive, besides: one request in fifty", answers: stoppingFaults},
	{name: "all", help: "content, paging and faults together: every fault and quirk but late and revised records", records: oddRecords, answers: func(a *Answers) {
		oddPages(a)
		everyFault(a)
	}},
}

func oddRecords(r *Records) {
	r.DoubleShare, r.Burst, r.Keys, r.NullMarks, r.MixedTypes = 0.01, 120, KeysWild, true, true
	r.NewFieldShare, r.PoisonShare, r.BlankCorrelation = 0.05, 0.002, 0.05
}

func oddPages(a *Answers) {
	a.Link, a.TotalCount, a.EmptyWindow, a.BoundaryRepeats, a.EmptyPageShare = LinkMixed, TotalMixed, EmptyMixed, 3, 0.05
	a.Shuffle, a.CursorSeconds, a.EndInclusive = true, true, true
}

// everyFault switches every fault on that may not stop a collector, alike often,
// but for those that take long.
func everyFault(a *Answers) {
	a.Faults, a.TokenFaults = faultMix(faultTable, false, 0.1), faultMix(tokenFaultTable, false, 0.2)
	a.Faults[Stalled], a.Faults[Slow] = 0.001, 0.002
	a.RetryAfter, a.ErrorBody, a.Region, a.Gzip, a.Date = RetryMixed, ErrorMixed, RegionMixed, GzipMixed, DateMixed
	a.DateSkew = -2 * time.Second
}

func stoppingFaults(a *Answers) {
	faults := faultMix(faultTable, true, 0.02)
	for name, p := range a.Faults {
		faults[name] = p
	}
	a.Faults = faults
}

// faultMix shares a probability out among the faults of a table.
func faultMix(table []faultTraits, stopping bool, total float64) map[Fault]float64 {
	mix := make(map[Fault]float64)
	for _, t := range table {
		if t.stops == stopping {
			mix[t.name] = 0
		}
	}
	for name := range mix {
		mix[name] = total / float64(len(mix))
	}
	return mix
}

// ApplyProfile changes the options to those of a named profile, which is added
// to what they are.
func (o *Options) ApplyProfile(name string) error { return applyProfile(name, &o.Records, &o.Answers) }

// ApplyProfile does the same for what can change at run time.
func (a *Answers) ApplyProfile(name string) error { return applyProfile(name, nil, a) }

func applyProfile(name string, r *Records, a *Answers) error {
	for _, p := range profiles {
		if p.name != name {
			continue
		}
		if p.records != nil && r != nil {
			p.records(r)
		}
		if p.answers != nil && a != nil {
			p.answers(a)
		}
		return nil
	}
	return fmt.Errorf("no profile %q: want one of %s", name, strings.Join(ProfileNames(), ", "))
}

// ProfileNames returns the names that ApplyProfile knows.
func ProfileNames() []string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.name)
	}
	return names
}

func profileHelp() string {
	var b strings.Builder
	for _, p := range profiles {
		fmt.Fprintf(&b, "  %s: %s\n", p.name, p.help)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
