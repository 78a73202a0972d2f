package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/partition"
	"cdrbus/offsets"
)

// Exit codes of the program.
const (
	exitFailure = 1
	exitUsage   = 2
)

// TestBadInputRegistryDown comes first in the package, and lets the program wait
// out its patience with the registry (30 s) while the tests that follow run.
func TestBadInputRegistryDown(t *testing.T) {
	r := newRig(t, startEmbedded(t).Brokers(), smallFeed)
	r.registry.Close()
	began := time.Now()
	p := r.startRun()
	took := make(chan time.Duration, 1)
	go func() {
		<-p.ended
		took <- time.Since(began)
	}()
	t.Parallel() // returns when the other tests have run

	r.demandRefusal(p, exitFailure, "webex.cdr.events-value", "refused", r.registry.URL(), "registry")
	if waited := <-took; waited < 10*time.Second {
		t.Errorf("gave up after %s, want it to try again for a while", waited)
	}
	r.demandNothingPublished()
}

// smallFeed is work for a second.
var smallFeed = rigOptions{span: time.Hour, rate: 0.2, profiles: []string{"unlimited"}, window: 30 * time.Minute}

func startEmbedded(t *testing.T) *embedded.Cluster {
	t.Helper()
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	return cluster
}

// TestBadCommandLine and configuration: exit code 2 and nothing else done. All
// messages about the configuration are golden files of package config.
func TestBadCommandLine(t *testing.T) {
	t.Setenv("CDRBUS_SOURCES_SIMULATED_TOKEN", "token-org-1")
	const bad, good = "../config/testdata/bad/", "../../deploy/compose/cdrbus.yaml"
	for _, c := range []struct {
		arguments string
		says      []string
	}{
		{"bogus", []string{`unknown command "bogus"`, "cdrbus --help"}},
		{"run", []string{"no configuration", "-c FILE"}},
		{"run --bogus", []string{"unknown flag: --bogus", "cdrbus run --help"}},
		{"run -c " + good + " --until nonsense", []string{"--until", `"nonsense"`, "2026-"}},
		{"run -c does-not-exist.yaml", []string{"does-not-exist.yaml: does not exist; give the path of the configuration with -c"}},
		{"config check -c " + bad + "unknown-key.yaml", []string{"unknown-key.yaml:1:1: delivry: unknown key; did you mean delivery?"}},
		{"config check -c " + bad + "names.yaml", []string{"sources[1].name: acme is the name of another source already", "is the name of kafka.topics.events already"}},
		{"config check -c " + bad + "missing.yaml", []string{"sources[0].start: is missing; say where a new source begins"}},
		{"run -c " + bad + "locations.yaml", []string{"configuration refused", "locations"}},
	} {
		t.Run(c.arguments, func(t *testing.T) {
			code, output := runProgram(t, strings.Fields(c.arguments)...)
			demandMessage(t, code, output, exitUsage, c.says...)
		})
	}
}

// demandMessage demands an exit code and that a message says these things.
func demandMessage(t *testing.T, code int, message string, want int, says ...string) {
	t.Helper()
	t.Logf("exit code %d, %s", code, strings.TrimSpace(message))
	if code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	for _, text := range says {
		if !strings.Contains(message, text) {
			t.Errorf("the message does not say %q", text)
		}
	}
}

// refusalPatience is how long a run that is refused may take. The program itself
// gives a broker that does not answer 30 s.
const refusalPatience = 40 * time.Second

// finished waits for the end of a process and returns its exit code and the
// message with which it ended; "" if with none.
func (r *rig) finished(p *process) (code int, message string) {
	r.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(refusalPatience):
		p.kill()
		r.t.Fatalf("cdrbus did not end within %s", refusalPatience)
	}
	const mark = "cdrbus: "
	log := "\n" + string(r.log.tail(1<<20))
	if at := strings.LastIndex(log, "\n"+mark); at >= 0 {
		message = log[at+1:]
	}
	return p.command.ProcessState.ExitCode(), message
}

// demandRefusal demands that a run ends with a code and a message that says these things.
func (r *rig) demandRefusal(p *process, want int, says ...string) {
	r.t.Helper()
	code, message := r.finished(p)
	message = strings.ReplaceAll(message, "-c "+r.config, "-c FILE") // of a command that is to be copied
	demandMessage(r.t, code, message, want, says...)
}

