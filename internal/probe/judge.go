package probe

import (
	"cmp"
	"fmt"
	"slices"

	"cdrbus/internal/cdr"
)

// axis is a time of a record by which a window may select.
type axis struct {
	name string
	of   func(*Item) int64
}

var (
	byReport  = axis{"report time", func(i *Item) int64 { return i.Report }}
	byRelease = axis{"release time", func(i *Item) int64 { return i.Release }}
	byStart   = axis{"start time", func(i *Item) int64 { return i.Start }}
)

// The verdicts on what a window selects by.
const (
	selectsByEnd      = "end"
	selectsByStart    = "start"
	selectsByCreation = "creation"
)

// axisOf is the time in the records that a verdict names, if it is one.
func axisOf(verdict string) (axis, bool) {
	switch verdict {
	case selectsByEnd:
		return byReport, true
	case selectsByStart:
		return byStart, true
	}
	return axis{}, false
}

const (
	// enough is how many records at least make a sample.
	enough = 20
	// somewhat is how many records prove that an exception is no accident.
	somewhat = 3
	// exposureSeconds is how long before the start of a window a record counts as
	// exposed: created a little after its report time, it would be in the window.
	// enoughExposed of them that all stay away exclude a delay of that order.
	exposureSeconds = 30
	enoughExposed   = 12
)

// outside counts the records of windows by where a time of theirs lies.
type outside struct{ within, before, after int }

func (o *Observations) outside(axis axis) outside {
	var n outside
	for _, r := range o.feedReadings() {
		for _, item := range r.distinct() {
			switch at := cdr.Instant(seconds(axis.of(item))); {
			case at == 0:
			case at < r.Span.StartInclusive:
				n.before++
			case at > r.Span.EndExclusive: // the second of the end may belong to it
				n.after++
			default:
				n.within++
			}
		}
	}
	return n
}

// exposed counts the records that are known to have a report time shortly before
// the start of a window that was read later.
func (o *Observations) exposed() int {
	known := map[identity]int64{}
	for _, r := range o.feedReadings() {
		r.items(func(item *Item) { known[item.ID] = seconds(item.Report) })
	}
	starts := map[cdr.Instant]bool{}
	for _, r := range o.feedReadings() {
		if r.answered() || r.isEmpty() {
			starts[r.Span.StartInclusive] = true
		}
	}
	exposed := 0
	for _, at := range known {
		for start := range starts {
			if ago := int64(start) - at; at != 0 && ago > 0 && ago <= exposureSeconds {
				exposed++
				break
			}
		}
	}
	return exposed
}

// missed counts the records whose report time lies in a whole window that they did
// not come with, though they came with another.
func (o *Observations) missed() int {
	known := map[identity]cdr.Instant{}
	for _, r := range o.feedReadings() {
		r.items(func(item *Item) { known[item.ID] = cdr.Instant(seconds(item.Report)) })
	}
	missed := map[identity]bool{}
	for _, r := range o.feedReadings() {
		if !r.Complete && !r.isEmpty() {
			continue
		}
		came := r.distinct()
		for id, at := range known {
			if _, there := came[id]; !there && r.Span.Contains(at) {
				missed[id] = true
			}
		}
	}
	return len(missed)
}

// judgeSelection holds the times of what windows return against their bounds. By
// creation, which no record tells, report times lie outside at the beginning, for
// such records were created a little later than the call ended; and they are
// missing where they seem to belong, else it is the window that begins earlier.
func judgeSelection(o *Observations) Finding {
	report, start, exposed, missed := o.outside(byReport), o.outside(byStart), o.exposed(), o.missed()
	counts := []Count{
		{"records with report time inside of their window", report.within}, {"before it", report.before}, {"after it", report.after},
		{"records with start time inside of their window", start.within}, {"before it", start.before}, {"after it", start.after},
		{"records known up to 30 s before the start of a window", exposed},
		{"records known with report time inside of a whole window that did not come with it", missed},
	}
	n := report.within + report.before + report.after
	reportKept, startKept := report.before+report.after == 0, start.before+start.after == 0
	startBroken := start.before+start.after >= somewhat
	reportBroken := report.before+report.after >= somewhat
	switch {
	case n < enough:
		return cannotTell("too few records came to tell", counts...)
	case reportKept && startBroken && exposed >= enoughExposed:
		return Finding{selectsByEnd, Certain, "By the end of the call (report time): every report time lies in its window, start times do not, and what ended shortly before a window stayed outside.", counts}
	case reportKept && startBroken:
		return cannotTell("By the end of the call, or by creation shortly after it, not by its start: too few calls ended right before a window to tell.", counts...)
	case startKept && reportBroken && report.before == 0:
		return Finding{selectsByStart, Certain, "By the start of the call: every start time lies in its window, report times lie behind it too.", counts}
	case startBroken && report.before >= somewhat && report.after == 0 && missed >= somewhat:
		return Finding{selectsByCreation, Certain, "By a time that is in no record, later than report time: creation. Report times lie before their windows, and none behind.", counts}
	}
	return cannotTell("The times that came fit several answers.", counts...)
}

