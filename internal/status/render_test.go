package status

import (
	"strings"
	"testing"
	"time"

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
		{"fleet", []string{"FLEET cdrbus.webex.cdr.offsets: 4 members, Stable MEMBER", "cdrbus-7c9f6d8b54-2xk8q (this one) 10.0.0.4 3 0-3, 9", "cdrbus-7c9f6d8b54-zq9sd 10.0.0.7 0 none, in reserve"}},
		{"reserve", []string{"○ in reserve", "no source here: the other members have them all", "Stable, as of 3 min", "cdrbus-7c9f6d8b54-zq9sd (this one)"}},
		{"jobs", []string{"▲ clock", "10 min 3 s ahead of the feed's", ": running, 43 %, about 1 h 59 min left", ": accepted; read webex.cdr.events-2", ": done; 4 missing, 1 doubled", ": failed; the feed answers 720h0m0s back"}},
		{"demo", []string{"MISSING", "0 ✓", "RESTARTS", "last restart 2", "killed in mid-commit"}},
	} {
		t.Run(c.scenario, func(t *testing.T) {
			snapshot := scenarios[c.scenario]().Snapshot()
			for _, width := range []int{0, 200, 100, 60} {
				text := render(t, snapshot, width)
				limit := width
				if width == 0 {
					limit = defaultWidth
				}
				for line := range strings.Lines(text) {
					if got := lipgloss.Width(strings.TrimSuffix(line, "\n")); got > limit {
						t.Errorf("width %d: a line of %d columns: %s", width, got, line)
					}
				}
				flat := strings.Join(strings.Fields(text), " ") // long texts are wrapped
				for _, want := range c.want {
					if width == 200 && !strings.Contains(flat, want) {
						t.Errorf("width %d: no %q in\n%s", width, want, text)
					}
				}
				if _, plan, found := strings.Cut(flat, "PLAN "); c.scenario == "jobs" && (!found || !strings.Contains(plan, joinNonEmpty(snapshot.Sources[0].plan(snapshot.At), " · "))) {
					t.Errorf("width %d: a plan is cut:\n%s", width, text)
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

// What a feed sends must not steer the terminal.
func TestRenderHidesControlCharacters(t *testing.T) {
	b := newTestBoard()
	b.Event("acme", []byte(`{"reportTime":"\u001b]0;owned\u0007\u001b[2J","Call Type":"SIP\u009b31m"}`))
	b.Update("acme", func(s *Source) { s.State, s.Reason = Stopped, "answered \x1b[31m403" })
	text := render(t, b.Snapshot(), 120)
	if strings.ContainsAny(text, "\x1b\x07\u009b") {
		t.Errorf("control characters reach the terminal: %q", text)
	}
	if !strings.Contains(text, "]0;owned[2J") || !strings.Contains(text, "SIP31m") {
		t.Errorf("the rest of the text is gone: %q", text)
	}
}

func TestDurationsAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", 1500 * time.Millisecond: "1 s", time.Minute: "1 min", 61 * time.Second: "1 min 1 s",
		time.Hour + 59*time.Second: "1 h", 25*time.Hour + time.Minute: "1 d 1 h", -90 * time.Second: "-1 min 30 s",
	} {
		if got := roundDuration(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := groupDigits(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
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
