package check

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

const (
	rulesFile   = root + "deploy/prometheus/rules.yml"
	runbookFile = root + "deploy/prometheus/runbook.md"
)

// loadRules reads the rules with every check that promtool makes.
func loadRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	var rules []rulefmt.Rule
	for _, g := range groups.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

func TestAlertsSayWhatToDo(t *testing.T) {
	runbook, err := os.ReadFile(runbookFile)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(runbook), -1) {
		sections[m[1]] = true
	}
	seen := map[string]bool{}
	for _, rule := range loadRules(t) {
		if seen[rule.Alert] {
			t.Errorf("alert %s is there twice", rule.Alert)
		}
		seen[rule.Alert] = true
		checkQuery(t, rule.Alert, rule.Expr)
		switch rule.Labels["severity"] {
		case "critical", "warning", "info":
		default:
			t.Errorf("%s: severity is %q", rule.Alert, rule.Labels["severity"])
		}
		for _, name := range []string{"summary", "description"} {
			if rule.Annotations[name] == "" {
				t.Errorf("%s has no %s", rule.Alert, name)
			}
		}
		if want := "deploy/prometheus/runbook.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook"] != want {
			t.Errorf("%s: runbook is %s, want %s", rule.Alert, rule.Annotations["runbook"], want)
		}
		if !sections[rule.Alert] {
			t.Errorf("%s has no section in the runbook", rule.Alert)
		}
	}
	for section := range sections {
		if !seen[section] {
			t.Errorf("the runbook speaks of %s, which is no alert", section)
		}
	}
}

// quietSeries are seven hours of a process that is well, a sample a minute.
var quietSeries = map[string]string{
	`up{job="cdrbus", instance="a"}`:                                                 `1x420`,
	`cdrbus_ready{instance="a"}`:                                                     `1x420`,
	`cdrbus_source_stopped{instance="a", source="acme"}`:                             `0x420`,
	`cdrbus_source_lag_seconds{instance="a", source="acme"}`:                         `60x420`,
	`cdrbus_source_until_loss_seconds{instance="a", source="acme", endpoint="feed"}`: `2591000x420`,
	`cdrbus_source_lookback_seconds{instance="a", source="acme", endpoint="feed"}`:   `2592000x420`,
	`cdrbus_gaps_total{instance="a", source="acme"}`:                                 `0x420`,
	`cdrbus_unproven_windows_total{instance="a", source="acme"}`:                     `3x420`,
	`cdrbus_dead_letters_total{instance="a", source="acme"}`:                         `7x420`,
	`cdrbus_unmapped_values_total{instance="a", source="acme", field="X"}`:           `9x420`,
	`cdrbus_source_clock_ahead_seconds{instance="a", source="acme"}`:                 `-2x420`,
	`cdrbus_feed_requests_total{instance="a", source="acme", status="200"}`:          `0+2x420`,
	`cdrbus_feed_requests_total{instance="a", source="acme", status="404"}`:          `0+2x420`,
	`cdrbus_feed_requests_total{instance="a", source="acme", status="503"}`:          `0+1x420`,
	`cdrbus_feed_requests_total{instance="a", source="acme", status="429"}`:          `1x420`,
	`cdrbus_commits_total{instance="a", shard="0"}`:                                  `0+10x420`,
	`cdrbus_aborts_total{instance="a", shard="0"}`:                                   `0+1x420`,
	`cdrbus_takeovers_total{instance="a", shard="0"}`:                                `1x420`,
	`cdrbus_commit_duration_seconds_bucket{instance="a", le="0.01"}`:                 `0+10x420`,
	`cdrbus_commit_duration_seconds_bucket{instance="a", le="45"}`:                   `0+10x420`,
	`cdrbus_commit_duration_seconds_bucket{instance="a", le="+Inf"}`:                 `0+10x420`,
	`cdrbus_refresh_token_expiry_timestamp_seconds{instance="a", source="acme"}`:     `5000000x420`,
	`cdrbus_memory_reserved_bytes{instance="a"}`:                                     `0x420`,
	`cdrbus_memory_budget_bytes{instance="a"}`:                                       `67108864x420`,
	`cdrbus_fleet_members{instance="a", job="cdrbus"}`:                               `2x420`,
	`cdrbus_fleet_members{instance="b", job="cdrbus"}`:                               `2x420`,
	`cdrbus_shard_owned{instance="a", job="cdrbus", shard="0"}`:                      `1x420`,
	`cdrbus_shard_owned{instance="a", job="cdrbus", shard="1"}`:                      `1x200 0x219`, // moved to b
	`cdrbus_shard_owned{instance="b", job="cdrbus", shard="1"}`:                      `_x200 1x219`,
}

