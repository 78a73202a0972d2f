package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// grantServer is a strict token endpoint: it takes the one refresh token that is
// good and replaces it at each refresh. It notes whatever a client must not do.
type grantServer struct {
	t      *testing.T
	dial   func(context.Context, string, string) (net.Conn, error) // nil: the network
	url    string
	folder string // of the client's store

	mu       sync.Mutex
	good     string // the refresh token that is good now
	keepOld  bool   // answer without a new refresh token
	kind     bool   // honour the former refresh token until the new one is used
	former   string
	lifetime time.Duration
	refresh  time.Duration
	requests int
	before   func(w http.ResponseWriter, n int) (handled bool) // of request n, the first being 1
	after    func(w http.ResponseWriter, n int) (handled bool) // the tokens are replaced, the answer not sent
}

const (
	clientID     = "the-client-id"
	clientSecret = "the-client-secret"
)

func newGrantServer(t *testing.T, inMemory bool) *grantServer {
	s := &grantServer{t: t, good: "refresh-0", lifetime: 14 * 24 * time.Hour, refresh: 90 * 24 * time.Hour, folder: t.TempDir()}
	server := httptest.NewUnstartedServer(s)
	if inMemory {
		listener := &grantListener{conns: make(chan net.Conn), done: make(chan struct{})}
		server.Listener.Close()
		server.Listener = listener
		s.dial = listener.dial
	}
	server.Start()
	t.Cleanup(server.Close)
	s.url = "http://127.0.0.1/v1/access_token"
	if !inMemory {
		s.url = server.URL + "/v1/access_token"
	}
	return s
}

