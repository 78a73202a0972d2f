// Package mend has a position changed as a person says, from a command: by the owner
// of the source's shard, beside whatever it does, or by the command itself where
// nobody owns the shard. What is changed, and how, is package positions' business.
package mend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/jobs"
	"cdrbus/internal/positions"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// Mender is one command. Its methods are called one after another.
type Mender struct {
	Config  *config.Config
	Client  *kafka.Client
	Log     *zap.Logger
	Version string
	By      string       // the machine that asks
	Tell    func(string) // what is being waited for
	// Patience is how long an owner may take to accept an edit; 0: daemon.JobPatience.
	Patience time.Duration

	// DialKafka and DialFeed are as in [daemon.Options].
	DialKafka, DialFeed daemon.DialFunc

	mu    sync.Mutex
	alone map[int]bool // shards that nobody owns, as far as is known
}

// isAlone reports whether nobody is known to own a shard.
func (m *Mender) isAlone(shard int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alone[shard]
}

func (m *Mender) noteAlone(shard int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.alone == nil {
		m.alone = map[int]bool{}
	}
	m.alone[shard] = true
}

func (m *Mender) tell(format string, arguments ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Tell(fmt.Sprintf(format, arguments...))
}

const (
	// takingPatience is how long an edit may wait to be begun.
	takingPatience = 10 * time.Minute
	// cancelPatience is how long a command that was interrupted tries to take back
	// what it has asked for.
	cancelPatience = 5 * time.Second
)

// EditOf completes an edit with what is configured here.
func EditOf(cfg *config.Config, source *config.Source, edit offsets.Edit) (offsets.Edit, error) {
	expect, err := positions.ExpectationOf(source)
	if err != nil {
		return edit, err
	}
	edit.Prefix, edit.Shards, edit.Definition = cfg.Kafka.TransactionalIDPrefix, cfg.Kafka.Shards, expect.Definition
	edit.NotAfter = time.Now().UTC().Add(takingPatience)
	return edit, nil
}

// Do has an edit done, and says what that was. Interrupted, it takes back what it has
// asked for, unless an owner has begun it.
func (m *Mender) Do(ctx context.Context, source *config.Source, edit offsets.Edit) (message string, err error) {
	if edit, err = EditOf(m.Config, source, edit); err != nil {
		return "", err
	}
	if edit.What == offsets.EditMove {
		return m.move(ctx, source, edit)
	}
	shard := source.Shard(m.Config.Kafka.Shards)
	job := m.job(source, edit)
	runner := jobs.Runner{
		Config: m.Config, Client: m.Client, Log: m.Log, Version: m.Version,
		Waiting: func(patience time.Duration) {
			if !m.isAlone(shard) {
				m.tell("waiting up to %s for the owner of shard %d", patience, shard)
			}
		},
		Alone: func() {
			m.noteAlone(shard)
			m.tell("nobody owns shard %d: taking it over", shard)
		},
		Each: func(s offsets.JobState) {
			if s.Phase == offsets.JobAccepted {
				m.tell("accepted by %s", s.Owner)
			}
		},
		New: m.newDaemon, Patience: m.Patience,
	}
	if m.isAlone(shard) {
		runner.Patience = time.Millisecond
	}
	state, err := runner.Run(ctx, job)
	switch {
	case err != nil && !state.Phase.Ended():
		m.takeBack(ctx, shard, job)
		return "", err
	case state.Phase != offsets.JobDone:
		return "", fmt.Errorf("the edit has %s: %s", state.Phase, state.Message)
	}
	return state.Message, nil
}

func (m *Mender) job(source *config.Source, edit offsets.Edit) offsets.Job {
	job := jobs.New(offsets.Mend, cdr.SourceName(source.Name), m.By)
	job.Edit = &edit
	return job
}

// takeBack cancels a job that was not seen to end. If the owner has begun it, it is
// done all the same.
func (m *Mender) takeBack(ctx context.Context, shard int, job offsets.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer cancel()
	job.Cancel = true
	if err := jobs.SubmitTo(ctx, m.Client, m.Config, shard, job); err != nil {
		m.tell("the edit could not be taken back; an owner may do it until %s: %v", job.Edit.NotAfter.Format(time.RFC3339), err)
	}
}

func (m *Mender) newDaemon(ctx context.Context, options daemon.Options) (*daemon.Daemon, error) {
	options.DialKafka, options.DialFeed = m.DialKafka, m.DialFeed
	options.LimitMemory = false // an edit holds nothing that would need it
	return daemon.New(ctx, options)
}

// move moves a source, if nobody owns either of its shards.
func (m *Mender) move(ctx context.Context, source *config.Source, edit offsets.Edit) (string, error) {
	if err := m.demandNoFleet(ctx); err != nil {
		return "", err
	}
	if err := m.demandNobody(ctx, source, edit); err != nil {
		return "", err
	}
	board := status.New(status.Build{Version: m.Version}, status.Options{})
	d, err := m.newDaemon(ctx, daemon.Options{Config: m.Config, Log: m.Log, Board: board, Version: m.Version})
	if err != nil {
		return "", err
	}
	defer d.Close()
	plan, err := d.Move(ctx, source, edit)
	var never positions.Impossible
	switch {
	case errors.As(err, &never):
		return "", err
	case err != nil:
		return "", fmt.Errorf("the move may be interrupted; run the same command again, and it goes on: %w", err)
	}
	return plan.Summary(), nil
}

// demandNoFleet refuses to go on beside members of the consumer group.
func (m *Mender) demandNoFleet(ctx context.Context) error {
	if m.Config.Ownership != config.Group {
		return nil
	}
	id := m.Config.Kafka.GroupID()
	answer, err := m.Client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{id}})
	if err != nil {
		return fmt.Errorf("describe consumer group %s: %w", id, err)
	}
	for _, group := range answer.Groups {
		if group.Error != nil {
			return fmt.Errorf("describe consumer group %s: %w", id, group.Error)
		}
		if n := len(group.Members); n > 0 {
			return fmt.Errorf("consumer group %s has %d members: %w", id, n, positions.WhileNobodyRuns("one of them"))
		}
	}
	return nil
}

// demandNobody asks the owners of both shards, who would answer that a move is not
// for them.
func (m *Mender) demandNobody(ctx context.Context, source *config.Source, edit offsets.Edit) error {
	var asked errgroup.Group
	var silent []int
	patience := cmp.Or(m.Patience, daemon.JobPatience)
	for _, shard := range []int{edit.FromShard, edit.ToShard} {
		if m.isAlone(shard) {
			continue
		}
		silent = append(silent, shard)
		job := m.job(source, edit)
		asked.Go(func() error {
			defer m.takeBack(ctx, shard, job)
			if err := jobs.SubmitTo(ctx, m.Client, m.Config, shard, job); err != nil {
				return err
			}
			state, taken, err := jobs.Taken(ctx, committed.NewReader(m.Client), m.Config, job.ID, patience)
			if err == nil && taken {
				err = fmt.Errorf("shard %d: %s", shard, state.Message)
			}
			return err
		})
	}
	if len(silent) > 0 {
		m.tell("asking for %s whether anybody owns shards %d", patience, silent)
	}
	if err := asked.Wait(); err != nil {
		return err
	}
	for _, shard := range silent {
		m.noteAlone(shard)
	}
	return nil
}
