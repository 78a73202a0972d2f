package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/producer"
)

var (
	// errParked is the verdict on a window that spoils every commit it is in.
	errParked = errors.New("parked")
	// errLost ends a shard's loops: another owner, or the broker, took it away.
	errLost = errors.New("shard lost")
)

// commitPatience is how long a committer may be at one commit, its repeats
// included, before the process counts as stuck: longer than brokers need to
// elect leaders and coordinators anew, and for a transaction to run out of time.
const commitPatience = 10 * time.Minute

// maxSolitaryFailures is how often a window may fail to commit alone before its
// source is parked and the others go on.
const maxSolitaryFailures = 3

// leastHalvedBytes is from where on a window that alone takes too long is given
// back, to be fetched again over half its span. What takes longer for less is not
// too much: Kafka is slow, and gets time.
const leastHalvedBytes = 1 << 20

// commitLoop commits what the lanes hand over until ctx ends or the shard is
// lost. It is the only goroutine that touches the producer and the positions.
func (s *shard) commitLoop(ctx context.Context) error {
	loop := fmt.Sprintf("committer of shard %d", s.index)
	defer s.daemon.board.Ended(loop)
	defer close(s.ended)
	alive := time.NewTicker(30 * time.Second)
	defer alive.Stop()
	for {
		s.daemon.board.Progress(loop, commitPatience)
		select {
		case <-ctx.Done():
			s.commitLastNotes(ctx)
			return ctx.Err()
		case <-alive.C:
		case n := <-s.notes:
			if err := s.commitNote(ctx, n); err != nil {
				return err
			}
		case first := <-s.ready:
			if err := s.commitAll(ctx, s.gather(first)); err != nil {
				return err
			}
		}
	}
}

// gather takes what else is ready, up to the bytes of one commit. A window is
// never divided between commits.
func (s *shard) gather(first *window) []*window {
	group, bytes := []*window{first}, first.bytes()
	for bytes < int64(s.daemon.config.Kafka.MaxCommitBytes) {
		select {
		case w := <-s.ready:
			group = append(group, w)
			bytes += w.bytes()
		default:
			return group
		}
	}
	return group
}

