package eventlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"cdrbus/schema"
)

// Schemas knows the schemas that the events of a topic were written under, and
// what has been warned of. Scans may share one, beside each other too: each ID is
// then asked for once in all.
type Schemas struct {
	schemaByID func(ctx context.Context, id int) (string, error)

	asking chan struct{} // capacity 1: held while the registry is asked

	mu     sync.Mutex // never held while waiting
	byID   map[int]*writer
	warned map[string]bool
}

// writer is what is known of a schema ID.
type writer struct {
	kind   kind
	schema *schema.WriterSchema // of another version
	err    error                // why it is foreign or unknown
	lost   bool                 // unknown for good: asking again would not help
	asked  time.Time
}

// kind says how events under a schema are read.
type kind uint8

const (
	own     kind = iota // laid out as this version's
	other               // another version's, decoded by its own schema
	foreign             // no schema of a call detail record
	unknown             // cannot be looked up; what fits this version's is taken for it
)

const (
	// registryPatience bounds how long a registry is asked for one schema.
	registryPatience = 5 * time.Second
	// askAgainAfter is when a registry that did not answer is asked again, should
	// the schema still be needed.
	askAgainAfter = time.Minute
	// maxIDs bounds how many schemas are asked for and remembered. Bytes that only
	// look like events would name millions.
	maxIDs = 1000
)

var (
	errNoRegistry = errors.New("there is no schema registry to ask")
	errTooManyIDs = fmt.Errorf("the topic names more than %d schemas, so not all of them are asked for", maxIDs)
)

// NewSchemas returns what knows nothing yet, and asks schemaByID, see
// [Options.SchemaByID].
func NewSchemas(schemaByID func(ctx context.Context, id int) (string, error)) *Schemas {
	return &Schemas{schemaByID: schemaByID, asking: make(chan struct{}, 1), byID: map[int]*writer{}, warned: map[string]bool{}}
}

// of returns what is known of a schema. An error is the end of ctx.
func (s *Schemas) of(ctx context.Context, id int, warn func(string)) (*writer, error) {
	if known := s.known(id); known != nil {
		return known, nil
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if known := s.known(id); known != nil { // somebody else has asked meanwhile
		return known, nil
	}
	found := s.lookUp(ctx, id)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	found.asked = time.Now()
	if first := s.learn(id, found); first && found.kind == unknown {
		warn(fmt.Sprintf("schema %d cannot be looked up (%v); events under it are read as this version's own where they fit that exactly", id, found.err))
	}
	return found, nil
}

// known returns what is known of a schema; nil: the registry is to be asked.
func (s *Schemas) known(id int) *writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch before := s.byID[id]; {
	case before != nil && (before.kind != unknown || before.lost || time.Since(before.asked) < askAgainAfter):
		return before
	case before == nil && len(s.byID) >= maxIDs:
		return &writer{kind: unknown, err: errTooManyIDs, lost: true}
	}
	return nil
}

// learn takes in what the registry says, and reports whether that is the first time.
func (s *Schemas) learn(id int, found *writer) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = s.byID[id] == nil
	s.byID[id] = found
	return first
}

func (s *Schemas) lookUp(ctx context.Context, id int) *writer {
	if s.schemaByID == nil {
		return &writer{kind: unknown, err: errNoRegistry, lost: true}
	}
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	text, err := s.schemaByID(ctx, id)
	if err != nil {
		return &writer{kind: unknown, err: err, lost: schema.Absent(err)}
	}
	parsed, err := schema.ParseWriterSchema(text)
	switch {
	case err != nil:
		return &writer{kind: foreign, err: fmt.Errorf("schema %d: %w", id, err)}
	case !parsed.HasReportID():
		return &writer{kind: foreign, err: fmt.Errorf("schema %d is of records without a reportId", id)}
	case parsed.SameForm():
		return &writer{kind: own}
	}
	return &writer{kind: other, schema: parsed}
}

// warnOnce warns about the first record of a kind.
func (s *Schemas) warnOnce(kind, text string, warn func(string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.warned[kind] {
		s.warned[kind] = true
		warn(text)
	}
}

// lost lists the schemas that could not be looked up.
func (s *Schemas) lost() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int
	for _, id := range slices.Sorted(maps.Keys(s.byID)) {
		if s.byID[id].kind == unknown {
			ids = append(ids, id)
		}
	}
	return ids
}
