package positions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/offsets"
	"cdrbus/producer"
)

// Editor commits what a person wants of positions. It belongs to whoever owns the
// shards that it is given.
type Editor struct {
	*Log
	Client *kafka.Client
	Layout *producer.Layout
	Codec  *offsets.ReceiptCodec // of the receipts that it writes
	Owner  string                // what people call this process
	Out    *zap.Logger
}

// Impossible says why an edit cannot be done, whoever tries.
type Impossible struct{ error }

func (e Impossible) Unwrap() error { return e.error }

func impossible(format string, arguments ...any) error {
	return Impossible{fmt.Errorf(format, arguments...)}
}

// Apply does the edit of a job to a shard that was taken over and restored, and
// returns what became of it: done, or failed for a reason that will not pass. Its
// error says that nothing is known to have come of it: the shard is to be taken over
// anew, and the log tells whether the job has ended.
//
//  1. The plan is made from the log, which nobody else writes to any more. Whoever
//     owned the shard under another prefix is fenced first.
//  2. One transaction carries the receipt, the end of the job and, last, the position.
//     A crash before leaves nothing; one after leaves nothing to be done.
//  3. What was written is read back.
func (e *Editor) Apply(ctx context.Context, shard *producer.Shard, job offsets.Job) (offsets.JobState, error) {
	now := time.Now().UTC()
	state := offsets.JobState{Job: job, Phase: offsets.JobFailed, Owner: e.Owner, BeganAt: now, UpdatedAt: now}
	source, plan, err := e.weigh(ctx, job, now)
	if err == nil && len(plan.fence) > 0 {
		// They may have gone on until they were fenced.
		if err = e.fence(ctx, plan.Shard, plan.fence); err == nil {
			source, plan, err = e.weigh(ctx, job, now)
		}
	}
	var never Impossible
	switch {
	case errors.As(err, &never):
		state.Message = never.Error()
		return state, e.conclude(ctx, shard, &state)
	case err != nil:
		return state, err
	}
	state.Phase, state.Message = offsets.JobDone, plan.Summary()
	if err := e.commit(ctx, shard, &state, plan); err != nil {
		return state, err
	}
	if err := e.fence(ctx, plan.Shard, plan.fence); err != nil {
		return state, err
	}
	return state, e.verify(ctx, source, plan)
}

// weigh makes the plan of a job, behind the fence.
func (e *Editor) weigh(ctx context.Context, job offsets.Job, now time.Time) (*config.Source, *Plan, error) {
	source, err := e.Config.SourceNamed(string(job.Source))
	if err != nil {
		return nil, nil, Impossible{err}
	}
	if err := e.agrees(source, job, now); err != nil {
		return nil, nil, err
	}
	shard := source.Shard(e.Config.Kafka.Shards)
	if err := e.awaitMarkers(ctx, shard); err != nil {
		return nil, nil, err
	}
	evidence, err := e.look(ctx, e.Reader, source, shard, *job.Edit)
	if err != nil {
		return nil, nil, err
	}
	plan, err := e.planFrom(ctx, e.Reader, evidence, *job.Edit, now)
	return source, plan, err
}

// agrees demands that the job is asked for under the configuration that is in force
// here, and not long ago.
func (e *Editor) agrees(source *config.Source, job offsets.Job, now time.Time) error {
	expect, err := ExpectationOf(source)
	if err != nil {
		return Impossible{err}
	}
	k, edit := &e.Config.Kafka, job.Edit
	const remedy = "restart it with that configuration, or stop it, and run the command again"
	switch {
	case now.After(edit.NotAfter):
		return impossible("asked for at %s, and nobody took it until %s: run the command again", job.CreatedAt.Format(time.RFC3339), edit.NotAfter.Format(time.RFC3339))
	case edit.What == offsets.EditMove:
		return WhileNobodyRuns(e.Owner)
	case edit.Prefix != k.TransactionalIDPrefix:
		return impossible("%s runs with transactional_id_prefix %q, and the command with %q: %s", e.Owner, k.TransactionalIDPrefix, edit.Prefix, remedy)
	case edit.Shards != k.Shards:
		return impossible("%s runs with %d shards, and the command with %d: %s", e.Owner, k.Shards, edit.Shards, remedy)
	case !edit.Definition.Equal(expect.Definition):
		return impossible("%s runs with source %s as %s, and the command with %s: %s", e.Owner, source.Name, expect.Definition, edit.Definition, remedy)
	}
	return nil
}