func (s *grantServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	n := s.requests
	if s.before != nil && s.before(w, n) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if problem := s.problemOf(r); problem != "" {
		s.t.Errorf("request %d: %s", n, problem)
	}
	token := r.PostFormValue("refresh_token")
	if token != s.good && !(s.kind && token == s.former) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"invalid_grant","error_description":"token %s is not good","trackingId":"ROUTER_1"}`, token)
		return
	}
	answer := map[string]any{"access_token": fmt.Sprintf("access-%d", n), "token_type": "Bearer", "expires_in": int(s.lifetime.Seconds())}
	if !s.keepOld {
		s.former, s.good = token, fmt.Sprintf("refresh-%d", n)
		answer["refresh_token"], answer["refresh_token_expires_in"] = s.good, int(s.refresh.Seconds())
	}
	if s.after != nil && s.after(w, n) {
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// problemOf holds a request against webex-cdr-api.md §8.
func (s *grantServer) problemOf(r *http.Request) string {
	for key, want := range map[string]string{"grant_type": "refresh_token", "client_id": clientID, "client_secret": clientSecret} {
		if got := r.PostFormValue(key); got != want {
			return fmt.Sprintf("%s is %q, want %q", key, got, want)
		}
	}
	reserved, _ := filepath.Glob(filepath.Join(s.folder, ".store*"))
	switch _, _, basic := r.BasicAuth(); {
	case r.Method != http.MethodPost || r.URL.RawQuery != "":
		return r.Method + " " + r.URL.String()
	case basic:
		return "the client travels in a header too"
	case len(r.PostForm) != 4:
		return fmt.Sprintf("%d form values", len(r.PostForm))
	case !strings.HasPrefix(r.UserAgent(), "cdrbus/") || r.Header.Get("TrackingID") == "" || r.Header.Get("Accept") != "application/json":
		return fmt.Sprintf("headers %v", r.Header)
	case len(reserved) != 1:
		return "no room was made for the new tokens before the old one is spent"
	}
	return ""
}

func (s *grantServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// hangUp cuts the connection without an answer.
func hangUp(w http.ResponseWriter, _ int) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
	return true
}

// grantListener is a network in memory, so that fake time passes while it waits.
type grantListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *grantListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *grantListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *grantListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (l *grantListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *grantServer) storePath() string { return filepath.Join(s.folder, "store.json") }

// begin writes the store as a person does.
func (s *grantServer) begin(refreshToken string) {
	s.t.Helper()
	rewrite(s.t, s.storePath(), fmt.Sprintf(`{"version": 1, "refresh_token": %q}`, refreshToken))
}

// options are those of a client of the server.
func (s *grantServer) options() ServiceAppOptions {
	return ServiceAppOptions{
		Name:         "acme",
		ClientID:     func() (string, error) { return clientID, nil },
		ClientSecret: func() (string, error) { return clientSecret, nil },
		TokenStore:   s.storePath(),
		TokenURL:     s.url,
		HTTP:         HTTPOptions{DialContext: s.dial},
	}
}

func (s *grantServer) app(change ...func(*ServiceAppOptions)) *ServiceApp {
	s.t.Helper()
	o := s.options()
	for _, c := range change {
		c(&o)
	}
	app, err := NewServiceApp(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(app.endpoint.client.CloseIdleConnections)
	return app
}

func (s *grantServer) stored() storedTokens {
	s.t.Helper()
	tokens, err := loadTokens(newTokenStore(s.storePath()))
	if err != nil {
		s.t.Fatal(err)
	}
	return tokens
}

// inFakeTime runs a test against a server in memory, in a bubble of fake time.
func inFakeTime(t *testing.T, test func(t *testing.T, s *grantServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newGrantServer(t, true)
		s.begin("refresh-0")
		test(t, s)
	})
}

func wantToken(t *testing.T, source TokenSource, want string) Token {
	t.Helper()
	token, err := source.Token(t.Context())
	if err != nil || token.AccessToken != want {
		t.Fatalf("Token = %q, %v; want %q", token.AccessToken, err, want)
	}
	return token
}

func (s *grantServer) wantRequests(want int) {
	s.t.Helper()
	if got := s.count(); got != want {
		s.t.Errorf("%d refreshes, want %d", got, want)
	}
}

func TestServiceAppStoresBeforeUse(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		app := s.app()
		began := time.Now()
		token := wantToken(t, app, "access-1")
		want := storedTokens{
			Version: 1, ClientIDHash: hashOf(clientID), RefreshToken: "refresh-1", AccessToken: "access-1",
			IssuedAt: began.UTC(), ExpiresAt: began.Add(s.lifetime).UTC(), RefreshExpiresAt: began.Add(s.refresh).UTC(),
		}
		if got := s.stored(); got != want {
			t.Errorf("stored %+v", [...]any{got.Version, got.ClientIDHash, got.RefreshToken, got.AccessToken, got.IssuedAt, got.ExpiresAt, got.RefreshExpiresAt})
		}
		if !token.Expiry.Equal(want.ExpiresAt) || !app.RefreshTokenEnds().Equal(want.RefreshExpiresAt) {
			t.Errorf("expiry %s, refresh token ends %s", token.Expiry, app.RefreshTokenEnds())
		}
		info, err := os.Stat(s.storePath())
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("the store has mode %v, %v; want 0600", info.Mode(), err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.folder, ".*")); len(left) > 0 {
			t.Errorf("temporary files are left: %v", left)
		}
		// A crash at this point: the next process takes the stored token, and asks nobody.
		wantToken(t, s.app(), "access-1")
		s.wantRequests(1)
	})
}

func TestServiceAppRefreshesEarly(t *testing.T) {
	for _, c := range []struct{ lifetime, unchanged, renewed time.Duration }{
		{14 * 24 * time.Hour, 302 * time.Hour, 303 * time.Hour}, // a tenth: 33.6 h before the end
		{12 * time.Hour, 10*time.Hour + 47*time.Minute, 10*time.Hour + 49*time.Minute},
		{30 * time.Minute, 24 * time.Minute, 26 * time.Minute}, // 5 min before
		{4 * time.Minute, time.Minute, 3 * time.Minute},        // never in the first half
	} {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.lifetime = c.lifetime
			app := s.app()
			began := time.Now()
			wantToken(t, app, "access-1")
			time.Sleep(c.unchanged - time.Since(began))
			wantToken(t, app, "access-1")
			time.Sleep(c.renewed - time.Since(began))
			wantToken(t, app, "access-2")
			s.wantRequests(2)
		})
	}
}

func TestServiceAppWithoutExpiryRefreshesWhenRejected(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		s.lifetime = 0
		app := s.app()
		token := wantToken(t, app, "access-1")
		time.Sleep(1000 * time.Hour)
		wantToken(t, app, "access-1")
		if err := app.Rejected(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		wantToken(t, app, "access-2")
		// A late report about the old one changes nothing.
		if err := app.Rejected(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		wantToken(t, app, "access-2")
		s.wantRequests(2)
	})
}

func TestServiceAppKeepsTheRefreshTokenIfNoneCame(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		app := s.app()
		token := wantToken(t, app, "access-1")
		ends := app.RefreshTokenEnds()
		s.keepOld = true
		if err := app.Rejected(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		wantToken(t, app, "access-2")
		if got := s.stored(); got.RefreshToken != "refresh-1" || !got.RefreshExpiresAt.Equal(ends) || !app.RefreshTokenEnds().Equal(ends) {
			t.Errorf("the store does not hold the old refresh token, or not its end: %s, want %s", got.RefreshExpiresAt, ends)
		}
	})
}

func TestServiceAppForgetsTheEndOfTheFormerRefreshToken(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		app := s.app()
		token := wantToken(t, app, "access-1")
		s.refresh = 0
		if err := app.Rejected(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		wantToken(t, app, "access-2")
		if ends := app.RefreshTokenEnds(); !ends.IsZero() {
			t.Errorf("the new refresh token ends %s, want unknown", ends)
		}
	})
}

// TestServiceAppGetsTheSameAccessToken: if a refresh brings nothing new, it is
// not repeated for each request.
func TestServiceAppGetsTheSameAccessToken(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		s.before = func(w http.ResponseWriter, _ int) bool {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"always","expires_in":86400}`)
			return true
		}
		app := s.app()
		token := wantToken(t, app, "always")
		if err := app.Rejected(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			wantToken(t, app, "always")
		}
		s.wantRequests(2)
	})
}

