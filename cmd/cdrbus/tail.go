package main

import (
	"bufio"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/eventlog"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/tail"
	"cdrbus/schema"
)

// tailFlags are the flags of cdrbus tail.
type tailFlags struct {
	path, from, to, output, key          string
	sources, fields                      []string
	last                                 int
	limit                                int64
	noFollow, dedupe, late, revised, pii bool
}

const tailLong = `tail reads the events topic of a configuration and shows its events, decoded: as a
table on a terminal, else one line of JSON each. It begins with what is committed
from now on and goes on until Ctrl-C; --from, --to, -n, --limit and --no-follow say
otherwise. It only ever shows what is committed (read_committed), joins no consumer
group, and leaves nothing behind.

A line of JSON has topic, partition, offset, committed (the time of the commit),
key, source, late, revision, schema_id and event, whose fields are named as in the
Avro schema; null ones are left out. The table has a note in front of the fields:
"late" for an event that the feed delivered late, "rev." for a revision.

Events of several partitions come in the order of their commit times, as far as
they were committed when tail looked: every half second while it follows. Within a
partition, and so for one key, the order is that of the topic.

The table masks personal data as the status page does, unless --personal-data is
given. JSON is the data itself, whole, unless --personal-data=false.

--dedupe leaves out an event that repeats, unchanged, one that was shown before,
which can happen with delivery: at_least_once. A revision is not left out: whoever
keeps the last event of each reportId has what the feed has. tail remembers at
least the last 500,000 Report IDs (up to a million, in about 55 MiB) and forgets
older ones.

Records that are no events, or cannot be decoded, are skipped, and told of on
standard error. Where the schema registry has lost a schema, or does not answer,
events that fit this version's own exactly are read as such. Another is skipped if
its schema is lost, and ends tail with 1 if the registry does not answer.`

const tailExample = `  cdrbus tail -c cdrbus.yaml                                   what is committed from now on
  cdrbus tail -c cdrbus.yaml -n 20                             the last 20 events first
  cdrbus tail -c cdrbus.yaml --from 1h --no-follow             the last hour, then end
  cdrbus tail -c cdrbus.yaml --from earliest --no-follow > all.jsonl
  cdrbus tail -c cdrbus.yaml --from 3:1200,5:77 --limit 10     from these offsets
  cdrbus tail -c cdrbus.yaml --source acme --late --from 1d
  cdrbus tail -c cdrbus.yaml --fields reportTime,callType,duration
  cdrbus tail -c cdrbus.yaml | jq -r 'select(.event.duration > 3600) | .event.reportId'`

func newTail() *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:     "tail -c FILE",
		Short:   "Show the events of the topic, decoded, as they are committed",
		Long:    tailLong,
		Example: tailExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	configFlag(cmd, &f.path)
	flags := cmd.Flags()
	flags.StringVar(&f.from, "from", "latest", "begin with: earliest, latest, an RFC 3339 time, a day (UTC), a time ago (1h), PARTITION:OFFSET[,...]")
	flags.StringVar(&f.to, "to", "", "end before: latest, an RFC 3339 time, a day, a time ago, PARTITION:OFFSET[,...]")
	flags.IntVarP(&f.last, "last", "n", 0, "begin with the last so many events that pass the filters")
	flags.Int64Var(&f.limit, "limit", 0, "end after so many events")
	flags.BoolVar(&f.noFollow, "no-follow", false, "end when everything committed is shown")
	flags.BoolVar(&f.dedupe, "dedupe", false, "leave out unchanged repeats of a Report ID")
	flags.StringVar(&f.key, "key", "", "only events with this key (a Correlation ID)")
	flags.StringArrayVar(&f.sources, "source", nil, "only events of this source (may be repeated)")
	flags.BoolVar(&f.late, "late", false, "only events that the feed delivered late")
	flags.BoolVar(&f.revised, "revised", false, "only revisions")
	flags.StringSliceVar(&f.fields, "fields", nil, "only these fields, by their names in Avro or in the feed")
	flags.StringVarP(&f.output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	flags.BoolVar(&f.pii, "personal-data", false, "show or mask personal data (default: json shows it, the table masks it)")
	return cmd
}

// mostLast bounds the memory of -n, which holds that many events.
const mostLast = 100_000

