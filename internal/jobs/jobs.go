// Package jobs is a command's side of a job: it leaves the job with the owner of a
// source's shard, and follows what becomes of it.
//
//	Submit    writes a job to the source's partition of the jobs topic
//	Taken     waits until an owner has accepted it, for as long as one may take
//	Follow    tells of each state that the owner commits, until the last
//	Cancel    asks the owner to end it
//
// Whoever follows a job can leave and come back: its state lies in the offsets topic,
// and its place is found again by its ID alone.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/kafkaconn"
	"cdrbus/offsets"
)

// ErrUnknown says that no job of this ID was ever written, or too long ago.
var ErrUnknown = errors.New("there is no such job")

// Submit leaves a job with the owner of its source's shard. A job that is submitted
// twice is done once: its ID says that it is the same.
func Submit(ctx context.Context, client *kafka.Client, cfg *config.Config, job offsets.Job) error {
	source, err := cfg.SourceNamed(string(job.Source))
	if err != nil {
		return err
	}
	return SubmitTo(ctx, client, cfg, source.Shard(cfg.Kafka.Shards), job)
}

// writePatience is how long a job is written again while Kafka does not take it.
const writePatience = 30 * time.Second

// SubmitTo leaves a job with the owner of a shard, whether or not its source is
// placed there.
func SubmitTo(ctx context.Context, client *kafka.Client, cfg *config.Config, shard int, job offsets.Job) error {
	value, err := job.Encode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	topic := cfg.Kafka.Topics.Jobs
	for {
		// What a time-out leaves undecided may be written again: see Submit.
		response, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, Partition: shard, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Key: kafka.NewBytes([]byte(job.ID)), Value: kafka.NewBytes(value)}),
		})
		if err == nil {
			err = response.Error
		}
		if err == nil {
			return nil
		}
		if kafkaconn.Permanent(err) || !pause(ctx, time.Second) {
			return kafkaconn.Explain(err, fmt.Sprintf("write job %s to %s-%d", job.ID, topic, shard))
		}
	}
}

// Cancel asks the owner to end a job.
func Cancel(ctx context.Context, client *kafka.Client, cfg *config.Config, job offsets.Job) error {
	job.Cancel = true
	return Submit(ctx, client, cfg, job)
}

// Place is where a job was written.
type Place struct {
	Job       offsets.Job
	Shard     int
	WrittenAt time.Time
}

// Find looks for a job by its ID. Its error wraps ErrUnknown if there is none.
func Find(ctx context.Context, r offsets.Reader, cfg *config.Config, id string) (Place, error) {
	topic := cfg.Kafka.Topics.Jobs
	for shard := range cfg.Kafka.Shards {
		var found *Place
		_, _, err := r.Read(ctx, topic, shard, committed.Earliest, committed.LastStable, func(record committed.Record) error {
			if found != nil || string(record.Key) != id {
				return nil
			}
			job, err := offsets.DecodeJob(record.Value)
			if err != nil {
				return fmt.Errorf("%s-%d, offset %d: %w", topic, shard, record.Offset, err)
			}
			found = &Place{job, shard, record.Timestamp}
			return nil
		})
		if err != nil {
			return Place{}, fmt.Errorf("look for job %s: %w", id, err)
		}
		if found != nil {
			return *found, nil
		}
	}
	return Place{}, fmt.Errorf("look for job %s in topic %s: %w", id, topic, ErrUnknown)
}

// followInterval is how often the state of a job is looked for.
const followInterval = time.Second

// clockMargin is how much earlier than its job a state can be stamped, by another
// machine's clock.
const clockMargin = time.Hour

// Follow calls each for the states of a job as they are committed, until one of them
// says that it has ended. An error of each ends it too, and is returned. States that
// compaction has removed are left out, never the last.
func Follow(ctx context.Context, r offsets.Reader, cfg *config.Config, id string, each func(offsets.JobState) error) error {
	return follow(ctx, r, cfg, id, each, func() {})
}

