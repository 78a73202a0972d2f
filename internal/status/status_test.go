package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/cdr"
)

// live is a committed window of n records, published to end.
func live(source cdr.SourceName, counter cdr.Counter, n uint64, end cdr.Instant) Window {
	return Window{
		Source: source, Counter: counter, Purpose: cdr.Live, Pages: 1, Items: n, Events: n, TotalCount: int64(n), Published: end,
		Span: cdr.Span{StartInclusive: end - 60, EndExclusive: end},
	}
}

func TestCountsAgree(t *testing.T) {
	b := New(Build{}, Options{})
	w := live("acme", 2, 10, 5000)
	w.Events, w.Known, w.DeadLetters, w.Late, w.Revised = 6, 3, 1, 2, 1
	gap := Window{Source: "acme", Counter: 3, Purpose: cdr.Gap, Published: 9000, Span: cdr.Span{StartInclusive: 5000, EndExclusive: 9000}}
	unproven := live("other", 1, 4, 5000)
	unproven.Unproven = "fewer than announced"
	b.Committed(Commit{Shard: 3, DurationSeconds: .01, Windows: []Window{w, gap, unproven}})
	b.Unmapped("acme", "Field of tomorrow", 5)

	got := b.Snapshot().Totals
	want := Totals{
		Sources: 2, States: map[State]int{Starting: 2}, Records: 14, Events: 10, Known: 3, Late: 2, Revised: 1, DeadLetters: 1, Unmapped: 5,
		Windows: 3, Unproven: 1, Gaps: 1, WorstLagSeconds: got.WorstLagSeconds, WorstLagSource: "other",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("totals are\n%+v, want\n%+v", got, want)
	}
	if got.Records != got.Events+got.Known+got.DeadLetters {
		t.Error("records are not events, known ones and dead letters")
	}
	acme := b.Snapshot().Sources[0]
	if acme.Counter != 3 || acme.Published != 9000 || acme.Shard != 3 || acme.Counts.GapSeconds != 4000 {
		t.Errorf("source is %+v", acme.Source)
	}
	if marks := []Mark{acme.History[0].Mark, acme.History[1].Mark}; marks[0] != MarkDeadLetters || marks[1] != MarkGap {
		t.Errorf("marks are %v", marks)
	}
}

func TestWindowIsCountedOnce(t *testing.T) {
	b := New(Build{}, Options{})
	for range 2 {
		b.Committed(Commit{Windows: []Window{live("acme", 7, 10, 5000)}})
	}
	if got := b.Snapshot().Totals.Records; got != 10 {
		t.Errorf("%d records after a window was reported twice, want 10", got)
	}
	// A restore that found the window committed tells its counter first.
	b.Update("acme", func(s *Source) { s.Counter = 8 })
	b.Committed(Commit{Windows: []Window{live("acme", 8, 5, 5060)}})
	if got := b.Snapshot().Totals.Records; got != 15 {
		t.Errorf("%d records after a window whose counter was known before, want 15", got)
	}
}

func TestLagFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Build{}, Options{})
		now := time.Now()
		b.Update("acme", func(s *Source) { s.MinAgeSeconds, s.Feed.LookbackSeconds = 300, 3600 })
		if s := b.Snapshot().Sources[0]; s.LagSeconds != -1 || s.UntilLossSeconds != -1 {
			t.Errorf("without a position lag is %v, until loss %v; want -1 and -1", s.LagSeconds, s.UntilLossSeconds)
		}
		published := cdr.InstantOf(now.Add(-10 * time.Minute))
		b.Committed(Commit{Windows: []Window{live("acme", 1, 1, published)}})
		b.Update("acme", func(s *Source) { s.Feed.Published = published })
		for _, c := range []struct {
			after          time.Duration
			lag, untilLoss float64
		}{{0, 300, 3000}, {time.Minute, 360, 2940}, {2 * time.Hour, 7500 + 60, 0}} {
			time.Sleep(c.after)
			s := b.Snapshot().Sources[0]
			if s.LagSeconds != c.lag || s.UntilLossSeconds != c.untilLoss {
				t.Errorf("%s later: lag %v, until loss %v; want %v and %v", c.after, s.LagSeconds, s.UntilLossSeconds, c.lag, c.untilLoss)
			}
		}
		if got := b.Snapshot().Alerts; len(got) != 1 || got[0].Severity != Critical || got[0].Title != "records about to age out" {
			t.Errorf("alerts are %+v", got)
		}
	})
}

