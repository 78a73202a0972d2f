package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cdrbus/internal/daemon"
	"cdrbus/schema"
)

func newSchema() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Show, check or register the Avro schema of the events",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSchemaShow(), newSchemaCheck(), newSchemaRegister())
	return cmd
}

func newSchemaShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Print the Avro schema as JSON",
		Example: "  cdrbus schema show | jq .fields[0]",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), schema.AvroJSON())
			return err
		},
	}
}

func newSchemaCheck() *cobra.Command {
	var output outputFlag
	cmd := schemaCommand("check", "Ask the registry whether it would accept the schemas; exit code 3 if not",
		func(ctx context.Context, cmd *cobra.Command, r *schema.Registry, subjects []daemon.Subject) error {
			var incompatible error
			for _, subject := range subjects {
				result, err := r.Check(ctx, subject.Name, subject.Schema)
				if err != nil {
					return err
				}
				if !result.Compatible {
					incompatible = errors.Join(incompatible, fmt.Errorf("subject %s: incompatible: %s", subject.Name, strings.Join(result.Messages, "; ")))
				}
				if err := printSubject(cmd, output, subject.Name, result); err != nil {
					return err
				}
			}
			if incompatible != nil {
				return differenceError{incompatible}
			}
			return nil
		})
	output.register(cmd)
	return cmd
}

func printSubject(cmd *cobra.Command, output outputFlag, subject string, result schema.Compatibility) error {
	if output.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"subject": subject, "result": result})
	}
	verdict := "compatible"
	if !result.Compatible {
		verdict = "incompatible"
	}
	registered := "not registered yet"
	if result.ID != 0 {
		registered = fmt.Sprintf("registered with id %d", result.ID)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s\n", subject, verdict, registered)
	for _, difference := range append(result.Messages, result.Differences...) {
		fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", difference)
	}
	return nil
}

func newSchemaRegister() *cobra.Command {
	return schemaCommand("register", "Register the schemas of all topics, for registries that the daemon may not write to",
		func(ctx context.Context, cmd *cobra.Command, r *schema.Registry, subjects []daemon.Subject) error {
			for _, subject := range subjects {
				id, err := r.Resolve(ctx, subject.Name, subject.Schema, true)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: id %d\n", subject.Name, id)
			}
			return nil
		})
}

type schemaAction func(ctx context.Context, cmd *cobra.Command, r *schema.Registry, subjects []daemon.Subject) error

// schemaCommand is a command that talks to the registry of a configuration.
func schemaCommand(name, short string, act schemaAction) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:     name + " -c FILE",
		Short:   short,
		Example: "  cdrbus schema " + name + " -c cdrbus.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			registry, err := daemon.NewRegistry(cfg, nil)
			if err != nil {
				return err
			}
			return act(cmd.Context(), cmd, registry, daemon.Subjects(cfg))
		},
	}
	configFlag(cmd, &path)
	return cmd
}
