package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cdrbus/internal/cdr"
)

// ErrNotReached says that a bounded run ended although a source is short of the
// instant that was asked for.
var ErrNotReached = errors.New("not every source reached the instant asked for")

// errReached ends a bounded run that got where it was asked to.
var errReached = errors.New("every source reached the instant asked for")

// finish ends a bounded run once each source has either reached the instant or
// come to a stop before it. It is safe for concurrent use.
type finish struct {
	until cdr.Instant // zero: the run has no bound, and nothing ends it
	end   context.CancelCauseFunc

	mu      sync.Mutex
	running map[cdr.SourceName]bool
	short   []string
}

// begin starts to watch the sources.
func (f *finish) begin(shards map[int][]*source, end context.CancelCauseFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = end
	f.running = map[cdr.SourceName]bool{}
	for _, sources := range shards {
		for _, s := range sources {
			f.running[s.name] = true
		}
	}
}

// published takes in how far a source is.
func (f *finish) published(name cdr.SourceName, watermark cdr.Instant) {
	if f.until.IsZero() || watermark < f.until {
		return
	}
	f.leave(name, "")
}

// stopped takes in that a source will not go on by itself.
func (f *finish) stopped(name cdr.SourceName, reason string) {
	if !f.until.IsZero() {
		f.leave(name, fmt.Sprintf("source %s: %s", name, reason))
	}
}

func (f *finish) leave(name cdr.SourceName, short string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.running[name] {
		return
	}
	delete(f.running, name)
	if short != "" {
		f.short = append(f.short, short)
	}
	switch {
	case len(f.running) > 0:
	case len(f.short) > 0:
		slices.Sort(f.short)
		f.end(fmt.Errorf("%w: %s", ErrNotReached, strings.Join(f.short, "; ")))
	default:
		f.end(errReached)
	}
}
