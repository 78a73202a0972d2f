package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"cdrbus/internal/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show a configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheck(), newConfigShow())
	return cmd
}

func newConfigCheck() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Report all that is wrong with a configuration, at once",
		Long: `check reads the configuration as run would and reports every problem with its
line and remedy. It opens no connection. The exit code is 2 if there is any.`,
		Example: "  cdrbus config check -c cdrbus.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			for _, warning := range cfg.Warnings() {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good (%d sources, delivery %s)\n", path, len(cfg.Sources), cfg.Delivery)
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func newConfigShow() *cobra.Command {
	var path string
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "show -c FILE",
		Short: "Print the configuration in force, without its secrets",
		Long: `show prints every key with its value after defaults, file and environment have
been put together. Secrets are shown as where they come from, never as they are.`,
		Example: "  CDRBUS_KAFKA_BROKERS=kafka:9092 cdrbus config show -c cdrbus.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			return showConfig(cmd, cfg, output.json)
		},
	}
	configFlag(cmd, &path)
	output.register(cmd)
	return cmd
}

func showConfig(cmd *cobra.Command, cfg *config.Config, asJSON bool) error {
	if asJSON {
		text, err := cfg.ShowJSON()
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	text, err := cfg.Show()
	if err != nil {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text)
	return err
}
