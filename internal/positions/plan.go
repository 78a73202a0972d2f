package positions

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/offsets"
)

// Plan is what an edit makes of a source's position, what it costs, and what is left
// to be done afterwards.
type Plan struct {
	Source cdr.SourceName   `json:"source"`
	What   offsets.EditKind `json:"what"`
	Shard  int              `json:"shard"`
	Now    string           `json:"restore_says_now"` // empty: it runs
	Before *View            `json:"before"`           // null: no position can be read
	After  *View            `json:"after"`
	Then   string           `json:"restore_says_then"`

	// FetchedAgain is published already, and left out by the ID journal.
	FetchedAgain *Amount `json:"fetched_again,omitempty"`
	// Lost is not fetched by the live edge, and recorded as a gap.
	Lost *cdr.Span `json:"lost,omitempty"`
	// ForgottenIDs are of published records that the journal counts no more.
	ForgottenIDs int64 `json:"forgotten_ids,omitempty"`

	Effects []string `json:"effects"` // all of that, for a person
	Next    []string `json:"next"`    // commands

	position offsets.Position
	fence    []string // transactional prefixes whose owner must not write any more
}

// Amount is how much a span holds that is published.
type Amount struct {
	Span    cdr.Span `json:"span"`
	Windows int64    `json:"windows"`
	Records int64    `json:"records"`
}

// View is a position as it is written.
type View struct{ offsets.Position }

// MarshalJSON writes what lies in Kafka.
func (v *View) MarshalJSON() ([]byte, error) {
	text, err := v.Encode()
	return json.RawMessage(text), err
}

// Summary is what the plan does, in one line.
func (p *Plan) Summary() string { return strings.Join(p.Effects, "; ") }

func (p *Plan) say(format string, arguments ...any) {
	p.Effects = append(p.Effects, fmt.Sprintf(format, arguments...))
}

// Plan says what an edit would make of a source's position as it is now. It changes
// nothing and disturbs nobody. Its error says why the edit cannot be done.
func (l *Log) Plan(ctx context.Context, source *config.Source, edit offsets.Edit) (*Plan, error) {
	if err := l.checkShards(ctx); err != nil {
		return nil, err
	}
	if edit.What == offsets.EditMove {
		return l.planMove(ctx, source, edit)
	}
	shard := source.Shard(l.Config.Kafka.Shards)
	var reader offsets.Reader
	e, err := believed(ctx, l, shard, func(r offsets.Reader) (*evidence, error) {
		reader = r
		return l.look(ctx, r, source, shard, edit)
	}, (*evidence).looksWrong)
	if err != nil {
		return nil, err
	}
	return l.planFrom(ctx, reader, e, edit, time.Now())
}

// planFrom makes the plan from what was looked at, and says what comes of it.
func (l *Log) planFrom(ctx context.Context, r offsets.Reader, e *evidence, edit offsets.Edit, now time.Time) (*Plan, error) {
	plan, err := e.plan(edit, now)
	if err != nil {
		return nil, Impossible{fmt.Errorf("source %s: %w", e.source.Name, err)}
	}
	if refusal := e.options.Compare(e.expect, plan.position); refusal != nil {
		plan.Then = refusal.Error()
		return plan, nil
	}
	refusal, cut, err := e.rebuild(ctx, r, l.Config.Kafka.Topics.IDs, plan.position)
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		plan.Then = refusal.Error()
	}
	if cut != nil && e.journal.cut == nil {
		plan.say("retention has removed the ID journal up to offset %d: records from before may be published again if the feed still returns them", cut.LogStart)
	}
	return plan, nil
}

// plan makes the new position. It is pure.
func (e *evidence) plan(edit offsets.Edit, now time.Time) (*Plan, error) {
	plan := &Plan{Source: e.expect.Source, What: edit.What, Shard: e.options.Shard, Now: e.verdict(), Next: []string{}, fence: slices.Clone(e.prefixes)}
	if e.last != nil {
		plan.Before = &View{*e.last}
	}
	var err error
	switch edit.What {
	case offsets.EditFromReceipts, offsets.EditPublished:
		err = e.rewrite(plan, edit, now)
	case offsets.EditReset:
		if err = e.demandSound(); err == nil {
			plan.position = e.state.Position
			err = e.goTo(plan, edit.To, now)
		}
	case offsets.EditJournalFrom:
		err = e.countFrom(plan, edit.JournalFrom)
	case offsets.EditDefinition, offsets.EditPrefix, offsets.EditShards:
		err = e.accept(plan, edit.What, now)
	default:
		err = fmt.Errorf("edit %q is not for one shard", string(edit.What))
	}
	if err != nil {
		return nil, err
	}
	e.number(plan)
	return plan, plan.position.Validate()
}

