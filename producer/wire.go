package producer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// wire sends single requests and judges their answers. It repeats nothing and
// remembers nothing: that is the protocol's part. Each method sends one request
// (produce: one to each leader) and returns nil only if it is done.
type wire struct {
	transport       kafka.RoundTripper
	addr            net.Addr
	requestTimeout  time.Duration
	transactionalID string // empty: no transactions
	txnTimeout      time.Duration
	layout          *Layout
	observe         func(Step)
}

// Step is one request of a shard and its answer, for metrics and tests.
//
// kafka-go looks the coordinator up before each request but Produce, so there
// are as many lookups as such steps.
type Step struct {
	Request Request
	Code    kafka.Error // that decided; 0: done, or no answer
	Err     error       // why there was no answer, or nil
	Took    time.Duration
	// Of a Produce: the round within the commit, from 1, and what was sent.
	Round, Batches, Records, Bytes int
}

var errNoAnswer = errors.New("the answer makes no sense")

// send sends one request within the request timeout. Without a deadline kafka-go
// would wait for a dead peer for ever.
func send[Answer kafka.Response](ctx context.Context, w *wire, request kafka.Request) (answer Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.requestTimeout)
	defer cancel()
	response, err := w.transport.RoundTrip(ctx, w.addr, request)
	if err != nil {
		return answer, err
	}
	answer, ok := response.(Answer)
	if !ok {
		return answer, fmt.Errorf("%w: got %T", errNoAnswer, response)
	}
	return answer, nil
}

func (w *wire) report(request Request, began time.Time, failure *Failure) {
	w.observe(stepOf(request, began, failure))
}

func stepOf(request Request, began time.Time, failure *Failure) Step {
	step := Step{Request: request, Took: time.Since(began)}
	switch {
	case failure == nil:
	case failure.Code != 0:
		step.Code = failure.Code
	default:
		step.Err = failure.Err
	}
	return step
}

// unidentified asks for an identity without having one. Zeros would name
// producer 0 in epoch 0, which is somebody.
var unidentified = identity{-1, -1}

// initProducerID takes the next epoch: with an own identity, the one after it;
// without, one that fences whoever had the transactional.id. Without a
// transactional.id it is a new producer id in epoch 0.
func (w *wire) initProducerID(ctx context.Context, own identity) (identity, *Failure) {
	began := time.Now()
	answer, err := send[*initproducerid.Response](ctx, w, &initproducerid.Request{
		TransactionalID:      w.transactionalID,
		TransactionTimeoutMs: int32(w.txnTimeout.Milliseconds()),
		ProducerID:           own.producerID,
		ProducerEpoch:        own.epoch,
	})
	var failure *Failure
	var next identity
	if err != nil {
		failure = unanswered(InitProducerID, w.subject(), err)
	} else {
		failure = answered(InitProducerID, w.subject(), answer.ErrorCode)
		next = identity{answer.ProducerID, answer.ProducerEpoch}
		if failure == nil && (next.producerID < 0 || next.epoch < 0) {
			failure = unanswered(InitProducerID, w.subject(), fmt.Errorf("%w: got producer %d epoch %d", errNoAnswer, next.producerID, next.epoch))
		}
	}
	w.report(InitProducerID, began, failure)
	return next, failure
}

// addPartitions adds all partitions of a commit to the transaction, in one request.
func (w *wire) addPartitions(ctx context.Context, own identity, slots []slot) *Failure {
	request := &addpartitionstotxn.Request{TransactionalID: w.transactionalID, ProducerID: own.producerID, ProducerEpoch: own.epoch}
	for _, s := range slots {
		name := w.layout.Names[s.topic]
		if n := len(request.Topics); n == 0 || request.Topics[n-1].Name != name {
			request.Topics = append(request.Topics, addpartitionstotxn.RequestTopic{Name: name})
		}
		topic := &request.Topics[len(request.Topics)-1]
		topic.Partitions = append(topic.Partitions, s.partition)
	}
	began := time.Now()
	answer, err := send[*addpartitionstotxn.Response](ctx, w, request)
	var failure *Failure
	if err != nil {
		failure = unanswered(AddPartitions, w.subject(), err)
	} else {
		failure = w.judgeAdded(slots, answer)
	}
	w.report(AddPartitions, began, failure)
	return failure
}

// judgeAdded demands that every partition was added.
func (w *wire) judgeAdded(slots []slot, answer *addpartitionstotxn.Response) (failure *Failure) {
	codes := make(map[partitionName]int16)
	for _, topic := range answer.Results {
		for _, p := range topic.Results {
			codes[partitionName{topic.Name, p.PartitionIndex}] = p.ErrorCode
		}
	}
	for _, s := range slots {
		name := w.nameOf(s.place)
		if code, named := codes[name]; named {
			failure = worse(failure, answered(AddPartitions, name.String(), code))
		} else {
			failure = worse(failure, unanswered(AddPartitions, name.String(), errPartialAnswer))
		}
	}
	return failure
}

// endTransaction commits or aborts what is open in this epoch.
func (w *wire) endTransaction(ctx context.Context, own identity, how Request) *Failure {
	began := time.Now()
	answer, err := send[*endtxn.Response](ctx, w, &endtxn.Request{
		TransactionalID: w.transactionalID,
		ProducerID:      own.producerID,
		ProducerEpoch:   own.epoch,
		Committed:       how == CommitTransaction,
	})
	var failure *Failure
	if err != nil {
		failure = unanswered(how, w.subject(), err)
	} else {
		failure = answered(how, w.subject(), answer.ErrorCode)
	}
	w.report(how, began, failure)
	return failure
}

