package offsets

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// RestoreOptions say where the positions of a shard lie, and which are expected.
type RestoreOptions struct {
	OffsetsTopic string
	WindowsTopic string
	Shard        int // partition of both topics
	Shards       int // as configured
	Partitions   int // of the offsets topic, as the broker has it
	Prefix       string
	Expect       []Expectation // the sources that the configuration places in the shard
	Mode         Mode
}

// Expectation is a source as it is configured.
type Expectation struct {
	Source     cdr.SourceName
	Definition Definition
}

// Restored is what the log says about the sources of one shard.
type Restored struct {
	Sources []SourceState    // in the order of Expect
	Others  []cdr.SourceName // have records in the partition but are not expected; sorted
	Bounds  committed.Bounds // of the partition when it was read
	// Notes are the records that are no positions, by their whole key: those of
	// credentials and the states of jobs.
	Notes map[string][]byte

	options RestoreOptions
	next    int64             // offset to read on from
	chains  map[string]*chain // by key
}

// noteMark tells the key of a note, such as credential:NAME, from a source's name.
const noteMark = ':'

// SourceState is one source: either it is New, or it was Refused, or it has a
// Position.
type SourceState struct {
	Source   cdr.SourceName
	New      bool // no trace of it anywhere: it begins at its configured start
	Refused  *Refusal
	Position Position
	Offset   int64 // of the position's record
	// Repeats says, in AtLeastOnce, why records may be published again; else empty.
	Repeats string

	chosen located // the record that Position is of
}

// Restore reads the positions of a shard from the log, to its very end. It may be
// called only when the former owner is fenced. Its error concerns the whole shard: the
// log cannot be read, or not to its end (*HangingTransaction); what concerns one
// source is that source's Refusal.
func Restore(ctx context.Context, r Reader, o RestoreOptions) (*Restored, error) {
	bounds, err := r.Bounds(ctx, o.OffsetsTopic, o.Shard)
	if err != nil {
		return nil, fmt.Errorf("restore shard %d: bounds of %s-%d: %w", o.Shard, o.OffsetsTopic, o.Shard, err)
	}
	restored := &Restored{options: o, next: bounds.LogStart, chains: map[string]*chain{}, Notes: map[string][]byte{}}
	if err := restored.readOn(ctx, r, bounds); err != nil {
		return nil, fmt.Errorf("restore shard %d: %w", o.Shard, err)
	}
	var missing []cdr.SourceName
	for _, e := range o.Expect {
		if _, found := restored.chains[string(e.Source)]; !found {
			missing = append(missing, e.Source)
		}
	}
	traces, err := searchTraces(ctx, r, o, missing)
	if err != nil {
		return nil, fmt.Errorf("restore shard %d: %w", o.Shard, err)
	}
	restored.judge(func(s cdr.SourceName) SourceState {
		return SourceState{Source: s, New: traces[s] == nil, Refused: traces[s]}
	})
	if err := restored.vouch(ctx, r); err != nil {
		return nil, fmt.Errorf("restore shard %d: %w", o.Shard, err)
	}
	return restored, nil
}

// ReadPositions reads what was committed since before, such as when the outcome of a
// transaction is unknown and its epoch is over. Like Restore it may be called only
// when nobody else can write; before stays as it is.
func ReadPositions(ctx context.Context, r Reader, before *Restored) (*Restored, error) {
	o := before.options
	bounds, err := r.Bounds(ctx, o.OffsetsTopic, o.Shard)
	if err != nil {
		return nil, fmt.Errorf("read positions of shard %d: bounds of %s-%d: %w", o.Shard, o.OffsetsTopic, o.Shard, err)
	}
	if bounds.HighWatermark < before.next {
		return nil, fmt.Errorf("read positions of shard %d: %s-%d ends at offset %d, but had been read up to %d: the brokers lost committed records; check unclean.leader.election.enable and restart cdrbus to accept the loss",
			o.Shard, o.OffsetsTopic, o.Shard, bounds.HighWatermark, before.next)
	}
	restored := &Restored{options: o, next: before.next, chains: map[string]*chain{}, Notes: maps.Clone(before.Notes)}
	for key, c := range before.chains {
		restored.chains[key] = c.clone()
	}
	if err := restored.readOn(ctx, r, bounds); err != nil {
		return nil, fmt.Errorf("read positions of shard %d: %w", o.Shard, err)
	}
	restored.judge(func(s cdr.SourceName) SourceState {
		return before.Sources[slices.IndexFunc(before.Sources, func(b SourceState) bool { return b.Source == s })]
	})
	return restored, nil
}

