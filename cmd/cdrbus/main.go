// Command cdrbus publishes Webex Calling call detail records to Kafka, exactly once.
//
// This package parses flags, wires the daemon and maps errors to exit codes. It
// holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"cdrbus/internal/config"
)

// Exit codes, the same for every command.
const (
	exitAsked      = 0 // the asked-for end
	exitFailure    = 1 // something failed
	exitUsage      = 2 // the command line or the configuration is wrong
	exitDifference = 3 // a check found a difference
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitAsked
	}
	text := err.Error()
	if path := cmd.Flags().Lookup("config"); path != nil {
		text = withPath(text, path.Value.String())
	}
	fmt.Fprintf(stderr, "cdrbus: %s\n", text)
	return exitCode(err)
}

// usageError marks an error as the caller's: a wrong flag or argument.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// differenceError marks the outcome of a check that found a difference.
type differenceError struct{ error }

func (e differenceError) Unwrap() error { return e.error }

func exitCode(err error) int {
	var usage usageError
	var problems config.Problems
	var difference differenceError
	switch {
	case errors.As(err, &usage), errors.As(err, &problems):
		return exitUsage
	case errors.As(err, &difference):
		return exitDifference
	default:
		return exitFailure
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "cdrbus",
		Short: "Webex Calling call detail records on Kafka, exactly once",
		Long: `cdrbus polls the Webex Calling CDR feed, turns every record into an Avro event
keyed by Correlation ID and publishes it to Kafka. Its position is committed in
the same transaction as the events, so no restart loses or doubles a record.`,
		Example: `  cdrbus demo                      see all of it at work, nothing to install
  cdrbus run -c cdrbus.yaml        the daemon
  cdrbus config check -c cdrbus.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
	})
	root.AddCommand(newDemo(), newRun(), newStatus(), newCoverage(), newBackfill(), newVerify(), newTail(), newOffsets(), newJobs(),
		newDoctor(), newSchema(), newConfig(), newSimulate(), newVersion())
	markArgumentErrors(root)
	return root
}

// markArgumentErrors makes a wrong number of arguments, or an unknown
// subcommand, an error of usage on every command.
func markArgumentErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		markArgumentErrors(sub)
	}
}
