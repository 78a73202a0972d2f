package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/coverage"
	"cdrbus/internal/jobs"
	"cdrbus/internal/mend"
	"cdrbus/internal/positions"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// receiptsOf counts the receipts of a source by purpose.
func (w *world) receiptsOf(name string) map[cdr.Purpose]int {
	w.t.Helper()
	count := map[cdr.Purpose]int{}
	for _, r := range w.receipts(name) {
		count[r.Purpose]++
	}
	return count
}

// shardLosses counts how often a daemon lost a shard to somebody.
func (l *life) shardLosses() int { return l.logs.FilterMessageSnippet("shard lost").Len() }

// TestEditBesideALiveDaemon: the owner does the edit itself. A refused source comes
// back without a restart, the other one goes on, and nobody is fenced.
func TestEditBesideALiveDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		w.intrude(w.position("acme").Shard, "acme", []byte("x"))
		time.Sleep(20 * time.Minute)
		l := w.live(cfg, 0)
		time.Sleep(5 * time.Minute)
		before := w.lastPosition("acme")
		began := time.Now()
		_, told, err := w.mend(t.Context(), cfg, "acme", offsets.Edit{What: offsets.EditFromReceipts})
		if err != nil || !strings.Contains(strings.Join(told, "; "), "accepted by") || time.Since(began) > 30*time.Second {
			t.Errorf("after %s the edit is done with %v (%q), want the owner to do it", time.Since(began), err, told)
		}
		time.Sleep(10 * time.Minute)
		if l.stop(); l.shardLosses() > 0 {
			t.Errorf("the shard was lost:\n%s", l.warnings())
		}
		if after := w.lastPosition("acme"); after.FeedPublished <= before.FeedPublished {
			t.Errorf("acme does not go on from %s", before.FeedPublished)
		}
		w.demandPublished("acme", 0)
		w.demandPublished("globex", 0)
	})
}

// slowMarkers answers the end of a transaction before its markers are written, as Kafka
// does: for so long the transaction is open to readers, and no next epoch is granted.
func (w *world) slowMarkers(delay time.Duration) {
	type transaction struct {
		id    string
		pid   int64
		epoch int16
	}
	var pending sync.Map // by transactional.id
	answered := map[transaction]bool{}
	client := w.client(kgo.MaxVersions(kversion.V3_7_0())) // as ours, whose ends give no next epoch
	w.t.Cleanup(client.Close)
	var ending sync.WaitGroup
	w.t.Cleanup(ending.Wait)
	w.cluster.Kafka.ControlKey(int16(kmsg.EndTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.Kafka.KeepControl()
		end := *request.(*kmsg.EndTxnRequest)
		key := transaction{end.TransactionalID, end.ProducerID, end.ProducerEpoch}
		if answered[key] {
			return nil, nil, false
		}
		answered[key] = true
		pending.Store(key.id, true)
		ending.Go(func() {
			time.Sleep(delay)
			if _, err := client.Request(context.WithoutCancel(w.t.Context()), &end); err != nil {
				w.t.Error(err)
			}
			pending.Delete(key.id)
		})
		return refusal(request, 0), nil, true
	})
	w.cluster.Kafka.ControlKey(int16(kmsg.InitProducerID), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.Kafka.KeepControl()
		_, waits := pending.Load(*request.(*kmsg.InitProducerIDRequest).TransactionalID)
		return refusal(request, concurrentTransactions), nil, waits
	})
}

// TestEditWithSlowMarkers: what an edit has just committed is no transaction that hangs.
func TestEditWithSlowMarkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		w.intrude(w.position("acme").Shard, "acme", []byte("x"))
		w.slowMarkers(300 * time.Millisecond)
		if _, _, err := w.mend(t.Context(), cfg, "acme", offsets.Edit{What: offsets.EditFromReceipts}); err != nil {
			t.Error(err)
		}
		if n := w.logs.FilterMessageSnippet("shard lost").Len(); n > 0 {
			t.Errorf("shards were lost %d times", n)
		}
	})
}

