package daemon_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/daemon"
	"cdrbus/internal/jobs"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/mend"
	"cdrbus/offsets"
)

// errand is a job that somebody asks for in the storm, through a network that
// misbehaves for him too.
type errand struct {
	name    string // of the client that asks
	kind    offsets.JobKind
	source  string
	repair  bool
	old     bool          // reaches back behind the set of published IDs
	lose    bool          // some events are lost before, as retention would
	alone   bool          // asked for by a command that does it itself where nobody else does
	after   time.Duration // how long he waits before he asks
	job     offsets.Job   // without an ID: not asked for yet
	content *rand.Rand    // draws the rest
}

func (e *errand) String() string {
	return fmt.Sprintf("%s %s of %s, repair %t, %s", e.name, e.kind, e.source, e.repair, e.job.Span)
}

// simJobs are the jobs, the most wanted most often.
var simJobs = []struct {
	kind   offsets.JobKind
	repair bool
}{{offsets.Backfill, false}, {offsets.Backfill, false}, {offsets.Backfill, false}, {offsets.Verify, false}, {offsets.Verify, true}, {offsets.Verify, true}, {offsets.Mend, false}}

func drawErrands(s scenario) (drawn []*errand) {
	rng := rand.New(rand.NewPCG(s.seed, 4))
	lost := false
	for i := range s.jobs {
		wanted := simJobs[rng.IntN(len(simJobs))]
		e := &errand{
			name: fmt.Sprint("asker", i), kind: wanted.kind, repair: wanted.repair, source: simSources[rng.IntN(len(simSources))],
			alone: rng.IntN(3) == 0, old: wanted.kind == offsets.Backfill && rng.IntN(2) == 0, after: upTo(rng, 30*time.Second), content: rand.New(rand.NewPCG(s.seed, 5+uint64(i))),
		}
		if i > 0 && rng.IntN(3) == 0 { // of the same, once more
			before := drawn[i-1]
			e.kind, e.repair, e.source, e.old = before.kind, before.repair, before.source, before.old
		}
		e.lose = e.repair && !lost
		lost = lost || e.lose
		drawn = append(drawn, e)
	}
	return drawn
}

// edited reports whether somebody asks for a position to be changed.
func (s *simulation) edited() bool {
	for _, e := range s.errands {
		if e.kind == offsets.Mend {
			return true
		}
	}
	return false
}

// commands reports whether commands may take shards themselves.
func (s *simulation) commands() bool {
	for _, e := range s.errands {
		if e.alone {
			return true
		}
	}
	return false
}

// askAll lets everybody ask who has not yet.
func (s *simulation) askAll(ctx context.Context) {
	for _, e := range s.errands {
		if e.job.ID == "" {
			s.asking.Go(func() { s.ask(ctx, e) })
		}
	}
}

// ask asks for a job as soon as the source has come some way.
func (s *simulation) ask(ctx context.Context, e *errand) {
	pause(ctx, e.after)
	published := s.start
	for ; published < s.start.Add(time.Minute); published = s.look().positions[e.source].FeedPublished {
		if pause(ctx, time.Second); ctx.Err() != nil {
			return
		}
	}
	if e.lose {
		s.loseEvents(e.content)
	}
	job, err := s.jobOf(e, published)
	if err != nil {
		s.t.Error(err)
		return
	}
	e.job = job
	s.net.Trace().Note(e.name, fmt.Sprintf("asks for job %s: %s", job.ID, e))
	if e.alone {
		s.command(ctx, e)
	} else {
		s.submit(ctx, e)
	}
}

