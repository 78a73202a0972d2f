package simulator

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// RegisterFlags adds a switch for every option, and --profile, which sets many.
// The values that o has are the defaults. Switches are applied in the order in
// which they are given, so what comes after a profile corrects it.
func (o *Options) RegisterFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.Listen, "listen", o.Listen, "address to listen on")
	flags.Uint64Var(&o.Seed, "seed", o.Seed, "seed of every record and every fault: the same seed gives the same")
	flags.IntVar(&o.Count, "organizations", o.Count, "how many organizations to simulate: org-1 with bearer token token-org-1 and service app client-org-1, secret-org-1, refresh-org-1, and so on")
	flags.DurationVar(&o.ClockOffset, "clock-offset", o.ClockOffset, "how far the feed's clock is ahead of this machine's; negative: behind")
	flags.Int64Var(&o.CacheBytes, "cache-bytes", o.CacheBytes, "memory that may hold generated spans of time")
	flags.Var(&profileValue{o: o}, "profile", "switch a named set of quirks and faults on; may be repeated, later switches correct it:\n"+profileHelp())
	o.Records.RegisterFlags(flags)
	o.Answers.RegisterFlags(flags)
}

// RegisterFlags adds a switch for everything about what exists.
func (r *Records) RegisterFlags(flags *pflag.FlagSet) {
	flags.Float64Var(&r.Rate, "rate", r.Rate, "records per second of each organization, as an average of a day")
	flags.BoolVar(&r.DayCurve, "day-curve", r.DayCurve, "follow office hours (UTC)")
	flags.BoolVar(&r.EmptyNights, "empty-nights", r.EmptyNights, "no calls from 22:00 to 06:00 UTC")
	instantVar(flags, &r.Since, "since", "first report time of all records, RFC 3339: history begins here")
	instantVar(flags, &r.Until, "until", "report time at which records end, RFC 3339, exclusive")
	flags.DurationVar(&r.LongestCall, "longest-call", r.LongestCall, "bound of the duration of a call")
	flags.Float64Var(&r.BlankCorrelation, "blank-correlation-share", r.BlankCorrelation, "share of calls without a Correlation ID; two of five of these lack the Interaction ID too")
	flags.Float64Var(&r.LateShare, "late-share", r.LateShare, "share of records that appear late")
	flags.DurationVar(&r.LateMin, "late-min", r.LateMin, "how long after its report time a late record appears at the earliest")
	flags.DurationVar(&r.LateMax, "late-max", r.LateMax, "how long after its report time a late record appears at the latest")
	flags.Float64Var(&r.RevisedShare, "revised-share", r.RevisedShare, "share of records whose content changes once after they appeared")
	flags.DurationVar(&r.RevisedMin, "revised-min", r.RevisedMin, "how long after it appeared a record changes at the earliest")
	flags.DurationVar(&r.RevisedMax, "revised-max", r.RevisedMax, "how long after it appeared a record changes at the latest")
	flags.Float64Var(&r.DoubleShare, "double-share", r.DoubleShare, "share of records that come twice in their page")
	flags.IntVar(&r.Burst, "burst", r.Burst, "extra records that share one millisecond, once an hour")
	choiceVar(flags, &r.Keys, keyNamesChoices, "keys", "how the keys of records are written: as seen on the wire, as documented, or in wild case and order")
	flags.BoolVar(&r.NullMarks, "null-marks", r.NullMarks, `write absent values in every known way (no key, null, "", NA, na)`)
	flags.BoolVar(&r.MixedTypes, "mixed-types", r.MixedTypes, "write numbers, booleans and times in every way they may come")
	flags.Float64Var(&r.NewFieldShare, "new-field-share", r.NewFieldShare, "share of records with fields that nobody has documented: a number, an object, a string")
	flags.Float64Var(&r.PoisonShare, "poison-share", r.PoisonShare, "share of records that hurt")
	flags.Var(&poisonValue{r}, "poison", "kinds of --poison-share, comma-separated: "+strings.Join(poisonNames(), ", "))
	flags.IntVar(&r.HugeBytes, "huge-bytes", r.HugeBytes, "size of the value that makes a huge record")
	flags.IntVar(&r.GiantBytes, "giant-bytes", r.GiantBytes, "size of the value that makes a giant record, more than a topic takes")
}

// RegisterFlags adds a switch for everything about how requests are answered.
func (a *Answers) RegisterFlags(flags *pflag.FlagSet) {
	a.registerWindows(flags)
	a.registerPages(flags)
	a.registerLimits(flags)
	a.registerFaults(flags)
}

