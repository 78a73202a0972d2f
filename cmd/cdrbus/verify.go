package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
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
different (the topic's last content is not the feed's), each with its report time
and either its place in the topic, PARTITION:OFFSET as 'cdrbus tail --from' takes it,
or the key that it would have. It exits with 3 if there is any, and with 1 if it was
interrupted.

With --repair what is missing is published, through the same commit as everything
else; it then counts as mended, and what else differs still makes the exit code 3.

The source's owner does the reading, beside the live edge, with at least a fifth of
the request budget; Ctrl-C leaves it running ('cdrbus jobs follow ID'). If no daemon
is running, this command does it itself. A record that appeared so late that no
sweep has met it yet is missing, too.

TIME is a day (its first second in UTC), RFC 3339, a time ago (36h, 30d), or earliest.`,
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
		sayUnread(w, s)
		if f.Repaired > 0 {
			fmt.Fprintf(w, "%d of those missing are published now\n", f.Repaired)
		}
		if f.Foreign > 0 {
			fmt.Fprintf(w, "%d records of the topic are no events that could be read; they were passed over\n", f.Foreign)
		}
		if err := listFindings(w, f); err != nil {
			return err
		}
		if f.Missing > 0 && !s.Job.Repair {
			fmt.Fprintln(w, "the same command with --repair publishes what is missing")
		}
	}
	if f.Differ() {
		return differenceError{fmt.Errorf("feed and topic differ in %s of source %s", s.Job.Span, s.Job.Source)}
	}
	return nil
}

// shownFindings is how many findings are listed for a person.
const shownFindings = 50

// listFindings writes which records differ, when they were, and where they are in the
// topic or what they would be keyed by.
func listFindings(w io.Writer, f *offsets.Findings) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	shown := f.Listed[:min(len(f.Listed), shownFindings)]
	for _, finding := range shown {
		when, where := "", ""
		if !finding.ReportTime.IsZero() {
			when = finding.ReportTime.Format(time.RFC3339)
		}
		switch {
		case finding.At != "":
			where = "at offset " + finding.At
		case finding.Key != "":
			where = "key " + finding.Key
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", finding.What, finding.ReportID, when, where)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more := f.Missing + f.Unexpected + f.Doubled + f.Different - int64(len(shown)); more > 0 {
		_, err := fmt.Fprintf(w, "  and %d more; -o json lists the first %d\n", more, offsets.MaxListed)
		return err
	}
	return nil
}
