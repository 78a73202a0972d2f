package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/coverage"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/partition"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

// The commands of a source that is to be complete, on real brokers, beside a daemon and
// without one, as a person or a script runs them.

const exitDifference = 3

// alone makes a command take a shard that nobody owns without waiting for long.
const alone = "--wait=1s"

// demand runs a command and demands its exit code, and what it says on either output.
func (r *rig) demand(code int, says string, arguments ...string) (stdout string) {
	r.t.Helper()
	got, out, messages := r.ask(arguments...)
	if got != code || !strings.Contains(out+messages, says) {
		r.t.Errorf("cdrbus %s: exit code %d, want %d; %q in\n%s\n%s", strings.Join(arguments, " "), got, code, says, out, messages)
	}
	return out
}

// TestMissingRecordRealKafka: a topic that lacks one record. verify names it, --repair
// brings it, and then nothing differs and nothing more is published.
func TestMissingRecordRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{span: time.Hour, rate: 0.2, sources: []string{bareSource}, profiles: []string{"unlimited"}, window: 30 * time.Minute})
		r.runToEnd(time.Minute)
		span := []string{"--source", bareSource, "--from", r.start.String(), "--to", r.until.String()}
		r.part("without a daemon", func() {
			lost := r.loseEvent(cluster)
			r.checkFindings(lost, func(step int, output ...string) (int, string, string) {
				return r.ask(slices.Concat([]string{"verify", alone}, span, verifications[step], output)...)
			})
		})
		r.part("beside a daemon", func() {
			lost := r.loseEvent(cluster)
			daemon := r.startLive()
			// All are left with the owner at once, who does them one after the other.
			var ids []string
			for _, more := range verifications {
				code, id, says := r.ask(slices.Concat([]string{"verify", "--detach"}, span, more)...)
				if code != 0 {
					r.t.Fatalf("verify --detach: exit code %d, %s", code, says)
				}
				ids = append(ids, strings.TrimSpace(id))
			}
			r.checkFindings(lost, func(step int, output ...string) (int, string, string) {
				return r.ask(append([]string{"jobs", "follow", ids[step]}, output...)...)
			})
			_ = daemon.command.Process.Signal(syscall.SIGTERM)
			<-daemon.ended
		})
	})
}

// verifications are asked for in this order.
var verifications = [][]string{nil, nil, {"--repair"}, nil, {"--repair"}}

// checkFindings holds what verifications say of one event that is lost against the topic.
func (r *rig) checkFindings(lost committed.Record, verify func(step int, output ...string) (code int, out, says string)) {
	r.t.Helper()
	id := headersOf(lost)["ce_id"]
	at, err := time.Parse(time.RFC3339Nano, headersOf(lost)["ce_time"])
	if err != nil {
		r.t.Fatal(err)
	}
	named := fmt.Sprintf("  missing  %s  %s  key %s\n", id, at.UTC().Truncate(time.Second).Format(time.RFC3339), lost.Key)
	code, out, says := verify(0)
	if code != exitDifference || !strings.Contains(out, named) || !strings.Contains(out, " 1 missing, 0 unexpected, 0 doubled, 0 different") || !strings.Contains(says, "feed and topic differ") {
		r.t.Errorf("verify: exit code %d, want %q in\n%s\n%s", code, named, out, says)
	}
	code, out, says = verify(1, "-o", "json")
	var state offsets.JobState
	if err := json.Unmarshal([]byte(out), &state); err != nil || code != exitDifference || len(state.Findings.Listed) != 1 || state.Findings.Listed[0].ReportID != id {
		r.t.Errorf("verify -o json: exit code %d, %v\n%s\n%s", code, err, out, says)
	}
	if code, out, says = verify(2); code != 0 || !strings.Contains(out, "1 of those missing are published now") {
		r.t.Errorf("verify --repair: exit code %d\n%s\n%s", code, out, says)
	}
	for step := 3; step < len(verifications); step++ {
		if code, out, says = verify(step); code != 0 || !strings.Contains(out, " 0 missing, 0 unexpected, 0 doubled, 0 different") {
			r.t.Errorf("verify %v after the repair: exit code %d\n%s\n%s", verifications[step], code, out, says)
		}
	}
	r.demandOnce()
	found := 0
	r.each("webex.cdr.events", 6, func(_ int, record committed.Record) {
		if headersOf(record)["ce_id"] == id {
			found++
			if string(record.Value) != string(lost.Value) || string(record.Key) != string(lost.Key) {
				r.t.Errorf("what was repaired is not what was lost")
			}
		}
	})
	if found != 1 {
		r.t.Errorf("the event is there %d times after the repair", found)
	}
}