// readOn follows the log from next to its end.
func (r *Restored) readOn(ctx context.Context, reader Reader, bounds committed.Bounds) error {
	r.Bounds = bounds
	err := readSettled(ctx, reader, r.options.OffsetsTopic, r.options.Shard, bounds, r.next, func(record committed.Record) error {
		if bytes.IndexByte(record.Key, noteMark) >= 0 {
			r.note(record)
			return nil
		}
		c := r.chains[string(record.Key)]
		if c == nil {
			c = &chain{}
			r.chains[string(record.Key)] = c
		}
		c.follow(record, r.options.Mode)
		return nil
	})
	r.next = max(r.next, bounds.LastStable)
	return err
}

func (r *Restored) note(record committed.Record) {
	if record.Value == nil {
		delete(r.Notes, string(record.Key))
		return
	}
	r.Notes[string(record.Key)] = slices.Clone(record.Value)
}

// judge decides about every expected source; ifMissing about those without a record.
func (r *Restored) judge(ifMissing func(cdr.SourceName) SourceState) {
	expected := map[string]bool{}
	for _, e := range r.options.Expect {
		expected[string(e.Source)] = true
		c, found := r.chains[string(e.Source)]
		if !found {
			r.Sources = append(r.Sources, ifMissing(e.Source))
			continue
		}
		r.Sources = append(r.Sources, r.options.decide(e, c))
	}
	for key := range r.chains {
		if !expected[key] {
			r.Others = append(r.Others, cdr.SourceName(key))
		}
	}
	slices.Sort(r.Others)
}

// decide takes a source's position from its chain and holds it against what is
// expected.
func (o RestoreOptions) decide(e Expectation, c *chain) SourceState {
	state := SourceState{Source: e.Source}
	c.readLast(e.Source)
	at, refusal := c.last, c.refusal(e.Source)
	if o.Mode == AtLeastOnce && c.valid {
		if refusal != nil {
			state.Repeats = fmt.Sprintf("%s (%s, partition %d, offset %d)", refusal.Message, o.OffsetsTopic, o.Shard, refusal.Offset)
			refusal = nil
		}
		at = c.furthest
	}
	if refusal == nil {
		refusal = o.compare(e, at)
	}
	if refusal != nil {
		refusal.Topic, refusal.Partition = o.OffsetsTopic, o.Shard
		state.Refused = refusal
		return state
	}
	state.Position, state.Offset, state.chosen = at.position, at.offset, at
	if o.Mode == AtLeastOnce {
		state.Position.Counter = c.counter
	}
	return state
}

// Compare returns why a restore would refuse a position that is sound in itself; nil
// if it would not.
func (o RestoreOptions) Compare(e Expectation, p Position) *Refusal {
	return o.compare(e, located{position: p})
}

// compare returns the refusal of a sound position that is not the expected one.
func (o RestoreOptions) compare(e Expectation, at located) *Refusal {
	p := at.position
	refusal := &Refusal{Source: e.Source, Offset: at.offset}
	switch {
	case p.TransactionalPrefix != o.Prefix:
		refusal.Code = PositionOfPrefix
		refusal.Message = fmt.Sprintf("its position was committed under transactional_id_prefix %q, which does not fence %q", p.TransactionalPrefix, o.Prefix)
		refusal.Instead = "set it back"
		refusal.Cost = "is safe only when no cdrbus with the former prefix runs any more"
		refusal.Remedy = adoptCommand(e.Source, "prefix")
	case p.Shards != o.Shards:
		refusal.Code = PositionOfShards
		refusal.Message = fmt.Sprintf("its position is of %d shards, and %d are configured", p.Shards, o.Shards)
		refusal.Instead = "set kafka.shards back"
		refusal.Remedy = adoptCommand(e.Source, "shards")
	case p.Shard != o.Shard:
		refusal.Code = PositionElsewhere
		refusal.Message = fmt.Sprintf("its position was moved to shard %d, and the configuration places it in shard %d", p.Shard, o.Shard)
		refusal.Instead = "set shard_key back"
		refusal.Remedy = moveCommand(e.Source, p.Shard, o.Shard)
	case !p.Definition.Equal(e.Definition):
		refusal.Code = PositionOfOtherFeed
		refusal.Message = fmt.Sprintf("its position is of %s, and the configuration says %s", p.Definition, e.Definition)
		refusal.Instead = "set the source back"
		refusal.Cost = "accepts the new scope from here on"
		refusal.Remedy = adoptCommand(e.Source, "definition")
	default:
		return nil
	}
	return refusal
}

