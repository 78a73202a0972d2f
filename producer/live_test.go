package producer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/committed"
	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
)

// These tests drive a shard over kafka-go's own transport against a cluster: the
// embedded one always, a real Apache Kafka where -kafka.versions asks for it.

const liveShards = testShard + 1

// live is a cluster and what one process knows of it.
type live struct {
	t      *testing.T
	client *kafka.Client
	reader *committed.Reader
	layout *Layout
	real   bool
}

// onEveryCluster runs a test on the embedded cluster and on each real one.
func onEveryCluster(t *testing.T, test func(l *live)) {
	t.Run("kfake", func(t *testing.T) { test(newEmbedded(t)) })
	t.Run("real", func(t *testing.T) {
		kafkatest.ForEachVersion(t, func(t *testing.T, version string) { test(newReal(t, version)) })
	})
}

func liveLayout() *Layout {
	layout := testLayout()
	layout.MaxMessageBytes[Events] = 40_000
	return layout
}

func newEmbedded(t *testing.T) *live {
	layout := liveLayout()
	cluster, err := embedded.Start(embedded.Options{Brokers: 3, Kafka: []kfake.Opt{
		kfake.SeedTopics(int32(layout.EventPartitions), layout.Names[Events]),
		kfake.SeedTopics(liveShards, layout.Names[DeadLetters:]...),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	return newLive(t, layout, cluster.Brokers(), false)
}

func newReal(t *testing.T, version string) *live {
	layout := liveLayout()
	cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
	for topic, name := range layout.Names {
		partitions, settings := liveShards, map[string]string{}
		switch Topic(topic) {
		case Events:
			partitions, settings["max.message.bytes"] = layout.EventPartitions, strconv.Itoa(layout.MaxMessageBytes[Events])
		case Positions:
			settings["cleanup.policy"] = "compact"
		}
		cluster.CreateTopic(t, name, partitions, settings)
	}
	return newLive(t, layout, cluster.Bootstrap(), true)
}

func newLive(t *testing.T, layout *Layout, brokers []string, real bool) *live {
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: brokers, ClientID: "producer-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kafkaconn.Close(client) })
	return &live{t: t, client: client, reader: committed.NewReader(client), layout: layout, real: real}
}

func (l *live) options() ShardOptions {
	return ShardOptions{TransactionalID: "cdrbus.offsets.3", Partition: testShard, Layout: l.layout}
}

func (l *live) takeOver(client *kafka.Client, o ShardOptions) *Shard {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for {
		s, err := TakeOver(ctx, client, o)
		if err == nil {
			return s
		}
		if ctx.Err() != nil {
			l.t.Fatal(err)
		}
	}
}

// values reads what is committed of a partition. For a transactional shard it
// demands that nothing is left open.
func (l *live) values(topic Topic, partition int, stable bool) (values []string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	_, bounds, err := l.reader.Read(ctx, l.layout.Names[topic], partition, committed.Earliest, committed.LastStable, func(r committed.Record) error {
		values = append(values, string(r.Value))
		return nil
	})
	if err != nil {
		l.t.Fatalf("read %s-%d: %v", l.layout.Names[topic], partition, err)
	}
	if stable && bounds.LastStable != bounds.HighWatermark {
		l.t.Errorf("%s-%d: last stable offset %d, high watermark %d: a transaction is open", l.layout.Names[topic], partition, bounds.LastStable, bounds.HighWatermark)
	}
	return values
}

// position is the number of the last committed window.
func (l *live) position() int {
	l.t.Helper()
	values := l.values(Positions, testShard, true)
	if len(values) == 0 {
		return 0
	}
	n, err := strconv.Atoi(values[len(values)-1])
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// check holds that windows 1 to n are in the log whole and once, and nothing else.
// It takes the shard over first: a commit that was answered is definite, but
// readers see it only when each partition has its marker, which a take-over
// waits for.
func (l *live) check(n int) {
	l.t.Helper()
	l.takeOver(l.client, l.options())
	want := map[string]bool{}
	for window := 1; window <= n; window++ {
		for i := range windowEvents {
			want[fmt.Sprintf("%d/%d %s", window, i, padding)] = true
		}
	}
	for p := range l.layout.EventPartitions {
		for _, v := range l.values(Events, p, true) {
			if !want[v] {
				l.t.Errorf("event %.20q is there twice, or nobody's", v)
			}
			delete(want, v)
		}
	}
	if len(want) > 0 {
		l.t.Errorf("%d events are missing", len(want))
	}
	for _, topic := range []Topic{DeadLetters, Receipts, IDs} {
		values := l.values(topic, testShard, true)
		if len(values) != n {
			l.t.Errorf("%d %s, want %d", len(values), topic, n)
		}
		for i, v := range values {
			if v != fmt.Sprint(i+1) {
				l.t.Errorf("%s are %v", topic, values)
				break
			}
		}
	}
}

// TestLiveCommits commits with each compression and counts the effects.
func TestLiveCommits(t *testing.T) {
	onEveryCluster(t, func(l *live) {
		n := 0
		for _, compression := range allCompressions {
			l.layout.Compression = compression
			var steps []Step
			o := l.options()
			o.Observe = func(s Step) { steps = append(steps, s) }
			s := l.takeOver(l.client, o)
			if got := l.position(); got != n {
				l.t.Fatalf("position is %d, want %d", got, n)
			}
			s.Restored()
			for range 4 {
				steps = nil
				n++
				result, ok := s.Commit(l.t.Context(), window(l.t, l.layout, n)).(Committed)
				if !ok {
					l.t.Fatalf("%s: window %d is not committed", compression, n)
				}
				if at := result.BaseOffset(Positions); at != int64(2*(n-1)) {
					l.t.Errorf("window %d: position at offset %d, want %d", n, at, 2*(n-1))
				}
				l.countEffects(steps)
			}
		}
		l.check(n)
	})
}

// countEffects demands three transactional requests and one round: no Produce
// more than there are leaders, nothing repeated but what a busy coordinator asks.
func (l *live) countEffects(steps []Step) {
	l.t.Helper()
	count := map[Request]int{}
	for _, s := range steps {
		if s.Err != nil || s.Code != 0 && s.Code != kafka.ConcurrentTransactions && s.Code != kafka.NotEnoughReplicas {
			l.t.Errorf("%s: code %d, %v", s.Request, s.Code, s.Err)
		}
		if s.Code == 0 {
			count[s.Request]++
		}
		if s.Round > 1 {
			l.t.Errorf("a small window takes round %d", s.Round)
		}
	}
	if count[InitProducerID] > 1 || count[AddPartitions] != 1 || count[CommitTransaction] != 1 || count[Produce] < 1 || count[Produce] > 3 || count[AbortTransaction] != 0 {
		l.t.Errorf("effects of a commit: %v", count)
	}
}

// TestLiveAbortOnTimeout lets the brokers swallow batches until the owner's time
// is up: nothing of the window shows, and the next attempt commits it.
func TestLiveAbortOnTimeout(t *testing.T) {
	onEveryCluster(t, func(l *live) {
		swallow := &swallowing{RoundTripper: l.client.Transport}
		client := *l.client
		client.Transport, client.Timeout = swallow, 500*time.Millisecond
		o := l.options()
		o.AbortAfter, o.TransactionTimeout = 2*time.Second, 10*time.Second
		s := l.takeOver(&client, o)
		s.Restored()
		swallow.on = true
		began := time.Now()
		result, ok := s.Commit(l.t.Context(), window(l.t, l.layout, 1)).(MustRestore)
		if took := time.Since(began); !ok || result.Blame != BlameTime || took > 4*time.Second {
			l.t.Fatalf("result is %v after %s, want MustRestore for lack of time", result, took)
		}
		swallow.on = false
		if _, ok := s.Recover(l.t.Context()).(Recovered); !ok {
			l.t.Fatal("the shard does not recover")
		}
		if n := l.position(); n != 0 {
			l.t.Fatalf("position %d is committed", n)
		}
		s.Restored()
		if _, ok := s.Commit(l.t.Context(), window(l.t, l.layout, 1)).(Committed); !ok {
			l.t.Fatal("the next attempt does not commit")
		}
		l.check(1)
	})
}

// swallowing carries out batches for one partition only, and answers none.
type swallowing struct {
	kafka.RoundTripper
	on bool
}

func (s *swallowing) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	response, err := s.RoundTripper.RoundTrip(ctx, addr, request)
	if _, produce := request.(*rawproduce.Request); s.on && produce {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return response, err
}

// TestLiveFencing lets a second owner take over in the middle of a commit.
func TestLiveFencing(t *testing.T) {
	onEveryCluster(t, func(l *live) {
		first := l.takeOver(l.client, l.options())
		first.Restored()
		if _, ok := first.Commit(l.t.Context(), window(l.t, l.layout, 1)).(Committed); !ok {
			l.t.Fatal("window 1 is not committed")
		}
		var second *Shard
		first.wire.observe = func(s Step) {
			if s.Request == Produce && second == nil {
				second = l.takeOver(l.client, l.options())
			}
		}
		result := first.Commit(l.t.Context(), window(l.t, l.layout, 2))
		var failure *Failure
		if fenced, ok := result.(Fenced); !ok || !errors.As(fenced.Cause, &failure) {
			l.t.Errorf("the former owner gets %v, want Fenced", result)
		}
		if n := l.position(); n != 1 {
			l.t.Fatalf("position is %d, want 1", n)
		}
		second.Restored()
		if _, ok := second.Commit(l.t.Context(), window(l.t, l.layout, 2)).(Committed); !ok {
			l.t.Error("the new owner cannot commit")
		}
		l.check(2)
	})
}

// TestLiveProve: ownership is proven before and after a commit, and not after
// somebody else took over, who is not disturbed by the question.
func TestLiveProve(t *testing.T) {
	onEveryCluster(t, func(l *live) {
		first := l.takeOver(l.client, l.options())
		for n := range 2 {
			if err := first.Prove(l.t.Context()); err != nil {
				l.t.Fatalf("with %d windows committed: %v", n, err)
			}
			if n == 0 {
				first.Restored()
			}
			if result, ok := first.Commit(l.t.Context(), window(l.t, l.layout, n+1)).(Committed); !ok {
				l.t.Fatalf("window %d is not committed: %v", n+1, result)
			}
		}
		second := l.takeOver(l.client, l.options())
		if err := first.Prove(l.t.Context()); err == nil {
			l.t.Error("the former owner proves that it owns the shard")
		}
		if !l.real {
			return // kfake gives the former owner an epoch, and fences the new one
		}
		second.Restored()
		if result, ok := second.Commit(l.t.Context(), window(l.t, l.layout, 3)).(Committed); !ok {
			l.t.Errorf("the new owner cannot commit: %v", result)
		}
		l.check(3)
	})
}

func TestLiveAtLeastOnce(t *testing.T) {
	onEveryCluster(t, func(l *live) {
		o := l.options()
		o.Mode, o.TransactionalID = AtLeastOnce, ""
		s := l.takeOver(l.client, o)
		s.Restored()
		for n := range 20 {
			if result, ok := s.Commit(l.t.Context(), window(l.t, l.layout, n+1)).(Committed); !ok {
				l.t.Fatalf("window %d is not committed: %v", n+1, result)
			}
		}
		l.check(20)
	})
}

// TestLiveStorm commits many windows over a network that breaks, swallows answers
// and delivers copies of requests late, with other owners in between.
func TestLiveStorm(t *testing.T) {
	onEveryCluster(t, func(l *live) {
		windows := 40
		if l.real {
			windows = 300
		}
		network := &badNetwork{RoundTripper: l.client.Transport, random: rand.New(rand.NewPCG(7, uint64(windows))), rate: 0.15}
		client := *l.client
		client.Transport = network
		s := l.takeOver(&client, l.options())
		outcomes := map[string]int{}
		next := l.position() + 1
		s.Restored()
		for tries := 0; next <= windows; tries++ {
			if tries > 20*windows {
				l.t.Fatalf("%d tries brought %d windows: %v", tries, next-1, outcomes)
			}
			result := s.Commit(l.t.Context(), window(l.t, l.layout, next))
			outcomes[strings.TrimPrefix(fmt.Sprintf("%T", result), "producer.")]++
			switch result.(type) {
			case Committed:
				next++
				continue
			case MustRestore:
				if _, ok := s.Recover(l.t.Context()).(Recovered); !ok {
					s = l.takeOver(&client, l.options())
				}
			case Fenced:
				s = l.takeOver(&client, l.options())
			}
			next = l.position() + 1
			s.Restored()
		}
		network.wait()
		l.check(windows)
		l.t.Logf("%d windows, %d faults: %v", windows, network.faults, outcomes)
		if outcomes["Committed"] < windows/2 || network.faults < windows/2 {
			l.t.Errorf("outcomes are %v of %d faults: this was no storm, or nothing else", outcomes, network.faults)
		}
	})
}

// badNetwork spoils a share of the requests on their way.
type badNetwork struct {
	kafka.RoundTripper
	rate float64

	mu     sync.Mutex
	random *rand.Rand
	faults int
	late   sync.WaitGroup
}

func (n *badNetwork) wait() { n.late.Wait() }

var errCut = fmt.Errorf("connection cut by the test: %w", io.ErrUnexpectedEOF)

func (n *badNetwork) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	if _, ok := request.(*metadata.Request); ok {
		return n.RoundTripper.RoundTrip(ctx, addr, request)
	}
	n.mu.Lock()
	what := 0
	if n.random.Float64() < n.rate {
		n.faults++
		what = 1 + n.random.IntN(4)
	}
	delay := time.Duration(n.random.IntN(40)) * time.Millisecond
	n.mu.Unlock()
	again := copyOf(request)
	switch what {
	case 1: // never arrives
		return nil, errCut
	case 2: // carried out, the answer is lost
		_, _ = n.RoundTripper.RoundTrip(ctx, addr, request)
		return nil, errCut
	case 3: // a copy arrives late
		n.sendLate(addr, again, delay)
	case 4: // cut, and only then it arrives
		n.sendLate(addr, again, delay)
		return nil, errCut
	}
	return n.RoundTripper.RoundTrip(ctx, addr, request)
}

func (n *badNetwork) sendLate(addr net.Addr, request kafka.Request, delay time.Duration) {
	n.late.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		time.Sleep(delay) // not to let anything settle: this is the fault
		_, _ = n.RoundTripper.RoundTrip(ctx, addr, request)
	})
}

// copyOf copies a Produce request, whose readers are spent after one try.
func copyOf(request kafka.Request) kafka.Request {
	r, ok := request.(*rawproduce.Request)
	if !ok {
		return request
	}
	twin := *r
	twin.Topics = slices.Clone(r.Topics)
	for i := range twin.Topics {
		twin.Topics[i].Partitions = slices.Clone(r.Topics[i].Partitions)
		for j := range twin.Topics[i].Partitions {
			wire, err := io.ReadAll(r.Topics[i].Partitions[j].RecordSet.Reader)
			if err != nil {
				panic(err)
			}
			// kafka-go sends from the round's buffer; the copy outlives it.
			r.Topics[i].Partitions[j].RecordSet = protocol.RawRecordSet{Reader: bytes.NewReader(wire)}
			twin.Topics[i].Partitions[j].RecordSet = protocol.RawRecordSet{Reader: bytes.NewReader(bytes.Clone(wire))}
		}
	}
	return &twin
}
