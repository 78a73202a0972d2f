package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/eventlog"
	"cdrbus/internal/eventlog/eventtest"
	"cdrbus/schema"
)

func TestEventIsWhatTheEncoderMade(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	k.Produce(
		eventtest.Event(t, id, 0, 1, "ce_source=urn:cdrbus:acme", "late=true"),
		eventtest.Event(t, id, 0, 2, "ce_source=urn:other:acme", "revision=true", "late=false"),
		eventtest.Event(t, id, 0, 3),
	)
	events, ends, err := k.Scanned(eventlog.Options{SchemaByID: k.Registry.SchemaByID})
	if err != nil || len(events) != 3 || ends.Events != 3 || ends.Skipped() != 0 || ends.Assumed != 0 || ends.Partitions[0].Next != 3 {
		t.Fatalf("%d events, %+v, %v", len(events), ends, err)
	}
	for i, e := range events {
		n := i + 1
		want := eventtest.Encoded(t, id, eventtest.Item(n))
		if e.ReportID != want.ID || string(e.ReportIDText) != eventtest.ReportID(n) || e.Hash != want.Hash || !e.Comparable || e.SchemaID != id {
			t.Errorf("event %d: %+v, want the identity and hash of %+v", n, e, want)
		}
		if e.Offset != int64(i) || !e.At.Equal(eventtest.Start.Add(time.Duration(n)*time.Second)) || string(e.Key) != string(want.Key) || e.ReportTimeMillis != want.ReportTimeMillis {
			t.Errorf("event %d: %+v", n, e)
		}
		if decoded, err := e.Decode(); err != nil || decoded.Value("duration") != int64(n) {
			t.Errorf("event %d: duration %v, %v", n, decoded.Value("duration"), err)
		}
	}
	if e := events[0]; e.Source != "acme" || !e.Late || e.Revision {
		t.Errorf("headers of the first: %q, late %t, revision %t", e.Source, e.Late, e.Revision)
	}
	if e := events[1]; e.Source != "" || e.Late || !e.Revision {
		t.Errorf("headers of the second: %q, late %t, revision %t", e.Source, e.Late, e.Revision)
	}
	if e := events[2]; e.Source != "" || e.Late || e.Revision {
		t.Errorf("without headers: %q, late %t, revision %t", e.Source, e.Late, e.Revision)
	}
}

