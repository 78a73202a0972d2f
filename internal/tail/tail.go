// Package tail shows the events topic as it grows: `cdrbus tail`.
//
//	eventlog.Scan, ordered -> Filter -> recent (dedupe) -> Print
//
// [Run] is one scan after another, each from where the last one ended, until
// what was asked for is shown. It keeps nothing of what it has shown but the last
// Report IDs, if repeats are to be left out.
package tail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/committed"
	"cdrbus/internal/eventlog"
	"cdrbus/schema"
)

// Options say what is shown. Topic and Print are required.
type Options struct {
	Topic      string
	SchemaByID func(ctx context.Context, id int) (string, error) // as eventlog.Options has it

	From   eventlog.Place
	Until  Until
	Last   int   // if not 0, instead of From: begin with the last so many events that pass
	Limit  int64 // if not 0, end after so many events
	Follow bool  // wait for more at the end of the topic
	Filter Filter
	Dedupe bool // leave out what repeats, unchanged, an event shown before

	Print func(e *eventlog.Event, decoded *schema.Event) error
	Flush func() error // what Print has kept back; called before waiting and at the end; nil: nothing
	Warn  func(warning string)

	Poll time.Duration // between two looks for more; 0: 500 ms
}

const defaultPoll = 500 * time.Millisecond

// Totals is what a Run has met.
type Totals struct {
	eventlog.Counts
	Shown   int64
	Repeats int64 // left out by Dedupe
}

var errEnough = errors.New("enough events are shown")

// Run shows events until its options, the end of ctx, or a reader that has closed
// the pipe end it: none of the three is an error.
func Run(ctx context.Context, reader *committed.Reader, o Options) (Totals, error) {
	r := &run{reader: reader, o: o, schemas: eventlog.NewSchemas(o.SchemaByID), repeats: newRecent(rememberedIDs)}
	err := r.follow(ctx)
	if errors.Is(err, errEnough) || ctx.Err() != nil {
		err = nil
	}
	if flushErr := r.flush(); err == nil {
		err = flushErr
	}
	if isClosedPipe(err) {
		err = nil
	}
	return r.totals, explain(err)
}

// run is a Run under way. It belongs to one goroutine.
type run struct {
	reader  *committed.Reader
	o       Options
	schemas *eventlog.Schemas
	repeats *recent
	totals  Totals
}

func (r *run) follow(ctx context.Context) error {
	from := r.o.From
	if r.o.Last > 0 {
		var err error
		if from, err = r.last(ctx); err != nil {
			return err
		}
	}
	for {
		began := time.Now()
		ends, err := r.scan(ctx, from, r.o.Until.Place, r.show)
		r.totals.add(ends.Counts)
		if err != nil {
			return err
		}
		if !r.o.Follow || r.o.Until.reached(began, ends) {
			return nil
		}
		if err := r.flush(); err != nil {
			return err
		}
		from = ends.Next()
		if !wait(ctx, r.o.Poll) {
			return ctx.Err()
		}
	}
}

// wait reports whether the time has passed and ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		d = defaultPoll
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// scan hands over, in the order of their commits, the events that are to be shown.
func (r *run) scan(ctx context.Context, from, until eventlog.Place, each func(*eventlog.Event) error) (eventlog.Ends, error) {
	o := eventlog.Options{Topic: r.o.Topic, From: from, Until: until, Schemas: r.schemas, Ordered: true, Warn: r.o.Warn}
	return eventlog.Scan(ctx, r.reader, o, func(e *eventlog.Event) error {
		if !r.o.Filter.passes(e) {
			return nil
		}
		if r.o.Dedupe && r.repeats.repeats(e.ReportID, e.Hash) {
			r.totals.Repeats++
			return nil
		}
		return each(e)
	})
}

// show prints an event.
func (r *run) show(e *eventlog.Event) error {
	decoded, err := e.Decode()
	if err != nil { // its outline could be read, so this is a rare one
		r.totals.Undecodable++
		r.warn(fmt.Sprintf("the event at offset %d of partition %d cannot be decoded (%v); it is skipped", e.Offset, e.Partition, err))
		return nil
	}
	if err := r.o.Print(e, decoded); err != nil {
		return err
	}
	if r.totals.Shown++; r.totals.Shown == r.o.Limit {
		return errEnough
	}
	return nil
}

func (r *run) warn(text string) {
	if r.o.Warn != nil {
		r.o.Warn(text)
	}
}

func (r *run) flush() error {
	if r.o.Flush == nil {
		return nil
	}
	return r.o.Flush()
}

func (t *Totals) add(c eventlog.Counts) {
	t.Events += c.Events
	t.Foreign += c.Foreign
	t.Undecodable += c.Undecodable
	t.Lost += c.Lost
	t.Assumed += c.Assumed
}

func isClosedPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

// explain adds what to do to errors whose remedy depends on who reads.
func explain(err error) error {
	var gone *committed.OutOfRangeError
	switch {
	case errors.As(err, &gone):
		return fmt.Errorf("%w; begin with what is left: --from earliest", err)
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return fmt.Errorf("%w; to read, the operations Read and Describe are enough", err)
	}
	return err
}
