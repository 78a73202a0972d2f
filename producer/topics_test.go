package producer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
	"cdrbus/producer"
)

const (
	lookback = 30 * 24 * time.Hour
	shards   = 4
)

func specs() []producer.TopicSpec {
	return []producer.TopicSpec{
		producer.EventsTopic("cdr.events", 3, 0),
		producer.PositionsTopic("cdr.offsets", shards),
		producer.ReceiptsTopic("cdr.windows", shards, lookback, 365*24*time.Hour),
		producer.IDsTopic("cdr.ids", shards, lookback, 0),
		producer.DeadLettersTopic("cdr.deadletter", shards, 365*24*time.Hour),
	}
}

var ensureOptions = producer.EnsureOptions{Create: true, ReplicationFactor: 1, ExactlyOnce: true, Bootstrap: "kafka:9092"}

func clientOf(t *testing.T, opts kafkaconn.Options) *kafka.Client {
	t.Helper()
	for _, s := range specs() {
		opts.Topics = append(opts.Topics, s.Name)
	}
	client, err := kafkaconn.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(client) })
	return client
}

func startEmbedded(t *testing.T, brokers int, opts ...kfake.Opt) *embedded.Cluster {
	t.Helper()
	cluster, err := embedded.Start(embedded.Options{Brokers: brokers, Kafka: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	return cluster
}

func settingsOf(t *testing.T, client *kafka.Client, topic string) map[string]string {
	t.Helper()
	resp, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}}})
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, entry := range resp.Resources[0].ConfigEntries {
		settings[entry.ConfigName] = entry.ConfigValue
	}
	return settings
}

func problemsOf(t *testing.T, err error) []producer.TopicProblem {
	t.Helper()
	var topicsErr *producer.TopicsError
	if !errors.As(err, &topicsErr) {
		t.Fatalf("Ensure: %v, want problems", err)
	}
	return topicsErr.Problems
}

// createAll creates the topics as Ensure does, with some settings changed.
func createAll(t *testing.T, client *kafka.Client, wrong map[string]map[string]string) {
	t.Helper()
	if _, err := producer.Ensure(t.Context(), client, specs(), ensureOptions); err != nil {
		t.Fatal(err)
	}
	for topic, settings := range wrong {
		for key, value := range settings {
			alter(t, client, topic, key, value)
		}
	}
}

// alter waits until the setting is in force: the controller answers before the
// brokers have heard of it.
func alter(t *testing.T, client *kafka.Client, topic, key, value string) {
	t.Helper()
	resp, err := client.IncrementalAlterConfigs(t.Context(), &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: key, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
	}}})
	if err == nil {
		err = resp.Resources[0].Error
	}
	if err != nil {
		t.Fatalf("set %s=%s on %s: %v", key, value, topic, err)
	}
	kafkatest.Eventually(t, 10*time.Second, "a setting is in force", func() error {
		if now := settingsOf(t, client, topic)[key]; now != value {
			return fmt.Errorf("%s of %s is %q, want %q", key, topic, now, value)
		}
		return nil
	})
}

// mend does what the commands of the problems say.
func mend(t *testing.T, client *kafka.Client, problems []producer.TopicProblem) {
	t.Helper()
	for _, p := range problems {
		prefix := fmt.Sprintf("kafka-configs.sh --bootstrap-server kafka:9092 --alter --entity-type topics --entity-name %s --add-config ", p.Topic)
		setting, found := strings.CutPrefix(p.Remedy, prefix)
		key, value, isPair := strings.Cut(setting, "=")
		if !found || !isPair {
			t.Fatalf("remedy %q is not a command of the form %q", p.Remedy, prefix+"KEY=VALUE")
		}
		alter(t, client, p.Topic, key, value)
	}
}

func TestEnsureCreates(t *testing.T) {
	checkCreates(t, clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()}))
}

