package config

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of the feed (Webex Calling, Detailed Call History).
const (
	maxLocations = 10
	minPageSize  = 500
	maxPageSize  = 5000
	feedMinAge   = 5 * time.Minute
	feedMaxSpan  = 12 * time.Hour
)

// sources checks each source, and then what sources owe one another.
func (r rules) sources() {
	if len(r.c.Sources) == 0 {
		r.refuse("sources", "is empty", "name at least one feed to poll")
	}
	names := map[string]bool{}
	scopes := scopes{}
	groups := map[string][]int{}
	for i := range r.c.Sources {
		s, path := &r.c.Sources[i], itemOf("sources", i)
		r.name(path, s.Name, "source", names)
		feed := r.sourceURL(path, s)
		r.sourceCredential(path, s)
		r.locations(path, s.Locations)
		r.start(path, s)
		if s.PageSize != 0 {
			within(r, childOf(path, "page_size"), s.PageSize, minPageSize, maxPageSize, "write 500 to 5000, or 0 to let cdrbus choose")
		}
		within(r, childOf(path, "limits.initial_per_minute"), s.Limits.InitialPerMinute, 1, 1_000_000, "write 1 or more")
		within(r, childOf(path, "limits.pages_per_minute"), s.Limits.PagesPerMinute, 1, 1_000_000, "write 1 or more")
		r.times(path, s)
		if feed != nil {
			r.scope(path, s, feed, scopes)
		}
		groups[s.Group()] = append(groups[s.Group()], i)
	}
	for _, members := range groups {
		r.sharing(members)
	}
}

func (r rules) sourceURL(path string, s *Source) *url.URL {
	path = childOf(path, "url")
	u := r.url(path, s.URL, "http", "https")
	if u == nil {
		return nil
	}
	for key, values := range u.Query() {
		if key != "orgId" || len(values) != 1 {
			r.refuse(path, "has a query other than orgId", "end the address before the ?: cdrbus adds the times by itself")
			return nil
		}
	}
	switch stream := strings.HasSuffix(u.Path, "/cdr_stream"); {
	case stream && s.Endpoint == Feed:
		r.refuse(path, "is the address of cdr_stream, but endpoint is feed", "end it in /cdr_feed")
	case s.Endpoint != Feed && !stream && !strings.HasSuffix(u.Path, "/cdr_feed"):
		r.refuse(path, fmt.Sprintf("ends neither in /cdr_feed nor in /cdr_stream, and endpoint %s reads both", s.Endpoint), "end it in /cdr_feed")
	}
	r.plainHTTP(path, u)
	return u
}

func (r rules) sourceCredential(path string, s *Source) {
	switch {
	case s.Credential != "" && s.Token.IsSet():
		r.refuse(childOf(path, "token_file"), "excludes credential", "keep one of the two")
	case s.Credential == "" && !s.Token.IsSet() && !r.isSpoilt(childOf(path, "token_file")):
		r.refuse(childOf(path, "credential"), "is missing", "name a credential, or a token_file with a bare access token")
	case s.Credential != "" && r.c.CredentialOf(s) == nil:
		r.refuse(childOf(path, "credential"), fmt.Sprintf("there is no credential called %s", quoteShort(s.Credential)), r.suggestCredential(s.Credential))
	}
}

func (r rules) suggestCredential(name string) string {
	var names []string
	for i := range r.c.Credentials {
		names = append(names, r.c.Credentials[i].Name)
	}
	if nearest := Nearest(name, names); nearest != "" {
		return fmt.Sprintf("did you mean %s?", nearest)
	}
	return "add it to credentials"
}

