package committed

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// offsetsAsked tells the offset of every fetch.
type offsetsAsked struct {
	broker *modelBroker
	asked  chan int64
}

func (o *offsetsAsked) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	if r, ok := request.(*fetch.Request); ok {
		o.asked <- r.Topics[0].Partitions[0].FetchOffset
	}
	return o.broker.RoundTrip(ctx, addr, request)
}

// TestReadFetchesAhead: the next answer is on its way while one is handed over, and
// no more than that one; behind the last there is nothing to ask for.
func TestReadFetchesAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := &offsetsAsked{broker: &modelBroker{log: newModelLog([]byte{0x20, 0x20, 0x20}), batchesLimit: 1}, asked: make(chan int64, 9)}
		next, _, err := scriptedReader(asked).Read(t.Context(), "t", 0, 0, LastStable, func(r Record) error {
			synctest.Wait() // until the fetch ahead has come to its end
			want := map[int64]int{0: 2, 1: 2, 2: 3, 3: 3, 4: 3, 5: 3}[r.Offset]
			if got := len(asked.asked); got != want {
				t.Errorf("at record %d %d answers were asked for, want %d", r.Offset, got, want)
			}
			return nil
		})
		close(asked.asked)
		var got []int64
		for offset := range asked.asked {
			got = append(got, offset)
		}
		if want := []int64{0, 2, 4}; err != nil || next != 6 || !slices.Equal(got, want) {
			t.Errorf("asked at %v, next %d, %v; want %v, 6", got, next, err, want)
		}
	})
}

// TestReadStepsWithLargeAnswers: in the middle of a batch that compaction has shortened
// more is asked for, so that the answer shows the batch behind it.
func TestReadStepsWithLargeAnswers(t *testing.T) {
	l := newModelLog([]byte{0xe0, 0x20}) // eight records and two
	l.batches[0].offsets = l.batches[0].offsets[:3]
	broker := &modelBroker{log: l, batchesLimit: 1}
	var limits []int32
	transport := roundTripper(func(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
		if r, ok := request.(*fetch.Request); ok {
			limit := r.Topics[0].Partitions[0].PartitionMaxBytes
			limits = append(limits, limit)
			broker.batchesLimit = map[bool]int{true: 2, false: 1}[limit == steppingBytes]
		}
		return broker.RoundTrip(ctx, addr, request)
	})
	var got []int64
	next, _, err := scriptedReader(transport).Read(t.Context(), "t", 0, 0, LastStable, func(r Record) error {
		got = append(got, r.Offset)
		return nil
	})
	if want := []int64{0, 1, 2, 8, 9}; err != nil || next != 10 || !slices.Equal(got, want) {
		t.Errorf("read %v, next %d, %v; want %v, 10", got, next, err, want)
	}
	if want := []int32{fetchBytes, fetchBytes, steppingBytes}; !slices.Equal(limits, want) {
		t.Errorf("answers of %v bytes were asked for, want %v", limits, want)
	}
}

type roundTripper func(context.Context, net.Addr, kafka.Request) (kafka.Response, error)

func (f roundTripper) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	return f(ctx, addr, request)
}

// TestRefusedRecordAbandonsWhatIsFetchedAhead: it is given back, and its goroutine
// has ended, be the answer there already or never to come.
func TestRefusedRecordAbandonsWhatIsFetchedAhead(t *testing.T) {
	refusal := errors.New("refused")
	for name, hangs := range map[string]bool{"there already": false, "never to come": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broker := &modelBroker{log: newModelLog([]byte{0x20, 0x20, 0x20}), batchesLimit: 1}
				transport := hanging{broker, func(offset int64) bool { return hangs && offset > 0 }}
				next, _, err := scriptedReader(transport).Read(t.Context(), "t", 0, 0, LastStable, func(Record) error {
					synctest.Wait()
					return refusal
				})
				if err != refusal || next != 0 {
					t.Errorf("next %d, %v; want 0 and the refusal itself", next, err)
				}
				if len(broker.unclosed) > 0 {
					t.Errorf("not closed: %v", broker.unclosed)
				}
			})
		})
	}
}

// hanging does not answer fetches at some offsets.
type hanging struct {
	*modelBroker
	at func(offset int64) bool
}

func (h hanging) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	if r, ok := request.(*fetch.Request); ok && h.at(r.Topics[0].Partitions[0].FetchOffset) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.modelBroker.RoundTrip(ctx, addr, request)
}
