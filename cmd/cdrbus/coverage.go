package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	_ "time/tzdata" // images without zoneinfo know --time-zone too

	"github.com/spf13/cobra"

	"cdrbus/internal/cdr"
	"cdrbus/internal/config"
	"cdrbus/internal/coverage"
	"cdrbus/internal/daemon"
	"cdrbus/internal/kafkaconn"
)

// coverageFlags are those of cdrbus coverage.
type coverageFlags struct {
	config    string
	sources   []string
	from, to  string
	days      int
	daysGiven bool
	require   []string
	zone      string
	output    outputFlag
}

func newCoverage() *cobra.Command {
	flags := coverageFlags{output: outputFlag{human: "table"}}
	cmd := &cobra.Command{
		Use:   "coverage -c FILE [--require DAY]...",
		Short: "Tell which spans are proven complete; exit code 3 if a required one is not",
		Long: `coverage reads the receipts of all windows from Kafka and tells, exact to the
second, what is known of each span of report time:

  settled    proven, and passed by the widest sweep for late records: complete
  proven     read by a window that is known to be complete; records may still come late
  published  read by cdr_stream only so far; cdr_feed is still to prove it
  unread     not read: before the start of the source, or after its live edge
  unproven   only read by windows that are not known to be complete
  gap        lost: the feed did not return it; the reason says why

With --require a bill run can wait for its day: the exit code is 0 if all of it is
settled for every selected source, and 3 if not; then it tells which part is not,
why, and when it probably will be. It needs no running daemon.`,
		Example: `  cdrbus coverage -c cdrbus.yaml
  cdrbus coverage -c cdrbus.yaml --source acme --days 31
  cdrbus coverage -c cdrbus.yaml --require 2026-11-22 && start-the-bill-run
  cdrbus coverage -c cdrbus.yaml --require 2026-11 --time-zone Europe/Berlin
  cdrbus coverage -c cdrbus.yaml --from 2026-11-20 --to 2026-11-22T06:00:00Z -o json | jq .sources[].stretches`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.daysGiven = cmd.Flags().Changed("days")
			return flags.run(cmd)
		},
	}
	configFlag(cmd, &flags.config)
	f := cmd.Flags()
	f.StringArrayVar(&flags.sources, "source", nil, "tell of this source only; may be repeated")
	f.StringVar(&flags.from, "from", "", "begin at this day, RFC 3339 time, or time ago (36h)")
	f.StringVar(&flags.to, "to", "", "end before this day, RFC 3339 time, or time ago (default now)")
	f.IntVar(&flags.days, "days", 7, "the last days, today included, where --from and --require are not given")
	f.StringArrayVar(&flags.require, "require", nil, "exit with 3 unless this day (2026-11-22), month (2026-11) or START/END is settled; may be repeated")
	f.StringVar(&flags.zone, "time-zone", "UTC", "whose days are meant, such as Europe/Berlin")
	flags.output.register(cmd)
	return cmd
}

func (f *coverageFlags) run(cmd *cobra.Command) error {
	cfg, err := loadConfig(f.config)
	if err != nil {
		return err
	}
	question, err := f.question(cfg, cdr.InstantOf(time.Now()))
	if err != nil {
		return usageError{err}
	}
	client, err := daemon.Connect(cfg)
	if err != nil {
		return err
	}
	defer kafkaconn.Close(client)
	reader, err := daemon.NewReceiptReader(cfg, client)
	if err != nil {
		return err
	}
	progress := newProgress(cmd.ErrOrStderr(), "reading receipts")
	answer, err := question.Ask(cmd.Context(), reader, progress.show)
	progress.end()
	if errors.Is(err, coverage.ErrOutside) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if err := f.print(cmd.OutOrStdout(), answer); err != nil {
		return err
	}
	return incomplete(answer)
}

// incomplete is the difference between what is required and what is settled.
func incomplete(answer coverage.Answer) error {
	n := answer.Lacking()
	if n == 0 {
		return nil
	}
	return differenceError{fmt.Errorf("%d of %d required spans are not proven and settled", n, len(answer.Required))}
}

