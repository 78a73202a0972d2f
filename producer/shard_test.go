package producer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/addpartitionstotxn"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// cuttingTransport loses the last partition of the next answers.
type cuttingTransport struct {
	kafka.RoundTripper
	mu              sync.Mutex
	added, produced int
}

func (c *cuttingTransport) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	response, err := c.RoundTripper.RoundTrip(ctx, addr, request)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := response.(type) {
	case *addpartitionstotxn.Response:
		if c.added--; c.added >= 0 {
			r.Results = r.Results[:len(r.Results)-1]
		}
	case *produce.Response:
		if last := &r.Topics[len(r.Topics)-1]; c.produced > 0 && last.Topic == "offsets" {
			c.produced--
			r.Topics = r.Topics[:len(r.Topics)-1]
		}
	}
	return response, err
}

// TestBytesStayUntilAnswered holds that what kafka-go may still be sending, long
// after it gave up waiting, is what was to be sent.
func TestBytesStayUntilAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		slow := &slowTransport{RoundTripper: o.shard.wire.transport}
		o.shard.wire.transport = slow
		if outcome := o.commitNext(t.Context()); outcome != "committed" {
			t.Errorf("outcome is %s", outcome)
		}
		for _, p := range slow.request.Topics[0].Partitions {
			wire, err := io.ReadAll(p.RecordSet.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if b := decodeWithKmsg(t, wire[4:]); b.header.baseSequence != 0 {
				t.Errorf("the bytes of the first round are now those of sequence %d", b.header.baseSequence)
			}
		}
	})
}

// slowTransport keeps the first Produce for itself.
type slowTransport struct {
	kafka.RoundTripper
	mu      sync.Mutex
	request *rawproduce.Request
}

func (s *slowTransport) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	if r, ok := request.(*rawproduce.Request); ok && s.keep(r) {
		return nil, context.DeadlineExceeded
	}
	return s.RoundTripper.RoundTrip(ctx, addr, request)
}

func (s *slowTransport) keep(r *rawproduce.Request) (kept bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request != nil {
		return false
	}
	s.request = r
	return true
}

// TestRecoverEndsWhatMayBeOpen holds that a transaction that was asked for, and
// never confirmed, is aborted before anything else: else it would fence ourselves.
func TestRecoverEndsWhatMayBeOpen(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		k.silence(hangApplied, AddPartitions)
		o.shard.Commit(t.Context(), window(t, k.layout, 1))
		k.silence(noFault)
		o.steps = nil
		if result, ok := o.shard.Recover(t.Context()).(Recovered); !ok {
			t.Errorf("result is %v, want Recovered", result)
		}
		var asked []Request
		for _, s := range o.steps {
			asked = append(asked, s.Request)
		}
		if want := []Request{AbortTransaction, InitProducerID, InitProducerID}; !slices.Equal(asked, want) {
			t.Errorf("Recover asks for %v, want %v", asked, want)
		}
	})
}

// TestRecoverStealsNothing holds that a shard that a rival has taken meanwhile is
// not taken back by the way: two owners would fence each other in turns.
func TestRecoverStealsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		o.commitNext(t.Context())
		k.silence(hang, InitProducerID)
		o.shard.Commit(t.Context(), window(t, k.layout, 2))
		k.silence(noFault)
		rival := newOwner(t, k, ExactlyOnce)
		if result, ok := o.shard.Recover(t.Context()).(Fenced); !ok {
			t.Errorf("Recover is %v, want Fenced", result)
		}
		if outcome := rival.commitNext(t.Context()); outcome != "committed" {
			t.Errorf("the rival's commit is %s", outcome)
		}
	})
}

// TestProve: an owner that read the log can tell whether somebody else wrote
// meanwhile, and asking neither disturbs its next commit nor another owner's.
func TestProve(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		for _, moment := range []string{"before the first commit", "after one"} {
			if err := o.shard.Prove(t.Context()); err != nil {
				t.Errorf("%s: %v", moment, err)
			}
			if outcome := o.commitNext(t.Context()); outcome != "committed" {
				t.Errorf("%s: the next commit is %s", moment, outcome)
			}
		}
		rival := newOwner(t, k, ExactlyOnce)
		if err := o.shard.Prove(t.Context()); !errors.Is(err, kafka.ProducerFenced) {
			t.Errorf("after a rival took over: %v, want fenced", err)
		}
		if outcome := rival.commitNext(t.Context()); outcome != "committed" {
			t.Errorf("the rival's commit is %s", outcome)
		}
		mustPanic(t, "Commit of a lost shard", "lost", func() { o.shard.Commit(t.Context(), window(t, k.layout, 3)) })
	})
}

