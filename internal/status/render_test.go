package status

import (
	"strings"
	"testing"

	"github.com/charmbracelet/lipgloss"
)

func TestRender(t *testing.T) {
	for _, c := range []struct {
		scenario string
		want     []string
	}{
		{"empty", []string{"… starting", "no source yet", "shards 0 of 0 ready"}},
		{"normal", []string{"1 backing off", "acme-eu", "○ waiting", "LAST WINDOWS", "SIP_", "shards 4 of 4 ready", "12 MiB of 64 MiB"}},
		{"many", []string{"customer-0039", "and 960 more"}},
		{"stopped", []string{"■ 2 sources wait for you", "■ acme-us: stopped", "cdrbus auth status", "▲ acme-eu: token ends soon"}},
		{"demo", []string{"MISSING", "0 ✓", "RESTARTS", "last restart 2", "killed in mid-commit"}},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			snapshot := scenarios[c.scenario]().Snapshot()
			for _, width := range []int{0, 200, 100, 60} {
				text := render(t, snapshot, width)
				t.Logf("width %d:\n%s", width, text)
				limit := width
				if width == 0 {
					limit = defaultWidth
				}
				for line := range strings.Lines(text) {
					if got := lipgloss.Width(strings.TrimSuffix(line, "\n")); got > limit {
						t.Errorf("width %d: a line of %d columns: %s", width, got, line)
					}
				}
				if width >= 100 {
					// One space for any white space: long texts are wrapped.
					flat := strings.Join(strings.Fields(text), " ")
					for _, want := range c.want {
						if width >= 200 && !strings.Contains(flat, want) {
							t.Errorf("width %d: no %q in\n%s", width, want, text)
						}
					}
				}
				if strings.Contains(text, "\x1b") {
					t.Errorf("width %d: escape sequences although the writer is no terminal", width)
				}
				if strings.Contains(text, "+12025550143") {
					t.Errorf("width %d: personal data", width)
				}
			}
		})
	}
}

func render(t *testing.T, s Snapshot, width int) string {
	t.Helper()
	var b strings.Builder
	if err := Render(&b, s, width); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
