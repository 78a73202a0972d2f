package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// rules judge a complete configuration. Each rule reports all that breaks it.
type rules struct {
	*ledger
	c *Config
}

// validate checks everything that needs neither files nor network nor clock.
func validate(l *ledger, c *Config) {
	r := rules{ledger: l, c: c}
	r.insecureHosts()
	r.kafka()
	r.topics()
	r.kafkaSecurity()
	r.registry()
	r.credentials()
	r.sources()
	r.http()
	r.memory()
	r.admin()
}

// within refuses a number outside [least, most].
func within[N ~int | ~int64](r rules, path string, value, least, most N, remedy string) {
	if value < least || value > most {
		r.refuse(path, fmt.Sprintf("%v is out of range", value), remedy)
	}
}

// seconds refuses a time outside [least, most] or with parts of a second, at
// whose grain the feed does not compare.
func (r rules) seconds(path string, value, least, most time.Duration) {
	switch {
	case value < least || value > most:
		r.refuse(path, formatDuration(value)+" is out of range", fmt.Sprintf("write %s to %s", formatDuration(least), formatDuration(most)))
	case value%time.Second != 0:
		r.refuse(path, formatDuration(value)+" is not a whole number of seconds", "round it")
	}
}

func (r rules) insecureHosts() {
	for i, host := range r.c.InsecureHTTPHosts {
		if host == "" || strings.ContainsAny(host, "/@ ") || strings.Contains(host, "*") {
			r.refuse(itemOf("insecure_http_hosts", i), "is not a host name", "write host or host:port, without http:// and without *")
		}
	}
}

