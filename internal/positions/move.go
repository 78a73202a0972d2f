package positions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/offsets"
	"cdrbus/producer"
)

// A source that moves to another shard takes along its position, the IDs of what it
// has published, and its credential's tokens. Receipts and dead letters stay where
// they are: they are told by the source's name. No transaction reaches over two
// fences, so it goes in steps, and whichever was the last, the next run goes on:
//
//  1. Both shards are taken over: nobody owns them now.
//  2. The ID journal is copied, in transactions of the new shard, each with a note of
//     how far. A crash leaves IDs that nobody counts on yet; the source is where it was.
//  3. The former shard is told that the source has gone. A crash leaves it at home
//     nowhere: each owner refuses it and names the command that ends the move.
//  4. The new shard gets the position, with the tokens. Now it is at home there.
//
// Were 3 and 4 the other way around, a crash would leave it at home in both.

// movedNote is how far the ID journal of a source is copied into a shard.
type movedNote struct {
	Version     int            `json:"version"`
	Source      cdr.SourceName `json:"source"`
	FromShard   int            `json:"from_shard"`
	Next        int64          `json:"next"`         // offset there to copy from
	Counts      int64          `json:"counts"`       // offset there from which IDs count
	JournalFrom int64          `json:"journal_from"` // the same here; -1: none copied yet that does
	Done        bool           `json:"done"`
}

const movedVersion = 1

// movedKey is the key of the note, in the offsets topic. No source's name holds a colon.
func movedKey(source cdr.SourceName) []byte { return []byte("move:" + string(source)) }

// move is what both shards tell of a source that is to go from one to the other.
type move struct {
	log      *Log
	source   *config.Source
	from, to *evidence
	gone     bool // the former shard knows already that it went
	counter  cdr.Counter
	chunks   int
	ids      int64
}

// lookAtMove reads both shards. Its error is Impossible where there is nothing to move.
func (l *Log) lookAtMove(ctx context.Context, r func(shard int) (offsets.Reader, error), source *config.Source, edit offsets.Edit) (*move, error) {
	k := &l.Config.Kafka
	if home := source.Shard(k.Shards); home != edit.ToShard {
		return nil, impossible("source %s: the configuration places it in shard %d, not in %d: move it there, or change its shard_key", source.Name, home, edit.ToShard)
	}
	m := &move{log: l, source: source}
	for _, side := range []struct {
		evidence **evidence
		shard    int
	}{{&m.from, edit.FromShard}, {&m.to, edit.ToShard}} {
		reader, err := r(side.shard)
		if err != nil {
			return nil, err
		}
		if *side.evidence, err = l.look(ctx, reader, source, side.shard, edit); err != nil {
			return nil, err
		}
	}
	if err := m.possible(); err != nil {
		return nil, Impossible{fmt.Errorf("source %s: %w", source.Name, err)}
	}
	m.counter = max(m.from.counter, m.to.counter)
	for _, c := range m.from.journal.chunks {
		m.chunks++
		m.ids += int64(c.ids)
	}
	return m, nil
}

// possible holds what the two shards say of the source against each other.
func (m *move) possible() error {
	from, to := m.from.options.Shard, m.to.options.Shard
	there, here := m.from.last, m.to.last
	switch {
	case here != nil && here.Shard == to && there != nil && there.Shard == from:
		return fmt.Errorf("both shards say that it is at home there, with counter %d in shard %d and %d in shard %d; nothing can be moved", there.Counter, from, here.Counter, to)
	case here != nil && here.Shard == to:
		return fmt.Errorf("it is in shard %d already, with counter %d", to, here.Counter)
	case there == nil && here != nil && here.Shard == from:
		return fmt.Errorf("it is on its way from shard %d to shard %d: a move was interrupted; end that with the configuration that places it in shard %d (cdrbus offsets move %s --from-shard %d --to-shard %d -c FILE), then move it back",
			to, from, from, m.source.Name, to, from)
	case there == nil:
		return fmt.Errorf("shard %d has no position of it that can be read", from)
	case there.Shard == to:
		m.gone = true // by a move that did not come to its end
	case there.Shard != from:
		return fmt.Errorf("its position in shard %d says that it went to shard %d", from, there.Shard)
	}
	return m.demandSound(*there)
}

