package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
)

func newRun() *cobra.Command {
	var path, until string
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Poll the feed and publish to Kafka until stopped",
		Long: `run is the daemon. It polls the sources of the configuration and publishes their
records to Kafka until it gets SIGTERM or SIGINT; then it finishes or aborts the
open commit and exits with 0 within 10 seconds.

With --until it ends by itself: with 0 when every source has published all
records before that time, with 1 when one of them is stopped short of it.`,
		Example: `  cdrbus run -c /etc/cdrbus/cdrbus.yaml
  cdrbus run -c cdrbus.yaml --until 2026-11-22T00:00:00Z`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := parseUntil(until)
			if err != nil {
				return err
			}
			return runDaemon(cmd, path, limit)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&until, "until", "", "end when everything before this RFC 3339 time is published")
	return cmd
}

func parseUntil(text string) (cdr.Instant, error) {
	if text == "" {
		return 0, nil
	}
	until, err := cdr.ParseInstant(text)
	if err != nil {
		return 0, usageError{fmt.Errorf("--until: %w", err)}
	}
	return until, nil
}

func runDaemon(cmd *cobra.Command, path string, until cdr.Instant) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	log, err := newLogger(cfg.Log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	for _, warning := range cfg.Warnings() {
		log.Warn("configuration", zap.String("warning", warning.String()))
	}
	var running atomic.Pointer[daemon.Daemon]
	board := newBoard(cfg, &running)
	ctx := cmd.Context()
	group, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	group.Go(func() error { return serveAdmin(ctx, done, cfg.Admin.Listen, board.Handler(), log) })
	group.Go(func() error {
		defer close(done)
		return polled(ctx, daemon.Options{Config: cfg, Log: log, Board: board, Version: version().Version, Until: until, LimitMemory: true}, &running)
	})
	return group.Wait()
}

// polled is the daemon from its first connection to its end. The end of ctx is
// what was asked for, not an error.
func polled(ctx context.Context, options daemon.Options, running *atomic.Pointer[daemon.Daemon]) error {
	d, err := daemon.New(ctx, options)
	if err == nil {
		defer d.Close()
		running.Store(d)
		err = d.Run(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serveAdmin serves metrics, health and the status page until done is closed. It
// outlives the end of ctx, so that a shutdown can be watched.
func serveAdmin(ctx context.Context, done <-chan struct{}, address string, handler http.Handler, log *zap.Logger) error {
	if address == "" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for the status page on %s (taken? choose another admin.listen): %w", address, err)
	}
	log.Info("status page", zap.String("url", "http://"+listener.Addr().String()+"/"))
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-done
		graceful, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(graceful)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the status page on %s: %w", address, err)
	}
	return nil
}

func loadConfig(path string) (*config.Config, error) {
	if path == "" {
		return nil, usageError{errors.New("no configuration: give one with -c FILE")}
	}
	return config.Load(path, os.Environ())
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration file (YAML)")
}
