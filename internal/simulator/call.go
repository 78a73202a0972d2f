package simulator

import "time"

// A call is one session of several legs. Which calls there are, and everything
// about them, follows from the organization's seed, the minute in which they
// end (their anchor) and their number within that minute.

// role is a party of a call.
type role uint8

const (
	caller role = iota
	callee
	outside // somebody on the public network
	huntGroup
	queue
	attendant
	voicemail
	gateway
	firstAgent
	secondAgent
	thirdAgent
	roles
)

// leg is one record of a call.
type leg struct {
	owner, other role
	terminating  bool
	answered     bool
	early        bool // ends when somebody else answers, before the call's end
	peer         int8 // the record of the same leg from its other side; -1: none
	redirected   bool // reached through a service, which redirected it
}

// shape is a kind of call.
type shape struct {
	name     string
	weight   int // of 100
	callType string
	legs     []leg
	answered bool
	// Of answered calls, in seconds; zero stands for the usual mixture. A shape
	// with early legs is at most shortCallSeconds long.
	minSeconds, maxSeconds int
}

// shortCallSeconds bounds calls with early legs, and so how many minutes after
// the end of a leg the end of its call can be.
const shortCallSeconds = 170

// anchorMinutes is how many later minutes may hold the anchor of a record.
const anchorMinutes = shortCallSeconds/60 + 1

var shapes = []shape{
	{name: "internal", weight: 40, callType: "SIP_ENTERPRISE", answered: true, legs: []leg{
		{owner: caller, other: callee, answered: true, peer: 1},
		{owner: callee, other: caller, terminating: true, answered: true, peer: 0},
	}},
	{name: "inbound", weight: 20, callType: "SIP_INBOUND", answered: true, legs: []leg{
		{owner: callee, other: outside, terminating: true, answered: true, peer: -1},
	}},
	{name: "outbound", weight: 15, callType: "SIP_NATIONAL", answered: true, legs: []leg{
		{owner: caller, other: outside, answered: true, peer: -1},
	}},
	{name: "hunt group", weight: 5, callType: "SIP_ENTERPRISE", answered: true, minSeconds: 5, maxSeconds: shortCallSeconds, legs: []leg{
		{owner: gateway, other: outside, answered: true, peer: 1},
		{owner: huntGroup, other: outside, terminating: true, answered: true, peer: 0},
		{owner: huntGroup, other: firstAgent, early: true, peer: 3, redirected: true},
		{owner: firstAgent, other: outside, terminating: true, early: true, peer: 2, redirected: true},
		{owner: huntGroup, other: secondAgent, early: true, peer: 5, redirected: true},
		{owner: secondAgent, other: outside, terminating: true, early: true, peer: 4, redirected: true},
		{owner: huntGroup, other: thirdAgent, answered: true, peer: 7, redirected: true},
		{owner: thirdAgent, other: outside, terminating: true, answered: true, peer: 6, redirected: true},
	}},
	{name: "queue", weight: 5, callType: "SIP_ENTERPRISE", answered: true, minSeconds: 5, maxSeconds: shortCallSeconds, legs: []leg{
		{owner: queue, other: outside, terminating: true, answered: true, peer: -1},
		{owner: queue, other: firstAgent, early: true, peer: 2, redirected: true},
		{owner: firstAgent, other: outside, terminating: true, early: true, peer: 1, redirected: true},
		{owner: queue, other: secondAgent, answered: true, peer: 4, redirected: true},
		{owner: secondAgent, other: outside, terminating: true, answered: true, peer: 3, redirected: true},
	}},
	{name: "attendant", weight: 5, callType: "SIP_TOLLFREE", answered: true, legs: []leg{
		{owner: attendant, other: outside, terminating: true, answered: true, peer: -1},
		{owner: attendant, other: callee, answered: true, peer: 2, redirected: true},
		{owner: callee, other: outside, terminating: true, answered: true, peer: 1, redirected: true},
	}},
	{name: "voicemail", weight: 5, callType: "SIP_ENTERPRISE", answered: true, minSeconds: 2, maxSeconds: 120, legs: []leg{
		{owner: caller, other: callee, answered: true, peer: 2},
		{owner: callee, other: caller, terminating: true, early: true, peer: -1},
		{owner: voicemail, other: caller, terminating: true, answered: true, peer: 0, redirected: true},
	}},
	{name: "refused", weight: 5, callType: "UNKNOWN", legs: []leg{
		{owner: caller, other: outside, peer: -1},
	}},
}

// legsPerCall is the mean, by which a rate of records becomes one of calls.
var legsPerCall = func() float64 {
	sum, weights := 0, 0
	for _, s := range shapes {
		sum += s.weight * len(s.legs)
		weights += s.weight
	}
	return float64(sum) / float64(weights)
}()

// shapeOf maps a hash to a shape by weight.
var shapeOf = func() (table [100]*shape) {
	at := 0
	for i := range shapes {
		for range shapes[i].weight {
			table[at] = &shapes[i]
			at++
		}
	}
	return table
}()

// burstShape is a call of the burst: one short record.
var burstShape = &shape{name: "burst", callType: "SIP_ENTERPRISE", answered: true, minSeconds: 1, maxSeconds: 60, legs: shapes[1].legs}

// call is the plan of one call; times in milliseconds since the epoch.
type call struct {
	hash           uint64
	shape          *shape
	endMillis      int64
	durationMillis int64 // from answer to end; 0 if nobody answered
	ringMillis     int64
	transferOf     uint64 // hash of the call that this one goes on with; 0: none
}

func (c *call) answerMillis() int64 { return c.endMillis - c.durationMillis }
func (c *call) startMillis() int64  { return c.answerMillis() - c.ringMillis }

// legTimes returns when a leg started, was answered (0: never) and ended.
func (c *call) legTimes(number int) (start, answer, end int64) {
	l := &c.shape.legs[number]
	start, end = c.startMillis(), c.endMillis
	if l.redirected {
		start += min(int64(number)*150, c.ringMillis/2)
	}
	if l.early {
		return start, 0, c.answerMillis() - int64(len(c.shape.legs)-number)
	}
	if l.answered {
		answer = c.answerMillis()
	}
	return start, answer, end
}

// Ringing lasts from two seconds to half a minute.
const minRingMillis, maxRingMillis = 2_000, 32_000

// newCall plans a call from its hash and the minute in which it ends.
func newCall(hash uint64, minute int64, longest time.Duration) call {
	d := draws(hash)
	c := call{hash: hash, shape: shapeOf[d.below(len(shapeOf))]}
	c.endMillis = minute*minuteMillis + int64(d.below(minuteMillis))
	c.ringMillis = int64(d.between(minRingMillis, maxRingMillis))
	c.durationMillis = duration(&d, c.shape, longest)
	return c
}

// duration of a usual call: mostly a few minutes, at times up to an hour, and
// one in 200 up to the longest allowed.
func duration(d *draws, s *shape, longest time.Duration) int64 {
	if !s.answered {
		return 0
	}
	if s.maxSeconds > 0 {
		return int64(d.between(s.minSeconds*1000, s.maxSeconds*1000))
	}
	kind, limitMillis := d.below(200), longest.Milliseconds()
	switch {
	case kind == 0:
		return int64(d.between(1000, int(limitMillis)))
	case kind < 20:
		return min(int64(d.between(600_000, 3_600_000)), limitMillis)
	default:
		return min(int64(d.between(3_000, 360_000)), limitMillis)
	}
}
