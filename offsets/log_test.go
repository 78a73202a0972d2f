package offsets

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"cdrbus/internal/committed"
)

// memoryLog is a strict fake of the committed reader: partitions with holes, bounds of
// their own, and records whose slices are spoilt as soon as the call is over.
type memoryLog struct {
	partitions map[string]*memoryPartition
	reads      []string // what was read, as topic/partition[from,until)
	handed     int      // records handed out
	fail       map[string]error
	trusting   bool // hands out its records as they are: for benchmarks, which are not to count the spoiling
}

type memoryPartition struct {
	records []committed.Record
	bounds  committed.Bounds
}

func newLog() *memoryLog {
	return &memoryLog{partitions: map[string]*memoryPartition{}, fail: map[string]error{}}
}

func (l *memoryLog) partition(topic string, partition int) *memoryPartition {
	name := fmt.Sprintf("%s/%d", topic, partition)
	if l.partitions[name] == nil {
		l.partitions[name] = &memoryPartition{}
	}
	return l.partitions[name]
}

// append adds a committed record and the transaction's marker behind it, which is a
// hole for whoever reads. It returns the record's offset.
func (l *memoryLog) append(topic string, partition int, key string, value []byte) int64 {
	p := l.partition(topic, partition)
	offset := p.bounds.HighWatermark
	p.records = append(p.records, committed.Record{Offset: offset, Key: []byte(key), Value: value, Timestamp: day.Time().Add(time.Duration(offset) * time.Second)})
	p.bounds.HighWatermark += 2
	p.bounds.LastStable = p.bounds.HighWatermark
	return offset
}

// cut removes what lies before offset, as retention does.
func (l *memoryLog) cut(topic string, partition int, offset int64) {
	p := l.partition(topic, partition)
	p.bounds.LogStart = offset
	for len(p.records) > 0 && p.records[0].Offset < offset {
		p.records = p.records[1:]
	}
}

func (l *memoryLog) Bounds(_ context.Context, topic string, partition int) (committed.Bounds, error) {
	return l.partition(topic, partition).bounds, l.fail["bounds of "+topic]
}

func (l *memoryLog) OffsetAt(_ context.Context, topic string, partition int, at time.Time) (int64, error) {
	p := l.partition(topic, partition)
	for _, r := range p.records {
		if !r.Timestamp.Before(at) {
			return r.Offset, l.fail["offset of "+topic]
		}
	}
	return p.bounds.LastStable, l.fail["offset of "+topic]
}

func (l *memoryLog) Read(_ context.Context, topic string, partition int, fromInclusive, untilExclusive int64, each func(committed.Record) error) (int64, committed.Bounds, error) {
	p := l.partition(topic, partition)
	l.reads = append(l.reads, fmt.Sprintf("%s/%d[%d,%d)", topic, partition, fromInclusive, untilExclusive))
	if fromInclusive < p.bounds.LogStart || untilExclusive > p.bounds.LastStable {
		return fromInclusive, p.bounds, fmt.Errorf("[%d, %d) is out of range", fromInclusive, untilExclusive)
	}
	if err := l.fail["read of "+topic]; err != nil {
		return fromInclusive, p.bounds, err
	}
	var key, value []byte
	for _, r := range p.records {
		if r.Offset < fromInclusive || r.Offset >= untilExclusive {
			continue
		}
		handed := r
		if !l.trusting {
			key, value = append(key[:0], r.Key...), append(value[:0], r.Value...)
			handed.Key, handed.Value = key, value
		}
		l.handed++
		if err := each(handed); err != nil {
			return r.Offset, p.bounds, err
		}
		spoil(key)
		spoil(value)
	}
	return untilExclusive, p.bounds, nil
}

func spoil(b []byte) {
	for i := range b {
		b[i] = 0xee
	}
}

func TestMemoryLogSpoils(t *testing.T) {
	l := newLog()
	l.append("t", 0, "k", []byte("value"))
	var kept []byte
	_, _, err := l.Read(context.Background(), "t", 0, 0, 2, func(r committed.Record) error { kept = r.Value; return nil })
	if err != nil || !bytes.Equal(kept, []byte("\xee\xee\xee\xee\xee")) {
		t.Errorf("a kept slice reads %q, %v", kept, err)
	}
}
