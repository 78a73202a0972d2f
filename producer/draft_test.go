package producer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/partition"
)

const testShard = 3

func testLayout() *Layout {
	return &Layout{
		Names:           [TopicCount]string{"events", "deadletter", "windows", "ids", "offsets"},
		EventPartitions: 4,
		MaxMessageBytes: [TopicCount]int{1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20},
	}
}

func add(t testing.TB, d *Draft, topic Topic, key, value string, headers ...kafka.Header) {
	t.Helper()
	if err := d.Add(topic, []byte(key), []byte(value), headers); err != nil {
		t.Fatal(err)
	}
}

// closing is the draft that every commit ends with.
func closing(t testing.TB, layout *Layout) *Draft {
	t.Helper()
	d := NewDraft(layout, testShard)
	add(t, d, Receipts, "acme", "receipt")
	add(t, d, IDs, "acme", "ids")
	add(t, d, Positions, "acme", "position")
	return d
}

func seal(t testing.TB, drafts ...*Draft) *Commit {
	t.Helper()
	c, err := Seal(batchTime, drafts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func zero(place) int32 { return 0 }

// sent is a batch of a round as a broker would get it.
type sent struct {
	place
	decoded
}

// drain builds all rounds of a commit and decodes them.
func drain(t testing.TB, r *rounds) (all [][]sent) {
	t.Helper()
	var built *round
	for {
		if built = r.next(built); built == nil {
			return all
		}
		var one []sent
		for _, b := range built.batches {
			if got := binary.BigEndian.Uint32(b.wire); int(got) != len(b.wire)-4 {
				t.Fatalf("length prefix %d before a batch of %d bytes", got, len(b.wire)-4)
			}
			d := decodeWithKmsg(t, bytes.Clone(b.wire[4:])) // the next round uses the buffer again
			if len(d.records) != b.records {
				t.Fatalf("batch of %d records, said to have %d", len(d.records), b.records)
			}
			one = append(one, sent{b.place, d})
		}
		all = append(all, one)
	}
}

func TestDraftPlacesRecords(t *testing.T) {
	layout := testLayout()
	d := closing(t, layout)
	add(t, d, DeadLetters, "acme", "raw")
	want := map[place][]string{}
	for i := range 50 {
		key := fmt.Sprint("call-", i%9)
		add(t, d, Events, key, fmt.Sprint(i))
		p := place{Events, int32(partition.Of([]byte(key), layout.EventPartitions))}
		want[p] = append(want[p], fmt.Sprint(i))
	}
	want[place{DeadLetters, testShard}] = []string{"raw"}
	want[place{Receipts, testShard}] = []string{"receipt"}
	want[place{IDs, testShard}] = []string{"ids"}
	want[place{Positions, testShard}] = []string{"position"}

	got := map[place][]string{}
	for _, batches := range drain(t, seal(t, d).newRounds(batchHeader{}, false, zero)) {
		for _, b := range batches {
			for _, r := range b.records {
				got[b.place] = append(got[b.place], string(r.value))
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records are placed\n%v\nwant\n%v", got, want)
	}
	for topic, count := range map[Topic]int{Events: 50, DeadLetters: 1, Receipts: 1, IDs: 1, Positions: 1} {
		if d.Records(topic) != count {
			t.Errorf("Records(%s) = %d, want %d", topic, d.Records(topic), count)
		}
	}
}

// TestDraftCopies holds that a caller may reuse its buffers at once.
func TestDraftCopies(t *testing.T) {
	d := closing(t, testLayout())
	key, value, header := []byte("key"), []byte("value"), []kafka.Header{{Key: "h", Value: []byte("x")}}
	if err := d.Add(Events, key, value, header); err != nil {
		t.Fatal(err)
	}
	copy(key, "???")
	copy(value, "?????")
	header[0].Value[0] = '?'
	got := drain(t, seal(t, d).newRounds(batchHeader{}, false, zero))[0][0].records[0]
	if want := (record{[]byte("key"), []byte("value"), []kafka.Header{{Key: "h", Value: []byte("x")}}}); !got.same(want) {
		t.Errorf("record is %s after its buffers were reused, want %s", got, want)
	}
}

func TestDraftRefusesWhatNoBatchCanHold(t *testing.T) {
	layout := testLayout()
	layout.MaxMessageBytes[Events] = 1000
	d := NewDraft(layout, testShard)
	// 61 of header; 2 of length, 2 of attributes and time, 1 of offset, 2 of key, 2 of value length, 1 of headers.
	fits := 1000 - 61 - 2 - 2 - 1 - 2 - 2 - 1
	if err := d.Add(Events, []byte("k"), make([]byte, fits), nil); err != nil {
		t.Errorf("a value of %d bytes was refused: %v", fits, err)
	}
	before := d.Bytes()
	err := d.Add(Events, []byte("k"), make([]byte, fits+1), nil)
	if !errors.Is(err, ErrRecordTooLarge) || !strings.Contains(err.Error(), "events") {
		t.Errorf("a value of %d bytes gives %v, want ErrRecordTooLarge with the topic's name", fits+1, err)
	}
	if d.Bytes() != before || d.Records(Events) != 1 {
		t.Error("a refused record left something behind")
	}
	if err := d.Add(Events, []byte("k"), nil, []kafka.Header{{Key: "h", Value: make([]byte, 1000)}}); !errors.Is(err, ErrRecordTooLarge) {
		t.Errorf("large headers give %v, want ErrRecordTooLarge", err)
	}

	add(t, d, Positions, "acme", "position")
	for _, batches := range drain(t, seal(t, d).newRounds(batchHeader{}, false, zero)) {
		for _, b := range batches {
			if size := len(encodeBatch(b.header, b.records)); b.topic == Events && size != 1000 {
				t.Errorf("the largest record makes a batch of %d bytes, want 1000", size)
			}
		}
	}
}

func TestDraftRefusesTombstones(t *testing.T) {
	d := NewDraft(testLayout(), testShard)
	for _, value := range [][]byte{nil, {}} {
		if err := d.Add(Positions, []byte("acme"), value, nil); !errors.Is(err, ErrTombstone) {
			t.Errorf("a position with value %v gives %v, want ErrTombstone", value, err)
		}
	}
	d.Erase([]byte("job:1"))
	if got := d.Records(Positions); got != 1 {
		t.Errorf("a note that is erased on purpose: %d records, want 1", got)
	}
}

func TestMaxValueBytesFit(t *testing.T) {
	layout := testLayout()
	for topic := range Topic(TopicCount) {
		d := NewDraft(layout, testShard)
		headers := []kafka.Header{{Key: "h", Value: make([]byte, 6000)}}
		if err := d.Add(topic, make([]byte, 1900), make([]byte, layout.MaxValueBytes(topic)), headers); err != nil {
			t.Errorf("the largest value that is said to fit does not: %v", err)
		}
	}
}

// TestDraftTakesTheMemoryThatWasAdded holds a draft's memory near its bytes, for
// small drafts, large drafts and large records.
func TestDraftTakesTheMemoryThatWasAdded(t *testing.T) {
	for _, c := range []struct {
		records, valueBytes int
		slackBytes          int64
	}{
		{0, 0, 1 << 10},
		{1, 100, 5 << 10},
		{20, 1000, 40 << 10},
		{10_000, 3000, 256 << 10},
		{20, 700_000, 256 << 10},
	} {
		layout := testLayout()
		layout.EventPartitions = 16
		value := bytes.Repeat([]byte("x"), c.valueBytes)
		d := NewDraft(layout, testShard)
		for i := range c.records {
			if err := d.Add(Events, binary.BigEndian.AppendUint32(nil, uint32(i)), value, nil); err != nil {
				t.Fatal(err)
			}
		}
		if added := int64(c.records * c.valueBytes); d.Bytes() < added || d.Bytes() > added+int64(c.records)*40 {
			t.Errorf("%d records of %d bytes: Bytes() = %d", c.records, c.valueBytes, d.Bytes())
		}
		if held := memory(d); held > d.Bytes()+d.Bytes()/20+c.slackBytes {
			t.Errorf("%d records of %d bytes hold %d bytes of memory, Bytes() says %d", c.records, c.valueBytes, held, d.Bytes())
		}
	}
}

// memory is what a draft has allocated.
func memory(d *Draft) int64 {
	total := cap(d.slots) * int(unsafe.Sizeof(d.slots[0]))
	for _, chunk := range d.arena.chunks {
		total += cap(chunk) + int(unsafe.Sizeof(chunk))
	}
	for _, tails := range d.slots {
		total += cap(tails) * int(unsafe.Sizeof(tail{}))
	}
	return int64(total)
}

// TestDraftAllocatesByChunk holds that records share chunks.
func TestDraftAllocatesByChunk(t *testing.T) {
	for _, valueBytes := range []int{10, 500, 1500, 3000, 20_000, 40_000} {
		d := NewDraft(testLayout(), testShard)
		records := 4 << 20 / valueBytes
		for range records {
			add(t, d, Events, "key", strings.Repeat("x", valueBytes))
		}
		limit := 10 + int(d.Bytes())/(largestChunkBytes/2)
		if valueBytes > ownChunkBytes {
			limit = records
		}
		if got := len(d.arena.chunks); got > limit {
			t.Errorf("%d records of %d bytes take %d chunks, want at most %d", records, valueBytes, got, limit)
		}
	}
}

func TestLayoutValidate(t *testing.T) {
	if err := testLayout().Validate(); err != nil {
		t.Errorf("a good layout: %v", err)
	}
	for _, c := range []struct {
		name  string
		spoil func(*Layout)
		want  string
	}{
		{"no partitions", func(l *Layout) { l.EventPartitions = 0 }, "topic events has 0 partitions"},
		{"no name", func(l *Layout) { l.Names[IDs] = "" }, "the topic for ids has no name"},
		{"one name twice", func(l *Layout) { l.Names[IDs] = "events" }, "events and ids share topic events"},
		{"batches too small", func(l *Layout) { l.MaxMessageBytes[Positions] = 100 }, "max.message.bytes of topic offsets is 100"},
		{"compression", func(l *Layout) { l.Compression = 9 }, "unknown compression 9"},
	} {
		l := testLayout()
		c.spoil(l)
		if err := l.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Validate() = %v, want %q", c.name, err, c.want)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	layout := testLayout()
	other := NewDraft(layout, testShard+1)
	add(t, other, Positions, "acme", "p")
	foreign := closing(t, testLayout())
	events := NewDraft(layout, testShard)
	add(t, events, Events, "k", "v")
	for _, c := range []struct {
		name   string
		drafts []*Draft
		want   string
	}{
		{"nothing", nil, "no drafts"},
		{"no position", []*Draft{events}, "no position"},
		{"nothing in a draft", []*Draft{NewDraft(layout, testShard)}, "no position"},
		{"two shards", []*Draft{closing(t, layout), other}, "shards 3 and 4"},
		{"two layouts", []*Draft{closing(t, layout), foreign}, "two layouts"},
	} {
		if _, err := Seal(time.Now(), c.drafts...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Seal() = %v, want %q", c.name, err, c.want)
		}
	}
}

// TestGroupCommitCostsNoMoreRounds seals many windows together: their records
// share batches, in the order of the drafts, and none is missing.
func TestGroupCommitCostsNoMoreRounds(t *testing.T) {
	layout := testLayout()
	layout.MaxMessageBytes[Events] = 20_000
	const windows, perWindow = 40, 50
	var drafts []*Draft
	for w := range windows {
		d := NewDraft(layout, testShard)
		for i := range perWindow {
			add(t, d, Events, fmt.Sprint("call-", i), fmt.Sprintf("%d %s", w*perWindow+i, strings.Repeat("x", 100)))
		}
		drafts = append(drafts, d)
	}
	drafts = append(drafts, closing(t, layout))
	c := seal(t, drafts...)
	if c.Records() != windows*perWindow+3 {
		t.Errorf("Records() = %d", c.Records())
	}
	all := drain(t, c.newRounds(batchHeader{sender: identity{5, 6}, transactional: true}, false, zero))

	largest := 0
	values := map[int32][]int{}
	next := map[place]int32{}
	for _, batches := range all {
		for _, b := range batches {
			if b.header.baseSequence != next[b.place] {
				t.Fatalf("sequence %d in %v, want %d", b.header.baseSequence, b.place, next[b.place])
			}
			next[b.place] += int32(len(b.records))
			size := len(encodeBatch(b.header, b.records))
			if size > 20_000 && b.topic == Events {
				t.Errorf("batch of %d bytes, the topic takes 20000", size)
			}
			for _, r := range b.records {
				if b.topic == Events {
					var n int
					fmt.Sscan(string(r.value), &n)
					values[b.partition] = append(values[b.partition], n)
				}
			}
		}
	}
	total := 0
	for p, numbers := range values {
		if !slices.IsSorted(numbers) || len(slices.Compact(slices.Clone(numbers))) != len(numbers) {
			t.Errorf("partition %d has its records out of order or twice", p)
		}
		total += len(numbers)
		largest = max(largest, len(numbers))
	}
	if total != windows*perWindow {
		t.Errorf("%d events, want %d", total, windows*perWindow)
	}
	bytesPerRecord := recordBytes(0, tailBytes([]byte("call-10"), make([]byte, 105), nil))
	if want := largest*bytesPerRecord/20_000 + 1; len(all) > want {
		t.Errorf("%d windows take %d rounds, want at most %d", windows, len(all), want)
	}
}

// TestRoundsKeepTheOrderOfTopics holds that a position is never in an earlier
// round than anything it vouches for, and without transactions always in a later.
func TestRoundsKeepTheOrderOfTopics(t *testing.T) {
	layout := testLayout()
	layout.MaxMessageBytes = [TopicCount]int{400, 400, 400, 400, 400}
	for _, c := range []struct {
		name  string
		apart bool
		events, dead, receipts, ids, positions,
		rounds int
	}{
		{"all in one", false, 1, 1, 1, 1, 1, 1},
		{"apart", true, 1, 1, 1, 1, 1, 3},
		{"empty window", false, 0, 0, 1, 0, 1, 1},
		{"empty window apart", true, 0, 0, 1, 0, 1, 2},
		// Three records fill a batch, and the fullest of 4 partitions has 16 of 40 events.
		{"many events", false, 40, 3, 1, 1, 1, 6},
		{"many ids", false, 1, 0, 1, 9, 1, 3},
		{"many positions", false, 1, 0, 1, 1, 9, 3},
		{"many of all, apart", true, 40, 9, 9, 9, 9, 12},
	} {
		d := NewDraft(layout, testShard)
		for topic, count := range [TopicCount]int{c.events, c.dead, c.receipts, c.ids, c.positions} {
			for i := range count {
				add(t, d, Topic(topic), fmt.Sprint("k", i), strings.Repeat("x", 90))
			}
		}
		all := drain(t, seal(t, d).newRounds(batchHeader{}, c.apart, zero))
		if len(all) != c.rounds {
			t.Errorf("%s: %d rounds, want %d", c.name, len(all), c.rounds)
		}
		first, last := map[int]int{}, map[int]int{}
		for number, batches := range all {
			seen := map[place]bool{}
			for _, b := range batches {
				if seen[b.place] {
					t.Errorf("%s: round %d has two batches for %v", c.name, number, b.place)
				}
				seen[b.place] = true
				stage := b.topic.stage()
				if _, begun := first[stage]; !begun {
					first[stage] = number
				}
				last[stage] = number
			}
		}
		for earlier := range 3 {
			for later := earlier + 1; later < 3; later++ {
				from, until := first[later], last[earlier]
				if _, any := last[earlier]; any && (from < until || c.apart && from == until) {
					t.Errorf("%s: stage %d begins in round %d, stage %d ends in round %d", c.name, later, from, earlier, until)
				}
			}
		}
	}
}

// TestRoundsAreBounded holds that a round stays below maxRoundBytes whatever the
// topics take, and that a record larger than that still goes.
func TestRoundsAreBounded(t *testing.T) {
	layout := testLayout()
	layout.MaxMessageBytes[Events] = 64 << 20
	layout.MaxMessageBytes[DeadLetters] = 64 << 20
	d := closing(t, layout)
	for i := range 24 {
		add(t, d, Events, fmt.Sprint(i), strings.Repeat("x", 1<<20))
	}
	add(t, d, DeadLetters, "acme", strings.Repeat("x", 9<<20))
	r := seal(t, d).newRounds(batchHeader{}, false, zero)
	records, count := 0, 0
	var built *round
	for {
		if built = r.next(built); built == nil {
			break
		}
		count++
		size := 0
		for _, b := range built.batches {
			size += len(b.wire)
			records += b.records
		}
		if size > maxRoundBytes+100 && len(built.batches) > 1 {
			t.Errorf("a round of %d batches has %d bytes", len(built.batches), size)
		}
	}
	if records != d.Records(Events)+4 || count > 7 {
		t.Errorf("%d records in %d rounds", records, count)
	}
}

// TestRoundsAreDeterministic holds that a second attempt, and a retry, send the
// same bytes, whatever the compression.
func TestRoundsAreDeterministic(t *testing.T) {
	for _, compression := range allCompressions {
		layout := testLayout()
		layout.Compression = compression
		layout.MaxMessageBytes[Events] = 20_000
		d := closing(t, layout)
		for i := range 3000 {
			add(t, d, Events, fmt.Sprint(i%50), strings.Repeat(fmt.Sprint(i), 10))
		}
		c := seal(t, d)
		gather := func() (wire []byte) {
			r := c.newRounds(batchHeader{sender: identity{1, 2}, transactional: true}, false, zero)
			var built *round
			for {
				if built = r.next(built); built == nil {
					return wire
				}
				for _, b := range built.batches {
					wire = append(wire, b.wire...)
				}
			}
		}
		if first, second := gather(), gather(); !bytes.Equal(first, second) || len(first) < 1000 {
			t.Errorf("%s: %d bytes differ from the %d of the same commit", compression, len(second), len(first))
		}
	}
}

// TestRoundsLeaveUnansweredBytesAlone holds that the bytes of a request that got
// no answer are not overwritten: kafka-go may still be sending them.
func TestRoundsLeaveUnansweredBytesAlone(t *testing.T) {
	layout := testLayout()
	layout.MaxMessageBytes[Events] = 400
	d := closing(t, layout)
	for i := range 60 {
		add(t, d, Events, fmt.Sprint(i), strings.Repeat(fmt.Sprint(i%10), 100))
	}
	for _, unanswered := range []bool{true, false} {
		r := seal(t, d).newRounds(batchHeader{}, false, zero)
		first := r.next(nil)
		first.unanswered = unanswered
		before := bytes.Clone(first.batches[0].wire)
		r.next(first)
		if kept := bytes.Equal(before, first.batches[0].wire); kept != unanswered {
			t.Errorf("unanswered %v: bytes kept %v", unanswered, kept)
		}
	}
}