// TestServiceAppRefreshesOnce lets many callers of several instances, as if in
// several processes, ask at once; then again after a rejection.
func TestServiceAppRefreshesOnce(t *testing.T) {
	s := newGrantServer(t, false)
	s.begin("refresh-0")
	apps := []*ServiceApp{s.app(), s.app(), s.app()}
	all := func(want string) {
		var group sync.WaitGroup
		for i := range 30 {
			group.Go(func() {
				token, err := apps[i%len(apps)].Token(t.Context())
				if err != nil || token.AccessToken != want {
					t.Errorf("Token = %q, %v; want %q", token.AccessToken, err, want)
				}
			})
		}
		group.Wait()
	}
	all("access-1")
	s.wantRequests(1)
	var group sync.WaitGroup
	for _, app := range apps {
		group.Go(func() { _ = app.Rejected(t.Context(), Token{AccessToken: "access-1"}) })
	}
	group.Wait()
	all("access-2")
	s.wantRequests(2)
}

// TestServiceAppAcrossProcesses runs this test again as several processes.
func TestServiceAppAcrossProcesses(t *testing.T) {
	const folderVariable, urlVariable = "CDRBUS_TEST_TOKEN_FOLDER", "CDRBUS_TEST_TOKEN_URL"
	if folder := os.Getenv(folderVariable); folder != "" {
		s := &grantServer{t: t, folder: folder, url: os.Getenv(urlVariable)}
		wantToken(t, s.app(), "access-1")
		return
	}
	s := newGrantServer(t, false)
	s.begin("refresh-0")
	s.mu.Lock()
	s.before = func(http.ResponseWriter, int) bool {
		time.Sleep(100 * time.Millisecond) // widens the gap in which a second process would ask
		return false
	}
	s.mu.Unlock()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			process := exec.Command(os.Args[0], "-test.run=^TestServiceAppAcrossProcesses$", "-test.count=1")
			process.Env = append(os.Environ(), folderVariable+"="+s.folder, urlVariable+"="+s.url)
			if output, err := process.CombinedOutput(); err != nil {
				t.Errorf("process: %v\n%s", err, output)
			}
		})
	}
	group.Wait()
	s.wantRequests(1)
}

