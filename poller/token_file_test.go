package poller

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tokenFile writes a token file and returns its path.
func tokenFile(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	rewrite(t, path, content)
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func rewrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Error(err)
	}
}

// wantStopped fails unless err is a *Stopped that says what to do and when to
// look again, and keeps the secrets.
func wantStopped(t *testing.T, err error, reprobe time.Duration, secrets ...string) *Stopped {
	t.Helper()
	var stopped *Stopped
	if !errors.As(err, &stopped) {
		t.Fatalf("got %v, want a *Stopped", err)
	}
	if stopped.Message == "" || stopped.Remedy == "" || stopped.Reprobe != reprobe {
		t.Errorf("message %q, remedy %q, reprobe %s; want both texts and %s", stopped.Message, stopped.Remedy, stopped.Reprobe, reprobe)
	}
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	return stopped
}

func TestFileTokenIsReadAgain(t *testing.T) {
	path := tokenFile(t, "first\n", 0o600)
	source := NewFileToken(path)
	for _, want := range []string{"first", "second"} {
		rewrite(t, path, want)
		token, err := source.Token(t.Context())
		if err != nil || token.AccessToken != want {
			t.Errorf("Token = %q, %v; want %q", token.AccessToken, err, want)
		}
	}
}

// demandSecondChance rejects a token for the first time, and wants it back at once.
func demandSecondChance(t *testing.T, source *FileToken, token Token) {
	t.Helper()
	began := time.Now()
	if err := source.Rejected(t.Context(), token); err != nil || time.Since(began) != 0 {
		t.Fatalf("the first rejection gave %v after %s, want nil at once", err, time.Since(began))
	}
	if again, err := source.Token(t.Context()); err != nil || again.AccessToken != token.AccessToken {
		t.Fatalf("Token after the first rejection = %v, %v; want the same token once more", again, err)
	}
}

// TestFileTokenForgivesOneRejection: a token that works again after a 401 has its
// second chance anew.
func TestFileTokenForgivesOneRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := NewFileToken(tokenFile(t, "first", 0o600))
		for range 3 {
			token, err := source.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			demandSecondChance(t, source, token)
		}
	})
}

func TestFileTokenRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tokenFile(t, "first", 0o600)
		source := NewFileToken(path)
		token, err := source.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		demandSecondChance(t, source, token)
		go func() {
			time.Sleep(10 * time.Second)
			rewrite(t, path, "second")
		}()
		began := time.Now()
		if err := source.Rejected(t.Context(), token); err != nil {
			t.Errorf("Rejected = %v, want nil: the file changed", err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("the change was seen after %s, want about 10 s", took)
		}
		if token, err = source.Token(t.Context()); token.AccessToken != "second" || err != nil {
			t.Errorf("Token = %q, %v", token.AccessToken, err)
		}
	})
}

func TestFileTokenRejectedAndNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tokenFile(t, "hunter2", 0o600)
		source := NewFileToken(path)
		token, err := source.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		demandSecondChance(t, source, token)
		began := time.Now()
		wantStopped(t, source.Rejected(t.Context(), token), time.Minute, "hunter2")
		if took := time.Since(began); took != rejectPatience {
			t.Errorf("Rejected waited %s, want %s", took, rejectPatience)
		}
		began = time.Now()
		_, err = source.Token(t.Context())
		wantStopped(t, err, time.Minute, "hunter2")
		if time.Since(began) != 0 {
			t.Error("Token waited for a token known to be bad")
		}
		time.Sleep(reprobeInterval)
		if _, err := source.Token(t.Context()); err != nil {
			t.Errorf("after %s the token is not tried again: %v", reprobeInterval, err)
		}
	})
}

func TestFileTokenRejectedEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := NewFileToken(tokenFile(t, "first", 0o600))
		demandSecondChance(t, source, Token{AccessToken: "first"})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := source.Rejected(ctx, Token{AccessToken: "first"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Rejected = %v, want the end of its context", err)
		}
	})
}

func TestFileTokenBridgesAReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tokenFile(t, "", 0o600)
		go func() {
			time.Sleep(replacePatience / 4)
			_ = os.Remove(path)
			time.Sleep(replacePatience / 4)
			rewrite(t, path, "next")
		}()
		token, err := NewFileToken(path).Token(t.Context())
		if token.AccessToken != "next" || err != nil {
			t.Errorf("Token = %q, %v; want the next one", token.AccessToken, err)
		}
	})
}

func TestFileTokenUnusable(t *testing.T) {
	for name, path := range map[string]string{
		"missing":        filepath.Join(t.TempDir(), "missing"),
		"empty":          tokenFile(t, " \n", 0o600),
		"world-readable": tokenFile(t, "hunter2", 0o604),
		"with a scheme":  tokenFile(t, "Bearer hunter2", 0o600),
		"two lines":      tokenFile(t, "hunter2\nhunter2", 0o600),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				token, err := NewFileToken(path).Token(t.Context())
				stopped := wantStopped(t, err, time.Minute, "hunter2")
				if !strings.Contains(stopped.Message, path) || token != (Token{}) {
					t.Errorf("the error does not name %s: %v", path, err)
				}
			})
		})
	}
}

func TestBareToken(t *testing.T) {
	token, err := NewBareToken("the environment", func() (string, error) { return "secret", nil }).Token(t.Context())
	if token.AccessToken != "secret" || err != nil {
		t.Errorf("Token = %q, %v", token.AccessToken, err)
	}
}
