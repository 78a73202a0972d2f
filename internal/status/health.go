package status

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// loop is one goroutine that the process cannot do without.
type loop struct {
	at    time.Time // last sign of life
	until time.Time // promised next one
}

// healthGrace is how far a loop may miss its promise before the process counts
// as hung: long enough for a garbage collection, a swapped-out machine, a
// suspended laptop; a restart costs a take-over, so it must not come too easily.
const healthGrace = time.Minute

// Progress is a loop's sign of life: it is alive, and promises the next sign
// within the given time. The first one registers it.
func (b *Board) Progress(name string, within time.Duration) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loops[name] = loop{at: now, until: now.Add(within)}
}

// Ended says that a loop has ended as it should; nothing more is expected of it.
func (b *Board) Ended(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.loops, name)
}

// unhealthy lists the loops that have missed their promise.
func (b *Board) unhealthy(now time.Time) []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var hung []string
	for name, l := range b.loops {
		if now.After(l.until.Add(healthGrace)) {
			hung = append(hung, fmt.Sprintf("%s: no progress for %s, promised within %s",
				name, roundDuration(now.Sub(l.at)), roundDuration(l.until.Sub(l.at))))
		}
	}
	slices.Sort(hung)
	return hung
}

// notReady lists what keeps the process from doing all of its work, each with
// what to do. Nothing listed: every shard that this process owns is restored,
// and no source waits for a person.
func notReady(s *Snapshot, all []SourceView) []string {
	why := shardsNotReady(s)
	for i := range all {
		if src := &all[i]; src.State.NeedsPerson() {
			why = append(why, sentence(fmt.Sprintf("source %s: %s", src.Name, src.State), src.Reason, src.Remedy))
		}
	}
	return why
}

// shardsNotReady is the part of notReady that this process can mend by itself, or
// that keeps it from being of use at all.
func shardsNotReady(s *Snapshot) []string {
	var why []string
	owned := 0
	for _, shard := range s.Shards {
		switch shard.State {
		case ShardReleased:
			continue
		case ShardOwned:
			why = append(why, fmt.Sprintf("shard %d: being taken over since %s; wait", shard.Number, clock(shard.Since)))
		case ShardRestoring:
			why = append(why, fmt.Sprintf("shard %d: restoring since %s; wait", shard.Number, clock(shard.Since)))
		case ShardLost:
			why = append(why, sentence(fmt.Sprintf("shard %d: lost since %s", shard.Number, clock(shard.Since)), shard.Reason, "it is tried again; if this stays, mend what the reason names"))
		}
		owned++
	}
	if owned == 0 && !s.Fleet.standby() {
		why = append(why, "no shard is owned yet; wait, and if it stays so look for errors about Kafka in the log")
	}
	return why
}

// sentence joins "what: why; what to do" and leaves out what is empty.
func sentence(what, why, remedy string) string {
	var b strings.Builder
	b.WriteString(what)
	if why != "" {
		b.WriteString(": " + strings.TrimRight(why, ". "))
	}
	if remedy != "" {
		b.WriteString("; " + strings.TrimRight(remedy, ". "))
	}
	return b.String()
}

// lossWarningSeconds is when the age of the oldest unpublished record becomes an alert:
// within a tenth of the lookback or three days, whichever is less.
func lossWarningSeconds(lookbackSeconds float64) float64 {
	return min(lookbackSeconds/10, (72 * time.Hour).Seconds())
}

// maxAlerts bounds the list: beyond it the numbers by state say enough.
const maxAlerts = 100

// alerts lists what a person should look at, the most serious first.
func alerts(all []SourceView) []Alert {
	var critical, warning []Alert
	for i := range all {
		s := &all[i]
		if s.State.NeedsPerson() {
			critical = append(critical, Alert{Severity: Critical, Source: s.Name, Title: string(s.State), Text: s.Reason, Remedy: s.Remedy, Since: s.Since})
		}
		if s.UntilLossSeconds >= 0 && s.UntilLossSeconds < lossWarningSeconds(s.Feed.LookbackSeconds) {
			critical = append(critical, lossAlert(s))
		}
		if s.Token.Warning != "" {
			warning = append(warning, Alert{Severity: Warning, Source: s.Name, Title: "token ends soon", Text: s.Token.Warning})
		}
		if s.Counts.Gaps > 0 {
			warning = append(warning, gapAlert(s))
		}
	}
	if a, differs := clockAlert(all); differs {
		warning = append([]Alert{a}, warning...)
	}
	list := append(critical, warning...)
	return list[:min(len(list), maxAlerts)]
}

func lossAlert(s *SourceView) Alert {
	return Alert{
		Severity: Critical, Source: s.Name, Title: "records about to age out",
		Text:   fmt.Sprintf("published up to %s; the feed forgets what comes next in %s", s.Feed.Published, roundSeconds(s.UntilLossSeconds)),
		Remedy: "find out what holds the source up (state, last error, budget) and remove it before then",
	}
}

func gapAlert(s *SourceView) Alert {
	return Alert{
		Severity: Warning, Source: s.Name, Title: "gap",
		Text:   fmt.Sprintf("%d so far, %s in all, the last %s: the feed could no longer return it", s.Counts.Gaps, roundSeconds(s.Counts.GapSeconds), s.Counts.LastGap),
		Remedy: "it is in the receipts; get these records from the provider by other means if they are needed",
	}
}

// ClockTolerance is how far this machine's clock and a feed's may be apart before a
// person should know. An answer that takes long tells the time no better than this.
const ClockTolerance = time.Minute

// clockAlert tells of the clock that differs most, once for all sources: it is one
// machine's.
func clockAlert(all []SourceView) (a Alert, differs bool) {
	var worst *SourceView
	sources := 0
	for i := range all {
		s := &all[i]
		if math.Abs(s.ClockAheadSeconds) <= ClockTolerance.Seconds() {
			continue
		}
		sources++
		if worst == nil || math.Abs(s.ClockAheadSeconds) > math.Abs(worst.ClockAheadSeconds) {
			worst = s
		}
	}
	if worst == nil {
		return Alert{}, false
	}
	relation := "behind"
	if worst.ClockAheadSeconds < 0 {
		relation = "ahead of"
	}
	return Alert{
		Severity: Warning, Title: "clock",
		Text: fmt.Sprintf("this machine's clock is %s %s the feed's, say the answers to %s, such as %s. Nothing is lost: what may be asked for goes by the feed's",
			roundSeconds(math.Abs(worst.ClockAheadSeconds)), relation, plural(sources, "source"), worst.Name),
		Remedy: "set the clock right (NTP): logs, commit times and the expiry of tokens go by it",
	}, true
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

func roundSeconds(seconds float64) string {
	return roundDuration(time.Duration(seconds * float64(time.Second)))
}

// roundDuration writes a duration with at most two units, as people say it.
func roundDuration(d time.Duration) string {
	const day = 24 * time.Hour
	two := func(large time.Duration, largeUnit string, small time.Duration, smallUnit string) string {
		n, rest := d/large, d%large/small
		if rest == 0 {
			return fmt.Sprintf("%d %s", n, largeUnit)
		}
		return fmt.Sprintf("%d %s %d %s", n, largeUnit, rest, smallUnit)
	}
	switch {
	case d < 0:
		return "-" + roundDuration(-d)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return two(time.Minute, "min", time.Second, "s")
	case d < day:
		return two(time.Hour, "h", time.Minute, "min")
	default:
		return two(day, "d", time.Hour, "h")
	}
}
