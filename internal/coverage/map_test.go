package coverage

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/offsets"
)

// noon is where the tests' report time is counted from.
var noon = cdr.InstantOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))

// at is a span by seconds after noon.
func at(start, end int) cdr.Span {
	return cdr.Span{StartInclusive: noon + cdr.Instant(start), EndExclusive: noon + cdr.Instant(end)}
}

// story writes receipts, one after the other.
type story struct {
	m    *Map
	last offsets.Receipt
}

func newStory(view cdr.Span) *story {
	return &story{m: NewMap(view), last: offsets.Receipt{Source: "acme", CommitTime: noon.Time()}}
}

// tell adds a receipt that differs from the one before in what change does.
func (s *story) tell(change func(*offsets.Receipt)) {
	r := offsets.Receipt{
		Source: "acme", Counter: s.last.Counter + 1, Purpose: cdr.Live, Endpoint: cdr.Feed, CommitTime: s.last.CommitTime.Add(time.Minute),
		FeedPublished: s.last.FeedPublished, FeedSettled: s.last.FeedSettled, StreamPublished: s.last.StreamPublished,
	}
	change(&r)
	s.last = r
	s.m.Add(&r, int64(r.Counter)*2)
}

func (s *story) start(at int) {
	s.tell(func(r *offsets.Receipt) {
		r.Purpose, r.FeedPublished, r.FeedSettled = cdr.Start, noon+cdr.Instant(at), noon+cdr.Instant(at)
	})
}

func (s *story) feed(start, end int, unproven string) {
	s.tell(func(r *offsets.Receipt) {
		r.Asked, r.Unproven = at(start, end), unproven
		if end := r.Asked.EndExclusive; end > r.FeedPublished {
			r.Commit, r.FeedPublished = cdr.Span{StartInclusive: r.FeedPublished, EndExclusive: end}, end
		}
	})
}

func (s *story) stream(start, end int) {
	s.tell(func(r *offsets.Receipt) {
		r.Asked, r.Endpoint, r.StreamPublished = at(start, end), cdr.Stream, at(start, end).EndExclusive
	})
}

func (s *story) gap(start, end int) {
	s.tell(func(r *offsets.Receipt) {
		r.Purpose, r.Gap, r.FeedPublished = cdr.Gap, at(start, end), at(start, end).EndExclusive
	})
}

func (s *story) settle(to int) {
	s.tell(func(r *offsets.Receipt) { r.Purpose, r.FeedSettled = cdr.Sweep, noon+cdr.Instant(to) })
}

