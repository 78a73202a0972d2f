package poller

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestNextTarget(t *testing.T) {
	const u = "https://analytics-calling.webexapis.com/v1/cdr_feed?endTime=E&startTime=S&startTimeForNextFetch=N&totalCount=20000&max=5000&orgId=O"
	const prev = "https://analytics-calling.webexapis.com/v1/cdr_feed?x=1"
	for _, c := range []struct {
		name  string
		lines []string
		want  string
		bad   bool
	}{
		{"none", nil, "", false},
		{"empty", []string{""}, "", false},
		{"only commas", []string{" , ,"}, "", false},
		{"single", []string{"<" + u + `>; rel="next"`}, u, false},
		{"documented: doubled", []string{"<<" + u + `>;rel="next">`}, u, false},
		{"doubled and spaced", []string{"< <" + u + `> ; rel = "next" >`}, u, false},
		{"doubled, outer bracket missing", []string{"<<" + u + `>;rel="next"`}, u, false},
		{"no quotes, other case", []string{"<" + u + `>; REL=Next`}, u, false},
		{"single quotes", []string{"<" + u + `>; rel='next'`}, u, false},
		{"several relations", []string{"<" + u + `>; rel="prev next"`}, u, false},
		{"other parameters", []string{"<" + u + `>; title="a, b; c"; rel="next"; type=x`}, u, false},
		{"second entry", []string{"<" + prev + `>; rel="prev", <` + u + `>; rel="next"`}, u, false},
		{"second entry, doubled", []string{"<<" + prev + `>;rel="prev">, <<` + u + `>;rel="next">`}, u, false},
		{"second entry, doubled, never closed", []string{"<<" + prev + `>;rel="prev", <<` + u + `>;rel="next"`}, u, false},
		{"second line", []string{"<" + prev + `>; rel="prev"`, "<" + u + `>; rel="next"`}, u, false},
		{"commas inside the URL", []string{"<https://h/v1/cdr_feed?locations=A,B>; rel=next"}, "https://h/v1/cdr_feed?locations=A,B", false},
		{"the same link twice", []string{"<" + u + `>; rel="next"`, "<" + u + `>; rel="next"`}, u, false},
		{"only another relation", []string{"<" + prev + `>; rel="prev"`}, "", false},
		{"no relation", []string{"<" + prev + ">"}, "", false},

		{"two different links", []string{"<" + u + `>; rel="next", <` + prev + `>; rel="next"`}, "", true},
		{"no bracket", []string{u + `; rel="next"`}, "", true},
		{"never closed", []string{"<" + u}, "", true},
		{"empty brackets", []string{`<>; rel="next"`}, "", true},
		{"next in another attribute", []string{"<" + u + `>; rev="next"`}, "", true},
		{"next lost in broken quotes", []string{"<" + u + `>; rel=next", <` + prev + `>; rel="prev"`}, "", true},
		{"garbage after a good link", []string{"<" + u + `>; rel="next", x`}, "", true},
	} {
		got, err := nextTarget(http.Header{"Link": c.lines})
		if got != c.want || (err != nil) != c.bad || err != nil && !errors.Is(err, errBadLink) {
			t.Errorf("%s: nextTarget = %q, %v; want %q, error %t", c.name, got, err, c.want, c.bad)
		}
	}
}

func TestResolveNext(t *testing.T) {
	asked := mustURL("https://host.example/v1/cdr_feed?startTime=S&max=5000")
	for target, want := range map[string]string{
		"https://host.example/v1/cdr_feed?a=1&b=%20":       "https://host.example/v1/cdr_feed?a=1&b=%20",
		"https://HOST.example:443/v1/cdr_feed?a=1":         "https://HOST.example:443/v1/cdr_feed?a=1",
		"/v1/cdr_feed?a=1":                                 "https://host.example/v1/cdr_feed?a=1",
		"?a=1#fragment":                                    "https://host.example/v1/cdr_feed?a=1",
		"?locations=Main Street,Zürich&x=\"":               "https://host.example/v1/cdr_feed?locations=Main%20Street,Z%C3%BCrich&x=%22",
		"http://host.example/v1/cdr_feed?a=1":              "",
		"https://host.example:8443/v1/cdr_feed?a=1":        "",
		"https://host.example.evil/v1/cdr_feed?a=1":        "",
		"//evil.example/v1/cdr_feed?a=1":                   "",
		"https://host.example@evil.example/v1/cdr_feed?a=": "",
		"https://user@host.example/v1/cdr_feed?a=1":        "",
		"https://host.example/v1/cdr_feed/../admin?a=1":    "",
		"https://host.example/v1/CDR_FEED?a=1":             "",
		"https://host.example/v1/cdr%5Ffeed?a=1":           "",
		"javascript:alert(1)":                              "",
		"https://host.example:bad/v1/cdr_feed":             "",
	} {
		got, err := resolveNext(asked, target)
		switch {
		case want == "" && err == nil:
			t.Errorf("resolveNext(%q) = %s, want an error", target, got)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("resolveNext(%q) = %s, %v; want %s", target, got, err, want)
		}
	}
}

