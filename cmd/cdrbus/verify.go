package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"cdrbus/internal/cdr"
	"cdrbus/internal/jobs"
	"cdrbus/offsets"
)

func newVerify() *cobra.Command {
	var span spanFlags
	var run jobFlags
	var fields, repair bool
	cmd := &cobra.Command{
		Use:   "verify -c FILE --source NAME --from TIME [--to TIME]",
		Short: "Read a span of the feed again and hold it against the events topic",
		Long: `verify reads a span of the feed once more and compares it with the events topic,
record by record, by Report ID. It lists what is missing (in the feed, but neither
in the topic nor a dead letter), unexpected (in the topic, but no longer in the
feed), doubled (twice in the topic with the same content) and, with --fields,
different (the topic's last content is not the feed's), and exits with 3 if there
is any.

With --repair what is missing is published, through the same commit as everything
else; it then counts as mended, and what else differs still makes the exit code 3.

The source's owner does the reading, beside the live edge, with at least a fifth of
the request budget; Ctrl-C leaves it running ('cdrbus jobs follow ID'). If no daemon
is running, this command does it itself. A record that appeared so late that no
sweep has met it yet is missing, too.

TIME is RFC 3339, a time ago (36h, 30d), or earliest.`,
		Example: `  cdrbus verify -c cdrbus.yaml --source acme --from 2026-11-21T00:00:00Z --to 2026-11-22T00:00:00Z
  cdrbus verify -c cdrbus.yaml --source acme --from 7d --fields -o json
  cdrbus verify -c cdrbus.yaml --source acme --from 7d --repair`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKafka(&run, func(k *commandKafka) error {
				source, asked, err := span.resolve(k.config, time.Now())
				if err != nil {
					return err
				}
				job := jobs.New(offsets.Verify, cdr.SourceName(source.Name), hostName())
				job.Span, job.UpToEdge, job.Fields, job.Repair = asked, span.to == "", fields, repair
				return runJob(cmd, k, &run, job)
			})
		},
	}
	span.register(cmd)
	run.register(cmd)
	cmd.Flags().BoolVar(&fields, "fields", false, "compare what the records say, too")
	cmd.Flags().BoolVar(&repair, "repair", false, "publish what is missing")
	return cmd
}

// showFindings writes what a verification found. A difference is an error of its own.
func showFindings(w io.Writer, s offsets.JobState, asJSON bool) error {
	f := s.Findings
	if f == nil {
		return errors.New("the verification says nothing of what it found")
	}
	if !asJSON {
		fmt.Fprintf(w, "%s of %s: %d records in the feed, %d in the topic: %d missing, %d unexpected, %d doubled, %d different\n",
			s.Job.Span, s.Job.Source, f.FeedRecords, f.Events, f.Missing, f.Unexpected, f.Doubled, f.Different)
		if f.Repaired > 0 {
			fmt.Fprintf(w, "%d of those missing are published now\n", f.Repaired)
		}
		if f.Foreign > 0 {
			fmt.Fprintf(w, "%d records of the topic are no events that could be read; they were passed over\n", f.Foreign)
		}
		for _, finding := range f.Listed {
			fmt.Fprintf(w, "  %-10s %s\n", finding.What, finding.ReportID)
		}
		if all := f.Missing + f.Unexpected + f.Doubled + f.Different; int64(len(f.Listed)) < all {
			fmt.Fprintf(w, "  and %d more\n", all-int64(len(f.Listed)))
		}
	}
	if f.Differ() {
		return differenceError{fmt.Errorf("feed and topic differ in %s of source %s", s.Job.Span, s.Job.Source)}
	}
	return nil
}
