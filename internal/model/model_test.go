package model

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	large  = flag.Bool("model.large", false, "explore three owners at a time, and the rules that nothing breaks without with three windows")
	update = flag.Bool("model.update", false, "write the golden traces anew")
)

func check(t *testing.T, o Options, look Kind) Result {
	t.Helper()
	r, err := Check(o, look)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d windows, %d owners, Kafka %s: %d states, %d transitions, depth %d, %s", o.Windows, o.Owners, version(o.Kafka4), r.States, r.Transitions, r.Depth, r.Took)
	return r
}

func version(kafka4 bool) string {
	if kafka4 {
		return "4"
	}
	return "3"
}

func demandNoViolation(t *testing.T, r Result) {
	t.Helper()
	if r.Violation != "" {
		t.Errorf("%s\n%s", strings.Join(r.Trace, "\n"), r.Violation)
	}
}

// heard is all that owners hear with every rule kept: what is missing here cannot
// happen within the bounds. A batch is never out of order, and no batch or partition
// meets a transaction that is over.
var heard = []Answer{
	{"AddPartitionsToTxn", 0}, {"AddPartitionsToTxn", 90},
	{"EndTxn(abort)", 0}, {"EndTxn(abort)", 48}, {"EndTxn(abort)", 51}, {"EndTxn(abort)", 90},
	{"EndTxn(commit)", 0}, {"EndTxn(commit)", 48}, {"EndTxn(commit)", 51}, {"EndTxn(commit)", 90},
	{"InitProducerId", 0}, {"InitProducerId", 51}, {"InitProducerId", 90},
	{"Produce", 0}, {"Produce", 47},
}

// TestAllStates: with every rule kept no state breaks a promise.
func TestAllStates(t *testing.T) {
	for _, kafka4 := range []bool{false, true} {
		t.Run("Kafka "+version(kafka4), func(t *testing.T) {
			o := Options{Rules: AllRules, Windows: 3, Owners: 2, Kafka4: kafka4}
			if testing.Short() {
				o.Windows = 2 // for the race detector
			}
			r := check(t, o, Any)
			demandNoViolation(t, r)
			got := slices.SortedFunc(maps.Keys(r.Answers), func(a, b Answer) int {
				return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
			})
			if !slices.Equal(got, heard) {
				t.Errorf("owners heard\n%v, want\n%v", got, heard)
			}
			if *large {
				demandNoViolation(t, check(t, Options{Rules: AllRules, Windows: 2, Owners: 3, Kafka4: kafka4}, Any))
			}
		})
	}
}

// TestEachRuleMatters breaks one rule at a time, and demands the shortest way to a
// broken promise. Where there is none, the rule is for something else than safety,
// or another rule stands in for it.
func TestEachRuleMatters(t *testing.T) {
	for _, c := range []struct {
		rule         Rule
		look         Kind
		only4        bool   // older Kafkas fence the owner in time
		otherwiseFor string // why it is kept although nothing breaks without it
	}{
		{rule: BumpPerTransaction, look: Torn},
		{rule: BumpPerTransaction, look: Missing},
		{rule: BumpPerTransaction, look: Replaced},
		{rule: RestoreAfterInit, look: Torn},
		{rule: RestoreAfterDoubt, look: Torn},
		{rule: UnknownIsNotFailed, look: Torn},
		{rule: UnknownIsNotCommitted, look: Torn},
		{rule: NextEpochProvesNothing, look: Torn, only4: true},
		{rule: SameBytesOnRetry, look: Replaced},
		{rule: SameSequenceOnRetry, look: Torn},
		{rule: AcknowledgedBeforeCommit, look: Torn},
		{rule: BrokersVerify, look: Torn},

		{rule: AbortBeforeInit, otherwiseFor: "an owner without a rival keeps its shard, see TestAbortBeforeInitKeepsTheShard"},
		{rule: FencedSendsNothing, otherwiseFor: "two owners do not take the shard from one another in turns"},
		{rule: InvalidTxnStateIsNotCommitted, otherwiseFor: "as long as each transaction has its epoch, a commit is answered so only if it is committed"},
		{rule: RestoreDemandsSettled, otherwiseFor: "as long as brokers verify, nothing is undecided when an owner restores"},
	} {
		for _, kafka4 := range []bool{false, true} {
			name := fmt.Sprintf("%s %s, Kafka %s", c.rule, c.look, version(kafka4))
			t.Run(name, func(t *testing.T) {
				o := Options{Rules: AllRules.Without(c.rule), Windows: 2, Owners: 2, Kafka4: kafka4}
				if c.otherwiseFor != "" || c.only4 && !kafka4 {
					o.Windows = 1
					if *large {
						o.Windows = 3
					}
					demandNoViolation(t, check(t, o, Any))
					return
				}
				r := check(t, o, c.look)
				if r.Violation == "" {
					t.Fatalf("no state is wrong without %s", c.rule)
				}
				demandFewDeliveries(t, r)
				if kafka4 {
					golden(t, fmt.Sprintf("%s-%s.golden", c.rule, c.look), c.rule, r)
				}
			})
		}
	}
}

