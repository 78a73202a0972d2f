package kafkaconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// TLS says how to prove the brokers' identity and one's own. The zero value
// trusts the system's authorities and shows no certificate. TLS 1.2 is the least.
type TLS struct {
	// CAFile holds the PEM certificates of the authorities to trust instead of
	// the system's; CAPool is the same from memory. At most one of the two.
	CAFile string
	CAPool *x509.CertPool

	// CertFile and KeyFile, both or neither, are the PEM client certificate
	// chain and key for mutual TLS. They are read again at each handshake, so a
	// renewed certificate needs no restart.
	CertFile string
	KeyFile  string

	// ServerName is the name demanded of every broker's certificate instead of
	// the host name that was dialled.
	ServerName string
}

// config returns the standard library's form, and nil for a nil TLS.
func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	pool, poolErr := t.pool()
	certificate, certificateErr := t.certificate()
	if err := errors.Join(poolErr, certificateErr); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		RootCAs:              pool,
		GetClientCertificate: certificate,
		ServerName:           t.ServerName,
	}, nil
}

func (t *TLS) pool() (*x509.CertPool, error) {
	if t.CAFile == "" {
		return t.CAPool, nil
	}
	if t.CAPool != nil {
		return nil, errors.New("TLS authorities: give a file or a pool, not both")
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read TLS authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read TLS authorities: %s holds no PEM certificate", t.CAFile)
	}
	return pool, nil
}

type clientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error)

// certificate loads the pair once to refuse a wrong one at start, and returns
// a function that loads it again for each handshake.
func (t *TLS) certificate() (clientCertificate, error) {
	if t.CertFile == "" && t.KeyFile == "" {
		return nil, nil
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, errors.New("TLS client certificate: give both the certificate file and the key file")
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load TLS client certificate %s with key %s: %w", t.CertFile, t.KeyFile, err)
		}
		return &pair, nil
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	return load, nil
}

// Mechanism is the name of a SASL mechanism.
type Mechanism string

// The mechanisms that New knows.
const (
	Plain       Mechanism = "PLAIN"
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
)

// SASL holds the credentials of one user. Its methods never print the password.
type SASL struct {
	Mechanism Mechanism
	Username  string
	Password  string

	// AllowPlainWithoutTLS names the broker hosts, without port, to which PLAIN may
	// send the readable password over a connection without TLS. It is held
	// against every broker that is dialled, also those that only the cluster names.
	AllowPlainWithoutTLS []string
}

// String tells the mechanism and the user.
func (s SASL) String() string { return fmt.Sprintf("%s as %q", s.Mechanism, s.Username) }

// GoString is String, so that %#v keeps the secret too.
func (s SASL) GoString() string { return s.String() }

// MarshalJSON writes String, so that a dumped configuration keeps the secret.
func (s SASL) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", s.String()), nil }

// mechanism returns kafka-go's form, and nil for a nil SASL.
func (s *SASL) mechanism(opts Options) (sasl.Mechanism, error) {
	if s == nil {
		return nil, nil
	}
	if s.Username == "" || s.Password == "" {
		return nil, errors.New("SASL: user name and password are both required")
	}
	switch Mechanism(strings.ToUpper(string(s.Mechanism))) {
	case Plain:
		if opts.TLS != nil {
			return plain.Mechanism{Username: s.Username, Password: s.Password}, nil
		}
		guarded := plainInTheClear{plain.Mechanism{Username: s.Username, Password: s.Password}, s.AllowPlainWithoutTLS}
		return guarded, guarded.checkAll(opts.Brokers)
	case ScramSHA256:
		return scramMechanism(scram.SHA256, s)
	case ScramSHA512:
		return scramMechanism(scram.SHA512, s)
	default:
		return nil, fmt.Errorf("SASL mechanism %q: want %s, %s or %s", s.Mechanism, Plain, ScramSHA256, ScramSHA512)
	}
}

func scramMechanism(algorithm scram.Algorithm, s *SASL) (sasl.Mechanism, error) {
	mechanism, err := scram.Mechanism(algorithm, s.Username, s.Password)
	if err != nil {
		// The cause may quote the password (a character that SASLprep forbids).
		return nil, fmt.Errorf("SASL %s: the user name or password has a character that SCRAM does not allow", s.Mechanism)
	}
	return mechanism, nil
}

// plainInTheClear is PLAIN without TLS: it shows the password to named hosts only.
type plainInTheClear struct {
	plain.Mechanism
	hosts []string
}

// Start is called once for each connection, with the host that was dialled:
// a bootstrap broker's or one that the cluster advertises.
func (p plainInTheClear) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	metadata := sasl.MetadataFromContext(ctx)
	if metadata == nil {
		return nil, nil, errors.New("SASL PLAIN without TLS: the broker's host is unknown")
	}
	if err := p.check(metadata.Host); err != nil {
		return nil, nil, err
	}
	return p.Mechanism.Start(ctx)
}

func (p plainInTheClear) checkAll(brokers []string) error {
	var problems []error
	for _, broker := range brokers {
		if host, _, err := net.SplitHostPort(broker); err == nil {
			problems = append(problems, p.check(host))
		}
	}
	return errors.Join(problems...)
}

func (p plainInTheClear) check(host string) error {
	if slices.ContainsFunc(p.hosts, func(allowed string) bool { return strings.EqualFold(allowed, host) }) {
		return nil
	}
	return &insecureError{host: host}
}

// insecureError refuses to send a readable password.
type insecureError struct{ host string }

func (e *insecureError) Error() string {
	return fmt.Sprintf("SASL PLAIN would send the password readable to %s: switch TLS on, use SCRAM-SHA-512, or name the host as insecure", e.host)
}