// read writes stretches as a person would note them.
func read(stretches []Stretch) (out []string) {
	for _, s := range stretches {
		out = append(out, fmt.Sprintf("%s %d-%d", s.State, s.Span.StartInclusive-noon, s.Span.EndExclusive-noon))
	}
	return out
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name  string
		story func(*story)
		want  []string
	}{
		{"nothing", func(s *story) {}, []string{"unread 0-1000"}},
		{"a start", func(s *story) { s.start(100) }, []string{"unread 0-1000"}},
		{"windows that overlap are one stretch", func(s *story) {
			s.start(100)
			s.feed(100, 200, "")
			s.feed(140, 260, "")
			s.feed(200, 320, "")
		}, []string{"unread 0-100", "proven 100-320", "unread 320-1000"}},
		{"the widest sweep has come so far", func(s *story) { s.feed(0, 500, ""); s.settle(300) },
			[]string{"settled 0-300", "proven 300-500", "unread 500-1000"}},
		{"unproven, and a later window that proves the middle of it", func(s *story) {
			s.feed(0, 600, "the feed announced 12 records and returned 11")
			s.feed(200, 300, "")
		}, []string{"unproven 0-200", "proven 200-300", "unproven 300-600", "unread 600-1000"}},
		{"what is proven stays so when a later window proves nothing", func(s *story) { s.feed(0, 600, ""); s.feed(0, 600, "short") },
			[]string{"proven 0-600", "unread 600-1000"}},
		{"but it does not settle before one proves it again", func(s *story) {
			s.feed(0, 600, "")
			s.feed(100, 200, "short")
			s.settle(600)
		}, []string{"settled 0-100", "proven 100-200", "settled 200-600", "unread 600-1000"}},
		{"and then it does", func(s *story) {
			s.feed(0, 600, "")
			s.feed(100, 200, "short")
			s.settle(600)
			s.feed(50, 250, "")
		}, []string{"settled 0-600", "unread 600-1000"}},
		{"what the widest sweep has skipped does not settle", func(s *story) {
			s.feed(0, 300, "")
			s.settle(100)
			s.gap(300, 400)
			s.feed(400, 600, "")
			s.tell(func(r *offsets.Receipt) { r.Purpose, r.Asked, r.FeedSettled = cdr.Sweep, at(400, 500), noon+500 })
		}, []string{"settled 0-100", "proven 100-300", "gap 300-400", "settled 400-500", "proven 500-600", "unread 600-1000"}},
		{"a gap does not settle", func(s *story) { s.feed(0, 100, ""); s.gap(100, 400); s.feed(340, 500, ""); s.settle(500) },
			[]string{"settled 0-100", "gap 100-340", "settled 340-500", "unread 500-1000"}},
		{"a backfill heals a gap", func(s *story) {
			s.gap(0, 400)
			s.feed(400, 500, "")
			s.tell(func(r *offsets.Receipt) { r.Purpose, r.Asked = cdr.Backfill, at(100, 300) })
		}, []string{"gap 0-100", "proven 100-300", "gap 300-400", "proven 400-500", "unread 500-1000"}},
		{"what is lost after it was proven is lost: its scope has changed", func(s *story) { s.feed(0, 400, ""); s.gap(100, 200) },
			[]string{"proven 0-100", "gap 100-200", "proven 200-400", "unread 400-1000"}},
		{"cdr_stream proves nothing", func(s *story) { s.feed(0, 400, ""); s.stream(300, 900) },
			[]string{"proven 0-400", "published 400-900", "unread 900-1000"}},
		{"nor does it heal", func(s *story) { s.gap(0, 100); s.feed(100, 200, "short"); s.stream(0, 300) },
			[]string{"gap 0-100", "unproven 100-200", "published 200-300", "unread 300-1000"}},
		{"cdr_feed follows behind cdr_stream", func(s *story) { s.feed(0, 100, ""); s.stream(100, 900); s.feed(60, 500, ""); s.feed(440, 600, "short") },
			[]string{"proven 0-500", "unproven 500-600", "published 600-900", "unread 900-1000"}},
		{"what cdr_stream has skipped is before the live edge", func(s *story) { s.feed(0, 100, ""); s.stream(800, 900) },
			[]string{"proven 0-100", "published 100-900", "unread 900-1000"}},
		{"nothing outside the view", func(s *story) { s.feed(-500, 100, ""); s.gap(900, 5000) },
			[]string{"proven 0-100", "unread 100-900", "gap 900-1000"}},
		{"spans that cannot be", func(s *story) {
			s.tell(func(r *offsets.Receipt) { r.Asked = at(500, 400) })
			s.tell(func(r *offsets.Receipt) { r.Asked = cdr.Span{StartInclusive: -5, EndExclusive: noon + 1} })
			s.tell(func(r *offsets.Receipt) { r.Gap = cdr.Span{StartInclusive: noon, EndExclusive: 1 << 62} })
		}, []string{"unread 0-1000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(at(0, 1000))
			c.story(s)
			if got := read(s.m.Stretches(at(0, 1000))); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestReasonsAndCounters(t *testing.T) {
	s := newStory(at(0, 1000))
	s.feed(0, 100, "first")
	s.feed(100, 200, "second")
	s.feed(40, 60, "third")
	s.feed(200, 300, "")
	s.tell(func(r *offsets.Receipt) {
		r.Purpose, r.Gap, r.Unproven = cdr.Gap, at(300, 400), "gap: older than the feed answers"
	})
	got := s.m.Stretches(at(0, 400))
	want := []Stretch{
		{State: Unproven, Span: at(0, 200), Seconds: 200, Reason: "third", FirstCounter: 1, LastCounter: 3},
		{State: Proven, Span: at(200, 300), Seconds: 100, FirstCounter: 4, LastCounter: 4},
		{State: Gap, Span: at(300, 400), Seconds: 100, Reason: "older than the feed answers: what it held is lost", FirstCounter: 5, LastCounter: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// second is the model: one second of report time, told of by one receipt after the
// other, in the words of the states.
type second struct {
	feed   string // last word of cdr_feed: "", gap, unproven, proven
	shaken bool   // proven once, not by the last word
	stream bool
}

func (s *second) hear(r *offsets.Receipt, settledBefore, i cdr.Instant) {
	if swept := r.Endpoint == cdr.Feed && r.Asked.Contains(i); settledBefore > 0 && settledBefore <= i && i < r.FeedSettled && !swept && s.feed == "proven" {
		s.shaken = true
	}
	if r.Asked.Contains(i) {
		switch {
		case r.Endpoint == cdr.Stream:
			s.stream = true
		case r.Unproven == "":
			s.feed, s.shaken = "proven", false
		case s.feed == "proven":
			s.shaken = true
		default:
			s.feed = "unproven"
		}
	}
	if r.Gap.Contains(i) {
		s.feed, s.shaken = "gap", false
	}
}

func (s *second) state(i cdr.Instant, last *offsets.Receipt) State {
	switch {
	case s.feed == "gap":
		return Gap
	case s.feed == "unproven":
		return Unproven
	case s.feed == "proven" && !s.shaken && i < last.FeedSettled:
		return Settled
	case s.feed == "proven":
		return Proven
	case s.stream || i >= last.FeedPublished && i < last.StreamPublished:
		return Published
	default:
		return Unread
	}
}

// TestEverySecond tells random stories to a map and to one model a second.
func TestEverySecond(t *testing.T) {
	const length = 300
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 7))
		view := at(random.IntN(20), length-random.IntN(20))
		story := newStory(view)
		var model [length]second
		for range 1 + random.IntN(40) {
			settledBefore := story.last.FeedSettled
			story.tell(func(r *offsets.Receipt) { arbitrary(random, r, length) })
			for i := range model {
				model[i].hear(&story.last, settledBefore, noon+cdr.Instant(i))
			}
		}
		stretches := story.m.Stretches(view)
		demandOrder(t, view, stretches)
		for _, s := range stretches {
			for i := s.Span.StartInclusive; i < s.Span.EndExclusive; i++ {
				if want := model[i-noon].state(i, &story.last); s.State != want {
					t.Fatalf("seed %d: second %d is %s, want %s; %q", seed, i-noon, s.State, want, read(stretches))
				}
			}
		}
	}
}

// arbitrary makes a receipt that no daemon would write in this order.
func arbitrary(random *rand.Rand, r *offsets.Receipt, length int) {
	start := random.IntN(length - 1)
	span := at(start, start+1+random.IntN(min(120, length-start)))
	switch random.IntN(8) {
	case 0:
		r.Gap = span
	case 1, 2:
		r.Asked, r.Unproven = span, "short"
	case 3:
		r.Asked, r.Endpoint = span, cdr.Stream
	default:
		r.Asked = span
	}
	for _, watermark := range []*cdr.Instant{&r.FeedPublished, &r.FeedSettled, &r.StreamPublished} {
		if random.IntN(4) == 0 {
			*watermark = noon + cdr.Instant(random.IntN(length))
		}
	}
}

// demandOrder holds that stretches cover a span, each once, and differ from the next.
func demandOrder(t *testing.T, span cdr.Span, stretches []Stretch) {
	t.Helper()
	edge := span.StartInclusive
	for i, s := range stretches {
		if s.Span.StartInclusive != edge || s.Span.Validate() != nil || s.Seconds != secondsOf(s.Span) {
			t.Fatalf("stretch %d is %+v, want one that begins at %s", i, s, edge)
		}
		if i > 0 && stretches[i-1].State == s.State {
			t.Fatalf("stretches %d and %d are both %s", i-1, i, s.State)
		}
		edge = s.Span.EndExclusive
	}
	if edge != span.EndExclusive {
		t.Fatalf("the stretches end at %s, want %s", edge, span.EndExclusive)
	}
}

func TestRollForgets(t *testing.T) {
	s := newStory(at(0, 10_000))
	for i := range 20 {
		s.feed(i*500, i*500+500, []string{"", "short"}[i%2])
	}
	s.m.Roll(at(7300, 20_000))
	if got, want := len(s.m.pieces), 6; got != want {
		t.Errorf("%d pieces are left, want %d", got, want)
	}
	if got, want := len(s.m.hours), 1; got != want {
		t.Errorf("%d hours are left, want %d", got, want)
	}
	s.feed(10_000, 12_000, "")
	if got, want := read(s.m.Stretches(at(7000, 12_000))), []string{"proven 7300-7500", "unproven 7500-8000", "proven 8000-8500", "unproven 8500-9000", "proven 9000-9500", "unproven 9500-10000", "proven 10000-12000"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// FuzzMap feeds receipts of any content. Whatever they say, the map stays in order and
// in bounds.
func FuzzMap(f *testing.F) {
	f.Add([]byte("a receipt, then another, and one more that goes on"))
	f.Fuzz(func(t *testing.T, data []byte) {
		view := at(0, 100_000)
		m := NewMap(view)
		take := func() int64 {
			var n int64
			for range min(8, len(data)) {
				n = n<<8 | int64(data[0])
				data = data[1:]
			}
			return n
		}
		for len(data) > 0 {
			instant := func() cdr.Instant {
				if n := take(); n%2 == 0 {
					return noon + cdr.Instant(n%100_000)
				} else {
					return cdr.Instant(n)
				}
			}
			kind := take()
			r := offsets.Receipt{Counter: cdr.Counter(take()), Asked: cdr.Span{StartInclusive: instant(), EndExclusive: instant()}}
			r.Endpoint, r.Purpose = []cdr.Endpoint{cdr.Feed, cdr.Stream, ""}[uint64(kind)%3], []cdr.Purpose{cdr.Live, cdr.Start, cdr.Gap}[uint64(kind/3)%3]
			r.Gap, r.FeedPublished, r.FeedSettled, r.StreamPublished = cdr.Span{StartInclusive: instant(), EndExclusive: instant()}, instant(), instant(), instant()
			m.Add(&r, take())
		}
		demandOrder(t, view, m.Stretches(view))
		m.Calendar(31, view.EndExclusive)
		m.Report("acme", view).reasonless(t)
	})
}

// reasonless fails where a stretch that is not read has no reason.
func (r Report) reasonless(t *testing.T) {
	t.Helper()
	for _, s := range r.Stretches {
		if s.State == Unread && s.Reason == "" {
			t.Errorf("%+v has no reason", s)
		}
	}
}

// BenchmarkMonth folds a month of a source: a window each minute, sweeps of 2 h every
// quarter of an hour and of 48 h in five windows twice a day, one window in a hundred
// unproven.
func BenchmarkMonth(b *testing.B) {
	receipts := monthOf(30)
	b.ReportAllocs()
	for b.Loop() {
		m := NewMap(cdr.Span{StartInclusive: noon, EndExclusive: noon + 40*secondsPerDay})
		for i := range receipts {
			m.Add(&receipts[i], int64(i))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(receipts)), "ns/receipt")
}

func monthOf(days int) []offsets.Receipt {
	var receipts []offsets.Receipt
	add := func(start, end int, purpose cdr.Purpose, settled int) {
		r := offsets.Receipt{Source: "acme", Counter: cdr.Counter(len(receipts) + 1), Purpose: purpose, Endpoint: cdr.Feed, Asked: at(start, end), FeedPublished: noon + cdr.Instant(end), FeedSettled: noon + cdr.Instant(settled)}
		if len(receipts)%100 == 99 {
			r.Unproven = "the feed announced 12 records and returned 11"
		}
		receipts = append(receipts, r)
	}
	settled := 0
	for minute := 1; minute <= days*24*60; minute++ {
		edge := minute * 60
		add(edge-120, edge, cdr.Live, settled)
		if minute%15 == 0 {
			add(edge-7200, edge, cdr.Sweep, settled)
		}
		for part := range 5 {
			if minute%720 == 0 {
				settled = edge - 48*3600
				add(edge-60*3600+part*43200, edge-48*3600+part*43200, cdr.Sweep, settled)
			}
		}
	}
	return receipts
}

// BenchmarkMillion folds a million receipts of one source: two years of them.
func BenchmarkMillion(b *testing.B) {
	receipts := monthOf(650)
	for b.Loop() {
		m := NewMap(cdr.Span{StartInclusive: noon, EndExclusive: noon + 700*secondsPerDay})
		for i := range receipts {
			m.Add(&receipts[i], int64(i))
		}
		b.ReportMetric(float64(len(m.pieces)), "pieces")
		b.ReportMetric(float64(len(receipts)), "receipts")
	}
}
