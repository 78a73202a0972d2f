package kafkaconn_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/embedded"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/kafkatest"
)

// ask sends one request and explains what comes of it.
func ask(ctx context.Context, t *testing.T, opts kafkaconn.Options) error {
	t.Helper()
	client, err := kafkaconn.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	_, err = client.Metadata(ctx, &kafka.MetadataRequest{})
	return kafkaconn.Explain(err, "ask the broker")
}

func startEmbedded(t *testing.T, opts ...kfake.Opt) *embedded.Cluster {
	t.Helper()
	cluster, err := embedded.Start(embedded.Options{Kafka: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	return cluster
}

const user, password = "alice", "pass-word=1"

func sasl(mechanism kafkaconn.Mechanism) *kafkaconn.SASL {
	return &kafkaconn.SASL{Mechanism: mechanism, Username: user, Password: password, AllowPlainWithoutTLS: []string{"127.0.0.1"}}
}

// connection is one way to connect, and what comes of it; "" is success.
type connection struct {
	opts kafkaconn.Options
	says string
}

func checkConnections(t *testing.T, brokers []string, connections map[string]connection) {
	t.Helper()
	for name, c := range connections {
		t.Run(name, func(t *testing.T) {
			c.opts.Brokers = brokers
			err := ask(t.Context(), t, c.opts)
			if c.says == "" {
				if err != nil {
					t.Errorf("ask: %v", err)
				}
				return
			}
			var problem *kafkaconn.Problem
			if !errors.As(err, &problem) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want a problem that says %q", err, c.says)
			}
			if problem.Remedy == "" || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), password) {
				t.Errorf("%q: want one sentence with a remedy and without the password", err)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	certificates := kafkatest.NewCertificates(t)
	other := kafkatest.NewCertificates(t)
	cluster := startEmbedded(t, kfake.TLS(certificates.ServerTLS(t, false)))
	checkConnections(t, cluster.Brokers(), tlsConnections(certificates, other))
}

func tlsConnections(certificates, other *kafkatest.Certificates) map[string]connection {
	trusting := func(file string, name string) kafkaconn.Options {
		return kafkaconn.Options{TLS: &kafkaconn.TLS{CAFile: file, ServerName: name}}
	}
	return map[string]connection{
		"trusted":           {trusting(certificates.CAFile, ""), ""},
		"by another name":   {trusting(certificates.CAFile, "localhost"), ""},
		"unknown authority": {trusting(other.CAFile, ""), "signed by an authority that is not trusted"},
		"system's own":      {kafkaconn.Options{TLS: &kafkaconn.TLS{}}, "signed by an authority that is not trusted"},
		"wrong name":        {trusting(certificates.CAFile, "kafka.example.com"), "for another host name"},
		"plain client":      {kafkaconn.Options{}, "with what the listener at this port expects"},
	}
}

func TestMutualTLS(t *testing.T) {
	certificates := kafkatest.NewCertificates(t)
	other := kafkatest.NewCertificates(t)
	cluster := startEmbedded(t, kfake.TLS(certificates.ServerTLS(t, true)))
	checkConnections(t, cluster.Brokers(), mutualTLSConnections(certificates, other))
}

func mutualTLSConnections(certificates, other *kafkatest.Certificates) map[string]connection {
	showing := func(c *kafkatest.Certificates) kafkaconn.Options {
		return kafkaconn.Options{TLS: &kafkaconn.TLS{CAFile: certificates.CAFile, CertFile: c.ClientCertFile, KeyFile: c.ClientKeyFile}}
	}
	return map[string]connection{
		"own certificate":     {showing(certificates), ""},
		"foreign certificate": {showing(other), "the broker refused the TLS handshake"},
		"no certificate":      {kafkaconn.Options{TLS: &kafkaconn.TLS{CAFile: certificates.CAFile}}, "the broker refused the TLS handshake"},
	}
}

// TestRenewedCertificateNeedsNoRestart: the files are read at each handshake.
func TestRenewedCertificateNeedsNoRestart(t *testing.T) {
	old, renewed := kafkatest.NewCertificates(t), kafkatest.NewCertificates(t)
	cluster := startEmbedded(t, kfake.TLS(renewed.ServerTLS(t, true)))
	certFile, keyFile := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	place := func(c *kafkatest.Certificates) {
		for from, to := range map[string]string{c.ClientCertFile: certFile, c.ClientKeyFile: keyFile} {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	place(old)
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), TLS: &kafkaconn.TLS{CAFile: renewed.CAFile, CertFile: certFile, KeyFile: keyFile}})
	if err != nil {
		t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	if _, err := client.Metadata(t.Context(), &kafka.MetadataRequest{}); err == nil {
		t.Fatal("the old certificate is accepted")
	}
	place(renewed)
	kafkatest.Eventually(t, 10*time.Second, "the renewed certificate is used", func() error {
		_, err := client.Metadata(t.Context(), &kafka.MetadataRequest{})
		return err
	})
}

func TestSASL(t *testing.T) {
	cluster := startEmbedded(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", user, password),
		kfake.Superuser("SCRAM-SHA-256", user, password), kfake.Superuser("SCRAM-SHA-512", user, password))
	connections := saslConnections(nil)
	for name, c := range connections {
		if strings.Contains(name, "wrong password") { // kfake just closes the connection
			connections[name] = connection{c.opts, "closed the connection"}
		}
	}
	checkConnections(t, cluster.Brokers(), connections)
}

// saslConnections are without TLS if tls is nil.
func saslConnections(tls *kafkaconn.TLS) map[string]connection {
	with := func(s *kafkaconn.SASL) kafkaconn.Options { return kafkaconn.Options{TLS: tls, SASL: s} }
	wrong := func(mechanism kafkaconn.Mechanism) kafkaconn.Options {
		s := sasl(mechanism)
		s.Password = "guess"
		return with(s)
	}
	return map[string]connection{
		"PLAIN":                     {with(sasl(kafkaconn.Plain)), ""},
		"SCRAM-SHA-256":             {with(sasl(kafkaconn.ScramSHA256)), ""},
		"SCRAM-SHA-512":             {with(sasl(kafkaconn.ScramSHA512)), ""},
		"lower case":                {with(sasl("scram-sha-512")), ""},
		"PLAIN, wrong password":     {wrong(kafkaconn.Plain), "refused the user name or password"},
		"SCRAM-256, wrong password": {wrong(kafkaconn.ScramSHA256), "refused the user name or password"},
		"SCRAM-512, wrong password": {wrong(kafkaconn.ScramSHA512), "refused the user name or password"},
		"no login at all":           {with(nil), "with what the listener at this port expects"},
	}
}

func TestWithoutTLSorSASL(t *testing.T) {
	checkConnections(t, startEmbedded(t).Brokers(), map[string]connection{"plain": {kafkaconn.Options{}, ""}})
}

// TestPlainStaysWithNamedHosts: the cluster may name hosts that the
// configuration does not.
func TestPlainStaysWithNamedHosts(t *testing.T) {
	opts := kafkaconn.Options{Brokers: []string{"kafka.example.com:9092", "127.0.0.1:9092"}, SASL: sasl(kafkaconn.Plain)}
	if _, err := kafkaconn.New(opts); err == nil || !strings.Contains(err.Error(), "readable to kafka.example.com:") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("New: %v, want a refusal that names kafka.example.com only", err)
	}

	cluster := startEmbedded(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", user, password))
	s := sasl(kafkaconn.Plain)
	s.AllowPlainWithoutTLS = []string{"bootstrap"}
	opts = kafkaconn.Options{
		Brokers: []string{"bootstrap:9092"}, SASL: s,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "bootstrap:9092" {
				address = cluster.Brokers()[0]
			}
			return cluster.DialContext(ctx, network, address)
		},
	}
	client, err := kafkaconn.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	if _, err := client.Metadata(t.Context(), &kafka.MetadataRequest{}); err != nil {
		t.Fatalf("the named host: %v", err)
	}
	// The controller is dialled by the address that the cluster advertises.
	_, err = client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "a", NumPartitions: 1, ReplicationFactor: 1}}})
	if err = kafkaconn.Explain(err, "create topic a"); err == nil || !strings.Contains(err.Error(), "the password would cross the network readable") {
		t.Errorf("an advertised host that is not named: %v, want a refusal", err)
	}
}