func TestServiceAppRetries(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		s.before = func(w http.ResponseWriter, n int) bool {
			switch n {
			case 1:
				w.WriteHeader(http.StatusBadGateway)
			case 2:
				w.Header().Set("Retry-After", "20")
				w.WriteHeader(http.StatusTooManyRequests)
			case 3:
				return hangUp(w, n)
			}
			return n <= 3
		}
		began := time.Now()
		wantToken(t, s.app(), "access-4")
		if took := time.Since(began); took < 25*time.Second || took > 26*time.Second { // 1 s, 20 s as told, 4 s
			t.Errorf("it took %s, want 25 s", took)
		}
	})
}

func TestServiceAppGivesUpForAWhile(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		s.before = func(w http.ResponseWriter, _ int) bool { w.WriteHeader(http.StatusServiceUnavailable); return true }
		_, err := s.app().Token(t.Context())
		var later *RetryLater
		if !errors.As(err, &later) || later.After != refreshPause {
			t.Errorf("Token = %v, want a *RetryLater of %s", err, refreshPause)
		}
		s.wantRequests(refreshTries)

		s.before = func(w http.ResponseWriter, _ int) bool {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		_, err = s.app().Token(t.Context())
		if !errors.As(err, &later) || later.After != 10*time.Minute {
			t.Errorf("Token = %v, want a *RetryLater of 10 min", err)
		}
		s.wantRequests(refreshTries + 1)
	})
}

// TestServiceAppOldTokenServesOn: while renewing fails, in whatever way, the old
// token is used to its end, and the endpoint is left alone in between.
func TestServiceAppOldTokenServesOn(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusBadRequest} {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.lifetime = time.Hour
			app := s.app()
			wantToken(t, app, "access-1")
			s.before = func(w http.ResponseWriter, _ int) bool { w.WriteHeader(status); return true }
			time.Sleep(56 * time.Minute)
			for range 10 {
				wantToken(t, app, "access-1")
			}
			if got := s.count() - 1; got > refreshTries {
				t.Errorf("%d requests while the old token served, want no more than %d", got, refreshTries)
			}
			if warning := app.Warning(time.Now()); !strings.Contains(warning, "fails") {
				t.Errorf("warning %q does not tell", warning)
			}
			time.Sleep(4 * time.Minute)
			if _, err := app.Token(t.Context()); err == nil {
				t.Error("an expired token was handed out")
			}
			s.before = nil
			time.Sleep(reprobeInterval)
			if _, err := app.Token(t.Context()); err != nil {
				t.Errorf("it did not recover: %v", err)
			}
			if warning := app.Warning(time.Now()); warning != "" {
				t.Errorf("warning %q after the recovery", warning)
			}
		})
	}
}

// TestServiceAppLostAnswer: the endpoint replaced the refresh token, and the
// answer never came.
func TestServiceAppLostAnswer(t *testing.T) {
	lose := func(w http.ResponseWriter, n int) bool { return n == 1 && hangUp(w, n) }
	t.Run("the old one is honoured", func(t *testing.T) {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.kind, s.after = true, lose
			wantToken(t, s.app(), "access-2")
			s.wantRequests(2)
		})
	})
	t.Run("the old one is dead", func(t *testing.T) {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.after = lose
			_, err := s.app().Token(t.Context())
			stopped := wantStopped(t, err, reprobeInterval, "refresh-0", clientSecret, clientID)
			if stopped.Code != 400 || !strings.Contains(stopped.Remedy, "got no answer") || !strings.Contains(stopped.Remedy, s.storePath()) {
				t.Errorf("the remedy does not tell what happened, or where to mend it: %v", err)
			}
			s.wantRequests(2)
		})
	})
	t.Run("another process had it", func(t *testing.T) {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.after = func(w http.ResponseWriter, n int) bool {
				other := storedTokens{Version: 1, RefreshToken: s.good, AccessToken: "theirs", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
				content, _ := json.Marshal(other)
				rewrite(t, s.storePath(), string(content))
				return hangUp(w, n)
			}
			wantToken(t, s.app(), "theirs")
			s.wantRequests(1)
		})
	})
	t.Run("the answer was cut", func(t *testing.T) {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.kind = true
			s.after = func(w http.ResponseWriter, n int) bool {
				if n == 1 {
					_, _ = io.WriteString(w, `{"access_token":"acc`)
				}
				return n == 1
			}
			wantToken(t, s.app(), "access-2")
		})
	})
}

