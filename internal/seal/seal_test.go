package seal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var key = strings.Repeat("k", LeastKeyLength)

func mustNew(t *testing.T, key, use string) *Sealer {
	t.Helper()
	s, err := New(key, use)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealed(t *testing.T) {
	s, secret := mustNew(t, key, "credential acme"), []byte("hunter2")
	sealed := s.Seal(secret)
	if bytes.Contains(sealed, secret) || bytes.Equal(sealed, s.Seal(secret)) {
		t.Error("the secret shows, or the same secret is sealed to the same bytes")
	}
	if opened, err := mustNew(t, key, "credential acme").Open(sealed); err != nil || !bytes.Equal(opened, secret) {
		t.Errorf("opened %q, %v", opened, err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another key": func() ([]byte, error) { return mustNew(t, key+"k", "credential acme").Open(sealed) },
		"another use": func() ([]byte, error) { return mustNew(t, key, "credential globex").Open(sealed) },
		"changed":     func() ([]byte, error) { return s.Open(changed) },
		"cut":         func() ([]byte, error) { return s.Open(sealed[:5]) },
		"nothing":     func() ([]byte, error) { return s.Open(nil) },
	} {
		if opened, err := open(); !errors.Is(err, ErrBroken) || opened != nil {
			t.Errorf("%s: opened %q, %v", name, opened, err)
		}
	}
}

func TestShortKey(t *testing.T) {
	if _, err := New(key[1:], ""); !errors.Is(err, ErrShortKey) {
		t.Errorf("a short key is taken: %v", err)
	}
}
