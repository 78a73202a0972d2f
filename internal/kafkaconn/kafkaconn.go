// Package kafkaconn makes the connection to Kafka: one kafka-go Client with
// every setting that matters written out, TLS and SASL in front of it, and one
// clear sentence for whatever may go wrong on the way ([Explain]).
//
// It is a leaf. A client from here is safe for concurrent use and is closed
// with [Close] when nobody sends through it any more.
package kafkaconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Settings of every client. They are constants because the commit protocol's
// time budget (60 s transaction time-out, own abort at 45 s) is built on them.
const (
	// requestTimeout bounds one request and its answer. Without it a dead peer
	// blocks for ever: kafka-go sets a deadline on the connection only if the
	// context has one.
	requestTimeout = 10 * time.Second

	// dialTimeout bounds making a connection: TCP, TLS, ApiVersions and SASL. kafka-go
	// chooses among the bootstrap addresses by chance; one that stands still takes
	// the connection and then says nothing, which costs all of it.
	dialTimeout = 5 * time.Second

	// connectTimeout bounds the TCP part towards one address, so that one dead
	// bootstrap broker does not use up the others' time. It leaves room for one
	// lost SYN (repeated after 1 s).
	connectTimeout = 2 * time.Second

	// idleTimeout closes unused connections well before brokers do
	// (connections.max.idle.ms, 10 min by default) and before the NATs and
	// load balancers that drop silent connections without a word (often 4 to 5 min).
	idleTimeout = time.Minute

	// metadataTTL bounds how long a moved partition leader stays unknown.
	// kafka-go does not refresh its metadata when a broker answers "not the
	// leader"; it only waits for this to pass (6 s by default). It is also the
	// time within which a broker must answer a metadata request.
	metadataTTL = time.Second

	// keepAlive probes idle connections, so that a peer that vanished without
	// closing is noticed.
	keepAlive = 15 * time.Second
)

// Options say where the cluster is and how to be let in. Brokers is required.
type Options struct {
	// Brokers are the bootstrap addresses, host:port. The other brokers are
	// found through any of them.
	Brokers []string

	// Topics are the topics that the client will touch. kafka-go asks for the
	// metadata twice a second on average: with this list it asks for these
	// topics only, and learns of one that the ACLs hide. Empty means every topic
	// of the cluster, for tools whose topics are not known beforehand.
	Topics []string

	// ClientID names this program in the brokers' logs and quotas.
	ClientID string

	// TLS, if set, encrypts every connection. Nil means plain TCP.
	TLS *TLS

	// SASL, if set, authenticates every connection. Nil means none; a client
	// certificate (TLS.CertFile) needs none.
	SASL *SASL

	// DialContext, if set, opens the TCP connections instead of a net.Dialer,
	// for networks in memory and for tests. Its context carries the dial timeout.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// MetadataTTL is how long a moved leader may stay unknown; 0: a second. For tests
	// in which weeks pass and no leader moves.
	MetadataTTL time.Duration
}

// New returns a client of the cluster. It opens no connection: the first
// request does, and its error says what is wrong with the network or the
// credentials. All problems of the options are reported at once.
func New(opts Options) (*kafka.Client, error) {
	brokersErr := checkBrokers(opts.Brokers)
	tlsConfig, tlsErr := opts.TLS.config()
	mechanism, saslErr := opts.SASL.mechanism(opts)
	if err := errors.Join(brokersErr, tlsErr, saslErr); err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	dial := opts.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlive}).DialContext
	}
	return &kafka.Client{
		Addr:    kafka.TCP(opts.Brokers...),
		Timeout: requestTimeout,
		Transport: &kafka.Transport{
			Dial:           dial,
			DialTimeout:    dialTimeout,
			IdleTimeout:    idleTimeout,
			MetadataTTL:    cmp.Or(opts.MetadataTTL, metadataTTL),
			MetadataTopics: opts.Topics,
			ClientID:       opts.ClientID,
			TLS:            tlsConfig,
			SASL:           mechanism,
		},
	}, nil
}

// DialerOf returns the client's way to one broker at a time, for what kafka-go
// does over connections of its own: the membership of a consumer group.
func DialerOf(client *kafka.Client) *kafka.Dialer {
	dialer := &kafka.Dialer{Timeout: dialTimeout}
	if t, ok := client.Transport.(*kafka.Transport); ok {
		dialer.ClientID, dialer.DialFunc, dialer.TLS, dialer.SASLMechanism = t.ClientID, t.Dial, t.TLS, t.SASL
	}
	return dialer
}

// Close closes the client's connections, those in use once their request is
// answered. The client must not be used afterwards: kafka-go would quietly open
// new connections.
func Close(client *kafka.Client) {
	if transport, ok := client.Transport.(*kafka.Transport); ok {
		transport.CloseIdleConnections()
	}
}

func checkBrokers(brokers []string) error {
	if len(brokers) == 0 {
		return errors.New("no brokers: name at least one as host:port in kafka.brokers")
	}
	var problems []error
	for _, broker := range brokers {
		host, port, err := net.SplitHostPort(broker)
		if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil || number == 0 {
			problems = append(problems, fmt.Errorf("broker %q: want host:port, such as kafka-1.example.com:9092", broker))
		}
	}
	return errors.Join(problems...)
}

// ForBroker returns a client with the same settings that asks this one broker
// only, for what each broker has to be asked for itself. It has connections of
// its own: the caller closes it.
func ForBroker(client *kafka.Client, broker kafka.Broker) *kafka.Client {
	single := &kafka.Client{
		Addr:      kafka.TCP(net.JoinHostPort(broker.Host, strconv.Itoa(broker.Port))),
		Timeout:   client.Timeout,
		Transport: client.Transport,
	}
	if t, ok := client.Transport.(*kafka.Transport); ok {
		single.Transport = &kafka.Transport{
			Dial:           t.Dial,
			DialTimeout:    t.DialTimeout,
			IdleTimeout:    t.IdleTimeout,
			MetadataTTL:    t.MetadataTTL,
			MetadataTopics: t.MetadataTopics,
			ClientID:       t.ClientID,
			TLS:            t.TLS,
			SASL:           t.SASL,
		}
	}
	return single
}
