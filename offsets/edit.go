package offsets

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cdrbus/internal/cdr"
)

// EditKind says what a person wants of a position.
type EditKind string

const (
	EditFromReceipts EditKind = "from_receipts" // made anew from the receipts
	EditPublished    EditKind = "published"     // the same, but published to a time that is given
	EditReset        EditKind = "reset"         // a sound one goes back or forward to a time
	EditJournalFrom  EditKind = "journal_from"  // the ID journal counts from an offset on
	EditDefinition   EditKind = "definition"    // accepts what the source asks for now
	EditPrefix       EditKind = "prefix"        // accepts the transactional prefix
	EditShards       EditKind = "shards"        // accepts the number of shards
	EditMove         EditKind = "move"          // to another shard
)

// Edit is how a person's command changes the position of a source. It says what is
// wanted rather than how the position was: whoever owns the shard when it is done
// makes the new position from what the log says then.
type Edit struct {
	What        EditKind    `json:"what"`
	To          cdr.Instant `json:"to,omitzero"`           // of EditPublished and EditReset
	JournalFrom int64       `json:"journal_from,omitzero"` // of EditJournalFrom
	FromShard   int         `json:"from_shard,omitzero"`   // of EditMove
	ToShard     int         `json:"to_shard,omitzero"`

	// Where the person asked for it, this is configured. An owner with another
	// configuration would do something else, and does nothing.
	Prefix     string     `json:"transactional_prefix"`
	Shards     int        `json:"shards"`
	Definition Definition `json:"definition"`

	// NotAfter is until when an owner may begin: what a person has weighed must not
	// happen a day later.
	NotAfter time.Time `json:"not_after"`
}

// Validate reports an edit that nobody can do.
func (e *Edit) Validate() error {
	kinds := []EditKind{EditFromReceipts, EditPublished, EditReset, EditJournalFrom, EditDefinition, EditPrefix, EditShards, EditMove}
	switch {
	case e == nil:
		return errors.New("edit: it does not say what to do")
	case !slices.Contains(kinds, e.What):
		return fmt.Errorf("edit %q: known are %q", string(e.What), kinds)
	case (e.What == EditReset || e.What == EditPublished) && (e.To <= 0 || e.To > lastInstant):
		return fmt.Errorf("edit %s: to %s", e.What, e.To)
	case e.JournalFrom < 0:
		return fmt.Errorf("edit %s: offset %d", e.What, e.JournalFrom)
	case e.Shards < 1 || e.FromShard < 0 || e.ToShard < 0 || e.ToShard >= e.Shards:
		return fmt.Errorf("edit %s: from shard %d to shard %d of %d", e.What, e.FromShard, e.ToShard, e.Shards)
	case e.What == EditMove && e.FromShard == e.ToShard:
		return fmt.Errorf("edit %s: shard %d is where it comes from", e.What, e.ToShard)
	}
	return e.Definition.Validate()
}
