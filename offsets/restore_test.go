package offsets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// shardOptions restore shard 1 of 4 with the sources named.
func shardOptions(mode Mode, sources ...cdr.SourceName) RestoreOptions {
	o := RestoreOptions{OffsetsTopic: "offsets", WindowsTopic: "windows", Shard: 1, Shards: 4, Partitions: 4, Prefix: "cdrbus", Mode: mode}
	for _, s := range sources {
		o.Expect = append(o.Expect, Expectation{Source: s, Definition: startPosition().Definition})
	}
	return o
}

// at returns a position of source in shard 1 of 4.
func at(source cdr.SourceName, counter cdr.Counter, published time.Duration) Position {
	p := startPosition()
	p.Source, p.Counter, p.Shard, p.Shards = source, counter, 1, 4
	p.FeedPublished = day.Add(published)
	return p
}

func (l *memoryLog) position(t testing.TB, partition int, p Position) int64 {
	t.Helper()
	return l.append("offsets", partition, string(p.Source), encoded(t, p))
}

func restore(t testing.TB, l *memoryLog, o RestoreOptions) *Restored {
	t.Helper()
	r, err := Restore(context.Background(), l, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRestoreTakesTheLastPosition(t *testing.T) {
	l := newLog()
	l.position(t, 1, at("acme", 1, 0))
	l.position(t, 1, at("beta", 7, 0)) // compaction took 1 to 6
	l.position(t, 1, at("acme", 2, time.Hour))
	want := l.position(t, 1, at("acme", 5, 2*time.Hour)) // and 3 and 4
	l.position(t, 1, at("gone", 1, 0))                   // no longer configured

	r := restore(t, l, shardOptions(ExactlyOnce, "acme", "fresh", "beta"))
	if len(r.Sources) != 3 {
		t.Fatalf("%d sources, want 3", len(r.Sources))
	}
	acme := r.Sources[0]
	if acme.Source != "acme" || acme.New || acme.Refused != nil || acme.Offset != want || acme.Position.Counter != 5 || acme.Position.FeedPublished != day.Add(2*time.Hour) || acme.Repeats != "" {
		t.Errorf("acme is %+v", acme)
	}
	if fresh := r.Sources[1]; fresh.Source != "fresh" || !fresh.New || fresh.Refused != nil || fresh.Position.Counter != 0 {
		t.Errorf("fresh is %+v, want new", fresh)
	}
	if beta := r.Sources[2]; beta.Source != "beta" || beta.New || beta.Position.Counter != 7 {
		t.Errorf("beta is %+v", beta)
	}
	if !slices.Equal(r.Others, []cdr.SourceName{"gone"}) {
		t.Errorf("others are %v, want gone", r.Others)
	}
	if want := (committed.Bounds{LastStable: 10, HighWatermark: 10}); r.Bounds != want {
		t.Errorf("bounds are %+v, want %+v", r.Bounds, want)
	}
}

// TestRestoreSearchesNoFurtherThanNeeded: other shards are read only for sources
// without a position, and a shard without positions costs no read. Receipts are read
// from the oldest of the last commits on, and all of them for a source without any.
func TestRestoreSearchesNoFurtherThanNeeded(t *testing.T) {
	l := newLog()
	l.position(t, 1, at("acme", 1, 0))
	other := at("delta", 1, 0)
	other.Shard = 3
	l.position(t, 3, other)
	l.append("windows", 1, "acme", []byte("a receipt"))
	restore(t, l, shardOptions(ExactlyOnce, "acme"))
	if want := []string{"offsets/1[0,2)", "windows/1[0,2)"}; !slices.Equal(l.reads, want) {
		t.Errorf("reads are %v, want %v", l.reads, want)
	}
	l.reads = nil
	restore(t, l, shardOptions(ExactlyOnce, "acme", "fresh"))
	if want := []string{"offsets/1[0,2)", "offsets/3[0,2)", "windows/1[0,2)", "windows/1[0,2)"}; !slices.Equal(l.reads, want) {
		t.Errorf("reads are %v, want %v", l.reads, want)
	}
}

// refusalCase is a log in which source acme of shard 1 of 4 has to be refused.
type refusalCase struct {
	name string
	code RefusalCode
	fill func(*testing.T, *memoryLog)
}

var refusalCases = []refusalCase{
	{"tombstone", PositionDeleted, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 1, 0))
		l.append("offsets", 1, "acme", nil)
	}},
	{"garbage behind", PositionUnreadable, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 1, 0))
		l.append("offsets", 1, "acme", []byte("hello"))
	}},
	{"garbage alone", PositionUnreadable, func(t *testing.T, l *memoryLog) {
		l.append("offsets", 1, "acme", []byte(`{"a":1}`))
	}},
	{"edited by hand", PositionBroken, func(t *testing.T, l *memoryLog) {
		l.append("offsets", 1, "acme", bytes.Replace(encoded(t, at("acme", 1, 0)), []byte(`"counter":1`), []byte(`"counter":0`), 1))
	}},
	{"later version", PositionOfLater, func(t *testing.T, l *memoryLog) {
		value := encoded(t, at("acme", 1, 0))
		body := bytes.Replace(value[:bytes.LastIndex(value, []byte(checksumKey))], []byte(`"version":1,"min_reader":1`), []byte(`"version":2,"min_reader":2`), 1)
		l.append("offsets", 1, "acme", sealPosition(body))
	}},
	{"zero", PositionZero, func(t *testing.T, l *memoryLog) {
		value := encoded(t, at("acme", 1, 0))
		body := bytes.Replace(value[:bytes.LastIndex(value, []byte(checksumKey))], []byte(`"counter":1`), []byte(`"counter":0`), 1)
		l.append("offsets", 1, "acme", sealPosition(body))
	}},
	{"invalid", PositionInvalid, func(t *testing.T, l *memoryLog) {
		value := encoded(t, at("acme", 1, 0))
		body := bytes.Replace(value[:bytes.LastIndex(value, []byte(checksumKey))], []byte(`"shard":1`), []byte(`"shard":9`), 1)
		l.append("offsets", 1, "acme", sealPosition(body))
	}},
	{"under a foreign key", PositionUnderKey, func(t *testing.T, l *memoryLog) {
		l.append("offsets", 1, "acme", encoded(t, at("beta", 1, 0)))
	}},
	{"counter goes back", PositionWentBack, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 4, 0))
		l.position(t, 1, at("acme", 5, 0))
		l.position(t, 1, at("acme", 4, time.Hour))
	}},
	{"counter forks and goes on", PositionForked, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 5, 0))
		l.position(t, 1, at("acme", 5, time.Hour))
		l.position(t, 1, at("acme", 6, time.Hour))
	}},
	{"counter jumps and the other writer goes on", PositionWentBack, func(t *testing.T, l *memoryLog) {
		for _, counter := range []cdr.Counter{5, 15, 6, 7, 15} {
			l.position(t, 1, at("acme", counter, 0))
		}
	}},
	{"counter not mended", PositionWentBack, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 5, 0))
		mended := at("acme", 4, 0)
		mended.Mended = true
		l.position(t, 1, mended)
	}},
	{"lost", PositionLost, func(t *testing.T, l *memoryLog) {
		l.append("windows", 1, "beta", []byte("a receipt"))
		l.append("windows", 1, "acme", []byte("a receipt"))
		l.append("windows", 1, "acme", []byte("the last receipt"))
		l.append("windows", 1, "beta", []byte("a receipt"))
	}},
	{"without a receipt", PositionUnvouched, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 5, 0))
		l.receipt(t, 1, "acme", 5)
		l.position(t, 1, at("acme", 15, time.Hour))
	}},
	{"in another shard", PositionElsewhere, func(t *testing.T, l *memoryLog) {
		p := at("acme", 9, 0)
		p.Shard = 3
		l.position(t, 3, p)
		l.append("windows", 1, "acme", []byte("a receipt"))
	}},
	{"in another shard of fewer", PositionElsewhere, func(t *testing.T, l *memoryLog) {
		p := at("acme", 9, 0)
		p.Shard, p.Shards = 0, 1
		l.position(t, 0, p)
	}},
	{"in another shard, unreadable", PositionElsewhere, func(t *testing.T, l *memoryLog) {
		l.append("offsets", 2, "acme", []byte("garbage"))
	}},
	{"moved on from another shard", PositionElsewhere, func(t *testing.T, l *memoryLog) {
		moved := at("acme", 9, 0)
		moved.Shard = 2
		l.position(t, 0, moved)
		l.position(t, 2, moved)
		l.position(t, 3, moved)
	}},
	{"moved away from here", PositionElsewhere, func(t *testing.T, l *memoryLog) {
		l.position(t, 1, at("acme", 8, 0))
		moved := at("acme", 9, 0)
		moved.Shard = 2
		l.position(t, 1, moved)
	}},
	{"other shard count", PositionOfShards, func(t *testing.T, l *memoryLog) {
		p := at("acme", 1, 0)
		p.Shards = 8
		l.position(t, 1, p)
	}},
	{"other prefix", PositionOfPrefix, func(t *testing.T, l *memoryLog) {
		p := at("acme", 1, 0)
		p.TransactionalPrefix = "blue"
		l.position(t, 1, p)
	}},
	{"other definition", PositionOfOtherFeed, func(t *testing.T, l *memoryLog) {
		p := at("acme", 1, 0)
		p.Definition.Locations = []string{"Bergen", "Oslo"}
		l.position(t, 1, p)
	}},
}

