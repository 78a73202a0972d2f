package coverage

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"cdrbus/internal/cdr"
)

// glyphs draw a state in a bar of text.
var glyphs = map[State]string{Gap: "!", Unproven: "?", Unread: "·", Published: "░", Proven: "▒", Settled: "█"}

const (
	leastBar, mostBar = 24, 96
	shownStretches    = 60 // of one source; JSON has all
)

// Render writes reports for a person, for a terminal of a width; 0: it is none.
func Render(w io.Writer, reports []Report, width int) error {
	bar := min(max(width-4, leastBar), mostBar)
	if width == 0 {
		bar = 72
	}
	for i := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := reports[i].render(w, bar); err != nil {
			return err
		}
	}
	var legend []string
	for _, s := range States() {
		legend = append(legend, glyphs[s]+" "+string(s))
	}
	_, err := fmt.Fprintf(w, "\n%s; all times are UTC\n", strings.Join(legend, "  "))
	return err
}

func (r *Report) render(w io.Writer, bar int) error {
	fmt.Fprintf(w, "%s: published to %s, settled to %s\n", r.Source, stamp(r.Published), stamp(r.Settled))
	fmt.Fprintf(w, "  %s\n", r.bar(bar))
	fmt.Fprintf(w, "  %s to %s: %s\n", stamp(r.Span.StartInclusive), stamp(r.Span.EndExclusive), r.shares())
	fmt.Fprintf(w, "  %s\n\n", r.counted())
	return r.table(w)
}

// table lists the stretches, without blanks at the ends of its lines.
func (r *Report) table(w io.Writer) error {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  STATE\tFROM\tTO\tLENGTH\tWHY")
	for _, s := range r.Stretches[:min(len(r.Stretches), shownStretches)] {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\n", s.State, stamp(s.Span.StartInclusive), stamp(s.Span.EndExclusive), length(s.Seconds), printable(s.Reason))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more := len(r.Stretches) - shownStretches; more > 0 {
		fmt.Fprintf(&text, "  and %d more, all of them with -o json\n", more)
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// bar draws the span in so many columns, each as bad as the worst in it.
func (r *Report) bar(columns int) string {
	total := secondsOf(r.Span)
	columns = int(min(int64(columns), total))
	var out strings.Builder
	next := 0
	for column := range int64(columns) {
		start, end := r.Span.StartInclusive+cdr.Instant(column*total/int64(columns)), r.Span.StartInclusive+cdr.Instant((column+1)*total/int64(columns))
		for r.Stretches[next].Span.EndExclusive <= start {
			next++
		}
		worst := r.Stretches[next].State
		for _, s := range r.Stretches[next:] {
			if s.Span.StartInclusive >= end {
				break
			}
			if s.State.WorseThan(worst) {
				worst = s.State
			}
		}
		out.WriteString(glyphs[worst])
	}
	return out.String()
}

// shares tells how much of the span is in each state, the best first.
func (r *Report) shares() string {
	var parts []string
	for _, s := range States() {
		if seconds := r.Seconds[s]; seconds > 0 {
			parts = append([]string{fmt.Sprintf("%s %s (%s)", s, length(seconds), percent(seconds, secondsOf(r.Span)))}, parts...)
		}
	}
	return strings.Join(parts, ", ")
}

// percent never rounds what is less than all up to it, nor what is something to none.
func percent(part, whole int64) string {
	share := 100 * float64(part) / float64(whole)
	switch {
	case part == whole:
		return "100 %"
	case share > 99.9:
		return "99.9 %"
	case share < 0.1:
		return "<0.1 %"
	default:
		return fmt.Sprintf("%.1f %%", share)
	}
}

func (r *Report) counted() string {
	c := r.Counts
	parts := []string{fmt.Sprintf("%s, %s published", plural(c.Windows, "window"), plural(c.Published, "record"))}
	for _, p := range []struct {
		n    int64
		what string
	}{{c.Late, "of them late"}, {c.Revised, "revised"}, {c.DeadLetters, "to the dead letters"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if r.Undecodable > 0 {
		parts = append(parts, plural(r.Undecodable, "record")+" of the windows topic skipped: no receipt that can be read")
	}
	return strings.Join(parts, ", ")
}

// RenderVerdicts writes what was required for a person.
func RenderVerdicts(w io.Writer, verdicts []Verdict) error {
	for _, v := range verdicts {
		if v.Complete {
			fmt.Fprintf(w, "%s: %s to %s is complete: proven and settled\n", v.Source, stamp(v.Span.StartInclusive), stamp(v.Span.EndExclusive))
			continue
		}
		fmt.Fprintf(w, "%s: %s to %s is NOT complete%s\n", v.Source, stamp(v.Span.StartInclusive), stamp(v.Span.EndExclusive), v.prospect())
		for _, lack := range v.Lacking {
			fmt.Fprintf(w, "  %s %s to %s (%s)", lack.State, stamp(lack.Span.StartInclusive), stamp(lack.Span.EndExclusive), length(lack.Seconds))
			if lack.Reason != "" {
				fmt.Fprintf(w, ": %s", printable(lack.Reason))
			}
			fmt.Fprintf(w, "\n    %s\n", lack.Outlook)
		}
	}
	return nil
}

func (v *Verdict) prospect() string {
	if v.SettlesBy.IsZero() {
		return ""
	}
	return ", probably by " + stamp(cdr.InstantOf(v.SettlesBy))
}

// stamp is an instant as a column has it.
func stamp(i cdr.Instant) string {
	if i.IsZero() {
		return "-"
	}
	return i.Time().Format(time.DateTime)
}

// length is a number of seconds in its two largest units.
func length(seconds int64) string {
	units := []struct {
		seconds int64
		name    string
	}{{secondsPerDay, "d"}, {secondsPerHour, "h"}, {60, "min"}, {1, "s"}}
	for i, unit := range units {
		if seconds < unit.seconds {
			continue
		}
		text := fmt.Sprintf("%d %s", seconds/unit.seconds, unit.name)
		if rest := seconds % unit.seconds; i+1 < len(units) && rest >= units[i+1].seconds {
			text += fmt.Sprintf(" %d %s", rest/units[i+1].seconds, units[i+1].name)
		}
		return text
	}
	return "0 s"
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// printable keeps a terminal safe from what a feed may have said, and a table in lines.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}
