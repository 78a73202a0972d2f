package model

// code is what Kafka answers.
type code uint8

const (
	ok                     code = 0
	outOfOrder             code = 45
	invalidEpoch           code = 47
	invalidTxnState        code = 48
	concurrentTransactions code = 51
	producerFenced         code = 90
)

// serve carries a request out and returns the answer. An answer of 0 to a take-over
// or a bump names the coordinator's epoch, age 0.
func (m *machine) serve(s *state, msg message) code {
	switch msg.kind {
	case takeOver, bump:
		return m.initProducerID(s, msg)
	case add:
		return m.addPartitions(s, msg)
	case commit, abort:
		return m.endTxn(s, msg)
	default:
		return m.append(s, msg)
	}
}

// initProducerID: an open transaction is aborted under a new epoch, whoever asks,
// and the answer says to ask again. Else the newest epoch gets the next one, a
// repeat the same answer, and everybody else is fenced.
func (m *machine) initProducerID(s *state, msg message) code {
	switch {
	case s.txn.ending():
		return concurrentTransactions
	case s.txn == ongoing:
		m.fence(s)
		return concurrentTransactions
	case msg.kind == takeOver || msg.age == 0:
		m.nextEpoch(s)
		s.remembers = msg.kind == bump
	case msg.age > 1 || !s.remembers:
		return producerFenced
	}
	s.txn = empty
	return ok
}

// fence aborts what is open under a new epoch, as a time-out does too. Kafka 4
// tells the fenced owner that epoch if it asks for it.
func (m *machine) fence(s *state) {
	m.nextEpoch(s)
	s.remembers = m.options.Kafka4
	s.txn = prepareAbort
}

func (m *machine) nextEpoch(s *state) {
	s.grow(m.oldest)
	m.epoch++
}

func (m *machine) addPartitions(s *state, msg message) code {
	switch {
	case msg.age > 0:
		return producerFenced
	case s.txn.ending():
		return concurrentTransactions
	}
	s.txn = ongoing // also after the end: the epoch is all that tells transactions apart
	return ok
}

func (m *machine) endTxn(s *state, msg message) code {
	during, after := prepareCommit, completeCommit
	if msg.kind == abort {
		during, after = prepareAbort, completeAbort
	}
	switch {
	case msg.age > 0:
		return producerFenced
	case s.txn == ongoing:
		s.txn = during
		return ok
	case s.txn == during:
		return concurrentTransactions
	case s.txn == after:
		return ok
	default:
		return invalidTxnState
	}
}

// append is what the leader of a partition does with a batch.
func (m *machine) append(s *state, msg message) code {
	p := &s.parts[msg.part]
	if refusal := m.verify(s, msg); refusal != ok {
		return refusal
	}
	switch {
	case msg.age > p.age || msg.age >= m.oldest:
		return invalidEpoch
	case msg.age < p.age && msg.sequence > 0:
		return outOfOrder
	case msg.age < p.age:
		p.age, p.next = msg.age, 0
	case msg.sequence < p.next:
		return ok // taken for a repeat, whatever its bytes are
	case msg.sequence > p.next:
		return outOfOrder
	}
	if p.open == maxOpen {
		m.overflowed = true
		return ok
	}
	p.batches[p.open] = msg.batch
	p.open++
	p.next++
	return ok
}

// verify asks the coordinator, unless the partition has something undecided of this
// epoch already.
func (m *machine) verify(s *state, msg message) code {
	p := &s.parts[msg.part]
	switch {
	case !m.options.Rules.has(BrokersVerify), p.open > 0 && p.age == msg.age:
		return ok
	case msg.age > 0:
		return invalidEpoch
	case s.txn.ending():
		return concurrentTransactions // the broker passes it on as one worth a repeat
	case s.txn != ongoing:
		return invalidTxnState
	}
	return ok
}

// writeMarkers completes the end of a transaction.
func (s *state) writeMarkers() {
	e := s.parts[events].undecided()
	if s.txn == prepareCommit {
		s.committed += uint8(len(s.parts[positions].undecided()))
		if len(e) > 0 {
			s.newest = e[len(e)-1].variant
		}
		s.txn = completeCommit
	} else {
		s.txn = completeAbort
	}
	s.parts[events].mark()
	s.parts[positions].mark()
}