// TestReset: back, what lies between is fetched again and nothing is doubled; forward,
// it is skipped and recorded as a gap, which the sweeps bring after all. It happens
// once, whoever owns the shard later.
func TestReset(t *testing.T) {
	for _, c := range []struct {
		name string
		live bool
		by   time.Duration // from the live edge
	}{
		{"back", false, -100 * time.Minute},
		{"back, live", true, -100 * time.Minute},
		{"back, before the start", false, -5 * time.Hour},
		{"forward", false, 40 * time.Minute},
		{"forward, live", true, 40 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, _ := newPair(t)
				cfg := w.config("", w.source("acme", "sweeps: [{every: 15m, back: 6h}]"))
				w.runOn(cfg)
				at := w.position("acme").FeedPublished.Add(c.by)
				var l *life
				if c.live {
					w.starveFeed(70 * time.Minute) // so that the source lags
					l = w.live(cfg, 0)
				}
				time.Sleep(time.Hour)
				plan, _, err := w.mend(t.Context(), cfg, "acme", offsets.Edit{What: offsets.EditReset, To: at})
				if err != nil {
					t.Fatal(err)
				}
				w.demandReset(plan, c.by, at)
				if l != nil {
					time.Sleep(time.Hour)
					l.stop()
				}
				for range 2 {
					w.runFor(cfg, 20*time.Minute)
				}
				w.start = min(w.start, at)
				w.demandPublished("acme", 0)
				if n := w.receiptsOf("acme"); n[cdr.Mend]+n[cdr.Gap] != 1 {
					t.Errorf("it was mended or skipped %d times: %v", n[cdr.Mend]+n[cdr.Gap], n)
				}
				if p := w.lastPosition("acme"); c.by > 0 && p.LastGap.EndExclusive != at || p.Start != w.start {
					t.Errorf("position is %+v", p)
				}
			})
		})
	}
}

// starveFeed lets nothing come of requests to the feed for a while.
func (w *world) starveFeed(d time.Duration) {
	until, dial := time.Now().Add(d), w.dialFeed
	w.dialFeed = func(ctx context.Context, network, address string) (_ net.Conn, err error) {
		if strings.HasSuffix(address, fmt.Sprint(":", feedPort)) && time.Now().Before(until) {
			return nil, errors.New("starved")
		}
		return dial(ctx, network, address)
	}
}

// demandReset holds what was announced against what is wanted.
func (w *world) demandReset(plan *positions.Plan, by time.Duration, at cdr.Instant) {
	w.t.Helper()
	after := plan.After.Position
	if after.FeedPublished != at || after.FeedSettled > at || !after.Mended {
		w.t.Errorf("after: %+v", after)
	}
	switch {
	case by < 0 && (plan.Lost != nil || plan.FetchedAgain == nil || plan.FetchedAgain.Records == 0):
		w.t.Errorf("back: %+v", plan)
	case by > 0 && (plan.FetchedAgain != nil || plan.Lost == nil || plan.Lost.Duration() != by):
		w.t.Errorf("forward: %+v", plan)
	}
	w.t.Log(plan.Summary())
}

// TestEditsThatCannotBeDone are refused before anything is asked of anybody.
func TestEditsThatCannotBeDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		now := cdr.InstantOf(time.Now())
		published, shard := w.position("acme").FeedPublished, w.position("acme").Shard
		for _, c := range []struct {
			edit offsets.Edit
			says string
		}{
			{offsets.Edit{What: offsets.EditReset, To: now.Add(time.Hour)}, "the youngest that the feed answers for"},
			{offsets.Edit{What: offsets.EditReset, To: now.Add(-31 * 24 * time.Hour)}, "too far back: the feed answers 720h0m0s back"},
			{offsets.Edit{What: offsets.EditReset, To: published}, "published to " + published.String() + " already"},
			{offsets.Edit{What: offsets.EditJournalFrom, JournalFrom: 10000}, "behind the end of the ID journal"},
			{offsets.Edit{What: offsets.EditPrefix}, "nothing to adopt: its position is of the configured transactional_id_prefix"},
			{offsets.Edit{What: offsets.EditShards}, "nothing to adopt"},
			{offsets.Edit{What: offsets.EditDefinition}, "nothing to adopt"},
			{offsets.Edit{What: offsets.EditMove, FromShard: 1 - shard, ToShard: shard}, fmt.Sprintf("it is in shard %d already", shard)},
			{offsets.Edit{What: offsets.EditMove, FromShard: shard, ToShard: 1 - shard}, fmt.Sprintf("the configuration places it in shard %d", shard)},
		} {
			_, told, err := w.mend(t.Context(), cfg, "acme", c.edit)
			if never := (positions.Impossible{}); !errors.As(err, &never) || !strings.Contains(err.Error(), c.says) || len(told) > 0 {
				t.Errorf("%s: %v (%q), want %q", c.edit.What, err, told, c.says)
			}
		}
		if after := w.position("acme"); after.Mended {
			t.Errorf("the position was mended: %+v", after)
		}
	})
}

