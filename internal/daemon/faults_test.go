package daemon_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/faultnet"
	"cdrbus/internal/simulator"
)

// cutter cuts connections at random: before a request goes out, or after it
// arrived and before its answer comes back.
type cutter struct {
	share float64 // of requests that are cut
	dial  daemon.DialFunc

	mu   sync.Mutex
	rng  *rand.Rand
	cuts int
}

func newCutter(seed uint64, share float64, dial daemon.DialFunc) *cutter {
	return &cutter{share: share, dial: dial, rng: rand.New(rand.NewPCG(seed, uint64(share*1e6)))}
}

func (c *cutter) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cutConn{conn, c}, nil
}

// fate draws what becomes of a request: cut before it, after it, or neither.
func (c *cutter) fate() (before, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rng.Float64() >= c.share {
		return false, false
	}
	c.cuts++
	before = c.rng.IntN(3) == 0
	return before, !before
}

type cutConn struct {
	net.Conn
	cutter *cutter
}

func (c *cutConn) Write(p []byte) (int, error) {
	before, after := c.cutter.fate()
	if before {
		c.Close()
	}
	n, err := c.Conn.Write(p)
	if after {
		c.Close()
	}
	return n, err
}

// TestCutConnections: whatever connection is cut at whatever moment, to Kafka or
// to the feed, every record is published, once, and every life goes on from there.
func TestCutConnections(t *testing.T) {
	seeds := 20
	if testing.Short() {
		seeds = 5
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Records.Rate = 0.1
					o.Organizations = append(o.Organizations, simulator.Organization{Name: "initech", Token: "token-initech"})
				})
				kafka := newCutter(seed, []float64{0.01, 0.03, 0.06, 0.1}[seed%4], w.dialKafka)
				feed := newCutter(seed, 0.05, w.dialFeed)
				w.dialKafka, w.dialFeed = kafka.Dial, feed.Dial
				more := []string{eager, "max_window: 5m"}
				cfg := w.config("", w.source("acme", more...), w.source("globex", more...), w.source("initech", more...))
				until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
				lives, lost := w.liveUntil(cfg, until, rand.New(rand.NewPCG(seed, 1)))
				t.Logf("%d lives, %d shards lost, %d cuts to Kafka, %d to the feed", lives, lost, kafka.cuts, feed.cuts)
				w.demandTruth("acme", "globex", "initech")
				for _, name := range []string{"acme", "globex", "initech"} {
					w.demandReceipts(name, until)
				}
			})
		})
	}
}

// TestStartOutlivesCutConnections: a connection that is cut during the checks at the
// start, as by a broker that is being restarted, does not end the program, whichever
// request it was that was under way.
func TestStartOutlivesCutConnections(t *testing.T) {
	for _, fault := range []faultnet.Fault{faultnet.CutBefore, faultnet.CutAfter} {
		t.Run(fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.metadataTTL = 0 // whose connection is cut is asked again with it
				n := faultnet.New(faultnet.Options{Dial: w.dialKafka, Decide: func(r faultnet.Request) faultnet.Fate {
					if r.Number == 1 {
						return faultnet.Fate{Fault: fault}
					}
					return faultnet.Fate{}
				}})
				defer n.Close()
				w.dialKafka = n.Dialer("test")
				w.runFor(w.config("", w.source("acme")), 2*time.Minute)
				w.demandTruth("acme")
			})
		})
	}
}

// answers are error codes that a request may get instead of being carried out.
// Each leads down another path: fenced, restore, one by one.
var answers = map[int16][]int16{
	22: {90, 51, 16},     // InitProducerId
	24: {90, 48, 51, 87}, // AddPartitionsToTxn
	26: {90, 48, 51},     // EndTxn
	0:  {47, 45, 87, 10}, // Produce
}

// refuseSome lets the brokers refuse a share of the requests of the protocol.
func (w *world) refuseSome(seed uint64, share float64) (refused func() int) {
	var mu sync.Mutex
	rng, count := rand.New(rand.NewPCG(seed, 2)), 0
	for key, codes := range answers {
		w.cluster.Kafka.ControlKey(key, func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.Kafka.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			if rng.Float64() >= share {
				return nil, nil, false
			}
			count++
			return refusal(request, codes[rng.IntN(len(codes))]), nil, true
		})
	}
	return func() int { mu.Lock(); defer mu.Unlock(); return count }
}

