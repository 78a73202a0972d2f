package daemon_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/faultnet"
	"cdrbus/internal/jobs"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/partition"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// ask writes a job for the only shard that has sources.
func (w *world) ask(job offsets.Job) string {
	w.t.Helper()
	return w.askIn(w.position(string(job.Source)).Shard, job)
}

// askIn writes a job for a shard.
func (w *world) askIn(shard int, job offsets.Job) string {
	w.t.Helper()
	if job.ID == "" {
		job.ID = offsets.NewJobID(time.Now())
	}
	job.CreatedAt = time.Now()
	value, err := job.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	record := &kgo.Record{Topic: "webex.cdr.jobs", Partition: int32(shard), Key: []byte(job.ID), Value: value}
	client := w.client()
	defer client.Close()
	if err := client.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	return job.ID
}

// jobState is the last committed state of a job.
func (w *world) jobState(id string) (state offsets.JobState) {
	w.t.Helper()
	for _, r := range w.topic("webex.cdr.offsets", w.shards) {
		if of, ok := offsets.JobOf(r.Key); ok && of == id {
			var err error
			if state, err = offsets.DecodeJobState(r.Value); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	return state
}

// finishJob lets a daemon live and die until a job has ended.
func (w *world) finishJob(cfg *config.Config, id string, random *rand.Rand) (state offsets.JobState, lives int) {
	w.t.Helper()
	for lives = 1; ; lives++ {
		w.runFor(cfg, time.Duration(20+random.IntN(120))*time.Second)
		if state = w.jobState(id); state.Phase.Ended() {
			return state, lives
		}
		if lives > 200 {
			w.t.Fatalf("job %s does not end: %+v", id, state)
		}
	}
}

// TestBackfill: a job publishes a span from before the source's start, while the source
// lives and the daemon dies now and then, and what was published already is left out.
// The same span again publishes nothing.
func TestBackfill(t *testing.T) {
	for _, endpoint := range []string{"feed", "auto"} {
		t.Run(endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Records.Rate, o.Records.DoubleShare = 0.01, 0.01
					o.Answers.BoundaryRepeats, o.Answers.MaxFloor, o.Answers.MaxCeiling = 3, 1, 100
				})
				cfg := w.config("", w.source("acme", "endpoint: "+endpoint, "limits: {initial_per_minute: 6, pages_per_minute: 60}"))
				random := rand.New(rand.NewPCG(3, 1))
				w.runFor(cfg, 20*time.Minute)
				span := cdr.Span{StartInclusive: w.start.Add(-10 * 24 * time.Hour), EndExclusive: w.start.Add(10 * time.Minute)}
				state, lives := w.finishJob(cfg, w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span}), random)
				t.Logf("%d lives: %+v", lives, state)
				if state.Phase != offsets.JobDone || state.Next != span.EndExclusive || lives < 3 {
					t.Errorf("after %d lives the job is %+v", lives, state)
				}
				w.start = span.StartInclusive
				before := w.demandTruth("acme")
				again, _ := w.finishJob(cfg, w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span}), random)
				if again.Phase != offsets.JobDone || again.Published != 0 || again.Known < state.Published {
					t.Errorf("the same span again: %+v", again)
				}
				t.Logf("%d events, then %d", before, w.demandTruth("acme"))
			})
		})
	}
}

// TestBackfillsOfOneSpan: of two jobs over the same old span, asked for at once, the second
// knows what the first has published while it waited.
func TestBackfillsOfOneSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.01 })
		cfg := w.config("", w.source("acme", eager))
		w.runFor(cfg, time.Minute)
		span := cdr.Span{StartInclusive: w.start.Add(-5 * 24 * time.Hour), EndExclusive: w.start.Add(-4 * 24 * time.Hour)}
		job := offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span}
		ids := []string{w.ask(job), w.ask(job)}
		w.runFor(cfg, 10*time.Minute)
		first, second := w.jobState(ids[0]), w.jobState(ids[1])
		if first.Phase != offsets.JobDone || second.Phase != offsets.JobDone || first.Published == 0 || second.Published > 0 || second.Known != first.Published {
			t.Errorf("the first: %+v\nthe second: %+v", first, second)
		}
	})
}

