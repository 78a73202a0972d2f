package status

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// A Snapshot is the state of a process at one instant.
type Snapshot struct {
	At      time.Time `json:"at"`
	Build   Build     `json:"build"`
	Process Process   `json:"process"`

	Ready    bool     `json:"ready"`
	NotReady []string `json:"notReady,omitempty"` // why, each with the remedy
	Alerts   []Alert  `json:"alerts,omitempty"`   // most serious first, at most maxAlerts
	Totals   Totals   `json:"totals"`
	Verdict  *Verdict `json:"verdict,omitempty"`

	Matching int          `json:"matching"` // sources that the query's filter lets pass
	Sources  []SourceView `json:"sources"`
	Shards   []Shard      `json:"shards"`
	Fleet    *Fleet       `json:"fleet,omitempty"` // nil: this process is alone

	Throughput Throughput `json:"throughput"`
	Events     []Event    `json:"events"` // newest first
	Restarts   []Restart  `json:"restarts,omitempty"`
}

// SourceView is a Source with what follows from it and from the time.
type SourceView struct {
	Source
	// LagSeconds is how far published is behind the youngest instant that the
	// feed answers for; -1 before the source has a position.
	LagSeconds float64 `json:"lagSeconds"`
	// UntilLossSeconds is how long until the oldest unpublished record may age
	// out of the feed; -1 if unknown.
	UntilLossSeconds float64 `json:"untilLossSeconds"`
	// UntilStreamLossSeconds is the same of cdr_stream; -1 where it is not read.
	// What it forgets, the sweeps of cdr_feed still find.
	UntilStreamLossSeconds float64  `json:"untilStreamLossSeconds"`
	Budget                 *Budget  `json:"budget,omitempty"`
	History                []Window `json:"history,omitempty"` // oldest first
}

// Process is the process as a whole.
type Process struct {
	StartedAt        time.Time `json:"startedAt"`
	UptimeSeconds    float64   `json:"uptimeSeconds"`
	Delivery         string    `json:"delivery,omitempty"`
	MemoryUsedBytes  int64     `json:"memoryUsedBytes"`  // reserved for windows
	MemoryLimitBytes int64     `json:"memoryLimitBytes"` // 0: no limit given
	RSSBytes         int64     `json:"rssBytes"`         // 0 where the system does not tell
	Restarts         int       `json:"restarts"`
	PersonalData     bool      `json:"personalData"` // events are shown in full
	Coverage         bool      `json:"coverage"`     // /coverage answers
}

// Totals over all sources, whatever the query selects.
type Totals struct {
	Sources     int           `json:"sources"`
	States      map[State]int `json:"states"`
	Records     uint64        `json:"records"`
	Events      uint64        `json:"events"`
	Known       uint64        `json:"known"`
	Late        uint64        `json:"late"`
	Revised     uint64        `json:"revised"`
	DeadLetters uint64        `json:"deadLetters"`
	Unmapped    uint64        `json:"unmapped"`
	Windows     uint64        `json:"windows"`
	Unproven    uint64        `json:"unproven"`
	Gaps        uint64        `json:"gaps"`
	// The source that is furthest behind; -1 and empty before any position.
	WorstLagSeconds float64        `json:"worstLagSeconds"`
	WorstLagSource  cdr.SourceName `json:"worstLagSource,omitempty"`
}

// Severity orders alerts.
type Severity string

const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
)

// Alert is something that a person should see first.
type Alert struct {
	Severity Severity       `json:"severity"`
	Source   cdr.SourceName `json:"source,omitempty"`
	Title    string         `json:"title"`
	Text     string         `json:"text,omitempty"`
	Remedy   string         `json:"remedy,omitempty"`
	Since    time.Time      `json:"since,omitzero"`
}

