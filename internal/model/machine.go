package model

import "fmt"

// machine is the transition relation: which steps a state has, and where they lead.
type machine struct {
	options Options
	oldest  uint8 // age from which on batches are dropped

	violation  string // of the last step
	violated   Kind
	overflowed bool // the last step led beyond what is explored

	// What only matters along a single way, to tell of it.
	epoch int    // the coordinator's
	names places // of the owners
}

func newMachine(options Options) *machine {
	m := &machine{options: options, oldest: 2, epoch: -1, names: inOrder}
	if !options.Rules.has(BrokersVerify) {
		m.oldest = ages
	}
	return m
}

// step is one thing that happens.
type step struct {
	does    does
	owner   int8 // whose step it is, or who waits for the answer; -1: nobody
	message message
	heard   bool // the answer reaches the owner
}

type does uint8

const (
	delivered does = iota
	wantsShard
	crashed
	readLog
	gaveUp
	repeated   // only where a rule is broken
	hurried    // only where a rule is broken
	timedOut   // the coordinator aborts
	forgot     // the coordinator has restarted
	wroteMarks // the end of a transaction is complete
)

// each visits every step that a state has.
func (m *machine) each(s *state, visit func(step)) {
	for i := range m.options.Owners {
		m.ownSteps(s, i, visit)
	}
	if s.txn.ending() {
		visit(step{does: wroteMarks, owner: -1})
	}
	awaited := m.awaited(s, visit)
	if m.options.Quiet {
		return
	}
	if s.txn == ongoing {
		visit(step{does: timedOut, owner: -1})
	}
	if s.remembers {
		visit(step{does: forgot, owner: -1})
	}
	s.network.each(func(msg message) {
		for _, other := range awaited {
			if other == msg {
				return
			}
		}
		visit(step{does: delivered, owner: -1, message: msg})
	})
}

// ownSteps are those that an owner takes by itself.
func (m *machine) ownSteps(s *state, i int, visit func(step)) {
	o := &s.owners[i]
	by := func(d does) { visit(step{does: d, owner: int8(i)}) }
	switch o.stage {
	case idle:
		by(wantsShard)
	case restoring, rereading:
		by(readLog)
	case bumping, adding, producing, committing:
		by(gaveUp)
	}
	if o.stage != idle && !m.options.Quiet {
		by(crashed)
	}
	if o.stage != producing {
		return
	}
	rules := m.options.Rules
	unanswered := o.acked&(1<<events) == 0
	if !rules.has(SameBytesOnRetry) && unanswered && o.variant&otherBytes == 0 || !rules.has(SameSequenceOnRetry) && unanswered && o.sequence[events] == 0 {
		by(repeated)
	}
	if !rules.has(AcknowledgedBeforeCommit) {
		by(hurried)
	}
}

// awaited visits the delivery of what owners wait for, which they repeat until it
// is answered, and returns those requests.
func (m *machine) awaited(s *state, visit func(step)) []message {
	var all []message
	for i := range m.options.Owners {
		requests, count := s.requests(i)
		for _, msg := range requests[:count] {
			all = append(all, msg)
			visit(step{does: delivered, owner: int8(i), message: msg, heard: true})
			visit(step{does: delivered, owner: int8(i), message: msg})
		}
	}
	return all
}

// apply takes a step and returns the answer, if it is a delivery.
func (m *machine) apply(s *state, by step) (answer code) {
	m.violation, m.overflowed = "", false
	i := int(by.owner)
	switch by.does {
	case delivered:
		answer = m.serve(s, by.message)
		if by.heard {
			m.hear(s, i, by.message, answer)
		}
	case wantsShard:
		s.owners[i].window = 0
		if !m.options.Rules.has(RestoreAfterInit) {
			s.owners[i].window = s.committed + 1
		}
		m.enter(s, i, takingOver)
	case crashed:
		s.drop(i)
	case readLog:
		m.read(s, i)
	case gaveUp:
		m.doubt(s, i)
	case repeated:
		m.repeat(s, i)
	case hurried:
		m.ask(s, i)
	case timedOut:
		m.fence(s)
	case forgot:
		s.remembers = false
	case wroteMarks:
		s.writeMarkers()
	}
	m.inspect(s)
	return answer
}

// repeat sends a batch again, but not the same.
func (m *machine) repeat(s *state, i int) {
	o := &s.owners[i]
	if !m.options.Rules.has(SameBytesOnRetry) {
		o.variant |= otherBytes
	} else {
		m.count(o, events)
	}
	m.enter(s, i, producing)
}

func (m *machine) nameOf(i int) string { return string(rune('A' + m.names[i])) }

func (m *machine) violate(kind Kind, format string, args ...any) {
	if m.violation == "" {
		m.violated, m.violation = kind, fmt.Sprintf(format, args...)
	}
}

// inspect holds what is decided against what was promised. What is in the log
// already passed when it was decided.
func (m *machine) inspect(s *state) {
	if s.txn != prepareCommit {
		return
	}
	e, p := s.parts[events].undecided(), s.parts[positions].undecided()
	for i := range max(len(e), len(p)) {
		want := s.committed + uint8(i) + 1
		if i < len(e) {
			m.demandNext(events, e[i], want)
		}
		if i < len(p) {
			m.demandNext(positions, p[i], want)
		}
		switch {
		case i >= len(p):
			m.violate(Torn, "the events of window %d are committed without its positions", want)
		case i >= len(e):
			m.violate(Torn, "the positions of window %d are committed without its events", want)
		case e[i].variant.transaction() != p[i].variant:
			m.violate(Torn, "the events of window %d are of another transaction than its positions", want)
		}
	}
}

func (m *machine) demandNext(p part, b batch, want uint8) {
	switch {
	case b.window < want:
		m.violate(Torn, "the %s of window %d are committed twice", p, b.window)
	case b.window > want:
		m.violate(Torn, "the %s of window %d are committed, and those of window %d are not", p, b.window, want)
	}
}

// told is what Kafka has just told an owner: that its window is committed.
func (m *machine) told(s *state, i int) {
	o := &s.owners[i]
	found := o.window <= s.committed
	variant := s.newest
	if s.txn == prepareCommit {
		for _, b := range s.parts[events].undecided() {
			if b.window == o.window {
				found, variant = true, b.variant
			}
		}
	}
	switch {
	case !found:
		m.violate(Missing, "owner %s was told that window %d is committed, and it is not in the log", m.nameOf(i), o.window)
	case variant != o.variant && (o.window == s.committed || s.txn == prepareCommit):
		m.violate(Replaced, "the events of window %d that owner %s had acknowledged are not in the log: others are in their place", o.window, m.nameOf(i))
	}
}
