package producer

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
)

// owner is a daemon as far as this room is concerned: it takes the shard over,
// restores, commits window after window, and asks the log when it must.
type owner struct {
	t         testing.TB
	kafka     *fakeKafka
	shard     *Shard
	mode      Mode
	next      int // the window to commit; the position's counter so far is one less
	steps     []Step
	takeOvers int

	// mutant breaks a rule of the protocol, after a commit.
	mutant   func(o *owner, window int, c *Commit, result Result)
	outcomes []string // of each Commit
}

func newOwner(t testing.TB, k *fakeKafka, mode Mode) *owner {
	o := &owner{t: t, kafka: k, mode: mode, mutant: func(*owner, int, *Commit, Result) {}}
	o.takeOver()
	return o
}

func (o *owner) options() ShardOptions {
	return ShardOptions{TransactionalID: "cdrbus.offsets.3", Partition: testShard, Layout: o.kafka.layout, Mode: o.mode,
		Observe: func(s Step) { o.steps = append(o.steps, s) }}
}

// takeOver is protocol A, repeated as a supervisor would.
func (o *owner) takeOver() {
	o.t.Helper()
	for range 20 {
		shard, err := TakeOver(context.Background(), o.kafka.client(), o.options())
		if err != nil {
			time.Sleep(time.Second)
			continue
		}
		o.shard = shard
		o.takeOvers++
		o.restore()
		return
	}
	o.t.Fatalf("shard was not taken over in 20 tries\n%s", o.story())
}

func (o *owner) story() string {
	return strings.Join(o.kafka.trace, "\n") + "\n" + strings.Join(o.outcomes, "\n")
}

// restore reads the position.
func (o *owner) restore() {
	o.t.Helper()
	positions, err := o.kafka.read(Positions, testShard)
	if err != nil && o.mode == ExactlyOnce {
		o.t.Errorf("restore: %v\n%s", err, o.story())
	}
	o.next = 1
	if len(positions) > 0 {
		last, err := strconv.Atoi(positions[len(positions)-1])
		if err != nil {
			o.t.Fatal(err)
		}
		o.next = last + 1
	}
	o.shard.Restored()
}

const windowEvents = 9

// padding makes two events fill a batch of protocolLayout.
var padding = strings.Repeat("x", 7000)

