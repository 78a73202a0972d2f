package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/embedded"
	"cdrbus/internal/probe"
	"cdrbus/internal/simulator"
)

// patient is a configured world on this machine: a feed without limits, brokers, a registry.
type patient struct {
	t      *testing.T
	feed   *simulator.Simulator
	config string // path
	token  string // path
	text   string // of the configuration
}

func newPatient(t *testing.T, tune func(*simulator.Options)) *patient {
	t.Helper()
	options := simulator.DefaultOptions()
	options.Records.Rate = 0.15
	options.Answers.InitialPerMinute, options.Answers.PagesPerMinute = 0, 0
	options.Answers.MaxFloor, options.Answers.MaxCeiling = 100, 1000
	if tune != nil {
		tune(&options)
	}
	feed, err := simulator.New(options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(feed)
	t.Cleanup(server.Close)
	cluster, err := embedded.Start(embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	folder := t.TempDir()
	p := &patient{t: t, feed: feed, config: filepath.Join(folder, "cdrbus.yaml"), token: filepath.Join(folder, "token")}
	p.write(p.token, "token-org-1")
	p.text = fmt.Sprintf(`kafka: {brokers: [%s]}
schema_registry: {url: %s}
admin: {listen: ""}
sources:
  - {name: acme, url: "%s/v1/cdr_feed", token_file: %s, start: 24h, limits: {initial_per_minute: 3000, pages_per_minute: 6000}}
`, strings.Join(cluster.Brokers(), ", "), cluster.RegistryURL(), server.URL, p.token)
	p.write(p.config, p.text)
	return p
}

func (p *patient) write(path, text string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// change writes the configuration anew with something replaced.
func (p *patient) change(old, replacement string) {
	p.t.Helper()
	if !strings.Contains(p.text, old) {
		p.t.Fatalf("the configuration has no %q", old)
	}
	p.text = strings.ReplaceAll(p.text, old, replacement)
	p.write(p.config, p.text)
}

func (p *patient) doctor(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	var out, err bytes.Buffer
	code = run(ctx, append([]string{"doctor", "-c", p.config}, args...), &out, &err)
	p.t.Logf("exit code %d\n%s%s", code, out.String(), err.String())
	return code, out.String(), err.String()
}

// TestDoctor: each assumption that does not hold is named, and only that.
func TestDoctor(t *testing.T) {
	for _, c := range []struct {
		name string
		tune func(*simulator.Options)
		ill  func(*patient)
		code int
		says []string
	}{
		{name: "well", code: exitAsked, says: []string{"ok    token of token_file", "ok    host 127.0.0.1", "note  topic webex.cdr.events: it does not exist", "would be accepted; run registers it", "spark-admin:calling_cdr_read", "Webex Calling Detailed Call History API access"}},
		{name: "topics are missing", ill: func(p *patient) { p.change("kafka: {", "kafka: {create_topics: false, ") }, code: exitDifference, says: []string{"fail  topic webex.cdr.offsets", "kafka-topics.sh"}},
		{name: "schemas are missing", ill: func(p *patient) { p.change("schema_registry: {", "schema_registry: {auto_register: false, ") }, code: exitDifference, says: []string{"fail  subject webex.cdr.events-value", "cdrbus schema register"}},
		{name: "brokers are away", ill: func(p *patient) {
			address, _, _ := strings.Cut(strings.SplitAfter(p.text, "brokers: [")[1], "]")
			p.change(address, "127.0.0.1:1")
		}, code: exitDifference, says: []string{"fail  kafka"}},
		{name: "the feed's host is away", ill: func(p *patient) {
			address, _, _ := strings.Cut(strings.SplitAfter(p.text, `url: "`)[1], "/v1")
			p.change(address, "http://127.0.0.1:1")
		}, code: exitDifference, says: []string{"fail  host 127.0.0.1:1: it cannot be reached", "url"}},
		{name: "the clock is wrong", tune: func(o *simulator.Options) { o.ClockOffset = 10 * time.Minute }, code: exitDifference, says: []string{"fail  clock against host", "10m"}},
		{name: "the configuration is wrong", ill: func(p *patient) { p.change("start: 24h", "start: 24h, endpont: feed") }, code: exitUsage, says: []string{"endpoint"}},
		{name: "the token is exposed", ill: func(p *patient) {
			if err := os.Chmod(p.token, 0o644); err != nil {
				p.t.Fatal(err)
			}
		}, code: exitUsage, says: []string{"chmod"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t, c.tune)
			if c.ill != nil {
				c.ill(p)
			}
			code, stdout, stderr := p.doctor()
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if strings.Contains(stdout+stderr, "token-org-1") {
				t.Error("the token is told")
			}
			if c.code == exitDifference && strings.Count(stdout, "\nfail  kafka")+strings.Count(stdout, "\nfail  host")+strings.Count(stdout, "\nfail  clock") > 1 {
				t.Error("more is said to fail than does")
			}
		})
	}
}

// TestDoctorStore: a token store that cannot be written is found before a renewed
// token is lost in it, and a good one is left as it was.
func TestDoctorStore(t *testing.T) {
	p := newPatient(t, nil)
	folder := filepath.Join(filepath.Dir(p.config), "store")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	p.write(filepath.Join(folder, "id"), "client-org-1")
	p.write(filepath.Join(folder, "secret"), "secret-org-1")
	p.write(filepath.Join(folder, "tokens.json"), `{"version":1,"refresh_token":"refresh-org-1"}`)
	feed, _, _ := strings.Cut(strings.SplitAfter(p.text, `url: "`)[1], "/v1")
	p.change("token_file: "+p.token, "credential: acme")
	p.text += fmt.Sprintf("credentials:\n  - {name: acme, client_id_file: %[1]s/id, client_secret_file: %[1]s/secret, token_store: %[1]s/tokens.json, token_url: \"%[2]s/v1/access_token\"}\n", folder, feed)
	p.write(p.config, p.text)
	code, stdout, _ := p.doctor()
	if code != exitAsked || !strings.Contains(stdout, "ok    token store of credential acme") || !strings.Contains(stdout, "ok    token of credential acme: there is one, good until") {
		t.Errorf("exit code %d for a good store", code)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".cdrbus-doctor") {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
	if err := os.Remove(filepath.Join(folder, "tokens.json")); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := p.doctor(); code != exitDifference || !strings.Contains(stdout, "fail  token store of credential acme") {
		t.Errorf("exit code %d for a store that is not there", code)
	}
}

// TestDoctorProbe: the command, from flags to report, its exit codes and its refusals.
func TestDoctorProbe(t *testing.T) {
	t.Run("report", func(t *testing.T) {
		p := newPatient(t, nil)
		path := filepath.Join(filepath.Dir(p.config), "report.json")
		code, stdout, stderr := p.doctor("--probe", "--source", "acme", "--for", "1ms", "--report", path)
		if code != exitAsked {
			t.Errorf("exit code %d", code)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var report probe.Report
		if err := json.Unmarshal(content, &report); err != nil {
			t.Fatal(err)
		}
		if a := report.Answer("selects_by"); a == nil || a.Verdict != "end" {
			t.Errorf("selects_by: %+v", a)
		}
		for _, want := range []string{"By the end of the call", "Report ID", "cdrbus: "} {
			if !strings.Contains(stdout, want) {
				t.Errorf("the report does not say %q", want)
			}
		}
		if !strings.Contains(stderr, "requests in") || !strings.Contains(stderr, "step 1 of") {
			t.Error("neither plan nor progress is told")
		}
		if violations := p.feed.Violations(); len(violations) > 0 {
			t.Errorf("violations: %+v", violations)
		}
	})
	t.Run("json and a harmful answer", func(t *testing.T) {
		p := newPatient(t, func(o *simulator.Options) { o.Answers.TotalCount = simulator.TotalRemaining })
		code, stdout, stderr := p.doctor("--probe", "--for", "0s", "-o", "json")
		var report probe.Report
		if err := json.Unmarshal([]byte(stdout), &report); err != nil {
			t.Fatal(err)
		}
		if code != exitDifference || !strings.Contains(stderr, "total_count") {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("a token that is refused", func(t *testing.T) {
		p := newPatient(t, nil)
		p.write(p.token, "token-of-nobody")
		code, _, stderr := p.doctor("--probe", "--for", "0s")
		if code != exitFailure || !strings.Contains(stderr, "401") || strings.Contains(stderr, "token-of-nobody") {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("beside a daemon", func(t *testing.T) {
		p := newPatient(t, nil)
		live := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
		t.Cleanup(live.Close)
		p.change(`listen: ""`, `listen: "`+strings.TrimPrefix(live.URL, "http://")+`"`)
		if code, _, stderr := p.doctor("--probe", "--for", "0s"); code != exitFailure || !strings.Contains(stderr, "--beside") {
			t.Errorf("exit code %d", code)
		}
		if code, _, _ := p.doctor("--probe", "--for", "0s", "--beside"); code != exitAsked {
			t.Errorf("exit code %d with --beside", code)
		}
	})
	t.Run("no such source", func(t *testing.T) {
		p := newPatient(t, nil)
		if code, _, _ := p.doctor("--probe", "--source", "nobody"); code != exitUsage {
			t.Errorf("exit code %d", code)
		}
	})
}