// produce sends the batches that are not acknowledged yet: one request to each
// leader, with one batch for each of its partitions. Two requests of one
// transactional.id at one broker would collide in its verification of the
// transaction, so there are never two; different brokers work side by side.
func (w *wire) produce(ctx context.Context, number int, r *round) *Failure {
	groups, failure := w.byLeader(ctx, r.batches)
	type outcome struct {
		step    Step
		failure *Failure
	}
	outcomes := make([]outcome, len(groups))
	var wg sync.WaitGroup
	for i, group := range groups {
		wg.Go(func() {
			began := time.Now()
			failure := w.produceTo(ctx, group)
			step := stepOf(Produce, began, failure)
			step.Round, step.Batches = number, len(group)
			for _, b := range group {
				step.Records, step.Bytes = step.Records+b.records, step.Bytes+len(b.wire)
			}
			outcomes[i] = outcome{step, failure}
		})
	}
	wg.Wait()
	for _, o := range outcomes {
		w.observe(o.step)
		if o.failure != nil && o.failure.Code == 0 {
			r.unanswered = true
		}
		failure = worse(failure, o.failure)
	}
	return failure
}

// byLeader groups the batches that are not acknowledged by the leader of their
// partition. A partition that has none at the moment is left out and is a
// failure. The leaders come from kafka-go's cache, which is at most
// Transport.MetadataTTL old; a repeat asks again.
func (w *wire) byLeader(ctx context.Context, batches []batch) (groups [][]*batch, failure *Failure) {
	if !slices.ContainsFunc(batches, func(b batch) bool { return !b.acked }) {
		return nil, nil
	}
	answer, err := send[*metadata.Response](ctx, w, &metadata.Request{TopicNames: w.layout.Names[:]})
	if err != nil {
		return nil, unanswered(Produce, w.subject(), fmt.Errorf("look up leaders: %w", err))
	}
	leaders := make(map[partitionName]int32)
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			leaders[partitionName{topic.Name, p.PartitionIndex}] = p.LeaderID
		}
	}
	groupOf := make(map[int32]int)
	for i := range batches {
		b := &batches[i]
		if b.acked {
			continue
		}
		name := w.nameOf(b.place)
		leader, known := leaders[name]
		if !known || leader < 0 {
			failure = worse(failure, answered(Produce, name.String(), int16(kafka.LeaderNotAvailable)))
			continue
		}
		group, begun := groupOf[leader]
		if !begun {
			group = len(groups)
			groupOf[leader] = group
			groups = append(groups, nil)
		}
		groups[group] = append(groups[group], b)
	}
	return groups, failure
}

const allReplicas = -1

// produceTo sends one request and marks the batches that are acknowledged.
func (w *wire) produceTo(ctx context.Context, group []*batch) *Failure {
	request := &rawproduce.Request{
		TransactionalID: w.transactionalID,
		Acks:            allReplicas,
		// The broker answers before this side gives up, so that a slow replica is
		// an answer rather than a silence.
		Timeout: int32((w.requestTimeout / 2).Milliseconds()),
	}
	for _, b := range group {
		name := w.layout.Names[b.topic]
		if n := len(request.Topics); n == 0 || request.Topics[n-1].Topic != name {
			request.Topics = append(request.Topics, rawproduce.RequestTopic{Topic: name})
		}
		topic := &request.Topics[len(request.Topics)-1]
		topic.Partitions = append(topic.Partitions, rawproduce.RequestPartition{
			Partition: b.partition,
			// A reader is spent after one try, so each try gets its own.
			RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(b.wire)},
		})
	}
	answer, err := send[*produce.Response](ctx, w, request)
	if err != nil {
		return unanswered(Produce, w.nameOf(group[0].place).String(), err)
	}
	return w.judgeProduced(group, answer)
}

func (w *wire) judgeProduced(group []*batch, answer *produce.Response) (failure *Failure) {
	answers := make(map[partitionName]*produce.ResponsePartition)
	for i := range answer.Topics {
		topic := &answer.Topics[i]
		for j := range topic.Partitions {
			answers[partitionName{topic.Topic, topic.Partitions[j].Partition}] = &topic.Partitions[j]
		}
	}
	for _, b := range group {
		name := w.nameOf(b.place)
		p, named := answers[name]
		if !named {
			failure = worse(failure, unanswered(Produce, name.String(), errPartialAnswer))
			continue
		}
		refused := answered(Produce, name.String(), p.ErrorCode)
		if refused == nil {
			b.acked = true
			if kafka.Error(p.ErrorCode) == success {
				b.baseOffset = p.BaseOffset
			}
			continue
		}
		if p.ErrorMessage != "" {
			refused.Err = fmt.Errorf("%w (%s)", refused.Err, p.ErrorMessage)
		}
		failure = worse(failure, refused)
	}
	return failure
}

// subject names the producer in messages.
func (w *wire) subject() string {
	if w.transactionalID == "" {
		return "without transactional.id"
	}
	return "of " + w.transactionalID
}

// partitionName is a place by the name of its topic.
type partitionName struct {
	topic     string
	partition int32
}

func (p partitionName) String() string { return p.topic + "-" + strconv.Itoa(int(p.partition)) }

func (w *wire) nameOf(p place) partitionName {
	return partitionName{w.layout.Names[p.topic], p.partition}
}
