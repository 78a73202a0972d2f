package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// Runner does a job from a command: by the owner of its shard if there is one, else
// by itself.
type Runner struct {
	Config  *config.Config
	Client  *kafka.Client
	Log     *zap.Logger // of a job that is done here
	Version string
	// Patience is how long an owner may take to accept a job; 0: daemon.JobPatience, and
	// RejoinPatience for one that was submitted before.
	Patience time.Duration

	// Waiting is called if nobody is at the job yet, as far as is known, and Alone once
	// it is clear that nobody will be.
	Waiting func(patience time.Duration)
	Alone   func()
	// Each is called for every state that is committed.
	Each func(offsets.JobState)

	// New makes a daemon; nil: daemon.New.
	New func(ctx context.Context, options daemon.Options) (*daemon.Daemon, error)
}

const (
	// RejoinPatience is how long a job that was begun may be silent before whoever comes
	// back to it takes it to be nobody's: a window of a minute's pages takes less.
	RejoinPatience = 5 * time.Minute
	// silence is the same for whoever has seen it going on: the feed may demand to be
	// left alone for a quarter of an hour.
	silence = 20 * time.Minute
)

// Run submits a job and follows it to its end, whose state it returns. The end of ctx
// leaves a job alone that an owner does; one that is done here stops, and whoever
// owns the shard next, or [Runner.Rejoin], goes on with it.
func (r *Runner) Run(ctx context.Context, job offsets.Job) (offsets.JobState, error) {
	if err := Submit(ctx, r.Client, r.Config, job); err != nil {
		return offsets.JobState{}, err
	}
	return r.follow(ctx, job, time.Time{}, cmp.Or(r.Patience, daemon.JobPatience))
}

// Rejoin follows a job that was submitted before.
func (r *Runner) Rejoin(ctx context.Context, id string) (offsets.JobState, error) {
	place, err := Find(ctx, committed.NewReader(r.Client), r.Config, id)
	if err != nil {
		return offsets.JobState{}, err
	}
	patience := cmp.Or(r.Patience, RejoinPatience)
	return r.follow(ctx, place.Job, time.Now().Add(-patience), patience)
}

// follow tells of a job's states. If none comes that was committed since, for as long
// as patience lasts, nobody is at it: then the job is done here.
func (r *Runner) follow(ctx context.Context, job offsets.Job, since time.Time, patience time.Duration) (last offsets.JobState, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var here sync.WaitGroup
	defer here.Wait()
	defer cancel()
	alone, failed := time.NewTimer(patience), make(chan error, 1)
	defer alone.Stop()
	here.Go(func() {
		if err := r.stepIn(ctx, job, alone); err != nil {
			failed <- err
			cancel()
		}
	})
	var waiting sync.Once
	err = follow(ctx, committed.NewReader(r.Client), r.Config, job.ID, func(state offsets.JobState) error {
		if state.Phase.Ended() || state.UpdatedAt.After(since) && alone.Stop() {
			alone.Reset(silence)
			waiting.Do(func() {})
		}
		last = state
		r.Each(state)
		return nil
	}, func() { waiting.Do(func() { r.Waiting(patience) }) })
	select {
	case cause := <-failed:
		return last, fmt.Errorf("do job %s here: %w", job.ID, cause)
	default:
		return last, err
	}
}

// stepIn does a job here whenever nobody is at it any more, until it has ended, or ctx.
func (r *Runner) stepIn(ctx context.Context, job offsets.Job, alone *time.Timer) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-alone.C:
		}
		r.Alone()
		err := r.do(ctx, job)
		if !errors.Is(err, daemon.ErrTakenOver) {
			return err
		}
		alone.Reset(silence)
	}
}

// do is the job done by this process.
func (r *Runner) do(ctx context.Context, job offsets.Job) error {
	newDaemon := r.New
	if newDaemon == nil {
		newDaemon = daemon.New
	}
	board := status.New(status.Build{Version: r.Version}, status.Options{})
	d, err := newDaemon(ctx, daemon.Options{Config: r.Config, Log: r.Log, Board: board, Version: r.Version, Only: &job, LimitMemory: true})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
