package offsets

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"cdrbus/internal/cdr"
)

// numberedID counts up, the worst case for anything that takes IDs to be random.
func numberedID(n int) (id cdr.ReportID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func exampleHeader() JournalHeader {
	return JournalHeader{
		Counter:           42,
		Span:              cdr.Span{StartInclusive: day - 60, EndExclusive: day + 300},
		ReportTimes:       ReportTimes{EarliestMillis: int64(day)*1000 - 59000, LatestMillis: int64(day)*1000 + 299999},
		SchemaFingerprint: 0xdeadbeef,
	}
}

func numberedEntries(n int) (entries []byte) {
	for i := range n {
		entries = appendEntry(entries, numberedID(i), uint64(i)<<32|7)
	}
	return entries
}

func TestJournalGolden(t *testing.T) {
	chunks := appendChunks(nil, exampleHeader(), numberedEntries(3))
	if len(chunks) != 1 {
		t.Fatalf("%d chunks, want 1", len(chunks))
	}
	goldenBytes(t, "journal.hex", chunks[0])
}

func TestJournalIsCutIntoChunks(t *testing.T) {
	for _, n := range []int{0, 1, chunkEntries - 1, chunkEntries, chunkEntries + 1, 3*chunkEntries + 5} {
		entries := numberedEntries(n)
		chunks := appendChunks(nil, exampleHeader(), entries)
		if want := (n + chunkEntries - 1) / chunkEntries; len(chunks) != want {
			t.Fatalf("%d entries make %d chunks, want %d", n, len(chunks), want)
		}
		next := 0
		for i, value := range chunks {
			if len(value) > JournalChunkBytes {
				t.Errorf("chunk %d has %d bytes", i, len(value))
			}
			c, err := DecodeChunk(value)
			if err != nil {
				t.Fatal(err)
			}
			if c.JournalHeader != exampleHeader() || c.Index != i || c.Of != len(chunks) {
				t.Errorf("chunk %d of %d decodes to %+v, %d of %d", i, len(chunks), c.JournalHeader, c.Index, c.Of)
			}
			for id, hash := range c.All() {
				if id != numberedID(next) || hash != uint64(next)<<32|7 {
					t.Fatalf("entry %d is %s %x", next, id, hash)
				}
				next++
			}
		}
		if next != n {
			t.Errorf("%d entries come back as %d", n, next)
		}
	}
}

func TestJournalUsesItsBuffersAgain(t *testing.T) {
	entries := numberedEntries(2 * chunkEntries)
	buffers := appendChunks(nil, exampleHeader(), entries)
	if allocs := testing.AllocsPerRun(5, func() { buffers = appendChunks(buffers[:0], exampleHeader(), entries) }); allocs != 0 {
		t.Errorf("writing into used buffers allocates %v times", allocs)
	}
}

func TestReportTimes(t *testing.T) {
	times := NoReportTimes
	if times.LatestMillis >= times.EarliestMillis {
		t.Error("the empty range is not empty")
	}
	for _, millis := range []int64{5, -3, 9} {
		times.Add(millis)
	}
	if times != (ReportTimes{-3, 9}) {
		t.Errorf("range is %+v", times)
	}
}

// reseal gives a damaged chunk a right checksum, so that what lies behind is tested.
func reseal(value []byte) []byte {
	if len(value) >= journalHeaderBytes {
		binary.BigEndian.PutUint32(value[8:], chunkChecksum(value))
	}
	return value
}

func TestDecodeChunkTellsFaultsApart(t *testing.T) {
	good := appendChunks(nil, exampleHeader(), numberedEntries(3))[0]
	for name, c := range map[string]struct {
		change  func([]byte) []byte
		want    error
		message string
	}{
		"nothing":         {func([]byte) []byte { return nil }, ErrUnreadableJournal, "0 bytes that are no chunk"},
		"text":            {func([]byte) []byte { return []byte(strings.Repeat("x", 100)) }, ErrUnreadableJournal, "no chunk"},
		"cut":             {func(v []byte) []byte { return v[:len(v)-1] }, ErrUnreadableJournal, "broken checksum"},
		"later version":   {func(v []byte) []byte { v[4], v[5] = 9, 2; return reseal(v) }, ErrLaterJournal, "version 9, to be read by version 2 or later"},
		"damaged version": {func(v []byte) []byte { v[4], v[5] = 9, 2; return v }, ErrUnreadableJournal, "broken checksum"},
		"version 0":       {func(v []byte) []byte { v[4], v[5] = 0, 0; return reseal(v) }, ErrUnreadableJournal, "version 0"},
		"small header":    {func(v []byte) []byte { v[7] = 71; return reseal(v) }, ErrUnreadableJournal, "header of 71 bytes"},
		"large header":    {func(v []byte) []byte { v[6] = 0xff; return reseal(v) }, ErrUnreadableJournal, "header of"},
		"too few entries": {func(v []byte) []byte { return reseal(v[:len(v)-entryBytes]) }, ErrUnreadableJournal, "48 bytes for 3 entries"},
		"half an entry":   {func(v []byte) []byte { return reseal(v[:len(v)-1]) }, ErrUnreadableJournal, "71 bytes for 3 entries"},
		"no entries":      {func(v []byte) []byte { v[67] = 0; return reseal(v[:journalHeaderBytes]) }, ErrUnreadableJournal, "0 bytes for 0 entries"},
		"counter 0":       {func(v []byte) []byte { v[23] = 0; return reseal(v) }, ErrUnreadableJournal, "counter 0"},
		"index beyond of": {func(v []byte) []byte { v[59] = 1; return reseal(v) }, ErrUnreadableJournal, "chunk 1 of 1"},
		"reversed span":   {func(v []byte) []byte { v[24] = 1; return reseal(v) }, ErrUnreadableJournal, "the end must be later"},
	} {
		_, err := DecodeChunk(c.change(bytes.Clone(good)))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s: got %v, want %v with %q", name, err, c.want, c.message)
		}
	}
	longer := bytes.Clone(good[:journalHeaderBytes])
	longer = append(longer, "later"...)
	longer = append(longer, good[journalHeaderBytes:]...)
	longer[4], longer[7] = 2, journalHeaderBytes+5
	if c, err := DecodeChunk(reseal(longer)); err != nil || c.Len() != 3 || c.Counter != 42 {
		t.Errorf("a chunk of a later version that we may read gave %+v, %v", c, err)
	}
}

