package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"cdrbus/internal/config"
	"cdrbus/internal/demo"
)

func newDemo() *cobra.Command {
	var plain, verbose bool
	options := demo.Options{KillFrom: 3 * time.Second, KillTo: 6 * time.Second}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything at work in one process, with nothing to install",
		Long: `demo runs a simulated feed with all its faults, an embedded Kafka broker and
schema registry, and the daemon, in one process. It kills the daemon in the
middle of a window every few seconds. At the end (--for, or Ctrl-C) it compares
what the feed had with what the topic holds, and exits with 0 only if nothing is
missing and nothing is doubled, with 3 if they differ.`,
		Example: `  cdrbus demo
  cdrbus demo --for 30s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Out, options.Build, options.Log = cmd.OutOrStdout(), version(), zap.NewNop()
			if !plain {
				options.Width = terminalWidth(cmd.OutOrStdout())
			}
			if verbose {
				var err error
				if options.Log, err = newLogger(config.Log{Level: "info", Format: "auto"}, cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			result, err := demo.Run(cmd.Context(), options)
			if err != nil && !errors.Is(err, demo.ErrDifferent) {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), result)
			if err != nil {
				return differenceError{err}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&options.For, "for", 0, "end after this long, once a kill is survived (0: on Ctrl-C)")
	flags.Float64Var(&options.Rate, "rate", 20, "records a second that the feed makes")
	flags.DurationVar(&options.Backlog, "backlog", 2*time.Hour, "how far back the feed's records begin")
	flags.Uint64Var(&options.Seed, "seed", 1, "what the records and faults are made from")
	flags.StringVar(&options.Listen, "listen", "127.0.0.1:0", "address of the status page")
	flags.BoolVar(&plain, "plain", false, "print lines even on a terminal")
	flags.BoolVar(&verbose, "verbose", false, "print the daemon's log to standard error")
	return cmd
}
