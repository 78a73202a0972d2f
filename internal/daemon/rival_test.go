package daemon_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"cdrbus/internal/cdr"
	"cdrbus/internal/faultnet"
)

// duel is an owner that restores, and a rival that takes its shards over at the
// moment when the owner first reads a topic.
type duel struct {
	reads string // the topic
	rival func() // lives and ends
	half  bool   // the owner goes on before the rival's first commit has ended

	begin, hold sync.Once
	ended       chan struct{} // closed when the rival has ended
	committing  chan struct{} // closed when its first commit is about to end
	release     chan struct{} // closed when that may end
}

// decide runs the rival when the owner reads.
func (d *duel) decide(r faultnet.Request) faultnet.Fate {
	switch {
	case r.Client == "owner" && r.Key == int16(kmsg.ListOffsets) && strings.Contains(string(r.Frame), d.reads):
		d.begin.Do(func() {
			go func() { defer close(d.ended); d.rival() }()
			select {
			case <-d.committing:
				time.AfterFunc(time.Second, func() { close(d.release) })
			case <-d.ended:
			}
		})
	case d.half && r.Client == "rival" && r.Key == int16(kmsg.EndTxn):
		d.hold.Do(func() { close(d.committing); <-d.release })
	}
	return faultnet.Fate{}
}

// TestRivalWhileRestoring: an owner that takes over and commits between the reads
// of another one's restore makes the log look as if it contradicted itself. No
// source is refused for that, and nobody is told to abort the rival's transaction.
func TestRivalWhileRestoring(t *testing.T) {
	for _, test := range []struct {
		name, reads    string
		half, brandNew bool
	}{
		{"before the IDs are read", "webex.cdr.ids", false, false},
		{"before the receipts are read", "webex.cdr.windows", false, true},
		{"half of a commit", "webex.cdr.offsets", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newUnlimitedWorld(t, nil)
				cfg := w.config("", w.source("acme", eager, "max_window: 5m"))
				until := func(back time.Duration) cdr.Instant { return cdr.InstantOf(time.Now().Add(-back)) }
				if !test.brandNew {
					if _, err := w.run(t.Context(), cfg, until(60*time.Minute)); err != nil {
						t.Fatal(err)
					}
				}
				d := &duel{reads: test.reads, half: test.half,
					ended: make(chan struct{}), committing: make(chan struct{}), release: make(chan struct{})}
				n := faultnet.New(faultnet.Options{Dial: w.network.DialContext, Decide: d.decide})
				live := func(client string, back time.Duration) error {
					own := *w
					own.dialKafka = n.Dialer(client)
					_, err := own.run(context.Background(), cfg, until(back))
					return err
				}
				d.rival = func() { _ = live("rival", 40*time.Minute) } // fenced, it may fail
				if err := live("owner", 10*time.Minute); err != nil {
					t.Errorf("the owner: %v", err)
				}
				<-d.ended
				n.Close()
				for _, text := range []string{"source refused", "hanging"} {
					if logs := w.logs.FilterMessageSnippet(text).All(); len(logs) > 0 {
						t.Errorf("logged: %+v", logs)
					}
				}
				w.demandTruth("acme")
			})
		})
	}
}
