package status

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/lipgloss"
)

const (
	defaultWidth       = 100 // columns, where the caller knows none
	renderedSources    = 40
	renderedWindows    = 24
	renderedEvents     = 5
	renderedTimeLayout = "2006-01-02 15:04:05"
)

// Render writes a snapshot as text, in lines of at most width columns (0: 100).
// It colours what it writes only if w is a terminal that can, and the colours
// say nothing that the words do not.
func Render(w io.Writer, s Snapshot, width int) error {
	if width <= 0 {
		width = defaultWidth
	}
	r := newRenderer(w, s, width)
	r.head()
	r.numbers()
	r.alerts()
	r.sources()
	r.plans()
	r.jobs()
	r.events()
	r.fleet()
	r.foot()
	_, err := io.WriteString(w, r.text.String())
	return err
}

// renderer collects the lines of one Render.
type renderer struct {
	s     Snapshot
	width int
	text  strings.Builder
	clip  lipgloss.Style

	bold, muted, good, busy, caution, wrong lipgloss.Style
}

func newRenderer(w io.Writer, s Snapshot, width int) *renderer {
	lip := lipgloss.NewRenderer(w)
	colour := func(ansi string) lipgloss.Style { return lip.NewStyle().Foreground(lipgloss.Color(ansi)) }
	return &renderer{
		s: s, width: width,
		clip: lip.NewStyle().Inline(true).MaxWidth(width),
		bold: lip.NewStyle().Bold(true), muted: colour("8"),
		good: colour("2"), busy: colour("4"), caution: colour("3"), wrong: colour("1").Bold(true),
	}
}

// line writes one line, cut to the width.
func (r *renderer) line(parts ...string) {
	r.text.WriteString(strings.TrimRight(r.clip.Render(strings.Join(parts, "")), " "))
	r.text.WriteByte('\n')
}

func (r *renderer) head() {
	p := &r.s.Process
	parts := []string{r.s.Build.Version, strings.ReplaceAll(p.Delivery, "_", " "), "up " + roundSeconds(p.UptimeSeconds)}
	if p.RSSBytes > 0 {
		parts = append(parts, byteCount(p.RSSBytes)+" in memory")
	}
	parts = append(parts, r.s.At.UTC().Format(renderedTimeLayout)+" UTC")
	r.line(r.bold.Render("cdrbus"), "  ", r.overall(), "  ", r.muted.Render(joinNonEmpty(parts, " · ")))
	r.line()
}

func (r *renderer) overall() string {
	states := r.s.Totals.States
	switch person := states[Stopped] + states[Parked] + states[Refused]; {
	case person == 1:
		return r.wrong.Render("■ 1 source waits for you")
	case person > 1:
		return r.wrong.Render(fmt.Sprintf("■ %d sources wait for you", person))
	case !r.s.Ready:
		return r.busy.Render("… starting")
	case states[BackingOff] > 0:
		return r.caution.Render(fmt.Sprintf("↻ %d backing off", states[BackingOff]))
	case r.s.Fleet.standby():
		return r.good.Render("○ in reserve")
	default:
		return r.good.Render("✓ all running")
	}
}

// numbers are the big ones of the page, each below its name.
func (r *renderer) numbers() {
	t := &r.s.Totals
	cells := [][2]string{
		{"RECORDS IN", groupDigits(t.Records)}, {"EVENTS OUT", groupDigits(t.Events)}, {"LAG", lagText(t.WorstLagSeconds)},
	}
	if v := r.s.Verdict; v != nil {
		cells = append(cells, [2]string{"MISSING", r.judged(v.Missing)}, [2]string{"DUPLICATE", r.judged(v.Duplicate)})
	} else {
		cells = append(cells, [2]string{"LEFT OUT", groupDigits(t.Known)}, [2]string{"DEAD LETTERS", groupDigits(t.DeadLetters)})
	}
	if n := r.s.Process.Restarts; n > 0 {
		cells = append(cells, [2]string{"RESTARTS", strconv.Itoa(n)})
	}
	var names, values strings.Builder
	for _, c := range cells {
		names.WriteString(padRight(c[0], 14))
		values.WriteString(padRight(r.bold.Render(c[1]), 14))
	}
	r.line(r.muted.Render(names.String()))
	r.line(values.String())
	r.line()
}