// demandFewDeliveries: no request need be delivered more than twice for it.
func demandFewDeliveries(t *testing.T, r Result) {
	t.Helper()
	deliveries := map[string]int{}
	for _, line := range r.Trace {
		_, what, _ := strings.Cut(line, ". ")
		if request, _, is := strings.Cut(strings.TrimPrefix(what, "LATE: "), " arrives"); is {
			if deliveries[request]++; deliveries[request] > 2 {
				t.Errorf("%s is delivered %d times", request, deliveries[request])
			}
		}
	}
}

// golden compares a trace with the one on file.
func golden(t *testing.T, name string, rule Rule, r Result) {
	t.Helper()
	text := fmt.Sprintf("Without %s:\n\n%s\n\n=> %s\n", rule, strings.Join(r.Trace, "\n"), r.Violation)
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("the trace is\n%s\nwant that of %s, or run with -model.update", text, path)
	}
}

// TestAbortBeforeInitKeepsTheShard: alone, and with nothing late, an owner is never
// fenced, whatever gets lost. If it asks for an epoch with its transaction open it
// fences itself; Kafka 4 lets it go on.
func TestAbortBeforeInitKeepsTheShard(t *testing.T) {
	for _, kafka4 := range []bool{false, true} {
		o := Options{Rules: AllRules, Windows: 3, Owners: 1, Kafka4: kafka4, Quiet: true}
		demandNoViolation(t, check(t, o, Any))
		o.Rules = AllRules.Without(AbortBeforeInit)
		if r := check(t, o, Fenced); (r.Violation == "") != kafka4 {
			t.Errorf("Kafka %s: found %q", version(kafka4), r.Violation)
		}
	}
}

