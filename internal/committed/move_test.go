package committed_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
)

const (
	bigRecords = 24
	bigBytes   = 900_000 // so that a read takes several answers
)

// writeBig writes numbered records, one batch each.
func writeBig(t *testing.T, client *kafka.Client) {
	t.Helper()
	for i := range bigRecords {
		value := make([]byte, bigBytes)
		binary.BigEndian.PutUint32(value, uint32(i))
		resp, err := client.Produce(t.Context(), &kafka.ProduceRequest{Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(value)})})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readBig reads them all while move is called at the first record.
func readBig(t *testing.T, client *kafka.Client, move func()) {
	t.Helper()
	want := 0
	_, _, err := committed.NewReader(client).Read(t.Context(), topic, 0, committed.Earliest, committed.LastStable, func(r committed.Record) error {
		if got := int(binary.BigEndian.Uint32(r.Value)); got != want || r.Offset != int64(want) {
			return fmt.Errorf("record %d at offset %d, want %d", got, r.Offset, want)
		}
		if want++; want == 1 {
			move()
		}
		return nil
	})
	if err != nil || want != bigRecords {
		t.Errorf("read %d of %d records: %v", want, bigRecords, err)
	}
}

func TestReadFollowsAMovingPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, err := embedded.Start(embedded.Options{Brokers: 3, Network: new(kfake.VirtualNetwork)})
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), DialContext: cluster.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		defer kafkaconn.Close(client)
		createTopic(t, client, nil)
		writeBig(t, client)
		moves := 0
		readBig(t, client, func() {
			moves++
			if err := cluster.Kafka.MoveTopicPartition(topic, 0, (cluster.Kafka.LeaderFor(topic, 0)+1)%3); err != nil {
				t.Error(err)
			}
		})
		if moves != 1 {
			t.Errorf("the partition moved %d times, want once", moves)
		}
	})
}

// TestReadOutlivesItsLeaderOnKafka kills the partition's leader in mid-read.
func TestReadOutlivesItsLeaderOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, Brokers: 3})
		cluster.CreateTopic(t, topic, 1, nil)
		client := newClient(t, cluster.Bootstrap())
		// A broker may answer before it has heard of the topic from the controller.
		kafkatest.Eventually(t, 30*time.Second, "every broker knows the topic", func() error {
			_, err := committed.NewReader(client).Bounds(t.Context(), topic, 0)
			return err
		})
		writeBig(t, client)
		start := time.Now()
		readBig(t, client, func() {
			resp, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
			if err != nil {
				t.Error(err)
				return
			}
			if err := cluster.Brokers[resp.Topics[0].Partitions[0].Leader.ID-1].Kill(); err != nil {
				t.Error(err)
			}
		})
		t.Logf("read in %s, the leader's death included", time.Since(start).Round(time.Millisecond))
	})
}