// TestOwnerOfAnotherConfiguration: a daemon that was started with another
// configuration does not do what it would understand otherwise.
func TestOwnerOfAnotherConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		l := w.live(cfg, 0)
		time.Sleep(10 * time.Minute)
		more := []string{"shard_key: both", "limits: {initial_per_minute: 6, pages_per_minute: 60}"}
		other := w.config("", w.source("acme", append(more, "endpoint: auto")...), w.source("globex", more...))
		_, _, err := w.mend(t.Context(), other, "acme", offsets.Edit{What: offsets.EditDefinition})
		if err == nil || !strings.Contains(err.Error(), "runs with source acme as feed of") {
			t.Errorf("the edit ended with %v", err)
		}
		time.Sleep(10 * time.Minute)
		l.stop()
		w.demandTruth("acme", "globex")
		if p := w.position("acme"); p.Definition.Endpoint != "feed" {
			t.Errorf("acme is of %s", p.Definition)
		}
	})
}

// TestEditsThatCameTooLate: what nobody took in time, or what was taken back, is not done.
func TestEditsThatCameTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		before := w.position("acme")
		source, err := cfg.SourceNamed("acme")
		if err != nil {
			t.Fatal(err)
		}
		edit, err := mend.EditOf(cfg, source, offsets.Edit{What: offsets.EditReset, To: before.FeedPublished.Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		w.connected(func(client *kafka.Client) {
			for range 2 {
				job := jobs.New(offsets.Mend, "acme", "here")
				job.Edit = &edit
				ids = append(ids, job.ID)
				if err := jobs.Submit(t.Context(), client, cfg, job); err != nil {
					t.Fatal(err)
				}
				if len(ids) == 1 {
					if err := jobs.Cancel(t.Context(), client, cfg, job); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
		time.Sleep(20 * time.Minute)
		w.slowMarkers(300 * time.Millisecond) // of the refusals, before a restore
		if l := w.runOn(cfg); l.shardLosses() > 0 || l.err != nil {
			t.Errorf("the daemon ended with %v:\n%s", l.err, l.warnings())
		}
		time.Sleep(time.Second)
		if s := w.jobState(ids[0]); s.Phase.Ended() && s.Phase != offsets.JobCancelled {
			t.Errorf("the job that was taken back: %+v", s)
		}
		if s := w.jobState(ids[1]); s.Phase != offsets.JobFailed || !strings.Contains(s.Message, "nobody took it until") {
			t.Errorf("the job that was too late: %s, %q", s.Phase, s.Message)
		}
		if n := w.receiptsOf("acme")[cdr.Mend]; n > 0 {
			t.Errorf("acme was mended %d times", n)
		}
		w.demandTruth("acme", "globex")
	})
}

// moved is the pair with acme and globex placed in the other shard.
func (w *world) moved() *config.Config {
	more := []string{"shard_key: " + movingKey, "limits: {initial_per_minute: 6, pages_per_minute: 60}"}
	return w.config("", w.source("acme", more...), w.source("globex", more...))
}

// TestMoveIsNotForALiveDaemon: whoever owns one of the shards is asked, and says no.
func TestMoveIsNotForALiveDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		from := w.position("acme").Shard
		other := w.moved()
		for _, running := range []*config.Config{cfg, other} {
			l := w.live(running, 0)
			time.Sleep(5 * time.Minute)
			_, _, err := w.mend(t.Context(), other, "acme", offsets.Edit{What: offsets.EditMove, FromShard: from, ToShard: 1 - from})
			if err == nil || !strings.Contains(err.Error(), "stop it and all others") {
				t.Errorf("the move ended with %v", err)
			}
			if l.stop(); l.shardLosses() > 0 {
				t.Errorf("the shard was lost:\n%s", l.warnings())
			}
		}
		w.demandTruth("acme", "globex")
	})
}

