package probe

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"cdrbus/internal/simulator"
	"cdrbus/poller"
)

// world is a simulated feed on a network in memory, inside a synctest bubble.
type world struct {
	t       *testing.T
	network *kfake.VirtualNetwork
	feed    *simulator.Simulator
}

// inWorld runs a test before a feed of one organization.
func inWorld(t *testing.T, tune func(*simulator.Options), test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		options := simulator.DefaultOptions()
		options.Records.Rate = 0.15
		options.Answers.MaxFloor, options.Answers.MaxCeiling = 100, 1000 // so that few records make several pages
		if tune != nil {
			tune(&options)
		}
		feed, err := simulator.New(options)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, network: &kfake.VirtualNetwork{}, feed: feed}
		listener, err := w.network.Listen("tcp", "localhost:8080")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- feed.Serve(ctx, listener) }()
		test(w)
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// asker is a client of the feed, whose last minute is not known.
func (w *world) asker(limits poller.Limits, last time.Time) *poller.Feed {
	w.t.Helper()
	address, err := url.Parse("http://localhost:8080/v1/cdr_feed")
	if err != nil {
		w.t.Fatal(err)
	}
	feed, err := poller.NewFeed(poller.FeedOptions{
		Source: "acme",
		URL:    address,
		Tokens: poller.NewBareToken("test", func() (string, error) { return "token-org-1", nil }),
		Budget: poller.NewBudget(limits, last, time.Now()),
		HTTP:   poller.HTTPOptions{DialContext: w.network.DialContext},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(feed.Close)
	return feed
}

// options are those of a probe at the documented limits.
func (w *world) options() Options {
	return Options{
		Feed:   w.asker(poller.DefaultLimits, time.Now().Add(-time.Hour)),
		Limits: poller.DefaultLimits,
		MinAge: 5 * time.Minute, Lookback: 720 * time.Hour, MaxWindow: 12 * time.Hour,
		Stream: true, For: 30 * time.Minute,
	}
}

// demandNoViolation holds the probe to the rules of the feed.
func (w *world) demandNoViolation() {
	w.t.Helper()
	for _, violation := range w.feed.Violations() {
		w.t.Errorf("violation: %+v", violation)
	}
}

// told returns what was found to a question, and logs it.
func told(t *testing.T, report *Report, name string) string {
	t.Helper()
	a := report.Answer(name)
	if a == nil {
		t.Fatalf("there is no question %q", name)
	}
	t.Logf("%s: %q (%s) %s %v", name, a.Verdict, a.Sure, a.Says, a.Counts)
	if (a.Verdict == "") != (a.Sure == CannotTell) {
		t.Errorf("%s: verdict %q is %s", name, a.Verdict, a.Sure)
	}
	return a.Verdict
}

func describe(report *Report) string {
	text := fmt.Sprintf("%d requests in %s, statuses %v, ended %q, failed %v", report.Requests, report.EndedAt.Sub(report.StartedAt), report.Statuses, report.Ended, report.Failed)
	for _, window := range report.Windows {
		text += fmt.Sprintf("\n  %+v", window)
	}
	return text
}
