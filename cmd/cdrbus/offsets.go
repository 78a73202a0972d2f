package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/term"

	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/mend"
	"cdrbus/internal/positions"
	"cdrbus/offsets"
)

func newOffsets() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "offsets",
		Short: "See how far the sources are committed, and mend that",
		Long: `offsets shows the positions of the sources, and changes one as you say: each refusal
of a source names one of these commands. docs/offsets.md tells them all.

What changes a position says first what it is before and after, and what is fetched
again, repeated or lost; --dry-run ends there. Then the owner of the source does it,
between two of its commits; with no daemon running, this command does it itself.`,
		Example: `  cdrbus offsets list -c cdrbus.yaml
  cdrbus offsets set acme --from-receipts -c cdrbus.yaml --dry-run
  cdrbus offsets reset acme --to 2026-11-22T00:00:00Z -c cdrbus.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOffsetsList(), newOffsetsGet(), newOffsetsSet(), newOffsetsReset(), newOffsetsMove(), newOffsetsAdopt())
	return cmd
}

func newOffsetsList() *cobra.Command {
	var path string
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "list -c FILE",
		Short: "All sources, and whatever else has a position in the topic",
		Long: `list shows how far each source is committed and what a restore would say of its
position. It only reads, and disturbs no daemon.`,
		Example: "  cdrbus offsets list -c cdrbus.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPositions(path, func(log *positions.Log, _ *mend.Mender) error {
				rows, err := log.List(cmd.Context())
				if err != nil {
					return err
				}
				if output.json {
					return writeJSON(cmd.OutOrStdout(), rows)
				}
				return writeWithPath(cmd.OutOrStdout(), path, func(w io.Writer) error { return positions.WriteRows(w, rows) })
			})
		},
	}
	configFlag(cmd, &path)
	output.register(cmd)
	return cmd
}

func newOffsetsGet() *cobra.Command {
	var path string
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "get SOURCE -c FILE",
		Short: "One position, whole, and what a restore would say of it",
		Long: `get shows all of a source's position, what its ID journal and its receipts hold, and
whether a restore would take it. It only reads, and disturbs no daemon.`,
		Example: "  cdrbus offsets get acme -c cdrbus.yaml -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withPositions(path, func(log *positions.Log, _ *mend.Mender) error {
				source, err := log.Config.SourceNamed(args[0])
				if err != nil {
					return usageError{err}
				}
				report, err := log.Get(cmd.Context(), source)
				if err != nil {
					return err
				}
				if output.json {
					return writeJSON(cmd.OutOrStdout(), report)
				}
				return writeWithPath(cmd.OutOrStdout(), path, report.Write)
			})
		},
	}
	configFlag(cmd, &path)
	output.register(cmd)
	return cmd
}

// editFlags are those of every command that changes a position.
type editFlags struct {
	config      string
	dryRun, yes bool
	wait        time.Duration
	output      outputFlag
}

func (f *editFlags) register(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be changed, fetched again, repeated and lost, and change nothing")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do it without asking")
	waitFlag(cmd, &f.wait, daemon.JobPatience, "how long a daemon may take to accept the edit before this command does it itself")
	f.output.register(cmd)
}

func newOffsetsSet() *cobra.Command {
	var flags editFlags
	var fromReceipts bool
	var published string
	var journalFrom int64
	cmd := &cobra.Command{
		Use:   "set SOURCE --from-receipts | --published TIME | --journal-from OFFSET -c FILE",
		Short: "Write a position anew that cannot be trusted",
		Long: `set --from-receipts makes the position anew from the last receipt of the source: for
one that is lost, damaged, contradicted or forged. Nothing is lost, and nothing is
published twice that the ID journal knows.

set --published TIME does so where you know better, or where no receipt is left.

set --journal-from OFFSET gives up the ID journal before an offset, where it cannot
be read. What the feed still returns of those records is published again.