// demandNothingPublished looks into every topic that exists.
func (r *rig) demandNothingPublished() {
	r.t.Helper()
	client := r.client()
	meta, err := client.Metadata(r.t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, topic := range meta.Topics {
		if !strings.HasPrefix(topic.Name, "webex.cdr.") {
			continue
		}
		for _, p := range topic.Partitions {
			bounds, err := committed.NewReader(client).Bounds(r.t.Context(), topic.Name, p.ID)
			if err != nil {
				r.t.Fatal(err)
			}
			if bounds.HighWatermark != 0 {
				r.t.Errorf("%s-%d holds something although the start was refused", topic.Name, p.ID)
			}
		}
	}
}

func (r *rig) client() *kafka.Client {
	r.t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: r.brokers, ClientID: "cdrbus-e2e"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { kafkaconn.Close(client) })
	return client
}

// createTopic makes a topic as somebody else might have made it.
func (r *rig) createTopic(name string, partitions int, settings map[string]string) {
	r.t.Helper()
	topic := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1}
	for key, value := range settings {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
	}
	response, err := r.client().CreateTopics(r.t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err == nil {
		err = response.Errors[name]
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestBadTopics: what is wrong with the cluster is one message with the command
// that mends it, before anything is published.
func TestBadTopics(t *testing.T) {
	for _, c := range []struct {
		name     string
		topic    string
		parts    int
		settings map[string]string
		kafka    string // further lines of the kafka section
		says     []string
	}{
		{name: "missing", kafka: "  create_topics: false",
			says: []string{"topic webex.cdr.events: ", "topic webex.cdr.deadletter: ", "topic webex.cdr.windows: ", "topic webex.cdr.ids: ", "topic webex.cdr.offsets: ",
				"--create --topic webex.cdr.offsets --partitions 4", "--config cleanup.policy=compact"}},
		{name: "not compacted", topic: "webex.cdr.offsets", parts: 4, settings: map[string]string{"cleanup.policy": "delete"},
			says: []string{`topic webex.cdr.offsets: cleanup.policy is "delete", but positions would be deleted with time`, "--entity-name webex.cdr.offsets --add-config cleanup.policy=compact"}},
		{name: "events compacted", topic: "webex.cdr.events", parts: 6, settings: map[string]string{"cleanup.policy": "compact"},
			says: []string{`topic webex.cdr.events: cleanup.policy is "compact", but compaction would drop`, "--entity-name webex.cdr.events --add-config cleanup.policy=delete"}},
		{name: "retention of the ID journal", topic: "webex.cdr.ids", parts: 4, settings: map[string]string{"retention.ms": "86400000"},
			says: []string{`topic webex.cdr.ids: retention.ms is "86400000", but it must be at least 3196800000`, "--entity-name webex.cdr.ids --add-config retention.ms=3196800000"}},
		{name: "message size", topic: "webex.cdr.events", parts: 6, settings: map[string]string{"max.message.bytes": "1000"},
			says: []string{`topic webex.cdr.events: max.message.bytes is "1000", but the largest batch of this topic needs 131072 bytes`, "--entity-name webex.cdr.events --add-config max.message.bytes=1048588"}},
		{name: "too few partitions", topic: "webex.cdr.offsets", parts: 3, settings: map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "604800000"},
			says: []string{"topic webex.cdr.offsets: has 3 partitions, but kafka.shards is 4", "--alter --topic webex.cdr.offsets --partitions 4"}},
		{name: "too many partitions", topic: "webex.cdr.ids", parts: 5, settings: map[string]string{"retention.ms": "-1"},
			says: []string{"topic webex.cdr.ids: has 5 partitions, but kafka.shards is 4", "set kafka.shards to 5", "or name another topic"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := smallFeed
			o.kafka = c.kafka
			r := newRig(t, startEmbedded(t).Brokers(), o)
			if c.topic != "" {
				r.createTopic(c.topic, c.parts, c.settings)
			}
			r.demandRefusal(r.startRun(), exitFailure, c.says...)
			r.demandNothingPublished()
		})
	}
}

// TestBrokerUnreachable: no broker at the address that is configured.
func TestBrokerUnreachable(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	r := newRig(t, []string{address}, smallFeed)
	r.demandRefusal(r.startRun(), exitFailure, "look up topics at "+address, "nothing listens at the broker's address", "correct kafka.brokers")
}

// TestRegistryComesLate: a registry that is not yet up at the start is waited for.
func TestRegistryComesLate(t *testing.T) {
	t.Parallel()
	r := newRig(t, startEmbedded(t).Brokers(), smallFeed)
	var asked atomic.Int32
	r.registry.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		if asked.Add(1) > 3 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	r.runToEnd(refusalPatience)
	if n := asked.Load(); n <= 3 {
		t.Errorf("the registry was asked %d times: this proved nothing", n)
	}
	r.truth().compare(t, r.readThrough(), false)
}

// TestRegistryLost: once the schemas' ids are known, nobody needs the registry.
func TestRegistryLost(t *testing.T) {
	t.Parallel()
	o := rigOptions{span: 24 * time.Hour, rate: 0.1, profiles: []string{"unlimited"}, window: 2 * time.Minute}
	r := newRig(t, startEmbedded(t).Brokers(), o)
	p := r.startRun()
	kafkatest.Eventually(t, 20*time.Second, "the schemas' ids are known", func() error {
		if !bytes.Contains(r.log.tail(1<<20), []byte(`"shard ready"`)) {
			return errors.New("no shard is ready")
		}
		return nil
	})
	r.registry.Close()
	for source, watermark := range r.watermarks() {
		if watermark >= r.until {
			t.Fatalf("%s is done already: give the test more to do", source)
		}
	}
	if code, message := r.finished(p); code != 0 {
		t.Fatalf("without the registry the run ended with %d, %s", code, message)
	}
	r.truth().compare(t, r.readThrough(), false)
}

// TestBadPositions: a source whose position cannot be trusted is refused, with
// topic, partition, offset and the command, and the other one reaches its bound.
func TestBadPositions(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(b *brokenPosition) // the two sources share a shard, but where it loses its records
		says []string                // besides the record that is refused
	}{
		{"unreadable", func(b *brokenPosition) { b.put(b.shard, []byte("garbage")) },
			[]string{"position is unreadable: not a JSON object", "cdrbus offsets set acme --from-receipts -c FILE"}},
		{"checksum", func(b *brokenPosition) {
			b.put(b.shard, bytes.Replace(b.next(nil), []byte(`"counter":`), []byte(`"counter":1`), 1))
		},
			[]string{"position has a broken checksum", "cdrbus offsets set acme --from-receipts -c FILE"}},
		{"later version", func(b *brokenPosition) { b.put(b.shard, ofLaterVersion(b.next(nil))) },
			[]string{"position is of a later version: version 2", "run the later cdrbus again", "cdrbus offsets set acme --from-receipts -c FILE"}},
		{"deleted", func(b *brokenPosition) { b.put(b.shard, nil) },
			[]string{"position is absent; somebody deleted it", "cdrbus offsets set acme --from-receipts -c FILE"}},
		{"apart: lost", func(b *brokenPosition) { b.deleteAll(); b.refusedAt("webex.cdr.windows", b.shard) },
			[]string{"its position is lost: webex.cdr.offsets-", "this receipt says that it committed windows", "cdrbus offsets set acme --from-receipts -c FILE"}},
		{"went back", func(b *brokenPosition) { b.put(b.shard, b.next(func(p *offsets.Position) { p.Counter = 1 })) },
			[]string{"its counter goes back to 1", "cdrbus offsets set acme --from-receipts -c FILE"}},
		{"apart: other shard", func(b *brokenPosition) {
			value := b.next(func(p *offsets.Position) { p.Shard = b.elsewhere() })
			b.deleteAll()
			b.put(b.elsewhere(), value)
		}, []string{"its position lies in shard", "cdrbus offsets move acme --from-shard"}},
		{"other shard count", func(b *brokenPosition) { b.put(b.shard, b.next(func(p *offsets.Position) { p.Shards = 8 })) },
			[]string{"its position is of 8 shards, and 4 are configured", "cdrbus offsets adopt acme --shards -c FILE"}},
		{"other prefix", func(b *brokenPosition) {
			b.put(b.shard, b.next(func(p *offsets.Position) { p.TransactionalPrefix = "blue" }))
		}, []string{`under transactional_id_prefix "blue", which does not fence "cdrbus"`, "cdrbus offsets adopt acme --prefix -c FILE", "safe only when no cdrbus with the former prefix runs"}},
		{"other definition", func(b *brokenPosition) {
			b.put(b.shard, b.next(func(p *offsets.Position) { p.Definition.Locations = []string{"Bergen", "Oslo"} }))
		}, []string{`locations ["Bergen" "Oslo"], and the configuration says feed of`, "all locations", "cdrbus offsets adopt acme --definition -c FILE"}},
		{"journal", func(b *brokenPosition) {
			b.refusedAt("webex.cdr.ids", b.shard)
			b.offset = b.produce("webex.cdr.ids", b.shard, []byte("no chunk"))
		}, []string{"journal chunk is unreadable", "cdrbus offsets set acme --journal-from"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, startEmbedded(t).Brokers(), smallFeed)
			if strings.HasPrefix(c.name, "apart: ") {
				r.placeApart()
			}
			half := r.start.Add(30 * time.Minute)
			if code, message := r.finished(r.startRun("--until", half.String())); code != 0 {
				t.Fatalf("the first run ended with %d, %s", code, message)
			}
			b := r.breakPosition()
			c.harm(b)
			events := b.eventsOf(bareSource)

			says := append(c.says, "source "+bareSource, fmt.Sprintf("(topic %s, partition %d, offset %d)", b.topic, b.partition, b.offset))
			p := r.startRun()
			r.demandRefusal(p, exitFailure, says...)
			if reached := r.lastWatermark(appSource); reached != r.until {
				t.Errorf("the other source reached %s, want %s", reached, r.until)
			}
			if now := b.eventsOf(bareSource); now != events {
				t.Errorf("the refused source published %d events", now-events)
			}
		})
	}
}