func TestLinkIdentity(t *testing.T) {
	base := mustURL("https://h/p?startTimeForNextFetch=N&totalCount=10&max=500")
	for query, same := range map[string]bool{
		"startTimeForNextFetch=N&totalCount=9&max=500":            true,
		"max=500&startTimeForNextFetch=N":                         true,
		"startTimeForNextFetch=M&totalCount=10&max=500":           false,
		"startTimeForNextFetch=N&totalCount=10&max=500&offset=50": false,
	} {
		if got := linkIdentity(mustURL("https://h/p?"+query)) == linkIdentity(base); got != same {
			t.Errorf("link with %s is the same page: %t", query, got)
		}
	}
	for text, want := range map[string]int64{"": -1, "0": 0, "20000": 20000, "-1": -1, "many": -1, "99999999999999999999": -1} {
		if got := totalCountOf(mustURL("https://h/p?totalCount=" + text)); got != want {
			t.Errorf("totalCount %q is %d, want %d", text, got, want)
		}
	}
}

// FuzzLink: no header makes the parser panic, lead away from the host or hide a
// next page that the same header shows in the other written form.
func FuzzLink(f *testing.F) {
	for _, seed := range []string{
		`<https://host.example/v1/cdr_feed?startTimeForNextFetch=N&totalCount=1>; rel="next"`,
		`<<https://host.example/v1/cdr_feed?startTimeForNextFetch=N>;rel="next">`,
		`<https://host.example/v1/cdr_feed?a=1>; rel="prev", <<https://host.example/v1/cdr_feed?a=2>;rel="next">`,
		`<>; rel=next`, `<<<`, `>`, `, ,`, `<a>;rel="next`, `<a>;"`, `<?x y=1>;rel=next`, `<//evil/v1/cdr_feed>;rel=next`,
	} {
		f.Add(seed)
	}
	asked := mustURL("https://host.example/v1/cdr_feed?startTime=S")
	f.Fuzz(func(t *testing.T, header string) {
		target, err := nextTarget(http.Header{"Link": {header}})
		if err != nil && target != "" {
			t.Fatalf("nextTarget(%q) = %q next to %v", header, target, err)
		}
		if err == nil && target != "" {
			if next, err := resolveNext(asked, target); err == nil {
				if next.Scheme != "https" || hostPort(next) != "host.example:443" || next.Path != "/v1/cdr_feed" || next.User != nil {
					t.Fatalf("link %q leads to %s", header, next)
				}
				if strings.ContainsFunc(next.RequestURI(), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
					t.Fatalf("link %q would break the request line: %q", header, next.RequestURI())
				}
			}
		}
		// A URL of the fuzzer's own must be found in either form.
		inner := strings.Map(func(r rune) rune {
			if strings.ContainsRune("<>\"' \t", r) {
				return -1
			}
			return r
		}, header)
		if inner == "" {
			return
		}
		for _, form := range []string{"<" + inner + `>; rel="next"`, "<<" + inner + `>;rel="next">`} {
			if got, err := nextTarget(http.Header{"Link": {form}}); err != nil || got != inner {
				t.Fatalf("nextTarget(%q) = %q, %v", form, got, err)
			}
		}
	})
}

