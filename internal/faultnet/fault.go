package faultnet

import (
	"fmt"
	"time"
)

// Fault is what becomes of a request.
type Fault uint8

const (
	// Deliver it and return its answer, as networks do.
	Deliver Fault = iota
	// CutBefore cuts the connection; the request never arrives.
	CutBefore
	// CutAfter delivers it, loses the answer and cuts the connection.
	CutAfter
	// Swallow delivers it and loses the answer. The connection stays open and
	// silent: the client runs into its time-out.
	Swallow
	// LateCut cuts the connection at once; the request arrives later all the
	// same, on a connection of its own, and its answer is thrown away.
	LateCut
	// LateSilent is the same on a connection that stays open and silent.
	LateSilent
	// Twice delivers and answers it, and delivers the same bytes once more later.
	Twice
	// Delay delivers it later on its own connection, in its order.
	Delay
	// Freeze lets the whole client stand still, this request included.
	Freeze

	faultCount
)

func (f Fault) String() string {
	return [faultCount]string{
		"delivered", "cut before delivery", "delivered, answer lost, cut", "delivered, never answered",
		"cut, delivered late", "silent, delivered late", "delivered twice", "delayed", "frozen",
	}[f]
}

// Faults lists all of them, without Deliver.
func Faults() (all []Fault) {
	for f := CutBefore; f < faultCount; f++ {
		all = append(all, f)
	}
	return all
}

// Fate is a fault with its circumstances.
type Fate struct {
	Fault Fault
	// After is how much later: of a late or second delivery, a delay, or the end
	// of a freeze.
	After time.Duration
	// Requests, if positive, brings a late or second delivery forward: right
	// before so many further requests of the network, look-ups not counted,
	// whichever comes first. The request that brings it forward waits for it.
	Requests int
	// Answered, if set, runs when the broker has answered and before anything
	// comes of the answer. It does not run for late deliveries.
	Answered func()
}

// detail tells of the circumstances, for the trace.
func (f Fate) detail() string {
	switch {
	case f.Requests > 0 && f.After > 0:
		return fmt.Sprintf("after %s or %d requests", f.After, f.Requests)
	case f.Requests > 0:
		return fmt.Sprintf("after %d requests", f.Requests)
	case f.After > 0:
		return "after " + f.After.String()
	default:
		return ""
	}
}
