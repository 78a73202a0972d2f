package poller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

// network is an in-memory network of servers by host and port. A connection is
// a net.Pipe, so that the fake clock of testing/synctest sees all that waits.
type network struct {
	mu        sync.Mutex
	listeners map[string]*virtualListener
	dialed    []string
	refuse    int // so many connections are refused first
}

func newNetwork() *network { return &network{listeners: map[string]*virtualListener{}} }

func (n *network) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, address)
	listener := n.listeners[address]
	refused := n.refuse > 0
	if refused {
		n.refuse--
	}
	n.mu.Unlock()
	if listener == nil || refused {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	client, server := net.Pipe()
	select {
	case listener.conns <- server:
		return client, nil
	case <-listener.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type virtualListener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *virtualListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *virtualListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *virtualListener) Addr() net.Addr { return virtualAddr(l.address) }

type virtualAddr string

func (virtualAddr) Network() string  { return "pipe" }
func (a virtualAddr) String() string { return string(a) }

// serve runs a server at the address until the test ends; with a certificate it speaks TLS.
func (n *network) serve(t *testing.T, address string, certificate *tls.Certificate, handler http.Handler) {
	listener := &virtualListener{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.listeners[address] = listener
	n.mu.Unlock()
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	var accept net.Listener = listener
	if certificate != nil {
		accept = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	}
	go server.Serve(accept)
	t.Cleanup(func() { server.Close() })
}

// authority is a certificate authority of the test's own with one certificate for every region.
var authority = sync.OnceValues(func() (*tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "cdrbus test"},
		NotBefore:             time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              regionHosts,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
})

// seenRequest is a request as a server saw it.
type seenRequest struct {
	host   string
	path   string
	query  url.Values
	raw    string // the query untouched
	header http.Header
	at     time.Time
	length int64
}

// script answers requests one after another and fails the test for any beyond its end.
type script struct {
	t       *testing.T
	mu      sync.Mutex
	replies []http.HandlerFunc
	seen    []seenRequest
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, seenRequest{r.Host, r.URL.Path, r.URL.Query(), r.URL.RawQuery, r.Header, time.Now(), r.ContentLength})
	n := len(s.seen)
	var reply http.HandlerFunc
	if n <= len(s.replies) {
		reply = s.replies[n-1]
	}
	s.mu.Unlock()
	if reply == nil {
		s.t.Errorf("request %d goes beyond the script: %s?%s", n, r.URL.Path, r.URL.RawQuery)
		reply = status(http.StatusTeapot, "")
	}
	reply(w, r)
}

func (s *script) requests() []seenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// status answers with a status, a body and headers as "Name: value".
func status(code int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		setHeaders(w, headers)
		w.WriteHeader(code)
		if code != http.StatusNoContent && code != http.StatusNotModified {
			io.WriteString(w, body)
		}
	}
}

// setHeaders removes a header for "Name:" without a value.
func setHeaders(w http.ResponseWriter, headers []string) {
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); value == "" {
			w.Header()[name] = nil
			continue
		}
		w.Header().Add(name, value)
	}
}

const emptyPage = `{"items":[]}`

// page answers with a page; a cursor makes a next link of it.
func page(cursor string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if cursor != "" {
			w.Header().Add("Link", "<"+linkTo(r, cursor)+`>; rel="next"`)
		}
		setHeaders(w, headers)
		io.WriteString(w, emptyPage)
	}
}

// linkTo is what the feed would print: the window stays, the cursor moves.
func linkTo(r *http.Request, cursor string) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	q := r.URL.Query()
	return fmt.Sprintf("%s://%s%s?endTime=%s&startTime=%s&startTimeForNextFetch=%s&totalCount=20000&max=%s&orgId=O",
		scheme, r.Host, r.URL.Path, q.Get("endTime"), q.Get("startTime"), cursor, q.Get("max"))
}

func cursor(minute int) string { return fmt.Sprintf("1999-12-31T22:%02d:00.000Z", minute) }

