package producer

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// record is a record as a reader sees it.
type record struct {
	key, value []byte
	headers    []kafka.Header
}

func (r record) String() string { return fmt.Sprintf("%q=%q %v", r.key, r.value, r.headers) }

// same compares records to the last null.
func (r record) same(o record) bool {
	return bytes.Equal(r.key, o.key) && (r.key == nil) == (o.key == nil) &&
		bytes.Equal(r.value, o.value) && (r.value == nil) == (o.value == nil) &&
		fmt.Sprint(r.headers) == fmt.Sprint(o.headers)
}

var allCompressions = []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}

var batchTime = time.UnixMilli(1_800_000_000_123)

// encodeBatch encodes records as drafts and rounds do.
func encodeBatch(h batchHeader, records []record) []byte {
	h.timestampMillis = batchTime.UnixMilli()
	var tails [][]byte
	size := batchHeaderBytes
	for i, r := range records {
		tails = append(tails, appendTail(nil, r.key, r.value, r.headers))
		size += recordBytes(i, tailBytes(r.key, r.value, r.headers))
	}
	return appendBatch(nil, h, len(records), size, func(yield func([]byte)) {
		for _, tail := range tails {
			yield(tail)
		}
	})
}

// TestBatchGolden fixes the bytes of a batch, so that no change of them goes
// unnoticed. They were compared with kmsg's, as TestBatchEqualsOracle does.
func TestBatchGolden(t *testing.T) {
	h := batchHeader{sender: identity{4711, 3}, transactional: true, baseSequence: 7}
	got := encodeBatch(h, []record{
		{key: []byte("k1"), value: []byte("value"), headers: []kafka.Header{{Key: "h", Value: []byte("x")}, {Key: "null"}}},
		{key: nil, value: nil},
	})
	want := strings.Join([]string{
		"0000000000000000" + "00000050" + "ffffffff" + "02" + "bb60ca1b",       // base offset, length, leader epoch, magic, CRC
		"0010" + "00000001" + "000001a3185c507b" + "000001a3185c507b",          // attributes, last offset delta, timestamps
		"0000000000001267" + "0003" + "00000007" + "00000002",                  // producer id, epoch, base sequence, records
		"2e" + "00" + "00" + "00" + "04" + "6b31" + "0a" + "76616c7565" + "04", // record 0 up to its headers
		"02" + "68" + "02" + "78" + "08" + "6e756c6c" + "01",                   // headers h=x, null=null
		"0c" + "00" + "00" + "02" + "01" + "01" + "00",                         // record 1: null key, null value, no headers
	}, "")
	if hex.EncodeToString(got) != want {
		t.Errorf("batch is\n%x\nwant\n%s", got, want)
	}
}

func oracleRecords() []record {
	var records []record
	for i := range 300 {
		r := record{key: fmt.Appendf(nil, "key-%d", i%7), value: bytes.Repeat([]byte("cdr "), i)}
		switch i % 4 {
		case 1:
			r.headers = []kafka.Header{{Key: "ce_id", Value: fmt.Appendf(nil, "%d", i)}, {Key: "", Value: nil}}
		case 2:
			r.key = nil
		case 3:
			r.value, r.headers = []byte{}, []kafka.Header{{Key: "empty", Value: []byte{}}}
		}
		records = append(records, r)
	}
	return records
}

// TestBatchEqualsOracle encodes the same batch with kmsg, byte for byte.
func TestBatchEqualsOracle(t *testing.T) {
	records := oracleRecords()
	for _, transactional := range []bool{true, false} {
		h := batchHeader{sender: identity{math.MaxInt64, math.MaxInt16}, transactional: transactional, baseSequence: math.MaxInt32}
		if got, want := encodeBatch(h, records), kmsgBatch(h, records); !bytes.Equal(got, want) {
			t.Errorf("transactional %v: batch differs from kmsg's:\n%x\n%x", transactional, got[:100], want[:100])
		}
	}
}

func kmsgBatch(h batchHeader, records []record) []byte {
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(records) - 1),
		FirstTimestamp: batchTime.UnixMilli(), MaxTimestamp: batchTime.UnixMilli(),
		ProducerID: h.sender.producerID, ProducerEpoch: h.sender.epoch, FirstSequence: h.baseSequence, NumRecords: int32(len(records)),
	}
	if h.transactional {
		b.Attributes = 0x10
	}
	for i, r := range records {
		k := kmsg.Record{OffsetDelta: int32(i), Key: r.key, Value: r.value}
		for _, header := range r.headers {
			k.Headers = append(k.Headers, kmsg.Header{Key: header.Key, Value: header.Value})
		}
		k.Length = int32(len(k.AppendTo(nil)) - 1) // less the one byte of a zero length
		b.Records = k.AppendTo(b.Records)
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}

