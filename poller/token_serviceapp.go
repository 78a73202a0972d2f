package poller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// refreshTries is how often one call of Token asks for new tokens.
	refreshTries = 4
	// refreshPatience is the longest wait between two of them.
	refreshPatience = 30 * time.Second
	// refreshPause is how long a failed refresh rests, if no longer wait is asked for.
	refreshPause = time.Minute
	// expiryMargin is how long before its end a token is still handed out when no
	// newer one can be had.
	expiryMargin = time.Minute
	// refreshWarning is how long before the refresh token's end a person is told.
	refreshWarning = 14 * 24 * time.Hour
)

// ServiceAppOptions says whose tokens to fetch. All but TokenURL, HTTP and Log
// is required, and one of TokenStore and Vault.
type ServiceAppOptions struct {
	Name         string                 // of the credential, for messages
	ClientID     func() (string, error) // read anew at each refresh, as is the secret
	ClientSecret func() (string, error)
	TokenStore   string     // path of the file that holds the refresh token; its folder must be writable
	Vault        TokenVault // instead of TokenStore
	TokenURL     string     // "": Webex's own
	HTTP         HTTPOptions
	Log          *zap.Logger // nil: none
}

// defaultTokenURL is the token endpoint of Webex.
const defaultTokenURL = "https://webexapis.com/v1/access_token"

// ServiceApp is the token source of a Service App or an integration: it fetches
// access tokens with a refresh token, which each refresh may replace.
//
// What must hold, for the old refresh token may die with its use:
//   - one refresh at a time: one caller here, and one process on the machine (a
//     lock beside the store); whoever comes second finds the first one's tokens;
//   - the room for the new tokens is on disk before the old one is spent, and
//     they are stored before the new access token is used, so that a crash at
//     any instant leaves a store that works;
//   - after an answer that was lost nothing is sent before the store was read
//     again: another process may have had the answer.
//
// It is safe for concurrent use. One process needs one ServiceApp a credential.
type ServiceApp struct {
	name     string
	clientID func() (string, error)
	secret   func() (string, error)
	vault    TokenVault
	endpoint *tokenEndpoint
	log      *zap.Logger

	turn chan struct{} // capacity 1: held by the one caller that renews

	mu       sync.Mutex
	tokens   storedTokens // in use: they are in the store
	rejected string       // access token to which the feed answered 401
	trouble  error        // why the last renewal failed; nil: it did not
	restTill time.Time    // no renewal before this, while the old token serves

	// The holder of turn owns these.
	unsaved *unsavedTokens
	refusal *refusedRefresh
	lost    bool // the last refresh with this refresh token got no answer
}

// unsavedTokens are new tokens that could not be stored yet, and so not be used.
type unsavedTokens struct {
	spent  string // the refresh token that they cost
	tokens storedTokens
}

// refusedRefresh remembers what the token endpoint refused, so that it is not
// asked the same again at once.
type refusedRefresh struct {
	fingerprint string // of client and refresh token
	err         *Stopped
	until       time.Time
}

// NewServiceApp returns the token source of a credential. It opens no
// connection and no file: the first Token does.
func NewServiceApp(o ServiceAppOptions) (*ServiceApp, error) {
	if o.TokenURL == "" {
		o.TokenURL = defaultTokenURL
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	endpoint, err := newTokenEndpoint(o.TokenURL, o.HTTP)
	if err != nil {
		return nil, fmt.Errorf("credential %s: %w", o.Name, err)
	}
	if o.Vault == nil {
		o.Vault = newTokenStore(o.TokenStore)
	}
	return &ServiceApp{
		name:     o.Name,
		clientID: o.ClientID,
		secret:   o.ClientSecret,
		vault:    o.Vault,
		endpoint: endpoint,
		log:      o.Log.With(zap.String("credential", o.Name)),
		turn:     make(chan struct{}, 1),
	}, nil
}

// Token returns an access token that is good for some minutes, renewing it
// early. While a renewal fails, the old one serves until it ends; then the
// error is a *[Stopped] or a *[RetryLater].
func (a *ServiceApp) Token(ctx context.Context) (Token, error) {
	if token, ok := a.inUse(); ok {
		return token, nil
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return Token{}, fmt.Errorf("wait for the token of credential %s: %w", a.name, context.Cause(ctx))
	}
	if token, ok := a.inUse(); ok { // somebody else renewed it meanwhile
		return token, nil
	}
	tokens, err := a.renew(ctx)
	if err != nil && ctx.Err() != nil {
		return Token{}, fmt.Errorf("renew the token of credential %s: %w", a.name, context.Cause(ctx))
	}
	return a.settle(tokens, err)
}

// Rejected makes the next Token another one.
func (a *ServiceApp) Rejected(_ context.Context, token Token) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rejected = token.AccessToken
	return nil
}

// RefreshTokenEnds returns when a person must authorise anew at the latest;
// the zero time if that is unknown.
func (a *ServiceApp) RefreshTokenEnds() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tokens.RefreshExpiresAt
}

