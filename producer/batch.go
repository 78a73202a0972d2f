package producer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/segmentio/kafka-go"
)

// A record batch of magic 2, byte for byte, as Kafka's documentation has it
// under "Record Batch" and "Record":
//
//	base offset       8   0: the broker sets it
//	batch length      4   bytes from the leader epoch on
//	leader epoch      4   -1: the broker sets it
//	magic             1   2
//	CRC32C            4   of everything from the attributes on
//	attributes        2   compression, transactional
//	last offset delta 4   records - 1
//	first timestamp   8   of the commit
//	largest timestamp 8   of the commit
//	producer id       8
//	producer epoch    2
//	base sequence     4
//	records           4   how many; then, perhaps compressed, each of them:
//
//	length            varint, bytes from the attributes on
//	attributes        1   0
//	timestamp delta   varint, 0
//	offset delta      varint
//	key               varint length, bytes    } the tail, encoded
//	value             varint length, bytes    } when the record
//	headers           varint count, and each  } was added
const (
	lengthAt         = 8
	crcAt            = 17
	attributesAt     = 21
	batchHeaderBytes = 61
	recordMagic      = 2
)

const transactionalAttribute = 0x10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identity is a producer's name at the brokers: who sends a batch, and in which
// of its epochs. Each transaction has an epoch of its own.
type identity struct {
	producerID int64
	epoch      int16
}

// batchHeader is what the records of a batch have in common.
type batchHeader struct {
	sender          identity
	transactional   bool
	compression     kafka.Compression
	timestampMillis int64
	baseSequence    int32
}

// appendBatch appends a batch of the tails that each yields, which must be count
// in number. If compression does not make it smaller it goes uncompressed, so
// that a batch never outgrows the size by which it was cut.
func appendBatch(dst []byte, h batchHeader, count, uncompressedBytes int, each func(yield func(tail []byte))) []byte {
	start := len(dst)
	dst = h.append(dst, count)
	if h.compression != 0 {
		dst = appendCompressed(dst, h.compression, each)
	}
	if h.compression == 0 || len(dst)-start >= uncompressedBytes {
		h.compression = 0
		dst = appendRecords(h.append(dst[:start], count), each)
	}
	batch := dst[start:]
	binary.BigEndian.PutUint32(batch[lengthAt:], uint32(len(batch)-lengthAt-4))
	binary.BigEndian.PutUint32(batch[crcAt:], crc32.Checksum(batch[attributesAt:], castagnoli))
	return dst
}

// append appends the header with the length and the checksum left open.
func (h batchHeader) append(dst []byte, count int) []byte {
	attributes := uint16(h.compression)
	if h.transactional {
		attributes |= transactionalAttribute
	}
	dst = binary.BigEndian.AppendUint64(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, 0xffffffff)
	dst = append(dst, recordMagic)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, attributes)
	dst = binary.BigEndian.AppendUint32(dst, uint32(count-1))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.timestampMillis))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.timestampMillis))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.sender.producerID))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.sender.epoch))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.baseSequence))
	return binary.BigEndian.AppendUint32(dst, uint32(count))
}

func appendRecords(dst []byte, each func(yield func(tail []byte))) []byte {
	offsetDelta := 0
	each(func(tail []byte) {
		dst = appendRecordHead(dst, offsetDelta, len(tail))
		dst = append(dst, tail...)
		offsetDelta++
	})
	return dst
}

// appendCompressed appends the records through one of kafka-go's codecs: gzip,
// snappy in xerial framing, lz4 frames, zstd.
func appendCompressed(dst []byte, compression kafka.Compression, each func(yield func(tail []byte))) []byte {
	out := appendWriter{dst}
	compressor := compression.Codec().NewWriter(&out)
	var head [2*binary.MaxVarintLen64 + 2]byte
	var failed error
	offsetDelta := 0
	each(func(tail []byte) {
		for _, piece := range [2][]byte{appendRecordHead(head[:0], offsetDelta, len(tail)), tail} {
			if _, err := compressor.Write(piece); err != nil && failed == nil {
				failed = err
			}
		}
		offsetDelta++
	})
	if err := compressor.Close(); err != nil && failed == nil {
		failed = err
	}
	if failed != nil {
		// The codecs only pass on errors of the writer, and ours has none.
		panic(fmt.Sprintf("compress a batch with %s: %v", compression, failed))
	}
	return out.bytes
}

type appendWriter struct{ bytes []byte }

func (w *appendWriter) Write(p []byte) (int, error) {
	w.bytes = append(w.bytes, p...)
	return len(p), nil
}

// appendRecordHead appends a record up to its key.
func appendRecordHead(dst []byte, offsetDelta, tailLength int) []byte {
	dst = binary.AppendVarint(dst, int64(bodyBytes(offsetDelta, tailLength)))
	dst = append(dst, 0, 0) // attributes, timestamp delta
	return binary.AppendVarint(dst, int64(offsetDelta))
}

// bodyBytes is a record's length as the record itself states it.
func bodyBytes(offsetDelta, tailLength int) int {
	return 2 + varintBytes(int64(offsetDelta)) + tailLength
}

// recordBytes is what a record takes in a batch.
func recordBytes(offsetDelta, tailLength int) int {
	body := bodyBytes(offsetDelta, tailLength)
	return varintBytes(int64(body)) + body
}

// appendTail appends a record from its key on.
func appendTail(dst, key, value []byte, headers []kafka.Header) []byte {
	dst = appendNullable(dst, key)
	dst = appendNullable(dst, value)
	dst = binary.AppendVarint(dst, int64(len(headers)))
	for i := range headers {
		dst = binary.AppendVarint(dst, int64(len(headers[i].Key)))
		dst = append(dst, headers[i].Key...)
		dst = appendNullable(dst, headers[i].Value)
	}
	return dst
}

// tailBytes is the length of what appendTail appends.
func tailBytes(key, value []byte, headers []kafka.Header) int {
	size := nullableBytes(key) + nullableBytes(value) + varintBytes(int64(len(headers)))
	for i := range headers {
		size += varintBytes(int64(len(headers[i].Key))) + len(headers[i].Key) + nullableBytes(headers[i].Value)
	}
	return size
}

// appendNullable appends a byte string with its length, -1 for null.
func appendNullable(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

func nullableBytes(b []byte) int {
	if b == nil {
		return varintBytes(-1)
	}
	return varintBytes(int64(len(b))) + len(b)
}

// varintBytes is the length of a zigzag varint.
func varintBytes(v int64) int {
	zigzag := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
