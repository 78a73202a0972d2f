package producer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/kafkaconn"
)

// topicSetting is one topic configuration of Kafka.
type topicSetting struct{ key, value string }

// creationSettings are the settings that a created topic gets.
func (e *ensurer) creationSettings(s TopicSpec) []topicSetting {
	settings := []topicSetting{
		{"max.message.bytes", strconv.Itoa(maxMessageBytes)},
		// Record timestamps are commit times: a day's room for clocks that differ.
		{"message.timestamp.type", "CreateTime"},
		{"message.timestamp.before.max.ms", millis(day)},
		{"message.timestamp.after.max.ms", millis(day)},
		{"unclean.leader.election.enable", "false"},
	}
	switch replicas := e.opts.ReplicationFactor; {
	case replicas >= 3:
		settings = append(settings, topicSetting{"min.insync.replicas", "2"})
	case replicas > 0:
		settings = append(settings, topicSetting{"min.insync.replicas", "1"})
	}
	if s.Compact {
		return append(settings,
			topicSetting{"cleanup.policy", "compact"},
			topicSetting{"delete.retention.ms", millis(minDeleteRetention)},
			// Small segments, cleaned early and at the latest after an hour: a
			// restart reads the whole partition.
			topicSetting{"segment.ms", millis(time.Hour)},
			topicSetting{"segment.bytes", strconv.Itoa(64 << 20)},
			topicSetting{"min.cleanable.dirty.ratio", "0.1"},
			topicSetting{"max.compaction.lag.ms", millis(time.Hour)},
		)
	}
	settings = append(settings, topicSetting{"cleanup.policy", "delete"})
	if s.Retention > 0 {
		settings = append(settings, topicSetting{"retention.ms", millis(s.Retention)})
	}
	if s.PerShard {
		settings = append(settings, topicSetting{"retention.bytes", "-1"})
	}
	return settings
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// minTimestampRoom is the least difference between a record's timestamp and the
// broker's clock that a topic must allow: a transaction's minute, and clocks
// that are wrong by some.
const minTimestampRoom = 10 * time.Minute

// settingRule checks one setting of a topic that exists. A violated rule is a
// problem, or a warning if it is only advice; a required setting that the
// broker does not show is a problem too.
type settingRule struct {
	key      string
	required bool
	advice   bool
	// applies says for which topics; nil: for all.
	applies func(TopicSpec) bool
	// check returns what is wrong, and the value that mends it; "" if all is well.
	check func(s TopicSpec, value string) (wrong, want string)
}

var settingRules = []settingRule{
	{key: "cleanup.policy", required: true, check: checkCleanup},
	{key: "delete.retention.ms", required: true, applies: compacted, check: func(_ TopicSpec, value string) (string, string) {
		return checkAtLeast(value, minDeleteRetention, "transaction markers would go while a slow reader still needs them")
	}},
	{key: "retention.ms", required: true, applies: hasMinRetention, check: func(s TopicSpec, value string) (string, string) {
		return checkAtLeast(value, s.MinRetention, "the feed could return records again whose IDs are forgotten, and they would be published twice")
	}},
	{key: "retention.bytes", required: true, applies: hasMinRetention, check: func(_ TopicSpec, value string) (string, string) {
		if value == "-1" {
			return "", ""
		}
		return "a limit by size could delete IDs before their time", "-1"
	}},
	{key: "retention.ms", advice: true, applies: func(s TopicSpec) bool { return s.AdvisedRetention > 0 }, check: func(s TopicSpec, value string) (string, string) {
		return checkAtLeast(value, s.AdvisedRetention, "what it tells would be gone when it is asked for")
	}},
	{key: "max.message.bytes", required: true, check: func(s TopicSpec, value string) (string, string) {
		if n, err := strconv.Atoi(value); err == nil && n >= s.MinMessageBytes {
			return "", ""
		}
		return fmt.Sprintf("the largest batch of this topic needs %d bytes", s.MinMessageBytes), strconv.Itoa(maxMessageBytes)
	}},
	{key: "message.timestamp.type", check: func(_ TopicSpec, value string) (string, string) {
		if value == "CreateTime" || value == "LogAppendTime" {
			return "", ""
		}
		return "cdrbus knows no such type", "CreateTime"
	}},
	{key: "message.timestamp.before.max.ms", check: checkTimestampRoom},
	{key: "message.timestamp.after.max.ms", check: checkTimestampRoom},
	{key: "message.timestamp.difference.max.ms", check: checkTimestampRoom}, // until 3.9
	{key: "unclean.leader.election.enable", advice: true, check: func(_ TopicSpec, value string) (string, string) {
		if value != "true" {
			return "", ""
		}
		return "a replica that lags behind may become leader and lose committed records", "false"
	}},
}

func compacted(s TopicSpec) bool       { return s.Compact }
func hasMinRetention(s TopicSpec) bool { return s.MinRetention > 0 }

func checkCleanup(s TopicSpec, value string) (wrong, want string) {
	policies := strings.Split(value, ",")
	switch {
	case s.Compact && value != "compact":
		return "positions would be deleted with time", "compact"
	case !s.Compact && slices.Contains(policies, "compact"):
		return "compaction would drop all but the last record of each key", "delete"
	default:
		return "", ""
	}
}

// checkAtLeast checks a setting in milliseconds; -1 is without limit.
func checkAtLeast(value string, least time.Duration, reason string) (wrong, want string) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err == nil && (n == -1 || n >= least.Milliseconds()) {
		return "", ""
	}
	return fmt.Sprintf("it must be at least %d: %s", least.Milliseconds(), reason), millis(least)
}

