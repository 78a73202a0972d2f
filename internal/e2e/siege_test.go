package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/kafkatest"
	"cdrbus/internal/simulator"
	"cdrbus/offsets"
)

// The sieges attack the program, or the brokers under it, for as long as they are
// told, and then let three clients that share no code say what the topics hold:
//
//	TestSiegeProcess   kill -9 and SIGSTOP of the program, at random and at named points of the commit
//	TestSiegeNodes     three brokers killed, stopped, restarted; leaders and coordinators moved
//	TestSiegeCleaner   the cleaner really compacts the positions under the run
//	TestSiegeDiskFull  one broker of three has no space left
//	TestSiegeFleet     members of a fleet killed, stopped, ended and added
//
// All want real brokers (-kafka.versions) and are short unless their flags say more:
//
//	go test ./internal/e2e -run TestSiege -v -timeout 3h -kafka.versions=4.4.0,3.9.2 -e2e.python=python \
//	    -siege.kills=80 -siege.freezes=8 -siege.bounces=12 -siege.fills=6 -siege.changes=60

// siege is one attack and what it cost.
type siege struct {
	*rig
	name     string
	cluster  *kafkatest.Cluster
	checkers []string // addresses for those who look at the topics; the rig's may lead through a proxy

	blows  []blow
	relief time.Time // when the attack was over
}

// blow is one attack, and when it came.
type blow struct {
	kind string
	at   time.Time
}

// class is the kind without the point at which the blow came.
func (b blow) class() string {
	class, _, _ := strings.Cut(b.kind, " when ")
	return class
}

// siegeFeed is more work than any siege does, in small windows, so that a commit
// is always under way.
func siegeFeed() rigOptions {
	return rigOptions{span: 20 * 24 * time.Hour, rate: 0.5, profiles: []string{"all", "unlimited"}, tune: tuneForSiege}
}

// tuneForSiege leaves the refresh token as it is: one that is replaced can be lost
// by kill -9 between the answer and the write, which no program can prevent. And the
// feed never makes the program wait for half a minute or more, which would look like
// a pause of Kafka's.
func tuneForSiege(o *simulator.Options) {
	quick(o)
	o.Answers.KeepRefreshTokens = true
	o.Answers.RetryAfter, o.Answers.TokenFaults = simulator.RetrySeconds, nil
	delete(o.Answers.Faults, simulator.Fault202)
}

// strike notes a blow.
func (s *siege) strike(kind string) { s.blows = append(s.blows, blow{kind, time.Now()}) }

// over says that what comes from here on is no part of the attack.
func (s *siege) over() {
	if s.relief.IsZero() {
		s.relief = time.Now()
	}
}

// settle ends the siege: the program runs in peace to a bound just ahead of where
// it is, and the checkers look.
func (s *siege) settle() {
	s.t.Helper()
	s.over()
	s.brokers = s.checkers
	s.until = s.bound()
	s.runToEnd(3 * time.Minute)
	s.awaitMarkers()

	ours := s.readThrough()
	theirs := s.readWithKcat()
	truth := s.truth()
	result := truth.compare(s.t, ours, false)
	truth.compare(s.t, theirs, false)
	if !maps.Equal(ours.events, theirs.events) || !maps.Equal(ours.letters, theirs.letters) {
		s.t.Errorf("our reader and kcat disagree on what is committed")
	}
	s.checkPython(theirs)
	s.checkPositionsAgree()
	receipts := s.receiptsThrough()
	s.checkReceipts(receipts, s.lastPositions())
	s.t.Logf("SIEGE %s, Kafka %s: %s; %s; %s", s.name, s.cluster.Version, s.tally(), result, s.pauses(receipts))
}

// checkPositionsAgree demands that all clients see the same last position of each
// source.
func (s *siege) checkPositionsAgree() {
	s.t.Helper()
	const topic = "webex.cdr.offsets"
	ours, kcats, pythons := map[string]string{}, map[string]string{}, map[string]string{}
	s.each(topic, shards, func(_ int, record committed.Record) { ours[string(record.Key)] = string(record.Value) })
	eachLine(s.t, kafkatest.KcatRead(s.t, s.checkers[0], topic, "%k %s\n"), func(line string) {
		key, value, _ := strings.Cut(line, " ")
		kcats[key] = value
	})
	s.consumePython(topic, false, func(decoder *json.Decoder) error {
		var record struct{ Key, Value string }
		if err := decoder.Decode(&record); err != nil {
			return err
		}
		pythons[record.Key] = record.Value
		return nil
	})
	if !maps.Equal(ours, kcats) || !maps.Equal(ours, pythons) {
		s.t.Errorf("the last positions differ: our reader %v, kcat %v, confluent-kafka %v", ours, kcats, pythons)
	}
}