func TestSinceIsTheLastChangeOfState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Build{}, Options{})
		start := time.Now()
		b.Update("acme", func(s *Source) { s.State = Waiting })
		time.Sleep(time.Minute)
		b.Update("acme", func(s *Source) { s.State = Waiting })
		if got := b.Snapshot().Sources[0].Since; !got.Equal(start) {
			t.Errorf("the same state again moves since to %s, want %s", got, start)
		}
		b.Update("acme", func(s *Source) { s.State = Fetching })
		if got := b.Snapshot().Sources[0].Since; !got.Equal(start.Add(time.Minute)) {
			t.Errorf("since is %s, want %s", got, start.Add(time.Minute))
		}
		b.UpdateShard(2, func(s *Shard) { s.State = ShardReady })
		time.Sleep(time.Minute)
		b.Restarted("killed")
		s := b.Snapshot()
		if s.Ready || s.Sources[0].State != Starting || s.Shards[0].State != ShardOwned || !s.Shards[0].Since.Equal(s.At) || s.Process.Restarts != 1 {
			t.Errorf("after a restart: ready %v, source %s, shard %s", s.Ready, s.Sources[0].State, s.Shards[0].State)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	b := New(Build{}, Options{})
	for i := range cdr.Counter(keptWindows + 5) {
		b.Committed(Commit{Windows: []Window{live("acme", i+1, 1, 5000)}})
	}
	h := b.Snapshot().Sources[0].History
	if len(h) != keptWindows || h[0].Counter != 6 || h[len(h)-1].Counter != keptWindows+5 {
		t.Errorf("history has %d windows from %d to %d", len(h), h[0].Counter, h[len(h)-1].Counter)
	}
}

func TestUnmappedNamesAreBounded(t *testing.T) {
	b := New(Build{}, Options{})
	for i := range 5 * keptUnmapped {
		b.Unmapped("acme", fmt.Sprintf("field %d", i), 2)
	}
	s := b.Snapshot()
	if names := len(s.Sources[0].Unmapped); names != keptUnmapped+1 {
		t.Errorf("%d names are kept, want %d and one for the others", names, keptUnmapped)
	}
	if s.Totals.Unmapped != 10*keptUnmapped {
		t.Errorf("%d values are counted, want %d", s.Totals.Unmapped, 10*keptUnmapped)
	}
}

// A snapshot is a value: what happens later, and what its holder does to it,
// changes nothing elsewhere.
func TestSnapshotIsACopy(t *testing.T) {
	b := normalBoard()
	s := b.Snapshot()
	before, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	b.Requested("acme-eu", 200)
	b.Unmapped("globex", "Field of tomorrow", 1)
	b.Committed(Commit{Windows: []Window{live("acme-eu", 900, 10, 5000)}})
	b.UpdateShard(0, func(s *Shard) { s.Epoch = -1 })
	after, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Error("a snapshot changed after it was taken")
	}
	s.Sources[0].History[0].Items = 12345678
	s.Sources[0].Requests["200"] = 12345678
	if text, _ := json.Marshal(b.Snapshot()); strings.Contains(string(text), "12345678") {
		t.Error("a change to a snapshot reached the board")
	}
}

func TestSnapshotJSONRoundTrip(t *testing.T) {
	for name, scenario := range scenarios {
		if name == "many" { // the same as normal, a thousand times
			continue
		}
		want, err := json.Marshal(scenario().Snapshot())
		if err != nil {
			t.Fatal(err)
		}
		var back Snapshot
		if err := json.Unmarshal(want, &back); err != nil {
			t.Fatalf("%s: read the JSON of a snapshot: %v", name, err)
		}
		got, err := json.Marshal(back)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: a snapshot changes on its way through JSON", name)
		}
	}
}