func checkCreates(t *testing.T, client *kafka.Client) {
	t.Helper()
	report, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs() {
		want := producer.TopicReport{Created: true, Partitions: s.Partitions, ReplicationFactor: 1, MinInsyncReplicas: 1, MaxMessageBytes: 1048588}
		if got := report.Topics[s.Name]; got != want {
			t.Errorf("topic %s: %+v, want %+v", s.Name, got, want)
		}
	}
	if settings := settingsOf(t, client, "cdr.offsets"); settings["cleanup.policy"] != "compact" || settings["delete.retention.ms"] != "604800000" ||
		settings["segment.ms"] != "3600000" || settings["segment.bytes"] != "67108864" || settings["min.cleanable.dirty.ratio"] != "0.1" || settings["max.compaction.lag.ms"] != "3600000" {
		t.Errorf("positions are kept with %v", settings)
	}
	if settings := settingsOf(t, client, "cdr.ids"); settings["cleanup.policy"] != "delete" || settings["retention.ms"] != "3196800000" || settings["retention.bytes"] != "-1" {
		t.Errorf("IDs are kept with %v, want 37 days", settings)
	}
	again, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	if err != nil {
		t.Fatal(err)
	}
	for name, topic := range again.Topics {
		if topic.Created {
			t.Errorf("topic %s created twice", name)
		}
	}
}

func TestEnsureMayNotCreate(t *testing.T) {
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()})
	opts := ensureOptions
	opts.Create = false
	_, err := producer.Ensure(t.Context(), client, specs(), opts)
	problems := problemsOf(t, err)
	if len(problems) != len(specs()) {
		t.Errorf("%d problems, want one for each of the %d topics: %v", len(problems), len(specs()), err)
	}
	const want = "topic cdr.offsets: does not exist, or the ACLs hide it, and create_topics is off; " +
		"kafka-topics.sh --bootstrap-server kafka:9092 --create --topic cdr.offsets --partitions 4 --replication-factor 1 " +
		"--config max.message.bytes=1048588 --config message.timestamp.type=CreateTime --config message.timestamp.before.max.ms=86400000 " +
		"--config message.timestamp.after.max.ms=86400000 --config unclean.leader.election.enable=false --config min.insync.replicas=1 " +
		"--config cleanup.policy=compact --config delete.retention.ms=604800000 --config segment.ms=3600000 --config segment.bytes=67108864 " +
		"--config min.cleanable.dirty.ratio=0.1 --config max.compaction.lag.ms=3600000"
	if got := problems[1].String(); got != want {
		t.Errorf("problem\n%s\nwant\n%s", got, want)
	}
	if got := settingsOf(t, client, "cdr.offsets"); len(got) != 0 {
		t.Error("the topic was created all the same")
	}
}

// wrongSettings are refused, each with the command that mends it.
var wrongSettings = map[string]map[string]string{
	"cdr.events":     {"cleanup.policy": "compact", "message.timestamp.before.max.ms": "1000"},
	"cdr.offsets":    {"cleanup.policy": "compact,delete", "delete.retention.ms": "86400000", "max.message.bytes": "1000"},
	"cdr.windows":    {"cleanup.policy": "compact,delete", "message.timestamp.after.max.ms": "0"},
	"cdr.ids":        {"retention.ms": "2592000000", "retention.bytes": "1000000", "max.message.bytes": "600000"},
	"cdr.deadletter": {"cleanup.policy": "compact"},
}

func TestEnsureRefusesAllWrongSettingsAtOnce(t *testing.T) {
	checkWrongSettings(t, clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()}))
}