func (a *Answers) registerWindows(flags *pflag.FlagSet) {
	choiceVar(flags, &a.SelectBy, selectByChoices, "select-by", "time by which cdr_feed picks records")
	flags.BoolVar(&a.EndInclusive, "end-inclusive", a.EndInclusive, "the second of endTime is part of the window")
	for _, endpoint := range []struct {
		name  string
		rules *WindowRules
	}{{"feed", &a.Feed}, {"stream", &a.Stream}} {
		path := "cdr_" + endpoint.name
		flags.DurationVar(&endpoint.rules.MinAge, endpoint.name+"-min-age", endpoint.rules.MinAge, "how long ago endTime must be on "+path)
		flags.DurationVar(&endpoint.rules.Lookback, endpoint.name+"-lookback", endpoint.rules.Lookback, "how long ago startTime may be on "+path)
		flags.DurationVar(&endpoint.rules.MaxWindow, endpoint.name+"-max-window", endpoint.rules.MaxWindow, "how wide a window may be on "+path)
	}
	choiceVar(flags, &a.TooWide, excessChoices, "too-wide", "what becomes of a window that is too wide; a violation either way")
	choiceVar(flags, &a.TooOld, excessChoices, "too-old", "what becomes of a window that begins too early; a violation either way")
	choiceVar(flags, &a.EmptyWindow, emptyChoices, "empty-window", "answer to a window without records")
}

func (a *Answers) registerPages(flags *pflag.FlagSet) {
	flags.IntVar(&a.MaxFloor, "max-floor", a.MaxFloor, "smallest page size: a smaller max is silently moved there")
	flags.IntVar(&a.MaxCeiling, "max-ceiling", a.MaxCeiling, "largest page size, and default: a larger max is silently moved there")
	flags.IntVar(&a.RefuseMaxOver, "refuse-max-over", a.RefuseMaxOver, "answer 400 to a larger max; 0: never")
	flags.IntVar(&a.TimeoutMaxOver, "timeout-max-over", a.TimeoutMaxOver, "answer 504 to a larger page size; 0: never")
	flags.DurationVar(&a.TimeoutWindowOver, "timeout-window-over", a.TimeoutWindowOver, "answer 504 to a wider window; 0: never")
	choiceVar(flags, &a.Link, linkChoices, "link", "form of the next link: <URL> or <<URL>>, as general texts or as the feed's documents print it")
	choiceVar(flags, &a.TotalCount, totalChoices, "total-count", "what the next link says about the size of the window")
	flags.BoolVar(&a.CursorSeconds, "cursor-seconds", a.CursorSeconds, "cut the page cursor to whole seconds: records of that second come again")
	flags.IntVar(&a.BoundaryRepeats, "boundary-repeats", a.BoundaryRepeats, "records of a page that come again on the next")
	flags.Float64Var(&a.EmptyPageShare, "empty-page-share", a.EmptyPageShare, "share of pages without items but with a next link")
	flags.BoolVar(&a.Shuffle, "shuffle", a.Shuffle, "mix the order of the records in a page")
	choiceVar(flags, &a.Gzip, gzipChoices, "gzip", "compress bodies for clients that ask")
}

func (a *Answers) registerLimits(flags *pflag.FlagSet) {
	flags.IntVar(&a.InitialPerMinute, "initial-per-minute", a.InitialPerMinute, "initial requests a token may make in any 60 s; 0: any number")
	flags.IntVar(&a.PagesPerMinute, "pages-per-minute", a.PagesPerMinute, "page requests a token may make in any 60 s; 0: any number")
	choiceVar(flags, &a.RetryAfter, retryChoices, "retry-after", "how a wait is demanded by 429, 423 and 503")
	flags.DurationVar(&a.FaultWait, "fault-wait", a.FaultWait, "wait that an injected 429, 423 or 503 demands")
	flags.DurationVar(&a.TokenLifetime, "token-lifetime", a.TokenLifetime, "how long an access token of a service app is good")
	flags.DurationVar(&a.RefreshTokenLifetime, "refresh-token-lifetime", a.RefreshTokenLifetime, "how long a refresh token is good")
	flags.BoolVar(&a.KeepRefreshTokens, "keep-refresh-tokens", a.KeepRefreshTokens, "leave the refresh token as it is on a refresh, instead of a new one and the old one dead at once")
}

