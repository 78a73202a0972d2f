package check

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"cdrbus/internal/status"
)

func intText(n int32) string { return strconv.Itoa(int(n)) }

// target labels are what Prometheus adds to every sample.
var targetLabels = []string{"instance", "job"}

// foreignMetrics are those that cdrbus does not make itself: of Prometheus, of
// the Go runtime, of the process.
var foreignMetrics = []string{
	"up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds", "go_memstats_heap_inuse_bytes",
}

// labelsOf returns the labels of a metric by the name that a query uses.
func labelsOf(name string) (labels []string, found bool) {
	if slices.Contains(foreignMetrics, name) {
		return targetLabels, true
	}
	for _, m := range status.Metrics() {
		names, labels := []string{m.Name}, m.Labels
		if m.Type == status.Histogram {
			names, labels = []string{m.Name + "_bucket", m.Name + "_sum", m.Name + "_count"}, append(slices.Clone(labels), "le")
		}
		if slices.Contains(names, name) {
			return append(slices.Clone(labels), targetLabels...), true
		}
	}
	return nil, false
}

// checkQuery parses a query and demands that every metric is in the table, and
// every label that is matched or grouped by is one of its labels. It returns the
// names of the metrics.
func checkQuery(t *testing.T, where, query string) []string {
	t.Helper()
	expression, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v\n%s", where, err, query)
		return nil
	}
	var names []string
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			names = append(names, node.Name)
			checkSelector(t, where, node)
		case *parser.AggregateExpr:
			checkGrouping(t, where, node)
		}
		return nil
	})
	return names
}

func checkSelector(t *testing.T, where string, selector *parser.VectorSelector) {
	t.Helper()
	labels, found := labelsOf(selector.Name)
	if !found {
		t.Errorf("%s: no metric %s in the table", where, selector.Name)
		return
	}
	for _, m := range selector.LabelMatchers {
		if m.Name != "__name__" && !slices.Contains(labels, m.Name) {
			t.Errorf("%s: %s has no label %s", where, selector.Name, m.Name)
		}
	}
}

// checkGrouping demands that whatever is grouped by is a label of every metric below.
func checkGrouping(t *testing.T, where string, aggregate *parser.AggregateExpr) {
	t.Helper()
	parser.Inspect(aggregate.Expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		labels, _ := labelsOf(selector.Name)
		for _, label := range aggregate.Grouping {
			if !slices.Contains(labels, label) {
				t.Errorf("%s: grouped by %s, which %s lacks", where, label, selector.Name)
			}
		}
		return nil
	})
}

func TestMetricsNamesAreOurs(t *testing.T) {
	for _, m := range status.Metrics() {
		if !strings.HasPrefix(m.Name, "cdrbus_") {
			t.Errorf("metric %s lacks the prefix", m.Name)
		}
	}
}
