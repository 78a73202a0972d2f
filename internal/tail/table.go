package tail

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"

	"cdrbus/internal/eventlog"
	"cdrbus/internal/status"
	"cdrbus/schema"
)

// tableFields are the fields of a table that was not asked for others; the status
// page shows the same ones.
var tableFields = []string{"reportTime", "callType", "direction", "duration", "callingNumber", "calledNumber", "reportId"}

const (
	timeLayout  = "2006-01-02 15:04:05"
	headerEvery = 40 // lines, so that one is on the screen
	none        = "–"
)

// Table prints events as lines of columns whose widths are known beforehand, for
// what comes is not.
type Table struct {
	w         io.Writer
	view      View
	columns   []column
	clip      lipgloss.Style // to the terminal's width
	head      lipgloss.Style
	cautioned lipgloss.Style
	lines     int
}

type column struct {
	name  string
	width int
	value func(e *eventlog.Event, decoded *schema.Event) string
}

// Screen is what a table is printed on.
type Screen struct {
	Width       int       // of the terminal; 0: there is none, and nothing is cut
	Terminal    io.Writer // asked for its colours
	SourceWidth int       // of the longest source's name
}

// NewTable prints to w.
func NewTable(w io.Writer, view View, screen Screen) *Table {
	if view.Fields == nil {
		view.Fields = tableFields
	}
	lip := lipgloss.NewRenderer(screen.Terminal)
	t := &Table{
		w: w, view: view, columns: columnsOf(view.Fields, max(screen.SourceWidth, len("SOURCE"))),
		clip: lip.NewStyle().Inline(true), head: lip.NewStyle().Bold(true), cautioned: lip.NewStyle().Foreground(lipgloss.Color("3")),
	}
	if screen.Width > 0 {
		t.clip = t.clip.MaxWidth(screen.Width)
	}
	return t
}

// columnsOf puts what is known of every event in front of the fields.
func columnsOf(fields []string, sourceWidth int) []column {
	columns := []column{
		{"COMMITTED", len(timeLayout), func(e *eventlog.Event, _ *schema.Event) string { return e.At.Format(timeLayout) }},
		{"SOURCE", sourceWidth, func(e *eventlog.Event, _ *schema.Event) string { return e.Source }},
		{"OFFSET", 10, func(e *eventlog.Event, _ *schema.Event) string { return fmt.Sprintf("%d:%d", e.Partition, e.Offset) }},
		{"NOTE", 4, func(e *eventlog.Event, _ *schema.Event) string { return note(e) }},
	}
	for _, name := range fields {
		columns = append(columns, column{name, max(widthOf(name), len(name)), func(_ *eventlog.Event, decoded *schema.Event) string {
			return fieldText(decoded, name)
		}})
	}
	return columns
}

func note(e *eventlog.Event) string {
	switch {
	case e.Revision:
		return "rev." // of a late one, too: what matters is that it replaces another
	case e.Late:
		return "late"
	}
	return " "
}

// widthOf is how wide the values of a field are.
func widthOf(name string) int {
	for _, f := range schema.Fields() {
		if f.AvroName != name {
			continue
		}
		longest := 0
		for _, value := range f.Values {
			longest = max(longest, len(value))
		}
		switch {
		case f.Kind == schema.TimestampMillis:
			return len(timeLayout)
		case f.Kind != schema.String:
			return 8
		case f.PII == schema.PIINumber:
			return 15 // E.164's longest
		case longest > 0:
			return min(longest, 20)
		}
	}
	if folded := strings.ToLower(name); strings.HasSuffix(folded, "id") {
		return 36 // a UUID
	}
	return 20
}

func fieldText(decoded *schema.Event, name string) string {
	var value any
	switch {
	case name != schema.UnmappedName:
		value = decoded.Value(name)
	case decoded.Unmapped != nil:
		var entries []string
		for _, name := range slices.Sorted(maps.Keys(decoded.Unmapped)) {
			entries = append(entries, name+"="+decoded.Unmapped[name])
		}
		value = strings.Join(entries, " ")
	}
	switch v := value.(type) {
	case nil:
		return none
	case time.Time:
		return v.Format(timeLayout)
	}
	return fmt.Sprint(value)
}

// Print writes one line, and the header above it now and then.
func (t *Table) Print(_ string, e *eventlog.Event, decoded *schema.Event) error {
	if t.lines%headerEvery == 0 && (t.lines == 0 || t.clip.GetMaxWidth() > 0) {
		header := t.row(func(c column) string { return c.name })
		if _, err := io.WriteString(t.w, t.clip.Render(t.head.Render(header))+"\n"); err != nil {
			return err
		}
	}
	t.lines++
	decoded = t.view.of(decoded)
	row := t.row(func(c column) string { return c.value(e, decoded) })
	if e.Late || e.Revision {
		row = t.cautioned.Render(row)
	}
	_, err := io.WriteString(t.w, t.clip.Render(row)+"\n")
	return err
}

// row pads and cuts the texts to their columns; the last one is only cut with the line.
func (t *Table) row(text func(column) string) string {
	var b strings.Builder
	for i, c := range t.columns {
		cell := status.Printable(text(c))
		if cell == "" {
			cell = none
		}
		if i == len(t.columns)-1 {
			b.WriteString(cell)
			break
		}
		b.WriteString(fit(cell, c.width) + "  ")
	}
	return strings.TrimRight(b.String(), " ")
}

// fit makes text width columns wide.
func fit(text string, width int) string {
	cut := text
	runes := []rune(text)
	runes = runes[:min(len(runes), 4*width+1)] // more never fit, and the feed's texts have no limit
	for lipgloss.Width(cut) > width {
		runes = runes[:len(runes)-1]
		cut = string(runes) + "…"
	}
	return cut + strings.Repeat(" ", width-lipgloss.Width(cut))
}
