package daemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/daemon"
	"cdrbus/internal/faultnet"
)

// strictBrokers stands before kfake and makes up for where it is kinder than
// Kafka (docs/commit-protocol.md). It keeps the coordinator's state as Kafka does
// and lets kfake do the work:
//
//   - While a transaction is being ended, all that concerns it is answered 51.
//   - InitProducerId with the pair before the last bump is a repeat and gets the
//     same answer; with any other stale pair, or after the coordinator has moved
//     and forgotten, it is 90.
//   - InitProducerId on an open transaction aborts it, fences its owner and is
//     answered 51.
//   - After a time-out the owner's InitProducerId is 90 as on 3.x, or is granted
//     the very next epoch as on 4.x, which proves nothing.
//   - EndTxn without an open transaction is a repeat, or 48; of a new epoch it is
//     always 48.
//   - A Produce of an old epoch is 47, on partitions that the new one has not
//     touched as well.
//
// Besides, brokers refuse a share of the requests at random, or claim not to have
// done what they did; and a broker can be down for a time.
type strictBrokers struct {
	seed   uint64
	calm   atomic.Bool   // no refusals at random any more
	turn   chan struct{} // capacity 1: held by the one who acts
	late90 bool          // after a time-out: as on 3.x

	spoiled bool // nothing of spoiledSource is taken from the first owners

	transactions map[string]*transaction // by transactional.id
	byProducer   map[int64]*transaction
	downUntil    map[string]time.Time // by address
	steps        []step
}

// transaction is what a coordinator knows of a transactional.id.
type transaction struct {
	producer    int64
	epoch       int16
	before      int16 // the epoch whose owner was given this one; -1: of nobody that may repeat
	timedOut    bool  // before is the epoch that a time-out ended
	open        bool
	began       time.Time
	timeout     time.Duration
	ended       ending // how this epoch's transaction did
	endingUntil time.Time
}

type ending uint8

const (
	notEnded ending = iota
	byCommit
	byAbort
)

// step is a request of the protocol and its answer, for the trace.
type step struct {
	at       time.Time
	request  faultnet.Request
	producer int64
	epoch    int16
	what     string
	code     int16
}

func (s step) String() string {
	copied := ""
	if s.request.Copy {
		copied = " (late)"
	}
	return fmt.Sprintf("%-12s %s %d of producer %d epoch %d%s%s: %d", s.request.Client, s.request.Name(), s.request.Number, s.producer%1000, s.epoch, s.what, copied, s.code)
}

const (
	codeUnknownServer         = -1
	codeRequestTimedOut       = 7
	codeNotEnoughReplicas     = 19
	codeAfterAppend           = 20
	codeNotLeader             = 6
	codeLoading               = 14
	codeNotAvailable          = 15
	codeNotCoordinator        = 16
	codeOutOfOrder            = 45
	codeInvalidProducerEpoch  = 47
	codeInvalidTxnState       = 48
	codeInvalidMapping        = 49
	codeConcurrentTransaction = 51
	codeInvalidRecord         = 87
	codeProducerFenced        = 90
)

func newStrictBrokers(s scenario) *strictBrokers {
	return &strictBrokers{
		seed: s.seed, spoiled: s.spoiled, late90: s.seed%2 == 0, turn: make(chan struct{}, 1),
		transactions: map[string]*transaction{}, byProducer: map[int64]*transaction{}, downUntil: map[string]time.Time{},
	}
}

// exclusively runs something while no broker acts.
func (b *strictBrokers) exclusively(run func()) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	run()
}

// forget is what a coordinator does that moves: the epoch before the last bump is
// not known to its successor.
func (b *strictBrokers) forget() {
	b.exclusively(func() {
		for _, t := range b.transactions {
			t.before = -1
		}
	})
}

var errBrokerDown = errors.New("the broker is down")

// deliver is for [faultnet.Options].
func (b *strictBrokers) deliver(r faultnet.Request, send faultnet.Send) (frame []byte, err error) {
	b.exclusively(func() {
		if time.Now().Before(b.downUntil[r.Broker]) {
			err = errBrokerDown
			return
		}
		if !isProtocol(r.Key) {
			return
		}
		frame, err = b.act(r, send)
	})
	if frame == nil && err == nil {
		return send(r.Frame) // others may wait long for their answers
	}
	return frame, err
}

