package tail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/eventlog"
	"cdrbus/internal/eventlog/eventtest"
	"cdrbus/internal/tail"
	"cdrbus/schema"
)

// shown runs a tail to its end, and returns the numbers of the events that it showed.
func shown(t *testing.T, k *eventtest.Kit, o tail.Options) ([]int, tail.Totals) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var numbers []int
	o.Print = func(_ *eventlog.Event, decoded *schema.Event) error {
		numbers = append(numbers, int(decoded.Value("duration").(int64)))
		return nil
	}
	totals := run(ctx, t, k, o)
	if ctx.Err() != nil {
		t.Fatalf("it did not end by itself; shown %v", numbers)
	}
	if int(totals.Shown) != len(numbers) {
		t.Errorf("%d shown, %d counted", len(numbers), totals.Shown)
	}
	return numbers, totals
}

func run(ctx context.Context, t *testing.T, k *eventtest.Kit, o tail.Options) tail.Totals {
	t.Helper()
	o.Topic, o.SchemaByID, o.Poll = eventtest.Topic, k.Registry.SchemaByID, 10*time.Millisecond
	totals, err := tail.Run(ctx, k.Reader, o)
	if err != nil {
		t.Fatal(err)
	}
	return totals
}

func upTo(fromInclusive, toExclusive int) (numbers []int) {
	for n := fromInclusive; n < toExclusive; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

// TestFollowShowsWhatIsCommittedLater, each event once and in order, until it is told
// to end.
func TestFollowShowsWhatIsCommittedLater(t *testing.T) {
	const perRound, rounds = 30, 5
	k := eventtest.NewKit(t, 3)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	produce := func(round int) {
		var records []*kgo.Record
		for n := range perRound {
			records = append(records, eventtest.Event(t, id, n%3, round*perRound+n))
		}
		k.Produce(records...)
	}
	produce(0) // before it looks: not shown
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	round := 1
	var got []int
	flushed := 0
	run(ctx, t, k, tail.Options{
		From: eventlog.Latest(), Follow: true,
		Print: func(_ *eventlog.Event, decoded *schema.Event) error {
			got = append(got, int(decoded.Value("duration").(int64)))
			return nil
		},
		Flush: func() error { // all is shown that there was: more comes
			switch flushed = len(got); {
			case flushed < (round-1)*perRound:
			case round < rounds:
				produce(round)
				round++
			default:
				cancel()
			}
			return nil
		},
	})
	slices.Sort(got) // of one round, a part may be committed when it looks
	if want := upTo(perRound, rounds*perRound); !slices.Equal(got, want) || flushed != len(want) {
		t.Errorf("shown %v, of which %d were flushed; want %v", got, flushed, want)
	}
}

func TestEnds(t *testing.T) {
	k := eventtest.NewKit(t, 3)
	k.Fill(60, 3)
	now := eventtest.Start.Add(time.Hour)
	at := func(n int) string { return eventtest.Start.Add(time.Duration(n) * time.Second).Format(time.RFC3339) }
	for _, c := range []struct {
		from, to string
		o        tail.Options
		want     []int
	}{
		{"earliest", "", tail.Options{}, upTo(0, 60)},
		{"earliest", "latest", tail.Options{Follow: true}, upTo(0, 60)},
		{"earliest", at(10), tail.Options{Follow: true}, upTo(0, 10)},
		{"-59m30s", "-59m20s", tail.Options{Follow: true}, upTo(30, 40)},
		{at(50), "0:18,1:18,2:18", tail.Options{Follow: true}, upTo(50, 54)},
		{"1:18", "", tail.Options{}, []int{55, 58}},
		{"earliest", "", tail.Options{Follow: true, Limit: 7}, upTo(0, 7)},
		{"latest", "", tail.Options{}, nil},
		{"latest", "", tail.Options{Last: 7}, upTo(53, 60)},
		{"latest", "", tail.Options{Last: 60}, upTo(0, 60)},
		{"latest", "", tail.Options{Last: 1000}, upTo(0, 60)},
		{"latest", "", tail.Options{Last: 7, Limit: 3, Follow: true}, upTo(53, 56)},
	} {
		var err error
		if c.o.From, err = tail.ParseFrom(c.from, now); err != nil {
			t.Fatal(err)
		}
		if c.to != "" {
			if c.o.Until, err = tail.ParseUntil(c.to, now); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := shown(t, k, c.o); !slices.Equal(got, c.want) {
			t.Errorf("from %q to %q, %+v: %v, want %v", c.from, c.to, c.o, got, c.want)
		}
	}
}

// TestUntilTheFuture ends when that has come.
func TestUntilTheFuture(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	k.Fill(3, 1)
	began := time.Now()
	until, err := tail.ParseUntil(began.Add(2*time.Second).Format(time.RFC3339Nano), began)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := shown(t, k, tail.Options{Until: until, Follow: true})
	if took := time.Since(began); len(got) != 3 || took < 2*time.Second {
		t.Errorf("%v within %s", got, took)
	}
}

// TestLastLooksBackForWhatPasses: the last that pass may lie far back, behind the last
// of another partition.
func TestLastLooksBackForWhatPasses(t *testing.T) {
	k := eventtest.NewKit(t, 2)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	var records []*kgo.Record
	for n := range 400 {
		headers := []string{"ce_source=urn:cdrbus:globex"}
		if n < 20 || n == 395 {
			headers = []string{"ce_source=urn:cdrbus:acme", "late=true"}
		}
		records = append(records, eventtest.Event(t, id, n%2, n, headers...))
	}
	k.Produce(records...)
	filter := tail.Filter{Sources: []string{"acme", "initech"}, Late: true}
	got, totals := shown(t, k, tail.Options{Last: 4, Filter: filter, Dedupe: true})
	if want := []int{17, 18, 19, 395}; !slices.Equal(got, want) || totals.Events != 400 {
		t.Errorf("%v of %d, want %v", got, totals.Events, want)
	}
	got, totals = shown(t, k, tail.Options{Last: 4})
	if want := upTo(396, 400); !slices.Equal(got, want) || totals.Events > 100 {
		t.Errorf("%v of %d, want %v of the last few", got, totals.Events, want)
	}
}

func TestFilters(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	k.Produce(
		eventtest.Event(t, id, 0, 0, "ce_source=urn:cdrbus:acme"),
		eventtest.Event(t, id, 0, 1, "ce_source=urn:cdrbus:acme", "late=true"),
		eventtest.Event(t, id, 0, 2, "ce_source=urn:cdrbus:globex", "revision=true"),
		eventtest.Event(t, id, 0, 3, "ce_source=urn:cdrbus:globex", "late=true", "revision=true"),
		eventtest.Event(t, id, 0, 4),
	)
	key := "call-1"
	for _, c := range []struct {
		filter tail.Filter
		want   []int
	}{
		{tail.Filter{}, upTo(0, 5)},
		{tail.Filter{Key: &key}, []int{2, 3}},
		{tail.Filter{Key: new(string)}, nil},
		{tail.Filter{Sources: []string{"acme"}}, []int{0, 1}},
		{tail.Filter{Sources: []string{"acme", "globex"}}, upTo(0, 4)},
		{tail.Filter{Late: true}, []int{1, 3}},
		{tail.Filter{Revised: true}, []int{2, 3}},
		{tail.Filter{Late: true, Revised: true}, []int{3}},
	} {
		if got, _ := shown(t, k, tail.Options{Filter: c.filter}); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.filter, got, c.want)
		}
	}
}

