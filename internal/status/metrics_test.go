package status

import (
	"bytes"
	"flag"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	dto "github.com/prometheus/client_model/go"

	"cdrbus/internal/cdr"
)

var update = flag.Bool("update", false, "write the golden files anew")

const metricsDocPath = "../../docs/metrics.md"

func TestMetricsDoc(t *testing.T) {
	var want bytes.Buffer
	if err := WriteMetricsDoc(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(metricsDocPath, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsDocPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/metrics.md is not what the metrics table says; run go test ./internal/status -update")
	}
}

// exhaustiveBoard has a value for every row of the table.
func exhaustiveBoard() *Board {
	b := stoppedBoard()
	b.SetFleet(Fleet{Members: []Member{{Name: "cdrbus-0", Self: true}}})
	b.Restarted("killed")
	readyShards(b, 1)
	b.Update("acme-us", func(s *Source) { s.State = Stopped })
	b.Committed(Commit{Windows: []Window{{Source: "acme-us", Counter: 500, Purpose: cdr.Gap, Span: cdr.Span{StartInclusive: 1000, EndExclusive: 4600}, Revised: 2}}})
	return b
}

// TestEveryMetricIsGathered holds the registry against the table, both ways.
func TestEveryMetricIsGathered(t *testing.T) {
	families, err := exhaustiveBoard().Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	gathered := make(map[string]string)
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "cdrbus_") {
			continue
		}
		gathered[name] = strings.ToLower(f.GetType().String())
		i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name })
		if i < 0 {
			t.Errorf("%s is not in the table", name)
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		want := slices.Clone(metrics[i].Labels)
		slices.Sort(want)
		if !slices.Equal(labels, want) {
			t.Errorf("%s has labels %v, want %v", name, labels, want)
		}
		for _, m := range f.GetMetric() {
			if v := m.GetGauge().GetValue(); math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%s is %v", name, v)
			}
		}
	}
	for _, m := range metrics {
		if gathered[m.Name] != string(m.Type) {
			t.Errorf("%s is gathered as %q, want %q", m.Name, gathered[m.Name], m.Type)
		}
	}
	for _, usual := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == usual }) {
			t.Errorf("%s is missing", usual)
		}
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	problems, err := promlint.New(get(exhaustiveBoard(), "GET", "/metrics").Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	name := regexp.MustCompile(`^cdrbus_[a-z]+(_[a-z]+)*$`)
	for _, m := range metrics {
		if !name.MatchString(m.Name) || !strings.HasSuffix(m.Help, ".") || strings.Contains(m.Help, "|") {
			t.Errorf("%s: %q", m.Name, m.Help)
		}
		if strings.HasSuffix(m.Name, "_total") != (m.Type == Counter) {
			t.Errorf("%s is a %s", m.Name, m.Type)
		}
	}
}

func TestMetricValues(t *testing.T) {
	b := New(Build{Version: "v1"}, Options{Memory: func() (int64, int64) { return 5, 10 }})
	readyShards(b, 1)
	w := live("acme", 4, 10, 5000)
	w.Events, w.Known, w.DeadLetters, w.Late, w.Revised, w.FetchSeconds = 6, 3, 1, 2, 1, 3
	b.Committed(Commit{DurationSeconds: .3, Windows: []Window{w}})
	b.Requested("acme", 429)
	b.Requested("acme", 0)
	b.Unmapped("acme", "X", 7)
	b.Update("acme", func(s *Source) { s.State = Parked })
	b.UpdateShard(0, func(s *Shard) { s.Aborts = 2 })
	text := get(b, "GET", "/metrics").Body.String()
	for _, line := range []string{
		`cdrbus_aborts_total{shard="0"} 2`,
		`cdrbus_build_info{goversion="",revision="",version="v1"} 1`,
		`cdrbus_commits_total{shard="0"} 1`,
		`cdrbus_dead_letters_total{source="acme"} 1`,
		`cdrbus_events_total{source="acme"} 6`,
		`cdrbus_feed_requests_total{source="acme",status="429"} 1`,
		`cdrbus_feed_requests_total{source="acme",status="none"} 1`,
		`cdrbus_known_records_total{source="acme"} 3`,
		`cdrbus_late_events_total{source="acme"} 2`,
		`cdrbus_memory_budget_bytes 10`,
		`cdrbus_memory_reserved_bytes 5`,
		`cdrbus_ready 0`,
		`cdrbus_records_total{source="acme"} 10`,
		`cdrbus_revised_events_total{source="acme"} 1`,
		`cdrbus_shard_owned{shard="0"} 1`,
		`cdrbus_shard_ready{shard="0"} 1`,
		`cdrbus_source_position_counter{source="acme"} 4`,
		`cdrbus_source_published_timestamp_seconds{source="acme"} 5000`,
		`cdrbus_source_stopped{source="acme"} 1`,
		`cdrbus_sources{state="parked"} 1`,
		`cdrbus_sources{state="waiting"} 0`,
		`cdrbus_unmapped_values_total{field="X",source="acme"} 7`,
		`cdrbus_windows_total{purpose="live",source="acme"} 1`,
		`cdrbus_commit_duration_seconds_bucket{le="0.2"} 0`,
		`cdrbus_commit_duration_seconds_bucket{le="0.5"} 1`,
		`cdrbus_fetch_duration_seconds_sum{purpose="live"} 3`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the metrics lack the line %s", line)
		}
	}
}
