package e2e

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/kafkatest"
)

var verifyFlag = flag.Int("e2e.verify", 50_000, "records that TestVerifyMemoryRealKafka verifies")

const (
	// verifyLimit is what a process may take that verifies a million records.
	verifyLimit = 150 << 20
	// seenBytes is a published ID in the set that whoever may publish holds, with the
	// room that it is given.
	seenBytes = 40
	// jobLimit is what verifying a million may add to a daemon.
	jobLimit = 64 << 20
)

// TestVerifyMemoryRealKafka verifies a day of the feed, first with no daemon running, so
// that the memory of the command is that of the verification, then as a daemon's job:
//
//	go test ./internal/e2e -run TestVerifyMemory -v -timeout 30m -kafka.versions=4.4.0 -e2e.verify=1000000
func TestVerifyMemoryRealKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		const span = 24 * time.Hour
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{
			span: span, rate: float64(*verifyFlag) / span.Seconds(), sources: []string{bareSource}, profiles: []string{"unlimited"},
			window: time.Hour, // of a million, what may be asked for in a minute by the usual limits
		})
		r.runToEnd(15 * time.Minute)
		for _, c := range []struct {
			name  string
			limit int64
			from  cdr.Instant
			flags []string
		}{
			{"alone", verifyLimit, r.start, []string{"--fields"}},
			{"alone, to repair", verifyLimit + seenBytes*int64(*verifyFlag), r.start, []string{"--repair"}},
			{"alone, the last hour", verifyLimit, r.until.Add(-time.Hour), nil},
		} {
			verify := r.verify(c.from, c.flags...)
			r.demandLean(c.name, verify, verify.peakUntilEnd(), c.limit)
		}
		daemon := r.startLive()
		<-r.verify(r.until.Add(-time.Minute)).ended
		before := daemon.peak()
		verify := r.verify(r.start)
		<-verify.ended
		r.demandLean(fmt.Sprintf("by a daemon that took %.1f MiB before", float64(before)/(1<<20)), verify, daemon.peak(), before+jobLimit)
	})
}

// verify holds what the feed has from an instant on against the topic.
func (r *rig) verify(from cdr.Instant, flags ...string) *commandProcess {
	return r.command("verify", append([]string{"--source", bareSource, "--from", from.String(), "--to", r.until.String()}, flags...)...)
}

// demandLean fails the test if a verification that has ended found a difference, or
// took too much memory.
func (r *rig) demandLean(how string, verify *commandProcess, peakBytes, limitBytes int64) {
	r.t.Helper()
	if verify.err != nil {
		r.t.Fatalf("verify %s: %v: %s\n%s", how, verify.err, verify.out.String(), verify.log.tail(2000))
	}
	peakMiB := float64(peakBytes) / (1 << 20)
	r.t.Logf("%s: peak RSS %.1f MiB, the command's CPU time %s\n%s", how, peakMiB, verify.command.ProcessState.UserTime()+verify.command.ProcessState.SystemTime(), verify.out.String())
	if peakBytes == 0 || peakBytes > limitBytes {
		r.t.Errorf("verifying %s takes %.1f MiB, want at most %.1f", how, peakMiB, float64(limitBytes)/(1<<20))
	}
}

var peakLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that the process has held in RAM up to now, in bytes; 0 if it
// has ended. What the system tells of a process that has ended will not do: on Linux
// that counts the memory of whoever began it, too.
func (p *process) peak() int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	found := peakLine.FindSubmatch(text)
	if found == nil {
		return 0
	}
	kiB, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return kiB << 10
}

// peakUntilEnd waits for the end of the process.
func (p *process) peakUntilEnd() (peak int64) {
	for {
		peak = max(peak, p.peak())
		select {
		case <-p.ended:
			return peak
		case <-time.After(5 * time.Millisecond):
		}
	}
}