func TestRegionsNamed(t *testing.T) {
	const eu, in = "analytics-calling-eu.webexapis.com", "analytics-calling-in.webexapis.com"
	for body, want := range map[string][]string{
		`{"message":"This server cannot serve the data for this organization. Please use ` + eu + `","errorCode":451}`: {eu},
		`{"message":"should go to URL: \"https://` + eu + `/v1/cdr_feed\""}`:                                           {eu},
		`{"message":"go to https:\/\/` + strings.ToUpper(eu) + `\/v1"}`:                                                {eu},
		"Please use " + eu + ".": {eu},
		eu:                       {eu},
		eu + " not analytics-calling.webexapis.com": {eu},
		in + "," + eu:                     {eu, in},
		"analytics.webexapis.com":         {"analytics.webexapis.com"},
		"":                                nil,
		"Please use {another region}":     nil,
		"x" + eu:                          nil,
		"x." + eu:                         nil,
		eu + ".evil.example":              nil,
		eu + "m":                          nil,
		"analytics-callingXwebexapis.com": nil,
	} {
		if got := regionsNamed([]byte(body), "analytics-calling.webexapis.com"); !slices.Equal(got, want) {
			t.Errorf("regionsNamed(%q) = %q, want %q", body, got, want)
		}
	}
}

