package offsets

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// credentialPrefix begins the keys of credentials in the offsets topic. No source's
// name holds a colon.
const credentialPrefix = "credential:"

// CredentialKey is the key of a credential's record, in the shard of its sources.
func CredentialKey(name string) []byte { return []byte(credentialPrefix + name) }

// credentialOf returns the name of the credential whose record has this key.
func credentialOf(key []byte) (name string, ok bool) {
	rest, ok := bytes.CutPrefix(key, []byte(credentialPrefix))
	return string(rest), ok && len(rest) > 0
}

// credentialVersion is the version of a credential's record that this code writes.
const credentialVersion = 1

// sealedCredential is the value of a credential's record. What is sealed is its
// owner's; all others see that it is there, and since when.
type sealedCredential struct {
	Version    int    `json:"version"`
	Credential string `json:"credential"`
	Sealed     []byte `json:"sealed"` // base64
}

// EncodeCredential makes the value of a credential's record.
func EncodeCredential(name string, sealed []byte) ([]byte, error) {
	value, err := json.Marshal(sealedCredential{credentialVersion, name, sealed})
	if err != nil {
		return nil, fmt.Errorf("encode credential %s: %w", name, err)
	}
	return value, nil
}

// DecodeCredential returns what is sealed in the value of a credential's record.
func DecodeCredential(name string, value []byte) ([]byte, error) {
	var record sealedCredential
	switch err := json.Unmarshal(value, &record); {
	case err != nil:
		return nil, fmt.Errorf("decode credential %s: it is not the JSON that cdrbus writes", name)
	case record.Version > credentialVersion:
		return nil, fmt.Errorf("decode credential %s: a later version of cdrbus wrote it (format %d, known is %d)", name, record.Version, credentialVersion)
	case record.Version < 1 || record.Credential != name || len(record.Sealed) == 0:
		return nil, fmt.Errorf("decode credential %s: it is of %q, version %d", name, record.Credential, record.Version)
	}
	return record.Sealed, nil
}
