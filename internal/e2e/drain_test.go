package e2e

import (
	"flag"
	"math"
	"syscall"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
)

var drainFlag = flag.Int("e2e.drain", 0, "records to drain into a real Kafka, to measure the daemon; 0: do not")

// TestDrain measures the daemon as a process while it works off a backlog into a
// real Kafka:
//
//	go test ./internal/e2e -run TestDrain -v -e2e.drain=1000000 -kafka.versions=4.4.0
//
// It prints records/s, the daemon's CPU time per record and its peak memory. It
// asserts only that all records arrived: figures depend on the machine.
func TestDrain(t *testing.T) {
	if *drainFlag == 0 {
		t.Skip("measures a drain: ask with -e2e.drain=1000000 -kafka.versions=" + kafkatest.NewestKafka4)
	}
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		const span = 24 * time.Hour
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{
			span: span, rate: float64(*drainFlag) / span.Seconds(), profiles: []string{"unlimited"}, window: 12 * time.Hour,
		})
		records := 0
		for _, source := range r.sources {
			count, err := r.feed.CountTruth(simulator.TruthQuery{Organization: source, Span: cdr.Span{StartInclusive: r.start, EndExclusive: r.until}})
			if err != nil {
				t.Fatal(err)
			}
			records += count.WithID
		}
		began := time.Now()
		state := r.runToEnd(15 * time.Minute)
		wall := time.Since(began)
		cpu := state.UserTime() + state.SystemTime()
		usage, ok := state.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Fatal("this system does not tell a process's memory")
		}
		events := 0
		r.each("webex.cdr.events", 6, func(int, committed.Record) { events++ })
		if events != records {
			t.Errorf("%d events of %d records", events, records)
		}
		ids := int64(math.Round(28.7 * float64(records)))
		t.Logf("Kafka %s: %d records in %s: %.0f records/s, %.2f CPU µs a record (%s user, %s system), peak RSS %.1f MiB, of which about %.1f MiB are the set of published IDs",
			version, records, wall.Round(time.Millisecond), float64(records)/wall.Seconds(),
			float64(cpu.Microseconds())/float64(records), state.UserTime(), state.SystemTime(),
			float64(usage.Maxrss)/1024, float64(ids)/(1<<20))
	})
}
