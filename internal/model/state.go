package model

import "math/bits"

const (
	maxWindows = 3
	maxOwners  = 3
	// maxOpen is how many undecided batches a partition holds at most; a state with
	// more is not explored. One is enough as long as the rules are kept.
	maxOpen = 3
	// maxSequence is how far an epoch's sequences count. Zero is enough as long as
	// each transaction has its own epoch.
	maxSequence = 3
)

// state is everything at one instant. It is comparable: equal states are one.
//
// Epochs are ages: how many the coordinator's is ahead. So nothing grows with the
// number of take-overs, and states that differ only by it are one.
type state struct {
	committed uint8 // windows 1 to this one are in the log, whole
	newest    variant
	txn       txn
	remembers bool // the epoch before the coordinator's, asked for again, is answered again
	parts     [partCount]partition
	owners    [maxOwners]owner
	network   network
}

// part is one of the two partitions.
type part uint8

const (
	events part = iota
	positions

	partCount
)

func (p part) String() string { return [partCount]string{"events", "positions"}[p] }

// txn is what the coordinator knows of the transaction of its epoch.
type txn uint8

const (
	empty txn = iota
	ongoing
	prepareCommit // decided; the markers are not written yet
	prepareAbort
	completeCommit
	completeAbort
)

// ending reports whether the coordinator is still busy with the end.
func (t txn) ending() bool { return t == prepareCommit || t == prepareAbort }

// partition is what one partition knows of the producer, and what of it is undecided.
type partition struct {
	age     uint8 // of the newest epoch that it has seen
	next    uint8 // sequence that it expects of that epoch
	open    uint8 // how many batches are undecided
	batches [maxOpen]batch
}

// batch is what one window puts into one partition.
type batch struct {
	window  uint8
	variant variant
}

// variant tells apart what an owner sends of one window in one epoch: in which
// transaction, where an epoch has more than one, and whether with other bytes than
// the first time.
type variant uint8

const (
	otherTransaction variant = 1 << iota // every second one
	otherBytes
)

// transaction is what the events and the position of a window have in common.
func (v variant) transaction() variant { return v & otherTransaction }

func (p *partition) undecided() []batch { return p.batches[:p.open] }

// mark writes the marker of the coordinator's epoch.
func (p *partition) mark() {
	p.open, p.batches = 0, [maxOpen]batch{}
	if p.age > 0 {
		p.age, p.next = 0, 0
	}
}

// kind is a kind of request.
type kind uint8

const (
	takeOver kind = iota // InitProducerId without identity
	bump                 // InitProducerId with the epoch in use
	add                  // AddPartitionsToTxn, of both partitions
	commit               // EndTxn
	abort                // EndTxn
	produce

	kindCount
)

// message is a request. Of a take-over owner says whose it is; all others belong
// to whoever has the epoch.
type message struct {
	kind     kind
	owner    uint8
	age      uint8
	part     part
	sequence uint8
	batch    batch
}

// network is the set of the requests that may be delivered.
type network struct {
	takeOvers uint8                   // by owner
	control   [2]uint8                // bump to abort, by age and kind
	produce   [ages][partCount]uint64 // by batchBit
}

// ages is of how many epochs batches are kept at most.
const ages = 3

func batchBit(sequence uint8, b batch) uint {
	return uint(b.window)<<4 | uint(sequence)<<2 | uint(b.variant)
}

// put keeps a request, unless it will be refused whenever it arrives: batches from
// the age of oldest on, all others of a former epoch but its bump.
func (n *network) put(m message, oldest uint8) {
	switch {
	case m.kind == takeOver:
		n.takeOvers |= 1 << m.owner
	case m.kind == produce && m.age < oldest:
		n.produce[m.age][m.part] |= 1 << batchBit(m.sequence, m.batch)
	case m.age == 0 || m.age == 1 && m.kind == bump:
		n.control[m.age] |= 1 << m.kind
	}
}

// each visits every request.
func (n *network) each(visit func(message)) {
	for owner := range uint8(maxOwners) {
		if n.takeOvers&(1<<owner) != 0 {
			visit(message{kind: takeOver, owner: owner})
		}
	}
	for age, kinds := range n.control {
		for k := bump; k < produce; k++ {
			if kinds&(1<<k) != 0 {
				visit(message{kind: k, age: uint8(age)})
			}
		}
	}
	for age := range uint8(ages) {
		for p := range partCount {
			for left := n.produce[age][p]; left != 0; left &= left - 1 {
				bit := uint8(bits.TrailingZeros64(left))
				b := batch{window: bit >> 4, variant: variant(bit & 3)}
				visit(message{kind: produce, age: age, part: p, sequence: bit >> 2 & 3, batch: b})
			}
		}
	}
}

// grow makes everything one epoch older, up to the age of oldest: owners and
// partitions get no older, and batches of that age are dropped. Of the other requests
// only a bump can do anything in a former epoch.
func (s *state) grow(oldest uint8) {
	for i := range s.parts {
		s.parts[i].age = min(s.parts[i].age+1, oldest)
	}
	for i := range s.owners {
		if s.owners[i].identified() {
			s.owners[i].age = min(s.owners[i].age+1, oldest)
		}
	}
	n := &s.network
	copy(n.produce[1:oldest], n.produce[:])
	n.produce[0] = [partCount]uint64{}
	n.control = [2]uint8{1: n.control[0] & (1 << bump)}
}

// places is an order of owners: places[i] is where the owner at i was before.
type places [maxOwners]uint8

var inOrder = places{0, 1, 2}

// sortOwners puts owners into one order, as it makes no difference which of them is
// which, and returns what it did.
func (s *state) sortOwners(owners int) places {
	order := inOrder
	for i := 1; i < owners; i++ {
		for j := i; j > 0 && s.rank(j-1) > s.rank(j); j-- {
			s.swapOwners(j-1, j)
			order[j-1], order[j] = order[j], order[j-1]
		}
	}
	return order
}

// rank is different for owners that are.
func (s *state) rank(i int) uint64 {
	o := &s.owners[i]
	rank := uint64(s.network.takeOvers >> i & 1)
	for _, field := range [...]uint8{uint8(o.stage), o.age, o.window, o.acked, uint8(o.variant), o.sequence[events], o.sequence[positions]} {
		rank = rank<<8 | uint64(field)
	}
	if o.asked {
		rank |= 1 << 63
	}
	return rank
}

func (s *state) swapOwners(i, j int) {
	s.owners[i], s.owners[j] = s.owners[j], s.owners[i]
	wanted := &s.network.takeOvers
	if *wanted>>i&1 != *wanted>>j&1 {
		*wanted ^= 1<<i | 1<<j
	}
}
