package kafkatest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/kafkatest"
)

func produce(t *testing.T, client *kafka.Client, topic, key string) {
	t.Helper()
	kafkatest.Eventually(t, 30*time.Second, "record "+key+" is written", func() error {
		resp, err := client.Produce(t.Context(), &kafka.ProduceRequest{Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Key: kafka.NewBytes([]byte(key))})})
		if err != nil {
			return err
		}
		return resp.Error
	})
}

// TestBrokerSurvivesKill: the cluster starts, takes records, is killed and
// started again, and a foreign client reads what was written before and after.
func TestBrokerSurvivesKill(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		cluster.CreateTopic(t, "a", 1, map[string]string{"retention.ms": "3600000"})
		client := cluster.AdminClient(t)
		produce(t, client, "a", "before")
		broker := cluster.Brokers[0]
		if err := broker.Kill(); err != nil {
			t.Fatal(err)
		}
		if broker.Running() {
			t.Error("the broker runs after Kill")
		}
		if err := broker.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		produce(t, client, "a", "after")
		got := string(kafkatest.KcatRead(t, broker.Bootstrap, "a", "%k\n"))
		if !strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "after\n") {
			t.Errorf("kcat reads %q, want before and after", got)
		}
		if err := broker.Stop(); err != nil {
			t.Fatal(err)
		}
		if log := cluster.LogTail(); !strings.Contains(log, "INFO") {
			t.Errorf("the broker's log has no INFO line, so its logging is not set up: %q", log)
		}
	})
}

func TestThreeBrokers(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, Brokers: 3})
		cluster.CreateTopic(t, "a", 3, nil)
		resp, err := cluster.AdminClient(t).Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range resp.Topics[0].Partitions {
			if len(p.Replicas) != 3 {
				t.Errorf("partition %d has %d replicas, want 3", p.ID, len(p.Replicas))
			}
		}
		if err := cluster.Brokers[0].Kill(); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			produce(t, cluster.AdminClient(t), "a", fmt.Sprint(i))
		}
	})
}

// TestAdvertiseAndDataDir: clients of the CLIENT listener are told of a proxy, the
// others are not, and the partitions lie where they should.
func TestAdvertiseAndDataDir(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		const proxy = "127.0.0.1:9"
		data, listens := t.TempDir(), ""
		cluster := kafkatest.Start(t, kafkatest.Options{
			Version:   version,
			Advertise: func(_ int, address string) string { listens = address; return proxy },
			DataDir:   func(int) string { return data },
		})
		cluster.CreateTopic(t, "a", 1, nil)
		kafkatest.Eventually(t, 10*time.Second, "the partition lies in the folder", func() error {
			_, err := os.Stat(filepath.Join(data, "a-0"))
			return err
		})
		if got := cluster.Bootstrap(); !slices.Equal(got, []string{proxy}) {
			t.Errorf("clients are to begin at %v, want %s", got, proxy)
		}
		for address, want := range map[string]string{listens: proxy, cluster.Brokers[0].AdminAddress: cluster.Brokers[0].AdminAddress} {
			told := string(kafkatest.Kcat(t, address, "-L"))
			if !strings.Contains(told, "broker 1 at "+want) {
				t.Errorf("at %s clients are told %q, want broker 1 at %s", address, told, want)
			}
		}
	})
}
