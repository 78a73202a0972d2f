package simulator

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// feedLayout is the one time format that the feed reads.
const feedLayout = "2006-01-02T15:04:05.000Z"

// ask is what a request asks for.
type ask struct {
	path, query        string
	start, end         time.Time // as asked
	startText, endText string
	locations          string
	filtered           bool   // by locations
	places             uint64 // bits of the locations that are wanted
	max                int    // 0: not said
	isPage             bool   // a next link: the fields below are set
	cursorMillis       int64
	total              string
}

// key identifies a request and its repetition.
func (k *ask) key() string { return k.path + "?" + k.query }

// window identifies a window, whichever of its pages is asked for.
func (k *ask) window() string {
	return k.path + " " + k.startText + " " + k.endText + " " + k.locations
}

// complaint is what is wrong with a request.
type complaint struct {
	kind    ViolationKind
	message string
}

// complain begins an error text as the feed might; it must not begin with "No CDRs".
func complain(kind ViolationKind, format string, args ...any) *complaint {
	return &complaint{kind, fmt.Sprintf(format, args...)}
}

const (
	cursorParameter = "startTimeForNextFetch"
	maxFilterNames  = 10
)

// initialParameters may be sent by a client; pageParameters come in next links.
var (
	initialParameters = map[string]bool{"startTime": true, "endTime": true, "locations": true, "max": true}
	pageParameters    = map[string]bool{"startTime": true, "endTime": true, "locations": true, "max": true, cursorParameter: true, "totalCount": true, "orgId": true}
)

// parse reads the query into x.ask. What can be read is there even if something
// is wrong, so that the budget is charged for the right kind of request.
func (x *exchange) parse() *complaint {
	k := &x.ask
	k.path, k.query = x.r.URL.Path, x.r.URL.RawQuery
	q, err := url.ParseQuery(k.query)
	if err != nil {
		return complain(UnknownParameter, "Query string cannot be read: %s", err)
	}
	k.isPage = q.Has(cursorParameter)
	if problem := checkNames(q, k.isPage); problem != nil {
		return problem
	}
	if k.startText, k.endText = q.Get("startTime"), q.Get("endTime"); k.startText == "" || k.endText == "" {
		return complain(TimeMissing, "startTime and endTime are required")
	}
	for _, t := range []struct {
		text string
		into *time.Time
	}{{k.startText, &k.start}, {k.endText, &k.end}} {
		if *t.into, err = parseExact(t.text); err != nil {
			return complain(BadTime, "Invalid time %q: the format is YYYY-MM-DDTHH:MM:SS.mmmZ", t.text)
		}
	}
	if k.max, err = parseMax(q); err != nil {
		return complain(BadMax, "Invalid max: %s", err)
	}
	if problem := x.parseLocations(q); problem != nil {
		return problem
	}
	if k.isPage {
		return x.parseCursor(q)
	}
	return nil
}

// checkNames finds parameters that do not belong, or come twice.
func checkNames(q url.Values, isPage bool) *complaint {
	known, what := initialParameters, "request"
	if isPage {
		known, what = pageParameters, "next link"
	}
	for name, values := range q {
		if !known[name] {
			return complain(UnknownParameter, "Unknown parameter %q in a %s", name, what)
		}
		if len(values) > 1 {
			return complain(TwiceParameter, "Parameter %q is given %d times", name, len(values))
		}
	}
	return nil
}

// parseExact reads a time in exactly the feed's format.
func parseExact(text string) (time.Time, error) {
	t, err := time.Parse(feedLayout, text)
	if err == nil && t.Format(feedLayout) != text {
		err = fmt.Errorf("time %q is not written as %s", text, feedLayout)
	}
	return t, err
}

func parseMax(q url.Values) (int, error) {
	if !q.Has("max") {
		return 0, nil
	}
	n, err := strconv.Atoi(q.Get("max"))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not a number from 1 on", q.Get("max"))
	}
	return n, nil
}

// parseLocations turns names into bits. An unknown name matches nothing, without a word.
func (x *exchange) parseLocations(q url.Values) *complaint {
	k := &x.ask
	if k.locations = q.Get("locations"); k.locations == "" {
		return nil
	}
	names := strings.Split(k.locations, ",")
	if len(names) > maxFilterNames {
		return complain(TooManyLocations, "%d locations: up to %d can be provided", len(names), maxFilterNames)
	}
	k.filtered = true
	for _, name := range names {
		if place, ok := x.org.places[name]; ok {
			k.places |= 1 << place
		}
	}
	return nil
}

// parseCursor reads what only next links have.
func (x *exchange) parseCursor(q url.Values) *complaint {
	k := &x.ask
	cursor, err := parseExact(q.Get(cursorParameter))
	if err != nil {
		return complain(BadCursor, "Invalid %s %q", cursorParameter, q.Get(cursorParameter))
	}
	k.cursorMillis, k.total = cursor.UnixMilli(), q.Get("totalCount")
	if cursor.Before(k.start.Truncate(time.Second)) || cursor.After(k.end.Add(time.Second)) {
		return complain(BadCursor, "%s %s is outside the window", cursorParameter, q.Get(cursorParameter))
	}
	if q.Get("orgId") != x.org.UUID {
		return complain(ForeignOrg, "orgId %q is not the organization of this token", q.Get("orgId"))
	}
	return nil
}

func (x *exchange) rules() WindowRules {
	if x.endpoint == cdr.Stream {
		return x.answers.Stream
	}
	return x.answers.Feed
}

// checkWindow holds the window against what the endpoint answers. What is
// trimmed instead of refused is a violation all the same.
func (x *exchange) checkWindow() *complaint {
	k, rules := &x.ask, x.rules()
	if !k.end.After(k.start) {
		return complain(EndBeforeStart, "endTime must be later than startTime")
	}
	if width := k.end.Sub(k.start); width > rules.MaxWindow {
		problem := complain(WindowTooWide, "The window of %s is wider than %s", width, rules.MaxWindow)
		if x.answers.TooWide == Refuse {
			return problem
		}
		x.violated(problem.kind, problem.message)
	}
	if newest := x.now.Add(-rules.MinAge); k.end.After(newest) {
		return complain(WindowTooRecent, "endTime must be at least %s ago, is %s ago", rules.MinAge, x.now.Sub(k.end))
	}
	// A window that ages while its pages are fetched is not the client's fault.
	if oldest := x.now.Add(-rules.Lookback); k.start.Before(oldest) && !k.isPage {
		problem := complain(WindowTooOld, "startTime must be at most %s ago, is %s ago", rules.Lookback, x.now.Sub(k.start))
		if x.answers.TooOld == Refuse {
			return problem
		}
		x.violated(problem.kind, problem.message)
	}
	return nil
}

// clampedMax is the page size in force.
func (x *exchange) clampedMax() int {
	a := &x.answers
	floor, ceiling := a.MaxFloor, a.MaxCeiling
	if a.RefuseMaxOver > 0 {
		floor, ceiling = 1, min(ceiling, a.RefuseMaxOver)
	}
	if x.ask.max == 0 {
		return ceiling
	}
	return min(max(x.ask.max, floor), ceiling)
}