func checkWrongSettings(t *testing.T, client *kafka.Client) {
	t.Helper()
	createAll(t, client, wrongSettings)
	_, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	problems := problemsOf(t, err)
	for topic, settings := range wrongSettings {
		for key, value := range settings {
			if !slices.ContainsFunc(problems, func(p producer.TopicProblem) bool {
				return p.Topic == topic && strings.HasPrefix(p.Wrong, fmt.Sprintf("%s is %q, but ", key, value))
			}) {
				t.Errorf("%s=%s on %s is not refused", key, value, topic)
			}
		}
	}
	want := 0
	for _, settings := range wrongSettings {
		want += len(settings)
	}
	if len(problems) != want {
		t.Errorf("%d problems, want %d:\n%v", len(problems), want, err)
	}
	mend(t, client, problems)
	if _, err := producer.Ensure(t.Context(), client, specs(), ensureOptions); err != nil {
		t.Errorf("after the commands of the problems: %v", err)
	}
}

// meddler changes answers on their way.
type meddler struct {
	kafka.RoundTripper
	meddle func(kafka.Response)
}

func (m meddler) RoundTrip(ctx context.Context, address net.Addr, request kafka.Request) (kafka.Response, error) {
	response, err := m.RoundTripper.RoundTrip(ctx, address, request)
	if err == nil {
		m.meddle(response)
	}
	return response, err
}

func meddledClient(t *testing.T, meddle func(kafka.Response)) *kafka.Client {
	t.Helper()
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()})
	return &kafka.Client{Addr: client.Addr, Timeout: client.Timeout, Transport: meddler{client.Transport, meddle}}
}

// TestEnsureWaitsForCreatedTopics: creation is answered before every broker has
// heard of it.
func TestEnsureWaitsForCreatedTopics(t *testing.T) {
	created, unheard := false, 6
	client := meddledClient(t, func(response kafka.Response) {
		switch r := response.(type) {
		case *createtopics.Response:
			created = true
		case *metadata.Response:
			if created && unheard > 3 {
				unheard--
				r.Topics[0] = metadata.ResponseTopic{Name: r.Topics[0].Name, ErrorCode: int16(kafka.UnknownTopicOrPartition)}
			}
		case *describeconfigs.Response:
			if unheard > 0 {
				unheard--
				r.Resources[0] = describeconfigs.ResponseResource{ResourceType: 2, ResourceName: r.Resources[0].ResourceName, ErrorCode: int16(kafka.UnknownTopicOrPartition)}
			}
		}
	})
	report, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs() {
		if got := report.Topics[s.Name]; got.Partitions != s.Partitions || got.ReplicationFactor != 1 {
			t.Errorf("topic %s is taken for %+v while it was not known yet", s.Name, got)
		}
	}
	if unheard != 0 {
		t.Errorf("%d answers too few were waited for", unheard)
	}
}

// TestEnsureAsksAnotherBroker: one broker that stands still, cuts connections or
// refuses them is no reason not to start, for others answer.
func TestEnsureAsksAnotherBroker(t *testing.T) {
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()})
	troubled := troubles{client.Transport, map[reflect.Type]int{}}
	client.Transport = troubled
	if _, err := producer.Ensure(t.Context(), client, specs(), ensureOptions); err != nil {
		t.Error(err)
	}
	for _, request := range []kafka.Request{&metadata.Request{}, &createtopics.Request{}, &describeconfigs.Request{}} {
		if kind := reflect.TypeOf(request); troubled.asked[kind] <= len(passing) {
			t.Errorf("%v was made %d times, want it made again after each of %v", kind, troubled.asked[kind], passing)
		}
	}
}

// passing is what becomes of the first requests of each kind. At the very first one
// a refusal is not passing.
var passing = []error{os.ErrDeadlineExceeded, io.ErrUnexpectedEOF, &net.OpError{Op: "read", Err: syscall.ECONNRESET}, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}

type troubles struct {
	kafka.RoundTripper
	asked map[reflect.Type]int
}

func (s troubles) RoundTrip(ctx context.Context, address net.Addr, request kafka.Request) (kafka.Response, error) {
	kind := reflect.TypeOf(request)
	failing := passing
	if _, first := request.(*metadata.Request); first {
		failing = passing[:len(passing)-1]
	}
	if s.asked[kind]++; s.asked[kind] <= len(failing) {
		return nil, failing[s.asked[kind]-1]
	}
	return s.RoundTripper.RoundTrip(ctx, address, request)
}

