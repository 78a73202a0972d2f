package daemon_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/faultnet"
	"cdrbus/offsets"
)

// TestJobOutlivesItsShard: a shard is lost and taken over again while a job of it still
// reads the topics. The job is done all the same.
func TestJobOutlivesItsShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newUnlimitedWorld(t, nil)
		w.fenceStaleEpochs()
		cfg := w.config("", w.source("acme", eager))
		w.runFor(cfg, 10*time.Minute)
		span := cdr.Span{StartInclusive: w.start, EndExclusive: w.start.Add(time.Hour)}
		id := w.ask(offsets.Job{Kind: offsets.Verify, Source: "acme", Span: span})

		var silent atomic.Bool // the events topic cannot be read
		silent.Store(true)
		n := faultnet.New(faultnet.Options{Dial: w.network.DialContext, Decide: func(r faultnet.Request) faultnet.Fate {
			if r.Client == "owner" && silent.Load() && strings.Contains(string(r.Frame), eventsTopic) &&
				(r.Key == int16(kmsg.Fetch) || r.Key == int16(kmsg.ListOffsets)) {
				return faultnet.Fate{Fault: faultnet.CutBefore}
			}
			return faultnet.Fate{}
		}})
		defer n.Close()
		owner := *w
		owner.dialKafka = n.Dialer("owner")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := owner.run(ctx, cfg, 0)
			ended <- err
		}()
		time.Sleep(time.Minute)
		if state := w.jobState(id); state.Phase != offsets.JobAccepted {
			t.Fatalf("the job is not under way: %+v", state)
		}
		rival := w.client(kgo.TransactionalID(fmt.Sprintf("cdrbus.%s.%d", offsetsTopic, w.position("acme").Shard)))
		defer rival.Close()
		if _, _, err := rival.ProducerID(t.Context()); err != nil { // fences the owner, and leaves it at that
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		silent.Store(false)
		time.Sleep(5 * time.Minute)
		if state := w.jobState(id); state.Phase != offsets.JobDone {
			t.Errorf("5 minutes after its owner could read the topic again the job is %+v", state)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if w.logs.FilterMessage("shard lost, taking it over again").Len() == 0 {
			t.Error("the shard was never lost: the test proves nothing")
		}
	})
}