// placeApart gives bareSource another shard than appSource has.
func (r *rig) placeApart() {
	r.t.Helper()
	text, err := os.ReadFile(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	for key := 'a'; ; key++ {
		if partition.Of([]byte(string(key)), shards) != partition.Of([]byte(appSource), shards) {
			const token = "    token_file: acme.token\n"
			r.write("cdrbus.yaml", strings.Replace(string(text), token, token+"    shard_key: "+string(key)+"\n", 1))
			return
		}
	}
}

// shards is what the rig configures unless it is told otherwise.
const shards = 4

// ofLaterVersion makes a position one that version 2 wrote, for version 2 to read.
func ofLaterVersion(position []byte) []byte {
	const checksum = `,"checksum":"`
	body := bytes.Replace(position, []byte(`{"version":1,"min_reader":1`), []byte(`{"version":2,"min_reader":2`), 1)
	body = body[:bytes.LastIndex(body, []byte(checksum))]
	return fmt.Appendf(body, `%s%08x"}`, checksum, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
}

// brokenPosition is what a test does to the position of bareSource, and which
// record the refusal has to name.
type brokenPosition struct {
	r         *rig
	position  offsets.Position
	shard     int
	topic     string
	partition int
	offset    int64
}

// breakPosition reads the position of bareSource as the program left it.
func (r *rig) breakPosition() *brokenPosition {
	b := &brokenPosition{r: r, shard: -1}
	r.each("webex.cdr.offsets", shards, func(partition int, record committed.Record) {
		if string(record.Key) != bareSource {
			return
		}
		var err error
		if b.position, err = offsets.DecodePosition(record.Value); err != nil {
			r.t.Fatal(err)
		}
		b.shard = partition
	})
	if b.shard < 0 || b.position.Counter < 2 {
		r.t.Fatalf("the first run left the position %+v of %s", b.position, bareSource)
	}
	return b
}

// next returns what the next commit would have written, changed.
func (b *brokenPosition) next(change func(*offsets.Position)) []byte {
	b.r.t.Helper()
	p := b.position
	p.Counter++
	if change != nil {
		change(&p)
	}
	value, err := p.Encode()
	if err != nil {
		b.r.t.Fatal(err)
	}
	return value
}

// put writes a position, and expects the refusal to name it.
func (b *brokenPosition) put(partition int, value []byte) {
	b.r.t.Helper()
	b.topic, b.partition = "webex.cdr.offsets", partition
	b.offset = b.produce(b.topic, partition, value)
}

// refusedAt expects the refusal to name the last record of bareSource there.
func (b *brokenPosition) refusedAt(topic string, partition int) {
	b.r.t.Helper()
	b.topic, b.partition, b.offset = topic, partition, -1
	b.r.each(topic, shards, func(_ int, record committed.Record) {
		if string(record.Key) == bareSource {
			b.offset = record.Offset
		}
	})
}

// elsewhere is a shard that is not the source's.
func (b *brokenPosition) elsewhere() int { return (b.shard + 1) % shards }

func (b *brokenPosition) kgo(options ...kgo.Opt) *kgo.Client {
	b.r.t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(b.r.brokers...))...)
	if err != nil {
		b.r.t.Fatal(err)
	}
	b.r.t.Cleanup(client.Close)
	return client
}