// TestEnsureGivesUp: what does not pass is told, soon where nobody ever answered.
func TestEnsureGivesUp(t *testing.T) {
	for _, c := range []struct {
		name     string
		brokers  string
		answered bool
		err      error
		after    time.Duration
		says     string
	}{
		{"refused from the start", "kafka:9092", false, syscall.ECONNREFUSED, 0, "nothing listens at the broker's address"},
		{"cut from the start", "kafka:9092", false, io.EOF, 5 * time.Second, "the broker closed the connection"},
		{"silent from the start", "kafka:9092", false, os.ErrDeadlineExceeded, 20 * time.Second, "the broker did not answer in time"},
		{"silent, of several", "a:9092 b:9092 c:9092", false, os.ErrDeadlineExceeded, time.Minute, "the broker did not answer in time"},
		{"refused later", "kafka:9092", true, syscall.ECONNREFUSED, 20 * time.Second, "nothing listens at the broker's address"},
		{"cut later", "kafka:9092", true, io.EOF, 20 * time.Second, "the broker closed the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := &kafka.Client{Addr: kafka.TCP(strings.Fields(c.brokers)...), Timeout: time.Minute, Transport: gone{c.answered, c.err}}
				began := time.Now()
				_, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
				if took := time.Since(began); err == nil || !strings.Contains(err.Error(), c.says) || took != c.after {
					t.Errorf("after %s: %v, want %q after %s", took, err, c.says, c.after)
				}
			})
		})
	}
}

// gone is a cluster that perhaps once said that it has no topics, and no more.
type gone struct {
	answered bool
	err      error
}

func (g gone) RoundTrip(_ context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	if m, ok := request.(*metadata.Request); ok && g.answered {
		response := &metadata.Response{}
		for _, name := range m.TopicNames {
			response.Topics = append(response.Topics, metadata.ResponseTopic{Name: name, ErrorCode: int16(kafka.UnknownTopicOrPartition)})
		}
		return response, nil
	}
	return nil, g.err
}

// TestEnsureDemandsToSeeSettings: what promises rest on is not taken on trust.
func TestEnsureDemandsToSeeSettings(t *testing.T) {
	client := meddledClient(t, func(response kafka.Response) {
		if r, ok := response.(*describeconfigs.Response); ok {
			for i := range r.Resources {
				r.Resources[i].ConfigEntries = slices.DeleteFunc(r.Resources[i].ConfigEntries, func(e describeconfigs.ResponseConfigEntry) bool {
					return e.ConfigName != "min.insync.replicas"
				})
			}
		}
	})
	_, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	for topic, keys := range map[string][]string{
		"cdr.offsets": {"cleanup.policy", "delete.retention.ms", "max.message.bytes"},
		"cdr.ids":     {"cleanup.policy", "retention.ms", "retention.bytes", "max.message.bytes"},
		"cdr.events":  {"cleanup.policy", "max.message.bytes"},
	} {
		for _, key := range keys {
			if !slices.ContainsFunc(problemsOf(t, err), func(p producer.TopicProblem) bool {
				return p.Topic == topic && strings.HasPrefix(p.Wrong, key+" is not shown")
			}) {
				t.Errorf("%s passes without showing %s", topic, key)
			}
		}
	}
}

// TestEnsureRefusesWhatOnlyOldBrokersHave: settings that newer ones do not know.
func TestEnsureRefusesWhatOnlyOldBrokersHave(t *testing.T) {
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()})
	createAll(t, client, map[string]map[string]string{"cdr.events": {"message.timestamp.difference.max.ms": "1"}, "cdr.ids": {"message.timestamp.type": "Other"}})
	_, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	if problems := problemsOf(t, err); len(problems) != 2 {
		t.Errorf("%v, want two problems", err)
	}
}