// Event is one of the last events, decoded as far as the options allow.
type Event struct {
	Seq    uint64          `json:"seq"`
	At     time.Time       `json:"at"`
	Source cdr.SourceName  `json:"source"`
	Bytes  int             `json:"bytes"`
	Fields json.RawMessage `json:"fields,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Restart is one return of the daemon part.
type Restart struct {
	At  time.Time `json:"at"`
	How string    `json:"how"`
}

// Verdict is the result of a comparison between feed and topic.
type Verdict struct {
	At        time.Time `json:"at"`
	Records   uint64    `json:"records"` // that the feed should have delivered by now
	Events    uint64    `json:"events"`
	Missing   uint64    `json:"missing"`
	Duplicate uint64    `json:"duplicate"`
}

// Fleet is who owns what, as the coordinator of the consumer group tells it.
type Fleet struct {
	Group   string    `json:"group"`
	State   string    `json:"state"` // as Kafka calls it: Stable, PreparingRebalance, ...
	At      time.Time `json:"at"`
	Members []Member  `json:"members"`
}

// Member is one process of a fleet.
type Member struct {
	Name    string `json:"name"`
	Host    string `json:"host"` // as the coordinator sees it
	Self    bool   `json:"self,omitempty"`
	Shards  []int  `json:"shards"`
	Sources int    `json:"sources"`
}

// standby reports whether this process is a member of a fleet that has no shard
// left for it: nothing is amiss, it waits for one to come free.
func (f *Fleet) standby() bool {
	return f != nil && slices.ContainsFunc(f.Members, func(m Member) bool { return m.Self && m.Sources == 0 })
}

// Query selects sources. The zero Query selects all of them.
type Query struct {
	Name   string // part of the name, case ignored
	State  State  // only this one
	Sort   Sort
	Offset int
	Limit  int // 0: no limit
	// HistoryLimit is for how many of the selected sources the last windows
	// come along; negative: for none; 0: for all.
	HistoryLimit int

	numbersOnly bool // leave the last events out, whose decoding costs most
}

// Sort is an order of sources.
type Sort string

const (
	ByName  Sort = "name" // the default
	ByLag   Sort = "lag"  // furthest behind first
	ByState Sort = "state"
)

// Snapshot returns everything.
func (b *Board) Snapshot() Snapshot { return b.View(Query{}) }

// View returns everything, but of the sources only what the query selects.
func (b *Board) View(q Query) Snapshot {
	now := time.Now()
	s := Snapshot{At: now, Build: b.build, Process: b.process(now)}
	if !q.numbersOnly {
		s.Events = b.lastEvents()
	}
	b.copyProcessState(&s, now)
	all := b.copySources(now)
	s.Totals = total(all)
	s.NotReady = notReady(&s, all)
	s.Ready = len(s.NotReady) == 0
	s.Alerts = alerts(all)
	selected := q.filter(all)
	s.Matching = len(selected)
	s.Sources = q.page(selected)
	b.addHistory(s.Sources, q.HistoryLimit)
	return s
}

func (b *Board) process(now time.Time) Process {
	p := Process{
		StartedAt:     b.startedAt,
		UptimeSeconds: now.Sub(b.startedAt).Seconds(),
		Delivery:      b.options.Delivery,
		RSSBytes:      residentBytes(),
		PersonalData:  b.options.ShowPersonalData,
		Coverage:      b.options.Coverage != nil,
	}
	if b.options.Memory != nil {
		p.MemoryUsedBytes, p.MemoryLimitBytes = b.options.Memory()
	}
	return p
}

// copyProcessState copies what the board's own lock guards.
func (b *Board) copyProcessState(s *Snapshot, now time.Time) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s.Process.Restarts = b.restarted
	s.Restarts = slices.Clone(b.restarts)
	slices.Reverse(s.Restarts)
	if b.verdict != nil {
		v := *b.verdict
		s.Verdict = &v
	}
	if b.fleet != nil {
		fleet := *b.fleet
		s.Fleet = &fleet
	}
	s.Shards = make([]Shard, 0, len(b.shards))
	for _, shard := range b.shards {
		s.Shards = append(s.Shards, *shard)
	}
	slices.SortFunc(s.Shards, func(x, y Shard) int { return x.Number - y.Number })
	rate := &b.seconds
	if now.Sub(b.startedAt) > 10*time.Minute {
		rate = &b.minutes
	}
	s.Throughput = rate.until(now)
}

// copySources copies every source, in the order of names, without history.
func (b *Board) copySources(now time.Time) []SourceView {
	b.mu.RLock()
	entries := make([]*sourceEntry, 0, len(b.sources))
	for _, name := range slices.Sorted(maps.Keys(b.sources)) {
		entries = append(entries, b.sources[name])
	}
	b.mu.RUnlock()
	views := make([]SourceView, len(entries))
	for i, e := range entries {
		views[i] = e.view(now)
	}
	return views
}

// view copies a source deeply and adds what follows from the time.
func (e *sourceEntry) view(now time.Time) SourceView {
	e.mu.Lock()
	v := SourceView{Source: e.live}
	v.Unmapped = maps.Clone(v.Unmapped)
	v.Requests = maps.Clone(v.Requests)
	v.Counts.Windows = maps.Clone(v.Counts.Windows)
	e.mu.Unlock()
	v.Jobs = slices.Clone(v.Jobs)
	for i := range v.Jobs {
		v.Jobs[i].LeftSeconds = v.Jobs[i].leftSeconds(now)
	}
	feedNow := v.feedTime(now)
	v.LagSeconds = lagSeconds(&v.Source, feedNow)
	v.UntilLossSeconds = v.Feed.untilLossSeconds(feedNow)
	v.UntilStreamLossSeconds = v.Stream.untilLossSeconds(feedNow)
	if v.BudgetNow != nil {
		budget := v.BudgetNow(now)
		v.Budget, v.BudgetNow = &budget, nil
	}
	return v
}

func (b *Board) addHistory(views []SourceView, limit int) {
	if limit < 0 {
		return
	}
	for i := range views {
		if limit > 0 && i >= limit {
			return
		}
		b.mu.RLock()
		e := b.sources[views[i].Name]
		b.mu.RUnlock()
		if e == nil {
			continue // forgotten meanwhile
		}
		e.mu.Lock()
		views[i].History = slices.Clone(e.history)
		e.mu.Unlock()
	}
}

// lagSeconds is how far the published watermark is behind the youngest instant
// that the feed answers for.
func lagSeconds(s *Source, feedNow time.Time) float64 {
	if s.Published.IsZero() {
		return -1
	}
	return max(0, feedNow.Sub(s.Published.Time()).Seconds()-s.MinAgeSeconds)
}

// untilLossSeconds is how long until what is published falls out of the endpoint's
// lookback; -1 if that is not known.
func (e Edge) untilLossSeconds(feedNow time.Time) float64 {
	if e.Published.IsZero() || e.LookbackSeconds <= 0 {
		return -1
	}
	return max(0, e.LookbackSeconds-feedNow.Sub(e.Published.Time()).Seconds())
}

func total(all []SourceView) Totals {
	t := Totals{Sources: len(all), States: make(map[State]int), WorstLagSeconds: -1}
	for i := range all {
		s := &all[i]
		t.States[s.State]++
		t.Records += s.Counts.Records
		t.Events += s.Counts.Events
		t.Known += s.Counts.Known
		t.Late += s.Counts.Late
		t.Revised += s.Counts.Revised
		t.DeadLetters += s.Counts.DeadLetters
		t.Unproven += s.Counts.Unproven
		t.Gaps += s.Counts.Gaps
		for _, n := range s.Counts.Windows {
			t.Windows += n
		}
		for _, n := range s.Unmapped {
			t.Unmapped += n
		}
		if s.LagSeconds > t.WorstLagSeconds {
			t.WorstLagSeconds, t.WorstLagSource = s.LagSeconds, s.Name
		}
	}
	return t
}

// filter keeps the sources that the query's name and state let pass.
func (q Query) filter(all []SourceView) []SourceView {
	part := strings.ToLower(q.Name)
	return slices.DeleteFunc(all, func(s SourceView) bool {
		return !strings.Contains(strings.ToLower(string(s.Name)), part) || q.State != "" && s.State != q.State
	})
}

// page sorts the sources, which are in the order of names, and cuts the page.
func (q Query) page(views []SourceView) []SourceView {
	switch q.Sort {
	case ByLag:
		slices.SortStableFunc(views, func(x, y SourceView) int { return int(sign(y.LagSeconds - x.LagSeconds)) })
	case ByState:
		order := States()
		slices.SortStableFunc(views, func(x, y SourceView) int {
			return slices.Index(order, x.State) - slices.Index(order, y.State)
		})
	}
	from := min(max(q.Offset, 0), len(views))
	until := len(views)
	if q.Limit > 0 {
		until = min(from+q.Limit, until)
	}
	return views[from:until]
}

func sign(f float64) float64 {
	switch {
	case f > 0:
		return 1
	case f < 0:
		return -1
	}
	return 0
}

// lastEvents decodes the last events, newest first.
func (b *Board) lastEvents() []Event {
	b.eventsMu.Lock()
	raw := make([]rawEvent, 0, keptEvents)
	seqs := make([]uint64, 0, keptEvents)
	for i := b.eventSeq; i > 0 && len(raw) < keptEvents; i-- {
		slot := b.events[(i-1)%keptEvents]
		slot.value = slices.Clone(slot.value)
		raw, seqs = append(raw, slot), append(seqs, i)
	}
	b.eventsMu.Unlock()

	events := make([]Event, len(raw))
	for i, r := range raw {
		events[i] = b.decode(r)
		events[i].Seq = seqs[i]
	}
	return events
}

func (b *Board) decode(r rawEvent) Event {
	e := Event{At: r.at, Source: r.source, Bytes: r.bytes}
	if b.options.Decode == nil {
		return e
	}
	if r.bytes > keptEventBytes {
		e.Error = "too large to show"
		return e
	}
	fields, err := b.options.Decode(r.value, b.options.ShowPersonalData)
	switch {
	case err != nil:
		e.Error = redact(err.Error())
	case !json.Valid(fields):
		e.Error = "decoded to something that is not JSON"
	default:
		e.Fields = fields
	}
	return e
}