// judgeStartBound looks for records in the very second in which a window begins.
func judgeStartBound(o *Observations) Finding {
	axis, known := axisOf(judgeSelection(o).Verdict)
	if !known {
		return cannotTell("That needs to be known by which time windows select.")
	}
	in, out := o.atBound(axis, func(r *Reading) cdr.Instant { return r.Span.StartInclusive })
	return judgeBound(in, out, "inclusive", "exclusive", "begins")
}

// judgeEndBound does the same for the end. Where the time that selects is in no
// record, windows of a second that adjoin show whether they share records.
func judgeEndBound(o *Observations) Finding {
	axis, known := axisOf(judgeSelection(o).Verdict)
	if !known {
		return o.judgeAdjoining()
	}
	in, out := o.atBound(axis, func(r *Reading) cdr.Instant { return r.Span.EndExclusive })
	return judgeBound(in, out, "inclusive", "exclusive", "ends")
}

func judgeBound(in, out int, inclusive, exclusive, verb string) Finding {
	counts := []Count{{"records in the second in which a window " + verb + " that came with it", in}, {"that did not", out}}
	switch {
	case in == 0 && out == 0:
		return cannotTell("No record is known in the second in which a window "+verb+".", counts...)
	case out == 0:
		return Finding{inclusive, Certain, "Yes: the records of that second came with the window.", counts}
	case in >= 5*out:
		return Finding{inclusive, Seen, "Yes: nearly all records of that second came with the window; the others may have appeared later.", counts}
	case in == 0:
		return Finding{exclusive, Certain, "No: the records of that second did not come with the window.", counts}
	}
	return cannotTell("Some records of that second came with the window and some did not: the feed compares finer than by the second, or records appeared meanwhile.", counts...)
}

// atBound counts the records that lie in the second of a bound of a whole window,
// by whether they came with it. All other windows say which records there are.
func (o *Observations) atBound(axis axis, bound func(*Reading) cdr.Instant) (in, out int) {
	atSecond := map[cdr.Instant]map[identity]bool{}
	for _, r := range o.feedReadings() {
		if r.Why == forRecent {
			continue // records may still appear
		}
		r.items(func(item *Item) {
			at := cdr.Instant(seconds(axis.of(item)))
			if atSecond[at] == nil {
				atSecond[at] = map[identity]bool{}
			}
			atSecond[at][item.ID] = true
		})
	}
	for _, r := range o.feedReadings() {
		if !r.Complete && !r.isEmpty() || r.Why == forRecent {
			continue
		}
		came := r.distinct()
		for id := range atSecond[bound(r)] {
			if _, there := came[id]; there {
				in++
			} else {
				out++
			}
		}
	}
	return in, out
}

// judgeAdjoining compares whole windows of which one begins where the other ends.
// If both hold that second they share its records. That they share none proves
// something only for a record of a window of one second: were both bounds
// inclusive, it would be in the window before or in the one behind as well.
func (o *Observations) judgeAdjoining() Finding {
	shared, alone := 0, 0
	for _, r := range o.feedReadings() {
		before, after := o.neighbours(r)
		for id := range r.distinct() {
			_, inBefore := before[id]
			_, inAfter := after[id]
			switch {
			case inBefore, inAfter:
				shared++
			case before != nil && after != nil && r.Span.Duration().Seconds() == 1:
				alone++
			}
		}
	}
	counts := []Count{{"records in two windows that adjoin", shared}, {"records of a second in neither neighbour", alone}}
	switch {
	case shared > 0 && alone == 0:
		return Finding{"inclusive", Certain, "Yes: windows that adjoin share records.", counts}
	case shared == 0 && alone > 0:
		return Finding{"exclusive", Certain, "No: windows of one second that adjoin share no record.", counts}
	}
	return cannotTell("Too few records lie where windows adjoin, and by which time windows select is in no record.", counts...)
}

// neighbours returns the records of the whole windows before and behind; nil
// where there is none.
func (o *Observations) neighbours(r *Reading) (before, after map[identity]*Item) {
	whole := func(n *Reading) bool { return (n.Complete || n.isEmpty()) && n.Why != forRecent }
	if !whole(r) {
		return nil, nil
	}
	for _, n := range o.feedReadings() {
		switch {
		case !whole(n):
		case n.Span.EndExclusive == r.Span.StartInclusive:
			before = n.distinct()
		case n.Span.StartInclusive == r.Span.EndExclusive:
			after = n.distinct()
		}
	}
	return before, after
}

