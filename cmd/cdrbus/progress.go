package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"cdrbus/offsets"
)

// jobProgress is a bar on a terminal, and a line now and then anywhere else.
type jobProgress struct {
	out      io.Writer
	id       string
	bar      *progressbar.ProgressBar
	terminal bool
	told     time.Time
	here     bool // this command does the job itself
}

func newJobProgress(out io.Writer, id string) *jobProgress {
	return &jobProgress{out: out, id: id, terminal: terminalWidth(out) > 0}
}

func (p *jobProgress) waiting(patience time.Duration) {
	fmt.Fprintf(p.out, "job %s: waiting up to %s for the source's owner\n", p.id, patience)
}

func (p *jobProgress) alone() {
	p.here = true
	fmt.Fprintf(p.out, "job %s: no daemon is at it, doing it here\n", p.id)
}

// left is the error of a command that was interrupted: nobody may take it for the end
// of the job.
func (p *jobProgress) left() error {
	state := "goes on without this command"
	if p.here {
		state = "waits for a daemon"
	}
	return fmt.Errorf("interrupted: job %s %s; come back to it with 'cdrbus jobs follow %s -c FILE', end it with 'cdrbus jobs cancel %s -c FILE'", p.id, state, p.id, p.id)
}

// linesEvery is how often progress is told where there is no terminal.
const linesEvery = 10 * time.Second

func (p *jobProgress) show(s offsets.JobState) {
	if s.Job.Kind == offsets.Mend || s.Phase.Ended() && p.bar == nil { // the end is told by its result
		return
	}
	done, all := spanDone(s)
	text := progressText(s, time.Now())
	switch {
	case p.terminal && p.bar == nil:
		p.bar = progressbar.NewOptions64(all,
			progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(text), progressbar.OptionShowBytes(false),
			progressbar.OptionSetPredictTime(false), progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionFullWidth())
		fallthrough
	case p.terminal:
		p.bar.Describe(text)
		_ = p.bar.Set64(done)
	case time.Since(p.told) > linesEvery:
		p.told = time.Now()
		fmt.Fprintf(p.out, "%s (%.0f %%)\n", text, 100*float64(done)/float64(max(all, 1)))
	}
}

// progressText tells how far a job is, and how much longer it takes if it goes on as
// it did since it began.
func progressText(s offsets.JobState, now time.Time) string {
	text := fmt.Sprintf("%s %s: %d published", s.Job.Kind, s.Job.Source, s.Published)
	if s.Job.Kind == offsets.Verify {
		text = fmt.Sprintf("%s %s: %d compared", s.Job.Kind, s.Job.Source, s.Items)
		if s.Findings != nil && s.Findings.Differ() {
			text += ", " + s.Findings.Summary()
		}
	}
	text += fmt.Sprintf(", at %s", s.Next)
	if done, all := spanDone(s); s.Windows > 0 && 0 < done && done < all {
		left := time.Duration(float64(now.Sub(s.BeganAt)) * float64(all-done) / float64(done))
		text += fmt.Sprintf(", about %s to go", max(left.Round(time.Second), time.Second))
	}
	return text
}

// spanDone is how many seconds of a job's span are done, and of how many. A verification
// reads a little around its span.
func spanDone(s offsets.JobState) (done, all int64) {
	all = int64(s.Job.Span.EndExclusive - s.Job.Span.StartInclusive)
	return min(max(int64(s.Next-s.Job.Span.StartInclusive), 0), all), all
}

func (p *jobProgress) end() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.out)
		p.bar = nil
	}
}
