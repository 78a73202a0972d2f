package offsets

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cdrbus/internal/cdr"
)

// JobKind is what a job is for.
type JobKind string

const (
	// Backfill publishes what is missing of a span, whatever the live edge does.
	Backfill JobKind = "backfill"
	// Verify reads a span of the feed again and holds it against the events topic.
	Verify JobKind = "verify"
	// Mend writes a source's position as a person says, see [Edit].
	Mend JobKind = "edit"
)

// JobKinds are all kinds.
func JobKinds() []JobKind { return []JobKind{Backfill, Verify, Mend} }

// Job is an errand for the owner of a source's shard: it spends that one's request
// budget, its token and its transactions. A command writes it, once, as JSON, to the
// partition of the jobs topic that is the source's shard, keyed by its ID.
type Job struct {
	Version int            `json:"version"`
	ID      string         `json:"id"`
	Kind    JobKind        `json:"kind"`
	Source  cdr.SourceName `json:"source"`
	Span    cdr.Span       `json:"span"`
	// UpToEdge ends the span where the source itself is when the job is accepted, if that
	// comes first: nobody else knows that exactly.
	UpToEdge bool `json:"up_to_edge,omitempty"`

	// Of Verify: Fields compares what the records say too, not only their Report IDs;
	// Repair publishes what is missing.
	Fields bool `json:"fields,omitempty"`
	Repair bool `json:"repair,omitempty"`

	Edit *Edit `json:"edit,omitempty"` // of Mend, which has no span

	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"` // the machine
	// Cancel asks the owner to end the job of this ID; the rest is as it was.
	Cancel bool `json:"cancel,omitempty"`
}

// jobVersion is the version of jobs and of their states that this code writes.
const jobVersion = 1

// NewJobID returns an ID that nobody else has, in the order of time.
func NewJobID(now time.Time) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	return now.UTC().Format("20060102-150405-") + hex.EncodeToString(random[:])
}

// Validate reports a job that nobody can do.
func (j Job) Validate() error {
	if j.ID == "" || bytes.ContainsAny([]byte(j.ID), ": \n") {
		return fmt.Errorf("job ID %q", j.ID)
	}
	if err := j.Source.Validate(); err != nil {
		return err
	}
	if !slices.Contains(JobKinds(), j.Kind) {
		return fmt.Errorf("job kind %q: known are %q", string(j.Kind), JobKinds())
	}
	if j.Kind == Mend {
		return j.Edit.Validate()
	}
	return j.Span.Validate()
}

// Encode returns the value to write.
func (j Job) Encode() ([]byte, error) {
	j.Version = jobVersion
	if err := j.Validate(); err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	return json.Marshal(j)
}

// DecodeJob reads what Encode wrote.
func DecodeJob(value []byte) (Job, error) {
	var j Job
	if err := decodeJob(value, &j, &j.Version); err != nil {
		return Job{}, err
	}
	return j, j.Validate()
}

// JobPhase is how far a job is.
type JobPhase string

const (
	JobAccepted  JobPhase = "accepted" // by an owner, who has not begun yet
	JobRunning   JobPhase = "running"
	JobDone      JobPhase = "done"
	JobFailed    JobPhase = "failed" // for the reason of the message
	JobCancelled JobPhase = "cancelled"
)

// Ended reports whether nothing more will come of it.
func (p JobPhase) Ended() bool { return p == JobDone || p == JobFailed || p == JobCancelled }

