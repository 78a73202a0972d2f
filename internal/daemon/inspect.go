package daemon

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
	"cdrbus/poller"
	"cdrbus/producer"
)

// Dialing says how a command that is no daemon reaches what the daemon reaches.
type Dialing struct {
	Version             string
	DialKafka, DialFeed DialFunc // nil: the network
}

// FeedHTTP says how a configuration reaches the feed and the token endpoint.
func FeedHTTP(cfg *config.Config, dialing Dialing) (poller.HTTPOptions, error) {
	return feedHTTP(cfg, dialing.Version, dialing.DialFeed)
}

// OpenTokens returns the tokens of a source for a command. Those that lie in Kafka
// only the owner of their shard may renew, so a command has none of them.
func OpenTokens(cfg *config.Config, source *config.Source, dialing Dialing) (poller.TokenSource, error) {
	credential := cfg.CredentialOf(source)
	if credential == nil {
		return bareToken(source), nil
	}
	if credential.TokensInKafka() {
		return nil, fmt.Errorf("the tokens of credential %s lie in Kafka, where only the daemon that owns their shard may renew them: give the source a token_file in a configuration of its own for this command", credential.Name)
	}
	transport, err := feedHTTP(cfg, dialing.Version, dialing.DialFeed)
	if err != nil {
		return nil, err
	}
	return serviceApp(credential, nil, transport, zap.NewNop())
}

// OpenFeed returns the feed of a source for a command, within limits of its own.
// What was asked of the feed before lastInitial counts too: see [poller.NewBudget].
func OpenFeed(cfg *config.Config, source *config.Source, tokens poller.TokenSource, limits poller.Limits, lastInitial time.Time, dialing Dialing) (*poller.Feed, error) {
	transport, err := feedHTTP(cfg, dialing.Version, dialing.DialFeed)
	if err != nil {
		return nil, err
	}
	address, err := source.FeedURL()
	if err != nil {
		return nil, err
	}
	return poller.NewFeed(poller.FeedOptions{
		Source:       cdr.SourceName(source.Name),
		URL:          address,
		Locations:    source.Locations,
		Tokens:       tokens,
		Budget:       poller.NewBudget(limits, lastInitial, time.Now()),
		HTTP:         transport,
		StrictRegion: source.StrictRegion,
	})
}

// CheckTopics holds brokers and topics against what a configuration needs, and
// creates none.
func CheckTopics(ctx context.Context, cfg *config.Config, dialing Dialing) (producer.EnsureReport, error) {
	connection, err := kafkaOptions(cfg, dialing.DialKafka)
	if err != nil {
		return producer.EnsureReport{}, err
	}
	client, err := kafkaconn.New(connection)
	if err != nil {
		return producer.EnsureReport{}, err
	}
	defer kafkaconn.Close(client)
	return ensureTopics(ctx, client, cfg, false)
}
