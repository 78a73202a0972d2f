package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// world is everything around a daemon, inside one synctest bubble: a network in
// memory, a Kafka and a registry on it, and a simulated feed. Time is fake, so
// days pass in seconds and every run goes alike.
type world struct {
	t       *testing.T
	network *kfake.VirtualNetwork
	cluster *embedded.Cluster
	feed    *simulator.Simulator
	folder  string
	start   cdr.Instant
	settled cdr.Instant // records from there on may be late still; 0: all of them are there
	shards  int
	scopes  map[string]scope // of sources that are not an organization of their own name
	events  int              // partitions of the events topic
	spoiled bool             // the offsets topic holds what no cdrbus wrote
	kafka   string           // further settings of kafka, each behind a comma
	logs    *observer.ObservedLogs
	log     *zap.Logger

	dialKafka, dialFeed daemon.DialFunc // of daemons; tests set faulty ones
	metadataTTL         time.Duration   // of daemons: no leader moves
	verifyEvents        int             // of daemons, in a part of a verification
}

// scope is what a source gets of an organization.
type scope struct{ organization, location string }

const (
	feedPort    = 8080
	eventParts  = 3
	fewShards   = 2
	startedBack = 2 * time.Hour
	eventsTopic = "webex.cdr.events"
)

func newWorld(t *testing.T, tune func(*simulator.Options)) *world {
	t.Helper()
	return newWorldWith(t, embedded.Options{}, tune)
}

// newUnlimitedWorld is newWorld with a feed that answers as often as it is asked.
func newUnlimitedWorld(t *testing.T, tune func(*simulator.Options)) *world {
	t.Helper()
	return newWorld(t, func(o *simulator.Options) {
		if err := o.ApplyProfile("unlimited"); err != nil {
			t.Fatal(err)
		}
		if tune != nil {
			tune(o)
		}
	})
}

// eager is for sources of such a feed, which then never wait for their budget.
const eager = "limits: {initial_per_minute: 600, pages_per_minute: 6000}"

