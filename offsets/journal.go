package offsets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math"

	"cdrbus/internal/cdr"
)

// The ID journal is the disk form of the set of published records. Each commit that
// publishes something writes its identities to the shard's partition of the ids
// topic, keyed by the source's name, in chunks of at most JournalChunkBytes.
//
// A chunk is a header and then its entries. Integers are big endian:
//
//	 0  4  magic "CDRJ"
//	 4  1  version of the writer
//	 5  1  oldest version of a reader
//	 6  2  bytes of the header; a later version may append to it
//	 8  4  CRC-32C of the whole chunk without these four bytes
//	12  4  fingerprint of the event schema that the hashes belong to
//	16  8  counter of the commit
//	24  8  start of the window, inclusive, in seconds since 1970
//	32  8  end of the window, exclusive
//	40  8  earliest report time in the window, in milliseconds since 1970
//	48  8  latest report time; earlier than the earliest: no record had one
//	56  4  index of the chunk within the commit, from 0
//	60  4  number of chunks of the commit
//	64  4  number of entries
//	68  4  flags: 1, the window is of cdr_stream, by time of insertion; 2, its records
//	       live by the time of their commit
//	72     entries: 16 bytes of ID, 8 bytes of body hash
const (
	// JournalChunkBytes is the largest chunk, well below the default
	// max.message.bytes of 1 MiB.
	JournalChunkBytes = 512 << 10

	journalMagic       = "CDRJ"
	journalVersion     = 1
	journalMinReader   = 1
	journalHeaderBytes = 72
	entryBytes         = 24
	chunkEntries       = (JournalChunkBytes - journalHeaderBytes) / entryBytes
)

// ErrUnreadableJournal says that a value is not a chunk of the ID journal, or not
// as it was written; ErrLaterJournal that a later version of cdrbus wrote it.
var (
	ErrUnreadableJournal = errors.New("journal chunk is unreadable")
	ErrLaterJournal      = errors.New("journal chunk is of a later version")
)

// ReportTimes is the range of the report times of a window's records.
type ReportTimes struct {
	EarliestMillis int64
	LatestMillis   int64 // inclusive; less than EarliestMillis: no record had one
}

// NoReportTimes is the range before the first record.
var NoReportTimes = ReportTimes{EarliestMillis: math.MaxInt64, LatestMillis: math.MinInt64}

// Add widens the range to hold one more report time.
func (t *ReportTimes) Add(millis int64) {
	t.EarliestMillis = min(t.EarliestMillis, millis)
	t.LatestMillis = max(t.LatestMillis, millis)
}

// JournalHeader is what all chunks of one commit have in common.
type JournalHeader struct {
	Counter           cdr.Counter
	Span              cdr.Span
	ReportTimes       ReportTimes
	SchemaFingerprint uint32
	ByInsertion       bool // see [Window]
	AsOfCommit        bool // the window had an AsOf: the time of the commit stands for it
}

const (
	flagByInsertion = 1 << iota
	flagAsOfCommit
)

func (h JournalHeader) flags() (flags uint32) {
	if h.ByInsertion {
		flags |= flagByInsertion
	}
	if h.AsOfCommit {
		flags |= flagAsOfCommit
	}
	return flags
}

// Chunk is one decoded record of the ID journal. It reads from the value that it was
// decoded from, and is valid as long as that.
type Chunk struct {
	JournalHeader
	Index, Of int
	entries   []byte
}

// Len returns the number of entries.
func (c Chunk) Len() int { return len(c.entries) / entryBytes }

// All yields the entries in the order in which the window published them. An ID that
// the same window also revised comes twice, and the later hash counts.
func (c Chunk) All() iter.Seq2[cdr.ReportID, uint64] {
	return func(yield func(cdr.ReportID, uint64) bool) {
		for e := c.entries; len(e) > 0; e = e[entryBytes:] {
			if !yield(cdr.ReportID(e[:16]), binary.BigEndian.Uint64(e[16:])) {
				return
			}
		}
	}
}

// appendEntry appends one entry in the form that chunks carry.
func appendEntry(entries []byte, id cdr.ReportID, hash uint64) []byte {
	entries = append(entries, id[:]...)
	return binary.BigEndian.AppendUint64(entries, hash)
}