// TestJobDuringACommit: a job is judged by what the log says of its source, not by what its
// owner knew before a commit whose answer is still on its way.
func TestJobDuringACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.01 })
		cfg := w.config("", w.source("acme", "limits: {initial_per_minute: 1, pages_per_minute: 10}"))
		commits := 0
		n := faultnet.New(faultnet.Options{Dial: w.network.DialContext, Decide: func(r faultnet.Request) faultnet.Fate {
			if r.Client != "owner" || r.Key != int16(kmsg.EndTxn) {
				return faultnet.Fate{}
			}
			if commits++; commits < 2 || commits > 4 { // the first is of the source's start
				return faultnet.Fate{}
			}
			return faultnet.Fate{Fault: faultnet.Swallow}
		}})
		defer n.Close()
		own := *w
		own.dialKafka = n.Dialer("owner")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, err := own.run(ctx, cfg, 0); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(2 * time.Second)
		span := cdr.Span{StartInclusive: w.start, EndExclusive: w.position("acme").FeedPublished}
		id := w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span})
		time.Sleep(10 * time.Minute)
		cancel()
		<-ended
		if state := w.jobState(id); state.Phase != offsets.JobDone || state.Findings.Differ() {
			t.Errorf("%+v", state)
		}
	})
}

// TestJobOfALostShard: an owner that loses its shard and takes it back goes on with a job
// where its rival has left it, not where it was itself: the job's state counts each of
// its windows, once.
func TestJobOfALostShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.01 })
		w.fenceStaleEpochs()
		cfg := w.config("", w.source("acme", eager, "max_window: 1h"))
		w.runFor(cfg, time.Minute)
		span := cdr.Span{StartInclusive: w.start.Add(-10 * 24 * time.Hour), EndExclusive: w.start.Add(time.Hour)}
		id := w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, err := w.run(ctx, cfg, 0); err != nil {
				t.Error(err)
			}
		}()
		for range 3 {
			time.Sleep(5 * time.Second)
			w.runFor(cfg, 5*time.Second)
		}
		for waited := time.Duration(0); waited < time.Hour && !w.jobState(id).Phase.Ended(); waited += time.Minute {
			time.Sleep(time.Minute)
		}
		cancel()
		<-ended
		state, next := w.jobState(id), span.StartInclusive
		var windows, items, published int64
		for _, r := range w.receipts("acme") {
			if r.Purpose != cdr.Backfill {
				continue
			}
			if r.Asked.StartInclusive != next {
				t.Errorf("the job goes on with %s behind %s", r.Asked, next)
			}
			next = r.Asked.EndExclusive
			windows, items, published = windows+1, items+r.Items, published+r.Published
		}
		if state.Phase != offsets.JobDone || next != span.EndExclusive || state.Windows != windows || state.Items != items || state.Published != published {
			t.Errorf("%d windows with %d records, %d of them published, were committed to %s, and the job's state is %+v", windows, items, published, next, state)
		}
		w.start = span.StartInclusive
		w.demandTruth("acme")
	})
}

// TestJobsThatCannotBeDone end at once, with the reason.
func TestJobsThatCannotBeDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		cfg := w.config("", w.source("acme", eager))
		w.runFor(cfg, 10*time.Minute)
		start := w.start
		for _, c := range []struct {
			job  offsets.Job
			want string
		}{
			{offsets.Job{Span: cdr.Span{StartInclusive: start.Add(-40 * 24 * time.Hour), EndExclusive: start.Add(-31 * 24 * time.Hour)}}, "the feed answers 720h0m0s back"},
			{offsets.Job{Span: cdr.Span{StartInclusive: start, EndExclusive: start.Add(100 * time.Hour)}}, "the span ends after"},
		} {
			c.job.Kind, c.job.Source = offsets.Backfill, "acme"
			id := w.ask(c.job)
			board := w.runFor(cfg, time.Minute)
			if shown := board.Snapshot().Sources[0].EndedJobs; len(shown) != 1 || shown[0].ID != id || shown[0].Phase != status.JobFailed || !strings.Contains(shown[0].Message, c.want) {
				t.Errorf("the board shows %+v", shown)
			}
			if state := w.jobState(id); state.Phase != offsets.JobFailed || !strings.Contains(state.Message, c.want) {
				t.Errorf("%s: %s, %q, want failed, %q", c.job.Span, state.Phase, state.Message, c.want)
			}
		}
	})
}

