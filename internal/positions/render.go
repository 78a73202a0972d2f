package positions

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"cdrbus/offsets"
)

// members is what people are shown of a position, in this order.
var members = []struct {
	name string
	of   func(*offsets.Position) string
}{
	{"counter", func(p *offsets.Position) string { return fmt.Sprint(p.Counter) }},
	{"start", func(p *offsets.Position) string { return p.Start.String() }},
	{"feed published", func(p *offsets.Position) string { return p.FeedPublished.String() }},
	{"feed settled", func(p *offsets.Position) string { return p.FeedSettled.String() }},
	{"stream published", func(p *offsets.Position) string { return p.StreamPublished.String() }},
	{"last gap", func(p *offsets.Position) string {
		if p.LastGap.IsZero() {
			return "none"
		}
		return p.LastGap.String()
	}},
	{"oldest record", func(p *offsets.Position) string { return p.OldestRecord.String() }},
	{"last request", func(p *offsets.Position) string {
		if p.LastRequestAt.IsZero() {
			return "none"
		}
		return p.LastRequestAt.UTC().Format(time.RFC3339)
	}},
	{"journal from", func(p *offsets.Position) string { return fmt.Sprint(p.JournalFrom) }},
	{"shard", func(p *offsets.Position) string { return fmt.Sprintf("%d of %d", p.Shard, p.Shards) }},
	{"prefix", func(p *offsets.Position) string { return p.TransactionalPrefix }},
	{"definition", func(p *offsets.Position) string { return p.Definition.String() }},
	{"mended", func(p *offsets.Position) string { return fmt.Sprint(p.Mended) }},
}

// Write writes a plan for a person: before and after, what is lost or repeated, and
// what is left to be done.
func (p *Plan) Write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\tBEFORE\tAFTER\t\n", p.Source)
	for _, m := range members {
		before, after, mark := "none", m.of(&p.After.Position), ""
		if p.Before != nil {
			before = m.of(&p.Before.Position)
		}
		if before != after {
			mark = "*"
		} else {
			after = "same"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.name, before, after, mark)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, effect := range p.Effects {
		fmt.Fprintf(w, "- %s\n", effect)
	}
	if p.Now != "" {
		fmt.Fprintf(w, "A restore says now: %s\n", p.Now)
	}
	if p.Then != "" {
		fmt.Fprintf(w, "A restore will say then: %s\n", p.Then)
	} else {
		fmt.Fprintln(w, "Then the source runs.")
	}
	for _, command := range p.Next {
		fmt.Fprintf(w, "Afterwards: %s\n", command)
	}
	return nil
}