TIME is a day (its first second in UTC), RFC 3339, or a time ago (36h, 30d).`,
		Example: `  cdrbus offsets set acme --from-receipts -c cdrbus.yaml
  cdrbus offsets set acme --published 2026-11-22T00:00:00Z -c cdrbus.yaml --dry-run
  cdrbus offsets set acme --journal-from 41875 -c cdrbus.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd, args, func(source *config.Source) (edit offsets.Edit, err error) {
				switch {
				case fromReceipts:
					edit.What = offsets.EditFromReceipts
				case published != "":
					edit.What = offsets.EditPublished
					edit.To, err = timeFlag("--published", published, source, time.Now())
				case journalFrom < 0:
					err = usageError{fmt.Errorf("--journal-from: offset %d", journalFrom)}
				default:
					edit.What, edit.JournalFrom = offsets.EditJournalFrom, journalFrom
				}
				return edit, err
			})
		},
	}
	cmd.Flags().BoolVar(&fromReceipts, "from-receipts", false, "as the last receipt says")
	cmd.Flags().StringVar(&published, "published", "", "published to this time")
	cmd.Flags().Int64Var(&journalFrom, "journal-from", 0, "offset in the shard's partition of the ids topic")
	oneOf(cmd, "from-receipts", "published", "journal-from")
	flags.register(cmd)
	return cmd
}

