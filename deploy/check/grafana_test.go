package check

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"cdrbus/internal/status"
)

// dashboard is what the checks need of Grafana's model.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct {
			Name       string
			Type       string
			Definition string
		}
	}
	Annotations struct{ List []struct{ Name, Expr string } }
}

type panel struct {
	ID         int
	Type       string
	Title      string
	GridPos    struct{ X, Y, W, H int }
	Datasource struct{ Type, UID string }
	Targets    []struct{ RefID, Expr string }
}

func loadDashboard(t *testing.T) *dashboard {
	t.Helper()
	content, err := os.ReadFile(root + "deploy/grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	d := new(dashboard)
	if err := json.Unmarshal(content, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// resolved puts values in the places of Grafana's variables.
var resolved = strings.NewReplacer("$__rate_interval", "5m", "$instance", "a", "$source", "acme")

func TestDashboardQueries(t *testing.T) {
	d := loadDashboard(t)
	used := map[string]bool{}
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: ID %d is taken", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%s has no query, or a data source of its own", p.Title)
		}
		for _, target := range p.Targets {
			query := resolved.Replace(target.Expr)
			if strings.Contains(query, "$") {
				t.Errorf("%s: unknown variable in %s", p.Title, target.Expr)
			}
			for _, name := range checkQuery(t, p.Title, query) {
				used[name] = true
			}
		}
	}
	for _, a := range d.Annotations.List {
		checkQuery(t, a.Name, a.Expr)
	}
	for _, v := range d.Templating.List {
		if inner, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			metric, label, _ := strings.Cut(strings.TrimSuffix(inner, ")"), ", ")
			if labels, found := labelsOf(metric); !found || !slices.Contains(labels, label) {
				t.Errorf("variable %s asks for label %s of %s", v.Name, label, metric)
			}
		}
	}
	// What the dashboard leaves out, it leaves out on purpose.
	leftOut := []string{
		"cdrbus_build_info", "cdrbus_restarts_total", "cdrbus_source_lookback_seconds", "cdrbus_source_position_counter",
		"cdrbus_source_last_commit_timestamp_seconds", "cdrbus_gap_seconds_total", "cdrbus_shard_epoch", "cdrbus_seen_ids",
	}
	for _, m := range status.Metrics() {
		shown := used[m.Name] || used[m.Name+"_bucket"]
		if shown == slices.Contains(leftOut, m.Name) {
			t.Errorf("metric %s: shown is %v, left out on purpose is %v", m.Name, shown, !shown)
		}
	}
}

func TestDashboardLayout(t *testing.T) {
	panels := loadDashboard(t).Panels
	for i, p := range panels {
		g := p.GridPos
		if g.X < 0 || g.W <= 0 || g.H <= 0 || g.X+g.W > 24 {
			t.Errorf("%s leaves the grid: %+v", p.Title, g)
		}
		for _, q := range panels[:i] {
			o := q.GridPos
			if g.X < o.X+o.W && o.X < g.X+g.W && g.Y < o.Y+o.H && o.Y < g.Y+g.H {
				t.Errorf("%s lies upon %s", p.Title, q.Title)
			}
		}
	}
}