func TestOptionsAreRefusedAllAtOnce(t *testing.T) {
	certificates := kafkatest.NewCertificates(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts kafkaconn.Options
		says []string
	}{
		"no brokers":      {kafkaconn.Options{}, []string{"no brokers"}},
		"no port":         {kafkaconn.Options{Brokers: []string{"kafka", ":9092", "kafka:0", "kafka:65536"}}, []string{`"kafka"`, `":9092"`, `"kafka:0"`, `"kafka:65536"`}},
		"everything":      {kafkaconn.Options{TLS: &kafkaconn.TLS{CAFile: empty, CertFile: "x"}, SASL: &kafkaconn.SASL{}}, []string{"no brokers", "no PEM certificate", "both the certificate file and the key file", "user name and password"}},
		"missing CA":      {kafkaconn.Options{TLS: &kafkaconn.TLS{CAFile: "/nonexistent/ca.pem"}}, []string{"/nonexistent/ca.pem"}},
		"file and pool":   {kafkaconn.Options{TLS: &kafkaconn.TLS{CAFile: certificates.CAFile, CAPool: x509.NewCertPool()}}, []string{"a file or a pool, not both"}},
		"pair of two":     {kafkaconn.Options{TLS: &kafkaconn.TLS{CertFile: certificates.ClientCertFile, KeyFile: certificates.ServerKeyFile}}, []string{"load TLS client certificate"}},
		"mechanism":       {kafkaconn.Options{SASL: &kafkaconn.SASL{Mechanism: "GSSAPI", Username: "u", Password: "p"}}, []string{`"GSSAPI"`, "SCRAM-SHA-512"}},
		"SCRAM character": {kafkaconn.Options{SASL: &kafkaconn.SASL{Mechanism: kafkaconn.ScramSHA256, Username: "u", Password: "p\x00\u0221"}}, []string{"has a character that SCRAM does not allow"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kafkaconn.New(c.opts)
			if err == nil {
				t.Fatal("New succeeds")
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q does not say %q", err, text)
				}
			}
		})
	}
}

