package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"cdrbus/internal/cdr"
	"cdrbus/internal/ownership"
	"cdrbus/internal/status"
	"cdrbus/offsets"
	"cdrbus/producer"
)

// shard is one partition of the offsets topic and the sources placed in it, for
// as long as one take-over lasts. Its positions and its producer belong to the
// committer's goroutine.
type shard struct {
	daemon    *Daemon
	index     int
	log       *zap.Logger
	producer  *producer.Shard
	restored  *offsets.Restored
	jobStates map[string][]byte // of jobs, by ID, as the restore found them
	positions map[cdr.SourceName]offsets.Position
	tail      int64        // where the next commit's positions lie if nobody else writes; UnknownOffset: not known
	ready     chan *window // from the lanes; unbuffered, so that a window has one owner

	notes      chan *note    // from the lanes, which wait for the verdict
	lanesEnded chan struct{} // closed when no lane will hand anything over
	ended      chan struct{} // closed when nothing is committed any more
}

// ownShard takes a shard over, runs it, and takes it over anew whenever it is
// lost, until ctx ends. Being fenced is an everyday event: brokers that restart
// forget what they answered. It only costs a restore. But it may also be that
// somebody else was chosen as the owner, so each take-over needs a proof that it
// is still us; else two would fence each other in turns.
func (d *Daemon) ownShard(ctx context.Context, lease ownership.Lease) error {
	index := lease.Shard
	if len(d.sourcesOf(index)) == 0 {
		<-ctx.Done() // nothing to do for it here
		return nil
	}
	log := d.log.With(zap.Int("shard", index))
	d.announce(index)
	defer d.release(index)
	pause := newBackoff(time.Second, 30*time.Second)
	var rivals rivalry
	for {
		if err := d.proven(ctx, lease); err != nil {
			return nil
		}
		began := time.Now()
		err := d.runShard(ctx, index, log)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errEdit) {
			log.Info("taking the shard over anew, to edit a position")
			continue
		}
		var fatal *fatalError
		if errors.As(err, &fatal) {
			return err
		}
		err = rivals.note(err, time.Now())
		d.board.UpdateShard(index, func(b *status.Shard) { b.State, b.Reason = status.ShardLost, err.Error() })
		log.Warn("shard lost, taking it over again", zap.Error(err))
		if d.takenOver(ctx, lease) {
			return ErrTakenOver
		}
		if time.Since(began) > time.Minute {
			pause = newBackoff(time.Second, 30*time.Second)
		}
		if pause.wait(ctx) != nil {
			return nil
		}
	}
}

// runShard is one ownership of a shard, from the take-over to its loss.
//
//  1. Take over: the transactional.id is ours, the former owner is fenced and its
//     open transaction aborted. A crash here leaves nothing.
//  2. Only then restore the positions: the former owner adds nothing to the log any
//     more. A new one may, so what seems wrong with the log is believed only if
//     the shard is still ours.
//  3. Do the edits of positions that people have asked for.
//  4. Fix the start of new sources, in a transaction of their own.
//  5. Rebuild each credential group's set of published IDs.
//  6. Run the lanes and the committer until one of them ends.
func (d *Daemon) runShard(ctx context.Context, index int, log *zap.Logger) error {
	s := &shard{
		daemon: d, index: index, log: log, positions: map[cdr.SourceName]offsets.Position{},
		ready: make(chan *window), notes: make(chan *note),
		lanesEnded: make(chan struct{}), ended: make(chan struct{}),
	}
	sources := d.sourcesOf(index)
	d.board.UpdateShard(index, func(b *status.Shard) { b.State, b.Reason, b.Takeovers = status.ShardRestoring, "", b.Takeovers+1 })

	var err error
	if s.producer, err = producer.TakeOver(ctx, d.client, d.shardOptions(index)); err != nil {
		return d.firstTime(index, err)
	}
	if err := s.restore(ctx); err != nil {
		return err
	}
	s.producer.Restored()
	if err := s.edit(ctx); err != nil {
		return err
	}
	runnable := s.admit(sources)
	if err := d.opened(ctx, index); err != nil {
		return err
	}
	if d.only == nil {
		if err := s.startNewSources(ctx, runnable); err != nil {
			return err
		}
	}
	lanes, err := s.openLanes(ctx, runnable)
	if err != nil {
		return err
	}
	d.board.UpdateShard(index, func(b *status.Shard) { b.State = status.ShardReady })
	log.Info("shard ready", zap.Int("sources", len(runnable)), zap.Int("refused", len(sources)-len(runnable)))
	return s.run(ctx, lanes)
}