// TestJobBeyondStuckSeconds: a second with more records than a page is left out of a
// job, and told, wherever in a window it lies; the job comes to its end, unless that is
// the second. The sweeps come to theirs.
func TestJobBeyondStuckSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.Burst = 0.001, 30 // once an hour
			o.Answers.MaxFloor, o.Answers.MaxCeiling = 20, 20
		})
		cfg := w.config("", w.source("acme", "limits: {initial_per_minute: 12, pages_per_minute: 120}"))
		w.runFor(cfg, 10*time.Minute)
		last := w.position("acme").LastGap
		if last.Duration() != time.Second {
			t.Fatalf("the last gap is %s, want a second", last)
		}
		const hours = 30
		hour := last.StartInclusive - last.StartInclusive%3600
		long := cdr.Span{StartInclusive: hour.Add(-hours * time.Hour), EndExclusive: hour}
		for _, c := range []struct {
			span cdr.Span
			kind offsets.JobKind
			want string // of a job that fails
		}{
			{long, offsets.Backfill, ""},
			{long, offsets.Verify, ""},
			{cdr.Span{StartInclusive: long.EndExclusive, EndExclusive: last.EndExclusive}, offsets.Backfill, "where the span ends"},
		} {
			id := w.ask(offsets.Job{Kind: c.kind, Source: "acme", Span: c.span})
			w.runFor(cfg, 20*time.Minute)
			state := w.jobState(id)
			switch {
			case c.want != "":
				if state.Phase != offsets.JobFailed || !strings.Contains(state.Message, c.want) || state.Windows != 1 || state.Next != c.span.EndExclusive-1 {
					t.Errorf("%s of %s: %+v, want one window, then failed, %q", c.kind, c.span, state, c.want)
				}
			case state.Phase != offsets.JobDone || state.SkippedSeconds != hours || !strings.Contains(state.Message, "does not get beyond a page"):
				t.Errorf("%s of %s: %+v, want done, with %d seconds left out", c.kind, c.span, state, hours)
			}
		}
		w.runFor(cfg, time.Hour)
		narrow := w.position("acme").Sweeps[0]
		if ago := time.Since(narrow.Began.Time()); ago > 20*time.Minute {
			t.Errorf("the last narrow sweep began %s ago: %+v", ago, narrow)
		}
	})
}

// TestJobUpToTheEdge: who asks for everything up to now gets it up to where the source
// is, which may be behind for many reasons; one that has not come to the span says so.
func TestJobUpToTheEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		cfg := w.config("", w.source("acme", eager))
		w.runFor(cfg, 10*time.Minute)
		published := w.position("acme").FeedPublished
		now := cdr.InstantOf(time.Now())
		ask := func(start, end cdr.Instant) offsets.JobState {
			id := w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: cdr.Span{StartInclusive: start, EndExclusive: end}, UpToEdge: true})
			w.runFor(cfg, time.Minute)
			return w.jobState(id)
		}
		if state := ask(published.Add(-time.Hour), published.Add(-time.Minute)); state.Phase != offsets.JobDone || state.Job.Span.EndExclusive != published.Add(-time.Minute) {
			t.Errorf("a span before the edge %s: %+v", published, state)
		}
		if state := ask(published.Add(-time.Hour), now); state.Phase != offsets.JobDone || state.Job.Span.EndExclusive < published || state.Job.Span.EndExclusive >= now || state.Findings.Differ() {
			t.Errorf("a span beyond the edge %s: %+v", published, state)
		}
		if state := ask(now.Add(time.Hour), now.Add(2*time.Hour)); state.Phase != offsets.JobFailed || !strings.Contains(state.Message, "where the source itself is") {
			t.Errorf("a span behind the edge: %+v", state)
		}
	})
}

// TestJobUpToTheEdgeGoesOn: an owner that comes later, before the source has reached the
// end that was asked for, goes on with the span that was accepted.
func TestJobUpToTheEdgeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.01 })
		cfg := w.config("", w.source("acme", eager, "max_window: 1h"))
		w.runFor(cfg, 10*time.Minute)
		span := cdr.Span{StartInclusive: w.start.Add(-10 * 24 * time.Hour), EndExclusive: cdr.InstantOf(time.Now())}
		id := w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span, UpToEdge: true})
		w.runFor(cfg, 5*time.Second)
		accepted := w.jobState(id)
		if accepted.Phase != offsets.JobRunning {
			t.Fatalf("the first owner leaves %+v", accepted)
		}
		w.runFor(cfg, 2*time.Minute)
		if state := w.jobState(id); state.Phase != offsets.JobDone || state.Job.Span != accepted.Job.Span {
			t.Errorf("the second owner makes %+v of it", state)
		}
	})
}