func headersOf(record committed.Record) map[string]string { return parseHeaders(headerText(record)) }

// loseEvent makes the events topic anew without one of its events, which it returns.
func (r *rig) loseEvent(cluster *kafkatest.Cluster) (lost committed.Record) {
	r.t.Helper()
	const topic = "webex.cdr.events"
	r.awaitMarkers()
	var kept []*kgo.Record
	seen := 0
	r.each(topic, 6, func(partition int, record committed.Record) {
		copied := &kgo.Record{Topic: topic, Partition: int32(partition), Timestamp: record.Timestamp, Key: slices.Clone(record.Key), Value: slices.Clone(record.Value)}
		for _, h := range record.Headers {
			copied.Headers = append(copied.Headers, kgo.RecordHeader{Key: h.Key, Value: slices.Clone(h.Value)})
		}
		if seen++; seen != 100 {
			kept = append(kept, copied)
			return
		}
		lost = committed.Record{Key: copied.Key, Value: copied.Value, Timestamp: copied.Timestamp}
		for _, h := range copied.Headers {
			lost.Headers = append(lost.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
	})
	if lost.Value == nil {
		r.t.Fatalf("%d events are too few", seen)
	}
	r.deleteTopic(cluster, topic)
	cluster.CreateTopic(r.t, topic, 6, nil)
	if err := r.produceAll(kept...); err != nil {
		r.t.Fatal(err)
	}
	return lost
}

// produceAll writes records to the partitions that they name, outside of transactions.
func (r *rig) produceAll(records ...*kgo.Record) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(r.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(r.t.Context(), records...).FirstErr()
}

// TestOutageRealKafka: an outage that is longer than the feed looks back. The gap has the
// same bounds wherever anybody looks.
func TestOutageRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		const limits = "{initial_per_minute: 6000, pages_per_minute: 60000}\n    sweeps: [{every: 1h, back: 1h}]\n    lookback: "
		o := rigOptions{span: 30 * time.Hour, rate: 0.02, sources: []string{bareSource}, profiles: []string{"unlimited"}, window: 2 * time.Hour, limits: limits + "48h"}
		r := newRig(t, cluster.Bootstrap(), o)
		r.until = r.start.Add(2 * time.Hour)
		r.runToEnd(time.Minute)

		o.limits, o.admin = limits+"6h", "127.0.0.1:0"
		r.write("cdrbus.yaml", r.configuration(o))
		if err := r.feed.Update(bareSource, func(a *simulator.Answers) { a.Feed.Lookback = 6 * time.Hour }); err != nil {
			t.Fatal(err)
		}
		daemon := r.startLive()
		caughtUp := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
		kafkatest.Eventually(t, time.Minute, "the source has caught up", func() error {
			if reached := r.lastWatermark(bareSource); reached < caughtUp {
				return fmt.Errorf("it is at %s", reached)
			}
			return nil
		})
		page, err := adminURLIn(daemon.log)
		if err != nil {
			t.Fatal(err)
		}
		gap := r.gapInReceipts()
		if gap.StartInclusive != r.until || gap.Duration() < 21*time.Hour || gap.Duration() > 23*time.Hour {
			t.Fatalf("the receipts tell of gap %s, want one of 22 h from %s", gap, r.until)
		}
		r.demandGapEverywhere(gap, page)
		if v := r.feed.Violations(); len(v) > 0 {
			t.Errorf("the feed complains: %+v", v)
		}
	})
}

// gapInReceipts is the one that the receipts of a source tell of.
func (r *rig) gapInReceipts() (gap cdr.Span) {
	r.t.Helper()
	for _, receipt := range r.receiptsThrough()[bareSource] {
		if !receipt.Gap.IsZero() && !gap.IsZero() && receipt.Gap != gap {
			r.t.Errorf("the receipts tell of gaps %s and %s", gap, receipt.Gap)
		}
		if !receipt.Gap.IsZero() {
			gap = receipt.Gap
		}
	}
	return gap
}

