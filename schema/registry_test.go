package schema

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

const (
	subject  = "webex.cdr.events-value"
	password = "s3cret" // must never appear in an error
)

// recorded is a registry in memory that notes every request.
type recorded struct {
	*srfake.Registry
	mu       sync.Mutex
	requests []string
}

func newRecorded(t *testing.T, opts ...srfake.Option) *recorded {
	t.Helper()
	r := &recorded{Registry: srfake.New(opts...)}
	t.Cleanup(r.Close)
	r.Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		return false
	})
	return r
}

// take returns the requests since it was called last.
func (r *recorded) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := strings.Join(r.requests, ", ")
	r.requests = nil
	return text
}

func newClient(t *testing.T, o RegistryOptions) *Registry {
	t.Helper()
	if o.Patience == 0 {
		o.Patience = time.Millisecond // a test that wants to see retries says so
	}
	r, err := NewRegistry(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResolveRegistersOnce(t *testing.T) {
	server := newRecorded(t)
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
	id, err := client.Resolve(t.Context(), subject, AvroJSON(), true)
	if err != nil {
		t.Fatal(err)
	}
	stored, ok := server.GetSchema(subject, 1)
	if !ok || stored.ID != id || stored.Schema.Schema != AvroJSON() || stored.Type != sr.TypeAvro {
		t.Errorf("registered as %+v, want ID %d and the full text", stored, id)
	}
	if got, want := server.take(), "POST /subjects/"+subject+", POST /subjects/"+subject+"/versions"; got != want {
		t.Errorf("requests: %s; want %s", got, want)
	}

	// Once known it needs no registry any more.
	server.Close()
	if again, err := client.Resolve(t.Context(), subject, AvroJSON(), true); err != nil || again != id {
		t.Errorf("with the registry gone: %d, %v; want %d", again, err, id)
	}
	if _, err := client.Resolve(t.Context(), "other-value", AvroJSON(), true); err == nil {
		t.Error("another subject is resolved without a registry")
	}
}

// TestResolveOnlyReadsWhatIsThere holds that a start needs no right to write.
func TestResolveOnlyReadsWhatIsThere(t *testing.T) {
	for _, autoRegister := range []bool{false, true} {
		server := newRecorded(t)
		server.SeedSchema(subject, 3, 41, sr.Schema{Schema: AvroJSON(), Type: sr.TypeAvro})
		client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
		if id, err := client.Resolve(t.Context(), subject, AvroJSON(), autoRegister); err != nil || id != 41 {
			t.Errorf("resolved %d, %v; want 41", id, err)
		}
		if got, want := server.take(), "POST /subjects/"+subject; got != want {
			t.Errorf("requests: %s; want %s", got, want)
		}
	}
}

func TestResolveWithoutAutoRegister(t *testing.T) {
	server := newRecorded(t)
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
	_, err := client.Resolve(t.Context(), subject, AvroJSON(), false)
	wantError(t, err, server.URL(), subject, "HTTP 404", "cdrbus schema register")

	server.SeedSchema(subject, 1, 5, sr.Schema{Schema: olderSchema, Type: sr.TypeAvro})
	_, err = client.Resolve(t.Context(), subject, AvroJSON(), false)
	wantError(t, err, "version 1", `field duration: type was ["null","int"] and is ["null","long"]`, `field answered is new: ["null","boolean"]`, "cdrbus schema register")
	if _, ok := server.GetSchema(subject, 2); ok {
		t.Error("something was registered")
	}
}

// wantError holds that an error says everything that it should, and no secret.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("error %q tells the password", err)
	}
}

// incompatible makes the registry refuse new versions, as Confluent's does.
func incompatible(server *recorded) {
	answer := func(w http.ResponseWriter, status int, body string) bool {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
		return true
	}
	server.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		switch {
		case strings.HasPrefix(req.URL.Path, "/compatibility/"):
			return answer(w, 200, `{"is_compatible":false,"messages":["{errorType:'TYPE_MISMATCH', path '/fields/1/type/1'}"]}`)
		case strings.HasSuffix(req.URL.Path, "/versions") && req.Method == http.MethodPost:
			return answer(w, 409, `{"error_code":409,"message":"Schema being registered is incompatible with an earlier schema"}`)
		}
		return false
	})
}

func TestResolveIncompatible(t *testing.T) {
	server := newRecorded(t, srfake.WithGlobalCompat(sr.CompatFullTransitive))
	server.SeedSchema(subject, 1, 5, sr.Schema{Schema: newerSchema, Type: sr.TypeAvro})
	incompatible(server)
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
	_, err := client.Resolve(t.Context(), subject, olderSchema, true)
	var typed *IncompatibleError
	if !errors.As(err, &typed) || typed.Level != "FULL_TRANSITIVE" || typed.Subject != subject {
		t.Fatalf("error %#v, want an IncompatibleError of level FULL_TRANSITIVE", err)
	}
	wantError(t, err, server.URL(), subject, "level FULL_TRANSITIVE", "TYPE_MISMATCH", "incompatible with an earlier schema",
		`field duration is new: ["null","int"]`, `field tomorrow is gone: it was ["null","string"]`, "publish to another topic")
}

