package simulator

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type tokenAnswer struct {
	AccessToken           string `json:"access_token"`
	ExpiresIn             int    `json:"expires_in"`
	RefreshToken          string `json:"refresh_token"`
	RefreshTokenExpiresIn int    `json:"refresh_token_expires_in"`
	TokenType             string `json:"token_type"`
	Scope                 string
}

// refresh makes one request to the token endpoint.
func refresh(t *testing.T, s *Simulator, token string, change ...string) (status int, answer tokenAnswer) {
	t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {"client-org-1"}, "client_secret": {"secret-org-1"}, "refresh_token": {token}}
	for i := 0; i < len(change); i += 2 {
		form.Set(change[i], change[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/access_token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	if serve(s, w, r) {
		return 0, answer
	}
	if w.Code == http.StatusOK {
		must(t, json.Unmarshal(w.Body.Bytes(), &answer))
	}
	return w.Code, answer
}

// try asks for records with a token.
func try(t *testing.T, s *Simulator, token string) int {
	t.Helper()
	end := s.now().Add(-time.Hour)
	answer, _ := get(t, s, recordsURL("/v1/cdr_feed", end.Add(-time.Hour), end), "Authorization", "Bearer "+token)
	return answer.StatusCode
}

// TestTokenRotation follows a service app through two refreshes.
func TestTokenRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Answers.TokenLifetime = time.Hour })
		status, first := refresh(t, s, "refresh-org-1")
		if status != 200 || first.ExpiresIn != 3600 || first.RefreshTokenExpiresIn != 90*24*3600 || first.TokenType != "Bearer" || !strings.Contains(first.Scope, "spark-admin:calling_cdr_read") {
			t.Fatalf("status %d, answer %+v", status, first)
		}
		if first.RefreshToken == "refresh-org-1" {
			t.Fatal("the refresh token was not rotated")
		}
		if got := try(t, s, first.AccessToken); got != 200 {
			t.Fatalf("fresh token answered %d", got)
		}
		if status, _ := refresh(t, s, "refresh-org-1"); status != 400 {
			t.Errorf("the first refresh token lives: %d", status)
		}
		status, second := refresh(t, s, first.RefreshToken)
		if status != 200 || second.AccessToken == first.AccessToken || second.RefreshToken == first.RefreshToken {
			t.Fatalf("second refresh: status %d, answer %+v", status, second)
		}
		if status, _ := refresh(t, s, first.RefreshToken); status != 400 {
			t.Errorf("the second refresh token lives: %d", status)
		}
		if got := s.Stats().Violations[RefreshTokenDead]; got != 2 {
			t.Errorf("%d dead refresh tokens counted, want 2", got)
		}
		time.Sleep(time.Hour - time.Second)
		if got := try(t, s, second.AccessToken); got != 200 {
			t.Errorf("token answered %d a second before its end", got)
		}
		time.Sleep(time.Second)
		if got := try(t, s, second.AccessToken); got != 401 || s.Stats().Violations[TokenExpired] != 1 {
			t.Errorf("expired token answered %d, violations %v", got, s.Stats().Violations)
		}
		time.Sleep(90 * 24 * time.Hour)
		if status, _ := refresh(t, s, second.RefreshToken); status != 400 {
			t.Errorf("the refresh token outlives its lifetime: %d", status)
		}
	})
}

// TestTokensSurviveARestart uses tokens of one simulator with another of its
// seed, and with one of another seed.
func TestTokensSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a := refresh(t, newSimulator(t, nil), "refresh-org-1")
		again := newSimulator(t, nil)
		if got := try(t, again, a.AccessToken); got != 200 {
			t.Errorf("access token answered %d after a restart", got)
		}
		status, b := refresh(t, again, a.RefreshToken)
		if status != 200 {
			t.Fatalf("refresh token answered %d after a restart", status)
		}
		if status, _ := refresh(t, again, "refresh-org-1"); status != 400 {
			t.Errorf("the configured refresh token came back to life: %d", status)
		}
		other := newSimulator(t, func(o *Options) { o.Seed = 2 })
		if got := try(t, other, b.AccessToken); got != 401 {
			t.Errorf("access token of another seed answered %d", got)
		}
		if status, _ := refresh(t, other, b.RefreshToken); status != 400 {
			t.Errorf("refresh token of another seed answered %d", status)
		}
	})
}