// TestEnsureTakesGenerousSettings: unlimited and longer are as good as exact.
func TestEnsureTakesGenerousSettings(t *testing.T) {
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()})
	createAll(t, client, map[string]map[string]string{
		"cdr.ids":     {"retention.ms": "-1", "max.message.bytes": "10000000"},
		"cdr.offsets": {"delete.retention.ms": "6048000000"},
		"cdr.events":  {"retention.ms": "60000", "message.timestamp.type": "LogAppendTime"},
	})
	report, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	if err != nil {
		t.Error(err)
	}
	if got := report.Topics["cdr.ids"].MaxMessageBytes; got != 10000000 {
		t.Errorf("max.message.bytes %d, want the topic's own 10000000", got)
	}
}

func TestEnsureWarns(t *testing.T) {
	single, err := producer.Ensure(t.Context(), clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()}), specs(), ensureOptions)
	if err != nil || len(single.Warnings) != len(specs()) || !strings.Contains(single.Warnings[0], "has one replica") {
		t.Errorf("one replica: warnings %q, %v; want one for each topic", single.Warnings, err)
	}
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 3).Brokers()})
	opts := ensureOptions
	opts.ReplicationFactor = 3
	if report, err := producer.Ensure(t.Context(), client, specs(), opts); err != nil || len(report.Warnings) > 0 {
		t.Fatalf("three replicas, two in sync: %v, %v; want no warning", report.Warnings, err)
	}
	for setting, want := range map[[3]string]string{
		{"cdr.offsets", "min.insync.replicas", "1"}:              "losing one disk can lose committed records",
		{"cdr.ids", "min.insync.replicas", "3"}:                  "one broker's restart stops cdrbus",
		{"cdr.events", "unclean.leader.election.enable", "true"}: "may become leader and lose committed records",
		{"cdr.windows", "retention.ms", "1000"}:                  "would be gone when it is asked for",
		{"cdr.deadletter", "retention.ms", "1000"}:               "would be gone when it is asked for",
	} {
		alter(t, client, setting[0], setting[1], setting[2])
		report, err := producer.Ensure(t.Context(), client, specs(), opts)
		if err != nil || !slices.ContainsFunc(report.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "topic "+setting[0]+": ") && strings.Contains(w, want)
		}) {
			t.Errorf("%v: warnings %q, %v; want %q", setting, report.Warnings, err, want)
		}
	}
	alter(t, client, "cdr.offsets", "min.insync.replicas", "4")
	if _, err := producer.Ensure(t.Context(), client, specs(), opts); err == nil || !strings.Contains(err.Error(), "nothing can be written") {
		t.Errorf("min.insync.replicas above the replicas: %v, want a refusal", err)
	}
}

func TestEnsureChecksPartitions(t *testing.T) {
	client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 1).Brokers()})
	createAll(t, client, nil)
	for shards, want := range map[int]string{
		5: "kafka-topics.sh --bootstrap-server kafka:9092 --alter --topic cdr.offsets --partitions 5",
		3: "set kafka.shards to 4",
	} {
		_, err := producer.Ensure(t.Context(), client, []producer.TopicSpec{producer.PositionsTopic("cdr.offsets", shards)}, ensureOptions)
		if problems := problemsOf(t, err); len(problems) != 1 || !strings.Contains(problems[0].Remedy, want) || !strings.Contains(problems[0].Wrong, fmt.Sprintf("has 4 partitions, but kafka.shards is %d", shards)) {
			t.Errorf("%d shards: %v, want the remedy %q", shards, err, want)
		}
	}
	report, err := producer.Ensure(t.Context(), client, []producer.TopicSpec{producer.EventsTopic("cdr.events", 12, 0)}, ensureOptions)
	if err != nil || report.Topics["cdr.events"].Partitions != 3 {
		t.Errorf("events with other partitions: %+v, %v; want them taken as they are", report, err)
	}
}

