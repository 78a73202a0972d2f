package producer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/kafkaconn"
)

// TopicSpec says what one topic must be, and how it is created where it is
// missing. Its constructors write out the table of topics: EventsTopic,
// PositionsTopic, ReceiptsTopic, IDsTopic, DeadLettersTopic and JobsTopic.
type TopicSpec struct {
	Name string

	// Partitions to create it with. With PerShard an existing topic must have
	// just as many, for its records are placed by shard, not by key.
	Partitions int
	PerShard   bool

	// Compact says whether the topic keeps the last record of each key for ever.
	// Any other topic must not be compacted at all: its records share keys.
	Compact bool

	// Retention to create it with; 0 leaves it to the broker.
	Retention time.Duration

	// MinRetention is what an existing topic must keep at least; 0: anything.
	// Fewer days, or any limit by size, are refused.
	MinRetention time.Duration

	// AdvisedRetention is the same as a warning.
	AdvisedRetention time.Duration

	// MinMessageBytes is the least max.message.bytes that works.
	MinMessageBytes int
}

const (
	day = 24 * time.Hour

	// journalMargin is what the ID journal keeps beyond the feed's lookback: a
	// record that the feed still returns must still be known.
	journalMargin = 7 * day

	// minDeleteRetention keeps transaction markers of a compacted topic for as
	// long as a reader may be stopped in the middle of it.
	minDeleteRetention = 7 * day

	// largeBatchBytes has room for one journal record (cut at 512 KiB) or one
	// dead letter's part; smallBatchBytes for a position or a receipt.
	largeBatchBytes = 640 << 10
	smallBatchBytes = 64 << 10

	// eventBatchBytes has room for a record far larger than the feed's (3 kB);
	// what does not fit becomes a dead letter.
	eventBatchBytes = 128 << 10

	// maxMessageBytes is what created topics take: Kafka's own default, written
	// out so that a broker's lower default does no harm.
	maxMessageBytes = 1048588
)

// EventsTopic is the topic of the events. Its retention is the owner's matter.
func EventsTopic(name string, partitions int, retention time.Duration) TopicSpec {
	return TopicSpec{Name: name, Partitions: partitions, Retention: retention, MinMessageBytes: eventBatchBytes}
}

// PositionsTopic is the compacted topic of the positions.
func PositionsTopic(name string, shards int) TopicSpec {
	return TopicSpec{Name: name, Partitions: shards, PerShard: true, Compact: true, MinMessageBytes: smallBatchBytes}
}

// ReceiptsTopic is the topic of the receipts. It should outlive the feed's
// lookback: a receipt without a position is how a lost position is noticed.
func ReceiptsTopic(name string, shards int, lookback, retention time.Duration) TopicSpec {
	return TopicSpec{Name: name, Partitions: shards, PerShard: true, Retention: retention,
		AdvisedRetention: lookback + journalMargin, MinMessageBytes: smallBatchBytes}
}

// IDsTopic is the topic of the ID journal, for a feed that answers lookback far back.
func IDsTopic(name string, shards int, lookback, retention time.Duration) TopicSpec {
	return TopicSpec{Name: name, Partitions: shards, PerShard: true, Retention: max(retention, lookback+journalMargin),
		MinRetention: lookback + journalMargin, MinMessageBytes: largeBatchBytes}
}

// DeadLettersTopic is the topic of the items that cannot be an event.
func DeadLettersTopic(name string, shards int, retention time.Duration) TopicSpec {
	return TopicSpec{Name: name, Partitions: shards, PerShard: true, Retention: retention,
		AdvisedRetention: 7 * day, MinMessageBytes: largeBatchBytes}
}

// JobsTopic is the topic in which commands leave work for the owners of the shards. A
// job is of no use any more when the feed has forgotten its span.
func JobsTopic(name string, shards int, lookback time.Duration) TopicSpec {
	return TopicSpec{Name: name, Partitions: shards, PerShard: true, Retention: lookback + journalMargin, MinMessageBytes: smallBatchBytes}
}

// EnsureOptions say what Ensure may do.
type EnsureOptions struct {
	// Create allows missing topics to be created.
	Create bool

	// ReplicationFactor of created topics; 0: the broker's default.
	ReplicationFactor int

	// ExactlyOnce demands what transactions need of the brokers themselves.
	ExactlyOnce bool

	// Bootstrap is the broker address to write into commands, host:port.
	Bootstrap string
}

// EnsureReport is what Ensure found or made.
type EnsureReport struct {
	Topics   map[string]TopicReport // by name
	Warnings []string               // weaknesses that do not stop the program
}

// TopicReport is what a topic turned out to be.
type TopicReport struct {
	Created           bool // by this call
	Partitions        int
	ReplicationFactor int
	MinInsyncReplicas int
	MaxMessageBytes   int // of one compressed batch
}

// TopicProblem is one thing about a topic, or about the brokers (no Topic),
// with which the promises do not hold.
type TopicProblem struct {
	Topic  string
	Wrong  string
	Remedy string // a command where one exists
}