func (a *Answers) registerFaults(flags *pflag.FlagSet) {
	survivable, stopping := faultNames(faultTable)
	flags.Var(&faultValue{&a.Faults, faultTable}, "fault", `probability of a fault per request, as in 500=0.01,stalled=0.001; "none" takes all back. A collector must survive: `+
		strings.Join(survivable, ", ")+". It has to stop, or is deceived, at: "+strings.Join(stopping, ", "))
	survivable, stopping = faultNames(tokenFaultTable)
	flags.Var(&faultValue{&a.TokenFaults, tokenFaultTable}, "token-fault", "the same of the token endpoint: "+strings.Join(survivable, ", ")+"; "+strings.Join(stopping, ", "))
	flags.IntVar(&a.MaxFaultRun, "max-fault-run", a.MaxFaultRun, "how many faults may follow one another, so that there is always progress")
	flags.StringVar((*string)(&a.Always), "always", string(a.Always), "one fault for every request: an outage")
	flags.DurationVar(&a.StallFor, "stall-for", a.StallFor, "how long a stalled answer hangs")
	flags.DurationVar(&a.SlowFor, "slow-for", a.SlowFor, "how long a slow answer takes")
	choiceVar(flags, &a.ErrorBody, errorBodyChoices, "error-body", "how errors are worded")
	choiceVar(flags, &a.Region, regionChoices, "region-answer", "how a 451 names the host that has the data")
	choiceVar(flags, &a.Date, dateChoices, "date", "whether answers have a Date header")
	flags.DurationVar(&a.DateSkew, "date-skew", a.DateSkew, "how far the Date header is ahead of the feed's clock; negative: behind")
}

// choiceValue is a switch with a list of allowed texts.
type choiceValue[T ~string] struct {
	into    *T
	choices []T
}

func choiceVar[T ~string](flags *pflag.FlagSet, into *T, choices []T, name, usage string) {
	flags.Var(&choiceValue[T]{into, choices}, name, usage+" ("+joinChoices(choices)+")")
}

func (v *choiceValue[T]) String() string { return string(*v.into) }
func (v *choiceValue[T]) Type() string   { return "choice" }
func (v *choiceValue[T]) Set(text string) error {
	if !slices.Contains(v.choices, T(text)) {
		return fmt.Errorf("want one of %s", joinChoices(v.choices))
	}
	*v.into = T(text)
	return nil
}

// instantValue is a switch that holds a time.
type instantValue struct{ into *time.Time }

func instantVar(flags *pflag.FlagSet, into *time.Time, name, usage string) {
	flags.Var(&instantValue{into}, name, usage)
}

func (v *instantValue) Type() string { return "time" }
func (v *instantValue) String() string {
	if v.into == nil || v.into.IsZero() {
		return ""
	}
	return v.into.Format(time.RFC3339)
}

func (v *instantValue) Set(text string) (err error) {
	if text == "" {
		*v.into = time.Time{}
		return nil
	}
	if *v.into, err = time.Parse(time.RFC3339, text); err != nil {
		return fmt.Errorf("want RFC 3339, such as 2026-11-22T00:00:00Z")
	}
	return nil
}

// faultValue is a switch that adds probabilities of faults.
type faultValue struct {
	into  *map[Fault]float64
	table []faultTraits
}

func (v *faultValue) Type() string { return "faults" }
func (v *faultValue) String() string {
	if v.into == nil {
		return ""
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(*v.into)) {
		parts = append(parts, string(name)+"="+strconv.FormatFloat((*v.into)[name], 'g', -1, 64))
	}
	return strings.Join(parts, ",")
}

func (v *faultValue) Set(text string) error {
	if text == "none" {
		*v.into = nil
		return nil
	}
	changed := maps.Clone(*v.into)
	if changed == nil {
		changed = make(map[Fault]float64)
	}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		name, probability, found := strings.Cut(part, "=")
		p, err := strconv.ParseFloat(probability, 64)
		if !found || err != nil {
			return fmt.Errorf("%q: want NAME=PROBABILITY", part)
		}
		changed[Fault(name)] = p
	}
	if err := validateFaults(changed, v.table); err != nil {
		return err
	}
	*v.into = changed
	return nil
}

// poisonValue is a switch that holds kinds of poison.
type poisonValue struct{ records *Records }

func (v *poisonValue) Type() string { return "kinds" }
func (v *poisonValue) String() string {
	if v.records == nil {
		return ""
	}
	return joinChoices(v.records.PoisonKinds)
}

func (v *poisonValue) Set(text string) error {
	v.records.PoisonKinds = nil
	for name := range strings.SplitSeq(text, ",") {
		kind := Poison(strings.TrimSpace(name))
		if kind.index() == 0 {
			return fmt.Errorf("%q: want one of %s", kind, strings.Join(poisonNames(), ", "))
		}
		v.records.PoisonKinds = append(v.records.PoisonKinds, kind)
	}
	return nil
}

// profileValue is a switch that sets others.
type profileValue struct {
	o       *Options
	applied []string
}

func (v *profileValue) Type() string   { return "name" }
func (v *profileValue) String() string { return strings.Join(v.applied, ",") }
func (v *profileValue) Set(text string) error {
	for name := range strings.SplitSeq(text, ",") {
		if err := v.o.ApplyProfile(name); err != nil {
			return err
		}
		v.applied = append(v.applied, name)
	}
	return nil
}