// bound is a little ahead of the source that is furthest, if the feed has so much.
func (s *siege) bound() cdr.Instant {
	furthest := s.start
	for _, watermark := range s.watermarks() {
		furthest = max(furthest, watermark)
	}
	return min(s.until, furthest.Add(10*time.Minute))
}

// lastPositions demands counters that rise: compaction may leave holes.
func (s *siege) lastPositions() map[cdr.SourceName]offsets.Position {
	s.t.Helper()
	last := map[cdr.SourceName]offsets.Position{}
	s.eachPosition(func(at string, p offsets.Position) {
		if p.Counter <= last[p.Source].Counter {
			s.t.Errorf("position of %s at %s has counter %d after %d", p.Source, at, p.Counter, last[p.Source].Counter)
		}
		last[p.Source] = p
	})
	return last
}

// tally counts the blows by class.
func (s *siege) tally() string {
	counts, points := map[string]int{}, map[string]map[string]bool{}
	for _, b := range s.blows {
		counts[b.class()]++
		if points[b.class()] == nil {
			points[b.class()] = map[string]bool{}
		}
		points[b.class()][b.kind] = true
	}
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(counts)) {
		part := fmt.Sprintf("%d %s", counts[class], class)
		if n := len(points[class]); n > 1 {
			part += fmt.Sprintf(" at %d points", n)
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%d blows (%s)", len(s.blows), strings.Join(parts, ", "))
}

// pauses tells the longest time without a new commit after each class of blow, by
// what the receipts say of when their commits began.
func (s *siege) pauses(receipts map[cdr.SourceName][]offsets.Receipt) string {
	var commits []time.Time
	for _, all := range receipts {
		for _, receipt := range all {
			commits = append(commits, receipt.CommitTime)
		}
	}
	commits = slices.DeleteFunc(commits, s.relief.Before) // those of the settling
	slices.SortFunc(commits, time.Time.Compare)
	longest := map[string]time.Duration{}
	for i, b := range s.blows {
		next := s.relief
		if i+1 < len(s.blows) {
			next = s.blows[i+1].at
		}
		longest[b.class()] = max(longest[b.class()], longestGap(commits, b.at, next))
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(longest)) {
		parts = append(parts, fmt.Sprintf("%s %.1f s", kind, longest[kind].Seconds()))
	}
	return "longest pauses: " + strings.Join(parts, ", ")
}

// longestGap returns the longest time between two commits of which the second
// comes after a blow, and before the next one. Commits are in order of time.
func longestGap(commits []time.Time, blow, next time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(commits); i++ {
		if commits[i].After(blow) && !commits[i].After(next) {
			longest = max(longest, commits[i].Sub(commits[i-1]))
		}
	}
	return longest
}

// says reports whether the process has logged a text.
func (p *process) says(text string) error {
	if !bytes.Contains(p.log.tail(1<<20), []byte(text)) {
		return fmt.Errorf("the log does not say %q", text)
	}
	return nil
}

// freeze stops the process where it is; thaw lets it go on.
func (p *process) freeze() { _ = p.command.Process.Signal(syscall.SIGSTOP) }
func (p *process) thaw()   { _ = p.command.Process.Signal(syscall.SIGCONT) }

// terminate ends a process as asked, which it has to obey in time.
func (s *siege) terminate(p *process) {
	s.t.Helper()
	s.must(p.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(shutdownPatience):
		s.t.Fatalf("cdrbus did not end within %s after SIGTERM", shutdownPatience)
	}
	if p.err != nil {
		s.t.Errorf("cdrbus after SIGTERM: %v", p.err)
	}
}

func (s *siege) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// alive demands that a process has not ended by itself.
func (s *siege) alive(p *process) {
	s.t.Helper()
	select {
	case <-p.ended:
		s.t.Fatalf("cdrbus ended by itself: %v", p.err)
	default:
	}
}

// startSiege is a siege of a program on this cluster, which it reaches at these
// addresses.
func startSiege(t *testing.T, name string, cluster *kafkatest.Cluster, brokers []string, o rigOptions) *siege {
	t.Helper()
	s := &siege{rig: newRig(t, brokers, o), name: name, cluster: cluster}
	for _, broker := range cluster.Brokers {
		s.checkers = append(s.checkers, broker.AdminAddress)
	}
	return s
}