// jobOf draws a job of a source that is published to an instant. A backfill begins
// before the source does. Everything overlaps what the live edge reads, or, if it is of
// old time, what others of that time do.
func (s *simulation) jobOf(e *errand, published cdr.Instant) (offsets.Job, error) {
	within := func(from, to cdr.Instant) cdr.Instant {
		return from + cdr.Instant(e.content.Int64N(int64(to-from)))
	}
	job := jobs.New(e.kind, cdr.SourceName(e.source), e.name)
	from, middle, to := s.start, s.start.Add(30*time.Second), min(published, s.start.Add(simBackfilled))
	switch {
	case e.old:
		from = s.start.Add(-simOld)
		middle, to = from.Add(simBackfilled/2), from.Add(simBackfilled)
	case e.kind == offsets.Backfill:
		from = from.Add(-simBackfilled)
	}
	job.Span.StartInclusive, job.Span.EndExclusive = within(from, middle), within(middle, to)+1
	job.Repair, job.Fields = e.repair, true
	if e.kind != offsets.Mend {
		return job, nil
	}
	source, err := s.cfg.SourceNamed(e.source)
	if err != nil {
		return job, err
	}
	edit, err := mend.EditOf(s.cfg, source, offsets.Edit{What: offsets.EditReset, To: within(s.start, published)})
	job.Edit, job.Span = &edit, cdr.Span{}
	return job, err
}

// simBackfilled is how far before the sources' start jobs reach, and simOld how far if
// they are of old time: the set of published IDs reaches back a day and a little.
const simBackfilled, simOld = 40 * time.Minute, 27 * time.Hour

// submit leaves a job with the owner, however often it takes. What is not known to be
// written may be.
func (s *simulation) submit(ctx context.Context, e *errand) {
	for ctx.Err() == nil {
		client, err := kafkaconn.New(kafkaconn.Options{Brokers: s.cluster.Brokers(), DialContext: s.net.Dialer(e.name)})
		if err != nil {
			s.t.Error(err)
			return
		}
		err = jobs.Submit(ctx, client, s.cfg, e.job)
		kafkaconn.Close(client)
		if err == nil {
			return
		}
		pause(ctx, time.Second)
	}
}

// command is a command that asks for a job, follows it, and does it itself if nobody
// else does. It dies now and then, and is called again.
func (s *simulation) command(ctx context.Context, e *errand) {
	for life := 1; ctx.Err() == nil; life++ {
		name := fmt.Sprint(e.name, "-", life)
		living, end := context.WithTimeout(ctx, 20*time.Second+upTo(e.content, 90*time.Second))
		state, err := s.runCommand(living, name, e)
		if living.Err() != nil {
			s.count(func(n *tally) { n.kills++ })
			s.net.Kill(name)
		}
		end()
		if state.Phase.Ended() {
			return
		}
		if err != nil && living.Err() == nil {
			s.count(func(n *tally) { n.failures[briefly(err)]++ })
		}
		pause(ctx, upTo(e.content, 3*time.Second))
	}
}

func (s *simulation) runCommand(ctx context.Context, name string, e *errand) (offsets.JobState, error) {
	s.mu.Lock()
	s.living[name] = true
	s.mu.Unlock()
	defer s.forget(name)
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: s.cluster.Brokers(), DialContext: s.net.Dialer(name)})
	if err != nil {
		return offsets.JobState{}, err
	}
	defer kafkaconn.Close(client)
	runner := jobs.Runner{
		Config: s.cfg, Client: client, Log: s.world.log, Version: "test", Patience: 12 * time.Second,
		Waiting: func(time.Duration) {},
		Alone:   func() { s.note("alone: " + name + " does the job itself") },
		Each:    func(offsets.JobState) {},
		New: func(ctx context.Context, o daemon.Options) (*daemon.Daemon, error) {
			o.DialKafka, o.DialFeed, o.LimitMemory = s.net.Dialer(name), s.dialFeedAs(name), false // other worlds share the process
			return daemon.New(ctx, o)
		},
	}
	return runner.Run(ctx, e.job)
}

// askRest asks, in peace, for whatever the storm was too short for, and again for what
// may not have been written.
func (s *simulation) askRest() {
	ctx, cancel := context.WithTimeout(s.t.Context(), calmSuffices)
	defer cancel()
	states := s.look().states
	for _, e := range s.errands {
		if e.job.ID != "" && states[e.job.ID].Phase == "" {
			s.submit(ctx, e)
		}
	}
	s.askAll(ctx)
	s.asking.Wait()
}