// TestEnsureRacesItself: many processes start at once.
func TestEnsureRacesItself(t *testing.T) {
	cluster := startEmbedded(t, 3)
	var mu sync.Mutex
	created := map[string]int{}
	var group sync.WaitGroup
	for range 8 {
		client := clientOf(t, kafkaconn.Options{Brokers: cluster.Brokers()})
		group.Go(func() {
			report, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for name, topic := range report.Topics {
				if topic.Created {
					created[name]++
				}
			}
		})
	}
	group.Wait()
	for _, s := range specs() {
		if created[s.Name] != 1 {
			t.Errorf("topic %s created %d times, want once", s.Name, created[s.Name])
		}
	}
}

func TestBrokerFloor(t *testing.T) {
	for _, c := range []struct {
		versions    *kversion.Versions
		exactlyOnce bool
		refused     bool
	}{
		{kversion.V3_6_0(), true, true},
		{kversion.V3_6_0(), false, false},
		{kversion.V3_7_0(), true, false},
		{kversion.V4_0_0(), true, false},
	} {
		client := clientOf(t, kafkaconn.Options{Brokers: startEmbedded(t, 2, kfake.MaxVersions(c.versions)).Brokers()})
		opts := ensureOptions
		opts.ExactlyOnce = c.exactlyOnce
		_, err := producer.Ensure(t.Context(), client, specs(), opts)
		if !c.refused {
			if err != nil {
				t.Errorf("%s: %v", c.versions.VersionGuess(), err)
			}
			continue
		}
		if problems := problemsOf(t, err); len(problems) != 2 || !strings.Contains(err.Error(), "is older than Apache Kafka 3.7") {
			t.Errorf("%s: %v, want a refusal for each of the two brokers", c.versions.VersionGuess(), err)
		}
	}
}

func TestEnsureExplainsAnUnreachableCluster(t *testing.T) {
	_, err := producer.Ensure(t.Context(), clientOf(t, kafkaconn.Options{Brokers: []string{"127.0.0.1:1"}}), specs(), ensureOptions)
	var problem *kafkaconn.Problem
	if !errors.As(err, &problem) || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("error %v, want one that names the address", err)
	}
}

func TestEnsureExplainsDeniedRights(t *testing.T) {
	all := []kmsg.ACLOperation{kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs, kmsg.ACLOperationCreate}
	for denied, says := range map[kmsg.ACLOperation]string{
		0:                                "",
		kmsg.ACLOperationDescribeConfigs: "cannot read its settings: the ACLs deny this user the topic",
		kmsg.ACLOperationCreate:          "the ACLs deny this user to create it (Create on the topic or the cluster); let an administrator run: kafka-topics.sh",
	} {
		var acls []kfake.ACL
		for _, operation := range all {
			if operation != denied {
				acls = append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "cdr.", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: operation, Allow: true})
			}
		}
		cluster := startEmbedded(t, 1, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("SCRAM-SHA-256", "alice", "secret", acls...))
		client := clientOf(t, kafkaconn.Options{Brokers: cluster.Brokers(), SASL: &kafkaconn.SASL{Mechanism: kafkaconn.ScramSHA256, Username: "alice", Password: "secret"}})
		checkDenied(t, client, says)
	}
}

func checkDenied(t *testing.T, client *kafka.Client, says string) {
	t.Helper()
	_, err := producer.Ensure(t.Context(), client, specs(), ensureOptions)
	if says == "" {
		if err != nil {
			t.Errorf("with all rights: %v", err)
		}
		return
	}
	problems := problemsOf(t, err)
	if len(problems) != len(specs()) {
		t.Errorf("%d problems, want one for each topic: %v", len(problems), err)
	}
	for _, p := range problems {
		if !strings.Contains(p.String(), says) {
			t.Errorf("problem %q does not say %q", p, says)
		}
	}
}

func TestEnsureOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		client := clientOf(t, kafkaconn.Options{Brokers: cluster.Bootstrap()})
		checkCreates(t, client)
		checkWrongSettings(t, client)
	})
}

// TestEnsureOnThreeBrokersOnKafka: what one broker creates the next may not have
// heard of, and the settings for three replicas leave nothing to warn of.
func TestEnsureOnThreeBrokersOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, Brokers: 3})
		opts := ensureOptions
		opts.ReplicationFactor = 3
		report, err := producer.Ensure(t.Context(), clientOf(t, kafkaconn.Options{Brokers: cluster.Bootstrap()}), specs(), opts)
		if err != nil || len(report.Warnings) > 0 {
			t.Errorf("warnings %q, %v; want none", report.Warnings, err)
		}
		if got := report.Topics["cdr.offsets"]; got.ReplicationFactor != 3 || got.MinInsyncReplicas != 2 {
			t.Errorf("positions are kept in %+v, want three replicas, two in sync", got)
		}
	})
}

// TestVerificationOnKafka: a broker that does not verify transactions is refused.
func TestVerificationOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, Properties: map[string]string{"transaction.partition.verification.enable": "false"}})
		_, err := producer.Ensure(t.Context(), clientOf(t, kafkaconn.Options{Brokers: cluster.Bootstrap()}), specs(), ensureOptions)
		problems := problemsOf(t, err)
		want := "kafka-configs.sh --bootstrap-server kafka:9092 --alter --entity-type brokers --entity-default --add-config transaction.partition.verification.enable=true"
		if len(problems) != 1 || problems[0].Remedy != want {
			t.Errorf("%v, want the remedy %q", err, want)
		}
	})
}

// TestBrokerFloorOnKafka wants a version below 3.7 to be asked for as well.
func TestBrokerFloorOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		_, err := producer.Ensure(t.Context(), clientOf(t, kafkaconn.Options{Brokers: cluster.Bootstrap()}), specs(), ensureOptions)
		tooOld := strings.HasPrefix(version, "3.") && slices.Contains([]string{"3.3", "3.4", "3.5", "3.6"}, version[:3])
		if refused := err != nil && strings.Contains(err.Error(), "is older than Apache Kafka 3.7"); refused != tooOld {
			t.Errorf("refused: %t, want %t (%v)", refused, tooOld, err)
		}
	})
}

// TestDeniedRightsOnKafka has Kafka's own authorizer deny one right after another.
func TestDeniedRightsOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		properties := kafkatest.SASLProperties(map[string]string{"nobody": "secret", "creator": "secret", "reader": "secret", "full": "secret"})
		maps.Copy(properties, kafkatest.ACLProperties())
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, ClientProtocol: "SASL_PLAINTEXT", Properties: properties})
		cluster.Allow(t, "User:reader", kafka.ResourceTypeTopic, "cdr.*", kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeDescribeConfigs)
		cluster.Allow(t, "User:creator", kafka.ResourceTypeTopic, "cdr.*", kafka.ACLOperationTypeCreate, kafka.ACLOperationTypeDescribe)
		cluster.Allow(t, "User:full", kafka.ResourceTypeTopic, "cdr.*", kafka.ACLOperationTypeCreate, kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeDescribeConfigs)
		for _, c := range []struct{ user, says string }{
			{"nobody", "cannot look it up: the ACLs deny this user the topic"},
			{"reader", "the ACLs deny this user to create it"},
			{"creator", "cannot read its settings: the ACLs deny this user the topic"},
			{"full", ""},
			{"reader", ""},
		} {
			t.Run(c.user, func(t *testing.T) {
				client := clientOf(t, kafkaconn.Options{Brokers: cluster.Bootstrap(), SASL: &kafkaconn.SASL{
					Mechanism: kafkaconn.Plain, Username: c.user, Password: "secret", AllowPlainWithoutTLS: []string{"127.0.0.1"}}})
				checkDenied(t, client, c.says)
			})
		}
	})
}
