// Package kafkatest runs a real Apache Kafka for tests, without containers:
// the jars come from Maven Central, the brokers are Java processes on loopback
// ports that die with the test.
//
// Tests that want it are asked for with -kafka.versions, so that plain go test
// needs nothing but Go:
//
//	go test ./producer/ -kafka.versions=4.4.0,3.9.2
//
// The machine then needs a Java 17 runtime, Maven (for the first download of
// each version) and, where a test reads with it, kcat. On Debian:
// openjdk-17-jre-headless, maven, kcat.
package kafkatest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/kafkaconn"
)

// The versions that cdrbus is tested with: the newest of each line that
// matters. 3.7 is the oldest that exactly_once takes.
const (
	NewestKafka4 = "4.4.0"
	Kafka39      = "3.9.2"
	OldestKafka  = "3.7.2"
)

var versionsFlag = flag.String("kafka.versions", "",
	"versions of Apache Kafka to test with, comma-separated, such as "+NewestKafka4+","+Kafka39+"; empty: such tests are skipped")

// Versions returns the versions asked for, and skips the test if there are none.
func Versions(t testing.TB) []string {
	t.Helper()
	versions := strings.FieldsFunc(*versionsFlag, func(r rune) bool { return r == ',' || r == ' ' })
	if len(versions) == 0 {
		t.Skipf("needs a real Kafka: ask with -kafka.versions=%s,%s", NewestKafka4, Kafka39)
	}
	return versions
}

// ForEachVersion runs test once for each version asked for.
func ForEachVersion(t *testing.T, test func(t *testing.T, version string)) {
	t.Helper()
	for _, version := range Versions(t) {
		t.Run("kafka-"+version, func(t *testing.T) { test(t, version) })
	}
}

// Options say which cluster to run.
type Options struct {
	// Version of Apache Kafka, 3.7 or later. Required.
	Version string

	// Brokers is the number of brokers, each also a controller; 0 means 1. With
	// three or more, internal topics have replication factor 3 and min ISR 2.
	Brokers int

	// ClientProtocol, if set, adds a listener named CLIENT for clients: SSL,
	// SASL_PLAINTEXT or SASL_SSL. Its settings go into Properties, such as
	// listener.name.client.ssl.keystore.key. The plain listener remains.
	ClientProtocol string

	// Advertise, if set, returns the address that clients of the CLIENT listener
	// are told instead of the one at which the broker listens: that of a proxy in
	// front of it. Without a ClientProtocol the listener is PLAINTEXT.
	Advertise func(broker int, address string) (advertised string)

	// DataDir, if set, returns where a broker keeps its partitions; "" is a folder
	// that goes with the cluster.
	DataDir func(broker int) string

	// ScramUsers are SCRAM-SHA-256 and SCRAM-SHA-512 users with their passwords,
	// which must not contain a comma.
	ScramUsers map[string]string

	// Properties are further lines of server.properties, and override ours.
	Properties map[string]string
}

// Cluster is a running Apache Kafka.
type Cluster struct {
	Version string
	Brokers []*Broker

	dir  string
	libs string // directory of the jars

	giveBackPorts func()
}

// Start runs a cluster until the test ends. When the test has failed it prints
// the end of each broker's log and keeps the directory.
func Start(t testing.TB, options Options) *Cluster {
	t.Helper()
	cluster, err := Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Kafka's files are kept in %s\n%s", cluster.dir, cluster.LogTail())
		}
		if err := cluster.Close(t.Failed()); err != nil {
			t.Errorf("close Kafka: %v", err)
		}
	})
	return cluster
}

const (
	startPatience = 60 * time.Second
	logTailBytes  = 8 << 10
)

// Run is Start without a test. The caller closes the cluster.
func Run(ctx context.Context, options Options) (*Cluster, error) {
	options.Brokers = max(1, options.Brokers)
	if options.Advertise != nil && options.ClientProtocol == "" {
		options.ClientProtocol = "PLAINTEXT"
	}
	installation, err := install(ctx, options.Version)
	if err != nil {
		return nil, fmt.Errorf("install Kafka %s: %w", options.Version, err)
	}
	dir, err := os.MkdirTemp("", "cdrbus-kafka-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for Kafka: %w", err)
	}
	cluster := &Cluster{Version: options.Version, dir: dir, libs: installation.libs}
	if err := cluster.start(ctx, installation, options); err != nil {
		err = fmt.Errorf("start Kafka %s: %w\n%s", options.Version, err, cluster.LogTail())
		return nil, errors.Join(err, cluster.Close(false))
	}
	return cluster, nil
}

