package daemon_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/daemon"
	"cdrbus/internal/status"
)

// TestSpoiledWindowParksItsSourceAlone: Kafka refuses whatever holds events of one
// source. The two share a shard and so their commits; one is parked with its
// reason, the other one goes on as if nothing were.
func TestSpoiledWindowParksItsSourceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		spoiled := 0
		w.cluster.Kafka.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.Kafka.KeepControl()
			for _, topic := range request.(*kmsg.ProduceRequest).Topics {
				for _, partition := range topic.Partitions {
					if bytes.Contains(partition.Records, []byte(daemon.EventSource("globex"))) {
						spoiled++
						return refusal(request, int16(kafka.InvalidRecord)), nil, true
					}
				}
			}
			return nil, nil, false
		})
		cfg := w.config("", w.source("acme", "shard_key: both"), w.source("globex", "shard_key: both"))
		until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
		board, err := w.run(t.Context(), cfg, until)
		if !errors.Is(err, daemon.ErrNotReached) || !strings.Contains(err.Error(), "globex") || strings.Contains(err.Error(), "acme") {
			t.Errorf("the run ended with %v, want globex alone short of %s", err, until)
		}
		w.demandTruth("acme")
		if got := w.position("globex").Counter; got != 1 {
			t.Errorf("globex has counter %d, want its start alone", got)
		}
		for _, s := range board.Snapshot().Sources {
			if want := s.Name == "globex"; (s.State == status.Parked) != want || want && s.Reason == "" {
				t.Errorf("%s is %s (%s)", s.Name, s.State, s.Reason)
			}
		}
		if spoiled < 3 || spoiled > 4 { // perhaps once together, then three times alone
			t.Errorf("%d commits were tried with globex's events, want 3, and one more if acme's were along", spoiled)
		}
	})
}
