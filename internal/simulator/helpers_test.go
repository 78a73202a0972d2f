package simulator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"cdrbus/internal/cdr"
)

// recordsURL is the path and query of an initial request, with parameters added.
func recordsURL(path string, start, end time.Time, more ...string) string {
	url := path + "?startTime=" + start.UTC().Format(feedLayout) + "&endTime=" + end.UTC().Format(feedLayout)
	for _, m := range more {
		url += "&" + m
	}
	return url
}

// nextLink finds the next link in any of its forms: it splits the entries
// outside of brackets, and strips every bracket, blank and quote.
func nextLink(h http.Header) string {
	for _, entry := range splitOutsideBrackets(h.Get("Link")) {
		parts := strings.Split(entry, ";")
		for _, p := range parts[1:] {
			name, value, _ := strings.Cut(p, "=")
			if strings.EqualFold(strings.TrimSpace(name), "rel") && strings.EqualFold(strings.Trim(value, `<>" `), "next") {
				return strings.Trim(parts[0], `<>" `)
			}
		}
	}
	return ""
}

func splitOutsideBrackets(s string) []string {
	var parts []string
	depth, from, quoted := 0, 0, false
	for i, c := range s {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			depth++
		case c == '>':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:])
}

// newSimulator makes a simulator without rate limits and changed as asked.
func newSimulator(t testing.TB, change func(*Options)) *Simulator {
	t.Helper()
	o := DefaultOptions()
	o.Records.Rate = 0.15
	if err := o.ApplyProfile("unlimited"); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// direct carries requests to a handler without a network. Bodies that are cut
// end in an error, a cut before the head is an error of the request.
type direct struct{ handler http.Handler }

func (d direct) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	w := httptest.NewRecorder()
	w.Code = 0
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	cut := serve(d.handler, w, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if cut && w.Code == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	answer = w.Result()
	answer.Request = r
	if cut {
		answer.Body = io.NopCloser(io.MultiReader(answer.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
	}
	return answer, nil
}

// serve reports whether the handler cut the connection.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (cut bool) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			cut = true
		}
	}()
	h.ServeHTTP(w, r)
	return false
}

// get makes one request with the token of org-1 and reads the answer whole.
func get(t testing.TB, s *Simulator, url string, headers ...string) (*http.Response, []byte) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, url, nil)
	r.Header.Set("Authorization", "Bearer token-org-1")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := direct{s}.RoundTrip(r)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("GET %s: read the body: %v", url, err)
	}
	return answer, body
}

// itemsOf reads a page.
func itemsOf(t testing.TB, body []byte) []json.RawMessage {
	t.Helper()
	var page struct{ Items []json.RawMessage }
	if err := json.Unmarshal(body, &page); err != nil {
		t.Fatalf("page is not JSON: %v", err)
	}
	return page.Items
}

// span is [from, from+d) in whole seconds.
func span(from time.Time, d time.Duration) cdr.Span {
	start := cdr.InstantOf(from)
	return cdr.Span{StartInclusive: start, EndExclusive: start.Add(d)}
}

// noViolations fails the test if the client did anything wrong.
func noViolations(t testing.TB, s *Simulator) {
	t.Helper()
	for _, v := range s.Violations() {
		t.Errorf("violation: %s", v)
	}
}
