// Package config reads the one configuration file of cdrbus.
//
// The structs of this file are the manual: each field says what it means, its
// unit and default, and what excludes it; docs/configuration.md is made from
// them. A Config from [Load] is complete (defaults filled in, environment
// applied, paths made absolute) and has passed every check that needs neither
// network nor clock; its fields are not changed afterwards.
//
// The way of a setting: defaults (defaults.go) -> file (decode.go, strict) ->
// environment (environ.go) -> rules (validate.go) -> secret files (files.go).
// Whatever is wrong on that way is collected, and reported at once ([Problems]).
package config

import (
	"fmt"
	"strings"
	"time"

	"cdrbus/internal/partition"
)

// Config is everything that cdrbus is told. Only sources, their credentials and
// the addresses of Kafka and of the schema registry usually need to be written.
type Config struct {
	// How events reach the topic. With `exactly_once` each commit is a Kafka
	// transaction: readers with isolation level read_committed see every record
	// once. With `at_least_once` there are no transactions, for brokers that do
	// not allow them, and a crash may repeat records.
	Delivery Delivery `yaml:"delivery"`

	// How the shards are shared out. With `static` this process owns all of
	// them, and no second one may run under the same transactional ID prefix.
	// With `group` any number of processes with the same configuration share
	// them, as members of a Kafka consumer group.
	Ownership Ownership `yaml:"ownership"`

	// Host names to which a credential may be sent over plain http://. Loopback
	// addresses need no entry. Each use is warned of at every start.
	InsecureHTTPHosts []string `yaml:"insecure_http_hosts"`

	// The Kafka cluster and the topics.
	Kafka Kafka `yaml:"kafka"`

	// The Confluent-compatible registry that holds the Avro schemas.
	SchemaRegistry SchemaRegistry `yaml:"schema_registry"`

	// The feeds to poll. At least one.
	Sources []Source `yaml:"sources"`

	// The Service Apps or Integrations whose tokens the sources use.
	Credentials []Credential `yaml:"credentials"`

	// How the Webex hosts (feed and token endpoint) are reached.
	HTTP HTTP `yaml:"http"`

	// What an event looks like in Kafka.
	Events Events `yaml:"events"`

	// How much memory windows may take.
	Memory Memory `yaml:"memory"`

	// The HTTP server for metrics, health and the status page.
	Admin Admin `yaml:"admin"`

	// The log, on standard error.
	Log Log `yaml:"log"`

	warnings []Problem
}

// Kafka is the cluster, how to be let in, and the topics.
type Kafka struct {
	// Brokers to begin with, each `host:port`. At least one; the others are
	// learned from the cluster. No two may be equal.
	Brokers []string `yaml:"brokers"`

	// Names of the six topics, all different.
	Topics Topics `yaml:"topics"`

	// Whether missing topics are created with the settings below. If not, they
	// must exist. Existing topics are checked in both cases.
	CreateTopics bool `yaml:"create_topics"`

	// Partitions of the offsets, windows, ids and deadletter topics: the number
	// of units into which sources are dealt. Every position carries it, so it
	// cannot be changed once there are any.
	Shards int `yaml:"shards"`

	// Partitions of the events topic when it is created. An existing topic
	// keeps its own number.
	Partitions int `yaml:"partitions"`

	// Replicas of each created topic. 0: the broker's default.replication.factor.
	ReplicationFactor int `yaml:"replication_factor"`

	// How record batches are compressed.
	Compression Compression `yaml:"compression"`

	// Encryption of the connections to the brokers.
	TLS KafkaTLS `yaml:"tls"`

	// Authentication at the brokers.
	SASL SASL `yaml:"sasl"`

	// First part of each transactional ID, `PREFIX.OFFSETS_TOPIC.SHARD`. Every
	// position carries it. Two installations on one cluster need two prefixes.
	TransactionalIDPrefix string `yaml:"transactional_id_prefix"`

	// The consumer group of `ownership: group`.
	Group GroupMembership `yaml:"group"`

	// Name of this program in the brokers' logs and quotas.
	ClientID string `yaml:"client_id"`

	// Most bytes of events that one transaction commits together, uncompressed.
	// A single window may be larger.
	MaxCommitBytes Bytes `yaml:"max_commit_bytes"`

	// After this time the broker aborts a transaction that was left open; cdrbus
	// itself aborts after three quarters of it. Not above the broker's
	// transaction.max.timeout.ms (15m by default).
	TransactionTimeout time.Duration `yaml:"transaction_timeout"`

	// How long the created topics keep their records. The offsets topic is
	// compacted and keeps the last position of every source for ever.
	Retention Retention `yaml:"retention"`
}