// restore reads the shard's positions. What it finds wrong with them may be the
// doing of an owner who took over meanwhile. A transaction that hangs may be our own
// last one, whose markers are still being written: the proof waits for these.
func (s *shard) restore(ctx context.Context) (err error) {
	for proven := false; ; proven = true {
		s.restored, err = offsets.Restore(ctx, s.daemon.reader, s.daemon.restoreOptions(s.index))
		hangs := errors.As(err, new(*offsets.HangingTransaction))
		if !hangs && (err != nil || !slices.ContainsFunc(s.restored.Sources, isRefused)) {
			break
		}
		if lost := s.prove(ctx); lost != nil {
			return lost
		}
		if !hangs || proven {
			break
		}
	}
	if err != nil {
		return s.daemon.firstTime(s.index, err)
	}
	s.tail, s.jobStates = s.restored.Bounds.HighWatermark, jobStatesOf(s.restored)
	return nil
}

func isRefused(state offsets.SourceState) bool { return state.Refused != nil }

// prove makes sure that a log which contradicts itself really does. Positions,
// receipts and IDs are read one after another: an owner that takes over and commits
// between two of these reads leaves IDs without a position, or a transaction that
// is open. A person must not be asked to mend that.
func (s *shard) prove(ctx context.Context) error {
	if err := s.producer.Prove(ctx); err != nil {
		return fmt.Errorf("%w while its log was read: %w", errLost, err)
	}
	return nil
}

// admit takes the restored positions, and leaves out the sources whose positions
// a person has to look at.
func (s *shard) admit(sources []*source) []*source {
	states := make(map[cdr.SourceName]offsets.SourceState, len(sources))
	for _, state := range s.restored.Sources {
		states[state.Source] = state
	}
	var runnable []*source
	for _, src := range sources {
		state := states[src.name]
		if state.Refused != nil {
			src.refuse(state.Refused)
			continue
		}
		if src.halt == status.Refused {
			src.halt = "" // a person has mended it meanwhile
		}
		if state.Repeats != "" {
			src.log.Warn("records may be published again", zap.String("cause", state.Repeats))
		}
		if !state.New {
			s.positions[src.name] = state.Position
		} else if s.daemon.only != nil {
			continue // its beginning is not for a command to fix
		}
		runnable = append(runnable, src)
	}
	return runnable
}

// run ends when ctx does, or when the committer finds the shard lost.
func (s *shard) run(ctx context.Context, lanes []*lane) error {
	s.openVaults()
	// The committer ends before the lanes are told to: a window that a lane is
	// handing over when ctx ends is simply not taken.
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.commitLoop(ctx) })
	group.Go(func() error {
		defer close(s.lanesEnded)
		running, ctx := errgroup.WithContext(ctx) // an edit ends them all
		for _, l := range lanes {
			running.Go(func() error { return l.run(ctx) })
		}
		running.Go(func() error { return s.watchJobs(ctx, lanes) })
		return running.Wait()
	})
	err := group.Wait()
	s.closeVaults()
	for _, l := range lanes {
		l.abandon()
	}
	return err
}