// TestEndedJobsAreForgotten when their topic has no more of them, and not before.
func TestEndedJobsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.0001 })
		cfg := w.config("", w.source("acme", eager))
		w.runFor(cfg, 10*time.Minute)
		w.keepForever(offsetsTopic) // kfake would apply a retention to it although it is compacted
		do := func() string {
			id := w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: cdr.Span{StartInclusive: w.start, EndExclusive: w.start.Add(time.Minute)}})
			w.runFor(cfg, time.Minute)
			return id
		}
		gone := do()
		w.truncate("webex.cdr.jobs", w.position("acme").Shard)
		kept := do()
		time.Sleep(31 * 24 * time.Hour)
		w.runFor(cfg, time.Minute)
		last := map[string][]byte{}
		for _, r := range w.topic("webex.cdr.offsets", w.shards) {
			last[string(r.Key)] = r.Value
		}
		if value := last[string(offsets.JobKey(gone))]; value != nil {
			t.Errorf("the state of a job that is gone is still %s", value)
		}
		if state, err := offsets.DecodeJobState(last[string(offsets.JobKey(kept))]); err != nil || state.Phase != offsets.JobDone {
			t.Errorf("the state of a job that the topic still has is %+v, %v", state, err)
		}
	})
}

// TestVerify: a record that is missing in the topic is named, and repaired; what the
// topic has and the feed has not is named too.
func TestVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.DoubleShare = 0.05, 0.02
			o.Records.PoisonShare = 0.02
			o.Answers.BoundaryRepeats, o.Answers.MaxFloor, o.Answers.MaxCeiling = 3, 1, 100
		})
		cfg := w.config("", w.source("acme", "limits: {initial_per_minute: 6, pages_per_minute: 60}"))
		random := rand.New(rand.NewPCG(3, 1))
		w.runFor(cfg, 20*time.Minute)
		span := cdr.Span{StartInclusive: w.start, EndExclusive: w.start.Add(100 * time.Minute)}
		verify := func(repair bool) offsets.JobState {
			state, _ := w.finishJob(cfg, w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span, Fields: true, Repair: repair}), random)
			if state.Phase != offsets.JobDone || state.Findings == nil {
				t.Fatalf("%+v", state)
			}
			return state
		}
		if state := verify(false); state.Findings.Differ() || state.Findings.FeedRecords == 0 || state.Findings.Events == 0 {
			t.Errorf("nothing is wrong, and the verification found %+v", state.Findings)
		}
		lost, doubled := w.spoilEvents(3, 2)
		for _, repair := range []bool{false, true} {
			f := verify(repair).Findings
			if f.Missing != int64(len(lost)) || f.Unexpected != 0 || f.Doubled != int64(len(doubled)) || f.Different != 0 {
				t.Errorf("repair %t found %+v, want missing %v and doubled %v", repair, f, lost, doubled)
			}
			for _, listed := range f.Listed {
				if want := map[string][]string{"missing": lost, "doubled": doubled}[listed.What]; !slices.Contains(want, listed.ReportID) {
					t.Errorf("%s is said to be %s", listed.ReportID, listed.What)
				}
				if !span.Contains(cdr.InstantOf(listed.ReportTime)) || (listed.What == "missing") != (listed.Key != "") || w.eventAt(listed.At) != map[string]string{"doubled": listed.ReportID}[listed.What] {
					t.Errorf("%+v does not tell when and where", listed)
				}
			}
			if repair && f.Repaired != f.Missing {
				t.Errorf("%d of %d are repaired", f.Repaired, f.Missing)
			}
		}
		if f := verify(false).Findings; f.Missing != 0 || f.Doubled != int64(len(doubled)) {
			t.Errorf("after the repair: %+v", f)
		}
	})
}