// demandSound demands that a restore of the former shard would take the position, if
// it were of the present configuration.
func (m *move) demandSound(p offsets.Position) error {
	if r := m.from.state.Refused; r != nil && m.from.options.Compare(m.from.expect, p) == nil ||
		r != nil && (r.Code == offsets.PositionForked || r.Code == offsets.PositionWentBack || r.Code == offsets.PositionUnvouched) {
		return fmt.Errorf("its position in shard %d is not sound; place it there again (shard_key, kafka.shards) and mend it first: %w", m.from.options.Shard, r)
	}
	return nil
}

// position is the new one. In the former shard it differs by its counter alone.
func (m *move) position(counter cdr.Counter) offsets.Position {
	p := *m.from.last
	p.Shard, p.Shards = m.to.options.Shard, m.to.options.Shards
	p.Counter, p.Mended = counter, true
	p.LastWindow = offsets.WindowSummary{Endpoint: cdr.Feed, Purpose: cdr.Mend}
	return p
}

// arrival is the counter of the position in the new shard: behind the one that tells
// the former shard, if that is still to be told.
func (m *move) arrival() cdr.Counter {
	if m.gone {
		return m.counter + 1
	}
	return m.counter + 2
}

// plan says what the move does.
func (m *move) plan() *Plan {
	plan := &Plan{Source: m.from.expect.Source, What: offsets.EditMove, Shard: m.to.options.Shard, Now: m.to.verdict(), Next: []string{}, Before: &View{*m.from.last}}
	plan.position = m.position(m.arrival())
	plan.After = &View{plan.position}
	if m.gone {
		plan.say("an earlier move was interrupted, and is brought to its end")
	}
	plan.say("%d records of the ID journal with %d IDs are copied to shard %d, where journal_from becomes another offset", m.chunks, m.ids, plan.Shard)
	plan.say("its receipts and dead letters up to now stay in shard %d, its jobs there end; nothing is lost or published again", m.from.options.Shard)
	if refusal := m.to.options.Compare(m.to.expect, plan.position); refusal != nil {
		plan.Then = refusal.Error()
	}
	return plan
}

// planMove is [Log.Plan] of a move.
func (l *Log) planMove(ctx context.Context, source *config.Source, edit offsets.Edit) (*Plan, error) {
	m, err := l.lookAtMove(ctx, func(shard int) (offsets.Reader, error) { return l.snapshot(ctx, shard) }, source, edit)
	if err != nil {
		return nil, err
	}
	return m.plan(), nil
}

// Move does a move. Nobody may run either shard: whoever does all the same is fenced,
// takes them back, and fences us. Its error says that the move may be interrupted; the
// same call goes on with it.
func (e *Editor) Move(ctx context.Context, source *config.Source, edit offsets.Edit) (*Plan, error) {
	shards := map[int]*producer.Shard{}
	for _, shard := range []int{edit.FromShard, edit.ToShard} {
		owned, err := e.own(ctx, shard, source)
		if err != nil {
			return nil, err
		}
		shards[shard] = owned
	}
	m, err := e.lookAtMove(ctx, func(int) (offsets.Reader, error) { return e.Reader, nil }, source, edit)
	if err != nil {
		return nil, err
	}
	for _, prefix := range m.from.prefixes {
		for shard := range shards {
			if err := e.fence(ctx, shard, []string{prefix}); err != nil {
				return nil, err
			}
		}
	}
	c := &copier{editor: e, move: m, owned: shards[edit.ToShard]}
	if err := c.copyJournal(ctx); err != nil {
		return nil, fmt.Errorf("copy the ID journal of source %s to shard %d: %w", source.Name, edit.ToShard, err)
	}
	return m.plan(), e.settle(ctx, m, c.note, shards)
}

