package probe

import (
	"fmt"
	"slices"
	"time"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
)

func judgeLookback(o *Observations) Finding {
	for _, r := range o.of(forOldest) {
		count := Count{"records at the far end", r.count()}
		switch {
		case r.answered() && r.count() > 0:
			return Finding{"answered", Certain, "Yes: records came from the far end.", []Count{count}}
		case r.isEmpty():
			return cannotTell("The window at the far end is empty: there was no call, or the feed does not reach back so far.", count)
		case r.Status == 400:
			return Finding{"refused", Certain, "No: a window at the far end is refused. Shorten lookback.", []Count{{"answers 400", 1}}}
		}
	}
	return cannotTell("It was not asked, or not answered.")
}

// judgeTooWide looks whether records of the part that must be cut off came: the
// window ends with one whose records are known.
func judgeTooWide(o *Observations) Finding {
	asked := o.of(forTooWide)
	if len(asked) == 0 {
		return cannotTell("Not asked: the feed may count it against the client (--also-forbidden).")
	}
	r := asked[0]
	if r.Status == 400 {
		return Finding{"refused", Certain, "Refused with 400.", []Count{{"answers 400", 1}}}
	}
	if !r.answered() {
		return cannotTell(fmt.Sprintf("It was answered %d.", r.Status))
	}
	first, last := 0, 0
	axis, known := axisOf(judgeSelection(o).Verdict)
	if !known {
		axis = byReport
	}
	came := r.distinct()
	for _, item := range came {
		switch at := cdr.Instant(seconds(axis.of(item))); {
		case at >= r.Span.EndExclusive.Add(-tooMuch):
			last++
		case at < r.Span.StartInclusive.Add(tooMuch):
			first++
		}
	}
	atEnd := 0
	for _, known := range o.feedReadings() {
		for id, item := range known.distinct() {
			at := cdr.Instant(seconds(axis.of(item)))
			if _, there := came[id]; !there && r.Span.Contains(at) && at >= r.Span.EndExclusive.Add(-tooMuch/2) {
				atEnd++
			}
		}
	}
	counts := []Count{{"records of its first hour", first}, {"of its last hour", last}, {"known of its last half hour, that did not come", atEnd}}
	switch {
	case !r.Complete:
		return cannotTell("It was answered, but it has too many pages to see its end.", counts...)
	case last == 0 && first > 0 && atEnd >= somewhat:
		return Finding{"trimmed", Certain, "Trimmed without a word: the end is missing.", counts}
	case last > 0 && first > 0:
		return Finding{"answered", Certain, "Answered whole.", counts}
	}
	return cannotTell("It was answered, but too few records lie at its ends.", counts...)
}

// judgeTooOld compares the half of the window that is too old with the other.
func judgeTooOld(o *Observations) Finding {
	asked := o.of(forTooOld)
	if len(asked) == 0 {
		return cannotTell("Not asked: the feed may count it against the client (--also-forbidden).")
	}
	r := asked[0]
	edge := r.Span.StartInclusive.Add(tooMuch)
	older, younger := 0, 0
	r.items(func(item *Item) {
		// Half of the part that is too old counts: what selects may differ from
		// report time by minutes.
		switch at := cdr.Instant(seconds(item.Report)); {
		case at >= edge:
			younger++
		case at != 0 && at < edge.Add(-tooMuch/2):
			older++
		}
	})
	counts := []Count{{"records from before the lookback", older}, {"from within it", younger}}
	switch {
	case r.Status == 400:
		return Finding{"refused", Certain, "Refused with 400.", []Count{{"answers 400", 1}}}
	case older > 0:
		return Finding{"answered", Certain, "Answered: the feed reaches further back than lookback says.", counts}
	case younger >= somewhat && r.answered():
		return Finding{"trimmed", Certain, "Trimmed without a word: only what is young enough came.", counts}
	case r.isEmpty():
		return cannotTell("It was answered as empty: trimmed without a word, or there was no call.", counts...)
	}
	return cannotTell("Too few records came, or it was not answered.", counts...)
}

func judgeRetryAfter(o *Observations) Finding {
	forms := o.Wire.Waits
	if len(forms) == 0 {
		return cannotTell("No 429 came. --provoke-429 asks for one.")
	}
	var counts []Count
	for _, form := range slices.Sorted(keysOf(forms)) {
		counts = append(counts, Count{"answers 429 with Retry-After: " + string(form), forms[form]})
	}
	if len(forms) > 1 {
		return Finding{"several", Certain, "In more than one way.", counts}
	}
	form := string(biggest(forms))
	return Finding{form, Seen, map[string]string{"seconds": "Yes, in seconds.", "date": "Yes, as a date.", "absent": "No.", "garbage": "There is a Retry-After, but it says nothing."}[form], counts}
}

