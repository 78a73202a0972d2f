package producer

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Request is one kind of request of the commit protocol.
type Request uint8

// The requests, in the order of a commit. Ending a transaction is one request of
// Kafka's and two here, because its answers mean different things.
const (
	InitProducerID Request = iota
	AddPartitions
	Produce
	CommitTransaction
	AbortTransaction

	requestCount
)

func (r Request) String() string {
	return [requestCount]string{"init producer id", "add partitions", "produce", "commit transaction", "abort transaction"}[r]
}

// Blame says whose fault a failure is, and so what is worth trying next.
type Blame uint8

const (
	// BlameNetwork: the network or a broker, or the caller's context ended. The
	// same again, after a pause.
	BlameNetwork Blame = iota
	// BlameCoordinator: the transaction's coordinator or the producer's identity.
	// The same again, after a pause.
	BlameCoordinator
	// BlameTime: too much for the time a transaction has. Less at once.
	BlameTime
	// BlameData: perhaps one of the records. Windows one by one, to find it.
	BlameData
	// BlameSettings: a right or a setting is missing. A person has to act, and
	// trying again meanwhile does not help.
	BlameSettings
)

func (b Blame) String() string {
	return [...]string{"network", "coordinator", "time", "data", "settings"}[b]
}

// class is what the protocol does about an answer. Of the answers for several
// partitions the largest class decides.
type class uint8

const (
	// done: what was asked for is so.
	done class = iota
	// retriable: it was not done; the same request again.
	retriable
	// indefinite: it may have been done; the same bytes again, never others.
	indefinite
	// abortable: this transaction cannot commit any more; abort, take a new
	// epoch, restore.
	abortable
	// fatal: as abortable, and it will not get better without a person.
	fatal
	// fenced: this producer's identity is over; drop the shard, send nothing more.
	fenced
)

// Codes that kafka-go v0.4.51 calls otherwise, or that the table singles out.
const (
	success               kafka.Error = 0
	operationNotAttempted kafka.Error = 55 // kafka-go: BrokerAuthorizationFailed
)

// requests is a set of kinds of request.
type requests uint8

func on(kinds ...Request) (set requests) {
	for _, k := range kinds {
		set |= 1 << k
	}
	return set
}

func (set requests) has(k Request) bool { return set&(1<<k) != 0 }

var (
	onTransactional = on(InitProducerID, AddPartitions, CommitTransaction, AbortTransaction)
	onProduce       = on(Produce)
	onAny           = onTransactional | onProduce
)

// rule is one row of the error table.
type rule struct {
	code   kafka.Error
	on     requests
	class  class
	blame  Blame
	remedy string // for a person, if there is something to do
}