// TestCoordinatorAnswers holds the model's coordinator against what was measured on
// real brokers and what their sources say.
func TestCoordinatorAnswers(t *testing.T) {
	current, former, older := message{}, message{age: 1}, message{age: 2}
	as := func(k kind, m message) message { m.kind = k; return m }
	batch := func(m message, p part) message {
		m.kind, m.part, m.batch = produce, p, batch{window: 1}
		return m
	}
	bumped := state{txn: empty, remembers: true, parts: [partCount]partition{{age: 1, next: 1}, {age: 1, next: 1}}}
	open, closing, done, aborted := bumped, bumped, bumped, bumped
	open.txn, closing.txn, done.txn, aborted.txn = ongoing, prepareCommit, completeCommit, completeAbort
	forgotten := bumped
	forgotten.remembers = false
	for _, c := range []struct {
		name    string
		before  state
		request message
		want    code
		after   txn
	}{
		{"a take-over with nothing open", done, as(takeOver, current), ok, empty},
		{"a take-over while one is open", open, as(takeOver, current), concurrentTransactions, prepareAbort},
		{"any InitProducerId while one is being ended", closing, as(bump, current), concurrentTransactions, prepareCommit},
		{"the next epoch", done, as(bump, current), ok, empty},
		{"the same again", bumped, as(bump, former), ok, empty},
		{"the same again, late, when the next transaction is open", open, as(bump, former), concurrentTransactions, prepareAbort},
		{"the same again, after a restart", forgotten, as(bump, former), producerFenced, empty},
		{"a stale epoch", bumped, as(bump, older), producerFenced, empty},
		{"one's own open transaction", open, as(bump, current), concurrentTransactions, prepareAbort},
		{"partitions", bumped, as(add, current), ok, ongoing},
		{"partitions again, late, after the commit", done, as(add, current), ok, ongoing},
		{"partitions of the former epoch", open, as(add, former), producerFenced, ongoing},
		{"partitions while one is being ended", closing, as(add, current), concurrentTransactions, prepareCommit},
		{"commit", open, as(commit, current), ok, prepareCommit},
		{"commit again at once", closing, as(commit, current), concurrentTransactions, prepareCommit},
		{"commit again", done, as(commit, current), ok, completeCommit},
		{"commit of nothing", bumped, as(commit, current), invalidTxnState, empty},
		{"commit after the abort", aborted, as(commit, current), invalidTxnState, completeAbort},
		{"commit of the former epoch", open, as(commit, former), producerFenced, ongoing},
		{"abort", open, as(abort, current), ok, prepareAbort},
		{"abort again", aborted, as(abort, current), ok, completeAbort},
		{"abort of nothing", bumped, as(abort, current), invalidTxnState, empty},
		{"abort after the commit", done, as(abort, current), invalidTxnState, completeCommit},
		{"a batch", open, batch(current, events), ok, ongoing},
		{"a batch without its partition added", bumped, batch(current, events), invalidTxnState, empty},
		{"a batch of the former epoch, not touched by the new one yet", open, batch(former, events), invalidEpoch, ongoing},
		{"a batch that leaves one out", open, message{kind: produce, sequence: 1, batch: batch(current, events).batch}, outOfOrder, ongoing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.before
			if got := newMachine(Options{Rules: AllRules}).serve(&s, c.request); got != c.want || s.txn != c.after {
				t.Errorf("answered %d and left the transaction at %d, want %d and %d", got, s.txn, c.want, c.after)
			}
		})
	}
}

// TestSameSequenceIsARepeat: a sequence number says all about a batch, its bytes
// nothing.
func TestSameSequenceIsARepeat(t *testing.T) {
	m, s := newMachine(Options{Rules: AllRules}), state{txn: ongoing}
	for _, v := range []variant{0, otherBytes} {
		if got := m.serve(&s, message{kind: produce, batch: batch{window: 1, variant: v}}); got != ok {
			t.Errorf("answered %d, want %d", got, ok)
		}
	}
	if p := s.parts[events]; p.open != 1 || p.batches[0].variant != 0 {
		t.Errorf("the partition holds %+v, want the first batch only", p.undecided())
	}
}

// TestFencedOwnerOfKafka4: what a time-out aborted may ask for its next epoch on
// Kafka 4, and not before.
func TestFencedOwnerOfKafka4(t *testing.T) {
	for kafka4, want := range map[bool]code{false: producerFenced, true: ok} {
		m, s := newMachine(Options{Rules: AllRules, Kafka4: kafka4}), state{txn: ongoing}
		m.fence(&s)
		s.writeMarkers()
		if got := m.serve(&s, message{kind: bump, age: 1}); got != want {
			t.Errorf("Kafka %s answered %d, want %d", version(kafka4), got, want)
		}
	}
}

// TestOptionsAreBounded: more than the state has room for is refused.
func TestOptionsAreBounded(t *testing.T) {
	for _, o := range []Options{{}, {Windows: 4, Owners: 2}, {Windows: 2, Owners: 4}} {
		if _, err := Check(o, Any); err == nil {
			t.Errorf("%+v was explored", o)
		}
	}
}