func refusal(request kmsg.Request, code int16) kmsg.Response {
	response := request.ResponseKind()
	response.SetVersion(request.GetVersion())
	switch r := response.(type) {
	case *kmsg.InitProducerIDResponse:
		r.ErrorCode = code
	case *kmsg.EndTxnResponse:
		r.ErrorCode = code
	case *kmsg.AddPartitionsToTxnResponse:
		for _, asked := range request.(*kmsg.AddPartitionsToTxnRequest).Topics {
			topic := kmsg.NewAddPartitionsToTxnResponseTopic()
			topic.Topic = asked.Topic
			for _, p := range asked.Partitions {
				partition := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p, code
				topic.Partitions = append(topic.Partitions, partition)
			}
			r.Topics = append(r.Topics, topic)
		}
	case *kmsg.ProduceResponse:
		for _, asked := range request.(*kmsg.ProduceRequest).Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
			for _, p := range asked.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, code
				topic.Partitions = append(topic.Partitions, partition)
			}
			r.Topics = append(r.Topics, topic)
		}
	}
	return response
}

// TestRefusals: brokers that refuse any request of the protocol, so that shards
// are lost and outcomes unknown again and again, in a small memory that every
// lost window has to give back.
func TestRefusals(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 4
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Records.Rate = 0.1
				})
				cutter := newCutter(seed, 0.01, w.dialKafka)
				w.dialKafka = cutter.Dial
				more := []string{eager, "max_window: 3m"}
				cfg := w.config("memory: {budget: 2MiB, max_window_bytes: 1MiB}", w.source("acme", more...), w.source("globex", more...))
				until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
				refused := w.refuseSome(seed, 0.05)
				lives, lost := w.liveUntil(cfg, until, rand.New(rand.NewPCG(seed, 1)))
				restores := w.logs.FilterMessageSnippet("commit of unknown outcome").Len()
				t.Logf("%d lives, %d refusals, %d shards lost, %d restores, %d cuts", lives, refused(), lost, restores, cutter.cuts)
				w.demandTruth("acme", "globex")
				for _, name := range []string{"acme", "globex"} {
					w.demandReceipts(name, until)
				}
			})
		})
	}
}

// liveUntil runs one daemon after another, some of which are ended early, until
// one has reached the instant.
func (w *world) liveUntil(cfg *config.Config, until cdr.Instant, rng *rand.Rand) (lives, lost int) {
	w.t.Helper()
	for lives = 1; lives <= 100; lives++ {
		span := time.Hour
		if rng.IntN(2) == 0 {
			span = time.Duration(rng.Int64N(int64(5 * time.Second)))
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), span)
		_, err := w.run(ctx, cfg, until)
		early := ctx.Err() != nil
		cancel()
		if !early && err == nil {
			return lives, w.logs.FilterMessageSnippet("shard lost").Len()
		}
		if early && span == time.Hour {
			w.t.Fatal("an hour did not suffice")
		}
	}
	w.t.Fatal("no life reached the instant")
	return 0, 0
}

// demandReceipts wants receipts without a hole, that add up, up to the instant.
func (w *world) demandReceipts(name string, until cdr.Instant) {
	w.t.Helper()
	at := w.start
	for i, r := range w.receipts(name) {
		if r.Counter != cdr.Counter(i+1) {
			w.t.Errorf("receipt %d of %s has counter %d", i, name, r.Counter)
		}
		if r.Items != r.Published+r.AlreadyKnown+r.DeadLetters {
			w.t.Errorf("receipt %d of %s does not add up: %+v", i, name, r)
		}
		if r.Purpose == cdr.Start {
			continue
		}
		if r.Commit.StartInclusive != at {
			w.t.Errorf("receipt %d of %s is of %s, want it to begin at %s", i, name, r.Commit, at)
		}
		at = r.Commit.EndExclusive
	}
	if at != until {
		w.t.Errorf("the receipts of %s end at %s, want %s", name, at, until)
	}
}

// TestLostWindowsGiveMemoryBack: each time the shard is lost, one window is with
// the committer and the next one waits for it. Both give their memory back.
func TestLostWindowsGiveMemoryBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		cfg := w.config("memory: {budget: 2MiB, max_window_bytes: 1MiB}",
			w.source("acme", eager, "max_window: 3m"))
		const losses, patient = 60, 20
		asked := 0
		w.cluster.Kafka.ControlKey(int16(kmsg.EndTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.Kafka.KeepControl()
			if asked++; !request.(*kmsg.EndTxnRequest).Commit || asked < 2 || asked > losses*patient { // the first fixes the start
				return nil, nil, false
			}
			if asked%patient == 0 {
				return refusal(request, 90), nil, true
			}
			return refusal(request, 51), nil, true
		})
		until := cdr.InstantOf(time.Now().Add(-10 * time.Minute))
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Hour)
		defer cancel()
		if _, err := w.run(ctx, cfg, until); err != nil || ctx.Err() != nil {
			t.Fatalf("the run ended with %v, %v", err, ctx.Err())
		}
		if n := w.logs.FilterMessageSnippet("shard lost").Len(); n < losses/2 {
			t.Errorf("the shard was lost %d times", n)
		}
		w.demandTruth("acme")
	})
}

