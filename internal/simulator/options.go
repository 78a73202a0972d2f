package simulator

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// Options is everything that can be said about a simulator. The zero value of a
// field means the default of [DefaultOptions] where zero would make no sense.
type Options struct {
	// Listen is the address of ListenAndServe.
	Listen string
	// Seed decides every record and every fault. The same seed gives the same.
	Seed uint64
	// Count is how many organizations to make up when Organizations is empty:
	// org-1 with bearer token token-org-1 and service app client-org-1,
	// secret-org-1, refresh-org-1, and so on.
	Count int
	// Organizations are the customers that have records here.
	Organizations []Organization
	// Records says what exists.
	Records Records
	// Answers says how it is answered, until Update or /control changes it.
	Answers Answers
	// ClockOffset is added to the local clock to get the feed's.
	ClockOffset time.Duration
	// CacheBytes bounds the memory that holds generated spans of time.
	CacheBytes int64
	// Observe, if not nil, is called after each answer of a feed endpoint, in
	// the goroutine that served it.
	Observe func(Exchange)
}

// Organization is one customer: the owner of records, of tokens, of a seed.
type Organization struct {
	// Name is how truth, statistics and control call it.
	Name string
	// UUID is the Org UUID of its records; made up from the seed if empty.
	UUID string
	// Token is a bearer token that does not expire. Empty: none.
	Token string
	// ClientID, ClientSecret and RefreshToken are a service app, which gets its
	// access tokens from /v1/access_token. RefreshToken is the first one, good
	// until it is used once. Empty: none.
	ClientID, ClientSecret, RefreshToken string
	// Locations are the Control Hub locations; some usual and unusual names if nil.
	Locations []string
	// Rate overrides Records.Rate if positive.
	Rate float64
	// Seed overrides a seed derived from Options.Seed and Name, if not zero.
	Seed uint64
	// HomeHost, if not empty, is the only Host that is answered with records;
	// any other gets a 451 that names this one.
	HomeHost string
	// Answers overrides Options.Answers.
	Answers *Answers
}

// Records says which records exist. Together with a seed it is the whole truth;
// it cannot change while a simulator lives.
type Records struct {
	// Rate is records (legs, not calls) per second, as an average of a day.
	Rate float64
	// DayCurve makes the rate follow office hours, in UTC.
	DayCurve bool
	// EmptyNights leaves no call from 22:00 to 06:00 UTC.
	EmptyNights bool
	// Since and Until bound the report times of all records: history begins at
	// Since and nothing happens from Until on. Zero: no bound.
	Since, Until time.Time
	// LongestCall bounds the duration of a call.
	LongestCall time.Duration
	// BlankCorrelation is the share of calls without a Correlation ID; two of
	// five of those have no Interaction ID either.
	BlankCorrelation float64
	// LateShare of the records appear late: between LateMin and LateMax after
	// their report time, most of them sooner than later. All the others appear
	// within a minute.
	LateShare        float64
	LateMin, LateMax time.Duration
	// RevisedShare of the records change their content once, between RevisedMin
	// and RevisedMax after they appeared. Report ID, key and times stay, and so
	// does the record's place on cdr_stream.
	RevisedShare           float64
	RevisedMin, RevisedMax time.Duration
	// DoubleShare of the records come twice in a row whenever they come.
	DoubleShare float64
	// Burst is how many extra records share one millisecond, once an hour.
	Burst int
	// Keys is how keys are written.
	Keys KeyNames
	// NullMarks writes absent values in every way that the feed knows:
	// no key, null, "", NA and na. Otherwise they are "".
	NullMarks bool
	// MixedTypes writes numbers, booleans and times in every way they were seen
	// or may be sent.
	MixedTypes bool
	// NewFieldShare of the records have one to three fields that nobody has
	// documented: a number, an object, a string.
	NewFieldShare float64
	// PoisonShare of the records are of one of PoisonKinds (nil: of all kinds).
	PoisonShare float64
	PoisonKinds []Poison
	// HugeBytes and GiantBytes are the sizes of the values of those two kinds
	// of poison: what a topic takes, and what it does not.
	HugeBytes, GiantBytes int
}

