package faultnet

import (
	"fmt"
	"io"
	"maps"
	"sync"
	"time"
)

// Event is one thing that went wrong, or a note of the caller's.
type Event struct {
	After   time.Duration // since the network was made
	Client  string
	Request Request // without its frame; of a note: none
	Fault   Fault   // Deliver: a note
	Detail  string
}

func (e Event) String() string {
	what := e.Detail
	if e.Fault != Deliver {
		what = e.Fault.String()
		if e.Detail != "" {
			what += ", " + e.Detail
		}
	}
	if e.Request.Number > 0 {
		what = fmt.Sprintf("%s %d: %s", e.Request.Name(), e.Request.Number, what)
	}
	return fmt.Sprintf("%12.3fs  %-12s %s", e.After.Seconds(), e.Client, what)
}

// Trace is the story of a network. It is safe for concurrent use.
type Trace struct {
	began time.Time

	mu     sync.Mutex
	events []Event
	counts map[Fault]int
}

func newTrace() *Trace { return &Trace{began: time.Now(), counts: map[Fault]int{}} }

func (t *Trace) add(e Event) {
	e.Request.Frame = nil // the trace outlives the requests
	e.After = time.Since(t.began)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
	if e.Fault != Deliver && !e.Request.Copy {
		t.counts[e.Fault]++
	}
}

// Note adds a line of the caller's.
func (t *Trace) Note(client, text string) { t.add(Event{Client: client, Detail: text}) }

// Events returns what happened so far, in order.
func (t *Trace) Events() []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Event(nil), t.events...)
}

// Counts tells how often each fault befell a request or a client.
func (t *Trace) Counts() map[Fault]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// WriteTo prints the trace, one event a line.
func (t *Trace) WriteTo(w io.Writer) (n int64, err error) {
	for _, e := range t.Events() {
		written, err := fmt.Fprintln(w, e)
		n += int64(written)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
