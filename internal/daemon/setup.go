package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/positions"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/poller"
	"cdrbus/producer"
	"cdrbus/schema"
)

// Subject is a schema and the name under which the registry keeps it.
type Subject struct{ Name, Schema string }

// Subjects lists the schemas that a configuration needs: of the events, and of
// the receipts, each under its topic's value subject (TopicNameStrategy).
func Subjects(cfg *config.Config) []Subject {
	return []Subject{
		{cfg.Kafka.Topics.Events + "-value", schema.AvroJSON()},
		{cfg.Kafka.Topics.Windows + "-value", offsets.ReceiptSchema()},
	}
}

// NewRegistry returns the schema registry of a configuration, reached through
// dial, or through the network if dial is nil.
func NewRegistry(cfg *config.Config, dial DialFunc) (*schema.Registry, error) {
	r := &cfg.SchemaRegistry
	options := schema.RegistryOptions{URLs: r.URLs, Username: r.Username}
	if r.Password.IsSet() {
		password, err := r.Password.Read()
		if err != nil {
			return nil, fmt.Errorf("read the schema registry's password: %w", err)
		}
		options.Password = password
	}
	if r.BearerToken.IsSet() {
		options.BearerToken = r.BearerToken.Read
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if dial != nil {
		transport.DialContext = dial
	}
	var err error
	if transport.TLSClientConfig, err = tlsConfig(&r.TLS); err != nil {
		return nil, fmt.Errorf("schema registry: %w", err)
	}
	options.HTTPClient = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return schema.NewRegistry(options)
}

func tlsConfig(options *config.TLS) (*tls.Config, error) {
	result := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: options.ServerName}
	if options.CAFile != "" {
		pem, err := os.ReadFile(options.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read TLS authorities: %w", err)
		}
		result.RootCAs = x509.NewCertPool()
		if !result.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read TLS authorities: %s holds no PEM certificate", options.CAFile)
		}
	}
	if options.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(options.CertFile, options.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("load TLS client certificate %s with key %s: %w", options.CertFile, options.KeyFile, err)
		}
		result.Certificates = []tls.Certificate{pair}
	}
	return result, nil
}

// kafkaOptions says how a configuration reaches Kafka.
func kafkaOptions(cfg *config.Config, dial DialFunc) (kafkaconn.Options, error) {
	k := &cfg.Kafka
	options := kafkaconn.Options{
		Brokers:     k.Brokers,
		Topics:      []string{k.Topics.Events, k.Topics.Offsets, k.Topics.Windows, k.Topics.IDs, k.Topics.DeadLetter, k.Topics.Jobs},
		ClientID:    k.ClientID,
		DialContext: dial,
	}
	if k.TLS.Enabled {
		options.TLS = &kafkaconn.TLS{CAFile: k.TLS.CAFile, CertFile: k.TLS.CertFile, KeyFile: k.TLS.KeyFile, ServerName: k.TLS.ServerName}
	}
	if k.SASL.Mechanism != "" {
		password, err := k.SASL.Password.Read()
		if err != nil {
			return kafkaconn.Options{}, fmt.Errorf("read the Kafka password: %w", err)
		}
		options.SASL = &kafkaconn.SASL{
			Mechanism:            kafkaconn.Mechanism(k.SASL.Mechanism),
			Username:             k.SASL.Username,
			Password:             password,
			AllowPlainWithoutTLS: k.SASL.AllowPlainWithoutTLS,
		}
	}
	return options, nil
}

