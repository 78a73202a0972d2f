package embedded_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/sr"

	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
)

func createTopic(t *testing.T, cluster *embedded.Cluster, topic string) {
	t.Helper()
	client := newClient(t, cluster)
	resp, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Errors[topic]; err != nil {
		t.Fatal(err)
	}
}

func newClient(t *testing.T, cluster *embedded.Cluster) *kafka.Client {
	t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), DialContext: cluster.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(client) })
	return client
}

func partitions(t *testing.T, cluster *embedded.Cluster, topic string) int {
	t.Helper()
	resp, err := newClient(t, cluster).Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Topics[0].Partitions)
}

func registerSchema(t *testing.T, cluster *embedded.Cluster) int {
	t.Helper()
	transport := &http.Transport{DialContext: cluster.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := sr.NewClient(sr.URLs(cluster.RegistryURL()), sr.HTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := client.CreateSchema(t.Context(), "a-value", sr.Schema{Schema: `"string"`})
	if err != nil {
		t.Fatal(err)
	}
	return schema.ID
}

func TestOverTCP(t *testing.T) {
	cluster, err := embedded.Start(embedded.Options{Brokers: 3})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(cluster.Brokers()); got != 3 {
		t.Errorf("%d brokers, want 3", got)
	}
	createTopic(t, cluster, "a")
	if got := partitions(t, cluster, "a"); got != 2 {
		t.Errorf("topic has %d partitions, want 2", got)
	}
	if id := registerSchema(t, cluster); id != 1 {
		t.Errorf("schema id %d, want 1", id)
	}
	if err := cluster.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.DialContext(context.Background(), "tcp", cluster.Brokers()[0]); err == nil {
		t.Error("a closed cluster still accepts connections")
	}
	if err := cluster.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// An hour passes in no time, and synctest fails the test if a goroutine of the
// cluster outlives Close.
func TestInMemoryWithFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, err := embedded.Start(embedded.Options{Brokers: 2, Network: new(kfake.VirtualNetwork)})
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		createTopic(t, cluster, "a")
		time.Sleep(time.Hour)
		if got := partitions(t, cluster, "a"); got != 2 {
			t.Errorf("topic has %d partitions, want 2", got)
		}
		if id := registerSchema(t, cluster); id != 1 {
			t.Errorf("schema id %d, want 1", id)
		}
	})
}

func TestDataDirSurvivesRestart(t *testing.T) {
	opts := embedded.Options{DataDir: t.TempDir()}
	first, err := embedded.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	createTopic(t, first, "kept")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := embedded.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got := partitions(t, second, "kept"); got != 2 {
		t.Errorf("topic has %d partitions after a restart, want 2", got)
	}
}
