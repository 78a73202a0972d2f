package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"cdrbus/internal/daemon"
	"cdrbus/internal/jobs"
	"cdrbus/offsets"
)

// jobFlags are those of every command that leaves a job with a source's owner.
type jobFlags struct {
	config string
	detach bool
	wait   time.Duration
	output outputFlag
}

// waitFlag registers how long an owner is waited for. That is safe at any length: what
// a command does itself fences the owner, who takes the shard over again and goes on.
func waitFlag(cmd *cobra.Command, wait *time.Duration, usual time.Duration, usage string) {
	cmd.Flags().DurationVar(wait, "wait", usual, usage)
}

// checkWait demands a time that can be waited for.
func checkWait(wait time.Duration) error {
	if wait < time.Second {
		return usageError{fmt.Errorf("--wait %s: want 1s or more; a daemon looks for jobs every 10 seconds", wait)}
	}
	return nil
}

func (f *jobFlags) register(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().BoolVar(&f.detach, "detach", false, "leave the job with the source's owner and end at once")
	waitFlag(cmd, &f.wait, daemon.JobPatience, "how long a daemon may take to accept the job before this command does it itself")
	f.output.register(cmd)
}

func newJobs() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "See, rejoin and cancel what was left with the owners of the sources",
		Long: `jobs shows what backfill, verify and offsets have asked the owners of the sources to
do, and what came of it.`,
		Example: `  cdrbus jobs list -c cdrbus.yaml
  cdrbus jobs follow 20261122-101500-3f2a9c41 -c cdrbus.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJobsList(), newJobsFollow(), newJobsCancel())
	return cmd
}

func newJobsList() *cobra.Command {
	var flags jobFlags
	cmd := &cobra.Command{
		Use:     "list -c FILE",
		Short:   "All jobs that Kafka still knows of, the latest last",
		Example: "  cdrbus jobs list -c cdrbus.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKafka(&flags, func(k *commandKafka) error {
				all, err := jobs.List(cmd.Context(), k.reader, k.config)
				if err != nil {
					return err
				}
				if flags.output.json {
					return writeJSON(cmd.OutOrStdout(), all)
				}
				return writeJobs(cmd.OutOrStdout(), all)
			})
		},
	}
	configFlag(cmd, &flags.config)
	flags.output.register(cmd)
	return cmd
}

func writeJobs(w io.Writer, all []offsets.JobState) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no jobs")
		return err
	}
	fmt.Fprintln(table, "ID\tKIND\tSOURCE\tSPAN\tSTATE\tDONE TO\tPUBLISHED\tMESSAGE")
	for _, s := range all {
		span, next := s.Job.Span.String(), s.Next.String()
		if s.Job.Span.IsZero() { // an edit of the position
			span, next = "", ""
		}
		line := fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s", s.Job.ID, s.Job.Kind, s.Job.Source, span, cmp.Or(s.Phase, "not accepted"), next, s.Published, cmp.Or(s.Message, s.Findings.Summary()))
		fmt.Fprintln(table, strings.TrimRight(line, "\t"))
	}
	return table.Flush()
}

func newJobsFollow() *cobra.Command {
	var flags jobFlags
	cmd := &cobra.Command{
		Use:   "follow ID -c FILE",
		Short: "Come back to a job and follow it to its end",
		Long: `follow shows the progress of a job and ends with it. If nobody is at the job (no
daemon is running, and the command that began it was stopped), this command goes on
with it. It exits as the command that began the job would have.`,
		Example: "  cdrbus jobs follow 20261122-101500-3f2a9c41 -c cdrbus.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKafka(&flags, func(k *commandKafka) error {
				return knownJob(followJob(cmd, k, &flags, args[0], func(ctx context.Context, r *jobs.Runner) (offsets.JobState, error) {
					return r.Rejoin(ctx, args[0])
				}))
			})
		},
	}
	configFlag(cmd, &flags.config)
	waitFlag(cmd, &flags.wait, jobs.RejoinPatience, "how long nothing may come of the job before this command goes on with it itself")
	flags.output.register(cmd)
	return cmd
}

func newJobsCancel() *cobra.Command {
	var flags jobFlags
	cmd := &cobra.Command{
		Use:     "cancel ID -c FILE",
		Short:   "Ask the owner to end a job; what it has published stays",
		Example: "  cdrbus jobs cancel 20261122-101500-3f2a9c41 -c cdrbus.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKafka(&flags, func(k *commandKafka) error {
				return knownJob(cancelJob(cmd, k, args[0]))
			})
		},
	}
	configFlag(cmd, &flags.config)
	return cmd
}

// knownJob marks the error that a job is unknown as the caller's.
func knownJob(err error) error {
	if errors.Is(err, jobs.ErrUnknown) {
		return usageError{fmt.Errorf("%w; 'cdrbus jobs list -c FILE' has those that there are", err)}
	}
	return err
}

// cancelJob asks for the end of a job that has not ended.
func cancelJob(cmd *cobra.Command, k *commandKafka, id string) error {
	all, err := jobs.List(cmd.Context(), k.reader, k.config)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(s offsets.JobState) bool { return s.Job.ID == id })
	if at < 0 {
		return fmt.Errorf("cancel job %s: %w", id, jobs.ErrUnknown)
	}
	if phase := all[at].Phase; phase.Ended() {
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "job %s has ended before: %s\n", id, phase)
		return err
	}
	if err := jobs.Cancel(cmd.Context(), k.runner.Client, k.config, all[at].Job); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "the owner of source %s is asked to end job %s, and looks every 10 seconds\n", all[at].Job.Source, id)
	return err
}

// runJob submits a job and follows it, or leaves it where it is.
func runJob(cmd *cobra.Command, k *commandKafka, flags *jobFlags, job offsets.Job) error {
	if flags.detach {
		if err := jobs.Submit(cmd.Context(), k.runner.Client, k.config, job); err != nil {
			return err
		}
		if flags.output.json {
			return writeJSON(cmd.OutOrStdout(), job)
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), job.ID)
		return err
	}
	source, err := k.config.SourceNamed(string(job.Source))
	if err != nil {
		return err
	}
	estimate, err := jobs.EstimateSpan(cmd.Context(), k.reader, k.config, source, job.Span)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "job %s: %s\n", job.ID, costs(estimate))
	return followJob(cmd, k, flags, job.ID, func(ctx context.Context, r *jobs.Runner) (offsets.JobState, error) { return r.Run(ctx, job) })
}

// followJob shows a job's progress and, at its end, what came of it.
func followJob(cmd *cobra.Command, k *commandKafka, flags *jobFlags, id string, run func(context.Context, *jobs.Runner) (offsets.JobState, error)) error {
	if err := checkWait(flags.wait); err != nil {
		return err
	}
	log, err := newLogger(k.config.Log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	progress := newJobProgress(cmd.ErrOrStderr(), id)
	defer progress.end()
	r := k.runner
	r.Patience = flags.wait
	r.Log = log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)) // the progress tells the rest
	r.Waiting, r.Alone, r.Each = progress.waiting, progress.alone, progress.show
	state, err := run(cmd.Context(), &r)
	progress.end()
	switch {
	case cmd.Context().Err() != nil && !state.Phase.Ended():
		return progress.left()
	case err != nil:
		return err
	}
	return showJob(cmd.OutOrStdout(), state, flags.output.json)
}

// sayUnread writes how much of its span a job found to be beyond the feed's reach.
func sayUnread(w io.Writer, s offsets.JobState) {
	if s.SkippedSeconds > 0 {
		fmt.Fprintf(w, "%s of it could not be read: %s\n", time.Duration(s.SkippedSeconds)*time.Second, s.Message)
	}
}

// showJob writes what came of a job. One that did not get to its end is an error.
func showJob(w io.Writer, s offsets.JobState, asJSON bool) error {
	if asJSON {
		if err := writeJSON(w, s); err != nil {
			return err
		}
	} else if s.Phase == offsets.JobDone && s.Job.Kind == offsets.Backfill {
		fmt.Fprintf(w, "%s of %s, %s: %d records in %d windows, %d published, %d known already, %d revised, %d dead letters\n",
			s.Job.Kind, s.Job.Source, s.Job.Span, s.Items, s.Windows, s.Published, s.Known, s.Revised, s.DeadLetters)
		sayUnread(w, s)
	} else if s.Phase == offsets.JobDone && s.Job.Kind == offsets.Mend {
		fmt.Fprintf(w, "edit of %s: %s\n", s.Job.Source, s.Message)
	}
	switch {
	case s.Phase == offsets.JobDone && s.Job.Kind == offsets.Verify:
		return showFindings(w, s, asJSON)
	case s.Phase != offsets.JobDone:
		return fmt.Errorf("job %s has %s: %s", s.Job.ID, s.Phase, s.Message)
	default:
		return nil
	}
}

// hostName tells who asked for a job.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown host"
	}
	return name
}