// TestVerifyInParts: a verification of more events than are kept at once finds the same,
// and whoever goes on with it begins behind the parts that are concluded.
func TestVerifyInParts(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute and more under the race detector; the simulation verifies in parts, too")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.PoisonShare = 0.003, 0.02
			o.Answers.BoundaryRepeats, o.Answers.MaxFloor, o.Answers.MaxCeiling = 3, 1, 100
		})
		cfg := w.config("", w.source("acme", "limits: {initial_per_minute: 6, pages_per_minute: 60}"))
		random := rand.New(rand.NewPCG(3, 1))
		w.runFor(cfg, 20*time.Minute)
		span := cdr.Span{StartInclusive: w.start.Add(-5 * 24 * time.Hour), EndExclusive: w.position("acme").FeedPublished}
		if filled, _ := w.finishJob(cfg, w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span}), random); filled.Phase != offsets.JobDone {
			t.Fatalf("%+v", filled)
		}
		lost, doubled := w.spoilEvents(10, 7)
		verify := func(repair bool) offsets.Findings {
			id := w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span, Fields: true, Repair: repair})
			if w.verifyEvents == 0 { // nothing is concluded before its end: a short life would be in vain
				w.runFor(cfg, 3*time.Hour)
			}
			state, _ := w.finishJob(cfg, id, random)
			if state.Phase != offsets.JobDone || state.Findings == nil {
				t.Fatalf("%+v", state)
			}
			if w.verifyEvents > 0 {
				w.demandConclusions(id)
			}
			slices.SortFunc(state.Findings.Listed, func(a, b offsets.Finding) int {
				return cmp.Or(strings.Compare(a.What, b.What), strings.Compare(a.ReportID, b.ReportID))
			})
			return *state.Findings
		}
		whole := verify(false)
		if whole.Missing != int64(len(lost)) || whole.Doubled != int64(len(doubled)) || whole.Unexpected+whole.Different > 0 || whole.Events < 500 {
			t.Fatalf("in one part: %+v", whole)
		}
		w.verifyEvents = 100
		if parts := verify(false); !reflect.DeepEqual(parts, whole) {
			t.Errorf("in parts:    %+v\nin one part: %+v", parts, whole)
		}
		if repaired := verify(true); repaired.Missing != whole.Missing || repaired.Repaired != whole.Missing || len(repaired.Listed) != len(whole.Listed) {
			t.Errorf("with repair: %+v, in one part without: %+v", repaired, whole)
		}
		if after := verify(false); after.Missing != 0 || after.Doubled != whole.Doubled || after.Unexpected != 0 || after.FeedRecords != whole.FeedRecords {
			t.Errorf("after the repair: %+v, before: %+v", after, whole)
		}
	})
}

// TestVerifyWhileSweepsPublish: what sweeps publish while a verification goes on is neither
// missing, nor published twice, nor unexpected. What a repair publishes again counts as
// returned, so that its windows are proven.
func TestVerifyWhileSweepsPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.LateShare, o.Records.LateMax = 0.05, 0.5, 2*time.Hour
			o.Answers.MaxFloor, o.Answers.MaxCeiling = 1, 5
		})
		cfg := w.config("", w.source("acme", "sweeps: [{every: 5m, back: 3h}]", "limits: {initial_per_minute: 4, pages_per_minute: 20}"))
		w.runFor(cfg, 30*time.Minute)
		w.spoilEvents(5, 0)
		var swept int64
		for range 6 {
			span := cdr.Span{StartInclusive: w.start, EndExclusive: w.position("acme").FeedPublished}
			id := w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span, Repair: true})
			before := len(w.topic(eventsTopic, w.events))
			w.runFor(cfg, 40*time.Minute)
			state := w.jobState(id)
			if state.Phase != offsets.JobDone || state.Findings == nil {
				t.Fatalf("%+v", state)
			}
			if state.Findings.Unexpected+state.Findings.Doubled > 0 {
				t.Errorf("%+v", *state.Findings)
			}
			swept += int64(len(w.topic(eventsTopic, w.events))-before) - state.Findings.Repaired
			t.Logf("took %s: %+v", state.UpdatedAt.Sub(state.BeganAt), *state.Findings)
		}
		w.demandNothingTwice()
		for _, r := range w.receipts("acme") {
			if r.Purpose == cdr.Repair && !r.Proven() {
				t.Errorf("window %d of the repair, %s, is unproven: %s", r.Counter, r.Asked, r.Unproven)
			}
		}
		t.Logf("%d published besides", swept)
	})
}