// TestServiceAppAnotherMachine: the refusal of a refresh token that somebody
// who shares the store has replaced meanwhile is no refusal.
func TestServiceAppAnotherMachine(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		s.before = func(_ http.ResponseWriter, n int) bool {
			if n == 1 {
				s.good = "refresh-of-theirs"
				s.begin(s.good)
			}
			return false
		}
		wantToken(t, s.app(), "access-2")
		s.wantRequests(2)
	})
}

// TestServiceAppRefused: what only a person can mend is said once to the
// endpoint, and mended without a restart.
func TestServiceAppRefused(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		s.good = "another"
		app := s.app()
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() { _, _ = app.Token(t.Context()) })
		}
		group.Wait()
		for range 3 {
			_, err := app.Token(t.Context())
			stopped := wantStopped(t, err, reprobeInterval, "refresh-0", clientSecret, clientID)
			if stopped.Code != 400 || !strings.Contains(stopped.Message, "ROUTER_1") || !strings.Contains(stopped.Message, "credential acme") {
				t.Errorf("the message lacks the credential or the tracking ID: %v", err)
			}
		}
		s.wantRequests(1)
		time.Sleep(reprobeInterval)
		if _, err := app.Token(t.Context()); err == nil {
			t.Error("still refused, but Token succeeded")
		}
		s.wantRequests(2)
		s.begin("another")
		wantToken(t, app, "access-3")
	})
}

func TestServiceAppRemedies(t *testing.T) {
	const echo = "refresh-0 the-client-secret the-client-id"
	for _, c := range []struct {
		status      int
		contentType string
		body        string
		remedy      string
	}{
		{400, "application/json", `{"error":"invalid_grant","error_description":"` + echo + `"}`, "authorise"},
		{401, "application/json", `{"error":"invalid_client"}`, "client_secret_file"},
		{400, "application/json", `{"message":"` + echo + `","errors":[],"trackingId":"` + clientSecret + `"}`, "either"},
		{200, "application/json", `{"error":"invalid_grant ` + echo + `"}`, "token_url"},
		{200, "text/plain", "error=invalid_grant&error_description=" + echo, "authorise"},
		{403, "text/html", "<html>" + echo + strings.Repeat("x", 1000), "either"},
		{404, "text/plain", echo, "token_url"},
		{302, "text/html", "", "token_url"},
		{405, "", "", "token_url"},
	} {
		t.Run(strconv.Itoa(c.status), func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, s *grantServer) {
				s.before = func(w http.ResponseWriter, _ int) bool {
					w.Header().Set("Content-Type", c.contentType)
					w.Header().Set("Location", "http://127.0.0.1/elsewhere")
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
					return true
				}
				_, err := s.app().Token(t.Context())
				stopped := wantStopped(t, err, reprobeInterval, "refresh-0", clientSecret, clientID)
				if stopped.Code != c.status || !strings.Contains(stopped.Remedy, c.remedy) || len(stopped.Message) > 500 {
					t.Errorf("code %d, remedy %q; want %q\n%v", stopped.Code, stopped.Remedy, c.remedy, err)
				}
				s.wantRequests(1) // no redirect was followed
			})
		})
	}
}

func TestServiceAppTransientAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
	}{
		{200, "<html>login</html>"}, {200, "{}"}, {200, `{"access_token":7}`}, {200, `{"access_token":"hunter2","expires_in":"hunter2"}`},
		{400, `{"error":"temporarily_unavailable"}`}, {408, ""}, {423, ""}, {429, ""}, {500, "refresh-0"}, {503, ""}, {504, ""},
	} {
		inFakeTime(t, func(t *testing.T, s *grantServer) {
			s.before = func(w http.ResponseWriter, _ int) bool {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			}
			_, err := s.app().Token(t.Context())
			var later *RetryLater
			if !errors.As(err, &later) {
				t.Errorf("%d %s: %v, want a *RetryLater", c.status, c.body, err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "refresh-0") {
				t.Errorf("the error shows a secret: %v", err)
			}
			s.wantRequests(refreshTries)
		})
	}
}

// TestServiceAppCannotStore: tokens that cannot be stored are not used, nor
// fetched again; they are stored as soon as that is possible.
func TestServiceAppCannotStore(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		away := s.folder + ".away"
		s.after = func(http.ResponseWriter, int) bool {
			if err := os.Rename(s.folder, away); err != nil {
				t.Error(err)
			}
			return false
		}
		app := s.app()
		_, err := app.Token(t.Context())
		var later *RetryLater
		if !errors.As(err, &later) || !errors.Is(err, errUnsaved) {
			t.Errorf("Token = %v, want a *RetryLater", err)
		}
		_, err = app.Token(t.Context())
		wantStopped(t, err, fileReprobe, "refresh-0")
		if err := os.Rename(away, s.folder); err != nil {
			t.Fatal(err)
		}
		wantToken(t, app, "access-1")
		if got := s.stored(); got.RefreshToken != "refresh-1" || got.AccessToken != "access-1" {
			t.Error("the store does not hold the tokens in use")
		}
		s.wantRequests(1)
	})
}

// TestServiceAppEndsInTheMiddle: the program is told to end while a refresh is
// under way. Its answer still reaches the store.
func TestServiceAppEndsInTheMiddle(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		ctx, cancel := context.WithCancel(t.Context())
		s.after = func(http.ResponseWriter, int) bool {
			cancel()
			time.Sleep(refreshGrace / 2)
			return false
		}
		if _, err := s.app().Token(ctx); err != nil {
			t.Errorf("Token = %v", err)
		}
		if s.stored().RefreshToken != "refresh-1" {
			t.Error("the answer was thrown away")
		}
	})
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.before = func(http.ResponseWriter, int) bool { time.Sleep(2 * refreshGrace); return true }
		began := time.Now()
		if _, err := s.app().Token(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Token = %v, want the end of its context", err)
		}
		if took := time.Since(began); took != time.Second+refreshGrace {
			t.Errorf("it held its caller for %s", took)
		}
	})
}

func TestServiceAppStoreProblems(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		says    string
	}{
		"missing":            {"", 0, "no such file"},
		"world-readable":     {`{"version":1,"refresh_token":"hunter2"}`, 0o644, "everybody"},
		"not JSON":           {"hunter2", 0o600, "not the JSON"},
		"no token":           {`{"version":1}`, 0o600, "is missing"},
		"no version":         {`{"refresh_token":"hunter2"}`, 0o600, "is missing"},
		"later version":      {`{"version":2,"refresh_token":"hunter2"}`, 0o600, "later version"},
		"another client's":   {`{"version":1,"refresh_token":"hunter2","client_id_sha256":"00"}`, 0o600, "another client"},
		"wrong type of time": {`{"version":1,"refresh_token":"hunter2","expires_at":"hunter2"}`, 0o600, "not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, s *grantServer) {
				if err := os.Remove(s.storePath()); err != nil {
					t.Fatal(err)
				}
				if c.mode != 0 {
					rewrite(t, s.storePath(), c.content)
					if err := os.Chmod(s.storePath(), c.mode); err != nil {
						t.Fatal(err)
					}
				}
				_, err := s.app().Token(t.Context())
				wantStopped(t, err, fileReprobe, "hunter2")
				if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), s.storePath()) {
					t.Errorf("%v does not say %q", err, c.says)
				}
				s.wantRequests(0)
			})
		})
	}
}