// goal is up to where an owner lives: for ever, as long as jobs are outstanding.
func (s *simulation) goal() cdr.Instant {
	if len(s.errands) == 0 {
		return s.until
	}
	states := s.look().states
	for _, e := range s.errands {
		if !states[e.job.ID].Phase.Ended() {
			return 0
		}
	}
	return s.until
}

// glance is what the offsets topic says.
type glance struct {
	positions map[string]offsets.Position
	states    map[string]offsets.JobState
}

// look reads the offsets topic, as far as it can be read, by a network without faults.
func (s *simulation) look() glance {
	seen := glance{map[string]offsets.Position{}, map[string]offsets.JobState{}}
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: s.cluster.Brokers(), DialContext: s.network.DialContext})
	if err != nil {
		s.t.Error(err)
		return seen
	}
	defer kafkaconn.Close(client)
	for shard := range fewShards {
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		_, _, err := committed.NewReader(client).Read(ctx, "webex.cdr.offsets", shard, committed.Earliest, committed.LastStable, seen.take)
		cancel()
		if err != nil {
			s.net.Trace().Note("", "cannot look: "+err.Error())
		}
	}
	return seen
}

func (g *glance) take(r committed.Record) error {
	if _, ok := offsets.JobOf(r.Key); ok {
		state, err := offsets.DecodeJobState(r.Value)
		g.states[state.Job.ID] = state
		return err
	}
	position, err := offsets.DecodePosition(r.Value)
	g.positions[string(position.Source)] = position
	return err
}

// loseEvents deletes the older part of what each partition of the events topic holds,
// so that there is something to repair.
func (s *simulation) loseEvents(rng *rand.Rand) {
	s.remember()
	q := kmsg.NewDeleteRecordsRequest()
	q.TimeoutMillis = 5000
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = eventsTopic
	for p := range int32(eventParts) {
		kept := s.topics.of(eventsTopic, p)
		if len(kept) < 2 {
			continue
		}
		partition := kmsg.NewDeleteRecordsRequestTopicPartition()
		partition.Partition, partition.Offset = p, kept[rng.IntN(len(kept))].Offset
		topic.Partitions = append(topic.Partitions, partition)
	}
	q.Topics = append(q.Topics, topic)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Brokers()...), kgo.Dialer(s.network.DialContext), kgo.DisableClientMetrics())
	if err != nil {
		s.t.Error(err)
		return
	}
	defer client.Close()
	answer, err := q.RequestWith(s.t.Context(), client)
	if err != nil {
		s.t.Errorf("delete events: %v", err)
		return
	}
	s.topics.lostAt = time.Now()
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			if p.ErrorCode == 0 {
				s.topics.lostBefore[p.Partition] = p.LowWatermark
				s.note(fmt.Sprintf("lost: events of partition %d before offset %d", p.Partition, p.LowWatermark))
			}
		}
	}
}

// checkJobs: every job has ended, once, and its states say of each of its windows what
// the same transaction committed of it, and of nothing else.
func (s *simulation) checkJobs(l *ledger) {
	s.t.Helper()
	states := map[string][]entry[offsets.JobState]{}
	for _, state := range l.jobs {
		states[state.value.Job.ID] = append(states[state.value.Job.ID], state)
	}
	windows := map[string]offsets.Receipt{} // of jobs, by transaction and source
	for _, r := range l.receipts {
		if isErrand(r.value.Purpose) {
			windows[r.transaction+string(r.value.Source)] = r.value
		}
	}
	for _, e := range s.errands {
		s.checkJob(e, states[e.job.ID], windows)
	}
	for of := range windows {
		s.t.Errorf("a window of a job was committed without its job's state: %s", of)
	}
}

func isErrand(purpose cdr.Purpose) bool { return purpose == cdr.Backfill || purpose == cdr.Repair }

