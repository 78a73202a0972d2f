// Package coverage answers what a billing team asks: of which spans of report time
// is it proven that everything the feed had is published, and of which not?
//
// It knows nothing but receipts. Those of a source, in their order, are folded into
// a [Map] of report time to [State], exact to the second; whoever reads the same
// receipts gets the same map.
//
//	map.go      receipts -> what is known of each second
//	report.go   map -> stretches, totals, and what is missing of a span that is required
//	calendar.go map -> the worst of each hour, for a picture
//	receipts.go Kafka -> receipts
//	ledger.go   a map that follows its partition, for those who ask again and again
//	render.go   report -> text for a person
//
// Nothing in it is safe for concurrent use but what says so.
package coverage

import "cdrbus/internal/cdr"

// State is what is known of a stretch of report time of one source.
type State string

// The states, the worst first.
const (
	// Gap is lost: the feed could no longer return it when its turn came.
	Gap State = "gap"
	// Unproven was only read by windows that are not known to be complete.
	Unproven State = "unproven"
	// Unread was not read, as far as the receipts tell: it lies before the start of the
	// source, or after its live edge.
	Unread State = "unread"
	// Published was read by cdr_stream, which selects by the time of insertion, or is
	// still to be read by cdr_feed. Its records are there, but nothing proves that all are.
	Published State = "published"
	// Proven was read by a window of cdr_feed that is known to be complete. Records may
	// still come late.
	Proven State = "proven"
	// Settled is proven, and passed by the widest sweep for late records.
	Settled State = "settled"
)

// States lists every state, the worst first.
func States() []State { return []State{Gap, Unproven, Unread, Published, Proven, Settled} }

// badness orders states: the worst has the lowest.
var badness = func() map[State]int {
	order := map[State]int{}
	for i, s := range States() {
		order[s] = i
	}
	return order
}()

// WorseThan reports whether s is the worse of two states.
func (s State) WorseThan(other State) bool { return badness[s] < badness[other] }

// Stretch is a span of one state, as long as it goes.
type Stretch struct {
	State   State    `json:"state"`
	Span    cdr.Span `json:"span"`
	Seconds int64    `json:"seconds"`
	// Reason says why it is not better, as the last receipt about it has it.
	Reason string `json:"reason,omitempty"`
	// FirstCounter and LastCounter bound the receipts that told of it.
	FirstCounter cdr.Counter `json:"firstCounter,omitempty"`
	LastCounter  cdr.Counter `json:"lastCounter,omitempty"`
}