func (p TopicProblem) String() string {
	subject := "brokers"
	if p.Topic != "" {
		subject = "topic " + p.Topic
	}
	return fmt.Sprintf("%s: %s; %s", subject, p.Wrong, p.Remedy)
}

// TopicsError holds all problems that Ensure found.
type TopicsError struct{ Problems []TopicProblem }

func (e *TopicsError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "check topics: " + strings.Join(lines, "\n")
}

// Ensure creates the topics that are missing, if it may, and checks all of
// them. It changes nothing about a topic that exists. Several processes may
// call it at once. All problems come at once in a [*TopicsError]; any other
// error says that the cluster could not be asked.
func Ensure(ctx context.Context, client *kafka.Client, specs []TopicSpec, opts EnsureOptions) (EnsureReport, error) {
	e := &ensurer{client: client, specs: specs, opts: opts, report: EnsureReport{Topics: make(map[string]TopicReport)}}
	// 1. What is there. The first request also tells whether the cluster can be
	// reached at all.
	topics, err := e.lookUp(ctx)
	if err != nil {
		return EnsureReport{}, err
	}
	// 2. Create what is missing, and wait until all of it has leaders.
	if missing := e.missing(topics); len(missing) > 0 {
		if err := e.create(ctx, missing); err != nil {
			return EnsureReport{}, err
		}
		if topics, err = e.awaitLeaders(ctx, missing); err != nil {
			return EnsureReport{}, err
		}
	}
	// 3. Check topics and brokers.
	if err := e.checkTopics(ctx, topics); err != nil {
		return EnsureReport{}, err
	}
	if opts.ExactlyOnce {
		if err := e.checkBrokers(ctx); err != nil {
			return EnsureReport{}, err
		}
	}
	if len(e.problems) > 0 {
		return e.report, &TopicsError{Problems: e.problems}
	}
	return e.report, nil
}

// ensurer is one call of Ensure.
type ensurer struct {
	client   *kafka.Client
	specs    []TopicSpec
	opts     EnsureOptions
	report   EnsureReport
	answered bool // by any broker, to anything
	problems []TopicProblem
	failed   []string // topics that have a problem which makes further checks pointless
}

func (e *ensurer) refuse(topic, remedy, format string, args ...any) {
	e.problems = append(e.problems, TopicProblem{Topic: topic, Wrong: fmt.Sprintf(format, args...), Remedy: remedy})
}

// refuseError is refuse for an error of the broker. The topic is not checked further.
func (e *ensurer) refuseError(topic, doing string, err error) {
	e.failed = append(e.failed, topic)
	explained := kafkaconn.Explain(err, doing)
	var problem *kafkaconn.Problem
	if errors.As(explained, &problem) {
		e.refuse(topic, problem.Remedy, "cannot %s: %s", doing, problem.Wrong)
		return
	}
	e.refuse(topic, "look at the brokers' logs", "cannot %v", explained)
}

func (e *ensurer) warn(format string, args ...any) {
	e.report.Warnings = append(e.report.Warnings, fmt.Sprintf(format, args...))
}

func (e *ensurer) names() []string {
	names := make([]string, len(e.specs))
	for i, s := range e.specs {
		names[i] = s.Name
	}
	return names
}

func (e *ensurer) lookUp(ctx context.Context) (map[string]kafka.Topic, error) {
	resp, err := e.metadata(ctx)
	if err != nil {
		return nil, kafkaconn.Explain(err, "look up topics at "+e.client.Addr.String())
	}
	topics := make(map[string]kafka.Topic, len(resp.Topics))
	for _, t := range resp.Topics {
		topics[t.Name] = t
	}
	return topics, nil
}

func (e *ensurer) metadata(ctx context.Context) (*kafka.MetadataResponse, error) {
	return untilAnswered(ctx, e, func() (*kafka.MetadataResponse, error) {
		return e.client.Metadata(ctx, &kafka.MetadataRequest{Topics: e.names()})
	})
}

const (
	// answerPatience is for how long a request is made again that no broker
	// answered: longer than a cluster takes to give up a broker that stands still
	// (9 s), though that one may be asked first, for as long as a request may take
	// (10 s).
	answerPatience = 20 * time.Second
	// chancePatience is the same where one broker of several is asked by chance, and
	// the one that stands still may be hit a dozen times in a row.
	chancePatience = time.Minute
	// cutPatience is the same while none has answered anything yet and connections
	// are cut: by one broker that ends, or by all because they expect TLS.
	cutPatience = 5 * time.Second
)

// untilAnswered makes a request again while the network fails it: one broker of many
// that stands still, or is being restarted, is no reason not to start.
func untilAnswered[Response any](ctx context.Context, e *ensurer, ask func() (Response, error)) (Response, error) {
	began := time.Now()
	for {
		response, err := ask()
		if err == nil {
			e.answered = true
			return response, nil
		}
		if ctx.Err() != nil || time.Since(began) >= e.patienceWith(err) {
			return response, err
		}
		sleep(ctx, largestBackoff)
	}
}