// TestBackfillBesideTheStream: a backfill that takes longer than the set of published IDs
// reaches back knows what cdr_stream published meanwhile of its span, days late.
func TestBackfillBesideTheStream(t *testing.T) {
	if testing.Short() {
		t.Skip("two days of fake time take a while under the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, func(o *simulator.Options) {
			o.Records.Rate, o.Records.LateShare, o.Records.LateMax = 0.04, 0.3, 5*24*time.Hour
			o.Answers.MaxFloor, o.Answers.MaxCeiling = 1, 10
		})
		w.metadataTTL = time.Minute
		cfg := w.config("", w.source("acme", "endpoint: stream", "sweeps: [{every: 1h, back: 1h}]", "limits: {initial_per_minute: 1, pages_per_minute: 1}"))
		w.runFor(cfg, 10*time.Minute)
		span := cdr.Span{StartInclusive: w.start.Add(-4 * 24 * time.Hour), EndExclusive: w.start}
		id := w.ask(offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span})
		w.runFor(cfg, 80*time.Hour)
		state := w.jobState(id)
		t.Logf("%s: %+v", state.UpdatedAt.Sub(state.BeganAt), state)
		if state.Phase != offsets.JobDone || state.UpdatedAt.Sub(state.BeganAt) < 30*time.Hour || state.Known == 0 {
			t.Errorf("the backfill proves little: %+v", state)
		}
		w.demandNothingTwice()
	})
}

// TestJobsBeyondReach: of a span that the feed has forgotten nothing is verified, and
// nothing filled; who asks is told.
func TestJobsBeyondReach(t *testing.T) {
	for _, kind := range []offsets.JobKind{offsets.Verify, offsets.Backfill} {
		synctest.Test(t, func(t *testing.T) {
			w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.001 })
			cfg := w.config("", w.source("acme", "lookback: 48h"))
			w.runFor(cfg, 10*time.Minute)
			end := cdr.InstantOf(time.Now().Add(-50 * time.Hour))
			id := w.ask(offsets.Job{Kind: kind, Source: "acme", Span: cdr.Span{StartInclusive: end.Add(-10 * time.Hour), EndExclusive: end}})
			w.runFor(cfg, 10*time.Minute)
			if state := w.jobState(id); state.Phase != offsets.JobFailed || !strings.Contains(state.Message, "the feed answers 48h") {
				t.Errorf("%s ends so: %+v", kind, state)
			}
		})
	}
}

// TestJobsOvertakenByTheLookback: of a job whose owner cannot reach the feed for a day,
// what the feed forgets meanwhile is left out and told, the rest is done, and the parts of
// a verification do not pile up. What is forgotten as a whole fails it.
func TestJobsOvertakenByTheLookback(t *testing.T) {
	if testing.Short() {
		t.Skip("days of fake time take a while under the race detector")
	}
	const lookback, behind = 48 * time.Hour, 5 * time.Hour
	for _, c := range []struct {
		kind offsets.JobKind
		away time.Duration // the feed
		done bool
	}{
		{offsets.Backfill, 30 * time.Hour, true},
		{offsets.Verify, 30 * time.Hour, true},
		{offsets.Backfill, 60 * time.Hour, false},
		{offsets.Verify, 60 * time.Hour, false},
	} {
		t.Run(fmt.Sprintf("%s/%s", c.kind, c.away), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Records.Rate = 0.003
					o.Answers.Feed.Lookback = lookback
				})
				w.verifyEvents = 50
				w.start = cdr.InstantOf(time.Now().Add(-lookback + time.Hour))
				cfg := w.config("", w.source("acme", "lookback: 48h", "limits: {initial_per_minute: 6, pages_per_minute: 60}"))
				w.runFor(cfg, 20*time.Minute)
				span := cdr.Span{StartInclusive: w.start, EndExclusive: w.position("acme").FeedPublished.Add(-behind)}
				id := w.ask(offsets.Job{Kind: c.kind, Source: "acme", Span: span})
				w.starveFeed(c.away)
				w.runFor(cfg, c.away-time.Hour)
				if state := w.jobState(id); state.Phase.Ended() || state.Windows > 0 {
					t.Fatalf("without a feed: %+v", state)
				}
				w.runFor(cfg, 6*time.Hour)
				state := w.jobState(id)
				if !c.done {
					if state.Phase != offsets.JobFailed || !strings.Contains(state.Message, "the feed answers 48h") {
						t.Errorf("%+v", state)
					}
					return
				}
				if skipped := time.Duration(state.SkippedSeconds) * time.Second; state.Phase != offsets.JobDone || (skipped-c.away).Abs() > 2*time.Hour {
					t.Errorf("%s are left out: %+v", skipped, state)
				}
				if f := state.Findings; f != nil && (f.Differ() || f.Events == 0 || f.FeedRecords == 0) {
					t.Errorf("%+v", *f)
				}
			})
		})
	}
}

