package poller

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
)

var updatePlans = flag.Bool("update", false, "rewrite the transcripts in testdata/plan from what the planner does now")

// TestPlan replays the transcripts of testdata/plan. A transcript is a sequence
// of commands, each followed by a line of dashes and what the planner made of
// it; lines that begin with # are for the reader.
//
//	source published=T [endpoint=stream] [lookback=D] [max_window=D] ...   a source as a restart finds it
//	plan at=T [initial=T]                    what to do at that time, the initial bucket being free from T on
//	read [items=N] [bytes=N] [skew=D] [undated]   the request of the last plan succeeded
//	fail KIND [after=D] [age=D] [at=T] [skew=D]   it failed
//	skip                                     the gap of the last plan was recorded
//	run from=T for=D [rate=N] [size=N] [took=D]   plan and read, over and over, at one request a minute
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			after := replay(t, string(before))
			if *updatePlans {
				if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if after != string(before) {
				t.Errorf("%s: the planner now does\n%s", file, firstDifference(string(before), after))
			}
		})
	}
}

func firstDifference(before, after string) string {
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range min(len(was), len(is)) {
		if was[i] != is[i] {
			return fmt.Sprintf("line %d: %s\nwant:    %s", i+1, is[i], was[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(is), len(was))
}

// replay runs a transcript and returns it with the answers of now.
func replay(t *testing.T, transcript string) string {
	var out strings.Builder
	var p transcriptPlayer
	for block := range strings.SplitSeq(strings.TrimSpace(transcript), "\n\n") {
		if out.Len() > 0 {
			out.WriteString("\n")
		}
		for line := range strings.SplitSeq(block, "\n") {
			if line == "----" {
				break
			}
			out.WriteString(line + "\n")
			if line != "" && !strings.HasPrefix(line, "#") {
				fmt.Fprintf(&out, "----\n%s\n", p.play(t, line))
			}
		}
	}
	return out.String()
}

type transcriptPlayer struct {
	state State
	now   time.Time
	last  Decision
}

type arguments map[string]string

func (a arguments) instant(t *testing.T, name string) cdr.Instant {
	i, err := cdr.ParseInstant(a[name])
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (a arguments) duration(t *testing.T, name string, fallback time.Duration) time.Duration {
	if a[name] == "" {
		return fallback
	}
	d, err := time.ParseDuration(a[name])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (a arguments) number(t *testing.T, name string) int64 {
	if a[name] == "" {
		return 0
	}
	n, err := strconv.ParseInt(a[name], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *transcriptPlayer) play(t *testing.T, line string) string {
	words := strings.Fields(line)
	args := arguments{}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		args[name] = value
	}
	switch words[0] {
	case "source":
		return p.source(t, args)
	case "plan":
		p.now = args.instant(t, "at").Time()
		budget := BudgetView{NextInitial: p.now}
		if args["initial"] != "" {
			budget.NextInitial = args.instant(t, "initial").Time()
		}
		p.last = Plan(p.state, budget, p.now)
		return describe(p.last)
	case "read":
		p.read(args.outcome(t, p), args.number(t, "items"), args.number(t, "bytes"))
		return p.learned()
	case "fail":
		return p.fail(t, words[1], args)
	case "skip":
		p.state.SkipGap(*p.last.Gap)
		return p.learned()
	case "run":
		return p.run(t, args)
	}
	t.Fatalf("unknown command %q", line)
	return ""
}

func (p *transcriptPlayer) source(t *testing.T, args arguments) string {
	policy := DefaultPolicy(cdr.Endpoint(args["endpoint"]))
	policy.Lookback = args.duration(t, "lookback", policy.Lookback)
	policy.MaxWindow = args.duration(t, "max_window", policy.MaxWindow)
	policy.SkewMargin = args.duration(t, "skew_margin", policy.SkewMargin)
	policy.MaxWindowBytes = args.number(t, "max_window_bytes")
	if err := policy.Validate(); err != nil {
		return err.Error()
	}
	*p = transcriptPlayer{state: State{Policy: policy, Published: args.instant(t, "published")}}
	return p.learned()
}

func (a arguments) outcome(t *testing.T, p *transcriptPlayer) Outcome {
	out := Outcome{Requests: 1, Pages: 1, PageSize: LargestPageSize, ServerDate: p.now, Skew: a.duration(t, "skew", p.state.Skew)}
	if p.last.Request != nil && p.last.Request.PageSize > 0 {
		out.PageSize = p.last.Request.PageSize
	}
	if a["page_size"] != "" {
		out.PageSize = int(a.number(t, "page_size"))
	}
	if _, undated := a["undated"]; undated {
		out.ServerDate, out.Skew = time.Time{}, 0
	}
	return out
}

func (p *transcriptPlayer) read(out Outcome, items, bytes int64) {
	p.state.Learn(*p.last.Request, out, items, bytes)
	p.state.Published = p.last.Request.Commit.EndExclusive
}

func (p *transcriptPlayer) fail(t *testing.T, kind string, args arguments) string {
	out := args.outcome(t, p)
	cause := errors.New("cause")
	var err error
	switch kind {
	case "too-large":
		err = fmt.Errorf("sink: %w", cdr.ErrWindowTooLarge)
	case "retry":
		err = &RetryLater{After: args.duration(t, "after", 0), Cause: cause}
		if out.ServerDate.IsZero() {
			err = &RetryLater{After: args.duration(t, "after", 0), Cause: fmt.Errorf("%w", errNoDate)}
		}
	case "stopped":
		err = &Stopped{Message: "message", Reprobe: args.duration(t, "reprobe", 0)}
	case "replan":
		err = &Replan{Cause: cause}
	case "replan-half":
		err = &Replan{Cause: cause, HalveSpan: true}
	case "stuck":
		err = &Replan{Cause: &CursorStuck{At: args.instant(t, "at"), PageSize: out.PageSize}}
	case "aged-out":
		err = &AgedOut{Start: p.last.Request.Span.StartInclusive, Age: args.duration(t, "age", 0), Cause: cause}
	case "other":
		err = cause
	default:
		t.Fatalf("unknown failure %q", kind)
	}
	if err := p.state.LearnFailure(*p.last.Request, out, err, p.now); err != nil {
		return fmt.Sprintf("error: %v\n%s", err, p.learned())
	}
	return p.learned()
}

// run follows the planner at the documented limit of one initial request a
// minute, each answered after a while, and prints what it decides.
func (p *transcriptPlayer) run(t *testing.T, args arguments) string {
	var lines []string
	p.now = args.instant(t, "from").Time()
	end := p.now.Add(args.duration(t, "for", 0))
	free := p.now
	for waits := 0; p.now.Before(end); {
		p.last = Plan(p.state, BudgetView{NextInitial: free}, p.now)
		if p.last.Wait == nil || !p.last.Wait.Until.After(p.now) {
			lines = append(lines, p.now.Format("15:04:05 ")+describe(p.last))
			waits = 0
		}
		switch {
		case p.last.Gap != nil:
			p.state.SkipGap(*p.last.Gap)
		case p.last.Request != nil:
			span := p.last.Request.Span
			items := int64(float64(args.number(t, "rate")) * span.Duration().Hours())
			p.now = p.now.Add(args.duration(t, "took", time.Second))
			free = p.now.Add(budgetWindow)
			p.read(args.outcome(t, p), items, items*args.number(t, "size"))
		default:
			if waits++; waits > 3 {
				t.Fatalf("the planner waits at %s until %s, again and again", p.now, p.last.Wait.Until)
			}
			p.now = p.last.Wait.Until
		}
	}
	return strings.Join(append(lines, p.learned()), "\n")
}

func describe(d Decision) string {
	switch {
	case d.Wait != nil:
		return fmt.Sprintf("wait until %s for %s", d.Wait.Until.UTC().Format(time.RFC3339), d.Wait.Why)
	case d.Gap != nil:
		return fmt.Sprintf("gap %s (%s)", d.Gap, d.Gap.Duration())
	}
	r := d.Request
	s := fmt.Sprintf("%s %s %s (%s)", r.Endpoint, r.Purpose, r.Span, r.Span.Duration())
	if r.Span != r.Commit {
		s += fmt.Sprintf(", overlap %s", r.Commit.StartInclusive.Sub(r.Span.StartInclusive))
	}
	if r.PageSize != 0 && r.PageSize != LargestPageSize {
		s += fmt.Sprintf(", %d a page", r.PageSize)
	}
	if r.Commit.EndExclusive != r.Span.EndExclusive || r.Commit.StartInclusive < r.Span.StartInclusive {
		s += fmt.Sprintf(", BUT COMMITS %s", r.Commit)
	}
	return s
}

// learned prints what the state holds beyond its policy.
func (p *transcriptPlayer) learned() string {
	s := p.state
	text := "published " + s.Published.String()
	for _, part := range []struct {
		set  bool
		text string
	}{
		{!s.NotBefore.IsZero(), "not before " + s.NotBefore.UTC().Format(time.RFC3339)},
		{s.Skew != 0, fmt.Sprintf("skew %s", s.Skew)},
		{s.NoDate, "no Date"},
		{s.RecordsPerHour > 0, fmt.Sprintf("%.0f records/h of %.0f bytes", s.RecordsPerHour, s.BytesPerRecord)},
		{s.SpanLimit > 0, fmt.Sprintf("span at most %s", s.SpanLimit)},
		{s.PageSize > 0 && s.PageSize != LargestPageSize, fmt.Sprintf("%d a page", s.PageSize)},
		{s.AskFrom > 0, fmt.Sprintf("ask from %s", s.AskFrom)},
		{s.RefusedLookback > 0, fmt.Sprintf("feed keeps %s", s.RefusedLookback)},
		{s.Stuck.Strikes > 0, fmt.Sprintf("stuck %d times at %s", s.Stuck.Strikes, s.Stuck.At)},
	} {
		if part.set {
			text += "\n  " + part.text
		}
	}
	return text
}

func TestPolicyValidate(t *testing.T) {
	for _, endpoint := range []cdr.Endpoint{cdr.Feed, cdr.Stream} {
		if policy := DefaultPolicy(endpoint); policy.Validate() != nil || policy.Endpoint != endpoint {
			t.Errorf("the default policy of %s is %+v, %v", endpoint, policy, policy.Validate())
		}
	}
	for name, change := range map[string]func(*Policy){
		"negative overlap": func(p *Policy) { p.Overlap = -1 },
		"MinSpan":          func(p *Policy) { p.MinSpan = time.Millisecond },
		"MaxWindow":        func(p *Policy) { p.MaxWindow = 0 },
		"Lookback":         func(p *Policy) { p.Lookback = p.MinAge },
	} {
		policy := DefaultPolicy(cdr.Feed)
		if change(&policy); policy.Validate() == nil {
			t.Errorf("%s: %+v passes", name, policy)
		}
	}
}

// TestEarliest: a source that starts as early as the feed allows begins with a
// request, not with a gap, and a second earlier there would be one.
func TestEarliest(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	policy := DefaultPolicy(cdr.Feed)
	start := policy.Earliest(now)
	asked := now.Add(gapMargin)
	budget := BudgetView{NextInitial: asked, NextPage: asked}
	if d := Plan(State{Policy: policy, Published: start}, budget, asked); d.Request == nil || d.Request.Span.StartInclusive != start {
		t.Errorf("from the earliest start: %s", describe(d))
	}
	if d := Plan(State{Policy: policy, Published: start - 1}, budget, asked); d.Gap == nil {
		t.Errorf("a second before the earliest start: %s", describe(d))
	}
}

// TestClockOfASlowRequest: half of what a request took is how wrong the clock may be that
// it tells. One that hung for longer than the margin of error tells nothing.
func TestClockOfASlowRequest(t *testing.T) {
	s := State{Policy: DefaultPolicy(cdr.Feed)}
	for _, c := range []struct{ took, skew, want time.Duration }{
		{2 * time.Second, 10 * time.Minute, 10 * time.Minute},
		{66 * time.Second, 10*time.Minute + 33*time.Second, 10 * time.Minute},
		{time.Second, -time.Second, -time.Second},
	} {
		s.Learn(Request{Span: cdr.Span{StartInclusive: 1000, EndExclusive: 2000}}, Outcome{Requests: 1, ServerDate: time.Now(), Skew: c.skew, SkewError: c.took / 2}, 0, 0)
		if s.Skew != c.want {
			t.Errorf("a request of %s tells %s: taken is %s, want %s", c.took, c.skew, s.Skew, c.want)
		}
	}
}
