package producer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Commit is a group of windows with their receipts, IDs and positions, ready to
// be sent. It is immutable and refers to its drafts.
type Commit struct {
	layout *Layout
	shard  int
	at     time.Time
	slots  []slot // those that have records, in the order of topics
}

// slot is one partition's share of a commit.
type slot struct {
	place
	parts   []part
	records int
}

// part is what one draft has for a slot.
type part struct {
	draft *Draft
	tails []tail
}

var (
	errNoDrafts   = errors.New("no drafts")
	errNoPosition = errors.New("no position: without one the log could not tell whether the commit happened")
)

// Seal joins drafts into one commit whose records all carry the time at. A
// partition's records keep the order of the drafts and, within one, of Add; they
// share batches, so that a commit of many windows takes no more requests than one
// window of the same size.
func Seal(at time.Time, drafts ...*Draft) (*Commit, error) {
	if len(drafts) == 0 {
		return nil, fmt.Errorf("seal commit: %w", errNoDrafts)
	}
	layout, shard := drafts[0].layout, drafts[0].shard
	c := &Commit{layout: layout, shard: shard, at: at}
	for index := range layout.slotCount() {
		s := slot{place: layout.placeOf(index, shard)}
		for _, d := range drafts {
			if d.layout != layout || d.shard != shard {
				return nil, fmt.Errorf("seal commit: drafts of shards %d and %d, or of two layouts, cannot share a transaction", shard, d.shard)
			}
			if tails := d.slots[index]; len(tails) > 0 {
				s.parts = append(s.parts, part{d, tails})
				s.records += len(tails)
			}
		}
		if s.records > 0 {
			c.slots = append(c.slots, s)
		}
	}
	if len(c.slots) == 0 || c.slots[len(c.slots)-1].topic != Positions {
		return nil, fmt.Errorf("seal commit: %w", errNoPosition)
	}
	return c, nil
}

// Records counts the records of a commit.
func (c *Commit) Records() int {
	count := 0
	for i := range c.slots {
		count += c.slots[i].records
	}
	return count
}

// maxRoundBytes bounds the batches that are in memory, and in one request, at a
// time. kafka-go copies a request once more before it is sent. It also keeps a
// request on a slow link within its time-out, and below the brokers'
// socket.request.max.bytes (100 MiB).
const maxRoundBytes = 8 << 20

// rounds cuts a commit into rounds, for one sender and one attempt. A round has
// at most one batch for each partition, because a broker takes only one batch
// for a partition in a Produce request.
type rounds struct {
	commit  *Commit
	header  batchHeader
	apart   bool // each stage of the commit goes in rounds of its own
	cursors []cursor
	buffer  []byte // of the round before, if nobody can be reading it any more
}

// cursor is how far a slot has been cut.
type cursor struct {
	part, tail int   // the next record
	sent       int   // records before it
	sequence   int32 // of the next record
}

// round is what is sent, and acknowledged, before anything further is.
type round struct {
	batches []batch
	// unanswered says that a request of this round ended without an answer. Its
	// goroutine in kafka-go may still be reading the batches.
	unanswered bool
}

// batch is one record batch on its way to one partition.
type batch struct {
	place
	records    int
	wire       []byte // as kafka-go's RawRecordSet wants it: a 4-byte length, then the batch
	acked      bool
	baseOffset int64 // where the broker put it; valid once acked
}

// newRounds begins a commit anew. The header's sequence is left open: each slot
// has its own, from firstSequence.
func (c *Commit) newRounds(header batchHeader, apart bool, firstSequence func(place) int32) *rounds {
	header.compression = c.layout.Compression
	header.timestampMillis = c.at.UnixMilli()
	r := &rounds{commit: c, header: header, apart: apart, cursors: make([]cursor, len(c.slots))}
	for i := range r.cursors {
		r.cursors[i].sequence = firstSequence(c.slots[i].place)
	}
	return r
}

// cut is the part of a slot that goes into a round.
type cut struct{ slot, records, bytes int }

