package kafkaconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Problem is an error that a person can act on: what was being done, what is
// wrong and what mends it. [Explain] makes it.
type Problem struct {
	Doing   string // verb first, naming the entity: "read webex.cdr.offsets-3 at offset 17"
	Wrong   string // "the broker closed the connection"
	Remedy  string // "check that ..."
	Err     error  // as kafka-go returned it
	forGood bool
}

// Error is one sentence with the cause, shortened, at its end.
func (p *Problem) Error() string {
	return fmt.Sprintf("%s: %s; %s (%s)", p.Doing, p.Wrong, p.Remedy, cause(p.Err))
}

func (p *Problem) Unwrap() error { return p.Err }

// Explain returns err as a [Problem] that says what went wrong while doing, and
// the remedy. Doing begins with a verb and names the entity. An error that is
// explained already passes unchanged, one that it does not know is wrapped, and
// nil stays nil.
func Explain(err error, doing string) error {
	if err == nil {
		return nil
	}
	var explained *Problem
	if errors.As(err, &explained) {
		return err
	}
	for _, e := range explanations {
		if e.matches(err) {
			return &Problem{Doing: doing, Wrong: e.wrong, Remedy: e.remedy, Err: err, forGood: e.forGood}
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Permanent reports whether err is of the kind that waiting does not mend: a
// right, a certificate, a setting. It does not cover what is wrong with one
// request, such as a batch too large or a stale epoch.
func Permanent(err error) bool {
	for _, e := range explanations {
		if e.matches(err) {
			return e.forGood
		}
	}
	return false
}

// TimedOut reports whether nobody answered in time.
func TimedOut(err error) bool { return !Permanent(err) && isTimeout(err) }

// Cut reports whether the connection was closed under way, as a broker does that
// is stopped.
func Cut(err error) bool { return !Permanent(err) && isCut(err) }

// Refused reports whether nobody listens at the address.
func Refused(err error) bool { return !Permanent(err) && isRefused(err) }

// explanation is one row of the table: what kind of error, what is wrong, what
// to do, and whether it lasts until a person acts.
type explanation struct {
	matches func(error) bool
	wrong   string
	remedy  string
	forGood bool
}

// createOrGrant is the remedy where a topic cannot be seen.
const createOrGrant = "if this is the first time, let cdrbus run create it; else grant Describe on it"

// explanations is asked from the top; a cause stands before its consequence
// (a refused certificate before the closed connection).
var explanations = []explanation{
	// Names and certificates.
	{is[*insecureError], "the password would cross the network readable", "switch TLS on, use SCRAM-SHA-512, or name the broker's host as insecure", true},
	{is[*net.DNSError], "the broker's host name is not known here", "check kafka.brokers, and that the brokers' advertised.listeners resolve from this machine", false},
	{is[x509.UnknownAuthorityError], "the broker's certificate is signed by an authority that is not trusted", "give the cluster's CA certificate in kafka.tls", true},
	{is[x509.HostnameError], "the broker's certificate is for another host name", "dial the broker by a name that its certificate holds, or set the TLS server name", true},
	{is[x509.CertificateInvalidError], "the broker's certificate is not valid", "renew the broker's certificate, or set this machine's clock right", true},
	{is[tls.RecordHeaderError], "the broker's port does not speak TLS", "use the broker's TLS port, or switch TLS off", true},
	{hasText("remote error: tls"), "the broker refused the TLS handshake", "check the client certificate and key: the broker may require one, or not trust its issuer", true},
	{hasText("expecting TLS"), "the broker's port speaks only TLS", "switch TLS on, or use the broker's plain port", true},

	// Credentials.
	{code(kafka.SASLAuthenticationFailed), "the broker refused the user name or password", "check kafka.sasl: the credentials, and whether the user exists for this mechanism", true},
	{code(kafka.UnsupportedSASLMechanism), "the broker does not offer this SASL mechanism", "choose one of the broker's sasl.enabled.mechanisms", true},
	{code(kafka.IllegalSASLState), "the broker's port does not want SASL", "use the broker's SASL port, or leave kafka.sasl out", true},
	{code(kafka.SecurityDisabled), "the broker has no security features enabled", "set an authorizer on the brokers", true},

	// Rights.
	{code(kafka.TopicAuthorizationFailed), "the ACLs deny this user the topic", "let an administrator run kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation Read --operation Write --operation Describe --operation DescribeConfigs --topic TOPIC", true},
	{code(kafka.TransactionalIDAuthorizationFailed), "the ACLs deny this user the transactional id", "let an administrator run kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation Write --operation Describe --transactional-id PREFIX --resource-pattern-type prefixed", true},
	{code(kafka.GroupAuthorizationFailed), "the ACLs deny this user the consumer group", "let an administrator run kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation Read --group GROUP", true},
	{code(kafka.ClusterAuthorizationFailed), "the ACLs deny this user the operation on the cluster", "let an administrator run kafka-acls.sh --bootstrap-server HOST:PORT --add --allow-principal User:NAME --operation IdempotentWrite --cluster, with --operation Create to let topics be created", true},

	// Settings of the cluster.
	{code(kafka.UnsupportedVersion), "the broker is too old for this request", "use Apache Kafka 3.7 or later", true},
	{allText("unsupported", "version", "not in range"), "the broker and this program share no version of this request", "use Apache Kafka 3.7 or later", true},
	{code(kafka.InvalidTransactionTimeout), "the transaction time-out is longer than the broker allows", "raise the brokers' transaction.max.timeout.ms", true},
	{code(kafka.PolicyViolation), "a policy of the cluster forbids it", "ask the cluster's administrators, or let them create the topic", true},
	{code(kafka.InvalidReplicationFactor), "the cluster has fewer brokers than the replication factor", "lower kafka.replication_factor, or start the missing brokers", true},
	{code(kafka.InvalidConfiguration), "the broker refuses a topic setting", "look at the setting that it names", true},
	{code(kafka.InvalidTopic), "the topic's name is not allowed", "use letters, digits, dots, dashes and underscores; names that differ only in dot and underscore collide", true},
	{code(kafka.InvalidTimestamp), "the topic refuses the records' timestamps", "set message.timestamp.type=CreateTime and a larger message.timestamp.before.max.ms and after.max.ms on the topic, and this machine's clock right", true},
	{code(kafka.UnsupportedCompressionType), "the broker does not take this compression", "choose another kafka.compression", true},
	{code(kafka.MessageSizeTooLarge), "the batch is larger than the topic takes", "raise max.message.bytes of the topic with kafka-configs.sh", false},
	{code(kafka.RecordListTooLarge), "the batch is larger than a log segment", "raise segment.bytes of the topic with kafka-configs.sh", false},

	// Clusters in motion.
	{code(kafka.UnknownTopicOrPartition), "the topic or partition does not exist, or the ACLs hide it", createOrGrant, false},
	{target(protocol.ErrNoTopic), "the topic does not exist, or the ACLs hide it", createOrGrant, false},
	{target(protocol.ErrNoPartition), "the partition does not exist, or the ACLs hide the topic", createOrGrant, false},
	{target(protocol.ErrNoLeader), "the partition has no leader", "start the brokers that hold its replicas", false},
	{code(kafka.LeaderNotAvailable), "the partition has no leader", "start the brokers that hold its replicas", false},
	{code(kafka.BrokerNotAvailable), "a broker that leads the partition is not available", "start the broker", false},
	{code(kafka.NotLeaderForPartition), "the partition keeps moving from broker to broker", "look at the brokers' logs for leader elections", false},
	{code(kafka.NotEnoughReplicas), "too few replicas of the partition are in sync", "start the missing brokers, or lower min.insync.replicas", false},
	{code(kafka.GroupCoordinatorNotAvailable), "the coordinator is not available", "check that the internal topics __transaction_state and __consumer_offsets have enough brokers for their replication factor", false},
	{code(kafka.KafkaStorageError), "the broker cannot use its disk", "look at the broker's log", false},
	{code(kafka.RequestTimedOut), "the broker did not finish in time", "check the brokers' load, and that all replicas are up", false},

	// The network, last: it is also what many of the above look like.
	{isRefused, "nothing listens at the broker's address", "start the broker, or correct kafka.brokers", false},
	{anyTarget(syscall.EHOSTUNREACH, syscall.ENETUNREACH), "there is no route to the broker's address", "check the network and kafka.brokers", false},
	{anyTarget(context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.ETIMEDOUT), "the broker did not answer in time", "check kafka.brokers, firewalls between here and the brokers, and the brokers' load", false},
	{isTimeout, "the broker did not answer in time", "check kafka.brokers, firewalls between here and the brokers, and the brokers' load", false},
	{isCut, "the broker closed the connection", "if it never worked, compare kafka.tls and kafka.sasl with what the listener at this port expects; else the broker is restarting", false},
}

var (
	isRefused = target(syscall.ECONNREFUSED)
	isCut     = anyTarget(io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, io.ErrClosedPipe)
)

// is matches an error of a type.
func is[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}

func code(want kafka.Error) func(error) bool { return target(want) }

func target(want error) func(error) bool {
	return func(err error) bool { return errors.Is(err, want) }
}

func anyTarget(wants ...error) func(error) bool {
	return func(err error) bool {
		for _, want := range wants {
			if errors.Is(err, want) {
				return true
			}
		}
		return false
	}
}

// hasText matches what the libraries give no type for.
func hasText(text string) func(error) bool { return allText(text) }

func allText(texts ...string) func(error) bool {
	return func(err error) bool {
		message := err.Error()
		for _, text := range texts {
			if !strings.Contains(message, text) {
				return false
			}
		}
		return true
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// cause is the error's text without kafka-go's textbook description of each
// code and without the names of its methods.
func cause(err error) string {
	text := err.Error()
	var code kafka.Error
	if errors.As(err, &code) {
		text = strings.Replace(text, code.Error(), fmt.Sprintf("%s, code %d", code.Title(), int(code)), 1)
	}
	if method, rest, found := strings.Cut(text, ": "); found && strings.HasPrefix(method, "kafka.(*Client).") {
		text = rest
	}
	return text
}