// Answers says how requests are answered. Every field can change at run time.
type Answers struct {
	// SelectBy is the time by which cdr_feed picks records.
	SelectBy SelectBy
	// EndInclusive makes the second of endTime part of the window.
	EndInclusive bool
	// Feed and Stream are the bounds of what may be asked.
	Feed, Stream WindowRules
	// TooWide and TooOld say what becomes of such a window. Either is a violation.
	TooWide, TooOld Excess

	// MaxFloor and MaxCeiling are the limits to which max is silently moved.
	MaxFloor, MaxCeiling int
	// RefuseMaxOver answers 400 to a larger max, as the first edition of the
	// feed did above 500. Zero: never. It also bounds the default of max.
	RefuseMaxOver int
	// TimeoutMaxOver answers 504 to any larger max. Zero: never.
	TimeoutMaxOver int
	// TimeoutWindowOver answers 504 to any wider window. Zero: never.
	TimeoutWindowOver time.Duration

	// Link is how the next link is written.
	Link LinkForm
	// TotalCount is what the next link says about the size of the window.
	TotalCount TotalCount
	// CursorSeconds cuts the page cursor to whole seconds, as the windows are.
	CursorSeconds bool
	// BoundaryRepeats is how many records of a page come again on the next.
	BoundaryRepeats int
	// EmptyPageShare of the pages hold no items although there is a next link.
	EmptyPageShare float64
	// Shuffle mixes the order of the records within a page.
	Shuffle bool
	// EmptyWindow is how a window without records is answered.
	EmptyWindow EmptyWindow

	// InitialPerMinute and PagesPerMinute are the two buckets of a token, over
	// any 60 seconds. Zero: unlimited.
	InitialPerMinute, PagesPerMinute int
	// RetryAfter is how a wait is demanded (429, 423, 503).
	RetryAfter RetryAfter
	// FaultWait is the wait that an injected 429, 423 or 503 demands.
	FaultWait time.Duration

	// ErrorBody is how errors are worded.
	ErrorBody ErrorBody
	// Region is how a 451 names the host that has the data.
	Region RegionAnswer
	// Gzip is whether bodies are compressed for those who ask.
	Gzip Compression
	// Date is whether answers have a Date header, DateSkew how wrong it may be.
	Date     DateHeader
	DateSkew time.Duration

	// Faults is the probability of each fault, per request.
	Faults map[Fault]float64
	// MaxFaultRun is how many faults may follow one another at most.
	MaxFaultRun int
	// Always is a fault that befalls every request, without the bounds above.
	Always Fault
	// StallFor is how long a stalled answer hangs; SlowFor how long a slow one takes.
	StallFor, SlowFor time.Duration
	// TokenFaults is the probability of each fault of the token endpoint.
	TokenFaults map[Fault]float64

	// TokenLifetime and RefreshTokenLifetime are those of service app tokens.
	TokenLifetime, RefreshTokenLifetime time.Duration
	// KeepRefreshTokens leaves the refresh token as it is on a refresh. By
	// default a new one comes, and the old one is dead at once.
	KeepRefreshTokens bool
}

// WindowRules is what an endpoint may be asked for.
type WindowRules struct {
	MinAge    time.Duration // endTime at least this long ago
	Lookback  time.Duration // startTime at most this long ago
	MaxWindow time.Duration // endTime - startTime at most this
}

// SelectBy is the time by which the feed picks records.
type SelectBy string

// The three readings of the documents. Creation is the instant at which the
// record appeared, as on cdr_stream.
const (
	ByEnd      SelectBy = "end"
	ByStart    SelectBy = "start"
	ByCreation SelectBy = "creation"
)