// isProtocol tells the requests of the commit protocol.
func isProtocol(key int16) bool {
	switch kmsg.Key(key) {
	case kmsg.InitProducerID, kmsg.AddPartitionsToTxn, kmsg.Produce, kmsg.EndTxn:
		return true
	}
	return false
}

// exchange is one request of the protocol being answered.
type exchange struct {
	request faultnet.Request
	parsed  kmsg.Request
	send    faultnet.Send
	frame   []byte
	err     error
}

// ask lets kfake act and returns its answer.
func (x *exchange) ask() kmsg.Response { return x.askFor(x.request.Frame) }

func (x *exchange) askFor(frame []byte) kmsg.Response {
	if x.frame, x.err = x.send(frame); x.err != nil {
		return nil
	}
	var answer kmsg.Response
	answer, x.err = x.request.ParseAnswer(x.frame)
	return answer
}

// answer replaces the answer, or stands in for it.
func (x *exchange) answer(code int16) int16 {
	x.frame = x.request.Answer(refusal(x.parsed, code))
	return code
}

func (b *strictBrokers) act(r faultnet.Request, send faultnet.Send) ([]byte, error) {
	parsed, err := r.Parse()
	if err != nil {
		return nil, err
	}
	x := &exchange{request: r, parsed: parsed, send: send}
	b.expire()
	done := step{at: time.Now(), request: r}
	done.request.Frame = nil
	code, applied := b.mood(r, parsed)
	switch {
	case code == codeInvalidTxnState && r.Key == int16(kmsg.EndTxn):
		b.abortBehind(x, parsed.(*kmsg.EndTxnRequest))
	case code == 0 || applied:
		done.code = b.carryOut(x, &done)
	}
	if code != 0 && x.err == nil {
		done.code = x.answer(code)
		done.what += map[bool]string{true: ", done, but refused", false: ", refused at random"}[applied]
	}
	b.steps = append(b.steps, done)
	return x.frame, x.err
}

func (b *strictBrokers) carryOut(x *exchange, done *step) int16 {
	switch q := x.parsed.(type) {
	case *kmsg.InitProducerIDRequest:
		done.producer, done.epoch = q.ProducerID, q.ProducerEpoch
		return b.initProducerID(x, q, done)
	case *kmsg.AddPartitionsToTxnRequest:
		done.producer, done.epoch = q.ProducerID, q.ProducerEpoch
		return b.addPartitions(x, q)
	case *kmsg.EndTxnRequest:
		done.producer, done.epoch = q.ProducerID, q.ProducerEpoch
		done.what = map[bool]string{true: ", commit", false: ", abort"}[q.Commit]
		return b.endTransaction(x, q)
	default:
		return b.produce(x, q.(*kmsg.ProduceRequest), done)
	}
}

// expire notices what kfake's coordinator has aborted for its time.
func (b *strictBrokers) expire() {
	for _, t := range b.transactions {
		if t.open && time.Since(t.began) >= t.timeout {
			t.before, t.timedOut = t.epoch, true
			t.epoch++
			t.end(byAbort, 0)
			t.ended = notEnded // nobody has the new epoch yet
		}
	}
}

func (t *transaction) end(how ending, takes time.Duration) {
	t.open, t.ended, t.endingUntil = false, how, time.Now().Add(takes)
}

// busy reports whether the last transaction is still being ended.
func (t *transaction) busy() bool { return time.Now().Before(t.endingUntil) }

// endTakes draws how long a transaction takes to end after EndTxn is answered.
func (b *strictBrokers) endTakes(r faultnet.Request) time.Duration {
	return time.Duration(b.draw(r, "end").IntN(20)) * time.Millisecond
}