func checkTimestampRoom(_ TopicSpec, value string) (wrong, want string) {
	if wrong, _ = checkAtLeast(value, minTimestampRoom, "the broker would refuse records when clocks differ a little"); wrong == "" {
		return "", ""
	}
	return wrong, millis(day)
}

// checkTopics checks every topic that exists and could be looked up.
func (e *ensurer) checkTopics(ctx context.Context, topics map[string]kafka.Topic) error {
	request := &kafka.DescribeConfigsRequest{}
	for _, s := range e.specs {
		if !slices.Contains(e.failed, s.Name) {
			request.Resources = append(request.Resources, kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: s.Name})
		}
	}
	if len(request.Resources) == 0 {
		return nil
	}
	resp, err := e.describe(ctx, request)
	if err != nil {
		return kafkaconn.Explain(err, "read topic settings")
	}
	for _, resource := range resp.Resources {
		i := slices.IndexFunc(e.specs, func(s TopicSpec) bool { return s.Name == resource.ResourceName })
		if i < 0 {
			continue
		}
		if resource.Error != nil {
			e.refuseError(resource.ResourceName, "read its settings", resource.Error)
			continue
		}
		settings := make(map[string]string, len(resource.ConfigEntries))
		for _, entry := range resource.ConfigEntries {
			settings[entry.ConfigName] = entry.ConfigValue
		}
		e.checkTopic(e.specs[i], topics[resource.ResourceName], settings)
	}
	return nil
}

// describe asks again while the broker that happens to be asked has not heard
// of a topic that another broker knows already.
func (e *ensurer) describe(ctx context.Context, request *kafka.DescribeConfigsRequest) (*kafka.DescribeConfigsResponse, error) {
	unheard := func(r kafka.DescribeConfigResponseResource) bool {
		return errors.Is(r.Error, kafka.UnknownTopicOrPartition)
	}
	deadline := time.Now().Add(createdPatience)
	for {
		resp, err := untilAnswered(ctx, e, func() (*kafka.DescribeConfigsResponse, error) { return e.client.DescribeConfigs(ctx, request) })
		if err != nil || !slices.ContainsFunc(resp.Resources, unheard) || time.Now().After(deadline) {
			return resp, err
		}
		if err := pollAgain(ctx); err != nil {
			return nil, err
		}
	}
}

func (e *ensurer) checkTopic(s TopicSpec, topic kafka.Topic, settings map[string]string) {
	e.checkPartitions(s, len(topic.Partitions))
	for _, rule := range settingRules {
		if rule.applies != nil && !rule.applies(s) {
			continue
		}
		value, shown := settings[rule.key]
		if !shown {
			if rule.required {
				e.refuse(s.Name, "use brokers that show it", "%s is not shown by the broker, and cannot be checked", rule.key)
			}
			continue // a setting that not all brokers have
		}
		wrong, want := rule.check(s, value)
		switch {
		case wrong == "":
		case rule.advice:
			e.warn("topic %s: %s is %q, and %s; %s", s.Name, rule.key, value, wrong, e.configCommand(s.Name, rule.key, want))
		default:
			e.refuse(s.Name, e.configCommand(s.Name, rule.key, want), "%s is %q, but %s", rule.key, value, wrong)
		}
	}
	report := e.report.Topics[s.Name]
	report.Partitions = len(topic.Partitions)
	report.ReplicationFactor = leastReplicas(topic)
	report.MaxMessageBytes, _ = strconv.Atoi(settings["max.message.bytes"]) // a broken one was refused above
	report.MinInsyncReplicas, _ = strconv.Atoi(settings["min.insync.replicas"])
	e.report.Topics[s.Name] = report
	e.checkReplicas(s.Name, report)
}

func (e *ensurer) checkPartitions(s TopicSpec, count int) {
	switch {
	case !s.PerShard || count == s.Partitions:
	case count < s.Partitions:
		e.refuse(s.Name, fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions %d", e.opts.Bootstrap, s.Name, s.Partitions),
			"has %d partitions, but kafka.shards is %d", count, s.Partitions)
	default:
		e.refuse(s.Name, fmt.Sprintf("set kafka.shards to %d if no position has been written yet, or name another topic: partitions cannot be taken away", count),
			"has %d partitions, but kafka.shards is %d", count, s.Partitions)
	}
}

func leastReplicas(t kafka.Topic) int {
	least := math.MaxInt
	for _, p := range t.Partitions {
		least = min(least, len(p.Replicas))
	}
	return least
}

// checkReplicas checks what survives the loss of a broker. A single replica is
// a warning: a developer's cluster has no more.
func (e *ensurer) checkReplicas(topic string, r TopicReport) {
	switch {
	case r.MinInsyncReplicas > r.ReplicationFactor:
		e.refuse(topic, e.configCommand(topic, "min.insync.replicas", strconv.Itoa(max(1, r.ReplicationFactor-1))),
			"min.insync.replicas is %d with %d replicas, so that nothing can be written", r.MinInsyncReplicas, r.ReplicationFactor)
	case r.ReplicationFactor == 1:
		e.warn("topic %s: it has one replica, so that losing one disk loses it; add replicas with kafka-reassign-partitions.sh", topic)
	case r.MinInsyncReplicas < 2:
		e.warn("topic %s: min.insync.replicas is %d with %d replicas, so that losing one disk can lose committed records; %s",
			topic, r.MinInsyncReplicas, r.ReplicationFactor, e.configCommand(topic, "min.insync.replicas", "2"))
	case r.MinInsyncReplicas == r.ReplicationFactor:
		e.warn("topic %s: min.insync.replicas equals its %d replicas, so that one broker's restart stops cdrbus; add a replica", topic, r.ReplicationFactor)
	}
}
