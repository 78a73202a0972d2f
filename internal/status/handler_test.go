package status

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func get(b *Board, method, target string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	b.Handler().ServeHTTP(answer, httptest.NewRequest(method, target, nil))
	return answer
}

func TestHealthFollowsPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Build{}, Options{})
		want := func(status int, body string) {
			t.Helper()
			answer := get(b, "GET", "/healthz")
			if answer.Code != status || answer.Body.String() != body {
				t.Errorf("answered %d %q, want %d %q", answer.Code, answer.Body, status, body)
			}
		}
		want(200, "ok\n")
		b.Progress("lane acme", 2*time.Minute)
		b.Progress("shard 3", 10*time.Second)
		time.Sleep(10*time.Second + healthGrace)
		want(200, "ok\n")
		time.Sleep(time.Second)
		want(503, "hung\nshard 3: no progress for 1 min 11 s, promised within 10 s\n")
		b.Progress("shard 3", 10*time.Second)
		want(200, "ok\n")
		b.Ended("shard 3")
		time.Sleep(2 * time.Minute)
		want(503, "hung\nlane acme: no progress for 3 min 11 s, promised within 2 min\n")
		b.Restarted("killed")
		want(200, "ok\n")
	})
}

func TestReadySaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Build{}, Options{})
		want := func(status int, body string) {
			t.Helper()
			answer := get(b, "GET", "/readyz")
			if answer.Code != status || answer.Body.String() != body {
				t.Errorf("answered %d %q, want %d %q", answer.Code, answer.Body, status, body)
			}
		}
		want(503, "not ready\nno shard is owned yet; wait, and if it stays so look for errors about Kafka in the log\n")
		b.UpdateShard(2, func(s *Shard) { s.State = ShardReleased })
		want(503, "not ready\nno shard is owned yet; wait, and if it stays so look for errors about Kafka in the log\n")
		b.UpdateShard(0, func(s *Shard) {})
		b.UpdateShard(1, func(s *Shard) { s.State = ShardRestoring })
		want(503, "not ready\nshard 0: being taken over since 00:00:00 UTC; wait\nshard 1: restoring since 00:00:00 UTC; wait\n")
		b.UpdateShard(0, func(s *Shard) { s.State = ShardReady })
		b.UpdateShard(1, func(s *Shard) { s.State, s.Reason = ShardLost, "fenced by another owner" })
		want(503, "not ready\nshard 1: lost since 00:00:00 UTC: fenced by another owner; it is tried again; if this stays, mend what the reason names\n")
		b.UpdateShard(1, func(s *Shard) { s.State = ShardReady })
		want(200, "ready\n")
		b.Update("acme", func(s *Source) { s.State, s.Reason = BackingOff, "answered 503" })
		want(200, "ready\n")
		b.Update("acme", func(s *Source) { s.State, s.Reason, s.Remedy = Stopped, "answered 403.", "give the token the scope" })
		want(503, "not ready\nsource acme: stopped: answered 403; give the token the scope\n")
	})
}

// TestReadyOfShards: a source that waits for a person does not count, a shard does.
func TestReadyOfShards(t *testing.T) {
	b := New(Build{}, Options{})
	b.Update("acme", func(s *Source) { s.State = Stopped })
	b.UpdateShard(0, func(s *Shard) { s.State = ShardRestoring })
	b.UpdateShard(1, func(s *Shard) { s.State = ShardReady })
	if answer := get(b, "GET", "/readyz?of=shards"); answer.Code != 503 || strings.Contains(answer.Body.String(), "acme") || !strings.Contains(answer.Body.String(), "shard 0: restoring") {
		t.Errorf("while a shard is restored: %d %q", answer.Code, answer.Body)
	}
	b.UpdateShard(0, func(s *Shard) { s.State = ShardReady })
	if answer := get(b, "GET", "/readyz?of=shards"); answer.Code != 200 || answer.Body.String() != "ready\n" {
		t.Errorf("with a stopped source only: %d %q", answer.Code, answer.Body)
	}
	if answer := get(b, "GET", "/readyz?of=sources"); answer.Code != 400 {
		t.Errorf("of=sources answered %d", answer.Code)
	}
}

// TestStandbyIsReady: a member for which no shard with sources is left waits in
// reserve; one that is no member yet is not ready.
func TestStandbyIsReady(t *testing.T) {
	b := New(Build{}, Options{})
	b.SetFleet(Fleet{Members: []Member{{Name: "a", Shards: []int{0}, Sources: 3}}})
	if b.Snapshot().Ready {
		t.Error("ready although it is not a member")
	}
	b.SetFleet(Fleet{Members: []Member{{Name: "a", Shards: []int{0}, Sources: 3}, {Name: "b", Shards: []int{1}, Self: true}}})
	if s := b.Snapshot(); !s.Ready {
		t.Errorf("a member in reserve is not ready: %q", s.NotReady)
	}
}

