package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// refreshTimeout bounds one refresh, body included. It is long: an answer given
// up on may have replaced the refresh token.
const refreshTimeout = 60 * time.Second

// refreshGrace is how long a refresh under way may go on when its caller is to
// end. It fits into the 10 s that the daemon takes to stop.
const refreshGrace = 5 * time.Second

// clientSecrets is who asks for a token.
type clientSecrets struct{ id, secret string }

// Format keeps the secret out of whatever is printed.
func (clientSecrets) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// tokenEndpoint refreshes tokens: the refresh grant of RFC 6749 §6, with the
// client in the form as Webex wants it.
type tokenEndpoint struct {
	url    *url.URL
	client *http.Client
}

func newTokenEndpoint(address string, options HTTPOptions) (*tokenEndpoint, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("parse token URL: it is not a URL") // the cause would quote it
	}
	if err := options.CheckCredentialURL(u); err != nil {
		return nil, fmt.Errorf("use token URL: %w", err)
	}
	client := NewHTTPClient(options)
	client.Transport = &introduced{next: client.Transport, userAgent: options.UserAgent()}
	return &tokenEndpoint{url: u, client: client}, nil
}

// introduced gives the requests of x/oauth2 the headers of every request of ours.
type introduced struct {
	next      http.RoundTripper
	userAgent string
}

func (i *introduced) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context()) // a RoundTripper must not change what it is given
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", i.userAgent)
	request.Header.Set("TrackingID", newTrackingID())
	return i.next.RoundTrip(request)
}

// CloseIdleConnections lets http.Client reach through.
func (i *introduced) CloseIdleConnections() {
	if closer, ok := i.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// refresh asks for new tokens, once. The refresh token of the answer is the old
// one if none came. Errors are *[Stopped] where a person is needed, *[RetryLater]
// where time is; none of them holds a secret.
func (e *tokenEndpoint) refresh(ctx context.Context, who clientSecrets, old storedTokens) (storedTokens, error) {
	config := oauth2.Config{
		ClientID:     who.id,
		ClientSecret: who.secret,
		Endpoint:     oauth2.Endpoint{TokenURL: e.url.String(), AuthStyle: oauth2.AuthStyleInParams},
	}
	asked := time.Now()
	attempt, cancel := withGrace(ctx)
	defer cancel()
	answer, err := config.TokenSource(context.WithValue(attempt, oauth2.HTTPClient, e.client), &oauth2.Token{RefreshToken: old.RefreshToken}).Token()
	switch {
	case err == nil:
		return adoptAnswer(answer, asked, who, old), nil
	case ctx.Err() != nil:
		return storedTokens{}, fmt.Errorf("refresh token: %w", context.Cause(ctx))
	default:
		return storedTokens{}, e.judge(err, who, old)
	}
}

// withGrace returns a context for one refresh. It outlives the end of ctx by
// some seconds: a program that is told to end in the middle of a refresh should
// still get the answer, and store it.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTimeout)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(refreshGrace, cancel) })
	return attempt, func() { stop(); cancel() }
}

// adoptAnswer turns an answer into what is to be stored. Times count from the
// question, so that they are rather too early than too late.
func adoptAnswer(answer *oauth2.Token, asked time.Time, who clientSecrets, old storedTokens) storedTokens {
	tokens := storedTokens{
		Version:          tokenStoreVersion,
		ClientIDHash:     hashOf(who.id),
		RefreshToken:     answer.RefreshToken,
		RefreshExpiresAt: old.RefreshExpiresAt,
		AccessToken:      answer.AccessToken,
		IssuedAt:         asked.UTC().Truncate(time.Second),
	}
	if answer.ExpiresIn > 0 {
		tokens.ExpiresAt = tokens.IssuedAt.Add(time.Duration(answer.ExpiresIn) * time.Second)
	} else if answer.ExpiresIn == 0 && answer.Expiry.After(asked) { // a form rather than JSON
		tokens.ExpiresAt = answer.Expiry.UTC().Truncate(time.Second)
	}
	if seconds := seconds(answer.Extra("refresh_token_expires_in")); seconds > 0 {
		tokens.RefreshExpiresAt = tokens.IssuedAt.Add(time.Duration(seconds) * time.Second)
	} else if answer.RefreshToken != old.RefreshToken {
		tokens.RefreshExpiresAt = time.Time{} // of the new one we know nothing
	}
	return tokens
}

