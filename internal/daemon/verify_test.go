package daemon

import (
	"slices"
	"testing"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/internal/eventlog"
	"cdrbus/offsets"
	"cdrbus/poller"
)

// TestVerificationWants: the memory of a verification follows the span that was asked
// for, not the topic.
func TestVerificationWants(t *testing.T) {
	start := cdr.InstantOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	v := &verification{source: "acme"}
	span := cdr.Span{StartInclusive: start, EndExclusive: start.Add(time.Hour)}
	at := func(d time.Duration) int64 { return start.Add(d).Time().UnixMilli() }
	for _, c := range []struct {
		name  string
		event eventlog.Event
		want  bool
	}{
		{"within", eventlog.Event{Source: "acme", ReportTimeMillis: at(0)}, true},
		{"at its end", eventlog.Event{Source: "acme", ReportTimeMillis: at(time.Hour)}, false},
		{"before", eventlog.Event{Source: "acme", ReportTimeMillis: at(0) - 1000}, false},
		{"another source's", eventlog.Event{Source: "globex", ReportTimeMillis: at(0)}, false},
		{"without a time", eventlog.Event{Source: "acme"}, true},
		{"a revision from before", eventlog.Event{Source: "acme", ReportTimeMillis: at(-time.Hour), Revision: true}, true},
		{"a revision from long before", eventlog.Event{Source: "acme", ReportTimeMillis: at(-25 * time.Hour), Revision: true}, false},
		{"without headers, within", eventlog.Event{ReportTimeMillis: at(0)}, true},
		{"without headers, behind", eventlog.Event{ReportTimeMillis: at(2 * time.Hour)}, true},
		{"without headers, far behind", eventlog.Event{ReportTimeMillis: at(26 * time.Hour)}, false},
	} {
		if got := v.wants(span, &c.event); got != c.want {
			t.Errorf("an event %s: wanted %t, want %t", c.name, got, c.want)
		}
	}
}

// TestDivide: no part has more events than asked for, unless one hour has, and the parts
// are the span.
func TestDivide(t *testing.T) {
	start := cdr.InstantOf(time.Date(2026, 11, 22, 0, 30, 0, 0, time.UTC))
	for _, c := range []struct {
		events []int64
		want   []int // hours of each part
	}{
		{nil, []int{0}},
		{[]int64{10, 0, 0}, []int{3}},
		{[]int64{4, 4, 4, 4}, []int{2, 2}},
		{[]int64{0, 11, 25, 0, 10}, []int{2, 2, 1}},
		{[]int64{10, 1, 10}, []int{1, 1, 1}},
		{make([]int64, 400), []int{168, 168, 64}},
	} {
		span := cdr.Span{StartInclusive: start, EndExclusive: start.Add(time.Duration(len(c.events)) * time.Hour)}
		at := start
		var got []int
		for _, part := range divide(span, c.events, 10) {
			if part.StartInclusive != at {
				t.Errorf("%v: a part begins at %s, the one before it ends at %s", c.events, part.StartInclusive, at)
			}
			at = part.EndExclusive
			got = append(got, int(part.Duration()/time.Hour))
		}
		if !slices.Equal(got, c.want) || at != span.EndExclusive {
			t.Errorf("%v is divided into %v hours, want %v", c.events, got, c.want)
		}
	}
}

// TestVerificationConcludes: unexpected is what the topic had of a part and the feed did
// not return, but neither what was published since, nor what the feed no longer answers
// for.
func TestVerificationConcludes(t *testing.T) {
	start := cdr.InstantOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	span := cdr.Span{StartInclusive: start, EndExclusive: start.Add(48 * time.Hour)}
	event := func(id byte, after time.Duration) *eventlog.Event {
		return &eventlog.Event{ReportID: cdr.ReportID{id}, Source: "acme", ReportTimeMillis: start.Add(after).Time().UnixMilli(), Offset: int64(id)}
	}
	conclude := func(skipped cdr.Span) offsets.Findings {
		v := &verification{source: "acme", job: offsets.Job{Span: span}, held: newMemory(1<<20, 1<<20).newHolding(), until: start, begunAt: start, missing: map[cdr.ReportID]lack{}}
		p := v.newPart(span)
		v.offer(p, event(1, 6*time.Hour))
		v.offer(p, event(2, 30*time.Hour))
		v.deliver(p)
		v.take()
		v.offer(p, event(3, 31*time.Hour)) // published since
		if !skipped.IsZero() {
			v.skip(skipped)
		}
		v.conclude(span.EndExclusive.Add(verifyMargin - time.Second))
		if v.until != start || len(v.parts) != 1 {
			t.Errorf("concluded until %s, before the feed is read beyond it", v.until)
		}
		v.conclude(span.EndExclusive.Add(verifyMargin))
		if v.until != span.EndExclusive || len(v.parts) != 0 || v.held.bytes != 0 {
			t.Errorf("concluded until %s, %d parts and %d bytes are kept", v.until, len(v.parts), v.held.bytes)
		}
		all, _ := v.result(true)
		return all
	}
	if f := conclude(cdr.Span{}); f.Events != 2 || f.Unexpected != 2 || len(f.Listed) != 2 {
		t.Errorf("%+v, want two unexpected", f)
	}
	if f := conclude(cdr.Span{StartInclusive: start, EndExclusive: start.Add(12 * time.Hour)}); f.Unexpected != 1 || f.Listed[0].At != "0:2" {
		t.Errorf("with a span that the feed does not answer for: %+v, want one unexpected", f)
	}
}

