package offsets

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/committed"
)

// commitWindow publishes ids in a window and writes its journal as a commit does.
func commitWindow(t testing.TB, l *memoryLog, s *Seen, w Window, ids ...int) {
	t.Helper()
	p := s.Begin(w)
	for _, id := range ids {
		p.Check(numberedID(id), 1)
	}
	first := l.partition("ids", 1).bounds.HighWatermark
	for _, value := range p.AppendJournal(nil, NoReportTimes) {
		l.append("ids", 1, string(w.ID.Source), value)
	}
	p.Adopt(first)
}

func journalPosition(source cdr.SourceName, counter cdr.Counter, journalFrom int64) Position {
	p := at(source, counter, 0)
	p.JournalFrom, p.LastWindow.Purpose = journalFrom, cdr.Live
	return p
}

func seenOptions(positions ...Position) SeenOptions {
	return SeenOptions{Topic: "ids", Partition: 1, Positions: positions}
}

func restoreSeen(t testing.TB, l *memoryLog, o SeenOptions) (*Seen, SeenRestore) {
	t.Helper()
	results, err := RestoreSeen(context.Background(), l, o)
	if err != nil {
		t.Fatal(err)
	}
	return results[0].Seen, results[0]
}

// has returns which of the numbered IDs below n the set knows.
func has(s *Seen, n int) (ids []int) {
	for i := range n {
		if id := numberedID(i); s.table.find(&id).found {
			ids = append(ids, i)
		}
	}
	return ids
}

func ofSource(w Window, source cdr.SourceName) Window {
	w.ID.Source = source
	return w
}

func TestRestoreSeenOfAGroup(t *testing.T) {
	l := newLog()
	s := NewSeen(0)
	other := NewSeen(0)
	commitWindow(t, l, s, window(0, schemaA), 1, 2)
	commitWindow(t, l, other, ofSource(window(0, schemaA), "foreign"), 3)
	commitWindow(t, l, s, ofSource(window(0, schemaA), "beta"), 4)
	commitWindow(t, l, s, window(1, schemaA), 2, 5)
	l.append("ids", 1, "nobody", []byte("garbage of nobody's source"))

	options := seenOptions(journalPosition("acme", 2, s.JournalFrom()), journalPosition("beta", 1, s.JournalFrom()))
	var told []int64
	options.Grown = func(bytes int64) { told = append(told, bytes) }
	back, result := restoreSeen(t, l, options)
	if got, want := has(back, 10), []int{1, 2, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("the set has %v, want %v", got, want)
	}
	if !slices.IsSorted(told) || len(told) != 3 || told[2] != back.Bytes() {
		t.Errorf("told of %v bytes, and it has %d", told, back.Bytes())
	}
	if result.From != 0 || result.Chunks != 3 || result.IDs != 4 || result.Cut != nil || len(result.Refused) != 0 {
		t.Errorf("result is %+v", result)
	}
	if back.JournalFrom() != s.JournalFrom() {
		t.Errorf("JournalFrom() = %d, want %d", back.JournalFrom(), s.JournalFrom())
	}
}

func TestRestoreSeenOfNobodyBegins(t *testing.T) {
	l := newLog()
	commitWindow(t, l, NewSeen(0), window(0, schemaA), 1)
	l.reads = nil
	s, result := restoreSeen(t, l, seenOptions())
	if s.Len() != 0 || s.JournalFrom() != 2 || result.From != 2 || len(l.reads) != 0 {
		t.Errorf("a new group has %d records from %d, result %+v, after reads %v; want none from 2 and no read", s.Len(), s.JournalFrom(), result, l.reads)
	}
}

// TestRestoreSeenOfANewSource: its first position says where it begins and nothing of
// the journal, which is not read, nor missed, on its account.
func TestRestoreSeenOfANewSource(t *testing.T) {
	l := newLog()
	s := NewSeen(0)
	for n := range 5 {
		commitWindow(t, l, s, window(n, schemaA), n)
	}
	l.cut("ids", 1, 4)
	_, result := restoreSeen(t, l, seenOptions(journalPosition("acme", 5, 6), at("fresh", 1, 0)))
	if result.From != 6 || result.Cut != nil {
		t.Errorf("result is %+v, want from 6 without a cut", result)
	}
	if _, result = restoreSeen(t, l, seenOptions(at("fresh", 1, 0))); result.From != 10 || result.Cut != nil {
		t.Errorf("of the new source alone the result is %+v, want from the end without a cut", result)
	}
}

