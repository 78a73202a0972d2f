package tail

import (
	"context"

	"cdrbus/internal/eventlog"
)

const (
	firstLookBack = 4 // offsets for each event asked for: markers of commits take some
	lookFurther   = 8 // times, whenever too few have passed
)

// last shows the last events that pass, and returns the place behind them. It
// looks back ever further, until every partition has shown as many or begun: the
// last of all are then among the last of each.
func (r *run) last(ctx context.Context) (eventlog.Place, error) {
	partitions, err := r.reader.Partitions(ctx, r.o.Topic)
	if err != nil {
		return eventlog.Place{}, err
	}
	starts, ends := map[int]int64{}, map[int]int64{}
	for p := range partitions {
		bounds, err := r.reader.Bounds(ctx, r.o.Topic, p)
		if err != nil {
			return eventlog.Place{}, err
		}
		starts[p], ends[p] = bounds.LogStart, bounds.LastStable
	}
	for back := int64(r.o.Last) * firstLookBack; ; back *= lookFurther {
		from, beginning := map[int]int64{}, true
		for p, end := range ends {
			from[p] = max(starts[p], end-back)
		}
		window := newWindow(r.o.Last)
		r.repeats = newRecent(rememberedIDs)
		repeats := r.totals.Repeats
		scanned, err := r.scan(ctx, eventlog.AtOffsets(from), eventlog.AtOffsets(ends), window.add)
		if err != nil {
			return eventlog.Place{}, err
		}
		for p := range from {
			beginning = beginning && (from[p] == starts[p] || window.passed[p] >= r.o.Last)
		}
		if !beginning {
			r.totals.Repeats = repeats
			continue
		}
		r.totals.add(scanned.Counts)
		return eventlog.Following(ends), window.each(r.show)
	}
}

// window holds the last events of a scan.
type window struct {
	events []*eventlog.Event // a ring
	next   int               // in events
	passed map[int]int       // by partition
}

func newWindow(size int) *window {
	return &window{events: make([]*eventlog.Event, size), passed: map[int]int{}}
}

func (w *window) add(e *eventlog.Event) error {
	w.events[w.next] = e.Clone()
	w.next = (w.next + 1) % len(w.events)
	w.passed[e.Partition]++
	return nil
}

// each hands over the events, the oldest first.
func (w *window) each(show func(*eventlog.Event) error) error {
	for i := range w.events {
		if e := w.events[(w.next+i)%len(w.events)]; e != nil {
			if err := show(e); err != nil {
				return err
			}
		}
	}
	return nil
}