// KeyNames is how the keys of records are written.
type KeyNames string

// KeysWild changes case and order from record to record and adds keys that fold
// into one.
const (
	KeysOnWire     KeyNames = "wire"
	KeysDocumented KeyNames = "documented"
	KeysWild       KeyNames = "wild"
)

// Excess is what becomes of a window that asks for too much.
type Excess string

const (
	Refuse Excess = "refuse" // 400
	Trim   Excess = "trim"   // answered as far as allowed, without a word
)

// LinkForm is how the next link is written.
type LinkForm string

const (
	LinkSingle LinkForm = "single" // <URL>; rel="next"
	LinkDouble LinkForm = "double" // <<URL>;rel="next">
	LinkMixed  LinkForm = "mixed"
)

// TotalCount is what the next link says about the size of the window.
type TotalCount string

// TotalMixed chooses by window: mostly right, at times another.
const (
	TotalOn        TotalCount = "on"
	TotalOff       TotalCount = "off"
	TotalRemaining TotalCount = "remaining"
	TotalWrong     TotalCount = "wrong"
	TotalMixed     TotalCount = "mixed"
)

// EmptyWindow is how a window without records is answered.
type EmptyWindow string

const (
	Empty404   EmptyWindow = "404" // No CDRs for requested time range and filters
	Empty200   EmptyWindow = "200" // no items
	Empty204   EmptyWindow = "204"
	EmptyMixed EmptyWindow = "mixed"
)

// RetryAfter is how a wait is demanded.
type RetryAfter string

const (
	RetrySeconds RetryAfter = "seconds"
	RetryDate    RetryAfter = "date"
	RetryAbsent  RetryAfter = "absent"
	RetryGarbage RetryAfter = "garbage"
	RetryMixed   RetryAfter = "mixed"
)

// ErrorBody is how errors are worded.
type ErrorBody string

const (
	ErrorJSON  ErrorBody = "json"
	ErrorTop   ErrorBody = "top" // errorCode at top level, no errors array
	ErrorText  ErrorBody = "text"
	ErrorHTML  ErrorBody = "html"
	ErrorEmpty ErrorBody = "empty"
	ErrorMixed ErrorBody = "mixed"
)

// RegionAnswer is how a 451 names the host that has the data.
type RegionAnswer string

const (
	RegionMessage RegionAnswer = "message" // JSON: Please use {host}
	RegionText    RegionAnswer = "text"    // text: should go to URL: "https://..."
	RegionURL     RegionAnswer = "url"     // JSON: a URL in the message
	RegionForeign RegionAnswer = "foreign" // JSON: a host that is not Webex's
	RegionMixed   RegionAnswer = "mixed"   // one of the first three
)

// Compression is whether bodies are compressed for those who ask.
type Compression string

const (
	GzipOff   Compression = "off"
	GzipOn    Compression = "on"
	GzipMixed Compression = "mixed"
)

// DateHeader is whether answers tell the feed's time.
type DateHeader string

const (
	DateOn     DateHeader = "on"
	DateAbsent DateHeader = "absent"
	DateMixed  DateHeader = "mixed"
)

// DefaultOptions is a feed that does what the documents of 2026 say, strictly,
// and nothing odd.
func DefaultOptions() Options {
	return Options{
		Listen: "127.0.0.1:8087",
		Seed:   1,
		Count:  1,
		Records: Records{
			Rate:             5,
			LongestCall:      3 * time.Hour,
			BlankCorrelation: 0.03,
			LateMin:          time.Minute,
			LateMax:          20 * time.Hour,
			RevisedMin:       10 * time.Minute,
			RevisedMax:       20 * time.Hour,
			Keys:             KeysOnWire,
			HugeBytes:        64 << 10,
			GiantBytes:       3 << 19,
		},
		Answers:    DefaultAnswers(),
		CacheBytes: 32 << 20,
	}
}

