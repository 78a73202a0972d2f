package daemon

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/positions"
	"cdrbus/offsets"
)

// Edits of positions are jobs, but no lane does them: a source that needs one mostly
// has no lane. The shard's loops end, it is taken over anew, and edits are done
// between the restore and the loops, where nothing runs that knows the former
// position. The same is done by a command that finds no owner.

// errEdit ends a shard's loops for an edit that was accepted.
var errEdit = errors.New("a position is to be edited")

func (d *Daemon) editor() *positions.Editor {
	return &positions.Editor{
		Log:    &positions.Log{Config: d.config, Reader: d.reader, SchemaByID: d.schemaByID},
		Client: d.client, Layout: d.layout, Codec: d.receipts, Owner: d.name(), Out: d.log,
	}
}

// edit does the edits that were left for the shard, and restores it anew after them.
func (s *shard) edit(ctx context.Context) error {
	next := int64(committed.Earliest)
	jobs, err := s.readJobs(ctx, &next)
	if err != nil && ctx.Err() == nil {
		s.log.Warn("jobs cannot be read", zap.Error(err))
		return nil
	}
	edited := false
	for _, job := range s.newEdits(jobs) {
		state, err := s.editOne(ctx, job)
		if err != nil {
			return fmt.Errorf("%w: edit %s of source %s: %w", errLost, job.Edit.What, job.Source, err)
		}
		s.log.Info("job", zap.String("job", job.ID), zap.String("source", string(job.Source)), zap.String("edit", string(job.Edit.What)),
			zap.String("phase", string(state.Phase)), zap.String("message", state.Message))
		s.daemon.jobEnded(&state)
		edited = true
	}
	if !edited {
		return nil
	}
	return s.restore(ctx)
}

func (s *shard) editOne(ctx context.Context, job offsets.Job) (offsets.JobState, error) {
	editor := s.daemon.editor()
	if source, err := s.daemon.config.SourceNamed(string(job.Source)); err != nil || ShardOf(source, s.daemon.config.Kafka.Shards) != s.index {
		return editor.Refuse(ctx, s.producer, job, fmt.Errorf("%s does not place source %s in shard %d", editor.Owner, job.Source, s.index))
	}
	return editor.Apply(ctx, s.producer, job)
}

// pendingEdits picks the edits that nobody has taken back.
func pendingEdits(jobs []offsets.Job) (edits []offsets.Job) {
	cancelled, known := map[string]bool{}, map[string]bool{}
	for _, job := range jobs {
		cancelled[job.ID] = cancelled[job.ID] || job.Cancel
	}
	for _, job := range jobs {
		if job.Kind == offsets.Mend && !cancelled[job.ID] && !known[job.ID] {
			edits, known[job.ID] = append(edits, job), true
		}
	}
	return edits
}

// newEdits are those of the jobs just read that are still to be done.
func (s *shard) newEdits(jobs []offsets.Job) (edits []offsets.Job) {
	for _, job := range pendingEdits(jobs) {
		if !s.jobEnded(job.ID) && !s.daemon.passesOver(job.ID) {
			edits = append(edits, job)
		}
	}
	return edits
}

// acceptEdit tells whoever asked for an edit that it will be done, and ends the
// shard's loops. What cannot be done as long as a daemon runs is refused at once.
func (s *shard) acceptEdit(ctx context.Context, job offsets.Job) error {
	state := offsets.JobState{Job: job, Phase: offsets.JobAccepted, Owner: s.daemon.name()}
	if job.Edit.What == offsets.EditMove {
		state.Phase, state.Message = offsets.JobFailed, positions.WhileNobodyRuns(state.Owner).Error()
	}
	if err := s.noteJob(ctx, &state); err != nil {
		return err
	}
	if state.Phase.Ended() {
		return nil
	}
	return errEdit
}

// Move moves a source to another shard, for a command. The daemon must not run.
func (d *Daemon) Move(ctx context.Context, source *config.Source, edit offsets.Edit) (*positions.Plan, error) {
	return d.editor().Move(ctx, source, edit)
}