// judgeOrder counts, for each time of a record, how often it goes back from one
// record of a page to the next.
func judgeOrder(o *Observations) Finding {
	var found []Finding
	var counts []Count
	for _, axis := range []axis{byReport, byStart, byRelease} {
		up, down := o.steps(axis)
		counts = append(counts, Count{"times that " + axis.name + " rises within a page", up}, Count{"that it falls", down})
		switch {
		case down == 0 && up >= enough:
			found = append(found, Finding{"ascending by " + axis.name, Seen, "Yes, ascending by " + axis.name + ".", nil})
		case up == 0 && down >= enough:
			found = append(found, Finding{"descending by " + axis.name, Seen, "Yes, descending by " + axis.name + ".", nil})
		}
	}
	up, down := o.steps(byReport)
	switch {
	case up+down < enough:
		return cannotTell("Too few records came on one page to tell.", counts...)
	case len(found) > 0:
		found[0].Counts = counts
		return found[0]
	}
	return Finding{"none", Seen, "No: not by any time that a record tells.", counts}
}

// steps counts how a time goes from record to record within pages.
func (o *Observations) steps(axis axis) (up, down int) {
	for _, r := range o.feedReadings() {
		for i := range r.Pages {
			last := int64(0)
			for j := range r.Pages[i].Items {
				at := axis.of(&r.Pages[i].Items[j])
				if last != 0 && at > last {
					up++
				}
				if last != 0 && at != 0 && at < last {
					down++
				}
				if at != 0 {
					last = at
				}
			}
		}
	}
	return up, down
}

// judgeRepeats looks at the records of a page that were on the page before. The
// cursor is a time, so those that share the instant at which a page ends may have
// to come again; any others do not.
func judgeRepeats(o *Observations) Finding {
	axis, known := axisOf(judgeSelection(o).Verdict)
	if !known {
		axis = byReport
	}
	edges, same, earlier, most := 0, 0, 0, 0
	for _, r := range o.feedReadings() {
		for i := 1; i < len(r.Pages); i++ {
			if len(r.Pages[i].Items) == 0 || len(r.Pages[i-1].Items) == 0 {
				continue
			}
			edges++
			atEnd, before := repeated(r.Pages[i-1].Items, r.Pages[i].Items, axis)
			same, earlier, most = same+atEnd, earlier+before, max(most, atEnd+before)
		}
	}
	counts := []Count{{"page edges", edges}, {"repeated records of the instant at which a page ends", same}, {"of an earlier one", earlier}, {"most at an edge", most}}
	switch {
	case edges == 0:
		return cannotTell("No window had two pages with records.", counts...)
	case same+earlier == 0:
		return Finding{"none", Seen, "No: not at any edge.", counts}
	case earlier == 0:
		return Finding{"same instant", Seen, "Only those that share the instant at which a page ends.", counts}
	}
	return Finding{"some", Certain, fmt.Sprintf("Yes: up to %d records.", most), counts}
}

// repeated counts the records of a page that come again on the next, by whether
// they are of the page's last instant.
func repeated(page, next []Item, axis axis) (atEnd, before int) {
	last := int64(0)
	at := map[identity]int64{}
	for i := range page {
		at[page[i].ID] = axis.of(&page[i])
		last = max(last, axis.of(&page[i]))
	}
	for i := range next {
		when, again := at[next[i].ID]
		if !again {
			continue
		}
		delete(at, next[i].ID)
		if when == last {
			atEnd++
		} else {
			before++
		}
	}
	return atEnd, before
}

// judgeDoubles counts the records that come twice within a page.
func judgeDoubles(o *Observations) Finding {
	records, same, other := 0, 0, 0
	for _, r := range o.Readings {
		for i := range r.Pages {
			seen := map[identity]uint64{}
			for j := range r.Pages[i].Items {
				item := &r.Pages[i].Items[j]
				content, twice := seen[item.ID]
				switch {
				case !twice:
					records++
					seen[item.ID] = item.Content
				case content == item.Content:
					same++
				default:
					other++
				}
			}
		}
	}
	counts := []Count{{"records", records}, {"doubles with the same content", same}, {"with another", other}}
	switch {
	case records == 0:
		return cannotTell("No record came.")
	case same+other == 0 && records < 100:
		return cannotTell("None did, but only few records came.", counts...)
	case same+other == 0:
		return Finding{"none", Seen, "No: none did.", counts}
	}
	return Finding{"some", Certain, "Yes, some do.", counts}
}

// judgeInstant finds the most crowded millisecond.
func judgeInstant(o *Observations) Finding {
	at := map[int64]map[identity]bool{}
	most := 0
	for _, r := range o.feedReadings() {
		r.items(func(item *Item) {
			if item.Report == 0 {
				return
			}
			if at[item.Report] == nil {
				at[item.Report] = map[identity]bool{}
			}
			at[item.Report][item.ID] = true
			most = max(most, len(at[item.Report]))
		})
	}
	if most == 0 {
		return cannotTell("No record with a report time came.")
	}
	return Finding{fmt.Sprint(most), Seen, fmt.Sprintf("Up to %d shared one millisecond of report time.", most), []Count{{"most records in one millisecond", most}}}
}

// biggest returns the key with the largest value; the zero value of an empty map.
func biggest[K cmp.Ordered](counts map[K]int) (best K) {
	most := -1
	for _, key := range slices.Sorted(keysOf(counts)) {
		if counts[key] > most {
			best, most = key, counts[key]
		}
	}
	return best
}