// TestDedupeLeavesOutUnchangedRepeats, and no revision, be it one back to what was.
func TestDedupeLeavesOutUnchangedRepeats(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	revised := eventtest.Event(t, id, 0, 1)
	revised.Value = eventtest.Encoded(t, id, strings.Replace(eventtest.Item(1), `"Duration":1`, `"Duration":100`, 1)).Value
	repeat := *revised
	k.Produce(
		eventtest.Event(t, id, 0, 0), eventtest.Event(t, id, 0, 1), eventtest.Event(t, id, 0, 0), eventtest.Event(t, id, 0, 1),
		revised, &repeat, eventtest.Event(t, id, 0, 1),
	)
	want := []int{0, 1, 100, 1}
	if got, totals := shown(t, k, tail.Options{Dedupe: true}); !slices.Equal(got, want) || totals.Repeats != 3 {
		t.Errorf("%v, %+v; want %v", got, totals, want)
	}
	if got, totals := shown(t, k, tail.Options{Dedupe: true, Last: 10}); !slices.Equal(got, want) || totals.Repeats != 3 {
		t.Errorf("the last: %v, %+v; want %v", got, totals, want)
	}
	if got, totals := shown(t, k, tail.Options{}); len(got) != 7 || totals.Repeats != 0 {
		t.Errorf("without: %v, %+v", got, totals)
	}
}