// TestRestoreRefuses runs every refusal, and compares what people read with a golden
// file. Another source of the shard is never touched by it.
func TestRestoreRefuses(t *testing.T) {
	var text strings.Builder
	for _, c := range refusalCases {
		t.Run(c.name, func(t *testing.T) {
			l := newLog()
			c.fill(t, l)
			l.position(t, 1, at("steady", 3, time.Hour))
			l.receipt(t, 1, "steady", 3)
			for _, order := range [][]cdr.SourceName{{"acme", "steady"}, {"steady", "acme"}} {
				r := restore(t, l, shardOptions(ExactlyOnce, order...))
				acme, steady := r.Sources[slices.Index(order, "acme")], r.Sources[slices.Index(order, "steady")]
				if steady.Refused != nil || steady.Position.Counter != 3 {
					t.Fatalf("steady is %+v", steady)
				}
				if acme.Refused == nil || acme.Refused.Code != c.code || acme.New || acme.Position.Counter != 0 {
					t.Fatalf("acme is %+v, want refused with %s", acme, c.code)
				}
				if acme.Refused.Source != "acme" || acme.Refused.Topic == "" || acme.Refused.Remedy == "" {
					t.Errorf("refusal is %+v", acme.Refused)
				}
				if order[0] == "acme" {
					fmt.Fprintf(&text, "%s:\n\t%s: %v\n", c.name, acme.Refused.Code, acme.Refused)
				}
			}
		})
	}
	golden(t, "refusals.txt", []byte(text.String()))
}

