package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/coverage"
	"cdrbus/internal/daemon"
	"cdrbus/internal/embedded"
	"cdrbus/offsets"
)

// receiptsOf puts receipts into the windows topic of an embedded Kafka, as a daemon of
// the returned configuration has left them: of acme all of the last eight days but one
// hour is settled, globex is brand-new.
func receiptsOf(t *testing.T, today cdr.Instant) (path string) {
	t.Helper()
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	folder := t.TempDir()
	text := fmt.Sprintf("kafka: {brokers: [%s], shards: 2}\nschema_registry: {url: %s}\nsources:\n", cluster.Brokers()[0], cluster.RegistryURL())
	for _, name := range []string{"acme", "globex"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("  - {name: %s, url: \"http://localhost:1/v1/cdr_feed\", token_file: %s, start: 24h}\n", name, name)
	}
	path = filepath.Join(folder, "cdrbus.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	writeReceipts(t, cluster, daemon.ShardOf(&cfg.Sources[0], 2), acmesWeek(today))
	return path
}

// acmesWeek is one receipt an hour; the one of six o'clock yesterday is missing.
func acmesWeek(today cdr.Instant) (receipts []offsets.Receipt) {
	for n := -8 * 24; n < 0; n++ {
		start := today + cdr.Instant(n)*3600
		r := offsets.Receipt{
			Source: "acme", Counter: cdr.Counter(len(receipts) + 1), Purpose: cdr.Live, Endpoint: cdr.Feed, TotalCount: -1,
			Asked: cdr.Span{StartInclusive: start, EndExclusive: start + 3600}, CommitTime: start.Time().Add(70 * time.Minute),
			Items: 7, Published: 7, DistinctIDs: 7, FeedPublished: start + 3600,
		}
		if n == -18 {
			r.Unproven = "the feed announced 8 records and returned 7"
		}
		if n == -1 {
			r.FeedSettled = start + 3600
		}
		receipts = append(receipts, r)
	}
	return receipts
}

func writeReceipts(t *testing.T, cluster *embedded.Cluster, shard int, receipts []offsets.Receipt) {
	t.Helper()
	const topic = "webex.cdr.windows"
	client := &kafka.Client{Addr: kafka.TCP(cluster.Brokers()...), Timeout: 10 * time.Second}
	created, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}}})
	if err != nil || created.Errors[topic] != nil {
		t.Fatal(err, created.Errors)
	}
	codec, err := offsets.NewReceiptCodec(1)
	if err != nil {
		t.Fatal(err)
	}
	var records []kafka.Record
	for _, r := range receipts {
		value, err := codec.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, kafka.Record{Key: kafka.NewBytes([]byte(r.Source)), Value: kafka.NewBytes(value), Time: r.CommitTime})
	}
	records = append(records, kafka.Record{Key: kafka.NewBytes([]byte("acme")), Value: kafka.NewBytes([]byte("nonsense")), Time: time.Now()})
	produced, err := client.Produce(t.Context(), &kafka.ProduceRequest{Topic: topic, Partition: shard, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...)})
	if err != nil || produced.Error != nil {
		t.Fatal(err, produced)
	}
}

// TestCoverageCommand asks the command what a bill run asks.
func TestCoverageCommand(t *testing.T) {
	now := cdr.InstantOf(time.Now())
	today := now - now%(24*3600)
	day := func(ago int) string { return today.Time().AddDate(0, 0, -ago).Format(time.DateOnly) }
	path := receiptsOf(t, today)
	for _, c := range []struct {
		args         string
		code         int
		stdout, also string
	}{
		{"--source acme --require " + day(3), exitAsked, "is complete: proven and settled", ""},
		{"--source acme --require " + day(1), exitDifference, "unproven " + day(1) + " 06:00:00 to " + day(1) + " 07:00:00 (1 h): the feed announced 8", "1 of 1 required spans"},
		{"--source acme --require " + day(3) + " --require " + day(1), exitDifference, "is complete", "1 of 2 required spans"},
		{"--source acme --require " + day(1) + "T00:00:00Z/" + day(1) + "T06:00:00Z", exitAsked, "is complete", ""},
		{"--source acme --days 3", exitAsked, "unread    " + day(0) + " 00:00:00", ""},
		{"--source acme --from " + day(2) + " --to " + day(1), exitAsked, "settled  " + day(2) + " 00:00:00  " + day(1) + " 00:00:00  1 d", ""},
		{"", exitAsked, "1 record of the windows topic skipped", ""},
		{"--require " + day(3), exitUsage, "", "source globex has no receipt: has cdrbus run"},
		{"--source acme --require " + day(100), exitUsage, "", "to read it: cdrbus backfill -c " + path + " --source acme --from"},
		{"--source acme --require " + day(-1), exitUsage, "", "ends in the future; it can be complete by"},
		{"--source acme --require " + day(1) + "T06:00:00Z/" + day(1) + "T05:00:00Z", exitUsage, "", "the end must be later than the start"},
		{"--source acme --from " + day(1) + " --to " + day(2), exitUsage, "", "the end must be later than the start"},
		{"--source acme --from " + day(-1), exitUsage, "", "begins in the future"},
		{"--source acme --require soon", exitUsage, "", "want a day such as 2026-11-22"},
		{"--source acmee", exitUsage, "", "did you mean acme?"},
		{"--time-zone Berlin", exitUsage, "", "such as Europe/Berlin"},
		{"--days 0", exitUsage, "", "want 1 or more"},
		{"-o text", exitUsage, "", "want table or json"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"coverage", "-c", path}, strings.Fields(c.args)...), &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.also) {
			t.Errorf("coverage %s: exit %d, want %d; want %q and %q in\n%s%s", c.args, code, c.code, c.stdout, c.also, stdout.String(), stderr.String())
		}
	}
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"coverage", "-c", path, "--source", "acme", "--require", day(1), "-o", "json"}, &stdout, &stderr)
	var answer coverage.Answer
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Required) != 1 || answer.Required[0].Complete || answer.Required[0].Lacking[0].Seconds != 3600 || answer.Sources[0].Seconds[coverage.Settled] != 23*3600 {
		t.Errorf("the JSON says %+v", answer)
	}
}
