package daemon_test

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// topicLog is everything that was ever committed to the topics, as another client than
// cdrbus's reads it, whether or not it is still there.
type topicLog struct {
	records    map[string]map[int32][]*kgo.Record // by topic and partition
	next       map[string]map[int32]int64         // what is to be read next
	lostBefore map[int32]int64                    // by partition of the events topic
	lostAt     time.Time
}

func newTopicLog() topicLog {
	l := topicLog{map[string]map[int32][]*kgo.Record{}, map[string]map[int32]int64{}, map[int32]int64{}, time.Time{}}
	for topic, partitions := range map[string]int{"events": eventParts, "deadletter": fewShards, "offsets": fewShards, "windows": fewShards, "ids": fewShards} {
		l.records["webex.cdr."+topic], l.next["webex.cdr."+topic] = map[int32][]*kgo.Record{}, map[int32]int64{}
		for p := range partitions {
			l.next["webex.cdr."+topic][int32(p)] = 0
		}
	}
	return l
}

func (l topicLog) of(topic string, partition int32) []*kgo.Record { return l.records[topic][partition] }

// all are the records of a topic, in the order of each partition.
func (l topicLog) all(topic string) (records []*kgo.Record) {
	for p := range int32(len(l.next[topic])) {
		records = append(records, l.records[topic][p]...)
	}
	return records
}

// lost reports whether an event was deleted.
func (l topicLog) lost(r *kgo.Record) bool { return r.Offset < l.lostBefore[r.Partition] }

// stable is the last offset of a partition that a committed reader may read; -1: none.
func (s *simulation) stable(topic string, partition int32) int64 {
	info := s.cluster.Kafka.PartitionInfo(topic, partition)
	if info == nil {
		return -1 // it is not there yet
	}
	return info.LastStableOffset - 1
}

// remember reads on as committed readers do. It reports whether it came to the end of
// everything: while transactions are going on, it need not.
func (s *simulation) remember() bool {
	s.t.Helper()
	left, from := map[string]int64{}, map[string]map[int32]kgo.Offset{}
	for topic, partitions := range s.topics.next {
		for p, next := range partitions {
			if last := s.stable(topic, p); last >= next {
				left[fmt.Sprint(topic, p)] = last
				if from[topic] == nil {
					from[topic] = map[int32]kgo.Offset{}
				}
				from[topic][p] = kgo.NewOffset().At(next)
			}
		}
	}
	if len(left) == 0 {
		return true
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Brokers()...), kgo.Dialer(s.network.DialContext), kgo.DisableClientMetrics(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(from))
	if err != nil {
		s.t.Error(err)
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), rememberPatience)
	defer cancel()
	for len(left) > 0 && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if partition := fmt.Sprint(r.Topic, r.Partition); r.Offset >= left[partition] {
				delete(left, partition)
			}
			s.topics.next[r.Topic][r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				s.topics.records[r.Topic][r.Partition] = append(s.topics.records[r.Topic][r.Partition], r)
			}
		})
	}
	return len(left) == 0
}

// rememberPatience is how long a reader waits for what is committed.
const rememberPatience = 10 * time.Second
