package simulator

import (
	"math"
	"time"
	"unsafe"
)

const minuteMillis = 60_000

// Calls of a burst are numbered from here on, beyond those of any minute.
const (
	burstBase = 1 << 24
	maxBurst  = 20_000
)

// maxDelay bounds lateness and revision, so that both fit an entry.
const maxDelay = 20 * 24 * time.Hour

// Records that are not late appear this long after their report time.
const minLagMillis, maxLagMillis = 5_000, 55_000

// entry is a record in short: where it comes from and what finds it by time.
// Rendering it draws everything else again from the same seed.
type entry struct {
	reportMillis     int64
	minute           int32 // since the epoch: the anchor of its call
	number           int32 // of the call within that minute
	startDeltaMillis int32 // from start to report
	delayMillis      int32 // from report to appearance
	leg              uint8
	location         uint8
	poison           uint8 // index into poisonTable; 0: none
	flags            uint8
}

const entryBytes = int64(unsafe.Sizeof(entry{}))

const (
	isLate uint8 = 1 << iota
	isRevised
	isDoubled
)

func (e *entry) insertMillis() int64 { return e.reportMillis + int64(e.delayMillis) }
func (e *entry) startMillis() int64  { return e.reportMillis - int64(e.startDeltaMillis) }

// axis is a time by which records are found.
type axis uint8

const (
	byReport axis = iota
	byStart
	byInsert
	lateHours // not an axis of records: the late ones of an hour, by appearance
)

// on returns the record's time on an axis.
func (e *entry) on(a axis) int64 {
	switch a {
	case byStart:
		return e.startMillis()
	case byInsert, lateHours:
		return e.insertMillis()
	default:
		return e.reportMillis
	}
}

// generator makes the entries of one organization. It has no state but its
// settings, and is safe for concurrent use.
type generator struct {
	seed        uint64
	rate        float64
	records     Records
	sinceMillis int64 // inclusive
	untilMillis int64 // exclusive
	locations   int
	people      int
	lateSpread  float64 // ln(LateMax/LateMin)
	poison      []uint8
}

func newGenerator(o Organization, r Records, people int) generator {
	g := generator{seed: o.Seed, rate: r.Rate, records: r, untilMillis: math.MaxInt64, sinceMillis: math.MinInt64, locations: len(o.Locations), people: people}
	if o.Rate > 0 {
		g.rate = o.Rate
	}
	if !r.Since.IsZero() {
		g.sinceMillis = r.Since.UnixMilli()
	}
	if !r.Until.IsZero() {
		g.untilMillis = r.Until.UnixMilli()
	}
	g.lateSpread = math.Log(float64(r.LateMax) / float64(r.LateMin))
	g.poison = poisonIndexes(r.PoisonKinds)
	return g
}

// callsIn returns how many calls end in a minute: the expected number, rounded
// up or down by chance so that the mean is right even far below one a minute.
func (g *generator) callsIn(minute int64) int {
	expected := g.rate * 60 / legsPerCall * g.curve(minute)
	return int(expected + unit(mix(g.seed^saltMinute^uint64(minute)*0x9e3779b97f4a7c15)))
}

// officeHours weighs the hours of a day (UTC).
var officeHours = [24]float64{
	0.10, 0.08, 0.06, 0.06, 0.08, 0.15, 0.40, 1.00, 2.00, 2.60, 2.50, 2.20,
	1.70, 2.10, 2.30, 2.10, 1.60, 1.00, 0.60, 0.45, 0.35, 0.26, 0.20, 0.14,
}

// nightBegins and nightEnds bound the empty night (UTC).
const nightBegins, nightEnds = 22, 6

// curve returns the weight of a minute, 1 in the mean of a day.
func (g *generator) curve(minute int64) float64 {
	hour := int((minute/60%24 + 24) % 24)
	weight := 1.0
	if g.records.DayCurve {
		weight = officeHours[hour]
	}
	if g.records.EmptyNights && (hour >= nightBegins || hour < nightEnds) {
		weight = 0
	}
	return weight / curveMeans[curveKind(g.records)]
}

func curveKind(r Records) int {
	kind := 0
	if r.DayCurve {
		kind |= 1
	}
	if r.EmptyNights {
		kind |= 2
	}
	return kind
}

// curveMeans holds the mean weight of a day for each kind of curve.
var curveMeans = func() (means [4]float64) {
	for hour, weight := range officeHours {
		day := hour >= nightEnds && hour < nightBegins
		means[0]++
		means[1] += weight
		if day {
			means[2]++
			means[3] += weight
		}
	}
	for i := range means {
		means[i] /= 24
	}
	return means
}()

