//go:build unix

package daemon

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/cputime"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/schema"
)

// BenchmarkSweep reads a window of 12 hours over a socket three times in turn: only
// fetched and encoded; as a sweep that finds everything in a set of a million; and as
// the live edge, to which everything is new. Lane and source do all that they do, the
// verdict comes at once. What is reported is CPU time a record, of the process with its
// server, which answers from memory; a sweep may cost limitMicros beyond the first.
func BenchmarkSweep(b *testing.B) {
	const limitMicros = 5
	k := newSweepKit(b)
	known := k.full(1_000_000)
	var read, sweep, edge time.Duration
	for b.Loop() {
		read += k.measured(k.read)
		sweep += k.measured(func() { k.window(cdr.Sweep, known, k.records) })
		edge += k.measured(func() { k.window(cdr.Live, offsets.NewSeen(0), 0) })
	}
	micros := func(d time.Duration) float64 {
		return float64(d.Nanoseconds()) / 1000 / float64(b.N) / float64(k.records)
	}
	b.ReportMetric(micros(read), "read-µs/record")
	b.ReportMetric(micros(edge), "live-µs/record")
	b.ReportMetric(micros(sweep), "sweep-µs/record")
	b.ReportMetric(micros(sweep-read), "beyond-µs/record")
	if beyond := micros(sweep - read); beyond > limitMicros {
		b.Errorf("a sweep that finds nothing new costs %.2f µs a record beyond fetching and encoding", beyond)
	}
}

// sweepKit is a lane with one source, whose feed answers from memory, and a committer
// to which everything is a commit.
type sweepKit struct {
	b       *testing.B
	lane    *lane
	source  *source
	span    cdr.Span
	records int64
}

func newSweepKit(b *testing.B) *sweepKit {
	end := cdr.InstantOf(time.Now().Add(-time.Hour))
	k := &sweepKit{b: b, span: cdr.Span{StartInclusive: end.Add(-12 * time.Hour), EndExclusive: end}}
	board := status.New(status.Build{}, status.Options{})
	d := &Daemon{
		board: board, memory: newMemory(64<<20, 64<<20), layout: testLayout(), fingerprint: schema.Fingerprint(),
		config: &config.Config{Memory: config.Memory{MaxIDBytes: 1 << 30}}, encoders: newEncoderPool(schema.EncoderOptions{}),
	}
	k.source = testSource(board, "acme")
	k.source.feed = k.newFeed()
	k.source.position = offsets.Position{FeedPublished: end, FeedSettled: k.span.StartInclusive, OldestRecord: k.span.StartInclusive}
	committer := &shard{daemon: d, ready: make(chan *window)}
	k.lane = &lane{daemon: d, shard: committer, sources: []*source{k.source}, held: d.memory.newHolding(), log: zap.NewNop()}
	go func() {
		for w := range committer.ready {
			w.settled <- verdict{position: w.source.position}
		}
	}()
	b.Cleanup(func() { close(committer.ready) })
	return k
}

// newFeed serves a simulated feed, each page of which is made once.
func (k *sweepKit) newFeed() *poller.Feed {
	options := simulator.DefaultOptions()
	options.Records.Rate = 1
	if err := options.ApplyProfile("unlimited"); err != nil {
		k.b.Fatal(err)
	}
	feed, err := simulator.New(options)
	if err != nil {
		k.b.Fatal(err)
	}
	pages := map[string]*httptest.ResponseRecorder{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := pages[r.URL.String()]
		if page == nil {
			page = httptest.NewRecorder()
			feed.ServeHTTP(page, r)
			pages[r.URL.String()] = page
		}
		for name, values := range page.Header() {
			w.Header()[name] = values
		}
		_, _ = w.Write(page.Body.Bytes())
	}))
	k.b.Cleanup(server.Close)
	address, err := url.Parse(server.URL + "/v1/cdr_feed")
	if err != nil {
		k.b.Fatal(err)
	}
	f, err := poller.NewFeed(poller.FeedOptions{
		Source: k.source.name, URL: address, Tokens: fixedToken("token-org-1"),
		Budget: poller.NewBudget(poller.Limits{InitialPerMinute: 1e6, PagesPerMinute: 1e6}, time.Time{}, time.Now()),
	})
	if err != nil {
		k.b.Fatal(err)
	}
	return f
}

// fixedToken is a token that is always good.
type fixedToken string

func (t fixedToken) Token(context.Context) (poller.Token, error) {
	return poller.Token{AccessToken: string(t)}, nil
}

func (fixedToken) Rejected(context.Context, poller.Token) error { return nil }

func (k *sweepKit) request(purpose cdr.Purpose) poller.Request {
	return poller.Request{Span: k.span, Commit: k.span, Endpoint: cdr.Feed, Purpose: purpose, MinAge: 5 * time.Minute, Lookback: 720 * time.Hour}
}

// read fetches and encodes the window, and leaves it at that.
func (k *sweepKit) read() {
	k.records = 0
	if _, err := k.source.feed.Fetch(k.b.Context(), k.request(cdr.Live), encodeOnly{k}); err != nil {
		k.b.Fatal(err)
	}
}

type encodeOnly struct{ kit *sweepKit }

func (s encodeOnly) Page(_ context.Context, _ int, body []byte) error {
	encoders := s.kit.lane.daemon.encoders
	encoder := encoders.take()
	defer encoders.put(encoder)
	return encoder.Each(body, func(*schema.Item) error {
		s.kit.records++
		return nil
	})
}

// window takes the window through the lane, up to a verdict that it is committed. At
// least so many of its records must be known already.
func (k *sweepKit) window(purpose cdr.Purpose, seen *offsets.Seen, leastKnown int64) {
	l, request := k.lane, k.request(purpose)
	l.seen = seen
	w, err := l.prepare(k.b.Context(), choice{source: k.source, request: &request})
	if err != nil || w == nil {
		k.b.Fatalf("%s window: %v, %v", purpose, w, err)
	}
	if w.facts.items != k.records || w.facts.known < leastKnown {
		k.b.Fatalf("%s window: %d of %d items, %d of %d known", purpose, w.facts.items, k.records, w.facts.known, leastKnown)
	}
	if err := l.handOver(k.b.Context(), w); err != nil {
		k.b.Fatal(err)
	}
	if kept, err := l.settle(k.b.Context()); !kept || err != nil {
		k.b.Fatal(kept, err)
	}
}

// full is a set that knows every record of the window, among so many others of it
// that they are count.
func (k *sweepKit) full(count int) *offsets.Seen {
	k.read()
	seen := offsets.NewSeen(0)
	others := seen.Begin(offsets.Window{Span: k.span, SchemaFingerprint: k.lane.daemon.fingerprint})
	random := rand.New(rand.NewPCG(1, 1))
	for range count - int(k.records) {
		var id cdr.ReportID
		binary.LittleEndian.PutUint64(id[:], random.Uint64())
		binary.LittleEndian.PutUint64(id[8:], random.Uint64())
		others.Check(id, 1)
	}
	others.Adopt(0)
	k.window(cdr.Live, seen, 0)
	return seen
}

func (k *sweepKit) measured(do func()) time.Duration {
	began := cputime.Of(k.b)
	do()
	return cputime.Of(k.b) - began
}