func TestQuery(t *testing.T) {
	b := New(Build{}, Options{})
	for i, state := range []State{Waiting, Stopped, Waiting, BackingOff} {
		b.Update(cdr.SourceName(fmt.Sprintf("Source-%d", i)), func(s *Source) {
			s.State, s.Published = state, cdr.InstantOf(time.Now().Add(-time.Duration(i*7%4)*time.Hour))
		})
		b.Committed(Commit{Windows: []Window{{Source: cdr.SourceName(fmt.Sprintf("Source-%d", i)), Counter: 1}}})
	}
	for _, c := range []struct {
		name     string
		query    Query
		want     string
		matching int
	}{
		{"zero", Query{}, "0 1 2 3", 4},
		{"name, case ignored", Query{Name: "source-2"}, "2", 1},
		{"no such name", Query{Name: "x"}, "", 0},
		{"state", Query{State: Waiting}, "0 2", 2},
		{"by lag", Query{Sort: ByLag}, "1 2 3 0", 4},
		{"by state", Query{Sort: ByState}, "1 3 0 2", 4},
		{"page", Query{Offset: 1, Limit: 2}, "1 2", 4},
		{"beyond the end", Query{Offset: 9, Limit: 2}, "", 4},
	} {
		s := b.View(c.query)
		var got []string
		for _, source := range s.Sources {
			got = append(got, strings.TrimPrefix(string(source.Name), "Source-"))
		}
		if strings.Join(got, " ") != c.want || s.Matching != c.matching {
			t.Errorf("%s: got %v of %d, want %s of %d", c.name, got, s.Matching, c.want, c.matching)
		}
		if s.Totals.Sources != 4 || len(s.Alerts) != 1 {
			t.Errorf("%s: totals or alerts depend on the query", c.name)
		}
	}
	for limit, want := range map[int]int{-1: 0, 0: 4, 3: 3} {
		with := 0
		for _, source := range b.View(Query{HistoryLimit: limit}).Sources {
			with += len(source.History)
		}
		if with != want {
			t.Errorf("history limit %d: %d windows come along, want %d", limit, with, want)
		}
	}
}

func TestEvents(t *testing.T) {
	decoded := 0
	b := New(Build{}, Options{Decode: func(value []byte, personalData bool) ([]byte, error) {
		decoded++
		switch string(value) {
		case "bad":
			return nil, errors.New("no schema 7 for ann@example.com")
		case "nojson":
			return []byte("{"), nil
		}
		return fmt.Appendf(nil, `{"value":%q,"personalData":%v}`, value, personalData), nil
	}})
	buffer := []byte("0000")
	for i := range 3 * keptEvents {
		copy(buffer, fmt.Sprintf("%04d", i))
		b.Event("acme", buffer)
	}
	if decoded != 0 {
		t.Errorf("%d events were decoded before anybody looked", decoded)
	}
	events := b.Snapshot().Events
	if len(events) != keptEvents || string(events[0].Fields) != `{"value":"0059","personalData":false}` || events[0].Seq != 60 ||
		string(events[keptEvents-1].Fields) != `{"value":"0040","personalData":false}` || events[keptEvents-1].Seq != 41 {
		t.Errorf("%d events, the newest %s, the oldest %s", len(events), events[0].Fields, events[keptEvents-1].Fields)
	}
	b.View(Query{numbersOnly: true})
	if decoded != keptEvents {
		t.Errorf("%d events were decoded, want %d: numbers need none", decoded, keptEvents)
	}

	b.Event("acme", []byte("bad"))
	b.Event("acme", []byte("nojson"))
	b.Event("acme", make([]byte, keptEventBytes+1))
	events = b.Snapshot().Events
	for i, want := range []string{"too large to show", "decoded to something that is not JSON", "no schema 7 for [e-mail]"} {
		if events[i].Error != want || events[i].Fields != nil {
			t.Errorf("event %d: %q with fields %s, want %q", i, events[i].Error, events[i].Fields, want)
		}
	}
	if events[0].Bytes != keptEventBytes+1 {
		t.Errorf("size of a large event is %d", events[0].Bytes)
	}
}

