// Package status holds what the daemon knows about itself right now and shows
// it: to a person as a page and as text, to Prometheus as metrics, to an
// orchestrator as health and readiness.
//
// The way through it is one line:
//
//	daemon -> Board (Update, Committed, Event, Progress) -> Snapshot -> page, JSON, metrics, text
//
// A [Board] is written by every loop of the daemon and read by everybody, at
// any time, from any goroutine. It never blocks on I/O and never keeps a
// reference to what a caller passes in. A [Snapshot] is a plain value that can
// be marshalled, compared and kept.
//
// Nothing here decides anything: a source that has stopped has done so before
// the board hears of it. And nothing here shows a secret or, unless
// [Options.ShowPersonalData] says so, personal data.
package status

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cdrbus/internal/cdr"
)

// Build says which program is running.
type Build struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	GoVersion string `json:"goVersion"`
}

// Options of a Board. The zero value is usable.
type Options struct {
	// Delivery is exactly_once or at_least_once, as configured. Shown only.
	Delivery string
	// Decode turns the Avro value of an event into a JSON object. It leaves
	// personal data out, or masks it, unless personalData is true. Without
	// it events are shown by source and size only.
	Decode func(value []byte, personalData bool) ([]byte, error)
	// ShowPersonalData lets the page and the JSON show events in full.
	ShowPersonalData bool
	// Memory reports how much of the process-wide byte budget is reserved.
	// It is called for every snapshot and must not block.
	Memory func() (usedBytes, limitBytes int64)
	// Coverage answers for the calendar. Without it the page has none.
	Coverage Coverage
}

const (
	keptEvents     = 20       // last events, each with its Avro value
	keptEventBytes = 64 << 10 // of one value; a larger one is shown by size only
	keptWindows    = 60       // last windows of each source
	keptRestarts   = 20       // last restarts
	keptUnmapped   = 100      // field names counted by name; the rest as "(other)"
)

// A Board is the live state of one process. It is safe for concurrent use.
type Board struct {
	build     Build
	options   Options
	startedAt time.Time

	commitSeconds prometheus.Histogram
	fetchSeconds  *prometheus.HistogramVec

	mu        sync.RWMutex // guards the maps and what follows, not the entries' content
	sources   map[cdr.SourceName]*sourceEntry
	shards    map[int]*Shard
	loops     map[string]loop
	restarts  []Restart
	restarted int
	verdict   *Verdict
	fleet     *Fleet
	seconds   series // throughput, by second
	minutes   series // throughput, by minute

	eventsMu sync.Mutex
	events   [keptEvents]rawEvent
	eventSeq uint64 // events ever seen; the next one goes to slot eventSeq % keptEvents
}

// sourceEntry is one source with what the board adds to it.
type sourceEntry struct {
	mu      sync.Mutex
	live    Source
	counted cdr.Counter // of the last window that Committed counted
	history []Window    // oldest first, at most keptWindows
}

// rawEvent is one slot of the ring of last events; its buffer is reused.
type rawEvent struct {
	at     time.Time
	source cdr.SourceName
	value  []byte
	bytes  int // of the whole value, which may be more than was kept
}

// New returns an empty board whose uptime begins now.
func New(build Build, options Options) *Board {
	return &Board{
		build:         build,
		options:       options,
		startedAt:     time.Now(),
		commitSeconds: newCommitSeconds(),
		fetchSeconds:  newFetchSeconds(),
		sources:       make(map[cdr.SourceName]*sourceEntry),
		shards:        make(map[int]*Shard),
		loops:         make(map[string]loop),
		seconds:       series{step: time.Second, keep: 120},
		minutes:       series{step: time.Minute, keep: 180},
	}
}

// Update changes what is known of a source, which appears with its first
// update. The change runs under the source's lock: it must be short and must
// not call the board. It may keep no pointer to the Source.
func (b *Board) Update(source cdr.SourceName, change func(*Source)) {
	now := time.Now()
	e := b.entry(source)
	e.mu.Lock()
	defer e.mu.Unlock()
	before, reason, remedy, warning := e.live.State, e.live.Reason, e.live.Remedy, e.live.Token.Warning
	change(&e.live)
	e.live.Name = source
	if e.live.State == "" {
		e.live.State = Starting
	}
	if e.live.State != before {
		e.live.Since = now
	}
	redactChanged(&e.live.Reason, reason)
	redactChanged(&e.live.Remedy, remedy)
	redactChanged(&e.live.Token.Warning, warning)
}

// UpdateShard changes what is known of a shard, under the same rules as Update.
func (b *Board) UpdateShard(shard int, change func(*Shard)) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shards[shard]
	if s == nil {
		s = &Shard{State: ShardOwned, Since: now}
		b.shards[shard] = s
	}
	before := s.State
	change(s)
	s.Number = shard
	s.Reason = redact(s.Reason)
	if s.State != before {
		s.Since = now
	}
}

// Forget takes a source off the board: another process shows it from here on.
func (b *Board) Forget(source cdr.SourceName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sources, source)
}

// SetFleet shows who owns what.
func (b *Board) SetFleet(f Fleet) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fleet = &f
}