// prepareSchemas gets the IDs of both schemas. From here on the registry is not
// needed any more: what is written goes on with the IDs that are known.
func (d *Daemon) prepareSchemas(ctx context.Context, dial DialFunc, maxEventBytes int) error {
	registry, err := NewRegistry(d.config, dial)

	if err != nil {
		return err
	}
	d.schemaByID = registry.SchemaByID
	var ids []int
	for _, subject := range Subjects(d.config) {
		id, err := registry.Resolve(ctx, subject.Name, subject.Schema, d.config.SchemaRegistry.AutoRegister)
		if err != nil {
			return err
		}
		d.log.Info("schema", zap.String("subject", subject.Name), zap.Int("id", id))
		ids = append(ids, id)
	}
	d.encoders = newEncoderPool(schema.EncoderOptions{SchemaID: ids[0], MaxEventBytes: maxEventBytes})
	d.receipts, err = offsets.NewReceiptCodec(ids[1])
	return err
}

// prepareSources makes a source of each one configured, and puts it into its shard.
func (d *Daemon) prepareSources(options Options) error {
	transport, err := feedHTTP(d.config, options.Version, options.DialFeed)
	if err != nil {
		return err
	}
	tokens := map[string]poller.TokenSource{}
	for i := range d.config.Sources {
		cfg := &d.config.Sources[i]
		if tokens[cfg.Group()] == nil {
			if tokens[cfg.Group()], err = d.tokenSource(cfg, transport); err != nil {
				return err
			}
		}
		s, err := d.newSource(cfg, transport, tokens[cfg.Group()])
		if err != nil {
			return err
		}
		shard := ShardOf(cfg, d.config.Kafka.Shards)
		d.shards[shard] = append(d.shards[shard], s)
	}
	return nil
}

// feedHTTP says how a configuration reaches the feed and the token endpoint.
func feedHTTP(cfg *config.Config, version string, dial DialFunc) (poller.HTTPOptions, error) {
	roots, err := cfg.HTTP.RootCAs()
	if err != nil {
		return poller.HTTPOptions{}, err
	}
	proxy, err := cfg.HTTP.ProxyURL()
	if err != nil {
		return poller.HTTPOptions{}, err
	}
	result := poller.HTTPOptions{
		Version:           version,
		RootCAs:           roots,
		DialContext:       dial,
		InsecureHTTPHosts: cfg.InsecureHTTPHosts,
	}
	if proxy != nil {
		result.Proxy = http.ProxyURL(proxy)
	}
	return result, nil
}

// tokenSource is shared by all sources of one credential: one refresher each.
func (d *Daemon) tokenSource(cfg *config.Source, transport poller.HTTPOptions) (poller.TokenSource, error) {
	credential := d.config.CredentialOf(cfg)
	if credential == nil {
		return bareToken(cfg), nil
	}
	var vault poller.TokenVault
	if credential.TokensInKafka() {
		var err error
		if vault, err = d.newVault(credential); err != nil {
			return nil, err
		}
	}
	return serviceApp(credential, vault, transport, d.log)
}

// serviceApp keeps the tokens of a credential in a vault, or in its token store if
// that is nil.
func serviceApp(credential *config.Credential, vault poller.TokenVault, transport poller.HTTPOptions, log *zap.Logger) (*poller.ServiceApp, error) {
	return poller.NewServiceApp(poller.ServiceAppOptions{
		Vault:        vault,
		Name:         credential.Name,
		ClientID:     credential.ClientID.Read,
		ClientSecret: credential.ClientSecret.Read,
		TokenStore:   credential.TokenStore,
		TokenURL:     credential.TokenURL,
		HTTP:         transport,
		Log:          log,
	})
}

// bareToken reads an access token from its file, or from the environment.
func bareToken(cfg *config.Source) poller.TokenSource {
	if cfg.Token.IsFile() {
		return poller.NewFileToken(cfg.Token.Path())
	}
	return poller.NewBareToken(cfg.Token.String(), cfg.Token.Read)
}