// window is what window n yields.
func window(t testing.TB, layout *Layout, n int) *Commit {
	t.Helper()
	events := NewDraft(layout, testShard)
	for i := range windowEvents {
		add(t, events, Events, fmt.Sprint("call-", i), fmt.Sprintf("%d/%d %s", n, i, padding))
	}
	add(t, events, DeadLetters, "acme", fmt.Sprint(n))
	end := NewDraft(layout, testShard)
	add(t, end, Receipts, "acme", fmt.Sprint(n))
	add(t, end, IDs, "acme", fmt.Sprint(n))
	add(t, end, Positions, "acme", fmt.Sprint(n))
	c, err := Seal(time.Now(), events, end)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// commitNext commits one window and does what the result asks for.
func (o *owner) commitNext(ctx context.Context) string {
	o.t.Helper()
	n, before := o.next, o.takeOvers
	c := window(o.t, o.kafka.layout, n)
	result := o.shard.Commit(ctx, c)
	outcome := ""
	switch result := result.(type) {
	case Committed:
		outcome = "committed"
		o.next++
		if positions, _ := o.kafka.read(Positions, testShard); len(positions) == 0 || positions[len(positions)-1] != fmt.Sprint(n) {
			o.t.Errorf("window %d is said to be committed, the log ends with %v\n%s", n, positions, o.story())
		}
	case MustRestore:
		outcome = "restore"
		o.outcomes = append(o.outcomes, fmt.Sprintf("window %d: %s: %v", n, outcome, result.Cause))
		o.recover()
	case Fenced:
		outcome = "fenced"
		o.outcomes = append(o.outcomes, fmt.Sprintf("window %d: %s: %v", n, outcome, result.Cause))
		o.takeOver()
	default:
		o.t.Fatalf("result %T", result)
	}
	o.mutant(o, n, c, result)
	if o.takeOvers == before && o.next != n && o.next != n+1 {
		o.t.Errorf("after window %d the log says that %d is next, and nobody fenced us\n%s", n, o.next, o.story())
	}
	o.check()
	return outcome
}

func (o *owner) recover() {
	o.t.Helper()
	for range 20 {
		switch o.shard.Recover(context.Background()).(type) {
		case Recovered:
			o.restore()
			return
		case Fenced:
			o.takeOver()
			return
		}
	}
	o.t.Fatalf("shard was not recovered in 20 tries\n%s", o.story())
}

// check holds the promise over everything that committed readers see: each
// window whole and once, in order, and just the windows that the position says.
func (o *owner) check() {
	o.t.Helper()
	for _, topic := range []Topic{DeadLetters, Receipts, IDs, Positions} {
		values, _ := o.kafka.read(topic, testShard)
		for i, v := range values {
			if v != fmt.Sprint(i+1) {
				o.t.Errorf("%s are %v, want 1, 2, 3...\n%s", topic, values, o.story())
				break
			}
		}
		if topic == Positions && len(values) != o.next-1 {
			o.t.Errorf("%d positions are committed, the owner is at %d\n%s", len(values), o.next-1, o.story())
		}
	}
	var events []string
	for p := range o.kafka.layout.EventPartitions {
		values, _ := o.kafka.read(Events, p)
		events = append(events, values...)
	}
	slices.Sort(events)
	if len(slices.Compact(slices.Clone(events))) != len(events) || len(events) != windowEvents*(o.next-1) {
		o.t.Errorf("%d events (%d distinct) are committed, want %d\n%s", len(events), len(slices.Compact(events)), windowEvents*(o.next-1), o.story())
	}
}

// protocolLayout makes each window take two rounds at two brokers.
func protocolLayout() *Layout {
	layout := testLayout()
	layout.MaxMessageBytes[Events] = 16 << 10
	return layout
}

// bubble runs a test in fake time against a fresh fake.
func bubble(t *testing.T, test func(t *testing.T, k *fakeKafka)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFakeKafka(t, protocolLayout(), testShard+1)) })
}

// requestsOf are the effects of a normal commit right after another, in order: the
// coordinator is still busy at first, and each of two rounds goes to two leaders.
var requestsOf = []Request{InitProducerID, InitProducerID, AddPartitions, Produce, Produce, Produce, Produce, CommitTransaction}

// TestEffectsOfANormalCommit counts every request of a normal commit: three for
// the transaction, with the repeats of the first while the coordinator is busy,
// and one Produce for each leader of each round.
func TestEffectsOfANormalCommit(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		count := func() (kinds []Request, busy, rounds int) {
			o.steps = nil
			if outcome := o.commitNext(t.Context()); outcome != "committed" {
				t.Fatal(outcome)
			}
			for _, s := range o.steps {
				kinds = append(kinds, s.Request)
				rounds = max(rounds, s.Round)
				if s.Code == kafka.ConcurrentTransactions {
					busy++
				}
			}
			return kinds, busy, rounds
		}
		first, busy, rounds := count()
		if want := requestsOf[2:]; !slices.Equal(first, want) || busy != 0 || rounds != 2 {
			t.Errorf("the first commit of an epoch takes %v, %d of them repeats, %d rounds; want %v", first, busy, rounds, want)
		}
		second, busy, rounds := count()
		if !slices.Equal(second, requestsOf) || busy != 1 || rounds != 2 {
			t.Errorf("a commit takes %v, %d of them repeats, %d rounds; want %v", second, busy, rounds, requestsOf)
		}
		time.Sleep(time.Second) // the coordinator is done with the former transaction
		third, busy, _ := count()
		if want := requestsOf[1:]; !slices.Equal(third, want) || busy != 0 {
			t.Errorf("a commit after a pause takes %v, want %v", third, want)
		}
	})
}