// GroupMembership is the consumer group whose members share the shards. Nothing
// is consumed through it; it only deals the shards out.
type GroupMembership struct {
	// Name of the group, the same for all members. Empty: `PREFIX.OFFSETS_TOPIC`
	// with the transactional ID prefix.
	ID string `yaml:"id"`

	// After how long of silence a member's shards are dealt out to the others.
	// Within the brokers' group.min.session.timeout.ms (6s by default) and
	// group.max.session.timeout.ms.
	SessionTimeout time.Duration `yaml:"session_timeout"`

	// What people call this process, on the status pages of all members. Empty:
	// host name and process ID.
	Member string `yaml:"member"`
}

// Topics are the names of the six topics.
type Topics struct {
	// Events: one record for each call detail record.
	Events string `yaml:"events"`

	// Positions: how far each source is committed. Compacted.
	Offsets string `yaml:"offsets"`

	// Receipts: one record for each committed window.
	Windows string `yaml:"windows"`

	// ID journal: the Report IDs of each commit.
	IDs string `yaml:"ids"`

	// Items that cannot be an event, with their raw bytes and the reason.
	DeadLetter string `yaml:"deadletter"`

	// Jobs that commands leave for the daemon, such as `cdrbus backfill`.
	Jobs string `yaml:"jobs"`
}

// KafkaTLS is the encryption of the connections to the brokers, TLS 1.2 or
// later. The certificate of the broker is always checked.
type KafkaTLS struct {
	// Whether to use TLS. The other keys of this section need it.
	Enabled bool `yaml:"enabled"`

	// The keys that say whom to trust and who we are.
	TLS `yaml:",inline"`
}

// TLS says whom to trust, and who we are. All of it is optional.
type TLS struct {
	// PEM certificates of the authorities to trust instead of the system's.
	CAFile string `yaml:"ca_file"`

	// PEM certificate chain of this client, for mutual TLS. Needs `key_file`.
	CertFile string `yaml:"cert_file"`

	// PEM private key of `cert_file`. Not readable for everybody.
	KeyFile string `yaml:"key_file"`

	// Name that the server's certificate must carry, instead of the host's.
	ServerName string `yaml:"server_name"`
}

// SASL is a user's login at the brokers.
type SASL struct {
	// Kind of login. Empty: none.
	Mechanism Mechanism `yaml:"mechanism"`

	// Name of the user. Required with a mechanism.
	Username string `yaml:"username"`

	// File with the user's password. Required with a mechanism.
	Password Secret `yaml:"password_file"`

	// Host names, without port, of brokers to which `plain` may send the
	// password over a connection without TLS, where anybody on the way reads it.
	// Each broker that the cluster names is held against this list.
	AllowPlainWithoutTLS []string `yaml:"allow_plain_without_tls"`
}

// Retention is how long created topics keep their records. Existing topics keep
// their own settings, which are checked.
type Retention struct {
	// Events. 0: the broker's default.
	Events time.Duration `yaml:"events"`

	// Receipts.
	Windows time.Duration `yaml:"windows"`

	// ID journal. At least the longest `lookback` of a source plus 7d, or a
	// restart could publish a record again. 0: exactly that.
	IDs time.Duration `yaml:"ids"`

	// Dead letters.
	DeadLetter time.Duration `yaml:"deadletter"`
}

// SchemaRegistry is the registry's address and login.
type SchemaRegistry struct {
	// Address of the registry; several of one cluster as a list, tried in turn.
	URLs URLs `yaml:"url"`

	// Whether the schemas are registered at start. If not, they must be
	// registered already, and are looked up.
	AutoRegister bool `yaml:"auto_register"`

	// User for basic authentication. Needs `password_file`; excludes
	// `bearer_token_file`.
	Username string `yaml:"username"`

	// File with the password of `username`.
	Password Secret `yaml:"password_file"`

	// File with a token for bearer authentication, read again for each request.
	BearerToken Secret `yaml:"bearer_token_file"`

	// Whom to trust with https:// addresses, and who we are.
	TLS TLS `yaml:"tls"`
}

