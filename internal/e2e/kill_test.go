package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

// TestKillsEmbedded is the short form that every go test runs: the real program
// against the embedded broker, killed in the middle of its work.
func TestKillsEmbedded(t *testing.T) {
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	r := newRig(t, cluster.Brokers(), rigOptions{span: 4 * time.Hour, rate: 4, profiles: []string{"all", "unlimited"}, tune: quick})
	r.killUntilDone(4, 3*time.Minute)
	f := r.readThrough()
	r.truth().compare(t, f, false)
	r.checkPositions(r.receiptsThrough())
	before := r.endOffsets()
	r.runToEnd(time.Minute)
	if after := r.endOffsets(); !slices.Equal(before, after) {
		t.Errorf("a second run moved the end of the topics from %v to %v", before, after)
	}
}

// TestKillsRealKafka is the acceptance of the main job: a day of the feed with
// every fault and quirk, kill -9 thirty times, checked by kcat, by librdkafka
// under Python and by Java's own murmur2.
func TestKillsRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{span: 24 * time.Hour, rate: 5, profiles: []string{"all", "unlimited"}, tune: quick})
		r.killUntilDone(30, 15*time.Minute)

		f := r.readWithKcat()
		r.truth().compare(t, f, false)
		checkMurmur2(t, cluster, f.partitions, 6)
		r.checkPython(f)
		r.checkPositions(r.receiptsThrough())

		before := r.endOffsets()
		r.runToEnd(time.Minute)
		if after := r.endOffsets(); !slices.Equal(before, after) {
			t.Errorf("a second run moved the end of the topics from %v to %v", before, after)
		}
	})
}

// TestAtLeastOnceRealKafka kills a run without transactions: nothing may be
// missing, and what is doubled is counted.
func TestAtLeastOnceRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{
			span: 8 * time.Hour, rate: 5, profiles: []string{"all", "unlimited"}, tune: quick, top: "delivery: at_least_once",
		})
		r.killUntilDone(10, 5*time.Minute)
		f := r.readWithKcat()
		b := r.truth().compare(t, f, true)
		t.Logf("at_least_once on Kafka %s: %d repeats after 10 kills", version, b.doubled)
	})
}

// quick shortens what only costs time: how long an injected fault asks to wait.
func quick(o *simulator.Options) {
	o.Answers.FaultWait = 100 * time.Millisecond
	o.Answers.Faults[simulator.Stalled] = 0
}

// killUntilDone runs the program to its bound, killing it at random at least so
// many times on the way.
func (r *rig) killUntilDone(kills int, patience time.Duration) {
	r.t.Helper()
	r.firstToken()
	deadline := time.Now().Add(patience)
	for killed := range kills {
		p := r.startRun()
		// A life ends at random, or when it has done its part of the work: there is
		// always something left to be killed in, however fast the machine.
		r.awaitLife(p, rand.N(1800*time.Millisecond)+100*time.Millisecond, float64(killed+1)/float64(kills+2))
		select {
		case <-p.ended:
			r.t.Fatalf("the run ended after %d kills (%v), want at least %d: give it more to do", killed, p.err, kills)
		default:
			p.kill()
		}
	}
	r.t.Logf("%d kills, after which the sources are at %v of %s", kills, r.watermarks(), r.until)
	r.runToEnd(time.Until(deadline))
	r.awaitMarkers()
}

// awaitLife returns when a process has lived for so long, has come so far, or has
// ended.
func (r *rig) awaitLife(p *process, longest time.Duration, share float64) {
	end := time.After(longest)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for r.progress() < share {
		select {
		case <-p.ended:
			return
		case <-end:
			return
		case <-look.C:
		}
	}
}

// progress is the share of its work that the source furthest behind has done.
func (r *rig) progress() float64 {
	least := r.until
	watermarks := r.watermarks()
	for _, source := range r.sources {
		least = min(least, max(r.start, watermarks[cdr.SourceName(source)]))
	}
	return float64(least.Sub(r.start)) / float64(r.until.Sub(r.start))
}

// watermarks tells how far the sources are.
func (r *rig) watermarks() map[cdr.SourceName]cdr.Instant {
	watermarks := map[cdr.SourceName]cdr.Instant{}
	r.each("webex.cdr.offsets", r.shards, func(_ int, record committed.Record) {
		if p, err := offsets.DecodePosition(record.Value); err == nil {
			watermarks[p.Source] = p.FeedPublished
		}
	})
	return watermarks
}

// firstToken lets the program fetch its first access token in peace: a kill
// between the answer of the token endpoint and the write of the new refresh token
// loses that token, which no program can prevent.
func (r *rig) firstToken() {
	r.t.Helper()
	p := r.startRun()
	kafkatest.Eventually(r.t, 30*time.Second, "the first token is stored", func() error {
		store, err := os.ReadFile(filepath.Join(r.folder, appSource+".tokens.json"))
		if err == nil && !bytes.Contains(store, []byte("access_token")) {
			err = errors.New("no access token yet")
		}
		return err
	})
	p.kill()
}

