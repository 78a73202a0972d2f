package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"cdrbus/internal/committed"
	"cdrbus/internal/daemon"
	"cdrbus/internal/eventlog"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/simulator"
	"cdrbus/internal/tail"
	"cdrbus/schema"
)

// TestTailFollowsADaemon that dies now and then, of a feed with late and revised
// records: what it printed is what is committed in the end, each event once and in
// the order of its partition, with its marks.
func TestTailFollowsADaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *simulator.Options) {
			lateFeed(o, lateScale{rate: 0.01, latest: 2 * time.Hour})
			o.Records.Rate, o.Records.RevisedShare = 0.02, 0.3
		})
		cfg := w.config("", w.source("acme"))
		until := time.Now().Add(3 * time.Hour)
		w.runFor(cfg, time.Minute) // it creates the topic
		printed, end := w.follow()
		w.liveAndDie(cfg, until, rand.New(rand.NewPCG(1, 1)))
		time.Sleep(2 * time.Minute) // for the last look
		end()

		lines := readMarks(t, printed)
		events, late, revised := 0, 0, 0
		for partition := range w.events {
			for _, r := range w.topic(eventsTopic, partition+1)[len(w.topic(eventsTopic, partition)):] {
				events++
				l := lines[[2]int64{int64(partition), r.Offset}]
				delete(lines, [2]int64{int64(partition), r.Offset})
				want := tailMarks{
					Partition: partition, Offset: r.Offset, Source: "acme",
					Late: headerOf(r, "late") == "true", Revision: headerOf(r, "revision") == "true",
				}
				want.Event.ReportID = headerOf(r, "ce_id")
				if l != want {
					t.Errorf("printed %+v, committed %+v", l, want)
				}
				if want.Late {
					late++
				}
				if want.Revision {
					revised++
				}
			}
		}
		if len(lines) > 0 || late == 0 || revised == 0 {
			t.Errorf("%d events, %d late, %d revised; %d more were printed", events, late, revised, len(lines))
		}
	})
}

// tailMarks is what is compared of a line.
type tailMarks struct {
	Partition      int
	Offset         int64
	Source         string
	Late, Revision bool
	Event          struct{ ReportID string }
}

// readMarks returns lines by partition and offset.
func readMarks(t *testing.T, printed *bytes.Buffer) map[[2]int64]tailMarks {
	t.Helper()
	lines := map[[2]int64]tailMarks{}
	next := map[int]int64{}
	for decoder := json.NewDecoder(printed); decoder.More(); {
		var l tailMarks
		if err := decoder.Decode(&l); err != nil {
			t.Fatal(err)
		}
		if l.Offset < next[l.Partition] {
			t.Errorf("%d:%d comes after offset %d", l.Partition, l.Offset, next[l.Partition]-1)
		}
		next[l.Partition] = l.Offset + 1
		lines[[2]int64{int64(l.Partition), l.Offset}] = l
	}
	return lines
}

// follow runs a tail from the first event on, until end is called; then printed holds
// what it printed.
func (w *world) follow() (printed *bytes.Buffer, end func()) {
	w.t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: w.cluster.Brokers(), ClientID: "tail", Topics: []string{eventsTopic}, DialContext: w.network.DialContext})
	if err != nil {
		w.t.Fatal(err)
	}
	registry, err := daemon.NewRegistry(w.config("", w.source("acme")), w.network.DialContext)
	if err != nil {
		w.t.Fatal(err)
	}
	printed = new(bytes.Buffer)
	lines := tail.NewJSON(printed, tail.View{PersonalData: true})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := tail.Run(ctx, committed.NewReader(client), tail.Options{
			Topic: eventsTopic, SchemaByID: registry.SchemaByID, Follow: true, Poll: time.Minute,
			Print: func(e *eventlog.Event, decoded *schema.Event) error { return lines.Print(eventsTopic, e, decoded) },
		})
		done <- err
	}()
	return printed, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		kafkaconn.Close(client)
	}
}
