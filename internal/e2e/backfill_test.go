package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
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

// backfillKills is how often the daemon is killed while it fills in a span.
const backfillKills = 10

// TestBackfillRealKafka fills in many days beside a source that goes on, with the daemon
// killed again and again; then once more, which publishes nothing; and holds the feed
// against the topic.
func TestBackfillRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{
			span: time.Hour, rate: 1, sources: []string{bareSource}, profiles: []string{"unlimited"}, window: time.Hour,
			limits: "{initial_per_minute: 240, pages_per_minute: 6000}", // so that there is time to be killed
			source: "lookback: 792h",                                    // more than the 30 days that are asked for
			tune:   func(o *simulator.Options) { o.Answers.Feed.Lookback = 33 * 24 * time.Hour },
		})
		r.runToEnd(time.Minute)
		b := &backfilling{rig: r, daemon: r.startLive()}
		b.span = cdr.Span{StartInclusive: r.start.Add(-time.Duration(*backfillFlag * float64(24*time.Hour))), EndExclusive: r.until}
		began := time.Now()
		first := b.fill(backfillKills)
		took := time.Since(began)
		if again := b.fill(0); again.Published != 0 || again.Items < first.Published {
			t.Errorf("the same span again: %+v", again)
		}
		verify := r.command("verify", "--source", bareSource, "--from", b.span.StartInclusive.String(), "--to", b.span.EndExclusive.String())
		<-verify.ended
		if verify.err != nil {
			t.Errorf("verify: %v: %s\n%s", verify.err, verify.out.String(), verify.log.tail(2000))
		}
		livedTo := r.until
		r.until = cdr.InstantOf(time.Now().Add(-6 * time.Minute)) // the live edge is half a minute ahead of this
		b.notePeak()
		_ = b.daemon.command.Process.Signal(syscall.SIGTERM)
		<-b.daemon.ended
		r.runToEnd(time.Minute)
		r.awaitMarkers()
		r.start = b.span.StartInclusive
		balance := r.truth().compare(t, r.readWithKcat(), false)
		t.Logf("Kafka %s: %s; %.1f days in %s, and %s of live meanwhile; peak RSS in MiB of each life %.1f\n%s",
			version, balance, *backfillFlag, took.Round(time.Second), r.until.Sub(livedTo), b.peaks, verify.out.String())
	})
}

// backfilling is a daemon that fills in a span beside its live source.
type backfilling struct {
	*rig
	daemon *process
	span   cdr.Span
	peaks  []float64 // MiB of resident memory that each life had at most
}

// fill has the span filled in, and kills the daemon whenever another part of it is done.
func (b *backfilling) fill(kills int) offsets.JobState {
	b.t.Helper()
	command := b.command("backfill", "--source", bareSource, "--from", b.span.StartInclusive.String(), "--to", b.span.EndExclusive.String(), "-o", "json")
	for kill := range kills {
		b.awaitJobAt(b.span.StartInclusive.Add(b.span.Duration()*time.Duration(kill)/time.Duration(kills)), command)
		b.notePeak()
		b.daemon.kill()
		b.daemon = b.startLive()
	}
	<-command.ended
	var state offsets.JobState
	if err := json.Unmarshal(command.out.Bytes(), &state); err != nil || command.err != nil {
		b.t.Fatalf("backfill: %v, %v: %s\n%s", command.err, err, command.out.String(), command.log.tail(2000))
	}
	return state
}

// awaitJobAt waits until a job is under way, and done up to an instant.
func (b *backfilling) awaitJobAt(reached cdr.Instant, submitted *commandProcess) {
	b.t.Helper()
	for {
		list := b.command("jobs", "list", "-o", "json")
		<-list.ended
		var states []offsets.JobState
		if err := json.Unmarshal(list.out.Bytes(), &states); err != nil || list.err != nil {
			b.t.Fatalf("jobs list: %v, %v: %s", list.err, err, list.log.tail(2000))
		}
		for _, s := range states {
			if s.Phase == offsets.JobRunning && s.Next >= reached {
				return
			}
		}
		select {
		case <-submitted.ended:
			b.t.Fatalf("the backfill ended before it was killed often enough: %s", submitted.out.String())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// notePeak keeps what the daemon has taken, before it ends.
func (b *backfilling) notePeak() { b.peaks = append(b.peaks, float64(b.daemon.peak())/(1<<20)) }

// startLive begins a run without a bound.
func (r *rig) startLive() *process {
	r.t.Helper()
	return r.begin(exec.Command(r.binary(), "run", "-c", r.config))
}

// command runs a command beside the daemon.
func (r *rig) command(name string, arguments ...string) *commandProcess {
	r.t.Helper()
	command := exec.Command(r.binary(), append(append([]string{name}, arguments...), "-c", r.config)...)
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
