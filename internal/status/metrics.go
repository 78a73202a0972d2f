package status

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cdrbus/internal/cdr"
)

// MetricType is a type of the Prometheus text format.
type MetricType string

const (
	Counter   MetricType = "counter"
	Gauge     MetricType = "gauge"
	Histogram MetricType = "histogram"
)

// A Metric is one row of the metrics table. The table is the one source of the
// registry, of docs/metrics.md and of the check of rules and dashboard.
type Metric struct {
	Name   string // with prefix and unit
	Type   MetricType
	Help   string
	Labels []string

	// read gives the samples of a counter or gauge, from a snapshot without
	// history. A histogram has none: the board keeps it.
	read func(s *Snapshot, emit emit)
}

// emit takes one sample: its value and its label values in the order of Labels.
type emit func(value float64, labels ...string)

// Metrics returns the table, in the order of the documentation.
func Metrics() []Metric { return append([]Metric(nil), metrics...) }

const (
	commitSecondsName = "cdrbus_commit_duration_seconds"
	fetchSecondsName  = "cdrbus_fetch_duration_seconds"
)

var metrics = []Metric{
	{"cdrbus_build_info", Gauge, "Always 1; the labels say which program is running.", []string{"version", "revision", "goversion"},
		func(s *Snapshot, emit emit) { emit(1, s.Build.Version, s.Build.Revision, s.Build.GoVersion) }},
	{"cdrbus_ready", Gauge, "1 if every owned shard is restored and no source waits for a person, else 0; as /readyz.", nil,
		func(s *Snapshot, emit emit) { emit(boolean(s.Ready)) }},
	{"cdrbus_restarts_total", Counter, "Times that the daemon part came up again inside this process; only the demo does that.", nil,
		func(s *Snapshot, emit emit) { emit(float64(s.Process.Restarts)) }},
	{"cdrbus_fleet_members", Gauge, "Processes that share the shards, as the consumer group's coordinator last told. Absent with ownership: static.", nil,
		func(s *Snapshot, emit emit) {
			if s.Fleet != nil {
				emit(float64(len(s.Fleet.Members)))
			}
		}},
	{"cdrbus_memory_reserved_bytes", Gauge, "Bytes of the process-wide budget that windows have reserved.", nil,
		func(s *Snapshot, emit emit) { emit(float64(s.Process.MemoryUsedBytes)) }},
	{"cdrbus_memory_budget_bytes", Gauge, "Size of the process-wide byte budget for windows.", nil,
		func(s *Snapshot, emit emit) { emit(float64(s.Process.MemoryLimitBytes)) }},

	{"cdrbus_sources", Gauge, "Sources by state: " + stateList() + ". The first three wait for a person.", []string{"state"},
		func(s *Snapshot, emit emit) {
			for _, state := range States() {
				emit(float64(s.Totals.States[state]), string(state))
			}
		}},
	perSource("cdrbus_source_stopped", Gauge, "1 if the source waits for a person (stopped, parked or refused), else 0.",
		func(s *SourceView) (float64, bool) { return boolean(s.State.NeedsPerson()), true }),
	perSource("cdrbus_source_lag_seconds", Gauge, "How far the published watermark is behind the youngest instant that the feed answers for. Absent before the source has a position.",
		func(s *SourceView) (float64, bool) { return s.LagSeconds, s.LagSeconds >= 0 }),
	perEndpoint("cdrbus_source_until_loss_seconds", Gauge, "Time until the oldest record that is not yet published may age out of cdr_feed; and out of cdr_stream, where that is read: its loss costs time, for sweeps of cdr_feed still find the record. Absent if unknown.",
		func(s *SourceView) float64 { return s.UntilLossSeconds }, func(s *SourceView) float64 { return s.UntilStreamLossSeconds }),
	perEndpoint("cdrbus_source_lookback_seconds", Gauge, "How far back the endpoint answers, as configured. Absent if unknown.",
		func(s *SourceView) float64 { return known(s.Feed.LookbackSeconds) }, func(s *SourceView) float64 { return known(s.Stream.LookbackSeconds) }),
	perSource("cdrbus_source_published_timestamp_seconds", Gauge, "Published watermark: everything before it is committed once.",
		func(s *SourceView) (float64, bool) { return float64(s.Published), !s.Published.IsZero() }),
	perSource("cdrbus_source_settled_timestamp_seconds", Gauge, "Settled watermark: everything before it has been passed by the widest sweep.",
		func(s *SourceView) (float64, bool) { return float64(s.Settled), !s.Settled.IsZero() }),
	{"cdrbus_source_sweep_overdue_seconds", Gauge, "By how much the next round of a sweep is overdue, by how far back it reads, in seconds. Rounds are late while the request budget has not room for all of them.", []string{"source", "back"},
		func(s *Snapshot, emit emit) {
			for i := range s.Sources {
				for _, sweep := range s.Sources[i].Sweeps {
					emit(max(0, s.At.Sub(sweep.DueAt).Seconds()), string(s.Sources[i].Name), strconv.FormatFloat(sweep.BackSeconds, 'f', -1, 64))
				}
			}
		}},
	perSource("cdrbus_source_live_interval_seconds", Gauge, "Time between the last windows of the live edge, on average. Absent before there were two.",
		func(s *SourceView) (float64, bool) { return s.LiveSeconds, s.LiveSeconds > 0 }),
	perSource("cdrbus_source_clock_ahead_seconds", Gauge, "How far the feed's clock is ahead of this machine's, as its last answer told; negative: behind. What may be asked for goes by the feed's.",
		func(s *SourceView) (float64, bool) { return s.ClockAheadSeconds, true }),
	perSource("cdrbus_source_jobs", Gauge, "Jobs at work, such as backfills.",
		func(s *SourceView) (float64, bool) { return float64(len(s.Jobs)), true }),
	perSource("cdrbus_source_position_counter", Gauge, "Counter of the source's position; each commit adds one.",
		func(s *SourceView) (float64, bool) { return float64(s.Source.Counter), true }),
	perSource("cdrbus_source_last_commit_timestamp_seconds", Gauge, "When the source's last window was committed. Absent before the first one of this process.",
		func(s *SourceView) (float64, bool) {
			return unixSeconds(s.LastWindow.CommittedAt), !s.LastWindow.CommittedAt.IsZero()
		}),

	perSource("cdrbus_records_total", Counter, "Records of committed windows as the feed returned them: events, records already published, and dead letters.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Records), true }),
	perSource("cdrbus_events_total", Counter, "Events published.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Events), true }),
	perSource("cdrbus_known_records_total", Counter, "Records that were left out because this very content was already published.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Known), true }),
	perSource("cdrbus_late_events_total", Counter, "Of the events, those that a sweep found behind the published watermark.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Late), true }),
	perSource("cdrbus_revised_events_total", Counter, "Of the events, those whose Report ID was published before with other content.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Revised), true }),
	perSource("cdrbus_dead_letters_total", Counter, "Items that could not become an event and went to the dead-letter topic.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.DeadLetters), true }),
	{"cdrbus_unmapped_values_total", Counter, "Values that went to the event's unmapped map, by field: unknown fields, and known ones that did not parse. Beyond 100 names: \"" + otherFields + "\".", []string{"source", "field"},
		func(s *Snapshot, emit emit) {
			for i := range s.Sources {
				for field, n := range s.Sources[i].Unmapped {
					emit(float64(n), string(s.Sources[i].Name), strings.ToValidUTF8(field, "?"))
				}
			}
		}},
	{"cdrbus_windows_total", Counter, "Committed windows by purpose.", []string{"source", "purpose"},
		func(s *Snapshot, emit emit) {
			for i := range s.Sources {
				for purpose, n := range s.Sources[i].Counts.Windows {
					emit(float64(n), string(s.Sources[i].Name), string(purpose))
				}
			}
		}},
	perSource("cdrbus_unproven_windows_total", Counter, "Committed windows that may be incomplete.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Unproven), true }),
	perSource("cdrbus_gaps_total", Counter, "Spans that the feed could no longer return.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Gaps), true }),
	perSource("cdrbus_gap_seconds_total", Counter, "Length of these spans in feed time.",
		func(s *SourceView) (float64, bool) { return s.Counts.GapSeconds, true }),

	{"cdrbus_feed_requests_total", Counter, "Answers of the feed by HTTP status; \"none\" where the connection failed.", []string{"source", "status"},
		func(s *Snapshot, emit emit) {
			for i := range s.Sources {
				for status, n := range s.Sources[i].Requests {
					emit(float64(n), string(s.Sources[i].Name), status)
				}
			}
		}},
	perSource("cdrbus_feed_bytes_total", Counter, "Decoded bytes of the pages of committed windows.",
		func(s *SourceView) (float64, bool) { return float64(s.Counts.Bytes), true }),
	perSource("cdrbus_feed_wait_seconds_total", Counter, "Time that committed windows waited for the request budget or at the feed's demand.",
		func(s *SourceView) (float64, bool) { return s.Counts.WaitSeconds, true }),
	perSource("cdrbus_budget_pages_left", Gauge, "Page requests that the source's credential may still make in the running minute.",
		func(s *SourceView) (float64, bool) {
			return budgetValue(s, func(b *Budget) float64 { return b.PagesLeft })
		}),
	perSource("cdrbus_budget_pages_per_minute", Gauge, "Page requests a minute that the source's credential may make.",
		func(s *SourceView) (float64, bool) {
			return budgetValue(s, func(b *Budget) float64 { return b.PagesPerMinute })
		}),
	perSource("cdrbus_token_expiry_timestamp_seconds", Gauge, "When the access token ends. Absent if unknown.",
		func(s *SourceView) (float64, bool) {
			return unixSeconds(s.Token.ExpiresAt), !s.Token.ExpiresAt.IsZero()
		}),
	perSource("cdrbus_refresh_token_expiry_timestamp_seconds", Gauge, "When the refresh token ends, and with it the access of this source. Absent if unknown.",
		func(s *SourceView) (float64, bool) {
			return unixSeconds(s.Token.RefreshExpiresAt), !s.Token.RefreshExpiresAt.IsZero()
		}),

	perShard("cdrbus_shard_owned", Gauge, "1 if this process owns the shard, else 0.",
		func(s *Shard) float64 { return boolean(s.State != ShardReleased && s.State != ShardLost) }),
	perShard("cdrbus_shard_ready", Gauge, "1 if the shard is restored and commits, else 0.",
		func(s *Shard) float64 { return boolean(s.State == ShardReady) }),
	perShard("cdrbus_shard_epoch", Gauge, "Producer epoch of the shard; a commit uses one up, near 32766 it begins anew.",
		func(s *Shard) float64 { return float64(s.Epoch) }),
	perShard("cdrbus_commits_total", Counter, "Commits that were answered with a definite success.",
		func(s *Shard) float64 { return float64(s.Commits) }),
	perShard("cdrbus_aborts_total", Counter, "Commits that ended otherwise: aborted, or unknown until the log was read again.",
		func(s *Shard) float64 { return float64(s.Aborts) }),
	perShard("cdrbus_takeovers_total", Counter, "Times that this process took the shard over, the first included. Now and then is normal.",
		func(s *Shard) float64 { return float64(s.Takeovers) }),
	perShard("cdrbus_seen_ids", Gauge, "Report IDs in memory against which records are checked.",
		func(s *Shard) float64 { return float64(s.SeenIDs) }),
	perShard("cdrbus_seen_bytes", Gauge, "Memory that these Report IDs take.",
		func(s *Shard) float64 { return float64(s.SeenBytes) }),

	{Name: commitSecondsName, Type: Histogram, Help: "Time of a successful commit, from the new producer epoch to the definite answer."},
	{Name: fetchSecondsName, Type: Histogram, Help: "Time from the first request of a committed window to its last page, waits included.", Labels: []string{"purpose"}},
}

// perSource is a metric with one sample for each source; false: no sample.
func perSource(name string, kind MetricType, help string, read func(*SourceView) (float64, bool)) Metric {
	return Metric{name, kind, help, []string{"source"}, func(s *Snapshot, emit emit) {
		for i := range s.Sources {
			if value, ok := read(&s.Sources[i]); ok {
				emit(value, string(s.Sources[i].Name))
			}
		}
	}}
}

// perEndpoint is a metric with a sample for each endpoint of each source; negative:
// no sample.
func perEndpoint(name string, kind MetricType, help string, feed, stream func(*SourceView) float64) Metric {
	return Metric{name, kind, help, []string{"source", "endpoint"}, func(s *Snapshot, emit emit) {
		for i := range s.Sources {
			for endpoint, read := range map[cdr.Endpoint]func(*SourceView) float64{cdr.Feed: feed, cdr.Stream: stream} {
				if value := read(&s.Sources[i]); value >= 0 {
					emit(value, string(s.Sources[i].Name), string(endpoint))
				}
			}
		}
	}}
}

// known turns an unknown number, 0, into none.
func known(value float64) float64 {
	if value == 0 {
		return -1
	}
	return value
}

// perShard is a metric with one sample for each shard that this process has known.
func perShard(name string, kind MetricType, help string, read func(*Shard) float64) Metric {
	return Metric{name, kind, help, []string{"shard"}, func(s *Snapshot, emit emit) {
		for i := range s.Shards {
			emit(read(&s.Shards[i]), strconv.Itoa(s.Shards[i].Number))
		}
	}}
}

func budgetValue(s *SourceView, read func(*Budget) float64) (float64, bool) {
	if s.Budget == nil {
		return 0, false
	}
	return read(s.Budget), true
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func stateList() string {
	var names []string
	for _, s := range States() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// newCommitSeconds covers 2 ms, a commit on loopback being about 6 ms, to the
// 45 s at which a commit is aborted.
func newCommitSeconds() prometheus.Histogram {
	m := metricNamed(commitSecondsName)
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: m.Name, Help: m.Help,
		Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 45},
	})
}

// newFetchSeconds covers one quick page to a window of hundreds of pages at ten
// pages a minute.
func newFetchSeconds() *prometheus.HistogramVec {
	m := metricNamed(fetchSecondsName)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: m.Name, Help: m.Help,
		Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600},
	}, m.Labels)
}

func metricNamed(name string) *Metric {
	for i := range metrics {
		if metrics[i].Name == name {
			return &metrics[i]
		}
	}
	panic("status: the metrics table has no " + name)
}

// collector makes Prometheus samples from one snapshot for each scrape.
type collector struct {
	board *Board
	descs []*prometheus.Desc // in the order of the table
}

func newCollector(b *Board) *collector {
	c := &collector{board: b, descs: make([]*prometheus.Desc, len(metrics))}
	for i, m := range metrics {
		c.descs[i] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for i, m := range metrics {
		if m.read != nil {
			descs <- c.descs[i]
		}
	}
	c.board.commitSeconds.Describe(descs)
	c.board.fetchSeconds.Describe(descs)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(samples chan<- prometheus.Metric) {
	snapshot := c.board.View(Query{HistoryLimit: -1, numbersOnly: true})
	for i, m := range metrics {
		if m.read == nil {
			continue
		}
		kind := prometheus.GaugeValue
		if m.Type == Counter {
			kind = prometheus.CounterValue
		}
		m.read(&snapshot, func(value float64, labels ...string) {
			samples <- prometheus.MustNewConstMetric(c.descs[i], kind, value, labels...)
		})
	}
	c.board.commitSeconds.Collect(samples)
	c.board.fetchSeconds.Collect(samples)
}

// Registry returns a new Prometheus registry with the board's metrics and those
// of the Go runtime and the process.
func (b *Board) Registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(b), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func (b *Board) metricsHandler() http.Handler {
	return promhttp.HandlerFor(b.Registry(), promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: 4})
}

// WriteMetricsDoc writes the metrics table as Markdown: docs/metrics.md.
func WriteMetricsDoc(w io.Writer) error {
	_, err := io.WriteString(w, metricsDocHead+metricsDocTable())
	return err
}

const metricsDocHead = `# Metrics

Generated from the metrics table of internal/status by ` + "`go test ./internal/status -update`" + `; do not edit.

Served at ` + "`/metrics`" + ` of ` + "`admin.listen`" + ` in the Prometheus text format, beside the usual ` + "`go_*`" + ` and ` + "`process_*`" + ` metrics.
Counters begin at zero with the process. Sources of one credential share its request budget and its tokens and show the same values.

| metric | type | labels | meaning |
|---|---|---|---|
`

func metricsDocTable() string {
	var b strings.Builder
	for _, m := range metrics {
		labels := "`" + strings.Join(m.Labels, "` `") + "`"
		if len(m.Labels) == 0 {
			labels = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, m.Help)
	}
	return b.String()
}