// TestProveWhileRestoring: the restore is still owed afterwards.
func TestProveWhileRestoring(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		shard, err := TakeOver(t.Context(), k.client(), newOwner(t, k, ExactlyOnce).options())
		if err != nil {
			t.Fatal(err)
		}
		if err := shard.Prove(t.Context()); err != nil {
			t.Error(err)
		}
		mustPanic(t, "Commit before Restored", "Restored", func() { shard.Commit(t.Context(), window(t, k.layout, 1)) })
	})
}

func mustPanic(t *testing.T, what, want string, do func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := recover(); got == nil || !strings.Contains(fmt.Sprint(got), want) {
			t.Errorf("%s: panic is %v, want one about %q", what, got, want)
		}
	}()
	do()
}

// TestMisusePanics holds that a shard cannot be used in a state in which records
// would be lost or published twice.
func TestMisusePanics(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		s, err := TakeOver(t.Context(), k.client(), ShardOptions{TransactionalID: "id", Partition: testShard, Layout: k.layout})
		if err != nil {
			t.Fatal(err)
		}
		commit := func() { s.Commit(t.Context(), window(t, k.layout, 1)) }
		recover := func() { s.Recover(t.Context()) }
		mustPanic(t, "commit before the restore", "waiting for Restored", commit)
		mustPanic(t, "recover before the restore", "waiting for Restored", recover)
		s.Restored()
		mustPanic(t, "restored twice", "ready", s.Restored)
		mustPanic(t, "recover without need", "ready", recover)

		other := NewDraft(k.layout, testShard+1)
		add(t, other, Positions, "acme", "p")
		mustPanic(t, "another shard's commit", "made for shard 4", func() { s.Commit(t.Context(), seal(t, other)) })
		mustPanic(t, "another layout", "another layout", func() { s.Commit(t.Context(), seal(t, closing(t, testLayout()))) })

		k.faultOnce(aborting, Produce)
		commit()
		mustPanic(t, "commit while a recovery is owed", "waiting for Recover", commit)
		mustPanic(t, "restored while a recovery is owed", "waiting for Recover", s.Restored)
		recover()
		mustPanic(t, "commit while a restore is owed", "waiting for Restored", commit)
		s.Restored()

		k.faultOnce(fencedBefore, AddPartitions)
		commit()
		for name, call := range map[string]func(){"commit": commit, "recover": recover, "restored": s.Restored} {
			mustPanic(t, name+" when fenced", "lost", call)
		}
	})
}

