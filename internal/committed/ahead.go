package committed

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go/protocol"
)

// ahead is the page that is fetched while the one before it is handed over:
// kafka-go decompresses and decodes an answer in a goroutine of its own, which
// takes about as long as handing it over. The goroutine of an ahead ends with
// its request; whoever started it calls wait or abandon, once.
type ahead struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when page and err are set
	page   *page
	err    error
}

// fetchAhead starts a fetch.
func (r *Reader) fetchAhead(ctx context.Context, topic string, partition int, offset, stableExclusive int64, limitBytes int32) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.page, a.err = r.fetch(ctx, topic, partition, offset, stableExclusive, limitBytes)
	}()
	return a
}

// wait returns what fetch returned.
func (a *ahead) wait() (*page, error) {
	<-a.done
	a.cancel()
	return a.page, a.err
}

// abandon ends the request, and gives back what it brought.
func (a *ahead) abandon() {
	a.cancel()
	if page, err := a.wait(); err == nil {
		page.release()
	}
}

// following returns the offset to fetch after a page that was fetched at from: the
// one behind its last record, and always beyond from. It reads the last batch, which
// alone knows, and leaves a copy to be read again. The page has batches.
func (p *page) following(from int64) (int64, error) {
	last := p.batches[len(p.batches)-1]
	header, err := headerOf(last)
	if err != nil {
		return from, err
	}
	var records []protocol.Record
	for {
		record, err := last.ReadRecord()
		if err != nil {
			break // io.EOF: a batch is decoded as a whole before it gets here
		}
		records = append(records, *record)
	}
	// The base alone moves on past a batch that compaction has emptied. If all its
	// records lie below from, compaction has shortened it, and kafka-go does not show
	// where it ends: then the next offset is tried.
	next := max(from, header.baseOffset) + 1
	if len(records) > 0 {
		next = max(next, records[len(records)-1].Offset+1)
	}
	switch again := protocol.NewRecordReader(records...); batch := last.(type) {
	case *protocol.RecordBatch:
		batch.Records = again
	case *protocol.ControlBatch:
		batch.Records = again
	default:
		return from, fmt.Errorf("%w: batch %T", errUnknownFormat, batch)
	}
	return next, nil
}
