package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// Comparison is the feed's truth held against the topics, up to the published
// watermarks.
type Comparison struct {
	Records     int // of the feed, that can be events
	Events      int // in the events topic
	DeadLetters int // items that cannot be events, kept in the dead-letter topic
	Missing     int // records that are in neither topic
	Duplicate   int // events or dead letters beyond the first of a record
	Unexpected  int // events of no record
	Restarts    int
}

// Equal reports whether the topics hold each record of the feed once, and nothing else.
func (c Comparison) Equal() bool { return c.Missing == 0 && c.Duplicate == 0 && c.Unexpected == 0 }

func (c Comparison) String() string {
	text := fmt.Sprintf("%d records, %d events, %d missing, %d duplicate, %d restarts", c.Records, c.Events, c.Missing, c.Duplicate, c.Restarts)
	if c.Unexpected > 0 {
		text += fmt.Sprintf(", %d unexpected", c.Unexpected)
	}
	if c.DeadLetters > 0 {
		text += fmt.Sprintf("\n%d items of the feed could not be events; the dead-letter topic has their bytes", c.DeadLetters)
	}
	return text
}

func (c Comparison) verdict() status.Verdict {
	return status.Verdict{Records: uint64(c.Records), Events: uint64(c.Events), Missing: uint64(c.Missing), Duplicate: uint64(c.Duplicate)}
}

// compare reads everything that is committed, as a consumer with isolation level
// read_committed would, and asks the simulator what there should be.
func (s *stage) compare(ctx context.Context) (Comparison, error) {
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: s.cluster.Brokers(), ClientID: "cdrbus-demo"})
	if err != nil {
		return Comparison{}, err
	}
	defer kafkaconn.Close(client)
	topics := &topicReader{committed.NewReader(client)}
	k := &s.config.Kafka
	events := map[string]int{} // by source and Report ID
	if err := topics.each(ctx, k.Topics.Events, k.Partitions, func(r committed.Record) {
		source := strings.TrimPrefix(header(r, "ce_source"), "urn:cdrbus:")
		events[source+" "+header(r, "ce_id")]++
	}); err != nil {
		return Comparison{}, err
	}
	letters := map[string]int{} // by source and SHA-256; the first part stands for all
	if err := topics.each(ctx, k.Topics.DeadLetter, k.Shards, func(r committed.Record) {
		if strings.HasPrefix(header(r, "part"), "1/") {
			letters[string(r.Key)+" "+header(r, "sha256")]++
		}
	}); err != nil {
		return Comparison{}, err
	}
	published := map[string]cdr.Instant{}
	if err := topics.each(ctx, k.Topics.Offsets, k.Shards, func(r committed.Record) {
		if p, err := offsets.DecodePosition(r.Value); err == nil {
			published[string(r.Key)] = p.FeedPublished
		}
	}); err != nil {
		return Comparison{}, err
	}
	return s.judge(events, letters, published), nil
}

// edge is how far beyond the compared span the feed's own bounds may reach: the
// overlap at its start, an inclusive end.
const edge = 10 * time.Minute

func (s *stage) judge(events, letters map[string]int, published map[string]cdr.Instant) Comparison {
	var c Comparison
	for _, source := range sourceNames {
		compared := cdr.Span{StartInclusive: s.start, EndExclusive: published[source]}
		if compared.Validate() != nil {
			continue
		}
		around := cdr.Span{StartInclusive: compared.StartInclusive.Add(-edge), EndExclusive: compared.EndExclusive.Add(edge)}
		for truth := range s.feed.Truth(source, around) {
			event, letter := source+" "+truth.ReportID, source+" "+truth.SHA256
			if !compared.Contains(cdr.InstantOf(truth.ReportTime)) {
				delete(events, event)
				delete(letters, letter)
				continue
			}
			switch {
			case truth.ReportID != "" && events[event] > 0:
				c.Records++
				c.count(&c.Events, events, event)
			case letters[letter] > 0:
				c.count(&c.DeadLetters, letters, letter)
			default:
				c.Records++
				c.Missing++
			}
		}
	}
	c.Unexpected = len(events) + len(letters)
	return c
}

// count takes what a record left in a topic; all but one is a duplicate.
func (c *Comparison) count(total *int, found map[string]int, key string) {
	*total += found[key]
	c.Duplicate += found[key] - 1
	delete(found, key)
}

type topicReader struct{ reader *committed.Reader }

func (t *topicReader) each(ctx context.Context, topic string, partitions int, visit func(committed.Record)) error {
	for partition := range partitions {
		_, _, err := t.reader.Read(ctx, topic, partition, 0, -1, func(r committed.Record) error {
			visit(r)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read %s/%d: %w", topic, partition, err)
		}
	}
	return nil
}

func header(r committed.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