// TestRestoreSeenReadsEachFromItsOwnOffset: sources of a group share one set, but each
// position knows from where its own source's records still count.
func TestRestoreSeenReadsEachFromItsOwnOffset(t *testing.T) {
	l := newLog()
	s := NewSeen(0)
	for n := range 5 {
		commitWindow(t, l, s, window(n, schemaA), 10+n)
		commitWindow(t, l, s, ofSource(window(n, schemaA), "beta"), 20+n)
	}
	back, result := restoreSeen(t, l, seenOptions(journalPosition("acme", 5, 12), journalPosition("beta", 5, 6)))
	if got, want := has(back, 30), []int{13, 14, 21, 22, 23, 24}; !slices.Equal(got, want) || result.From != 6 {
		t.Errorf("the set has %v from %d, want %v from 6", got, result.From, want)
	}
}

func TestRestoreSeenHorizon(t *testing.T) {
	l := newLog()
	s := NewSeen(0)
	for n := range 12 { // two hours
		commitWindow(t, l, s, window(n, schemaA), n)
	}
	p := s.Begin(window(0, schemaA)) // a sweep of the first hour revises one of the second
	p.Check(numberedID(7), 2)
	l.append("ids", 1, "acme", p.AppendJournal(nil, NoReportTimes)[0])
	p.Adopt(24)

	options := seenOptions(journalPosition("acme", 12, 0))
	options.Horizon = day.Add(time.Hour)
	back, _ := restoreSeen(t, l, options)
	if got, want := has(back, 20), []int{6, 7, 8, 9, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("the set has %v, want %v", got, want)
	}
	expect(t, back.Begin(window(20, schemaA)), 7, 2, Known)
	s.EvictBefore(options.Horizon)
	if back.JournalFrom() != s.JournalFrom() {
		t.Errorf("JournalFrom() = %d, and of the set that lived on %d", back.JournalFrom(), s.JournalFrom())
	}
}

func TestRestoreSeenAfterRetention(t *testing.T) {
	l := newLog()
	s := NewSeen(0)
	for n := range 5 {
		commitWindow(t, l, s, window(n, schemaA), n)
	}
	l.cut("ids", 1, 4)
	options := seenOptions(journalPosition("acme", 5, 0))
	back, result := restoreSeen(t, l, options)
	oldest := day.Time().Add(4 * time.Second) // memoryLog's time of offset 4
	if want := (JournalCut{Wanted: 0, LogStart: 4, Before: oldest}); result.Cut == nil || *result.Cut != want {
		t.Errorf("cut is %+v, want %+v", result.Cut, want)
	}
	if got, want := has(back, 10), []int{2, 3, 4}; !slices.Equal(got, want) || result.From != 4 || len(result.Refused) != 0 {
		t.Errorf("the set has %v, result %+v; want %v", got, result, want)
	}
	// Whatever was committed before the horizon would have been left out anyway.
	options.Horizon = cdr.InstantOf(oldest)
	if _, result := restoreSeen(t, l, options); result.Cut != nil {
		t.Errorf("a cut that does not matter is told: %+v", result.Cut)
	}
	l.cut("ids", 1, 10)
	if s, result := restoreSeen(t, l, options); result.Cut == nil || !result.Cut.Before.IsZero() || s.Len() != 0 {
		t.Errorf("with nothing left the cut is %+v and the set has %d", result.Cut, s.Len())
	}
}