func (f *tailFlags) run(cmd *cobra.Command) error {
	cfg, err := loadConfig(f.path)
	if err != nil {
		return err
	}
	options, err := f.options(cmd, cfg, time.Now())
	if err != nil {
		return usageError{fmt.Errorf("%w; see 'cdrbus tail --help'", err)}
	}
	registry, err := daemon.NewRegistry(cfg, nil)
	if err != nil {
		return err
	}
	options.SchemaByID = registry.SchemaByID
	client, err := daemon.Connect(cfg)
	if err != nil {
		return err
	}
	defer kafkaconn.Close(client)
	signal.Ignore(syscall.SIGPIPE) // a reader that has seen enough is no failure
	if options.Follow && terminalWidth(cmd.OutOrStdout()) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "following %s; Ctrl-C ends\n", options.Topic)
	}
	totals, err := tail.Run(cmd.Context(), committed.NewReader(client), options)
	if skipped := totals.Skipped(); skipped > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "skipped %d records: %d no events of cdrbus, %d not decodable, %d under a schema that the registry has lost\n",
			skipped, totals.Foreign, totals.Undecodable, totals.Lost)
	}
	return err
}

// options says what the flags ask for. An error is the caller's.
func (f *tailFlags) options(cmd *cobra.Command, cfg *config.Config, now time.Time) (tail.Options, error) {
	changed := cmd.Flags().Changed
	o := tail.Options{
		Topic: cfg.Kafka.Topics.Events, Last: f.last, Limit: f.limit, Follow: !f.noFollow, Dedupe: f.dedupe,
		Filter: tail.Filter{Sources: f.sources, Late: f.late, Revised: f.revised},
		Warn:   func(warning string) { fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning) },
	}
	if changed("key") {
		o.Filter.Key = &f.key
	}
	if err := f.checkNumbers(changed); err != nil {
		return o, err
	}
	if err := f.checkHeaders(cfg); err != nil {
		return o, err
	}
	var err error
	if o.From, err = tail.ParseFrom(f.from, now); err != nil {
		return o, fmt.Errorf("--from %w", err)
	}
	if changed("to") {
		if o.Until, err = tail.ParseUntil(f.to, now); err != nil {
			return o, fmt.Errorf("--to %w", err)
		}
	}
	return o, f.printTo(cmd, cfg, &o)
}

func (f *tailFlags) checkNumbers(changed func(flag string) bool) error {
	switch {
	case changed("last") && (f.last < 1 || f.last > mostLast):
		return fmt.Errorf("-n %d: want 1 to %d; --from takes any time or offset", f.last, mostLast)
	case changed("last") && (changed("from") || changed("to")):
		return errors.New("-n begins with the last events: leave out --from and --to, or -n")
	case changed("limit") && f.limit < 1:
		return fmt.Errorf("--limit %d: want 1 or more", f.limit)
	}
	return nil
}

// checkHeaders refuses to look for sources that there are not, and for what only
// headers tell where events have none.
func (f *tailFlags) checkHeaders(cfg *config.Config) error {
	if !cfg.Events.CloudEventsHeaders && (f.late || f.revised || len(f.sources) > 0) {
		return errors.New("--source, --late and --revised need the events' headers, which this configuration switches off (events.cloudevents_headers)")
	}
	for _, name := range f.sources {
		if _, err := cfg.SourceNamed(name); err != nil {
			return fmt.Errorf("--source: %w", err)
		}
	}
	return nil
}

// printTo makes o print to the command's output.
func (f *tailFlags) printTo(cmd *cobra.Command, cfg *config.Config, o *tail.Options) error {
	out := cmd.OutOrStdout()
	screen := tail.Screen{Width: terminalWidth(out), Terminal: out}
	if f.output == "" {
		f.output = map[bool]string{true: "table", false: "json"}[screen.Width > 0]
	}
	fields, err := tail.AvroNames(f.fields)
	if err != nil {
		return fmt.Errorf("--fields %w", err)
	}
	buffered := bufio.NewWriterSize(out, 64<<10)
	o.Flush = buffered.Flush
	var printEvent func(topic string, e *eventlog.Event, decoded *schema.Event) error
	switch f.output {
	case "json":
		view := tail.View{Fields: fields, PersonalData: f.pii || !cmd.Flags().Changed("personal-data")}
		printEvent = tail.NewJSON(buffered, view).Print
	case "table":
		for i := range cfg.Sources {
			screen.SourceWidth = max(screen.SourceWidth, len(cfg.Sources[i].Name))
		}
		printEvent = tail.NewTable(buffered, tail.View{Fields: fields, PersonalData: f.pii}, screen).Print
	default:
		return fmt.Errorf("-o %s: want table or json", f.output)
	}
	o.Print = func(e *eventlog.Event, decoded *schema.Event) error { return printEvent(o.Topic, e, decoded) }
	return nil
}
