package daemon_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// Somebody else at the topics: what a daemon that runs, or one that starts, makes
// of it. Never is anything lost or doubled in silence.

const offsetsTopic = "webex.cdr.offsets"

// life is one daemon that runs in the background, with a log of its own.
type life struct {
	t     *testing.T
	board *status.Board
	err   error
	logs  *observer.ObservedLogs
	end   context.CancelFunc
	ended chan struct{}
}

func (w *world) live(cfg *config.Config, until cdr.Instant) *life {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	core, logs := observer.New(zap.InfoLevel)
	l := &life{t: w.t, logs: logs, end: cancel, ended: make(chan struct{})}
	its := *w
	its.log = zap.New(core)
	go func() {
		defer close(l.ended)
		l.board, l.err = its.run(ctx, cfg, until)
	}()
	return l
}

// stop ends the daemon, or waits for its own end.
func (l *life) stop() *life {
	l.end()
	<-l.ended
	return l
}

// source is what the board shows of a source at the end.
func (l *life) source(name cdr.SourceName) status.SourceView {
	l.t.Helper()
	for _, s := range l.board.Snapshot().Sources {
		if s.Name == name {
			return s
		}
	}
	l.t.Fatalf("the board shows no source %s", name)
	return status.SourceView{}
}

// warnings are the warnings and errors that its log tells.
func (l *life) warnings() string {
	var text strings.Builder
	for _, entry := range l.logs.All() {
		if entry.Level < zapcore.WarnLevel {
			continue
		}
		text.WriteString(entry.Message)
		for _, value := range entry.ContextMap() {
			if s, ok := value.(string); ok {
				text.WriteString("; " + s)
			}
		}
		text.WriteString("\n")
	}
	return text.String()
}

func (l *life) demandWarning(says string) {
	l.t.Helper()
	if !strings.Contains(l.warnings(), says) {
		l.t.Errorf("the log does not warn of %q:\n%s", says, l.warnings())
	}
}

func (l *life) demandRefused(name cdr.SourceName, says string) {
	l.t.Helper()
	if s := l.source(name); s.State != status.Refused || !strings.Contains(s.Reason, says) {
		l.t.Errorf("%s is %s (%s), want it refused because %q", name, s.State, s.Reason, says)
	}
}