func TestServiceAppUnreadableClient(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		broken := true
		app := s.app(func(o *ServiceAppOptions) {
			o.ClientSecret = func() (string, error) {
				if broken {
					return "", errors.New("read secret file /run/secrets/x: no such file")
				}
				return clientSecret, nil
			}
		})
		_, err := app.Token(t.Context())
		wantStopped(t, err, fileReprobe)
		s.wantRequests(0)
		broken = false
		wantToken(t, app, "access-1")
	})
}

func TestServiceAppThroughALink(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		link := filepath.Join(t.TempDir(), "link.json")
		if err := os.Symlink(s.storePath(), link); err != nil {
			t.Fatal(err)
		}
		wantToken(t, s.app(func(o *ServiceAppOptions) { o.TokenStore = link }), "access-1")
		if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Error("the link was replaced by a file")
		}
		if s.stored().RefreshToken != "refresh-1" {
			t.Error("the file behind the link was not replaced")
		}
	})
}

func TestServiceAppWarnsBeforeTheRefreshTokenEnds(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		app := s.app()
		wantToken(t, app, "access-1")
		ends := app.RefreshTokenEnds()
		if warning := app.Warning(ends.Add(-15 * 24 * time.Hour)); warning != "" {
			t.Errorf("15 days before: %q", warning)
		}
		if warning := app.Warning(ends.Add(-13 * 24 * time.Hour)); !strings.Contains(warning, "ends on "+ends.Format(time.RFC3339)) {
			t.Errorf("13 days before: %q", warning)
		}
	})
}

func TestServiceAppURL(t *testing.T) {
	for _, bad := range []string{"http://tokens.example.com/", "https://user:hunter2@tokens.example.com/", "ftp://x", "https:///x", "http://hunter2 x/"} {
		_, err := NewServiceApp(ServiceAppOptions{Name: "acme", TokenURL: bad})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	app, err := NewServiceApp(ServiceAppOptions{Name: "acme"})
	if err != nil || app.endpoint.url.String() != "https://webexapis.com/v1/access_token" {
		t.Errorf("the default is %v, %v", app.endpoint.url, err)
	}
}

// TestServiceAppLogsNoToken goes through success and failure, and reads the log.
func TestServiceAppLogsNoToken(t *testing.T) {
	inFakeTime(t, func(t *testing.T, s *grantServer) {
		core, logs := observer.New(zapcore.DebugLevel)
		app := s.app(func(o *ServiceAppOptions) { o.Log = zap.New(core) })
		wantToken(t, app, "access-1")
		s.good = "another"
		time.Sleep(13 * 24 * time.Hour)
		for range 3 {
			wantToken(t, app, "access-1")
			time.Sleep(time.Hour)
		}
		s.good = "refresh-1"
		wantToken(t, app, "access-5")
		var lines []string
		for _, entry := range logs.All() {
			lines = append(lines, fmt.Sprint(entry.Message, entry.ContextMap()))
		}
		text := strings.Join(lines, "\n")
		for _, secret := range []string{"access-1", "access-5", "refresh-", clientSecret, clientID} {
			if strings.Contains(text, secret) {
				t.Errorf("the log shows %s:\n%s", secret, text)
			}
		}
		if len(lines) != 4 { // renewed, serves on (once), renewed, recovered
			t.Errorf("%d lines:\n%s", len(lines), text)
		}
		shown := fmt.Sprintf("%v %+v %#v", app.tokens, app.tokens, app.tokens) + fmt.Sprintf("%+v %#v", clientSecrets{clientID, clientSecret}, clientSecrets{clientID, clientSecret})
		if strings.Contains(shown, "access-") || strings.Contains(shown, "refresh-") || strings.Contains(shown, clientSecret) {
			t.Errorf("printed tokens show: %s", shown)
		}
	})
}
