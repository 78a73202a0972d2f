package offsets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// SeenOptions say which part of the ID journal makes the set of a credential group.
type SeenOptions struct {
	Topic     string
	Partition int         // the shard's
	Positions []Position  // of the sources of the group, as restored
	Horizon   cdr.Instant // generations that end at or before it are left out, as by EvictBefore
	Mode      Mode

	// Grown, if set, is told of the set's bytes as it is rebuilt.
	Grown func(bytes int64)
}

// SeenRestore is a set, and how it was rebuilt.
type SeenRestore struct {
	Seen *Seen

	From    int64 // offset of the first record that was read
	Chunks  int
	IDs     int // read from the chunks; the set holds as many or less
	Ahead   int // chunks left out in AtLeastOnce because no position vouches for them
	Cut     *JournalCut
	Refused []*Refusal // at most one a source; the set serves the others
}

// JournalCut says that retention removed a part of the journal that the positions
// count on, and that it may matter: a record whose ID was in it is published again if
// the feed still returns it.
type JournalCut struct {
	Wanted   int64     // offset from which the positions want the journal
	LogStart int64     // offset from which it is there
	Before   time.Time // when the oldest commit that is left was made; zero: none is left
}

// RestoreSeen rebuilds the sets of the credential groups of one shard from its ID
// journal, each set in the place of its options. The journal is read once for all:
// a shard may have a thousand groups, whose records lie mixed. The
// error says that the journal cannot be read to its end; what concerns one source
// is a refusal of that source.
func RestoreSeen(ctx context.Context, r Reader, groups ...SeenOptions) ([]SeenRestore, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	topic, partition := groups[0].Topic, groups[0].Partition
	bounds, err := r.Bounds(ctx, topic, partition)
	if err != nil {
		return nil, fmt.Errorf("rebuild the set of published IDs: bounds of %s-%d: %w", topic, partition, err)
	}
	replays := make([]*replay, len(groups))
	of := map[string][]*replay{} // by the key of the records they take in
	from := bounds.LastStable
	for i, o := range groups {
		if o.Topic != topic || o.Partition != partition {
			panic("offsets: RestoreSeen of several shards")
		}
		replays[i] = newReplay(o, bounds)
		from = min(from, replays[i].result.From)
		for key := range replays[i].progress {
			of[key] = append(of[key], replays[i])
		}
	}
	cut := replays // where the journal is cut, all begin with its first record
	err = readSettled(ctx, r, topic, partition, bounds, from, func(record committed.Record) error {
		for _, replay := range cut {
			replay.cutAt(record.Timestamp)
		}
		cut = nil
		for _, replay := range of[string(record.Key)] {
			replay.record(record)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("rebuild the set of published IDs: %w", err)
	}
	results := make([]SeenRestore, len(replays))
	for i, replay := range replays {
		replay.finish()
		results[i] = replay.result
	}
	return results, nil
}

// replay takes the journal in, record by record.
type replay struct {
	options  SeenOptions
	result   SeenRestore
	progress map[string]*journalProgress // by key
}

// journalProgress is where the journal of one source has come to.
type journalProgress struct {
	source  cdr.SourceName
	counter cdr.Counter // of the position: no chunk can have a higher one
	from    int64       // of the position: what lies before was evicted, or given up
	last    Chunk       // its header; Of is 0 before the first
	offset  int64       // of last
	refused bool
}

func newReplay(o SeenOptions, bounds committed.Bounds) *replay {
	from := bounds.LastStable
	r := &replay{options: o, result: SeenRestore{Seen: NewSeen(bounds.LastStable)}, progress: map[string]*journalProgress{}}
	r.result.Seen.EvictBefore(o.Horizon)
	for _, p := range o.Positions {
		progress := &journalProgress{source: p.Source, counter: p.Counter, from: p.JournalFrom}
		r.progress[string(p.Source)] = progress
		if p.JournalFrom > bounds.LastStable {
			r.refuse(progress, bounds.LastStable, &Refusal{
				Code:    JournalLost,
				Message: fmt.Sprintf("its journal of published IDs begins at offset %d, but the partition ends here: records were lost, or the topic was made anew", p.JournalFrom),
				Remedy:  journalFromCommand(p.Source, bounds.LastStable),
				Cost:    costOfForgetting,
			})
			continue
		}
		if p.Counter == 1 && p.LastWindow.Purpose == cdr.Start {
			continue // fixed where the source begins, before anything was published
		}
		from = min(from, p.JournalFrom)
	}
	if from < bounds.LogStart {
		r.result.Cut = &JournalCut{Wanted: from, LogStart: bounds.LogStart}
		from = bounds.LogStart
	}
	r.result.From = from
	return r
}

// record takes in one record of the group.
func (r *replay) record(record committed.Record) {
	progress := r.progress[string(record.Key)]
	if record.Offset < max(progress.from, r.result.From) {
		return
	}
	chunk, err := DecodeChunk(record.Value)
	if err != nil {
		r.refuse(progress, record.Offset, refuseChunk(progress.source, record.Offset, err))
		return
	}
	if chunk.Counter > progress.counter && r.options.Mode == AtLeastOnce {
		r.result.Ahead++
		return
	}
	if r.options.Mode == ExactlyOnce {
		if refusal := progress.check(chunk, record.Offset); refusal != nil {
			r.refuse(progress, record.Offset, refusal)
		}
	}
	progress.last, progress.offset = chunk, record.Offset
	progress.last.entries = nil
	r.result.Chunks++
	r.result.IDs += chunk.Len()
	r.result.Seen.load(chunk, record.Offset, record.Timestamp)
	if r.options.Grown != nil {
		r.options.Grown(r.result.Seen.Bytes())
	}
}

// cutAt judges a cut by the time of the oldest commit that is left, whosever it was. A
// window ends before it is committed, so if even that commit was made before the
// horizon, all that is gone would have been left out.
func (r *replay) cutAt(oldest time.Time) {
	if r.result.Cut == nil {
		return
	}
	r.result.Cut.Before = oldest
	if cdr.InstantOf(oldest) <= r.options.Horizon {
		r.result.Cut = nil
	}
}

func (r *replay) refuse(p *journalProgress, offset int64, refusal *Refusal) {
	if p.refused {
		return
	}
	p.refused = true
	refusal.Source, refusal.Topic, refusal.Partition, refusal.Offset = p.source, r.options.Topic, r.options.Partition, offset
	r.result.Refused = append(r.result.Refused, refusal)
}

// finish checks that the last commit of each source is there whole.
func (r *replay) finish() {
	if r.options.Mode != ExactlyOnce {
		return
	}
	for _, position := range r.options.Positions {
		p := r.progress[string(position.Source)]
		if p.last.Index+1 < p.last.Of {
			r.refuse(p, p.offset, tornJournal(p, p.offset+1, fmt.Sprintf("ends after chunk %d of %d of counter %d", p.last.Index, p.last.Of, p.last.Counter)))
		}
	}
}

// check holds a chunk against the one before it and against the position: a commit is
// one transaction, so its chunks are there all, in order, and never without it.
func (p *journalProgress) check(c Chunk, offset int64) *Refusal {
	if c.Counter > p.counter {
		return &Refusal{
			Code:    JournalAhead,
			Message: fmt.Sprintf("its journal of published IDs knows counter %d, and its position is at %d: the offsets topic was put back to an older state, or a run with delivery at_least_once was cut short", c.Counter, p.counter),
			Remedy:  rebuildCommand(p.source),
		}
	}
	first := p.last.Of == 0
	follows := c.Counter == p.last.Counter && c.Of == p.last.Of && c.Index == p.last.Index+1
	begins := c.Counter > p.last.Counter && c.Index == 0 && p.last.Index+1 == p.last.Of
	if first || follows || begins {
		return nil
	}
	if c.Counter == p.last.Counter && c.Index == 0 {
		return tornJournal(p, offset, fmt.Sprintf("has counter %d twice: a run with delivery at_least_once was cut short, or there were two writers", c.Counter))
	}
	return tornJournal(p, offset, fmt.Sprintf("goes from chunk %d of %d of counter %d to chunk %d of %d of counter %d", p.last.Index, p.last.Of, p.last.Counter, c.Index, c.Of, c.Counter))
}

func tornJournal(p *journalProgress, from int64, what string) *Refusal {
	return &Refusal{
		Code:    JournalTorn,
		Message: "its journal of published IDs " + what,
		Remedy:  journalFromCommand(p.source, from),
		Cost:    costOfForgetting,
	}
}

// costOfForgetting is what it means to begin the journal behind a fault.
const costOfForgetting = "publishes again what the feed still returns of the windows before it"

// refuseChunk returns the refusal of a record that is no chunk.
func refuseChunk(source cdr.SourceName, offset int64, cause error) *Refusal {
	r := &Refusal{Code: JournalUnreadable, Message: cause.Error(), Remedy: journalFromCommand(source, offset+1), Cost: costOfForgetting, Cause: cause}
	if errors.Is(cause, ErrLaterJournal) {
		r.Code, r.Instead = JournalOfLater, "run the later cdrbus again"
	}
	return r
}