func (r *renderer) judged(n uint64) string {
	if n == 0 {
		return r.good.Render("0 ✓")
	}
	return r.wrong.Render(groupDigits(n) + " ✕")
}

func (r *renderer) alerts() {
	for _, a := range r.s.Alerts {
		glyph, style := "▲", r.caution
		if a.Severity == Critical {
			glyph, style = "■", r.wrong
		}
		since := ""
		if !a.Since.IsZero() {
			since = " for " + roundDuration(r.s.At.Sub(a.Since))
		}
		title := stateWords(State(a.Title))
		if a.Source != "" {
			title = string(a.Source) + ": " + title
		}
		r.line(style.Render(glyph + " " + title + since))
		for _, text := range []string{a.Text, a.Remedy} {
			if text != "" {
				r.wrapped("  ", text)
			}
		}
	}
	if len(r.s.Alerts) > 0 {
		r.line()
	}
}

// wrapped writes a longer text behind a head, in as many lines as it needs: a remedy
// that is cut off helps nobody.
func (r *renderer) wrapped(head, text string) {
	line, indent := head, strings.Repeat(" ", lipgloss.Width(head))
	empty := true
	for word := range strings.FieldsSeq(text) {
		switch {
		case empty:
			empty = false
		case lipgloss.Width(line)+1+lipgloss.Width(word) > r.width:
			r.line(line)
			line = indent
		default:
			line += " "
		}
		line += word
	}
	r.line(line)
}

func (r *renderer) sources() {
	rows := [][]string{{"SOURCE", "STATE", "LAG", "PUBLISHED TO (UTC)", "RECORDS", "EVENTS", "LAST WINDOWS"}}
	shown := r.s.Sources[:min(len(r.s.Sources), renderedSources)]
	for i := range shown {
		s := &shown[i]
		rows = append(rows, []string{
			string(s.Name), r.state(s.State), lagText(s.LagSeconds), timeText(s.Published.Time()),
			groupDigits(s.Counts.Records), groupDigits(s.Counts.Events), r.windows(s.History),
		})
	}
	if len(shown) == 0 {
		if r.s.Ready {
			r.line(r.muted.Render("no source here: the other members have them all"))
		} else {
			r.line(r.muted.Render("no source yet"))
		}
		return
	}
	numeric := map[int]bool{2: true, 4: true, 5: true}
	widths := columnWidths(rows)
	for i, row := range rows {
		var b strings.Builder
		for column, text := range row {
			if numeric[column] {
				b.WriteString(padLeft(text, widths[column]))
			} else {
				b.WriteString(padRight(text, widths[column]))
			}
			b.WriteString("  ")
		}
		if i == 0 {
			r.line(r.muted.Render(b.String()))
		} else {
			r.line(b.String())
		}
	}
	if more := r.s.Matching - len(shown); more > 0 {
		r.line(r.muted.Render(fmt.Sprintf("and %d more", more)))
	}
}

// renderedPlans is for how many sources the text tells what is planned.
const renderedPlans = 12

// plans tells how often each source is asked about, and what is read again.
func (r *renderer) plans() {
	var rows [][2]string
	for i := range r.s.Sources[:min(len(r.s.Sources), renderedPlans)] {
		if s := &r.s.Sources[i]; len(s.Sweeps) > 0 {
			rows = append(rows, [2]string{string(s.Name), joinNonEmpty(s.plan(r.s.At), " · ")})
		}
	}
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, row := range rows {
		width = max(width, lipgloss.Width(row[0]))
	}
	r.line()
	r.line(r.muted.Render("PLAN"))
	for _, row := range rows {
		r.wrapped(padRight(row[0], width)+"  ", row[1])
	}
}