func TestRefusalWrapsItsCause(t *testing.T) {
	l := newLog()
	l.append("offsets", 1, "acme", []byte("hello"))
	r := restore(t, l, shardOptions(ExactlyOnce, "acme"))
	if !errors.Is(r.Sources[0].Refused, ErrUnreadablePosition) {
		t.Errorf("%v does not wrap ErrUnreadablePosition", r.Sources[0].Refused)
	}
}

func TestRestoreStepsOverWhatIsHealed(t *testing.T) {
	mended := at("acme", 9, time.Minute)
	mended.Mended = true
	for name, fill := range map[string]func(*memoryLog){
		"garbage before": func(l *memoryLog) {
			l.append("offsets", 1, "acme", []byte("hello"))
			l.append("offsets", 1, "acme", nil)
			l.position(t, 1, at("acme", 8, 0))
		},
		"garbage between": func(l *memoryLog) {
			l.position(t, 1, at("acme", 8, 0))
			l.append("offsets", 1, "acme", encoded(t, at("beta", 10, 0)))
		},
		"mended fork": func(l *memoryLog) {
			l.position(t, 1, at("acme", 8, 0))
			l.position(t, 1, at("acme", 8, time.Hour))
			l.position(t, 1, mended)
			mended.Counter = 9
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog()
			fill(l)
			l.position(t, 1, at("acme", 10, time.Minute))
			state := restore(t, l, shardOptions(ExactlyOnce, "acme")).Sources[0]
			if state.Refused != nil || state.Position.Counter != 10 {
				t.Errorf("acme is %+v", state)
			}
		})
	}
}