// own takes a shard over, and reads it as an owner must before it commits.
func (e *Editor) own(ctx context.Context, shard int, source *config.Source) (*producer.Shard, error) {
	owned, err := producer.TakeOver(ctx, e.Client, ShardOptions(e.Config, e.Config.Kafka.TransactionalIDPrefix, shard, e.Layout, e.Out))
	if err != nil {
		return nil, err
	}
	if _, err := e.look(ctx, e.Reader, source, shard, offsets.Edit{}); err != nil {
		return nil, err
	}
	owned.Restored()
	return owned, nil
}

// settle is the steps that change where the source is at home.
func (e *Editor) settle(ctx context.Context, m *move, note movedNote, shards map[int]*producer.Shard) error {
	if !m.gone {
		gone := m.position(m.counter + 1)
		draft := producer.NewDraft(e.Layout, m.from.options.Shard)
		if err := e.addPosition(draft, gone, receiptOf(gone)); err != nil {
			return err
		}
		if err := e.send(ctx, shards[m.from.options.Shard], draft); err != nil {
			return fmt.Errorf("tell shard %d that source %s goes: %w", m.from.options.Shard, m.source.Name, err)
		}
	}
	arrived := m.position(m.arrival())
	arrived.JournalFrom = note.JournalFrom
	note.Done = true
	draft := producer.NewDraft(e.Layout, m.to.options.Shard)
	if err := e.addTokens(ctx, draft, m); err != nil {
		return err
	}
	if err := addNote(draft, note); err != nil {
		return err
	}
	if err := e.addPosition(draft, arrived, receiptOf(arrived)); err != nil {
		return err
	}
	if err := e.send(ctx, shards[m.to.options.Shard], draft); err != nil {
		return fmt.Errorf("tell shard %d that source %s comes: %w", m.to.options.Shard, m.source.Name, err)
	}
	return e.verify(ctx, m.source, &Plan{Shard: m.to.options.Shard, position: arrived})
}

func receiptOf(p offsets.Position) offsets.Receipt {
	plan := Plan{Source: p.Source, position: p}
	return plan.receipt(time.Now())
}

// addTokens takes the tokens of the source's credential along, if they lie in Kafka.
// All sources of a credential move, one after the other: the younger tokens stay.
func (e *Editor) addTokens(ctx context.Context, draft *producer.Draft, m *move) error {
	credential := e.Config.CredentialOf(m.source)
	if credential == nil || !credential.TokensInKafka() {
		return nil
	}
	key := offsets.CredentialKey(credential.Name)
	there, err := e.lastNote(ctx, m.from.options.Shard, key)
	if err != nil {
		return err
	}
	here, err := e.lastNote(ctx, m.to.options.Shard, key)
	if err != nil || there.value == nil || here.at.After(there.at) {
		return err
	}
	return draft.Add(producer.Positions, key, there.value, nil)
}

// writtenNote is a record of the offsets topic that is no position.
type writtenNote struct {
	value []byte // nil: there is none
	at    time.Time
}

// lastNote reads the last note of a key in a shard.
func (l *Log) lastNote(ctx context.Context, shard int, key []byte) (last writtenNote, err error) {
	err = l.eachNoteOrPosition(ctx, shard, func(k, value []byte, at time.Time) {
		if bytes.Equal(k, key) {
			last = writtenNote{bytes.Clone(value), at}
		}
	})
	return last, err
}

// eachNoteOrPosition reads a shard's partition of the offsets topic. Key and value are
// valid during the call only.
func (l *Log) eachNoteOrPosition(ctx context.Context, shard int, each func(key, value []byte, at time.Time)) error {
	_, _, err := l.Reader.Read(ctx, l.Config.Kafka.Topics.Offsets, shard, committed.Earliest, committed.LastStable, func(r committed.Record) error {
		each(r.Key, r.Value, r.Timestamp)
		return nil
	})
	return err
}