// question is what the flags ask for.
func (f *coverageFlags) question(cfg *config.Config, now cdr.Instant) (coverage.Question, error) {
	zone, err := time.LoadLocation(f.zone)
	if err != nil {
		return coverage.Question{}, fmt.Errorf("--time-zone %s: want a name of the IANA time zone database, such as Europe/Berlin", f.zone)
	}
	q := coverage.Question{Now: now}
	if q.Sources, err = f.selected(cfg); err != nil {
		return q, err
	}
	for _, text := range f.require {
		span, err := coverage.ParseDemand(text, zone)
		if err != nil {
			return q, fmt.Errorf("--require: %w", err)
		}
		q.Require = append(q.Require, span)
	}
	if q.Span, err = f.span(zone, now); err != nil {
		return q, err
	}
	return q, q.Validate()
}

// selected are the sources that were named, or all.
func (f *coverageFlags) selected(cfg *config.Config) ([]coverage.Subject, error) {
	chosen := map[string]bool{}
	for _, name := range f.sources {
		if _, err := cfg.SourceNamed(name); err != nil {
			return nil, fmt.Errorf("--source: %w", err)
		}
		chosen[name] = true
	}
	var subjects []coverage.Subject
	for i := range cfg.Sources {
		if source := &cfg.Sources[i]; len(chosen) == 0 || chosen[source.Name] {
			subjects = append(subjects, daemon.CoverageSubject(cfg, source))
		}
	}
	return subjects, nil
}

// span is what the flags say about it; unset: what is required.
func (f *coverageFlags) span(zone *time.Location, now cdr.Instant) (cdr.Span, error) {
	span := cdr.Span{EndExclusive: now}
	var err error
	if f.to != "" {
		if span.EndExclusive, err = coverageTime(f.to, zone, now); err != nil {
			return span, fmt.Errorf("--to: %w", err)
		}
	}
	switch {
	case f.from != "":
		if span.StartInclusive, err = coverageTime(f.from, zone, now); err != nil {
			return span, fmt.Errorf("--from: %w", err)
		}
	case f.onlyRequired():
		return cdr.Span{}, nil
	case f.days < 1:
		return span, fmt.Errorf("--days %d: want 1 or more", f.days)
	default:
		last := (span.EndExclusive - 1).Time().In(zone)
		span.StartInclusive = coverage.StartOfDay(last.Year(), last.Month(), last.Day()-f.days+1, zone)
	}
	return span, nil
}

// coverageTime reads a day of a zone, RFC 3339, or a time ago.
func coverageTime(text string, zone *time.Location, now cdr.Instant) (cdr.Instant, error) {
	if ago, err := config.ParseDuration(strings.TrimPrefix(text, "-")); err == nil {
		return now.Add(-ago), nil
	}
	at, err := coverage.ParseTime(text, zone)
	if err != nil {
		return at, fmt.Errorf("%q: want a day such as 2026-11-22, RFC 3339 such as 2026-11-22T06:00:00Z, or a time ago such as 36h", text)
	}
	return at, nil
}

func (f *coverageFlags) print(w io.Writer, answer coverage.Answer) error {
	if f.output.json {
		return writeJSON(w, answer)
	}
	return writeWithPath(w, f.config, func(text io.Writer) error {
		if f.onlyRequired() {
			return coverage.RenderVerdicts(text, answer.Required)
		}
		return answer.Render(text, terminalWidth(w))
	})
}

// onlyRequired reports whether nothing but what is required was asked for.
func (f *coverageFlags) onlyRequired() bool {
	return len(f.require) > 0 && f.from == "" && f.to == "" && !f.daysGiven
}

// progressLine tells on a terminal how far something is, once it takes its time.
type progressLine struct {
	out   io.Writer
	what  string
	began time.Time
	shown time.Time
	width int // 0: nobody is looking
}

const (
	progressAfter = 2 * time.Second
	progressEvery = 200 * time.Millisecond
)

func newProgress(out io.Writer, what string) *progressLine {
	return &progressLine{out: out, what: what, began: time.Now(), width: terminalWidth(out)}
}

func (p *progressLine) show(done, total int64) {
	now := time.Now()
	if p.width == 0 || now.Sub(p.began) < progressAfter || now.Sub(p.shown) < progressEvery {
		return
	}
	p.shown = now
	fmt.Fprintf(p.out, "\r%s: %d %% ", p.what, 100*done/max(total, 1))
}

// end takes the line away.
func (p *progressLine) end() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