// callHash is the seed of everything about one call.
func (g *generator) callHash(minute, number int64) uint64 {
	return mix(mix(g.seed^uint64(minute)) ^ uint64(number)<<20)
}

// call plans the call of a minute and number.
func (g *generator) call(minute, number int64) call {
	hash := g.callHash(minute, number)
	if number < burstBase {
		c := newCall(hash, minute, g.records.LongestCall)
		if number > 0 && unit(mix(hash^saltInteraction)) < transferShare {
			c.transferOf = g.callHash(minute, number-1)
		}
		return c
	}
	d := draws(hash)
	return call{hash: hash, shape: burstShape, endMillis: g.burstMillis(minute), ringMillis: minRingMillis, durationMillis: duration(&d, burstShape, g.records.LongestCall)}
}

// burstMillis returns the instant of the burst of the hour that holds a minute.
func (g *generator) burstMillis(minute int64) int64 {
	hour := floorDiv(minute, 60)
	return hour*60*minuteMillis + int64(scale(mix(g.seed^saltBurst^uint64(hour)), 60*minuteMillis))
}

// appendMinute appends the records whose report time lies in a minute, in no order.
func (g *generator) appendMinute(dst []entry, minute int64) []entry {
	for anchor := minute; anchor <= minute+anchorMinutes; anchor++ {
		for number := range int64(g.callsIn(anchor)) {
			c := g.call(anchor, number)
			if anchor == minute || c.shape.maxSeconds > 0 {
				dst = g.appendLegs(dst, &c, anchor, number, minute)
			}
		}
	}
	if g.records.Burst > 0 && floorDiv(g.burstMillis(minute), minuteMillis) == minute {
		for i := range int64(g.records.Burst) {
			c := g.call(minute, burstBase+i)
			dst = g.appendLegs(dst, &c, minute, burstBase+i, minute)
		}
	}
	return dst
}

// appendLegs appends those legs of a call that were reported in a minute.
func (g *generator) appendLegs(dst []entry, c *call, anchor, number, minute int64) []entry {
	for i := range c.shape.legs {
		start, _, end := c.legTimes(i)
		if end < minute*minuteMillis || end >= (minute+1)*minuteMillis || end < g.sinceMillis || end >= g.untilMillis {
			continue
		}
		e := entry{reportMillis: end, minute: int32(anchor), number: int32(number), startDeltaMillis: int32(end - start), leg: uint8(i)}
		e.location = uint8(g.locationOf(c, i))
		g.draw(&e, legHash(c.hash, i))
		dst = append(dst, e)
	}
	return dst
}

func legHash(callHash uint64, leg int) uint64 { return mix(callHash ^ saltLeg ^ uint64(leg)<<32) }

// draw decides when a record appears and what is odd about it.
func (g *generator) draw(e *entry, hash uint64) {
	d, r := draws(hash), &g.records
	e.delayMillis = int32(d.between(minLagMillis, maxLagMillis))
	if d.chance(r.LateShare) {
		e.flags |= isLate
		e.delayMillis = int32(float64(r.LateMin.Milliseconds()) * math.Exp(g.lateSpread*unit(d.next())))
	}
	if d.chance(r.DoubleShare) {
		e.flags |= isDoubled
	}
	switch {
	case d.chance(r.PoisonShare):
		e.poison = pick(&d, g.poison)
	case d.chance(r.RevisedShare):
		e.flags |= isRevised
	}
}

// revisedMillis returns when a revised record gets its second content.
func (g *generator) revisedMillis(e *entry) int64 {
	h := mix(legHash(g.callHash(int64(e.minute), int64(e.number)), int(e.leg)) ^ saltRevision)
	low, high := g.records.RevisedMin.Milliseconds(), g.records.RevisedMax.Milliseconds()
	return e.insertMillis() + low + int64(scale(h, int(high-low+1)))
}

// personOf returns who plays a role of a call. Roles of one call are different
// people as long as there are enough.
func (g *generator) personOf(c *call, r role) int {
	return (scale(mix(c.hash^saltPerson), g.people) + int(r)*7) % g.people
}

// locationOf returns the location of the owner of a leg.
func (g *generator) locationOf(c *call, leg int) int {
	return g.personOf(c, c.shape.legs[leg].owner) % g.locations
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