func (d *Daemon) newSource(cfg *config.Source, transport poller.HTTPOptions, tokens poller.TokenSource) (*source, error) {
	address, err := cfg.FeedURL()
	if err != nil {
		return nil, err
	}
	name := cdr.SourceName(cfg.Name)
	s := &source{
		name:       name,
		config:     cfg,
		definition: offsets.NewDefinition(string(cfg.Endpoint), address.Host, address.Path, cfg.Locations),
		headers:    newHeaderBuilder(name, d.config.Events.CloudEventsHeaders),
		board:      d.board,
		finish:     &d.finish,
		host:       address.Host,
		clocks:     d.clocks,
		askTime: func(ctx context.Context) (poller.Clock, error) {
			return poller.CompareClock(ctx, transport, address)
		},
		log: d.log.With(zap.String("source", cfg.Name)),
	}
	if app, ok := tokens.(*poller.ServiceApp); ok {
		s.tokenState = func(now time.Time) status.Token {
			return status.Token{RefreshExpiresAt: app.RefreshTokenEnds(), Warning: app.Warning(now)}
		}
	}
	s.openFeed = func(budget *poller.Budget) (*poller.Feed, error) {
		return poller.NewFeed(poller.FeedOptions{
			Source:       name,
			URL:          address,
			Locations:    cfg.Locations,
			Tokens:       tokens,
			Budget:       budget,
			HTTP:         transport,
			PageSize:     cfg.PageSize,
			StrictRegion: cfg.StrictRegion,
			Log:          d.log, // it names the source itself
			Observe: func(a poller.Attempt) {
				d.board.Requested(a.Source, a.Status)
				d.board.Progress(laneName(cfg.Group()), requestPatience)
			},
		})
	}
	s.plan.Policy = poller.DefaultPolicy(cdr.Feed)
	s.plan.MinAge, s.plan.Overlap, s.plan.MaxWindow, s.plan.Lookback = cfg.MinAge, cfg.Overlap, cfg.MaxWindow, cfg.Lookback
	s.plan.MaxWindowBytes = int64(d.config.Memory.MaxWindowBytes)
	if err := s.plan.Validate(); err != nil {
		return nil, fmt.Errorf("source %s: %w", cfg.Name, err)
	}
	s.stream.Policy = poller.DefaultPolicy(cdr.Stream)
	s.stream.Overlap, s.stream.MaxWindowBytes = min(cfg.Overlap, s.stream.MaxWindow/2), s.plan.MaxWindowBytes
	s.sweeps.Policy = s.plan.Policy
	s.sweeps.MaxWindowRecords = int64(cfg.Limits.PagesPerMinute) * poller.LargestPageSize
	for _, sweep := range cfg.Sweeps {
		s.sweeps.Sweeps = append(s.sweeps.Sweeps, poller.Sweep{Every: sweep.Every, Back: sweep.Back})
	}
	slices.SortFunc(s.sweeps.Sweeps, func(a, b poller.Sweep) int { return cmp.Compare(a.Back, b.Back) })
	return s, nil
}

// topicSpecs are the topics of a configuration: those of the commits, by
// producer.Topic, and that of the jobs behind them.
func topicSpecs(cfg *config.Config) []producer.TopicSpec {
	k := &cfg.Kafka
	var lookback time.Duration
	for i := range cfg.Sources {
		lookback = max(lookback, cfg.Sources[i].Lookback)
	}
	specs := []producer.TopicSpec{ // by producer.Topic
		producer.Events:      producer.EventsTopic(k.Topics.Events, k.Partitions, k.Retention.Events),
		producer.DeadLetters: producer.DeadLettersTopic(k.Topics.DeadLetter, k.Shards, k.Retention.DeadLetter),
		producer.Receipts:    producer.ReceiptsTopic(k.Topics.Windows, k.Shards, lookback, k.Retention.Windows),
		producer.IDs:         producer.IDsTopic(k.Topics.IDs, k.Shards, lookback, k.Retention.IDs),
		producer.Positions:   producer.PositionsTopic(k.Topics.Offsets, k.Shards),
	}
	return append(specs, producer.JobsTopic(k.Topics.Jobs, k.Shards, lookback))
}

