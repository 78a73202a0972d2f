// Package seal keeps a secret readable only for those who hold a key: AES-256-GCM
// with a random nonce, under a key that HKDF-SHA256 (RFC 5869) derives from a text.
//
// It is a leaf. No error holds the key or what is sealed.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
)

// LeastKeyLength is how many characters a key has at least: 32 of base64 are 192
// bits.
const LeastKeyLength = 32

// ErrShortKey says that a key could be guessed.
var ErrShortKey = fmt.Errorf("the key is shorter than %d characters", LeastKeyLength)

// ErrBroken says that what was to be opened was sealed with another key or for
// another use, or has been changed since.
var ErrBroken = errors.New("it was sealed with another key, or was changed since")

// Sealer seals and opens for one use. It is safe for concurrent use.
type Sealer struct {
	aead cipher.AEAD
	use  []byte
}

// New returns a sealer. What is sealed for one use cannot be opened for another.
func New(key, use string) (*Sealer, error) {
	if len(key) < LeastKeyLength {
		return nil, ErrShortKey
	}
	derived, err := hkdf.Key(sha256.New, []byte(key), nil, "cdrbus seal 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return &Sealer{aead, []byte(use)}, nil
}

// Seal returns the secret as only Open gives it back.
func (s *Sealer) Seal(secret []byte) []byte { return s.aead.Seal(nil, nil, secret, s.use) }

// Open returns the secret, or ErrBroken.
func (s *Sealer) Open(sealed []byte) ([]byte, error) {
	secret, err := s.aead.Open(nil, nil, sealed, s.use)
	if err != nil {
		return nil, ErrBroken
	}
	return secret, nil
}
