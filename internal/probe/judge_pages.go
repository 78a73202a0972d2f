package probe

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"cdrbus/internal/cdr"
	"cdrbus/poller"
)

func keysOf[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

func judgeCursor(o *Observations) Finding {
	counts := []Count{{"next links with a cursor", o.Wire.Cursors}, {"at a whole second", o.Wire.Whole}}
	for _, r := range o.Readings {
		if r.Stuck {
			counts = append(counts, Count{"windows whose cursor stood still", 1})
		}
	}
	switch {
	case o.Wire.Cursors-o.Wire.Whole >= 1:
		return Finding{"milliseconds", Certain, "It is a time in milliseconds.", counts}
	case o.Wire.Whole >= somewhat:
		return Finding{"seconds", Seen, "It is a time in whole seconds.", counts}
	}
	return cannotTell("Too few next links came.", counts...)
}

func judgeLinkForm(o *Observations) Finding {
	w := &o.Wire
	counts := []Count{{"next links in one bracket", w.Single}, {"in two", w.Double}, {"ways in which they are written", len(w.Shapes)}, {"Link headers that cannot be read", w.BadLinks}}
	switch {
	case w.Single+w.Double == 0:
		return cannotTell("No next link came.", counts...)
	case len(w.Shapes) > 1:
		return Finding{"several", Certain, "In more than one way.", counts}
	case w.Double == 0:
		return Finding{"single", Seen, "In one bracket.", counts}
	}
	return Finding{"double", Seen, "In two brackets.", counts}
}

// The meanings of totalCount.
const (
	totalAbsent    = "absent"
	totalWindow    = "window"
	totalRemaining = "remaining"
	totalWrong     = "wrong"
	totalMixed     = "mixed"
)

// judgeTotal holds the totals of whole windows of several pages against what came.
func judgeTotal(o *Observations) Finding {
	meanings := map[string]int{}
	off, stable := 0, true
	for _, r := range o.Readings {
		if !r.Complete || len(r.Pages) < 2 {
			continue
		}
		meaning, by := r.meaningOfTotal()
		if meaning == "" {
			continue
		}
		meanings[meaning]++
		off = max(off, by)
		stable = stable && r.totalIsStable()
	}
	var counts []Count
	windows := 0
	for _, meaning := range slices.Sorted(keysOf(meanings)) {
		counts = append(counts, Count{"windows of several pages: " + meaning, meanings[meaning]})
		windows += meanings[meaning]
	}
	if windows == 0 {
		return cannotTell("No window of several pages was read whole.")
	}
	counts = append(counts, Count{"most records that a window differs by", off})
	if len(meanings) > 1 {
		return Finding{totalMixed, Seen, "Not always the same: see the counts. Records that appeared between two pages may account for small differences.", counts}
	}
	switch biggest(meanings) {
	case totalAbsent:
		return Finding{totalAbsent, Seen, "There is no totalCount.", counts}
	case totalRemaining:
		return Finding{totalRemaining, Seen, "It is what remains behind the page, and right.", counts}
	case totalWindow:
		return Finding{totalWindow, Seen, "It is what the window holds, each record once, and right, on all pages.", counts}
	}
	says := "It is neither what the window holds nor what remains."
	if stable {
		says = "It is the same on all pages, but not what the window holds."
	}
	if off <= 2 && windows < somewhat {
		return cannotTell(says+" The difference is so small that records may have appeared between the pages.", counts...)
	}
	return Finding{totalWrong, Seen, says, counts}
}

// meaningOfTotal compares the total of each link of a whole window with the
// distinct records of the window, and with those of the pages behind the link. It
// is "" where both are the same, for all records lie behind the only link.
func (r *Reading) meaningOfTotal() (meaning string, off int) {
	window := len(r.distinct())
	behind := map[identity]bool{}
	asWindow, asRemaining, absent, links := 0, 0, 0, 0
	for i := len(r.Pages) - 1; i >= 0; i-- {
		if r.Pages[i].next != nil {
			links++
			switch total := int(r.Pages[i].TotalCount); {
			case total < 0:
				absent++
			default:
				if total == window {
					asWindow++
				}
				if total == len(behind) {
					asRemaining++
				}
				off = max(off, abs(total-window))
			}
		}
		for j := range r.Pages[i].Items {
			behind[r.Pages[i].Items[j].ID] = true
		}
	}
	if asWindow == links && asRemaining == links {
		return "", 0
	}
	switch links {
	case absent:
		return totalAbsent, 0
	case asWindow:
		return totalWindow, 0
	case asRemaining:
		return totalRemaining, 0
	}
	return totalWrong, off
}

func (r *Reading) totalIsStable() bool {
	first := r.Pages[0].TotalCount
	for _, page := range r.Pages {
		if page.next != nil && page.TotalCount != first {
			return false
		}
	}
	return true
}

func abs(n int) int { return max(n, -n) }

// fullPage is the largest page that has a page behind it, of windows asked with a
// max: what the feed made of that max. 0: none.
func (o *Observations) fullPage(askedMax int) (largest, pages, mostWithout int) {
	for _, r := range o.Readings {
		if r.Max != askedMax {
			continue
		}
		for _, page := range r.Pages {
			if page.next == nil {
				mostWithout = max(mostWithout, len(page.Items))
				continue
			}
			pages++
			largest = max(largest, len(page.Items))
		}
	}
	return largest, pages, mostWithout
}

func judgeFloor(o *Observations) Finding {
	size, pages, without := o.fullPage(smallMax)
	counts := []Count{{"pages of max=10 with another behind", pages}, {"records on the fullest", size}, {"on the fullest last page", without}}
	switch {
	case size == smallMax:
		return Finding{"obeyed", Seen, "It is obeyed: max=10 gives 10 records.", counts}
	case size > smallMax:
		return Finding{strconv.Itoa(size), Seen, fmt.Sprintf("max=10 is moved to %d without a word.", size), counts}
	case without > smallMax:
		return Finding{"more than 10", Certain, fmt.Sprintf("max=10 is not obeyed: %d records came on a page, and none behind.", without), counts}
	}
	return cannotTell("No window held more than 10 records, or max=10 was not answered.", counts...)
}

func judgeCeiling(o *Observations) Finding {
	size, pages, without := o.fullPage(largeMax)
	refused, timedOut, smaller := 0, 0, 0
	for _, r := range o.Readings {
		switch {
		case r.Max == largeMax && r.Status == 400:
			refused++
		case r.Max == largeMax && r.Status == 504:
			timedOut++
		case r.Why == forCeiling && r.Max == poller.SmallestPageSize && (r.answered() || r.isEmpty()):
			smaller++
		}
	}
	counts := []Count{{"pages of max=5000 with another behind", pages}, {"records on the fullest", size}, {"on the fullest last page", without},
		{"answers 400 to max=5000", refused}, {"answers 504", timedOut}, {"same windows answered with max=500", smaller}}
	switch {
	case refused > 0 && smaller > 0 && pages == 0:
		return Finding{"refused", Certain, "No: max=5000 is refused, and the same window is answered with max=500.", counts}
	case timedOut > 0 && smaller > 0 && pages == 0:
		return Finding{"times out", Seen, "No: max=5000 times out, and the same window is answered with max=500.", counts}
	case size == largeMax, without == largeMax:
		return Finding{strconv.Itoa(largeMax), Certain, "Yes: a page of 5000 came.", counts}
	case size > 0:
		return Finding{strconv.Itoa(size), Seen, fmt.Sprintf("No: max=5000 is moved to %d without a word.", size), counts}
	case without > poller.SmallestPageSize:
		return cannotTell(fmt.Sprintf("At least %d: the window held no more. A busier feed, or a wider window, would tell.", without), counts...)
	}
	return cannotTell("No window held enough records, or max=5000 was not answered.", counts...)
}

func judgeEmptyFeed(o *Observations) Finding { return o.judgeEmpty(cdr.Feed) }

func judgeEmptyStream(o *Observations) Finding {
	for _, r := range o.of(forStream) {
		if !r.answered() && !r.isEmpty() && r.Status != 0 {
			return cannotTell(fmt.Sprintf("cdr_stream answers %d here.", r.Status), Count{"requests", 1})
		}
	}
	if len(o.of(forStream)) == 0 {
		return cannotTell("cdr_stream was not asked: url ends in neither cdr_feed nor cdr_stream, or the probe ended before.")
	}
	return o.judgeEmpty(cdr.Stream)
}

func (o *Observations) judgeEmpty(endpoint cdr.Endpoint) Finding {
	forms := map[string]int{}
	tried := 0
	for _, r := range o.Readings {
		if r.Endpoint != endpoint || r.Why == forTooWide || r.Why == forTooOld {
			continue
		}
		if r.Why == forEmpty {
			tried++
		}
		switch {
		case r.Status == 200 && r.Complete && r.count() == 0:
			forms["200"]++
		case r.Status == 204:
			forms["204"]++
		case r.Status == 404 && r.NoRecords:
			forms["404"]++
		}
	}
	counts := []Count{{"windows asked in search of an empty one", tried}}
	for _, form := range slices.Sorted(keysOf(forms)) {
		counts = append(counts, Count{"empty windows answered " + form, forms[form]})
	}
	switch len(forms) {
	case 0:
		return cannotTell("No window without records was found. Run it at night, or at a weekend.", counts...)
	case 1:
		form := biggest(forms)
		return Finding{form, Seen, map[string]string{
			"200": "With 200 and no items.", "204": "With 204 and no body.", "404": "With 404 and a message that begins with \"No CDRs\".",
		}[form], counts}
	}
	return Finding{"several", Certain, "In more than one way.", counts}
}

func judgeLifetime(o *Observations) Finding {
	if len(o.Lifetime) == 0 {
		return cannotTell("Not asked: it takes half an hour (--link-lifetime), and a window of several pages.")
	}
	good, refused := -1, -1
	for _, try := range o.Lifetime {
		minutes := int(try.Age.Minutes())
		if try.Status == 200 {
			good = minutes
		} else {
			refused = minutes
		}
	}
	counts := []Count{{"minutes at which it was answered last", max(good, 0)}, {"minutes at which it was refused", max(refused, 0)}}
	if refused < 0 {
		return Finding{fmt.Sprintf("at least %dm", good), Seen, fmt.Sprintf("At least %d minutes.", good), counts}
	}
	return Finding{fmt.Sprintf("%dm to %dm", max(good, 0), refused), Seen, fmt.Sprintf("More than %d, less than %d minutes.", max(good, 0), refused), counts}
}
