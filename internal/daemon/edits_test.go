package daemon_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
	"cdrbus/internal/config"
	"cdrbus/internal/daemon"
	"cdrbus/internal/kafkaconn"
	"cdrbus/internal/mend"
	"cdrbus/internal/positions"
	"cdrbus/internal/status"
	"cdrbus/offsets"
)

// Positions that a person mends: each refusal, produced, and the command that it
// names. Afterwards the source runs, and nothing is lost, nor doubled beyond what the
// command has said.

const idsTopic = "webex.cdr.ids"

// connected lends a client of the world's Kafka.
func (w *world) connected(use func(*kafka.Client)) {
	w.t.Helper()
	client, err := kafkaconn.New(kafkaconn.Options{Brokers: w.cluster.Brokers(), ClientID: "command", DialContext: w.network.DialContext})
	if err != nil {
		w.t.Fatal(err)
	}
	defer kafkaconn.Close(client)
	use(client)
}

// mend does an edit as a command does, and returns the plan that was shown before.
func (w *world) mend(ctx context.Context, cfg *config.Config, name string, edit offsets.Edit) (plan *positions.Plan, told []string, err error) {
	w.t.Helper()
	source, err := cfg.SourceNamed(name)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // rather than for ever
	defer cancel()
	w.connected(func(client *kafka.Client) {
		registry, failed := daemon.NewRegistry(cfg, daemon.DialFunc(w.network.DialContext))
		if failed != nil {
			w.t.Fatal(failed)
		}
		log := &positions.Log{Config: cfg, Reader: committed.NewReader(client), SchemaByID: registry.SchemaByID}
		if plan, err = log.Plan(ctx, source, edit); err != nil {
			return
		}
		m := mend.Mender{
			Config: cfg, Client: client, Log: w.log, Version: "test", By: "here",
			Tell:      func(s string) { told = append(told, s) },
			DialKafka: w.network.DialContext, DialFeed: w.network.DialContext,
		}
		_, err = m.Do(ctx, source, edit)
	})
	return plan, told, err
}

var remedyPattern = regexp.MustCompile(`^cdrbus offsets (set|move|adopt) ([a-z]+) (--[a-z-]+)(?: ([0-9]+))?(?: --to-shard ([0-9]+))? -c FILE$`)

// editIn reads the command of a remedy.
func editIn(t *testing.T, remedy string) offsets.Edit {
	t.Helper()
	words := remedyPattern.FindStringSubmatch(remedy)
	if words == nil {
		t.Fatalf("remedy %q is no command", remedy)
	}
	number := func(text string) int { n, _ := strconv.Atoi(text); return n }
	switch words[1] + words[3] {
	case "set--from-receipts":
		return offsets.Edit{What: offsets.EditFromReceipts}
	case "set--journal-from":
		return offsets.Edit{What: offsets.EditJournalFrom, JournalFrom: int64(number(words[4]))}
	case "move--from-shard":
		return offsets.Edit{What: offsets.EditMove, FromShard: number(words[4]), ToShard: number(words[5])}
	case "adopt--prefix":
		return offsets.Edit{What: offsets.EditPrefix}
	case "adopt--shards":
		return offsets.Edit{What: offsets.EditShards}
	case "adopt--definition":
		return offsets.Edit{What: offsets.EditDefinition}
	}
	t.Fatalf("remedy %q is of no kind that is known", remedy)
	return offsets.Edit{}
}

// resealed changes the text of a position and closes it with a good checksum.
func resealed(t *testing.T, p offsets.Position, old, new string) []byte {
	t.Helper()
	value, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := strings.Cut(string(value), `,"checksum":"`)
	if !strings.Contains(body, old) {
		t.Fatalf("%s holds no %s", body, old)
	}
	body = strings.Replace(body, old, new, 1)
	return fmt.Appendf(nil, `%s,"checksum":"%08x"}`, body, crc32.Checksum([]byte(body), crc32.MakeTable(crc32.Castagnoli)))
}

// lastChunk is the last record of a source in the ID journal.
func (w *world) lastChunk(name string) (last committed.Record) {
	w.t.Helper()
	for _, r := range w.topic(idsTopic, w.shards) {
		if string(r.Key) == name {
			last = r
		}
	}
	if last.Value == nil {
		w.t.Fatal("the ID journal is empty")
	}
	return last
}

// changedChunk is the last chunk, changed, with a good checksum.
func (w *world) changedChunk(name string, change func([]byte)) []byte {
	w.t.Helper()
	value := w.lastChunk(name).Value
	change(value)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(value[8:], crc32.Update(crc32.Checksum(value[:8], table), table, value[12:]))
	return value
}