func TestTakeOverRefusesOptions(t *testing.T) {
	good := ShardOptions{TransactionalID: "id", Layout: testLayout()}
	for _, c := range []struct {
		name  string
		spoil func(*ShardOptions)
		want  string
	}{
		{"no id", func(o *ShardOptions) { o.TransactionalID = "" }, "no transactional.id"},
		{"no layout", func(o *ShardOptions) { o.Layout = nil }, "no layout"},
		{"bad layout", func(o *ShardOptions) { o.Layout = &Layout{} }, "check layout"},
		{"abort too late", func(o *ShardOptions) { o.AbortAfter = time.Minute }, "own abort after 1m0s"},
	} {
		o := good
		c.spoil(&o)
		if _, err := TakeOver(t.Context(), &kafka.Client{}, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// silence spoils every request of some kinds from now on.
func (k *fakeKafka) silence(f fault, kinds ...Request) {
	k.fault = func(_ int, kind Request) fault {
		if slices.Contains(kinds, kind) {
			return f
		}
		return noFault
	}
}

// calm ends all faults, while requests are under way.
func (k *fakeKafka) calm() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.silence(noFault)
}

// TestBudgets holds the times after which the protocol stops waiting, and whom it
// blames.
func TestBudgets(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fault
		kind  Request
		after time.Duration
		blame Blame
	}{
		{"no new epoch", hang, InitProducerID, 45 * time.Second, BlameNetwork},
		{"coordinator refuses", refused, InitProducerID, 45 * time.Second, BlameCoordinator},
		{"add partitions hangs", hang, AddPartitions, 45 * time.Second, BlameNetwork},
		{"brokers too slow", hang, Produce, 45 * time.Second, BlameTime},
		{"brokers gone", errorBefore, Produce, 45 * time.Second, BlameNetwork},
		{"leaders move on and on", refused, Produce, 45 * time.Second, BlameNetwork},
		{"commit hangs", hang, CommitTransaction, 60 * time.Second, BlameNetwork},
		{"commit carried out, answer hangs", hangApplied, CommitTransaction, 60 * time.Second, BlameNetwork},
		{"commit in progress for ever", refused, CommitTransaction, 60 * time.Second, BlameCoordinator},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, k *fakeKafka) {
				o := newOwner(t, k, ExactlyOnce)
				o.commitNext(t.Context())
				k.silence(c.fault, c.kind)
				began := time.Now()
				result, ok := o.shard.Commit(t.Context(), window(t, k.layout, 2)).(MustRestore)
				if took := time.Since(began).Round(time.Second); !ok || took != c.after || result.Blame != c.blame {
					t.Errorf("after %s the result is %v, blame %s; want MustRestore after %s, blame %s", took, result.Cause, result.Blame, c.after, c.blame)
				}
				if !errors.Is(result.Cause, errOutOfTime) {
					t.Errorf("cause is %v, want it to say that time ran out", result.Cause)
				}
				k.silence(noFault)
				o.recover()
				if want := 2 + boolToInt(c.fault == hangApplied); o.next != want {
					t.Errorf("window %d is next, want %d", o.next, want)
				}
				o.check()
				o.commitNext(t.Context())
			})
		})
	}
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestTakeOverAndRecoverEnd(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		k.faultOnce(aborting, Produce)
		o.shard.Commit(t.Context(), window(t, k.layout, 1))
		k.silence(hang, InitProducerID, AbortTransaction)
		began := time.Now()
		if result, ok := o.shard.Recover(t.Context()).(MustRestore); !ok || time.Since(began).Round(time.Second) != time.Minute {
			t.Errorf("Recover is %v after %s, want MustRestore after 1m", result, time.Since(began))
		}
		began = time.Now()
		var failure *Failure
		if _, err := TakeOver(t.Context(), k.client(), o.options()); !errors.As(err, &failure) || failure.Blame != BlameNetwork || time.Since(began).Round(time.Second) != time.Minute {
			t.Errorf("TakeOver is %v after %s, want a Failure of the network after 1m", err, time.Since(began))
		}
		k.code = kafka.TransactionalIDAuthorizationFailed
		k.silence(coded, InitProducerID)
		began = time.Now()
		if _, err := TakeOver(t.Context(), k.client(), o.options()); !errors.As(err, &failure) || failure.Blame != BlameSettings || time.Since(began) > time.Second {
			t.Errorf("TakeOver is %v after %s, want a Failure of the settings at once", err, time.Since(began))
		}
	})
}

// TestTakeOverOutlivesAStandingBroker holds that a short transaction timeout does
// not shorten a take-over: while a broker stands still, the coordinator cannot end
// what the former owner left open, and puts everybody off.
func TestTakeOverOutlivesAStandingBroker(t *testing.T) {
	for _, f := range []fault{refused, hang} {
		t.Run(f.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, k *fakeKafka) {
				o := newOwner(t, k, ExactlyOnce)
				k.silence(f, InitProducerID)
				time.AfterFunc(38*time.Second, k.calm)
				options := o.options()
				options.TransactionTimeout, options.AbortAfter = 10*time.Second, 5*time.Second
				began := time.Now()
				if _, err := TakeOver(t.Context(), k.client(), options); err != nil {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
			})
		})
	}
}

// TestShutdown ends the context at each effect of a commit: within the grace the
// commit is finished or aborted, and nothing is left open.
func TestShutdown(t *testing.T) {
	for effect, kind := range requestsOf {
		for _, f := range []fault{noFault, hang, hangApplied} {
			t.Run(fmt.Sprintf("%d %s/%s", effect, kind, f), func(t *testing.T) {
				bubble(t, func(t *testing.T, k *fakeKafka) {
					o := newOwner(t, k, ExactlyOnce)
					o.commitNext(t.Context())
					ctx, stop := context.WithCancel(t.Context())
					defer stop()
					first := k.effects
					k.fault = func(number int, _ Request) fault {
						if number != first+effect {
							return noFault
						}
						stop()
						return f
					}
					began := time.Now()
					result := o.shard.Commit(ctx, window(t, k.layout, 2))
					if took := time.Since(began); took > 6*time.Second {
						t.Errorf("it took %s after the end of its context", took)
					}
					if _, ok := result.(Committed); ok != (kind == CommitTransaction && f == noFault) {
						t.Errorf("result is %v\n%s", result, o.story())
					}
					if c := k.coordinators[o.options().TransactionalID]; c.open && kind != CommitTransaction {
						t.Errorf("the transaction is left open\n%s", o.story())
					}
					k.silence(noFault)
					o.takeOver()
					if want := 2 + boolToInt(kind == CommitTransaction && f != hang); o.next != want {
						t.Errorf("window %d is next, want %d", o.next, want)
					}
					o.check()
				})
			})
		}
	}
}