// rules is the whole of what cdrbus knows about error codes in the commit
// protocol. A row holds for the requests it names; a pair of request and code
// that no row holds for is neither success nor worth a repeat: see ruleFor.
// kafka-go's own Error.Temporary is not used, it is wrong for several of these.
var rules = []rule{
	{code: success, on: onAny, class: done},

	// Something else is under way at the coordinator, mostly our own former
	// transaction being ended. Abort and commit get it when repeated at once.
	{kafka.ConcurrentTransactions, on(InitProducerID, AddPartitions, CommitTransaction, AbortTransaction), retriable, BlameCoordinator, ""},

	// The coordinator moves or starts. kafka-go looks it up anew for each request.
	{kafka.GroupLoadInProgress, onTransactional, retriable, BlameCoordinator, ""},
	{kafka.GroupCoordinatorNotAvailable, onTransactional, retriable, BlameCoordinator, ""},
	{kafka.NotCoordinatorForGroup, onTransactional, retriable, BlameCoordinator, ""},

	// The leader moves or starts, or the metadata is old. Nothing was appended.
	{kafka.NotLeaderForPartition, onProduce, retriable, BlameNetwork, ""},
	{kafka.LeaderNotAvailable, onProduce, retriable, BlameNetwork, ""},
	{kafka.UnknownTopicOrPartition, onProduce, retriable, BlameNetwork, "check that the topic exists and has not lost partitions"},
	{kafka.KafkaStorageError, onProduce, retriable, BlameNetwork, "look at the broker's log for its disk"},
	{kafka.NetworkException, onProduce, retriable, BlameNetwork, ""},
	// Mostly the broker's verification of the transaction colliding with another
	// request, seldom really too few replicas.
	{kafka.NotEnoughReplicas, onProduce, retriable, BlameNetwork, "start the missing brokers, or lower min.insync.replicas"},

	// The broker gave up waiting. What it did stays done.
	{kafka.RequestTimedOut, onAny, indefinite, BlameNetwork, ""},
	{kafka.NotEnoughReplicasAfterAppend, onAny, indefinite, BlameNetwork, "start the missing brokers, or lower min.insync.replicas"},

	// The broker has this batch already. Today's brokers answer 0 instead.
	{kafka.DuplicateSequenceNumber, onProduce, done, BlameNetwork, ""},

	// The broker's memory of this producer does not fit: lost, or mended by hand.
	{kafka.OutOfOrderSequenceNumber, onProduce, abortable, BlameCoordinator, ""},
	{kafka.UnknownProducerId, onProduce, abortable, BlameCoordinator, ""},

	// Another partition of the request was refused, and says why.
	{operationNotAttempted, on(AddPartitions), abortable, BlameCoordinator, "kafka-go misnames this code: it is OPERATION_NOT_ATTEMPTED"},

	// A topic has gone, or has fewer partitions than at the start.
	{kafka.UnknownTopicOrPartition, on(AddPartitions), abortable, BlameCoordinator, "check that the topic exists; if it was made anew with fewer partitions, restart cdrbus"},

	// The transaction is not what we think. For a commit that never means
	// committed. For an abort it means that nothing is open: it was committed,
	// aborted, or never had a partition, and the log tells which.
	{kafka.InvalidTransactionState, on(AddPartitions, Produce, CommitTransaction), abortable, BlameCoordinator, ""},
	{kafka.InvalidTransactionState, on(AbortTransaction), done, BlameCoordinator, ""},

	// Another producer has our transactional.id, or the coordinator thinks so:
	// after a time-out, or when it forgot our own bump in a restart.
	{kafka.ProducerFenced, onAny, fenced, BlameCoordinator, ""},
	{kafka.InvalidProducerEpoch, onAny, fenced, BlameCoordinator, ""},
	// The coordinator forgot us after transactional.id.expiration.ms (7 days).
	{kafka.InvalidProducerIDMapping, onAny, fenced, BlameCoordinator, ""},

	// The records.
	{kafka.MessageSizeTooLarge, onProduce, abortable, BlameData, "set the topic's max.message.bytes back to what it was when cdrbus started, or restart cdrbus"},
	{kafka.InvalidRecord, onProduce, abortable, BlameData, "look at the broker's log for why it refused the batch"},
	{kafka.InvalidMessage, onProduce, abortable, BlameData, "look at the broker's log for why it refused the batch"},

	// Rights and settings.
	{kafka.InvalidTimestamp, onProduce, fatal, BlameSettings, "set message.timestamp.type=CreateTime and larger message.timestamp.before.max.ms and after.max.ms on the topic, and this machine's clock right"},
	{kafka.TopicAuthorizationFailed, onAny, fatal, BlameSettings, "grant Write and Describe on the topic with kafka-acls.sh"},
	{kafka.GroupAuthorizationFailed, onAny, fatal, BlameSettings, "grant Read on the consumer group with kafka-acls.sh"},
	{kafka.ClusterAuthorizationFailed, onAny, fatal, BlameSettings, "grant IdempotentWrite on the cluster with kafka-acls.sh"},
	{kafka.TransactionalIDAuthorizationFailed, onAny, fatal, BlameSettings, "grant Write and Describe on transactional ids beginning with kafka.transactional_id_prefix, with kafka-acls.sh"},
	{kafka.UnsupportedVersion, onAny, fatal, BlameSettings, "use Apache Kafka 3.7 or later"},
	{kafka.InvalidTransactionTimeout, onAny, fatal, BlameSettings, "raise the brokers' transaction.max.timeout.ms"},
}

// ruleFor returns the row for an answer. What no row names is taken for the
// worst that may still go on by itself: the transaction is given up, and the
// caller tells somebody. For a Produce the records may be to blame.
func ruleFor(request Request, code kafka.Error) rule {
	for _, r := range rules {
		if r.code == code && r.on.has(request) {
			return r
		}
	}
	blame := BlameCoordinator
	if request == Produce {
		blame = BlameData
	}
	return rule{code, on(request), abortable, blame, "this code is not expected here: look at the broker's log and report it"}
}

// Failure is why a request did not do what it should. It is the cause in every
// [MustRestore] and [Fenced], and wraps the broker's code or the network's error.
type Failure struct {
	Request Request
	On      string      // topic and partition, or the transactional.id
	Code    kafka.Error // 0: there was no answer
	Err     error       // kafka.Error or the reason why there was no answer
	Blame   Blame
	Remedy  string // what a person can do; empty if nothing

	class class
}

func (f *Failure) Error() string {
	text := fmt.Sprintf("%s %s: %v", f.Request, f.On, f.Err)
	if f.Remedy != "" {
		text += "; " + f.Remedy
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }

// answered judges a code. It returns nil if the request is done.
func answered(request Request, on string, code int16) *Failure {
	r := ruleFor(request, kafka.Error(code))
	if r.class == done {
		return nil
	}
	return &Failure{Request: request, On: on, Code: r.code, Err: r.code, Blame: r.blame, Remedy: r.remedy, class: r.class}
}

// unanswered judges an error of kafka-go: the network's, a deadline, a
// cancellation, a connection that could not be made. In none of them is it known
// that the request was not carried out, and kafka-go may even still be sending it.
func unanswered(request Request, on string, err error) *Failure {
	return &Failure{Request: request, On: on, Err: err, Blame: BlameNetwork, class: indefinite}
}

// errPartialAnswer stands for an answer that does not name what was asked for.
var errPartialAnswer = errors.New("the answer does not name this partition")

// worse returns the failure that decides; nil is no failure. Where a request is
// all or nothing, brokers answer "not attempted" for the partitions that were
// not to blame: that decides only if nothing else does.
func worse(a, b *Failure) *Failure {
	switch {
	case a == nil || b == nil:
		return cmp.Or(a, b)
	case a.explainsNothing():
		return b
	case b.explainsNothing() || a.class >= b.class:
		return a
	default:
		return b
	}
}

func (f *Failure) explainsNothing() bool {
	return f.Request == AddPartitions && f.Code == operationNotAttempted
}
