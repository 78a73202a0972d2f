package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/producer"
	"cdrbus/schema"
)

func testSource(board *status.Board, name cdr.SourceName) *source {
	return &source{name: name, config: &config.Source{Endpoint: config.Feed}, board: board, log: zap.NewNop(), finish: &finish{}, clocks: newClocks(zap.NewNop()), headers: newHeaderBuilder(name, true), plan: poller.State{Policy: poller.DefaultPolicy(cdr.Feed)}}
}

func testLayout() *producer.Layout {
	layout := &producer.Layout{EventPartitions: 1}
	for topic := range layout.MaxMessageBytes {
		layout.MaxMessageBytes[topic] = 1 << 20
		layout.Names[topic] = string(rune('a' + topic))
	}
	return layout
}

// TestOversized: an event that its topic would take, but not with its key, is a
// dead letter with the bytes that the feed sent, and a verification finds it there.
func TestOversized(t *testing.T) {
	layout := testLayout()
	m := newMemory(32<<20, 32<<20)
	share, err := m.reserve(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	w := &window{
		source:   testSource(status.New(status.Build{}, status.Options{}), "acme"),
		draft:    producer.NewDraft(layout, 0),
		pending:  offsets.NewSeen(0).Begin(offsets.Window{}),
		facts:    facts{reports: offsets.NoReportTimes},
		share:    share,
		encoders: newEncoderPool(schema.EncoderOptions{MaxEventBytes: layout.MaxValueBytes(producer.Events)}),
	}
	w.headers = w.source.headers
	item := `{"Report ID": "6f1a7a3e-5d1f-4a8e-9c55-0d7a1b2c3d4e", "Correlation ID": "` + strings.Repeat("x", 700<<10) + `"}`
	small := `{"Report ID": "6f1a7a3e-5d1f-4a8e-9c55-0d7a1b2c3d4f", "Correlation ID": "y"}`
	if err := w.Page(t.Context(), 0, []byte(`{"items": [`+small+`,`+item+`]}`)); err != nil {
		t.Fatal(err)
	}
	if w.facts.published != 1 || w.facts.deadLetters != 1 || w.facts.items != 2 {
		t.Errorf("the facts are %+v", w.facts)
	}
	if events, letters := w.draft.Records(producer.Events), w.draft.Records(producer.DeadLetters); events != 1 || letters != 1 {
		t.Errorf("the draft holds %d events and %d dead letters", events, letters)
	}
	span := cdr.Span{StartInclusive: 1000, EndExclusive: 2000}
	v := &verification{missing: map[cdr.ReportID]lack{}, parts: []*part{{span: span}}, dead: map[string]bool{fmt.Sprintf("%x", sha256.Sum256([]byte(item))): true}}
	encoder := w.encoders.take()
	if err := encoder.Each([]byte(`{"items": [`+item+`]}`), func(item *schema.Item) error {
		v.lacks(item, span.StartInclusive)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if f := v.parts[0].findings; f.FeedRecords != 1 || f.Missing != 0 {
		t.Errorf("a verification finds %+v", f)
	}
}

// TestDistinct counts each record of a window once, however it came: known from before,
// new, revised, and again.
func TestDistinct(t *testing.T) {
	id := func(n byte) cdr.ReportID { return cdr.ReportID{n} }
	for _, c := range []struct {
		name string
		met  []schema.Item // in order; of what is there already, 1 and 2 have the hash 1
		want int64
	}{
		{"nothing", nil, 0},
		{"all new", []schema.Item{{ID: id(3)}, {ID: id(4)}}, 2},
		{"all known, one again", []schema.Item{{ID: id(2), Hash: 1}, {ID: id(1), Hash: 1}, {ID: id(2), Hash: 1}}, 2},
		{"new and again", []schema.Item{{ID: id(3)}, {ID: id(1), Hash: 1}, {ID: id(3)}}, 2},
		{"revised", []schema.Item{{ID: id(1), Hash: 2}, {ID: id(3)}}, 2},
		{"new, then revised", []schema.Item{{ID: id(3), Hash: 1}, {ID: id(3), Hash: 2}, {ID: id(3), Hash: 2}}, 1},
		{"known, then revised", []schema.Item{{ID: id(1), Hash: 1}, {ID: id(2), Hash: 1}, {ID: id(1), Hash: 2}}, 2},
	} {
		seen := offsets.NewSeen(0)
		before := seen.Begin(offsets.Window{})
		before.Check(id(1), 1)
		before.Check(id(2), 1)
		before.Adopt(0)
		w := &window{
			source: testSource(status.New(status.Build{}, status.Options{}), "acme"),
			draft:  producer.NewDraft(testLayout(), 0), pending: seen.Begin(offsets.Window{}),
		}
		w.headers = w.source.headers
		for i := range c.met {
			if err := w.add(&c.met[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.distinct(); got != c.want {
			t.Errorf("%s: %d distinct records, want %d", c.name, got, c.want)
		}
	}
}

// TestPagesShowNoPersonalData: what the status page gets of an event has every
// field that may hold personal data masked, and unmasked only where it is asked for.
func TestPagesShowNoPersonalData(t *testing.T) {
	item := map[string]string{"Unknown": "secret"}
	for _, f := range schema.Fields() {
		if f.PII != schema.NoPII {
			item[f.FeedName] = "secret"
		}
	}
	item["Report ID"] = "6f1a7a3e-5d1f-4a8e-9c55-0d7a1b2c3d4e"
	page, err := json.Marshal(map[string]any{"items": []any{item}})
	if err != nil {
		t.Fatal(err)
	}
	emitted := 0
	err = schema.NewEncoder(schema.EncoderOptions{}).Each(page, func(item *schema.Item) error {
		emitted++
		for _, personalData := range []bool{false, true} {
			shown, err := DecodeEvent(item.Value, personalData)
			if err != nil {
				return err
			}
			if strings.Contains(string(shown), "secret") != personalData {
				t.Errorf("with personal data %v the page gets %s", personalData, shown)
			}
		}
		return nil
	})
	if err != nil || emitted != 1 {
		t.Errorf("%d events, %v", emitted, err)
	}
}

// TestChoiceFallsWithItsPredecessor: a lane that finds, while it waits for memory,
// that its window in flight left no trace, does not fetch the window behind it:
// committed, that would skip the records between.
func TestChoiceFallsWithItsPredecessor(t *testing.T) {
	board := status.New(status.Build{}, status.Options{})
	d := &Daemon{board: board, memory: newMemory(1<<20, 1<<20)}
	s := testSource(board, "acme")
	seen := offsets.NewSeen(0)
	l := &lane{daemon: d, shard: &shard{daemon: d}, sources: []*source{s}, seen: seen, log: zap.NewNop()}
	held, err := d.memory.reserve(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	l.inFlight = &window{source: s, pending: seen.Begin(offsets.Window{}), share: held, settled: make(chan verdict, 1)}
	l.inFlight.settled <- verdict{err: errParked}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if share, err := l.reserve(ctx, 1); share != nil || err != nil {
		t.Errorf("got a share of %+v, %v; want none", share, err)
	}
	if !s.halted() {
		t.Error("the source goes on")
	}
}

// TestCloseDemandsContiguity: a window that does not begin where its source's
// position ends, or is not the next one, is never committed.
func TestCloseDemandsContiguity(t *testing.T) {
	receipts, err := offsets.NewReceiptCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	published := offsets.Position{
		Source: "acme", Definition: offsets.NewDefinition("cdr_feed", "feed.example.com", "/v1/cdr_feed", nil),
		TransactionalPrefix: "cdrbus", Shards: 1, Counter: 4, FeedPublished: 100, FeedSettled: 100,
	}
	s := &shard{
		daemon:    &Daemon{layout: testLayout(), receipts: receipts},
		positions: map[cdr.SourceName]offsets.Position{"acme": published},
	}
	for _, test := range []struct {
		name    string
		counter cdr.Counter
		start   cdr.Instant
		want    error
	}{
		{"the next one", 5, 100, nil},
		{"behind a hole", 5, 160, errLost},
		{"over what is published", 5, 40, errLost},
		{"behind one that is missing", 6, 100, errLost},
		{"the last one again", 4, 100, errLost},
	} {
		w := &window{
			source: testSource(nil, "acme"), purpose: cdr.CatchUp, counter: test.counter,
			request: poller.Request{Commit: cdr.Span{StartInclusive: test.start, EndExclusive: 220}, Endpoint: cdr.Feed},
			facts:   facts{reports: offsets.NoReportTimes},
		}
		if _, _, err := s.close([]*window{w}, time.Now()); !errors.Is(err, test.want) {
			t.Errorf("closing a window %s: %v, want %v", test.name, err, test.want)
		}
	}
}

// TestSettledIsWhatWasReadLateEnough: a window of cdr_feed settles only what was as old
// as the widest sweep reaches back when it was read, and only without a hole.
func TestSettledIsWhatWasReadLateEnough(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) cdr.Instant { return cdr.InstantOf(now.Add(-d)) }
	s := testSource(nil, "acme")
	s.sweeps.Sweeps = []poller.Sweep{{Every: 15 * time.Minute, Back: 2 * time.Hour}, {Every: 12 * time.Hour, Back: 48 * time.Hour}}
	before := offsets.Position{FeedPublished: ago(time.Hour), FeedSettled: ago(60 * time.Hour)}
	for _, c := range []struct {
		name               string
		from, to           time.Duration // ago
		endpoint           cdr.Endpoint
		published, settled time.Duration
	}{
		{"live", 62 * time.Minute, 6 * time.Minute, cdr.Feed, 6 * time.Minute, 60 * time.Hour},
		{"a sweep of what is old enough", 60 * time.Hour, 50 * time.Hour, cdr.Feed, time.Hour, 50 * time.Hour},
		{"a sweep of more than that", 61 * time.Hour, 40 * time.Hour, cdr.Feed, time.Hour, 48 * time.Hour},
		{"a sweep behind a hole", 59 * time.Hour, 50 * time.Hour, cdr.Feed, time.Hour, 60 * time.Hour},
		{"a sweep of all, to the edge", 60 * time.Hour, 6 * time.Minute, cdr.Feed, 6 * time.Minute, 48 * time.Hour},
		{"a backfill", 90 * time.Hour, 80 * time.Hour, cdr.Feed, time.Hour, 60 * time.Hour},
		{"cdr_stream", 60 * time.Hour, time.Minute, cdr.Stream, time.Hour, 60 * time.Hour},
	} {
		span := cdr.Span{StartInclusive: ago(c.from), EndExclusive: ago(c.to)}
		w := &window{source: s, purpose: cdr.Sweep, began: now, request: poller.Request{Span: span, Endpoint: c.endpoint}, facts: facts{reports: offsets.NoReportTimes}}
		after := s.positionAfter(w, before)
		if after.FeedPublished != ago(c.published) || after.FeedSettled != ago(c.settled) {
			t.Errorf("%s: published %s, settled %s ago; want %s and %s", c.name, now.Sub(after.FeedPublished.Time()), now.Sub(after.FeedSettled.Time()), c.published, c.settled)
		}
	}
}

// TestShortfallsOfTwoRounds: a window that stays incomplete is committed as unproven the
// third time, whatever the windows of another round that are read between bring.
func TestShortfallsOfTwoRounds(t *testing.T) {
	s := testSource(status.New(status.Build{}, status.Options{}), "acme")
	read := func(startInclusive cdr.Instant, announced int64) error {
		w := &window{source: s, purpose: cdr.Sweep, request: poller.Request{
			Span: cdr.Span{StartInclusive: startInclusive, EndExclusive: startInclusive + 300}, Endpoint: cdr.Feed, Purpose: cdr.Sweep,
		}, draft: producer.NewDraft(testLayout(), 0)}
		w.outcome.TotalCount = announced
		err := s.judge(w)
		if err == nil {
			s.learn(w)
		}
		return err
	}
	for round := range 2 {
		for attempt := 1; attempt <= 3; attempt++ {
			for _, wide := range []cdr.Instant{1000, 2000} {
				var again *poller.Replan
				if err := read(wide, 7); errors.As(err, &again) != (attempt < 3) || again != nil && again.HalveSpan != (attempt == 2) {
					t.Errorf("round %d, attempt %d: %v", round, attempt, err)
				}
			}
			if err := read(cdr.Instant(5000+attempt), 0); err != nil {
				t.Errorf("a window that is whole: %v", err)
			}
		}
	}
}

// TestTurns: the live edge goes first, but each of the others has its fifth while it
// has something to do; and what is about to be forgotten goes before all.
func TestTurns(t *testing.T) {
	now := time.Now()
	s := testSource(nil, "acme")
	s.plan.Published = cdr.InstantOf(now.Add(-time.Hour))
	deal := func(from map[work]bool, n int) (dealt [works]int) {
		var turns turns
		for range n {
			var ready [works]choice
			for w := range from {
				ready[w] = choice{source: s, request: &poller.Request{Purpose: []cdr.Purpose{cdr.Live, cdr.Sweep, cdr.Backfill}[w]}}
			}
			dealt[workOf(turns.next(ready, now).request.Purpose)]++
		}
		return dealt
	}
	for _, c := range []struct {
		from map[work]bool
		want [works]int
	}{
		{map[work]bool{live: true}, [works]int{100, 0, 0}},
		{map[work]bool{live: true, sweep: true}, [works]int{80, 20, 0}},
		{map[work]bool{live: true, sweep: true, errands: true}, [works]int{60, 20, 20}},
		{map[work]bool{sweep: true}, [works]int{0, 100, 0}},
		{map[work]bool{errands: true}, [works]int{0, 0, 100}},
	} {
		got := deal(c.from, 1000)
		for w := range works {
			if off := got[w] - 10*c.want[w]; off < -2 || off > 2 {
				t.Errorf("of %v: %v of 1000, want %v in a hundred", c.from, got, c.want)
			}
		}
	}
	s.plan.Published = cdr.InstantOf(now.Add(-s.plan.Lookback + time.Hour))
	if got := deal(map[work]bool{live: true, sweep: true, errands: true}, 10); got != [works]int{10, 0, 0} {
		t.Errorf("what ages out had %v of 10 turns", got)
	}
	if choice := new(turns).next([works]choice{}, now); choice.source != nil {
		t.Error("a turn of nothing")
	}
}
