// Package demo shows all of cdrbus in one process, with nothing to install: a
// simulated feed with its quirks and faults, an embedded Kafka and schema
// registry, and the daemon, which is killed in the middle of its work now and
// then. At the end it compares what the feed had with what the topic holds.
//
//	demo.go     the stage: feed, Kafka, configuration, and the acts
//	kill.go     how a daemon is killed inside a living process
//	compare.go  feed against topic, record by record
//	view.go     what is seen meanwhile
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/embedded"
	"cdrbus/internal/simulator"
	"cdrbus/internal/status"
)

// Options say how the demo goes.
type Options struct {
	For      time.Duration // and until a kill is survived; 0: until ctx ends
	Rate     float64       // records a second that the feed makes
	Backlog  time.Duration // how far back the feed's history begins
	Seed     uint64
	Listen   string // of the status page
	Build    status.Build
	Out      io.Writer
	Width    int // of the terminal; 0: Out is none, and gets plain lines
	Log      *zap.Logger
	KillFrom time.Duration // a daemon lives at least so long
	KillTo   time.Duration // and at most so long
}

// ErrDifferent says that the topic does not hold what the feed had.
var ErrDifferent = errors.New("feed and topic differ")

// stage is everything around the daemon.
type stage struct {
	options Options
	feed    *simulator.Simulator
	feedURL string
	cluster *embedded.Cluster
	config  *config.Config
	board   *status.Board
	pageURL string
	start   cdr.Instant
}

// sourceNames are the two organizations whose calls are collected.
var sourceNames = []string{"acme", "globex"}

// Run sets the stage, plays until the time is over, and compares. It returns
// ErrDifferent if a record is missing or doubled.
func Run(ctx context.Context, options Options) (Comparison, error) {
	folder, err := os.MkdirTemp("", "cdrbus-demo-")
	if err != nil {
		return Comparison{}, fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer os.RemoveAll(folder)
	s := &stage{options: options, start: cdr.InstantOf(time.Now().Add(-options.Backlog))}
	services, stopServices := context.WithCancel(context.WithoutCancel(ctx))
	group, services := errgroup.WithContext(services)
	defer func() { stopServices(); _ = group.Wait() }()
	if err := s.set(services, group, folder); err != nil {
		return Comparison{}, err
	}
	defer s.cluster.Close()
	kills, err := s.play(ctx)
	if err != nil {
		return Comparison{}, err
	}
	if committedWindows(s.board.Snapshot()) == 0 {
		return Comparison{Restarts: kills}, nil // there may be no topics yet
	}
	result, err := s.compare(services)
	if err != nil {
		return Comparison{}, err
	}
	result.Restarts = kills
	s.board.SetVerdict(result.verdict())
	if !result.Equal() {
		return result, ErrDifferent
	}
	return result, nil
}

// set starts feed, Kafka, registry and status page.
func (s *stage) set(ctx context.Context, group *errgroup.Group, folder string) error {
	if err := s.startFeed(ctx, group); err != nil {
		return err
	}
	var err error
	if s.cluster, err = embedded.Start(embedded.Options{}); err != nil {
		return err
	}
	if s.config, err = s.configure(folder); err != nil {
		return err
	}
	// Nothing in the demo is a real person's, so its page shows events in full.
	s.board = status.New(s.options.Build, status.Options{
		Delivery:         string(s.config.Delivery),
		Decode:           daemon.DecodeEvent,
		ShowPersonalData: true,
		Coverage:         daemon.NewCoverage(s.config),
	})
	return s.servePage(ctx, group)
}

func (s *stage) startFeed(ctx context.Context, group *errgroup.Group) error {
	options := simulator.DefaultOptions()
	options.Seed, options.CacheBytes = s.options.Seed, 8<<20
	options.Records.Rate = s.options.Rate / float64(len(sourceNames))
	for _, profile := range []string{"all", "unlimited"} {
		if err := options.ApplyProfile(profile); err != nil {
			return err
		}
	}
	// A stalled answer costs the real feed's client half a minute. Here it would
	// cost most of the show.
	delete(options.Answers.Faults, simulator.Stalled)
	options.Answers.RetryAfter, options.Answers.FaultWait = simulator.RetrySeconds, time.Second
	for _, name := range sourceNames {
		options.Organizations = append(options.Organizations, simulator.Organization{Name: name, Token: "demo-token-" + name})
	}
	var err error
	if s.feed, err = simulator.New(options); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the simulated feed: %w", err)
	}
	s.feedURL = "http://" + listener.Addr().String()
	group.Go(func() error { return s.feed.Serve(ctx, listener) })
	return nil
}