// seconds reads a JSON number or a string of digits; 0 for anything else.
func seconds(value any) int64 {
	const century = 100 * 365 * 24 * 3600
	switch value := value.(type) {
	case float64:
		return int64(max(0, min(value, century)))
	case int64:
		return max(0, min(value, century))
	case string:
		number, _ := strconv.ParseInt(value, 10, 64)
		return max(0, min(number, century))
	}
	return 0
}

// judge turns an error of x/oauth2, whose text quotes the whole answer, into
// one of ours.
func (e *tokenEndpoint) judge(err error, who clientSecrets, old storedTokens) error {
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		return e.judgeAnswer(refusal, []string{who.secret, who.id, old.RefreshToken, old.AccessToken})
	}
	var noAnswer *url.Error
	if errors.As(err, &noAnswer) {
		return e.unanswered(noAnswer.Err)
	}
	return e.unanswered(errors.New("the answer was cut, or is not a token"))
}

// unanswered is a refresh of which nobody knows whether it took place.
func (e *tokenEndpoint) unanswered(cause error) *RetryLater {
	return &RetryLater{Cause: &lostAnswer{&feedError{method: http.MethodPost, url: e.url, cause: cause}}}
}

// lostAnswer marks a refresh after which the old refresh token may be dead.
type lostAnswer struct{ *feedError }

func (e *lostAnswer) Unwrap() error { return e.feedError }

// transientTokenErrors are the error codes that mean trouble at the other end.
var transientTokenErrors = []string{"temporarily_unavailable", "server_error", "slow_down"}

// errorCodePattern is what an error code looks like; anything else might be an echo.
var errorCodePattern = regexp.MustCompile(`^[a-z_]{1,40}$`)

func (e *tokenEndpoint) judgeAnswer(refusal *oauth2.RetrieveError, secrets []string) error {
	status, header := refusal.Response.StatusCode, refusal.Response.Header
	body := tokenErrorBody(refusal)
	ids := []string{refusal.Response.Request.Header.Get("TrackingID")}
	if id := withoutSecrets(body.TrackingID, secrets); id != "" {
		ids = append(ids, id)
	}
	failure := &feedError{
		method:     http.MethodPost,
		url:        e.url,
		status:     status,
		trackingID: strings.Join(ids, ", "),
		message:    quoteMessage(withoutSecrets(body.Message, secrets), Token{}),
	}
	code := ""
	if errorCodePattern.MatchString(refusal.ErrorCode) {
		code = refusal.ErrorCode
	}
	transient := status >= 500 || slices.Contains([]int{http.StatusTooManyRequests, http.StatusLocked, http.StatusRequestTimeout}, status)
	if transient || slices.Contains(transientTokenErrors, code) {
		demand, _ := retryAfter(header, time.Now())
		return &RetryLater{After: min(demand, maxRetryAfter), Cause: failure}
	}
	return &Stopped{Code: status, Message: failure.Error(), Remedy: tokenRemedy(status, code), Reprobe: reprobeInterval}
}

// tokenErrorBody reads Webex's form of an error and that of RFC 6749 §5.2.
func tokenErrorBody(refusal *oauth2.RetrieveError) errorBody {
	body := parseErrorBody(refusal.Body)
	var rfc struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if body.Message == "" && json.Unmarshal(refusal.Body, &rfc) == nil {
		body.Message = strings.TrimSpace(rfc.Error + " " + rfc.Description)
	}
	return body
}

// withoutSecrets takes our own secrets out of a text that may echo them.
func withoutSecrets(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, redacted)
			text = strings.ReplaceAll(text, url.QueryEscape(secret), redacted)
		}
	}
	return text
}

const (
	remedyGrant    = "the refresh token is expired, revoked or used up: authorise the Service App or integration again, and write the new refresh token to the token store"
	remedyClient   = "the client ID or the client secret is wrong: check client_id_file and client_secret_file"
	remedyEither   = "either " + remedyGrant + "; or " + remedyClient
	remedyTokenURL = "check token_url: it must be the token endpoint's own address, with no login page or proxy answering in its place"
)

func tokenRemedy(status int, code string) string {
	switch {
	case code == "invalid_grant":
		return remedyGrant
	case code == "invalid_client", code == "unauthorized_client":
		return remedyClient
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return remedyEither
	default:
		return remedyTokenURL
	}
}