// checkJob takes out of windows those of the job.
func (s *simulation) checkJob(e *errand, states []entry[offsets.JobState], windows map[string]offsets.Receipt) {
	s.t.Helper()
	before := offsets.JobState{Next: e.job.Span.StartInclusive}
	for i, state := range states {
		now := state.value
		if now.Phase.Ended() != (i == len(states)-1) {
			s.t.Errorf("state %d of %d of %s is %s", i+1, len(states), e, now.Phase)
		}
		window := state.transaction + e.source
		receipt, committed := windows[window]
		if delete(windows, window); committed && e.kind == offsets.Backfill && receipt.Asked.StartInclusive != before.Next {
			s.t.Errorf("%s goes on at %s behind %s", e, receipt.Asked, before.Next)
		}
		if committed {
			before = accounted(before, receipt)
		}
		if e.kind == offsets.Backfill && now.Next != before.Next || committed && now.Next != before.Next || tallyOf(now) != tallyOf(before) {
			s.t.Errorf("state %d of %s does not add up: %+v, want %+v to %s", i+1, e, now, tallyOf(before), before.Next)
		}
		before = now
	}
	s.checkEnd(e, before)
}

// jobTally is what a job's state says of the windows that were committed for it.
type jobTally struct{ items, published, known, revised, deadLetters int64 }

func tallyOf(state offsets.JobState) jobTally {
	if state.Job.Kind == offsets.Verify && !state.Job.Repair {
		return jobTally{} // it commits no windows
	}
	return jobTally{state.Items, state.Published, state.Known, state.Revised, state.DeadLetters}
}

// accounted is the state of a job behind one more window.
func accounted(state offsets.JobState, r offsets.Receipt) offsets.JobState {
	state.Next = r.Asked.EndExclusive
	state.Items += r.Items
	state.Published += r.Published
	state.Known += r.AlreadyKnown
	state.Revised += r.Revised
	state.DeadLetters += r.DeadLetters
	return state
}

// checkEnd: a job does what it is for, or fails because its source is parked, because
// another one set its position to before what it is for, or because nobody lived to do it
// in time.
func (s *simulation) checkEnd(e *errand, last offsets.JobState) {
	s.t.Helper()
	s.count(func(n *tally) {
		n.jobs[fmt.Sprintf("%s, repair %t, old %t: %s", e.kind, e.repair, e.old, last.Phase)]++
	})
	switch {
	case last.Phase == offsets.JobFailed && s.scenario.spoiled && strings.Contains(last.Message, "waits for a person"):
	case last.Phase == offsets.JobFailed && s.edited() && strings.Contains(last.Message, "the span ends after"):
	case last.Phase == offsets.JobFailed && e.kind == offsets.Mend && (strings.Contains(last.Message, "the sweeps bring cdr_feed") || strings.Contains(last.Message, "it is published to")):
	case last.Phase == offsets.JobFailed && e.kind == offsets.Mend && s.outage && strings.Contains(last.Message, "nobody took it until"):
	case last.Phase != offsets.JobDone:
		s.t.Errorf("%s ends so: %+v", e, last)
	case e.kind == offsets.Backfill && last.SkippedSeconds > 0:
		s.t.Errorf("%s skips %d s", e, last.SkippedSeconds)
	case e.kind == offsets.Verify && last.Findings == nil:
		s.t.Errorf("%s found nothing: %+v", e, last)
	case e.kind == offsets.Verify:
		s.checkFindings(e, last.Findings)
	}
}

func (s *simulation) checkFindings(e *errand, f *offsets.Findings) {
	s.t.Helper()
	s.count(func(n *tally) { n.repaired += int(f.Repaired) })
	complete := !s.late && len(s.topics.lostBefore) == 0
	switch {
	case f.Doubled+f.Unexpected+f.Foreign > 0, complete && f.Missing+f.Different > 0, e.repair && f.Repaired != f.Missing:
		s.t.Errorf("%s found %+v", e, f)
	}
}
