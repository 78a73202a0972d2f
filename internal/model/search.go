package model

import (
	"time"
)

// Kind is what a violation is about.
type Kind uint8

const (
	// Any violation.
	Any Kind = iota
	// Torn: a window is committed in part, twice, or without its predecessor.
	Torn
	// Missing: an owner was told that a window is committed, and it is not there.
	Missing
	// Replaced: a batch was acknowledged, and another one is in its place.
	Replaced
	// Fenced: the only owner lost the shard, see Options.Quiet.
	Fenced
)

// Result is what an exploration found.
type Result struct {
	States      int
	Transitions int
	Depth       int // of the state farthest from the first
	Took        time.Duration
	// Answers counts the answers that owners heard, by request and code.
	Answers map[Answer]int
	// Violation is what is wrong at the end of Trace; empty: nothing is.
	Violation string
	// Trace is a shortest way to it, a line for each step.
	Trace []string
}

// Answer is a request and the code that an owner heard.
type Answer struct {
	Request string
	Code    int
}

// Check explores all states, up to the first that violates what was promised in
// the way looked for. It does not go on from one that violates it in another way.
func Check(options Options, look Kind) (Result, error) {
	if err := options.validate(); err != nil {
		return Result{}, err
	}
	began := time.Now()
	m := newMachine(options)
	x := &exploration{machine: m, numbers: map[state]int32{}, result: Result{Answers: map[Answer]int{}}}
	x.add(state{}, -1, step{})
	for at := 0; at < len(x.states) && x.result.Violation == ""; at++ {
		x.expand(int32(at), look)
	}
	x.result.States = len(x.states)
	for at := len(x.states) - 1; at > 0; at = int(x.parents[at]) {
		x.result.Depth++
	}
	x.result.Took = time.Since(began)
	return x.result, nil
}

// exploration is the breadth-first search: states in the order in which they were
// found, each with the one before it and the step between.
type exploration struct {
	*machine
	numbers map[state]int32
	states  []state
	parents []int32
	steps   []step
	result  Result
}

func (x *exploration) add(s state, parent int32, by step) {
	if _, known := x.numbers[s]; known {
		return
	}
	x.numbers[s] = int32(len(x.states))
	x.states, x.parents, x.steps = append(x.states, s), append(x.parents, parent), append(x.steps, by)
}

func (x *exploration) expand(at int32, look Kind) {
	from := x.states[at]
	x.each(&from, func(by step) {
		if x.result.Violation != "" {
			return
		}
		to := from
		answer := x.apply(&to, by)
		if by.does == delivered && by.heard {
			x.result.Answers[Answer{by.message.kind.String(), int(answer)}]++
		}
		x.result.Transitions++
		if x.violation != "" && (look == Any || look == x.violated) {
			x.result.Trace, x.result.Violation = narrate(x.options, append(x.pathTo(at), by))
			return
		}
		if x.violation == "" && !x.overflowed {
			to.sortOwners(x.options.Owners)
			x.add(to, at, by)
		}
	})
}

func (x *exploration) pathTo(at int32) []step {
	if at == 0 {
		return nil
	}
	return append(x.pathTo(x.parents[at]), x.steps[at])
}

func (k Kind) String() string {
	return [...]string{"any", "torn", "missing", "replaced", "fenced"}[k]
}