// WhileNobodyRuns says to whoever wants to move a source that somebody owns the shard.
func WhileNobodyRuns(owner string) error {
	return impossible("a source is moved while nobody owns its shards, and %s does: stop it and all others, and run the command again", owner)
}

// Refuse commits that a job is not done, and why.
func (e *Editor) Refuse(ctx context.Context, shard *producer.Shard, job offsets.Job, why error) (offsets.JobState, error) {
	state := offsets.JobState{Job: job, Phase: offsets.JobFailed, Message: why.Error(), Owner: e.Owner, UpdatedAt: time.Now().UTC()}
	return state, e.conclude(ctx, shard, &state)
}

// fence takes a shard away from whoever owns it under other transactional prefixes.
func (e *Editor) fence(ctx context.Context, shard int, prefixes []string) error {
	if modeOf(e.Config) == offsets.AtLeastOnce {
		return nil
	}
	for _, prefix := range prefixes {
		if _, err := producer.TakeOver(ctx, e.Client, ShardOptions(e.Config, prefix, shard, e.Layout, e.Out)); err != nil {
			err = fmt.Errorf("fence transactional_id_prefix %q: %w", prefix, err)
			if failure := (*producer.Failure)(nil); errors.As(err, &failure) && failure.Blame == producer.BlameSettings {
				return Impossible{err}
			}
			return err
		}
	}
	return nil
}

// conclude commits the state of a job alone.
func (e *Editor) conclude(ctx context.Context, shard *producer.Shard, state *offsets.JobState) error {
	draft := producer.NewDraft(e.Layout, shard.Partition())
	if err := addState(draft, state); err != nil {
		return err
	}
	return e.send(ctx, shard, draft)
}

// commit commits a new position with its receipt and the state of its job.
func (e *Editor) commit(ctx context.Context, shard *producer.Shard, state *offsets.JobState, plan *Plan) error {
	draft := producer.NewDraft(e.Layout, shard.Partition())
	if err := addState(draft, state); err != nil {
		return err
	}
	if err := e.addPosition(draft, plan.position, plan.receipt(time.Now())); err != nil {
		return err
	}
	return e.send(ctx, shard, draft)
}

func addState(draft *producer.Draft, state *offsets.JobState) error {
	value, err := state.Encode()
	if err != nil {
		return err
	}
	return draft.Add(producer.Positions, offsets.JobKey(state.Job.ID), value, nil)
}

func (e *Editor) addPosition(draft *producer.Draft, p offsets.Position, r offsets.Receipt) error {
	receipt, err := e.Codec.Encode(r)
	if err != nil {
		return err
	}
	if err := draft.Add(producer.Receipts, []byte(p.Source), receipt, nil); err != nil {
		return err
	}
	value, err := p.Encode()
	if err != nil {
		return err
	}
	return draft.Add(producer.Positions, []byte(p.Source), value, nil)
}

// send commits a draft. Only what is definite is no error.
func (e *Editor) send(ctx context.Context, shard *producer.Shard, draft *producer.Draft) error {
	commit, err := producer.Seal(time.Now(), draft)
	if err != nil {
		return err
	}
	switch result := shard.Commit(ctx, commit).(type) {
	case producer.MustRestore:
		return fmt.Errorf("commit of unknown outcome: %w", result.Cause)
	case producer.Fenced:
		return fmt.Errorf("somebody else owns shard %d: %w", shard.Partition(), result.Cause)
	}
	return nil
}

// awaitMarkers waits for the end of what was just committed: by this process, or by who
// owned the shard under another prefix. The coordinator answers before its markers are
// in all partitions, and until then a transaction seems to hang.
func (e *Editor) awaitMarkers(ctx context.Context, shard int) error {
	t := &e.Config.Kafka.Topics
	for _, topic := range []string{t.Offsets, t.Windows, t.IDs} {
		if _, err := committed.AwaitStable(ctx, e.Reader, topic, shard); err != nil {
			return err
		}
	}
	return nil
}

// verify reads back what was written.
func (e *Editor) verify(ctx context.Context, source *config.Source, plan *Plan) error {
	if err := e.awaitMarkers(ctx, plan.Shard); err != nil {
		return err
	}
	evidence, err := e.look(ctx, e.Reader, source, plan.Shard, offsets.Edit{})
	if err != nil {
		return err
	}
	if last := evidence.last; last == nil || !last.Mended || last.Counter != plan.position.Counter {
		return fmt.Errorf("the position of source %s was written with counter %d, and shard %d holds another one now: somebody else writes to it", source.Name, plan.position.Counter, plan.Shard)
	}
	return nil
}