// newWorldWith is newWorld with a choice of brokers.
func newWorldWith(t *testing.T, brokers embedded.Options, tune func(*simulator.Options)) *world {
	t.Helper()
	w := &world{
		t: t, network: &kfake.VirtualNetwork{}, folder: t.TempDir(), shards: fewShards, events: eventParts,
		start: cdr.InstantOf(time.Now().Add(-startedBack)), metadataTTL: 10 * time.Second,
	}
	core, logs := observer.New(zap.InfoLevel)
	w.logs, w.log = logs, zap.New(core)
	w.dialKafka, w.dialFeed = w.network.DialContext, w.network.DialContext
	var err error
	brokers.Network = w.network
	if w.cluster, err = embedded.Start(brokers); err != nil {
		t.Fatal(err)
	}
	options := simulator.DefaultOptions()
	options.Records.Rate = 0.5
	options.Organizations = []simulator.Organization{{Name: "acme", Token: "token-acme"}, {Name: "globex", Token: "token-globex"}}
	if tune != nil {
		tune(&options)
	}
	if w.feed, err = simulator.New(options); err != nil {
		t.Fatal(err)
	}
	listener, err := w.network.Listen("tcp", fmt.Sprintf("localhost:%d", feedPort))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.feed.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := w.cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// source is the configuration of one source with a bare token.
func (w *world) source(name string, more ...string) string {
	path := filepath.Join(w.folder, name+".token")
	if err := os.WriteFile(path, []byte("token-"+name), 0o600); err != nil {
		w.t.Fatal(err)
	}
	lines := append([]string{
		"  - name: " + name,
		fmt.Sprintf("url: http://localhost:%d/v1/cdr_feed", feedPort),
		"token_file: " + path,
		"start: " + w.start.String(),
	}, more...)
	return strings.Join(lines, "\n    ") + "\n"
}

func (w *world) config(top string, sources ...string) *config.Config {
	w.t.Helper()
	text := fmt.Sprintf("%s\nkafka: {brokers: [%s], shards: %d, partitions: %d, compression: none%s}\nschema_registry: {url: %s}\nadmin: {listen: \"\"}\nsources:\n%s",
		top, strings.Join(w.cluster.Brokers(), ", "), w.shards, eventParts, w.kafka, w.cluster.RegistryURL(), strings.Join(sources, ""))
	path := filepath.Join(w.folder, "cdrbus.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cfg, err := config.Load(path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// run is one life of a daemon, until ctx ends or it has reached until.
func (w *world) run(ctx context.Context, cfg *config.Config, until cdr.Instant) (*status.Board, error) {
	board := status.New(status.Build{Version: "test"}, status.Options{})
	d, err := daemon.New(ctx, daemon.Options{
		Config: cfg, Log: w.log, Board: board, Version: "test", Until: until,
		DialKafka: w.dialKafka, DialFeed: w.dialFeed, MetadataTTL: w.metadataTTL, VerifyEvents: w.verifyEvents,
	})
	if err != nil {
		return board, err
	}
	defer d.Close()
	err = d.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return board, err
}

// runFor is run for a stretch of fake time.
func (w *world) runFor(cfg *config.Config, d time.Duration) *status.Board {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	timer := time.AfterFunc(d, cancel)
	defer timer.Stop()
	board, err := w.run(ctx, cfg, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	cancel()
	return board
}

// topic reads what is committed in a topic.
func (w *world) topic(name string, partitions int) []committed.Record {
	w.t.Helper()
	var records []committed.Record
	for partition := range partitions {
		records = append(records, w.partition(name, partition)...)
	}
	return records
}

// partition reads what is committed in a partition.
func (w *world) partition(name string, partition int) []committed.Record {
	w.t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: w.cluster.Brokers(), ClientID: "test", DialContext: w.network.DialContext})
	if err != nil {
		w.t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	var records []committed.Record
	reader := committed.NewReader(client)
	bounds, err := reader.Bounds(w.t.Context(), name, partition)
	if err != nil {
		w.t.Fatal(err)
	}
	_, _, err = reader.Read(w.t.Context(), name, partition, bounds.LogStart, -1, func(r committed.Record) error {
		r.Key, r.Value, r.Headers = append([]byte(nil), r.Key...), append([]byte(nil), r.Value...), append(r.Headers[:0:0], r.Headers...)
		for i := range r.Headers {
			r.Headers[i].Value = append([]byte(nil), r.Headers[i].Value...)
		}
		records = append(records, r)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

func headerOf(r committed.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// position is the last position of a source.
func (w *world) position(name string) offsets.Position {
	w.t.Helper()
	var last offsets.Position
	for _, r := range w.topic("webex.cdr.offsets", w.shards) {
		if string(r.Key) == name {
			p, err := offsets.DecodePosition(r.Value)
			if err != nil && w.spoiled {
				continue
			}
			if err != nil {
				w.t.Fatal(err)
			}
			if last.Counter > 0 && p.Counter != last.Counter+1 {
				w.t.Errorf("position of %s has counter %d after %d", name, p.Counter, last.Counter)
			}
			last = p
		}
	}
	return last
}

// receipts are those of a source, in order.
func (w *world) receipts(name string) []offsets.Receipt {
	w.t.Helper()
	var receipts []offsets.Receipt
	for _, r := range w.topic("webex.cdr.windows", w.shards) {
		if string(r.Key) != name {
			continue
		}
		id, err := offsets.ReceiptSchemaID(r.Value)
		if err != nil {
			w.t.Fatal(err)
		}
		codec, err := offsets.NewReceiptCodec(id)
		if err != nil {
			w.t.Fatal(err)
		}
		receipt, err := codec.Decode(r.Value)
		if err != nil {
			w.t.Fatal(err)
		}
		receipts = append(receipts, receipt)
	}
	return receipts
}

// demandTruth holds the topics against the feed: everything that it had of the
// sources from the start to their published watermark, once, and nothing else.
func (w *world) demandTruth(names ...string) (events int) {
	w.t.Helper()
	published := map[string]cdr.Instant{}
	ahead := map[string]cdr.Instant{} // by event source: cdr_stream has come further than the truth is compared
	for _, name := range names {
		p := w.position(name)
		published[name] = p.FeedPublished
		if p.StreamPublished > 0 {
			ahead[daemon.EventSource(cdr.SourceName(name))] = p.FeedPublished
		}
	}
	found := map[string]int{}
	for _, r := range w.topic(eventsTopic, w.events) {
		source := headerOf(r, "ce_source")
		at := headerOf(r, "ce_time")
		if edge := ahead[source]; edge > 0 && (at >= edge.String()[:19] || at < w.start.String()[:19]) {
			continue // by insertion, so what came late to the start is there too
		}
		found[source+" "+headerOf(r, "ce_id")]++
	}
	letters := map[string]int{}
	for _, r := range w.topic("webex.cdr.deadletter", w.shards) {
		if strings.HasPrefix(headerOf(r, "part"), "1/") {
			letters[string(r.Key)+" "+headerOf(r, "sha256")]++
		}
	}
	return w.compareTruth(found, letters, published)
}

// compareTruth does so with what was found: events by source and Report ID, dead
// letters by source and hash.
func (w *world) compareTruth(found, letters map[string]int, published map[string]cdr.Instant) (events int) {
	w.t.Helper()
	total := len(found)
	for name, published := range published {
		if published <= w.start {
			w.t.Fatalf("%s has published nothing", name)
		}
		scope, scoped := w.scopes[name]
		if !scoped {
			scope.organization = name
		}
		for truth := range w.feed.Truth(scope.organization, cdr.Span{StartInclusive: w.start, EndExclusive: published}) {
			if scope.location != "" && truth.Location != scope.location {
				continue
			}
			event, letter := daemon.EventSource(cdr.SourceName(name))+" "+truth.ReportID, name+" "+truth.SHA256
			stillLate := w.settled > 0 && truth.Late && cdr.InstantOf(truth.ReportTime) >= w.settled
			if n := found[event] + letters[letter]; n != 1 && !(n == 0 && stillLate) {
				w.t.Errorf("record %q of %s at %s is there %d times", truth.ReportID, name, truth.ReportTime, n)
			}
			delete(found, event)
			delete(letters, letter)
		}
	}
	for name, published := range published {
		w.forgiveEndInclusive(name, published, found, letters)
	}
	if len(found)+len(letters) > 0 {
		w.t.Errorf("%d events and %d dead letters are of no record of the feed", len(found), len(letters))
	}
	return total
}

// forgiveEndInclusive takes out of what was found the records of a source's last
// second, if the feed has the quirk that a window's end belongs to it.
func (w *world) forgiveEndInclusive(name string, published cdr.Instant, found, letters map[string]int) {
	w.t.Helper()
	scope, scoped := w.scopes[name]
	if !scoped {
		scope.organization = name
	}
	answers, err := w.feed.Answers(scope.organization)
	if err != nil {
		w.t.Fatal(err)
	}
	if !answers.EndInclusive {
		return
	}
	for truth := range w.feed.Truth(scope.organization, cdr.Span{StartInclusive: published, EndExclusive: published.Add(time.Second)}) {
		event, letter := daemon.EventSource(cdr.SourceName(name))+" "+truth.ReportID, name+" "+truth.SHA256
		if n := found[event] + letters[letter]; n > 1 {
			w.t.Errorf("record %q of %s, after its end, is there %d times", truth.ReportID, name, n)
		}
		delete(found, event)
		delete(letters, letter)
	}
}
