package committed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/describeconfigs"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// abortedDataGone is the case that loses committed records when entries are
// taken at data batches only: producer 1 aborts, its data is compacted away
// while marker and entry remain, then the same producer commits.
func abortedDataGone() *modelLog {
	l := newModelLog([]byte{1, 6, 1, 4})
	l.batches[0].offsets = nil
	l.batches = l.batches[1:]
	return l
}

func TestReadAfterAbortedDataWasCompactedAway(t *testing.T) {
	l := abortedDataGone()
	if want := []int64{2}; !slices.Equal(l.visible(0, 9), want) {
		t.Fatalf("the model shows %v, want %v", l.visible(0, 9), want)
	}
	for batchesLimit := 1; batchesLimit < 4; batchesLimit++ {
		for from := range l.endOffset {
			checkAgainstModel(t, l, batchesLimit, from, LastStable)
		}
	}
}

// TestReadAgreesWithModel reads random logs, compacted and not, from and to
// every offset in turn.
func TestReadAgreesWithModel(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		script := make([]byte, 1+random.IntN(40))
		for i := range script {
			script[i] = byte(random.IntN(256))
		}
		l := newModelLog(script)
		if seed%3 > 0 {
			l.compact(random)
		}
		batchesLimit := 1 + random.IntN(5)
		checkAgainstModel(t, l, batchesLimit, 0, LastStable)
		for range 5 {
			from := random.Int64N(l.endOffset + 1)
			checkAgainstModel(t, l, batchesLimit, from, LastStable)
			checkAgainstModel(t, l, batchesLimit, from, random.Int64N(l.endOffset+2))
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{1, 6, 1, 4}, uint64(1), uint8(1), uint16(0), int16(-1))
	f.Add([]byte{1, 9, 6, 1, 12, 4, 0, 255, 2}, uint64(7), uint8(2), uint16(3), int16(9))
	f.Add([]byte{255, 255, 0, 255}, uint64(3), uint8(1), uint16(40), int16(-1))
	f.Fuzz(func(t *testing.T, script []byte, seed uint64, batchesLimit uint8, from uint16, until int16) {
		if len(script) > 64 {
			t.Skip("long scripts find nothing new")
		}
		l := newModelLog(script)
		if seed != 0 {
			l.compact(rand.New(rand.NewPCG(seed, 0)))
		}
		checkAgainstModel(t, l, 1+int(batchesLimit%8), int64(from)%(l.endOffset+1), max(LastStable, int64(until)))
	})
}

// script answers one request after another; the last answer is repeated.
type script struct {
	answers  []func(kafka.Request) (kafka.Response, error)
	requests []kafka.Request
}

func (s *script) RoundTrip(ctx context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	answer := s.answers[min(len(s.requests), len(s.answers)-1)]
	s.requests = append(s.requests, request)
	return answer(request)
}

func fails(err error) func(kafka.Request) (kafka.Response, error) {
	return func(kafka.Request) (kafka.Response, error) { return nil, err }
}

func answers(p fetch.ResponsePartition) func(kafka.Request) (kafka.Response, error) {
	return func(kafka.Request) (kafka.Response, error) {
		return &fetch.Response{Topics: []fetch.ResponseTopic{{Topic: "t", Partitions: []fetch.ResponsePartition{p}}}}, nil
	}
}

func answersCode(code kafka.Error) func(kafka.Request) (kafka.Response, error) {
	return answers(fetch.ResponsePartition{ErrorCode: int16(code), HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1})
}

// oneRecord is a log of the one record 0.
func oneRecord(kafka.Request) (kafka.Response, error) {
	broker := &modelBroker{log: newModelLog([]byte{0}), batchesLimit: 1}
	return answers(broker.fetch(0))(nil)
}

func readScript(t *testing.T, s *script) ([]int64, error) {
	t.Helper()
	var got []int64
	_, _, err := scriptedReader(s).Read(t.Context(), "t", 0, 0, LastStable, func(r Record) error {
		got = append(got, r.Offset)
		return nil
	})
	return got, err
}

