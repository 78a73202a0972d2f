package simulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"
)

func admin(s *Simulator, method, url, body string) (int, string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, url, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

// TestTruthEndpoint reads NDJSON and compares it with what is told in process.
func TestTruthEndpoint(t *testing.T) {
	s := newSimulator(t, func(o *Options) {
		must(t, o.ApplyProfile("content"))
		o.Count, o.Records.RevisedShare, o.Records.PoisonShare = 2, 0.1, 0.1
		o.Records.GiantBytes = 10_000
	})
	at := span(noon, 10*time.Minute)
	for _, query := range []TruthQuery{
		{Span: at, Hash: true},
		{Span: at, Hash: true, Raw: true, Organization: "org-2"},
		{Span: at, By: "insert", InsertedUntil: noon.Add(5 * time.Minute)},
		{Span: at, By: "start"},
	} {
		values := url.Values{"start": {at.StartInclusive.String()}, "end": {at.EndExclusive.String()}, "hash": {boolText(query.Hash)}, "raw": {boolText(query.Raw)}}
		values.Set("by", query.By)
		values.Set("organization", query.Organization)
		if !query.InsertedUntil.IsZero() {
			values.Set("inserted_until", query.InsertedUntil.Format(time.RFC3339))
		}
		status, body := admin(s, http.MethodGet, "/truth?"+values.Encode(), "")
		if status != 200 {
			t.Fatalf("status %d: %s", status, body)
		}
		lines := bufio.NewScanner(strings.NewReader(body))
		lines.Buffer(nil, 1<<20)
		want, err := s.TruthOf(query)
		must(t, err)
		n := 0
		for w := range want {
			if !lines.Scan() {
				t.Fatalf("the truth ends after %d lines", n)
			}
			var got TruthRecord
			must(t, json.Unmarshal(lines.Bytes(), &got))
			if !reflect.DeepEqual(got, w) {
				t.Fatalf("line %d is %+v, want %+v", n, got, w)
			}
			n++
		}
		if lines.Scan() {
			t.Errorf("more lines than truth: %s", lines.Bytes())
		}
		status, body = admin(s, http.MethodGet, "/truth/count?"+values.Encode(), "")
		var count TruthCount
		must(t, json.Unmarshal([]byte(body), &count))
		if status != 200 || count.Records != n || count.WithID+count.WithoutID != n || n < 30 {
			t.Errorf("status %d, count %+v, lines %d", status, count, n)
		}
	}
	for _, bad := range []string{"", "?start=2026-10-05T12:00:00Z", "?start=2026-10-05T12:00:00Z&end=2026-10-05T11:00:00Z", "?start=2026-10-05T12:00:00Z&end=2026-10-05T13:00:00Z&by=end", "?start=2026-10-05T12:00:00Z&end=2026-10-05T13:00:00Z&organization=nobody", "?start=2026-10-05T12:00:00Z&end=2026-10-05T13:00:00Z&from=1"} {
		for _, path := range []string{"/truth", "/truth/count"} {
			if status, body := admin(s, http.MethodGet, path+bad, ""); status != 400 {
				t.Errorf("%s%s: status %d: %s", path, bad, status, body)
			}
		}
	}
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// TestControl changes switches at run time, for all and for one.
func TestControl(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Count = 2 })
	status, body := admin(s, http.MethodPost, "/control", `{"profiles":["paging"],"set":{"link":"single","fault":"500=0.25","stall-for":"7s"}}`)
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	if a, _ := s.Answers("org-2"); a.Link != LinkSingle || a.Faults[Fault500] != 0.25 || a.StallFor != 7*time.Second || !a.Shuffle {
		t.Errorf("answers %+v", a)
	}
	status, _ = admin(s, http.MethodPost, "/control", `{"organization":"org-2","set":{"always":"403","fault":"none"}}`)
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	one, _ := s.Answers("org-1")
	two, _ := s.Answers("org-2")
	if one.Always != "" || two.Always != Fault403 || len(two.Faults) != 0 || one.Faults[Fault500] != 0.25 {
		t.Errorf("org-1 %+v, org-2 %+v", one, two)
	}
	_, body = admin(s, http.MethodGet, "/control?organization=org-2", "")
	var switches map[string]string
	must(t, json.Unmarshal([]byte(body), &switches))
	if switches["always"] != "403" || switches["link"] != "single" || switches["feed-lookback"] != "720h0m0s" {
		t.Errorf("switches %v", switches)
	}
	must(t, s.Update("", func(a *Answers) { a.Faults = nil }))
	if status, body = admin(s, http.MethodPost, "/control", `{"organization":"org-1","inject":["500","502"]}`); status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, want := range []int{500, 502, 200} {
		answer, _ := get(t, s, hour(s))
		expectStatus(t, answer, want)
	}
}