// Warning tells what a person should see to although tokens still come: a
// refresh token that ends within 14 days, or renewals that fail. "": nothing.
func (a *ServiceApp) Warning(now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trouble != nil {
		return fmt.Sprintf("renewing the access token of credential %s fails: %v", a.name, a.trouble)
	}
	ends := a.tokens.RefreshExpiresAt
	if ends.IsZero() || ends.Sub(now) > refreshWarning {
		return ""
	}
	return fmt.Sprintf("the refresh token of credential %s ends on %s: authorise the Service App or integration again before that, and write the new refresh token to %s",
		a.name, ends.UTC().Format(time.RFC3339), a.vault.Entrance())
}

// inUse returns the token at hand, if it need not be renewed now.
func (a *ServiceApp) inUse() (Token, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.isFresh(a.tokens, now) {
		return a.tokens.token(), true
	}
	return a.tokens.token(), now.Before(a.restTill) && a.isUsable(a.tokens, now)
}

// isFresh reports whether the access token need not be renewed yet. Callers hold mu.
func (a *ServiceApp) isFresh(tokens storedTokens, now time.Time) bool {
	refreshAt := tokens.refreshAt()
	return a.isUsable(tokens, now) && (refreshAt.IsZero() || now.Before(refreshAt))
}

// isUsable reports whether the feed would take the access token. Callers hold mu.
func (a *ServiceApp) isUsable(tokens storedTokens, now time.Time) bool {
	return tokens.AccessToken != "" && tokens.AccessToken != a.rejected &&
		(tokens.ExpiresAt.IsZero() || now.Before(tokens.ExpiresAt.Add(-expiryMargin)) || now.Before(tokens.refreshAt()))
}

// settle takes the result of a renewal over. A failed one is an error only when
// the old token serves no longer.
func (a *ServiceApp) settle(tokens storedTokens, err error) (Token, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if err == nil {
		if a.trouble != nil {
			a.log.Info("access token renewed after failures")
		}
		a.tokens, a.trouble, a.restTill = tokens, nil, time.Time{}
		if tokens.AccessToken == a.rejected { // there is no other: it gets a second chance
			a.rejected = ""
		}
		return tokens.token(), nil
	}
	if !a.isUsable(a.tokens, now) {
		a.trouble = err
		return Token{}, err
	}
	if a.trouble == nil {
		a.log.Warn("access token could not be renewed, the old one serves on", zap.Error(err), zap.Time("until", a.tokens.ExpiresAt))
	}
	a.trouble, a.restTill = err, now.Add(restAfter(err))
	return a.tokens.token(), nil
}

// restAfter is how long to leave a failed renewal alone.
func restAfter(err error) time.Duration {
	var later *RetryLater
	if errors.As(err, &later) {
		return max(later.After, refreshPause)
	}
	return refreshPause // looking at the store again costs nothing
}

// renew returns fresh tokens that are in the store: another process's, or new
// ones. The caller holds turn.
func (a *ServiceApp) renew(ctx context.Context) (storedTokens, error) {
	// 1. The lock. A crash from here on frees it.
	unlock, err := a.vault.Lock(ctx)
	if err != nil {
		return storedTokens{}, a.storeTrouble(err)
	}
	defer unlock()
	for try := 1; ; try++ {
		// 2. The store decides what is true: whoever held the lock before may have
		// renewed, a person may have put a new refresh token there.
		stored, err := loadTokens(a.vault)
		if err != nil {
			return storedTokens{}, a.storeTrouble(err)
		}
		if err := a.saveLate(ctx, &stored); err != nil {
			return storedTokens{}, err
		}
		if a.isGood(stored) {
			return stored, nil
		}
		// 3. One refresh, stored before it is used.
		tokens, err := a.refreshOnce(ctx, stored)
		if err == nil {
			return tokens, nil
		}
		// 4. Its failure: for a person, for later, or for another try, which reads
		// the store first.
		wait, again := nextTry(err, try)
		if !again && !a.storeHolds(stored) && try < refreshTries {
			continue // another machine that shares the store was faster
		}
		if !again {
			return storedTokens{}, err
		}
		if err := waitFor(ctx, wait, nil); err != nil {
			return storedTokens{}, fmt.Errorf("refresh token of credential %s: %w", a.name, err)
		}
	}
}

func (a *ServiceApp) isGood(tokens storedTokens) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.isFresh(tokens, time.Now())
}

// storeHolds reports whether the store still holds that refresh token.
func (a *ServiceApp) storeHolds(tokens storedTokens) bool {
	stored, err := loadTokens(a.vault)
	return err != nil || stored.RefreshToken == tokens.RefreshToken
}

// nextTry says whether a failure is worth another try in this call, and when.
func nextTry(err error, try int) (wait time.Duration, again bool) {
	var later *RetryLater
	if !errors.As(err, &later) || errors.Is(err, errUnsaved) {
		return 0, false
	}
	wait = max(later.After, time.Second<<(try-1))
	if try >= refreshTries || wait > refreshPatience {
		later.After = max(later.After, refreshPause)
		return 0, false
	}
	return wait, true
}

