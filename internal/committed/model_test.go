package committed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// modelLog is a partition as a broker keeps it, with what a broker knows and a
// consumer does not: which transaction each batch belongs to.
type modelLog struct {
	batches   []modelBatch
	aborted   []modelAborted
	logStart  int64
	endOffset int64
	openFirst map[int64]int64 // producer -> first offset of its open transaction
}

type modelBatch struct {
	base, last int64
	producer   int64 // -1: not transactional
	control    bool
	abort      bool    // of a control batch
	committed  bool    // of a data batch: whether a reader may see it
	offsets    []int64 // of the records that compaction left
}

type modelAborted struct{ producer, first, marker int64 }

// newModelLog builds a log from a script: one byte for each action.
func newModelLog(script []byte) *modelLog {
	l := &modelLog{openFirst: map[int64]int64{}}
	for _, b := range script {
		producer := int64(b>>3)%3 + 1
		switch b % 8 {
		case 0:
			l.data(-1, int(b>>5)+1)
		case 1, 2, 3:
			l.data(producer, int(b>>5)+1)
		case 4, 5:
			l.end(producer, false)
		case 6:
			l.end(producer, true)
		case 7:
			l.endOffset += int64(b >> 3) // a hole: batches that compaction took whole
		}
	}
	return l
}

func (l *modelLog) data(producer int64, count int) {
	batch := modelBatch{base: l.endOffset, producer: producer, committed: producer < 0}
	for range count {
		batch.offsets = append(batch.offsets, l.endOffset)
		l.endOffset++
	}
	batch.last = l.endOffset - 1
	if producer >= 0 {
		if _, open := l.openFirst[producer]; !open {
			l.openFirst[producer] = batch.base
		}
	}
	l.batches = append(l.batches, batch)
}

func (l *modelLog) end(producer int64, abort bool) {
	first, open := l.openFirst[producer]
	if !open {
		return
	}
	delete(l.openFirst, producer)
	for i := range l.batches {
		if b := &l.batches[i]; b.producer == producer && !b.control && b.base >= first {
			b.committed = !abort
		}
	}
	if abort {
		l.aborted = append(l.aborted, modelAborted{producer, first, l.endOffset})
	}
	l.batches = append(l.batches, modelBatch{base: l.endOffset, last: l.endOffset, producer: producer, control: true, abort: abort, offsets: []int64{l.endOffset}})
	l.endOffset++
}

// compact does to stable batches what the log cleaner does: records go, aborted
// data goes, batches stay empty or go, and a marker goes only when the data of
// its transaction is gone, an abort marker together with its entry.
func (l *modelLog) compact(random *rand.Rand) {
	stable := l.lastStable()
	for i := range l.batches {
		b := &l.batches[i]
		if b.control || b.last >= stable {
			continue
		}
		aborted := b.producer >= 0 && !b.committed
		keepNone := aborted && random.IntN(2) == 0
		b.offsets = slices.DeleteFunc(b.offsets, func(int64) bool { return keepNone || !aborted && random.IntN(3) == 0 })
	}
	l.aborted = slices.DeleteFunc(l.aborted, func(a modelAborted) bool {
		return !l.hasData(a) && random.IntN(2) == 0 && l.dropMarker(a.marker)
	})
	l.batches = slices.DeleteFunc(l.batches, func(b modelBatch) bool {
		return len(b.offsets) == 0 && (b.control || random.IntN(2) == 0)
	})
}

func (l *modelLog) hasData(a modelAborted) bool {
	return slices.ContainsFunc(l.batches, func(b modelBatch) bool {
		return b.producer == a.producer && !b.control && b.base >= a.first && b.base < a.marker && len(b.offsets) > 0
	})
}

func (l *modelLog) dropMarker(offset int64) bool {
	for i := range l.batches {
		if l.batches[i].control && l.batches[i].base == offset {
			l.batches[i].offsets = nil
		}
	}
	return true
}

func (l *modelLog) lastStable() int64 {
	stable := l.endOffset
	for _, first := range l.openFirst {
		stable = min(stable, first)
	}
	return stable
}

// visible is the naive answer: the offsets that a read_committed reader sees.
func (l *modelLog) visible(fromInclusive, untilExclusive int64) []int64 {
	var offsets []int64
	for _, b := range l.batches {
		for _, o := range b.offsets {
			if !b.control && b.committed && o >= fromInclusive && o < min(untilExclusive, l.lastStable()) {
				offsets = append(offsets, o)
			}
		}
	}
	return offsets
}

// modelBroker answers for a modelLog as the leader of "t"-0 does.
type modelBroker struct {
	log          *modelLog
	batchesLimit int // batches of one answer

	mu       sync.Mutex // an answer is fetched while another one is closed
	requests int
	unclosed map[string]bool // keys and values handed out and not closed
}

func (m *modelBroker) RoundTrip(_ context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	m.mu.Lock()
	m.requests++
	m.mu.Unlock()
	switch r := request.(type) {
	case *describeconfigs.Request:
		return &describeconfigs.Response{Resources: []describeconfigs.ResponseResource{{
			ConfigEntries: []describeconfigs.ResponseConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "compact"}},
		}}}, nil
	case *fetch.Request:
		p := r.Topics[0].Partitions[0]
		return &fetch.Response{Topics: []fetch.ResponseTopic{{Topic: "t", Partitions: []fetch.ResponsePartition{m.fetch(p.FetchOffset)}}}}, nil
	case *listoffsets.Request:
		offset := m.log.endOffset
		switch p := r.Topics[0].Partitions[0]; {
		case p.Timestamp == earliestTimestamp:
			offset = m.log.logStart
		case r.IsolationLevel == readCommitted:
			offset = m.log.lastStable()
		}
		return &listoffsets.Response{Topics: []listoffsets.ResponseTopic{{Topic: "t", Partitions: []listoffsets.ResponsePartition{{Offset: offset}}}}}, nil
	default:
		return nil, fmt.Errorf("unexpected request %T", request)
	}
}