// Events go on arriving while others are decoded.
func TestEventsAreDecodedFromCopies(t *testing.T) {
	var b *Board
	b = New(Build{}, Options{Decode: func(value []byte, _ bool) ([]byte, error) {
		for range keptEvents {
			b.Event("acme", []byte("later"))
		}
		return fmt.Appendf(nil, "%q", value), nil
	}})
	b.Event("acme", []byte("first"))
	if got := b.Snapshot().Events[0].Fields; string(got) != `"first"` {
		t.Errorf("decoded %s, want the first event", got)
	}
}

func TestEventIsCheap(t *testing.T) {
	b := New(Build{}, Options{})
	value := make([]byte, 3000)
	for range keptEvents {
		b.Event("acme", value)
	}
	if n := testing.AllocsPerRun(100, func() { b.Event("acme", value) }); n != 0 {
		t.Errorf("Event allocates %v times", n)
	}
}

func BenchmarkEvent(b *testing.B) {
	board := New(Build{}, Options{})
	value := make([]byte, 1200)
	for b.Loop() {
		board.Event("acme", value)
	}
}

func BenchmarkSnapshotOf1000Sources(b *testing.B) {
	board := manyBoard()
	for b.Loop() {
		board.View(Query{Limit: 50, HistoryLimit: 50})
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"answered 503 at offset 81216543210, window 2026-11-22T10:00:00Z/2026-11-22T11:00:00Z", "answered 503 at offset 81216543210, window 2026-11-22T10:00:00Z/2026-11-22T11:00:00Z"},
		{"Authorization: Bearer YWJjZGVmZ2hpamts_x.y~z", "Authorization: Bearer [hidden]"},
		{`{"access_token":"abc","refresh_token": "def"}`, `{"access_token":"[hidden]","refresh_token": "[hidden]"}`},
		{"client_secret=s3cr3t&grant_type=refresh_token", "client_secret=[hidden]&grant_type=refresh_token"},
		{"proxy http://user:pass@proxy.example:3128 refused", "proxy http://[hidden]@proxy.example:3128 refused"},
		{"item of ann.smith@example.com from +12025550143", "item of [e-mail] from [number]"},
		{"two\nlines\x1b[31m", "two lines [31m"},
		{strings.Repeat("ä", 400), strings.Repeat("ä", 300) + "…"},
		{strings.Repeat("x", 588) + " Bearer YWJjZGVmZ2hpamtsbW5vcA", strings.Repeat("x", 588) + " Bearer [hid…"},
		{strings.Repeat("x", 595) + " Bearer YWJjZGVmZ2hpamtsbW5vcA", strings.Repeat("x", 595) + " Bear…"},
		{"bad \xff byte", "bad \uFFFD byte"},
	} {
		if got := redact(c.in); got != c.want {
			t.Errorf("redact(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

// Whatever reaches the board as text is redacted on its way in.
func TestEveryTextIsRedacted(t *testing.T) {
	const secret = "Bearer YWJjZGVmZ2hpamts"
	b := New(Build{}, Options{})
	b.Update("acme", func(s *Source) { s.State, s.Reason, s.Remedy, s.Token.Warning = Stopped, secret, secret, secret })
	b.UpdateShard(0, func(s *Shard) { s.State, s.Reason = ShardLost, secret })
	b.Failed("acme", errors.New(secret))
	b.Committed(Commit{Windows: []Window{{Source: "acme", Counter: 1, Unproven: secret}}})
	text, err := json.Marshal(b.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "YWJj") {
		t.Errorf("a secret is shown: %s", text)
	}
}

func TestFailuresInARow(t *testing.T) {
	b := New(Build{}, Options{})
	for range 3 {
		b.Failed("acme", errors.New("answered 503"))
	}
	if got := b.Snapshot().Sources[0].LastError; got.Count != 3 || got.Text != "answered 503" {
		t.Errorf("last error is %+v", got)
	}
	b.Failed("acme", errors.New("answered 500"))
	if got := b.Snapshot().Sources[0].LastError; got.Count != 1 || got.Text != "answered 500" {
		t.Errorf("last error is %+v", got)
	}
}

func TestThroughput(t *testing.T) {
	s := series{step: time.Second, keep: 4}
	at := time.Unix(1000, 0)
	s.add(at, 1, 1)
	s.add(at.Add(2*time.Second), 5, 4)
	s.add(at.Add(time.Second), 7, 7)    // later told, earlier meant
	s.add(at.Add(-9*time.Second), 9, 9) // older than the series
	got := s.until(at.Add(3 * time.Second))
	if fmt.Sprint(got.Records) != "[1 7 5 0]" || fmt.Sprint(got.Events) != "[1 7 4 0]" || got.StepSeconds != 1 {
		t.Errorf("throughput is %+v", got)
	}
	if got := s.until(at.Add(time.Hour)); fmt.Sprint(got.Records) != "[0 0 0 0]" {
		t.Errorf("an hour later it is %v", got.Records)
	}
	if got := s.until(at.Add(2 * time.Second)); fmt.Sprint(got.Records) != "[0 1 7 5]" {
		t.Errorf("reading changed the series: %v", got.Records)
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	b := newTestBoard()
	registry := b.Registry()
	var group sync.WaitGroup
	for g := range 4 {
		name := cdr.SourceName(fmt.Sprintf("s%d", g%2))
		group.Go(func() {
			for i := range cdr.Counter(200) {
				b.Update(name, func(s *Source) { s.State, s.Current.Items = Fetching, uint64(i) })
				b.UpdateShard(g, func(s *Shard) { s.State = ShardReady })
				b.Requested(name, 200)
				b.Unmapped(name, "x", 1)
				b.Event(name, []byte("{}"))
				b.Failed(name, errors.New("x"))
				b.Progress(string(name), time.Minute)
				b.Committed(Commit{Shard: g, Windows: []Window{live(name, cdr.Counter(g/2*1000)+i+1, 1, 5000)}})
			}
		})
		group.Go(func() {
			for i := range 40 {
				if i == 20 {
					b.Restarted("killed")
					b.SetVerdict(Verdict{})
				}
				b.Snapshot()
				b.unhealthy(time.Now())
				if _, err := registry.Gather(); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
		})
	}
	group.Wait()
}

// TestClockThatDiffers: one alert for all sources, and what depends on the time goes by
// the feed's.
func TestClockThatDiffers(t *testing.T) {
	for _, c := range []struct {
		ahead float64
		want  string // in the alert; empty: there is none
	}{
		{0, ""}, {-59, ""}, {600, "this machine's clock is 10 min behind the feed's, say the answers to 2 sources, such as acme"},
		{-600, "this machine's clock is 10 min ahead of the feed's"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Build{}, Options{})
			readyShards(b, 1)
			feedNow := cdr.InstantOf(time.Now()).Add(time.Duration(c.ahead) * time.Second)
			for _, name := range []cdr.SourceName{"acme", "globex"} {
				b.Update(name, func(s *Source) {
					s.ClockAheadSeconds, s.Published, s.MinAgeSeconds = c.ahead, feedNow.Add(-400*time.Second), 330
					s.Feed = Edge{Published: s.Published, LookbackSeconds: 1000}
				})
			}
			s := b.Snapshot()
			if s.Sources[0].LagSeconds != 70 || s.Sources[0].UntilLossSeconds != 600 {
				t.Errorf("%.0f s ahead: lag %.0f s, loss in %.0f s, want 70 and 600", c.ahead, s.Sources[0].LagSeconds, s.Sources[0].UntilLossSeconds)
			}
			alerts := slices.DeleteFunc(s.Alerts, func(a Alert) bool { return a.Title != "clock" })
			switch {
			case len(alerts) > 1, (len(alerts) == 1) != (c.want != ""):
				t.Errorf("%.0f s ahead: alerts %+v", c.ahead, alerts)
			case len(alerts) == 1 && !strings.Contains(alerts[0].Text, c.want):
				t.Errorf("%.0f s ahead: %s", c.ahead, alerts[0].Text)
			case len(alerts) == 1 && !strings.Contains(render(t, s, 200), "▲ clock\n"):
				t.Error("the text does not tell")
			}
		})
	}
}