// reader returns our own read_committed reader over the rig's brokers.
func (r *rig) reader() *committed.Reader {
	if brokers := strings.Join(r.brokers, ","); r.readsFrom != brokers {
		client, err := kafkaconn.New(kafkaconn.Options{Brokers: r.brokers, ClientID: "cdrbus-e2e"})
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { kafkaconn.Close(client) })
		r.cachedReader, r.readsFrom = committed.NewReader(client), brokers
	}
	return r.cachedReader
}

func (r *rig) each(topic string, partitions int, visit func(partition int, record committed.Record)) {
	r.t.Helper()
	reader := r.reader()
	for partition := range partitions {
		_, _, err := reader.Read(r.t.Context(), topic, partition, 0, -1, func(record committed.Record) error {
			visit(partition, record)
			return nil
		})
		if err != nil {
			r.t.Fatalf("read %s/%d: %v", topic, partition, err)
		}
	}
}

// readThrough reads events and dead letters with our own reader, in the form in
// which kcat would have printed them.
func (r *rig) readThrough() found {
	r.awaitMarkers()
	var events, letters bytes.Buffer
	r.each("webex.cdr.events", 6, func(partition int, record committed.Record) {
		fmt.Fprintf(&events, "%d|%s|%s\n", partition, record.Key, headerText(record))
	})
	r.each("webex.cdr.deadletter", r.shards, func(_ int, record committed.Record) {
		fmt.Fprintf(&letters, "%s|%s\n", record.Key, headerText(record))
	})
	f := readEvents(r.t, events.Bytes())
	f.readLetters(r.t, letters.Bytes())
	return f
}

// readWithKcat reads events and dead letters with a client that shares no code
// with ours.
func (r *rig) readWithKcat() found {
	r.t.Helper()
	f := readEvents(r.t, kafkatest.KcatRead(r.t, r.brokers[0], "webex.cdr.events", "%p|%k|%h\n"))
	f.readLetters(r.t, kafkatest.KcatRead(r.t, r.brokers[0], "webex.cdr.deadletter", "%k|%h\n"))
	return f
}

func headerText(record committed.Record) string {
	fields := make([]string, len(record.Headers))
	for i, h := range record.Headers {
		fields[i] = h.Key + "=" + string(h.Value)
	}
	return strings.Join(fields, ",")
}

// receiptsThrough returns the receipts of each source, in order.
func (r *rig) receiptsThrough() map[cdr.SourceName][]offsets.Receipt {
	r.t.Helper()
	receipts := map[cdr.SourceName][]offsets.Receipt{}
	r.each("webex.cdr.windows", r.shards, func(_ int, record committed.Record) {
		schemaID, err := offsets.ReceiptSchemaID(record.Value)
		if err != nil {
			r.t.Fatal(err)
		}
		codec, err := offsets.NewReceiptCodec(schemaID)
		if err != nil {
			r.t.Fatal(err)
		}
		receipt, err := codec.Decode(record.Value)
		if err != nil {
			r.t.Fatal(err)
		}
		receipts[cdr.SourceName(record.Key)] = append(receipts[cdr.SourceName(record.Key)], receipt)
	})
	return receipts
}

// checkPositions demands positions whose counters have no hole, and what
// checkReceipts does.
func (r *rig) checkPositions(receipts map[cdr.SourceName][]offsets.Receipt) {
	r.t.Helper()
	last := map[cdr.SourceName]offsets.Position{}
	r.eachPosition(func(at string, p offsets.Position) {
		if want := last[p.Source].Counter + 1; p.Counter != want {
			r.t.Errorf("position of %s at %s has counter %d, want %d", p.Source, at, p.Counter, want)
		}
		last[p.Source] = p
	})
	r.checkReceipts(receipts, last)
}

// eachPosition visits the positions that the topic holds.
func (r *rig) eachPosition(visit func(at string, p offsets.Position)) {
	r.t.Helper()
	r.each("webex.cdr.offsets", r.shards, func(partition int, record committed.Record) {
		if bytes.HasPrefix(record.Key, offsets.CredentialKey("")) {
			return
		}
		p, err := offsets.DecodePosition(record.Value)
		if err != nil {
			r.t.Fatalf("position at %d/%d: %v", partition, record.Offset, err)
		}
		visit(fmt.Sprintf("%d/%d", partition, record.Offset), p)
	})
}