// DefaultAnswers is the part of DefaultOptions that can change at run time.
func DefaultAnswers() Answers {
	return Answers{
		SelectBy:             ByEnd,
		Feed:                 WindowRules{MinAge: 5 * time.Minute, Lookback: 30 * 24 * time.Hour, MaxWindow: 12 * time.Hour},
		Stream:               WindowRules{MinAge: time.Minute, Lookback: 12 * time.Hour, MaxWindow: 2 * time.Hour},
		TooWide:              Refuse,
		TooOld:               Refuse,
		MaxFloor:             500,
		MaxCeiling:           5000,
		Link:                 LinkDouble,
		TotalCount:           TotalOn,
		EmptyWindow:          Empty404,
		InitialPerMinute:     1,
		PagesPerMinute:       10,
		RetryAfter:           RetrySeconds,
		FaultWait:            2 * time.Second,
		ErrorBody:            ErrorJSON,
		Region:               RegionMessage,
		Gzip:                 GzipOff,
		Date:                 DateOn,
		MaxFaultRun:          3,
		StallFor:             5 * time.Minute,
		SlowFor:              3 * time.Second,
		TokenLifetime:        14 * 24 * time.Hour,
		RefreshTokenLifetime: 90 * 24 * time.Hour,
	}
}

// withDefaults fills in what New needs and makes up the organizations.
func (o Options) withDefaults() Options {
	d := DefaultOptions()
	if o.Listen == "" {
		o.Listen = d.Listen
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = d.CacheBytes
	}
	o.Records = o.Records.withDefaults(d.Records)
	if o.Answers.SelectBy == "" {
		o.Answers = d.Answers
	}
	o.Answers = o.Answers.clone()
	if len(o.Organizations) == 0 {
		for i := range max(o.Count, 1) {
			o.Organizations = append(o.Organizations, madeUpOrganization(i+1))
		}
	}
	o.Organizations = append([]Organization(nil), o.Organizations...)
	for i := range o.Organizations {
		o.Organizations[i].fill(o.Seed)
	}
	return o
}

func (r Records) withDefaults(d Records) Records {
	if r.LongestCall == 0 {
		r.LongestCall = d.LongestCall
	}
	if r.LateMin == 0 {
		r.LateMin = d.LateMin
	}
	if r.LateMax == 0 {
		r.LateMax = d.LateMax
	}
	if r.RevisedMin == 0 {
		r.RevisedMin = d.RevisedMin
	}
	if r.RevisedMax == 0 {
		r.RevisedMax = d.RevisedMax
	}
	if r.Keys == "" {
		r.Keys = d.Keys
	}
	if r.HugeBytes == 0 {
		r.HugeBytes = d.HugeBytes
	}
	if r.GiantBytes == 0 {
		r.GiantBytes = d.GiantBytes
	}
	return r
}

func madeUpOrganization(number int) Organization {
	name := fmt.Sprintf("org-%d", number)
	return Organization{Name: name, Token: "token-" + name, ClientID: "client-" + name, ClientSecret: "secret-" + name, RefreshToken: "refresh-" + name}
}

// usualLocations holds names that customers have: with blanks, slashes, an
// ampersand, other alphabets, the word NA. One holds a comma, so no filter can
// ask for it.
var usualLocations = []string{
	"Richardson", "Erlanger Urgent / Primary Care Main", "São Paulo - Paulista", "NA",
	"München Süd", "R&D Campus", "東京", "Lab, Building 7",
}

func (o *Organization) fill(seed uint64) {
	if o.Seed == 0 {
		o.Seed = hashText(seed, o.Name)
	}
	if o.UUID == "" {
		h := mix(o.Seed ^ saltOrgUUID)
		o.UUID = string(appendUUID(nil, h, mix(h), 4))
	}
	if o.Locations == nil {
		o.Locations = usualLocations
	}
}

// maxLocations is set by the bits of a location mask.
const maxLocations = 64

