package producer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// The steps of the protocol. Each repeats its request until the answer is
// definite and leaves the shard's fields true to what is known then.

var (
	errOutOfTime = errors.New("out of time")
	// errOtherEpoch is an answer that only a restore can make sense of.
	errOtherEpoch = errors.New("the coordinator gave another epoch than the next one")
)

// transactional reports whether the steps that only transactions need are taken.
func (s *Shard) transactional() bool { return s.options.Mode == ExactlyOnce }

// newIdentity takes a producer epoch that nobody has, and takes it as it comes.
func (s *Shard) newIdentity(ctx context.Context, from identity) *Failure {
	if !s.transactional() {
		from = unidentified // there is no owner to prove oneself as
	}
	return s.until(ctx, InitProducerID, func(ctx context.Context) *Failure {
		next, failure := s.wire.initProducerID(ctx, from)
		if failure == nil {
			s.own, s.open = next, false
			s.sequences = make(map[place]int32)
		}
		return failure
	})
}

// nextEpoch takes the epoch after this one if this one has had its transaction.
func (s *Shard) nextEpoch(ctx context.Context) *Failure {
	if s.state != spent || !s.transactional() {
		return nil
	}
	failure := s.succeed(ctx)
	if failure == nil {
		s.state = fresh
	}
	return failure
}

// succeed takes the epoch after this one. The same pair is asked for until the
// answer comes, since a repeat is answered as the first. An answer other than the
// next epoch means that something happened that we do not know of: the epochs ran
// out, we were idle for too long, somebody aborted us. Only the log tells what
// that means for our last transaction.
func (s *Shard) succeed(ctx context.Context) *Failure {
	before := s.own
	if failure := s.newIdentity(ctx, before); failure != nil {
		return failure
	}
	if want := (identity{before.producerID, before.epoch + 1}); s.own != want {
		err := fmt.Errorf("%w: producer %d epoch %d, want %d epoch %d", errOtherEpoch, s.own.producerID, s.own.epoch, want.producerID, want.epoch)
		return &Failure{Request: InitProducerID, On: s.wire.subject(), Err: err, Blame: BlameCoordinator, class: abortable}
	}
	return nil
}

func (s *Shard) beginTransaction(ctx context.Context, c *Commit) *Failure {
	if !s.transactional() {
		return nil
	}
	// However the request ends, it may arrive.
	s.open = true
	return s.until(ctx, AddPartitions, func(ctx context.Context) *Failure {
		return s.wire.addPartitions(ctx, s.own, c.slots)
	})
}

// produce sends all rounds of a commit, each until it is acknowledged, and
// returns where the batches went.
func (s *Shard) produce(ctx context.Context, c *Commit) ([]placed, *Failure) {
	header := batchHeader{sender: s.own, transactional: s.transactional()}
	rounds := c.newRounds(header, !s.transactional(), func(p place) int32 { return s.sequences[p] })
	var sent []placed
	var r *round
	for number := 1; ; number++ {
		if r = rounds.next(r); r == nil {
			break
		}
		// A repeat sends the same bytes to whoever leads by then.
		if failure := s.until(ctx, Produce, func(ctx context.Context) *Failure {
			return s.wire.produce(ctx, number, r)
		}); failure != nil {
			return nil, failure
		}
		for _, b := range r.batches {
			sent = append(sent, placed{b.place, b.baseOffset})
		}
	}
	if !s.transactional() {
		rounds.countInto(s.sequences)
	}
	return sent, nil
}

// commitTransaction asks for the commit until the answer is definite. It may take
// until the coordinator would have aborted the transaction by itself; after that
// only the log knows.
func (s *Shard) commitTransaction(ctx context.Context, began time.Time) *Failure {
	if !s.transactional() {
		return nil
	}
	if ctx.Err() != nil {
		// Not asked for yet, so it can still be aborted.
		return &Failure{Request: CommitTransaction, On: s.wire.subject(), Err: context.Cause(ctx), class: abortable}
	}
	ctx, cancel := outlive(ctx, s.options.ShutdownGrace)
	defer cancel()
	ctx, cancelDeadline := context.WithDeadlineCause(ctx, began.Add(s.options.TransactionTimeout), errOutOfTime)
	defer cancelDeadline()
	failure := s.until(ctx, CommitTransaction, func(ctx context.Context) *Failure {
		return s.wire.endTransaction(ctx, s.own, CommitTransaction)
	})
	if failure == nil {
		s.open, s.state = false, spent
	}
	return failure
}

// abortTransaction makes sure that nothing of ours is open.
func (s *Shard) abortTransaction(ctx context.Context) *Failure {
	if !s.open {
		return nil
	}
	failure := s.until(ctx, AbortTransaction, func(ctx context.Context) *Failure {
		return s.wire.endTransaction(ctx, s.own, AbortTransaction)
	})
	if failure == nil {
		s.open = false
	}
	return failure
}

const (
	// firstBackoff is short because the usual reason for a repeat, our own former
	// transaction still being ended, is gone within a few milliseconds.
	firstBackoff   = time.Millisecond
	largestBackoff = 100 * time.Millisecond
	// silenceToLog is after how long of repeating somebody is told.
	silenceToLog = 5 * time.Second
)

// until repeats try until it succeeds, fails for good, or ctx ends. In the last
// case the outcome is indefinite, whatever the last answer was: an earlier try may
// have been carried out.
func (s *Shard) until(ctx context.Context, request Request, try func(context.Context) *Failure) *Failure {
	began, told := time.Now(), false
	backoff := firstBackoff
	var last *Failure
	for tries := 0; ; tries++ {
		if ctx.Err() != nil {
			return s.ended(ctx, request, tries, last)
		}
		failure := try(ctx)
		if failure == nil || failure.class > indefinite {
			if told {
				s.log.Info("Kafka answered", zap.Stringer("request", request), zap.Int("tries", tries+1), zap.Duration("after", time.Since(began)))
			}
			return failure
		}
		// What ctx cut short says nothing about Kafka.
		if ctx.Err() == nil || last == nil {
			last = failure
		}
		if !told && time.Since(began) >= silenceToLog {
			told = true
			s.log.Warn("Kafka does not do its part, asking again", zap.Stringer("request", request), zap.Int("tries", tries+1), zap.Error(failure))
		}
		sleep(ctx, backoff)
		backoff = min(2*backoff, largestBackoff)
	}
}

// ended is the failure of a request whose time ran out before it was done.
func (s *Shard) ended(ctx context.Context, request Request, tries int, last *Failure) *Failure {
	failure := &Failure{Request: request, On: s.wire.subject(), Err: context.Cause(ctx), class: indefinite}
	if last != nil {
		failure.On, failure.Code, failure.Blame, failure.Remedy = last.On, last.Code, last.Blame, last.Remedy
		failure.Err = fmt.Errorf("%w after %d tries, the last: %w", context.Cause(ctx), tries, last.Err)
	}
	// Brokers that answer, but not soon enough, may do so for less at once.
	slow := last == nil || errors.Is(last.Err, context.DeadlineExceeded) || errors.Is(last.Err, kafka.RequestTimedOut)
	if request == Produce && slow && errors.Is(context.Cause(ctx), errOutOfTime) {
		failure.Blame = BlameTime
	}
	return failure
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// outlive returns a context that ends grace after ctx does.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		sleep(longer, grace)
		cancel(context.Cause(ctx))
	})
	return longer, func() {
		stop()
		cancel(context.Canceled)
	}
}
