package producer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// fakeKafka is a coordinator and two brokers behind kafka.RoundTripper. Of the
// transaction protocol it has all that cdrbus relies on and, where real brokers
// are strict, it is too: busy after the end of a transaction, fencing whoever
// asks for an epoch with a transaction open, verifying each batch. What cdrbus
// must never do fails the test. It runs in the fake time of a synctest bubble.
type fakeKafka struct {
	t      testing.TB
	layout *Layout

	mu           sync.Mutex
	logs         map[partitionName]*fakeLog
	leaders      map[partitionName]int32 // as metadata tells
	moved        map[partitionName]bool  // whose leader is really another
	coordinators map[string]*fakeTransactions
	nextPID      int64
	plainPIDs    map[int64]bool // without transactional.id
	late         []lateRequest

	effects int // requests so far, metadata not counted
	trace   []string
	// fault chooses what goes wrong with a request, by its number.
	fault func(effect int, kind Request) fault
	code  kafka.Error
	// rival acts as another owner of the shard, for freezes. Nothing goes wrong for
	// it. Requests to two brokers may freeze at once: their rivals take turns.
	rival     func()
	rivalTurn chan struct{}
	rivalActs bool
}

const (
	fakeLatency  = time.Millisecond
	fakeEndTime  = 3 * time.Millisecond // how long a coordinator is busy after EndTxn
	epochsRunOut = math.MaxInt16 - 1
)

// fault is what goes wrong with one request.
type fault uint8

const (
	noFault        fault = iota
	errorBefore          // it never arrives, and the connection breaks
	answerLost           // it is carried out, and the connection breaks
	hang                 // it never arrives, nobody answers
	hangApplied          // it is carried out, nobody answers
	appliedError         // it is carried out, and answered with an error
	refused              // it is answered with an error that asks to repeat it
	aborting             // it is answered with an error that gives up the transaction
	fencedBefore         // a rival takes the shard over first
	frozen               // a rival takes over and commits, and only then it arrives
	twiceSoon            // it is carried out, and once more before the next request
	twiceLater           // the same, two requests later
	twiceMuchLater       // the same, five requests later
	arrivesLater         // the connection breaks, it is carried out two requests later
	faultCount

	// coded is for tests that choose the code: one partition is answered with
	// fakeKafka.code.
	coded = faultCount
)

func (f fault) String() string {
	return [...]string{"none", "error before", "answer lost", "hang", "hang applied", "applied but error", "refused", "aborting", "fenced", "frozen", "twice soon", "twice later", "twice much later", "arrives later", "coded"}[f]
}

type lateRequest struct {
	due     int
	request kafka.Request
}

// fakeLog is one partition.
type fakeLog struct {
	batches []fakeBatch
	end     int64
	known   map[int64]*fakeProducer
}

type fakeBatch struct {
	decoded
	base   int64
	status int
}

const (
	isPending = iota
	isCommitted
	isAborted
)

// fakeProducer is what a partition knows of a producer.
type fakeProducer struct {
	epoch int16
	next  int32
	last  []fakeBatch // up to five
}

// fakeTransactions is what a coordinator knows of a transactional.id.
type fakeTransactions struct {
	own       identity
	lastEpoch int16 // whose bump is answered again; -1: none
	open      bool
	ended     int // committed or aborted, 0 if this epoch has ended none
	parts     map[partitionName]bool
	began     time.Time
	timeout   time.Duration
	busyUntil time.Time
}

func newFakeKafka(t testing.TB, layout *Layout, shards int) *fakeKafka {
	k := &fakeKafka{
		t: t, layout: layout,
		logs: map[partitionName]*fakeLog{}, leaders: map[partitionName]int32{}, moved: map[partitionName]bool{},
		coordinators: map[string]*fakeTransactions{}, nextPID: 1000, plainPIDs: map[int64]bool{},
		fault: func(int, Request) fault { return noFault }, rival: func() {}, rivalTurn: make(chan struct{}, 1),
	}
	for topic, name := range layout.Names {
		count := shards
		if Topic(topic) == Events {
			count = layout.EventPartitions
		}
		for p := range count {
			k.logs[partitionName{name, int32(p)}] = &fakeLog{known: map[int64]*fakeProducer{}}
			k.leaders[partitionName{name, int32(p)}] = int32(1 + p%2)
		}
	}
	return k
}

