package committed

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// errUnknownFormat says that kafka-go handed over something other than batches.
var errUnknownFormat = errors.New("record set of a format that this reader does not know")

// page is one answer of the leader for one partition: batches in the order of
// the log, and the transactions among them that were aborted. Its records hold
// pooled buffers of kafka-go until each or release has closed them.
type page struct {
	bounds  Bounds
	batches []protocol.RecordReader     // each and release leave them read to the end
	aborted []fetch.ResponseTransaction // sorted by FirstOffset
}

func pageOf(p *fetch.ResponsePartition) (*page, error) {
	result := &page{
		bounds:  Bounds{LogStart: p.LogStartOffset, LastStable: p.LastStableOffset, HighWatermark: p.HighWatermark},
		aborted: slices.Clone(p.AbortedTransactions),
	}
	slices.SortFunc(result.aborted, func(a, b fetch.ResponseTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	switch records := p.RecordSet.Records.(type) {
	case nil:
	case *protocol.RecordStream:
		result.batches = records.Records
	default:
		return nil, fmt.Errorf("%w: %T", errUnknownFormat, records)
	}
	return result, nil
}

// each hands the committed records of [fromInclusive, endExclusive) to emit and
// returns the offset to fetch next, which is fromInclusive if the page holds
// nothing beyond it. It closes every record, also after an error, and may be
// called once.
//
// scratch is the buffer that records are copied to; the grown one is returned.
func (p *page) each(fromInclusive, endExclusive int64, scratch []byte, emit func(Record) error) (next int64, _ []byte, err error) {
	defer p.release()
	next = fromInclusive
	filter := abortFilter{pending: p.aborted}
	for _, batch := range p.batches {
		if next >= endExclusive {
			break
		}
		header, err := headerOf(batch)
		if err != nil {
			return next, scratch, err
		}
		drop := filter.enter(header)
		for {
			record, err := batch.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return next, scratch, fmt.Errorf("decode batch at offset %d: %w", header.baseOffset, err)
			}
			// A fetch inside a batch returns the whole batch, with the records
			// before the offset asked for.
			wanted := record.Offset >= next && record.Offset < endExclusive
			switch {
			case header.control:
				filter.marker(header, record)
			case wanted && !drop:
				scratch, err = emitCopy(record, scratch, emit)
			}
			closeRecord(record)
			if err != nil {
				return record.Offset, scratch, err
			}
			next = max(next, record.Offset+1)
		}
		// The base alone moves on past a batch that compaction has emptied.
		next = max(next, header.baseOffset+1)
	}
	return min(next, max(endExclusive, fromInclusive)), scratch, nil
}

// release closes what each has not read.
func (p *page) release() {
	for _, batch := range p.batches {
		for {
			record, err := batch.ReadRecord()
			if err != nil {
				break // io.EOF: a batch is decoded as a whole before it gets here
			}
			closeRecord(record)
		}
	}
}

// batchHeader is what the filter needs to know of a batch.
type batchHeader struct {
	baseOffset    int64
	producerID    int64
	transactional bool
	control       bool
}

func headerOf(batch protocol.RecordReader) (batchHeader, error) {
	switch b := batch.(type) {
	case *protocol.RecordBatch:
		return batchHeader{baseOffset: b.BaseOffset, producerID: b.ProducerID, transactional: b.Attributes.Transactional()}, nil
	case *protocol.ControlBatch:
		return batchHeader{baseOffset: b.BaseOffset, producerID: b.ProducerID, transactional: b.Attributes.Transactional(), control: true}, nil
	default:
		return batchHeader{}, fmt.Errorf("%w: batch %T", errUnknownFormat, batch)
	}
}

// abortFilter tells the batches of aborted transactions from the others, as
// Java's consumer does (KIP-98): the leader sends the aborted transactions that
// reach into the answer, each with its producer and first offset.
type abortFilter struct {
	pending []fetch.ResponseTransaction // not yet reached, sorted by FirstOffset
	open    map[int64]bool              // producers inside an aborted transaction
}

// enter is called with every batch in the order of the log and reports whether
// its records are aborted.
//
// Entries are taken at control batches too. After compaction the data of an
// aborted transaction may be gone while its marker and its entry remain; were
// the entry taken at the next data batch only, it would be taken after its own
// marker, stay open, and swallow the producer's next committed transaction.
func (f *abortFilter) enter(b batchHeader) (drop bool) {
	for len(f.pending) > 0 && f.pending[0].FirstOffset <= b.baseOffset {
		if f.open == nil {
			f.open = make(map[int64]bool)
		}
		f.open[f.pending[0].ProducerID] = true
		f.pending = f.pending[1:]
	}
	return b.transactional && !b.control && f.open[b.producerID]
}

// Control records: the key is version and type, both 16 bits (KIP-98).
const (
	controlKeyBytes  = 4
	controlTypeAbort = 0
)

// marker is called with every control record; an abort marker ends the
// producer's aborted transaction.
func (f *abortFilter) marker(b batchHeader, record *protocol.Record) {
	if record.Key == nil {
		return
	}
	var key [controlKeyBytes]byte
	if _, err := io.ReadFull(record.Key, key[:]); err != nil {
		return // not a marker: markers have whole keys
	}
	if binary.BigEndian.Uint16(key[2:]) == controlTypeAbort {
		delete(f.open, b.producerID)
	}
}

// emitCopy copies the record out of kafka-go's pages and hands it over.
func emitCopy(record *protocol.Record, scratch []byte, emit func(Record) error) ([]byte, error) {
	keyBytes, valueBytes := lengthOf(record.Key), lengthOf(record.Value)
	scratch = slices.Grow(scratch[:0], keyBytes+valueBytes)
	key, err := readInto(scratch[:keyBytes:keyBytes], record.Key)
	if err != nil {
		return scratch, fmt.Errorf("read key of record %d: %w", record.Offset, err)
	}
	value, err := readInto(scratch[keyBytes:keyBytes+valueBytes], record.Value)
	if err != nil {
		return scratch, fmt.Errorf("read value of record %d: %w", record.Offset, err)
	}
	return scratch, emit(Record{
		Offset:    record.Offset,
		Key:       key,
		Value:     value,
		Headers:   record.Headers,
		Timestamp: record.Time.UTC(),
	})
}

func lengthOf(b protocol.Bytes) int {
	if b == nil {
		return 0
	}
	return b.Len()
}

// readInto fills buffer from b. It returns nil for Kafka's null.
func readInto(buffer []byte, b protocol.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	_, err := io.ReadFull(b, buffer)
	return buffer, err
}

func closeRecord(record *protocol.Record) {
	if record.Key != nil {
		record.Key.Close()
	}
	if record.Value != nil {
		record.Value.Close()
	}
}