func TestCommittedTellsBaseOffsets(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		for n := range 3 {
			k.fault = func(effect int, kind Request) fault {
				if kind == Produce && effect%3 == 0 {
					return answerLost
				}
				return noFault
			}
			result := o.shard.Commit(t.Context(), window(t, k.layout, n+1)).(Committed)
			for _, topic := range []Topic{DeadLetters, Receipts, IDs, Positions} {
				if got, want := result.BaseOffset(topic), int64(2*n); got != want { // a record and a marker each
					t.Errorf("window %d: base offset of %s is %d, want %d", n, topic, got, want)
				}
			}
			for p := range k.layout.EventPartitions {
				log := k.logs[partitionName{"events", int32(p)}]
				want := int64(UnknownOffset)
				for _, b := range log.batches {
					if strings.HasPrefix(string(b.records[0].value), fmt.Sprint(n+1, "/")) && want == UnknownOffset {
						want = b.base
					}
				}
				if got := result.EventBaseOffset(p); got != want {
					t.Errorf("window %d: base offset of events-%d is %d, want %d", n, p, got, want)
				}
			}
			if got := result.BaseOffset(Events); got != UnknownOffset {
				t.Errorf("BaseOffset(Events) = %d, want unknown: it has no one partition", got)
			}
		}
	})
}

// gridOutcome is what must become of a commit when a request of it meets a fault.
func gridOutcome(f fault, kind Request) string {
	switch f {
	case fencedBefore, frozen:
		return "fenced"
	case aborting:
		return "restore"
	case twiceLater, twiceMuchLater, arrivesLater:
		// A copy of the request for the epoch that arrives while the transaction is
		// open fences ourselves. That costs a take-over, and nothing is lost.
		if kind == InitProducerID {
			return "fenced"
		}
	}
	return "committed"
}

// TestFaultGrid meets every effect of a commit with every fault, and demands the
// exact outcome, that the next windows commit, and that every window is in the
// log whole and once.
func TestFaultGrid(t *testing.T) {
	for f := errorBefore; f < faultCount; f++ {
		for effect, kind := range requestsOf {
			t.Run(fmt.Sprintf("%s/%d %s", f, effect, kind), func(t *testing.T) {
				bubble(t, func(t *testing.T, k *fakeKafka) {
					o := newOwner(t, k, ExactlyOnce)
					o.commitNext(t.Context())
					first := k.effects
					k.fault = func(number int, _ Request) fault {
						if number == first+effect {
							return f
						}
						return noFault
					}
					rivalWindows := 0
					k.rival = func() {
						k.fault = func(int, Request) fault { return noFault }
						rival := newOwner(t, k, ExactlyOnce)
						rival.commitNext(context.Background())
						rivalWindows = 1
					}
					outcome := o.commitNext(t.Context())
					if want := gridOutcome(f, kind); outcome != want {
						t.Errorf("outcome is %s, want %s\n%s", outcome, want, o.story())
					}
					if outcome != "committed" && rivalWindows == 0 && o.next != 2 {
						t.Errorf("window 2 is in the log after all\n%s", o.story())
					}
					for range 3 {
						o.commitNext(t.Context())
					}
					if o.next < 5 {
						t.Errorf("only %d windows are committed\n%s", o.next-1, o.story())
					}
				})
			})
		}
	}
}

// TestCrashGrid lets the owner die before and after each effect of a commit; the
// next owner finds all of the window or nothing.
func TestCrashGrid(t *testing.T) {
	for effect, kind := range requestsOf {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %s/applied %v", effect, kind, applied), func(t *testing.T) {
				bubble(t, func(t *testing.T, k *fakeKafka) {
					o := newOwner(t, k, ExactlyOnce)
					o.commitNext(t.Context())
					first := k.effects
					k.fault = func(number int, _ Request) fault {
						switch {
						case number < first+effect:
							return noFault
						case number == first+effect && applied:
							return answerLost
						default:
							return errorBefore // nothing leaves a dead process
						}
					}
					dying, die := context.WithTimeout(t.Context(), time.Second)
					defer die()
					if result, ok := o.shard.Commit(dying, window(t, k.layout, 2)).(MustRestore); !ok {
						t.Errorf("commit of a dead process is %v", result)
					}
					k.fault = func(int, Request) fault { return noFault }
					o.takeOver()
					want := 2
					if kind == CommitTransaction && applied {
						want = 3
					}
					if o.next != want {
						t.Errorf("the next owner begins with window %d, want %d\n%s", o.next, want, o.story())
					}
					o.check()
					for range 3 {
						if outcome := o.commitNext(t.Context()); outcome != "committed" {
							t.Errorf("outcome of the next owner is %s", outcome)
						}
					}
				})
			})
		}
	}
}

