package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/kafkatest"
	"cdrbus/offsets"
)

// TestSiegeCleaner lets the cleaner compact the positions while the program runs
// and is killed: segments of a second, cleaned as soon as one is full. Half of the
// lives end when all but the commit itself is in the log, so restores read a log
// with holes, empty batches, and abort markers whose data is gone.
func TestSiegeCleaner(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		s := startProcessSiege(t, "cleaner", kafkatest.Options{Version: version, Properties: map[string]string{"log.cleaner.backoff.ms": "200"}})
		s.cluster.CreateTopic(t, "webex.cdr.offsets", shards, map[string]string{
			"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.001",
			"max.compaction.lag.ms": "500", "delete.retention.ms": fmt.Sprint((7 * 24 * time.Hour).Milliseconds()),
		})
		for life := range *killsFlag {
			if life == *killsFlag/2 {
				s.awaitHoles()
			}
			if life%2 == 0 {
				s.life(point{kmsg.EndTxn, unsent})
			} else {
				s.life(point{})
			}
		}
		s.settle()
	})
}

// awaitHoles lets the program run until most of the positions that it ever
// committed are gone from every partition that holds any. Only an append closes a
// segment, so without the program nothing would be cleaned.
func (s *siege) awaitHoles() {
	s.t.Helper()
	p := s.startRun()
	kafkatest.Eventually(s.t, 2*time.Minute, "the cleaner has removed most positions", func() error {
		s.alive(p)
		left, counters := map[cdr.SourceName]int{}, map[cdr.SourceName]cdr.Counter{}
		s.eachPosition(func(_ string, position offsets.Position) {
			left[position.Source]++
			counters[position.Source] = position.Counter
		})
		for source, counter := range counters {
			if cdr.Counter(2*left[source]) > counter {
				return fmt.Errorf("%d of %d of %s are left", left[source], counter, source)
			}
		}
		s.t.Logf("the cleaner left %v of the positions up to %v", left, counters)
		return nil
	})
	p.kill()
	s.strike("killed at random")
}
