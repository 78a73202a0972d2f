package daemon_test

import (
	"context"
	"hash/crc32"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"cdrbus/internal/faultnet"
)

// transactionalClient sends single requests of the commit protocol and returns
// their codes.
type transactionalClient struct {
	t        *testing.T
	client   *kgo.Client
	producer int64
	epoch    int16
}

const strictTopic, strictID = "webex.cdr.events", "cdrbus.test"

// ask sends one request and wants an answer, whatever it says.
func ask[Response any](c *transactionalClient, request interface {
	RequestWith(context.Context, kmsg.Requestor) (Response, error)
}) Response {
	c.t.Helper()
	answer, err := request.RequestWith(c.t.Context(), c.client)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer
}

// init asks for the epoch after another one; -1: for any, as who takes over.
func (c *transactionalClient) init(after int16) int16 {
	c.t.Helper()
	q := kmsg.NewInitProducerIDRequest()
	id := strictID
	q.TransactionalID, q.TransactionTimeoutMillis = &id, int32(simTransactionTimeout.Milliseconds())
	if after >= 0 {
		q.ProducerID, q.ProducerEpoch = c.producer, after
	}
	answer := ask(c, &q)
	if answer.ErrorCode == 0 {
		c.producer, c.epoch = answer.ProducerID, answer.ProducerEpoch
	}
	return answer.ErrorCode
}

// takeOver asks for an epoch until it is given.
func (c *transactionalClient) takeOver() {
	c.t.Helper()
	for c.init(-1) == codeConcurrentTransaction {
		time.Sleep(time.Millisecond)
	}
}

func (c *transactionalClient) add(epoch int16) int16 {
	c.t.Helper()
	q := kmsg.NewAddPartitionsToTxnRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch = strictID, c.producer, epoch
	topic := kmsg.NewAddPartitionsToTxnRequestTopic()
	topic.Topic, topic.Partitions = strictTopic, []int32{0}
	q.Topics = append(q.Topics, topic)
	return ask(c, &q).Topics[0].Partitions[0].ErrorCode
}

func (c *transactionalClient) end(epoch int16, commit bool) int16 {
	c.t.Helper()
	q := kmsg.NewEndTxnRequest()
	q.TransactionalID, q.ProducerID, q.ProducerEpoch, q.Commit = strictID, c.producer, epoch, commit
	return ask(c, &q).ErrorCode
}

func (c *transactionalClient) produce(epoch int16) int16 {
	c.t.Helper()
	record := kmsg.Record{Length: 6} // of an empty record: attributes, deltas and lengths
	const transactional = 0x10
	batch := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: transactional, ProducerID: c.producer, ProducerEpoch: epoch, NumRecords: 1, Records: record.AppendTo(nil)}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	q := kmsg.NewProduceRequest()
	id := strictID
	q.TransactionID, q.Acks, q.TimeoutMillis = &id, -1, 5000
	topic, partition := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	topic.Topic, partition.Records = strictTopic, batch.AppendTo(nil)
	topic.Partitions = append(topic.Partitions, partition)
	q.Topics = append(q.Topics, topic)
	return ask(c, &q).Topics[0].Partitions[0].ErrorCode
}

// TestStrictBrokers: what kfake would let pass is answered as Kafka does.
func TestStrictBrokers(t *testing.T) {
	for _, as3x := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			if err := w.cluster.Kafka.CreateTopic(strictTopic, 1, nil); err != nil {
				t.Fatal(err)
			}
			brokers := newStrictBrokers(scenario{})
			brokers.late90 = as3x
			brokers.calm.Store(true)
			n := faultnet.New(faultnet.Options{Dial: w.network.DialContext, Deliver: brokers.deliver})
			defer n.Close()
			client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Brokers()...), kgo.Dialer(n.Dialer("test")), kgo.DisableClientMetrics(),
				kgo.RetryTimeout(0), kgo.RequestRetries(0), kgo.MaxVersions(beforeSecondProtocol()))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			strictness(&transactionalClient{t: t, client: client}, brokers, as3x)
		})
	}
}

func strictness(c *transactionalClient, brokers *strictBrokers, as3x bool) {
	c.t.Helper()
	want := func(what string, got, want int16) {
		c.t.Helper()
		if got != want {
			c.t.Errorf("%s: code %d, want %d", what, got, want)
		}
	}
	c.takeOver()
	first := c.epoch
	want("commit of nothing", c.end(first, true), codeInvalidTxnState)
	want("add", c.add(first), 0)
	want("produce", c.produce(first), 0)
	want("commit", c.end(first, true), 0)
	brokers.exclusively(func() { brokers.transactions[strictID].endingUntil = time.Now().Add(time.Second) })
	want("commit again while it is being ended", c.end(first, true), codeConcurrentTransaction)
	want("next epoch meanwhile", c.init(first), codeConcurrentTransaction)
	time.Sleep(time.Second)
	want("commit again", c.end(first, true), 0)
	want("abort after the commit", c.end(first, false), codeInvalidTxnState)
	want("next epoch", c.init(first), 0)
	second := c.epoch
	want("next epoch asked for again", c.init(first), 0)
	want("and it is the same", c.epoch, second)
	want("late commit", c.end(first, true), codeProducerFenced)
	want("late add", c.add(first), codeProducerFenced)
	want("late produce", c.produce(first), codeInvalidProducerEpoch)
	want("commit of the new epoch, which has no transaction", c.end(second, true), codeInvalidTxnState)
	brokers.forget()
	want("next epoch asked for again after the coordinator moved", c.init(first), codeProducerFenced)

	want("add", c.add(second), 0)
	want("next epoch while a transaction is open", c.init(second), codeConcurrentTransaction)
	want("its commit", c.end(second, true), codeProducerFenced)
	time.Sleep(time.Second)
	want("its next epoch", c.init(second), codeProducerFenced)

	c.takeOver()
	third := c.epoch
	want("add", c.add(third), 0)
	time.Sleep(simTransactionTimeout + time.Second)
	want("commit after the time-out", c.end(third, true), codeProducerFenced)
	want("next epoch after the time-out", c.init(third), map[bool]int16{true: codeProducerFenced, false: 0}[as3x])
	if !as3x {
		want("and it proves nothing", c.epoch, third+1)
	}
}

// beforeSecondProtocol are the versions that kafka-go speaks at most, of the first
// version of the transaction protocol.
func beforeSecondProtocol() *kversion.Versions {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.Produce), 9)
	versions.SetMaxKeyVersion(int16(kmsg.InitProducerID), 4)
	versions.SetMaxKeyVersion(int16(kmsg.AddPartitionsToTxn), 3)
	versions.SetMaxKeyVersion(int16(kmsg.EndTxn), 3)
	return versions
}
