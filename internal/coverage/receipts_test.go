package coverage

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// memoryLog is one partition in memory.
type memoryLog struct {
	logStart int64
	records  []committed.Record // by offset, with holes
	reads    int                // records handed over
	fails    error
}

func (l *memoryLog) Bounds(context.Context, string, int) (committed.Bounds, error) {
	end := l.logStart
	if n := len(l.records); n > 0 {
		end = l.records[n-1].Offset + 2 // its marker
	}
	return committed.Bounds{LogStart: l.logStart, LastStable: end, HighWatermark: end}, l.fails
}

func (l *memoryLog) OffsetAt(_ context.Context, _ string, _ int, at time.Time) (int64, error) {
	i := sort.Search(len(l.records), func(i int) bool { return !l.records[i].Timestamp.Before(at) })
	if i == len(l.records) {
		bounds, err := l.Bounds(context.Background(), "", 0)
		return bounds.LastStable, err
	}
	return l.records[i].Offset, l.fails
}

func (l *memoryLog) Read(_ context.Context, topic string, partition int, from, until int64, each func(committed.Record) error) (int64, committed.Bounds, error) {
	bounds, err := l.Bounds(context.Background(), topic, partition)
	if err != nil {
		return from, bounds, err
	}
	if from == committed.Earliest {
		from = l.logStart
	}
	if from < l.logStart {
		return from, bounds, &committed.OutOfRangeError{Topic: topic, Offset: from, Bounds: bounds}
	}
	if until < 0 {
		until = bounds.LastStable
	}
	for _, r := range l.records {
		if r.Offset < from || r.Offset >= until {
			continue
		}
		l.reads++
		if err := each(r); err != nil {
			return r.Offset, bounds, err
		}
	}
	return until, bounds, nil
}

// write appends a record as a transaction of its own would.
func (l *memoryLog) write(source string, value []byte, at time.Time) {
	offset := l.logStart
	if n := len(l.records); n > 0 {
		offset = l.records[n-1].Offset + 2
	}
	l.records = append(l.records, committed.Record{Offset: offset, Key: []byte(source), Value: value, Timestamp: at})
}

const testSchemaID = 7

var testCodec = sync.OnceValue(func() *offsets.ReceiptCodec {
	codec, err := offsets.NewReceiptCodec(testSchemaID)
	if err != nil {
		panic(err)
	}
	return codec
})

// receipt appends one.
func (l *memoryLog) receipt(t testing.TB, r offsets.Receipt) {
	t.Helper()
	value, err := testCodec().Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	l.write(string(r.Source), value, r.CommitTime)
}

// live is the receipt of a window of a minute.
func live(source cdr.SourceName, counter int) offsets.Receipt {
	end := 60 * counter
	return offsets.Receipt{
		Source: source, Counter: cdr.Counter(counter), Purpose: cdr.Live, Endpoint: cdr.Feed, TotalCount: -1,
		Asked: at(end-120, end), Commit: at(end-60, end), Items: 3, Published: 2, AlreadyKnown: 1, DistinctIDs: 3,
		CommitTime:    at(0, end+300).EndExclusive.Time(),
		FeedPublished: at(0, end).EndExclusive, FeedSettled: noon,
	}
}

func noSchema(context.Context, int) (string, error) { return "", errors.New("no registry") }

