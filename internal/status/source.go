package status

import (
	"time"

	"cdrbus/internal/cdr"
)

// State is what a source is doing. A person must act on the last three.
type State string

const (
	// Starting waits for its shard to be taken over and restored.
	Starting State = "starting"
	// Waiting has nothing to ask yet: the feed or the request budget is not ready.
	Waiting State = "waiting"
	// Fetching reads the pages of a window.
	Fetching State = "fetching"
	// Committing has a window in an open commit.
	Committing State = "committing"
	// BackingOff tries again by itself after a failure that should pass.
	BackingOff State = "backing_off"
	// Stopped needs a person: the feed refused in a way that will not pass.
	Stopped State = "stopped"
	// Parked needs a person: its windows failed to commit three times alone.
	Parked State = "parked"
	// Refused needs a person: its position does not fit what is configured.
	Refused State = "refused"
)

// States lists every state, in the order in which people should see them.
func States() []State {
	return []State{Stopped, Parked, Refused, BackingOff, Starting, Waiting, Fetching, Committing}
}

// NeedsPerson reports whether the source will not go on by itself.
func (s State) NeedsPerson() bool { return s == Stopped || s == Parked || s == Refused }

// A Source is one feed as it stands now.
type Source struct {
	Name       cdr.SourceName `json:"name"`
	Credential string         `json:"credential,omitempty"`
	Shard      int            `json:"shard"`

	State  State     `json:"state"`
	Since  time.Time `json:"since"`            // set by the board when the state changes
	Reason string    `json:"reason,omitempty"` // why it is in this state, for a person
	Remedy string    `json:"remedy,omitempty"` // what a person should do about it

	Endpoint      cdr.Endpoint `json:"endpoint,omitempty"`   // that follows the live edge just now
	Published     cdr.Instant  `json:"published,omitzero"`   // everything before is committed once; of cdr_stream by time of insertion
	Settled       cdr.Instant  `json:"settled,omitzero"`     // everything before is passed by the widest sweep
	Counter       cdr.Counter  `json:"counter"`              // of the position
	MinAgeSeconds float64      `json:"minAgeSeconds"`        // youngest instant that the endpoint answers for
	Feed          Edge         `json:"feed,omitzero"`        // by endpoint
	Stream        Edge         `json:"stream,omitzero"`      // only where it is read
	LiveSeconds   float64      `json:"liveSeconds,omitzero"` // between the last windows of the live edge, on average; 0: not known yet
	Sweeps        []Sweep      `json:"sweeps,omitempty"`     // the narrowest first
	Jobs          []Job        `json:"jobs,omitempty"`       // at work, the oldest first
	EndedJobs     []Job        `json:"endedJobs,omitempty"`  // since the process began, the latest first

	// ClockAheadSeconds is how far the feed's clock is ahead of this machine's, as its
	// last answer told.
	ClockAheadSeconds float64 `json:"clockAheadSeconds,omitzero"`

	Current       Current   `json:"current,omitzero"`
	LastWindow    Window    `json:"lastWindow,omitzero"`
	NextRequestAt time.Time `json:"nextRequestAt,omitzero"`

	Counts   Counts            `json:"counts"`
	Unmapped map[string]uint64 `json:"unmapped,omitempty"` // by field name
	Requests map[string]uint64 `json:"requests,omitempty"` // by HTTP status, or "none"

	Token     Token   `json:"token,omitzero"`
	LastError Failure `json:"lastError,omitzero"`

	lastLiveAt time.Time

	// BudgetNow reads the request budget of the source's credential at the
	// time of a snapshot. It must not block and must not call the board.
	BudgetNow func(now time.Time) Budget `json:"-"`
}

// feedTime is the feed's time at a time of this machine.
func (s *Source) feedTime(now time.Time) time.Time {
	return now.Add(time.Duration(s.ClockAheadSeconds * float64(time.Second)))
}

// Edge is how far one endpoint is read.
type Edge struct {
	Published       cdr.Instant `json:"published,omitzero"`
	LookbackSeconds float64     `json:"lookbackSeconds,omitzero"` // how far back the endpoint answers; 0: it is not read
}

// Sweep is the plan of one later reading, and how its round goes.
type Sweep struct {
	BackSeconds  float64     `json:"backSeconds"`
	EverySeconds float64     `json:"everySeconds"`
	BeganAt      time.Time   `json:"beganAt,omitzero"` // of the latest round
	DueAt        time.Time   `json:"dueAt,omitzero"`   // of the next one
	Next         cdr.Instant `json:"next,omitzero"`    // where a round at work has come to
	End          cdr.Instant `json:"end,omitzero"`     // of that round; unset between rounds
}