func TestCheck(t *testing.T) {
	server := newRecorded(t, srfake.WithGlobalCompat(sr.CompatFull))
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
	check := func() Compatibility {
		t.Helper()
		c, err := client.Check(t.Context(), subject, AvroJSON())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := check(); !c.Compatible || c.ID != 0 || c.LatestID != 0 || c.Level != "FULL" || c.Subject != subject {
		t.Errorf("new subject: %+v", c)
	}
	server.SeedSchema(subject, 1, 5, sr.Schema{Schema: olderSchema, Type: sr.TypeAvro})
	if c := check(); !c.Compatible || c.ID != 0 || c.LatestID != 5 || c.LatestVersion != 1 || len(c.Differences) < fieldCount-2 {
		t.Errorf("other version: %+v", c)
	}
	server.SeedSchema(subject, 2, 6, sr.Schema{Schema: AvroJSON(), Type: sr.TypeAvro})
	if c := check(); !c.Compatible || c.ID != 6 || c.LatestID != 6 || len(c.Differences) != 0 {
		t.Errorf("registered: %+v", c)
	}
	server.SeedSchema(subject, 3, 7, sr.Schema{Schema: newerSchema, Type: sr.TypeAvro})
	incompatible(server)
	if c := check(); !c.Compatible || c.ID != 6 || c.LatestID != 7 {
		t.Errorf("registered, but not as the latest: %+v", c)
	}
	c, err := client.Check(t.Context(), subject, olderSchema[:len(olderSchema)-2]+`,{"name":"x","type":"string"}]}`)
	if err != nil || c.Compatible || c.ID != 0 || len(c.Messages) != 1 {
		t.Errorf("incompatible: %+v, %v", c, err)
	}
	if _, ok := server.GetSchema(subject, 4); ok {
		t.Error("Check registered something")
	}
}

func TestSchemaByIDAsksOnce(t *testing.T) {
	server := newRecorded(t)
	server.SeedSchema(subject, 1, 5, sr.Schema{Schema: AvroJSON(), Type: sr.TypeAvro})
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
	for range 3 {
		if text, err := client.SchemaByID(t.Context(), 5); err != nil || text != AvroJSON() {
			t.Fatalf("schema 5 is %.40q, %v", text, err)
		}
	}
	if got := server.take(); got != "GET /schemas/ids/5" {
		t.Errorf("requests: %s; want one", got)
	}
	_, err := client.SchemaByID(t.Context(), 6)
	wantError(t, err, "read schema 6 at", server.URL(), "HTTP 404", "have not been deleted")
}

func TestBasicAuth(t *testing.T) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("bus:"+password))
	server := newRecorded(t, srfake.WithAuth(want))
	withUserinfo := strings.Replace(server.URL(), "://", "://bus:"+password+"@", 1)
	for _, o := range []RegistryOptions{
		{URLs: []string{server.URL()}, Username: "bus", Password: password},
		{URLs: []string{withUserinfo}},
	} {
		if _, err := newClient(t, o).Resolve(t.Context(), subject, AvroJSON(), true); err != nil {
			t.Error(err)
		}
	}
	for status, o := range map[string]RegistryOptions{
		"HTTP 401": {URLs: []string{server.URL()}},
		"HTTP 403": {URLs: []string{withUserinfo}, Username: "other", Password: password},
	} {
		_, err := newClient(t, o).Resolve(t.Context(), subject, AvroJSON(), true)
		wantError(t, err, status, server.URL(), subject)
		if strings.Contains(err.Error(), "@") {
			t.Errorf("error %q holds the user of the URL", err)
		}
	}
}

func TestBearerToken(t *testing.T) {
	server := newRecorded(t, srfake.WithAuth("Bearer "+password))
	var calls atomic.Int32
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}, BearerToken: func() (string, error) {
		calls.Add(1)
		return password, nil
	}})
	if _, err := client.Resolve(t.Context(), subject, AvroJSON(), true); err != nil || calls.Load() != 2 {
		t.Errorf("error %v, token asked for %d times; want one for each of 2 requests", err, calls.Load())
	}
	client = newClient(t, RegistryOptions{URLs: []string{server.URL()}, Patience: time.Hour, BearerToken: func() (string, error) {
		return "", errors.New("no such file")
	}})
	_, err := client.Resolve(t.Context(), subject, AvroJSON(), true)
	wantError(t, err, "get the bearer token: no such file", "check the source of the token")
}

