package status

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// page is the whole status page: one file, nothing loaded from elsewhere.
//
//go:embed page.html
var page string

var pagePolicy = policyFor(page)

// policyFor allows a page its own style and script, by their hashes, and reading
// from its own origin; nothing else.
func policyFor(html string) string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		inlineHash(html, "style"), inlineHash(html, "script"))
}

// inlineHash returns the CSP source of the page's only inline element of a kind.
func inlineHash(html, element string) string {
	_, rest, found := strings.Cut(html, "<"+element+">")
	content, _, closed := strings.Cut(rest, "</"+element+">")
	if !found || !closed {
		panic("status: page.html has no <" + element + "> element")
	}
	sum := sha256.Sum256([]byte(content))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// Handler serves the admin endpoints: / (status page), /status.json, /metrics,
// /healthz and /readyz, and, where the board has it, /coverage and
// /coverage/receipts. All are read-only, and none needs a credential: bind
// them to loopback or to a network of trust.
func (b *Board) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", servePage)
	mux.HandleFunc("GET /status.json", b.serveStatus)
	mux.Handle("GET /metrics", b.metricsHandler())
	mux.HandleFunc("GET /healthz", b.serveHealth)
	mux.HandleFunc("GET /readyz", b.serveReady)
	if b.options.Coverage != nil {
		mux.HandleFunc("GET /coverage", b.serveCoverage)
		mux.HandleFunc("GET /coverage/receipts", b.serveReceipts)
	}
	return secured(mux)
}

// secured sets the headers that every answer needs.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write([]byte(page)) // the browser has gone: nobody to tell
}

func (b *Board) serveStatus(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, b.View(q))
}

// parseQuery reads the parameters of /status.json: name, state, sort, offset,
// limit, history. Without any, everything is returned.
func parseQuery(values url.Values) (Query, error) {
	q := Query{Name: values.Get("name"), State: State(values.Get("state")), Sort: Sort(values.Get("sort"))}
	switch q.Sort {
	case "", ByName, ByLag, ByState:
	default:
		return q, fmt.Errorf("sort=%q: want name, lag or state", q.Sort)
	}
	for _, p := range []struct {
		name  string
		least int
		to    *int
	}{{"offset", 0, &q.Offset}, {"limit", 0, &q.Limit}, {"history", -1, &q.HistoryLimit}} {
		text := values.Get(p.name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < p.least {
			return q, fmt.Errorf("%s=%q: want a whole number, %d or more", p.name, text, p.least)
		}
		*p.to = n
	}
	return q, nil
}

// serveHealth answers whether the process is alive: every loop has kept its
// promise of progress. It says nothing about sources; a restart does not help
// a source that waits for a person.
func (b *Board) serveHealth(w http.ResponseWriter, _ *http.Request) {
	if hung := b.unhealthy(time.Now()); len(hung) > 0 {
		writeLines(w, http.StatusServiceUnavailable, "hung", hung)
		return
	}
	writeLines(w, http.StatusOK, "ok", nil)
}

// serveReady answers whether the process does all of its work, and if not, why
// and what to do. With of=shards it leaves out the sources that wait for a person:
// an orchestrator that replaces processes one after another must not wait for one.
func (b *Board) serveReady(w http.ResponseWriter, r *http.Request) {
	snapshot := b.View(Query{Limit: 1, HistoryLimit: -1, numbersOnly: true})
	why := snapshot.NotReady
	switch of := r.URL.Query().Get("of"); of {
	case "":
	case "shards":
		why = shardsNotReady(&snapshot)
	default:
		http.Error(w, fmt.Sprintf("of=%q: want shards, or nothing for all", of), http.StatusBadRequest)
		return
	}
	if len(why) > 0 {
		writeLines(w, http.StatusServiceUnavailable, "not ready", why)
		return
	}
	writeLines(w, http.StatusOK, "ready", nil)
}

func writeLines(w http.ResponseWriter, status int, head string, lines []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(strings.Join(append([]string{head}, lines...), "\n") + "\n"))
}