// commitAll brings a group of windows to a definite end: each is committed, or
// its source is parked. Only a shard that is lost, or ctx, leaves windows
// without a verdict; their lanes end with it.
//
// A missing right or setting ends the daemon if nothing was ever committed, for
// whoever started it is there to see it. Later it is tried again for ever: a right
// that was taken away comes back, and the board tells why nothing moves.
//
// What the network or a coordinator spoiled is tried again as it is. What took
// too long is halved, and a window alone goes back to be planned shorter. What a
// window's data may have spoiled is tried one by one.
func (s *shard) commitAll(ctx context.Context, group []*window) error {
	pause := newBackoff(100*time.Millisecond, 5*time.Second)
	solitaryFailures := 0
	for batches := [][]*window{group}; len(batches) > 0; {
		failure, err := s.commit(ctx, batches[0])
		if err != nil {
			return err
		}
		if failure.Blame == producer.BlameSettings && !s.daemon.everCommitted.Load() {
			return &fatalError{fmt.Errorf("commit to shard %d: %w", s.index, failure.Cause)}
		}
		undone := slices.DeleteFunc(slices.Clone(batches[0]), func(w *window) bool { return w.concluded })
		if len(undone) == 1 {
			if final := spoilt(undone[0], failure); final != nil {
				if solitaryFailures++; solitaryFailures == maxSolitaryFailures {
					s.conclude(undone[0], verdict{err: final})
					undone = nil
				}
			}
		}
		if len(undone) == 0 {
			batches, solitaryFailures = batches[1:], 0
			continue
		}
		batches = append(regrouped(undone, failure.Blame), batches[1:]...)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// regrouped says in which groups windows are tried again whose commit failed.
func regrouped(undone []*window, blame producer.Blame) [][]*window {
	switch middle := len(undone) / 2; {
	case middle == 0:
	case blame == producer.BlameData:
		return slices.Collect(slices.Chunk(undone, 1))
	case blame == producer.BlameTime:
		return [][]*window{undone[:middle], undone[middle:]}
	}
	return [][]*window{undone}
}

// spoilt returns the verdict on a window whose commits keep failing so although it
// is alone; nil if it is not to blame and is tried for ever.
func spoilt(w *window, failure producer.MustRestore) error {
	switch {
	case failure.Blame == producer.BlameData:
		return fmt.Errorf("%w: %d commits failed, the last one: %w", errParked, maxSolitaryFailures, failure.Cause)
	case failure.Blame == producer.BlameTime && w.bytes() > leastHalvedBytes:
		return fmt.Errorf("%w to be committed in time: %w", cdr.ErrWindowTooLarge, failure.Cause)
	}
	return nil
}

// commit puts windows into one transaction, with their receipts, IDs and
// positions, and gives each that is committed its verdict. After any failure it
// lets the log tell which of them are.
func (s *shard) commit(ctx context.Context, batch []*window) (producer.MustRestore, error) {
	began := time.Now()
	next, closing, err := s.close(batch, began)
	if err != nil {
		return producer.MustRestore{}, err
	}
	drafts := make([]*producer.Draft, 0, len(batch)+1)
	for _, w := range batch {
		w.source.enter(status.Committing, "")
		drafts = append(drafts, w.draft)
	}
	commit, err := producer.Seal(began, append(drafts, closing)...)
	if err != nil {
		return producer.MustRestore{}, fmt.Errorf("seal commit of shard %d: %w", s.index, err)
	}
	switch result := s.producer.Commit(ctx, commit).(type) {
	case producer.Committed:
		s.adopt(batch, next, result.BaseOffset(producer.IDs), began)
		return producer.MustRestore{}, s.demandAlone(ctx, result.BaseOffset(producer.Positions), closing.Records(producer.Positions))
	case producer.MustRestore:
		if ctx.Err() != nil {
			return producer.MustRestore{}, ctx.Err() // the shard is given up: the next owner reads the log
		}
		s.log.Warn("commit of unknown outcome, reading the log", zap.Int("windows", len(batch)), zap.Error(result.Cause))
		s.daemon.board.UpdateShard(s.index, func(b *status.Shard) { b.Aborts, b.Reason = b.Aborts+1, result.Cause.Error() })
		return result, s.recover(ctx, batch, next, began)
	case producer.Fenced:
		return producer.MustRestore{}, fmt.Errorf("%w: commit: %w", errLost, result.Cause)
	default:
		panic(fmt.Sprintf("commit of shard %d: unknown result %T", s.index, result))
	}
}

// recover ends the transaction that failed, proves ownership again and reads the
// positions: the windows that they have passed are committed after all.
func (s *shard) recover(ctx context.Context, batch []*window, next map[*window]offsets.Position, began time.Time) error {
	switch result := s.producer.Recover(ctx).(type) {
	case producer.Recovered:
	case producer.Fenced:
		return fmt.Errorf("%w: recover: %w", errLost, result.Cause)
	case producer.MustRestore:
		return fmt.Errorf("%w: recover: %w", errLost, result.Cause)
	}
	restored, err := offsets.ReadPositions(ctx, s.daemon.reader, s.restored)
	if err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	lived, err := s.committedIn(restored, batch)
	if err != nil {
		return err
	}
	s.restored, s.tail = restored, restored.Bounds.HighWatermark
	s.producer.Restored()
	s.adopt(lived, next, producer.UnknownOffset, began)
	return nil
}

// committedIn returns the windows of a batch that the log vouches for.
func (s *shard) committedIn(restored *offsets.Restored, batch []*window) ([]*window, error) {
	counters := make(map[cdr.SourceName]cdr.Counter, len(restored.Sources))
	for _, state := range restored.Sources {
		if state.Refused != nil && s.positions[state.Source].Counter > 0 {
			return nil, fmt.Errorf("%w: %w", errLost, state.Refused)
		}
		counters[state.Source] = state.Position.Counter
	}
	var committed []*window
	for _, w := range batch {
		switch read := counters[w.source.name]; read {
		case w.counter - 1:
		case w.counter:
			committed = append(committed, w)
		default:
			return nil, fmt.Errorf("%w: source %s has counter %d in the log, want %d or %d: somebody else commits it", errLost, w.source.name, read, w.counter-1, w.counter)
		}
	}
	return committed, nil
}

// adopt makes the new positions this shard's truth and tells the lanes.
func (s *shard) adopt(batch []*window, next map[*window]offsets.Position, journalOffset int64, began time.Time) {
	if len(batch) == 0 {
		return
	}
	s.daemon.everCommitted.Store(true)
	for _, w := range batch {
		s.positions[w.source.name] = next[w]
	}
	s.report(batch, next, began)
	for _, w := range batch {
		offset := journalOffset
		if offset == producer.UnknownOffset {
			offset = w.journalFrom // behind which the commit lies in any case
		}
		s.conclude(w, verdict{position: next[w], journalOffset: offset})
	}
}

// demandAlone holds the place of the positions just committed against where they
// belong: right behind what this owner has read and written. Fencing keeps other
// owners away; what it cannot keep away (another prefix, a cdrbus without
// transactions, a stranger, a topic made anew) shows here within one commit. The
// commit stands, and a restore tells what to think of the rest.
func (s *shard) demandAlone(ctx context.Context, first int64, positions int) error {
	want, topic := s.tail, s.daemon.config.Kafka.Topics.Offsets
	s.tail = producer.UnknownOffset
	if first != producer.UnknownOffset {
		s.tail = first + int64(positions)
		if s.daemon.mode() == offsets.ExactlyOnce {
			s.tail++ // the marker that ends the transaction
		}
	}
	switch {
	case first == want || first == producer.UnknownOffset || want == producer.UnknownOffset:
		return nil
	case first < want:
		return fmt.Errorf("%w: %s-%d was made anew, or lost records: a commit went to offset %d, and %d had been reached", errLost, topic, s.index, first, want)
	}
	// A coordinator that restarts may write its markers twice, which is nothing.
	stranger := ""
	next, _, err := s.daemon.reader.Read(ctx, topic, s.index, want, first, func(r committed.Record) error {
		stranger = fmt.Sprintf("offset %d, key %q", r.Offset, r.Key)
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: look at what else was written to %s-%d: %w", errLost, topic, s.index, err)
	case next < first:
		stranger = fmt.Sprintf("an open transaction at offset %d", next)
	case stranger == "":
		return nil
	}
	return fmt.Errorf("%w: somebody else writes to %s-%d (%s): stop it; it may be a tool, or another cdrbus on these topics, with another kafka.transactional_id_prefix or with delivery at_least_once",
		errLost, topic, s.index, stranger)
}

// conclude gives a window its verdict. From then on it is its lane's again.
func (s *shard) conclude(w *window, v verdict) {
	w.concluded = true
	w.settled <- v
}

// close makes what a commit carries besides events: each window's receipt, the
// IDs it publishes and, last, the source's new position.
func (s *shard) close(batch []*window, at time.Time) (map[*window]offsets.Position, *producer.Draft, error) {
	draft := producer.NewDraft(s.daemon.layout, s.index)
	next := make(map[*window]offsets.Position, len(batch))
	for _, w := range batch {
		before := s.positions[w.source.name]
		if !w.follows(before) {
			return nil, nil, fmt.Errorf("%w: window %s of source %s, counter %d, does not follow its position: published to %s, counter %d",
				errLost, w.request.Commit, w.source.name, w.counter, before.FeedPublished, before.Counter)
		}
		position := w.source.positionAfter(w, before)
		next[w] = position
		if err := s.addClosing(draft, w, position, at); err != nil {
			return nil, nil, fmt.Errorf("close window %s of source %s: %w", w.request.Commit, w.source.name, err)
		}
	}
	return next, draft, nil
}

func (s *shard) addClosing(draft *producer.Draft, w *window, position offsets.Position, at time.Time) error {
	key := []byte(w.source.name)
	receipt, err := s.daemon.receipts.Encode(w.receipt(position, at))
	if err != nil {
		return err
	}
	if err := draft.Add(producer.Receipts, key, receipt, nil); err != nil {
		return err
	}
	for _, record := range w.journal {
		if err := draft.Add(producer.IDs, key, record, nil); err != nil {
			return err
		}
	}
	if w.work() == errands {
		state, err := w.job.Encode()
		if err != nil {
			return err
		}
		if err := draft.Add(producer.Positions, offsets.JobKey(w.job.Job.ID), state, nil); err != nil {
			return err
		}
	}
	value, err := position.Encode()
	if err != nil {
		return err
	}
	return draft.Add(producer.Positions, key, value, nil)
}

// startNewSources commits the first position of each source that has none,
// before any request is made for it: from here on its start is an instant.
func (s *shard) startNewSources(ctx context.Context, sources []*source) error {
	now := time.Now()
	var batch []*window
	for _, src := range sources {
		if _, known := s.positions[src.name]; known {
			continue
		}
		s.positions[src.name] = offsets.Position{
			Source:              src.name,
			Definition:          src.definition,
			TransactionalPrefix: s.daemon.config.Kafka.TransactionalIDPrefix,
			Shard:               s.index,
			Shards:              s.daemon.config.Kafka.Shards,
		}
		if err := src.compareForStart(ctx); err != nil {
			return err
		}
		batch = append(batch, src.startWindow(s.daemon.layout, s.index, now))
	}
	for group := range slices.Chunk(batch, 1000) {
		if err := s.commitAll(ctx, group); err != nil {
			return err
		}
	}
	for _, w := range batch {
		v := <-w.settled
		if v.err != nil {
			w.source.park(v.err)
			continue
		}
		w.source.position = v.position
	}
	return nil
}

// report shows a definite commit on the board.
func (s *shard) report(batch []*window, next map[*window]offsets.Position, began time.Time) {
	commit := status.Commit{Shard: s.index, DurationSeconds: time.Since(began).Seconds()}
	for _, w := range batch {
		commit.Windows = append(commit.Windows, w.summary(next[w]))
		for field, n := range w.unmapped {
			s.daemon.board.Unmapped(w.source.name, field, uint64(n))
		}
		if len(w.sample) > 0 {
			s.daemon.board.Event(w.source.name, w.sample)
		}
	}
	s.daemon.board.Committed(commit)
	s.daemon.board.UpdateShard(s.index, func(b *status.Shard) { b.Epoch, b.Reason = int64(s.producer.Epoch()), "" })
}