func (k *fakeKafka) client() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP("fake:9092"), Timeout: 10 * time.Second, Transport: &fakeTransport{k, map[int32]int{}}}
}

// fakeTransport is one process's connections.
type fakeTransport struct {
	*fakeKafka
	inFlight map[int32]int // requests under way, by broker; 0: the coordinator
}

var errConnection = fmt.Errorf("read tcp: %w", io.ErrUnexpectedEOF)

// RoundTrip implements kafka.RoundTripper.
func (k *fakeTransport) RoundTrip(ctx context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	if _, limited := ctx.Deadline(); !limited {
		k.t.Errorf("%T without a deadline", request)
	}
	if m, ok := request.(*metadata.Request); ok {
		return k.metadata(m), nil
	}
	request, kind, broker := k.arrive(request)
	k.mu.Lock()
	number := k.effects
	k.effects++
	f := noFault
	if !k.rivalActs {
		f = k.fault(number, kind)
	}
	k.trace = append(k.trace, fmt.Sprintf("%d %s: %s", number, kind, f))
	k.enter(kind, broker)
	k.mu.Unlock()
	defer k.leave(broker)

	select {
	case <-time.After(fakeLatency):
	case <-ctx.Done():
		k.mu.Lock()
		defer k.mu.Unlock()
		k.late = append(k.late, lateRequest{k.effects + 1, request}) // it is on the wire
		return nil, ctx.Err()
	}
	k.deliverLate(number)
	return k.answer(ctx, f, number, kind, request)
}

func (k *fakeKafka) answer(ctx context.Context, f fault, number int, kind Request, request kafka.Request) (kafka.Response, error) {
	switch f {
	case errorBefore:
		return nil, errConnection
	case answerLost:
		k.apply(request)
		return nil, errConnection
	case hang, hangApplied:
		if f == hangApplied {
			k.apply(request)
		}
		<-ctx.Done()
		return nil, ctx.Err()
	case appliedError:
		k.apply(request)
		return refuse(request, kafka.RequestTimedOut), nil
	case refused:
		return refuse(request, retriableCode(kind)), nil
	case coded:
		if k.code == kafka.DuplicateSequenceNumber {
			k.apply(request) // the code claims that it has been
		}
		return refuseOne(request, k.code), nil
	case aborting:
		return refuse(request, kafka.Error(-1)), nil
	case fencedBefore:
		k.takeOverAsRival(request)
	case frozen:
		k.freeze()
	case twiceSoon, twiceLater, twiceMuchLater, arrivesLater:
		k.mu.Lock()
		k.late = append(k.late, lateRequest{number + map[fault]int{twiceSoon: 1, twiceLater: 3, twiceMuchLater: 6, arrivesLater: 3}[f], request})
		k.mu.Unlock()
		if f == arrivesLater {
			return nil, errConnection
		}
	}
	return k.apply(request), nil
}

// freeze lets a rival act before the request goes on.
func (k *fakeKafka) freeze() {
	k.rivalTurn <- struct{}{}
	defer func() { <-k.rivalTurn }()
	k.setRivalActs(true)
	defer k.setRivalActs(false)
	k.rival()
}

func (k *fakeKafka) setRivalActs(acts bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rivalActs = acts
}

func retriableCode(kind Request) kafka.Error {
	if kind == Produce {
		return kafka.NotLeaderForPartition
	}
	return kafka.ConcurrentTransactions
}

// arrive reads a request off the wire, strictly, so that it can be delivered at
// any time and more than once.
func (k *fakeKafka) arrive(request kafka.Request) (kafka.Request, Request, int32) {
	switch r := request.(type) {
	case *initproducerid.Request:
		if (r.ProducerID < 0) != (r.ProducerEpoch < 0) || r.ProducerID == 0 {
			k.t.Errorf("InitProducerID with producer %d epoch %d", r.ProducerID, r.ProducerEpoch)
		}
		return r, InitProducerID, 0
	case *addpartitionstotxn.Request:
		return r, AddPartitions, 0
	case *endtxn.Request:
		if r.Committed {
			return r, CommitTransaction, 0
		}
		return r, AbortTransaction, 0
	case *rawproduce.Request:
		parsed, broker := k.parse(r)
		return parsed, Produce, broker
	default:
		panic(fmt.Sprintf("unexpected %T", request))
	}
}

// fakeProduce is a Produce request as it arrived.
type fakeProduce struct {
	*rawproduce.Request
	names   []partitionName
	batches []decoded
}