// client speaks to the world's Kafka as a stranger.
func (w *world) client(more ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	options := append(more, kgo.SeedBrokers(w.cluster.Brokers()...), kgo.Dialer(w.network.DialContext), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	client, err := kgo.NewClient(options...)
	if err != nil {
		w.t.Fatal(err)
	}
	return client
}

func (w *world) intrude(partition int, key string, value []byte) {
	w.t.Helper()
	w.spoiled = true
	client := w.client()
	defer client.Close()
	record := &kgo.Record{Topic: offsetsTopic, Partition: int32(partition), Key: []byte(key), Value: value}
	if err := client.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// intrudePosition writes a sound position of acme, changed.
func (w *world) intrudePosition(p offsets.Position, change func(*offsets.Position)) {
	w.t.Helper()
	change(&p)
	value, err := p.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	w.intrude(p.Shard, "acme", value)
}

// abortAsStranger leaves an aborted transaction behind.
func (w *world) abortAsStranger(partition int) {
	w.t.Helper()
	client := w.client(kgo.TransactionalID("stranger"))
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		w.t.Fatal(err)
	}
	client.ProduceSync(w.t.Context(), &kgo.Record{Topic: offsetsTopic, Partition: int32(partition), Key: []byte("acme"), Value: []byte("x")})
	if err := client.EndTransaction(w.t.Context(), kgo.TryAbort); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) administer(request kmsg.Request) {
	w.t.Helper()
	client := w.client()
	defer client.Close()
	response, err := client.Request(w.t.Context(), request)
	if err != nil {
		w.t.Fatal(err)
	}
	var code int16
	switch r := response.(type) {
	case *kmsg.DeleteRecordsResponse:
		code = r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.DeleteTopicsResponse:
		code = r.Topics[0].ErrorCode
	case *kmsg.CreateTopicsResponse:
		code = r.Topics[0].ErrorCode
	case *kmsg.IncrementalAlterConfigsResponse:
		code = r.Resources[0].ErrorCode
	case *kmsg.CreatePartitionsResponse:
		code = r.Topics[0].ErrorCode
	}
	if code != 0 {
		w.t.Fatalf("%T: error code %d", request, code)
	}
}

// truncate removes all that a partition has, as its retention does.
func (w *world) truncate(name string, partition int) {
	request := kmsg.NewPtrDeleteRecordsRequest()
	topic, p := kmsg.NewDeleteRecordsRequestTopic(), kmsg.NewDeleteRecordsRequestTopicPartition()
	topic.Topic, p.Partition, p.Offset = name, int32(partition), -1
	topic.Partitions = append(topic.Partitions, p)
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 10000
	w.administer(request)
}

func (w *world) keepForever(name string) {
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	topic, setting := kmsg.NewIncrementalAlterConfigsRequestResource(), kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	topic.ResourceType, topic.ResourceName = kmsg.ConfigResourceTypeTopic, name
	setting.Name, setting.Value = "retention.ms", kmsg.StringPtr("-1")
	topic.Configs = append(topic.Configs, setting)
	request.Resources = append(request.Resources, topic)
	w.administer(request)
}

func (w *world) addPartitions(name string, count int) {
	request := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = name, int32(count)
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 10000
	w.administer(request)
}

// makeAnew deletes a topic and creates it again.
func (w *world) makeAnew(name string, partitions int) {
	remove := kmsg.NewPtrDeleteTopicsRequest()
	removed := kmsg.NewDeleteTopicsRequestTopic()
	removed.Topic, remove.TopicNames = &name, []string{name}
	remove.Topics = append(remove.Topics, removed)
	w.administer(remove)
	create := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(partitions), 1
	for key, value := range map[string]map[string]string{
		offsetsTopic: {"cleanup.policy": "compact", "delete.retention.ms": "604800000"},
		idsTopic:     {"retention.ms": "-1"},
	}[name] {
		setting := kmsg.NewCreateTopicsRequestTopicConfig()
		setting.Name, setting.Value = key, kmsg.StringPtr(value)
		topic.Configs = append(topic.Configs, setting)
	}
	create.Topics = append(create.Topics, topic)
	w.administer(create)
}

// pair is a world of two sources that share a shard.
func newPair(t *testing.T, poison ...simulator.Poison) (*world, *config.Config) {
	w := newUnlimitedWorld(t, func(o *simulator.Options) {
		o.Records.Rate = 0.02
		if len(poison) > 0 {
			o.Records.PoisonShare, o.Records.PoisonKinds = 0.1, poison
		}
	})
	more := []string{"shard_key: both", "limits: {initial_per_minute: 6, pages_per_minute: 60}"}
	return w, w.config("", w.source("acme", more...), w.source("globex", more...))
}

// runOn lets a daemon publish what there is now.
func (w *world) runOn(cfg *config.Config) *life {
	w.t.Helper()
	l := w.live(cfg, cdr.InstantOf(time.Now().Add(-10*time.Minute)))
	select {
	case <-l.ended:
	case <-time.After(time.Hour):
		w.t.Error("an hour did not suffice")
	}
	return l.stop()
}

// doubled counts the events that are there twice, by source. It looks at the events
// alone, where positions are spoiled.
func (w *world) doubled() map[string]int {
	w.t.Helper()
	found, doubled := map[string]bool{}, map[string]int{}
	for _, r := range w.topic(eventsTopic, w.events) {
		source := headerOf(r, "ce_source")
		event := source + " " + headerOf(r, "ce_id") + " " + headerOf(r, "revision")
		if found[event] {
			doubled[source]++
		}
		found[event] = true
	}
	return doubled
}

func (w *world) demandNothingTwice() {
	w.t.Helper()
	if doubled := w.doubled(); len(doubled) > 0 {
		w.t.Errorf("events are there twice: %v", doubled)
	}
}

// TestStrangerInTheOffsetsTopic: whatever somebody else writes to the offsets topic
// of a running daemon, or does to it, is noticed with the next commit, and named.
// What the positions that follow heal is healed; two stories of one source are not.
func TestStrangerInTheOffsetsTopic(t *testing.T) {
	for _, c := range []struct {
		name    string
		intrude func(w *world, acme offsets.Position)
		warns   string // of the shard's loss; empty: there is nothing to notice
		refused bool   // acme
	}{
		{"unknown key", func(w *world, acme offsets.Position) { w.intrude(acme.Shard, "stranger", []byte("x")) },
			`somebody else writes to webex.cdr.offsets-`, false},
		{"garbage", func(w *world, acme offsets.Position) { w.intrude(acme.Shard, "acme", []byte("x")) },
			`key "acme"): stop it`, false},
		{"tombstone", func(w *world, acme offsets.Position) { w.intrude(acme.Shard, "acme", nil) },
			`key "acme"): stop it`, false},
		{"jumped counter", func(w *world, acme offsets.Position) {
			w.intrudePosition(acme, func(p *offsets.Position) {
				p.Counter, p.FeedPublished = p.Counter+10, p.FeedPublished.Add(time.Hour)
			})
		}, `key "acme"): stop it`, true},
		{"forked counter", func(w *world, acme offsets.Position) {
			w.intrudePosition(acme, func(p *offsets.Position) { p.Counter++ })
		}, `key "acme"): stop it`, true},
		{"aborted", func(w *world, acme offsets.Position) { w.abortAsStranger(acme.Shard) }, "", false},
		{"truncated", func(w *world, acme offsets.Position) { w.truncate(offsetsTopic, acme.Shard) }, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, cfg := newPair(t)
				first := w.live(cfg, 0)
				time.Sleep(5 * time.Minute)
				c.intrude(w, w.position("acme"))
				time.Sleep(10 * time.Minute)
				first.stop()
				if lost := first.logs.FilterMessageSnippet("shard lost").Len(); (lost > 0) != (c.warns != "") || lost > 1 {
					t.Errorf("the shard was lost %d times:\n%s", lost, first.warnings())
				}
				first.demandWarning(c.warns)
				second := w.runOn(cfg)
				if !c.refused {
					w.demandTruth("acme", "globex")
					return
				}
				for _, l := range []*life{first, second} {
					l.demandRefused("acme", "")
					if s := l.source("globex"); s.State == status.Refused {
						t.Errorf("globex is refused too: %s", s.Reason)
					}
				}
				w.demandNothingTwice()
			})
		})
	}
}

