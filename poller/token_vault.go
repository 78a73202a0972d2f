package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// TokenVault is where the tokens of one credential outlive the process: a file, or
// a place that the members of a fleet share. What lies in it is JSON that only this
// package reads and writes, but for the first refresh token:
//
//	{"version": 1, "refresh_token": "..."}
//
// A vault must not show its content in what it prints or in its errors.
type TokenVault interface {
	// String names the place, for people.
	String() string
	// Entrance names where a person puts a new refresh token.
	Entrance() string
	// Remedy says how the vault has to be, for people.
	Remedy() string
	// Lock keeps whoever else uses the vault from renewing until unlock, or until
	// this process ends.
	Lock(ctx context.Context) (unlock func(), err error)
	// Load returns what is kept.
	Load() ([]byte, error)
	// Prepare begins to replace the content: whatever can fail fails here, before
	// the old refresh token is spent. The caller calls Cleanup in any case.
	Prepare(ctx context.Context) (TokenSaving, error)
	// NeedsPerson reports whether an error of the vault lasts until somebody acts.
	NeedsPerson(err error) bool
}

// TokenSaving is a replacement under way.
type TokenSaving interface {
	// Save puts the content in place. When it returns nil the content survives a
	// crash; a crash before leaves the old one whole. It outlives the end of ctx by
	// some seconds, like the refresh that it follows.
	Save(ctx context.Context, content []byte) error
	// Cleanup frees what Prepare took, if Save did not.
	Cleanup() error
}

// ErrVaultAway is in the chain of a vault's error when it cannot be reached just
// now, and will be by itself.
var ErrVaultAway = errors.New("it is out of reach just now")

// loadTokens returns the tokens in a vault. Its errors never quote them.
func loadTokens(vault TokenVault) (storedTokens, error) {
	var tokens storedTokens
	content, err := vault.Load()
	if err != nil {
		return tokens, fmt.Errorf("read %s: %w", vault, err)
	}
	switch err := json.Unmarshal(content, &tokens); {
	case err != nil:
		return storedTokens{}, fmt.Errorf("read %s: it is not the JSON that it should be", vault)
	case tokens.Version > tokenStoreVersion:
		return storedTokens{}, fmt.Errorf("read %s: a later version of cdrbus wrote it (format %d, known is %d)", vault, tokens.Version, tokenStoreVersion)
	case tokens.Version < 1 || tokens.RefreshToken == "":
		return storedTokens{}, fmt.Errorf("read %s: version or refresh_token is missing", vault)
	}
	return tokens, nil
}

// saveTokens puts tokens into a vault that is prepared for them.
func saveTokens(ctx context.Context, saving TokenSaving, tokens storedTokens) error {
	content, err := json.MarshalIndent(tokens, "", "  ")
	if err != nil {
		return fmt.Errorf("encode tokens: %w", err)
	}
	return saving.Save(ctx, content)
}
