// Package eventlog reads the events topic: which record is where, since when,
// and what its body is compared by. [Scan] is behind `cdrbus tail`, which shows
// events, and `cdrbus verify`, which holds the topic against the feed.
//
//		committed.Reader -> record -> Schemas (which one?) -> Skim -> Event -> each
//
//	  - Only what is committed is read, up to the last stable offset and no further.
//	  - Whatever stands in the topic, a scan goes on: what is no event, and what
//	    cannot be read as one, is counted, named once and skipped. Only a schema
//	    registry that does not answer ends it, where an event needs it: to skip
//	    what may be good would be to lose it quietly.
//	  - Everything is taken from the Avro body, so it is there with CloudEvents
//	    headers switched off; only Source, Late and Revision are then not known.
//	  - Memory does not grow with the number of events: nothing of them is kept.
package eventlog

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/schema"
)

// Event is one event of the topic. It and its slices are valid only during the
// call that hands it over; [Event.Clone] keeps one.
type Event struct {
	Partition int
	Offset    int64
	At        time.Time // of its commit
	Key       []byte
	Value     []byte // Confluent wire format

	ReportID         cdr.ReportID
	ReportIDText     []byte
	ReportTimeMillis int64 // since the Unix epoch; 0: none
	SchemaID         int

	// Hash is of the Avro body, as schema.Item.Hash is. It compares with what the
	// feed returns now if Comparable; else it only tells two bodies of one
	// SchemaID apart.
	Hash       uint64
	Comparable bool

	// From the headers; unset without them.
	Source         string // of cdrbus, such as acme
	Late, Revision bool

	writer  *schema.WriterSchema // nil: read as of this version's schema
	decoded *schema.Event        // if reading it had to decode it
	assumed bool                 // its schema could not be looked up
}

// Decode returns the event with all its fields.
func (e *Event) Decode() (*schema.Event, error) {
	switch {
	case e.decoded != nil:
		return e.decoded, nil
	case e.writer != nil:
		return schema.DecodeWith(e.writer, e.Value)
	}
	return schema.Decode(e.Value)
}

// Options say what a scan reads.
type Options struct {
	Topic      string
	Partitions []int // nil: all
	From       Place // zero: the first event that still exists
	Until      Place // exclusive; zero: the last stable offset

	// SchemaByID returns the text of a schema, as schema.Registry.SchemaByID
	// does. Nil: there is no registry, and whatever fits this version's schema
	// is taken for written under it.
	SchemaByID func(ctx context.Context, id int) (string, error)

	// Schemas, if set, is what earlier scans have learned, and SchemaByID is not
	// used: for scans of one topic one after another.
	Schemas *Schemas

	// Parallel is how many partitions are read at a time; 0: 2. Each costs two
	// answers of the broker of 1 MiB, as they are after decompression.
	Parallel int

	// Ordered hands over the events of all partitions in the order of their
	// commit times, as far as each partition is in that order: shards commit
	// beside each other, by clocks that may differ. All partitions are then read
	// at a time.
	Ordered bool

	// Warn is told once about each kind of record that is skipped, and each
	// schema that cannot be looked up. Nil: nobody wants to know.
	Warn func(warning string)
}

const defaultParallel = 2

// Counts is what a scan has met.
type Counts struct {
	Events      int64 // handed over
	Foreign     int64 // records that are none of cdrbus: skipped
	Undecodable int64 // records whose body is not what their schema says: skipped
	Lost        int64 // records under a schema that the registry has lost: skipped
	Assumed     int64 // of Events: their schema could not be looked up, and they fit this version's
}

// Skipped is how many records were not handed over.
func (c Counts) Skipped() int64 { return c.Foreign + c.Undecodable + c.Lost }

// Ends is how far a scan has come.
type Ends struct {
	Counts
	Partitions []End // by number
	LostIDs    []int // schemas that could not be looked up, in order

	whole bool // all partitions of the topic were read
}

// End is how far a scan has come in a partition.
type End struct {
	Partition int
	// Next is the offset to go on from: of the event that each refused, if it did;
	// negative if the partition was not begun.
	Next   int64
	Bounds committed.Bounds // when the partition was begun
}

// Next is where a scan that goes on begins, as [Options.From]. Where all partitions
// were read, those that have been added to the topic since are read, too.
func (e Ends) Next() Place {
	offsets := map[int]int64{}
	for _, end := range e.Partitions {
		offsets[end.Partition] = end.Next
	}
	place := AtOffsets(offsets)
	place.others = e.whole
	return place
}