// TestControlRefuses leaves everything as it was when anything is wrong.
func TestControlRefuses(t *testing.T) {
	s := newSimulator(t, nil)
	before, _ := s.Answers("")
	for _, bad := range []string{
		`{`, `{"profile":"all"}`, `{"profiles":["everything"]}`, `{"set":{"rate":"5"}}`, `{"set":{"link":"triple"}}`,
		`{"set":{"fault":"500"}}`, `{"set":{"fault":"600=0.1"}}`, `{"set":{"fault":"500=2"}}`, `{"set":{"max-floor":"9000"}}`,
		`{"set":{"always":"never"}}`, `{"inject":["never"],"set":{"link":"single"}}`, `{"organization":"nobody","set":{"link":"single"}}`,
	} {
		if status, body := admin(s, http.MethodPost, "/control", bad); status != 400 {
			t.Errorf("%s: status %d: %s", bad, status, body)
		}
		if after, _ := s.Answers(""); !reflect.DeepEqual(after, before) {
			t.Fatalf("%s changed the answers", bad)
		}
	}
}

// TestStats counts requests by endpoint and status, and shows violations.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, nil)
		_, page := get(t, s, hour(s))
		end := s.now()
		get(t, s, recordsURL("/v1/cdr_stream", end.Add(-time.Minute), end))
		_, body := admin(s, http.MethodGet, "/stats", "")
		var got struct {
			Stats
			First []Violation `json:"first_violations"`
		}
		must(t, json.Unmarshal([]byte(body), &got))
		want := Stats{
			Requests:   map[string]map[string]int{"/v1/cdr_feed": {"200": 1}, "/v1/cdr_stream": {"400": 1}},
			Faults:     map[Fault]int{},
			Violations: map[ViolationKind]int{WindowTooRecent: 1},
			Items:      int64(len(itemsOf(t, page))),
			Bytes:      got.Bytes,
		}
		if !reflect.DeepEqual(got.Stats, want) || got.Bytes < int64(len(page)) {
			t.Errorf("stats %+v, want %+v", got.Stats, want)
		}
		if len(got.First) != 1 || got.First[0].Kind != WindowTooRecent || got.First[0].Request != 2 || got.First[0].Organization != "org-1" {
			t.Errorf("violations %+v", got.First)
		}
	})
}

// TestFlags sets switches from a command line.
func TestFlags(t *testing.T) {
	o := DefaultOptions()
	flags := pflag.NewFlagSet("simulate", pflag.ContinueOnError)
	o.RegisterFlags(flags)
	must(t, flags.Parse([]string{
		"--profile=all,late", "--fault=stalled=0", "--fault=500=0.5,502=0.01", "--link=single", "--rate=12", "--since=2026-10-05T12:00:00Z", "--poison=deep,giant",
		"--feed-lookback=48h", "--organizations=3", "--seed=9", "--token-fault=none", "--initial-per-minute=0", "--date-skew=-5s",
	}))
	r, a := o.Records, o.Answers
	if r.Rate != 12 || !r.Since.Equal(noon) || len(r.PoisonKinds) != 2 || r.LateShare != 0.05 || r.Keys != KeysWild || o.Count != 3 || o.Seed != 9 {
		t.Errorf("options %+v", o)
	}
	if a.Link != LinkSingle || a.Faults[Stalled] != 0 || a.Faults[Fault500] != 0.5 || a.Faults[Reset] == 0 || a.TokenFaults != nil || a.Feed.Lookback != 48*time.Hour || a.InitialPerMinute != 0 || a.DateSkew != -5*time.Second {
		t.Errorf("answers %+v", a)
	}
	_, err := New(o)
	must(t, err)
	for _, bad := range []string{"--link=x", "--profile=x", "--poison=x", "--fault=x=1", "--since=today", "--keys=x"} {
		fresh := DefaultOptions()
		flags := pflag.NewFlagSet("simulate", pflag.ContinueOnError)
		fresh.RegisterFlags(flags)
		if flags.Parse([]string{bad}) == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if len(f.Usage) < 12 {
			t.Errorf("--%s has hardly any help: %q", f.Name, f.Usage)
		}
	})
}