// TestMendedCountsFromItself: what two writers left behind is forgotten, but a fork
// after the mending is refused again.
func TestMendedCountsFromItself(t *testing.T) {
	l := newLog()
	l.position(t, 1, at("acme", 8, 0))
	l.position(t, 1, at("acme", 7, 0))
	mended := at("acme", 9, 0)
	mended.Mended = true
	l.position(t, 1, mended)
	if state := restore(t, l, shardOptions(ExactlyOnce, "acme")).Sources[0]; state.Refused != nil || state.Position.Counter != 9 {
		t.Fatalf("acme is %+v", state)
	}
	l.position(t, 1, at("acme", 9, 0))
	if state := restore(t, l, shardOptions(ExactlyOnce, "acme")).Sources[0]; state.Refused == nil || state.Refused.Code != PositionForked {
		t.Errorf("acme is %+v, want a fork", state)
	}
}

func TestRestoreAtLeastOnceTakesTheFurthest(t *testing.T) {
	stream := at("acme", 2, 5*time.Hour)
	stream.StreamPublished = day.Add(6 * time.Hour)
	mended := at("acme", 9, time.Hour)
	mended.Mended = true
	later := func(p Position) []byte {
		value := encoded(t, p)
		return sealPosition(bytes.Replace(value[:bytes.LastIndex(value, []byte(checksumKey))], []byte(`"version":1,"min_reader":1`), []byte(`"version":2,"min_reader":2`), 1))
	}
	for name, c := range map[string]struct {
		fill      func(*memoryLog)
		published time.Duration
		counter   cdr.Counter
		repeats   string
	}{
		"in order": {func(l *memoryLog) { l.position(t, 1, at("acme", 1, 0)); l.position(t, 1, at("acme", 2, time.Hour)) }, time.Hour, 2, ""},
		"back": {func(l *memoryLog) {
			l.position(t, 1, at("acme", 4, 5*time.Hour))
			l.position(t, 1, at("acme", 3, 2*time.Hour))
		}, 5 * time.Hour, 4, "its counter goes back to 3 after 4 at offset 0: a second writer, or a backup put back (offsets, partition 1, offset 2)"},
		"back, but further": {func(l *memoryLog) {
			l.position(t, 1, at("acme", 4, 2*time.Hour))
			l.position(t, 1, at("acme", 3, 5*time.Hour))
		}, 5 * time.Hour, 4, "its counter goes back to 3"},
		"further by stream": {func(l *memoryLog) {
			l.position(t, 1, stream)
			l.position(t, 1, at("acme", 3, 5*time.Hour))
		}, 5 * time.Hour, 3, ""},
		"forked": {func(l *memoryLog) {
			l.position(t, 1, at("acme", 2, 5*time.Hour))
			l.position(t, 1, at("acme", 2, 5*time.Hour))
		}, 5 * time.Hour, 2, "its counter 2 comes again after offset 0: two writers"},
		"garbage behind": {func(l *memoryLog) {
			l.position(t, 1, at("acme", 4, time.Hour))
			l.append("offsets", 1, "acme", []byte("hello"))
		}, time.Hour, 4, "position is unreadable"},
		"later version behind": {func(l *memoryLog) {
			l.position(t, 1, at("acme", 4, time.Hour))
			l.append("offsets", 1, "acme", later(at("acme", 5, 2*time.Hour)))
		}, time.Hour, 4, "position is of a later version"},
		"reset backwards by a person": {func(l *memoryLog) { l.position(t, 1, at("acme", 8, 5*time.Hour)); l.position(t, 1, mended) }, time.Hour, 9, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog()
			c.fill(l)
			state := restore(t, l, shardOptions(AtLeastOnce, "acme")).Sources[0]
			if state.Refused != nil || state.Position.FeedPublished != day.Add(c.published) || state.Position.Counter != c.counter {
				t.Errorf("acme is %+v", state)
			}
			if (state.Repeats == "") != (c.repeats == "") || !strings.Contains(state.Repeats, c.repeats) {
				t.Errorf("repeats: %q, want %q", state.Repeats, c.repeats)
			}
			if name == "further by stream" && state.Position.StreamPublished != stream.StreamPublished {
				t.Error("the stream's watermark does not count")
			}
		})
	}
}