// next returns the next round, or nil after the last. The round before must be
// acknowledged.
func (r *rounds) next(before *round) *round {
	cuts := r.plan()
	if len(cuts) == 0 {
		return nil
	}
	if before != nil && before.unanswered {
		r.buffer = nil
	}
	r.buffer = r.buffer[:0]
	if r.header.compression == 0 {
		total := 0
		for _, c := range cuts {
			total += 4 + c.bytes
		}
		r.buffer = slices.Grow(r.buffer, total)
	}
	built := &round{batches: make([]batch, len(cuts))}
	ends := make([]int, len(cuts))
	for i, c := range cuts {
		built.batches[i] = batch{place: r.commit.slots[c.slot].place, records: c.records, baseOffset: UnknownOffset}
		r.build(c)
		ends[i] = len(r.buffer)
	}
	start := 0
	for i, end := range ends {
		built.batches[i].wire = r.buffer[start:end:end]
		start = end
	}
	return built
}

// stage groups topics by what has to be in the log before what. An ID in the
// journal says that its event is published; a position says that all of it is.
func (t Topic) stage() int {
	switch t {
	case Events, DeadLetters:
		return 0
	case Receipts, IDs:
		return 1
	default:
		return 2
	}
}

// plan chooses what the next round holds: of each partition as much as its topic
// takes in one batch, and of a later stage only if nothing of an earlier one is
// left for another round. So the position is always in the last round.
//
// Inside a transaction the stages may share a round, since all of it becomes
// visible at once. Without one, each stage waits until the one before is
// acknowledged.
func (r *rounds) plan() []cut {
	var cuts []cut
	total, barrier := 0, Positions.stage()
	for i := range r.commit.slots {
		s := &r.commit.slots[i]
		left := s.records - r.cursors[i].sent
		if left == 0 {
			continue
		}
		if s.topic.stage() > barrier {
			break
		}
		records, bytes := r.fit(i, min(r.commit.layout.MaxMessageBytes[s.topic], maxRoundBytes))
		if total+bytes > maxRoundBytes && len(cuts) > 0 {
			break
		}
		cuts = append(cuts, cut{i, records, bytes})
		total += bytes
		if r.apart || records < left {
			barrier = s.topic.stage()
		}
	}
	return cuts
}

// fit counts how many records of a slot fit in one batch, at least one, and the
// bytes of that batch uncompressed.
func (r *rounds) fit(index, limitBytes int) (records, bytes int) {
	at := r.cursors[index]
	bytes = batchHeaderBytes
	for _, p := range r.commit.slots[index].parts[at.part:] {
		for _, t := range p.tails[at.tail:] {
			size := recordBytes(records, int(t.length))
			if bytes+size > limitBytes && records > 0 {
				return records, bytes
			}
			bytes += size
			records++
		}
		at.tail = 0
	}
	return records, bytes
}

// build appends the batch of a cut to the buffer and moves the slot's cursor.
func (r *rounds) build(c cut) {
	at := &r.cursors[c.slot]
	parts := r.commit.slots[c.slot].parts
	header := r.header
	header.baseSequence = at.sequence
	from := *at
	start := len(r.buffer)
	r.buffer = append(r.buffer, 0, 0, 0, 0)
	r.buffer = appendBatch(r.buffer, header, c.records, c.bytes, func(yield func([]byte)) {
		*at = from // a batch that does not compress is written twice
		for range c.records {
			for at.tail == len(parts[at.part].tails) {
				at.part, at.tail = at.part+1, 0
			}
			p := &parts[at.part]
			yield(p.draft.tailOf(p.tails[at.tail]))
			at.tail++
		}
	})
	binary.BigEndian.PutUint32(r.buffer[start:], uint32(len(r.buffer)-start-4))
	at.sent += c.records
	at.sequence = addSequence(at.sequence, c.records)
}

// addSequence counts on as brokers do: after the largest int32 comes 0.
func addSequence(sequence int32, records int) int32 {
	return int32((int64(sequence) + int64(records)) & 0x7fffffff)
}

// countInto stores the sequences that follow the ones that were sent.
func (r *rounds) countInto(sequences map[place]int32) {
	for i := range r.cursors {
		sequences[r.commit.slots[i].place] = r.cursors[i].sequence
	}
}
