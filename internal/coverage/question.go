package coverage

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cdrbus/internal/cdr"
)

// Question is what somebody wants to know.
type Question struct {
	Sources []Subject
	Span    cdr.Span   // unset: what is required, from its first to its last second
	Require []cdr.Span // each is to be proven and settled for every source
	Now     cdr.Instant
}

// Subject is a source that a question is about.
type Subject struct {
	Source cdr.SourceName
	Shard  int
	Widest Sweep
}

// ErrOutside says that the receipts tell nothing at all of a span that is required.
var ErrOutside = errors.New("nothing is known")

// Validate reports a question that nobody can answer yet, and makes its span complete:
// what is required is within it.
func (q *Question) Validate() error {
	if len(q.Sources) == 0 {
		return errors.New("no source is configured")
	}
	var slowest Sweep
	for _, s := range q.Sources {
		if s.Widest.slower(slowest) {
			slowest = s.Widest
		}
	}
	for _, span := range q.Require {
		if err := Demandable(span, slowest, q.Now); err != nil {
			return err
		}
		if q.Span.IsZero() {
			q.Span = span
		}
		q.Span.StartInclusive, q.Span.EndExclusive = min(q.Span.StartInclusive, span.StartInclusive), max(q.Span.EndExclusive, span.EndExclusive)
	}
	if q.Span.StartInclusive >= q.Now {
		return fmt.Errorf("%s begins in the future; it is %s now", q.Span, q.Now)
	}
	q.Span.EndExclusive = min(q.Span.EndExclusive, q.Now)
	if q.Span.StartInclusive <= 0 {
		return fmt.Errorf("%s begins before 1970", q.Span)
	}
	return q.Span.Validate()
}

// Answer is what the receipts say to a question.
type Answer struct {
	At       cdr.Instant `json:"at"`
	Sources  []Report    `json:"sources"`
	Required []Verdict   `json:"required,omitempty"`
}

// Ask answers a valid question.
func (q *Question) Ask(ctx context.Context, r *Reader, progress Progress) (Answer, error) {
	placed, widest := map[cdr.SourceName]int{}, map[cdr.SourceName]Sweep{}
	for _, s := range q.Sources {
		placed[s.Source], widest[s.Source] = s.Shard, s.Widest
	}
	answer := Answer{At: q.Now}
	var err error
	if answer.Sources, err = r.Survey(ctx, placed, q.Span, progress); err != nil {
		return answer, err
	}
	for _, span := range q.Require {
		for i := range answer.Sources {
			report := &answer.Sources[i]
			if err := report.Outside(span); err != nil {
				return answer, fmt.Errorf("%w: %w", ErrOutside, err)
			}
			answer.Required = append(answer.Required, report.Judge(span, widest[report.Source], q.Now))
		}
	}
	return answer, nil
}

// Lacking counts what is required and not complete.
func (a *Answer) Lacking() (n int) {
	for _, v := range a.Required {
		if !v.Complete {
			n++
		}
	}
	return n
}

// Render writes the answer for a person.
func (a *Answer) Render(w io.Writer, width int) error {
	if err := Render(w, a.Sources, width); err != nil || len(a.Required) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return RenderVerdicts(w, a.Required)
}