func TestPasswordIsNeverPrinted(t *testing.T) {
	s := sasl(kafkaconn.Plain)
	asJSON, err := json.Marshal(struct{ S any }{s})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s", s, s, s, s), fmt.Sprintf("%v %+v %#v", *s, *s, *s), string(asJSON)} {
		if strings.Contains(text, password) || !strings.Contains(text, user) {
			t.Errorf("%s: want the user and not the password", text)
		}
	}
}

// TestUnreachable: what the network does to a connection, in fake time.
func TestUnreachable(t *testing.T) {
	silence := func(context.Context, string, string) (net.Conn, error) {
		ours, _ := net.Pipe() // the other end never reads
		return ours, nil
	}
	hangsUp := func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		theirs.Close()
		return ours, nil
	}
	for name, c := range map[string]struct {
		dial   func(context.Context, string, string) (net.Conn, error)
		says   string
		within time.Duration
	}{
		"silent":        {silence, "did not answer in time", 10 * time.Second},
		"hangs up":      {hangsUp, "closed the connection", time.Second},
		"never accepts": {func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }, "did not answer in time", 10 * time.Second},
		"no such host": {func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: "kafka", Err: "no such host", IsNotFound: true}}
		}, "host name is not known here", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := ask(t.Context(), t, kafkaconn.Options{Brokers: []string{"kafka:9092"}, DialContext: c.dial})
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %q", err, c.says)
				}
				if took := time.Since(start); took > c.within {
					t.Errorf("told after %s, want at most %s", took, c.within)
				}
				time.Sleep(c.within) // kafka-go gives up a connection that it is making only when its time is over
			})
		})
	}
}

