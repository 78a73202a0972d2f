package simulator

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// BenchmarkPages answers page after page of a backlog, without a network. One
// operation is one record.
func BenchmarkPages(b *testing.B) {
	for _, profile := range []string{"plain", "content"} {
		b.Run(profile, func(b *testing.B) {
			s := newBenchSimulator(b, profile)
			w := &discard{header: make(http.Header)}
			end := s.now().Add(-time.Hour).Truncate(time.Second)
			start := end.Add(-12 * time.Hour)
			url := recordsURL("/v1/cdr_feed", start, end, "max=5000")
			records := 0
			b.ReportAllocs()
			for records < b.N {
				clear(w.header)
				r := httptest.NewRequest(http.MethodGet, url, nil)
				r.Header.Set("Authorization", "Bearer token-org-1")
				before := s.Stats().Items
				s.ServeHTTP(w, r)
				records += int(s.Stats().Items - before)
				if url = nextLink(w.header); url == "" {
					start, end = start.Add(-12*time.Hour), start
					url = recordsURL("/v1/cdr_feed", start, end, "max=5000")
				}
			}
			b.SetBytes(w.bytes / int64(records))
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkLoopback does the same over a real connection, read by this process.
func BenchmarkLoopback(b *testing.B) {
	s := newBenchSimulator(b, "plain")
	server := httptest.NewServer(s)
	defer server.Close()
	end := s.now().Add(-time.Hour).Truncate(time.Second)
	start := end.Add(-12 * time.Hour)
	url := server.URL + recordsURL("/v1/cdr_feed", start, end, "max=5000")
	for records := 0; records < b.N; records += 5000 {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer token-org-1")
		r.Header.Set("Accept-Encoding", "identity")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			b.Fatal(err)
		}
		_ = answer.Body.Close()
		if url = nextLink(answer.Header); url == "" {
			start, end = start.Add(-12*time.Hour), start
			url = server.URL + recordsURL("/v1/cdr_feed", start, end, "max=5000")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkTruth tells the truth with hashes and as JSON.
func BenchmarkTruth(b *testing.B) {
	s := newBenchSimulator(b, "plain")
	end := cdr.InstantOf(s.now())
	encoder := json.NewEncoder(io.Discard)
	records := 0
	for records < b.N {
		for t := range s.Truth("org-1", cdr.Span{StartInclusive: end - 600, EndExclusive: end}) {
			if err := encoder.Encode(t); err != nil {
				b.Fatal(err)
			}
			records++
		}
		end -= 600
	}
	b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
}

func newBenchSimulator(b *testing.B, profile string) *Simulator {
	b.Helper()
	o := DefaultOptions()
	o.Records.Rate = 23
	o.Answers.Feed.Lookback = 10 * 365 * 24 * time.Hour
	for _, name := range []string{profile, "unlimited"} {
		if err := o.ApplyProfile(name); err != nil {
			b.Fatal(err)
		}
	}
	o.Answers.Feed.Lookback = 10 * 365 * 24 * time.Hour
	s, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// discard counts what it is given.
type discard struct {
	header http.Header
	bytes  int64
}

func (d *discard) Header() http.Header { return d.header }
func (d *discard) WriteHeader(int)     {}
func (d *discard) Write(p []byte) (int, error) {
	d.bytes += int64(len(p))
	return len(p), nil
}
