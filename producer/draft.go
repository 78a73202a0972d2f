package producer

import (
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/partition"
)

// ErrRecordTooLarge says that a record alone is larger than its topic takes.
// Nothing of it was added.
var ErrRecordTooLarge = errors.New("record too large for its topic")

// ErrTombstone says that a position would have no value. In a compacted topic
// that deletes the source's position.
var ErrTombstone = errors.New("position without a value")

// Draft collects the records of one window, or the closing records of a commit.
// It belongs to one goroutine at a time. Once sealed into a [Commit] it must not
// grow until that commit has ended; it may be sealed again afterwards.
//
// What a record needs in any batch, from its key to its headers, is encoded when
// it is added. The rest depends on the place in the batch and is written when the
// batch is. So a draft takes about the memory of the bytes that were added.
type Draft struct {
	layout *Layout
	shard  int
	arena  arena
	slots  [][]tail // by slot, in the order of Add
	bytes  int64
}

// NewDraft returns an empty draft for the shard that is partition shard of every
// topic but the events.
func NewDraft(layout *Layout, shard int) *Draft {
	return &Draft{layout: layout, shard: shard, slots: make([][]tail, layout.slotCount())}
}

// Add copies a record into the draft. An event is placed by murmur2 of its key,
// anything else in the shard's partition. A nil key or value is Kafka's null.
func (d *Draft) Add(t Topic, key, value []byte, headers []kafka.Header) error {
	size := tailBytes(key, value, headers)
	if alone, limitBytes := batchHeaderBytes+recordBytes(0, size), d.layout.MaxMessageBytes[t]; alone > limitBytes {
		return fmt.Errorf("add record to topic %s: %w: %d bytes, max.message.bytes is %d", d.layout.Names[t], ErrRecordTooLarge, alone, limitBytes)
	}
	eventPartition := 0
	switch {
	case t == Events:
		eventPartition = partition.Of(key, d.layout.EventPartitions)
	case t == Positions && len(value) == 0:
		return fmt.Errorf("add record %q to topic %s: %w", key, d.layout.Names[t], ErrTombstone)
	}
	d.put(t, eventPartition, size, key, value, headers)
	return nil
}

// Erase adds a tombstone to the positions' topic, for the key of what is a note there
// and of no use any more. A position is never erased: without one a source would begin
// anew.
func (d *Draft) Erase(key []byte) { d.put(Positions, 0, tailBytes(key, nil, nil), key, nil, nil) }

func (d *Draft) put(t Topic, eventPartition, size int, key, value []byte, headers []kafka.Header) {
	chunk := d.arena.room(size)
	start := len(d.arena.chunks[chunk])
	d.arena.chunks[chunk] = appendTail(d.arena.chunks[chunk], key, value, headers)
	slot := d.layout.slotOf(t, eventPartition)
	d.slots[slot] = append(d.slots[slot], tail{uint32(chunk), uint32(start), uint32(size)})
	d.bytes += int64(size) + tailOverheadBytes
}

// Bytes is the memory that the records take, to within one chunk of at most
// 128 KiB. To a few bytes for each record it is also what they take on the wire,
// uncompressed.
func (d *Draft) Bytes() int64 { return d.bytes }

// Records counts the records of a topic.
func (d *Draft) Records(t Topic) int {
	if t != Events {
		return len(d.slots[d.layout.slotOf(t, 0)])
	}
	count := 0
	for _, tails := range d.slots[:d.layout.EventPartitions] {
		count += len(tails)
	}
	return count
}

// MaxValueBytes is [Layout.MaxValueBytes] of the draft's layout.
func (d *Draft) MaxValueBytes(t Topic) int { return d.layout.MaxValueBytes(t) }

// tail is where the arena holds a record's bytes from its key on.
type tail struct{ chunk, start, length uint32 }

// tailOverheadBytes is the size of a tail, with what append keeps spare for more.
const tailOverheadBytes = 16

func (d *Draft) tailOf(t tail) []byte {
	return d.arena.chunks[t.chunk][t.start : t.start+t.length]
}

// arena holds bytes in chunks that never move. Chunks grow with the arena, so
// that a small draft stays small and a large one wastes little.
type arena struct {
	chunks [][]byte
	open   int // the chunk that small records go to; valid once next is set
	next   int // the size of the next one; 0 before the first
}

const (
	firstChunkBytes   = 4 << 10
	largestChunkBytes = 128 << 10
	// A record above this gets a chunk of just its size, and what is left of the
	// open chunk stays in use.
	ownChunkBytes = largestChunkBytes / 4
)

// room returns a chunk that has size bytes left.
func (a *arena) room(size int) (chunk int) {
	if a.next > 0 && cap(a.chunks[a.open])-len(a.chunks[a.open]) >= size {
		return a.open
	}
	if size > ownChunkBytes {
		a.chunks = append(a.chunks, make([]byte, 0, size))
		return len(a.chunks) - 1
	}
	a.next = min(max(2*a.next, firstChunkBytes), largestChunkBytes)
	a.chunks = append(a.chunks, make([]byte, 0, max(a.next, size)))
	a.open = len(a.chunks) - 1
	return a.open
}
