package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

var backfillFlag = flag.Float64("e2e.backfill", 1, "days that TestBackfillRealKafka fills in, of a record a second")

// TestBackfillRealKafka fills in many days beside a live source, with the daemon killed
// ten times; then again, which publishes nothing; and holds the feed against the topic.
func TestBackfillRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{
			span: time.Hour, rate: 1, sources: []string{bareSource}, profiles: []string{"unlimited"}, window: 12 * time.Hour,
			tune: func(o *simulator.Options) { o.Records.Until = time.Now().Add(-10 * time.Minute) },
		})
		r.runToEnd(time.Minute)
		span := cdr.Span{StartInclusive: r.start.Add(-time.Duration(*backfillFlag * float64(24*time.Hour))), EndExclusive: r.until}
		daemon := r.startLive()
		backfill := func(kills int) offsets.JobState {
			command := r.command("backfill", "--source", bareSource, "--from", span.StartInclusive.String(), "--to", span.EndExclusive.String(), "-o", "json")
			for range kills {
				select {
				case <-command.ended:
					t.Fatalf("the backfill ended before it was killed often enough: %s", command.out.String())
				case <-time.After(2*time.Second + rand.N(4*time.Second)):
				}
				daemon.kill()
				daemon = r.startLive()
			}
			<-command.ended
			var state offsets.JobState
			if err := json.Unmarshal(command.out.Bytes(), &state); err != nil || command.err != nil {
				t.Fatalf("backfill: %v, %v: %s\n%s", command.err, err, command.out.String(), command.log.tail(2000))
			}
			return state
		}
		began := time.Now()
		first := backfill(int(min(10, 10**backfillFlag)))
		took := time.Since(began)
		again := backfill(0)
		if again.Published != 0 || again.Items < first.Published {
			t.Errorf("the same span again: %+v", again)
		}
		verify := r.command("verify", "--source", bareSource, "--from", span.StartInclusive.String(), "--to", span.EndExclusive.String())
		<-verify.ended
		if verify.err != nil {
			t.Errorf("verify: %v: %s\n%s", verify.err, verify.out.String(), verify.log.tail(2000))
		}
		_ = daemon.command.Process.Signal(syscall.SIGTERM)
		<-daemon.ended
		r.awaitMarkers()
		r.start = span.StartInclusive
		balance := r.truth().compare(t, r.readWithKcat(), false)
		usage, ok := daemon.command.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Fatal("this system does not tell a process's memory")
		}
		t.Logf("Kafka %s: %s; %.1f days in %s, the last daemon's peak RSS %.1f MiB\n%s", version, balance, *backfillFlag, took.Round(time.Second), float64(usage.Maxrss)/1024, verify.out.String())
	})
}

// startLive begins a run without a bound.
func (r *rig) startLive() *process {
	r.t.Helper()
	return r.begin(exec.Command(r.binary(), "run", "-c", r.config))
}

// command runs a command beside the daemon.
func (r *rig) command(name string, arguments ...string) *commandProcess {
	r.t.Helper()
	command := exec.Command(r.binary(), append([]string{name, "-c", r.config}, arguments...)...)
	c := &commandProcess{}
	command.Stdout = &c.out
	c.process = r.begin(command)
	return c
}

// commandProcess is a command under way; out is to be read when it has ended.
type commandProcess struct {
	*process
	out bytes.Buffer
}
