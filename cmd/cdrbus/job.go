package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"cdrbus/internal/jobs"
	"cdrbus/offsets"
)

// jobFlags are those of every command that leaves a job with a source's owner.
type jobFlags struct {
	config string
	detach bool
	output outputFlag
}

func (f *jobFlags) register(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().BoolVar(&f.detach, "detach", false, "leave the job with the source's owner and end at once")
	f.output.register(cmd)
}

func newJobs() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "See, rejoin and cancel what was left with the owners of the sources",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
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
	fmt.Fprintln(table, "ID\tKIND\tSOURCE\tSPAN\tSTATE\tDONE TO\tPUBLISHED\tMESSAGE")
	for _, s := range all {
		span, next := s.Job.Span.String(), s.Next.String()
		if s.Job.Span.IsZero() { // an edit of the position
			span, next = "", ""
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", s.Job.ID, s.Job.Kind, s.Job.Source, span, cmp.Or(s.Phase, "not accepted"), next, s.Published, s.Message)
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
with it.`,
		Example: "  cdrbus jobs follow 20261122-101500-3f2a9c41 -c cdrbus.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withKafka(&flags, func(k *commandKafka) error {
				return followJob(cmd, k, &flags, args[0], func(ctx context.Context, r *jobs.Runner) (offsets.JobState, error) {
					return r.Rejoin(ctx, args[0])
				})
			})
		},
	}
	configFlag(cmd, &flags.config)
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
				place, err := jobs.Find(cmd.Context(), k.reader, k.config, args[0])
				if err != nil {
					return err
				}
				return jobs.Cancel(cmd.Context(), k.runner.Client, k.config, place.Job)
			})
		},
	}
	configFlag(cmd, &flags.config)
	return cmd
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
	return followJob(cmd, k, flags, job.ID, func(ctx context.Context, r *jobs.Runner) (offsets.JobState, error) { return r.Run(ctx, job) })
}

// followJob shows a job's progress and, at its end, what came of it.
func followJob(cmd *cobra.Command, k *commandKafka, flags *jobFlags, id string, run func(context.Context, *jobs.Runner) (offsets.JobState, error)) error {
	log, err := newLogger(k.config.Log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	progress := newJobProgress(cmd.ErrOrStderr(), id)
	defer progress.end()
	r := k.runner
	r.Log = log.WithOptions(zap.IncreaseLevel(zap.WarnLevel)) // the progress tells the rest
	r.Waiting, r.Alone, r.Each = progress.waiting, progress.alone, progress.show
	state, err := run(cmd.Context(), &r)
	progress.end()
	switch {
	case cmd.Context().Err() != nil && !state.Phase.Ended():
		fmt.Fprintf(cmd.ErrOrStderr(), "left; come back with: cdrbus jobs follow %s -c %s\n", id, flags.config)
		return nil
	case err != nil:
		return err
	}
	return showJob(cmd.OutOrStdout(), state, flags.output.json)
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
		if s.SkippedSeconds > 0 {
			fmt.Fprintf(w, "%s of it could not be read: %s\n", time.Duration(s.SkippedSeconds)*time.Second, s.Message)
		}
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

// jobProgress is a bar on a terminal, and a line now and then anywhere else.
type jobProgress struct {
	out      io.Writer
	id       string
	bar      *progressbar.ProgressBar
	terminal bool
	told     time.Time
}

func newJobProgress(out io.Writer, id string) *jobProgress {
	file, ok := out.(*os.File)
	return &jobProgress{out: out, id: id, terminal: ok && term.IsTerminal(int(file.Fd()))}
}

func (p *jobProgress) waiting(patience time.Duration) {
	fmt.Fprintf(p.out, "job %s: waiting up to %s for the source's owner\n", p.id, patience)
}

func (p *jobProgress) alone() {
	fmt.Fprintf(p.out, "job %s: no daemon is at it, doing it here\n", p.id)
}

// linesEvery is how often progress is told where there is no terminal.
const linesEvery = 10 * time.Second

func (p *jobProgress) show(s offsets.JobState) {
	done, all := int64(s.Next-s.Job.Span.StartInclusive), int64(s.Job.Span.EndExclusive-s.Job.Span.StartInclusive)
	text := fmt.Sprintf("%s %s: %d published, at %s", s.Job.Kind, s.Job.Source, s.Published, s.Next)
	switch {
	case p.terminal && p.bar == nil:
		p.bar = progressbar.NewOptions64(all,
			progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(text), progressbar.OptionShowBytes(false),
			progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionFullWidth())
		fallthrough
	case p.terminal:
		p.bar.Describe(text)
		_ = p.bar.Set64(done)
	case time.Since(p.told) > linesEvery:
		p.told = time.Now()
		fmt.Fprintf(p.out, "%s (%.0f %%)\n", text, 100*float64(done)/float64(max(all, 1)))
	}
}

func (p *jobProgress) end() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.out)
		p.bar = nil
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
