package daemon

import (
	"bytes"
	"iter"
	"slices"
	"sort"
	"unsafe"

	"cdrbus/internal/cdr"
)

// topicTable holds what a span of the events topic says of one source: of each Report
// ID the last content, in 40 bytes. It is filled in the order of the topic, sorted
// once, and asked then; what comes later is kept beside.
type topicTable struct {
	buckets [256][]topicEntry // by the first byte of the ID, so that none grows by much
	later   map[cdr.ReportID]*topicEntry
	sorted  bool
	n       int // added before it was sorted
}

type topicEntry struct {
	id            cdr.ReportID
	hash          uint64
	offset        int64  // of the last event
	reportSeconds uint32 // since 1970; 0: none
	partition     uint16
	comparable    bool // hash compares with what the feed returns
	seen          bool // the feed returned it
}

// add takes in an event. Events of one ID come in the order of the log.
func (t *topicTable) add(e topicEntry) {
	if !t.sorted {
		b := &t.buckets[e.id[0]]
		*b = append(*b, e)
		t.n++
		return
	}
	if known := t.find(e.id); known != nil {
		e.seen = known.seen
		*known = e
		return
	}
	t.later[e.id] = &e
}

// bytes is what the table takes.
func (t *topicTable) bytes() int64 {
	const laterBytes = 80 // with the map's slack
	n := laterBytes * int64(len(t.later))
	for _, b := range t.buckets {
		n += int64(cap(b)) * int64(unsafe.Sizeof(topicEntry{}))
	}
	return n
}

// sort makes the table ready to be asked: of each ID the last content is left. It
// calls doubled for every event with the content of the one before it.
func (t *topicTable) sort(doubled func(topicEntry)) {
	t.sorted, t.later = true, map[cdr.ReportID]*topicEntry{}
	for i, bucket := range t.buckets {
		slices.SortStableFunc(bucket, func(a, b topicEntry) int { return bytes.Compare(a.id[:], b.id[:]) })
		kept := bucket[:0]
		for _, e := range bucket {
			last := len(kept) - 1
			switch {
			case last < 0 || kept[last].id != e.id:
				kept = append(kept, e)
				continue
			case kept[last].hash == e.hash:
				doubled(e)
			}
			kept[last] = e
		}
		t.buckets[i] = kept
	}
}

// find returns the entry of an ID; nil if there is none.
func (t *topicTable) find(id cdr.ReportID) *topicEntry {
	bucket := t.buckets[id[0]]
	at := sort.Search(len(bucket), func(i int) bool { return bytes.Compare(bucket[i].id[:], id[:]) >= 0 })
	if at < len(bucket) && bucket[at].id == id {
		return &bucket[at]
	}
	return t.later[id]
}

// all yields every entry that it was sorted with.
func (t *topicTable) all() iter.Seq[*topicEntry] {
	return func(yield func(*topicEntry) bool) {
		for _, bucket := range t.buckets {
			for i := range bucket {
				if !yield(&bucket[i]) {
					return
				}
			}
		}
	}
}
