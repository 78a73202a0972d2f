package simulator

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Tokens of a service app can be told from any other text without a memory of
// them: they name their organization, their generation, their end, and carry a
// checksum under the seed. So they survive a restart of the simulator.
//
//	access:  sim.a.<organization>.<generation>.<expiry, Unix seconds>.<checksum>
//	refresh: sim.r.<organization>.<generation>.<expiry, Unix seconds>.<checksum>

// tokenProblem says what is wrong with a token.
var tokenProblem = map[ViolationKind]string{
	TokenMissing: "no Authorization header with a bearer token",
	TokenWrong:   "the access token is not known",
	TokenExpired: "the access token has expired",
	TokenInQuery: "a token in the query ends up in logs",
}

// authorize finds the organization of a bearer token and whose budget it is.
// The organization may be known although the token is no good.
func (s *Simulator) authorize(r *http.Request, now time.Time) (o *org, principal string, problem ViolationKind) {
	if r.URL.Query().Has("access_token") {
		return nil, "", TokenInQuery
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, "", TokenMissing
	}
	if o := s.byToken[token]; o != nil {
		if o.isRevoked(token) {
			return o, "", TokenWrong
		}
		return o, "token", ""
	}
	t, ok := s.parseToken("a", token)
	switch {
	case !ok, t.org.isRevoked(token):
		return nil, "", TokenWrong
	case !now.Before(t.expiry):
		return t.org, "", TokenExpired
	}
	return t.org, "app", ""
}

func (o *org) isRevoked(token string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.revoked[token]
}

// issued is what a token of a service app says.
type issued struct {
	org        *org
	generation int
	expiry     time.Time
}

func (s *Simulator) newToken(kind string, o *org, generation int, expiry time.Time) string {
	text := "sim." + kind + "." + o.Name + "." + strconv.Itoa(generation) + "." + strconv.FormatInt(expiry.Unix(), 10)
	return text + "." + string(appendHex(nil, hashText(o.generator.seed^saltToken, text)))
}

// parseToken reads a token that newToken made. Names may hold dots.
func (s *Simulator) parseToken(kind, token string) (t issued, ok bool) {
	rest, ok := strings.CutPrefix(token, "sim."+kind+".")
	if !ok {
		return t, false
	}
	parts := strings.Split(rest, ".")
	if len(parts) < 4 {
		return t, false
	}
	n := len(parts)
	if t.org = s.byName[strings.Join(parts[:n-3], ".")]; t.org == nil {
		return t, false
	}
	generation, err := strconv.Atoi(parts[n-3])
	seconds, err2 := strconv.ParseInt(parts[n-2], 10, 64)
	if err != nil || err2 != nil {
		return t, false
	}
	t.generation, t.expiry = generation, time.Unix(seconds, 0)
	return t, s.newToken(kind, t.org, generation, t.expiry) == token
}

// IssueToken makes an access token of an organization's service app that is
// good for a time, without touching its refresh token.
func (s *Simulator) IssueToken(organization string, lifetime time.Duration) (string, error) {
	o, ok := s.byName[organization]
	if !ok {
		return "", s.unknownOrganization(organization)
	}
	return s.newToken("a", o, 0, s.now().Add(lifetime)), nil
}

