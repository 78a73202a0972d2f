package poller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"cdrbus/internal/config/secretfile"
)

// tokenStoreVersion is the version of the store's format that this code writes.
const tokenStoreVersion = 1

// storedTokens is what a token store holds. A person begins one with the
// version and a refresh token; everything else comes with the first refresh.
type storedTokens struct {
	Version          int       `json:"version"`
	ClientIDHash     string    `json:"client_id_sha256,omitempty"` // of the client that the tokens belong to
	RefreshToken     string    `json:"refresh_token"`
	RefreshExpiresAt time.Time `json:"refresh_expires_at,omitzero"`
	AccessToken      string    `json:"access_token,omitempty"`
	IssuedAt         time.Time `json:"issued_at,omitzero"`
	ExpiresAt        time.Time `json:"expires_at,omitzero"` // of the access token; zero: unknown
}

// Format keeps the tokens out of whatever is printed.
func (s storedTokens) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "tokens "+redacted) }

func (s storedTokens) token() Token { return Token{AccessToken: s.AccessToken, Expiry: s.ExpiresAt} }

// refreshAt is when the access token should be replaced: 5 minutes or a tenth
// of its lifetime before it ends, whichever is earlier, but never in the first
// half of a short life. Zero: when the feed rejects it.
func (s storedTokens) refreshAt() time.Time {
	if s.ExpiresAt.IsZero() {
		return time.Time{}
	}
	early := 5 * time.Minute
	if lifetime := s.ExpiresAt.Sub(s.IssuedAt); !s.IssuedAt.IsZero() && lifetime > 0 {
		early = min(max(early, lifetime/10), lifetime/2)
	}
	return s.ExpiresAt.Add(-early)
}

// tokenStore is a file that holds one credential's tokens, beside a lock file
// that lets one process at a time refresh them.
type tokenStore struct{ path string }

// newTokenStore follows a symbolic link now, so that replacing the file later
// does not replace the link.
func newTokenStore(path string) tokenStore {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return tokenStore{target}
	}
	return tokenStore{path}
}

// lockPoll is how often a held lock is tried again.
const lockPoll = 50 * time.Millisecond

// Lock implements [TokenVault]: it keeps the other processes of this machine, and other users of the store
// in this one, from refreshing until unlock. The lock ends with the process.
func (s tokenStore) Lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(s.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of token store: %w", err)
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil // which also unlocks
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = waitFor(ctx, lockPoll, nil)
		} else if errors.Is(err, syscall.EINTR) {
			err = nil
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", s, err)
		}
	}
}

// Load implements [TokenVault].
func (s tokenStore) Load() ([]byte, error) { return secretfile.ReadAll(s.path) }

func (s tokenStore) String() string { return "token store " + s.path }

// Entrance implements [TokenVault].
func (s tokenStore) Entrance() string { return s.path }

// Remedy implements [TokenVault].
func (s tokenStore) Remedy() string {
	return fmt.Sprintf(`the store %s must hold {"version": 1, "refresh_token": "..."}, mode 0600, in a folder that this user may write to; no restart is needed`, s.path)
}

// reservedBytes is more than tokens ever take.
const reservedBytes = 16 << 10

// Prepare implements [TokenVault]: it makes the new file, with its place on the
// disk. A folder that is read-only or a disk that is full is noticed while nothing
// is lost yet.
func (s tokenStore) Prepare(context.Context) (TokenSaving, error) {
	pending, err := renameio.NewPendingFile(s.path, renameio.WithTempDir(filepath.Dir(s.path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return nil, fmt.Errorf("prepare to write %s: %w", s, err)
	}
	if _, err := pending.Write(make([]byte, reservedBytes)); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare to write %s: %w", s, err), pending.Cleanup())
	}
	if err := pending.Sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare to write %s: %w", s, err), pending.Cleanup())
	}
	return replacement{s, pending}, nil
}

// replacement is a new file that is to take the store's place.
type replacement struct {
	store tokenStore
	*renameio.PendingFile
}

// Save implements [TokenSaving].
func (r replacement) Save(_ context.Context, content []byte) error {
	if _, err := r.WriteAt(content, 0); err != nil {
		return fmt.Errorf("write %s: %w", r.store, err)
	}
	if err := r.Truncate(int64(len(content))); err != nil {
		return fmt.Errorf("write %s: %w", r.store, err)
	}
	if err := r.CloseAtomicallyReplace(); err != nil { // syncs the content
		return fmt.Errorf("write %s: %w", r.store, err)
	}
	return r.store.syncFolder()
}

// syncFolder makes the renaming survive a power cut.
func (s tokenStore) syncFolder() error {
	folder, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("sync folder of token store: %w", err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // not every file system can
		return fmt.Errorf("sync folder of token store %s: %w", s.path, err)
	}
	return nil
}

// NeedsPerson implements [TokenVault].
func (s tokenStore) NeedsPerson(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR)
}

// hashOf lets a store be told from another client's without holding its ID.
func hashOf(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