// TestWindowsOfParts: a window lies within one part, and a part is loaded before anything
// is read that may belong to it.
func TestWindowsOfParts(t *testing.T) {
	start := cdr.InstantOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	at := func(hours int) cdr.Instant { return start.Add(time.Duration(hours) * time.Hour) }
	span := func(from, to int) cdr.Span { return cdr.Span{StartInclusive: at(from), EndExclusive: at(to)} }
	v := &verification{limit: 10, span: span(-4, 124), parts: []*part{{span: span(0, 40)}, {span: span(40, 80)}}, unloaded: []cdr.Span{span(80, 120)}}
	for _, c := range []struct{ from, end cdr.Instant }{
		{at(-4), at(0)}, {at(0), at(40)}, {at(40) - 1, at(40)}, {at(40), at(76)}, {at(75), at(76)},
	} {
		if got := v.windowEnd(c.from); got != c.end {
			t.Errorf("from %s a window ends at %s, want %s", c.from, got, c.end)
		}
	}
	for _, c := range []struct {
		at    cdr.Instant
		n     int // events that are loaded
		wants bool
	}{{at(55), 0, false}, {at(56), 0, true}, {at(56), 11, false}, {at(76) - 1, 11, false}, {at(76), 11, true}} {
		if v.parts[1].table.n = c.n; v.wantsPart(c.at) != c.wants {
			t.Errorf("at %s, with %d events: the next part is wanted %t", c.at, c.n, !c.wants)
		}
	}
}

// TestPartBehindGivenUpSeconds: where the feed does not page on up to the next part, that
// one is loaded.
func TestPartBehindGivenUpSeconds(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	cut := cdr.InstantOf(now.Add(-20 * time.Hour))
	job := offsets.Job{Kind: offsets.Verify, Span: cdr.Span{StartInclusive: cut.Add(-24 * time.Hour), EndExclusive: cut.Add(10 * time.Hour)}}
	loaded := &part{span: cdr.Span{StartInclusive: job.Span.StartInclusive, EndExclusive: cut}}
	loaded.table.n = 10
	began := 0
	e := &errand{
		source: &source{plan: poller.State{Policy: poller.DefaultPolicy(cdr.Feed)}}, prepared: make(chan error, 1), ready: true,
		prepare: func() { began++ },
		state:   offsets.JobState{Job: job},
		plan:    poller.State{Policy: poller.DefaultPolicy(cdr.Feed)},
		verify:  &verification{job: job, span: job.Span, limit: 5, parts: []*part{loaded}, unloaded: []cdr.Span{{StartInclusive: cut, EndExclusive: job.Span.EndExclusive}}},
	}
	reach := e.verify.reach()
	e.ahead.Next = reach.Add(-5 * time.Second)
	if d := e.decide(poller.BudgetView{NextInitial: now}, now); d.Request == nil || d.Request.Span.EndExclusive != reach || began > 0 {
		t.Errorf("before that: %+v", d)
	}
	e.plan.GivenUp = []cdr.Span{{StartInclusive: e.ahead.Next, EndExclusive: reach}}
	if d := e.decide(poller.BudgetView{NextInitial: now}, now); d.Request != nil || began != 1 {
		t.Errorf("the part is not loaded: %+v", d)
	}
}

// TestVerificationRemembers: what was missed is known as long as the feed may return it
// again, and what the feed does not answer for is counted once.
func TestVerificationRemembers(t *testing.T) {
	start := cdr.InstantOf(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC))
	v := &verification{begunAt: start, skippedBy: 5, missing: map[cdr.ReportID]lack{{1}: {at: start}}}
	v.conclude(start.Add(12 * time.Hour)) // its window may have ended there
	if len(v.missing) != 1 {
		t.Error("a missing record is forgotten before the window behind it was read")
	}
	v.pruneAt = 0
	v.conclude(start.Add(48 * time.Hour))
	if len(v.missing) != 0 {
		t.Error("a missing record is never forgotten")
	}
	v.skip(cdr.Span{StartInclusive: start - 10, EndExclusive: start + 10})
	v.skip(cdr.Span{StartInclusive: start - 10, EndExclusive: start + 20}) // more of the same
	v.skip(cdr.Span{StartInclusive: start + 100, EndExclusive: start + 200})
	if all, some := v.skippedSeconds(start+1000), v.skippedSeconds(start+150); all != 125 || some != 75 {
		t.Errorf("%d s are skipped, and %d before the middle of the last skip; want 125 and 75", all, some)
	}
}