// openLanes rebuilds the sets of IDs, in one reading of the journal, and makes a
// lane for each credential group.
func (s *shard) openLanes(ctx context.Context, sources []*source) (lanes []*lane, err error) {
	groups := map[string][]*source{}
	for _, src := range sources {
		groups[src.config.Group()] = append(groups[src.config.Group()], src)
	}
	maps.DeleteFunc(groups, func(_ string, members []*source) bool {
		only := s.daemon.only
		return only != nil && !slices.ContainsFunc(members, func(src *source) bool { return src.name == only.Source }) || !slices.ContainsFunc(members, func(src *source) bool { return !src.halted() })
	})
	names := slices.Sorted(maps.Keys(groups))
	var wanted []offsets.SeenOptions
	var held []*holding
	for i, group := range names {
		held = append(held, s.daemon.memory.newHolding())
		wanted = append(wanted, s.resume(group, groups[group]))
		wanted[i].Grown = func(bytes int64) { held[i].set(roomFor(bytes)) }
	}
	defer func() {
		for _, unused := range held[len(lanes):] {
			unused.release()
		}
	}()
	restored, err := offsets.RestoreSeen(ctx, s.daemon.reader, wanted...)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(restored, func(r offsets.SeenRestore) bool { return len(r.Refused) > 0 }) {
		if err := s.prove(ctx); err != nil {
			return nil, err
		}
	}
	for i, group := range names {
		l, err := s.openLane(group, groups[group], restored[i], held[i])
		if err != nil {
			for _, opened := range lanes {
				opened.abandon()
			}
			return nil, fmt.Errorf("open lane of %s: %w", group, err)
		}
		lanes = append(lanes, l)
	}
	return lanes, nil
}

// resume lets a credential group's sources plan on from their positions, and says
// which part of the ID journal the group needs.
func (s *shard) resume(group string, sources []*source) offsets.SeenOptions {
	options := offsets.SeenOptions{Topic: s.daemon.config.Kafka.Topics.IDs, Partition: s.index, Mode: s.daemon.mode()}
	if slices.ContainsFunc(sources, func(src *source) bool { return src.overtakenBy(s.positions[src.name]) }) {
		s.daemon.forgetBudget(group, sources)
	}
	for _, src := range sources {
		if !src.halted() {
			src.resume(s.positions[src.name], time.Now())
		}
		// What a halted source has published, the others must not publish again.
		if position := s.positions[src.name]; position.Counter > 0 {
			options.Positions = append(options.Positions, position)
		}
	}
	options.Horizon = horizon(sources)
	if s.daemon.publishesNothing() {
		options.Horizon = math.MaxInt64
	}
	return options
}

func (s *shard) openLane(group string, sources []*source, restored offsets.SeenRestore, held *holding) (_ *lane, err error) {
	seen := restored.Seen
	s.log.Info("published IDs rebuilt", zap.String("group", group), zap.Int("ids", seen.Len()), zap.Int64("bytes", seen.Bytes()))
	if cut := restored.Cut; cut != nil {
		s.log.Error("retention cut the ID journal: records that the feed still returns may be published again",
			zap.String("group", group), zap.Int64("wanted_offset", cut.Wanted), zap.Int64("first_offset", cut.LogStart))
	}
	for _, refusal := range restored.Refused {
		for _, src := range sources {
			if src.name == refusal.Source {
				src.refuse(refusal)
			}
		}
	}
	l := &lane{daemon: s.daemon, shard: s, sources: sources, seen: seen, held: held, jobs: make(chan offsets.Job), log: s.log, name: laneName(group)}
	l.budget = s.daemon.budgetOf(group, sources, s.allNew(sources))
	l.reportSeen()
	for _, src := range sources {
		src.showBudget(l.budget)
		if src.feed == nil {
			if src.feed, err = src.openFeed(l.budget); err != nil {
				return nil, fmt.Errorf("source %s: %w", src.name, err)
			}
		}
	}
	return l, nil
}

// allNew reports whether the restore found no trace of any of the sources.
func (s *shard) allNew(sources []*source) bool {
	isNew := map[cdr.SourceName]bool{}
	for _, state := range s.restored.Sources {
		isNew[state.Source] = state.New
	}
	return !slices.ContainsFunc(sources, func(src *source) bool { return !isNew[src.name] })
}

// laneName is what health checks call the lane of a credential group.
func laneName(group string) string { return "lane of " + group }
