package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cdrbus/internal/cdr"
)

// Coverage tells what the receipts of sources prove, for the calendar of the page. It
// may take its time, but not for ever; its answers are values that marshal as JSON.
type Coverage interface {
	// Sources lists the sources that can be asked for, also those of other members.
	Sources() []cdr.SourceName
	// Calendar tells of the last days of a source, hour by hour.
	Calendar(ctx context.Context, source cdr.SourceName, days int) (any, error)
	// Receipts returns those that tell of a span.
	Receipts(ctx context.Context, source cdr.SourceName, span cdr.Span) (any, error)
}

// CoverageError is an error of Coverage with what the browser gets.
type CoverageError struct {
	Status     int
	RetryAfter time.Duration // 0: no sooner than usual
	Err        error
}

func (e *CoverageError) Error() string { return e.Err.Error() }

func (e *CoverageError) Unwrap() error { return e.Err }

const (
	usualDays = 7
	mostDays  = 31
	// longestReceipts bounds the span whose receipts one request may ask for.
	longestReceipts cdr.Instant = 24 * 3600
)

// serveCoverage answers for one source, or lists those that can be asked for.
func (b *Board) serveCoverage(w http.ResponseWriter, r *http.Request) {
	source := cdr.SourceName(r.URL.Query().Get("source"))
	if source == "" {
		writeJSON(w, map[string]any{"sources": b.options.Coverage.Sources()})
		return
	}
	days := usualDays
	if text := r.URL.Query().Get("days"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostDays {
			http.Error(w, fmt.Sprintf("days=%q: want a whole number, 1 to %d", text, mostDays), http.StatusBadRequest)
			return
		}
		days = n
	}
	calendar, err := b.options.Coverage.Calendar(r.Context(), source, days)
	writeCoverage(w, calendar, err)
}

// serveReceipts answers with the receipts of an hour or so.
func (b *Board) serveReceipts(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	span, err := cdr.ParseSpan(query.Get("from") + "/" + query.Get("to"))
	if err == nil && span.EndExclusive-span.StartInclusive > longestReceipts {
		err = fmt.Errorf("span %s: want no more than 24 hours", span)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	receipts, err := b.options.Coverage.Receipts(r.Context(), cdr.SourceName(query.Get("source")), span)
	writeCoverage(w, receipts, err)
}

func writeCoverage(w http.ResponseWriter, answer any, err error) {
	var kind *CoverageError
	switch {
	case err == nil:
		writeJSON(w, answer)
	case errors.As(err, &kind):
		if kind.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(kind.RetryAfter.Seconds())))
		}
		http.Error(w, redact(err.Error()), kind.Status)
	default:
		http.Error(w, redact(err.Error()), http.StatusInternalServerError)
	}
}

// writeJSON answers with a value.
func writeJSON(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "encode the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // the browser has gone: nobody to tell
}
