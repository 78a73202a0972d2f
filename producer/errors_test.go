package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"
)

// law is what a shard must do about each code at each request, written down
// apart from the table in errors.go, by number: the project's law of error codes.
// A code that is not named here restores.
//
//	again:   the same request is repeated, the commit succeeds
//	done:    the request counts as carried out
//	restore: MustRestore
//	fenced:  Fenced
var law = map[Request]map[string][]int{
	InitProducerID:    {"again": {51, 14, 15, 16, 7, 20}, "fenced": {90, 47, 49}},
	AddPartitions:     {"again": {51, 14, 15, 16, 7, 20}, "fenced": {90, 47, 49}},
	Produce:           {"again": {6, 5, 3, 19, 56, 13, 7, 20}, "done": {46}, "fenced": {90, 47, 49}},
	CommitTransaction: {"again": {51, 14, 15, 16, 7, 20}, "fenced": {90, 47, 49}},
	AbortTransaction:  {"again": {51, 14, 15, 16, 7, 20}, "done": {48}, "fenced": {90, 47, 49}},
}

// lawOfBlame is whose fault a failure is where it is not the coordinator's, or,
// for a code that no row names, at Produce the data's.
var lawOfBlame = map[Blame][]int{
	BlameData:     {10, 87, 2},
	BlameSettings: {32, 29, 30, 31, 53, 35, 50},
}

func lawFor(request Request, code int) string {
	for what, codes := range law[request] {
		if slices.Contains(codes, code) {
			return what
		}
	}
	return "restore"
}

func blameFor(request Request, code int) Blame {
	for blame, codes := range lawOfBlame {
		if slices.Contains(codes, code) && (request == Produce || blame == BlameSettings && code != 32) {
			return blame
		}
	}
	if request == Produce && !slices.Contains([]int{45, 48, 59}, code) {
		return BlameData
	}
	return BlameCoordinator
}

// TestEveryCodeAtEveryRequest answers one request of a commit with each code that
// Kafka has, and some that it has not, and demands what the law says.
func TestEveryCodeAtEveryRequest(t *testing.T) {
	for request := range requestCount {
		for number := -2; number <= 135; number++ {
			if number == 0 {
				continue
			}
			bubble(t, func(t *testing.T, k *fakeKafka) {
				k.code = kafka.Error(number)
				o := newOwner(t, k, ExactlyOnce)
				o.commitNext(t.Context())
				o.steps = nil
				if request == AbortTransaction {
					checkCodeAtAbort(t, o, number)
				} else {
					checkCode(t, o, request, number)
				}
				if t.Failed() {
					t.Fatalf("code %d at %s\n%s", number, request, o.story())
				}
			})
		}
	}
}

// faultOnce is a fault of the next request of a kind, and of no other.
func (k *fakeKafka) faultOnce(f fault, kind Request) {
	k.fault = func(_ int, asked Request) fault {
		if asked != kind {
			return noFault
		}
		k.fault = func(int, Request) fault { return noFault }
		return f
	}
}

func checkCode(t *testing.T, o *owner, request Request, number int) {
	o.kafka.faultOnce(coded, request)
	result := o.shard.Commit(t.Context(), window(t, o.kafka.layout, 2))
	got := "?"
	switch result := result.(type) {
	case Committed:
		got = "done"
		if slices.ContainsFunc(o.steps, func(s Step) bool { return s.Request == request && s.Code == kafka.Error(number) }) {
			got = "again"
		}
	case MustRestore:
		got = "restore"
		if want := blameFor(request, number); result.Blame != want {
			t.Errorf("blame is %s, want %s", result.Blame, want)
		}
		checkCause(t, result.Cause, request, number)
		if result.Blame == BlameSettings && !strings.Contains(result.Cause.Error(), "; ") {
			t.Errorf("%q names no remedy", result.Cause)
		}
	case Fenced:
		got = "fenced"
		checkCause(t, result.Cause, request, number)
	}
	if want := lawFor(request, number); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
}

// checkCodeAtAbort makes a commit fail first, since only Recover aborts.
func checkCodeAtAbort(t *testing.T, o *owner, number int) {
	o.kafka.faultOnce(aborting, Produce)
	if _, ok := o.shard.Commit(t.Context(), window(t, o.kafka.layout, 2)).(MustRestore); !ok {
		t.Fatal("the commit did not fail")
	}
	o.kafka.faultOnce(coded, AbortTransaction)
	o.steps = nil
	got := "?"
	switch result := o.shard.Recover(t.Context()).(type) {
	case Recovered:
		got = "done"
		if o.steps[0].Code == kafka.Error(number) && o.steps[1].Request == AbortTransaction {
			got = "again"
		}
	case MustRestore:
		got = "restore"
		checkCause(t, result.Cause, AbortTransaction, number)
	case Fenced:
		// A "done" abort that was none leaves the transaction open, and the next
		// epoch fences ourselves. That is the fake's strictness, not the code's.
		got = "fenced"
		if number == 48 {
			got = "done"
			break
		}
		checkCause(t, result.Cause, AbortTransaction, number)
	}
	if want := lawFor(AbortTransaction, number); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
}

