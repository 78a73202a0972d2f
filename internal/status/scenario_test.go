package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"cdrbus/internal/cdr"
)

// scenarios are boards as they look in the life of a process: for the eye, and
// for every test that wants plausible content.
var scenarios = map[string]func() *Board{
	"empty":   func() *Board { return newTestBoard() },
	"normal":  normalBoard,
	"many":    manyBoard,
	"stopped": stoppedBoard,
	"demo":    demoBoard,
	"fleet":   fleetBoard,
	"reserve": reserveBoard,
	"jobs":    jobsBoard,
	"sweeps":  sweepsBoard,

	"coverage":      coverageBoard(1),
	"coverage-12":   coverageBoard(12),
	"coverage-many": coverageBoard(1000),
}

func newTestBoard() *Board {
	return New(Build{Version: "v0.3.0", Revision: "5c1e9d2", GoVersion: "go1.26.8"}, Options{
		Delivery: "exactly_once",
		Decode:   decodeTestEvent,
		Memory:   func() (int64, int64) { return 12 << 20, 64 << 20 },
	})
}

// decodeTestEvent stands for the schema room: events are JSON already, and the
// calling number is the personal data.
func decodeTestEvent(value []byte, personalData bool) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(value, &fields); err != nil {
		return nil, err
	}
	if !personalData {
		for _, name := range []string{"callingNumber", "calledNumber", "userEmail"} {
			if fields[name] != nil {
				fields[name] = "•••"
			}
		}
	}
	return json.Marshal(fields)
}

func testEvent(random *rand.Rand, at time.Time) []byte {
	event := map[string]any{
		"reportId":      fmt.Sprintf("%08x-f1f6-3326-86f9-565d2e11553d", random.Uint32()),
		"reportTime":    at.UTC().Format("2006-01-02T15:04:05.000Z"),
		"correlationId": fmt.Sprintf("%08x-8a1b-4c02-9d65-cf21b0a1c7e3", random.Uint32()),
		"callType":      []string{"SIP_ENTERPRISE", "SIP_NATIONAL", "SIP_INBOUND", "SIP_INTERNATIONAL"}[random.IntN(4)],
		"direction":     []string{"ORIGINATING", "TERMINATING"}[random.IntN(2)],
		"answered":      random.IntN(4) > 0,
		"duration":      random.IntN(900),
		"callingNumber": "+12025550143", "calledNumber": "+442079460321",
		"location": "London", "userEmail": "ann@example.com",
		"unmapped": map[string]any{"Field of tomorrow": `"x"`},
	}
	value, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	return value
}

// runSource gives a source a past of n live windows, one a minute, the last one
// ago seconds before now.
func runSource(b *Board, name cdr.SourceName, shard, n int, ago time.Duration, perWindow int) {
	random := rand.New(rand.NewPCG(uint64(len(name)), uint64(shard)))
	now := time.Now()
	b.Update(name, func(s *Source) {
		s.Shard, s.Credential, s.Endpoint = shard, "acme", cdr.Feed
		s.MinAgeSeconds, s.Feed.LookbackSeconds = 330, (30 * 24 * time.Hour).Seconds()
		s.Token.ExpiresAt, s.Token.RefreshExpiresAt = now.Add(9*24*time.Hour), now.Add(80*24*time.Hour)
		began := now.Add(-7 * time.Minute)
		s.Sweeps = []Sweep{
			{BackSeconds: 7200, EverySeconds: 900, BeganAt: began, DueAt: began.Add(15 * time.Minute)},
			{BackSeconds: 172800, EverySeconds: 43200, BeganAt: began, DueAt: began.Add(12 * time.Hour), Next: cdr.InstantOf(now.Add(-30 * time.Hour)), End: cdr.InstantOf(began)},
		}
		s.BudgetNow = func(now time.Time) Budget {
			return Budget{InitialPerMinute: 1, InitialAvailableAt: now.Add(time.Duration(random.IntN(50)) * time.Second), PagesPerMinute: 10, PagesLeft: float64(10 - shard%9)}
		}
	})
	for i := range n {
		at := now.Add(-ago - time.Duration(n-1-i)*time.Minute)
		end := cdr.InstantOf(at.Add(-332 * time.Second))
		items := uint64(float64(perWindow) * (.5 + random.Float64()))
		w := Window{
			Source: name, Counter: cdr.Counter(i + 1), Purpose: cdr.Live, Endpoint: cdr.Feed,
			Span:  cdr.Span{StartInclusive: end.Add(-2 * time.Minute), EndExclusive: end},
			Pages: 1 + int(items/5000), Requests: 1 + int(items/5000), TotalCount: int64(items), Bytes: items * 3000,
			Items: items, Known: items / 10, Events: items - items/10, Late: items / 90,
			FetchSeconds: .4 + random.Float64(), WaitSeconds: random.Float64(), Published: end, Settled: end.Add(-2 * time.Hour),
		}
		decorate(&w, random)
		b.Requested(name, 200)
		b.Committed(Commit{Shard: shard, At: at, DurationSeconds: .006 + random.Float64()/80, Windows: []Window{w}})
	}
}

