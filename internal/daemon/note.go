package daemon

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"cdrbus/poller"
	"cdrbus/producer"
)

// note is a record of the offsets topic that is no position, on its way to the
// committer: tokens, or the state of a job.
type note struct {
	key, record []byte     // no record: the key is erased
	verdict     chan error // capacity 1; nil: it is committed
}

func newNote(key, record []byte) *note { return &note{key, record, make(chan error, 1)} }

// hand gives a note to the committer and waits for the verdict. It does not end
// with the lane's context: the committer outlives the lanes.
func (s *shard) hand(n *note) error {
	select {
	case s.notes <- n:
	case <-s.ended:
		return poller.ErrVaultAway
	}
	select {
	case err := <-n.verdict:
		return err
	case <-s.ended:
		return poller.ErrVaultAway
	}
}

// commitNote commits one note, in a transaction of its own. It may be late, behind
// windows, but never lost silently: only a shard that is lost, or the end of ctx,
// leaves it undone.
func (s *shard) commitNote(ctx context.Context, n *note) error {
	first, err := s.tryNote(ctx, n)
	if err != nil {
		n.verdict <- fmt.Errorf("%w: %w", poller.ErrVaultAway, err)
		return err
	}
	n.verdict <- nil
	return s.demandAlone(ctx, first, 1)
}

func (n *note) draft(s *shard) (*producer.Draft, error) {
	draft := producer.NewDraft(s.daemon.layout, s.index)
	if n.record == nil {
		draft.Erase(n.key)
		return draft, nil
	}
	return draft, draft.Add(producer.Positions, n.key, n.record, nil)
}

// tryNote commits until it is definite, and returns the offset of the record, or
// producer.UnknownOffset.
func (s *shard) tryNote(ctx context.Context, n *note) (first int64, err error) {
	pause := newBackoff(100*time.Millisecond, 5*time.Second)
	for {
		began := time.Now()
		draft, err := n.draft(s)
		if err != nil {
			return 0, err
		}
		commit, err := producer.Seal(began, draft)
		if err != nil {
			return 0, err
		}
		switch result := s.producer.Commit(ctx, commit).(type) {
		case producer.Committed:
			return result.BaseOffset(producer.Positions), nil
		case producer.Fenced:
			return 0, fmt.Errorf("%w: commit %s: %w", errLost, n.key, result.Cause)
		case producer.MustRestore:
			s.log.Warn("commit of unknown outcome, reading the log", zap.ByteString("key", n.key), zap.Error(result.Cause))
			if err := s.recover(ctx, nil, nil, began); err != nil {
				return 0, err
			}
			if bytes.Equal(s.restored.Notes[string(n.key)], n.record) {
				return producer.UnknownOffset, nil
			}
		}
		if err := pause.wait(ctx); err != nil {
			return 0, err
		}
	}
}

// lastNotesGrace is how long tokens may take to arrive when a shard is given
// up: a refresh that is under way may take its own grace, and then the commit.
const lastNotesGrace = 6 * time.Second

// commitLastNotes commits the tokens whose refresh was under way when ctx
// ended: they may be the only ones that are still good. It ends with the lanes.
func (s *shard) commitLastNotes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastNotesGrace)
	defer cancel()
	for {
		select {
		case n := <-s.notes:
			if s.commitNote(ctx, n) != nil {
				return
			}
		case <-s.lanesEnded:
			return
		case <-ctx.Done():
			return
		}
	}
}