func checkCause(t *testing.T, cause error, request Request, number int) {
	t.Helper()
	var failure *Failure
	if !errors.As(cause, &failure) || failure.Request != request || failure.Code != kafka.Error(number) || !errors.Is(cause, kafka.Error(number)) {
		t.Errorf("cause is %v, want a Failure of %s with code %d", cause, request, number)
	}
	if failure != nil && (failure.On == "" || strings.Contains(failure.On, "call-")) {
		t.Errorf("cause is about %q", failure.On)
	}
}

// TestNoAnswerIsIndefinite takes every kind of error that kafka-go returns for
// "it may have been carried out".
func TestNoAnswerIsIndefinite(t *testing.T) {
	for _, err := range []error{
		context.Canceled, context.DeadlineExceeded, errConnection, kafka.BrokerNotAvailable, kafka.SASLAuthenticationFailed,
		kafka.ProducerFenced, // as a text of some library it proves nothing
		fmt.Errorf("fetch request error: %w", errors.New("mismatching leaders (1!=2)")),
	} {
		if f := unanswered(Produce, "events-0", err); f.class != indefinite || f.Code != 0 || !errors.Is(f, err) {
			t.Errorf("%v is %+v", err, f)
		}
	}
}

// TestTableHasOneRowForEachPair holds that no row hides another.
func TestTableHasOneRowForEachPair(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules {
		for request := range requestCount {
			if !r.on.has(request) {
				continue
			}
			pair := fmt.Sprint(request, int(r.code))
			if seen[pair] {
				t.Errorf("two rows for %s and code %d", request, r.code)
			}
			seen[pair] = true
		}
	}
}

func TestWorse(t *testing.T) {
	failure := func(code kafka.Error) *Failure { return answered(AddPartitions, "x", int16(code)) }
	for _, c := range []struct {
		name       string
		a, b, want kafka.Error
	}{
		{"the larger class decides", kafka.ConcurrentTransactions, kafka.ProducerFenced, kafka.ProducerFenced},
		{"whichever comes first", kafka.ProducerFenced, kafka.TopicAuthorizationFailed, kafka.ProducerFenced},
		{"of one class the first", kafka.InvalidTransactionState, kafka.UnknownTopicOrPartition, kafka.InvalidTransactionState},
		{"not attempted explains nothing", operationNotAttempted, kafka.UnknownTopicOrPartition, kafka.UnknownTopicOrPartition},
		{"not attempted says nothing", operationNotAttempted, kafka.ConcurrentTransactions, kafka.ConcurrentTransactions},
		{"not attempted comes after", kafka.UnknownTopicOrPartition, operationNotAttempted, kafka.UnknownTopicOrPartition},
	} {
		if got := worse(failure(c.a), failure(c.b)); got.Code != c.want {
			t.Errorf("%s: %d, want %d", c.name, got.Code, c.want)
		}
	}
	if worse(nil, nil) != nil || worse(nil, failure(90)) == nil || worse(failure(90), nil) == nil {
		t.Error("nil is not treated as no failure")
	}
}

// TestPartialAnswers holds that what an answer does not name is not done: it is
// asked for again, and only that.
func TestPartialAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, k *fakeKafka) {
		o := newOwner(t, k, ExactlyOnce)
		o.shard.wire.transport = &cuttingTransport{RoundTripper: o.shard.wire.transport, added: 2, produced: 1}
		effects := func() (added, produced, batches int) {
			o.steps = nil
			if outcome := o.commitNext(t.Context()); outcome != "committed" {
				t.Errorf("outcome is %s", outcome)
			}
			for _, s := range o.steps {
				added += boolToInt(s.Request == AddPartitions)
				produced += boolToInt(s.Request == Produce)
				batches += s.Batches
			}
			return added, produced, batches
		}
		added, produced, batches := effects()
		wantAdded, wantProduced, wantBatches := effects()
		if added != wantAdded+2 || produced != wantProduced+1 || batches != wantBatches+1 {
			t.Errorf("two short answers to AddPartitions and one to Produce lead to %d, %d and %d batches; without them it is %d, %d, %d",
				added, produced, batches, wantAdded, wantProduced, wantBatches)
		}
	})
	bubble(t, func(t *testing.T, k *fakeKafka) {
		k.faultOnce(coded, InitProducerID) // code 0, but no identity
		o := newOwner(t, k, ExactlyOnce)
		if o.steps[0].Err == nil || o.shard.own.producerID < 0 {
			t.Errorf("an answer without identity is %+v, and the shard's is %v", o.steps[0], o.shard.own)
		}
	})
}