// demandGapEverywhere looks for a gap in the position, the metric, the coverage as text,
// as JSON and as demand, and in what the status page asks for.
func (r *rig) demandGapEverywhere(gap cdr.Span, page string) {
	r.t.Helper()
	var report struct {
		Position struct {
			LastGap cdr.Span `json:"last_gap"`
		}
	}
	if err := json.Unmarshal([]byte(r.demand(0, "", "offsets", "get", bareSource, "-o", "json")), &report); err != nil || report.Position.LastGap != gap {
		r.t.Errorf("the position tells of gap %s, %v", report.Position.LastGap, err)
	}
	if metrics := r.get(page + "/metrics"); !strings.Contains(metrics, fmt.Sprintf("cdrbus_gap_seconds_total{source=\"acme\"} %d\n", int(gap.Duration().Seconds()))) {
		r.t.Error("the metric does not tell of the gap")
	}
	stamp := func(i cdr.Instant) string { return i.Time().Format(time.DateTime) }
	r.demand(0, fmt.Sprintf("gap      %s  %s  ", stamp(gap.StartInclusive), stamp(gap.EndExclusive)), "coverage", "--days", "3")
	var answer coverage.Answer
	if err := json.Unmarshal([]byte(r.demand(0, "", "coverage", "--days", "3", "-o", "json")), &answer); err != nil {
		r.t.Fatal(err)
	}
	gaps := slices.DeleteFunc(answer.Sources[0].Stretches, func(s coverage.Stretch) bool { return s.State != coverage.Gap })
	if len(gaps) != 1 || gaps[0].Span != gap {
		r.t.Errorf("coverage -o json tells of %+v, want %s", gaps, gap)
	}
	span := func(start, end cdr.Instant) string { return start.String() + "/" + end.String() }
	r.demand(0, "is complete", "coverage", "--require", span(gap.EndExclusive, gap.EndExclusive.Add(time.Hour)))
	r.demand(exitDifference, "  gap "+stamp(gap.EndExclusive-1)+" to "+stamp(gap.EndExclusive)+" (1 s)", "coverage", "--require", span(gap.EndExclusive-1, gap.EndExclusive.Add(time.Hour)))

	var calendar struct{ Seconds map[string]int64 }
	if err := json.Unmarshal([]byte(r.get(page+"/coverage?source=acme&days=3")), &calendar); err != nil || calendar.Seconds["gap"] != int64(gap.Duration().Seconds()) {
		r.t.Errorf("the page tells of %d seconds of gaps, %v", calendar.Seconds["gap"], err)
	}
	var excerpt coverage.Excerpt
	err := json.Unmarshal([]byte(r.get(fmt.Sprintf("%s/coverage/receipts?source=acme&from=%s&to=%s", page, gap.StartInclusive, gap.StartInclusive.Add(time.Hour)))), &excerpt)
	if err != nil || !slices.ContainsFunc(excerpt.Receipts, func(e coverage.Entry) bool { return e.Gap == gap }) {
		r.t.Errorf("the page's receipts are %+v, %v", excerpt.Receipts, err)
	}
}

// get asks a daemon's page.
func (r *rig) get(url string) string {
	r.t.Helper()
	response, err := http.Get(url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s, %v, %s", url, response.Status, err, body)
	}
	return string(body)
}

// TestPositionsRealKafka: the commands of positions, beside a fleet and without one, and
// what is left of jobs and readers where topics hold what nobody can read.
func TestPositionsRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		o := rigOptions{span: time.Hour, rate: 0.2, profiles: []string{"unlimited"}, window: 30 * time.Minute, sources: []string{bareSource, "initech"}, top: "ownership: group"}
		r := newRig(t, cluster.Bootstrap(), o)
		r.runToEnd(time.Minute)
		r.part("beside a fleet", r.positionsBesideFleet)
		o.top = "" // a fleet's members take their time to come and go
		r.write("cdrbus.yaml", r.configuration(o))
		r.part("position lost", func() { r.positionLost(cluster) })
		r.part("terminal", r.editOnTerminal)
		r.part("adopted", func() { r.adoptAll(&o) })
		r.part("moved", func() { r.moveSource(&o) })
		r.part("unreadable", r.readPastGarbage)
		r.part("refused source", r.jobForRefused)
		r.runToEnd(time.Minute)
		r.demandOnce()
	})
}

