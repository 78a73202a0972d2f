package e2e

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"cdrbus/internal/kafkatest"
)

var verifyFlag = flag.Int("e2e.verify", 50_000, "records that TestVerifyMemoryRealKafka verifies")

// TestVerifyMemoryRealKafka verifies a day of the feed with no daemon running, so that
// the memory of the command is that of the verification:
//
//	go test ./internal/e2e -run TestVerifyMemory -v -timeout 30m -kafka.versions=4.4.0 -e2e.verify=1000000
func TestVerifyMemoryRealKafka(t *testing.T) {
	const limitMiB = 150
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		const span = 24 * time.Hour
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		r := newRig(t, cluster.Bootstrap(), rigOptions{
			span: span, rate: float64(*verifyFlag) / span.Seconds(), sources: []string{bareSource}, profiles: []string{"unlimited"}, window: 12 * time.Hour,
		})
		r.runToEnd(15 * time.Minute)
		began := time.Now()
		verify := r.command("verify", "--source", bareSource, "--from", r.start.String(), "--to", r.until.String(), "--fields")
		peakMiB := float64(verify.peakUntilEnd()) / (1 << 20)
		if verify.err != nil {
			t.Fatalf("verify: %v: %s\n%s", verify.err, verify.out.String(), verify.log.tail(2000))
		}
		state := verify.command.ProcessState
		t.Logf("Kafka %s: peak RSS %.1f MiB, %s of CPU time, %s in all\n%s", version, peakMiB,
			state.UserTime()+state.SystemTime(), time.Since(began).Round(time.Second), verify.out.String())
		if peakMiB > limitMiB {
			t.Errorf("verifying %d records takes %.1f MiB, want at most %d", *verifyFlag, peakMiB, limitMiB)
		}
	})
}

var peakLine = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peakUntilEnd waits for the end of the process and returns the most memory that it
// has held in RAM, in bytes. What the system tells of a process that has ended will
// not do: on Linux that counts the memory of whoever began it, too.
func (p *process) peakUntilEnd() int64 {
	var peak int64
	for {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid)); err == nil {
			if found := peakLine.FindSubmatch(text); found != nil {
				kiB, _ := strconv.ParseInt(string(found[1]), 10, 64)
				peak = max(peak, kiB<<10)
			}
		}
		select {
		case <-p.ended:
			return peak
		case <-time.After(5 * time.Millisecond):
		}
	}
}
