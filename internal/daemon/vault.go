package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"cdrbus/internal/config"
	"cdrbus/internal/seal"
	"cdrbus/offsets"
	"cdrbus/poller"
)

// vault keeps a credential's tokens in the offsets topic, sealed, in the shard of
// the credential's sources. Whoever owns the shard is the only one who refreshes
// the tokens, and commits them with the shard's producer before they are used: an
// owner that was fenced cannot overwrite its successor's. It is safe for
// concurrent use.
type vault struct {
	credential *config.Credential
	sealer     *seal.Sealer

	mu     sync.Mutex
	shard  *shard // nil: not owned just now
	record []byte // as committed; nil: none yet
	seed   string // hash of the refresh token file as Load saw it
}

func (d *Daemon) newVault(credential *config.Credential) (*vault, error) {
	key, err := credential.TokenKey.Read()
	if err != nil {
		return nil, fmt.Errorf("credential %s: token_key_file: %w", credential.Name, err)
	}
	sealer, err := seal.New(key, "credential "+credential.Name)
	if err != nil {
		return nil, fmt.Errorf("credential %s: token_key_file: %w; make one with openssl rand -base64 32", credential.Name, err)
	}
	v := &vault{credential: credential, sealer: sealer}
	d.vaults[credential.Name] = v
	return v, nil
}

func (v *vault) String() string {
	return "token store in Kafka, credential " + v.credential.Name
}

// Entrance implements [poller.TokenVault].
func (v *vault) Entrance() string { return v.credential.RefreshToken.String() }

// Remedy implements [poller.TokenVault].
func (v *vault) Remedy() string {
	return fmt.Sprintf("write a refresh token to %s, and the key that all members share to %s; no restart is needed for the former. If that key is lost, authorise anew: another refresh token begins again", v.Entrance(), v.credential.TokenKey)
}

// NeedsPerson implements [poller.TokenVault].
func (v *vault) NeedsPerson(err error) bool { return !errors.Is(err, poller.ErrVaultAway) }

// Lock implements [poller.TokenVault]. The shard's fencing is the lock: whoever
// does not own it can prepare nothing and save nothing.
func (v *vault) Lock(context.Context) (unlock func(), err error) { return func() {}, nil }

// Load implements [poller.TokenVault]. Another content of the refresh token file
// than the one that the tokens go back to means that a person has authorised anew;
// then it does not matter what lies sealed, nor with which key.
func (v *vault) Load() ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shard == nil {
		return nil, v.away()
	}
	var record offsets.Credential
	if v.record != nil {
		var err error
		if record, err = offsets.DecodeCredential(v.credential.Name, v.record); err != nil {
			return nil, err
		}
	}
	refreshToken, err := v.credential.RefreshToken.Read()
	switch {
	case v.record != nil && (err != nil || record.Seed == seedOf(refreshToken)):
		v.seed = record.Seed
		return v.sealer.Open(record.Sealed)
	case err != nil:
		return nil, err
	}
	v.seed = seedOf(refreshToken)
	return json.Marshal(map[string]any{"version": 1, "refresh_token": refreshToken})
}

// seedOf lets a refresh token be told from another without holding it. It lies in
// Kafka: another hash of the same token would look like another token.
func seedOf(refreshToken string) string {
	sum := sha256.Sum256([]byte(refreshToken))
	return hex.EncodeToString(sum[:16])
}

func (v *vault) away() error {
	return fmt.Errorf("%w: the shard of credential %s is not owned", poller.ErrVaultAway, v.credential.Name)
}

// Prepare implements [poller.TokenVault].
func (v *vault) Prepare(context.Context) (poller.TokenSaving, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shard == nil {
		return nil, v.away()
	}
	return tokenSaving{v, v.shard, v.seed}, nil
}

// tokenSaving is one commit of tokens to come.
type tokenSaving struct {
	vault *vault
	shard *shard
	seed  string
}

// Save implements [poller.TokenSaving].
func (s tokenSaving) Save(_ context.Context, content []byte) error {
	v := s.vault
	record, err := offsets.EncodeCredential(v.credential.Name, s.seed, v.sealer.Seal(content))
	if err != nil {
		return err
	}
	if err := s.shard.hand(newNote(offsets.CredentialKey(v.credential.Name), record)); err != nil {
		return fmt.Errorf("commit tokens of credential %s: %w", v.credential.Name, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shard == s.shard {
		v.record = record
	}
	return nil
}

// Cleanup implements [poller.TokenSaving]: nothing was taken.
func (tokenSaving) Cleanup() error { return nil }

// openVaults lends the vaults of a shard's credentials the shard's producer and
// what the restore has found.
func (s *shard) openVaults() { s.lendVaults(s, s.restored) }

func (s *shard) closeVaults() { s.lendVaults(nil, &offsets.Restored{}) }

func (s *shard) lendVaults(owner *shard, restored *offsets.Restored) {
	for _, src := range s.daemon.sourcesOf(s.index) {
		if v := s.daemon.vaults[src.config.Credential]; v != nil {
			v.mu.Lock()
			v.shard, v.record = owner, restored.Notes[string(offsets.CredentialKey(v.credential.Name))]
			v.mu.Unlock()
		}
	}
}