// TestClosedPipeIsAnEnd, wherever it shows; another error of the output is one.
func TestClosedPipeIsAnEnd(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	k.Fill(10, 1)
	full := errors.New("disk full")
	for _, c := range []struct{ print, flush, want error }{
		{print: fmt.Errorf("write: %w", syscall.EPIPE)}, {flush: syscall.EPIPE}, {flush: io.ErrClosedPipe},
		{print: full, want: full}, {flush: full, want: full},
	} {
		_, err := tail.Run(t.Context(), k.Reader, tail.Options{
			Topic: eventtest.Topic, Follow: true, Print: func(*eventlog.Event, *schema.Event) error { return c.print }, Flush: func() error { return c.flush },
		})
		if !errors.Is(err, c.want) {
			t.Errorf("print %v, flush %v: %v", c.print, c.flush, err)
		}
	}
}

// TestWhatIsShownIsFlushed, whatever ends it.
func TestWhatIsShownIsFlushed(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	k.Fill(10, 1)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		o    tail.Options
		fail error
		want error
	}{
		"end": {o: tail.Options{}}, "limit": {o: tail.Options{Limit: 3, Follow: true}},
		"interrupt": {o: tail.Options{Follow: true}, fail: context.Canceled}, "error": {fail: broken, want: broken},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		shown, flushed := 0, 0
		c.o.Topic = eventtest.Topic
		c.o.Print = func(*eventlog.Event, *schema.Event) error {
			if shown++; shown == 5 && c.fail != nil {
				cancel() // but not what ends it if it fails otherwise
				return c.fail
			}
			return nil
		}
		c.o.Flush = func() error {
			flushed = shown
			return nil
		}
		if c.want != nil {
			cancel = func() {}
		}
		_, err := tail.Run(ctx, k.Reader, c.o)
		if !errors.Is(err, c.want) || flushed == 0 || flushed != shown {
			t.Errorf("%s: %d shown, %d flushed, %v", name, shown, flushed, err)
		}
		cancel()
	}
}

// TestSkippedIsToldOnce, however often it is looked at.
func TestSkippedIsToldOnce(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	k.Fill(10, 1)
	k.Produce(&kgo.Record{Value: []byte("{}")}, &kgo.Record{Value: []byte("{}")})
	k.Fill(1, 1)
	var warnings []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := 0
	totals := run(ctx, t, k, tail.Options{
		Last: 1, Follow: true, Warn: func(w string) { warnings = append(warnings, w) },
		Print: func(*eventlog.Event, *schema.Event) error { return nil },
		Flush: func() error {
			if looks++; looks == 3 {
				k.Produce(&kgo.Record{Value: []byte("{}")})
			}
			if looks > 10 {
				cancel()
			}
			return nil
		},
	})
	if len(warnings) != 1 || totals.Foreign < 3 || totals.Shown != 1 {
		t.Errorf("%q, %+v", warnings, totals)
	}
}

func TestWhenRefusesWhatIsNoPlace(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, text := range []string{"", "yesterday", "2026-11-32", "-", "--1h", "-1x", "+1h", "1", "1:", ":1", "1:-1", "-1:1", "1:1,", "1:1,1:2", "1:1:1", "9999999999:1", "1:99999999999999999999"} {
		if place, err := tail.ParseFrom(text, now); err == nil {
			t.Errorf("from %q is %+v", text, place)
		}
		if until, err := tail.ParseUntil(text, now); err == nil {
			t.Errorf("until %q is %+v", text, until)
		}
	}
	for text, want := range map[string]time.Time{"2026-11-22": now.Add(-10 * time.Hour), "1h": now.Add(-time.Hour), "-2d": now.Add(-48 * time.Hour)} {
		if place, err := tail.ParseFrom(text, now); err != nil || !reflect.DeepEqual(place, eventlog.AtTime(want)) {
			t.Errorf("from %q is %+v, %v", text, place, err)
		}
	}
	if _, err := tail.ParseFrom("2026-11-22T11:00:01+01:00", now); err == nil {
		t.Error("it begins in the future")
	}
	for _, text := range []string{"2026-11-22T11:00:00+01:00", "2026-11-22T09:59:59.5Z", "-1d12h", "-0s", "0:0,1:5"} {
		if _, err := tail.ParseFrom(text, now); err != nil {
			t.Error(err)
		}
	}
}

