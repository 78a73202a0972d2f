package e2e

import (
	"bytes"
	"testing"
	"time"

	"cdrbus/internal/kafkatest"
)

// TestTwoDeploymentsRealKafka: two static processes with one prefix take their
// shards from one another, on brokers that fence as kfake does not. Both get to
// their bound, and every record is there once. No marker, however a coordinator
// writes it, is taken for another writer.
func TestTwoDeploymentsRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{span: 6 * time.Hour, rate: 0.1, profiles: []string{"unlimited"}, window: 2 * time.Minute})
		processes := []*process{r.startRun(), r.startRun()}
		for _, p := range processes {
			select {
			case <-p.ended:
				if p.err != nil {
					t.Errorf("a process ended with %v", p.err)
				}
			case <-time.After(3 * time.Minute):
				t.Fatal("a process did not reach its bound within 3 minutes")
			}
		}
		log := r.log.tail(1 << 24)
		if !bytes.Contains(log, []byte("shard lost")) {
			t.Error("no shard was lost: the processes did not meet")
		}
		t.Logf("shards were lost %d times", bytes.Count(log, []byte("shard lost, taking it over again")))
		if bytes.Contains(log, []byte("somebody else writes")) {
			t.Error("owners of one prefix took one another for strangers")
		}
		r.truth().compare(t, r.readThrough(), false)
	})
}
