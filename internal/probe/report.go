package probe

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"cdrbus/internal/cdr"
)

// Report is what a run found out, without personal data: counts, durations,
// kinds, and names of fields.
type Report struct {
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	// Ended says why not everything was asked; "": it was.
	Ended  string   `json:"ended,omitempty"`
	Failed []string `json:"failed,omitempty"` // what the feed did not deliver

	Requests int            `json:"requests"`
	Statuses map[string]int `json:"statuses"`
	Windows  []Window       `json:"windows"`
	Records  int            `json:"records"` // read, repeats included
	Bad      int            `json:"unreadablePages"`

	Answers []Answer      `json:"answers"`
	Fields  []FieldReport `json:"fields"`
	Unknown []FieldReport `json:"unknownFields,omitempty"`
}

// Answer is a question with what was found.
type Answer struct {
	Question
	Finding
}

// Window is one window that was asked for.
type Window struct {
	Why      string       `json:"why"`
	Endpoint cdr.Endpoint `json:"endpoint"`
	Seconds  int64        `json:"seconds"`     // its width
	AgeHours float64      `json:"endAgeHours"` // of its end, when it was asked; rounded, for some bounds are times of calls
	Max      int          `json:"max"`
	Status   int          `json:"status"`
	Pages    int          `json:"pages"`
	Records  int          `json:"records"`
	Complete bool         `json:"complete"`
}

// judge answers every question from what was seen.
func judge(o *Observations) *Report {
	report := &Report{Failed: o.Failed, Requests: o.Wire.Requests, Statuses: map[string]int{}, Bad: o.Wire.Unreadable, Fields: o.Fields.known(), Unknown: o.Fields.unknown()}
	for status, n := range o.Wire.Statuses {
		report.Statuses[fmt.Sprint(status)] = n
	}
	for _, r := range o.Readings {
		report.Records += r.count()
		report.Windows = append(report.Windows, r.window())
	}
	for _, question := range Questions {
		report.Answers = append(report.Answers, Answer{question, question.judge(o)})
	}
	return report
}

func (r *Reading) window() Window {
	w := Window{Why: string(r.Why), Endpoint: r.Endpoint, Seconds: int64(r.Span.Duration().Seconds()), Max: r.Max, Status: r.Status, Pages: len(r.Pages), Records: r.count(), Complete: r.Complete}
	if !r.At.IsZero() {
		w.AgeHours = math.Round(r.At.Sub(r.Span.EndExclusive.Time()).Hours()*10) / 10
	}
	return w
}

// Answer returns what was found to a question; nil if there is no such question.
func (r *Report) Answer(name string) *Answer {
	i := slices.IndexFunc(r.Answers, func(a Answer) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Answers[i]
}

// Harmful names the questions whose answer needs another configuration, or a
// reader's attention to what the receipts call proven.
func (r *Report) Harmful() []string {
	var names []string
	for _, a := range r.Answers {
		if slices.Contains(harms[a.Name], a.Verdict) {
			names = append(names, a.Name)
		}
	}
	return names
}

// Render writes the report for a person.
func (r *Report) Render(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Probe from %s to %s: %d requests, %d windows, %d records read.\n", r.StartedAt.Format(time.RFC3339), r.EndedAt.Format(time.RFC3339), r.Requests, len(r.Windows), r.Records)
	if r.Ended != "" {
		fmt.Fprintf(&b, "Not everything was asked: %s\n", r.Ended)
	}
	for _, failed := range r.Failed {
		fmt.Fprintf(&b, "The feed did not deliver: %s\n", failed)
	}
	for _, a := range r.Answers {
		fmt.Fprintf(&b, "\n%s\n", a.Asks)
		if a.Sure == CannotTell {
			fmt.Fprintf(&b, "  cannot tell: %s\n", a.Says)
		} else {
			fmt.Fprintf(&b, "  %s (%s)\n", a.Says, a.Sure)
		}
		for _, c := range a.Counts {
			fmt.Fprintf(&b, "    %7d  %s\n", c.Value, c.What)
		}
		fmt.Fprintf(&b, "  cdrbus: %s\n", a.Today)
	}
	b.WriteString("\nFields:\n")
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range append(slices.Clone(r.Fields), r.Unknown...) {
		kind := f.Type
		if kind == "" {
			kind = "not known"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\n", f.Name, kind, f.ways())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ways tells how a field is written, the most frequent way first.
func (f *FieldReport) ways() string {
	var parts []string
	kinds := slices.SortedFunc(keysOf(f.Kinds), func(a, b kind) int {
		if f.Kinds[a] != f.Kinds[b] {
			return f.Kinds[b] - f.Kinds[a]
		}
		return strings.Compare(string(a), string(b))
	})
	for _, k := range kinds {
		parts = append(parts, fmt.Sprintf("%d %s", f.Kinds[k], k))
	}
	if f.Absent > 0 {
		parts = append(parts, fmt.Sprintf("%d without", f.Absent))
	}
	return strings.Join(parts, ", ")
}
