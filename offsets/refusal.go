package offsets

import (
	"errors"
	"fmt"

	"cdrbus/internal/cdr"
)

// RefusalCode names a reason for which a source does not start. The names are stable:
// metrics, status and tests speak them.
type RefusalCode string

const (
	PositionDeleted     RefusalCode = "position_deleted"       // the last record is a tombstone, or empty
	PositionUnreadable  RefusalCode = "position_unreadable"    // not what cdrbus writes
	PositionBroken      RefusalCode = "position_checksum"      // not as it was written
	PositionOfLater     RefusalCode = "position_later_version" // only a later cdrbus reads it
	PositionZero        RefusalCode = "position_zero"          // says nothing
	PositionInvalid     RefusalCode = "position_invalid"       // says what cannot be
	PositionUnderKey    RefusalCode = "position_foreign_key"   // another source's, under this one's key
	PositionWentBack    RefusalCode = "counter_went_back"      // a second writer, or a restored backup
	PositionForked      RefusalCode = "counter_forked"         // two commits with one counter
	PositionLost        RefusalCode = "position_lost"          // receipts, but no position
	PositionUnvouched   RefusalCode = "position_unvouched"     // no receipt of its commit
	PositionElsewhere   RefusalCode = "other_shard"            // lies in, or went to, another shard
	PositionOfShards    RefusalCode = "other_shard_count"      // of another number of shards
	PositionOfPrefix    RefusalCode = "other_prefix"           // fenced under another transactional id
	PositionOfOtherFeed RefusalCode = "definition_changed"     // of another endpoint, host, path or locations

	JournalUnreadable RefusalCode = "journal_unreadable"    // a chunk that is none, or not as it was written
	JournalOfLater    RefusalCode = "journal_later_version" // only a later cdrbus reads it
	JournalAhead      RefusalCode = "journal_ahead"         // knows commits that the position does not
	JournalTorn       RefusalCode = "journal_torn"          // chunks of a commit are missing, or out of order
	JournalLost       RefusalCode = "journal_lost"          // ends before the position's JournalFrom
)

// Refusal says why a source does not start, and what a person can do. Only this
// source stops.
type Refusal struct {
	Source    cdr.SourceName
	Code      RefusalCode
	Topic     string // the record that tells, by topic, partition and offset
	Partition int
	Offset    int64
	Message   string
	Instead   string // what to do rather than the remedy; may be empty
	Remedy    string // command; FILE stands for the configuration
	Cost      string // what the remedy gives up; may be empty
	Cause     error  // nil, or an error that wraps one of the Err values
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("restore source %s (topic %s, partition %d, offset %d): %s; ", r.Source, r.Topic, r.Partition, r.Offset, r.Message)
	if r.Instead != "" {
		text += r.Instead + ", or "
	}
	text += fmt.Sprintf("run `%s`", r.Remedy)
	if r.Cost != "" {
		text += ", which " + r.Cost
	}
	return text
}

func (r *Refusal) Unwrap() error { return r.Cause }

// The commands that mend a position. What they do is shown with --dry-run.
func rebuildCommand(source cdr.SourceName) string {
	return fmt.Sprintf("cdrbus offsets set %s --from-receipts -c FILE", source)
}

func moveCommand(source cdr.SourceName, from, to int) string {
	return fmt.Sprintf("cdrbus offsets move %s --from-shard %d --to-shard %d -c FILE", source, from, to)
}

func adoptCommand(source cdr.SourceName, what string) string {
	return fmt.Sprintf("cdrbus offsets adopt %s --%s -c FILE", source, what)
}

func journalFromCommand(source cdr.SourceName, offset int64) string {
	return fmt.Sprintf("cdrbus offsets set %s --journal-from %d -c FILE", source, offset)
}

// errForeignKey says that a record's key and its position name different sources.
var errForeignKey = errors.New("position lies under a foreign key")

// refuseFault returns the refusal of a record that is no position of its source.
func refuseFault(source cdr.SourceName, cause error) *Refusal {
	r := &Refusal{Source: source, Code: PositionUnreadable, Message: cause.Error(), Remedy: rebuildCommand(source), Cause: cause}
	for _, known := range []struct {
		err     error
		code    RefusalCode
		because string
	}{
		{ErrAbsentPosition, PositionDeleted, "; somebody deleted it, and cdrbus never does"},
		{ErrBrokenChecksum, PositionBroken, "; something else than cdrbus wrote it, or it was damaged"},
		{ErrLaterPosition, PositionOfLater, ""},
		{ErrZeroPosition, PositionZero, ""},
		{ErrInvalidPosition, PositionInvalid, ""},
		{errForeignKey, PositionUnderKey, "; something else than cdrbus wrote it"},
		{ErrUnreadablePosition, PositionUnreadable, "; something else than cdrbus wrote it"},
	} {
		if errors.Is(cause, known.err) {
			r.Code = known.code
			r.Message += known.because
			break
		}
	}
	if r.Code == PositionOfLater {
		r.Instead = "run the later cdrbus again"
	}
	return r
}