func TestRestoreSeenRefuses(t *testing.T) {
	two := numberedEntries(2)
	chunk := func(counter cdr.Counter, index, of int) []byte {
		h := exampleHeader()
		h.Counter = counter
		return appendChunk(nil, h, index, of, two)
	}
	later := chunk(1, 0, 1)
	later[4], later[5] = 2, 2
	reseal(later)
	var text strings.Builder
	for _, c := range []struct {
		name   string
		code   RefusalCode
		values [][]byte
	}{
		{"garbage", JournalUnreadable, [][]byte{chunk(1, 0, 1), []byte("hello")}},
		{"a tombstone", JournalUnreadable, [][]byte{nil}},
		{"a later version", JournalOfLater, [][]byte{later}},
		{"beyond the position", JournalAhead, [][]byte{chunk(4, 0, 1)}},
		{"a counter twice", JournalTorn, [][]byte{chunk(2, 0, 1), chunk(2, 0, 1)}},
		{"a counter back", JournalTorn, [][]byte{chunk(2, 0, 1), chunk(1, 0, 1)}},
		{"a chunk missing", JournalTorn, [][]byte{chunk(2, 0, 3), chunk(2, 2, 3)}},
		{"the last chunk missing", JournalTorn, [][]byte{chunk(2, 0, 2), chunk(3, 0, 1)}},
		{"the first chunk missing", JournalTorn, [][]byte{chunk(2, 0, 1), chunk(3, 1, 2)}},
		{"the end missing", JournalTorn, [][]byte{chunk(3, 0, 2)}},
		{"a chunk of another count", JournalTorn, [][]byte{chunk(3, 0, 2), chunk(3, 1, 3)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog()
			for _, value := range c.values {
				l.append("ids", 1, "acme", value)
			}
			commitWindow(t, l, NewSeen(0), ofSource(window(0, schemaA), "beta"), 9)
			back, result := restoreSeen(t, l, seenOptions(journalPosition("acme", 3, 0), journalPosition("beta", 1, 0)))
			if len(result.Refused) != 1 || result.Refused[0].Code != c.code || result.Refused[0].Source != "acme" {
				t.Fatalf("refused are %v, want acme with %s", result.Refused, c.code)
			}
			if got := has(back, 10); !slices.Contains(got, 9) {
				t.Errorf("the set has %v, and beta's 9 is missing", got)
			}
			fmt.Fprintf(&text, "%s:\n\t%s: %v\n", c.name, c.code, result.Refused[0])
			// The remedy mends it, but where another fault lies behind.
			var offset int64
			_, argument, given := strings.Cut(result.Refused[0].Remedy, "--journal-from ")
			if given && c.name != "a chunk of another count" {
				if _, err := fmt.Sscan(argument, &offset); err != nil {
					t.Fatal(err)
				}
				if _, result := restoreSeen(t, l, seenOptions(journalPosition("acme", 3, offset))); len(result.Refused) != 0 {
					t.Errorf("after the remedy refused are %v", result.Refused)
				}
			}
			// In AtLeastOnce only what cannot be read at all is refused.
			options := seenOptions(journalPosition("acme", 3, 0))
			options.Mode = AtLeastOnce
			_, result = restoreSeen(t, l, options)
			if unreadable := c.code == JournalUnreadable || c.code == JournalOfLater; unreadable != (len(result.Refused) == 1) {
				t.Errorf("in AtLeastOnce refused are %v", result.Refused)
			}
		})
	}
	golden(t, "journal_refusals.txt", []byte(text.String()))
}

// TestRestoreSeenRefusesALostJournal: a position that counts on what the topic never
// had; the rest of the group goes on.
func TestRestoreSeenRefusesALostJournal(t *testing.T) {
	l := newLog()
	commitWindow(t, l, NewSeen(0), ofSource(window(0, schemaA), "beta"), 9)
	back, result := restoreSeen(t, l, seenOptions(journalPosition("acme", 3, 3), journalPosition("beta", 1, 0)))
	if len(result.Refused) != 1 || result.Refused[0].Code != JournalLost {
		t.Fatalf("refused are %v", result.Refused)
	}
	const want = "restore source acme (topic ids, partition 1, offset 2): its journal of published IDs begins at offset 3, but the partition ends here: records were lost, or the topic was made anew; run `cdrbus offsets set acme --journal-from 2 -c FILE`, which publishes again what the feed still returns of the windows before it"
	if got := result.Refused[0].Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := has(back, 10); !slices.Equal(got, []int{9}) {
		t.Errorf("the set has %v, want 9", got)
	}
}