// plan is what is planned for a source, in words.
func (s *SourceView) plan(now time.Time) (words []string) {
	edge := "live"
	if s.LiveSeconds > 0 {
		edge += " every " + roundSeconds(s.LiveSeconds)
	}
	words = append(words, edge+" from cdr_"+string(s.Endpoint))
	for _, sweep := range s.Sweeps {
		text := fmt.Sprintf("%s back every %s: ", roundSeconds(sweep.BackSeconds), roundSeconds(sweep.EverySeconds))
		switch wait := sweep.DueAt.Sub(now); {
		case sweep.Next < sweep.End:
			text += "reading " + sweep.Next.Time().Format("02 15:04")
		case wait < -time.Second:
			text += roundDuration(-wait) + " late"
		default:
			text += "next in " + roundDuration(max(wait, 0))
		}
		words = append(words, text)
	}
	if !s.Settled.IsZero() {
		words = append(words, "settled to "+s.Settled.Time().Format("02 15:04"))
	}
	return words
}

// jobs tells of the jobs at work, and of those that have ended lately.
func (r *renderer) jobs() {
	var lines []string
	for i := range r.s.Sources[:min(len(r.s.Sources), renderedPlans)] {
		s := &r.s.Sources[i]
		for _, jobs := range [][]Job{s.Jobs, s.EndedJobs} {
			for i := range jobs {
				lines = append(lines, string(s.Name)+", "+jobs[i].words())
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	r.line()
	r.line(r.muted.Render("JOBS"))
	for _, line := range lines {
		r.wrapped("", line)
	}
}

// words tells how far a job is, or what came of it.
func (j *Job) words() string {
	text := fmt.Sprintf("%s of %s: %s", j.Kind, j.Span, j.Phase)
	if j.Phase == JobRunning {
		text += fmt.Sprintf(", %d %%", int(100*j.share()))
	}
	if j.LeftSeconds > 0 {
		text += fmt.Sprintf(", about %s left", roundSeconds(j.LeftSeconds))
	}
	for _, more := range []string{j.Findings, j.Message} {
		if more != "" {
			text += "; " + Printable(more)
		}
	}
	return text
}

var stateGlyphs = map[State]string{
	Starting: "…", Waiting: "○", Fetching: "●", Committing: "◆", BackingOff: "↻", Stopped: "■", Parked: "■", Refused: "✕",
}

func stateWords(s State) string { return strings.ReplaceAll(string(s), "_", " ") }

func (r *renderer) state(s State) string {
	text := stateGlyphs[s] + " " + stateWords(s)
	switch {
	case s.NeedsPerson():
		return r.wrong.Render(text)
	case s == BackingOff:
		return r.caution.Render(text)
	case s == Fetching || s == Committing:
		return r.busy.Render(text)
	default:
		return text
	}
}

// windows draws the last windows as bars: height is the number of records, on a
// logarithmic scale; "!" is unproven, "x" a gap.
func (r *renderer) windows(history []Window) string {
	history = history[max(0, len(history)-renderedWindows):]
	most := 1.0
	for _, w := range history {
		most = max(most, math.Log1p(float64(w.Items)))
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, w := range history {
		switch w.Mark {
		case MarkGap:
			b.WriteString(r.wrong.Render("x"))
		case MarkUnproven:
			b.WriteString(r.caution.Render("!"))
		case MarkEmpty, MarkStart:
			b.WriteString(r.muted.Render("·"))
		default:
			b.WriteString(r.good.Render(string(bars[int(math.Log1p(float64(w.Items))/most*float64(len(bars)-1))])))
		}
	}
	return b.String()
}

// events writes the last decoded events, a few fields of each.
func (r *renderer) events() {
	var rows [][]string
	for _, e := range r.s.Events[:min(len(r.s.Events), renderedEvents)] {
		if fields := eventFields(e); fields != nil {
			rows = append(rows, append([]string{string(e.Source)}, fields...))
		}
	}
	if len(rows) == 0 {
		return
	}
	r.line()
	r.line(r.muted.Render("LAST EVENTS"))
	widths := columnWidths(rows)
	for _, row := range rows {
		var b strings.Builder
		for column, text := range row {
			b.WriteString(padRight(text, widths[column]) + "  ")
		}
		r.line(b.String())
	}
}

// shownFields are the fields of an event that the text shows, by folded name.
var shownFields = []string{"reporttime", "calltype", "direction", "duration", "callingnumber", "callednumber", "reportid"}

// FoldName makes the names of the feed and of Avro equal: letters, in lower case.
func FoldName(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}

// Printable drops what a terminal could take for a command: the text comes from
// the feed.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
}

// eventFields returns the shown fields of an event, or nil if it was not decoded.
func eventFields(e Event) []string {
	var all map[string]any
	if e.Fields == nil || json.Unmarshal(e.Fields, &all) != nil {
		return nil
	}
	folded := make(map[string]any, len(all))
	for name, value := range all {
		folded[FoldName(name)] = value
	}
	values := make([]string, len(shownFields))
	for i, name := range shownFields {
		values[i] = "–"
		if v := folded[name]; v != nil {
			values[i] = Printable(fmt.Sprint(v))
		}
	}
	return values
}

// fleetStale is when what is known of the fleet is old: the coordinator is asked
// every 15 s, and this process no longer reaches it.
const fleetStale = time.Minute

// fleet writes who owns what.
func (r *renderer) fleet() {
	fleet := r.s.Fleet
	if fleet == nil {
		return
	}
	rows := [][]string{{"MEMBER", "HOST", "SOURCES", "SHARDS"}}
	for _, m := range fleet.Members {
		name := m.Name
		if m.Self {
			name += " (this one)"
		}
		rows = append(rows, []string{Printable(name), Printable(m.Host), groupDigits(uint64(m.Sources)), spans(m.Shards)})
	}
	r.line()
	head := r.muted.Render(fmt.Sprintf("FLEET %s: %s, %s", fleet.Group, plural(len(fleet.Members), "member"), fleet.State))
	if age := r.s.At.Sub(fleet.At); age > fleetStale {
		head += r.caution.Render(fmt.Sprintf(", as of %s ago", roundDuration(age)))
	}
	r.line(head)
	widths := columnWidths(rows)
	for i, row := range rows {
		line := padRight(row[0], widths[0]) + "  " + padRight(row[1], widths[1]) + "  " + padLeft(row[2], widths[2]) + "  " + row[3]
		if i == 0 {
			line = r.muted.Render(line)
		}
		r.line(line)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// spans writes 0 1 2 5 as 0-2, 5.
func spans(numbers []int) string {
	var b strings.Builder
	for i := 0; i < len(numbers); i++ {
		first := i
		for i+1 < len(numbers) && numbers[i+1] == numbers[i]+1 {
			i++
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(numbers[first]))
		if i > first {
			fmt.Fprintf(&b, "-%d", numbers[i])
		}
	}
	if b.Len() == 0 {
		return "none, in reserve"
	}
	return b.String()
}

func (r *renderer) foot() {
	var ready, owned int
	var commits, aborts, takeovers uint64
	for _, s := range r.s.Shards {
		if s.State == ShardReleased {
			continue
		}
		owned++
		if s.State == ShardReady {
			ready++
		}
		commits, aborts, takeovers = commits+s.Commits, aborts+s.Aborts, takeovers+s.Takeovers
	}
	parts := []string{
		fmt.Sprintf("shards %d of %d ready", ready, owned),
		fmt.Sprintf("%s commits, %s aborted, %s take-overs", groupDigits(commits), groupDigits(aborts), groupDigits(takeovers)),
	}
	if p := &r.s.Process; p.MemoryLimitBytes > 0 {
		parts = append(parts, fmt.Sprintf("window memory %s of %s", byteCount(p.MemoryUsedBytes), byteCount(p.MemoryLimitBytes)))
	}
	if len(r.s.Restarts) > 0 {
		last := r.s.Restarts[0]
		parts = append(parts, fmt.Sprintf("last restart %s ago: %s", roundDuration(r.s.At.Sub(last.At)), last.How))
	}
	r.line()
	r.line(r.muted.Render(strings.Join(parts, " · ")))
}

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], lipgloss.Width(text))
		}
	}
	return widths
}

func padRight(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-lipgloss.Width(text)))
}

func padLeft(text string, width int) string {
	return strings.Repeat(" ", max(0, width-lipgloss.Width(text))) + text
}

func lagText(seconds float64) string {
	if seconds < 0 {
		return "–"
	}
	return roundDuration(time.Duration(math.Round(seconds)) * time.Second)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format(renderedTimeLayout)
}

// groupDigits writes 1234567 as 1,234,567.
func groupDigits(n uint64) string {
	digits := strconv.FormatUint(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func byteCount(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d KiB", n>>10)
	}
}

func joinNonEmpty(parts []string, separator string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, separator)
}
