package tail

import (
	"slices"

	"cdrbus/internal/cdr"
	"cdrbus/internal/eventlog"
)

// Filter says which events are shown: those that all of its parts let pass.
type Filter struct {
	Key     *string  // nil: any
	Sources []string // none: any
	Late    bool     // only late ones
	Revised bool     // only revisions
}

func (f *Filter) passes(e *eventlog.Event) bool {
	return (f.Key == nil || string(e.Key) == *f.Key) &&
		(len(f.Sources) == 0 || slices.Contains(f.Sources, e.Source)) &&
		(!f.Late || e.Late) && (!f.Revised || e.Revision)
}

// rememberedIDs is how many Report IDs are remembered at least; at most twice as
// many, in about 55 MiB.
const rememberedIDs = 500_000

// recent knows the last Report IDs that were shown, each with the hash of its last
// body. An event with another body is no repeat: who keeps the last event of each
// Report ID needs it. When newer is full it becomes older, and what was older is
// forgotten.
type recent struct {
	limit        int
	newer, older map[cdr.ReportID]uint64
}

func newRecent(limit int) *recent { return &recent{limit: limit, newer: map[cdr.ReportID]uint64{}} }

// repeats reports whether this very event is remembered, and remembers it.
func (r *recent) repeats(id cdr.ReportID, hash uint64) bool {
	last, known := r.newer[id]
	if !known {
		if last, known = r.older[id]; len(r.newer) >= r.limit {
			r.older, r.newer = r.newer, map[cdr.ReportID]uint64{}
		}
	}
	r.newer[id] = hash
	return known && last == hash
}
