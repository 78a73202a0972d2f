package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cdrbus/internal/simulator"
)

func newSimulate() *cobra.Command {
	options := simulator.DefaultOptions()
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Serve a strict simulation of the Webex Calling feed",
		Long: `simulate serves /v1/cdr_feed, /v1/cdr_stream and the token endpoint with records
made up from a seed, for any time and rate, with every quirk of the real feed as
a switch. What the real feed punishes it punishes, and counts at /stats. The
whole truth is at /truth, for checks.`,
		Example: `  cdrbus simulate --listen 127.0.0.1:8080 --rate 5
  curl 'http://127.0.0.1:8080/truth/count?start=2026-11-22T00:00:00Z&end=2026-11-23T00:00:00Z'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			feed, err := simulator.New(options)
			if err != nil {
				return usageError{err}
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "simulated feed on http://%s/v1/cdr_feed\n", options.Listen)
			for _, organization := range feed.Organizations() {
				fmt.Fprintf(cmd.ErrOrStderr(), "  organization %s: bearer token %s\n", organization.Name, organization.Token)
			}
			return feed.ListenAndServe(cmd.Context())
		},
	}
	options.RegisterFlags(cmd.Flags())
	return cmd
}