func TestRestoreSeenAtLeastOnceTrustsOnlyThePosition(t *testing.T) {
	l := newLog()
	s := NewSeen(0)
	for n := range 4 {
		commitWindow(t, l, s, window(n, schemaA), n)
	}
	options := seenOptions(journalPosition("acme", 3, 0))
	options.Mode = AtLeastOnce
	back, result := restoreSeen(t, l, options)
	if got, want := has(back, 10), []int{0, 1, 2}; !slices.Equal(got, want) || result.Ahead != 1 {
		t.Errorf("the set has %v and %d chunks were ahead, want %v and 1", got, result.Ahead, want)
	}
}

// TestRestoreSeenOfManyGroups: many groups get what each of them gets alone, from
// one reading of the journal.
func TestRestoreSeenOfManyGroups(t *testing.T) {
	l := newLog()
	acme, beta := NewSeen(0), NewSeen(0)
	for i := range 3 {
		commitWindow(t, l, acme, window(i, schemaA), 3*i, 3*i+1)
		commitWindow(t, l, beta, ofSource(window(i, schemaA), "beta"), 3*i+1, 3*i+2)
	}
	groups := []SeenOptions{seenOptions(journalPosition("acme", 3, 0)), seenOptions(), seenOptions(journalPosition("beta", 3, 3)), seenOptions(journalPosition("beta", 2, 0))}
	l.reads = nil
	together, err := RestoreSeen(context.Background(), l, groups...)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ids/1[0,12)"}; !slices.Equal(l.reads, want) {
		t.Errorf("the journal was read as %v, want %v", l.reads, want)
	}
	for i, o := range groups {
		seen, alone := restoreSeen(t, l, o)
		if got, want := has(together[i].Seen, 10), has(seen, 10); !slices.Equal(got, want) {
			t.Errorf("group %d has %v among others, and %v alone", i, got, want)
		}
		got, want := together[i], alone
		got.Seen, want.Seen = nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("group %d is restored as %+v among others, and as %+v alone", i, got, want)
		}
	}
	if len(has(together[0].Seen, 10)) == 0 || len(together[3].Refused) != 1 {
		t.Errorf("the groups prove nothing: %+v", together)
	}
}

// TestRestoreSeenCutBeforeAnothersRecord: how old the oldest commit that is left is,
// the record of any group tells, though only its own take it in.
func TestRestoreSeenCutBeforeAnothersRecord(t *testing.T) {
	l := newLog()
	acme, beta := NewSeen(0), NewSeen(0)
	for i := range 3 {
		commitWindow(t, l, acme, window(i, schemaA), i)
		commitWindow(t, l, beta, ofSource(window(i, schemaA), "beta"), i)
	}
	l.cut("ids", 1, 6)
	results, err := RestoreSeen(context.Background(), l, seenOptions(journalPosition("acme", 3, 0)), seenOptions(journalPosition("beta", 3, 6)))
	if err != nil {
		t.Fatal(err)
	}
	oldest := day.Time().Add(6 * time.Second) // memoryLog's time of offset 6, which is beta's
	if want := (JournalCut{Wanted: 0, LogStart: 6, Before: oldest}); results[0].Cut == nil || *results[0].Cut != want {
		t.Errorf("cut is %+v, want %+v", results[0].Cut, want)
	}
	if results[1].Cut != nil || results[0].Chunks != 1 || results[1].Chunks != 2 {
		t.Errorf("results are %+v", results)
	}
}

func TestRestoreSeenPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, where := range []string{"bounds of ids", "read of ids"} {
		l := newLog()
		commitWindow(t, l, NewSeen(0), window(0, schemaA), 1)
		l.fail[where] = broken
		if results, err := RestoreSeen(context.Background(), l, seenOptions(journalPosition("acme", 1, 0))); !errors.Is(err, broken) || results != nil {
			t.Errorf("%s: got %v", where, err)
		}
	}
	l := newLog()
	l.partition("ids", 1).bounds = committed.Bounds{LastStable: 2, HighWatermark: 3}
	var hanging *HangingTransaction
	if _, err := RestoreSeen(context.Background(), l, seenOptions(journalPosition("acme", 1, 0))); !errors.As(err, &hanging) {
		t.Errorf("got %v, want a hanging transaction", err)
	}
}