func (m *modelBroker) fetch(offset int64) fetch.ResponsePartition {
	l := m.log
	if offset < l.logStart || offset > l.endOffset {
		return fetch.ResponsePartition{ErrorCode: int16(kafka.OffsetOutOfRange), HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1}
	}
	answer := fetch.ResponsePartition{HighWatermark: l.endOffset, LastStableOffset: l.lastStable(), LogStartOffset: l.logStart}
	stream := &protocol.RecordStream{}
	upper := offset
	for _, b := range l.batches {
		if b.last < offset || b.base >= l.lastStable() || len(stream.Records) == m.batchesLimit {
			continue
		}
		stream.Records = append(stream.Records, m.encode(b))
		upper = b.last + 1
	}
	if len(stream.Records) > 0 {
		answer.RecordSet.Records = stream
	}
	for _, a := range l.aborted {
		if a.marker >= offset && a.first < upper {
			answer.AbortedTransactions = append(answer.AbortedTransactions, fetch.ResponseTransaction{ProducerID: a.producer, FirstOffset: a.first})
		}
	}
	return answer
}

func (m *modelBroker) encode(b modelBatch) protocol.RecordReader {
	attributes := protocol.Attributes(0)
	if b.producer >= 0 {
		attributes |= protocol.Transactional
	}
	var records []protocol.Record
	for _, o := range b.offsets {
		key := fmt.Appendf(nil, "k%d", o)
		if b.control {
			key = []byte{0, 0, 0, 1}
			if b.abort {
				key[3] = 0
			}
		}
		records = append(records, protocol.Record{Offset: o, Time: time.UnixMilli(o), Key: m.track(o, "key", key), Value: m.track(o, "value", fmt.Appendf(nil, "v%d", o))})
	}
	if b.control {
		return &protocol.ControlBatch{Attributes: attributes | protocol.Control, BaseOffset: b.base, ProducerID: b.producer, Records: protocol.NewRecordReader(records...)}
	}
	return &protocol.RecordBatch{Attributes: attributes, BaseOffset: b.base, ProducerID: b.producer, Records: protocol.NewRecordReader(records...)}
}

// trackedBytes stands for kafka-go's pooled pages.
type trackedBytes struct {
	protocol.Bytes
	close func()
}

func (b trackedBytes) Close() error { b.close(); return b.Bytes.Close() }

func (m *modelBroker) track(offset int64, part string, data []byte) protocol.Bytes {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unclosed == nil {
		m.unclosed = map[string]bool{}
	}
	name := fmt.Sprintf("%s of %d in request %d", part, offset, m.requests)
	m.unclosed[name] = true
	return trackedBytes{protocol.NewBytes(data), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.unclosed, name)
	}}
}

// reader believes in a hole without waiting: the model never changes its mind.
func (m *modelBroker) reader() *Reader {
	r := scriptedReader(m)
	r.retry.holePatience = 0
	return r
}

func scriptedReader(transport kafka.RoundTripper) *Reader {
	return NewReader(&kafka.Client{Addr: kafka.TCP("model:9092"), Timeout: 10 * time.Second, Transport: transport})
}

// checkAgainstModel reads [from, until) and compares with the naive answer.
func checkAgainstModel(t *testing.T, l *modelLog, batchesLimit int, from, until int64) {
	t.Helper()
	broker := &modelBroker{log: l, batchesLimit: batchesLimit}
	var got []int64
	next, bounds, err := broker.reader().Read(t.Context(), "t", 0, from, until, func(r Record) error {
		if string(r.Key) != fmt.Sprintf("k%d", r.Offset) || string(r.Value) != fmt.Sprintf("v%d", r.Offset) || r.Timestamp.UnixMilli() != r.Offset {
			t.Errorf("record %d has key %q, value %q, time %s", r.Offset, r.Key, r.Value, r.Timestamp)
		}
		got = append(got, r.Offset)
		return nil
	})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	end := l.lastStable()
	if until >= 0 {
		end = min(end, until)
	}
	if want := l.visible(from, end); !slices.Equal(got, want) {
		t.Errorf("read [%d, %d) of %+v\n aborted %+v\n got  %v\n want %v", from, until, l.batches, l.aborted, got, want)
	}
	if want := max(end, from); next != want {
		t.Errorf("read [%d, %d): next is %d, want %d", from, until, next, want)
	}
	if want := (Bounds{l.logStart, l.lastStable(), l.endOffset}); bounds != want {
		t.Errorf("bounds %+v, want %+v", bounds, want)
	}
	if len(broker.unclosed) > 0 {
		t.Errorf("%d buffers not closed: %v", len(broker.unclosed), broker.unclosed)
	}
	if limit := 2*int(l.endOffset) + 4; broker.requests > limit {
		t.Errorf("%d requests for a log of %d offsets", broker.requests, l.endOffset)
	}
}