// breaks closes the connection after writing some raw bytes.
func breaks(raw string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, raw)
		conn.Close()
	}
}

// hangs sends a header and the beginning of a page, and then nothing more.
func hangs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `{"items":[`)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// silent never answers.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// pages is a sink that keeps what it is given.
type pages struct {
	bodies []string
	calls  []int
	errs   map[int][]error // by page, one call after another
}

func (p *pages) Page(_ context.Context, n int, body []byte) error {
	p.calls = append(p.calls, n)
	if queue := p.errs[n]; len(queue) > 0 {
		p.errs[n] = queue[1:]
		if queue[0] != nil {
			return queue[0]
		}
	}
	p.bodies = append(p.bodies, string(body))
	return nil
}

// fakeTokens hands out token-1, and the next number after each rejection.
type fakeTokens struct {
	mu       sync.Mutex
	number   int
	rejected []string
	err      error
	rejErr   error
}

func (f *fakeTokens) Token(context.Context) (Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Token{AccessToken: fmt.Sprintf("secret-token-%d", f.number+1)}, f.err
}

func (f *fakeTokens) Rejected(_ context.Context, token Token) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.number++
	f.rejected = append(f.rejected, token.AccessToken)
	return f.rejErr
}

const testHost = "127.0.0.1:80"

// setup is a feed before a scripted server.
type setup struct {
	net    *network
	script *script
	tokens *fakeTokens
	budget *Budget
	feed   *Feed
	sink   *pages
	seen   []Attempt
}

// highLimits let no budget wait hide in a measured time.
var highLimits = Limits{InitialPerMinute: 100, PagesPerMinute: 1000}

func newSetup(t *testing.T, limits Limits, replies []http.HandlerFunc, change ...func(*FeedOptions)) *setup {
	t.Helper()
	s := &setup{
		net:    newNetwork(),
		script: &script{t: t, replies: replies},
		tokens: &fakeTokens{},
		budget: NewBudget(limits, time.Time{}, time.Now()),
		sink:   &pages{errs: map[int][]error{}},
	}
	s.net.serve(t, testHost, nil, s.script)
	options := FeedOptions{
		Source:  "acme",
		URL:     mustURL("http://127.0.0.1/v1/cdr_feed"),
		Tokens:  s.tokens,
		Budget:  s.budget,
		HTTP:    HTTPOptions{DialContext: s.net.DialContext, Version: "1.2.3"},
		Observe: func(a Attempt) { s.seen = append(s.seen, a) },
	}
	for _, c := range change {
		c(&options)
	}
	feed, err := NewFeed(options)
	if err != nil {
		t.Fatal(err)
	}
	feed.jitter = func() float64 { return 0 }
	s.feed = feed
	t.Cleanup(feed.Close)
	return s
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

// testRequest is a window of an hour that ended an hour ago.
func testRequest() Request {
	end := cdr.InstantOf(time.Now().Add(-time.Hour))
	span := cdr.Span{StartInclusive: end.Add(-time.Hour), EndExclusive: end}
	return Request{Span: span, Commit: span, Endpoint: cdr.Feed, Purpose: cdr.CatchUp, MinAge: 5 * time.Minute, Lookback: 720 * time.Hour}
}

func (s *setup) fetch(ctx context.Context) (Outcome, error) {
	return s.feed.Fetch(ctx, testRequest(), s.sink)
}

// errorKind names the type of an error in one word.
func errorKind(err error) string {
	var (
		stopped *Stopped
		later   *RetryLater
		replan  *Replan
		aged    *AgedOut
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &stopped):
		return fmt.Sprintf("stopped %d", stopped.Code)
	case errors.As(err, &later):
		return "retry later"
	case errors.As(err, &replan) && replan.HalveSpan:
		return "replan, half"
	case errors.As(err, &replan):
		return "replan"
	case errors.As(err, &aged):
		return "aged out"
	}
	return "other"
}