// follow calls looked whenever all states there are have been told of, and the job has
// not ended.
func follow(ctx context.Context, r offsets.Reader, cfg *config.Config, id string, each func(offsets.JobState) error, looked func()) error {
	place, err := Find(ctx, r, cfg, id)
	if err != nil {
		return err
	}
	topic := cfg.Kafka.Topics.Offsets
	next, err := r.OffsetAt(ctx, topic, place.Shard, place.WrittenAt.Add(-clockMargin))
	if err != nil {
		return fmt.Errorf("follow job %s: %w", id, err)
	}
	for ended := false; ; {
		next, _, err = r.Read(ctx, topic, place.Shard, next, committed.LastStable, func(record committed.Record) error {
			if of, ok := offsets.JobOf(record.Key); !ok || of != id || ended {
				return nil
			}
			state, err := offsets.DecodeJobState(record.Value)
			if err != nil {
				return fmt.Errorf("%s-%d, offset %d: %w", topic, place.Shard, record.Offset, err)
			}
			ended = state.Phase.Ended()
			return each(state)
		})
		var gone *committed.OutOfRangeError
		switch {
		case errors.As(err, &gone):
			next = committed.Earliest
		case err != nil:
			return fmt.Errorf("follow job %s: %w", id, err)
		case ended:
			return nil
		}
		looked()
		if !pause(ctx, followInterval) {
			return ctx.Err()
		}
	}
}

var errTaken = errors.New("an owner has accepted it")

// Taken waits until an owner has accepted a job, or has ended it at once, and returns
// that state. Without one after patience nobody owns the shard, or nobody who knows
// such jobs.
func Taken(ctx context.Context, r offsets.Reader, cfg *config.Config, id string, patience time.Duration) (state offsets.JobState, taken bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = Follow(waiting, r, cfg, id, func(s offsets.JobState) error {
		state, taken = s, true
		return errTaken
	})
	switch {
	case taken:
		return state, true, nil
	case ctx.Err() != nil:
		return state, false, ctx.Err()
	case waiting.Err() != nil:
		return state, false, nil
	}
	return state, false, err
}

// pause waits, and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// List returns the states of all jobs that Kafka still knows of, in the order in which
// they were asked for. One that nobody has accepted yet has no phase.
func List(ctx context.Context, r offsets.Reader, cfg *config.Config) ([]offsets.JobState, error) {
	states := map[string]*offsets.JobState{}
	for shard := range cfg.Kafka.Shards {
		for _, topic := range []string{cfg.Kafka.Topics.Jobs, cfg.Kafka.Topics.Offsets} {
			_, _, err := r.Read(ctx, topic, shard, committed.Earliest, committed.LastStable, func(record committed.Record) error {
				if topic == cfg.Kafka.Topics.Jobs {
					if job, err := offsets.DecodeJob(record.Value); err == nil && !job.Cancel && states[job.ID] == nil {
						states[job.ID] = &offsets.JobState{Job: job, Next: job.Span.StartInclusive}
					}
					return nil
				}
				id, ok := offsets.JobOf(record.Key)
				if !ok {
					return nil
				}
				if state, err := offsets.DecodeJobState(record.Value); err == nil {
					states[id] = &state
				} else if record.Value == nil {
					delete(states, id)
				}
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("list jobs: %w", err)
			}
		}
	}
	all := make([]offsets.JobState, 0, len(states))
	for _, id := range slices.Sorted(maps.Keys(states)) {
		all = append(all, *states[id])
	}
	return all, nil
}

// New returns a job for a source, as of now.
func New(kind offsets.JobKind, source cdr.SourceName, by string) offsets.Job {
	now := time.Now().UTC()
	return offsets.Job{ID: offsets.NewJobID(now), Kind: kind, Source: source, CreatedAt: now, CreatedBy: by}
}