// slowConn is a connection on which whatever is sent takes some time.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	time.Sleep(500 * time.Millisecond)
	return c.Conn.Write(p)
}

// TestDemandedWaitOutlivesTheShard: a feed that asked for some time, of one source
// only, gets it, although the shard is lost meanwhile and taken over again at once.
func TestDemandedWaitOutlivesTheShard(t *testing.T) {
	for _, fault := range []simulator.Fault{simulator.Fault423, simulator.Fault503} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const demand = 90 * time.Second
				w := newUnlimitedWorld(t, func(o *simulator.Options) {
					o.Answers.FaultWait = demand
				})
				dial := w.dialFeed
				w.dialFeed = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := dial(ctx, network, address)
					return slowConn{conn}, err
				}
				cfg := w.config("", w.source("acme", eager, "max_window: 3m"))
				const spoiled, patient = 5, 40
				var demanded time.Time
				asked := 0
				w.cluster.Kafka.ControlKey(int16(kmsg.EndTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
					w.cluster.Kafka.KeepControl()
					switch asked++; {
					case asked < spoiled || asked > spoiled+patient:
						return nil, nil, false
					case asked == spoiled: // the next window's request is on its way to the feed
						demanded = time.Now()
						if err := w.feed.Inject("acme", fault); err != nil {
							t.Error(err)
						}
					case asked == spoiled+patient:
						return refusal(request, 90), nil, true
					}
					return refusal(request, 51), nil, true
				})
				w.runFor(cfg, 5*time.Minute)
				if lost, faults := w.logs.FilterMessageSnippet("shard lost").Len(), w.feed.Stats().Faults[fault]; lost != 1 || faults != 1 {
					t.Fatalf("the shard was lost %d times and the feed demanded %d waits, want one of each", lost, faults)
				}
				for _, r := range w.receipts("acme") {
					if at := r.FirstRequestAt; at.After(demanded.Add(time.Second)) && at.Before(demanded.Add(demand)) {
						t.Errorf("window %d was asked for %s after the feed demanded %s", r.Counter, at.Sub(demanded), demand)
					}
				}
				w.demandTruth("acme")
			})
		})
	}
}

// TestTooMuchForOneTransaction: brokers that never take a large request in time
// get windows that are short enough.
func TestTooMuchForOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		cfg := w.config("", w.source("acme", eager))
		const limit, requestTimedOut = 3 << 19, 7
		refused := 0
		w.cluster.Kafka.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.Kafka.KeepControl()
			bytes := 0
			for _, topic := range request.(*kmsg.ProduceRequest).Topics {
				for _, p := range topic.Partitions {
					bytes += len(p.Records)
				}
			}
			if bytes < limit {
				return nil, nil, false
			}
			refused++
			return refusal(request, requestTimedOut), nil, true
		})
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Hour)
		defer cancel()
		if _, err := w.run(ctx, cfg, cdr.InstantOf(time.Now().Add(-10*time.Minute))); err != nil || ctx.Err() != nil {
			t.Fatalf("the run ended with %v, %v", err, ctx.Err())
		}
		if refused == 0 {
			t.Error("nothing was too large")
		}
		w.demandTruth("acme")
	})
}

// TestNothingBeforeStart: the overlap of the first windows does not reach back
// over the start.
func TestNothingBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		w.start = cdr.InstantOf(time.Now().Add(-6 * time.Minute))
		w.runFor(w.config("", w.source("acme", "limits: {initial_per_minute: 6, pages_per_minute: 60}")), 20*time.Minute)
		for _, r := range w.receipts("acme") {
			if r.Purpose != cdr.Start && r.Asked.StartInclusive < w.start {
				t.Errorf("window %d asks for %s, before the start %s", r.Counter, r.Asked, w.start)
			}
		}
		w.demandTruth("acme")
	})
}

// TestStartIsSettled: nothing before its start concerns a source, so its settled
// watermark begins there, however young the start is.
func TestStartIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.runFor(w.config("", w.source("acme")), time.Minute)
		if got := w.receipts("acme")[0].FeedSettled; got != w.start {
			t.Errorf("the first receipt is settled to %s, want %s", got, w.start)
		}
	})
}