// TestOffsetsMadeAnewWhileRunning: sources that commit before it is noticed go on, and
// those whose position is lost are refused. None begins anew.
func TestOffsetsMadeAnewWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		l := w.live(cfg, 0)
		time.Sleep(5 * time.Minute)
		w.makeAnew(offsetsTopic, fewShards)
		time.Sleep(10 * time.Minute)
		l.stop()
		l.demandWarning("webex.cdr.offsets-1 was made anew, or lost records: a commit went to offset 0")
		second := w.runOn(cfg)
		refused := 0
		for _, name := range []cdr.SourceName{"acme", "globex"} {
			if second.source(name).State == status.Refused {
				second.demandRefused(name, "its position is lost")
				refused++
			}
		}
		if refused == 2 {
			t.Error("neither source goes on")
		}
		w.demandNothingTwice()
	})
}

// TestPositionsGoneBeforeAStart: sources that were there before do not begin anew.
func TestPositionsGoneBeforeAStart(t *testing.T) {
	for name, lose := range map[string]func(w *world, acme offsets.Position){
		"truncated": func(w *world, acme offsets.Position) { w.truncate(offsetsTopic, acme.Shard) },
		"made anew": func(w *world, _ offsets.Position) { w.makeAnew(offsetsTopic, fewShards) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, cfg := newPair(t)
				w.runOn(cfg)
				before := len(w.topic(eventsTopic, w.events))
				lose(w, w.position("acme"))
				l := w.runOn(cfg)
				l.demandRefused("acme", "its position is lost: webex.cdr.offsets-")
				l.demandRefused("globex", "its position is lost: webex.cdr.offsets-")
				if after := len(w.topic(eventsTopic, w.events)); after != before {
					t.Errorf("%d events were published", after-before)
				}
			})
		})
	}
}