// decorate makes some windows special.
func decorate(w *Window, random *rand.Rand) {
	switch random.IntN(16) {
	case 0, 1, 2:
		w.Items, w.Events, w.Known, w.Late, w.TotalCount = 0, 0, 0, 0, 0
	case 3:
		w.Unproven = "the feed announced 412 records and returned 408"
	case 4:
		w.DeadLetters, w.Events = 1, w.Events-min(w.Events, 1)
	}
}

func readyShards(b *Board, n int) {
	for i := range n {
		b.UpdateShard(i, func(s *Shard) {
			s.State, s.Epoch, s.Takeovers = ShardReady, int64(140+i), 1
			s.SeenIDs, s.SeenBytes = 41_250, 41_250*32
		})
	}
}

func fillEvents(b *Board, sources ...cdr.SourceName) {
	random := rand.New(rand.NewPCG(7, 7))
	for i := range 24 {
		b.Event(sources[i%len(sources)], testEvent(random, time.Now().Add(-6*time.Minute+time.Duration(i)*time.Second)))
	}
}

func normalBoard() *Board {
	b := newTestBoard()
	b.startedAt = time.Now().Add(-75 * time.Minute)
	readyShards(b, 4)
	runSource(b, "acme-eu", 0, 60, 12*time.Second, 640)
	runSource(b, "acme-us", 1, 60, 31*time.Second, 5200)
	runSource(b, "globex", 2, 22, 48*time.Second, 40)
	b.Update("acme-eu", func(s *Source) {
		s.State, s.NextRequestAt = Waiting, time.Now().Add(48*time.Second)
	})
	b.Update("acme-us", func(s *Source) {
		s.State = Fetching
		s.Current = Current{Span: s.LastWindow.Span, Purpose: cdr.Live, Pages: 2, TotalCount: 6120, Items: 5000}
	})
	b.Update("globex", func(s *Source) {
		s.State, s.Reason = BackingOff, "GET analytics-calling.webexapis.com/v1/cdr_feed: answered 503 Service Unavailable, trying again at 10:22:40 UTC"
	})
	b.Requested("globex", 503)
	b.Requested("globex", 0)
	b.Unmapped("globex", "Field of tomorrow", 812)
	b.Failed("globex", errors.New("answered 503 Service Unavailable (TrackingID cdrbus_5d1c7f0e)"))
	fillEvents(b, "acme-eu", "acme-us", "globex")
	return b
}

func manyBoard() *Board {
	b := newTestBoard()
	b.startedAt = time.Now().Add(-26 * time.Hour)
	readyShards(b, 16)
	for i := range 1000 {
		name := cdr.SourceName(fmt.Sprintf("customer-%04d", i))
		runSource(b, name, i%16, 60, time.Duration(i%60)*time.Second, 30+i%400)
		state := []State{Waiting, Waiting, Waiting, Waiting, Fetching, Committing}[i%6]
		b.Update(name, func(s *Source) { s.State, s.NextRequestAt = state, time.Now().Add(time.Duration(i%60)*time.Second) })
	}
	fillEvents(b, "customer-0007", "customer-0311", "customer-0842")
	return b
}

