package demo

import (
	"bytes"
	"fmt"
	"time"

	"cdrbus/internal/status"
)

// view shows the play: a picture drawn over and over on a terminal, a line now
// and then anywhere else.
type view struct {
	stage   *stage
	every   time.Duration
	next    time.Time
	endsAt  time.Time // zero: it has no end of its own
	started time.Time
}

func newView(s *stage) *view {
	v := &view{stage: s, every: 2 * time.Second, started: time.Now()}
	if s.options.Width > 0 {
		v.every = 500 * time.Millisecond
	}
	if s.options.For > 0 {
		v.endsAt = v.started.Add(s.options.For)
	}
	return v
}

// overAt reports whether the time asked for is over at an instant.
func (v *view) overAt(at time.Time) bool { return !v.endsAt.IsZero() && at.After(v.endsAt) }

func (v *view) show(s status.Snapshot) {
	now := time.Now()
	if now.Before(v.next) {
		return
	}
	v.next = now.Add(v.every)
	if v.stage.options.Width == 0 {
		fmt.Fprintf(v.stage.options.Out, "%s  %d records in, %d events out, %d restarts%s\n",
			now.Sub(v.started).Round(time.Second), s.Totals.Records, s.Totals.Events, s.Process.Restarts, v.remaining(now))
		return
	}
	var picture bytes.Buffer
	const home, clearBelow = "\x1b[H\x1b[2J", "\x1b[J"
	picture.WriteString(home)
	if err := status.Render(&picture, s, v.stage.options.Width); err != nil {
		return
	}
	fmt.Fprintf(&picture, "\n%s%s. Status page: %s\nStop with Ctrl-C: feed and topic are compared then.%s\n",
		now.Sub(v.started).Round(time.Second), v.remaining(now), v.stage.pageURL, clearBelow)
	_, _ = v.stage.options.Out.Write(picture.Bytes())
}

func (v *view) remaining(now time.Time) string {
	if v.endsAt.IsZero() {
		return ""
	}
	return fmt.Sprintf(", %s to go", max(0, v.endsAt.Sub(now)).Round(time.Second))
}