// TestRestoreAtLeastOnceStillRefuses: what is no position at all, or not the expected
// one, needs a person in either mode.
func TestRestoreAtLeastOnceStillRefuses(t *testing.T) {
	heals := map[RefusalCode]bool{PositionForked: true, PositionWentBack: true}
	healed := map[string]bool{"tombstone": true, "garbage behind": true}
	for _, c := range refusalCases {
		l := newLog()
		c.fill(t, l)
		state := restore(t, l, shardOptions(AtLeastOnce, "acme")).Sources[0]
		if heals[c.code] || healed[c.name] {
			if state.Refused != nil || state.Repeats == "" {
				t.Errorf("%s: acme is %+v, want taken with possible repeats", c.name, state)
			}
			continue
		}
		if state.Refused == nil || state.Refused.Code != c.code {
			t.Errorf("%s: acme is %+v, want refused with %s", c.name, state, c.code)
		}
	}
}

func TestRestoreRefusesAHangingTransaction(t *testing.T) {
	for _, mode := range []Mode{ExactlyOnce, AtLeastOnce} {
		l := newLog()
		l.position(t, 1, at("acme", 1, 0))
		l.partition("offsets", 1).bounds.HighWatermark = 9
		_, err := Restore(context.Background(), l, shardOptions(mode, "acme"))
		var hanging *HangingTransaction
		if !errors.As(err, &hanging) || hanging.Bounds.LastStable != 2 || hanging.Partition != 1 || len(l.reads) != 0 {
			t.Fatalf("got %v after reads %v, want a hanging transaction and no read", err, l.reads)
		}
		if want := "kafka-transactions.sh --bootstrap-server BROKER abort --topic offsets --partition 1 --start-offset 2"; !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	// Another shard's owner may be at work; the receipts of our own shard may not.
	l := newLog()
	l.position(t, 3, at("other", 1, 0))
	l.partition("offsets", 3).bounds.HighWatermark = 9
	if state := restore(t, l, shardOptions(ExactlyOnce, "acme")).Sources[0]; !state.New {
		t.Errorf("acme is %+v, want new", state)
	}
	l.partition("windows", 1).bounds.HighWatermark = 1
	var hanging *HangingTransaction
	if _, err := Restore(context.Background(), l, shardOptions(ExactlyOnce, "acme")); !errors.As(err, &hanging) || hanging.Topic != "windows" {
		t.Errorf("got %v, want a hanging transaction in windows", err)
	}
}

func TestRestorePassesReadErrorsOn(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, where := range []string{"bounds of offsets", "read of offsets", "bounds of windows", "read of windows"} {
		l := newLog()
		l.position(t, 1, at("beta", 1, 0))
		l.position(t, 3, at("gamma", 1, 0))
		l.append("windows", 1, "beta", []byte("a receipt"))
		l.fail[where] = broken
		if _, err := Restore(context.Background(), l, shardOptions(ExactlyOnce, "acme")); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", where, err)
		}
	}
}