// number makes the new position the successor of everything that was ever said of
// the source.
func (e *evidence) number(plan *Plan) {
	p := &plan.position
	p.Mended = true
	p.Counter = e.counter + 1
	p.LastWindow = offsets.WindowSummary{Endpoint: cdr.Feed, Purpose: cdr.Mend}
	if plan.Lost != nil {
		p.LastGap = *plan.Lost
		p.LastWindow.Span, p.LastWindow.Purpose = *plan.Lost, cdr.Gap
	}
	plan.After = &View{*p}
	for _, prefix := range e.prefixes {
		plan.say("whoever still owns the shard under transactional_id_prefix %q is fenced; make sure that no cdrbus is configured so any more", prefix)
	}
	if e.receipts.unreadable > 0 {
		plan.say("%d receipts could not be read and were passed over", e.receipts.unreadable)
	}
}

// looksWrong reports whether a restore refuses the source.
func (e *evidence) looksWrong() bool { return e.state.Refused != nil || e.journal.refusal != nil }

// verdict is what a restore says; empty if the source runs.
func (e *evidence) verdict() string {
	switch {
	case e.state.Refused != nil:
		return e.state.Refused.Error()
	case e.journal.refusal != nil:
		return e.journal.refusal.Error()
	case e.state.New:
		return "it is new and begins at its configured start"
	}
	return ""
}

// belongsElsewhere is the refusal of a position that is sound but not of this
// configuration. Only the command that it names accepts that.
func (e *evidence) belongsElsewhere() error {
	if r := e.state.Refused; r != nil && slices.Contains([]offsets.RefusalCode{
		offsets.PositionOfPrefix, offsets.PositionOfShards, offsets.PositionElsewhere, offsets.PositionOfOtherFeed,
	}, r.Code) {
		return fmt.Errorf("that comes first: %w", r)
	}
	return nil
}

// demandSound demands a position that a restore takes.
func (e *evidence) demandSound() error {
	switch {
	case e.state.Refused != nil:
		return fmt.Errorf("its position cannot be changed as long as it is refused: %w", e.state.Refused)
	case e.state.New:
		return fmt.Errorf("it has no position yet: it begins at its configured start with the first cdrbus run")
	}
	return nil
}

// rewrite makes the position anew, from the last receipt.
func (e *evidence) rewrite(plan *Plan, edit offsets.Edit, now time.Time) error {
	if err := e.belongsElsewhere(); err != nil {
		return err
	}
	switch {
	case e.receipts.last != nil:
		plan.position = e.fromReceipts()
		plan.say("made anew from the receipt of commit %d, of %s", e.receipts.last.Counter, e.receipts.last.CommitTime.UTC().Format(time.RFC3339))
		if was := e.receipts.last.Definition; was != e.expect.Definition.String() {
			plan.say("that commit was of %s; the configuration says %s, which is accepted from here on", was, e.expect.Definition)
		}
	case edit.What == offsets.EditFromReceipts && e.state.New:
		return fmt.Errorf("there is no trace of it in shard %d, so there is nothing to make it from: it begins at its configured start with the first cdrbus run", e.options.Shard)
	case edit.What == offsets.EditFromReceipts:
		return fmt.Errorf("%s-%d has no receipt of it left; say how far it is published: cdrbus offsets set %s --published TIME -c FILE", e.options.WindowsTopic, e.options.Shard, e.source.Name)
	default:
		plan.position = e.fromNothing(edit.To)
		plan.say("there are no receipts: nothing from before %s will be asked for", plan.position.Start)
	}
	if edit.What == offsets.EditPublished && edit.To != plan.position.FeedPublished {
		return e.goTo(plan, edit.To, now)
	}
	return nil
}

// fromReceipts is the position of the last receipt.
func (e *evidence) fromReceipts() offsets.Position {
	r, p := e.receipts.last, e.blank()
	p.OrgUUID = r.OrgUUID
	p.Start = e.receipts.start
	if p.Start.IsZero() || p.Start > e.receipts.lowest {
		p.Start = e.receipts.lowest
	}
	p.FeedPublished, p.FeedSettled, p.StreamPublished = r.FeedPublished, r.FeedSettled, r.StreamPublished
	p.OldestRecord, p.LastGap = r.OldestRecord, e.receipts.gap
	p.LastRequestAt = r.LastRequestAt
	p.JournalFrom, p.SchemaFingerprint = r.JournalFrom, r.SchemaFingerprint
	return p
}