// initProducerID grants epochs.
func (b *strictBrokers) initProducerID(x *exchange, q *kmsg.InitProducerIDRequest, done *step) int16 {
	t := b.transactions[*q.TransactionalID]
	identified := q.ProducerID >= 0
	switch {
	case t == nil && identified:
		return x.answer(codeInvalidMapping)
	case t == nil:
		return b.grant(x, q, &transaction{timeout: time.Duration(q.TransactionTimeoutMillis) * time.Millisecond}, -1, done)
	case t.busy():
		return x.answer(codeConcurrentTransaction)
	case identified && (q.ProducerID != t.producer || q.ProducerEpoch != t.epoch && q.ProducerEpoch != t.before):
		return x.answer(codeProducerFenced)
	case t.open:
		return b.fence(x, q, t)
	case identified && q.ProducerEpoch == t.before && t.timedOut && b.late90:
		return x.answer(codeProducerFenced)
	case identified && q.ProducerEpoch == t.before:
		return b.repeatGrant(x, t, done)
	case identified:
		return b.grant(x, q, t, q.ProducerEpoch, done)
	default:
		return b.grant(x, q, t, -1, done)
	}
}

// grant lets kfake give the next epoch.
func (b *strictBrokers) grant(x *exchange, q *kmsg.InitProducerIDRequest, t *transaction, before int16, done *step) int16 {
	answer, ok := x.ask().(*kmsg.InitProducerIDResponse)
	if !ok {
		return codeUnknownServer
	}
	if answer.ErrorCode == 0 {
		t.producer, t.epoch, t.before, t.timedOut, t.ended = answer.ProducerID, answer.ProducerEpoch, before, false, notEnded
		b.transactions[*q.TransactionalID], b.byProducer[t.producer] = t, t
		done.what = fmt.Sprintf(", given epoch %d", t.epoch)
	}
	return answer.ErrorCode
}

// repeatGrant answers a repeat as the first time.
func (b *strictBrokers) repeatGrant(x *exchange, t *transaction, done *step) int16 {
	code := x.answer(0)
	answer := kmsg.NewPtrInitProducerIDResponse()
	answer.SetVersion(x.request.Version)
	answer.ProducerID, answer.ProducerEpoch = t.producer, t.epoch
	x.frame = x.request.Answer(answer)
	done.what = fmt.Sprintf(", given epoch %d again", t.epoch)
	return code
}

// fence ends an open transaction under a new epoch that nobody has.
func (b *strictBrokers) fence(x *exchange, q *kmsg.InitProducerIDRequest, t *transaction) int16 {
	answer, ok := x.ask().(*kmsg.InitProducerIDResponse)
	if !ok {
		return codeUnknownServer
	}
	if answer.ErrorCode != 0 {
		return answer.ErrorCode
	}
	t.epoch, t.before = answer.ProducerEpoch, -1
	t.end(byAbort, b.endTakes(x.request))
	t.ended = notEnded
	return x.answer(codeConcurrentTransaction)
}

func (b *strictBrokers) addPartitions(x *exchange, q *kmsg.AddPartitionsToTxnRequest) int16 {
	t := b.byProducer[q.ProducerID]
	if t != nil && t.epoch == q.ProducerEpoch && t.busy() {
		return x.answer(codeConcurrentTransaction)
	}
	answer, ok := x.ask().(*kmsg.AddPartitionsToTxnResponse)
	if !ok {
		return codeUnknownServer
	}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			if p.ErrorCode != 0 {
				return p.ErrorCode
			}
		}
	}
	if t != nil && !t.open {
		t.open, t.began, t.ended = true, time.Now(), notEnded
	}
	return 0
}

func (b *strictBrokers) endTransaction(x *exchange, q *kmsg.EndTxnRequest) int16 {
	t := b.byProducer[q.ProducerID]
	how := map[bool]ending{true: byCommit, false: byAbort}[q.Commit]
	if t != nil && t.epoch == q.ProducerEpoch {
		switch {
		case t.busy():
			return x.answer(codeConcurrentTransaction)
		case !t.open && t.ended != how:
			return x.answer(codeInvalidTxnState)
		}
	}
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(x.request.Client)).AppendRequest(nil, q, x.request.Correlation)
	answer, ok := x.askFor(frame).(*kmsg.EndTxnResponse)
	if !ok {
		return codeUnknownServer
	}
	if answer.ErrorCode == 0 && t.open {
		t.end(how, b.endTakes(x.request))
	}
	return answer.ErrorCode
}

