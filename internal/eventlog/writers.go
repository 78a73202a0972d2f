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

// writers knows the schemas that the events of a topic were written under. It is
// shared by the partitions of a scan.
type writers struct {
	schemaByID func(ctx context.Context, id int) (string, error)
	warn       func(string)

	mu     sync.Mutex // also while the registry is asked, so that each ID is asked for once
	byID   map[int]*writer
	warned map[string]bool
}

// writer is what is known of a schema ID.
type writer struct {
	kind   kind
	schema *schema.WriterSchema // of another version
	err    error                // why it is foreign or unknown
	lost   bool                 // unknown for good: asking again would not help
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
	registryPatience = 10 * time.Second
	// maxIDs bounds how many schemas are asked for and remembered. Bytes that only
	// look like events would name millions.
	maxIDs = 1000
)

var (
	errNoRegistry = errors.New("there is no schema registry to ask")
	errTooManyIDs = fmt.Errorf("the topic names more than %d schemas, so not all of them are asked for", maxIDs)
)

func newWriters(schemaByID func(ctx context.Context, id int) (string, error), warn func(string)) *writers {
	return &writers{schemaByID: schemaByID, warn: warn, byID: map[int]*writer{}, warned: map[string]bool{}}
}

// of returns what is known of a schema. An error is the end of ctx.
func (w *writers) of(ctx context.Context, id int) (*writer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if found := w.byID[id]; found != nil {
		return found, nil
	}
	if len(w.byID) >= maxIDs {
		return &writer{kind: unknown, err: errTooManyIDs, lost: true}, nil
	}
	found := w.lookUp(ctx, id)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	w.byID[id] = found
	if found.kind == unknown {
		w.warn(fmt.Sprintf("schema %d cannot be looked up (%v); events under it are read as this version's own where they fit that exactly", id, found.err))
	}
	return found, nil
}

func (w *writers) lookUp(ctx context.Context, id int) *writer {
	if w.schemaByID == nil {
		return &writer{kind: unknown, err: errNoRegistry, lost: true}
	}
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	text, err := w.schemaByID(ctx, id)
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
func (w *writers) warnOnce(kind, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.warned[kind] {
		w.warned[kind] = true
		w.warn(text)
	}
}

// lost lists the schemas that could not be looked up.
func (w *writers) lost() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []int
	for _, id := range slices.Sorted(maps.Keys(w.byID)) {
		if w.byID[id].kind == unknown {
			ids = append(ids, id)
		}
	}
	return ids
}