func (b *brokenPosition) produce(topic string, partition int, value []byte) (offset int64) {
	b.r.t.Helper()
	record := &kgo.Record{Topic: topic, Partition: int32(partition), Key: []byte(bareSource), Value: value}
	written, err := b.kgo(kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(b.r.t.Context(), record).First()
	if err != nil {
		b.r.t.Fatal(err)
	}
	return written.Offset
}

// deleteAll deletes the records of the source's partition of the offsets topic, as
// an administrator may by mistake.
func (b *brokenPosition) deleteAll() {
	b.r.t.Helper()
	request := kmsg.NewPtrDeleteRecordsRequest()
	topic, partition := kmsg.NewDeleteRecordsRequestTopic(), kmsg.NewDeleteRecordsRequestTopicPartition()
	topic.Topic, partition.Partition, partition.Offset = "webex.cdr.offsets", int32(b.shard), -1
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 10000
	response, err := b.kgo().Request(b.r.t.Context(), request)
	if err != nil {
		b.r.t.Fatal(err)
	}
	if code := response.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		b.r.t.Fatalf("delete records: error code %d", code)
	}
}

func (b *brokenPosition) eventsOf(source string) (count int) {
	b.r.t.Helper()
	b.r.each("webex.cdr.events", 6, func(_ int, record committed.Record) {
		if strings.Contains(headerText(record), source) {
			count++
		}
	})
	if count == 0 {
		b.r.t.Fatalf("%s has published nothing", source)
	}
	return count
}