// TestShutdownBeforeTheCommitIsAskedFor holds that no commit is begun for an
// owner that is going away, even if all records are sent.
func TestShutdownBeforeTheCommitIsAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		ctx, stop := context.WithCancel(t.Context())
		o.shard.wire.observe = func(s Step) {
			if s.Request == Produce && s.Round == 2 {
				stop()
			}
		}
		if result, ok := o.shard.Commit(ctx, window(t, k.layout, 1)).(MustRestore); !ok || !errors.Is(result.Cause, context.Canceled) {
			t.Errorf("result is %v, want MustRestore for the end of the context", result)
		}
		if slices.ContainsFunc(k.trace, func(line string) bool { return strings.Contains(line, "commit transaction") }) {
			t.Errorf("a commit was asked for\n%s", o.story())
		}
		if k.coordinators[o.options().TransactionalID].open {
			t.Error("the transaction is left open")
		}
	})
}

// TestOtherEpochs holds that any answer but the next epoch means a restore.
func TestOtherEpochs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fakeTransactions)
		want   string
	}{
		{"epochs ran out", func(c *fakeTransactions) { c.own.epoch = epochsRunOut - 1 }, "restore"},
		{"another producer id", func(c *fakeTransactions) { c.own.producerID += 7 }, "fenced"},
		{"a rival came and went", func(c *fakeTransactions) { c.own.epoch += 2 }, "fenced"},
		{"aborted, and the old epoch still let through", func(c *fakeTransactions) { c.own.epoch++; c.lastEpoch = c.own.epoch - 1 }, "committed"},
		{"a jump", func(c *fakeTransactions) { c.lastEpoch = c.own.epoch; c.own.epoch += 3 }, "restore"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, k *fakeKafka) {
				o := newOwner(t, k, ExactlyOnce)
				coordinator := k.coordinators[o.options().TransactionalID]
				if c.name == "epochs ran out" {
					coordinator.own.epoch = epochsRunOut - 1
					o.shard.own.epoch = epochsRunOut - 1
				}
				o.commitNext(t.Context())
				c.change(coordinator)
				if got := o.commitNext(t.Context()); got != c.want {
					t.Errorf("outcome is %s, want %s\n%s", got, c.want, o.story())
				}
				for range 2 {
					if got := o.commitNext(t.Context()); got != "committed" {
						t.Errorf("the next outcome is %s\n%s", got, o.story())
					}
				}
			})
		})
	}
}

// TestLeadersMove holds that batches follow their partitions to other brokers,
// also within a round of which a part is acknowledged already.
func TestLeadersMove(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		for name := range k.logs {
			if name.partition%2 == 1 {
				k.moved[name] = true
			}
		}
		go func() {
			time.Sleep(3 * time.Second)
			k.mu.Lock()
			defer k.mu.Unlock()
			clear(k.moved)
			for name := range k.leaders {
				k.leaders[name] = 3 - k.leaders[name]
			}
		}()
		if outcome := o.commitNext(t.Context()); outcome != "committed" {
			t.Errorf("outcome is %s", outcome)
		}
	})
}

func TestPartitionWithoutLeader(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		name := partitionName{"offsets", testShard}
		k.leaders[name] = -1
		result, ok := o.shard.Commit(t.Context(), window(t, k.layout, 1)).(MustRestore)
		if !ok || result.Blame != BlameNetwork || !strings.Contains(result.Cause.Error(), "offsets-3") {
			t.Errorf("result is %v, want MustRestore that names offsets-3", result)
		}
		k.leaders[name] = 1
		o.recover()
		o.check()
	})
}

// TestCoordinatorTimesOut lets the coordinator abort before the owner does.
func TestCoordinatorTimesOut(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		k.silence(hang, Produce)
		o.shard.Commit(t.Context(), window(t, k.layout, 1))
		time.Sleep(20 * time.Second)
		k.silence(noFault)
		if _, ok := o.shard.Recover(t.Context()).(Fenced); !ok {
			t.Error("a shard whose transaction timed out is not fenced")
		}
		o.takeOver()
		for range 2 {
			if outcome := o.commitNext(t.Context()); outcome != "committed" {
				t.Errorf("outcome is %s", outcome)
			}
		}
	})
}