// output is what a printer makes of four events.
func output(t *testing.T, k *eventtest.Kit, print func(w io.Writer) func(string, *eventlog.Event, *schema.Event) error) string {
	t.Helper()
	var out bytes.Buffer
	printEvent := print(&out)
	run(t.Context(), t, k, tail.Options{Print: func(e *eventlog.Event, decoded *schema.Event) error { return printEvent(eventtest.Topic, e, decoded) }})
	return out.String()
}

// goldenKit holds an event of each kind: usual, late with a key the schema lacks,
// revised, and one without anything but its Report ID that plays with the terminal.
func goldenKit(t *testing.T) *eventtest.Kit {
	k := eventtest.NewKit(t, 1)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	late := eventtest.Event(t, id, 0, 1, "ce_source=urn:cdrbus:globex-north-america", "late=true")
	late.Value = eventtest.Encoded(t, id, strings.Replace(eventtest.Item(1), "{", `{"Mood":"<good> & ❤","Location":"Zürich","Call type":"SIP_INTERNATIONAL",`, 1)).Value
	bare := eventtest.Event(t, id, 0, 3)
	bare.Key = nil
	bare.Value = eventtest.Encoded(t, id, "{\"Report ID\":\"\\u001b[31mred\",\"Location\":\"a very long name of a place\"}").Value
	k.Produce(eventtest.Event(t, id, 0, 0, "ce_source=urn:cdrbus:acme"), late, eventtest.Event(t, id, 0, 2, "ce_source=urn:cdrbus:acme", "late=true", "revision=true"), bare)
	return k
}

func TestJSONLines(t *testing.T) {
	k := goldenKit(t)
	got := output(t, k, func(w io.Writer) func(string, *eventlog.Event, *schema.Event) error {
		return tail.NewJSON(w, tail.View{PersonalData: true}).Print
	})
	demandGolden(t, "lines.jsonl", got)
	got = output(t, k, func(w io.Writer) func(string, *eventlog.Event, *schema.Event) error {
		return tail.NewJSON(w, tail.View{Fields: []string{"callingNumber", "duration", schema.UnmappedName}}).Print
	})
	demandGolden(t, "masked.jsonl", got)
}

func TestTable(t *testing.T) {
	k := goldenKit(t)
	for _, c := range []struct {
		golden string
		view   tail.View
		screen tail.Screen
	}{
		{"table.txt", tail.View{}, tail.Screen{SourceWidth: 12}},
		{"narrow.txt", tail.View{}, tail.Screen{Width: 80}},
		{"fields.txt", tail.View{Fields: []string{"location", "callingNumber", schema.UnmappedName}, PersonalData: true}, tail.Screen{SourceWidth: 22}},
	} {
		got := output(t, k, func(w io.Writer) func(string, *eventlog.Event, *schema.Event) error {
			c.screen.Terminal = w
			return tail.NewTable(w, c.view, c.screen).Print
		})
		demandGolden(t, c.golden, got)
	}
}

// TestTableRepeatsItsHeader on a terminal only.
func TestTableRepeatsItsHeader(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	k.Fill(100, 1)
	for width, want := range map[int]int{0: 1, 100: 3} {
		got := output(t, k, func(w io.Writer) func(string, *eventlog.Event, *schema.Event) error {
			return tail.NewTable(w, tail.View{}, tail.Screen{Width: width, Terminal: w}).Print
		})
		if headers := strings.Count(got, "COMMITTED"); headers != want {
			t.Errorf("width %d: %d headers, want %d", width, headers, want)
		}
	}
}

// BenchmarkJSON is the way of an event from the broker in the process to its line.
func BenchmarkJSON(b *testing.B) {
	const count = 50_000
	k := eventtest.NewKit(b, 4)
	k.Fill(count, 4)
	b.ReportAllocs()
	for b.Loop() {
		lines := tail.NewJSON(io.Discard, tail.View{PersonalData: true})
		totals, err := tail.Run(b.Context(), k.Reader, tail.Options{
			Topic: eventtest.Topic, SchemaByID: k.Registry.SchemaByID,
			Print: func(e *eventlog.Event, decoded *schema.Event) error { return lines.Print(eventtest.Topic, e, decoded) },
		})
		if err != nil || totals.Shown != count {
			b.Fatal(totals, err)
		}
	}
	b.ReportMetric(float64(count)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