// Source is one feed to poll.
type Source struct {
	// Identity of the source: key of its positions and receipts, label of its
	// metrics. It never changes while the source lives. 1 to 100 letters,
	// digits, dots, dashes or underscores.
	Name string `yaml:"name"`

	// Address of the feed at the host of the organisation's region. The only
	// query allowed is `orgId=`.
	URL string `yaml:"url"`

	// Which endpoint follows the live edge. `feed` selects by report time, at least
	// 5m old, 30d back. `stream` selects by time of insertion, 1m old, 12h back.
	// `auto` reads the stream, and the feed whenever it lags too far behind for it.
	// With all three the feed is read again by `sweeps`.
	Endpoint Endpoint `yaml:"endpoint"`

	// Name of the credential whose token to use. This or `token_file`.
	Credential string `yaml:"credential"`

	// File with a bare access token, read again whenever it changes. This or
	// `credential`.
	Token Secret `yaml:"token_file"`

	// Control Hub names of the locations to ask for, at most 10, none with a
	// comma. Empty: the whole organisation. Two sources of one credential must
	// not ask for the same location.
	Locations []string `yaml:"locations"`

	// Where a new source begins: a time ago (`24h`), a time (RFC 3339) or
	// `earliest`. Required. Used once, when the source has no position.
	Start Start `yaml:"start"`

	// Records per page (`max=`), 500 to 5000. 0: 5000, and 500 where the feed
	// refuses that.
	PageSize int `yaml:"page_size"`

	// Requests that the feed allows. Sources of one credential share one budget
	// and must state the same limits.
	Limits Limits `yaml:"limits"`

	// How far back the feed answers.
	Lookback time.Duration `yaml:"lookback"`

	// How old the end of a window must be before the feed is asked for it.
	MinAge time.Duration `yaml:"min_age"`

	// Widest window of one request. The feed allows 12h.
	MaxWindow time.Duration `yaml:"max_window"`

	// How far each live window reaches back behind the last one's end, for
	// records that came late. Less than `max_window`.
	Overlap time.Duration `yaml:"overlap"`

	// Later readings of `cdr_feed`, for records that appear minutes or a day after
	// their time. What they find is published with the header `late`. They get at
	// least a fifth of the request budget while they have something to do.
	Sweeps []Sweep `yaml:"sweeps"`

	// Text whose hash places the source in a shard. Empty: the credential's
	// name, or the source's own with a `token_file`. Sources of one credential
	// or token file must share one.
	ShardKey string `yaml:"shard_key"`

	// Whether to stop, instead of switching once to the host that the feed
	// names, when the organisation's data lives in another region (answer 451).
	StrictRegion bool `yaml:"strict_region"`
}

// Limits is the request budget of one credential, per minute.
type Limits struct {
	// First requests of windows.
	InitialPerMinute int `yaml:"initial_per_minute"`

	// Requests for further pages.
	PagesPerMinute int `yaml:"pages_per_minute"`
}

// Sweep reads again, every so often, what the feed holds for some time back.
// In the environment, and in short, it is written EVERY/BACK: `15m/2h`.
type Sweep struct {
	// Time between two sweeps, 1m or more and not more than `back`.
	Every time.Duration `yaml:"every"`

	// How far each one reaches back. Not more than `lookback`.
	Back time.Duration `yaml:"back"`
}

// Credential is a Service App or an Integration, whose access tokens cdrbus
// fetches with a refresh token.
type Credential struct {
	// Name for sources to refer to. 1 to 100 letters, digits, dots, dashes or
	// underscores.
	Name string `yaml:"name"`

	// File with the client ID.
	ClientID Secret `yaml:"client_id_file"`

	// File with the client secret.
	ClientSecret Secret `yaml:"client_secret_file"`

	// File in which cdrbus keeps the refresh token, replaced at each refresh,
	// mode 0600, with a lock file beside it. Its folder must be writable. One
	// file for each credential. Or the word `kafka`: the tokens are kept in the
	// offsets topic, sealed, where every member of a fleet finds them.
	TokenStore string `yaml:"token_store"`

	// Whether the file `token_store` lies on a file system that all members of a
	// fleet share. `ownership: group` needs that, or `token_store: kafka`.
	TokenStoreShared bool `yaml:"token_store_shared"`

	// File with the key that seals the tokens in Kafka: at least 32 characters,
	// such as `openssl rand -base64 32` makes. The same for all members. Required
	// with `token_store: kafka`, and only there.
	TokenKey Secret `yaml:"token_key_file"`

	// File with the refresh token to begin with, for `token_store: kafka`, and
	// only there. Read while Kafka holds none; and again whenever it changes, as
	// after a new authorisation.
	RefreshToken Secret `yaml:"refresh_token_file"`

	// Where tokens are refreshed.
	TokenURL string `yaml:"token_url"`
}