// TestNothingInTheTopicEndsAScan puts everything there that does not belong.
func TestNothingInTheTopicEndsAScan(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	newer := k.Register("newer", eventtest.NewerSchema(t))
	stranger := k.Register("stranger", `{"type":"record","name":"Stranger","fields":[{"name":"a","type":"string"}]}`)
	const lost = 4711
	good := eventtest.Event(t, id, 0, 0)
	k.Produce(good,
		&kgo.Record{Value: nil},
		&kgo.Record{Value: []byte(`{"json":true}`)},
		&kgo.Record{Value: []byte{0, 0}},
		&kgo.Record{Value: withID(stranger, []byte{2, 'x'})},
		&kgo.Record{Value: good.Value[:len(good.Value)-3]},
		&kgo.Record{Value: withID(newer, good.Value[5:])},
		&kgo.Record{Value: eventtest.NewerValue(t, newer, 1)},
		eventtest.Event(t, lost, 0, 2),
		&kgo.Record{Value: eventtest.NewerValue(t, lost, 3)},
		&kgo.Record{Value: eventtest.NewerValue(t, lost, 4)},
		eventtest.Event(t, id, 0, 5),
	)
	var warnings []string
	events, ends, err := k.Scanned(eventlog.Options{SchemaByID: k.Registry.SchemaByID, Warn: func(w string) { warnings = append(warnings, w) }})
	if err != nil {
		t.Fatal(err)
	}
	want := eventlog.Counts{Events: 4, Foreign: 4, Undecodable: 2, Lost: 2, Assumed: 1}
	if ends.Counts != want || !slices.Equal(ends.LostIDs, []int{lost}) || ends.Partitions[0].Next != 12 {
		t.Errorf("%+v, want %+v", ends, want)
	}
	if len(warnings) != 3 || !strings.Contains(warnings[2], "schema 4711") {
		t.Errorf("want one warning of each kind: %q", warnings)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %t", e.ReportIDText, e.Comparable))
	}
	if want := []string{eventtest.ReportID(0) + " true", eventtest.ReportID(1) + " false", eventtest.ReportID(2) + " false", eventtest.ReportID(5) + " true"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	decoded, err := events[1].Decode()
	if err != nil || decoded.Unmapped["Mood"] != `"good"` || decoded.Value("duration") != int64(1) || events[1].ReportTimeMillis == 0 || events[1].ReportID != cdr.ReportIDOf([]byte(eventtest.ReportID(1))) {
		t.Errorf("the newer event is %v, %+v, %v", decoded, events[1], err)
	}
}

func withID(schemaID int, body []byte) []byte {
	return append([]byte{0, byte(schemaID >> 24), byte(schemaID >> 16), byte(schemaID >> 8), byte(schemaID)}, body...)
}

// TestSilentRegistryLosesNothing: what fits is read without it, what needs it ends
// the scan, which goes on from there when it answers again.
func TestSilentRegistryLosesNothing(t *testing.T) {
	k := eventtest.NewKit(t, 1)
	id := k.Register(eventtest.Topic+"-value", schema.AvroJSON())
	newer := k.Register("newer", eventtest.NewerSchema(t))
	k.Produce(eventtest.Event(t, id, 0, 0), eventtest.Event(t, id, 0, 1), &kgo.Record{Value: eventtest.NewerValue(t, newer, 2)}, eventtest.Event(t, id, 0, 3))
	silent := errors.New("no answer")
	asked := 0
	for _, ordered := range []bool{false, true} {
		asked = 0
		events, ends, err := k.Scanned(eventlog.Options{Ordered: ordered, SchemaByID: func(context.Context, int) (string, error) {
			asked++
			return "", silent
		}})
		if !errors.Is(err, silent) || !strings.Contains(err.Error(), "offset 2 of partition 0") || asked != 2 {
			t.Errorf("asked %d times: %v", asked, err)
		}
		rest, restEnds, err := k.Scanned(eventlog.Options{From: ends.Next(), Ordered: ordered, SchemaByID: k.Registry.SchemaByID})
		if err != nil || len(events)+len(rest) != 4 || len(events) > 2 || string(rest[len(rest)-1].ReportIDText) != eventtest.ReportID(3) || restEnds.Partitions[0].Next != 4 {
			t.Errorf("%d events, then %d, %+v, %v", len(events), len(rest), restEnds, err)
		}
	}
	events, ends, err := k.Scanned(eventlog.Options{})
	if err != nil || len(events) != 3 || ends.Assumed != 3 || ends.Lost != 1 {
		t.Errorf("without any registry %d events, %+v, %v", len(events), ends, err)
	}
}

// TestSchemasAreAskedForOnceAndNotWithoutEnd: random bytes name many.
func TestSchemasAreAskedForOnceAndNotWithoutEnd(t *testing.T) {
	k := eventtest.NewKit(t, 2)
	var records []*kgo.Record
	for n := range 5000 {
		records = append(records, &kgo.Record{Partition: int32(n % 2), Value: withID(n/2, []byte("random"))})
	}
	k.Produce(records...)
	asked := 0
	_, ends, err := k.Scanned(eventlog.Options{SchemaByID: func(context.Context, int) (string, error) {
		asked++
		return "", absent(t, k)
	}})
	if err != nil || ends.Lost != 5000 || asked != 1000 {
		t.Errorf("asked %d times, %+v, %v", asked, ends.Counts, err)
	}
}

var absentError error

// absent is the error of a registry that does not know the ID.
func absent(t *testing.T, k *eventtest.Kit) error {
	t.Helper()
	if absentError == nil {
		if _, absentError = k.Registry.SchemaByID(t.Context(), 99); !schema.Absent(absentError) {
			t.Fatalf("not the error of a lost schema: %v", absentError)
		}
	}
	return absentError
}

func numbers(events []*eventlog.Event) (numbers []int) {
	for _, e := range events {
		numbers = append(numbers, int(e.At.Sub(eventtest.Start)/time.Second))
	}
	return numbers
}

func upTo(fromInclusive, toExclusive int) (numbers []int) {
	for n := fromInclusive; n < toExclusive; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

func TestOrderedIsByCommitTime(t *testing.T) {
	const count = 2000 // several batches a partition
	k := eventtest.NewKit(t, 3)
	k.Fill(count, 3)
	events, _, err := k.Scanned(eventlog.Options{Ordered: true})
	if got := numbers(events); err != nil || !slices.Equal(got, upTo(0, count)) {
		t.Errorf("%d events out of order, %v", len(got), err)
	}
	events, _, err = k.Scanned(eventlog.Options{})
	got := numbers(events)
	slices.Sort(got)
	if err != nil || !slices.Equal(got, upTo(0, count)) {
		t.Errorf("unordered: %d events, %v", len(got), err)
	}
}

// TestRefusalLosesNothing: each refuses now and then, and the scan goes on from
// where it ended.
func TestRefusalLosesNothing(t *testing.T) {
	const count, slice = 1500, 333
	k := eventtest.NewKit(t, 3)
	k.Fill(count, 3)
	refusal := errors.New("enough")
	for _, ordered := range []bool{false, true} {
		var got []int
		o := eventlog.Options{Topic: eventtest.Topic, Ordered: ordered}
		for {
			taken := 0
			ends, err := eventlog.Scan(t.Context(), k.Reader, o, func(e *eventlog.Event) error {
				if taken == slice {
					return refusal
				}
				taken++
				got = append(got, int(e.At.Sub(eventtest.Start)/time.Second))
				return nil
			})
			if int(ends.Events) != taken || ends.Assumed != ends.Events {
				t.Errorf("%+v after %d events", ends.Counts, taken)
			}
			if err == nil {
				break
			}
			if err != refusal {
				t.Fatal(err)
			}
			o.From = ends.Next()
		}
		if ordered && !slices.IsSorted(got) {
			t.Error("not in order")
		}
		slices.Sort(got)
		if !slices.Equal(got, upTo(0, count)) {
			t.Errorf("ordered %t: %d events in all, want each of %d once", ordered, len(got), count)
		}
	}
}

// TestRefusalIsFinal: partitions that are read beside the one that was refused hand
// over nothing more. All of them wait for the registry, and go on at once.
func TestRefusalIsFinal(t *testing.T) {
	k := eventtest.NewKit(t, 4)
	k.Fill(40, 4)
	refusal := errors.New("enough")
	for range 50 {
		calls := 0
		o := eventlog.Options{Topic: eventtest.Topic, SchemaByID: func(ctx context.Context, id int) (string, error) {
			_, _ = k.Reader.Bounds(ctx, eventtest.Topic, 0) // takes a while
			return k.Registry.SchemaByID(ctx, id)
		}}
		_, err := eventlog.Scan(t.Context(), k.Reader, o, func(*eventlog.Event) error {
			calls++
			return refusal
		})
		if err != refusal || calls != 1 {
			t.Fatalf("called %d times, %v", calls, err)
		}
	}
}

func TestPlaces(t *testing.T) {
	k := eventtest.NewKit(t, 3)
	k.Fill(30, 3)
	at := func(n int) eventlog.Place {
		return eventlog.AtTime(eventtest.Start.Add(time.Duration(n)*time.Second - time.Millisecond))
	}
	for _, c := range []struct {
		name        string
		from, until eventlog.Place
		want        []int
	}{
		{"all", eventlog.Place{}, eventlog.Place{}, upTo(0, 30)},
		{"times", at(10), at(20), upTo(10, 20)},
		{"after the last", at(99), eventlog.Place{}, nil},
		{"reversed", at(20), at(10), nil},
		{"latest", eventlog.Latest(), eventlog.Place{}, nil},
		{"until latest", at(28), eventlog.Latest(), upTo(28, 30)},
		{"from offsets", eventlog.AtOffsets(map[int]int64{1: 8}), eventlog.Place{}, []int{25, 28}},
		{"until offsets", at(20), eventlog.AtOffsets(map[int]int64{1: 8, 2: 0}), []int{21, 22, 24, 27}},
	} {
		events, ends, err := k.Scanned(eventlog.Options{From: c.from, Until: c.until, Ordered: true})
		if got := numbers(events); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
		again, _, err := k.Scanned(eventlog.Options{From: ends.Next(), Until: c.until})
		if err != nil || len(again) > 0 {
			t.Errorf("%s: going on finds %d events, %v", c.name, len(again), err)
		}
	}
	for _, place := range []eventlog.Options{{From: eventlog.AtOffsets(map[int]int64{3: 0})}, {Until: eventlog.AtOffsets(map[int]int64{-1: 0})}} {
		if _, _, err := k.Scanned(place); err == nil || !strings.Contains(err.Error(), "only 0 to 2") {
			t.Errorf("a partition that is not there: %v", err)
		}
	}
	var outOfRange *committed.OutOfRangeError
	if _, _, err := k.Scanned(eventlog.Options{From: eventlog.AtOffsets(map[int]int64{0: 99})}); !errors.As(err, &outOfRange) {
		t.Errorf("an offset that is not there: %v", err)
	}
}

// TestScanKeepsNothing compares the memory in use early in a scan with that at its
// end. A map of the Report IDs alone would be several MiB.
func TestScanKeepsNothing(t *testing.T) {
	const count, partitions, limitBytes = 50_000, 2, 1 << 20
	k := eventtest.NewKit(t, partitions)
	k.Fill(count, partitions)
	for _, ordered := range []bool{false, true} {
		inUse := func() int64 {
			var stats runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&stats)
			return int64(stats.HeapAlloc)
		}
		var early, seen int64
		_, err := eventlog.Scan(t.Context(), k.Reader, eventlog.Options{Topic: eventtest.Topic, Ordered: ordered, SchemaByID: k.Registry.SchemaByID}, func(*eventlog.Event) error {
			if seen++; seen == count/4 {
				early = inUse()
			}
			return nil
		})
		if grown := inUse() - early; err != nil || grown > limitBytes {
			t.Errorf("ordered %t: %d bytes more in use after %d events than after %d, %v", ordered, grown, seen, count/4, err)
		}
	}
}

// TestGoingOnReadsAddedPartitions, unless the partitions were chosen.
func TestGoingOnReadsAddedPartitions(t *testing.T) {
	k := eventtest.NewKit(t, 2)
	k.Fill(10, 2)
	_, all, err := k.Scanned(eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, chosen, err := k.Scanned(eventlog.Options{From: eventlog.AtOffsets(map[int]int64{0: 0})})
	if err != nil {
		t.Fatal(err)
	}
	k.AddPartition(3)
	k.Produce(eventtest.Event(t, 1, 2, 10))
	for _, c := range []struct {
		ends eventlog.Ends
		want []int
	}{{all, []int{10}}, {chosen, nil}} {
		for range 2 { // also of a scan that went on itself
			events, ends, err := k.Scanned(eventlog.Options{From: c.ends.Next()})
			if got := numbers(events); err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
			c.ends, c.want = ends, nil
		}
	}
}

// BenchmarkScan reads 100,000 events of four partitions from a broker in the
// process, whose work is in the figures.
func BenchmarkScan(b *testing.B) {
	const count, partitions = 100_000, 4
	k := eventtest.NewKit(b, partitions)
	k.Fill(count, partitions)
	for _, ordered := range []bool{false, true} {
		b.Run(map[bool]string{false: "parallel", true: "ordered"}[ordered], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ends, err := eventlog.Scan(b.Context(), k.Reader, eventlog.Options{Topic: eventtest.Topic, Ordered: ordered, SchemaByID: k.Registry.SchemaByID}, func(*eventlog.Event) error { return nil })
				if err != nil || ends.Events != count || ends.Skipped() > 0 {
					b.Fatal(ends, err)
				}
			}
			b.ReportMetric(float64(count)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