func TestEveryStateThatNeedsAPersonIsNotReady(t *testing.T) {
	for _, state := range States() {
		b := New(Build{}, Options{})
		readyShards(b, 1)
		b.Update("acme", func(s *Source) { s.State = state })
		s := b.Snapshot()
		person := state == Stopped || state == Parked || state == Refused
		if s.Ready == person || (len(s.Alerts) > 0) != person {
			t.Errorf("state %s: ready %v with %d alerts", state, s.Ready, len(s.Alerts))
		}
	}
}

func TestStatusJSON(t *testing.T) {
	b := manyBoard()
	answer := get(b, "GET", "/status.json?limit=50&offset=100&sort=name&name=&state=&history=2")
	var s Snapshot
	if err := json.Unmarshal(answer.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Sources) != 50 || s.Sources[0].Name != "customer-0100" || s.Matching != 1000 || s.Totals.Sources != 1000 {
		t.Errorf("%d sources from %s, %d match", len(s.Sources), s.Sources[0].Name, s.Matching)
	}
	if len(s.Sources[1].History) != keptWindows || s.Sources[2].History != nil {
		t.Error("history does not come as asked for")
	}
	if answer.Body.Len() > 200<<10 {
		t.Errorf("a page of 50 sources takes %d bytes", answer.Body.Len())
	}
	for target, want := range map[string]string{
		"/status.json?limit=x":    "limit=\"x\": want a whole number, 0 or more\n",
		"/status.json?offset=-1":  "offset=\"-1\": want a whole number, 0 or more\n",
		"/status.json?history=-2": "history=\"-2\": want a whole number, -1 or more\n",
		"/status.json?sort=size":  "sort=\"size\": want name, lag or state\n",
	} {
		if answer := get(b, "GET", target); answer.Code != 400 || answer.Body.String() != want {
			t.Errorf("%s answered %d %q, want 400 %q", target, answer.Code, answer.Body, want)
		}
	}
}

func TestPersonalDataNeedsTheOption(t *testing.T) {
	for _, show := range []bool{false, true} {
		b := New(Build{}, Options{Decode: decodeTestEvent, ShowPersonalData: show})
		fillEvents(b, "acme")
		body := get(b, "GET", "/status.json").Body.String()
		if got := strings.Contains(body, "+12025550143"); got != show {
			t.Errorf("with ShowPersonalData %v a number is shown: %v", show, got)
		}
	}
}

func TestHeaders(t *testing.T) {
	b := New(Build{}, Options{})
	for _, c := range []struct {
		method, target string
		status         int
		contentType    string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/status.json", 200, "application/json"},
		{"HEAD", "/status.json", 200, "application/json"},
		{"GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"GET", "/healthz", 200, "text/plain; charset=utf-8"},
		{"GET", "/readyz", 503, "text/plain; charset=utf-8"},
		{"GET", "/other", 404, "text/plain; charset=utf-8"},
		{"POST", "/", 405, "text/plain; charset=utf-8"},
		{"DELETE", "/status.json", 405, "text/plain; charset=utf-8"},
	} {
		answer := get(b, c.method, c.target)
		h := answer.Header()
		if answer.Code != c.status || h.Get("Content-Type") != c.contentType {
			t.Errorf("%s %s answered %d %s, want %d %s", c.method, c.target, answer.Code, h.Get("Content-Type"), c.status, c.contentType)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none';") {
			t.Errorf("%s %s has headers %v", c.method, c.target, h)
		}
	}
}

// The page must work offline and under its own policy.
func TestPageIsSelfContained(t *testing.T) {
	for _, forbidden := range []string{" src=", "@import", "url(http", "innerHTML", "eval(", " style=", " onclick=", "document.write"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	for _, unsafe := range []string{"unsafe", "*", "http:", "https:"} {
		if strings.Contains(pagePolicy, unsafe) {
			t.Errorf("the policy allows %s: %s", unsafe, pagePolicy)
		}
	}
	for _, element := range []string{"<style", "<script"} {
		if n := strings.Count(page, element+">"); n != 1 || strings.Count(page, element) != n {
			t.Errorf("the page has %d plain %s> elements and %d in all, want 1: the policy knows one hash", n, element, strings.Count(page, element))
		}
	}
	_, script, _ := strings.Cut(page, "<script>")
	script, _, _ = strings.Cut(script, "</script>")
	sum := sha256.Sum256([]byte(script))
	if want := "script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(pagePolicy, want) {
		t.Errorf("the policy lacks %s: %s", want, pagePolicy)
	}
	for _, state := range States() {
		if !strings.Contains(page, string(state)+":") {
			t.Errorf("the page does not know state %s", state)
		}
	}
	for _, mark := range []Mark{MarkStart, MarkGap, MarkUnproven, MarkDeadLetters, MarkEmpty, MarkProven} {
		if !strings.Contains(page, string(mark)+":") || !strings.Contains(page, ".strip ."+string(mark)) {
			t.Errorf("the page does not know mark %s", mark)
		}
	}
}

func TestRealServer(t *testing.T) {
	server := httptest.NewServer(normalBoard().Handler())
	defer server.Close()
	answer, err := http.Get(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 || answer.Header.Get("Content-Security-Policy") != pagePolicy {
		t.Errorf("answered %s with policy %q", answer.Status, answer.Header.Get("Content-Security-Policy"))
	}
}
