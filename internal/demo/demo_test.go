package demo

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"go.uber.org/zap"

	"cdrbus/internal/cdr"
	"cdrbus/internal/simulator"
)

// TestRun plays a short demo and wants what the long one promises.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	result, err := Run(t.Context(), Options{
		For: 8 * time.Second, Rate: 5, Backlog: time.Hour, Seed: 3, Listen: "127.0.0.1:0", Out: &out, Log: zap.NewNop(),
		KillFrom: 2 * time.Second, KillTo: 3 * time.Second,
	})
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, result, out.Bytes())
	}
	if result.Records == 0 || result.Records != result.Events || result.Restarts < 1 {
		t.Errorf("the demo ended with %s", result)
	}
	if !bytes.Contains(out.Bytes(), []byte("records in")) || !bytes.Contains(out.Bytes(), []byte("to go")) {
		t.Errorf("the demo showed no progress: %s", out.Bytes())
	}
}

// TestRunInterrupted ends a demo before it has done anything.
func TestRunInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	result, err := Run(ctx, Options{Rate: 5, Backlog: time.Hour, Seed: 3, Listen: "127.0.0.1:0", Out: io.Discard, Log: zap.NewNop(), KillFrom: time.Second, KillTo: time.Second})
	if err != nil || result != (Comparison{}) {
		t.Errorf("%v, %s", err, result)
	}
}

// TestJudge shows that the comparison can fail: each way in which a topic may be
// wrong is told.
func TestJudge(t *testing.T) {
	options := simulator.DefaultOptions()
	for _, name := range sourceNames {
		options.Organizations = append(options.Organizations, simulator.Organization{Name: name, Token: name})
	}
	feed, err := simulator.New(options)
	if err != nil {
		t.Fatal(err)
	}
	end := cdr.InstantOf(time.Now().Add(-time.Hour))
	s := &stage{feed: feed, start: end.Add(-time.Minute)}
	published := map[string]cdr.Instant{}
	topic := func() map[string]int {
		events := map[string]int{}
		for _, name := range sourceNames {
			published[name] = end
			for truth := range feed.Truth(name, cdr.Span{StartInclusive: s.start, EndExclusive: end}) {
				events[name+" "+truth.ReportID] = 1
			}
		}
		return events
	}
	if c := s.judge(topic(), map[string]int{}, published); !c.Equal() || c.Records == 0 || c.Records != c.Events {
		t.Fatalf("a perfect topic is judged %s", c)
	}
	spoil := func(change func(events map[string]int, id string)) Comparison {
		events := topic()
		for id := range events {
			change(events, id)
			break
		}
		return s.judge(events, map[string]int{}, published)
	}
	if c := spoil(func(events map[string]int, id string) { delete(events, id) }); c.Missing != 1 || c.Equal() {
		t.Errorf("a missing event is judged %s", c)
	}
	if c := spoil(func(events map[string]int, id string) { events[id] = 2 }); c.Duplicate != 1 || c.Equal() {
		t.Errorf("a doubled event is judged %s", c)
	}
	if c := spoil(func(events map[string]int, _ string) { events["acme stranger"] = 1 }); c.Unexpected != 1 || c.Equal() {
		t.Errorf("a strange event is judged %s", c)
	}
}