func TestFold(t *testing.T) {
	log := &memoryLog{logStart: 100}
	for i := range 20 {
		log.receipt(t, live("acme", i+1))
		log.receipt(t, live("globex", i+1))
		log.write("acme", []byte("not a receipt"), live("acme", i+1).CommitTime)
	}
	moved := live("globex", 21) // under the key of another source
	log.receipt(t, moved)
	log.records[len(log.records)-1].Key = []byte("acme")
	log.write("acme", nil, moved.CommitTime)

	reader := NewReader(log, "webex.cdr.windows", 1, noSchema)
	m := NewMap(at(0, 2000))
	var told []int64
	next, err := reader.Fold(t.Context(), 0, 0, map[cdr.SourceName]*Map{"acme": m}, func(done, total int64) { told = append(told, done, total) })
	if err != nil {
		t.Fatal(err)
	}
	report := m.Report("acme", at(0, 2000))
	if got, want := read(report.Stretches), []string{"proven 0-1200", "unread 1200-2000"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if report.Undecodable != 22 || report.Counts.Windows != 20 || report.Counts.Published != 40 {
		t.Errorf("got %+v, want 22 undecodable, 20 windows and 40 published", report)
	}

	log.reads = 0
	log.receipt(t, live("acme", 21))
	if next, err = reader.Fold(t.Context(), 0, next, map[cdr.SourceName]*Map{"acme": m}, nil); err != nil {
		t.Fatal(err)
	}
	if again, err := reader.Fold(t.Context(), 0, next, map[cdr.SourceName]*Map{"acme": m}, nil); again != next || err != nil {
		t.Errorf("nothing new moved the reader from %d to %d, %v", next, again, err)
	}
	if log.reads != 1 || m.last.counter != 21 {
		t.Errorf("read %d records to counter %d, want the one that is new", log.reads, m.last.counter)
	}
}

func TestOffsetFor(t *testing.T) {
	log := &memoryLog{}
	for i := range 600 {
		log.receipt(t, live("acme", i+1))
	}
	reader := NewReader(log, "webex.cdr.windows", 1, noSchema)
	whole, late := NewMap(at(30_000, 40_000)), NewMap(at(30_000, 40_000))
	from, err := reader.OffsetFor(t.Context(), 0, noon+30_000)
	if err != nil || from < 700 {
		t.Fatalf("reads from offset %d, %v; want most of the log passed over", from, err)
	}
	for m, from := range map[*Map]int64{whole: 0, late: from} {
		if _, err := reader.Fold(t.Context(), 0, from, map[cdr.SourceName]*Map{"acme": m}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := late.Stretches(late.view), whole.Stretches(late.view); !reflect.DeepEqual(got, want) {
		t.Errorf("from there it is %+v, of all receipts %+v", got, want)
	}
}

// TestLast is of a source that stopped before the span that is asked for.
func TestLast(t *testing.T) {
	log := &memoryLog{}
	for i := range 10 {
		log.receipt(t, live("acme", i+1))
	}
	reader := NewReader(log, "webex.cdr.windows", 1, noSchema)
	maps := map[cdr.SourceName]*Map{"acme": NewMap(at(90_000, 95_000)), "globex": NewMap(at(90_000, 95_000))}
	if err := reader.Last(t.Context(), 0, 20, maps, nil); err != nil {
		t.Fatal(err)
	}
	if got := maps["acme"].Report("acme", at(90_000, 95_000)); got.Published != noon+600 || got.Counter != 10 || got.Stretches[0].Reason != "after the live edge" {
		t.Errorf("got %+v, want the watermarks of the last receipt", got)
	}
	if got := maps["globex"].Report("globex", at(90_000, 95_000)); got.Stretches[0].Reason != "no receipt of this source" {
		t.Errorf("got %+v, want a source without receipts", got)
	}
}

// TestOtherSchema reads a receipt of a version that lacks a field by the registry's
// text. Once the registry has lost that, it is undecodable, and not taken for what it
// is not.
func TestOtherSchema(t *testing.T) {
	older := schemaWithout(t, "schemaFingerprint")
	codec, err := offsets.NewReceiptDecoder(testSchemaID, older)
	if err != nil {
		t.Fatal(err)
	}
	value, err := codec.Encode(live("acme", 1))
	if err != nil {
		t.Fatal(err)
	}
	log := &memoryLog{}
	log.write("acme", value, noon.Time())
	log.receipt(t, live("globex", 1))
	for _, c := range []struct {
		name        string
		schema      func(context.Context, int) (string, error)
		undecodable int64
	}{
		{"the registry knows it", func(context.Context, int) (string, error) { return older, nil }, 0},
		{"the registry has lost it", noSchema, 1},
		{"the registry holds nonsense", func(context.Context, int) (string, error) { return "{", nil }, 1},
	} {
		m := NewMap(at(0, 100))
		if _, err := NewReader(log, "t", 1, c.schema).Fold(t.Context(), 0, 0, map[cdr.SourceName]*Map{"acme": m}, nil); err != nil {
			t.Fatal(err)
		}
		if m.undecodable != c.undecodable || m.last.counter != cdr.Counter(1-c.undecodable) {
			t.Errorf("%s: %d undecodable, counter %d; want %d undecodable", c.name, m.undecodable, m.last.counter, c.undecodable)
		}
	}
}

// schemaWithout is the schema of receipts before a field came.
func schemaWithout(t *testing.T, name string) string {
	t.Helper()
	var record map[string]any
	if err := json.Unmarshal([]byte(offsets.ReceiptSchema()), &record); err != nil {
		t.Fatal(err)
	}
	fields := record["fields"].([]any)
	record["fields"] = slices.DeleteFunc(fields, func(f any) bool { return f.(map[string]any)["name"] == name })
	if len(record["fields"].([]any)) == len(fields) {
		t.Fatalf("receipts have no field %s", name)
	}
	text, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLogBegunAnew(t *testing.T) {
	log := &memoryLog{}
	log.receipt(t, live("acme", 1))
	var gone *committed.OutOfRangeError
	if _, err := NewReader(log, "t", 1, noSchema).Fold(t.Context(), 0, 1000, nil, nil); !errors.As(err, &gone) {
		t.Errorf("got %v, want an offset that does not exist", err)
	}
}

func TestReadFails(t *testing.T) {
	log := &memoryLog{fails: errors.New("no broker")}
	_, err := NewReader(log, "t", 1, noSchema).Fold(t.Context(), 0, 0, nil, nil)
	if !errors.Is(err, log.fails) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkFoldKafka is what a receipt costs once it is fetched: decoding above all.
func BenchmarkFoldKafka(b *testing.B) {
	const n = 20_000
	log := &memoryLog{}
	for i := range n {
		log.receipt(b, live("acme", i+1))
	}
	b.ReportAllocs()
	for b.Loop() {
		m := NewMap(at(0, 100*n))
		if _, err := NewReader(log, "t", 1, noSchema).Fold(b.Context(), 0, 0, map[cdr.SourceName]*Map{"acme": m}, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/receipt")
}

// TestSurveyKeepsNoHours: a report needs no calendar, which would take memory for every
// hour of its span.
func TestSurveyKeepsNoHours(t *testing.T) {
	view := at(0, 7200)
	survey, calendar := newSurvey(view), NewMap(view)
	for counter := 1; counter <= 100; counter++ {
		r := live("acme", counter)
		survey.Add(&r, int64(counter))
		calendar.Add(&r, int64(counter))
	}
	survey.Roll(view)
	if len(survey.hours) > 0 || len(calendar.hours) == 0 {
		t.Errorf("%d hours for a survey, %d for a calendar", len(survey.hours), len(calendar.hours))
	}
	if got, want := survey.Report("acme", view), calendar.Report("acme", view); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