// Committed counts the windows of one definite commit. It is the only way by
// which records and events are counted, so that the numbers of a snapshot agree
// with one another. A window that it was told of before, by its counter, is not
// counted again.
func (b *Board) Committed(c Commit) {
	if c.At.IsZero() {
		c.At = time.Now()
	}
	var records, events uint64
	for i := range c.Windows {
		if b.count(&c.Windows[i], &c) {
			records += c.Windows[i].Items
			events += c.Windows[i].Events
		}
	}
	b.commitSeconds.Observe(c.DurationSeconds)
	b.UpdateShard(c.Shard, func(s *Shard) {
		s.Commits++
		s.LastCommitAt = c.At
		s.LastCommitSeconds = c.DurationSeconds
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seconds.add(c.At, records, events)
	b.minutes.add(c.At, records, events)
}

// count adds one committed window to its source, and reports whether it was new.
func (b *Board) count(w *Window, c *Commit) bool {
	e := b.entry(w.Source)
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.live
	if w.Counter != 0 && w.Counter <= e.counted {
		return false
	}
	e.counted = w.Counter
	kept := *w
	kept.CommittedAt, kept.CommitSeconds = c.At, c.DurationSeconds
	kept.Unproven = redact(kept.Unproven)
	kept.Mark = kept.mark()
	s.Counter = max(s.Counter, w.Counter)
	s.Shard = c.Shard
	s.Published, s.Settled = later(s.Published, w.Published), later(s.Settled, w.Settled)
	kept.LagSeconds = lagSeconds(s, s.feedTime(c.At))
	s.noteCadence(&kept)
	s.Counts.add(&kept)
	if w.Pages > 0 {
		b.fetchSeconds.WithLabelValues(string(w.Purpose)).Observe(w.FetchSeconds)
	}
	s.LastWindow = kept
	if len(e.history) == keptWindows {
		copy(e.history, e.history[1:])
		e.history = e.history[:keptWindows-1]
	}
	e.history = append(e.history, kept)
	return true
}

// noteCadence learns how often the live edge is asked about.
func (s *Source) noteCadence(w *Window) {
	if w.Purpose != cdr.Live {
		return
	}
	if before := s.lastLiveAt; !before.IsZero() {
		since := w.CommittedAt.Sub(before).Seconds()
		if s.LiveSeconds == 0 {
			s.LiveSeconds = since
		}
		s.LiveSeconds += (since - s.LiveSeconds) / 8
	}
	s.lastLiveAt = w.CommittedAt
}

// JobEnded shows a job after its end, for a while.
func (b *Board) JobEnded(source cdr.SourceName, job Job) {
	job.Message, job.Findings = redact(job.Message), redact(job.Findings)
	b.Update(source, func(s *Source) {
		s.EndedJobs = append([]Job{job}, s.EndedJobs[:min(len(s.EndedJobs), keptJobs-1)]...)
	})
}

// Requested counts one answer of the feed: its HTTP status, or 0 when none came.
func (b *Board) Requested(source cdr.SourceName, status int) {
	label := "none"
	if status != 0 {
		label = strconv.Itoa(status)
	}
	b.Update(source, func(s *Source) {
		if s.Requests == nil {
			s.Requests = make(map[string]uint64)
		}
		s.Requests[label]++
	})
}

// Unmapped counts values that went to the event's unmapped map, by field name.
// A feed that invents names without end fills one bucket, not the memory.
func (b *Board) Unmapped(source cdr.SourceName, field string, n uint64) {
	b.Update(source, func(s *Source) {
		if s.Unmapped == nil {
			s.Unmapped = make(map[string]uint64)
		}
		if _, known := s.Unmapped[field]; !known && len(s.Unmapped) >= keptUnmapped {
			field = otherFields
		}
		s.Unmapped[field] += n
	})
}

// otherFields counts the unmapped fields beyond the first keptUnmapped names.
const otherFields = "(other)"

// Failed notes the last error of a source, freed of secrets and personal data.
func (b *Board) Failed(source cdr.SourceName, err error) {
	text, now := redact(err.Error()), time.Now()
	b.Update(source, func(s *Source) {
		if s.LastError.Text != text {
			s.LastError = Failure{Text: text}
		}
		s.LastError.At = now
		s.LastError.Count++
	})
}

// Event keeps a copy of an event's Avro value for the page. It costs one lock
// and one copy, and nothing is decoded before somebody looks.
func (b *Board) Event(source cdr.SourceName, value []byte) {
	now := time.Now()
	b.eventsMu.Lock()
	defer b.eventsMu.Unlock()
	slot := &b.events[b.eventSeq%keptEvents]
	b.eventSeq++
	slot.at, slot.source, slot.bytes = now, source, len(value)
	slot.value = slot.value[:0]
	if len(value) <= keptEventBytes {
		slot.value = append(slot.value, value...)
	}
}

// Restarted notes that the daemon part of this process went down and came up
// again (the demo does that), and how. Sources and shards begin anew.
func (b *Board) Restarted(how string) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.restarted++
	b.restarts = append(b.restarts, Restart{At: now, How: how})
	if len(b.restarts) > keptRestarts {
		b.restarts = b.restarts[1:]
	}
	clear(b.loops)
	for _, s := range b.shards {
		s.State, s.Since = ShardOwned, now
	}
	for _, e := range b.sources {
		e.mu.Lock()
		e.live.State, e.live.Since = Starting, now
		e.live.Reason, e.live.Remedy, e.live.Current = "", "", Current{}
		e.mu.Unlock()
	}
}

// SetVerdict shows the result of a comparison between feed and topic.
func (b *Board) SetVerdict(v Verdict) {
	if v.At.IsZero() {
		v.At = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verdict = &v
}

// entry returns the source's entry and makes it if need be.
func (b *Board) entry(name cdr.SourceName) *sourceEntry {
	b.mu.RLock()
	e := b.sources[name]
	b.mu.RUnlock()
	if e != nil {
		return e
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e = b.sources[name]; e == nil {
		e = &sourceEntry{live: Source{Name: name, State: Starting, Since: time.Now()}}
		b.sources[name] = e
	}
	return e
}

func later(a, b cdr.Instant) cdr.Instant { return max(a, b) }
