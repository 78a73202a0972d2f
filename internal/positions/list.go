package positions

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/offsets"
)

// Row is what a shard holds of one source.
type Row struct {
	Source   cdr.SourceName `json:"source"`
	Shard    int            `json:"shard"`
	State    string         `json:"state"` // see the States
	Refusal  string         `json:"refusal,omitempty"`
	Position *View          `json:"position"` // null: none can be read
}

// States of a source, as a restore would find it.
const (
	StateRuns       = "runs"
	StateNew        = "new"            // no trace of it: it begins at its configured start
	StateRefused    = "refused"        // for the reason that Refusal tells
	StateElsewhere  = "went elsewhere" // what a move has left behind
	StateUnknown    = "not configured"
	StateUnreadable = "not configured, unreadable"
)

// List tells of all sources of the configuration, and of whatever else has a position
// in the topic, sorted by name. It reads beside whoever is writing, and looks at
// positions and their receipts only: what the ID journal says, Get tells.
func (l *Log) List(ctx context.Context) ([]Row, error) {
	if err := l.checkShards(ctx); err != nil {
		return nil, err
	}
	var rows []Row
	for shard := range l.Config.Kafka.Shards {
		inShard, err := l.listShard(ctx, shard)
		if err != nil {
			return nil, err
		}
		rows = append(rows, inShard...)
	}
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Shard, b.Shard)) })
	return rows, nil
}

func (l *Log) listShard(ctx context.Context, shard int) ([]Row, error) {
	options := RestoreOptions(l.Config, shard)
	for i := range l.Config.Sources {
		if l.Config.Sources[i].Shard(l.Config.Kafka.Shards) != shard {
			continue
		}
		expect, err := ExpectationOf(&l.Config.Sources[i])
		if err != nil {
			return nil, err
		}
		options.Expect = append(options.Expect, expect)
	}
	refused := func(r *offsets.Restored) bool {
		return slices.ContainsFunc(r.Sources, func(s offsets.SourceState) bool { return s.Refused != nil })
	}
	restored, err := believed(ctx, l, shard, func(r offsets.Reader) (*offsets.Restored, error) { return offsets.Restore(ctx, r, options) }, refused)
	if err != nil {
		return nil, err
	}
	last, err := l.lastPositions(ctx, shard)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, s := range restored.Sources {
		rows = append(rows, rowOf(s, shard, last[s.Source]))
	}
	for _, name := range restored.Others {
		row := Row{Source: name, Shard: shard, State: StateUnknown, Position: last[name]}
		switch {
		case row.Position == nil:
			row.State = StateUnreadable
		case row.Position.Shard != shard:
			row.State = fmt.Sprintf("%s, to shard %d", StateElsewhere, row.Position.Shard)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func rowOf(s offsets.SourceState, shard int, last *View) Row {
	row := Row{Source: s.Source, Shard: shard, State: StateRuns, Position: last}
	switch {
	case s.New:
		row.State = StateNew
	case s.Refused != nil:
		row.State, row.Refusal = StateRefused, s.Refused.Error()
	}
	return row
}

// lastPositions are the last ones that can be read, by source.
func (l *Log) lastPositions(ctx context.Context, shard int) (map[cdr.SourceName]*View, error) {
	last := map[cdr.SourceName]*View{}
	err := l.eachNoteOrPosition(ctx, shard, func(key, value []byte, _ time.Time) {
		if p, err := offsets.DecodePosition(value); err == nil && string(p.Source) == string(key) {
			last[p.Source] = &View{p}
		}
	})
	return last, err
}

// WriteRows writes a table.
func WriteRows(w io.Writer, rows []Row) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SOURCE\tSHARD\tSTATE\tCOUNTER\tFEED PUBLISHED\tFEED SETTLED\tSTREAM PUBLISHED")
	for _, r := range rows {
		counter, published, settled, stream := "", "", "", ""
		if p := r.Position; p != nil {
			counter, published, settled = fmt.Sprint(p.Counter), p.FeedPublished.String(), p.FeedSettled.String()
			if !p.StreamPublished.IsZero() {
				stream = p.StreamPublished.String()
			}
		}
		fmt.Fprintln(table, strings.TrimRight(strings.Join([]string{string(r.Source), fmt.Sprint(r.Shard), r.State, counter, published, settled, stream}, "\t"), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Refusal != "" {
			fmt.Fprintf(w, "\n%s: %s\n", r.Source, r.Refusal)
		}
	}
	return nil
}

// Report is one position, whole, and what a restore would say of it.
type Report struct {
	Row
	CommittedAt time.Time `json:"committed_at,omitzero"`
	Receipts    int       `json:"receipts"` // in the shard, of windows that were asked for
	JournalIDs  int64     `json:"journal_ids"`
	Unreadable  int       `json:"unreadable_receipts,omitempty"`
}

// Get tells all of one source.
func (l *Log) Get(ctx context.Context, source *config.Source) (*Report, error) {
	if err := l.checkShards(ctx); err != nil {
		return nil, err
	}
	shard := source.Shard(l.Config.Kafka.Shards)
	e, err := believed(ctx, l, shard, func(r offsets.Reader) (*evidence, error) {
		return l.look(ctx, r, source, shard, offsets.Edit{})
	}, (*evidence).looksWrong)
	if err != nil {
		return nil, err
	}
	var last *View
	if e.last != nil {
		last = &View{*e.last}
	}
	report := &Report{Row: rowOf(e.state, shard, last), CommittedAt: e.lastAt, Receipts: len(e.receipts.windows), Unreadable: e.receipts.unreadable}
	if e.journal.refusal != nil {
		report.State, report.Refusal = StateRefused, e.journal.refusal.Error()
	}
	if e.last != nil {
		report.JournalIDs = e.journal.idsBetween(e.last.JournalFrom, e.journal.bounds.LastStable)
	}
	return report, nil
}

// Write writes a report for a person.
func (r *Report) Write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "source\t%s\nshard\t%d\nstate\t%s\n", r.Source, r.Shard, r.State)
	if r.Position != nil {
		for _, m := range members {
			fmt.Fprintf(table, "%s\t%s\n", m.name, m.of(&r.Position.Position))
		}
		fmt.Fprintf(table, "committed\t%s\n", r.CommittedAt.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(table, "receipts\t%d windows in this shard\nID journal\t%d IDs count\n", r.Receipts, r.JournalIDs)
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Refusal != "" {
		fmt.Fprintf(w, "\nA restore refuses it: %s\n", r.Refusal)
	}
	return nil
}