// located is a position, and where and when it was written.
type located struct {
	position Position
	offset   int64
	at       time.Time
	unread   []byte // the position's value, intact, as long as nobody has read it
}

// chain follows the records of one source in the order of the log. Counters rise by
// one a commit; compaction leaves holes but never turns the order around.
type chain struct {
	valid    bool // there was a sound position
	last     located
	furthest located // by its watermarks; what AtLeastOnce goes on from
	counter  cdr.Counter
	// fault is the last record if it is no position. A sound position behind it heals
	// it: the writer was not impressed.
	fault *Refusal
	// contradiction is a counter that did not rise: two writers. Only a mended position
	// heals it, for either of them may have gone on writing.
	contradiction *Refusal
}

// clone returns a chain that goes on by itself.
func (c *chain) clone() *chain {
	other := *c
	other.last.unread = slices.Clone(c.last.unread)
	return &other
}

// follow follows one more record.
func (c *chain) follow(record committed.Record, mode Mode) {
	// AtLeastOnce compares watermarks, and so reads every position.
	if mode == ExactlyOnce && c.followUnread(record) {
		return
	}
	c.readLast(cdr.SourceName(record.Key))
	c.append(record)
}

// followUnread follows a record that says no more than that one more commit was
// made, which nearly all do. Only the last one of a source is read in the end:
// reading is most of what a restore takes.
func (c *chain) followUnread(record committed.Record) bool {
	counter, ok := intactCounter(record.Key, record.Value)
	if !ok || !c.valid || counter <= c.counter {
		return false
	}
	c.last, c.fault = located{offset: record.Offset, at: record.Timestamp, unread: append(c.last.unread[:0], record.Value...)}, nil
	c.counter = counter
	return true
}

// readLast reads the last position, if it has not been yet.
func (c *chain) readLast(source cdr.SourceName) {
	if len(c.last.unread) == 0 {
		return
	}
	var err error
	if c.last.position, err = DecodePosition(c.last.unread); err != nil {
		c.fault = refuseFault(source, err)
		c.fault.Offset = c.last.offset
	}
	c.last.unread = c.last.unread[:0]
}

// append reads one more record and follows it.
func (c *chain) append(record committed.Record) {
	source := cdr.SourceName(record.Key)
	p, err := DecodePosition(record.Value)
	if err == nil && p.Source != source {
		err = fmt.Errorf("%w: it is of source %s", errForeignKey, p.Source)
	}
	if err != nil {
		c.fault = refuseFault(source, err)
		c.fault.Offset = record.Offset
		return
	}
	at := located{position: p, offset: record.Offset, at: record.Timestamp}
	switch {
	case c.valid && p.Counter <= c.counter:
		c.contradict(at)
	case p.Mended:
		*c = chain{}
	}
	if !c.valid || c.furthest.position.compare(p) < 0 {
		c.furthest = at
	}
	c.valid, c.last, c.fault = true, at, nil
	c.counter = max(c.counter, p.Counter)
}

// contradict notes the first counter that did not rise: where the writers part.
func (c *chain) contradict(at located) {
	if c.contradiction != nil {
		return
	}
	p, former := at.position, c.last.position
	c.contradiction = &Refusal{Source: p.Source, Offset: at.offset, Code: PositionWentBack, Remedy: rebuildCommand(p.Source)}
	c.contradiction.Message = fmt.Sprintf("its counter goes back to %d after %d at offset %d: a second writer, or a backup put back", p.Counter, c.counter, c.last.offset)
	if p.Counter == former.Counter {
		c.contradiction.Code = PositionForked
		c.contradiction.Message = fmt.Sprintf("its counter %d comes again after offset %d: two writers", p.Counter, c.last.offset)
	}
}