// TestMoveInterrupted: wherever a move is cut off, the source is at home in one shard
// or in none, and the same command brings it to its end.
func TestMoveInterrupted(t *testing.T) {
	for cut := 1; ; cut++ {
		whole := false
		t.Run(fmt.Sprintf("at transaction %d", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, from := newMovingPair(t)
				other := w.moved()
				move := offsets.Edit{What: offsets.EditMove, FromShard: from, ToShard: 1 - from}
				whole = w.mendUntil(other, cut, move)
				w.demandOneHome("acme")
				if !whole {
					sick := w.runOn(other)
					sick.demandRefused("acme", "shard")
					plan, _, err := w.mend(t.Context(), other, "acme", editIn(t, sick.source("acme").Remedy))
					if err != nil {
						t.Fatal(err)
					}
					if moved := w.lastPosition("acme"); moved.Counter != plan.After.Counter {
						t.Errorf("the position got counter %d, and the plan said %d", moved.Counter, plan.After.Counter)
					}
				}
				w.demandMoved(other, 1-from)
			})
		})
		if whole || t.Failed() {
			if cut < 5 {
				t.Errorf("the move took %d transactions, want copies and two positions", cut-1)
			}
			return
		}
	}
}

// newMovingPair is newPair, run twice, with a record in acme's ID journal that counts
// no more: a move copies it in a transaction of its own.
func newMovingPair(t *testing.T) (w *world, from int) {
	w, cfg := newPair(t, "id_missing")
	alone := *cfg
	alone.Sources = alone.Sources[1:]
	w.runOn(&alone)
	from = w.position("globex").Shard
	w.intrudeInto(idsTopic, from, "acme", w.lastChunk("globex").Value)
	for range 2 {
		w.runOn(cfg)
		time.Sleep(30 * time.Minute)
	}
	return w, from
}

// mendUntil has an edit done that is cut off when a transaction begins, and reports
// whether it came to its end before.
func (w *world) mendUntil(cfg *config.Config, cut int, edit offsets.Edit) (whole bool) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	var begun atomic.Int64
	w.cluster.Kafka.ControlKey(int16(kmsg.AddPartitionsToTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.Kafka.KeepControl()
		if begun.Add(1) != int64(cut) {
			return nil, nil, false
		}
		cancel()
		return refusal(request, concurrentTransactions), nil, true
	})
	_, _, err := w.mend(ctx, cfg, "acme", edit)
	if (err == nil) != (begun.Load() < int64(cut)) {
		w.t.Errorf("cut at transaction %d of %d the move ended with %v", cut, begun.Load(), err)
	}
	return err == nil
}

// demandOneHome demands that at most one shard says that a source is at home there.
func (w *world) demandOneHome(name string) {
	w.t.Helper()
	last := map[int]offsets.Position{} // by partition
	for partition := range w.shards {
		for _, r := range w.partition(offsetsTopic, partition) {
			if p, err := offsets.DecodePosition(r.Value); err == nil && string(r.Key) == name {
				last[partition] = p
			}
		}
	}
	homes := 0
	for partition, p := range last {
		if p.Shard == partition {
			homes++
		}
	}
	if homes > 1 {
		w.t.Errorf("%s is at home in %d shards", name, homes)
	}
}

// demandMoved demands that acme goes on in another shard as it did in the former: what
// it has published there is known here, also to a backfill.
func (w *world) demandMoved(cfg *config.Config, shard int) {
	w.t.Helper()
	w.demandOneHome("acme")
	well := w.live(cfg, 0)
	time.Sleep(5 * time.Minute)
	p := w.lastPosition("acme")
	if p.Shard != shard || p.Mended {
		w.t.Errorf("position is %+v", p)
	}
	span := cdr.Span{StartInclusive: w.start, EndExclusive: p.FeedPublished}
	id := w.askIn(shard, offsets.Job{Kind: offsets.Backfill, Source: "acme", Span: span})
	verify := w.askIn(shard, offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span})
	w.demandProven(cfg, "acme", span)
	time.Sleep(5 * time.Minute)
	if s := well.stop().source("acme"); s.State == status.Refused {
		w.t.Errorf("acme is refused: %s", s.Reason)
	}
	if s := w.jobState(id); s.Phase != offsets.JobDone || s.Published > 0 || s.Known == 0 {
		w.t.Errorf("a backfill of what is published: %+v", s)
	}
	if s := w.jobState(verify); s.Phase != offsets.JobDone || s.Findings.Differ() || s.Findings.FeedRecords <= s.Findings.Events {
		w.t.Errorf("a verification, with dead letters of the former shard: %+v", s.Findings)
	}
	w.demandPublished("acme", 0)
}