// TestFlagsCoverAnswers changes every switch of GET /control to its own text,
// which must leave everything as it is: what is shown can be set.
func TestFlagsCoverAnswers(t *testing.T) {
	a := DefaultAnswers()
	must(t, a.ApplyProfile("all"))
	before := a.clone()
	flags := pflag.NewFlagSet("control", pflag.ContinueOnError)
	a.RegisterFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if err := f.Value.Set(f.Value.String()); err != nil {
			t.Errorf("--%s: %v", f.Name, err)
		}
	})
	if !reflect.DeepEqual(a, before) {
		t.Errorf("answers %+v, want %+v", a, before)
	}
}

// TestProfiles applies each and all of them.
func TestProfiles(t *testing.T) {
	for _, name := range ProfileNames() {
		o := DefaultOptions()
		must(t, o.ApplyProfile(name))
		must(t, o.withDefaults().Validate())
	}
	all := DefaultOptions()
	must(t, all.ApplyProfile("all"))
	if all.Records.LateShare != 0 || all.Records.RevisedShare != 0 {
		t.Error("profile all has late or revised records")
	}
	for _, traits := range faultTable {
		if (all.Answers.Faults[traits.name] > 0) == traits.stops {
			t.Errorf("fault %s in profile all: probability %v", traits.name, all.Answers.Faults[traits.name])
		}
	}
	must(t, all.ApplyProfile("stopping"))
	for _, traits := range faultTable {
		if all.Answers.Faults[traits.name] == 0 {
			t.Errorf("fault %s is in neither profile", traits.name)
		}
	}
}

// TestOptionsRefused names everything that is wrong, at once.
func TestOptionsRefused(t *testing.T) {
	o := DefaultOptions()
	o.CacheBytes = 5
	o.Organizations = []Organization{{Name: "a", Token: "x"}, {Name: "a", Token: "x", Locations: []string{}}, {Name: "no spaces", Rate: -1}}
	o.Records.Rate, o.Records.PoisonShare, o.Records.LateMin, o.Records.Burst = -1, 2, time.Hour*100, -1
	o.Records.PoisonKinds, o.Records.Keys = []Poison{"arsenic"}, "golden"
	o.Answers.MaxCeiling, o.Answers.Link, o.Answers.Faults = 3, "chain", map[Fault]float64{Fault500: 0.7, Fault502: 0.7}
	_, err := New(o)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"cache of 5 bytes", `organization "a": there are two`, "shares a token", "0 locations: want 1 to 64", `source name "no spaces"`, `rate -1`, "poison share 2",
		"late between 100h0m0s and 20h0m0s", "burst of -1", `poison "arsenic"`, `keys "golden": want one of wire, documented, wild`,
		"max between 500 and 3", `link "chain"`, "add up to 1.4",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

// TestObserve sees every exchange.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []Exchange
		s := newSimulator(t, func(o *Options) { o.Observe = func(e Exchange) { seen = append(seen, e) } })
		must(t, s.Inject("org-1", Fault500, Reset))
		url := hour(s)
		_, _ = get(t, s, url)
		r := httptest.NewRequest(http.MethodGet, url, nil)
		r.Header.Set("Authorization", "Bearer token-org-1")
		if !serve(s, httptest.NewRecorder(), r) {
			t.Error("reset does not cut the connection")
		}
		_, body := get(t, s, url)
		if len(seen) != 3 {
			t.Fatalf("saw %+v", seen)
		}
		last := seen[2]
		if seen[0].Status != 500 || seen[0].Fault != Fault500 || !seen[1].Aborted || seen[1].Status != 0 || last.Request != 3 || last.Items != bytes.Count(body, []byte(`"Report ID"`)) || !last.End.Equal(s2000.Add(-time.Hour)) || last.Organization != "org-1" {
			t.Errorf("saw %+v", seen)
		}
	})
}