// checkReceipts demands one receipt for each counter, spans that meet, and the
// last position at the bound.
func (r *rig) checkReceipts(receipts map[cdr.SourceName][]offsets.Receipt, last map[cdr.SourceName]offsets.Position) {
	r.t.Helper()
	for _, name := range r.sources {
		source := cdr.SourceName(name)
		if last[source].FeedPublished != r.until {
			r.t.Errorf("%s is published to %s, want %s", source, last[source].FeedPublished, r.until)
		}
		if n := len(receipts[source]); n != int(last[source].Counter) {
			r.t.Errorf("%s has %d receipts, and its counter is %d", source, n, last[source].Counter)
		}
		at := r.start
		for i, receipt := range receipts[source] {
			if receipt.Counter != cdr.Counter(i+1) {
				r.t.Fatalf("receipt %d of %s has counter %d", i, source, receipt.Counter)
			}
			if receipt.Commit.IsZero() {
				continue
			}
			if receipt.Commit.StartInclusive != at {
				r.t.Errorf("receipt %s#%d settles %s, want it to begin at %s", source, receipt.Counter, receipt.Commit, at)
			}
			at = receipt.Commit.EndExclusive
		}
	}
}

// endOffsets returns where the first partitions of the five topics end.
func (r *rig) endOffsets() []int64 {
	r.t.Helper()
	reader := r.reader()
	var ends []int64
	for _, topic := range []string{"events", "deadletter", "windows", "ids", "offsets"} {
		for partition := range 4 {
			bounds, err := reader.Bounds(r.t.Context(), "webex.cdr."+topic, partition)
			if err != nil {
				r.t.Fatal(err)
			}
			ends = append(ends, bounds.HighWatermark)
		}
	}
	return ends
}

// checkMurmur2 asks Kafka's own Java code where each key belongs.
func checkMurmur2(t *testing.T, cluster *kafkatest.Cluster, partitions map[string]int, count int) {
	t.Helper()
	var keys bytes.Buffer
	order := make([]string, 0, len(partitions))
	for key := range partitions {
		order = append(order, key)
		fmt.Fprintln(&keys, key)
	}
	command := exec.CommandContext(t.Context(), "java", "-cp", cluster.Classpath(), "testdata/Murmur2.java", fmt.Sprint(count))
	command.Stdin = &keys
	output, err := command.Output()
	if err != nil {
		t.Fatalf("ask Java's murmur2 (needs a JDK): %v", err)
	}
	answers := strings.Fields(string(output))
	if len(answers) != len(order) {
		t.Fatalf("Java answered for %d of %d keys", len(answers), len(order))
	}
	for i, key := range order {
		if want := fmt.Sprint(partitions[key]); answers[i] != want {
			t.Fatalf("key %q is in partition %s, Java's murmur2 says %s", key, want, answers[i])
		}
	}
	t.Logf("%d keys are where Java's murmur2 puts them", len(order))
}

// checkPython reads the events with confluent-kafka's AvroDeserializer.
func (r *rig) checkPython(f found) {
	r.t.Helper()
	seen := map[string]int{}
	r.consumePython("webex.cdr.events", true, func(decoder *json.Decoder) error {
		var event struct{ ReportID, Key, CorrelationID, InteractionID string }
		if err := decoder.Decode(&event); err != nil {
			return err
		}
		seen[event.ReportID]++
		if want := firstOf(event.CorrelationID, event.InteractionID, event.ReportID); event.Key != want {
			r.t.Errorf("event %s has key %q, and its fields say %q", event.ReportID, event.Key, want)
		}
		return nil
	})
	for id, n := range seen {
		if n != 1 || f.events[id] != 1 {
			r.t.Errorf("event %s: %d times for confluent-kafka, %d times for kcat", id, n, f.events[id])
		}
	}
	if len(seen) != len(f.events) {
		r.t.Errorf("confluent-kafka sees %d events, kcat %d", len(seen), len(f.events))
	}
	r.t.Logf("confluent-kafka's AvroDeserializer reads %d events, each once", len(seen))
}

// consumePython reads a topic with confluent-kafka, and lets visit decode one line
// after another until it returns io.EOF.
func (r *rig) consumePython(topic string, avro bool, visit func(*json.Decoder) error) {
	r.t.Helper()
	if *pythonFlag == "" {
		r.t.Fatal("no Python for the check by a second client: give one with -e2e.python")
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Minute)
	defer cancel()
	registry := ""
	if avro {
		registry = r.registry.URL()
	}
	command := exec.CommandContext(ctx, *pythonFlag, "testdata/consume.py", r.brokers[0], registry, topic)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		r.t.Fatal(err)
	}
	for decoder := json.NewDecoder(output); err == nil; {
		err = visit(decoder)
	}
	if !errors.Is(err, io.EOF) {
		r.t.Fatalf("read what Python printed: %v\n%s", err, stderr.Bytes())
	}
	if err := command.Wait(); err != nil {
		r.t.Fatalf("consume with Python: %v\n%s", err, stderr.Bytes())
	}
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