// demandConclusions: what a verification has concluded stays so, and its next owner begins
// there, but for the margin.
func (w *world) demandConclusions(id string) {
	w.t.Helper()
	const margin = 4 * time.Hour
	var before offsets.JobState
	conclusions, resumed := map[cdr.Instant]bool{}, 0
	for _, r := range w.topic(offsetsTopic, w.shards) {
		if of, ok := offsets.JobOf(r.Key); !ok || of != id {
			continue
		}
		state, err := offsets.DecodeJobState(r.Value)
		if err != nil {
			w.t.Fatal(err)
		}
		if c := state.Concluded; c != nil {
			conclusions[c.Until] = true
		}
		if until, _, _ := before.Conclusion(); state.Next < before.Next {
			if resumed++; state.Next < until.Add(-margin) {
				w.t.Errorf("a verification concluded until %s goes on at %s", until, state.Next)
			}
		}
		before = state
	}
	if len(conclusions) < 3 || resumed == 0 {
		w.t.Errorf("%d conclusions, gone on with %d times: that proves little", len(conclusions), resumed)
	}
}

// TestVerifyBehindAnOpenTransaction: what the lane itself has published may be hidden from
// readers by a transaction of another shard that is open. It is waited for: nothing of it
// is missing, and nothing is published twice.
func TestVerifyBehindAnOpenTransaction(t *testing.T) {
	for _, repair := range []bool{false, true} {
		t.Run(fmt.Sprintf("repair %t", repair), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) { o.Records.Rate = 0.1 })
				cfg := w.config("", w.source("acme", eager))
				w.runFor(cfg, time.Minute)
				time.Sleep(30 * time.Minute)
				client := w.client(kgo.TransactionalID("somebody else"), kgo.TransactionTimeout(3*time.Minute))
				defer client.Close()
				if err := client.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				for p := range w.events {
					if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: eventsTopic, Partition: int32(p), Value: []byte("theirs")}).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
				w.runFor(cfg, 10*time.Second)
				span := cdr.Span{StartInclusive: w.start, EndExclusive: w.position("acme").FeedPublished}
				id := w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span, Repair: repair})
				w.runFor(cfg, 20*time.Minute)
				state := w.jobState(id)
				if f := state.Findings; state.Phase != offsets.JobDone || f == nil || f.Differ() || f.Repaired > 0 || f.FeedRecords == 0 {
					t.Errorf("%+v, found %+v", state, f)
				}
				w.demandTruth("acme")
			})
		})
	}
}