// refreshOnce spends the stored refresh token.
func (a *ServiceApp) refreshOnce(ctx context.Context, stored storedTokens) (storedTokens, error) {
	who, err := a.client(stored)
	if err != nil {
		return storedTokens{}, err
	}
	fingerprint := hashOf(who.id, who.secret, stored.RefreshToken)
	if a.refusal != nil && a.refusal.fingerprint == fingerprint && time.Now().Before(a.refusal.until) {
		return storedTokens{}, a.refusal.err
	}
	saving, err := a.vault.Prepare(ctx)
	if err != nil {
		return storedTokens{}, a.storeTrouble(err)
	}
	defer saving.Cleanup()
	tokens, err := a.endpoint.refresh(ctx, who, stored)
	if err != nil {
		return storedTokens{}, a.failed(err, fingerprint)
	}
	a.refusal, a.lost = nil, false
	// A crash here loses the answer: the store still holds the old refresh token,
	// which the next start tries, and which Webex may or may not honour. Nothing
	// in between can fail for want of rights or room.
	if err := saveTokens(ctx, saving, tokens); err != nil {
		a.unsaved = &unsavedTokens{spent: stored.RefreshToken, tokens: tokens}
		return storedTokens{}, a.unsavedTrouble(err)
	}
	a.log.Info("access token renewed", zap.Time("expires", tokens.ExpiresAt), zap.Time("refresh_token_expires", tokens.RefreshExpiresAt),
		zap.Bool("refresh_token_replaced", tokens.RefreshToken != stored.RefreshToken))
	return tokens, nil
}

// failed completes an error of the token endpoint, and remembers a refusal.
func (a *ServiceApp) failed(err error, fingerprint string) error {
	var stopped *Stopped
	var later *RetryLater
	switch {
	case errors.As(err, &stopped):
		stopped.Message = fmt.Sprintf("refresh token of credential %s: %s", a.name, stopped.Message)
		stopped.Remedy += fmt.Sprintf(" (%s)", a.vault.Entrance())
		if a.lost {
			stopped.Remedy += "; an earlier refresh got no answer, which may be what replaced the refresh token"
		}
		a.refusal = &refusedRefresh{fingerprint: fingerprint, err: stopped, until: time.Now().Add(stopped.Reprobe)}
	case errors.As(err, &later):
		var lost *lostAnswer
		a.lost = a.lost || errors.As(err, &lost)
		later.Cause = fmt.Errorf("refresh token of credential %s: %w", a.name, later.Cause)
	}
	return err
}

// client reads who we are, and checks that the store is ours.
func (a *ServiceApp) client(stored storedTokens) (clientSecrets, error) {
	id, idErr := a.clientID()
	secret, secretErr := a.secret()
	if err := errors.Join(idErr, secretErr); err != nil {
		return clientSecrets{}, &Stopped{
			Message: fmt.Sprintf("read the client of credential %s: %v", a.name, err),
			Remedy:  "mend client_id_file and client_secret_file, no restart is needed",
			Reprobe: fileReprobe,
		}
	}
	if stored.ClientIDHash != "" && stored.ClientIDHash != hashOf(id) {
		return clientSecrets{}, &Stopped{
			Message: fmt.Sprintf("%s of credential %s holds the tokens of another client ID", a.vault, a.name),
			Remedy:  "name another token_store, or write this client's refresh token into it",
			Reprobe: fileReprobe,
		}
	}
	return clientSecrets{id: id, secret: secret}, nil
}

// errUnsaved marks tokens that were fetched and could not be stored.
var errUnsaved = errors.New("the new tokens wait in memory, unused")

// saveLate stores tokens that an earlier renewal could not store. If the store
// has moved on since, they are of no use any more.
func (a *ServiceApp) saveLate(ctx context.Context, stored *storedTokens) error {
	if a.unsaved == nil {
		return nil
	}
	if stored.RefreshToken != a.unsaved.spent {
		a.unsaved = nil
		return nil
	}
	saving, err := a.vault.Prepare(ctx)
	if err != nil {
		return a.unsavedTrouble(err)
	}
	defer saving.Cleanup()
	if err := saveTokens(ctx, saving, a.unsaved.tokens); err != nil {
		return a.unsavedTrouble(err)
	}
	*stored = a.unsaved.tokens
	a.unsaved = nil
	return nil
}

func (a *ServiceApp) unsavedTrouble(err error) error {
	return &RetryLater{After: refreshPause, Cause: fmt.Errorf("credential %s: %w: %w", a.name, err, errUnsaved)}
}

// storeTrouble tells trouble with the store that a person must end from the rest.
func (a *ServiceApp) storeTrouble(err error) error {
	if _, readErr := loadTokens(a.vault); (readErr == nil || errors.Is(readErr, ErrVaultAway)) && !a.vault.NeedsPerson(err) {
		return &RetryLater{After: refreshPause, Cause: fmt.Errorf("credential %s: %w", a.name, err)}
	}
	return &Stopped{
		Message: fmt.Sprintf("credential %s: %v", a.name, err),
		Remedy:  a.vault.Remedy(),
		Reprobe: fileReprobe,
	}
}