var (
	topicPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)
	idPattern    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,100}$`)
)

func (r rules) kafka() {
	k := &r.c.Kafka
	if len(k.Brokers) == 0 {
		r.refuse("kafka.brokers", "is empty", "name at least one broker as host:port")
	}
	for i, broker := range k.Brokers {
		host, port, err := net.SplitHostPort(broker)
		if err != nil || host == "" || strings.Contains(broker, "/") || !isPort(port, 1) {
			r.refuse(itemOf("kafka.brokers", i), "is not host:port", "write it like kafka-1.example.com:9092")
		} else if slices.Contains(k.Brokers[:i], broker) {
			r.refuse(itemOf("kafka.brokers", i), "names a broker twice", "keep one of the two")
		}
	}
	within(r, "kafka.shards", k.Shards, 1, 1000, "write 1 to 1000")
	within(r, "kafka.partitions", k.Partitions, 1, 10_000, "write 1 to 10000")
	within(r, "kafka.replication_factor", k.ReplicationFactor, 0, 100, "write 0 for the broker's default, or 1 and more")
	for _, id := range []struct{ path, value string }{
		{"kafka.transactional_id_prefix", k.TransactionalIDPrefix}, {"kafka.client_id", k.ClientID},
		{"kafka.group.id", cmp.Or(k.Group.ID, "empty")},
	} {
		if !idPattern.MatchString(id.value) {
			r.refuse(id.path, "cannot be part of an ID", "write 1 to 100 letters, digits, dots, dashes or underscores")
		}
	}
	within(r, "kafka.max_commit_bytes", k.MaxCommitBytes, 1<<20, 1<<30, "write 1MiB to 1GiB")
	r.seconds("kafka.transaction_timeout", k.TransactionTimeout, 20*time.Second, 15*time.Minute)
	r.seconds("kafka.group.session_timeout", k.Group.SessionTimeout, 6*time.Second, 30*time.Minute)
	r.retention()
}

func (r rules) retention() {
	kept := &r.c.Kafka.Retention
	if needed := r.c.longestLookback() + journalMargin; kept.IDs < needed {
		r.refuse("kafka.retention.ids", fmt.Sprintf("%s is shorter than the longest lookback and 7d, together %s: a restart could publish records again",
			formatDuration(kept.IDs), formatDuration(needed)), "write "+formatDuration(needed)+" or more, or leave it out")
	}
	for path, value := range map[string]time.Duration{"kafka.retention.windows": kept.Windows, "kafka.retention.deadletter": kept.DeadLetter} {
		if value < day {
			r.refuse(path, formatDuration(value)+" is too short to look into what happened", "write 1d or more")
		}
	}
}

func (r rules) topics() {
	t := &r.c.Kafka.Topics
	firstPath := map[string]string{}
	for _, topic := range []struct{ key, name string }{
		{"events", t.Events}, {"offsets", t.Offsets}, {"windows", t.Windows}, {"ids", t.IDs}, {"deadletter", t.DeadLetter}, {"jobs", t.Jobs},
	} {
		path := "kafka.topics." + topic.key
		first, taken := firstPath[topic.name]
		switch {
		case !topicPattern.MatchString(topic.name) || topic.name == "." || topic.name == "..":
			r.refuse(path, "is not a topic's name", "write 1 to 249 letters, digits, dots, dashes or underscores")
		case taken:
			r.refuse(path, fmt.Sprintf("%s is the name of %s already", topic.name, first), "give each topic its own name")
		default:
			firstPath[topic.name] = path
		}
	}
}

func (r rules) kafkaSecurity() {
	t, s := &r.c.Kafka.TLS, &r.c.Kafka.SASL
	if !t.Enabled && t.TLS != (TLS{}) {
		r.refuse("kafka.tls", "has keys, but TLS is not enabled", "write enabled: true, or take them away")
	}
	r.clientCertificate("kafka.tls", t.TLS)
	switch {
	case s.Mechanism == "" && (s.Username != "" || s.Password.IsSet() || len(s.AllowPlainWithoutTLS) > 0):
		r.refuse("kafka.sasl.mechanism", "is missing", "write plain, scram-sha-256 or scram-sha-512, or take the other keys of sasl away")
	case s.Mechanism == "":
	case s.Username == "":
		r.refuse("kafka.sasl.username", "is missing", "name the user")
	case !s.Password.IsSet():
		r.refuse("kafka.sasl.password_file", "is missing", "name the file, or set "+variableOf("kafka.sasl.password"))
	}
	if s.Mechanism == Plain && !t.Enabled {
		r.plainWithoutTLS()
	}
}

func (r rules) plainWithoutTLS() {
	allowed := r.c.Kafka.SASL.AllowPlainWithoutTLS
	for _, broker := range r.c.Kafka.Brokers {
		host, _, err := net.SplitHostPort(broker)
		if err != nil {
			continue // reported as a broker
		}
		if !containsFold(allowed, host) {
			r.refuse("kafka.sasl.mechanism", fmt.Sprintf("plain without TLS would show the password to the network on the way to %s", host),
				"enable kafka.tls, use scram-sha-512, or name the host in allow_plain_without_tls")
			return
		}
	}
	r.warn("kafka.sasl.allow_plain_without_tls", "the Kafka password travels readable to "+strings.Join(allowed, ", "), "enable kafka.tls")
}

func (r rules) clientCertificate(path string, t TLS) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		r.refuse(path, "cert_file and key_file belong together", "give both or neither")
	}
}

func (r rules) registry() {
	s := &r.c.SchemaRegistry
	if len(s.URLs) == 0 {
		r.refuse("schema_registry.url", "is empty", "write the registry's address")
	}
	login, https := s.Username != "" || s.BearerToken.IsSet(), false
	for i, text := range s.URLs {
		path := itemOf("schema_registry.url", i)
		u := r.url(path, text, "http", "https")
		if u == nil {
			continue
		}
		https = https || u.Scheme == "https"
		if u.RawQuery != "" {
			r.refuse(path, "has a query", "end the address before the ?")
		}
		if login {
			r.plainHTTP(path, u)
		}
	}
	if s.TLS != (TLS{}) && !https && len(s.URLs) > 0 {
		r.refuse("schema_registry.tls", "has keys, but the registry's address is not https", "write https://, or take them away")
	}
	r.clientCertificate("schema_registry.tls", s.TLS)
	switch {
	case s.BearerToken.IsSet() && (s.Username != "" || s.Password.IsSet()):
		r.refuse("schema_registry.bearer_token_file", "excludes username and password_file", "keep one kind of login")
	case s.Username != "" && !s.Password.IsSet():
		r.refuse("schema_registry.password_file", "is missing", "name the file, or set "+variableOf("schema_registry.password"))
	case s.Username == "" && s.Password.IsSet():
		r.refuse("schema_registry.username", "is missing", "name the user")
	}
}

func (r rules) credentials() {
	stores := map[string]string{}
	names := map[string]bool{}
	for i := range r.c.Credentials {
		credential, path := &r.c.Credentials[i], itemOf("credentials", i)
		r.name(path, credential.Name, "credential", names)
		for key, secret := range map[string]Secret{"client_id": credential.ClientID, "client_secret": credential.ClientSecret} {
			if !secret.IsSet() {
				r.refuse(childOf(path, key+"_file"), "is missing", "name the file, or set "+variableOf(childOf(path, key)))
			}
		}
		r.tokenStore(path, credential, stores)
		if u := r.url(childOf(path, "token_url"), credential.TokenURL, "http", "https"); u != nil {
			r.plainHTTP(childOf(path, "token_url"), u)
		}
		if !slices.ContainsFunc(r.c.Sources, func(s Source) bool { return s.Credential == credential.Name }) {
			r.warn(path, fmt.Sprintf("no source uses credential %s", credential.Name), "take it away, or name it in a source")
		}
	}
}

// tokenStore checks where a credential's tokens are kept. A fleet needs a place
// that all its members see: Webex may replace the refresh token at each use, and
// the former one then is dead.
func (r rules) tokenStore(path string, c *Credential, stores map[string]string) {
	store := childOf(path, "token_store")
	other, taken := stores[c.TokenStore]
	switch {
	case c.TokenStore == "":
		r.refuse(store, "is missing", "name the file that shall keep the refresh token")
	case c.TokensInKafka():
		r.tokensInKafka(path, c)
		return
	case taken:
		r.refuse(store, "is the token store of credential "+other+" already", "give each credential its own")
	case r.c.Ownership == Group && !c.TokenStoreShared:
		r.refuse(store, "is a file that the other members of a fleet (ownership: group) may not see", "write token_store: kafka, or token_store_shared: true if all of them see this file")
	}
	stores[c.TokenStore] = c.Name
	for key, secret := range map[string]Secret{"token_key_file": c.TokenKey, "refresh_token_file": c.RefreshToken} {
		if secret.IsSet() {
			r.refuse(childOf(path, key), "is for token_store: kafka", "take it away, or keep the tokens in Kafka")
		}
	}
}

func (r rules) tokensInKafka(path string, c *Credential) {
	if c.TokenStoreShared {
		r.refuse(childOf(path, "token_store_shared"), "is for a file", "take it away: Kafka is shared in any case")
	}
	for key, secret := range map[string]Secret{"token_key": c.TokenKey, "refresh_token": c.RefreshToken} {
		if !secret.IsSet() {
			r.refuse(childOf(path, key+"_file"), "is missing, and token_store: kafka needs it", "name the file, or set "+variableOf(childOf(path, key)))
		}
	}
	if r.c.Delivery == AtLeastOnce {
		r.refuse(childOf(path, "token_store"), "kafka needs transactions, which at_least_once does without", "write delivery: exactly_once, or keep the tokens in a file")
	}
}

// name checks the name of a source or credential.
func (r rules) name(path, name, what string, taken map[string]bool) {
	path = childOf(path, "name")
	switch {
	case name == "":
		r.refuse(path, "is missing", "give the "+what+" a name")
	case cdr.SourceName(name).Validate() != nil:
		r.refuse(path, "cannot be the name of a "+what, "write 1 to 100 letters, digits, dots, dashes or underscores, beginning with a letter or digit")
	case taken[name]:
		r.refuse(path, fmt.Sprintf("%s is the name of another %s already", name, what), "give each its own name")
	}
	taken[name] = true
}

func (r rules) http() {
	h := &r.c.HTTP
	if h.Proxy != "" {
		r.url("http.proxy", h.Proxy, "http", "https", "socks5")
	}
	switch {
	case h.Proxy == "" && (h.ProxyUsername != "" || h.ProxyPassword.IsSet()):
		r.refuse("http.proxy", "is missing", "write the proxy's address, or take its user and password away")
	case h.ProxyUsername == "" && h.ProxyPassword.IsSet():
		r.refuse("http.proxy_username", "is missing", "name the user")
	case h.ProxyUsername != "" && !h.ProxyPassword.IsSet():
		r.refuse("http.proxy_password_file", "is missing", "name the file, or set "+variableOf("http.proxy_password"))
	}
}

func (r rules) memory() {
	m := &r.c.Memory
	within(r, "memory.max_window_bytes", m.MaxWindowBytes, 1<<20, 1<<30, "write 1MiB to 1GiB")
	within(r, "memory.max_id_bytes", m.MaxIDBytes, 1<<20, 1<<40, "write 1MiB or more")
	if m.Budget < m.MaxWindowBytes {
		r.refuse("memory.budget", fmt.Sprintf("%s holds not even one window of max_window_bytes (%s)", m.Budget, m.MaxWindowBytes), "write "+m.MaxWindowBytes.String()+" or more")
	}
}

func (r rules) admin() {
	if r.c.Admin.Listen == "" {
		return
	}
	if _, port, err := net.SplitHostPort(r.c.Admin.Listen); err != nil || !isPort(port, 0) {
		r.refuse("admin.listen", "is not host:port", "write it like 127.0.0.1:9464, or nothing at all for no server")
	}
}

// url returns the parsed address, or nil after reporting what is wrong with it.
// The text is never shown: it may hold a password.
func (r rules) url(path, text string, schemes ...string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case text == "":
		r.refuse(path, "is missing", "write an address")
	case err != nil || u.Hostname() == "" || !slices.Contains(schemes, u.Scheme) || u.Port() != "" && !isPort(u.Port(), 1):
		r.refuse(path, "is not an address", fmt.Sprintf("write scheme://host/path, with %s as the scheme", strings.Join(schemes, ", ")))
	case u.User != nil:
		r.refuse(path, "holds a user or password", "take it out; secrets come from files or the environment")
	case u.Fragment != "":
		r.refuse(path, "has a fragment", "end the address before the #")
	default:
		return u
	}
	return nil
}

// plainHTTP refuses an address to which a credential would travel readable.
func (r rules) plainHTTP(path string, u *url.URL) {
	switch {
	case u.Scheme != "http" || isLoopback(u.Hostname()):
	case containsFold(r.c.InsecureHTTPHosts, u.Hostname()) || containsFold(r.c.InsecureHTTPHosts, u.Host):
		r.warn(path, fmt.Sprintf("the credential travels readable to %s", u.Host), "use https")
	default:
		r.refuse(path, fmt.Sprintf("plain http would show the credential to the network on the way to %s", u.Host), "use https, or name the host in insecure_http_hosts")
	}
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

func isPort(text string, least uint64) bool {
	number, err := strconv.ParseUint(text, 10, 16)
	return err == nil && number >= least
}

func containsFold(words []string, word string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, word) })
}