// Scan hands the events of a topic to each, which is called by one goroutine at
// a time: within a partition in the order of the log, across partitions in none
// unless o.Ordered. An error of each ends the scan and is returned as it is.
// Ends is of use after any error: a scan may go on from there.
func Scan(ctx context.Context, reader *committed.Reader, o Options, each func(*Event) error) (Ends, error) {
	s := &scan{reader: reader, options: o, each: each}
	if s.options.Schemas == nil {
		s.options.Schemas = NewSchemas(o.SchemaByID)
	}
	if err := s.resolve(ctx); err != nil {
		return Ends{}, err
	}
	var err error
	if o.Ordered {
		err = s.inOrder(ctx)
	} else {
		err = s.inParallel(ctx)
	}
	return s.ends(), err
}

// scan is a Scan under way.
type scan struct {
	reader  *committed.Reader
	options Options
	stretch []*stretch // those of the partitions that are read, by number

	mu              sync.Mutex // calls of each and of Warn
	each            func(*Event) error
	refused         error // by each
	events, assumed int64 // handed over
}

// stretch is what is read of one partition, by one goroutine at a time.
type stretch struct {
	end            End
	untilExclusive int64
	interpreter    interpreter
}

// resolve fixes which partitions are read, and from where to where.
func (s *scan) resolve(ctx context.Context) error {
	partitions := slices.Sorted(slices.Values(s.options.Partitions))
	if s.options.Partitions == nil {
		var err error
		if partitions, err = s.allPartitions(ctx); err != nil {
			return err
		}
	}
	for _, p := range partitions {
		if !s.options.From.names(p) {
			continue
		}
		from, err := s.options.From.offset(ctx, s.reader, s.options.Topic, p, committed.Earliest)
		if err != nil {
			return err
		}
		until, err := s.options.Until.offset(ctx, s.reader, s.options.Topic, p, committed.LastStable)
		if err != nil {
			return err
		}
		s.stretch = append(s.stretch, &stretch{end: End{Partition: p, Next: from}, untilExclusive: until})
	}
	return nil
}

// allPartitions are those of the topic, among which those of the places must be.
func (s *scan) allPartitions(ctx context.Context) (partitions []int, err error) {
	count, err := s.reader.Partitions(ctx, s.options.Topic)
	if err != nil {
		return nil, err
	}
	for p := range count {
		partitions = append(partitions, p)
	}
	for _, place := range []Place{s.options.From, s.options.Until} {
		for _, p := range slices.Sorted(maps.Keys(place.offsets)) {
			if p < 0 || p >= count {
				return nil, fmt.Errorf("read topic %s: it has no partition %d, only 0 to %d", s.options.Topic, p, count-1)
			}
		}
	}
	return partitions, nil
}

func (s *scan) inParallel(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cmp.Or(s.options.Parallel, defaultParallel))
	for _, part := range s.stretch {
		group.Go(func() error { return s.read(ctx, part, s.handOver) })
	}
	return group.Wait()
}

// handOver calls each, unless it has refused an event already.
func (s *scan) handOver(e *Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = s.each(e)
	}
	if s.refused != nil {
		return s.refused
	}
	s.events++
	if e.assumed {
		s.assumed++
	}
	return nil
}

// read hands the events of a partition to emit, and moves its end on.
func (s *scan) read(ctx context.Context, part *stretch, emit func(*Event) error) error {
	in := &part.interpreter
	in.partition, in.schemas, in.warn = part.end.Partition, s.options.Schemas, s.warn
	next, bounds, err := s.reader.Read(ctx, s.options.Topic, part.end.Partition, part.end.Next, part.untilExclusive, func(r committed.Record) error {
		if found, err := in.interpret(ctx, &r); err != nil || !found {
			return err
		}
		return emit(&in.event)
	})
	part.end.Next, part.end.Bounds = next, bounds
	return err
}

func (s *scan) warn(text string) {
	if s.options.Warn == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options.Warn(text)
}

func (s *scan) ends() Ends {
	from := &s.options.From
	ends := Ends{
		Counts: Counts{Events: s.events, Assumed: s.assumed},
		whole:  s.options.Partitions == nil && (from.offsets == nil || from.others),
	}
	for _, part := range s.stretch {
		c := &part.interpreter.counts
		ends.Foreign += c.Foreign
		ends.Undecodable += c.Undecodable
		ends.Lost += c.Lost
		ends.Partitions = append(ends.Partitions, part.end)
	}
	ends.LostIDs = s.options.Schemas.lost()
	return ends
}