func newOffsetsReset() *cobra.Command {
	var flags editFlags
	var to string
	cmd := &cobra.Command{
		Use:   "reset SOURCE --to TIME -c FILE",
		Short: "Let the live edge of a source go back or forward to a time",
		Long: `reset --to a time before: the records from there on are fetched again. Those that
are published already are left out, as the ID journal knows them: nothing is doubled.

reset --to a time ahead: the records up to there are skipped and recorded as a gap.
The sweeps bring of them, as late, what the feed still answers for.

TIME is a day (its first second in UTC), RFC 3339, a time ago (36h, 30d), or
earliest: as far back as the feed answers.`,
		Example: `  cdrbus offsets reset acme --to 2026-11-22T00:00:00Z -c cdrbus.yaml --dry-run
  cdrbus offsets reset acme --to 36h -c cdrbus.yaml --yes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd, args, func(source *config.Source) (offsets.Edit, error) {
				at, err := timeFlag("--to", to, source, time.Now())
				return offsets.Edit{What: offsets.EditReset, To: at}, err
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the time")
	oneOf(cmd, "to")
	flags.register(cmd)
	return cmd
}

func newOffsetsMove() *cobra.Command {
	var flags editFlags
	var from, to int
	cmd := &cobra.Command{
		Use:   "move SOURCE --from-shard A --to-shard B -c FILE",
		Short: "Take a source along to the shard where the configuration places it now",
		Long: `move writes the position to another shard, after a change of shard_key, credential
or kafka.shards, and copies the IDs of what the source has published. No daemon may
be running. If it is interrupted, no shard runs the source, and the same command goes
on with it. All sources of a credential have to be moved.`,
		Example: "  cdrbus offsets move acme --from-shard 3 --to-shard 11 -c cdrbus.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd, args, func(*config.Source) (offsets.Edit, error) {
				if from < 0 || to < 0 || from == to {
					return offsets.Edit{}, usageError{fmt.Errorf("--from-shard %d --to-shard %d: name two shards", from, to)}
				}
				return offsets.Edit{What: offsets.EditMove, FromShard: from, ToShard: to}, nil
			})
		},
	}
	cmd.Flags().IntVar(&from, "from-shard", 0, "where its position lies")
	cmd.Flags().IntVar(&to, "to-shard", 0, "where the configuration places it")
	oneOf(cmd, "from-shard")
	oneOf(cmd, "to-shard")
	flags.register(cmd)
	return cmd
}

func newOffsetsAdopt() *cobra.Command {
	var flags editFlags
	var all, definition, prefix, shards bool
	cmd := &cobra.Command{
		Use:   "adopt SOURCE|--all --definition|--prefix|--shards -c FILE",
		Short: "Accept that the configuration has changed",
		Long: `adopt accepts, for a source that is refused for it, what the configuration says now:

--definition  another endpoint, host, path or other locations. The source goes on from
              where it is; the command that fetches the past of a new scope is printed.
--prefix      another kafka.transactional_id_prefix. Owners under the former one are
              fenced, once; none may be configured so any more.
--shards      another kafka.shards, which can only grow. First add the partitions to the
              offsets, windows, ids, deadletter and jobs topics, as cdrbus run says. A
              source whose shard changes with that is moved, for which no daemon may run.`,
		Example: `  cdrbus offsets adopt acme --definition -c cdrbus.yaml
  cdrbus offsets adopt --all --shards -c cdrbus.yaml --dry-run`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			edit := offsets.Edit{What: offsets.EditShards}
			switch {
			case definition:
				edit.What = offsets.EditDefinition
			case prefix:
				edit.What = offsets.EditPrefix
			}
			if all == (len(args) == 1) {
				return usageError{errors.New("name one source, or --all")}
			}
			if all {
				return flags.runAll(cmd, edit)
			}
			return flags.run(cmd, args, func(*config.Source) (offsets.Edit, error) { return edit, nil })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every source that is refused for it")
	cmd.Flags().BoolVar(&definition, "definition", false, "what the source asks for")
	cmd.Flags().BoolVar(&prefix, "prefix", false, "kafka.transactional_id_prefix")
	cmd.Flags().BoolVar(&shards, "shards", false, "kafka.shards")
	oneOf(cmd, "definition", "prefix", "shards")
	flags.register(cmd)
	return cmd
}

// oneOf demands that just one of these flags is given. Its error is one of usage.
func oneOf(cmd *cobra.Command, names ...string) {
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		given := 0
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				given++
			}
		}
		switch {
		case given != 1 && len(names) == 1:
			return usageError{fmt.Errorf("--%s is missing; see '%s --help'", names[0], cmd.CommandPath())}
		case given != 1:
			return usageError{fmt.Errorf("give one of --%s; see '%s --help'", strings.Join(names, ", --"), cmd.CommandPath())}
		case before != nil:
			return before(cmd, args)
		}
		return nil
	}
}

// withPositions loads the configuration and connects to Kafka for the time of do.
func withPositions(path string, do func(*positions.Log, *mend.Mender) error) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	registry, err := daemon.NewRegistry(cfg, nil)
	if err != nil {
		return err
	}
	client, err := daemon.Connect(cfg)
	if err != nil {
		return err
	}
	defer kafkaconn.Close(client)
	log := &positions.Log{Config: cfg, Reader: committed.NewReader(client), SchemaByID: registry.SchemaByID}
	return do(log, &mend.Mender{Config: cfg, Client: client, Version: version().Version, By: hostName()})
}

// run does one edit: what it makes of the position is shown, then asked for, then done.
func (f *editFlags) run(cmd *cobra.Command, args []string, edit func(*config.Source) (offsets.Edit, error)) error {
	if err := checkWait(f.wait); err != nil {
		return err
	}
	return withPositions(f.config, func(log *positions.Log, m *mend.Mender) error {
		source, err := log.Config.SourceNamed(args[0])
		if err != nil {
			return usageError{err}
		}
		wanted, err := edit(source)
		if err != nil {
			return err
		}
		plan, wanted, err := f.plan(cmd.Context(), log, source, wanted)
		if err != nil {
			return err
		}
		if err := f.show(cmd, plan); err != nil || f.dryRun {
			return err
		}
		if err := f.confirm(cmd); err != nil {
			return err
		}
		return f.do(cmd, m, source, wanted, plan)
	})
}

// plan makes the plan of an edit. A source that another number of shards places
// elsewhere adopts that by moving there.
func (f *editFlags) plan(ctx context.Context, log *positions.Log, source *config.Source, edit offsets.Edit) (*positions.Plan, offsets.Edit, error) {
	plan, err := log.Plan(ctx, source, edit)
	refusal := (*offsets.Refusal)(nil)
	if edit.What == offsets.EditShards && errors.As(err, &refusal) && refusal.Code == offsets.PositionElsewhere {
		edit = offsets.Edit{What: offsets.EditMove, FromShard: refusal.Partition, ToShard: source.Shard(log.Config.Kafka.Shards)}
		plan, err = log.Plan(ctx, source, edit)
	}
	return plan, edit, err
}

func (f *editFlags) show(cmd *cobra.Command, plan *positions.Plan) error {
	if f.output.json {
		return writeJSON(cmd.OutOrStdout(), plan)
	}
	if err := writeWithPath(cmd.OutOrStdout(), f.config, plan.Write); err != nil || !f.dryRun {
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), "Nothing was changed.")
	return err
}

// confirm asks on a terminal. Elsewhere --yes has to answer.
func (f *editFlags) confirm(cmd *cobra.Command) error {
	if f.yes {
		return nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usageError{errors.New("there is no terminal to ask on: look at it with --dry-run, then give --yes")}
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Do this? Type yes: ")
	answers := make(chan string, 1)
	go func() { // it ends with the program, if nobody answers
		answer, _ := bufio.NewReader(in).ReadString('\n') // cut short, it is not yes
		answers <- answer
	}()
	select {
	case <-cmd.Context().Done():
		fmt.Fprintln(cmd.ErrOrStderr())
		return errors.New("not done: interrupted")
	case answer := <-answers:
		if strings.TrimSpace(answer) != "yes" {
			return errors.New("not done: the answer was not yes")
		}
		return nil
	}
}

func (f *editFlags) do(cmd *cobra.Command, m *mend.Mender, source *config.Source, edit offsets.Edit, plan *positions.Plan) error {
	log, err := newLogger(m.Config.Log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	m.Log = log.WithOptions(zap.IncreaseLevel(zap.WarnLevel))
	m.Patience = f.wait
	m.Tell = func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }
	message, err := m.Do(cmd.Context(), source, edit)
	if err != nil {
		return fmt.Errorf("source %s: %w", source.Name, err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "done: source %s: %s\n", source.Name, message)
	for _, command := range plan.Next {
		fmt.Fprintf(cmd.ErrOrStderr(), "afterwards: %s\n", withPath(command, f.config))
	}
	return nil
}

// runAll does an edit of every source that is refused for what it accepts.
func (f *editFlags) runAll(cmd *cobra.Command, edit offsets.Edit) error {
	if err := checkWait(f.wait); err != nil {
		return err
	}
	return withPositions(f.config, func(log *positions.Log, m *mend.Mender) error {
		type planned struct {
			source *config.Source
			edit   offsets.Edit
			plan   *positions.Plan
		}
		var all []planned
		for i := range log.Config.Sources {
			source := &log.Config.Sources[i]
			plan, wanted, err := f.plan(cmd.Context(), log, source, edit)
			if never := (positions.Impossible{}); errors.As(err, &never) {
				fmt.Fprintf(cmd.ErrOrStderr(), "left as it is: %v\n", err)
				continue
			}
			if err != nil {
				return err
			}
			all = append(all, planned{source, wanted, plan})
		}
		plans := make([]*positions.Plan, len(all))
		for i, p := range all {
			plans[i] = p.plan
		}
		if err := f.showAll(cmd, plans); err != nil || f.dryRun || len(all) == 0 {
			return err
		}
		if err := f.confirm(cmd); err != nil {
			return err
		}
		for _, p := range all {
			if err := f.do(cmd, m, p.source, p.edit, p.plan); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *editFlags) showAll(cmd *cobra.Command, plans []*positions.Plan) error {
	if f.output.json {
		return writeJSON(cmd.OutOrStdout(), plans)
	}
	for _, plan := range plans {
		if err := writeWithPath(cmd.OutOrStdout(), f.config, plan.Write); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout())
	}
	note := ""
	if f.dryRun || len(plans) == 0 {
		note = " Nothing was changed."
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d sources to change.%s\n", len(plans), note)
	return err
}