func TestTLS(t *testing.T) {
	fake := srfake.NewRegistry()
	server := httptest.NewUnstartedServer(fake.Handler())
	server.Config.ErrorLog = quietLog()
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())

	good := newClient(t, RegistryOptions{URLs: []string{server.URL}, TLS: &tls.Config{RootCAs: roots}})
	if _, err := good.Resolve(t.Context(), subject, AvroJSON(), true); err != nil {
		t.Error(err)
	}
	plain := httptest.NewServer(fake.Handler())
	defer plain.Close()
	for name, o := range map[string]RegistryOptions{
		"unknown CA":    {URLs: []string{server.URL}},
		"other host":    {URLs: []string{server.URL}, TLS: &tls.Config{RootCAs: roots, ServerName: "registry.invalid"}},
		"TLS to plain":  {URLs: []string{strings.Replace(plain.URL, "http", "https", 1)}},
		"wrong version": {URLs: []string{server.URL}, TLS: &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS10, MinVersion: tls.VersionTLS10}},
	} {
		o.Patience = time.Hour // which must not be used: no certificate gets better by asking again
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := newClient(t, o).Resolve(ctx, subject, AvroJSON(), true)
		if err == nil || !strings.Contains(err.Error(), "https://") || ctx.Err() != nil {
			t.Errorf("%s: error %v, want at once one that explains TLS", name, err)
		}
		cancel()
	}
}

// handlerTransport serves requests without a network, so that fake time works.
type handlerTransport struct{ handler http.Handler }

func (h handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, req)
	return w.Result(), req.Context().Err()
}

func inMemory(handler http.HandlerFunc, o RegistryOptions) RegistryOptions {
	o.HTTPClient = &http.Client{Transport: handlerTransport{handler}}
	if o.URLs == nil {
		o.URLs = []string{"http://registry.invalid:8081"}
	}
	return o
}

func TestRetryUntilItIsBack(t *testing.T) {
	for _, status := range []int{408, 429, 500, 502, 503, 504} {
		synctest.Test(t, func(t *testing.T) {
			fake, begin := srfake.NewRegistry(), time.Now()
			requests := 0
			client := must(NewRegistry(inMemory(func(w http.ResponseWriter, req *http.Request) {
				if requests++; time.Since(begin) < 20*time.Second {
					w.WriteHeader(status)
					return
				}
				fake.Handler().ServeHTTP(w, req)
			}, RegistryOptions{})))
			if _, err := client.Resolve(t.Context(), subject, AvroJSON(), true); err != nil {
				t.Error(err)
			}
			if waited := time.Since(begin); waited > 25*time.Second || requests < 6 || requests > 20 {
				t.Errorf("status %d: %d requests in %s", status, requests, waited)
			}
		})
	}
}

func TestRetryEnds(t *testing.T) {
	down := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "upstream is gone", http.StatusServiceUnavailable)
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := must(NewRegistry(inMemory(down, RegistryOptions{}))).Resolve(t.Context(), subject, AvroJSON(), true)
		wantError(t, err, "look up the schema", "http://registry.invalid:8081", subject, "HTTP 503: upstream is gone", "see its log")
		if waited := time.Since(begin); waited < 20*time.Second || waited > 30*time.Second {
			t.Errorf("gave up after %s, want nearly 30 s", waited)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := must(NewRegistry(inMemory(down, RegistryOptions{}))).Resolve(ctx, subject, AvroJSON(), true)
		wantError(t, err, "HTTP 503")
		if waited := time.Since(begin); waited != 3*time.Second {
			t.Errorf("gave up after %s, want when the context ended", waited)
		}
	})
}

// TestFinalAnswers holds that what a person has to mend is said at once.
func TestFinalAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   []string
	}{
		{401, `{"error_code":401,"message":"Unauthorized"}`, []string{"HTTP 401: Unauthorized", "user name and password"}},
		{403, `{"error_code":40301,"message":"denied"}`, []string{"HTTP 403: denied", "lacks the right"}},
		{404, `<html>no such page</html>`, []string{"HTTP 404: <html>no such page</html>", "check the path"}},
		{422, `{"error_code":42201,"message":"bad schema"}`, []string{"HTTP 422: bad schema", "does not accept"}},
		{422, `{"error_code":42205,"message":"read-only"}`, []string{"read-only", "READWRITE"}},
		{400, strings.Repeat("x", 5000), []string{"HTTP 400: " + strings.Repeat("x", maxQuotedBytes) + "...;", "see the registry's message"}},
		{302, ``, []string{"HTTP 302", "give the final URL"}},
		{200, `{}`, []string{"holds no schema ID", "check the URL"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			client := must(NewRegistry(inMemory(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header().Set("Location", "http://elsewhere.invalid/")
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}, RegistryOptions{Username: "bus", Password: password})))
			_, err := client.Resolve(t.Context(), subject, AvroJSON(), true)
			wantError(t, err, append(c.want, subject, "http://registry.invalid:8081")...)
			if requests != 1 {
				t.Errorf("status %d: %d requests, want 1", c.status, requests)
			}
		})
	}
}