func (w *world) intrudeInto(topic string, partition int, key string, value []byte) {
	w.t.Helper()
	client := w.client()
	defer client.Close()
	record := &kgo.Record{Topic: topic, Partition: int32(partition), Key: []byte(key), Value: value}
	if err := client.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// lastPosition is the last position of a source that can be read, wherever it lies.
func (w *world) lastPosition(name string) (last offsets.Position) {
	w.t.Helper()
	for _, r := range w.topic(offsetsTopic, w.shards) {
		if p, err := offsets.DecodePosition(r.Value); err == nil && string(r.Key) == name && string(p.Source) == name && p.Counter > last.Counter {
			last = p
		}
	}
	return last
}

// demandPublished demands that every record of a source up to its position is there,
// and no more than so many twice.
func (w *world) demandPublished(name string, mayDouble int64) {
	w.t.Helper()
	found := map[string]int{}
	for _, r := range w.topic(eventsTopic, w.events) {
		if headerOf(r, "ce_source") == daemon.EventSource(cdr.SourceName(name)) {
			found[headerOf(r, "ce_id")]++
		}
	}
	span := cdr.Span{StartInclusive: w.start, EndExclusive: w.lastPosition(name).FeedPublished}
	if span.Validate() != nil || span.EndExclusive < cdr.InstantOf(time.Now().Add(-30*time.Minute)) {
		w.t.Errorf("%s has come to %s only", name, span.EndExclusive)
	}
	missing, doubled, records := 0, int64(0), 0
	for truth := range w.feed.Truth(name, span) {
		if records++; found[truth.ReportID] == 0 && truth.ReportID != "" { // those are dead letters
			missing++
		}
		doubled += int64(max(found[truth.ReportID]-1, 0))
	}
	if missing > 0 || doubled > mayDouble || records == 0 {
		w.t.Errorf("of %d records of %s %d are missing and %d doubled, want none missing and at most %d doubled", records, name, missing, doubled, mayDouble)
	}
}

// refusals are all codes, how they come about, and under what configuration.
var refusals = []struct {
	code  offsets.RefusalCode
	spoil func(w *world, acme offsets.Position)
	says  string                                                          // of the refusal
	under func(w *world, cfg config.Config, more []string) *config.Config // nil: the same
}{
	{offsets.PositionDeleted, func(w *world, p offsets.Position) { w.intrude(p.Shard, "acme", nil) }, "somebody deleted it", nil},
	{offsets.PositionUnreadable, func(w *world, p offsets.Position) { w.intrude(p.Shard, "acme", []byte("x")) }, "unreadable", nil},
	{offsets.PositionBroken, func(w *world, p offsets.Position) {
		value, _ := p.Encode()
		w.intrude(p.Shard, "acme", []byte(strings.Replace(string(value), `"mended":false`, `"mended":true`, 1)))
	}, "broken checksum", nil},
	{offsets.PositionOfLater, func(w *world, p offsets.Position) {
		w.intrude(p.Shard, "acme", resealed(w.t, p, `"version":1,"min_reader":1`, `"version":2,"min_reader":2`))
	}, "later version", nil},
	{offsets.PositionZero, func(w *world, p offsets.Position) {
		w.intrude(p.Shard, "acme", resealed(w.t, p, fmt.Sprintf(`"counter":%d`, p.Counter), `"counter":0`))
	}, "position is zero", nil},
	{offsets.PositionInvalid, func(w *world, p offsets.Position) {
		w.intrude(p.Shard, "acme", resealed(w.t, p, `"shards":2`, `"shards":0`))
	}, "position is invalid", nil},
	{offsets.PositionUnderKey, func(w *world, p offsets.Position) {
		other, _ := w.position("globex").Encode()
		w.intrude(p.Shard, "acme", other)
	}, "foreign key", nil},
	{offsets.PositionWentBack, func(w *world, p offsets.Position) {
		w.intrudePosition(p, func(p *offsets.Position) { p.Counter-- })
	}, "goes back", nil},
	{offsets.PositionForked, func(w *world, p offsets.Position) { w.intrudePosition(p, func(*offsets.Position) {}) }, "comes again", nil},
	{offsets.PositionLost, func(w *world, p offsets.Position) { w.truncate(offsetsTopic, p.Shard) }, "position is lost", nil},
	{offsets.PositionUnvouched, func(w *world, p offsets.Position) {
		w.intrudePosition(p, func(p *offsets.Position) {
			p.Counter, p.FeedPublished = p.Counter+10, p.FeedPublished.Add(time.Hour)
		})
		time.Sleep(2 * time.Hour)
	}, "no receipt of that commit", nil},

	{offsets.PositionElsewhere, nil, "the configuration places it in shard", func(w *world, cfg config.Config, more []string) *config.Config {
		more[0] = "shard_key: " + movingKey
		return w.config("", w.source("acme", more...), w.source("globex", more...))
	}},
	{offsets.PositionOfShards, nil, "and 5 are configured", func(w *world, cfg config.Config, more []string) *config.Config {
		for _, topic := range []string{offsetsTopic, idsTopic, "webex.cdr.windows", "webex.cdr.deadletter", "webex.cdr.jobs"} {
			w.addPartitions(topic, 5)
		}
		w.shards = 5
		more[0] = "shard_key: " + stayingKey
		return w.config("", w.source("acme", more...), w.source("globex", more...))
	}},
	{offsets.PositionOfPrefix, nil, "does not fence", func(w *world, cfg config.Config, _ []string) *config.Config {
		cfg.Kafka.TransactionalIDPrefix = "blue"
		return &cfg
	}},
	{offsets.PositionOfOtherFeed, nil, "and the configuration says auto", func(w *world, cfg config.Config, more []string) *config.Config {
		return w.config("", w.source("acme", append(more, "endpoint: auto")...), w.source("globex", more...))
	}},

	{offsets.JournalUnreadable, func(w *world, p offsets.Position) { w.intrudeInto(idsTopic, p.Shard, "acme", []byte("x")) }, "journal chunk is unreadable", nil},
	{offsets.JournalOfLater, func(w *world, p offsets.Position) {
		w.intrudeInto(idsTopic, p.Shard, "acme", w.changedChunk("acme", func(c []byte) { c[4], c[5] = 2, 2 }))
	}, "of a later version", nil},
	{offsets.JournalAhead, func(w *world, p offsets.Position) {
		w.intrudeInto(idsTopic, p.Shard, "acme", w.changedChunk("acme", func(c []byte) { c[23] += 5 }))
	}, "its position is at", nil},
	{offsets.JournalTorn, func(w *world, p offsets.Position) {
		w.intrudeInto(idsTopic, p.Shard, "acme", w.lastChunk("acme").Value)
	}, "twice", nil},
	{offsets.JournalLost, func(w *world, _ offsets.Position) { w.loseJournal("acme", "globex") }, "made anew", nil},
}

// loseJournal lets an ID journal that was counted from behind its beginning begin anew.
func (w *world) loseJournal(names ...string) {
	w.t.Helper()
	cfg, err := config.Load(filepath.Join(w.folder, "cdrbus.yaml"), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range names {
		if _, _, err := w.mend(w.t.Context(), cfg, name, offsets.Edit{What: offsets.EditJournalFrom, JournalFrom: 1}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.makeAnew(idsTopic, fewShards)
}

// Shard keys: one that lies in the same shard of two and of five, and one that lies in
// another shard than the key "both".
var (
	stayingKey = keyThat(func(s *config.Source) bool { return s.Shard(2) == s.Shard(5) })
	movingKey  = keyThat(func(s *config.Source) bool { return s.Shard(2) != (&config.Source{ShardKey: "both"}).Shard(2) })
)

func keyThat(suits func(*config.Source) bool) string {
	for i := 0; ; i++ {
		if s := (&config.Source{ShardKey: fmt.Sprintf("key-%d", i)}); suits(s) {
			return s.ShardKey
		}
	}
}

// TestEveryRefusalHasItsCure: the command that a refusal names exists, and cures it.
func TestEveryRefusalHasItsCure(t *testing.T) {
	for _, c := range refusals {
		t.Run(string(c.code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, cfg, more := newCureWorld(t, c.code)
				w.runOn(cfg)
				acme := w.position("acme")
				if c.spoil != nil {
					c.spoil(w, acme)
				}
				if c.under != nil {
					cfg = c.under(w, *cfg, more)
				}
				time.Sleep(20 * time.Minute)
				sick := w.runOn(cfg)
				sick.demandRefused("acme", c.says)
				mayDouble := w.cure(cfg, sick)
				well := w.runOn(cfg)
				for _, name := range []string{"acme", "globex"} {
					if s := well.source(cdr.SourceName(name)); s.State == status.Refused {
						t.Fatalf("%s is refused still: %s", name, s.Reason)
					}
					w.demandPublished(name, mayDouble)
				}
				if p := w.lastPosition("acme"); p.Mended || p.Counter <= acme.Counter {
					t.Errorf("acme has mended %v, counter %d after %d", p.Mended, p.Counter, acme.Counter)
				}
			})
		})
	}
}

// newCureWorld is newPair, in a shard that suits the case.
func newCureWorld(t *testing.T, code offsets.RefusalCode) (*world, *config.Config, []string) {
	w, _ := newPair(t)
	more := []string{"shard_key: both", "limits: {initial_per_minute: 6, pages_per_minute: 60}"}
	if code == offsets.PositionOfShards {
		more[0] = "shard_key: " + stayingKey
	}
	return w, w.config("", w.source("acme", more...), w.source("globex", more...)), more
}

// cure runs the commands that the refusals of a life name, and returns how many
// records these said may be doubled.
func (w *world) cure(cfg *config.Config, sick *life) (mayDouble int64) {
	w.t.Helper()
	for _, name := range []string{"acme", "globex"} {
		s := sick.source(cdr.SourceName(name))
		if s.State != status.Refused {
			continue
		}
		plan, told, err := w.mend(w.t.Context(), cfg, name, editIn(w.t, s.Remedy))
		if err != nil {
			w.t.Fatalf("%s: %v (%v)", s.Remedy, err, told)
		}
		if plan.Then != "" {
			w.t.Errorf("%s: a restore will say: %s", s.Remedy, plan.Then)
		}
		w.t.Logf("%s: %s (%s)", s.Remedy, plan.Summary(), strings.Join(told, "; "))
		mayDouble += plan.ForgottenIDs
	}
	return mayDouble
}