func TestReadPositionsReadsOnlyWhatIsNew(t *testing.T) {
	l := newLog()
	l.position(t, 1, at("acme", 1, 0))
	l.append("windows", 1, "lost", []byte("a receipt"))
	l.receipt(t, 1, "acme", 1)
	before := restore(t, l, shardOptions(ExactlyOnce, "acme", "fresh", "lost"))
	l.position(t, 1, at("acme", 2, time.Hour))
	l.position(t, 1, at("fresh", 1, 0))
	l.reads = nil
	after, err := ReadPositions(context.Background(), l, before)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"offsets/1[2,6)"}; !slices.Equal(l.reads, want) {
		t.Errorf("reads are %v, want %v", l.reads, want)
	}
	if s := after.Sources[0]; s.Position.Counter != 2 || s.Offset != 2 {
		t.Errorf("acme is %+v", s)
	}
	if s := after.Sources[1]; s.New || s.Position.Counter != 1 {
		t.Errorf("fresh is %+v", s)
	}
	if s := after.Sources[2]; s.Refused == nil || s.Refused.Code != PositionLost {
		t.Errorf("lost is %+v", s)
	}
	if s := before.Sources[0]; s.Position.Counter != 1 {
		t.Errorf("what was restored before changed to %+v", s)
	}
	if twice, err := ReadPositions(context.Background(), l, before); err != nil || twice.Sources[0].Refused != nil || twice.Sources[0].Position.Counter != 2 {
		t.Errorf("read on a second time acme is %+v, %v", twice.Sources[0], err)
	}
	// Nothing new: no read at all, and the same positions.
	l.reads = nil
	again, err := ReadPositions(context.Background(), l, after)
	if err != nil || len(l.reads) != 0 || again.Sources[0].Position.Counter != 2 {
		t.Errorf("read %v, %v; acme is %+v", l.reads, err, again.Sources[0])
	}
	// The chain goes on over the seam.
	l.position(t, 1, at("acme", 2, time.Hour))
	forked, err := ReadPositions(context.Background(), l, again)
	if err != nil || forked.Sources[0].Refused == nil || forked.Sources[0].Refused.Code != PositionForked {
		t.Errorf("acme is %+v, %v; want a fork", forked.Sources[0], err)
	}
}

func TestReadPositionsNoticesALostTail(t *testing.T) {
	l := newLog()
	l.position(t, 1, at("acme", 1, 0))
	l.position(t, 1, at("acme", 2, 0))
	before := restore(t, l, shardOptions(ExactlyOnce, "acme"))
	l.partition("offsets", 1).bounds = committed.Bounds{LastStable: 2, HighWatermark: 2}
	if _, err := ReadPositions(context.Background(), l, before); err == nil || !strings.Contains(err.Error(), "offsets-1 ends at offset 2, but had been read up to 4") {
		t.Errorf("got %v", err)
	}
	l.partition("offsets", 1).bounds = committed.Bounds{LastStable: 2, HighWatermark: 5}
	var hanging *HangingTransaction
	if _, err := ReadPositions(context.Background(), l, before); !errors.As(err, &hanging) {
		t.Errorf("got %v, want a hanging transaction", err)
	}
}

// TestFollowUnread: leaving positions unread changes nothing about what is found,
// whatever lies in the log.
func TestFollowUnread(t *testing.T) {
	broken := []byte(`{"version":1,"min_reader":1,"source":"acme","counter":9,"mended":false,"checksum":"00000000"}`)
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 5))
		read, unread, counter := &chain{}, &chain{}, cdr.Counter(0)
		for offset := range int64(12) {
			counter += cdr.Counter(1 + random.IntN(2))
			p := at("acme", counter, time.Duration(counter)*time.Hour)
			switch random.IntN(12) {
			case 0:
				p.Counter = max(1, counter-cdr.Counter(random.IntN(3)))
			case 1:
				p.Mended = true
			case 2:
				p.Source = "beta"
			case 3:
				p.OrgUUID = `,"mended":false`
			}
			value := encoded(t, p)
			switch random.IntN(12) {
			case 0:
				value = broken
			case 1:
				value[len(value)/2] ^= 1
			case 2:
				value = nil
			case 3:
				value = append(value, ' ')
			}
			record := committed.Record{Offset: offset, Key: []byte("acme"), Value: value}
			read.append(record)
			unread.follow(record, ExactlyOnce)
			if random.IntN(4) == 0 {
				unread = unread.clone()
			}
		}
		unread.readLast("acme")
		want, got := read.refusal("acme"), unread.refusal("acme")
		if (want == nil) != (got == nil) || want != nil && (want.Error() != got.Error() || want.Offset != got.Offset) {
			t.Fatalf("seed %d: refused as %v, want %v", seed, got, want)
		}
		if read.valid != unread.valid || read.last.offset != unread.last.offset || read.last.position.Counter != unread.last.position.Counter || read.counter != unread.counter {
			t.Fatalf("seed %d: ends with %+v, want %+v", seed, unread, read)
		}
	}
}