// fromNothing is a position of which only the time is known: what was the last one
// that could be read, else a beginning.
func (e *evidence) fromNothing(published cdr.Instant) offsets.Position {
	p := e.blank()
	p.Start, p.FeedPublished, p.FeedSettled = published, published, published
	p.JournalFrom = e.journal.bounds.LogStart
	return p
}

// blank is a position of the source as it is configured.
func (e *evidence) blank() offsets.Position {
	return offsets.Position{
		Source: e.expect.Source, Definition: e.expect.Definition,
		TransactionalPrefix: e.options.Prefix, Shard: e.options.Shard, Shards: e.options.Shards,
	}
}

// goTo moves the live edge. Back: the records between are fetched again, and the ID
// journal must count from before them, so that none is published twice. Forward: they
// are skipped, which is a gap. Either way cdr_feed goes on from there.
func (e *evidence) goTo(plan *Plan, to cdr.Instant, now time.Time) error {
	p := &plan.position
	oldest, youngest := cdr.InstantOf(now.Add(-e.source.Lookback)), cdr.InstantOf(now.Add(-e.source.MinAge))
	switch published := p.Published(); {
	case to == p.FeedPublished && p.StreamPublished.IsZero():
		return fmt.Errorf("it is published to %s already", to)
	case to > youngest:
		return fmt.Errorf("%s is later than %s, which is the youngest that the feed answers for (min_age %s)", to, youngest, e.source.MinAge)
	case to < oldest && to < p.FeedPublished:
		return fmt.Errorf("%s is too far back: the feed answers %s back, to %s now; what lies before cannot be fetched again", to, e.source.Lookback, oldest)
	case to > published:
		lost := cdr.Span{StartInclusive: published, EndExclusive: to}
		plan.Lost = &lost
		plan.say("%s of records, %s, are not fetched by the live edge: recorded as a gap", lost.Duration(), lost)
		e.saySwept(plan, lost)
	case to > p.FeedPublished:
		return fmt.Errorf("cdr_stream is published to %s, and the sweeps bring cdr_feed from %s to there by themselves", published, p.FeedPublished)
	default:
		again := cdr.Span{StartInclusive: to, EndExclusive: max(published, to.Add(time.Second))}
		windows, records := e.receipts.within(again)
		plan.FetchedAgain = &Amount{again, windows, records}
		plan.say("%s, %s, is fetched again: %d windows with %d records are published of it, which the ID journal leaves out", again.Duration(), again, windows, records)
		p.JournalFrom = min(p.JournalFrom, e.journal.reset)
		if to < p.Start {
			plan.say("the source then begins at %s, before its former start %s", to, p.Start)
			p.Start = to
		}
	}
	p.FeedPublished, p.FeedSettled, p.StreamPublished = to, min(p.FeedSettled, to), 0
	return nil
}

// saySwept tells what of a gap the sweeps bring after all.
func (e *evidence) saySwept(plan *Plan, lost cdr.Span) {
	if len(e.source.Sweeps) == 0 {
		plan.say("no sweeps are configured: they are lost, unless you run cdrbus backfill -c FILE --source %s --from %s --to %s while the feed still answers for it", e.source.Name, lost.StartInclusive, lost.EndExclusive)
		return
	}
	plan.say("the widest sweep goes on from %s, and brings of the gap, as late, what the feed still answers for; the rest is lost", plan.position.FeedSettled)
}

// countFrom gives up the ID journal before an offset.
func (e *evidence) countFrom(plan *Plan, from int64) error {
	if err := e.demandSound(); err != nil {
		return err
	}
	plan.position = e.state.Position
	before, end := plan.position.JournalFrom, e.journal.bounds.LastStable
	switch {
	case from > end:
		return fmt.Errorf("offset %d is behind the end of the ID journal, %d", from, end)
	case before > end:
		published := plan.position.FeedPublished
		_, plan.ForgottenIDs = e.receipts.within(cdr.Span{StartInclusive: horizon(e.source, plan.position.FeedSettled, published), EndExclusive: published})
		plan.say("the ID journal ends at offset %d, before %d where it counted from: of %d records that the receipts tell of, those are published again that the feed still returns, in the overlap, in sweeps or after a reset", end, before, plan.ForgottenIDs)
	case from == before:
		return fmt.Errorf("its ID journal counts from offset %d already", from)
	case from < e.journal.bounds.LogStart:
		return fmt.Errorf("offset %d is gone: the ID journal begins at %d", from, e.journal.bounds.LogStart)
	case from > before:
		plan.ForgottenIDs = e.journal.idsBetween(before, from)
		plan.say("%d IDs between offsets %d and %d count no more: what the feed still returns of these records, in the overlap, in sweeps or after a reset, is published again", plan.ForgottenIDs, before, from)
	default:
		plan.say("%d more IDs, from offset %d on, count again", e.journal.idsBetween(from, before), from)
	}
	plan.position.JournalFrom = from
	return nil
}