// ensureTopics creates the topics that are missing, if it may, and checks all.
func ensureTopics(ctx context.Context, client *kafka.Client, cfg *config.Config, create bool) (producer.EnsureReport, error) {
	return producer.Ensure(ctx, client, topicSpecs(cfg), producer.EnsureOptions{
		Create:            create,
		ReplicationFactor: cfg.Kafka.ReplicationFactor,
		ExactlyOnce:       cfg.Delivery == config.ExactlyOnce,
		Bootstrap:         cfg.Kafka.Brokers[0],
	})
}

// prepareTopics creates or checks the topics, and lays out where records go.
func (d *Daemon) prepareTopics(ctx context.Context) error {
	k := &d.config.Kafka
	report, err := ensureTopics(ctx, d.client, d.config, k.CreateTopics)
	if err != nil {
		return err
	}
	for _, warning := range report.Warnings {
		if d.only == nil { // whoever came for one job does not look after the topics
			d.log.Warn("topics", zap.String("warning", warning))
		}
	}
	d.layout = &producer.Layout{
		EventPartitions: report.Topics[k.Topics.Events].Partitions,
		Compression:     compression[k.Compression],
	}
	specs := topicSpecs(d.config)
	for topic, spec := range specs[:len(specs)-1] {
		d.layout.Names[topic] = spec.Name
		d.layout.MaxMessageBytes[topic] = report.Topics[spec.Name].MaxMessageBytes
		if report.Topics[spec.Name].Created {
			d.log.Info("topic created", zap.String("topic", spec.Name), zap.Int("partitions", report.Topics[spec.Name].Partitions))
		}
	}
	return d.layout.Validate()
}

var compression = map[config.Compression]kafka.Compression{
	"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
}

// budgetOf returns the request budget of a credential group. It lives as long as
// the process, whatever becomes of its shard: the feed counts on. If every source
// of the group is brand-new, nobody has asked anything yet.
func (d *Daemon) budgetOf(group string, sources []*source, brandNew bool) *poller.Budget {
	d.budgetsMu.Lock()
	defer d.budgetsMu.Unlock()
	if d.budgets[group] == nil {
		now := time.Now()
		var last time.Time
		if !brandNew {
			last = now.Add(-time.Hour) // some time ago: what came after is not known
		}
		for _, s := range sources {
			if s.position.LastRequestAt.After(last) {
				last = s.position.LastRequestAt
			}
		}
		limits := sources[0].config.Limits
		d.budgets[group] = poller.NewBudget(poller.Limits{InitialPerMinute: limits.InitialPerMinute, PagesPerMinute: limits.PagesPerMinute}, last, now)
	}
	return d.budgets[group]
}

func (d *Daemon) shardOptions(shard int) producer.ShardOptions {
	options := positions.ShardOptions(d.config, d.config.Kafka.TransactionalIDPrefix, shard, d.layout, d.log.With(zap.Int("shard", shard)))
	options.ShutdownGrace = d.shutdownGrace()
	return options
}

func (d *Daemon) restoreOptions(shard int) offsets.RestoreOptions {
	options := positions.RestoreOptions(d.config, shard)
	for _, s := range d.shards[shard] {
		options.Expect = append(options.Expect, offsets.Expectation{Source: s.name, Definition: s.definition})
	}
	return options
}

func (d *Daemon) mode() offsets.Mode {
	if d.config.Delivery == config.AtLeastOnce {
		return offsets.AtLeastOnce
	}
	return offsets.ExactlyOnce
}

// DecodeEvent turns an event's value into JSON for people to look at, without
// personal data unless that is asked for.
func DecodeEvent(value []byte, personalData bool) ([]byte, error) {
	event, err := schema.Decode(value)
	if err != nil {
		return nil, err
	}
	if !personalData {
		event = event.Mask()
	}
	return event.MarshalJSON()
}