// maxRate keeps one minute of records within reason.
const maxRate = 20_000

// Validate reports everything that is wrong, one problem a line.
func (o Options) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if o.CacheBytes < 1<<20 {
		add("cache of %d bytes: want at least 1 MiB", o.CacheBytes)
	}
	names, tokens := make(map[string]bool), make(map[string]string)
	for _, org := range o.Organizations {
		if err := cdr.SourceName(org.Name).Validate(); err != nil {
			add("organization: %w", err)
		}
		if names[org.Name] {
			add("organization %q: there are two of this name", org.Name)
		}
		names[org.Name] = true
		for _, secret := range []string{org.Token, org.ClientID} {
			if other, taken := tokens[secret]; taken && secret != "" {
				add("organization %q: shares a token or client ID with %q", org.Name, other)
			}
			tokens[secret] = org.Name
		}
		if n := len(org.Locations); n == 0 || n > maxLocations {
			add("organization %q: %d locations: want 1 to %d", org.Name, n, maxLocations)
		}
		if org.Rate < 0 || org.Rate > maxRate {
			add("organization %q: rate %v: want 0 to %d records a second", org.Name, org.Rate, maxRate)
		}
		if org.Answers != nil {
			if err := org.Answers.Validate(); err != nil {
				add("organization %q: %w", org.Name, err)
			}
		}
	}
	return errors.Join(append(problems, o.Records.Validate(), o.Answers.Validate())...)
}

// Validate reports everything that is wrong, one problem a line.
func (r Records) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !(r.Rate >= 0 && r.Rate <= maxRate) {
		add("rate %v: want 0 to %d records a second", r.Rate, maxRate)
	}
	for _, share := range []named[float64]{
		{"blank correlation", r.BlankCorrelation}, {"late", r.LateShare}, {"revised", r.RevisedShare},
		{"double", r.DoubleShare}, {"new field", r.NewFieldShare}, {"poison", r.PoisonShare},
	} {
		if !isShare(share.value) {
			add("%s share %v: want 0 to 1", share.name, share.value)
		}
	}
	if r.LongestCall < time.Minute || r.LongestCall > 24*time.Hour {
		add("longest call %s: want 1m to 24h", r.LongestCall)
	}
	for _, bounds := range []named[[2]time.Duration]{{"late", [2]time.Duration{r.LateMin, r.LateMax}}, {"revised", [2]time.Duration{r.RevisedMin, r.RevisedMax}}} {
		if low, high := bounds.value[0], bounds.value[1]; low < time.Second || high < low || high > maxDelay {
			add("%s between %s and %s: want 1s to %s, the smaller first", bounds.name, low, high, maxDelay)
		}
	}
	if r.Burst < 0 || r.Burst > maxBurst {
		add("burst of %d records: want 0 to %d", r.Burst, maxBurst)
	}
	if r.HugeBytes < 0 || r.GiantBytes < 0 {
		add("huge or giant value below 0 bytes")
	}
	if !r.Since.IsZero() && !r.Until.IsZero() && !r.Since.Before(r.Until) {
		add("records from %s to %s: the end must be later", r.Since.Format(time.RFC3339), r.Until.Format(time.RFC3339))
	}
	for _, kind := range r.PoisonKinds {
		if kind.index() == 0 {
			add("poison %q: want one of %s", kind, strings.Join(poisonNames(), ", "))
		}
	}
	return errors.Join(append(problems, oneOf("keys", r.Keys, keyNamesChoices))...)
}