// TestReadWaitsForAMovingPartition: each of these has been seen while a leader
// moves, a broker restarts or throttles; none may end or shorten a read.
func TestReadWaitsForAMovingPartition(t *testing.T) {
	for name, answer := range map[string]func(kafka.Request) (kafka.Response, error){
		"not the leader":      answersCode(kafka.NotLeaderForPartition),
		"leader unknown":      answersCode(kafka.LeaderNotAvailable),
		"topic not yet known": answersCode(kafka.UnknownTopicOrPartition),
		"fenced leader epoch": answersCode(kafka.FencedLeaderEpoch),
		"unknown epoch":       answersCode(kafka.UnknownLeaderEpoch),
		"offset not yet":      answersCode(kafka.OffsetNotAvailable),
		"disk moved":          answersCode(kafka.KafkaStorageError),
		"unknown code":        answersCode(kafka.Unknown),
		"no leader":           fails(protocol.NewErrNoLeader("t", 0)),
		"broker gone":         fails(kafka.BrokerNotAvailable),
		"connection cut":      fails(errors.New("read tcp: connection reset by peer")),
		"answer late":         fails(context.DeadlineExceeded),
		"throttled":           func(kafka.Request) (kafka.Response, error) { return &fetch.Response{ThrottleTimeMs: 100}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: []func(kafka.Request) (kafka.Response, error){answer, answer, answer, oneRecord}}
				got, err := readScript(t, s)
				if err != nil || !slices.Equal(got, []int64{0}) {
					t.Errorf("read %v, %v; want record 0", got, err)
				}
				if len(s.requests) != 4 {
					t.Errorf("%d requests, want 4", len(s.requests))
				}
			})
		})
	}
}

// TestReadGivesUp: patience ends, and what waiting does not mend is not waited for.
func TestReadGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		answer             func(kafka.Request) (kafka.Response, error)
		atLeast, atMost    time.Duration
		says               string
		requestsAtMostOnce bool
	}{
		"leader lost":   {answer: answersCode(kafka.NotLeaderForPartition), atLeast: 25 * time.Second, atMost: 31 * time.Second, says: "keeps moving"},
		"topic missing": {answer: answersCode(kafka.UnknownTopicOrPartition), atLeast: 3 * time.Second, atMost: 6 * time.Second, says: "does not exist"},
		"ACL":           {answer: answersCode(kafka.TopicAuthorizationFailed), says: "ACLs deny this user the topic", requestsAtMostOnce: true},
		"SASL":          {answer: fails(kafka.SASLAuthenticationFailed), says: "user name or password", requestsAtMostOnce: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: []func(kafka.Request) (kafka.Response, error){c.answer}}
				start := time.Now()
				_, err := readScript(t, s)
				if took := time.Since(start); took < c.atLeast || took > c.atMost {
					t.Errorf("gave up after %s, want %s to %s", took, c.atLeast, c.atMost)
				}
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "read t-0 at offset 0") {
					t.Errorf("error %q, want it to say %q and the place", err, c.says)
				}
				if c.requestsAtMostOnce && len(s.requests) != 1 {
					t.Errorf("%d requests, want 1", len(s.requests))
				}
			})
		})
	}
}

// TestUnreachableClusterIsNotAMissingTopic: kafka-go answers "topic not found"
// as long as it has reached no broker.
func TestUnreachableClusterIsNotAMissingTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(kafka.Request) (kafka.Response, error){func(r kafka.Request) (kafka.Response, error) {
			if _, ok := r.(*metadata.Request); ok {
				return nil, &net.DNSError{Name: "nowhere", Err: "no such host"}
			}
			return nil, fetch.NewError(protocol.NewErrNoTopic("t"))
		}}}
		_, err := readScript(t, s)
		if err == nil || !strings.Contains(err.Error(), "host name is not known") {
			t.Errorf("error %q, want the cause in the network", err)
		}
	})
}

func TestReadEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := &script{answers: []func(kafka.Request) (kafka.Response, error){answersCode(kafka.NotLeaderForPartition)}}
		start := time.Now()
		_, _, err := scriptedReader(s).Read(ctx, "t", 0, 0, LastStable, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("ended after %s with %v, want the context's end", time.Since(start), err)
		}
	})
}

func TestOutOfRangeIsToldApart(t *testing.T) {
	l := newModelLog([]byte{0, 0, 0})
	l.logStart = 1
	for _, from := range []int64{0, 4} {
		_, _, err := (&modelBroker{log: l, batchesLimit: 1}).reader().Read(t.Context(), "t", 0, from, LastStable, nil)
		want := OutOfRangeError{Topic: "t", Offset: from, Bounds: Bounds{LogStart: 1, LastStable: 3, HighWatermark: 3}}
		var got *OutOfRangeError
		if !errors.As(err, &got) || *got != want {
			t.Errorf("reading from %d: %v, want %v", from, err, &want)
		}
	}
}

func TestEarliest(t *testing.T) {
	l := newModelLog([]byte{0, 0, 0})
	l.logStart = 2
	l.batches = l.batches[2:]
	var got []int64
	next, _, err := (&modelBroker{log: l, batchesLimit: 1}).reader().Read(t.Context(), "t", 0, Earliest, LastStable, func(r Record) error {
		got = append(got, r.Offset)
		return nil
	})
	if err != nil || next != 3 || !slices.Equal(got, []int64{2}) {
		t.Errorf("read %v, next %d, %v; want record 2, next 3", got, next, err)
	}
}