// judgeBucket relies on a limit that was met: with the bucket of cdr_feed used up,
// cdr_stream is refused or not.
func judgeBucket(o *Observations) Finding {
	try := o.Provoked
	if try == nil {
		return cannotTell("Not asked: it takes a 429 on purpose (--provoke-429).")
	}
	counts := []Count{{"requests of cdr_feed that were answered at once", try.Answered}}
	switch {
	case !try.Refused:
		return cannotTell("The feed allows more than the documented request a minute, and no 429 came.", counts...)
	case try.Stream == 429:
		return Finding{"shared", Certain, "Yes: with the bucket of cdr_feed used up, cdr_stream was refused.", counts}
	case slices.Contains([]int{200, 204, 404}, try.Stream):
		return Finding{"separate", Certain, "No: with the bucket of cdr_feed used up, cdr_stream was answered.", counts}
	}
	return cannotTell("cdr_stream was not asked, or is refused here for another reason.", counts...)
}

func judgeDate(o *Observations) Finding {
	w := &o.Wire
	counts := []Count{{"answers with Date", w.Dated}, {"without", w.Undated}}
	switch {
	case w.Dated+w.Undated == 0:
		return cannotTell("Nothing was answered.")
	case w.Dated == 0:
		return Finding{"absent", Seen, "No answer carried a Date.", counts}
	}
	skew := median(w.Skews)
	counts = append(counts, Count{"milliseconds that the server is ahead (median)", int(skew.Milliseconds())})
	says := "the server's clock agrees with this machine's within a second."
	if skew.Abs() > time.Second {
		says = "the server's clock is " + poller.DescribeSkew(skew) + "."
	}
	if w.Undated > 0 {
		return Finding{"mixed", Certain, "Some answers carried none; " + says, counts}
	}
	return Finding{"on", Seen, "Every answer carried one; " + says, counts}
}

func judgeGzip(o *Observations) Finding {
	w := &o.Wire
	counts := []Count{{"pages with gzip", w.Packed}, {"without", w.Plain}}
	switch {
	case w.Packed+w.Plain == 0:
		return cannotTell("No page came.", counts...)
	case w.Plain == 0:
		return Finding{"on", Seen, "Yes.", counts}
	case w.Packed == 0:
		return Finding{"off", Seen, "No.", counts}
	}
	return Finding{"mixed", Certain, "Some are.", counts}
}

// changes compares the readings of the youngest window, one after the other.
type changes struct {
	records, readings int
	appeared, revised int
	oldest            time.Duration // report time to appearance, at most
	watched           time.Duration
	fields            map[string]int // folded names of those that changed
}

func (o *Observations) changes() changes {
	c := changes{fields: map[string]int{}}
	var first *Reading
	var known map[identity]*Item
	for _, r := range o.of(forRecent) {
		if !r.Complete && !r.isEmpty() {
			continue
		}
		now := r.distinct()
		c.readings++
		if first == nil {
			first, known = r, now
			c.records = len(now)
			continue
		}
		c.watched = r.At.Sub(first.At)
		for id, item := range now {
			before, there := known[id]
			switch {
			case !there:
				c.appeared++
				if item.Report != 0 {
					c.oldest = max(c.oldest, r.At.Sub(time.UnixMilli(item.Report)))
				}
			case before.Content != item.Content:
				c.revised++
				for name, sum := range item.fields {
					if before.fields[name] != sum {
						c.fields[name]++
					}
				}
				for name := range before.fields {
					if _, there := item.fields[name]; !there {
						c.fields[name]++
					}
				}
			}
			known[id] = item
		}
	}
	return c
}

func judgeLate(o *Observations) Finding {
	c := o.changes()
	counts := []Count{{"records at first", c.records}, {"readings", c.readings}, {"seconds watched", int(c.watched.Seconds())}, {"records that appeared later", c.appeared}}
	switch {
	case c.readings < 2:
		return cannotTell("The youngest window was not read twice (--for).", counts...)
	case c.appeared > 0:
		return Finding{"some", Certain, fmt.Sprintf("%d of %d appeared while the window was watched for %s, the latest up to %s after its report time. What comes later than that was not watched.",
			c.appeared, c.records+c.appeared, c.watched.Round(time.Second), c.oldest.Round(time.Second)), counts}
	case c.records < enough:
		return cannotTell("None appeared, but there were too few records.", counts...)
	}
	return Finding{"none seen", Seen, fmt.Sprintf("None in %s among %d records. What comes later than that was not watched.", c.watched.Round(time.Second), c.records), counts}
}

func judgeRevised(o *Observations) Finding {
	c := o.changes()
	counts := []Count{{"records at first", c.records}, {"readings", c.readings}, {"seconds watched", int(c.watched.Seconds())}, {"changes of content", c.revised}}
	switch {
	case c.readings < 2:
		return cannotTell("The youngest window was not read twice (--for).", counts...)
	case c.revised > 0:
		for _, name := range slices.Sorted(keysOf(c.fields)) {
			counts = append(counts, Count{"changes of " + presentable(o.Fields.display(name)), c.fields[name]})
		}
		return Finding{"some", Certain, fmt.Sprintf("Yes: %d changed while they were watched for %s.", c.revised, c.watched.Round(time.Second)), counts}
	case c.records < enough:
		return cannotTell("None changed, but there were too few records.", counts...)
	}
	return Finding{"none seen", Seen, fmt.Sprintf("None in %s among %d records. What changes later than that was not watched.", c.watched.Round(time.Second), c.records), counts}
}