func TestJournalNoticesEveryDamage(t *testing.T) {
	good := appendChunks(nil, exampleHeader(), numberedEntries(2))[0]
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if c, err := DecodeChunk(bad); err == nil {
				t.Fatalf("bit %d of byte %d passes: %+v", bit, i, c)
			}
		}
	}
}

// FuzzDecodeChunk: nothing panics, and what decodes is written again to the same bytes
// if it has our header.
func FuzzDecodeChunk(f *testing.F) {
	h := exampleHeader()
	f.Add(appendChunks(nil, h, numberedEntries(1))[0])
	h.ReportTimes = NoReportTimes
	h.Counter = math.MaxUint64
	f.Add(appendChunks(nil, h, numberedEntries(5))[0])
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, value := range [][]byte{input, reseal(bytes.Clone(input))} {
			c, err := DecodeChunk(value)
			if err != nil {
				continue
			}
			n := 0
			for range c.All() {
				n++
			}
			if n != c.Len() {
				t.Fatalf("%d entries of %d", n, c.Len())
			}
			again := appendChunk(nil, c.JournalHeader, c.Index, c.Of, c.entries)
			back, err := DecodeChunk(again)
			if err != nil || back.JournalHeader != c.JournalHeader || !bytes.Equal(back.entries, c.entries) {
				t.Fatalf("decodes to %+v, but again to %+v, %v", c, back, err)
			}
		}
	})
}
