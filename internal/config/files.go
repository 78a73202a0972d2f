package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cdrbus/internal/config/secretfile"
	"cdrbus/internal/seal"
)

// checkFiles looks at every file that the configuration names: secrets must be
// there and not open to everybody, certificates must be certificates.
func checkFiles(l *ledger, c *Config, folder string) {
	f := fileRules{ledger: l, folder: folder}
	f.secret("kafka.sasl.password_file", c.Kafka.SASL.Password)
	f.tls("kafka.tls", c.Kafka.TLS.TLS)
	f.secret("schema_registry.password_file", c.SchemaRegistry.Password)
	f.secret("schema_registry.bearer_token_file", c.SchemaRegistry.BearerToken)
	f.tls("schema_registry.tls", c.SchemaRegistry.TLS)
	f.secret("http.proxy_password_file", c.HTTP.ProxyPassword)
	f.certificates("http.ca_file", c.HTTP.CAFile)
	for i := range c.Sources {
		f.secret(childOf(itemOf("sources", i), "token_file"), c.Sources[i].Token)
	}
	for i := range c.Credentials {
		path, credential := itemOf("credentials", i), &c.Credentials[i]
		f.secret(childOf(path, "client_id_file"), credential.ClientID)
		f.secret(childOf(path, "client_secret_file"), credential.ClientSecret)
		f.secret(childOf(path, "token_key_file"), credential.TokenKey)
		f.tokenKey(childOf(path, "token_key_file"), credential.TokenKey)
		f.secret(childOf(path, "refresh_token_file"), credential.RefreshToken)
		if !credential.TokensInKafka() {
			f.tokenStore(childOf(path, "token_store"), credential.TokenStore)
		}
	}
}

type fileRules struct {
	*ledger
	folder string // of the configuration file
}

func (f fileRules) secret(path string, s Secret) {
	if !s.IsFile() {
		return
	}
	if _, err := s.Read(); err != nil {
		f.refuseFile(path, s.Path(), err)
	}
}

// tokenKey refuses a key that could be guessed. That it can be read is checked
// before.
func (f fileRules) tokenKey(path string, s Secret) {
	if !s.IsSet() {
		return
	}
	if key, err := s.Read(); err == nil && len(key) < seal.LeastKeyLength {
		f.refuse(path, fmt.Sprintf("holds a key of %d characters, want %d or more", len(key), seal.LeastKeyLength), "make one with openssl rand -base64 32")
	}
}

// tokenStore may be missing: its source then says how to make it, and stops
// alone. Its folder may not, for then it is misspelt.
func (f fileRules) tokenStore(path, name string) {
	if name == "" {
		return
	}
	err := secretfile.Check(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, folderErr := os.Stat(filepath.Dir(name)); folderErr == nil {
			return
		}
		f.refuse(path, fmt.Sprintf("the folder %s does not exist", filepath.Dir(name)), "make it, writable for this user")
		return
	}
	if err != nil {
		f.refuseFile(path, name, err)
	}
}

func (f fileRules) tls(path string, t TLS) {
	f.certificates(childOf(path, "ca_file"), t.CAFile)
	f.certificates(childOf(path, "cert_file"), t.CertFile)
	if t.KeyFile == "" {
		return
	}
	if err := secretfile.Check(t.KeyFile); err != nil {
		f.refuseFile(childOf(path, "key_file"), t.KeyFile, err)
	}
}

func (f fileRules) certificates(path, name string) {
	if name == "" {
		return
	}
	if _, err := readCertificates(name, x509.NewCertPool()); err != nil {
		f.refuseFile(path, name, err)
	}
}

// refuseFile reports a file that cannot be used. A missing one right beside the
// configuration is not named: somebody may have written the secret itself.
func (f fileRules) refuseFile(path, name string, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist) && f.folder != "" && filepath.Dir(name) == f.folder:
		f.refuse(path, "names a file that does not exist (not shown here, should it be the secret itself)", "write the path of a file; a relative one begins at the configuration's folder")
	case errors.Is(err, fs.ErrNotExist):
		f.refuse(path, fmt.Sprintf("the file %s does not exist", name), "write it, or mend the path")
	default:
		f.refuse(path, err.Error(), "")
	}
}

// readCertificates adds the PEM certificates of a file to the pool.
func readCertificates(name string, pool *x509.CertPool) (*x509.CertPool, error) {
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificates: %s holds no PEM certificate", name)
	}
	return pool, nil
}