// Revoke makes an access token of an organization worthless.
func (s *Simulator) Revoke(organization, token string) error {
	o, ok := s.byName[organization]
	if !ok {
		return s.unknownOrganization(organization)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.revoked == nil {
		o.revoked = make(map[string]bool)
	}
	o.revoked[token] = true
	return nil
}

const maxTokenRequestBytes = 64 << 10

// serveToken answers POST /v1/access_token, the refresh grant.
func (s *Simulator) serveToken(w http.ResponseWriter, r *http.Request) {
	x := s.newExchange(w, r)
	defer func() {
		status := strconv.Itoa(x.status)
		if x.aborted {
			status = "aborted"
		}
		s.stats.count(r.URL.Path, status, x.fault, 0, x.bytes)
	}()
	form, problem := readTokenRequest(w, r)
	if problem != nil {
		x.violated(problem.kind, problem.message)
		x.fail(http.StatusBadRequest, problem.message)
		return
	}
	o := s.byClient[form.Get("client_id")]
	if o == nil || form.Get("client_secret") != o.ClientSecret {
		x.violated(BadClient, "unknown client_id or wrong client_secret")
		x.fail(http.StatusUnauthorized, "invalid client credentials")
		return
	}
	x.org, x.answers = o, s.answersOf(o)
	x.fault = o.chooseTokenFault(&x.answers)
	x.hash = mix(x.hash ^ o.generator.seed)
	if !x.failTokenOnPurpose() {
		x.grant(form.Get("refresh_token"))
	}
}

// readTokenRequest reads the form of the request.
func readTokenRequest(w http.ResponseWriter, r *http.Request) (url.Values, *complaint) {
	if r.Method != http.MethodPost {
		return nil, complain(BadMethod, "only POST is known here")
	}
	if contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); contentType != "application/x-www-form-urlencoded" {
		return nil, complain(BadTokenRequest, "Content-Type %q: want application/x-www-form-urlencoded", contentType)
	}
	if r.URL.RawQuery != "" {
		return nil, complain(BadTokenRequest, "the form belongs into the body, not into the query")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxTokenRequestBytes)
	if err := r.ParseForm(); err != nil {
		return nil, complain(BadTokenRequest, "the form cannot be read: %s", err)
	}
	if grant := r.PostForm.Get("grant_type"); grant != "refresh_token" {
		return nil, complain(BadTokenRequest, "grant_type %q: want refresh_token", grant)
	}
	return r.PostForm, nil
}

// failTokenOnPurpose answers with the fault of the exchange, if that comes
// before anything is done.
func (x *exchange) failTokenOnPurpose() bool {
	switch x.fault {
	case "", LostAnswer, BadToken:
		return false
	case Reset:
		x.abort()
	case HTML:
		x.send(http.StatusBadGateway, "text/html", htmlBody("502", "Bad gateway"))
		return true
	case TokenDenied:
		x.fail(http.StatusBadRequest, "invalid_grant: The refresh token is invalid")
		return true
	case Fault307:
		x.w.Header().Set("Location", redirectTarget)
	case Fault429, Fault503:
		x.w.Header().Set("Retry-After", strconv.Itoa(int((x.answers.FaultWait+time.Second-1)/time.Second)))
	}
	x.fail(traitsOf(tokenFaultTable, x.fault).status, "")
	return true
}

// grant takes a refresh token in payment for an access token.
func (x *exchange) grant(refresh string) {
	s, o := x.s, x.org
	generation, ok := o.spend(s, refresh, x.now, !x.answers.KeepRefreshTokens)
	if !ok {
		x.violated(RefreshTokenDead, "the refresh token is unknown, expired, or was used up by an earlier refresh")
		x.fail(http.StatusBadRequest, "invalid_grant: The refresh token is invalid or has expired")
		return
	}
	switch x.fault {
	case LostAnswer:
		x.abort()
	case BadToken:
		x.send(http.StatusOK, "application/json", []byte(`{"token_type":"Bearer"}`))
		return
	}
	answer := map[string]any{
		"access_token":             s.newToken("a", o, generation, x.now.Add(x.answers.TokenLifetime)),
		"expires_in":               int64(x.answers.TokenLifetime / time.Second),
		"refresh_token":            refresh,
		"refresh_token_expires_in": int64(x.answers.RefreshTokenLifetime / time.Second),
		"token_type":               "Bearer",
		"scope":                    "spark-admin:calling_cdr_read spark:kms",
	}
	if !x.answers.KeepRefreshTokens {
		answer["refresh_token"] = s.newToken("r", o, generation, x.now.Add(x.answers.RefreshTokenLifetime))
	}
	x.send(http.StatusOK, "application/json;charset=utf-8", mustMarshal(answer))
}

// spend checks a refresh token and, if they rotate, kills it. It returns the
// generation of the tokens to issue. The configured token is generation 0; one
// from before a restart of the simulator is believed, if it is of this seed.
func (o *org) spend(s *Simulator, refresh string, now time.Time, rotate bool) (generation int, ok bool) {
	presented := 0
	if o.RefreshToken == "" || refresh != o.RefreshToken {
		t, known := s.parseToken("r", refresh)
		if !known || t.org != o || !now.Before(t.expiry) {
			return 0, false
		}
		presented = t.generation
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if presented < o.generation {
		return 0, false
	}
	o.generation = presented
	if rotate {
		o.generation++
	}
	return max(o.generation, 1), true
}