// HTTP is how the Webex hosts are reached.
type HTTP struct {
	// Address of a proxy, `http://`, `https://` or `socks5://`. Empty: none;
	// the environment's HTTPS_PROXY is not looked at.
	Proxy string `yaml:"proxy"`

	// User at the proxy. Needs `proxy_password_file`.
	ProxyUsername string `yaml:"proxy_username"`

	// File with the password of `proxy_username`.
	ProxyPassword Secret `yaml:"proxy_password_file"`

	// PEM certificates of authorities to trust besides the system's.
	CAFile string `yaml:"ca_file"`
}

// Events is what an event looks like in Kafka.
type Events struct {
	// Whether each event carries CloudEvents 1.0 headers (`ce_id` and so on).
	CloudEventsHeaders bool `yaml:"cloudevents_headers"`
}

// Memory bounds what windows take between the feed and Kafka. The rest of the
// program, and the set of published Report IDs, come on top.
type Memory struct {
	// Most bytes that one window may grow to; beyond, it is given up and asked
	// for again over half the time.
	MaxWindowBytes Bytes `yaml:"max_window_bytes"`

	// Most bytes of Report IDs to keep at hand, of all sources together: about 29 for
	// each record of the widest sweep's reach and a day. Beyond, the oldest ones are
	// loaded from the ID journal whenever a window of their time is read again, which
	// costs time and no promise.
	MaxIDBytes Bytes `yaml:"max_id_bytes"`

	// Bytes of all windows together. A window waits until its share is free.
	// Not less than `max_window_bytes`.
	Budget Bytes `yaml:"budget"`
}

// Admin is the HTTP server for /metrics, /healthz, /readyz and the status page.
type Admin struct {
	// Address to listen at, `host:port`. Empty: no server. It asks for no login.
	Listen string `yaml:"listen"`
}

// Log is how the program tells what it does.
type Log struct {
	// Least level that is written.
	Level LogLevel `yaml:"level"`

	// Form of a line. `auto`: console on a terminal, json otherwise.
	Format LogFormat `yaml:"format"`
}

// Warnings are what is allowed and yet should be known, such as credentials
// that travel readable. They are to be told at every start.
func (c *Config) Warnings() []Problem { return c.warnings }

// AbortAfter is when cdrbus itself gives an open transaction up: well before
// the broker does, whose abort looks like another owner.
func (k *Kafka) AbortAfter() time.Duration { return k.TransactionTimeout / 4 * 3 }

// GroupID is the name of the consumer group.
func (k *Kafka) GroupID() string {
	if k.Group.ID != "" {
		return k.Group.ID
	}
	return k.TransactionalIDPrefix + "." + k.Topics.Offsets
}

// KafkaTokenStore is the `token_store` that means no file.
const KafkaTokenStore = "kafka"

// TokensInKafka reports whether the credential's tokens are kept in Kafka.
func (c *Credential) TokensInKafka() bool { return c.TokenStore == KafkaTokenStore }

// EffectiveShardKey is the text whose hash places the source in a shard.
func (s *Source) EffectiveShardKey() string {
	switch {
	case s.ShardKey != "":
		return s.ShardKey
	case s.Credential != "":
		return s.Credential
	default:
		return s.Name
	}
}

// Shard is the partition of everything that cdrbus writes about the source: murmur2
// of its shard key, so that sources which share a credential share a shard.
func (s *Source) Shard(shards int) int {
	return partition.Of([]byte(s.EffectiveShardKey()), shards)
}

// SourceNamed returns the source of a name. Its error tells which one was probably
// meant.
func (c *Config) SourceNamed(name string) (*Source, error) {
	var names []string
	for i := range c.Sources {
		if c.Sources[i].Name == name {
			return &c.Sources[i], nil
		}
		names = append(names, c.Sources[i].Name)
	}
	if nearest := Nearest(name, names); nearest != "" {
		return nil, fmt.Errorf("source %q is not configured; did you mean %s?", name, nearest)
	}
	const shown = 10
	known := strings.Join(names[:min(len(names), shown)], ", ")
	if more := len(names) - shown; more > 0 {
		known += fmt.Sprintf(" and %d more", more)
	}
	return nil, fmt.Errorf("source %q is not configured; known are %s", name, known)
}

// Group identifies what the source shares with others: a request budget and a
// token. Sources of one group ask one after another.
func (s *Source) Group() string {
	if s.Credential != "" {
		return "credential " + s.Credential
	}
	if s.Token.IsFile() {
		return "token_file " + s.Token.Path()
	}
	return "source " + s.Name
}

// CredentialOf returns the credential that the source names; nil if it has a
// token of its own.
func (c *Config) CredentialOf(s *Source) *Credential {
	for i := range c.Credentials {
		if s.Credential != "" && c.Credentials[i].Name == s.Credential {
			return &c.Credentials[i]
		}
	}
	return nil
}
