package model

// owner is one process that has, or had, the shard: producer.Shard and the
// committer of internal/daemon.
type owner struct {
	stage    stage
	age      uint8 // of its epoch
	window   uint8 // that it commits, or will
	acked    uint8 // partitions, as bits
	variant  variant
	sequence [partCount]uint8 // of its next batch
	asked    bool             // it has asked for the commit of window
}

// stage is what an owner is at: most of them wait for an answer.
type stage uint8

const (
	idle       stage = iota // knows nothing
	takingOver              // A.1
	restoring               // A.2: the log is to be read
	bumping                 // B.1
	adding                  // B.2
	producing               // B.3, both partitions at once
	committing              // B.4
	aborting                // C.1
	rebumping               // C.2
	rereading               // C.3: the log is to be read again
	finished                // every window is committed
)

// identified reports whether the owner has an epoch.
func (o *owner) identified() bool { return o.stage >= restoring }

// batchFor is what an owner sends to a partition.
func (o *owner) batchFor(p part) batch {
	b := batch{o.window, o.variant}
	if p == positions {
		b.variant = o.variant.transaction()
	}
	return b
}

// requests are those whose answer an owner waits for.
func (s *state) requests(i int) (awaited [partCount]message, count int) {
	o := &s.owners[i]
	var k kind
	switch o.stage {
	case takingOver:
		awaited[0] = message{kind: takeOver, owner: uint8(i)}
		return awaited, 1
	case producing:
		for p := range partCount {
			if o.acked&(1<<p) == 0 {
				awaited[count] = message{kind: produce, age: o.age, part: p, sequence: o.sequence[p], batch: o.batchFor(p)}
				count++
			}
		}
		return awaited, count
	case bumping, rebumping:
		k = bump
	case adding:
		k = add
	case committing:
		k = commit
	case aborting:
		k = abort
	default:
		return awaited, 0
	}
	awaited[0] = message{kind: k, age: o.age}
	return awaited, 1
}

// enter brings an owner to a stage and sends what belongs to it.
func (m *machine) enter(s *state, i int, next stage) {
	s.owners[i].stage = next
	awaited, count := s.requests(i)
	for _, msg := range awaited[:count] {
		s.network.put(msg, m.oldest)
	}
}

// drop ends an ownership: only what was sent is left of it.
func (s *state) drop(i int) { s.owners[i] = owner{} }

// begin starts the transaction of the next window, if there is one. A new epoch
// counts from zero.
func (m *machine) begin(s *state, i int, newEpoch bool) {
	o := &s.owners[i]
	o.acked, o.asked = 0, false
	if newEpoch {
		o.variant, o.sequence = 0, [partCount]uint8{}
	} else {
		o.variant = o.variant.transaction() ^ otherTransaction
	}
	if int(o.window) > m.options.Windows {
		m.enter(s, i, finished)
		return
	}
	m.enter(s, i, adding)
}

// read is a restore: the log says what comes next.
func (m *machine) read(s *state, i int) {
	o := &s.owners[i]
	if s.parts[positions].open > 0 && m.options.Rules.has(RestoreDemandsSettled) {
		s.drop(i) // a hanging transaction: the shard is refused
		return
	}
	again, before := o.stage == rereading, o.window
	o.window = s.committed + 1
	if again && o.window != before && o.window != before+1 {
		s.drop(i) // somebody else commits
		return
	}
	m.begin(s, i, m.options.Rules.has(BumpPerTransaction) || !again)
}

// hear is what an owner does about an answer.
func (m *machine) hear(s *state, i int, msg message, answer code) {
	o := &s.owners[i]
	switch answer {
	case concurrentTransactions:
		// It asks again.
	case producerFenced, invalidEpoch:
		m.fenced(s, i)
	case outOfOrder:
		m.doubt(s, i)
	case invalidTxnState:
		m.hearInvalid(s, i)
	default:
		if msg.kind == takeOver || msg.kind == bump {
			o.age = 0
		}
		m.hearDone(s, i, msg)
	}
}

func (m *machine) hearDone(s *state, i int, msg message) {
	o := &s.owners[i]
	switch o.stage {
	case takingOver:
		if m.options.Rules.has(RestoreAfterInit) {
			m.enter(s, i, restoring)
			return
		}
		m.begin(s, i, true)
	case bumping:
		m.begin(s, i, true)
	case adding:
		m.enter(s, i, producing)
	case producing:
		o.acked |= 1 << msg.part
		m.count(o, msg.part)
		if o.acked == 1<<partCount-1 {
			m.ask(s, i)
		}
	case committing:
		m.told(s, i)
		m.next(s, i)
	case aborting:
		m.aborted(s, i)
	case rebumping:
		m.recovered(s, i)
	}
}

// count goes on to the next sequence of a partition.
func (m *machine) count(o *owner, p part) {
	if o.sequence[p] == maxSequence {
		m.overflowed = true
		return
	}
	o.sequence[p]++
}

// ask asks for the commit.
func (m *machine) ask(s *state, i int) {
	s.owners[i].asked = true
	m.enter(s, i, committing)
}

// next goes on after a commit.
func (m *machine) next(s *state, i int) {
	o := &s.owners[i]
	o.window, o.asked = o.window+1, false
	switch {
	case int(o.window) > m.options.Windows:
		m.begin(s, i, true) // nothing
	case m.options.Rules.has(BumpPerTransaction):
		m.enter(s, i, bumping)
	default:
		m.begin(s, i, false)
	}
}

// hearInvalid is INVALID_TXN_STATE: nothing to abort, or a doubt.
func (m *machine) hearInvalid(s *state, i int) {
	o := &s.owners[i]
	rules := m.options.Rules
	switch {
	case o.stage == aborting:
		if o.asked && !rules.has(RestoreAfterDoubt) {
			o.window++ // there was nothing to abort, so it must have been committed
			o.asked = false
		}
		m.aborted(s, i)
	case o.stage == committing && !rules.has(InvalidTxnStateIsNotCommitted):
		m.next(s, i)
	default:
		m.doubt(s, i)
	}
}

// doubt is the way from a failed commit to C: abort what may be open, take an epoch.
func (m *machine) doubt(s *state, i int) {
	o := &s.owners[i]
	rules := m.options.Rules
	skipsAbort := !rules.has(AbortBeforeInit) || o.asked && !rules.has(NextEpochProvesNothing)
	if o.stage == bumping || skipsAbort {
		m.enter(s, i, rebumping)
		return
	}
	m.enter(s, i, aborting)
}

// aborted goes on when nothing is open any more.
func (m *machine) aborted(s *state, i int) {
	if m.options.Rules.has(BumpPerTransaction) {
		m.enter(s, i, rebumping)
		return
	}
	m.enter(s, i, rereading)
}

// recovered goes on with a new epoch after a doubt.
func (m *machine) recovered(s *state, i int) {
	o := &s.owners[i]
	rules := m.options.Rules
	switch {
	case o.asked && (!rules.has(UnknownIsNotCommitted) || !rules.has(NextEpochProvesNothing)):
		o.window++
		m.begin(s, i, true)
	case o.asked && !rules.has(UnknownIsNotFailed), !rules.has(RestoreAfterDoubt):
		m.begin(s, i, true)
	default:
		m.enter(s, i, rereading)
	}
}

func (m *machine) fenced(s *state, i int) {
	if m.options.Quiet {
		m.violate(Fenced, "owner %s is fenced, and nobody has taken the shard over", m.nameOf(i))
	}
	if !m.options.Rules.has(FencedSendsNothing) {
		m.enter(s, i, rebumping)
		return
	}
	s.drop(i)
}
