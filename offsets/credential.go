package offsets

import (
	"encoding/json"
	"fmt"
)

// credentialPrefix begins the keys of credentials in the offsets topic. No source's
// name holds a colon.
const credentialPrefix = "credential:"

// CredentialKey is the key of a credential's record, in the shard of its sources.
func CredentialKey(name string) []byte { return []byte(credentialPrefix + name) }

// credentialVersion is the version of a credential's record that this code writes.
const credentialVersion = 1

// Credential is the value of a credential's record. What is sealed is its owner's;
// all others see that it is there, and since when.
type Credential struct {
	Version int    `json:"version"`
	Name    string `json:"credential"`
	// Seed is a hash of what the secret goes back to. It lies outside the seal, so
	// that one can begin anew whose key is lost.
	Seed   string `json:"seed_sha256"`
	Sealed []byte `json:"sealed"` // base64
}

// EncodeCredential makes the value of a credential's record.
func EncodeCredential(name, seed string, sealed []byte) ([]byte, error) {
	value, err := json.Marshal(Credential{credentialVersion, name, seed, sealed})
	if err != nil {
		return nil, fmt.Errorf("encode credential %s: %w", name, err)
	}
	return value, nil
}

// DecodeCredential reads the value of a credential's record.
func DecodeCredential(name string, value []byte) (Credential, error) {
	var record Credential
	switch err := json.Unmarshal(value, &record); {
	case err != nil:
		return Credential{}, fmt.Errorf("decode credential %s: it is not the JSON that cdrbus writes", name)
	case record.Version > credentialVersion:
		return Credential{}, fmt.Errorf("decode credential %s: a later version of cdrbus wrote it (format %d, known is %d)", name, record.Version, credentialVersion)
	case record.Version < 1 || record.Name != name || len(record.Sealed) == 0:
		return Credential{}, fmt.Errorf("decode credential %s: it is of %q, version %d", name, record.Name, record.Version)
	}
	return record, nil
}