func stoppedBoard() *Board {
	b := normalBoard()
	b.Update("acme-us", func(s *Source) {
		s.State = Stopped
		s.Reason = "the feed answered 403: this token may not read call detail records (TrackingID cdrbus_5d1c7f0e)"
		s.Remedy = "give the Service App the scope spark-admin:calling_cdr_read and the permission \"Webex Calling Detailed Call History API access\", then run cdrbus auth status; cdrbus asks again every 15 min"
		s.Feed.LookbackSeconds = (4 * time.Hour).Seconds()
		s.Published = cdr.InstantOf(time.Now().Add(-3*time.Hour - 50*time.Minute))
		s.Feed.Published = s.Published
	})
	b.Update("globex", func(s *Source) {
		s.State, s.Reason = Refused, "topic webex.cdr.offsets, partition 2, offset 8121: the position has counter 40 after counter 41"
		s.Remedy = "look at both with cdrbus offsets list --source globex, then choose one with cdrbus offsets set"
	})
	b.Update("acme-eu", func(s *Source) {
		s.Token.Warning = "the refresh token of credential acme ends in 9 d 3 h; run cdrbus auth login before then"
	})
	return b
}

func demoBoard() *Board {
	b := newTestBoard()
	b.startedAt = time.Now().Add(-90 * time.Second)
	readyShards(b, 2)
	b.Update("demo", func(s *Source) {
		s.MinAgeSeconds, s.Feed.LookbackSeconds, s.Endpoint = 2, 3600, cdr.Feed
	})
	random := rand.New(rand.NewPCG(3, 3))
	for i := range 80 {
		at := time.Now().Add(-time.Duration(80-i) * time.Second)
		if i > 30 && i < 36 || i > 55 && i < 60 {
			continue
		}
		items := uint64(90 + random.IntN(60))
		end := cdr.InstantOf(at.Add(-2 * time.Second))
		b.Committed(Commit{Shard: 1, At: at, DurationSeconds: .007, Windows: []Window{{
			Source: "demo", Counter: cdr.Counter(i + 1), Purpose: cdr.Live, Endpoint: cdr.Feed, Pages: 1, Requests: 1, TotalCount: int64(items),
			Span:  cdr.Span{StartInclusive: end.Add(-61 * time.Second), EndExclusive: end},
			Items: items, Events: items - 9, Known: 9, Published: end, FetchSeconds: .04,
		}}})
	}
	b.Restarted("killed in mid-window, before the commit")
	b.Restarted("killed in mid-commit, after produce")
	b.restarts[0].At = time.Now().Add(-47 * time.Second)
	b.restarts[1].At = time.Now().Add(-22 * time.Second)
	readyShards(b, 2)
	b.Update("demo", func(s *Source) { s.State = Fetching })
	b.SetVerdict(Verdict{Records: 8120, Events: 8120})
	fillEvents(b, "demo")
	return b
}

// fleetBoard is one of three processes that share sixteen shards, with a fourth in
// reserve.
func fleetBoard() *Board {
	b := normalBoard()
	b.SetFleet(Fleet{Group: "cdrbus.webex.cdr.offsets", State: "Stable", At: time.Now(), Members: []Member{
		{Name: "cdrbus-7c9f6d8b54-2xk8q", Host: "10.0.0.4", Shards: []int{0, 1, 2, 3, 9}, Sources: 3, Self: true},
		{Name: "cdrbus-7c9f6d8b54-hw6tz", Host: "10.0.0.5", Shards: []int{4, 5, 7, 8, 10, 12}, Sources: 4},
		{Name: "cdrbus-7c9f6d8b54-mb4vn", Host: "10.0.0.6", Shards: []int{6, 11, 13, 14, 15}, Sources: 3},
		{Name: "cdrbus-7c9f6d8b54-zq9sd", Host: "10.0.0.7"},
	}})
	return b
}