func addNote(draft *producer.Draft, note movedNote) error {
	value, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return draft.Add(producer.Positions, movedKey(note.Source), value, nil)
}

// copier copies the ID journal of a source into its new shard.
type copier struct {
	editor *Editor
	move   *move
	owned  *producer.Shard
	note   movedNote

	draft *producer.Draft
}

// copyBytes is how much of the journal one transaction copies.
const copyBytes = 4 << 20

// copyJournal copies what was not copied yet, all of it: a backfill looks far behind
// what a restore needs.
func (c *copier) copyJournal(ctx context.Context) error {
	from, topic := c.move.from.options.Shard, c.editor.Config.Kafka.Topics.IDs
	if err := c.begin(ctx); err != nil {
		return err
	}
	bounds, err := c.editor.Reader.Bounds(ctx, topic, from)
	if err != nil {
		return err
	}
	c.note.Next = max(c.note.Next, bounds.LogStart)
	if c.note.Next < bounds.LastStable {
		_, _, err = c.editor.Reader.Read(ctx, topic, from, c.note.Next, bounds.LastStable, func(r committed.Record) error {
			return c.add(ctx, r)
		})
		if err != nil {
			return err
		}
	}
	c.note.Next = max(c.note.Next, bounds.LastStable)
	if c.note.JournalFrom < 0 {
		return c.countHere(ctx)
	}
	return c.flush(ctx)
}

// begin goes on where an interrupted move has come to.
func (c *copier) begin(ctx context.Context) error {
	c.note = movedNote{Version: movedVersion, Source: c.move.from.expect.Source, FromShard: c.move.from.options.Shard, Counts: c.move.from.last.JournalFrom, JournalFrom: -1}
	last, err := c.editor.lastNote(ctx, c.move.to.options.Shard, movedKey(c.note.Source))
	if err != nil || last.value == nil {
		return err
	}
	var before movedNote
	switch err := json.Unmarshal(last.value, &before); {
	case err != nil:
		return errors.New("the note of an earlier move is not the JSON that cdrbus writes")
	case before.Version > movedVersion:
		return fmt.Errorf("a later version of cdrbus has begun to move it (format %d, known is %d)", before.Version, movedVersion)
	case !before.Done && before.FromShard == c.note.FromShard && before.Counts <= c.note.Counts:
		c.note = before
	}
	return nil
}

// add copies one record of the journal, as it is. The first one on which the position
// counts begins a transaction: what lies before it there counts no more here either.
func (c *copier) add(ctx context.Context, r committed.Record) error {
	if string(r.Key) != c.move.source.Name {
		return nil
	}
	if c.note.JournalFrom < 0 && r.Offset >= c.note.Counts {
		if err := c.countHere(ctx); err != nil {
			return err
		}
	}
	if c.draft == nil {
		c.draft = producer.NewDraft(c.editor.Layout, c.owned.Partition())
	}
	if err := c.draft.Add(producer.IDs, r.Key, r.Value, []kafka.Header(nil)); err != nil {
		return err
	}
	c.note.Next = r.Offset + 1
	if c.draft.Bytes() < copyBytes {
		return nil
	}
	return c.flush(ctx)
}

// countHere lets the IDs count from what is copied next.
func (c *copier) countHere(ctx context.Context) error {
	if err := c.flush(ctx); err != nil {
		return err
	}
	bounds, err := c.editor.Reader.Bounds(ctx, c.editor.Config.Kafka.Topics.IDs, c.owned.Partition())
	if err != nil {
		return err
	}
	c.note.JournalFrom = bounds.HighWatermark // nobody else writes
	return nil
}

// flush commits what was added, with the note of how far it goes.
func (c *copier) flush(ctx context.Context) error {
	if c.draft == nil {
		return nil
	}
	if err := addNote(c.draft, c.note); err != nil {
		return err
	}
	err := c.editor.send(ctx, c.owned, c.draft)
	c.draft = nil
	return err
}
