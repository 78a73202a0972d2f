package eventlog

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Partitions are merged as they are read. Each has a goroutine that reads ahead
// of the merge by batches of bounded size, two at a time; it ends with its
// partition or with the scan.

const (
	batchEvents = 256
	batchBytes  = 256 << 10
)

// batch is events of one partition that wait for their turn. It owns them.
type batch struct {
	events []Event
	arena  []byte
}

// stream is a partition as the merge sees it.
type stream struct {
	part    *stretch
	batches chan batch // closed when the partition is read, or reading it has failed
	queue   []Event    // of the batch in hand; its first is the head
	handed  int64      // offset behind the last event handed over
}

// inOrder hands over the events of all partitions by their commit times.
func (s *scan) inOrder(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	readers, ctx := errgroup.WithContext(ctx)
	var streams []*stream
	for _, part := range s.stretch {
		st := &stream{part: part, batches: make(chan batch, 1), handed: part.end.Next}
		streams = append(streams, st)
		readers.Go(func() error {
			defer close(st.batches)
			return s.readBatches(ctx, st)
		})
	}
	refused := s.merge(streams)
	cancel()
	err := readers.Wait()
	if refused != nil {
		err = refused
	}
	if err != nil {
		// What was read ahead was not handed over.
		for _, st := range streams {
			st.part.end.Next = st.handed
		}
	}
	return err
}

// merge hands over the earliest head until no partition has any. One that has
// failed ends like one that was read: the others' readers are then cancelled.
func (s *scan) merge(streams []*stream) error {
	for {
		var first *stream
		for _, st := range streams {
			if st.fill() && (first == nil || st.queue[0].At.Before(first.queue[0].At)) {
				first = st
			}
		}
		if first == nil {
			return nil
		}
		e := &first.queue[0]
		if err := s.handOver(e); err != nil {
			first.handed = e.Offset
			return err
		}
		first.handed = e.Offset + 1
		first.queue = first.queue[1:]
	}
}

// fill waits for the stream's head, and reports whether it has one.
func (st *stream) fill() bool {
	for len(st.queue) == 0 {
		b, more := <-st.batches
		if !more {
			return false
		}
		st.queue = b.events
	}
	return true
}

// readBatches reads a partition into batches.
func (s *scan) readBatches(ctx context.Context, st *stream) error {
	var b batch
	send := func() error {
		if len(b.events) == 0 {
			return nil
		}
		select {
		case st.batches <- b:
			b = batch{}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := s.read(ctx, st.part, func(e *Event) error {
		var kept Event
		kept, b.arena = e.copyTo(b.arena)
		b.events = append(b.events, kept)
		if len(b.events) < batchEvents && len(b.arena) < batchBytes {
			return nil
		}
		return send()
	})
	if err != nil {
		return err
	}
	return send()
}