// lastWatermark tells how far a source is.
func (r *rig) lastWatermark(source cdr.SourceName) (last cdr.Instant) {
	r.t.Helper()
	reader := r.reader()
	for shard := range shards {
		bounds, err := reader.Bounds(r.t.Context(), "webex.cdr.offsets", shard)
		if err == nil && bounds.LogStart < bounds.LastStable {
			_, _, err = reader.Read(r.t.Context(), "webex.cdr.offsets", shard, bounds.LogStart, -1, func(record committed.Record) error {
				if p, err := offsets.DecodePosition(record.Value); err == nil && p.Source == source {
					last = p.FeedPublished
				}
				return nil
			})
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return last
}

// TestDeniedByKafka: rights and logins as a real Kafka refuses them.
func TestDeniedByKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		properties := kafkatest.SASLProperties(map[string]string{"nobody": "secret", "untransacted": "secret", "reader": "secret", "full": "secret"})
		maps.Copy(properties, kafkatest.ACLProperties())
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, ClientProtocol: "SASL_PLAINTEXT", Properties: properties})
		for _, user := range []string{"User:untransacted", "User:full"} {
			cluster.Allow(t, user, kafka.ResourceTypeTopic, "webex.cdr.*", kafka.ACLOperationTypeCreate, kafka.ACLOperationTypeDescribe,
				kafka.ACLOperationTypeDescribeConfigs, kafka.ACLOperationTypeRead, kafka.ACLOperationTypeWrite)
		}
		cluster.Allow(t, "User:full", kafka.ResourceTypeTransactionalID, "cdrbus.*", kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeWrite)
		cluster.Allow(t, "User:reader", kafka.ResourceTypeTopic, "webex.cdr.*", kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeDescribeConfigs, kafka.ACLOperationTypeRead)
		cluster.Allow(t, "User:reader", kafka.ResourceTypeTransactionalID, "cdrbus.*", kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeWrite)
		for _, c := range []struct {
			user, password string
			says           []string // nil: it runs
		}{
			{"nobody", "secret", []string{"topic webex.cdr.events: ", "the ACLs deny this user the topic", "kafka-acls.sh", "--operation Write", "--topic"}},
			{"untransacted", "secret", []string{"take over shard", "cdrbus.webex.cdr.offsets.", "Transactional ID Authorization Failed", "kafka.transactional_id_prefix", "kafka-acls.sh"}},
			{"full", "wrong", []string{"look up topics at 127.0.0.1:", "the broker refused the user name or password", "check kafka.sasl"}},
			{"full", "secret", nil},
		} {
			t.Run(c.user+" "+c.password, func(t *testing.T) {
				o := smallFeed
				o.kafka = fmt.Sprintf("  sasl: {mechanism: plain, username: %s, password_file: kafka.password, allow_plain_without_tls: [127.0.0.1]}", c.user)
				r := newRig(t, cluster.Bootstrap(), o)
				r.write("kafka.password", c.password)
				if c.says == nil {
					r.runToEnd(time.Minute)
					return
				}
				r.demandRefusal(r.startRun(), exitFailure, c.says...)
				r.brokers = []string{cluster.Brokers[0].AdminAddress}
				r.demandNothingPublished()
			})
			if c.user == "untransacted" {
				t.Run("reader", func(t *testing.T) { checkReader(t, cluster) })
			}
		}
	})
}