func (k *fakeKafka) parse(r *rawproduce.Request) (*fakeProduce, int32) {
	if r.Acks != -1 || r.Timeout <= 0 {
		k.t.Errorf("Produce with acks %d, timeout %d", r.Acks, r.Timeout)
	}
	parsed := &fakeProduce{Request: r}
	brokers := map[int32]bool{}
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			name := partitionName{topic.Topic, p.Partition}
			wire, err := io.ReadAll(p.RecordSet.Reader)
			if err != nil || len(wire) < 4 || int(binary.BigEndian.Uint32(wire)) != len(wire)-4 {
				k.t.Errorf("Produce to %s: %d bytes (%v), length prefix missing or wrong", name, len(wire), err)
				continue
			}
			batch, err := readBatch(wire[4:])
			if err != nil {
				k.t.Errorf("Produce to %s: %v", name, err)
				continue
			}
			if batch.header.transactional != (r.TransactionalID != "") {
				k.t.Errorf("Produce to %s: transactional %v with transactional.id %q", name, batch.header.transactional, r.TransactionalID)
			}
			if slices.Contains(parsed.names, name) {
				k.t.Errorf("Produce with two batches for %s", name)
			}
			parsed.names, parsed.batches = append(parsed.names, name), append(parsed.batches, batch)
			k.mu.Lock()
			brokers[k.leaders[name]] = true
			k.mu.Unlock()
		}
	}
	if len(brokers) != 1 {
		k.t.Errorf("Produce to %v: partitions of %d brokers", parsed.names, len(brokers))
		return parsed, 0
	}
	return parsed, slices.Collect(maps.Keys(brokers))[0]
}

// enter notes a request under way: there are never two at one broker.
func (k *fakeTransport) enter(kind Request, broker int32) {
	if k.inFlight[broker] > 0 {
		k.t.Errorf("%s to broker %d while another request is under way there", kind, broker)
	}
	k.inFlight[broker]++
}

func (k *fakeTransport) leave(broker int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inFlight[broker]--
}

func (k *fakeKafka) deliverLate(number int) {
	k.mu.Lock()
	var due []lateRequest
	k.late = slices.DeleteFunc(k.late, func(l lateRequest) bool {
		if l.due <= number {
			due = append(due, l)
			return true
		}
		return false
	})
	k.mu.Unlock()
	for _, l := range due {
		k.apply(l.request)
	}
}

func (k *fakeKafka) apply(request kafka.Request) kafka.Response {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	switch r := request.(type) {
	case *initproducerid.Request:
		own, code := k.initProducerID(r)
		return &initproducerid.Response{ErrorCode: int16(code), ProducerID: own.producerID, ProducerEpoch: own.epoch}
	case *addpartitionstotxn.Request:
		return k.addPartitions(r)
	case *endtxn.Request:
		return &endtxn.Response{ErrorCode: int16(k.endTransaction(r))}
	case *fakeProduce:
		return k.produce(r)
	default:
		panic(fmt.Sprintf("unexpected %T", request))
	}
}

// expire aborts the transactions that are open for too long, and fences their owners.
func (k *fakeKafka) expire() {
	for _, c := range k.coordinators {
		if c.open && time.Since(c.began) > c.timeout {
			k.fence(c)
		}
	}
}

// fence ends an open transaction under a new epoch.
func (k *fakeKafka) fence(c *fakeTransactions) {
	c.own.epoch++
	c.lastEpoch = -1
	k.finish(c, isAborted)
}

func (k *fakeKafka) finish(c *fakeTransactions, how int) {
	for name := range c.parts {
		log := k.logs[name]
		for i := range log.batches {
			if b := &log.batches[i]; b.status == isPending && b.header.sender.producerID == c.own.producerID {
				b.status = how
			}
		}
		log.end++ // the marker
	}
	c.open, c.ended, c.parts, c.busyUntil = false, how, nil, time.Now().Add(fakeEndTime)
}