// Job is what a person asked for, and how far it is.
type Job struct {
	ID    string      `json:"id"`
	Kind  string      `json:"kind"`
	Phase JobPhase    `json:"phase"`
	Span  cdr.Span    `json:"span"`
	Next  cdr.Instant `json:"next"` // everything of the span before is done

	Items     int64 `json:"items"`
	Published int64 `json:"published"`
	// Findings says what a verification found, in words; Differs that feed and topic
	// are not the same.
	Findings string `json:"findings,omitempty"`
	Differs  bool   `json:"differs,omitempty"`
	Message  string `json:"message,omitempty"`

	BeganAt   time.Time `json:"beganAt,omitzero"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	// LeftSeconds is how long the rest takes at the pace so far; 0: not known. Set by
	// the board.
	LeftSeconds float64 `json:"leftSeconds,omitzero"`
}

// JobPhase is how far a job is.
type JobPhase string

// The phases of a job, as its state in Kafka has them.
const (
	JobAccepted  JobPhase = "accepted"
	JobRunning   JobPhase = "running"
	JobDone      JobPhase = "done"
	JobFailed    JobPhase = "failed"
	JobCancelled JobPhase = "cancelled"
)

// share is how much of the job is done, 0 to 1.
func (j *Job) share() float64 {
	all := j.Span.EndExclusive - j.Span.StartInclusive
	return float64(j.Next-j.Span.StartInclusive) / float64(max(all, 1))
}

// leftSeconds is how long the rest takes at the pace so far; 0: not known.
func (j *Job) leftSeconds(now time.Time) float64 {
	done := j.share()
	if j.Phase != JobRunning || j.BeganAt.IsZero() || done <= 0 {
		return 0
	}
	took := j.UpdatedAt.Sub(j.BeganAt).Seconds()
	return max(1, took*(1-done)/done-now.Sub(j.UpdatedAt).Seconds())
}

// keptJobs is how many jobs of a source are shown after their end.
const keptJobs = 3

// Current is the window being fetched or committed.
type Current struct {
	Span       cdr.Span    `json:"span,omitzero"`
	Purpose    cdr.Purpose `json:"purpose,omitempty"`
	Pages      int         `json:"pages"`
	TotalCount int64       `json:"totalCount"` // of the first page; -1 if it did not say
	Items      uint64      `json:"items"`
}

// Window is one committed window.
type Window struct {
	Source   cdr.SourceName `json:"-"`
	Counter  cdr.Counter    `json:"counter"`
	Span     cdr.Span       `json:"span,omitzero"` // as asked, overlap included
	Purpose  cdr.Purpose    `json:"purpose,omitempty"`
	Endpoint cdr.Endpoint   `json:"endpoint,omitempty"`

	Pages      int    `json:"pages"`
	Requests   int    `json:"requests"`
	TotalCount int64  `json:"totalCount"` // -1 if the feed did not say
	Bytes      uint64 `json:"bytes"`      // of decoded JSON

	Items       uint64 `json:"items"`
	Events      uint64 `json:"events"`
	Known       uint64 `json:"known"` // already published before
	Late        uint64 `json:"late"`
	Revised     uint64 `json:"revised"`
	DeadLetters uint64 `json:"deadLetters"`

	// Unproven says why it is not certain that the feed returned everything;
	// empty when it is.
	Unproven string `json:"unproven,omitempty"`

	FetchSeconds float64 `json:"fetchSeconds"` // first request to last page
	WaitSeconds  float64 `json:"waitSeconds"`  // of that, for the budget and at the feed's demand

	// Watermarks of the source after this commit.
	Published cdr.Instant `json:"published,omitzero"`
	Settled   cdr.Instant `json:"settled,omitzero"`

	// Set by the board.
	CommitSeconds float64   `json:"commitSeconds"`
	CommittedAt   time.Time `json:"committedAt,omitzero"`
	LagSeconds    float64   `json:"lagSeconds"` // of the source, just after this commit
	Mark          Mark      `json:"mark,omitempty"`
}

// Mark is how a window looks at a glance: the most serious thing about it.
type Mark string

const (
	MarkStart       Mark = "start"        // fixes where a new source begins
	MarkGap         Mark = "gap"          // the feed can no longer return it
	MarkUnproven    Mark = "unproven"     // it may be incomplete
	MarkDeadLetters Mark = "dead_letters" // complete, but some items are dead letters
	MarkEmpty       Mark = "empty"        // complete, without a record
	MarkProven      Mark = "proven"       // complete
)

func (w *Window) mark() Mark {
	switch {
	case w.Purpose == cdr.Start:
		return MarkStart
	case w.Purpose == cdr.Gap:
		return MarkGap
	case w.Unproven != "":
		return MarkUnproven
	case w.DeadLetters > 0:
		return MarkDeadLetters
	case w.Items == 0:
		return MarkEmpty
	default:
		return MarkProven
	}
}

// Counts of a source's committed windows since the process began.
type Counts struct {
	Windows     map[cdr.Purpose]uint64 `json:"windows,omitempty"`
	Records     uint64                 `json:"records"`
	Events      uint64                 `json:"events"`
	Known       uint64                 `json:"known"`
	Late        uint64                 `json:"late"`
	Revised     uint64                 `json:"revised"`
	DeadLetters uint64                 `json:"deadLetters"`
	Bytes       uint64                 `json:"bytes"`
	Unproven    uint64                 `json:"unproven"` // windows
	Gaps        uint64                 `json:"gaps"`
	GapSeconds  float64                `json:"gapSeconds"`
	LastGap     cdr.Span               `json:"lastGap,omitzero"`
	WaitSeconds float64                `json:"waitSeconds"`
}

func (c *Counts) add(w *Window) {
	if c.Windows == nil {
		c.Windows = make(map[cdr.Purpose]uint64)
	}
	c.Windows[w.Purpose]++
	c.Records += w.Items
	c.Events += w.Events
	c.Known += w.Known
	c.Late += w.Late
	c.Revised += w.Revised
	c.DeadLetters += w.DeadLetters
	c.Bytes += w.Bytes
	c.WaitSeconds += w.WaitSeconds
	switch w.Mark {
	case MarkGap:
		c.Gaps++
		c.GapSeconds += w.Span.Duration().Seconds()
		c.LastGap = w.Span
	case MarkUnproven:
		c.Unproven++
	}
}

// Budget is what a credential may still ask in the running minute.
type Budget struct {
	InitialPerMinute   float64   `json:"initialPerMinute"`
	InitialAvailableAt time.Time `json:"initialAvailableAt,omitzero"` // zero or past: now
	PagesPerMinute     float64   `json:"pagesPerMinute"`
	PagesLeft          float64   `json:"pagesLeft"`
}

// Token is what is known of a credential's tokens: when they end, never what they are.
type Token struct {
	ExpiresAt        time.Time `json:"expiresAt,omitzero"`
	RefreshExpiresAt time.Time `json:"refreshExpiresAt,omitzero"`
	Warning          string    `json:"warning,omitempty"`
}

// Failure is the last thing that went wrong.
type Failure struct {
	At    time.Time `json:"at,omitzero"`
	Text  string    `json:"text,omitempty"`
	Count int       `json:"count,omitempty"` // times in a row
}

// ShardState is how far a shard's owner has come.
type ShardState string

const (
	// ShardOwned is being taken over; nothing of it is known yet.
	ShardOwned ShardState = "owned"
	// ShardRestoring reads positions and IDs from the log.
	ShardRestoring ShardState = "restoring"
	// ShardReady commits windows.
	ShardReady ShardState = "ready"
	// ShardLost could not be taken over or restored, or was fenced; its owner
	// tries again. The reason says why.
	ShardLost ShardState = "lost"
	// ShardReleased belongs to another process, or to none.
	ShardReleased ShardState = "released"
)

// A Shard is one partition of the offsets topic as its owner sees it.
type Shard struct {
	Number int        `json:"number"`
	State  ShardState `json:"state"`
	Since  time.Time  `json:"since"`
	Reason string     `json:"reason,omitempty"`

	Epoch     int64  `json:"epoch"` // of the producer; a commit uses one up
	Commits   uint64 `json:"commits"`
	Aborts    uint64 `json:"aborts"`
	Takeovers uint64 `json:"takeovers"`

	LastCommitAt      time.Time `json:"lastCommitAt,omitzero"`
	LastCommitSeconds float64   `json:"lastCommitSeconds"`

	SeenIDs   uint64 `json:"seenIds"`   // Report IDs in the sets of its sources
	SeenBytes uint64 `json:"seenBytes"` // memory that they take
}

// A Commit is one definite commit of a shard with the windows it carried.
type Commit struct {
	Shard           int
	At              time.Time // zero: now
	DurationSeconds float64
	Windows         []Window
}