// TestJumpedCounterBeforeAStart: a sound position that says more than was committed
// is no reason to pass over records.
func TestJumpedCounterBeforeAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		w.intrudePosition(w.position("acme"), func(p *offsets.Position) {
			p.Counter, p.FeedPublished = p.Counter+10, p.FeedPublished.Add(time.Hour)
		})
		time.Sleep(2 * time.Hour)
		w.runOn(cfg).demandRefused("acme", "its position has counter 12, and webex.cdr.windows-1 has no receipt of that commit")
		w.demandNothingTwice()
	})
}

// TestInterruptedAtLeastOnce: what at_least_once left between the ID journal and the
// position is named when exactly_once finds it, and at_least_once itself goes on.
func TestInterruptedAtLeastOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newPair(t)
		cfg := w.config("", w.source("acme"))
		loose := *cfg
		loose.Delivery = config.AtLeastOnce
		w.runOn(&loose)
		time.Sleep(time.Hour)
		var cut atomic.Bool
		cut.Store(true)
		w.cluster.Kafka.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.Kafka.KeepControl()
			for _, topic := range request.(*kmsg.ProduceRequest).Topics {
				if topic.Topic == offsetsTopic && cut.Load() {
					return refusal(request, int16(kafka.NotLeaderForPartition)), nil, true
				}
			}
			return nil, nil, false
		})
		l := w.live(&loose, 0)
		time.Sleep(3 * time.Minute)
		l.stop()
		cut.Store(false)

		const named = "delivery at_least_once was cut short"
		w.runOn(cfg).demandRefused("acme", "counter 3, and its position is at 2: the offsets topic was put back to an older state, or a run with "+named)
		if l := w.runOn(&loose); l.err != nil {
			t.Errorf("at_least_once ended with %v", l.err)
		}
		w.runOn(cfg).demandRefused("acme", "has counter 3 twice: a run with "+named)
		if lost := w.missing("acme"); lost > 0 {
			t.Errorf("%d records of acme are missing", lost)
		}
	})
}

// missing counts the records of a source up to its position that are not published.
func (w *world) missing(name string) (count int) {
	w.t.Helper()
	return w.missingBut(name, func(time.Time) bool { return false })
}

// missingBut leaves out those of some report times.
func (w *world) missingBut(name string, told func(time.Time) bool) (count int) {
	w.t.Helper()
	found := map[string]bool{}
	for _, r := range w.topic(eventsTopic, w.events) {
		found[headerOf(r, "ce_source")+" "+headerOf(r, "ce_id")] = true
	}
	span := cdr.Span{StartInclusive: w.start, EndExclusive: w.position(name).FeedPublished}
	for truth := range w.feed.Truth(name, span) {
		if truth.ReportID != "" && !found[daemon.EventSource(cdr.SourceName(name))+" "+truth.ReportID] && !told(truth.ReportTime) {
			count++
		}
	}
	return count
}

// TestPartitionsAdded: a running daemon goes on with those that it knows. The next
// one takes new partitions of events, and refuses new shards.
func TestPartitionsAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		l := w.live(cfg, 0)
		time.Sleep(5 * time.Minute)
		w.events = 7
		w.addPartitions(eventsTopic, w.events)
		time.Sleep(10 * time.Minute)
		if l.stop(); l.logs.FilterMessageSnippet("shard lost").Len() > 0 {
			t.Errorf("the shard was lost:\n%s", l.warnings())
		}
		w.runOn(cfg)
		w.demandTruth("acme", "globex")

		w.addPartitions(offsetsTopic, 5)
		const want = "topic webex.cdr.offsets: has 5 partitions, but kafka.shards is 2"
		if l := w.runOn(cfg); l.err == nil || !strings.Contains(l.err.Error(), want) {
			t.Errorf("the next start ended with %v, want %q", l.err, want)
		}
		w.demandTruth("acme", "globex")
	})
}