// configure writes what an operator would write, and loads it as run does.
func (s *stage) configure(folder string) (*config.Config, error) {
	text := fmt.Sprintf(`# cdrbus demo
kafka:
  brokers: [%s]
  shards: 4
  partitions: 6
  compression: zstd
schema_registry: {url: %s}
admin: {listen: ""}
sources:
`, s.cluster.Brokers()[0], s.cluster.RegistryURL())
	for _, name := range sourceNames {
		if err := os.WriteFile(filepath.Join(folder, name+".token"), []byte("demo-token-"+name), 0o600); err != nil {
			return nil, fmt.Errorf("write the demo's token: %w", err)
		}
		text += fmt.Sprintf(`  - name: %s
    url: %s/v1/cdr_feed
    token_file: %s.token
    start: %s
    max_window: 10m
    limits: {initial_per_minute: 120, pages_per_minute: 1200}
`, name, s.feedURL, name, s.start)
	}
	path := filepath.Join(folder, "cdrbus.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the demo's configuration: %w", err)
	}
	return config.Load(path, nil)
}

func (s *stage) servePage(ctx context.Context, group *errgroup.Group) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.options.Listen)
	if err != nil {
		return fmt.Errorf("listen for the status page on %s (taken? choose another --listen): %w", s.options.Listen, err)
	}
	s.pageURL = "http://" + listener.Addr().String() + "/"
	fmt.Fprintf(s.options.Out, "status page: %s\n", s.pageURL)
	server := &http.Server{Handler: s.board.Handler(), ReadHeaderTimeout: 10 * time.Second}
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the status page: %w", err)
		}
		return nil
	})
	return nil
}

// play runs one daemon after the other. All but the last are killed in the
// middle of a window; the last is asked to stop.
func (s *stage) play(ctx context.Context) (kills int, err error) {
	view := newView(s)
	for {
		ended, err := s.act(ctx, view, kills > 0)
		if err != nil || ended {
			return kills, err
		}
		kills++
		s.board.Restarted("killed in mid-window, its connections cut")
	}
}

// patience is how much longer than asked for a demo goes on to survive a kill:
// a daemon is not killed, and the last not stopped, before it has published,
// or a slow machine would show a row of deaths and an empty topic.
const patience = time.Minute

// act is one daemon's life, the last if the time is over once it has published
// and another was killed before. It reports whether the play is over.
func (s *stage) act(ctx context.Context, view *view, killed bool) (ended bool, err error) {
	lifetime := s.options.KillFrom + rand.N(s.options.KillTo-s.options.KillFrom+1)
	before := committedWindows(s.board.Snapshot())
	victim := newVictim()
	result := make(chan error, 1)
	go func() { result <- s.live(victim) }()
	deadline := time.Now().Add(lifetime)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			victim.stop()
			return true, <-result
		case err := <-result:
			return true, err // by itself: something is wrong
		case <-tick.C:
		}
		snapshot, now := s.board.Snapshot(), time.Now()
		view.show(snapshot)
		published := committedWindows(snapshot) > before
		switch {
		case view.overAt(now) && killed && published, view.overAt(now.Add(-patience)):
			victim.stop()
			return true, <-result
		case now.After(deadline) && published && busy(snapshot):
			victim.kill()
			// What is left of it may linger and try to abort its transaction, as a
			// process behind a cut network does. It is fenced, so nobody waits for it.
			return false, nil
		}
	}
}

// live is a daemon from its first connection to its end.
func (s *stage) live(v *victim) error {
	d, err := daemon.New(v.ctx, daemon.Options{
		Config:    s.config,
		Log:       s.options.Log,
		Board:     s.board,
		Version:   s.options.Build.Version,
		DialKafka: v.dial,
		DialFeed:  v.dial,
	})
	if err == nil {
		defer d.Close()
		err = d.Run(v.ctx)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// committedWindows counts what all daemons have committed but the starts of sources.
func committedWindows(s status.Snapshot) uint64 {
	n := s.Totals.Windows
	for i := range s.Sources {
		n -= s.Sources[i].Counts.Windows[cdr.Start]
	}
	return n
}

// busy reports whether some window is on its way, so that a kill now cuts it.
func busy(s status.Snapshot) bool {
	for _, source := range s.Sources {
		if source.State == status.Fetching || source.State == status.Committing {
			return true
		}
	}
	return false
}