// appendChunks appends the values of one commit's chunks to dst. The buffers that dst
// has beyond its length are used again.
func appendChunks(dst [][]byte, h JournalHeader, entries []byte) [][]byte {
	of := (len(entries)/entryBytes + chunkEntries - 1) / chunkEntries
	for index := range of {
		part := entries[:min(len(entries), chunkEntries*entryBytes)]
		entries = entries[len(part):]
		var value []byte
		if len(dst) < cap(dst) {
			value = dst[:len(dst)+1][len(dst)][:0]
		}
		dst = append(dst, appendChunk(value, h, index, of, part))
	}
	return dst
}

func appendChunk(value []byte, h JournalHeader, index, of int, entries []byte) []byte {
	value = append(value, journalMagic...)
	value = append(value, journalVersion, journalMinReader)
	value = binary.BigEndian.AppendUint16(value, journalHeaderBytes)
	value = binary.BigEndian.AppendUint32(value, 0) // checksum, below
	value = binary.BigEndian.AppendUint32(value, h.SchemaFingerprint)
	for _, n := range []int64{int64(h.Counter), int64(h.Span.StartInclusive), int64(h.Span.EndExclusive), h.ReportTimes.EarliestMillis, h.ReportTimes.LatestMillis} {
		value = binary.BigEndian.AppendUint64(value, uint64(n))
	}
	value = binary.BigEndian.AppendUint32(value, uint32(index))
	value = binary.BigEndian.AppendUint32(value, uint32(of))
	value = binary.BigEndian.AppendUint32(value, uint32(len(entries)/entryBytes))
	value = binary.BigEndian.AppendUint32(value, h.flags())
	value = append(value, entries...)
	binary.BigEndian.PutUint32(value[8:], chunkChecksum(value))
	return value
}

func chunkChecksum(value []byte) uint32 {
	return crc32.Update(crc32.Checksum(value[:8], castagnoli), castagnoli, value[12:])
}

// DecodeChunk reads a value of the ids topic. Its errors wrap ErrUnreadableJournal or
// ErrLaterJournal.
func DecodeChunk(value []byte) (Chunk, error) {
	if len(value) < journalHeaderBytes || string(value[:4]) != journalMagic {
		return Chunk{}, fmt.Errorf("%w: %d bytes that are no chunk", ErrUnreadableJournal, len(value))
	}
	if binary.BigEndian.Uint32(value[8:]) != chunkChecksum(value) {
		return Chunk{}, fmt.Errorf("%w: broken checksum", ErrUnreadableJournal)
	}
	version, minReader := value[4], value[5]
	if minReader < 1 || minReader > version {
		return Chunk{}, fmt.Errorf("%w: version %d, to be read by version %d or later", ErrUnreadableJournal, version, minReader)
	}
	if minReader > journalVersion {
		return Chunk{}, fmt.Errorf("%w: version %d, to be read by version %d or later, while this program reads version %d", ErrLaterJournal, version, minReader, journalVersion)
	}
	headerBytes := int(binary.BigEndian.Uint16(value[6:]))
	if headerBytes < journalHeaderBytes || headerBytes > len(value) {
		return Chunk{}, fmt.Errorf("%w: header of %d bytes", ErrUnreadableJournal, headerBytes)
	}
	at := func(offset int) int64 { return int64(binary.BigEndian.Uint64(value[offset:])) }
	small := func(offset int) int { return int(binary.BigEndian.Uint32(value[offset:])) }
	c := Chunk{
		JournalHeader: JournalHeader{
			Counter:           cdr.Counter(at(16)),
			Span:              cdr.Span{StartInclusive: cdr.Instant(at(24)), EndExclusive: cdr.Instant(at(32))},
			ReportTimes:       ReportTimes{EarliestMillis: at(40), LatestMillis: at(48)},
			SchemaFingerprint: binary.BigEndian.Uint32(value[12:]),
			ByInsertion:       small(68)&flagByInsertion != 0,
			AsOfCommit:        small(68)&flagAsOfCommit != 0,
		},
		Index:   small(56),
		Of:      small(60),
		entries: value[headerBytes:],
	}
	if entries := small(64); entries == 0 || len(c.entries) != entries*entryBytes {
		return Chunk{}, fmt.Errorf("%w: %d bytes for %d entries", ErrUnreadableJournal, len(c.entries), entries)
	}
	if c.Counter == 0 || c.Index >= c.Of {
		return Chunk{}, fmt.Errorf("%w: chunk %d of %d of counter %d", ErrUnreadableJournal, c.Index, c.Of, c.Counter)
	}
	if err := c.Span.Validate(); err != nil {
		return Chunk{}, fmt.Errorf("%w: %w", ErrUnreadableJournal, err)
	}
	return c, nil
}