// TestErrorOfTheCallerEndsTheRead: nothing after the refused record is handed
// over, nothing stays open, and reading goes on with that record.
func TestErrorOfTheCallerEndsTheRead(t *testing.T) {
	refusal := errors.New("refused")
	broker := &modelBroker{log: newModelLog([]byte{0x60, 0x60}), batchesLimit: 2}
	var got []int64
	next, _, err := broker.reader().Read(t.Context(), "t", 0, 0, LastStable, func(r Record) error {
		got = append(got, r.Offset)
		if r.Offset == 1 {
			return refusal
		}
		return nil
	})
	if err != refusal || next != 1 || !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("read %v, next %d, %v; want records 0 and 1, next 1, the refusal itself", got, next, err)
	}
	if len(broker.unclosed) > 0 {
		t.Errorf("not closed: %v", broker.unclosed)
	}
}

// TestUnknownFormatIsRefused: an old message set has no producer, so nothing
// could tell what of it is committed.
func TestUnknownFormatIsRefused(t *testing.T) {
	old := fetch.ResponsePartition{HighWatermark: 1, LastStableOffset: 1}
	old.RecordSet.Records = &protocol.RecordStream{Records: []protocol.RecordReader{&protocol.MessageSet{Records: protocol.NewRecordReader()}}}
	_, err := readScript(t, &script{answers: []func(kafka.Request) (kafka.Response, error){answers(old)}})
	if !errors.Is(err, errUnknownFormat) {
		t.Errorf("error %v, want %v", err, errUnknownFormat)
	}
}

func TestRequestAsksForCommittedOnly(t *testing.T) {
	s := &script{answers: []func(kafka.Request) (kafka.Response, error){oneRecord}}
	if _, err := readScript(t, s); err != nil {
		t.Fatal(err)
	}
	request := s.requests[0].(*fetch.Request)
	if request.IsolationLevel != 1 || request.SessionEpoch != -1 || request.SessionID != 0 || request.ReplicaID != -1 || request.RackID != "" {
		t.Errorf("request %+v: want read_committed, outside a session, as a consumer", request)
	}
}

// holeBeforeEnd answers fetches without any batch although the last stable
// offset lies further on, and tells the topic's cleanup policy.
func holeBeforeEnd(policy string, emptyAnswers int) func(kafka.Request) (kafka.Response, error) {
	broker := &modelBroker{log: newModelLog([]byte{0, 0x7f, 0}), batchesLimit: 1}
	broker.log.batches = broker.log.batches[:1]
	full := &modelBroker{log: newModelLog([]byte{0, 0x7f, 0}), batchesLimit: 1}
	return func(r kafka.Request) (kafka.Response, error) {
		switch r := r.(type) {
		case *fetch.Request:
			if offset := r.Topics[0].Partitions[0].FetchOffset; offset > 0 {
				if emptyAnswers--; emptyAnswers < 0 {
					return answers(full.fetch(offset))(r)
				}
			}
			return answers(broker.fetch(r.Topics[0].Partitions[0].FetchOffset))(r)
		case *describeconfigs.Request:
			return &describeconfigs.Response{Resources: []describeconfigs.ResponseResource{{
				ConfigEntries: []describeconfigs.ResponseConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: policy}},
			}}}, nil
		default:
			return nil, fmt.Errorf("unexpected request %T", r)
		}
	}
}

// TestHoleBeforeTheEnd: an answer without a batch is a hole in a compacted
// topic, and elsewhere data that the leader cannot show just now.
func TestHoleBeforeTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		policy       string
		emptyAnswers int
		want         []int64
		wantNext     int64
		wantErr      error
	}{
		"compacted":                      {policy: "compact", emptyAnswers: 1000, want: []int64{0}, wantNext: 17},
		"compacted and deleted":          {policy: "compact,delete", emptyAnswers: 1000, want: []int64{0}, wantNext: 17},
		"deleted":                        {policy: "delete", emptyAnswers: 1000, want: []int64{0}, wantNext: 1, wantErr: errNothingThere},
		"slow to show, so not a hole":    {policy: "delete", emptyAnswers: 4, want: []int64{0, 16}, wantNext: 17},
		"slow to show, though compacted": {policy: "compact", emptyAnswers: 4, want: []int64{0, 16}, wantNext: 17},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: []func(kafka.Request) (kafka.Response, error){holeBeforeEnd(c.policy, c.emptyAnswers)}}
				var got []int64
				next, _, err := scriptedReader(s).Read(t.Context(), "t", 0, 0, LastStable, func(r Record) error {
					got = append(got, r.Offset)
					return nil
				})
				if !errors.Is(err, c.wantErr) || next != c.wantNext || !slices.Equal(got, c.want) {
					t.Errorf("read %v, next %d, %v; want %v, next %d, %v", got, next, err, c.want, c.wantNext, c.wantErr)
				}
			})
		})
	}
}