// TestShardsAddedWhileRunning: a daemon that runs stays with the shards that it
// was started with.
func TestShardsAddedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		l := w.live(cfg, 0)
		time.Sleep(5 * time.Minute)
		w.addPartitions(offsetsTopic, 5)
		time.Sleep(10 * time.Minute)
		if l.stop(); l.logs.FilterMessageSnippet("shard lost").Len() > 0 {
			t.Errorf("the shard was lost:\n%s", l.warnings())
		}
		w.demandTruth("acme", "globex")
	})
}

// TestEventsMadeAnewWithFewerPartitions: nothing is committed until the program is
// started again, and the log says so.
func TestEventsMadeAnewWithFewerPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		l := w.live(cfg, 0)
		time.Sleep(5 * time.Minute)
		w.events = 1
		w.makeAnew(eventsTopic, w.events)
		time.Sleep(10 * time.Minute)
		l.stop()
		l.demandWarning("made anew with fewer partitions, restart cdrbus")
		before := w.position("acme").FeedPublished
		w.runOn(cfg)
		if after := w.position("acme").FeedPublished; after <= before {
			t.Errorf("acme did not go on from %s", before)
		}
		w.demandNothingTwice()
	})
}

// TestExpiredTransactionalID: the coordinator has forgotten the shard's id. That is
// a take-over, and nothing else.
func TestExpiredTransactionalID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		var expired atomic.Bool
		for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.AddPartitionsToTxn} {
			w.cluster.Kafka.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
				w.cluster.Kafka.KeepControl()
				init, is := request.(*kmsg.InitProducerIDRequest)
				if is && init.ProducerID < 0 {
					expired.Store(false)
				}
				if !expired.Load() {
					return nil, nil, false
				}
				return refusal(request, int16(kafka.InvalidProducerIDMapping)), nil, true
			})
		}
		l := w.live(cfg, 0)
		time.Sleep(5 * time.Minute)
		expired.Store(true)
		time.Sleep(10 * time.Minute)
		l.stop()
		if lost := l.logs.FilterMessageSnippet("shard lost").Len(); lost != 1 {
			t.Errorf("the shard was lost %d times, want once:\n%s", lost, l.warnings())
		}
		l.demandWarning("Invalid Producer ID Mapping")
		w.runOn(cfg)
		w.demandTruth("acme", "globex")
	})
}

// fenceStaleEpochs makes kfake as strict as brokers are: who owned a shard before
// the last take-over gets no further epoch of it.
func (w *world) fenceStaleEpochs() {
	var mu sync.Mutex
	seen, stale := map[string]int16{}, map[string]int16{} // newest epoch in use; newest that is fenced; by transactional id
	fences := func(id string, epoch int16, asksForMore bool) bool {
		mu.Lock()
		defer mu.Unlock()
		if epoch < 0 {
			if newest, used := seen[id]; used {
				stale[id] = newest
			}
			return false
		}
		if newest, fenced := stale[id]; asksForMore && fenced && epoch <= newest {
			return true
		}
		seen[id] = max(seen[id], epoch)
		return false
	}
	w.cluster.Kafka.ControlKey(int16(kmsg.InitProducerID), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.Kafka.KeepControl()
		r := request.(*kmsg.InitProducerIDRequest)
		if r.TransactionalID == nil || !fences(*r.TransactionalID, r.ProducerEpoch, true) {
			return nil, nil, false
		}
		return refusal(request, int16(kafka.ProducerFenced)), nil, true
	})
	w.cluster.Kafka.ControlKey(int16(kmsg.AddPartitionsToTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.Kafka.KeepControl()
		r := request.(*kmsg.AddPartitionsToTxnRequest)
		fences(r.TransactionalID, r.ProducerEpoch, false)
		return nil, nil, false
	})
}

