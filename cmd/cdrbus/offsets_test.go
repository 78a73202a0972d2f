package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// TestRemediesAreCommands: what the refusals of a source name, this program has, with
// these flags. Their configuration is missing, and nothing else is wrong with them.
func TestRemediesAreCommands(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, remedy := range []string{
		"offsets set acme --from-receipts -c FILE",
		"offsets set acme --journal-from 41875 -c FILE",
		"offsets set acme --journal-from 0 -c FILE",
		"offsets set acme --published 2026-11-22T00:00:00Z -c FILE",
		"offsets reset acme --to 36h -c FILE --dry-run",
		"offsets move acme --from-shard 1 --to-shard 0 -c FILE",
		"offsets adopt acme --prefix -c FILE",
		"offsets adopt acme --shards -c FILE",
		"offsets adopt acme --definition -c FILE",
		"offsets adopt --all --shards -c FILE --yes -o json",
		"offsets list -c FILE",
		"offsets get acme -c FILE",
	} {
		code, text := runWith(t, strings.ReplaceAll(remedy, "FILE", missing))
		if code != exitUsage && code != exitFailure || !strings.Contains(text, "missing.yaml") {
			t.Errorf("%s: exit code %d, %s", remedy, code, text)
		}
	}
}

// TestOffsetsUsage: what is wrong with a command line is said before anything else.
func TestOffsetsUsage(t *testing.T) {
	for line, says := range map[string]string{
		"offsets set acme": "give one of --from-receipts, --published, --journal-from",
		"offsets set acme --from-receipts --published 1h":      "give one of",
		"offsets set --from-receipts":                          "accepts 1 arg(s), received 0",
		"offsets reset acme":                                   "--to is missing",
		"offsets move acme --from-shard 1":                     "--to-shard is missing",
		"offsets adopt acme":                                   "give one of --definition, --prefix, --shards",
		"offsets adopt --shards":                               "name one source, or --all",
		"offsets adopt acme --all --prefix":                    "name one source, or --all",
		"offsets reset acme --to 1h --wait 0s":                 "--wait 0s: want 1s or more",
		"offsets bogus":                                        `unknown command "bogus"`,
		"offsets set acme --journal-from x":                    "invalid argument",
		"offsets reset acme --to 2026-11-22T00:00:00Z --dry":   "unknown flag: --dry",
		"offsets move acme --from-shard one --to-shard 1 -c x": "invalid argument",
	} {
		if code, text := runWith(t, line); code != exitUsage || !strings.Contains(text, says) {
			t.Errorf("%s: exit code %d, %s, want %d and %q", line, code, text, exitUsage, says)
		}
	}
}

func runWith(t *testing.T, line string) (code int, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), strings.Fields(line), &out, &err)
	return code, err.String()
}