func (k *fakeKafka) initProducerID(r *initproducerid.Request) (identity, kafka.Error) {
	if r.TransactionalID == "" {
		k.nextPID++
		k.plainPIDs[k.nextPID] = true
		return identity{k.nextPID, 0}, success
	}
	c := k.coordinators[r.TransactionalID]
	if c == nil {
		k.nextPID++
		c = &fakeTransactions{own: identity{k.nextPID, -1}, lastEpoch: -1}
		k.coordinators[r.TransactionalID] = c
	}
	c.timeout = time.Duration(r.TransactionTimeoutMs) * time.Millisecond
	asked := identity{r.ProducerID, r.ProducerEpoch}
	switch {
	case time.Now().Before(c.busyUntil):
		return unidentified, kafka.ConcurrentTransactions
	case asked != unidentified && asked.producerID != c.own.producerID:
		return unidentified, kafka.ProducerFenced
	case asked != unidentified && asked.epoch != c.own.epoch && asked.epoch != c.lastEpoch:
		return unidentified, kafka.ProducerFenced
	case c.open:
		k.fence(c)
		return unidentified, kafka.ConcurrentTransactions
	case asked != unidentified && asked.epoch == c.lastEpoch:
		return c.own, success
	}
	c.lastEpoch = c.own.epoch
	if asked == unidentified {
		c.lastEpoch = -1
	}
	c.own.epoch++
	if c.own.epoch >= epochsRunOut {
		k.nextPID++
		c.own, c.lastEpoch = identity{k.nextPID, 0}, -1
	}
	c.ended = 0
	return c.own, success
}

// owner finds the coordinator's entry for a sender, or the code to answer.
func (k *fakeKafka) owner(id string, sender identity) (*fakeTransactions, kafka.Error) {
	c := k.coordinators[id]
	switch {
	case c == nil || c.own.producerID != sender.producerID:
		return nil, kafka.InvalidProducerIDMapping
	case c.own.epoch != sender.epoch:
		return nil, kafka.ProducerFenced
	case time.Now().Before(c.busyUntil):
		return nil, kafka.ConcurrentTransactions
	}
	return c, success
}

func (k *fakeKafka) addPartitions(r *addpartitionstotxn.Request) kafka.Response {
	c, code := k.owner(r.TransactionalID, identity{r.ProducerID, r.ProducerEpoch})
	if code != success {
		return refuse(r, code)
	}
	if !c.open {
		c.open, c.began, c.parts = true, time.Now(), map[partitionName]bool{}
	}
	for _, topic := range r.Topics {
		for _, p := range topic.Partitions {
			if k.logs[partitionName{topic.Name, p}] == nil {
				k.t.Errorf("AddPartitions names %s-%d, which does not exist", topic.Name, p)
			}
			c.parts[partitionName{topic.Name, p}] = true
		}
	}
	return refuse(r, success)
}

func (k *fakeKafka) endTransaction(r *endtxn.Request) kafka.Error {
	c, code := k.owner(r.TransactionalID, identity{r.ProducerID, r.ProducerEpoch})
	how := isAborted
	if r.Committed {
		how = isCommitted
	}
	switch {
	case code != success:
		return code
	case c.open:
		k.finish(c, how)
		return success
	case c.ended == how:
		return success
	default:
		return kafka.InvalidTransactionState
	}
}

func (k *fakeKafka) produce(r *fakeProduce) kafka.Response {
	answer := refuse(r, success).(*produce.Response)
	at := 0
	for i := range answer.Topics {
		for j := range answer.Topics[i].Partitions {
			p := &answer.Topics[i].Partitions[j]
			base, code := k.append(r.TransactionalID, r.names[at], r.batches[at])
			p.ErrorCode, p.BaseOffset = int16(code), base
			at++
		}
	}
	return answer
}

// append verifies a batch as a broker does and appends it.
func (k *fakeKafka) append(id string, name partitionName, b decoded) (int64, kafka.Error) {
	log, sender := k.logs[name], b.header.sender
	if log == nil || k.moved[name] {
		return -1, kafka.NotLeaderForPartition
	}
	status := isCommitted
	if id != "" {
		status = isPending
		c := k.coordinators[id]
		switch {
		case c == nil || c.own.producerID != sender.producerID || c.own.epoch != sender.epoch:
			return -1, kafka.InvalidProducerEpoch
		case !c.open || !c.parts[name]:
			return -1, kafka.InvalidTransactionState
		}
	} else if !k.plainPIDs[sender.producerID] {
		return -1, kafka.UnknownProducerId
	}
	p := log.known[sender.producerID]
	if p == nil || p.epoch < sender.epoch {
		p = &fakeProducer{epoch: sender.epoch}
		log.known[sender.producerID] = p
	}
	for _, old := range p.last {
		if old.header.baseSequence == b.header.baseSequence && len(old.records) == len(b.records) {
			return old.base, success
		}
	}
	if b.header.baseSequence != p.next {
		return -1, kafka.OutOfOrderSequenceNumber
	}
	appended := fakeBatch{b, log.end, status}
	log.batches = append(log.batches, appended)
	log.end += int64(len(b.records))
	p.next = addSequence(b.header.baseSequence, len(b.records))
	p.last = append(p.last[max(0, len(p.last)-4):], appended)
	return appended.base, success
}

