package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"cdrbus/internal/status"
)

// release is set by the linker (-X main.release=1.2.3) for a release.
var release = ""

// version describes the program from what the linker and the toolchain put in.
func version() status.Build {
	build := status.Build{Version: release, GoVersion: runtime.Version()}
	if build.Version == "" {
		build.Version = "dev"
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				build.Revision = setting.Value
			}
		}
	}
	return build
}

func newVersion() *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  cdrbus version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			build := version()
			if output.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(build)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "cdrbus %s %s %s\n", build.Version, build.Revision, build.GoVersion)
			return err
		},
	}
	output.register(cmd)
	return cmd
}
