package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with the file, or writes the file with -update.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", file, got)
	}
}

// examples returns the YAML files of a folder, never none.
func examples(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", folder, err)
	}
	return files
}

// parseExample parses a file with the environment of the .env file beside it.
func parseExample(t *testing.T, file string) (*Config, error) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	if text, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".env"); err == nil {
		environ = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	return Parse(filepath.Base(file), data, environ)
}

func TestBadConfigurations(t *testing.T) {
	for _, file := range examples(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := parseExample(t, file)
			var problems Problems
			if c != nil || !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("Parse = %v, %v; want problems", c, err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the message shows a secret:\n%v", err)
			}
			for i := range 20 { // maps are walked on the way
				if _, again := parseExample(t, file); again.Error() != err.Error() {
					t.Fatalf("run %d gives another message:\n%v", i, again)
				}
			}
		})
	}
}

func TestGoodConfigurations(t *testing.T) {
	for _, file := range examples(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := parseExample(t, file)
			if err != nil {
				t.Fatal(err)
			}
			shown, err := c.Show()
			if err != nil {
				t.Fatal(err)
			}
			warnings := ""
			for _, w := range c.Warnings() {
				warnings += "# warning: " + w.String() + "\n"
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".shown", warnings+shown)
			if strings.Contains(shown, "hunter2") {
				t.Error("the configuration shows a secret")
			}
			if !strings.Contains(shown, "(hidden") {
				requireSame(t, c, shown)
			}
		})
	}
}

// requireSame parses what Show wrote, and wants the same configuration back.
func requireSame(t *testing.T, c *Config, shown string) {
	t.Helper()
	again, err := Parse("shown.yaml", []byte(shown), nil)
	if err != nil {
		t.Fatalf("Show wrote what Parse refuses: %v\n%s", err, shown)
	}
	if text, err := again.Show(); err != nil || text != shown {
		t.Errorf("shown, parsed and shown again (%v):\n%s", err, text)
	}
}

// TestDefault holds the names and defaults that DESIGN.md calls a contract.
func TestDefault(t *testing.T) {
	written := strings.Join([]string{
		"delivery: exactly_once",
		"ownership: static",
		"insecure_http_hosts: []",
		"kafka:",
		"  brokers: [localhost:9092]",
		"  topics: {events: webex.cdr.events, offsets: webex.cdr.offsets, windows: webex.cdr.windows, ids: webex.cdr.ids, deadletter: webex.cdr.deadletter}",
		"  create_topics: true",
		"  shards: 16",
		"  transactional_id_prefix: cdrbus",
		"schema_registry: {url: http://localhost:8081, auto_register: true}",
		"sources:",
		"  - name: acme",
		"    url: https://analytics-calling.webexapis.com/v1/cdr_feed",
		"    endpoint: feed",
		"    credential: acme",
		"    locations: []",
		"    start: 24h",
		"    page_size: 0",
		"    limits: {initial_per_minute: 1, pages_per_minute: 10}",
		"    lookback: 720h",
		"    min_age: 5m",
		"    max_window: 12h",
		"    overlap: 1m",
		"    sweeps: [{every: 15m, back: 2h}, {every: 12h, back: 48h}]",
		"credentials:",
		"  - {name: acme, client_id_file: id, client_secret_file: secret, token_store: /var/lib/cdrbus/acme.json}",
		"admin: {listen: 127.0.0.1:9464}",
	}, "\n")
	short := strings.Join([]string{
		"sources: [{name: acme, credential: acme, start: 24h}]",
		"credentials: [{name: acme, client_id_file: id, client_secret_file: secret, token_store: /var/lib/cdrbus/acme.json}]",
	}, "\n")
	var shown []string
	for _, text := range []string{written, short} {
		c, err := Parse("test.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings()) > 0 {
			t.Errorf("the defaults cause warnings: %v", c.Warnings())
		}
		s, err := c.Show()
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, strings.ReplaceAll(s, "insecure_http_hosts: []", "insecure_http_hosts: null"))
	}
	if strings.ReplaceAll(shown[0], "[]", "null") != strings.ReplaceAll(shown[1], "[]", "null") {
		t.Errorf("the written defaults differ from the real ones:\n%s\n---\n%s", shown[0], shown[1])
	}
}

func TestShowJSON(t *testing.T) {
	c, err := parseExample(t, filepath.Join("testdata", "good", "environment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.ShowJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"password_file": "(hidden, from CDRBUS_KAFKA_SASL_PASSWORD)"`, `"start": "3d"`, `"shards": 8`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("ShowJSON lacks %s:\n%s", want, text)
		}
	}
}

func TestWarnings(t *testing.T) {
	const text = `
insecure_http_hosts: [feed.internal]
kafka:
  brokers: [kafka:9092]
  sasl: {mechanism: plain, username: u, password_file: p, allow_plain_without_tls: [KAFKA]}
sources:
  - {name: a, credential: acme, start: 31d, locations: [A]}
  - {name: b, credential: acme, start: 24h, locations: [B], min_age: 1m}
  - {name: c, credential: acme, start: 24h, locations: [C]}
  - {name: d, credential: acme, start: 24h, locations: [D]}
  - {name: e, url: "http://feed.internal:8080/v1/cdr_feed", token_file: t, start: 24h}
credentials:
  - {name: acme, client_id_file: id, client_secret_file: secret, token_store: s.json}
  - {name: idle, client_id_file: id, client_secret_file: secret, token_store: i.json}
`
	c, err := Parse("test.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Warnings() {
		got = append(got, w.String())
	}
	want := []string{
		"test.yaml:5:59: kafka.sasl.allow_plain_without_tls: the Kafka password travels readable to KAFKA; enable kafka.tls",
		"test.yaml:7:5: sources[0].limits: 4 sources share this budget of 1 first requests a minute; a live window of each every 5m, and their sweeps, need 1.1: each is asked about every 5m; use more credentials, join sources, or sweep less often",
		"test.yaml:7:33: sources[0].start: 31d ago is further than the feed answers (lookback 30d): the span before will be recorded as a gap; write earliest",
		"test.yaml:8:61: sources[1].min_age: the feed of Webex refuses windows that end less than 5m ago; write 5m",
		"test.yaml:11:15: sources[4].url: the credential travels readable to feed.internal:8080; use https",
		"test.yaml:14:5: credentials[1]: no source uses credential idle; take it away, or name it in a source",
	}
	if !slices.Equal(got, want) {
		t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