// TestFrozenBroker: the connection stands, but answers stop, as with SIGSTOP.
func TestFrozenBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, err := embedded.Start(embedded.Options{Network: new(kfake.VirtualNetwork)})
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		var frozen atomic.Bool
		client, err := kafkaconn.New(kafkaconn.Options{Brokers: cluster.Brokers(), DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			broker, err := cluster.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			go forward(broker, theirs, &frozen)
			go forward(theirs, broker, &frozen)
			return ours, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer kafkaconn.Close(client)
		lookUp := func() error {
			_, err := client.FindCoordinator(t.Context(), &kafka.FindCoordinatorRequest{Key: "a", KeyType: kafka.CoordinatorKeyTypeTransaction})
			return kafkaconn.Explain(err, "look up coordinator")
		}
		if err := lookUp(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the connection is free again: a new one would be given up earlier
		frozen.Store(true)
		start := time.Now()
		if err := lookUp(); err == nil || !strings.Contains(err.Error(), "did not answer in time") || time.Since(start) != 10*time.Second {
			t.Errorf("after %s: %v, want the end of the 10 s of a request", time.Since(start), err)
		}
	})
}

// forward copies until either side is closed; while frozen it swallows.
func forward(to, from net.Conn, frozen *atomic.Bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if !frozen.Load() {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

func TestNothingListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	if err := ask(t.Context(), t, kafkaconn.Options{Brokers: []string{address}}); err == nil || !strings.Contains(err.Error(), "nothing listens") || !strings.Contains(err.Error(), address) {
		t.Errorf("error %v, want one that names %s", err, address)
	}
}

// TestOneDeadBootstrapBrokerIsNoMatter: the other one is asked.
func TestOneDeadBootstrapBrokerIsNoMatter(t *testing.T) {
	cluster := startEmbedded(t)
	for range 5 { // kafka-go shuffles the addresses
		if err := ask(t.Context(), t, kafkaconn.Options{Brokers: []string{"127.0.0.1:1", cluster.Brokers()[0]}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExplainCodes(t *testing.T) {
	for code, says := range map[kafka.Error][]string{
		kafka.TopicAuthorizationFailed:           {"ACLs deny this user the topic", "kafka-acls.sh", "--topic"},
		kafka.TransactionalIDAuthorizationFailed: {"ACLs deny this user the transactional id", "--transactional-id"},
		kafka.ClusterAuthorizationFailed:         {"ACLs deny this user the operation on the cluster", "--cluster"},
		kafka.GroupAuthorizationFailed:           {"ACLs deny this user the consumer group", "--group"},
		kafka.UnsupportedVersion:                 {"too old", "3.7"},
		kafka.InvalidTransactionTimeout:          {"transaction.max.timeout.ms"},
		kafka.InvalidReplicationFactor:           {"fewer brokers than the replication factor"},
		kafka.PolicyViolation:                    {"policy"},
		kafka.UnknownTopicOrPartition:            {"does not exist"},
	} {
		err := kafkaconn.Explain(fmt.Errorf("kafka.(*Client).Produce: %w", code), "commit shard 3")
		for _, text := range append(says, "commit shard 3: ", fmt.Sprintf("code %d", int(code))) {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q does not say %q", err, text)
			}
		}
		if !errors.Is(err, code) || strings.Contains(err.Error(), "kafka.(*Client)") || strings.Contains(err.Error(), code.Description()) {
			t.Errorf("%q: want the code to be kept, kafka-go's own words not", err)
		}
	}
}

func TestExplainLeavesOthersAlone(t *testing.T) {
	if err := kafkaconn.Explain(nil, "do"); err != nil {
		t.Errorf("Explain(nil) = %v", err)
	}
	once := kafkaconn.Explain(io.EOF, "do the first thing")
	if twice := kafkaconn.Explain(fmt.Errorf("wrapped: %w", once), "do the second"); !strings.HasPrefix(twice.Error(), "wrapped: do the first thing: ") {
		t.Errorf("explained twice: %v", twice)
	}
	strange := errors.New("strange")
	if err := kafkaconn.Explain(strange, "do it"); !errors.Is(err, strange) || err.Error() != "do it: strange" {
		t.Errorf("an unknown error became %q", err)
	}
	if err := kafkaconn.Explain(context.Canceled, "do it"); err.Error() != "do it: context canceled" {
		t.Errorf("a cancelled call became %q", err)
	}
}

func TestPermanent(t *testing.T) {
	for _, err := range []error{kafka.TopicAuthorizationFailed, kafka.SASLAuthenticationFailed, x509.UnknownAuthorityError{}, fmt.Errorf("x: %w", kafka.UnsupportedVersion)} {
		if !kafkaconn.Permanent(err) {
			t.Errorf("%v: want permanent", err)
		}
	}
	for _, err := range []error{nil, io.EOF, context.DeadlineExceeded, kafka.NotLeaderForPartition, kafka.UnknownTopicOrPartition, protocol.ErrNoLeader, &net.DNSError{}, errors.New("strange")} {
		if err != nil && kafkaconn.Permanent(err) {
			t.Errorf("%v: want temporary", err)
		}
	}
}

// TestNetworkTroubles: what the network does is told apart, and from what only looks
// like it.
func TestNetworkTroubles(t *testing.T) {
	for _, c := range []struct {
		err                    error
		timedOut, cut, refused bool
	}{
		{err: context.DeadlineExceeded, timedOut: true},
		{err: &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, timedOut: true},
		{err: fmt.Errorf("x: %w", io.ErrUnexpectedEOF), cut: true},
		{err: &net.OpError{Op: "write", Err: syscall.ECONNRESET}, cut: true},
		{err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, refused: true},
		{err: kafka.NotLeaderForPartition},
		{err: errors.Join(x509.UnknownAuthorityError{}, io.EOF)},
	} {
		if timedOut, cut, refused := kafkaconn.TimedOut(c.err), kafkaconn.Cut(c.err), kafkaconn.Refused(c.err); timedOut != c.timedOut || cut != c.cut || refused != c.refused {
			t.Errorf("%v: timed out %v, cut %v, refused %v", c.err, timedOut, cut, refused)
		}
	}
}

// TestCloseEndsEverything: synctest fails if a goroutine of the client outlives Close.
func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, err := embedded.Start(embedded.Options{Brokers: 2, Network: new(kfake.VirtualNetwork)})
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		if err := ask(t.Context(), t, kafkaconn.Options{Brokers: cluster.Brokers(), DialContext: cluster.DialContext}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOnKafka is the same on a real broker, where the words of a refusal differ.
func TestOnKafka(t *testing.T) {
	kafkatest.ForEachVersion(t, func(t *testing.T, version string) {
		certificates, other := kafkatest.NewCertificates(t), kafkatest.NewCertificates(t)
		users := map[string]string{user: password}
		scramUsers := map[string]string{user: password}
		t.Run("SSL", func(t *testing.T) {
			cluster := kafkatest.Start(t, kafkatest.Options{Version: version, ClientProtocol: "SSL", Properties: certificates.TLSProperties(true)})
			checkConnections(t, cluster.Bootstrap(), mutualTLSConnections(certificates, other))
			checkConnections(t, []string{cluster.Brokers[0].AdminAddress}, map[string]connection{
				"plain": {kafkaconn.Options{}, ""},
				"TLS":   {kafkaconn.Options{TLS: &kafkaconn.TLS{}}, "with what the listener at this port expects"},
				"SASL":  {kafkaconn.Options{SASL: sasl(kafkaconn.Plain)}, "does not want SASL"},
			})
		})
		t.Run("SASL_SSL", func(t *testing.T) {
			properties := certificates.TLSProperties(false)
			maps.Copy(properties, kafkatest.SASLProperties(users))
			cluster := kafkatest.Start(t, kafkatest.Options{Version: version, ClientProtocol: "SASL_SSL", Properties: properties, ScramUsers: scramUsers})
			checkConnections(t, cluster.Bootstrap(), saslConnections(&kafkaconn.TLS{CAFile: certificates.CAFile}))
		})
		t.Run("SASL_PLAINTEXT", func(t *testing.T) {
			properties := kafkatest.SASLProperties(users)
			properties["listener.name.client.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256"
			cluster := kafkatest.Start(t, kafkatest.Options{Version: version, ClientProtocol: "SASL_PLAINTEXT", Properties: properties, ScramUsers: scramUsers})
			connections := saslConnections(nil)
			for _, name := range []string{"SCRAM-SHA-512", "lower case", "SCRAM-512, wrong password"} {
				connections[name] = connection{connections[name].opts, "does not offer this SASL mechanism"}
			}
			checkConnections(t, cluster.Bootstrap(), connections)
		})
	})
}