// TestLogsSilenceOnce holds that a long silence is one line, and its end another.
func TestLogsSilenceOnce(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		core, logs := observer.New(zap.DebugLevel)
		o := newOwner(t, k, ExactlyOnce)
		o.shard.log = zap.New(core)
		k.silence(refused, Produce)
		time.AfterFunc(20*time.Second, k.calm)
		if outcome := o.commitNext(t.Context()); outcome != "committed" {
			t.Errorf("outcome is %s", outcome)
		}
		var lines []string
		for _, entry := range logs.All() {
			lines = append(lines, entry.Message)
		}
		if want := []string{"Kafka does not do its part, asking again", "Kafka answered"}; !slices.Equal(lines, want) {
			t.Errorf("log is %q, want %q", lines, want)
		}
	})
}

// TestAtLeastOnce holds what that mode promises: nothing missing, everything
// acknowledged before its position, one producer id for all commits, and none of
// the requests that need transactions.
func TestAtLeastOnce(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newAtLeastOnce(t, k)
		for range 5 {
			if outcome := o.commitNext(t.Context()); outcome != "committed" {
				t.Fatal(outcome)
			}
		}
		for _, s := range o.steps[1:] {
			if s.Request != Produce {
				t.Errorf("%s in at_least_once mode, after the first InitProducerID", s.Request)
			}
		}
		if rounds := o.steps[len(o.steps)-1].Round; rounds != 4 { // two of events, then receipts and IDs, then the position
			t.Errorf("a commit takes %d rounds, want 4", rounds)
		}
		o.check()
	})
}

// atLeastOnce is an owner with that mode's promise to check.
type atLeastOnce struct{ *owner }

func newAtLeastOnce(t testing.TB, k *fakeKafka) *atLeastOnce {
	return &atLeastOnce{newOwner(t, k, AtLeastOnce)}
}

func (o *atLeastOnce) events() map[string]int {
	count := map[string]int{}
	for p := range o.kafka.layout.EventPartitions {
		values, _ := o.kafka.read(Events, p)
		for _, v := range values {
			count[v]++
		}
	}
	return count
}

// commitNext holds the promise after each commit, whatever its result.
func (o *atLeastOnce) commitNext(ctx context.Context) string {
	o.t.Helper()
	n := o.next
	outcome := "committed"
	switch result := o.shard.Commit(ctx, window(o.t, o.kafka.layout, n)).(type) {
	case Committed:
		o.next++
	case MustRestore:
		outcome = "restore"
		o.recover()
	case Fenced:
		outcome = "fenced"
		o.takeOver()
	default:
		o.t.Fatalf("result %v", result)
	}
	positions, _ := o.kafka.read(Positions, testShard)
	if outcome == "committed" && (len(positions) == 0 || positions[len(positions)-1] != fmt.Sprint(n)) {
		o.t.Errorf("window %d is said to be committed, the log ends with %v\n%s", n, positions, o.story())
	}
	events := o.events()
	for _, p := range positions {
		for i := range windowEvents {
			if v := fmt.Sprintf("%s/%d %s", p, i, padding); events[v] == 0 {
				o.t.Errorf("position %s is in the log, event %d of its window is not", p, i)
			}
		}
		for _, topic := range []Topic{DeadLetters, Receipts, IDs} {
			if values, _ := o.kafka.read(topic, testShard); !slices.Contains(values, p) {
				o.t.Errorf("position %s is in the log, its %s are not", p, topic)
			}
		}
	}
	ids, _ := o.kafka.read(IDs, testShard)
	for _, id := range ids {
		if v := fmt.Sprintf("%s/%d %s", id, 0, padding); events[v] == 0 {
			o.t.Errorf("the journal has window %s, the events topic has not", id)
		}
	}
	return outcome
}

func TestAtLeastOnceStorm(t *testing.T) {
	for seed := range *stormSeeds / 2 {
		synctest.Test(t, func(t *testing.T) {
			k := newFakeKafka(t, protocolLayout(), testShard+1)
			o := newAtLeastOnce(t, k)
			random := seededFaults(seed, 0.3)
			k.fault = func(int, Request) fault { return random() }
			for tries := 0; o.next <= 5 && tries < 200 && !t.Failed(); tries++ {
				o.commitNext(t.Context())
			}
			if o.next <= 5 {
				t.Errorf("no progress: window %d\n%s", o.next, o.story())
			}
		})
		if t.Failed() {
			t.Fatalf("storm %d fails", seed)
		}
	}
}