func TestReadOnlyRegistry(t *testing.T) {
	server := newRecorded(t)
	server.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/versions") {
			return false
		}
		w.WriteHeader(422)
		fmt.Fprint(w, `{"error_code":42205,"message":"Subject is in read-only mode"}`)
		return true
	})
	_, err := newClient(t, RegistryOptions{URLs: []string{server.URL()}}).Resolve(t.Context(), subject, AvroJSON(), true)
	wantError(t, err, "register the schema", "read-only mode", "turn auto_register off")
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String()
	listener.Close()
	_, err = newClient(t, RegistryOptions{URLs: []string{"http://bus:" + password + "@" + listener.Addr().String()}}).Resolve(t.Context(), subject, AvroJSON(), true)
	wantError(t, err, url, subject, "connection refused", "check that it runs")

	// The next node is asked before any wait.
	server := newRecorded(t)
	if _, err := newClient(t, RegistryOptions{URLs: []string{url, server.URL()}}).Resolve(t.Context(), subject, AvroJSON(), true); err != nil {
		t.Error(err)
	}
}

func TestTimeout(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-stop:
		case <-req.Context().Done():
		}
	}))
	defer server.Close()
	defer close(stop)
	client := newClient(t, RegistryOptions{URLs: []string{server.URL}, Timeout: 20 * time.Millisecond})
	_, err := client.Resolve(t.Context(), subject, AvroJSON(), true)
	wantError(t, err, server.URL, "did not answer in time")
}

func TestEndlessAnswerIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		written := 0
		client := must(NewRegistry(RegistryOptions{
			URLs: []string{"http://registry.invalid"}, Patience: time.Millisecond,
			HTTPClient: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: endless{&written}}, nil
			})},
		}))
		if _, err := client.SchemaByID(t.Context(), 1); err == nil || written > 2*maxRegistryAnswerBytes {
			t.Errorf("error %v after %d bytes", err, written)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// endless is a body without an end.
type endless struct{ read *int }

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	*e.read += len(p)
	return len(p), nil
}
func (endless) Close() error { return nil }

func TestNewRegistryRefuses(t *testing.T) {
	token := func() (string, error) { return "", nil }
	for _, o := range []RegistryOptions{
		{}, {URLs: []string{""}}, {URLs: []string{"localhost:8081"}}, {URLs: []string{"ftp://" + password + "@host"}}, {URLs: []string{"http://host?x=" + password}},
		{URLs: []string{"http://" + password + ":%zz@host"}}, {URLs: []string{"http://host"}, Username: "bus", BearerToken: token},
	} {
		_, err := NewRegistry(o)
		wantError(t, err, "set up schema registry")
	}
}

func TestDifferences(t *testing.T) {
	record := func(fields string) string {
		return `{"type":"record","name":"R","namespace":"n","fields":[` + fields + `]}`
	}
	for _, c := range []struct{ from, to, want string }{
		{record(`{"name":"a","type":"int"}`), record(`{ "name":"a", "type": "int" }`), ``},
		{record(`{"name":"a","type":{"type":"long","logicalType":"timestamp-millis"}}`), record(`{"name":"a","type":{"logicalType":"timestamp-millis","type":"long"}}`), ``},
		{record(`{"name":"a","type":"int"}`), record(`{"name":"a","type":"int","default":0}`), `field a: default was none and is 0`},
		{record(`{"name":"a","type":"int","doc":"x","feedName":"A"}`), record(`{"name":"a","type":"int","doc":"y","feedName":"B"}`), "field a: feedName was \"A\" and is \"B\"\nfield a: doc was \"x\" and is \"y\""},
		{record(`{"name":"a","type":"int"}`), `{"type":"record","name":"S","fields":[{"name":"a","type":"int"}]}`, `the record is named n.R there and S here`},
		{`"string"`, record(``), `the registered schema is not an Avro record`},
	} {
		if got := strings.Join(differences(c.from, c.to), "\n"); got != c.want {
			t.Errorf("from %s to %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

// TestRegistryIsShared is for the race detector.
func TestRegistryIsShared(t *testing.T) {
	server := newRecorded(t)
	client := newClient(t, RegistryOptions{URLs: []string{server.URL()}})
	decoder := NewDecoder(client.SchemaByID)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			id, err := client.Resolve(context.Background(), subject, AvroJSON(), true)
			if err != nil {
				t.Error(err)
				return
			}
			err = NewEncoder(EncoderOptions{SchemaID: id}).Each([]byte(pageSeeds[1]), func(item *Item) error {
				_, err := decoder.Decode(context.Background(), item.Value)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
