package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/offsets"
)

// jobsInterval is how often an owner looks for new jobs. Commands wait for three
// times as long before they take a shard to be without an owner.
const jobsInterval = 10 * time.Second

// JobPatience is how long an owner may take to accept a job, if there is one.
const JobPatience = 3 * jobsInterval

// jobStatesOf picks the states of jobs from what a restore has found.
func jobStatesOf(restored *offsets.Restored) map[string][]byte {
	states := map[string][]byte{}
	for key, value := range restored.Notes {
		if id, ok := offsets.JobOf([]byte(key)); ok {
			states[id] = value
		}
	}
	return states
}

// watchJobs hands the jobs of the shard's sources to their lanes: at first those that
// were begun, or asked for, under former owners. It ends with ctx; nothing that is
// wrong with a job, or with their topic, stops the lanes.
func (s *shard) watchJobs(ctx context.Context, lanes []*lane) error {
	laneOf := map[cdr.SourceName]*lane{}
	for _, l := range lanes {
		for _, src := range l.sources {
			laneOf[src.name] = l
		}
	}
	next, told, complete := int64(committed.Earliest), "", false
	seen := map[string]bool{} // requests, and cancellations
	tick := time.NewTicker(jobsInterval)
	defer tick.Stop()
	for {
		jobs, err := s.readJobs(ctx, &next)
		if err := s.takeJobs(ctx, jobs, laneOf, seen); err != nil {
			return err
		}
		if err == nil && !complete {
			complete = true
			if err := s.forgetJobs(ctx, seen); err != nil {
				return err
			}
		}
		if text := errorText(err); text != told && ctx.Err() == nil {
			if told = text; err != nil {
				s.log.Warn("jobs cannot be read", zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// jobRequest tells a job, or its cancellation, from those seen before.
func jobRequest(id string, cancel bool) string { return fmt.Sprint(id, cancel) }

// takeJobs hands over what was just read.
func (s *shard) takeJobs(ctx context.Context, jobs []offsets.Job, laneOf map[cdr.SourceName]*lane, seen map[string]bool) error {
	for _, job := range jobs {
		request := jobRequest(job.ID, job.Cancel)
		if seen[request] {
			continue
		}
		seen[request] = true
		if job.Kind == offsets.Mend || s.jobEnded(job.ID) || s.daemon.passesOver(job.ID) {
			continue
		}
		if err := s.deliver(ctx, laneOf[job.Source], job); err != nil {
			return err
		}
	}
	for _, job := range s.newEdits(jobs) {
		if err := s.acceptEdit(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// readJobs reads on in the shard's partition of the jobs topic.
func (s *shard) readJobs(ctx context.Context, next *int64) (jobs []offsets.Job, err error) {
	topic := s.daemon.config.Kafka.Topics.Jobs
	reached, _, err := s.daemon.reader.Read(ctx, topic, s.index, *next, committed.LastStable, func(r committed.Record) error {
		job, err := offsets.DecodeJob(r.Value)
		if err != nil {
			s.log.Warn("job passed over", zap.String("topic", topic), zap.Int("partition", s.index), zap.Int64("offset", r.Offset), zap.Error(err))
			return nil
		}
		jobs = append(jobs, job)
		return nil
	})
	var gone *committed.OutOfRangeError
	switch {
	case errors.As(err, &gone):
		*next = committed.Earliest
	case err == nil:
		*next = reached
	}
	return jobs, err
}

// jobEnded reports whether a job had ended when the shard was taken over.
func (s *shard) jobEnded(id string) bool {
	state, err := offsets.DecodeJobState(s.jobStates[id])
	return err == nil && state.Phase.Ended()
}

// jobMemory is how long the state of a job that has ended is kept at least.
const jobMemory = 30 * 24 * time.Hour

// forgetJobs erases the states of jobs that ended long ago, so that they do not pile
// up. Those whose jobs the topic still has say that they are done, and stay.
func (s *shard) forgetJobs(ctx context.Context, seen map[string]bool) error {
	for id, value := range s.jobStates {
		state, err := offsets.DecodeJobState(value)
		if err != nil || seen[jobRequest(id, false)] || !state.Phase.Ended() || time.Since(state.UpdatedAt) < jobMemory {
			continue
		}
		if s.hand(newNote(offsets.JobKey(id), nil)) != nil {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return nil
}

// deliver hands a job to the lane of its source. A job whose source has none fails.
func (s *shard) deliver(ctx context.Context, l *lane, job offsets.Job) error {
	if l != nil {
		select {
		case l.jobs <- job:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if job.Cancel {
		return nil
	}
	var names []string
	for _, src := range s.daemon.sourcesOf(s.index) {
		names = append(names, string(src.name))
	}
	state := offsets.JobState{
		Job: job, Phase: offsets.JobFailed, Next: job.Span.StartInclusive,
		Message: fmt.Sprintf("source %s waits for a person itself, or is not configured here; shard %d has %s", job.Source, s.index, strings.Join(names, ", ")),
	}
	if err := s.noteJob(ctx, &state); err != nil {
		return err
	}
	s.daemon.jobEnded(&state)
	return nil
}