// demandProven demands that the receipts tell of a whole span that it was read, those in
// former shards too.
func (w *world) demandProven(cfg *config.Config, source cdr.SourceName, span cdr.Span) {
	w.t.Helper()
	for _, report := range w.coverageOf(cfg).Sources {
		for _, s := range report.Stretches {
			if report.Source == source && s.State != coverage.Settled && s.State != coverage.Proven && s.Span.StartInclusive < span.EndExclusive && span.StartInclusive < s.Span.EndExclusive {
				w.t.Errorf("%s of %s is %s", s.Span, source, s.State)
			}
		}
	}
}

// TestListBesideALiveDaemon: what is shown is what a restore would say, of everything
// that lies in the topic, and nobody notices.
func TestListBesideALiveDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		shard := w.position("acme").Shard
		w.intrude(shard, "acme", []byte("x"))
		stranger := w.lastPosition("globex")
		stranger.Source = "initech"
		value, err := stranger.Encode()
		if err != nil {
			t.Fatal(err)
		}
		w.intrude(shard, "initech", value)
		w.intrude(1-shard, "garbage", []byte("x"))
		l := w.live(cfg, 0)
		for range 20 {
			time.Sleep(15*time.Second + 100*time.Millisecond)
			w.demandList(cfg, fmt.Sprintf("acme/%d: refused; garbage/%d: not configured, unreadable; globex/%d: runs; initech/%d: not configured", shard, 1-shard, shard, shard))
		}
		if l.stop(); l.shardLosses() > 0 {
			t.Errorf("the shard was lost:\n%s", l.warnings())
		}
	})
}

func (w *world) demandList(cfg *config.Config, want string) {
	w.t.Helper()
	w.connected(func(client *kafka.Client) {
		log := &positions.Log{Config: cfg, Reader: committed.NewReader(client)}
		rows, err := log.List(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprintf("%s/%d: %s", r.Source, r.Shard, r.State))
		}
		if got := strings.Join(got, "; "); got != want {
			w.t.Errorf("listed are %s, want %s", got, want)
		}
	})
}

// TestShardsThatTopicsDoNotHave: what cannot be done says what can.
func TestShardsThatTopicsDoNotHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, cfg := newPair(t)
		w.runOn(cfg)
		for shards, says := range map[int]string{
			5: "--alter --topic webex.cdr.offsets --partitions 5",
			1: "set it to 2; Kafka cannot take partitions away",
		} {
			other := *cfg
			other.Kafka.Shards = shards
			if _, _, err := w.mend(t.Context(), &other, "acme", offsets.Edit{What: offsets.EditShards}); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("with %d shards: %v, want %q", shards, err, says)
			}
		}
	})
}

// TestEditAtLeastOnce: without transactions the same is done.
func TestEditAtLeastOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newPair(t)
		loose := *w.config("", w.source("acme"))
		loose.Delivery = config.AtLeastOnce
		w.runOn(&loose)
		w.truncate(offsetsTopic, w.position("acme").Shard)
		time.Sleep(20 * time.Minute)
		sick := w.runOn(&loose)
		sick.demandRefused("acme", "position is lost")
		if _, _, err := w.mend(t.Context(), &loose, "acme", editIn(t, sick.source("acme").Remedy)); err != nil {
			t.Fatal(err)
		}
		w.runOn(&loose)
		w.demandPublished("acme", 0)
	})
}

// TestResetBehindTheSet: a source goes back to a time whose IDs its position no longer
// counted on. The ID journal counts from there again, and nothing is doubled.
func TestResetBehindTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := newPair(t)
		cfg := w.config("", w.source("acme", "sweeps: [{every: 15m, back: 1h}]"))
		for range 4 {
			w.runOn(cfg)
			time.Sleep(11 * time.Hour)
		}
		w.runFor(cfg, 20*time.Minute) // for its sweeps
		before := w.position("acme")
		plan, _, err := w.mend(t.Context(), cfg, "acme", offsets.Edit{What: offsets.EditReset, To: w.start.Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if before.JournalFrom == 0 || plan.After.JournalFrom >= before.JournalFrom {
			t.Errorf("the ID journal counted from %d, and counts from %d", before.JournalFrom, plan.After.JournalFrom)
		}
		time.Sleep(time.Hour)
		w.runOn(cfg)
		if p := w.lastPosition("acme"); p.FeedPublished < before.FeedPublished {
			t.Errorf("acme has come to %s, and was at %s", p.FeedPublished, before.FeedPublished)
		}
		w.demandPublished("acme", 0)
	})
}