// refusal returns why the chain cannot be trusted; nil if it can.
func (c *chain) refusal(source cdr.SourceName) *Refusal {
	refusal := c.contradiction
	if refusal == nil {
		refusal = c.fault
	}
	if refusal == nil {
		return nil
	}
	copied := *refusal
	copied.Source = source
	return &copied
}

// compare orders positions by how far they are.
func (p Position) compare(other Position) int {
	return cmp.Or(
		cmp.Compare(p.FeedPublished, other.FeedPublished),
		cmp.Compare(p.StreamPublished, other.StreamPublished),
		cmp.Compare(p.Counter, other.Counter),
	)
}

// searchTraces looks for sources that have no position in their shard where they must
// have left something: in the other shards, then among the shard's receipts. What it
// finds is a refusal, for a source that was there before must not begin anew.
func searchTraces(ctx context.Context, r Reader, o RestoreOptions, missing []cdr.SourceName) (map[cdr.SourceName]*Refusal, error) {
	traces := map[cdr.SourceName]*Refusal{}
	if len(missing) == 0 {
		return traces, nil
	}
	wanted := map[string]bool{}
	for _, s := range missing {
		wanted[string(s)] = true
	}
	for partition := range o.Partitions {
		if partition == o.Shard {
			continue
		}
		if err := searchShard(ctx, r, o, partition, wanted, traces); err != nil {
			return nil, err
		}
	}
	for s := range traces {
		delete(wanted, string(s))
	}
	if len(wanted) == 0 {
		return traces, nil
	}
	return traces, searchReceipts(ctx, r, o, wanted, traces)
}

// searchShard looks for positions in another shard. Its owner may be at work: an open
// transaction there is nothing to wait for.
func searchShard(ctx context.Context, r Reader, o RestoreOptions, partition int, wanted map[string]bool, traces map[cdr.SourceName]*Refusal) error {
	bounds, err := r.Bounds(ctx, o.OffsetsTopic, partition)
	if err != nil {
		return fmt.Errorf("search %s-%d for moved sources: %w", o.OffsetsTopic, partition, err)
	}
	if bounds.LogStart >= bounds.LastStable {
		return nil
	}
	_, _, err = r.Read(ctx, o.OffsetsTopic, partition, bounds.LogStart, bounds.LastStable, func(record committed.Record) error {
		if !wanted[string(record.Key)] {
			return nil
		}
		source := cdr.SourceName(record.Key)
		if p, err := DecodePosition(record.Value); traces[source] != nil && traces[source].Partition != partition && (err != nil || p.Shard != partition) {
			return nil // a source that moved left a record behind in each former home
		}
		traces[source] = &Refusal{
			Source: source, Code: PositionElsewhere, Topic: o.OffsetsTopic, Partition: partition, Offset: record.Offset,
			Message: fmt.Sprintf("its position lies in shard %d, and the configuration places it in shard %d", partition, o.Shard),
			Instead: "set kafka.shards and shard_key back",
			Remedy:  moveCommand(source, partition, o.Shard),
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("search %s-%d for moved sources: %w", o.OffsetsTopic, partition, err)
	}
	return nil
}

// searchReceipts looks for sources that committed windows and have lost their position.
func searchReceipts(ctx context.Context, r Reader, o RestoreOptions, wanted map[string]bool, traces map[cdr.SourceName]*Refusal) error {
	bounds, err := r.Bounds(ctx, o.WindowsTopic, o.Shard)
	if err != nil {
		return fmt.Errorf("search %s-%d for receipts: %w", o.WindowsTopic, o.Shard, err)
	}
	return readSettled(ctx, r, o.WindowsTopic, o.Shard, bounds, bounds.LogStart, func(record committed.Record) error {
		if !wanted[string(record.Key)] {
			return nil
		}
		source := cdr.SourceName(record.Key)
		traces[source] = &Refusal{
			Source: source, Code: PositionLost, Topic: o.WindowsTopic, Partition: o.Shard, Offset: record.Offset,
			Message: fmt.Sprintf("its position is lost: %s-%d has none, but this receipt says that it committed windows", o.OffsetsTopic, o.Shard),
			Remedy:  rebuildCommand(source),
		}
		return nil
	})
}