// TestTwoDeploymentsOfOnePrefix: two static processes fence one another in turns.
// That costs restores, and is told; nothing is lost or doubled.
func TestTwoDeploymentsOfOnePrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.fenceStaleEpochs()
		a, b := w.live(cfg, 0), w.live(cfg, 0)
		time.Sleep(20 * time.Minute)
		for _, l := range []*life{a.stop(), b.stop()} {
			l.demandWarning("another process takes the shard in turns with this one")
		}
		w.runOn(cfg)
		w.demandTruth("acme", "globex")
	})
}

// TestTwoDeploymentsOfTwoPrefixes: transactions under another prefix do not fence
// one another. Whoever comes second is refused; who come at once both are.
func TestTwoDeploymentsOfTwoPrefixes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		other := *cfg
		other.Kafka.TransactionalIDPrefix = "blue"
		a := w.live(cfg, 0)
		time.Sleep(5*time.Minute + 30*time.Second)
		b := w.runOn(&other)
		for _, name := range []cdr.SourceName{"acme", "globex"} {
			b.demandRefused(name, `its position was committed under transactional_id_prefix "cdrbus", which does not fence "blue"`)
		}
		time.Sleep(5 * time.Minute)
		if a.stop(); a.logs.FilterMessageSnippet("shard lost").Len() > 0 {
			t.Errorf("the first one was disturbed:\n%s", a.warnings())
		}
		w.demandTruth("acme", "globex")
	})
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		other := *cfg
		other.Kafka.TransactionalIDPrefix = "blue"
		w.delayTransactions(5 * time.Second) // so that both restore before either commits
		a, b := w.live(cfg, 0), w.live(&other, 0)
		time.Sleep(10 * time.Minute)
		for _, l := range []*life{a.stop(), b.stop()} {
			l.demandWarning("somebody else writes to webex.cdr.offsets-1")
			for _, name := range []cdr.SourceName{"acme", "globex"} {
				l.demandRefused(name, "its counter 1 comes again")
			}
		}
		w.demandNothingTwice()
	})
}

// delayTransactions lets no transaction begin for a while.
func (w *world) delayTransactions(d time.Duration) {
	until := time.Now().Add(d)
	w.cluster.Kafka.ControlKey(int16(kmsg.AddPartitionsToTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.Kafka.KeepControl()
		if time.Now().After(until) {
			return nil, nil, false
		}
		return refusal(request, concurrentTransactions), nil, true
	})
}

const concurrentTransactions = 51

// TestOneDeliveryAfterTheOther: the mode may change between two runs.
func TestOneDeliveryAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		loose := *cfg
		loose.Delivery = config.AtLeastOnce
		for _, c := range []*config.Config{cfg, &loose, cfg, &loose} {
			if l := w.runOn(c); l.err != nil {
				t.Errorf("with %s the run ended with %v", c.Delivery, l.err)
			}
			w.demandTruth("acme", "globex")
			time.Sleep(10 * time.Minute)
		}
	})
}

// TestBothDeliveriesAtOnce: at_least_once has nothing that fences it. Both daemons
// notice within a commit, and a source of which something was published twice is
// refused by the one that promised more.
func TestBothDeliveriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		loose := *cfg
		loose.Delivery = config.AtLeastOnce
		a := w.live(cfg, 0)
		time.Sleep(5*time.Minute + 30*time.Second)
		b := w.live(&loose, 0)
		time.Sleep(10 * time.Minute)
		for _, l := range []*life{a.stop(), b.stop()} {
			l.demandWarning("or another cdrbus on these topics, with another kafka.transactional_id_prefix or with delivery at_least_once")
		}
		next, doubled := w.runOn(cfg), w.doubled()
		t.Logf("published twice: %v", doubled)
		for _, name := range []cdr.SourceName{"acme", "globex"} {
			if doubled[daemon.EventSource(name)] > 0 {
				next.demandRefused(name, "writer")
			}
		}
	})
}