func TestTokenRequestsRefused(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Count = 2 })
	for _, test := range []struct {
		change []string
		status int
		kind   ViolationKind
	}{
		{[]string{"grant_type", "password"}, 400, BadTokenRequest},
		{[]string{"client_id", "nobody"}, 401, BadClient},
		{[]string{"client_secret", "guess"}, 401, BadClient},
		{[]string{"refresh_token", "refresh-org-2"}, 400, RefreshTokenDead},
		{[]string{"refresh_token", ""}, 400, RefreshTokenDead},
	} {
		before := s.Stats().Violations[test.kind]
		if status, _ := refresh(t, s, "refresh-org-1", test.change...); status != test.status || s.Stats().Violations[test.kind] != before+1 {
			t.Errorf("%v: status %d, violations %v; want %d and one more %s", test.change, status, s.Stats().Violations, test.status, test.kind)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/access_token", nil))
	if w.Code != 400 {
		t.Errorf("GET is answered %d", w.Code)
	}
	if status, _ := refresh(t, s, "refresh-org-1"); status != 200 {
		t.Errorf("after all that the good request is answered %d", status)
	}
}

func TestTokenSwitches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) { o.Answers.KeepRefreshTokens = true })
		for range 2 {
			if status, a := refresh(t, s, "refresh-org-1"); status != 200 || a.RefreshToken != "refresh-org-1" {
				t.Errorf("status %d, answer %+v: want the refresh token to stay", status, a)
			}
		}
		token, err := s.IssueToken("org-1", time.Minute)
		must(t, err)
		if got := try(t, s, token); got != 200 {
			t.Errorf("issued token answered %d", got)
		}
		must(t, s.Revoke("org-1", token))
		must(t, s.Revoke("org-1", "token-org-1"))
		for _, revoked := range []string{token, "token-org-1"} {
			if got := try(t, s, revoked); got != 401 {
				t.Errorf("revoked token answered %d", got)
			}
		}
	})
}

// TestTokenFaults lets every fault of the endpoint happen, and never so many
// that a patient client gets no token.
func TestTokenFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimulator(t, func(o *Options) {
			o.Answers.TokenFaults, o.Answers.MaxFaultRun = faultMix(tokenFaultTable, false, 0.9), 4
		})
		token := "refresh-org-1"
		for range 40 {
			tries := 0
			for {
				status, a := refresh(t, s, token)
				if status == 200 {
					token = a.RefreshToken
					break
				}
				if tries++; tries > 4 {
					t.Fatal("no token after four faults in a row")
				}
			}
		}
		survivable, _ := faultNames(tokenFaultTable)
		for _, name := range survivable {
			if s.Stats().Faults[Fault(name)] == 0 {
				t.Errorf("fault %s never happened: %v", name, s.Stats().Faults)
			}
		}
		noViolations(t, s)
	})
}

// TestLostAnswer is the case that a refresher must avoid: the answer is lost,
// and the token with it.
func TestLostAnswer(t *testing.T) {
	s := newSimulator(t, func(o *Options) { o.Answers.TokenFaults = map[Fault]float64{LostAnswer: 1} })
	if status, _ := refresh(t, s, "refresh-org-1"); status != 0 {
		t.Fatalf("status %d, want a cut connection", status)
	}
	must(t, s.Update("", func(a *Answers) { a.TokenFaults = nil }))
	if status, _ := refresh(t, s, "refresh-org-1"); status != 400 {
		t.Errorf("status %d, want the used token refused", status)
	}
}