// spoilEvents makes the events topic anew, without some of its records and with others
// twice.
func (w *world) spoilEvents(lose, double int) (lost, doubled []string) {
	w.t.Helper()
	before := w.topic(eventsTopic, w.events)
	w.makeAnew(eventsTopic, w.events)
	client := w.client()
	defer client.Close()
	for i, r := range before {
		id, times := headerOf(r, "ce_id"), 1
		switch {
		case i%7 == 3 && len(lost) < lose:
			lost = append(lost, id)
			continue
		case i%7 == 5 && len(doubled) < double:
			doubled = append(doubled, id)
			times = 2
		}
		record := &kgo.Record{Topic: eventsTopic, Partition: int32(partition.Of(r.Key, w.events)), Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		for range times {
			copied := *record
			if err := client.ProduceSync(w.t.Context(), &copied).FirstErr(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	return lost, doubled
}

// eventAt returns the Report ID of the event at PARTITION:OFFSET; "" if there is none.
func (w *world) eventAt(place string) string {
	w.t.Helper()
	for partition := range w.events {
		for _, r := range w.partition(eventsTopic, partition) {
			if fmt.Sprintf("%d:%d", partition, r.Offset) == place {
				return headerOf(r, "ce_id")
			}
		}
	}
	return ""
}

// runner is a command's side of a job in this world.
func (w *world) runner(cfg *config.Config) *jobs.Runner {
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: w.cluster.Brokers(), DialContext: w.network.DialContext})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { kafkaconn.Close(client) })
	return &jobs.Runner{
		Config: cfg, Client: client, Log: w.log, Version: "test",
		Waiting: func(time.Duration) {}, Alone: func() { w.log.Info("alone") }, Each: func(offsets.JobState) {},
		New: func(ctx context.Context, o daemon.Options) (*daemon.Daemon, error) {
			o.DialKafka, o.DialFeed, o.LimitMemory = w.dialKafka, w.dialFeed, false // other tests share the process
			return daemon.New(ctx, o)
		},
	}
}

// TestJobByItself: without a daemon a command does its job itself; beside one it leaves
// it to that; and one that comes up meanwhile takes it over. Nothing is published twice.
func TestJobByItself(t *testing.T) {
	for _, c := range []struct {
		name        string
		daemonAfter time.Duration // negative: never
		alone       bool
	}{{"no daemon", -1, true}, {"beside a daemon", 0, false}, {"a daemon comes up", time.Minute, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Records.Rate = 0.01
					o.Answers.InitialPerMinute, o.Answers.PagesPerMinute = 6, 60
				})
				w.fenceStaleEpochs()
				cfg := w.config("", w.source("acme", "limits: {initial_per_minute: 6, pages_per_minute: 60}"))
				w.runFor(cfg, 10*time.Minute)
				if c.daemonAfter != 0 {
					time.Sleep(5 * time.Minute)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				if c.daemonAfter >= 0 {
					go func() {
						defer close(ended)
						time.Sleep(c.daemonAfter)
						if _, err := w.run(ctx, cfg, 0); err != nil {
							t.Error(err)
						}
					}()
				} else {
					close(ended)
				}
				job := jobs.New(offsets.Backfill, "acme", "test")
				job.Span = cdr.Span{StartInclusive: w.start.Add(-12 * 24 * time.Hour), EndExclusive: w.start.Add(time.Hour)}
				state, err := w.runner(cfg).Run(t.Context(), job)
				if err != nil || state.Phase != offsets.JobDone || state.Published == 0 {
					t.Errorf("%+v, %v", state, err)
				}
				time.Sleep(time.Minute)
				cancel()
				<-ended
				alone := w.logs.FilterMessage("alone").Len() > 0
				byDaemon := !strings.HasPrefix(state.Owner, "command")
				if alone != c.alone || byDaemon != (c.daemonAfter >= 0) {
					t.Errorf("alone %t, in the end by %s", alone, state.Owner)
				}
				w.start = job.Span.StartInclusive
				w.demandTruth("acme")
				for _, violation := range w.feed.Violations() {
					if c.daemonAfter <= 0 { // else two processes ask for a moment, each by its own budget
						t.Errorf("%+v", violation)
					}
				}
			})
		})
	}
}

// TestVerifyByItself: a command that only compares takes a shard, holds no published IDs
// and leaves the position as it is; whoever owns the shard next publishes nothing twice.
func TestVerifyByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		cfg := w.config("", w.source("acme", eager))
		w.runFor(cfg, 10*time.Minute)
		before, rebuilt := w.position("acme"), w.logs.FilterMessage("published IDs rebuilt").Len()
		job := jobs.New(offsets.Verify, "acme", "test")
		job.Span = cdr.Span{StartInclusive: w.start, EndExclusive: w.start.Add(time.Hour)}
		state, err := w.runner(cfg).Run(t.Context(), job)
		if err != nil || state.Phase != offsets.JobDone || state.Findings.Events == 0 || state.Findings.Differ() {
			t.Errorf("%+v, %v", state, err)
		}
		if after := w.position("acme"); after.Counter != before.Counter || after.JournalFrom != before.JournalFrom {
			t.Errorf("the position is %+v, and was %+v", after, before)
		}
		if logs := w.logs.FilterMessage("published IDs rebuilt").All()[rebuilt:]; len(logs) != 1 || logs[0].ContextMap()["ids"] != int64(0) {
			t.Errorf("the command rebuilt %+v", logs)
		}
		w.runFor(cfg, 10*time.Minute)
		w.demandTruth("acme")
	})
}