// accept takes over what the configuration says, of one thing alone.
func (e *evidence) accept(plan *Plan, what offsets.EditKind, now time.Time) error {
	code, name := map[offsets.EditKind]offsets.RefusalCode{
		offsets.EditDefinition: offsets.PositionOfOtherFeed, offsets.EditPrefix: offsets.PositionOfPrefix, offsets.EditShards: offsets.PositionOfShards,
	}[what], map[offsets.EditKind]string{
		offsets.EditDefinition: "definition", offsets.EditPrefix: "transactional_id_prefix", offsets.EditShards: "number of shards",
	}[what]
	refused := e.state.Refused
	switch {
	case refused == nil && e.state.New:
		return e.demandSound()
	case refused == nil:
		return fmt.Errorf("there is nothing to adopt: its position is of the configured %s", name)
	case refused.Code != code:
		return fmt.Errorf("that is not why it is refused: %w", refused)
	}
	p := *e.last
	switch what {
	case offsets.EditPrefix:
		p.TransactionalPrefix = e.options.Prefix
	case offsets.EditShards:
		p.Shards, p.Shard = e.options.Shards, e.options.Shard
		plan.say("of %d shards it becomes one of %d; its shard, %d, stays", e.last.Shards, p.Shards, p.Shard)
	case offsets.EditDefinition:
		e.acceptDefinition(plan, &p, now)
	}
	plan.position = p
	return nil
}

// acceptDefinition goes on with the new scope from where the old one is.
func (e *evidence) acceptDefinition(plan *Plan, p *offsets.Position, now time.Time) {
	old := p.Definition
	p.Definition = e.expect.Definition
	if p.Definition.Endpoint == string(config.Feed) {
		p.StreamPublished = 0 // a time of insertion, which cdr_feed knows nothing of
	}
	if old.Host != p.Definition.Host || old.Path != p.Definition.Path {
		p.OrgUUID, p.OldestRecord = "", 0 // another feed will tell
	}
	if old.Endpoint != p.Definition.Endpoint {
		plan.say("the live edge is that of %s from here on; cdr_feed is published to %s", p.Definition.Endpoint, p.FeedPublished)
	}
	scope := p.Definition
	scope.Endpoint = old.Endpoint
	if scope.Equal(old) {
		return
	}
	past := cdr.Span{StartInclusive: max(p.Start, cdr.InstantOf(now.Add(-e.source.Lookback))), EndExclusive: p.FeedPublished}
	if past.Validate() != nil {
		return
	}
	plan.say("what belongs to the new scope alone is fetched from %s on, and by the sweeps a little before; the past of it, %s, is not", p.FeedPublished, past)
	plan.Next = append(plan.Next, fmt.Sprintf("cdrbus backfill -c FILE --source %s --from %s --to %s", e.source.Name, past.StartInclusive, past.EndExclusive))
}

// receipt tells readers of receipts that a person's command moved the watermarks.
func (p *Plan) receipt(at time.Time) offsets.Receipt {
	position := &p.position
	r := offsets.Receipt{
		Source: p.Source, Counter: position.Counter, Purpose: position.LastWindow.Purpose, Endpoint: cdr.Feed,
		Definition: position.Definition.String(), OrgUUID: position.OrgUUID, TotalCount: -1, CommitTime: at,
		FeedPublished: position.FeedPublished, FeedSettled: position.FeedSettled, StreamPublished: position.StreamPublished,
		OldestRecord: position.OldestRecord, JournalFrom: position.JournalFrom, SchemaFingerprint: position.SchemaFingerprint,
	}
	if p.Lost != nil {
		r.Gap, r.Commit = *p.Lost, *p.Lost
		r.Unproven = "gap: skipped by a person's command"
	}
	return r
}