// seededFaults is an endless series of faults, at a rate of its own.
func seededFaults(seed uint64, maxRate float64) func() fault {
	random := rand.New(rand.NewPCG(seed, 42))
	rate := random.Float64() * maxRate
	return func() fault {
		if random.Float64() > rate {
			return noFault
		}
		return fault(1 + random.IntN(int(faultCount)-1))
	}
}

// storm commits windows under random faults, from a seed.
func storm(t testing.TB, k *fakeKafka, o *owner, seed uint64, windows int) {
	random := seededFaults(seed, 0.4)
	k.fault = func(int, Request) fault { return random() }
	k.rival = func() { newOwner(t, k, o.mode).commitNext(context.Background()) }
	for tries := 0; o.next <= windows && !t.Failed(); tries++ {
		if tries > 40*windows {
			t.Fatalf("%d tries brought %d of %d windows\n%s", tries, o.next-1, windows, o.story())
		}
		o.commitNext(context.Background())
	}
	k.fault = func(int, Request) fault { return noFault }
	o.takeOver()
	o.check()
}

var stormSeeds = flag.Uint64("sim.seeds", 250, "how many random storms of faults each mode of the protocol has to survive")

// TestStorm is the grid at random: several faults in one commit, in recoveries and
// in take-overs, rivals that commit, and copies of requests that come much later.
func TestStorm(t *testing.T) {
	for seed := range *stormSeeds {
		synctest.Test(t, func(t *testing.T) {
			k := newFakeKafka(t, protocolLayout(), testShard+1)
			storm(t, k, newOwner(t, k, ExactlyOnce), seed, 6)
		})
		if t.Failed() {
			t.Fatalf("storm %d fails", seed)
		}
	}
}

// recorder is a testing.TB that only remembers that a check failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Helper()               {}
func (r *recorder) Failed() bool          { return r.failed }
func (r *recorder) Fatalf(string, ...any) { r.failed = true; panic(r) }
func (r *recorder) Fatal(...any)          { r.failed = true; panic(r) }

// TestMutants breaks one rule at a time and demands that a storm notices: the
// checks above can fail.
func TestMutants(t *testing.T) {
	for _, m := range []struct {
		name   string
		mutant func(o *owner, window int, c *Commit, result Result)
	}{
		{"one epoch for many transactions", func(o *owner, _ int, c *Commit, result Result) {
			if _, ok := result.(Committed); !ok || o.shard.state != spent {
				return
			}
			o.shard.state = fresh
			for _, s := range c.slots {
				o.shard.sequences[s.place] = addSequence(o.shard.sequences[s.place], s.records)
			}
		}},
		{"unknown taken for failed", func(o *owner, window int, _ *Commit, result Result) {
			if _, ok := result.(MustRestore); ok {
				o.next = window
			}
		}},
		{"unknown taken for committed", func(o *owner, window int, _ *Commit, result Result) {
			if _, ok := result.(MustRestore); ok {
				o.next = window + 1
			}
		}},
		{"restored before the take-over", func(o *owner, _ int, _ *Commit, result Result) {
			if _, ok := result.(Fenced); ok {
				before := o.next
				newOwner(o.t, o.kafka, o.mode).commitNext(context.Background())
				o.takeOver()
				o.next = before
			}
		}},
	} {
		t.Run(m.name, func(t *testing.T) {
			for seed := range uint64(400) {
				if mutantCaught(t, seed, m.mutant) {
					return
				}
			}
			t.Error("400 seeds did not notice")
		})
	}
}

func mutantCaught(t *testing.T, seed uint64, mutant func(*owner, int, *Commit, Result)) bool {
	caught := &recorder{TB: t}
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if r := recover(); r != nil && r != any(caught) {
				panic(r)
			}
		}()
		k := newFakeKafka(caught, protocolLayout(), testShard+1)
		o := newOwner(caught, k, ExactlyOnce)
		o.mutant = mutant
		storm(caught, k, o, seed, 6)
	})
	return caught.failed
}