// part runs a part of a test under a name of its own.
func (r *rig) part(name string, do func()) {
	r.reader() // which is kept, and so belongs to the whole
	whole := r.t
	defer func() { r.t = whole }()
	whole.Run(name, func(t *testing.T) {
		r.t = t
		do()
	})
}

// positionsBesideFleet: a member does what a command asks, and nobody is disturbed.
func (r *rig) positionsBesideFleet() {
	members := []*process{r.startLive(), r.startLive()}
	before := len(r.readThrough().events)
	back := r.start.Add(10 * time.Minute)
	r.demand(0, "accepted by ", "offsets", "reset", bareSource, "--to", back.String(), "--yes")
	kafkatest.Eventually(r.t, time.Minute, "the live edge is where it was", func() error {
		if reached := r.lastWatermark(bareSource); reached < r.until {
			return fmt.Errorf("it is at %s", reached)
		}
		return nil
	})
	r.demand(0, "runs", "offsets", "list")
	r.demand(0, "journal from", "offsets", "get", "initech")
	r.demand(exitUsage, "did you mean acme?", "offsets", "get", "acne")
	r.demand(exitFailure, "the configuration places it in shard", "offsets", "move", bareSource, "--from-shard", "0", "--to-shard", "1", "--yes")
	for _, m := range members {
		_ = m.command.Process.Signal(syscall.SIGTERM)
		<-m.ended
	}
	if after := len(r.readThrough().events); after < before {
		r.t.Errorf("%d events became %d", before, after)
	}
	r.demandOnce()
}

// positionLost: an administrator has deleted the topic of the positions, and they are
// made anew from the last receipts.
func (r *rig) positionLost(cluster *kafkatest.Cluster) {
	before := r.breakPosition().position.Counter
	r.deleteTopic(cluster, "webex.cdr.offsets")
	r.demand(exitFailure, "cdrbus offsets set acme --from-receipts -c "+r.config, "run", "--until", r.until.String())
	r.demand(0, "cdrbus offsets set acme --from-receipts -c "+r.config, "offsets", "list")
	for _, source := range r.sources {
		r.demand(0, "made anew from the receipt of commit", "offsets", "set", source, "--from-receipts", "--yes", alone)
	}
	r.demand(0, fmt.Sprintf("counter           %d\n", before+1), "offsets", "get", bareSource)
	r.runToEnd(time.Minute)
}