// FuzzRegion: whatever a body says, nothing but the list comes out, and not the
// host that was asked.
func FuzzRegion(f *testing.F) {
	for _, seed := range []string{
		`{"message":"Please use analytics-calling-eu.webexapis.com","errorCode":451}`, `should go to URL: "https://analytics-calling-in.webexapis.com"`,
		"analytics-calling-eu.webexapis.com.evil", "", "\xff.analytics.webexapis.com", "https://evil/analytics-f.webex.com",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, host := range regionsNamed(body, "analytics-calling.webexapis.com") {
			if !isRegionHost(host) || host == "analytics-calling.webexapis.com" {
				t.Fatalf("regionsNamed(%q) names %q", body, host)
			}
		}
		around := append(append([]byte("\n"), body...), "\nhttps://analytics-calling-au.webexapis.com/\n"...)
		if !slices.Contains(regionsNamed(around, "x"), "analytics-calling-au.webexapis.com") {
			t.Fatalf("regionsNamed does not see a host behind %q", body)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		header, date string
		want         time.Duration
		ok           bool
	}{
		{"", "", 0, false},
		{"0", "", 0, true},
		{" 17 ", "", 17 * time.Second, true},
		{"-1", "", 0, false},
		{"1.5", "", 0, false},
		{"soon", "", 0, false},
		{"99999999999", "", maxDemand, true},
		{"99999999999999999999999", "", 0, false},
		{"Sun, 22 Nov 2026 10:00:30 GMT", "", 30 * time.Second, true},
		{"Sunday, 22-Nov-26 10:00:30 GMT", "", 30 * time.Second, true},
		{"Sun, 22 Nov 2026 09:59:59 GMT", "", 0, false},
		{"Sun, 22 Nov 2026 10:00:30 GMT", "Sun, 22 Nov 2026 10:00:10 GMT", 20 * time.Second, true},
		{"Sun, 22 Nov 9999 10:00:30 GMT", "", maxDemand, true},
	} {
		header := http.Header{}
		header.Set("Retry-After", c.header)
		header.Set("Date", c.date)
		if got, ok := retryAfter(header, now); got != c.want || ok != c.ok {
			t.Errorf("retryAfter(%q, Date %q) = %s, %t; want %s, %t", c.header, c.date, got, ok, c.want, c.ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "7", "-7", "Sun, 22 Nov 2026 10:00:30 GMT", "18446744073709551616", "9e9", "Thu, 01 Jan 1970 00:00:00 GMT"} {
		f.Add(seed, "Sun, 22 Nov 2026 10:00:10 GMT")
	}
	f.Fuzz(func(t *testing.T, after, date string) {
		header := http.Header{"Retry-After": {after}, "Date": {date}}
		if got, ok := retryAfter(header, time.Unix(0, 0)); got < 0 || got > maxDemand || !ok && got != 0 {
			t.Fatalf("retryAfter(%q, %q) = %s, %t", after, date, got, ok)
		}
	})
}

func TestParseErrorBody(t *testing.T) {
	for _, c := range []struct {
		body string
		want errorBody
	}{
		{"", errorBody{}},
		{`{"message":"No CDRs for requested time range and filters","errorCode":404,"trackingId":"T_1"}`, errorBody{"No CDRs for requested time range and filters", "T_1", true}},
		{`{"message":"m","errors":[{"description":"d","errorCode":7}],"trackingId":"T_1"}`, errorBody{"m", "T_1", true}},
		{`{"errors":[{"description":"d"},{"description":"e"},{}]}`, errorBody{"d; e", "", false}},
		{`{"Message":"m","TrackingID":"a b"}`, errorBody{"m", "", true}},
		{`{"message":7,"errors":"x","trackingId":null}`, errorBody{"", "", true}},
		{`{}`, errorBody{}},
		{`[1]`, errorBody{"[1]", "", false}},
		{"429 Request rate exceeds threshold", errorBody{"429 Request rate exceeds threshold", "", false}},
		{"<html>\n  <b>x</b>\r\n</html>", errorBody{"<html> <b>x</b> </html>", "", false}},
	} {
		if got := parseErrorBody([]byte(c.body)); got != c.want {
			t.Errorf("parseErrorBody(%q) = %+v, want %+v", c.body, got, c.want)
		}
	}
}

func TestQuoteMessage(t *testing.T) {
	token := Token{AccessToken: "tiny"}
	for message, want := range map[string]string{
		"":                         `""`,
		"plain":                    `"plain"`,
		"a tiny secret":            `"a [redacted] secret"`,
		"Bearer abc.def":           `"[redacted]"`,
		"of jo.e+x@example.com,":   `"of [redacted],"`,
		"to +12025550143":          `"to [redacted]"`,
		"2026-11-22T10:00:00.000Z": `"2026-11-22T10:00:00.000Z"`,
		strings.Repeat("A", 40):    `"[redacted]"`,
		"\x00\x1b[31m\xff":         "\"  [31m\ufffd\"",
		strings.Repeat("é ", 100):  `"` + strings.Repeat("é ", 66) + `é..."`,
	} {
		if got := quoteMessage(message, token); got != want {
			t.Errorf("quoteMessage(%q) = %s, want %s", message, got, want)
		}
	}
}

// FuzzErrorBody: an error's text is short, printable and without the token,
// whatever the server echoes.
func FuzzErrorBody(f *testing.F) {
	for _, seed := range []string{
		`{"message":"m","errors":[{"description":"d"}],"trackingId":"T_1"}`, `{"message":"the-very-token"}`, "<html>", "\xff\xfe", `{"errors":[[]]}`, `{"a":`,
		`{"message":"\u0000\u001b[31m"}`, strings.Repeat("é", 150),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		ans := &answer{asked: mustURL("https://h/p?secret=1"), status: 500, header: http.Header{}, body: body, trackingID: "cdrbus_1", token: Token{AccessToken: "the-very-token"}}
		text := ans.failure("", nil).Error()
		if strings.Contains(text, "the-very-token") || strings.Contains(text, "secret=1") {
			t.Fatalf("error shows a secret: %s", text)
		}
		if len(text) > 1200 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("error of %d bytes is not printable: %q", len(text), text)
		}
		parseErrorBody(body).saysNoRecords()
	})
}

func TestCheckCredentialURL(t *testing.T) {
	o := HTTPOptions{InsecureHTTPHosts: []string{"cdr.lan"}}
	for target, good := range map[string]bool{
		"https://x.example/p": true, "http://127.0.0.1:9/p": true, "http://[::1]/p": true, "http://localhost/p": true, "http://CDR.lan:8080/p": true,
		"http://x.example/p": false, "http://127.0.0.1.evil.example/p": false, "https://u:p@x.example/": false, "ftp://x/": false, "https:///p": false, "": false,
	} {
		if err := o.CheckCredentialURL(mustURL(target)); (err == nil) != good {
			t.Errorf("CheckCredentialURL(%q) = %v", target, err)
		}
	}
}

func TestBareURL(t *testing.T) {
	u, err := url.Parse("https://u:p@h:8443/a%2Fb?q=1#f")
	if err != nil || bareURL(u) != "https://h:8443/a%2Fb" {
		t.Errorf("bareURL = %s, %v", bareURL(u), err)
	}
}

func TestTrackingIDs(t *testing.T) {
	for id, want := range map[string]string{"T_1-a.b:c": "T_1-a.b:c", " x ": "x", "a b": "", "": "", "é": "", strings.Repeat("a", 101): ""} {
		if got := cleanTrackingID(id); got != want {
			t.Errorf("cleanTrackingID(%q) = %q, want %q", id, got, want)
		}
	}
}
