package daemon

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/coverage"
	"cdrbus/internal/status"
)

// NewReceiptReader returns a reader of the receipts of a configuration, which reads
// through a client.
func NewReceiptReader(cfg *config.Config, client *kafka.Client) (*coverage.Reader, error) {
	registry, err := NewRegistry(cfg, nil)
	if err != nil {
		return nil, err
	}
	return coverage.NewReader(committed.NewReader(client), cfg.Kafka.Topics.Windows, cfg.Kafka.Shards, registry.SchemaByID), nil
}

// CoverageSubject is a source as a question about its coverage needs it: where its
// receipts lie, and the sweep that settles it.
func CoverageSubject(cfg *config.Config, source *config.Source) coverage.Subject {
	subject := coverage.Subject{Source: cdr.SourceName(source.Name), Shard: ShardOf(source, cfg.Kafka.Shards)}
	for _, sweep := range source.Sweeps {
		if sweep.Back > subject.Widest.Back {
			subject.Widest = coverage.Sweep{Every: sweep.Every, Back: sweep.Back}
		}
	}
	return subject
}

// Coverage answers the status page's questions about coverage. It reads Kafka by
// itself, so that it can tell of the sources of other members, and of those whose shard
// is lost.
type Coverage struct {
	names  []cdr.SourceName
	ledger *coverage.Ledger
}

// NewCoverage returns the coverage of the sources of a configuration. It connects with
// the first question, and stays so: it lives as long as the process.
func NewCoverage(cfg *config.Config) *Coverage {
	c := &Coverage{}
	placed := map[cdr.SourceName]int{}
	for i := range cfg.Sources {
		subject := CoverageSubject(cfg, &cfg.Sources[i])
		c.names = append(c.names, subject.Source)
		placed[subject.Source] = subject.Shard
	}
	c.ledger = coverage.NewLedger(func(context.Context) (*coverage.Reader, error) {
		client, err := Connect(cfg)
		if err != nil {
			return nil, err
		}
		return NewReceiptReader(cfg, client)
	}, placed)
	return c
}

// Sources implements [status.Coverage].
func (c *Coverage) Sources() []cdr.SourceName { return c.names }

// Calendar implements [status.Coverage].
func (c *Coverage) Calendar(ctx context.Context, source cdr.SourceName, days int) (any, error) {
	return answered(c.ledger.Calendar(ctx, source, days, time.Now()))
}

// Receipts implements [status.Coverage].
func (c *Coverage) Receipts(ctx context.Context, source cdr.SourceName, span cdr.Span) (any, error) {
	return answered(c.ledger.Receipts(ctx, source, span, time.Now()))
}

// answered gives an error the status that a browser should get.
func answered[Answer any](answer Answer, err error) (any, error) {
	var reading *coverage.StillReading
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &reading):
		return nil, &status.CoverageError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Err: err}
	case errors.Is(err, coverage.ErrUnknownSource):
		return nil, &status.CoverageError{Status: http.StatusNotFound, Err: err}
	default:
		return nil, &status.CoverageError{Status: http.StatusBadGateway, Err: err}
	}
}