// abortBehind aborts a transaction behind its owner's back, as an operator or a
// coordinator that lost its log may do, in the very epoch of the owner: what the
// owner asks for then is 48, and the next epoch is granted all the same.
func (b *strictBrokers) abortBehind(x *exchange, q *kmsg.EndTxnRequest) {
	abort := *q
	abort.Commit = false
	b.endTransaction(x, &abort)
}

func (b *strictBrokers) produce(x *exchange, q *kmsg.ProduceRequest, done *step) int16 {
	for _, topic := range q.Topics {
		for _, p := range topic.Partitions {
			var batch kmsg.RecordBatch
			if x.err = batch.ReadFrom(p.Records); x.err != nil {
				return codeUnknownServer
			}
			done.producer, done.epoch = batch.ProducerID, batch.ProducerEpoch
			done.what += fmt.Sprintf(", %s-%d", topic.Topic, p.Partition)
			if t := b.byProducer[batch.ProducerID]; t != nil && batch.ProducerEpoch < t.epoch {
				return x.answer(codeInvalidProducerEpoch)
			}
		}
	}
	answer, ok := x.ask().(*kmsg.ProduceResponse)
	if !ok {
		return codeUnknownServer
	}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			if p.ErrorCode != 0 {
				return p.ErrorCode
			}
		}
	}
	return 0
}

// draw is chance for one request, whatever else happens.
func (b *strictBrokers) draw(r faultnet.Request, what string) *rand.Rand {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(what + r.Client)) // a hash takes everything
	return rand.New(rand.NewPCG(b.seed, hash.Sum64()^uint64(r.Key)<<48^uint64(r.Number)))
}

// moods are what brokers answer at random instead of what is so. Each leads down
// another path: asked again, restore, fenced, windows one by one.
var moods = map[kmsg.Key][]int16{
	kmsg.InitProducerID:     {codeConcurrentTransaction, codeLoading, codeNotAvailable, codeNotCoordinator, codeRequestTimedOut, codeProducerFenced, codeUnknownServer},
	kmsg.AddPartitionsToTxn: {codeConcurrentTransaction, codeLoading, codeNotCoordinator, codeRequestTimedOut, codeProducerFenced, codeInvalidTxnState, codeUnknownServer},
	kmsg.EndTxn:             {codeConcurrentTransaction, codeLoading, codeNotCoordinator, codeRequestTimedOut, codeProducerFenced, codeInvalidTxnState, codeUnknownServer},
	kmsg.Produce:            {codeNotLeader, codeNotEnoughReplicas, codeRequestTimedOut, codeAfterAppend, codeOutOfOrder, codeInvalidProducerEpoch, codeInvalidRecord},
}

// spoiledSource shares its credential, and so its lane, with another source.
const spoiledSource = "east"

func (b *strictBrokers) spoils(r faultnet.Request) bool {
	return b.spoiled && r.Key == int16(kmsg.Produce) && strings.HasSuffix(r.Client, "1") && bytes.Contains(r.Frame, []byte(daemon.EventSource(spoiledSource)))
}

// badMoods is the share of requests that are answered at random.
const badMoods = 0.04

// mood chooses whether a broker answers at random, and whether it does what was
// asked for nevertheless.
func (b *strictBrokers) mood(r faultnet.Request, parsed kmsg.Request) (code int16, applied bool) {
	if b.calm.Load() || r.Copy {
		return 0, false
	}
	if b.spoils(r) {
		return codeInvalidRecord, false
	}
	rng := b.draw(r, "mood")
	if rng.Float64() >= badMoods {
		return 0, false
	}
	codes := moods[kmsg.Key(r.Key)]
	code = codes[rng.IntN(len(codes))]
	if code == codeProducerFenced && isTakeOver(parsed) {
		code = codeConcurrentTransaction // who has no epoch yet cannot be fenced
	}
	return code, code == codeRequestTimedOut && rng.IntN(2) == 0 || code == codeAfterAppend
}

func isTakeOver(request kmsg.Request) bool {
	q, ok := request.(*kmsg.InitProducerIDRequest)
	return ok && q.ProducerID < 0
}
