package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/producer"
)

// rivalry tells being fenced now and then, which is nothing, from being fenced again
// and again, which is another process.
type rivalry struct{ fenced []time.Time }

const (
	rivalrySpan   = 15 * time.Minute
	rivalryLosses = 4
)

// note takes in why a shard was lost, and completes the reason once it is clear that
// somebody else wants the shard too.
func (r *rivalry) note(lost error, now time.Time) error {
	var failure *producer.Failure
	if !errors.As(lost, &failure) || failure.Code != kafka.ProducerFenced && failure.Code != kafka.InvalidProducerEpoch {
		return lost
	}
	r.fenced = append(r.fenced, now)
	if len(r.fenced) > rivalryLosses {
		r.fenced = r.fenced[1:]
	}
	if len(r.fenced) < rivalryLosses || now.Sub(r.fenced[0]) > rivalrySpan {
		return lost
	}
	return fmt.Errorf("%w; this was the %dth time within %s: another process takes the shard in turns with this one. With ownership: static only one may run with one kafka.transactional_id_prefix and offsets topic",
		lost, rivalryLosses, rivalrySpan)
}