// TestBatchDecodes reads batches of every compression back with two libraries.
func TestBatchDecodes(t *testing.T) {
	records := oracleRecords()
	plain := len(encodeBatch(batchHeader{}, records))
	for _, compression := range allCompressions {
		t.Run(compression.String(), func(t *testing.T) {
			h := batchHeader{sender: identity{12, 1}, transactional: true, compression: compression, baseSequence: 5}
			wire := encodeBatch(h, records)
			if compression != 0 && len(wire) > plain/2 {
				t.Errorf("batch has %d bytes, uncompressed %d: it was not compressed", len(wire), plain)
			}
			b := decodeWithKmsg(t, wire)
			if b.header != h {
				t.Errorf("header is %+v, want %+v", b.header, h)
			}
			compareRecords(t, "kmsg", b.records, records)
			compareRecords(t, "kafka-go", decodeWithKafkaGo(t, wire), records)
		})
	}
}

// TestBatchThatDoesNotCompress holds the promise that a batch never outgrows its
// uncompressed size: it goes uncompressed, and says so.
func TestBatchThatDoesNotCompress(t *testing.T) {
	records := []record{{key: []byte("k"), value: []byte{0xf3, 0x81, 0x0c}}}
	for _, compression := range allCompressions[1:] {
		plain := encodeBatch(batchHeader{transactional: true}, records)
		got := encodeBatch(batchHeader{transactional: true, compression: compression}, records)
		if !bytes.Equal(got, plain) {
			t.Errorf("%s: a batch that does not compress is %d bytes, want the %d of the plain one", compression, len(got), len(plain))
		}
	}
}

// decoded is a batch as kmsg reads it.
type decoded struct {
	header  batchHeader
	records []record
}

