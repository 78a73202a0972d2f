package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/jobs"
	"cdrbus/internal/kafkaconn"
	"cdrbus/offsets"
)

func newBackfill() *cobra.Command {
	var span spanFlags
	var run jobFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "backfill -c FILE --source NAME --from TIME [--to TIME]",
		Short: "Publish what is missing of a span of time",
		Long: `backfill reads a span of the feed, the oldest first, and publishes what was not
published before, such as the time before a source's start, or a new location's
records. It may overlap what is published: nothing is published twice.

The owner of the source does it, beside the live edge and the sweeps, with at least
a fifth of the request budget, and goes on with it after any restart. Ctrl-C leaves
it running; 'cdrbus jobs follow ID' comes back to it. If no daemon is running, this
command does the work itself.

TIME is a day (its first second in UTC), RFC 3339, a time ago (36h, 30d), or
earliest: as far back as the feed answers.`,
		Example: `  cdrbus backfill -c cdrbus.yaml --source acme --from earliest --dry-run
  cdrbus backfill -c cdrbus.yaml --source acme --from 30d
  cdrbus backfill -c cdrbus.yaml --source acme --from 2026-11-01T00:00:00Z --to 2026-11-03T00:00:00Z`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKafka(&run, func(k *commandKafka) error {
				source, asked, err := span.resolve(k.config, time.Now())
				if err != nil {
					return err
				}
				if dryRun {
					return showEstimate(cmd, k, source, asked, run.output.json)
				}
				job := jobs.New(offsets.Backfill, cdr.SourceName(source.Name), hostName())
				job.Span, job.UpToEdge = asked, span.to == ""
				return runJob(cmd, k, &run, job)
			})
		},
	}
	span.register(cmd)
	run.register(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say how many requests and minutes it would take, and do nothing")
	return cmd
}

// commandKafka is what a command needs beside a daemon.
type commandKafka struct {
	config *config.Config
	reader *committed.Reader
	runner jobs.Runner
}

// withKafka loads the configuration and connects to Kafka for the time of do.
func withKafka(flags *jobFlags, do func(*commandKafka) error) error {
	cfg, err := loadConfig(flags.config)
	if err != nil {
		return err
	}
	client, err := daemon.Connect(cfg)
	if err != nil {
		return err
	}
	defer kafkaconn.Close(client)
	return do(&commandKafka{
		config: cfg, reader: committed.NewReader(client),
		runner: jobs.Runner{Config: cfg, Client: client, Version: version().Version},
	})
}

// spanFlags name a span of one source.
type spanFlags struct{ source, from, to string }

func (f *spanFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.source, "source", "", "name of the source; may be left out if there is only one")
	cmd.Flags().StringVar(&f.from, "from", "", "where the span begins: a day, RFC 3339, a time ago, or earliest")
	cmd.Flags().StringVar(&f.to, "to", "", "where it ends (default: where the source itself is)")
}

// sourceMeant returns the source that --source names; where that is left out, the only
// one.
func sourceMeant(cfg *config.Config, name string) (*config.Source, error) {
	if name == "" && len(cfg.Sources) == 1 {
		return &cfg.Sources[0], nil
	}
	if name == "" {
		return nil, usageError{fmt.Errorf("--source: say which of the %d sources", len(cfg.Sources))}
	}
	source, err := cfg.SourceNamed(name)
	if err != nil {
		return nil, usageError{fmt.Errorf("--source: %w", err)}
	}
	return source, nil
}

// resolve returns the source and the span, which lies where the feed answers.
func (f *spanFlags) resolve(cfg *config.Config, now time.Time) (*config.Source, cdr.Span, error) {
	source, err := sourceMeant(cfg, f.source)
	if err != nil {
		return nil, cdr.Span{}, err
	}
	youngest := now.Add(-source.MinAge - time.Minute)
	span := cdr.Span{EndExclusive: cdr.InstantOf(youngest)}
	if f.from == "" {
		return nil, cdr.Span{}, usageError{errors.New("--from: say where the span begins: a day, RFC 3339, a time ago such as 36h, or earliest")}
	}
	if span.StartInclusive, err = timeFlag("--from", f.from, source, now); err != nil {
		return nil, cdr.Span{}, err
	}
	if f.to != "" {
		if span.EndExclusive, err = timeFlag("--to", f.to, source, now); err != nil {
			return nil, cdr.Span{}, err
		}
	}
	oldest := cdr.InstantOf(now.Add(-source.Lookback))
	switch {
	case span.EndExclusive > cdr.InstantOf(now):
		err = fmt.Errorf("--to: %s lies in the future; the source comes there by itself", span.EndExclusive)
	case span.EndExclusive > cdr.InstantOf(youngest):
		err = fmt.Errorf("--to: %s is too young: the feed answers for what is %s old; leave --to out for the youngest", span.EndExclusive, source.MinAge)
	case span.StartInclusive >= span.EndExclusive:
		err = fmt.Errorf("--from %s is not before --to %s", span.StartInclusive, span.EndExclusive)
	case span.StartInclusive < oldest:
		err = fmt.Errorf("--from: %s is further back than the feed answers (lookback %s): begin at %s, or write earliest", span.StartInclusive, source.Lookback, oldest)
	}
	if err != nil {
		return nil, cdr.Span{}, usageError{err}
	}
	return source, span, nil
}

func timeFlag(flag, text string, source *config.Source, now time.Time) (cdr.Instant, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return cdr.InstantOf(day), nil
	}
	var at config.Start
	if err := at.UnmarshalText([]byte(strings.TrimPrefix(text, "-"))); err != nil {
		return 0, usageError{fmt.Errorf("%s %q: want a day such as 2026-11-22 (UTC), RFC 3339 such as 2026-11-22T06:00:00Z, a time ago such as 36h or 30d, or earliest", flag, text)}
	}
	return at.Resolve(now, source.Lookback), nil
}

func showEstimate(cmd *cobra.Command, k *commandKafka, source *config.Source, span cdr.Span, asJSON bool) error {
	e, err := jobs.EstimateSpan(cmd.Context(), k.reader, k.config, source, span)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if asJSON {
		return writeJSON(out, e)
	}
	rate := "a rate that is not known yet"
	if e.RecordsPerHour > 0 {
		rate = fmt.Sprintf("%.0f records an hour", e.RecordsPerHour)
	}
	_, err = fmt.Fprintf(out, "%s of source %s (%s), at %s:\n  %s\nNothing was asked or published.\n", span, source.Name, span.Duration(), rate, costs(e))
	return err
}

// costs tells what an estimate comes to.
func costs(e jobs.Estimate) string {
	return fmt.Sprintf("%d first requests and %d for further pages, about %s with the whole request budget, at most %s beside a live daemon",
		e.Windows, e.Pages, max(e.Alone, time.Minute), max(e.Beside, time.Minute))
}