func (r rules) locations(path string, locations []string) {
	path = childOf(path, "locations")
	if len(locations) > maxLocations {
		r.refuse(path, fmt.Sprintf("%d locations, and the feed takes %d", len(locations), maxLocations), "share them out among several sources")
	}
	for i, location := range locations {
		switch {
		case strings.Contains(location, ","):
			r.refuse(itemOf(path, i), "a name with a comma cannot be sent to the feed", "rename the location, or ask for the whole organisation")
		case strings.TrimSpace(location) != location || location == "":
			r.refuse(itemOf(path, i), "is empty, or begins or ends with a blank", "write the name as Control Hub shows it")
		case containsFold(locations[:i], location):
			r.refuse(itemOf(path, i), "names a location twice", "keep one of the two")
		}
	}
}

func (r rules) start(path string, s *Source) {
	path = childOf(path, "start")
	if s.Start.IsZero() {
		r.refuse(path, "is missing", "say where a new source begins: a time ago such as 24h, an RFC 3339 time, or earliest")
	}
	if s.Start.kind == startAgo && s.Start.ago > s.Lookback {
		r.warn(path, fmt.Sprintf("%s ago is further than the feed answers (lookback %s): the span before will be recorded as a gap", s.Start, formatDuration(s.Lookback)), "write earliest")
	}
}

func (r rules) times(path string, s *Source) {
	const longest = 3650 * day
	r.seconds(childOf(path, "lookback"), s.Lookback, time.Hour, longest)
	r.seconds(childOf(path, "min_age"), s.MinAge, 0, day)
	r.seconds(childOf(path, "max_window"), s.MaxWindow, time.Second, feedMaxSpan)
	r.seconds(childOf(path, "overlap"), s.Overlap, 0, feedMaxSpan)
	if s.Overlap >= s.MaxWindow {
		r.refuse(childOf(path, "overlap"), fmt.Sprintf("%s leaves nothing of max_window (%s)", formatDuration(s.Overlap), formatDuration(s.MaxWindow)), "make it shorter")
	}
	if s.MaxWindow+s.MinAge > s.Lookback {
		r.refuse(childOf(path, "lookback"), fmt.Sprintf("%s is shorter than max_window and min_age together", formatDuration(s.Lookback)), "make it longer")
	}
	if s.MinAge < feedMinAge && strings.Contains(strings.ToLower(s.URL), ".webexapis.com") {
		r.warn(childOf(path, "min_age"), "the feed of Webex refuses windows that end less than 5m ago", "write 5m")
	}
	r.sweeps(path, s)
}

func (r rules) sweeps(path string, s *Source) {
	if len(s.Sweeps) == 0 && s.Endpoint != Feed {
		r.refuse(childOf(path, "sweeps"), fmt.Sprintf("endpoint %s needs them: only cdr_feed, read again, proves that a span is complete", s.Endpoint), "leave the key out, or use endpoint feed")
	}
	for i, sweep := range s.Sweeps {
		item := itemOf(childOf(path, "sweeps"), i)
		r.seconds(childOf(item, "every"), sweep.Every, time.Minute, s.Lookback)
		r.seconds(childOf(item, "back"), sweep.Back, time.Minute, s.Lookback)
		if sweep.Every > sweep.Back {
			r.refuse(childOf(item, "every"), fmt.Sprintf("a sweep every %s that reaches back %s leaves holes", formatDuration(sweep.Every), formatDuration(sweep.Back)), "make every the shorter one")
		}
		if slices.ContainsFunc(s.Sweeps[:i], func(other Sweep) bool { return other.Back == sweep.Back }) {
			r.refuse(childOf(item, "back"), fmt.Sprintf("two sweeps reach back %s", formatDuration(sweep.Back)), "keep the one that comes more often")
		}
	}
}

// scope is what of an organisation's records the sources before have taken.
type scope struct {
	whole      string            // source that asks for all of them; "": none
	byLocation map[string]string // lower-case location -> source
	any        string            // some source
}

// scopes is by credential, host and organisation.
type scopes map[string]*scope

