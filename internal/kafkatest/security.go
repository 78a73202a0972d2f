package kafkatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// Certificates are an authority, a server certificate for 127.0.0.1 and
// localhost, and a client certificate, as PEM files that go with the test.
type Certificates struct {
	CAFile                             string
	ServerCertFile, ServerKeyFile      string
	ClientCertFile, ClientKeyFile      string
	caPEM, serverCertPEM, serverKeyPEM []byte
}

// NewCertificates makes new ones.
func NewCertificates(t testing.TB) *Certificates {
	t.Helper()
	dir := t.TempDir()
	c := &Certificates{}
	ca, caKey, caPEM, _ := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	_, _, serverCert, serverKey := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, caKey)
	_, _, clientCert, clientKey := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, caKey)
	for _, file := range []struct {
		path *string
		name string
		data []byte
	}{
		{&c.CAFile, "ca.pem", caPEM}, {&c.ServerCertFile, "server.pem", serverCert}, {&c.ServerKeyFile, "server-key.pem", serverKey},
		{&c.ClientCertFile, "client.pem", clientCert}, {&c.ClientKeyFile, "client-key.pem", clientKey},
	} {
		*file.path = filepath.Join(dir, file.name)
		if err := os.WriteFile(*file.path, file.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.caPEM, c.serverCertPEM, c.serverKeyPEM = caPEM, serverCert, serverKey
	return c
}

// certify makes a key and a certificate for it, signed by parent, or by itself.
func certify(t testing.TB, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (_ *x509.Certificate, _ *ecdsa.PrivateKey, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key) // the only form that Kafka reads
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// ServerTLS is a server's configuration for the embedded broker. With
// clientAuth it demands a client certificate.
func (c *Certificates) ServerTLS(t testing.TB, clientAuth bool) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(c.serverCertPEM, c.serverKeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: x509.NewCertPool()}
	config.ClientCAs.AppendCertsFromPEM(c.caPEM)
	if clientAuth {
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config
}

// TLSProperties are the settings of a CLIENT listener with TLS. With clientAuth
// it demands a client certificate.
func (c *Certificates) TLSProperties(clientAuth bool) map[string]string {
	const prefix = "listener.name.client.ssl."
	properties := map[string]string{
		prefix + "keystore.type":              "PEM",
		prefix + "keystore.certificate.chain": string(c.serverCertPEM),
		prefix + "keystore.key":               string(c.serverKeyPEM),
		prefix + "truststore.type":            "PEM",
		prefix + "truststore.certificates":    string(c.caPEM),
		prefix + "client.auth":                "none",
	}
	if clientAuth {
		properties[prefix+"client.auth"] = "required"
	}
	return properties
}

// SASLProperties are the settings of a CLIENT listener with SASL PLAIN for
// these users, and SCRAM for Options.ScramUsers.
func SASLProperties(plainUsers map[string]string) map[string]string {
	const prefix = "listener.name.client."
	var users strings.Builder
	for _, user := range slices.Sorted(maps.Keys(plainUsers)) {
		fmt.Fprintf(&users, " user_%s=%q", user, plainUsers[user])
	}
	return map[string]string{
		prefix + "sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		prefix + "plain.sasl.jaas.config":         "org.apache.kafka.common.security.plain.PlainLoginModule required" + users.String() + ";",
		prefix + "scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		prefix + "scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
	}
}

// ACLProperties make the brokers deny whatever no ACL allows, but to clients of
// the plain listener: those are super users.
func ACLProperties() map[string]string {
	return map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS",
	}
}

// Allow adds ACLs for a principal such as User:alice. A name that ends in * is
// a prefix.
func (c *Cluster) Allow(t testing.TB, principal string, resource kafka.ResourceType, name string, operations ...kafka.ACLOperationType) {
	t.Helper()
	pattern := kafka.PatternTypeLiteral
	if prefix, found := strings.CutSuffix(name, "*"); found && prefix != "" {
		name, pattern = prefix, kafka.PatternTypePrefixed
	}
	request := &kafka.CreateACLsRequest{}
	for _, operation := range operations {
		request.ACLs = append(request.ACLs, kafka.ACLEntry{ResourceType: resource, ResourceName: name, ResourcePatternType: pattern,
			Principal: principal, Host: "*", Operation: operation, PermissionType: kafka.ACLPermissionTypeAllow})
	}
	resp, err := c.AdminClient(t).CreateACLs(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range resp.Errors {
		if err != nil {
			t.Fatal(err)
		}
	}
}