// deleteTopic deletes a topic and waits until it has gone.
func (r *rig) deleteTopic(cluster *kafkatest.Cluster, topic string) {
	r.t.Helper()
	client := cluster.AdminClient(r.t)
	if _, err := client.DeleteTopics(r.t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil {
		r.t.Fatal(err)
	}
	kafkatest.Eventually(r.t, time.Minute, topic+" has gone", func() error {
		answer, err := client.Metadata(r.t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
		if err == nil && answer.Topics[0].Error == nil {
			err = errors.New("it is there")
		}
		return err
	})
}

// editOnTerminal: a person is asked, may say no or go away, and is believed.
func (r *rig) editOnTerminal() {
	before := r.breakPosition().position.Counter
	for _, c := range []struct {
		answer, says string
		counter      cdr.Counter
	}{
		{"no\n", "not done: the answer was not yes", before},
		{"\x03", "not done: interrupted", before},
		{"yes\n", "done: source acme", before + 1},
	} {
		command := exec.Command("script", "-qec", fmt.Sprintf("'%s' offsets reset acme --to %s %s -c '%s'", r.binary(), r.start, alone, r.config), os.DevNull)
		typed, err := command.StdinPipe()
		if err != nil {
			r.t.Fatal(err)
		}
		screen := &syncBuffer{}
		command.Stdout, command.Stderr = screen, screen
		if err := command.Start(); err != nil {
			r.t.Fatal(err)
		}
		kafkatest.Eventually(r.t, time.Minute, "the question is asked", func() error {
			if text := string(screen.tail(1 << 16)); !strings.Contains(text, "Type yes: ") {
				return errors.New(text)
			}
			return nil
		})
		if _, err := io.WriteString(typed, c.answer); err != nil {
			r.t.Fatal(err)
		}
		_ = command.Wait() // the text tells
		if text := string(screen.tail(1 << 16)); !strings.Contains(text, c.says) || !strings.Contains(text, "is fetched again") {
			r.t.Errorf("answer %q: want %q in\n%s", c.answer, c.says, text)
		}
		if now := r.breakPosition().position.Counter; now != c.counter {
			r.t.Errorf("after answer %q the counter is %d, want %d", c.answer, now, c.counter)
		}
	}
	r.runToEnd(time.Minute)
}

// adoptAll: another prefix, and another definition, are accepted for all sources that are
// refused for it, and for no other.
func (r *rig) adoptAll(o *rigOptions) {
	for _, c := range []struct {
		change func()
		flag   string
	}{
		{func() { o.kafka = "  transactional_id_prefix: another" }, "--prefix"},
		{func() { r.feedURL = strings.Replace(r.feedURL, "127.0.0.1", "localhost", 1) }, "--definition"},
	} {
		c.change()
		r.write("cdrbus.yaml", r.configuration(*o))
		r.demand(0, "cdrbus offsets adopt acme "+c.flag+" -c "+r.config, "offsets", "list")
		r.demand(0, "2 sources to change. Nothing was changed.", "offsets", "adopt", "--all", c.flag, "--dry-run")
		r.demand(0, "done: source initech", "offsets", "adopt", "--all", c.flag, "--yes", alone)
		r.demand(0, "0 sources to change", "offsets", "adopt", "--all", c.flag, "--yes", alone)
		r.runToEnd(time.Minute)
	}
}

// moveSource: after a move, what is left in the former shards is told as before.
func (r *rig) moveSource(o *rigOptions) {
	var target int
	for key := 0; ; key++ {
		if target = partition.Of(fmt.Append(nil, key), shards); target != r.homeOf(bareSource) && target != r.homeOf("initech") {
			o.limits = fmt.Sprintf("{initial_per_minute: 6000, pages_per_minute: 60000}\n    shard_key: \"%d\"", key)
			break
		}
	}
	r.write("cdrbus.yaml", r.configuration(*o))
	span := cdr.Span{StartInclusive: r.start, EndExclusive: r.until}
	for _, source := range r.sources {
		r.demand(0, "done: source "+source, "offsets", "move", source, "--from-shard", fmt.Sprint(r.homeOf(source)), "--to-shard", fmt.Sprint(target), "--yes", alone)
		r.demandRead(source, span)
	}
	r.runToEnd(time.Minute)
	r.demandRead(bareSource, span)
	r.demand(0, " 0 missing, 0 unexpected, 0 doubled, 0 different", "verify", "--source", bareSource, "--from", r.start.String(), "--to", r.until.String(), alone)
}

// homeOf is the shard where a source is at home.
func (r *rig) homeOf(source string) int {
	r.t.Helper()
	home := -1
	r.each("webex.cdr.offsets", shards, func(partition int, record committed.Record) {
		if p, err := offsets.DecodePosition(record.Value); err == nil && string(record.Key) == source && p.Shard == partition {
			home = partition
		}
	})
	return home
}

// demandRead demands that coverage says of a whole span that it was read.
func (r *rig) demandRead(source string, span cdr.Span) {
	r.t.Helper()
	var answer coverage.Answer
	out := r.demand(0, "", "coverage", "--source", source, "--from", span.StartInclusive.String(), "--to", span.EndExclusive.String(), "-o", "json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		r.t.Fatal(err)
	}
	for _, s := range answer.Sources[0].Stretches {
		if s.State != coverage.Settled && s.State != coverage.Proven {
			r.t.Errorf("%s of %s is %s", s.Span, source, s.State)
		}
	}
}

// readPastGarbage: foreign records, events that cannot be read and schemas that the
// registry has lost are counted and passed over. Only a repair, which could publish
// again what it cannot read, is refused.
func (r *rig) readPastGarbage() {
	events := len(readTail(r.t, r.tail("--from", "earliest", "--no-follow")))
	underLostSchema := []byte{0, 0, 0, 0x12, 0x67}
	for _, value := range [][]byte{[]byte("{}"), nil, append(slices.Clone(underLostSchema), "not an event"...)} {
		if err := r.produceAll(&kgo.Record{Topic: "webex.cdr.events", Partition: 3, Key: []byte("x"), Value: value}); err != nil {
			r.t.Fatal(err)
		}
	}
	home := int32(r.homeOf(bareSource))
	if err := r.produceAll(&kgo.Record{Topic: "webex.cdr.windows", Partition: home, Key: []byte(bareSource), Value: append(slices.Clone(underLostSchema), "no receipt"...)}); err != nil {
		r.t.Fatal(err)
	}
	code, out, says := r.ask("tail", "--from", "earliest", "--no-follow")
	if code != 0 || len(readTail(r.t, []byte(out))) != events || !strings.Contains(says, "skipped 3 records: 2 no events of cdrbus, 0 not decodable, 1 under a schema that the registry has lost") {
		r.t.Errorf("tail: exit code %d, %s", code, says)
	}
	span := []string{"--source", bareSource, "--from", r.start.String(), "--to", r.until.String(), alone}
	r.demand(0, "3 records of the topic are no events that could be read", append([]string{"verify"}, span...)...)
	r.demand(exitFailure, "bring the schemas back, or verify without --repair", append([]string{"verify", "--repair"}, span...)...)
	r.demand(0, "1 record of the windows topic skipped", "coverage", "--source", bareSource, "--days", "2")
}

// jobForRefused: a source that waits for a person does no jobs, and says so; another of
// the same daemon does.
func (r *rig) jobForRefused() {
	home := int32(r.homeOf(bareSource))
	if err := r.produceAll(&kgo.Record{Topic: "webex.cdr.offsets", Partition: home, Key: []byte(bareSource)}); err != nil {
		r.t.Fatal(err)
	}
	span := []string{"--from", r.start.String(), "--to", r.until.String()}
	daemon := r.startLive()
	refused := r.command("verify", append(span, "--source", bareSource)...)
	left := r.leave(r.command("verify", append(span, "--source", "initech")...))
	r.demand(0, " 0 missing, ", append([]string{"verify", "--source", "initech"}, span...)...)
	<-refused.ended
	if text := string(refused.log.tail(1 << 16)); refused.command.ProcessState.ExitCode() != exitFailure || !strings.Contains(text, "waits for a person itself") {
		r.t.Errorf("exit code %d, %s", refused.command.ProcessState.ExitCode(), text)
	}
	r.demand(0, " 0 missing, ", "jobs", "follow", left)
	r.demand(exitUsage, "did you mean acme?", append([]string{"verify", "--source", "acne"}, span...)...)
	r.demand(exitUsage, "there is no such job", "jobs", "follow", "20261122-101500-3f2a9c41")
	r.demand(0, "waits for a person itself", "jobs", "list")
	r.demand(0, "done: source acme", "offsets", "set", bareSource, "--from-receipts", "--yes")
	_ = daemon.command.Process.Signal(syscall.SIGTERM)
	<-daemon.ended
}

// leave interrupts a command that waits for an owner, and returns the job that it leaves.
// Nobody may take its end for that of the job.
func (r *rig) leave(c *commandProcess) (job string) {
	r.t.Helper()
	kafkatest.Eventually(r.t, time.Minute, "the command waits for an owner", func() error {
		if text := string(c.log.tail(1 << 16)); !strings.Contains(text, "waiting up to") {
			return errors.New(text)
		}
		return nil
	})
	_ = c.command.Process.Signal(syscall.SIGINT)
	<-c.ended
	text := string(c.log.tail(1 << 16))
	if code := c.command.ProcessState.ExitCode(); code != exitFailure || !strings.Contains(text, "goes on without this command") {
		r.t.Errorf("interrupted: exit code %d, %s", code, text)
	}
	job, _, _ = strings.Cut(strings.TrimPrefix(text, "job "), ":")
	return job
}
