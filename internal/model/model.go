// Package model explores every state that the commit protocol can get into, and
// holds each of them against what readers were promised.
//
// A coordinator, one partition of events and one of positions, and two owners of
// the same shard run the protocol of docs/commit-protocol.md: A (take over), B
// (commit) and C (recover), window after window. [Check] goes through all states
// breadth first, so that a counterexample is as short as one can be. In each state
// must hold, of what a read_committed reader sees or will see:
//
//   - A window is there whole or not at all: its events are committed if and only if
//     its position is, and both by one attempt.
//   - Each is there once, and they follow one another from 1 on.
//   - A window of which an owner was told that it is committed is in the log, with
//     just the bytes that were acknowledged.
//
// # What may happen
//
// The network is a set of requests. Whatever was sent may be delivered at any later
// time, in any order, any number of times or never, and the answer may get lost.
// An owner may stop at any point for any time, give up on any request, or crash
// and begin anew without its memory. At any time the coordinator may abort what is
// open, as after a time-out, forget that it would repeat an answer, as after a
// restart, or take long to write the markers of a transaction that has ended.
//
// None of this is counted, so none of it is bounded: not crashes, take-overs,
// repeats, nor epochs, of which only the distance to the coordinator's counts.
//
// # What is bounded, and left out
//
//   - Windows: three. Owners: two at a time; as one that crashed comes back without
//     memory, there may have been any number.
//   - A request that would be refused for ever is dropped: AddPartitionsToTxn and
//     EndTxn of a former epoch, and everything two epochs old. All that such an
//     InitProducerId can do, have an open transaction aborted, the time-out does too.
//     Where brokers do not verify, a batch three epochs old is dropped as well, and
//     that is a real bound.
//   - One batch for each partition and transaction: several differ by their
//     sequence only. A transaction has all its partitions or none, which takes
//     the one AddPartitionsToTxn for granted.
//   - The markers of a transaction are written to both partitions in one step.
//   - Producer ids do not expire, epochs do not run out, brokers lose nothing that
//     they acknowledged, and the log is read as far as it is.
//   - An answer is heard at once or never: an owner that hears it late is an owner
//     that stops before its next request.
//
// The coordinator answers as the sources of Kafka do (TransactionCoordinator,
// ProducerStateManager) and as was measured; TestCoordinatorAnswers has its table.
package model

import "fmt"

// Rule is one thing that cdrbus or, for one of them, the brokers keep to. A model
// without it shows what it is good for.
type Rule uint8

const (
	// BumpPerTransaction: each transaction has an epoch of its own. Without it one
	// epoch serves all that an owner commits, and sequences go on counting.
	BumpPerTransaction Rule = iota
	// RestoreAfterInit: positions are read when the former owner is fenced. Without
	// it they are read first.
	RestoreAfterInit
	// RestoreAfterDoubt: after a commit of unknown outcome the log decides. Without
	// it the answer to the abort does: nothing to abort means committed.
	RestoreAfterDoubt
	// UnknownIsNotFailed: without it, a commit that was not answered is done again.
	UnknownIsNotFailed
	// UnknownIsNotCommitted: without it, a commit that was not answered counts.
	UnknownIsNotCommitted
	// NextEpochProvesNothing: without it, an owner that is given the epoch after its
	// own takes its last commit for done.
	NextEpochProvesNothing
	// AbortBeforeInit: what may be open is aborted before an epoch is asked for.
	AbortBeforeInit
	// InvalidTxnStateIsNotCommitted: INVALID_TXN_STATE (48) for a commit is a doubt.
	// Without it, it counts as committed.
	InvalidTxnStateIsNotCommitted
	// SameBytesOnRetry: a repeated batch is the same batch. Without it, a repeat has
	// other bytes under the same sequence.
	SameBytesOnRetry
	// SameSequenceOnRetry: without it, a repeat has the same bytes under the next
	// sequence.
	SameSequenceOnRetry
	// AcknowledgedBeforeCommit: without it, the commit is asked for while batches are
	// on their way.
	AcknowledgedBeforeCommit
	// FencedSendsNothing: a fenced owner drops the shard. Without it, it asks for
	// another epoch with its old pair, and then restores.
	FencedSendsNothing
	// RestoreDemandsSettled: a restore refuses a partition with something undecided.
	RestoreDemandsSettled
	// BrokersVerify: a broker asks the coordinator before it takes the first batch of
	// a transaction (transaction.partition.verification.enable).
	BrokersVerify

	ruleCount
)

func (r Rule) String() string {
	return [ruleCount]string{
		"BumpPerTransaction", "RestoreAfterInit", "RestoreAfterDoubt", "UnknownIsNotFailed", "UnknownIsNotCommitted",
		"NextEpochProvesNothing", "AbortBeforeInit", "InvalidTxnStateIsNotCommitted", "SameBytesOnRetry", "SameSequenceOnRetry",
		"AcknowledgedBeforeCommit", "FencedSendsNothing", "RestoreDemandsSettled", "BrokersVerify",
	}[r]
}

// Rules is a set of rules.
type Rules uint16

// AllRules is the protocol as it is.
const AllRules Rules = 1<<ruleCount - 1

// Without returns the set without a rule.
func (s Rules) Without(r Rule) Rules { return s &^ (1 << r) }

func (s Rules) has(r Rule) bool { return s&(1<<r) != 0 }

// Options say what to explore.
type Options struct {
	Rules   Rules
	Windows int  // to commit, 1 to 3
	Owners  int  // 1 to 3
	Kafka4  bool // whether a fenced owner may still ask for its next epoch, until the next take-over
	// Quiet leaves out rivals' reasons: with a single owner that never crashes, no
	// time-outs and nothing delivered late, only requests and answers get lost. Then
	// being fenced is a violation too: nobody has taken the shard over.
	Quiet bool
}

func (o Options) validate() error {
	if o.Windows < 1 || o.Windows > maxWindows || o.Owners < 1 || o.Owners > maxOwners {
		return fmt.Errorf("explore %d windows and %d owners: want 1 to %d and 1 to %d", o.Windows, o.Owners, maxWindows, maxOwners)
	}
	return nil
}
