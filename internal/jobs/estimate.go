package jobs

import (
	"context"
	"fmt"
	"math"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/offsets"
	"cdrbus/poller"
)

// Estimate is what reading a span of a source takes.
type Estimate struct {
	Span           cdr.Span      `json:"span"`
	RecordsPerHour float64       `json:"records_per_hour"` // as of the receipts of the last days; 0: not known
	Windows        int           `json:"windows"`          // and so initial requests
	Pages          int           `json:"pages"`            // page requests
	Alone          time.Duration `json:"alone_ns"`         // with all of the request budget
	Beside         time.Duration `json:"beside_ns"`        // with the share that is guaranteed beside a live daemon
}

// rateSpan is how far back receipts are read for a source's rate.
const rateSpan = 3 * 24 * time.Hour

// EstimateSpan estimates a span by the source's configuration and what its receipts
// tell of its rate.
func EstimateSpan(ctx context.Context, r offsets.Reader, cfg *config.Config, source *config.Source, span cdr.Span) (Estimate, error) {
	rate, err := recordsPerHour(ctx, r, cfg, source)
	if err != nil {
		return Estimate{}, fmt.Errorf("estimate what %s of source %s takes: %w", span, source.Name, err)
	}
	e := Estimate{Span: span, RecordsPerHour: rate}
	hours := span.Duration().Hours()
	perWindow := source.MaxWindow.Hours()
	if rate > 0 {
		perWindow = min(perWindow, float64(source.Limits.PagesPerMinute)*poller.LargestPageSize/rate)
	}
	e.Windows = int(math.Ceil(hours / perWindow))
	pageSize := source.PageSize
	if pageSize == 0 {
		pageSize = poller.LargestPageSize
	}
	e.Pages = max(0, int(math.Ceil(hours*rate/float64(pageSize)))-e.Windows)
	minutes := max(float64(e.Windows)/float64(source.Limits.InitialPerMinute), float64(e.Pages)/float64(source.Limits.PagesPerMinute))
	e.Alone = time.Duration(minutes * float64(time.Minute)).Round(time.Second)
	e.Beside = time.Duration(minutes / daemon.GuaranteedShare * float64(time.Minute)).Round(time.Second)
	return e, nil
}

// recordsPerHour is the rate of a source by its latest receipts; 0 without any.
func recordsPerHour(ctx context.Context, r offsets.Reader, cfg *config.Config, source *config.Source) (float64, error) {
	topic, shard := cfg.Kafka.Topics.Windows, source.Shard(cfg.Kafka.Shards)
	from, err := r.OffsetAt(ctx, topic, shard, time.Now().Add(-rateSpan))
	if err != nil {
		return 0, err
	}
	codecs := map[int]*offsets.ReceiptCodec{}
	var items int64
	var hours float64
	_, _, err = r.Read(ctx, topic, shard, from, committed.LastStable, func(record committed.Record) error {
		if string(record.Key) != source.Name {
			return nil
		}
		receipt, ok := decodeReceipt(codecs, record.Value)
		if ok && !receipt.Commit.IsZero() && receipt.Gap.IsZero() && receipt.Endpoint == cdr.Feed {
			items += receipt.Items
			hours += receipt.Asked.Duration().Hours()
		}
		return nil
	})
	if err != nil || hours == 0 {
		return 0, err
	}
	return float64(items) / hours, nil
}

// decodeReceipt reads a receipt that this version knows.
func decodeReceipt(codecs map[int]*offsets.ReceiptCodec, value []byte) (offsets.Receipt, bool) {
	id, err := offsets.ReceiptSchemaID(value)
	if err != nil {
		return offsets.Receipt{}, false
	}
	if codecs[id] == nil {
		if codecs[id], err = offsets.NewReceiptCodec(id); err != nil {
			return offsets.Receipt{}, false
		}
	}
	receipt, err := codecs[id].Decode(value)
	return receipt, err == nil
}