// patienceWith is for how long a request is made again that failed so. Before the
// first answer a refused connection means that all brokers named refuse.
func (e *ensurer) patienceWith(err error) time.Duration {
	switch several := strings.Contains(e.client.Addr.String(), ","); {
	case kafkaconn.TimedOut(err) && several:
		return chancePatience
	case kafkaconn.TimedOut(err), e.answered && (kafkaconn.Cut(err) || kafkaconn.Refused(err)):
		return answerPatience
	case kafkaconn.Cut(err):
		return cutPatience
	default:
		return 0
	}
}

// missing returns the topics that do not exist, and refuses those that cannot
// be looked up.
func (e *ensurer) missing(topics map[string]kafka.Topic) []TopicSpec {
	var missing []TopicSpec
	for _, s := range e.specs {
		switch err := topics[s.Name].Error; {
		case errors.Is(err, kafka.UnknownTopicOrPartition):
			missing = append(missing, s)
		case err != nil && !errors.Is(err, kafka.LeaderNotAvailable):
			e.refuseError(s.Name, "look it up", err)
		}
	}
	return missing
}

// create creates topics, or refuses them with the command that does.
func (e *ensurer) create(ctx context.Context, missing []TopicSpec) error {
	if !e.opts.Create {
		for _, s := range missing {
			e.failed = append(e.failed, s.Name)
			e.refuse(s.Name, e.createCommand(s), "does not exist, or the ACLs hide it, and create_topics is off")
		}
		return nil
	}
	request := &kafka.CreateTopicsRequest{}
	for _, s := range missing {
		config := kafka.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: e.replicationFactor()}
		for _, setting := range e.creationSettings(s) {
			config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: setting.key, ConfigValue: setting.value})
		}
		request.Topics = append(request.Topics, config)
	}
	resp, err := untilAnswered(ctx, e, func() (*kafka.CreateTopicsResponse, error) { return e.client.CreateTopics(ctx, request) })
	if err != nil {
		return kafkaconn.Explain(err, "create topics")
	}
	for _, s := range missing {
		switch err := resp.Errors[s.Name]; {
		case err == nil:
			e.report.Topics[s.Name] = TopicReport{Created: true}
		case errors.Is(err, kafka.TopicAlreadyExists): // another process was faster
		case errors.Is(err, kafka.TopicAuthorizationFailed), errors.Is(err, kafka.ClusterAuthorizationFailed):
			e.failed = append(e.failed, s.Name)
			e.refuse(s.Name, "let an administrator run: "+e.createCommand(s), "does not exist, and the ACLs deny this user to create it (Create on the topic or the cluster)")
		default:
			e.refuseError(s.Name, "create it", err)
		}
	}
	return nil
}

// brokerDefault asks the broker for its default.replication.factor (KIP-464).
const brokerDefault = -1

func (e *ensurer) replicationFactor() int {
	if e.opts.ReplicationFactor == 0 {
		return brokerDefault
	}
	return e.opts.ReplicationFactor
}

const (
	createdPatience = 20 * time.Second
	createdPoll     = 100 * time.Millisecond
)

// awaitLeaders waits until created topics can be written: creation is answered
// before every broker knows of it. Topics that failed are not waited for.
func (e *ensurer) awaitLeaders(ctx context.Context, created []TopicSpec) (map[string]kafka.Topic, error) {
	deadline := time.Now().Add(createdPatience)
	for {
		topics, err := e.lookUp(ctx)
		if err != nil {
			return nil, err
		}
		waiting := slices.IndexFunc(created, func(s TopicSpec) bool {
			return !slices.Contains(e.failed, s.Name) && !hasLeaders(topics[s.Name])
		})
		if waiting < 0 {
			return topics, nil
		}
		if time.Now().After(deadline) {
			e.refuseError(created[waiting].Name, "find leaders for all its partitions after creating it", kafka.LeaderNotAvailable)
			return topics, nil
		}
		if err := pollAgain(ctx); err != nil {
			return nil, fmt.Errorf("wait for topic %s: %w", created[waiting].Name, err)
		}
	}
}

func pollAgain(ctx context.Context) error {
	timer := time.NewTimer(createdPoll)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func hasLeaders(t kafka.Topic) bool {
	noLeader := func(p kafka.Partition) bool { return p.Error != nil || p.Leader.Host == "" }
	return t.Error == nil && len(t.Partitions) > 0 && !slices.ContainsFunc(t.Partitions, noLeader)
}

// createCommand is what an administrator runs to create the topic as Ensure would.
func (e *ensurer) createCommand(s TopicSpec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions %d", e.opts.Bootstrap, s.Name, s.Partitions)
	if e.opts.ReplicationFactor != 0 {
		b.WriteString(" --replication-factor " + strconv.Itoa(e.opts.ReplicationFactor))
	}
	for _, setting := range e.creationSettings(s) {
		fmt.Fprintf(&b, " --config %s=%s", setting.key, setting.value)
	}
	return b.String()
}

// configCommand is what an administrator runs to change a topic's setting.
func (e *ensurer) configCommand(topic, key, value string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s",
		e.opts.Bootstrap, topic, key, value)
}