// decodeWithKmsg decodes a batch strictly: checksum, lengths, every constant.
func decodeWithKmsg(t testing.TB, wire []byte) decoded {
	t.Helper()
	b, err := readBatch(wire)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readBatch(wire []byte) (decoded, error) {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(wire); err != nil {
		return decoded{}, fmt.Errorf("kmsg: %w", err)
	}
	compression := kafka.Compression(b.Attributes & 7)
	h := batchHeader{sender: identity{b.ProducerID, b.ProducerEpoch}, transactional: b.Attributes&0x10 != 0, compression: compression, baseSequence: b.FirstSequence}
	switch {
	case b.FirstOffset != 0 || b.PartitionLeaderEpoch != -1 || b.Magic != 2:
		return decoded{}, fmt.Errorf("base offset %d, leader epoch %d, magic %d", b.FirstOffset, b.PartitionLeaderEpoch, b.Magic)
	case int(b.Length) != len(wire)-12:
		return decoded{}, fmt.Errorf("length %d of a batch of %d bytes", b.Length, len(wire))
	case b.CRC != int32(crc32.Checksum(wire[21:], crc32.MakeTable(crc32.Castagnoli))):
		return decoded{}, fmt.Errorf("checksum %x", b.CRC)
	case b.LastOffsetDelta != b.NumRecords-1:
		return decoded{}, fmt.Errorf("last offset delta %d of %d records", b.LastOffsetDelta, b.NumRecords)
	case b.FirstTimestamp != b.MaxTimestamp:
		return decoded{}, fmt.Errorf("timestamps %d and %d", b.FirstTimestamp, b.MaxTimestamp)
	case b.Attributes&^0x17 != 0:
		return decoded{}, fmt.Errorf("attributes %x", b.Attributes)
	}
	raw := b.Records
	if compression != 0 {
		var err error
		if raw, err = kgo.DefaultDecompressor().Decompress(b.Records, kgo.CompressionCodecType(compression)); err != nil {
			return decoded{}, fmt.Errorf("decompress %s: %w", compression, err)
		}
	}
	out := decoded{header: h}
	for i := range int(b.NumRecords) {
		r, rest, err := readRecord(raw, i)
		if err != nil {
			return decoded{}, err
		}
		out.records, raw = append(out.records, r), rest
	}
	if len(raw) != 0 {
		return decoded{}, fmt.Errorf("%d bytes after the last record", len(raw))
	}
	return out, nil
}

func readRecord(raw []byte, index int) (record, []byte, error) {
	var k kmsg.Record
	if err := k.ReadFrom(raw); err != nil {
		return record{}, nil, fmt.Errorf("record %d: %w", index, err)
	}
	size := len(k.AppendTo(nil))
	if int(k.Length) != size-varintBytes(int64(k.Length)) || int(k.OffsetDelta) != index || k.TimestampDelta64 != 0 || k.Attributes != 0 {
		return record{}, nil, fmt.Errorf("record %d: %d bytes, but %+v", index, size, k)
	}
	r := record{key: k.Key, value: k.Value}
	for _, h := range k.Headers {
		r.headers = append(r.headers, kafka.Header{Key: h.Key, Value: h.Value})
	}
	return r, raw[size:], nil
}

func decodeWithKafkaGo(t testing.TB, wire []byte) []record {
	t.Helper()
	length := []byte{byte(len(wire) >> 24), byte(len(wire) >> 16), byte(len(wire) >> 8), byte(len(wire))}
	var set protocol.RecordSet
	if _, err := set.ReadFrom(bufio.NewReader(io.MultiReader(bytes.NewReader(length), bytes.NewReader(wire)))); err != nil {
		t.Fatalf("kafka-go: %v", err)
	}
	var records []record
	for {
		r, err := set.Records.ReadRecord()
		if err == io.EOF {
			return records
		}
		if err != nil {
			t.Fatalf("kafka-go: record %d: %v", len(records), err)
		}
		key, err := protocol.ReadAll(r.Key)
		if err != nil {
			t.Fatal(err)
		}
		value, err := protocol.ReadAll(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Time.Equal(batchTime) {
			t.Fatalf("kafka-go: record %d has time %s, want %s", len(records), r.Time, batchTime)
		}
		records = append(records, record{key, value, r.Headers})
	}
}

func compareRecords(t testing.TB, reader string, got, want []record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s reads %d records, want %d", reader, len(got), len(want))
	}
	for i := range got {
		if !got[i].same(want[i]) {
			t.Fatalf("%s reads record %d as %s, want %s", reader, i, got[i], want[i])
		}
	}
}

func TestVarintBytes(t *testing.T) {
	for _, v := range []int64{0, -1, 1, 63, 64, -64, -65, 8191, 8192, 1 << 20, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64} {
		if got, want := varintBytes(v), len(kmsgVarint(v)); got != want {
			t.Errorf("varintBytes(%d) = %d, want %d", v, got, want)
		}
	}
}

// kmsgVarint is the zigzag varint of a timestamp delta, cut out of a record.
func kmsgVarint(v int64) []byte {
	with := (&kmsg.Record{TimestampDelta64: v, OffsetDelta: 1}).AppendTo(nil)
	return with[2 : len(with)-4]
}

func TestSequencesWrapAround(t *testing.T) {
	for _, c := range []struct {
		from    int32
		records int
		want    int32
	}{{0, 5, 5}, {math.MaxInt32 - 1, 1, math.MaxInt32}, {math.MaxInt32, 1, 0}, {math.MaxInt32 - 2, 10, 7}} {
		if got := addSequence(c.from, c.records); got != c.want {
			t.Errorf("addSequence(%d, %d) = %d, want %d", c.from, c.records, got, c.want)
		}
	}
}

// FuzzBatch encodes whatever the fuzzer thinks of and reads it back with kmsg.
func FuzzBatch(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), "header", []byte("x"), uint8(3), uint8(0))
	f.Add([]byte(nil), []byte(nil), "", []byte(nil), uint8(1), uint8(1))
	f.Add([]byte{}, bytes.Repeat([]byte("a"), 70_000), "h", []byte{}, uint8(2), uint8(2))
	f.Add([]byte("k"), bytes.Repeat([]byte("ab"), 300), "h", []byte{0xff}, uint8(200), uint8(3))
	f.Add([]byte("k"), []byte("v"), "\xff", []byte("v"), uint8(130), uint8(4))
	f.Fuzz(func(t *testing.T, key, value []byte, headerKey string, headerValue []byte, count, compression uint8) {
		records := make([]record, 1+int(count))
		for i := range records {
			r := record{key: key, value: value}
			if i%2 == 0 {
				r.headers = []kafka.Header{{Key: headerKey, Value: headerValue}}
			}
			records[i] = r
		}
		h := batchHeader{sender: identity{1, 2}, transactional: true, compression: allCompressions[int(compression)%len(allCompressions)]}
		wire := encodeBatch(h, records)
		if plain := encodeBatch(batchHeader{}, records); len(wire) > len(plain) {
			t.Errorf("%s makes %d bytes of %d", h.compression, len(wire), len(plain))
		}
		compareRecords(t, "kmsg", decodeWithKmsg(t, wire).records, records)
	})
}