// scope refuses a source that would read the same records as one before it: the
// two would publish them twice.
func (r rules) scope(path string, s *Source, feed *url.URL, all scopes) {
	key := s.Group() + " " + canonicalHost(feed) + " " + feed.Query().Get("orgId")
	taken := all[key]
	if taken == nil {
		taken = &scope{byLocation: map[string]string{}}
		all[key] = taken
	}
	switch other, location := taken.overlap(s.Locations); {
	case other == "":
	case location == "":
		r.refuse(path, fmt.Sprintf("source %s asks for records that source %s asks for too: same credential, same host, and one of them without locations", s.Name, other),
			"give both their own locations, or keep one source")
	default:
		r.refuse(childOf(path, "locations"), fmt.Sprintf("location %q is asked for by source %s too, with the same credential at the same host", location, other), "keep it in one of the two")
	}
	taken.add(s)
}

// overlap returns a source that asks for one of the locations (none means all
// of them), and for which one.
func (t *scope) overlap(locations []string) (source, location string) {
	if t.whole != "" {
		return t.whole, ""
	}
	if len(locations) == 0 {
		return t.any, ""
	}
	for _, location := range locations {
		if other := t.byLocation[strings.ToLower(location)]; other != "" {
			return other, location
		}
	}
	return "", ""
}

func (t *scope) add(s *Source) {
	name := cmp.Or(s.Name, "without a name")
	t.any = cmp.Or(t.any, name)
	if len(s.Locations) == 0 {
		t.whole = cmp.Or(t.whole, name)
	}
	for _, location := range s.Locations {
		if t.byLocation[strings.ToLower(location)] == "" {
			t.byLocation[strings.ToLower(location)] = name
		}
	}
}

func canonicalHost(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		host += ":" + port
	}
	return host
}

// sharing checks the sources, by index, that share a credential: they share one
// request budget and one set of published Report IDs, both of which live in one shard.
func (r rules) sharing(members []int) {
	first := &r.c.Sources[members[0]]
	for _, i := range members[1:] {
		s, path := &r.c.Sources[i], itemOf("sources", i)
		if s.Limits != first.Limits {
			r.refuse(childOf(path, "limits"), fmt.Sprintf("differ from those of source %s, which shares the credential and so the budget", first.Name), "write the same limits")
		}
		if s.EffectiveShardKey() != first.EffectiveShardKey() {
			r.refuse(childOf(path, "shard_key"), fmt.Sprintf("differs from that of source %s, which shares the credential (%q, %q)", first.Name, s.EffectiveShardKey(), first.EffectiveShardKey()),
				"write the same shard_key for both")
		}
	}
	r.budget(members)
}

// usefulCadence is the longest time between two live windows of a source that
// is called keeping up.
const usefulCadence = 5 * time.Minute

// budget warns when a group's sources need more first requests than they may make.
func (r rules) budget(members []int) {
	needed := 0.0 // a minute
	for _, i := range members {
		needed += 1 / usefulCadence.Minutes()
		s := &r.c.Sources[i]
		for _, sweep := range s.Sweeps {
			if sweep.Every > 0 && s.MaxWindow > 0 {
				windows := (sweep.Back + s.MaxWindow - 1) / s.MaxWindow
				needed += float64(windows) / sweep.Every.Minutes()
			}
		}
	}
	first := &r.c.Sources[members[0]]
	allowed := first.Limits.InitialPerMinute
	if allowed < 1 || needed <= float64(allowed) {
		return
	}
	cadence := time.Duration(float64(usefulCadence) * needed / float64(allowed)).Round(time.Minute)
	r.warn(childOf(itemOf("sources", slices.Min(members)), "limits"), fmt.Sprintf(
		"%d sources share this budget of %d first requests a minute; a live window of each every %s, and their sweeps, need %.1f: each is asked about every %s",
		len(members), allowed, formatDuration(usefulCadence), needed, formatDuration(cadence)),
		"use more credentials, join sources, or sweep less often")
}