// trouble is what makes each alert fire: series that replace quiet ones.
var trouble = map[string]map[string]string{
	"CdrbusDown":                 {`up{job="cdrbus", instance="a"}`: `0x420`},
	"CdrbusNotReady":             {`cdrbus_ready{instance="a"}`: `0x420`},
	"CdrbusSourceStopped":        {`cdrbus_source_stopped{instance="a", source="acme"}`: `1x420`},
	"CdrbusSourceLagging":        {`cdrbus_source_lag_seconds{instance="a", source="acme"}`: `1900x420`},
	"CdrbusClockDiffers":         {`cdrbus_source_clock_ahead_seconds{instance="a", source="acme"}`: `-600x420`},
	"CdrbusRecordsAboutToAgeOut": {`cdrbus_source_until_loss_seconds{instance="a", source="acme", endpoint="feed"}`: `250000x420`},
	"CdrbusGap":                  {`cdrbus_gaps_total{instance="a", source="acme"}`: `0x400 1x19`},
	"CdrbusUnprovenWindows":      {`cdrbus_unproven_windows_total{instance="a", source="acme"}`: `3x300 4x119`},
	"CdrbusDeadLetters":          {`cdrbus_dead_letters_total{instance="a", source="acme"}`: `7x400 8x19`},
	"CdrbusUnmappedValues":       {`cdrbus_unmapped_values_total{instance="a", source="acme", field="X"}`: `9x400 10x19`},
	"CdrbusFeedFailing":          {`cdrbus_feed_requests_total{instance="a", source="acme", status="503"}`: `0+9x420`},
	"CdrbusThrottled":            {`cdrbus_feed_requests_total{instance="a", source="acme", status="429"}`: `0+1x420`},
	"CdrbusCommitsAborted":       {`cdrbus_aborts_total{instance="a", shard="0"}`: `0+5x420`},
	"CdrbusCommitsSlow": {
		`cdrbus_commit_duration_seconds_bucket{instance="a", le="0.01"}`: `0+5x420`,
	},
	"CdrbusShardUnowned":     {`cdrbus_shard_owned{instance="b", job="cdrbus", shard="1"}`: `_x200 1x100 0x119`},
	"CdrbusFleetDiffers":     {`cdrbus_fleet_members{instance="b", job="cdrbus"}`: `1x420`},
	"CdrbusTakeovers":        {`cdrbus_takeovers_total{instance="a", shard="0"}`: `0+1x420`},
	"CdrbusRefreshTokenEnds": {`cdrbus_refresh_token_expiry_timestamp_seconds{instance="a", source="acme"}`: `1000000x420`},
	"CdrbusMemoryBudgetFull": {`cdrbus_memory_reserved_bytes{instance="a"}`: `67000000x420`},
}

// TestAlertsFire evaluates each alert twice: it is silent while all is well, and
// speaks when what it watches for happens.
func TestAlertsFire(t *testing.T) {
	for _, rule := range loadRules(t) {
		t.Run(rule.Alert, func(t *testing.T) {
			if n := evaluate(t, rule.Expr, nil); n != 0 {
				t.Errorf("fires for %d series although all is well", n)
			}
			series, known := trouble[rule.Alert]
			if !known {
				t.Fatal("the test does not know what makes it fire")
			}
			if n := evaluate(t, rule.Expr, series); n != 1 {
				t.Errorf("fires for %d series, want 1", n)
			}
		})
	}
}

func TestDownIsNoticedWhereNothingIsLeft(t *testing.T) {
	for _, rule := range loadRules(t) {
		if rule.Alert == "CdrbusDown" && evaluate(t, rule.Expr, map[string]string{`up{job="cdrbus", instance="a"}`: `1x10 _x410`}) != 1 {
			t.Error("a target that has disappeared raises no alert")
		}
	}
}

func TestStoppedSourceDoesNotAlsoLag(t *testing.T) {
	for _, rule := range loadRules(t) {
		if rule.Alert == "CdrbusSourceLagging" && evaluate(t, rule.Expr, map[string]string{
			`cdrbus_source_lag_seconds{instance="a", source="acme"}`: `1900x420`,
			`cdrbus_source_stopped{instance="a", source="acme"}`:     `1x420`,
		}) != 0 {
			t.Error("a stopped source raises a second alert for its lag")
		}
	}
}

// A process that is gone takes its series along; the shard that it owned is
// missed all the same, for a day.
func TestShardOfAVanishedProcessIsMissed(t *testing.T) {
	for _, rule := range loadRules(t) {
		if rule.Alert == "CdrbusShardUnowned" && evaluate(t, rule.Expr, map[string]string{
			`cdrbus_shard_owned{instance="a", job="cdrbus", shard="0"}`: `1x400 _x20`,
		}) != 1 {
			t.Error("a shard whose owner has vanished raises no alert")
		}
	}
}

// Each way in which a fleet and its targets can differ, and none where they agree.
func TestFleetDiffers(t *testing.T) {
	const a, b = `cdrbus_fleet_members{instance="a", job="cdrbus"}`, `cdrbus_fleet_members{instance="b", job="cdrbus"}`
	for _, c := range []struct {
		name, a, b string
		want       int
	}{
		{"a target that is no member", `1x420`, `1x420`, 1},
		{"a member that is no target", `3x420`, `3x420`, 1},
		{"one does not know", `2x420`, `3x420`, 1},
		{"one has left", `2x300 1x119`, `2x300 _x119`, 0},
		{"no fleet", `_x420`, `_x420`, 0},
	} {
		for _, rule := range loadRules(t) {
			if rule.Alert != "CdrbusFleetDiffers" {
				continue
			}
			if n := evaluate(t, rule.Expr, map[string]string{a: c.a, b: c.b}); n != c.want {
				t.Errorf("%s: fires for %d series, want %d", c.name, n, c.want)
			}
		}
	}
}

// evaluate returns how many series an expression yields at the end of the seven hours.
func evaluate(t *testing.T, expression string, changes map[string]string) int {
	t.Helper()
	var input strings.Builder
	input.WriteString("load 1m\n")
	for series, values := range quietSeries {
		if changed, ok := changes[series]; ok {
			values = changed
		}
		fmt.Fprintf(&input, "  %s %s\n", series, values)
	}
	for series := range changes {
		if _, known := quietSeries[series]; !known {
			t.Fatalf("%s is not among the quiet series", series)
		}
	}
	storage := promqltest.LoadedStorage(t, input.String())
	defer storage.Close()
	engine := promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	query, err := engine.NewInstantQuery(context.Background(), storage, nil, expression, time.Unix(0, 0).Add(420*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	vector, err := query.Exec(context.Background()).Vector()
	if err != nil {
		t.Fatal(err)
	}
	return len(vector)
}