// reserveBoard is the fourth of them, for which no shard is left.
func reserveBoard() *Board {
	b := newTestBoard()
	fleet := *fleetBoard().fleet
	fleet.At = time.Now().Add(-3 * time.Minute)
	fleet.Members[0].Self, fleet.Members[3].Self = false, true
	b.SetFleet(fleet)
	return b
}

// jobsBoard is one source with a sweep overdue, another at work, and jobs in every
// phase; and a clock that is ten minutes fast.
func jobsBoard() *Board {
	b := newTestBoard()
	b.startedAt = time.Now().Add(-75 * time.Minute)
	readyShards(b, 1)
	runSource(b, "acme-eu", 0, 60, 12*time.Second, 640)
	now := time.Now()
	day := func(ago int) cdr.Instant {
		return cdr.InstantOf(now.Truncate(24 * time.Hour)).Add(-time.Duration(ago) * 24 * time.Hour)
	}
	job := func(n int, kind string, phase JobPhase, from, to int) Job {
		return Job{ID: fmt.Sprintf("20261122-101500-3f2a9c4%d", n), Kind: kind, Phase: phase, Span: cdr.Span{StartInclusive: day(from), EndExclusive: day(to)}, Next: day(to), UpdatedAt: now.Add(-20 * time.Second)}
	}
	b.Update("acme-eu", func(s *Source) {
		s.State, s.NextRequestAt, s.ClockAheadSeconds = Waiting, now.Add(48*time.Second), -603
		s.Sweeps[0].DueAt = now.Add(-25 * time.Minute)
		s.Sweeps[1].BeganAt = now.Add(-4 * time.Minute)
		s.Sweeps[1].Next, s.Sweeps[1].End = cdr.InstantOf(now.Add(-16*time.Hour)), cdr.InstantOf(now.Add(-10*time.Minute))
		backfill := job(1, "backfill", JobRunning, 30, 2)
		backfill.Next, backfill.BeganAt = day(18).Add(7*time.Hour), now.Add(-94*time.Minute)
		backfill.Items, backfill.Published = 1_203_441, 88
		verify := job(2, "verify", JobAccepted, 8, 1)
		verify.Next, verify.Message = day(8), "read webex.cdr.events-2: the broker does not answer; it is tried again"
		s.Jobs = []Job{backfill, verify}
	})
	differs := job(3, "verify and repair", JobDone, 9, 8)
	differs.Items, differs.Published, differs.Findings, differs.Differs = 40_112, 3, "4 missing, 1 doubled, 3 published now", true
	done := job(4, "verify", JobDone, 10, 9)
	done.Items, done.Findings = 38_440, "no difference"
	failed := job(5, "backfill", JobFailed, 60, 40)
	failed.Next, failed.Message = day(60), "the feed answers 720h0m0s back, and the span ends before that"
	for _, ended := range []Job{failed, done, differs} {
		b.JobEnded("acme-eu", ended)
	}
	return b
}

// sweepsBoard is thirty sources on a few credentials whose limits are too low for all
// their sweeps.
func sweepsBoard() *Board {
	b := newTestBoard()
	b.startedAt = time.Now().Add(-26 * time.Hour)
	readyShards(b, 8)
	for i := range 30 {
		name := cdr.SourceName(fmt.Sprintf("customer-%02d", i))
		runSource(b, name, i%8, 60, time.Duration(i)*time.Second, 200)
		b.Update(name, func(s *Source) {
			s.State, s.NextRequestAt = Waiting, time.Now().Add(time.Duration(i)*time.Second)
			s.Sweeps[0].DueAt = time.Now().Add(time.Duration(900-100*i) * time.Second)
			s.Sweeps[1].Next = cdr.InstantOf(time.Now().Add(-time.Duration(i+7) * time.Hour))
			if i%3 > 0 {
				s.Sweeps[1].Next, s.Sweeps[1].End = 0, 0
			}
		})
	}
	return b
}
