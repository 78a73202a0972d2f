package producer

import (
	"context"
	"errors"
	"strconv"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"cdrbus/internal/kafkaconn"
)

// minProduceVersion is the Produce version that Apache Kafka 3.7 brought
// (KIP-951), and 3.6 lacks. A broker does not tell its release, but it offers
// every version that its code knows, whatever its metadata.version.
//
// 3.7 is where the broker verifies that a partition is part of the transaction
// before it appends (KIP-890, part 1), on which the commit protocol relies.
const minProduceVersion = 10

// verificationKey switches that verification; it is on by default.
const verificationKey = "transaction.partition.verification.enable"

// checkBrokers asks each broker, since a cluster may be in the middle of an
// upgrade. A broker that cannot be asked is a warning: it is perhaps restarting.
func (e *ensurer) checkBrokers(ctx context.Context) error {
	cluster, err := e.metadata(ctx)
	if err != nil {
		return kafkaconn.Explain(err, "look up brokers")
	}
	for _, broker := range cluster.Brokers {
		version, err := produceVersion(ctx, e.client, broker)
		switch {
		case err != nil:
			e.warn("broker %d: its version cannot be asked for: %v", broker.ID, err)
		case version < minProduceVersion:
			e.refuse("", "upgrade the brokers to Apache Kafka 3.7 or later, or choose delivery: at_least_once",
				"broker %d at %s is older than Apache Kafka 3.7 (it knows Produce only up to version %d), and does not protect transactions as exactly_once needs",
				broker.ID, broker.Host, version)
		}
		e.checkVerification(ctx, broker)
	}
	return nil
}

// produceVersion returns the highest Produce version that a broker offers.
func produceVersion(ctx context.Context, client *kafka.Client, broker kafka.Broker) (int, error) {
	single := kafkaconn.ForBroker(client, broker)
	defer kafkaconn.Close(single)
	resp, err := single.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return 0, err
	}
	for _, key := range resp.ApiKeys {
		if key.ApiKey == int(protocol.Produce) {
			return key.MaxVersion, nil
		}
	}
	return 0, errors.New("it offers no Produce request")
}

func (e *ensurer) checkVerification(ctx context.Context, broker kafka.Broker) {
	resp, err := e.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeBroker, ResourceName: strconv.Itoa(broker.ID), ConfigNames: []string{verificationKey}},
	}})
	if err == nil && len(resp.Resources) == 1 {
		err = resp.Resources[0].Error
	}
	if err != nil {
		e.warn("broker %d: %s cannot be checked, it must be true: %v", broker.ID, verificationKey, kafkaconn.Explain(err, "read the broker's settings"))
		return
	}
	for _, resource := range resp.Resources {
		for _, entry := range resource.ConfigEntries {
			if entry.ConfigName == verificationKey && entry.ConfigValue == "false" {
				e.refuse("", "kafka-configs.sh --bootstrap-server "+e.opts.Bootstrap+" --alter --entity-type brokers --entity-default --add-config "+verificationKey+"=true",
					"broker %d does not verify transactions: %s is false", broker.ID, verificationKey)
			}
		}
	}
}
