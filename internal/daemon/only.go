package daemon

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"cdrbus/internal/committed"
	"cdrbus/internal/ownership"
	"cdrbus/offsets"
)

// ErrTakenOver ends a daemon that was to do nothing but one job: another process
// owns the shard now, and goes on with the job.
var ErrTakenOver = errors.New("another process has taken the job over")

// errJobEnded ends such a daemon when the job has.
var errJobEnded = errors.New("the job has ended")

// passesOver reports whether the daemon does nothing but a job, and not this one.
func (d *Daemon) passesOver(id string) bool { return d.only != nil && d.only.ID != id }

// besides is what this process needs besides windows and holdings.
func (d *Daemon) besides() int64 {
	if d.publishesNothing() {
		return besidesComparison
	}
	return besidesWindows
}

// publishesNothing reports whether the daemon is there for a verification that only
// compares. It needs no published IDs; and should a window come to be published after
// all, a set that begins at the end of time lets it load those of its time first.
func (d *Daemon) publishesNothing() bool {
	return d.only != nil && d.only.Kind == offsets.Verify && !d.only.Repair
}

// jobEnded shows that a job has ended, and ends a daemon that was for it alone.
func (d *Daemon) jobEnded(state *offsets.JobState) {
	if state.Job.Kind != offsets.Mend {
		d.board.JobEnded(state.Job.Source, boardJob(state))
	}
	if d.only != nil && state.Job.ID == d.only.ID {
		d.end(errJobEnded)
	}
}

// takenOver reports, to a daemon that is there for one job, whether another process
// is at it: being fenced alone proves nothing, but whoever takes a shard over says so
// in the states of the jobs that it goes on with.
func (d *Daemon) takenOver(ctx context.Context, lease ownership.Lease) bool {
	if d.only == nil {
		return false
	}
	if newBackoff(JobPatience/2, JobPatience/2).wait(ctx) != nil {
		return false
	}
	var last offsets.JobState
	key := string(offsets.JobKey(d.only.ID))
	_, _, err := d.reader.Read(ctx, d.config.Kafka.Topics.Offsets, lease.Shard, committed.Earliest, committed.LastStable, func(r committed.Record) error {
		if string(r.Key) != key {
			return nil
		}
		state, err := offsets.DecodeJobState(r.Value)
		if err == nil {
			last = state
		}
		return nil
	})
	return err == nil && last.Owner != "" && last.Owner != d.name()
}

// name is what people call this process.
func (d *Daemon) name() string {
	if d.only != nil {
		return "command " + memberName("")
	}
	return memberName(d.config.Kafka.Group.Member)
}

// onlySources keeps of all sources those of the shard in which the job's source lies.
func (d *Daemon) onlySources() error {
	for shard, sources := range d.shards {
		for _, s := range sources {
			if s.name == d.only.Source {
				d.shards = map[int][]*source{shard: sources}
				return nil
			}
		}
	}
	return fmt.Errorf("job %s: no source is called %s in this configuration", d.only.ID, d.only.Source)
}

// logOnly tells once what such a daemon is there for.
func (d *Daemon) logOnly() {
	if d.only != nil {
		d.log.Info("nobody owns the shard: doing the job here", zap.String("job", d.only.ID), zap.String("source", string(d.only.Source)))
	}
}
