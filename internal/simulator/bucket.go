package simulator

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
)

// A bucket is the sorted entries of one minute on one axis (or the late ones of
// one hour), made when first asked for and dropped when the cache is full.

type bucketKey struct {
	org  int
	axis axis
	unit int64 // minute, or hour, since the epoch
}

// bucketCache holds the buckets used last, up to a number of entries. It is
// safe for concurrent use. Two goroutines may make the same bucket at once:
// they make the same, so nothing is lost but the work.
type bucketCache struct {
	limitEntries int

	mu      sync.Mutex
	entries int
	byKey   map[bucketKey]*list.Element
	recent  list.List // of *cachedBucket, the last used first
}

type cachedBucket struct {
	key     bucketKey
	entries []entry
}

func newBucketCache(limitEntries int) *bucketCache {
	return &bucketCache{limitEntries: limitEntries, byKey: make(map[bucketKey]*list.Element)}
}

// bucketCost counts an empty bucket as something, so that their number is bounded too.
func bucketCost(entries []entry) int { return cap(entries) + 8 }

func (c *bucketCache) get(key bucketKey, build func() []entry) []entry {
	c.mu.Lock()
	if found, ok := c.byKey[key]; ok {
		c.recent.MoveToFront(found)
		c.mu.Unlock()
		return found.Value.(*cachedBucket).entries
	}
	c.mu.Unlock()
	entries := build()
	c.put(key, entries)
	return entries
}

func (c *bucketCache) put(key bucketKey, entries []entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok {
		return
	}
	c.byKey[key] = c.recent.PushFront(&cachedBucket{key, entries})
	c.entries += bucketCost(entries)
	for c.entries > c.limitEntries && c.recent.Len() > 1 {
		oldest := c.recent.Remove(c.recent.Back()).(*cachedBucket)
		delete(c.byKey, oldest.key)
		c.entries -= bucketCost(oldest.entries)
	}
}

// minute returns the records of a minute on an axis, in order of that axis.
func (s *Simulator) minute(o *org, a axis, minute int64) []entry {
	return s.buckets.get(bucketKey{o.index, a, minute}, func() []entry {
		switch a {
		case byStart:
			return s.startedIn(o, minute)
		case byInsert:
			return s.appearedIn(o, minute)
		default:
			entries := o.appendMinute(nil, minute)
			sortEntries(entries, byReport)
			return slices.Clip(entries)
		}
	})
}

// startedIn collects the records of calls that began in a minute. They were
// reported then, or up to the longest call later.
func (s *Simulator) startedIn(o *org, minute int64) []entry {
	var entries []entry
	last := minute + (o.records.LongestCall.Milliseconds()+maxRingMillis)/minuteMillis + 1
	for reported := minute; reported <= last; reported++ {
		for _, e := range s.minute(o, byReport, reported) {
			if floorDiv(e.startMillis(), minuteMillis) == minute {
				entries = append(entries, e)
			}
		}
	}
	sortEntries(entries, byStart)
	return slices.Clip(entries)
}

// appearedIn collects the records that became visible in a minute: those of
// this minute and the one before, and late ones from up to LateMax before.
func (s *Simulator) appearedIn(o *org, minute int64) []entry {
	var entries []entry
	for reported := minute - 1 - maxLagMillis/minuteMillis; reported <= minute; reported++ {
		for _, e := range s.minute(o, byReport, reported) {
			if e.flags&isLate == 0 && floorDiv(e.insertMillis(), minuteMillis) == minute {
				entries = append(entries, e)
			}
		}
	}
	if o.records.LateShare > 0 {
		firstHour := floorDiv(minute*minuteMillis-o.records.LateMax.Milliseconds(), 60*minuteMillis)
		for hour := firstHour; hour <= floorDiv(minute, 60); hour++ {
			late := s.lateOf(o, hour)
			from := lowerBound(late, lateHours, minute*minuteMillis)
			entries = append(entries, late[from:lowerBound(late, lateHours, (minute+1)*minuteMillis)]...)
		}
	}
	sortEntries(entries, byInsert)
	return slices.Clip(entries)
}

// lateOf returns the late records reported in an hour, in order of appearance.
func (s *Simulator) lateOf(o *org, hour int64) []entry {
	return s.buckets.get(bucketKey{o.index, lateHours, hour}, func() []entry {
		var late []entry
		for minute := hour * 60; minute < (hour+1)*60; minute++ {
			for _, e := range s.minute(o, byReport, minute) {
				if e.flags&isLate != 0 {
					late = append(late, e)
				}
			}
		}
		sortEntries(late, lateHours)
		return slices.Clip(late)
	})
}

// sortEntries orders by time, then by identity, so that the order is total.
func sortEntries(entries []entry, a axis) {
	slices.SortFunc(entries, func(x, y entry) int {
		if c := cmp.Compare(x.on(a), y.on(a)); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(x.minute, y.minute), cmp.Compare(x.number, y.number), cmp.Compare(x.leg, y.leg))
	})
}

// lowerBound returns the first place whose time is at least millis.
func lowerBound(entries []entry, a axis, millis int64) int {
	at, _ := slices.BinarySearchFunc(entries, millis, func(e entry, target int64) int {
		return cmp.Compare(e.on(a), target)
	})
	return at
}

// scan calls each for the records in [fromMillis, untilMillis) of an axis, in
// order, until it returns false.
func (s *Simulator) scan(o *org, a axis, fromMillis, untilMillis int64, each func(*entry) bool) {
	for minute := floorDiv(fromMillis, minuteMillis); minute*minuteMillis < untilMillis; minute++ {
		entries := s.minute(o, a, minute)
		for i := lowerBound(entries, a, fromMillis); i < len(entries); i++ {
			if entries[i].on(a) >= untilMillis {
				return
			}
			if !each(&entries[i]) {
				return
			}
		}
	}
}