func (c *Cluster) start(ctx context.Context, installation installation, options Options) error {
	ports, giveBack, err := claimPorts(3 * options.Brokers)
	if err != nil {
		return err
	}
	c.giveBackPorts = giveBack
	for _, l := range layOut(c.dir, ports, options) {
		broker, err := newBroker(ctx, installation, l, options)
		if err != nil {
			return err
		}
		c.Brokers = append(c.Brokers, broker)
	}
	for _, b := range c.Brokers {
		if err := b.launch(); err != nil {
			return err
		}
	}
	return c.Await(ctx)
}

// Await waits until every broker answers and knows all others.
func (c *Cluster) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for _, b := range c.Brokers {
		if err := b.await(ctx, len(c.Brokers)); err != nil {
			return err
		}
	}
	return nil
}

// Bootstrap returns the addresses for clients: of the CLIENT listener if there
// is one, else of the plain one.
func (c *Cluster) Bootstrap() []string {
	var addresses []string
	for _, b := range c.Brokers {
		addresses = append(addresses, b.Bootstrap)
	}
	return addresses
}

// AdminClient returns a client over the plain listener, closed with the test.
func (c *Cluster) AdminClient(t testing.TB) *kafka.Client {
	t.Helper()
	var brokers []string
	for _, b := range c.Brokers {
		brokers = append(brokers, b.AdminAddress)
	}
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: brokers, ClientID: "kafkatest"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(client) })
	return client
}

// CreateTopic creates a topic and waits until all its partitions have leaders.
// Its replication factor is 3, or as many as there are brokers.
func (c *Cluster) CreateTopic(t testing.TB, name string, partitions int, settings map[string]string) {
	t.Helper()
	client := c.AdminClient(t)
	topic := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: min(3, len(c.Brokers))}
	for key, value := range settings {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	resp, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err == nil {
		err = resp.Errors[name]
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	Eventually(t, startPatience, "topic "+name+" has leaders", func() error { return leaders(t.Context(), client, name, partitions) })
}

func leaders(ctx context.Context, client *kafka.Client, topic string, partitions int) error {
	resp, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	if err := resp.Topics[0].Error; err != nil {
		return err
	}
	if got := len(resp.Topics[0].Partitions); got != partitions {
		return fmt.Errorf("%d partitions, want %d", got, partitions)
	}
	for _, p := range resp.Topics[0].Partitions {
		if p.Error != nil {
			return p.Error
		}
	}
	return nil
}

// pollInterval is how often a condition outside this process is looked at.
const pollInterval = 50 * time.Millisecond

// Eventually looks at a condition until it returns nil, and fails the test with
// its last error when the patience ends.
func Eventually(t testing.TB, patience time.Duration, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s: %v", patience, what, err)
		}
		time.Sleep(pollInterval)
	}
}

// LogTail returns the end of each broker's log.
func (c *Cluster) LogTail() string {
	var b strings.Builder
	for _, broker := range c.Brokers {
		log, err := os.ReadFile(broker.LogFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(&b, "broker %d: %v\n", broker.ID, err)
			continue
		}
		fmt.Fprintf(&b, "--- end of the log of broker %d\n%s\n", broker.ID, log[max(0, len(log)-logTailBytes):])
	}
	return b.String()
}

// Close kills all brokers and removes their files, unless they are to be kept.
func (c *Cluster) Close(keepFiles bool) error {
	var problems []error
	for _, b := range c.Brokers {
		problems = append(problems, b.Kill())
	}
	if c.giveBackPorts != nil {
		c.giveBackPorts()
	}
	if !keepFiles {
		problems = append(problems, os.RemoveAll(c.dir))
	}
	return errors.Join(problems...)
}
