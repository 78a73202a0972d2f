package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/doctor"
	"cdrbus/internal/probe"
	"cdrbus/poller"
)

// doctorFlags are what doctor was asked for.
type doctorFlags struct {
	config, source, report string
	output                 outputFlag

	probe, beside, forbidden, provoke, lifetime bool
	watch                                       time.Duration
}

func newDoctor() *cobra.Command {
	var flags doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor -c FILE [--source NAME] [--probe]",
		Short: "Check every assumption, each with its remedy; --probe asks the feed what its documents leave open",
		Long: `doctor checks what a configuration needs of the world, and says what to do about
each difference: tokens and where they are kept, hosts and certificates, clocks,
brokers and topics, registry and schemas. It asks Webex for no records and writes
nothing to Kafka. A token that is due is renewed. The exit code is 3 if a check fails.

With --probe it asks one source's feed the questions that the documents leave open:
by which time a window selects, whether its bounds belong to it, what totalCount
means, how late records are, which types fields have, and so on (docs/probe.md).
That takes about half an hour at the documented limits of 1 initial request a
minute. It publishes nothing and moves no position. The report holds counts,
durations and names of fields, and neither names, numbers, IDs nor tokens, so that
it can be shown around. Ctrl-C ends it early, with a report of what it has.
The exit code is 3 if the feed does what cdrbus must be configured for, and 1 if
not everything could be asked.

A daemon of the same credential spends the same budget: --probe refuses while one
answers at admin.listen, unless --beside is given.`,
		Example: `  cdrbus doctor -c cdrbus.yaml
  cdrbus doctor -c cdrbus.yaml --probe --source acme --report acme.json
  cdrbus doctor -c cdrbus.yaml --probe --source acme --for 2h --also-forbidden --link-lifetime
  cdrbus doctor -c cdrbus.yaml --probe --source acme --beside -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.probe {
				return runProbe(cmd, &flags)
			}
			return runDoctor(cmd, &flags)
		},
	}
	configFlag(cmd, &flags.config)
	flags.output.register(cmd)
	f := cmd.Flags()
	f.StringVar(&flags.source, "source", "", "the source meant (default: all; with --probe: the only one)")
	f.StringVar(&flags.report, "report", "", "write the report as JSON to this file too")
	f.BoolVar(&flags.probe, "probe", false, "ask the feed of one source what its documents leave open")
	f.DurationVar(&flags.watch, "for", 30*time.Minute, "with --probe: how long the youngest window is watched for late and changed records (0: not)")
	f.BoolVar(&flags.beside, "beside", false, "with --probe: go on beside a live daemon, with half of the budget")
	f.BoolVar(&flags.forbidden, "also-forbidden", false, "with --probe: ask for windows that are too wide and too old; the feed may count that against the client")
	f.BoolVar(&flags.provoke, "provoke-429", false, "with --probe: ask too often on purpose, at the end")
	f.BoolVar(&flags.lifetime, "link-lifetime", false, "with --probe: ask an old next link again, for up to 30 minutes")
	return cmd
}

func runDoctor(cmd *cobra.Command, flags *doctorFlags) error {
	cfg, err := loadConfig(flags.config)
	if err != nil {
		return err
	}
	var sources []string
	if flags.source != "" {
		source, err := sourceMeant(cfg, flags.source)
		if err != nil {
			return err
		}
		sources = []string{source.Name}
	}
	checks := doctor.Examine(cmd.Context(), cfg, sources, daemon.Dialing{Version: version().Version})
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if err := writeReport(flags.report, checks); err != nil {
		return err
	}
	if err := printChecks(cmd.OutOrStdout(), checks, flags.output.json); err != nil {
		return err
	}
	if doctor.Failed(checks) {
		return differenceError{errors.New("not everything is as it must be: see above")}
	}
	return nil
}

func printChecks(w io.Writer, checks []doctor.Check, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(checks)
	}
	for _, c := range checks {
		if _, err := fmt.Fprintf(w, "%-5s %s: %s\n", c.Status, c.Subject, c.Says); err != nil {
			return err
		}
		if c.Remedy != "" {
			fmt.Fprintf(w, "      -> %s\n", c.Remedy)
		}
	}
	return nil
}

func runProbe(cmd *cobra.Command, flags *doctorFlags) error {
	cfg, err := loadConfig(flags.config)
	if err != nil {
		return err
	}
	source, err := sourceMeant(cfg, flags.source)
	if err != nil {
		return err
	}
	if err := demandQuiet(cmd.Context(), cfg, flags.beside); err != nil {
		return err
	}
	options, err := probeOptions(cfg, source, flags)
	if err != nil {
		return err
	}
	requests, took := probe.Estimate(options)
	fmt.Fprintf(cmd.ErrOrStderr(), "probing source %s: about %d requests in %s, the first in up to a minute; Ctrl-C ends it with what it has\n", source.Name, requests, took.Round(time.Minute))
	options.Progress = func(p probe.Progress) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s  step %d of %d: %s (%d requests made, about %s left)\n", time.Now().Format(time.TimeOnly), p.Step, p.Steps, p.Doing, p.Requests, p.Left.Round(time.Minute))
	}
	report, ended := probe.Run(cmd.Context(), options)
	if err := writeReport(flags.report, report); err != nil {
		return err
	}
	if flags.output.json {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
	} else {
		err = report.Render(cmd.OutOrStdout())
	}
	if err != nil || ended != nil {
		return errors.Join(err, ended)
	}
	if harmful := report.Harmful(); len(harmful) > 0 {
		return differenceError{fmt.Errorf("the feed does what cdrbus has to be configured for: see %s", strings.Join(harmful, ", "))}
	}
	return nil
}

// probeOptions opens the feed of a source. What a daemon may have asked for just
// now is not known, so both buckets start empty.
func probeOptions(cfg *config.Config, source *config.Source, flags *doctorFlags) (probe.Options, error) {
	dialing := daemon.Dialing{Version: version().Version}
	limits := poller.Limits{InitialPerMinute: source.Limits.InitialPerMinute, PagesPerMinute: source.Limits.PagesPerMinute}
	address, err := source.FeedURL()
	if err != nil {
		return probe.Options{}, err
	}
	options := probe.Options{
		MinAge: source.MinAge, Lookback: source.Lookback, MaxWindow: source.MaxWindow,
		Stream: strings.HasSuffix(address.Path, "/cdr_feed") || strings.HasSuffix(address.Path, "/cdr_stream"),
		For:    flags.watch, AlsoForbidden: flags.forbidden, LinkLifetime: flags.lifetime,
	}
	if flags.beside {
		options.Pace = 2 * time.Minute / time.Duration(limits.InitialPerMinute)
		limits = poller.Limits{InitialPerMinute: max(limits.InitialPerMinute/2, 1), PagesPerMinute: max(limits.PagesPerMinute/2, 1)}
	}
	options.Limits = limits
	tokens, err := daemon.OpenTokens(cfg, source, dialing)
	if err != nil {
		return probe.Options{}, err
	}
	if options.Feed, err = daemon.OpenFeed(cfg, source, tokens, limits, time.Now().Add(-time.Hour), dialing); err != nil {
		return probe.Options{}, err
	}
	if flags.provoke {
		unbridled := poller.Limits{InitialPerMinute: 60, PagesPerMinute: 60}
		if options.Unbridled, err = daemon.OpenFeed(cfg, source, tokens, unbridled, time.Time{}, dialing); err != nil {
			return probe.Options{}, err
		}
	}
	return options, nil
}

// demandQuiet refuses while a daemon answers that spends the same budget.
func demandQuiet(ctx context.Context, cfg *config.Config, beside bool) error {
	if cfg.Admin.Listen == "" || beside {
		return nil
	}
	page := "http://" + cfg.Admin.Listen
	if _, err := fetchStatus(ctx, page+"/status.json?limit=1&history=0"); err != nil {
		return nil // nobody is there
	}
	return fmt.Errorf("a daemon answers at %s, and spends the same request budget: stop it for the time of the probe, or give --beside, which takes half of the budget (either may then be throttled at times)", page)
}

// writeReport writes what was found to a file, if one was asked for.
func writeReport(path string, report any) error {
	if path == "" {
		return nil
	}
	content, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("write report %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