// takeOverAsRival is another process's A.1.
func (k *fakeKafka) takeOverAsRival(request kafka.Request) {
	var id string
	switch r := request.(type) {
	case *initproducerid.Request:
		id = r.TransactionalID
	case *addpartitionstotxn.Request:
		id = r.TransactionalID
	case *endtxn.Request:
		id = r.TransactionalID
	case *fakeProduce:
		id = r.TransactionalID
	}
	for {
		k.mu.Lock()
		_, code := k.initProducerID(&initproducerid.Request{TransactionalID: id, TransactionTimeoutMs: 60_000, ProducerID: -1, ProducerEpoch: -1})
		k.mu.Unlock()
		if code == success {
			return
		}
		time.Sleep(fakeEndTime)
	}
}

// refuse answers a request with one code everywhere, without carrying it out.
func refuse(request kafka.Request, code kafka.Error) kafka.Response {
	switch r := request.(type) {
	case *initproducerid.Request:
		return &initproducerid.Response{ErrorCode: int16(code), ProducerID: -1, ProducerEpoch: -1}
	case *endtxn.Request:
		return &endtxn.Response{ErrorCode: int16(code)}
	case *addpartitionstotxn.Request:
		answer := &addpartitionstotxn.Response{}
		for _, topic := range r.Topics {
			result := addpartitionstotxn.ResponseResult{Name: topic.Name}
			for _, p := range topic.Partitions {
				result.Results = append(result.Results, addpartitionstotxn.ResponsePartition{PartitionIndex: p, ErrorCode: int16(code)})
			}
			answer.Results = append(answer.Results, result)
		}
		return answer
	case *fakeProduce:
		answer := &produce.Response{}
		for _, topic := range r.Topics {
			result := produce.ResponseTopic{Topic: topic.Topic}
			for _, p := range topic.Partitions {
				result.Partitions = append(result.Partitions, produce.ResponsePartition{Partition: p.Partition, ErrorCode: int16(code), BaseOffset: -1})
			}
			answer.Topics = append(answer.Topics, result)
		}
		return answer
	default:
		panic(fmt.Sprintf("unexpected %T", request))
	}
}

// refuseOne is refuse for one partition only. The others have a code that says so.
func refuseOne(request kafka.Request, code kafka.Error) kafka.Response {
	answer := refuse(request, code)
	switch r := answer.(type) {
	case *addpartitionstotxn.Response:
		for i := range r.Results {
			for j := range r.Results[i].Results {
				if i+j > 0 {
					r.Results[i].Results[j].ErrorCode = int16(operationNotAttempted)
				}
			}
		}
	case *produce.Response:
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				if i+j > 0 {
					r.Topics[i].Partitions[j].ErrorCode = int16(kafka.NotLeaderForPartition)
				}
			}
		}
	}
	return answer
}

func (k *fakeKafka) metadata(r *metadata.Request) kafka.Response {
	k.mu.Lock()
	defer k.mu.Unlock()
	answer := &metadata.Response{}
	for _, topic := range r.TopicNames {
		t := metadata.ResponseTopic{Name: topic}
		for name, leader := range k.leaders {
			if name.topic == topic {
				t.Partitions = append(t.Partitions, metadata.ResponsePartition{PartitionIndex: name.partition, LeaderID: leader})
			}
		}
		answer.Topics = append(answer.Topics, t)
	}
	return answer
}

// errHanging says that committed readers could not reach the end.
var errHanging = errors.New("a transaction is open: last stable offset below high watermark")

// read returns the committed values of a partition, as far as committed readers see.
func (k *fakeKafka) read(topic Topic, p int) (values []string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	for _, b := range k.logs[partitionName{k.layout.Names[topic], int32(p)}].batches {
		if b.status == isPending {
			return values, errHanging
		}
		if b.status == isCommitted {
			for _, r := range b.records {
				values = append(values, string(r.value))
			}
		}
	}
	return values, nil
}