// checkReader runs with a user who may read the topics that exist, but not write
// them. That shows in the first commit, which is that of the sources' starts.
func checkReader(t *testing.T, cluster *kafkatest.Cluster) {
	o := smallFeed
	o.kafka = "  sasl: {mechanism: plain, username: reader, password_file: kafka.password, allow_plain_without_tls: [127.0.0.1]}"
	r := newRig(t, cluster.Bootstrap(), o)
	r.write("kafka.password", "secret")
	r.demandRefusal(r.startRun(), exitFailure, "commit to shard", "webex.cdr.", "Topic Authorization Failed", "grant Write and Describe on the topic")
	r.brokers = []string{cluster.Brokers[0].AdminAddress}
	r.demandNothingPublished()
}

// TestPlainToTLSPort: kafka.tls left out although the port wants it, and the
// other way round.
func TestPlainToTLSPort(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		certificates := kafkatest.NewCertificates(t)
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, ClientProtocol: "SSL", Properties: certificates.TLSProperties(false)})
		plain := []string{cluster.Brokers[0].AdminAddress}
		withTLS := fmt.Sprintf("  tls: {enabled: true, ca_file: %s}", certificates.CAFile)
		for _, c := range []struct {
			name    string
			brokers []string
			kafka   string
			says    []string // nil: it runs
		}{
			{"plain to TLS", cluster.Bootstrap(), "", []string{"look up topics at 127.0.0.1:", "speaks only TLS", "switch TLS on"}},
			{"TLS to plain", plain, withTLS, []string{"look up topics at 127.0.0.1:", "kafka.tls"}},
			{"unknown authority", cluster.Bootstrap(), "  tls: {enabled: true}", []string{"look up topics at 127.0.0.1:", "authority that is not trusted", "give the cluster's CA certificate in kafka.tls"}},
			{"TLS", cluster.Bootstrap(), withTLS, nil},
		} {
			t.Run(c.name, func(t *testing.T) {
				o := smallFeed
				o.kafka = c.kafka
				r := newRig(t, c.brokers, o)
				if c.says != nil {
					r.demandRefusal(r.startRun(), exitFailure, c.says...)
					r.brokers = plain
					r.demandNothingPublished()
					return
				}
				r.brokers = plain
				r.runToEnd(time.Minute)
			})
		}
	})
}
