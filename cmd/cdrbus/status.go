package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/status"
)

// newBoard makes the board of a daemon. Its page masks personal data.
func newBoard(cfg *config.Config, running *atomic.Pointer[daemon.Daemon]) *status.Board {
	return status.New(version(), status.Options{
		Delivery: string(cfg.Delivery),
		Decode:   daemon.DecodeEvent,
		Memory: func() (usedBytes, limitBytes int64) {
			if d := running.Load(); d != nil {
				return d.Memory()
			}
			return 0, int64(cfg.Memory.Budget)
		},
		Coverage: daemon.NewCoverage(cfg),
	})
}

func newStatus() *cobra.Command {
	var path, url string
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "status [-c FILE | --url URL]",
		Short: "Show how a running daemon is doing",
		Long: `status asks a running daemon, at the admin.listen of its configuration or at --url,
for what its status page shows: totals, what waits for a person, sources, the last
events, shards. A member of a fleet (ownership: group) tells of the sources that it
has itself, and which member has how many of the others.`,
		Example: `  cdrbus status -c cdrbus.yaml
  cdrbus status --url http://127.0.0.1:9464 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, err := statusPage(path, url)
			if err != nil {
				return err
			}
			return showStatus(cmd, page+"/status.json", output.json)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&url, "url", "", "the daemon's status page, of any member in a fleet (default http://127.0.0.1:9464)")
	output.register(cmd)
	return cmd
}

// statusPage returns the address of the daemon's status page: the one given, else
// that of the configuration, else the usual one.
func statusPage(configPath, url string) (string, error) {
	switch {
	case url != "" && !strings.Contains(url, "://"):
		return "http://" + strings.TrimSuffix(url, "/"), nil
	case url != "":
		return strings.TrimSuffix(url, "/"), nil
	case configPath == "":
		return "http://127.0.0.1:9464", nil
	}
	cfg, err := loadConfig(configPath)
	if err != nil {
		return "", err
	}
	if cfg.Admin.Listen == "" {
		return "", usageError{errors.New("this configuration has no status page (admin.listen is empty); where another way sets it, give --url")}
	}
	return "http://" + cfg.Admin.Listen, nil
}

func showStatus(cmd *cobra.Command, url string, asJSON bool) error {
	if !asJSON {
		url += "?limit=40&history=40" // what fits on a screen
	}
	body, err := fetchStatus(cmd.Context(), url)
	if err != nil {
		return err
	}
	if asJSON {
		_, err := cmd.OutOrStdout().Write(body)
		return err
	}
	var snapshot status.Snapshot
	if err := json.Unmarshal(body, &snapshot); err != nil {
		return fmt.Errorf("read status from %s: %w", url, err)
	}
	return status.Render(cmd.OutOrStdout(), snapshot, terminalWidth(cmd.OutOrStdout()))
}

func fetchStatus(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, usageError{fmt.Errorf("status page: %w", err)}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon (is it running, and is this its admin.listen?): %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the daemon at %s: %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 64<<20))
}