// JobState is the position of a job: how far its windows are committed. It is written
// in their transactions, by the shard's owner, to the shard's partition of the offsets
// topic, so that whoever owns the shard next goes on where it was.
type JobState struct {
	Version int      `json:"version"`
	Job     Job      `json:"job"`
	Phase   JobPhase `json:"phase"`
	Message string   `json:"message,omitempty"` // why it failed, or what it waits for
	Owner   string   `json:"owner,omitempty"`   // the process at it

	Next    cdr.Instant   `json:"next"` // everything of the span before is done
	Windows int64         `json:"windows"`
	Pages   int64         `json:"pages"`
	Took    time.Duration `json:"took_ns"` // of its windows, waits included

	Items       int64 `json:"items"`
	Published   int64 `json:"published"`
	Known       int64 `json:"known"`
	Revised     int64 `json:"revised"`
	DeadLetters int64 `json:"dead_letters"`
	// Skipped is what the feed no longer answers for.
	SkippedSeconds int64 `json:"skipped_seconds,omitempty"`

	Findings  *Findings   `json:"findings,omitempty"`  // of Verify
	Concluded *Conclusion `json:"concluded,omitempty"` // of one that goes on

	BeganAt   time.Time `json:"began_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Findings is what a verification found, as far as it has come. Listed holds the first
// MaxListed of them.
type Findings struct {
	FeedRecords int64 `json:"feed_records"` // different ones
	Events      int64 `json:"events"`       // of the span, in the topic

	Missing    int64 `json:"missing"`    // in the feed, neither in the topic nor a dead letter
	Unexpected int64 `json:"unexpected"` // in the topic, not in the feed
	Doubled    int64 `json:"doubled"`    // twice in the topic, with the same content
	Different  int64 `json:"different"`  // the topic's last content is not the feed's
	Repaired   int64 `json:"repaired"`   // of those missing
	Foreign    int64 `json:"foreign"`    // records of the events topic that no event could be read from

	Listed []Finding `json:"listed,omitempty"`
}

// Conclusion is how far a verification has come for good: whoever goes on with it
// begins there.
type Conclusion struct {
	Until    cdr.Instant `json:"until"`    // of the span
	Findings Findings    `json:"findings"` // before that, without their list,
	Listed   int         `json:"listed"`   // which is the begin of the state's, so long
	// SkippedSeconds is what the feed no longer answered for, before that.
	SkippedSeconds int64 `json:"skipped_seconds,omitempty"`
}

// Conclude returns what a state says of findings that are for good.
func Conclude(until cdr.Instant, findings Findings, skippedSeconds int64) *Conclusion {
	c := &Conclusion{Until: until, Findings: findings, Listed: len(findings.Listed), SkippedSeconds: skippedSeconds}
	c.Findings.Listed = nil
	return c
}

// Conclusion returns up to where a verification is done for good, and what stays of its
// findings: those before that, and whatever was published for want of it, which will not
// be found missing again; and how much of the span before that was skipped.
func (s *JobState) Conclusion() (until cdr.Instant, findings Findings, skippedSeconds int64) {
	c := s.Concluded
	if c == nil {
		c = &Conclusion{Until: s.Job.Span.StartInclusive}
	}
	if s.Findings == nil {
		return c.Until, c.Findings, c.SkippedSeconds
	}
	findings = c.Findings
	for i, listed := range s.Findings.Listed {
		if i < c.Listed || s.Job.Repair && listed.What == "missing" {
			findings.Listed = append(findings.Listed, listed)
		}
	}
	repaired := s.Findings.Repaired - findings.Repaired
	findings.Missing += repaired
	findings.Repaired += repaired
	return c.Until, findings, c.SkippedSeconds
}

// Add adds what was found elsewhere, behind what is listed already.
func (f *Findings) Add(more Findings) {
	f.FeedRecords += more.FeedRecords
	f.Events += more.Events
	f.Missing += more.Missing
	f.Unexpected += more.Unexpected
	f.Doubled += more.Doubled
	f.Different += more.Different
	f.Repaired += more.Repaired
	f.Foreign += more.Foreign
	f.Listed = append(f.Listed, more.Listed[:min(len(more.Listed), MaxListed-len(f.Listed))]...)
}

// Finding is one record that is not as it should be.
type Finding struct {
	What       string    `json:"what"` // missing, unexpected, doubled or different
	ReportID   string    `json:"report_id"`
	ReportTime time.Time `json:"report_time,omitzero"` // whole seconds
	// Key is what an event that is missing would be keyed by: most often the Correlation
	// ID of the call.
	Key string `json:"key,omitempty"`
	// At is PARTITION:OFFSET of the topic's last event of this Report ID; empty if it has
	// none.
	At string `json:"at,omitempty"`
}

// MaxListed is how many findings a state lists. It is written with every window.
const MaxListed = 200

// Differ reports whether feed and topic are not the same.
func (f *Findings) Differ() bool {
	return f.Missing-f.Repaired+f.Unexpected+f.Doubled+f.Different > 0
}

// Summary says in a few words what was found; nothing of a job that is no verification.
func (f *Findings) Summary() string {
	if f == nil {
		return ""
	}
	var words []string
	for _, part := range []struct {
		n    int64
		what string
	}{{f.Missing, "missing"}, {f.Unexpected, "unexpected"}, {f.Doubled, "doubled"}, {f.Different, "different"}, {f.Repaired, "published now"}} {
		if part.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	if len(words) == 0 {
		return "no difference"
	}
	return strings.Join(words, ", ")
}

// jobPrefix begins the keys of jobs in the offsets topic.
const jobPrefix = "job:"

// JobKey is the key of a job's state, in the shard of its source.
func JobKey(id string) []byte { return []byte(jobPrefix + id) }

// JobOf returns the ID of the job whose state has this key.
func JobOf(key []byte) (id string, ok bool) {
	rest, ok := bytes.CutPrefix(key, []byte(jobPrefix))
	return string(rest), ok && len(rest) > 0
}

// Encode returns the value to write.
func (s JobState) Encode() ([]byte, error) {
	s.Version = jobVersion
	value, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode state of job %s: %w", s.Job.ID, err)
	}
	return value, nil
}

// DecodeJobState reads what Encode wrote.
func DecodeJobState(value []byte) (JobState, error) {
	var s JobState
	if err := decodeJob(value, &s, &s.Version); err != nil {
		return JobState{}, err
	}
	return s, s.Job.Validate()
}

func decodeJob(value []byte, into any, version *int) error {
	switch err := json.Unmarshal(value, into); {
	case err != nil:
		return errors.New("decode job: it is not the JSON that cdrbus writes")
	case *version > jobVersion:
		return fmt.Errorf("decode job: a later version of cdrbus wrote it (format %d, known is %d)", *version, jobVersion)
	}
	return nil
}
