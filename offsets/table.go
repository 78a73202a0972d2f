package offsets

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"

	"cdrbus/internal/cdr"
)

// table maps report IDs to the hash and the generation of their content, exactly, in
// little more than the 26 bytes that an entry is.
//
// It is a linear hash table: the low bits of an ID's key choose a bucket, and one
// bucket is split whenever the average grows beyond bucketEntries, so that growth
// never copies more than a bucket. A bucket is one block without gaps, sorted by key,
// hence no load factor to pay for; keys are uniform, so that the high bits of a key
// tell nearly where it lies.
type table struct {
	seeds   [2]uint64
	buckets [][]byte
	count   int
	bytes   int // capacity of all buckets
}

// bucketEntries is the average at which a bucket is split. More would cost time to
// make room within a bucket, fewer would cost memory for slice headers.
const bucketEntries = 64

// A slot is 16 bytes of ID, 8 of hash, 2 of generation, little endian.
const (
	slotHash       = 16
	slotGeneration = 24
	slotBytes      = 26
)

// slot is one entry where it lies in its bucket; valid until the table changes.
type slot []byte

func (s slot) hash() uint64       { return binary.LittleEndian.Uint64(s[slotHash:]) }
func (s slot) generation() uint16 { return binary.LittleEndian.Uint16(s[slotGeneration:]) }

func (s slot) set(hash uint64, generation uint16) {
	binary.LittleEndian.PutUint64(s[slotHash:], hash)
	binary.LittleEndian.PutUint16(s[slotGeneration:], generation)
}

func newTable() table {
	return table{seeds: [2]uint64{rand.Uint64(), rand.Uint64()}, buckets: make([][]byte, 1)}
}

// key spreads IDs evenly, also those that count up. Equal keys cost time, never
// correctness: IDs are compared whole.
func (t *table) key(id []byte) uint64 {
	high, low := bits.Mul64(binary.LittleEndian.Uint64(id)^t.seeds[0], binary.LittleEndian.Uint64(id[8:16])^t.seeds[1])
	high, low = bits.Mul64(high^low^t.seeds[1], 0x9e3779b97f4a7c15)
	return high ^ low
}

// bucketOf returns the bucket that holds key in a table of n buckets: of those 2^k
// that a whole round had, the ones below n-2^k are split already.
func bucketOf(key uint64, n int) int {
	mask := uint64(1)<<bits.Len(uint(n-1)) - 1
	if i := key & mask; i < uint64(n) {
		return int(i)
	}
	return int(key & (mask >> 1))
}

// place says where an ID lies, or where it belongs.
type place struct {
	bucket int
	offset int
	found  bool
}

func (t *table) find(id *cdr.ReportID) place {
	key := t.key(id[:])
	i := bucketOf(key, len(t.buckets))
	bucket := t.buckets[i]
	n := len(bucket) / slotBytes
	if n == 0 {
		return place{bucket: i}
	}
	guess, _ := bits.Mul64(key, uint64(n))
	at := int(guess) * slotBytes
	for at > 0 && t.key(bucket[at-slotBytes:]) >= key {
		at -= slotBytes
	}
	for ; at < len(bucket); at += slotBytes {
		if cdr.ReportID(bucket[at:at+16]) == *id {
			return place{bucket: i, offset: at, found: true}
		}
		if t.key(bucket[at:]) > key {
			break
		}
	}
	return place{bucket: i, offset: at}
}

// at returns the entry of a place that find found.
func (t *table) at(p place) slot { return t.buckets[p.bucket][p.offset:][:slotBytes] }

// insert puts an entry where find said that it belongs.
func (t *table) insert(p place, id *cdr.ReportID, hash uint64, generation uint16) {
	bucket := t.buckets[p.bucket]
	if len(bucket)+slotBytes > cap(bucket) {
		bucket = t.resize(p.bucket, len(bucket)+len(bucket)/12+slotBytes)
	}
	bucket = bucket[:len(bucket)+slotBytes]
	copy(bucket[p.offset+slotBytes:], bucket[p.offset:])
	t.buckets[p.bucket] = bucket
	entry := slot(bucket[p.offset:][:slotBytes])
	copy(entry, id[:])
	entry.set(hash, generation)
	t.count++
	if t.count > bucketEntries*len(t.buckets) {
		t.split()
	}
}

// remove takes an entry out that find found.
func (t *table) remove(p place) {
	bucket := t.buckets[p.bucket]
	t.buckets[p.bucket] = append(bucket[:p.offset], bucket[p.offset+slotBytes:]...)
	t.count--
}

// resize moves a bucket to a block of at least capBytes, and of all that the
// allocator gives for that.
func (t *table) resize(i, capBytes int) []byte {
	old := t.buckets[i]
	t.buckets[i] = append(slices.Grow([]byte(nil), capBytes), old...)
	t.bytes += cap(t.buckets[i]) - cap(old)
	return t.buckets[i]
}

// split moves to a new bucket, the last, what belongs there from now on; all of it
// lies in one bucket.
func (t *table) split() {
	n := len(t.buckets)
	from := bucketOf(uint64(n), n)
	old := t.buckets[from]
	moving := 0
	for at := 0; at < len(old); at += slotBytes {
		if bucketOf(t.key(old[at:]), n+1) == n {
			moving += slotBytes
		}
	}
	stay := slices.Grow([]byte(nil), len(old)-moving)
	move := slices.Grow([]byte(nil), moving)
	for at := 0; at < len(old); at += slotBytes {
		entry := old[at : at+slotBytes]
		if bucketOf(t.key(entry), n+1) == n {
			move = append(move, entry...)
		} else {
			stay = append(stay, entry...)
		}
	}
	t.buckets[from] = stay
	t.buckets = append(t.buckets, move)
	t.bytes += cap(stay) + cap(move) - cap(old)
}

// evict removes all entries of the generations that are dead, in one pass.
func (t *table) evict(dead []bool) {
	t.count = 0
	for i, bucket := range t.buckets {
		kept := bucket[:0]
		for at := 0; at < len(bucket); at += slotBytes {
			if entry := slot(bucket[at : at+slotBytes]); !dead[entry.generation()] {
				kept = append(kept, entry...)
			}
		}
		t.buckets[i] = kept
		t.count += len(kept) / slotBytes
		if cap(kept) > len(kept)+len(kept)/4+slotBytes {
			t.resize(i, len(kept)+len(kept)/16)
		}
	}
	if t.count < bucketEntries/4*len(t.buckets) {
		t.rebuild()
	}
}

// rebuild moves all entries to a table of as many buckets as they need.
func (t *table) rebuild() {
	fresh := table{seeds: t.seeds, buckets: make([][]byte, 1)}
	for i, bucket := range t.buckets {
		for at := 0; at < len(bucket); at += slotBytes {
			entry := slot(bucket[at : at+slotBytes])
			id := cdr.ReportID(entry[:16])
			fresh.insert(fresh.find(&id), &id, entry.hash(), entry.generation())
		}
		t.buckets[i] = nil
	}
	*t = fresh
}
