//go:build unix

package producer

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cputime"
)

// BenchmarkWindowToBatches takes the records of a window through a draft into
// batches, as a commit does, without the sending. Besides time and allocations it
// reports the CPU time of a record, which a busy machine does not change, and how
// many bytes are written for each byte of a record, by the draft and by the
// batches together: 2 is one copy each.
func BenchmarkWindowToBatches(b *testing.B) {
	const records = 5000
	events := benchmarkEvents(records)
	for _, compression := range allCompressions {
		b.Run(compression.String(), func(b *testing.B) {
			layout := testLayout()
			layout.Compression = compression
			layout.EventPartitions = 6
			var payload, copied int64
			b.ReportAllocs()
			began := cputime.Of(b)
			for b.Loop() {
				d := NewDraft(layout, testShard)
				for i := range events {
					if err := d.Add(Events, events[i].key, events[i].value, events[i].headers); err != nil {
						b.Fatal(err)
					}
				}
				add(b, d, Positions, "acme", "position")
				r := seal(b, d).newRounds(batchHeader{transactional: true}, false, zero)
				payload, copied = d.Bytes()-records*tailOverheadBytes, d.Bytes()-records*tailOverheadBytes
				var built *round
				for {
					if built = r.next(built); built == nil {
						break
					}
					for _, batch := range built.batches {
						copied += int64(len(batch.wire))
					}
				}
			}
			b.ReportMetric(float64(cputime.Of(b)-began)/float64(b.N)/records, "cpu-ns/record")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
			b.ReportMetric(float64(copied)/float64(payload), "written-B/B")
		})
	}
}

// benchmarkEvents look like Avro events: identifiers that do not compress between
// texts that do, with the headers of a CloudEvent.
func benchmarkEvents(count int) []record {
	random := rand.New(rand.NewPCG(1, 1))
	hex := func(n int) string {
		text := make([]byte, n)
		for i := range text {
			text[i] = "0123456789abcdef"[random.IntN(16)]
		}
		return string(text)
	}
	records := make([]record, count)
	for i := range records {
		value := ""
		for n := range 8 {
			value += hex(36) + fmt.Sprintf("SIP_ENTERPRISE Success ORIGINATING location-%d user%d@example.com WEBEX_CALLING ", n, i%50)
		}
		records[i] = record{
			key: []byte(hex(36)), value: []byte(value),
			headers: []kafka.Header{
				{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(hex(36))},
				{Key: "ce_source", Value: []byte("urn:cdrbus:acme")}, {Key: "ce_type", Value: []byte("com.webex.calling.cdr.v1")},
				{Key: "ce_time", Value: []byte("2026-11-22T10:00:00.000Z")}, {Key: "content-type", Value: []byte("application/avro")},
				{Key: "key_from", Value: []byte("correlation_id")},
			},
		}
	}
	return records
}