// Validate reports everything that is wrong, one problem a line.
func (a Answers) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if a.MaxFloor < 1 || a.MaxCeiling < a.MaxFloor {
		add("max between %d and %d: want at least 1, the smaller first", a.MaxFloor, a.MaxCeiling)
	}
	for _, n := range []named[int]{
		{"refuse max over", a.RefuseMaxOver}, {"timeout max over", a.TimeoutMaxOver}, {"boundary repeats", a.BoundaryRepeats},
		{"initial per minute", a.InitialPerMinute}, {"pages per minute", a.PagesPerMinute}, {"fault run", a.MaxFaultRun},
	} {
		if n.value < 0 {
			add("%s %d: want 0 or more", n.name, n.value)
		}
	}
	for _, d := range []named[time.Duration]{
		{"feed min age", a.Feed.MinAge}, {"feed lookback", a.Feed.Lookback}, {"feed window", a.Feed.MaxWindow},
		{"stream min age", a.Stream.MinAge}, {"stream lookback", a.Stream.Lookback}, {"stream window", a.Stream.MaxWindow},
		{"fault wait", a.FaultWait}, {"stall", a.StallFor}, {"slow", a.SlowFor},
		{"token lifetime", a.TokenLifetime}, {"refresh token lifetime", a.RefreshTokenLifetime}, {"timeout window", a.TimeoutWindowOver},
	} {
		if d.value < 0 {
			add("%s %s: want 0 or more", d.name, d.value)
		}
	}
	if !isShare(a.EmptyPageShare) {
		add("empty page share %v: want 0 to 1", a.EmptyPageShare)
	}
	problems = append(problems,
		oneOf("select by", a.SelectBy, selectByChoices), oneOf("too wide", a.TooWide, excessChoices), oneOf("too old", a.TooOld, excessChoices),
		oneOf("link", a.Link, linkChoices), oneOf("total count", a.TotalCount, totalChoices), oneOf("empty window", a.EmptyWindow, emptyChoices),
		oneOf("retry after", a.RetryAfter, retryChoices), oneOf("error body", a.ErrorBody, errorBodyChoices), oneOf("region", a.Region, regionChoices),
		oneOf("gzip", a.Gzip, gzipChoices), oneOf("date", a.Date, dateChoices),
		validateFaults(a.Faults, faultTable), validateFaults(a.TokenFaults, tokenFaultTable))
	if a.Always != "" {
		problems = append(problems, validateFaults(map[Fault]float64{a.Always: 1}, faultTable))
	}
	return errors.Join(problems...)
}

// named is a value with the name that a complaint gives it.
type named[T any] struct {
	name  string
	value T
}

func isShare(p float64) bool { return p >= 0 && p <= 1 && !math.IsNaN(p) }

var (
	keyNamesChoices  = []KeyNames{KeysOnWire, KeysDocumented, KeysWild}
	selectByChoices  = []SelectBy{ByEnd, ByStart, ByCreation}
	excessChoices    = []Excess{Refuse, Trim}
	linkChoices      = []LinkForm{LinkSingle, LinkDouble, LinkMixed}
	totalChoices     = []TotalCount{TotalOn, TotalOff, TotalRemaining, TotalWrong, TotalMixed}
	emptyChoices     = []EmptyWindow{Empty404, Empty200, Empty204, EmptyMixed}
	retryChoices     = []RetryAfter{RetrySeconds, RetryDate, RetryAbsent, RetryGarbage, RetryMixed}
	errorBodyChoices = []ErrorBody{ErrorJSON, ErrorTop, ErrorText, ErrorHTML, ErrorEmpty, ErrorMixed}
	regionChoices    = []RegionAnswer{RegionMessage, RegionText, RegionURL, RegionForeign, RegionMixed}
	gzipChoices      = []Compression{GzipOff, GzipOn, GzipMixed}
	dateChoices      = []DateHeader{DateOn, DateAbsent, DateMixed}
)

func oneOf[T ~string](what string, value T, choices []T) error {
	for _, c := range choices {
		if value == c {
			return nil
		}
	}
	return fmt.Errorf("%s %q: want one of %s", what, value, joinChoices(choices))
}

func joinChoices[T ~string](choices []T) string {
	var b strings.Builder
	for i, c := range choices {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(c))
	}
	return b.String()
}
